"""The expected size of a network's part of the gallery, printed before a run with what bounds it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convatlas import UserError
from convatlas.files import read_json
from convatlas.layer_selection import choose_explored_layers, choose_layers, choose_projected_layers
from convatlas.names import name_images
from convatlas.pipeline.config_types import DeconvViews, NetworkConfig, ViewsConfig
from convatlas.records import Layer

# Bytes, measured on the default networks and on a ResNet-152.
MAP_BYTES_PER_BIT = 0.085  # of a feature map's value, for each bit of its grey level
UNIT_NUMBERS_BYTES = 30  # of a unit's numbers on one image
WEIGHT_BYTES = 0.6  # of a drawn weight
PROJECTION_VALUE_BYTES = 0.16  # of a projection's value in the explorer
LAYER_FIGURE_BYTES = 100_000  # of a layer's figures
PROJECTION_FIGURE_VALUE_BYTES = 0.8  # of a projection's value in figures
TOP_ACTIVATION_VALUE_BYTES = 0.1  # of a value of a projected top activation
TOP_IMAGE_BYTES = 5  # of the number, position and activation of a unit's top-activating image
ATTRIBUTION_PIXEL_BYTES = 0.6  # of a pixel of an attribution map
EVOLUTION_PIXEL_BYTES = 0.5  # of a pixel of a projection, patch or map of a unit through training
OPTIMISED_PIXEL_BYTES = 0.5  # of a pixel of an optimised image
OPTIMISED_VIEW_BYTES = 7000  # of the other views of a unit
INPUT_PIXEL_BYTES = 2  # of a pixel of an RGB image in a layer's figures

MAX_PROJECTION_FIGURE_VALUES = 3_200_000  # values in the projection figures of an image
MAX_TOP_ACTIVATION_FIGURE_VALUES = 500_000  # values in the figure of a layer's top activations
# As on the page of the evolution of units, convatlas.gallery.pages.evolution.
DEFAULT_EVOLUTION_LAYERS, MAX_EVOLUTION_LAYERS, MAX_EVOLUTION_UNITS, MAX_EVOLUTION_SIDE = 4, 8, 12, 96
EVOLUTION_TILES = 3  # as large as the input, about: a projection, a patch and maps
# As on the page of feature visualisation, convatlas.gallery.feature_pictures and .feature_views.
DEFAULT_OPTIMISED_LAYERS, MAX_OPTIMISED_UNITS, MAX_OPTIMISED_CLASSES = 4, 240, 100
MAX_TILE_CHANNELS = 9  # as in convatlas.plotting.sprites, which is not imported: a test compares them
MAX_DRAWN_WEIGHTS = 2**19  # of a fully connected layer, up to which they are counted

# The parts of a gallery, each with the settings that make it smaller.
REDUCING_SETTINGS = {
    "feature maps and filters": "fewer images, views.atlas.layers or views.atlas.levels",
    "projections": "fewer images, views.deconv.layers or views.deconv.units",
    "top activations": "views.strongest.project or views.strongest.units",
    "top-activating images": "views.strongest.layers or views.strongest.k",
    "evolution of units": "views.evolution.layers or views.evolution.units",
    "optimised images": "views.feature_visualisation.units, .classes or .size",
    "attribution maps": "views.attribution.images, views.attribution.methods or views.attribution.targets",
    "figures": "views.layers or views.n_images",
}


def describe_expected_sizes(
    networks: Mapping[str, NetworkConfig], image_files: Mapping[str, list[str]], results: Path
) -> list[str]:
    """Return the expected sizes of the networks' parts of the gallery, as lines of text.

    Args:
        networks: `networks` of the config.
        image_files: Each network's own image files, with the files of folders.
        results: The folder results/. A network whose layers.json is missing there, or lacks a layer that the
            views name, has no expected size yet; the last line says so.
    """
    lines, unknown = [], []
    for name, network in networks.items():
        image_count = len(name_images({**network["images"], "files": image_files[name]}))
        views = network["views"]
        if not network.get("dataset"):
            views = {**views, "strongest": None}
        try:
            lines.append(describe_size(name, read_json(results / name / "layers.json"), views, image_count))
        except UserError:
            unknown.append(f"{name} ({format_image_count(image_count)})")
    if unknown:
        lines.append(
            f"{', '.join(unknown)}: the size is known once the layers are recorded. All of a ResNet-152 "
            "takes 25 MB per image; views.atlas.layers and views.atlas.levels bound it"
        )
    return lines


def describe_size(name: str, layers: Sequence[Layer], views: ViewsConfig, image_count: int) -> str:
    """Return the expected size of a network's part of the gallery, and the settings that bound most of it.

    Args:
        name: The network's name.
        layers: layers.json.
        views: `views` of the network's config.
        image_count: Number of sample images.

    Raises:
        UserError: The views name a layer that does not exist.
    """
    sizes = estimate_part_sizes(layers, views, image_count)
    largest = max(sizes, key=lambda part: sizes[part])
    layer_count = len(choose_explored_layers(layers, views, "views"))
    return (
        f"{name} takes about {format_megabytes(sum(sizes.values()))}, most of it {largest}: "
        f"{format_image_count(image_count)}, {layer_count} layers explored; "
        f"less with {REDUCING_SETTINGS[largest]}"
    )


def estimate_part_sizes(layers: Sequence[Layer], views: ViewsConfig, image_count: int) -> dict[str, float]:
    """Return the expected bytes of each part in REDUCING_SETTINGS.

    Args:
        layers: layers.json.
        views: `views` of the network's config.
        image_count: Number of sample images.

    Raises:
        UserError: The views name a layer that does not exist.
    """
    explored = choose_explored_layers(layers, views, "views")
    projected = _count_projection_values(layers, views["deconv"])
    explorer_values = sum(values for name, values in projected.items() if name in explored)
    figure_values = min(sum(projected.values()), MAX_PROJECTION_FIGURE_VALUES)
    return {
        "feature maps and filters": estimate_sprite_sheets(
            layers, explored, image_count, views["atlas"]["levels"]
        ),
        "projections": image_count
        * (explorer_values * PROJECTION_VALUE_BYTES + figure_values * PROJECTION_FIGURE_VALUE_BYTES),
        "top activations": _estimate_top_activations(layers, views),
        "top-activating images": _estimate_top_images(layers, views),
        "evolution of units": _estimate_evolution(layers, views),
        "optimised images": _estimate_optimised_images(layers, views),
        "attribution maps": _estimate_attribution(layers, views, image_count),
        "figures": len(choose_layers(layers, views["layers"], "views.layers"))
        * _estimate_layer_figures(layers, views, image_count),
    }


def estimate_sprite_sheets(
    layers: Sequence[Layer], names: Sequence[str], image_count: int, levels: int
) -> float:
    """Return the expected bytes of the explorer's feature maps, filters and numbers of these layers.

    Args:
        layers: layers.json.
        names: Names of the layers in the explorer.
        image_count: Number of sample images.
        levels: Grey levels of a map.
    """
    explored = [layer for layer in layers if layer["name"] in names]
    values = sum(math.prod(layer["output_shape"]) for layer in explored)
    units = sum(map(_count_units, explored))
    map_bytes = values * MAP_BYTES_PER_BIT * math.log2(levels)
    weight_bytes = WEIGHT_BYTES * sum(map(_count_drawn_weights, explored))
    return image_count * (map_bytes + units * UNIT_NUMBERS_BYTES) + weight_bytes


def format_image_count(image_count: int) -> str:
    """Return a number of images as text: "1 image", "5 images".

    Args:
        image_count: The number.
    """
    return "1 image" if image_count == 1 else f"{image_count} images"


def format_megabytes(size: float) -> str:
    """Return bytes as text in MB (10⁶ bytes), with one decimal below 10 MB.

    Args:
        size: The number of bytes.
    """
    return f"{size / 1e6:.1f} MB" if size < 10e6 else f"{size / 1e6:.0f} MB"


def _estimate_layer_figures(layers: Sequence[Layer], views: ViewsConfig, image_count: int) -> float:
    """Return the bytes of a layer's figures, which also show some of the images."""
    channels, *size = _get_input_shape(layers)
    if views["n_images"] != "all":
        image_count = min(image_count, int(views["n_images"]))
    if channels != 3:
        return LAYER_FIGURE_BYTES
    return LAYER_FIGURE_BYTES + INPUT_PIXEL_BYTES * image_count * math.prod(size)


def _count_drawn_weights(layer: Layer) -> int:
    """Count the weights of a layer that are drawn: a few channels of each kernel, no large weight matrix."""
    kernel_size = math.prod(layer["kernel"]) if isinstance(layer["kernel"], list) else 1
    if kernel_size > 1:
        return min(layer["parameters"], _count_units(layer) * MAX_TILE_CHANNELS * kernel_size)
    return layer["parameters"] if layer["parameters"] <= MAX_DRAWN_WEIGHTS else 0


def _count_projection_values(layers: Sequence[Layer], deconv: DeconvViews) -> dict[str, int]:
    """Count the values of each layer's projections on one image."""
    values = math.prod(_get_input_shape(layers)) * len(deconv["select"])
    names = choose_projected_layers(layers, deconv["layers"], "views.deconv.layers")
    return {
        layer["name"]: _limit_units(layer, deconv["units"]) * values
        for layer in layers
        if layer["name"] in names
    }


def _estimate_top_activations(layers: Sequence[Layer], views: ViewsConfig) -> float:
    """Return the bytes of the projected top activations and their image patches."""
    strongest = views.get("strongest")
    if strongest is None:
        return 0
    channels, *size = _get_input_shape(layers)
    selection, key = strongest["project"], "views.strongest.project"
    if selection is None:
        selection, key = views["deconv"]["layers"], "views.deconv.layers"
    names = choose_projected_layers(layers, selection, key)
    total = 0.0
    for layer in layers:
        if layer["name"] in names:
            field = layer["receptive_field"] if layer["receptive_start"] else None  # else the whole image
            field_size = math.prod(map(min, field or size, size))
            units = _limit_units(layer, strongest["units"])
            blocks = 2 + len(strongest.get("relevance") or [])  # projections, patches, patches of each class
            values = blocks * strongest["k"] * units * channels * field_size
            figure_values = min(values, MAX_TOP_ACTIVATION_FIGURE_VALUES)
            total += TOP_ACTIVATION_VALUE_BYTES * values + PROJECTION_FIGURE_VALUE_BYTES * figure_values
    return total


def _estimate_top_images(layers: Sequence[Layer], views: ViewsConfig) -> float:
    """Return the bytes of the numbers of every unit's top-activating images, without thumbnails."""
    strongest = views.get("strongest")
    k = strongest["k"] if strongest else 0
    return TOP_IMAGE_BYTES * k * sum(_count_units(layer) for layer in layers if layer["called"])


def _estimate_attribution(layers: Sequence[Layer], views: ViewsConfig, image_count: int) -> float:
    """Return the bytes of the attribution maps."""
    attribution = views.get("attribution")
    if attribution is None:
        return 0
    images, targets = attribution["images"], attribution["targets"]
    if images != "all":
        image_count = min(image_count, images if isinstance(images, int) else len(images))
    classes = len(targets) if isinstance(targets, list) else {"top3": 3}.get(targets, 1)
    maps = image_count * classes * len(attribution["methods"])
    return ATTRIBUTION_PIXEL_BYTES * maps * math.prod(_get_input_shape(layers)[1:])


def _estimate_evolution(layers: Sequence[Layer], views: ViewsConfig) -> float:
    """Return the bytes of the pictures of units through training, whose sides are limited."""
    evolution = views.get("evolution")
    if evolution is None:
        return 0
    names = choose_projected_layers(layers, evolution["layers"] or "all", "views.evolution.layers")
    count = min(len(names), MAX_EVOLUTION_LAYERS if evolution["layers"] else DEFAULT_EVOLUTION_LAYERS)
    units = len(evolution["units"]) if isinstance(evolution["units"], list) else evolution["units"]
    units = MAX_EVOLUTION_UNITS if units == "all" else min(int(units), MAX_EVOLUTION_UNITS)
    sides = [min(side, MAX_EVOLUTION_SIDE) for side in _get_input_shape(layers)[1:]]
    tiles = count * units * (len(evolution["epochs"]) + 2)
    return EVOLUTION_PIXEL_BYTES * EVOLUTION_TILES * tiles * math.prod(sides)


def _estimate_optimised_images(layers: Sequence[Layer], views: ViewsConfig) -> float:
    """Return the bytes of optimised images, with the other views of their units."""
    settings = views.get("feature_visualisation")
    if settings is None:
        return 0
    counts = [
        len(selection)
        if isinstance(selection, list)
        else MAX_OPTIMISED_UNITS
        if selection == "all"
        else selection
        for selection in (settings["units"], settings["classes"])
    ]
    names = choose_projected_layers(layers, settings["layers"] or "all", "views.feature_visualisation.layers")
    layer_count = len(names) if settings["layers"] else min(len(names), DEFAULT_OPTIMISED_LAYERS)
    units = min(layer_count * int(counts[0]), MAX_OPTIMISED_UNITS)
    side = settings["size"] or min(_get_input_shape(layers)[1:])
    return (units + min(int(counts[1]), MAX_OPTIMISED_CLASSES)) * (
        OPTIMISED_PIXEL_BYTES * side**2 + OPTIMISED_VIEW_BYTES
    )


def _get_input_shape(layers: Sequence[Layer]) -> list[int]:
    """Return the shape of the network's input: that of the first called layer."""
    return next(layer for layer in layers if layer["called"])["input_shape"]


def _count_units(layer: Layer) -> int:
    """Return the number of units of a called layer; a single value is one unit."""
    return layer["output_shape"][0] if layer["output_shape"] else 1


def _limit_units(layer: Layer, limit: Any) -> int:
    """Return the number of a layer's units, at most `limit`; "all" sets no limit."""
    units = _count_units(layer)
    return units if limit == "all" else min(units, int(limit))
