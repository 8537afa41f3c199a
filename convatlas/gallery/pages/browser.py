"""What the explorer of a network and the comparison of any two units are given: data, and nothing drawn."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from markupsafe import Markup

from convatlas.files import read_json
from convatlas.gallery.pages.explorer import read_explorer_files
from convatlas.gallery.pages.network import NetworkData
from convatlas.gallery.pages.site import GalleryContext, SitePage
from convatlas.statistics.units import is_never_positive

SCALE_NAMES = {
    "per_tile": "unit",
    "per_layer": "layer",
    "shared": "network",
}  # as the config and a page call them
MAX_EARLY_CONVS = 6  # convolutions among which an explorer finds what it opens on
MAX_INITIAL_BYTES = 150_000  # bytes of pictures that a page loads before it is asked, at most
LAYER_KEYS = ["name", "slug", "type", "kind", "role", "ordinal", "stage", "receptive_field", "shape", "parameters",
        "units", "signed", "tile", "columns", "rows", "sheets", "filters", "deconv", "strongest"]  # fmt: skip


@dataclass(frozen=True)
class ExplorerData:
    """One network's explorer: the files and texts that it needs in the site, and what its page is given.

    `network` is what is told of the network and its layers; `thumbs` whether its images are light enough to
    be shown as pictures at once; `scale` the one to begin with, as the page calls it.
    """

    files: dict[str, Path]
    generated_files: dict[str, str]
    network: dict[str, Any]
    show_thumbnails: bool
    scale: str

    @property
    def page_json(self) -> Markup:
        """What the network's page has within itself, as JSON."""
        return dump_script_json(
            {"network": self.network, "thumbs": self.show_thumbnails, "scale": self.scale}
        )

    @property
    def slugs(self) -> dict[str, str]:
        """What the files of each layer are called."""
        return {layer["name"]: layer["slug"] for layer in self.network["layers"]}


def read_explorer_data(
    page: NetworkData, atlas: GalleryContext, plates: dict[str, str]
) -> ExplorerData | None:
    """Read what the explorer of a network shows; None where its sprites were not drawn.

    `plates` has the file in networks/ with the plates of each layer that has any, "" for the explorer's own.
    """
    folder = atlas.results / page.name / "atlas"
    if not folder.is_dir():
        return None
    files, written, index = read_explorer_files(page, atlas.results)
    numbers = {layer["slug"]: read_json(folder / f"units/{layer['slug']}.json") for layer in index["layers"]}
    layers = _describe_layers(page, index["layers"], plates)
    network = {
        "name": page.name,
        "images": index["images"],
        "inputs": index["inputs"],
        "range": _find_value_ranges(numbers.values()),
        "opening": _choose_initial_view(folder, layers, index["images"], numbers),
        "classes": page.network["classes"],
        "set": index["set"],
        "layers": layers,
    }
    pictures = [folder / given["file"] for given in index["inputs"].values()]
    thumbs = sum(path.stat().st_size for path in pictures) < MAX_INITIAL_BYTES
    written |= {f"atlas/{page.name}/index.js": f"convatlas.add({dump_script_json(network)});\n"}
    scale = SCALE_NAMES[atlas.config["networks"][page.name]["views"]["scale"]]
    return ExplorerData(files, written, network, thumbs, scale)


def make_pages(atlas: GalleryContext) -> Iterator[SitePage]:
    """The page that sets any two units side by side, of whichever networks, layers and images."""
    names = [page.name for page in atlas.networks if (atlas.results / page.name / "atlas").is_dir()]
    if names:
        given = dump_script_json({"networks": names})
        yield SitePage("compare.html", "compare.html", "Compare", {"given": given}, "Across networks")


def dump_script_json(value: Any) -> Markup:
    """JSON that is safe within a page's script element, and as a script of its own."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _describe_layers(
    page: NetworkData, given: list[dict[str, Any]], plates: dict[str, str]
) -> list[dict[str, Any]]:
    """What the page is told of each layer of atlas.json, without what does not hold or is as usual."""
    described = {layer["name"]: layer for layer in page.layers}
    # The classes' scores: units of the last layer that has weights, and of those that follow it.
    last = max((n for n, layer in enumerate(given) if layer["kind"] in ("conv", "linear")), default=0)
    told = []
    for n, layer in enumerate(given):
        more = {key: described[layer["name"]][key] for key in ("kernel", "module", "notes")}
        more["named"] = n >= last and layer["units"] == len(page.network["classes"])
        more["negative"] = is_never_positive(layer["type"])
        more["plates"] = plates.get(layer["name"])
        every = {key: layer[key] for key in LAYER_KEYS} | more
        usual = {"module": layer["name"], "sheets": 1}
        told.append(
            {key: value for key, value in every.items() if value not in (None, False, [], usual.get(key))}
        )
    return told


def _find_value_ranges(numbers: Iterable[dict[str, Any]]) -> dict[str, list[float]]:
    """The lowest and highest value of the whole network: of maps, filters and projections, by their kind."""
    low, high, weight, projected = 0.0, 0.0, 0.0, {"map": 0.0, "peak": 0.0}
    for told in numbers:
        for maps in told["maps"].values():
            low, high = min(low, *maps["low"]), max(high, *maps["high"])
        weight = max([weight, *(told["filters"] or {"most": []})["most"]])
        for kinds in (told["deconv"] or {}).values():
            projected |= {kind: max([projected[kind], *most]) for kind, most in kinds.items()}
    ends = {"filters": weight, "projections": projected["map"], "peaks": projected["peak"]}
    return {"maps": [low, high]} | {kind: [-most, most] for kind, most in ends.items()}


def _choose_initial_view(
    folder: Path,
    layers: list[dict[str, Any]],
    images: list[dict[str, Any]],
    numbers: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What the explorer opens on: in the first convolution of the early ones that has any, a unit that
    resembles a classical feature, of several the one of widest range, on the image where that is widest.

    Brightness alone tells little: it counts where no early layer has anything else. Where there is no match
    at all the first layer's unit of widest range is shown. Layers with heavy sheets are left for later.
    """

    def is_light(layer: dict[str, Any]) -> bool:
        sheets = [folder / f"maps/{layer['slug']}/{image['name']}.png" for image in images]
        return max(path.stat().st_size for path in sheets) < MAX_INITIAL_BYTES

    convolutions = [layer for layer in layers if layer["kind"] == "conv" and max(layer["tile"]) > 1]
    early = list(islice(filter(is_light, convolutions), MAX_EARLY_CONVS))
    found = []
    for place, layer in enumerate(early or layers[:1]):
        told = numbers[layer["slug"]]
        for unit in range(layer["units"]):
            like = told["like"] and told["like"][unit]
            worth = (1 if like["words"] == "brightness" else 2) if like else 0
            maps = [told["maps"][image["name"]] for image in images]
            widths = [one["high"][unit] - one["low"][unit] for one in maps]
            image = images[widths.index(max(widths))]["name"]
            opening = {"layer": layer["name"], "unit": unit, "image": image}
            found.append(((worth, -place, max(widths)), opening))
    return max(found, key=lambda one: one[0])[1]
