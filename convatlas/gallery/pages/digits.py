"""The page of the digits: one picture of what caused every unit's answer to each, and which answers most."""

from collections.abc import Iterator
from typing import Any

from convatlas.files import Npz
from convatlas.gallery.pages.network import NetworkData
from convatlas.gallery.pages.site import GalleryContext, SitePage
from convatlas.names import describe_classes

TILES_PER_LINE = 4  # tiles side by side where the picture is shown a digit at a time, on a phone
LABEL_HEIGHT = 40  # pixels of the picture over each tile there, for its number


def make_pages(atlas: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of the images chosen by class, if networks look at such and project their units."""
    networks = [
        {
            "page": page,
            "called": describe_classes(select_images(page), page.network),
            "plates": [plate | {"parts": split_figure(plate)} for plate in page.get_figures("digits")],
            "answers": find_most_active_units(atlas, page),
        }
        for page in atlas.networks
        if page.get_figures("digits")
    ]
    if networks:
        names = list(dict.fromkeys(network["called"] for network in networks))
        title = names[0][0].upper() + names[0][1:] if len(names) == 1 else "Class by class"
        values = {"networks": networks, "heading_text": title, "across": TILES_PER_LINE, "room": LABEL_HEIGHT}
        yield SitePage("digits.html", "digits.html", title, values, "Across networks")


def select_images(page: NetworkData) -> list[dict[str, Any]]:
    """The images of a network that are on its plates of digits."""
    names = page.get_figures("digits")[0]["cells"]["images"]
    return [image for image in page.images if image["name"] in names]


def find_most_active_units(atlas: GalleryContext, page: NetworkData) -> dict[str, Any]:
    """Which unit of each projected layer answers most to each image, and how many answer nowhere.

    `all_alike` has the layers where it is the same unit for all images, with that unit.
    """
    layers = list(dict.fromkeys(group["layer"] for group in page.get_figures("digits")[0]["cells"]["groups"]))
    rows = []
    for image in select_images(page):
        outputs = Npz(atlas.results / page.name / f"activations/{image['name']}.npz")
        most = {layer: outputs[layer].reshape(len(outputs[layer]), -1).max(1) for layer in layers}
        strongest = {layer: int(values.argmax()) for layer, values in most.items()}
        rows.append(
            {
                "image": image,
                "strongest": [(unit, float(most[layer][unit])) for layer, unit in strongest.items()],
                "dead": sum(int((values <= 0).sum()) for values in most.values()),
            }
        )
    alike = {
        layer: units.pop()
        for n, layer in enumerate(layers)
        if len(units := {row["strongest"][n][0] for row in rows}) == 1
    }
    return {"layers": layers, "rows": rows, "all_alike": alike if len(rows) > 1 else {}}


def split_figure(plate: dict[str, Any]) -> list[dict[str, Any]]:
    """Take a plate apart into what is shown of each image on a phone, as places in the plate, in pixels.

    Of each group the units in lines of a few, with the place of their tiles, and the place of its scale.
    """
    cells = plate["cells"]
    found = []
    for row, image in enumerate(cells["images"]):
        groups = []
        for group in cells["groups"]:
            lines = []
            for first in range(0, len(group["units"]), TILES_PER_LINE):
                left = group["left"] + first * cells["pitch"]
                lines.append(
                    {
                        "x": left,
                        "y": group["tops"][row],
                        "units": group["units"][first : first + TILES_PER_LINE],
                    }
                )
            groups.append({"layer": group["layer"], "lines": lines, "bar": group["bar"]})
        top = cells["groups"][0]["tops"][row]
        found.append({"image": image, "input": {"x": cells["input"], "y": top}, "groups": groups})
    return found
