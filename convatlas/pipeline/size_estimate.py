"""About how large a network's part of the gallery becomes: told before it is made, with what bounds it."""

import math
from pathlib import Path
from typing import Any

from convatlas import UserError
from convatlas.files import read_json
from convatlas.names import choose_layers, name_images
from convatlas.plotting.sprites import MAX_DRAWN_WEIGHTS, MAX_TILE_CHANNELS

# Bytes, measured on the default networks and on a ResNet-152: of a value of a map for each bit of its level,
# of a unit's numbers on an image, of a weight, of a value of a projection, of the plates of a layer, and of a
# value of a projection on an image's plates, which have DRAWN of them at most; and of a value of what excites
# units most, and its plates, which have FOLLOWED a layer; and of a pixel of a photograph on a layer's plates.
(
    MAP_BYTES_PER_BIT,
    UNIT_NUMBERS_BYTES,
    WEIGHT_BYTES,
    PROJECTION_VALUE_BYTES,
    LAYER_FIGURE_BYTES,
    PROJECTION_FIGURE_VALUE_BYTES,
    TOP_ACTIVATION_VALUE_BYTES,
) = 0.085, 30, 0.6, 0.16, 100_000, 0.8, 0.1
PHOTOGRAPH_PIXEL_BYTES = 2
MAX_PROJECTION_FIGURE_VALUES, MAX_TOP_ACTIVATION_FIGURE_VALUES = 3_200_000, 500_000
REDUCING_SETTINGS = {
    "maps and filters": "fewer images, views.atlas.layers or views.atlas.levels",
    "projections": "fewer images, views.deconv.layers or views.deconv.units",
    "what excites units most": "views.strongest.project or views.strongest.units",
    "plates": "views.layers or views.n_images",
}

LayerList = list[dict[str, Any]]


def describe_expected_sizes(
    networks: dict[str, Any], files: dict[str, list[str]], results: Path
) -> list[str]:
    """What can be told of a config's networks before they are made, a line each.

    That is of those whose layers were recorded before; `files` are each network's own images.
    """
    lines, unknown = [], []
    for name, network in networks.items():
        images = len(name_images(network["images"] | {"files": files[name]}))
        try:
            views = network["views"] | ({} if network.get("dataset") else {"strongest": None})
            lines.append(describe_size(name, read_json(results / name / "layers.json"), views, images))
        except UserError:  # never recorded, or not with the layers that are asked for now
            unknown.append(f"{name} ({format_image_count(images)})")
    if unknown:
        lines.append(
            f"{', '.join(unknown)}: the size is told once the layers are recorded. All of a ResNet-152 takes "
            "25 MB an image; views.atlas.layers and views.atlas.levels bound it"
        )
    return lines


def describe_size(name: str, layers: LayerList, views: dict[str, Any], images: int) -> str:
    """Say how large a network's part becomes, and which setting bounds what is most of it."""
    found = estimate_part_sizes(layers, views, images)
    most = max(found, key=lambda key: found[key])
    return (
        f"{name} takes about {format_megabytes(sum(found.values()))}, most of it {most}: {format_image_count(images)}, "
        f"{len(choose_explored_layers(layers, views))} layers explored; less with {REDUCING_SETTINGS[most]}"
    )


def estimate_part_sizes(layers: LayerList, views: dict[str, Any], images: int) -> dict[str, float]:
    """Bytes, by the keys of BOUNDS; `layers` is layers.json, `views` as in the config."""
    names = choose_explored_layers(layers, views)
    projected = _count_projection_values(layers, views["deconv"])
    sprites = sum(projected[name] for name in projected if name in names) * PROJECTION_VALUE_BYTES
    plates = min(sum(projected.values()), MAX_PROJECTION_FIGURE_VALUES) * PROJECTION_FIGURE_VALUE_BYTES
    return {
        "maps and filters": estimate_sprite_sheets(layers, names, images, views["atlas"]["levels"]),
        "projections": images * (sprites + plates),
        "what excites units most": _estimate_top_activations(layers, views),
        "plates": len(choose_layers(layers, views["layers"], "views.layers"))
        * _estimate_layer_figures(layers, views, images),
    }


def _estimate_layer_figures(layers: LayerList, views: dict[str, Any], images: int) -> float:
    """Bytes of the plates of a layer, which show some of the images too."""
    channels, *size = _get_input_shape(layers)
    shown = images if views["n_images"] == "all" else min(images, views["n_images"])
    return LAYER_FIGURE_BYTES + PHOTOGRAPH_PIXEL_BYTES * shown * math.prod(size) * (channels == 3)


def estimate_sprite_sheets(layers: LayerList, names: list[str], images: int, levels: int) -> float:
    """Bytes of the maps and filters of the layers `names`, and of their numbers."""
    found = [layer for layer in layers if layer["name"] in names]
    values = sum(math.prod(layer["output_shape"]) for layer in found)
    units = sum(layer["output_shape"][0] for layer in found)
    return images * (
        values * MAP_BYTES_PER_BIT * math.log2(levels) + units * UNIT_NUMBERS_BYTES
    ) + WEIGHT_BYTES * sum(map(_count_drawn_weights, found))


def choose_explored_layers(layers: LayerList, views: dict[str, Any]) -> list[str]:
    """The layers that are explored: those of views.atlas, or of the views themselves."""
    wanted = views["atlas"]["layers"]
    return choose_layers(layers, views["layers"] if wanted is None else wanted, "views.atlas.layers")


def _count_drawn_weights(layer: dict[str, Any]) -> int:
    """How many weights of a layer are drawn: of kernels those of few channels, of many single ones none."""
    window = math.prod(layer["kernel"]) if isinstance(layer["kernel"], list) else 1
    if window > 1:
        return min(layer["parameters"], layer["output_shape"][0] * MAX_TILE_CHANNELS * window)
    return layer["parameters"] if layer["parameters"] <= MAX_DRAWN_WEIGHTS else 0


def _count_projection_values(layers: LayerList, given: dict[str, Any]) -> dict[str, int]:
    """How many values the projections of each layer have on one image; `given` is views.deconv."""
    values = math.prod(_get_input_shape(layers)) * len(given["select"])
    chosen = _choose_projected_layers(layers, given["layers"], given["units"], "views.deconv.layers")
    return {layer["name"]: units * values for layer, units in chosen}


def _estimate_top_activations(layers: LayerList, views: dict[str, Any]) -> float:
    """Bytes of the strongest activations over a data set, projections and patches as large as a field."""
    given = views.get("strongest")
    if given is None:
        return 0
    channels, *size = _get_input_shape(layers)
    project, key = given["project"], "views.strongest.project"
    if project is None:
        project, key = views["deconv"]["layers"], "views.deconv.layers"
    found = 0.0
    for layer, units in _choose_projected_layers(layers, project, given["units"], key):
        field = map(min, layer["receptive_field"] or size, size)
        values = 2 * given["k"] * units * channels * math.prod(field)
        found += TOP_ACTIVATION_VALUE_BYTES * values + PROJECTION_FIGURE_VALUE_BYTES * min(
            values, MAX_TOP_ACTIVATION_FIGURE_VALUES
        )
    return found


def _get_input_shape(layers: LayerList) -> list[int]:
    """The shape of the network's input: that of the first layer that is called."""
    return next(layer for layer in layers if layer["called"])["input_shape"]


def _choose_projected_layers(
    layers: LayerList, wanted: Any, units: int | str, key: str
) -> list[tuple[dict[str, Any], int]]:
    """The layers that are projected, `wanted` at a key of the config, and of how many units of each."""
    called = {layer["name"]: layer for layer in layers if layer["called"]}
    if wanted == "all":
        names = [name for name, layer in called.items() if layer["kind"] in ("conv", "pool")]
    else:
        names = choose_layers(layers, wanted, key)
    most = math.inf if units == "all" else units
    return [(called[name], int(min(called[name]["output_shape"][0], most))) for name in names]


def format_image_count(images: int) -> str:
    return f"{images} image{'s' if images != 1 else ''}"


def format_megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10e6 else f"{size / 1e6:.0f} MB"
