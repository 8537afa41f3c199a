"""The data of the explorer: images and numbers of results/<network>/atlas/, as files of the site.

Numbers come as scripts, since a page that is opened from a file may load scripts, but not JSON.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from markupsafe import Markup

from convatlas.files import read_json
from convatlas.gallery.concept_data import NamedUnits
from convatlas.gallery.explorer_types import (
    ExplorerImage,
    ExplorerIndex,
    ExplorerLayer,
    ExplorerNetwork,
    InitialView,
    LayerUnits,
    OptimisedUnits,
    SpriteLayer,
    ViewKind,
)
from convatlas.gallery.feature_pictures import list_shown_units, name_layers
from convatlas.gallery.layer_pages import find_figure_pages
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.sheet_scripts import SHEET_FOLDERS, format_data_script, list_sheets
from convatlas.statistics.units import is_never_positive

SCALE_NAMES = {"per_tile": "unit", "per_layer": "layer", "shared": "network"}  # config -> address of a page
MAX_EARLY_CONVS = 6  # convolutions among which the unit that is shown first is chosen
MAX_INITIAL_BYTES = 150_000  # of images that a page loads at once
LAYER_KEYS = (
    "name",
    "slug",
    "type",
    "kind",
    "role",
    "ordinal",
    "stage",
    "receptive_field",
    "shape",
    "parameters",
    "units",
    "signed",
    "tile_size",
    "columns",
    "rows",
    "sheets",
    "filters",
    "deconv",
    "top_activations",
)
RECORD_KEYS = ("kernel", "module", "notes", "receptive_start", "receptive_step")  # of layers.json


@dataclass(frozen=True)
class ExplorerData:
    """The explorer of one network.

    Attributes:
        files: Folders to copy, by their places in the site.
        sheets: Sprite sheets to write as scripts, by their places in the site.
        generated_files: Scripts to write, by their places in the site.
        network: What the scripts read of the network and its layers.
        show_thumbnails: Whether the inputs are small enough to be loaded at once.
        scale: The initial scale: "unit", "layer" or "network".
    """

    files: Mapping[str, Path]
    sheets: Mapping[str, Path]
    generated_files: Mapping[str, str | bytes]
    network: ExplorerNetwork
    show_thumbnails: bool
    scale: str

    @property
    def page_json(self) -> Markup:
        """Return the JSON that the network's page embeds."""
        return dump_script_json(
            {"network": self.network, "show_thumbnails": self.show_thumbnails, "scale": self.scale}
        )

    @property
    def slugs(self) -> dict[str, str]:
        """Return the slug in each layer's file names, by the layer's name."""
        return {layer["name"]: layer["slug"] for layer in self.network["layers"]}


def has_sprites(network: NetworkData) -> bool:
    """Return whether the explorer's sprites of a network were drawn.

    Args:
        network: The network.
    """
    return (network.results.folder / "atlas").is_dir()


def read_explorer_data(
    network: NetworkData,
    scale: str,
    named: NamedUnits = MappingProxyType({}),
    unit_costs: Mapping[str, dict[int, str]] = MappingProxyType({}),
    links_optimised: bool = False,
) -> ExplorerData | None:
    """Read what the explorer of a network shows.

    Args:
        network: The network.
        scale: `views.scale` of the config.
        named: The concepts of named units, by layer and unit.
        unit_costs: What the network loses without a unit, as a sentence by layer and unit.
        links_optimised: Whether the network has a page of optimised images, to which units link.

    Returns:
        None where the sprites were not drawn.
    """
    if not has_sprites(network):
        return None
    folder = network.results.folder / "atlas"
    index = cast(ExplorerIndex, read_json(folder / "atlas.json"))
    units = {
        layer["slug"]: cast(LayerUnits, read_json(folder / f"units/{layer['slug']}.json"))
        for layer in index["layers"]
    }
    for layer in index["layers"]:
        if named.get(layer["name"]):
            units[layer["slug"]]["concepts"] = {
                str(unit): "; ".join(entry.text for entry in entries)
                for unit, entries in sorted(named[layer["name"]].items())
            }
        if costs := unit_costs.get(layer["name"]):
            units[layer["slug"]]["ablation"] = costs
    explorer_network = ExplorerNetwork(
        name=network.name,
        levels=index["levels"],
        images=index["images"],
        inputs=index["inputs"],
        value_ranges=_find_value_ranges(units.values()),
        initial=_choose_initial_view(folder, index["layers"], index["images"], units),
        classes=network.description["classes"],
        dataset_pass=index["dataset_pass"],
        figure_files=_list_figure_files(network),
        layers=_describe_layers(
            network, index["layers"], list_optimised_units(network) if links_optimised else {}
        ),
    )
    site_folder = f"explorer/{network.name}"
    scripts: dict[str, str | bytes] = {
        f"{site_folder}/units/{slug}.js": format_units_script(network.name, slug, layer_units)
        for slug, layer_units in units.items()
    }
    scripts[f"{site_folder}/index.js"] = f"convatlas.registerNetwork({dump_script_json(explorer_network)});\n"
    input_bytes = sum((folder / image["file"]).stat().st_size for image in index["inputs"].values())
    return ExplorerData(
        files={
            f"{site_folder}/{path.name}": path
            for path in folder.iterdir()
            if path.is_dir() and path.name not in (*SHEET_FOLDERS, "units")
        },
        sheets={f"{site_folder}/{path.relative_to(folder).as_posix()}": path for path in list_sheets(folder)},
        generated_files=scripts,
        network=explorer_network,
        show_thumbnails=input_bytes < MAX_INITIAL_BYTES,
        scale=SCALE_NAMES[scale],
    )


def dump_script_json(value: Any) -> Markup:
    """Write JSON that is safe within a script element and as a part of a script.

    Args:
        value: What `json.dumps` accepts.

    Returns:
        The JSON without spaces, with `<`, `>` and `&` as escapes.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def format_units_script(network: str, slug: str, units: LayerUnits) -> bytes:
    """Write the script that hands the numbers of a layer's units to the explorer.

    Args:
        network: Name of the network.
        slug: The layer's name in file names.
        units: The numbers of the layer's units.

    Returns:
        One call of `convatlas.registerUnits`, with the numbers as deflated JSON, in UTF-8.
    """
    return format_data_script("registerUnits", [network, slug], units)


def list_optimised_units(network: NetworkData) -> dict[str, OptimisedUnits]:
    """Return the units that have an optimised image, by layer.

    Args:
        network: The network.
    """
    analysis = network.results.feature_visualisation
    if analysis is None:
        return {}
    slugs = name_layers(analysis)
    return {
        layer["layer"]: {
            "slug": slugs[layer["layer"]],
            "units": [unit["unit"] for unit in list_shown_units(layer, analysis)],
        }
        for layer in analysis["layers"]
        if layer["units"]
    }


def _describe_layers(
    network: NetworkData,
    sprite_layers: Sequence[SpriteLayer],
    optimised: Mapping[str, OptimisedUnits],
) -> list[ExplorerLayer]:
    """Describe each layer for the explorer's scripts, without null, false, empty and usual values."""
    layers = {layer["name"]: layer for layer in network.layers}
    figure_pages = find_figure_pages(network)
    page_numbers = {file: number for number, file in enumerate(_list_figure_files(network), 1)}
    # The class scores: units of the last layer that has weights, and of those that follow it.
    weighted = [n for n, layer in enumerate(sprite_layers) if layer["kind"] in ("conv", "linear")]
    first_score_layer = max(weighted, default=0)
    descriptions: list[ExplorerLayer] = []
    for n, sprite_layer in enumerate(sprite_layers):
        name = sprite_layer["name"]
        values: dict[str, Any] = {key: sprite_layer.get(key) for key in LAYER_KEYS}
        values |= {key: cast(Mapping[str, Any], layers[name])[key] for key in RECORD_KEYS}
        values["is_class_score"] = n >= first_score_layer and sprite_layer["units"] == len(
            network.description["classes"]
        )
        values["is_never_positive"] = is_never_positive(sprite_layer["type"])
        values["figures"] = page_numbers[figure_pages[name]] if name in figure_pages else None
        values["optimised"] = optimised.get(name)
        usual_values = {"module": name, "sheets": 1}
        descriptions.append(
            cast(
                ExplorerLayer,
                {
                    key: value
                    for key, value in values.items()
                    if value not in (None, False, [], usual_values.get(key))
                },
            )
        )
    return descriptions


def _list_figure_files(network: NetworkData) -> list[str]:
    """List the pages that have figures of layers, as find_figure_pages names them."""
    return list(dict.fromkeys(find_figure_pages(network).values()))


def _find_value_ranges(units: Iterable[LayerUnits]) -> dict[ViewKind, list[float]]:
    """Find the minimum and maximum over the whole network, by what a view shows."""
    lowest, highest, max_weight = 0.0, 0.0, 0.0
    max_projection = {"map": 0.0, "peak": 0.0}
    for layer_units in units:
        for maps in layer_units["maps"].values():
            lowest = min([lowest, *(low for low in maps["min"] if low is not None)])
            highest = max([highest, *(high for high in maps["max"] if high is not None)])
        if layer_units["filters"]:
            max_weight = max([max_weight, *layer_units["filters"]["max_abs"]])
        for magnitudes in (layer_units["deconv"] or {}).values():
            for kind, max_abs in magnitudes.items():
                max_projection[kind] = max([max_projection[kind], *max_abs])
    return {
        "maps": [lowest, highest],
        "filters": [-max_weight, max_weight],
        "projections": [-max_projection["map"], max_projection["map"]],
        "peaks": [-max_projection["peak"], max_projection["peak"]],
    }


def _choose_initial_view(
    folder: Path,
    layers: Sequence[SpriteLayer],
    images: Sequence[ExplorerImage],
    units: Mapping[str, LayerUnits],
) -> InitialView:
    """Choose the layer, unit and image that the explorer shows first.

    Units that match a classical feature other than brightness come first, then those that match brightness,
    then others; among them those of earlier convolutions, then those with the widest range of values on one
    image. Layers with large sprites are not considered.
    """

    def is_small(layer: SpriteLayer) -> bool:
        paths = [folder / f"maps/{layer['slug']}/{image['name']}.png" for image in images]
        return max(path.stat().st_size for path in paths) < MAX_INITIAL_BYTES

    convolutions = [layer for layer in layers if layer["kind"] == "conv" and max(layer["tile_size"]) > 1]
    early: list[SpriteLayer] = []
    for layer in convolutions:
        if len(early) == MAX_EARLY_CONVS:
            break
        if is_small(layer):
            early.append(layer)
    candidates: list[tuple[tuple[int, int, float], InitialView]] = []
    for n, layer in enumerate(early or layers[:1]):
        layer_units = units[layer["slug"]]
        for unit in range(layer["units"]):
            match = layer_units["matches"] and layer_units["matches"][unit]
            interest = 0
            if match:
                interest = 1 if match["description"] == "brightness" else 2
            maps = [layer_units["maps"][image["name"]] for image in images]
            widths = [(ranges["max"][unit] or 0) - (ranges["min"][unit] or 0) for ranges in maps]
            image = images[widths.index(max(widths))]["name"]
            view = InitialView(layer=layer["name"], unit=unit, image=image)
            candidates.append(((interest, -n, max(widths)), view))
    return max(candidates, key=lambda candidate: candidate[0])[1]
