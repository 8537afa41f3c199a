"""Figures of the feature maps of a layer."""

import textwrap
from collections.abc import Sequence

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import (
    DENSE_OPTIONS,
    DENSE_TILE_SIZE,
    MontageOptions,
    count_tiles_per_row,
    format_unit_range,
    make_colour_bar,
    make_dense_tile,
    make_tile,
    split_into_chunks,
)
from convatlas.names import format_number, format_shape
from convatlas.plotting.montage import TILE_SIZE, TileRow
from convatlas.records import FeatureMatch

MAX_UNITS = 64  # units above which a figure is dense: no text above a tile, one image
MAX_PIXELS = 12_000_000  # pixels above which it is dense
LABEL_CHARACTERS = 36  # characters in a line of a row's label
MAX_NAMED_UNITS = 4  # matches that a caption names
SHORT_FEATURE_NAMES = {
    "brightness": "bright",
    "sobel_x": "vert.",
    "sobel_y": "horiz.",
    "sobel_diagonal_down": "diag /",
    "sobel_diagonal_up": "diag \\",
    "sobel_magnitude": "edge",
    "laplacian": "spot",
    "harris": "corner",
    "erosion": "erode",
    "dilation": "dilate",
    "lbp": "LBP",
}


def draw_maps(context: FigureContext, layer: str) -> CaptionedFigure:
    """Draw an image per row, its input first; of many units a dense grid for the first image.

    Args:
        context: The network's results and views.
        layer: Name of a layer whose output is (units, H, W).

    Returns:
        A figure of kind "maps"; it is dense if it has more than MAX_UNITS units or MAX_PIXELS pixels.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    shape = context.map_shape(layer)
    units = context.select_units(layer, shape[0])
    tile_size = max(TILE_SIZE, context.input_size, *shape[1:])
    if len(units) > MAX_UNITS or len(units) * len(context.images) * tile_size**2 > MAX_PIXELS:
        return _draw_dense_maps(context, layer, units)
    scales = context.make_map_scales(layer)
    rows: list[TileRow] = []
    labels = []
    for image_index, (image, maps) in enumerate(zip(context.images, context.outputs(layer), strict=True)):
        for n, chunk in enumerate(split_into_chunks(units, count_tiles_per_row(tile_size))):
            head = context.make_input_tile(image["name"]) if n == 0 else None
            notes = [_format_match(context, layer, unit) if image_index == 0 else "" for unit in chunk]
            tiles = [
                make_tile(scales, layer, maps[unit], unit, "", note)
                for unit, note in zip(chunk, notes, strict=True)
            ]
            rows.append([head, *tiles])
            labels.append(_wrap_label(context.describe_image(image, "\n")) if n == 0 else "")
    caption = Caption(
        f"{layer}: feature maps, units {format_unit_range(units)} of {shape[0]}, {format_shape(shape[1:])} "
        f"each, on {context.image_phrase}, {scales.describe_extent(layer)}",
        f"Outputs of {layer} ({context.layers[layer]['type']}), a row per image ({context.image_list}), "
        f"input first.{context.describe_slice(layer)} {scales.describe(layer)}"
        f"{_describe_feature_matches(context, layer, units)}"
        f"{context.display_note}",
    )
    bars = [make_colour_bar(scales, layer, 0, len(rows) - 1, "activation")]
    return context.make_montage("maps", layer, rows, labels, bars, caption, MontageOptions(group_starts=(1,)))


def _draw_dense_maps(context: FigureContext, layer: str, units: Sequence[int]) -> CaptionedFigure:
    """Draw many feature maps of the first image; the rows' labels give the units."""
    image, scales = context.images[0], context.make_map_scales(layer)
    maps = context.output(layer, image["name"])
    columns = 32 if max(maps.shape[1:]) <= DENSE_TILE_SIZE else 16
    chunks = split_into_chunks(units, columns)
    rows: list[TileRow] = [[make_dense_tile(scales, layer, maps[unit]) for unit in chunk] for chunk in chunks]
    caption = Caption(
        f"{layer}: feature maps, units {format_unit_range(units)} of {len(maps)}, "
        f"{format_shape(maps.shape[1:])} each, on {context.image_titles[image['name']]}, "
        f"{scales.describe_extent(layer)}",
        f"Outputs of {layer} ({context.layers[layer]['type']}) on {context.describe_image(image, ', ')}; "
        f"{columns} units per row.{context.describe_slice(layer)} {scales.describe(layer, dense=True)}"
        f"{_describe_feature_matches(context, layer, units)}",
    )
    bars = [make_colour_bar(scales, layer, 0, len(rows) - 1, "activation")]
    labels = [format_unit_range(chunk) for chunk in chunks]
    return context.make_montage("maps", layer, rows, labels, bars, caption, DENSE_OPTIONS)


def _format_match(context: FigureContext, layer: str, unit: int) -> str:
    """Return the note above a feature map that matches a classical feature: its short name and r."""
    layer_matches = context.results.unit_matches["layers"].get(layer)
    match = layer_matches["units"][unit] if layer_matches else None
    if match is None:
        return ""
    return f"{SHORT_FEATURE_NAMES[match['feature'].rstrip('+-')]} {format_number(match['r'], '.2f')}"


def _describe_feature_matches(context: FigureContext, layer: str, units: Sequence[int]) -> str:
    """Return a sentence about the drawn units that match a classical feature, most similar first."""
    unit_matches = context.results.unit_matches
    layer_matches = unit_matches["layers"].get(layer)
    if layer_matches is None:
        return ""
    baseline = f"95th percentile of the untrained network: {layer_matches['baseline']:.2f}"
    matches: list[tuple[int, FeatureMatch]] = [
        (unit, match) for unit in units if (match := layer_matches["units"][unit])
    ]
    if not matches:
        threshold = unit_matches["threshold"]
        return f" No unit shown matches a classical feature (|r| ≥ {threshold:g} is needed; {baseline})."
    matches.sort(key=lambda entry: -abs(entry[1]["r"]))
    descriptions = [
        f"{unit} {match['description']} ({format_number(match['r'], '.2f')})"
        for unit, match in matches[:MAX_NAMED_UNITS]
    ]
    more = f", and {len(matches) - MAX_NAMED_UNITS} more" if len(matches) > MAX_NAMED_UNITS else ""
    return (
        f" Most similar to classical features, by correlation: {', '.join(descriptions)}{more}; {baseline}."
    )


def _wrap_label(label: str) -> str:
    return "\n".join(textwrap.fill(line, LABEL_CHARACTERS) for line in label.split("\n"))
