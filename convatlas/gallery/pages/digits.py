"""The page of the digits: one picture of what caused every unit's answer to each, and which answers most."""

from collections.abc import Iterator
from typing import Any

from convatlas.files import Npz
from convatlas.gallery.pages.network import Page
from convatlas.gallery.pages.site import Atlas, Sheet
from convatlas.names import called

ACROSS = 4  # tiles side by side where the picture is shown a digit at a time, on a phone
ROOM = 40  # pixels of the picture over each tile there, for its number


def sheets(atlas: Atlas) -> Iterator[Sheet]:
    """Yield the page of the images chosen by class, if networks look at such and project their units."""
    networks = [
        {
            "page": page,
            "called": called(chosen(page), page.network),
            "plates": [plate | {"parts": parts(plate)} for plate in page.of("digits")],
            "answers": answers(atlas, page),
        }
        for page in atlas.pages
        if page.of("digits")
    ]
    if networks:
        names = list(dict.fromkeys(network["called"] for network in networks))
        title = names[0][0].upper() + names[0][1:] if len(names) == 1 else "Class by class"
        values = {"networks": networks, "heading_text": title, "across": ACROSS, "room": ROOM}
        yield Sheet("digits.html", "digits.html", title, values, "Across networks")


def chosen(page: Page) -> list[dict[str, Any]]:
    """The images of a network that are on its plates of digits."""
    names = page.of("digits")[0]["cells"]["images"]
    return [image for image in page.images if image["name"] in names]


def answers(atlas: Atlas, page: Page) -> dict[str, Any]:
    """Which unit of each projected layer answers most to each image, and how many answer nowhere.

    `all_alike` has the layers where it is the same unit for all images, with that unit.
    """
    layers = list(dict.fromkeys(group["layer"] for group in page.of("digits")[0]["cells"]["groups"]))
    rows = []
    for image in chosen(page):
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


def parts(plate: dict[str, Any]) -> list[dict[str, Any]]:
    """Take a plate apart into what is shown of each image on a phone, as places in the plate, in pixels.

    Of each group the units in lines of a few, with the place of their tiles, and the place of its scale.
    """
    cells = plate["cells"]
    found = []
    for row, image in enumerate(cells["images"]):
        groups = []
        for group in cells["groups"]:
            lines = []
            for first in range(0, len(group["units"]), ACROSS):
                left = group["left"] + first * cells["pitch"]
                lines.append(
                    {"x": left, "y": group["tops"][row], "units": group["units"][first : first + ACROSS]}
                )
            groups.append({"layer": group["layer"], "lines": lines, "bar": group["bar"]})
        top = cells["groups"][0]["tops"][row]
        found.append({"image": image, "input": {"x": cells["input"], "y": top}, "groups": groups})
    return found
