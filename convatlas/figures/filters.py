"""Figures of the filters of a convolution, alone and beside its feature maps."""

from collections.abc import Sequence

import numpy as np

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import (
    DEFAULT_OPTIONS,
    DENSE_OPTIONS,
    MAX_COLUMNS,
    MAX_DENSE_COLUMNS,
    MontageOptions,
    count_tiles_per_row,
    format_unit_range,
    make_colour_bar,
    make_dense_tile,
    make_rgb_tile,
    make_tile,
    split_into_chunks,
)
from convatlas.names import format_number, format_shape, join_names
from convatlas.plotting.colormap import LayerScales
from convatlas.plotting.montage import GAP, HEADER_HEIGHT, TILE_SIZE, Tile, TileRow
from convatlas.records import FilterMatches

MAX_CHANNELS = 8  # input channels of a filter that are shown at most
MAX_UNITS = 64  # units above which the figure is dense
MAX_TILES = 256  # filters above which it is dense
MAX_DENSE_TILES = 4096  # tiles of a dense figure: of many units fewer channels are shown
MAX_PAIRS_HEIGHT = 5000  # pixels of the rows of filters beside their feature maps
MAX_NAMED_UNITS = 5  # matches that a caption names
RGB_LETTERS = "RGB"
UNITS_PER_RGB_ROW = 4


def draw_filters(context: FigureContext, layer: str) -> CaptionedFigure:
    """Draw a column per unit and a row per input channel, or RGB filters where the layer sees the image.

    Args:
        context: The network's results and views.
        layer: Name of a convolution with filters (units, channels, h, w).

    Returns:
        A figure of kind "filters". Of many input channels those with the largest weights are drawn.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    if context.has_rgb_filters(layer):
        return _draw_rgb_filters(context, layer)
    weight, scales = context.weight(layer), context.make_weight_scales(layer)
    units = context.select_units(layer, len(weight))
    is_dense = len(units) > MAX_UNITS or len(units) * min(MAX_CHANNELS, weight.shape[1]) > MAX_TILES
    max_channels = max(1, min(MAX_CHANNELS, MAX_DENSE_TILES // len(units)))
    channels, channel_text = _select_channels(weight[units], max_channels)
    rows: list[TileRow] = []
    labels = []
    for chunk in split_into_chunks(units, MAX_DENSE_COLUMNS if is_dense else MAX_COLUMNS):
        for channel in channels:
            rows.append([_make_kernel_tile(scales, layer, weight, u, channel, is_dense) for u in chunk])
            prefix = f"{format_unit_range(chunk)}, " if is_dense else ""
            labels.append(f"{prefix}channel {channel}")
    caption = Caption(
        f"{layer}: filters, {_describe_units(units, weight)}, {scales.describe_extent(layer)}",
        f"A column per unit, a row per input channel: {channel_text}. "
        f"{scales.describe(layer, dense=is_dense)}{_describe_kernel_matches(context, layer, units)}",
    )
    bars = [make_colour_bar(scales, layer, 0, len(rows) - 1, "weight")]
    options = DENSE_OPTIONS if is_dense else DEFAULT_OPTIONS
    return context.make_montage("filters", layer, rows, labels, bars, caption, options)


def _make_kernel_tile(
    scales: LayerScales, layer: str, weight: np.ndarray, unit: int, channel: int, is_dense: bool
) -> Tile:
    if is_dense:
        return make_dense_tile(scales, layer, weight[unit, channel])
    return make_tile(scales, layer, weight[unit, channel], unit)


def _describe_units(units: Sequence[int], weight: np.ndarray) -> str:
    return f"units {format_unit_range(units)} of {len(weight)}, {format_shape(weight.shape[2:])} each"


def _draw_rgb_filters(context: FigureContext, layer: str) -> CaptionedFigure:
    """Draw each filter as RGB, then its red, green and blue kernels with their correlations."""
    weight, scales = context.weight(layer), context.make_weight_scales(layer)
    units = context.select_units(layer, len(weight))
    matches = _get_matches(context, layer)
    chunks = split_into_chunks(units, UNITS_PER_RGB_ROW)
    rows: list[TileRow] = []
    for chunk in chunks:
        row: TileRow = []
        for unit in chunk:
            row.append(make_rgb_tile(scales, layer, weight[unit], unit, _get_colour_class(matches, unit)))
            row += [
                make_tile(
                    scales, layer, weight[unit, c], letter, "", _format_channel_correlation(matches, unit, c)
                )
                for c, letter in enumerate(RGB_LETTERS)
            ]
        rows.append(row)
    caption = Caption(
        f"{layer}: filters, {_describe_units(units, weight)}, {scales.describe_extent(layer)}",
        "Each filter as RGB (grey = 0), then its kernels of red, green and blue. Above the kernels: "
        "correlation of R with G (RG), G with B (GB), B with R (BR); positive where the unit responds to "
        "luminance, negative where it responds to colour. "
        f"{scales.describe(layer)}{_describe_kernel_matches(context, layer, units)}{context.display_note}",
    )
    bars = [make_colour_bar(scales, layer, 0, len(rows) - 1, "weight")]
    labels = [f"units\n{format_unit_range(chunk)}" for chunk in chunks]
    options = MontageOptions(group_starts=(4, 8, 12))
    return context.make_montage("filters", layer, rows, labels, bars, caption, options)


def _get_matches(context: FigureContext, layer: str) -> FilterMatches | None:
    """Return the classical kernels that a layer's filters match; None unless it is the first convolution."""
    matches = context.results.filter_matches
    return matches if matches and matches["layer"] == layer else None


def _get_colour_class(matches: FilterMatches | None, unit: int) -> str:
    colour_classes = matches["colour_classes"] if matches else None
    return colour_classes[unit] if colour_classes else ""


def _format_channel_correlation(matches: FilterMatches | None, unit: int, channel: int) -> str:
    """Return the correlation of a colour's kernel with the next colour's as text."""
    correlations = matches["channel_correlations"] if matches else None
    if not correlations:
        return ""
    pair = {0: 0, 1: 2, 2: 1}[channel]  # stored as red-green, red-blue, green-blue
    letters = f"{RGB_LETTERS[channel]}{RGB_LETTERS[(channel + 1) % 3]}"
    return f"{letters} {format_number(correlations[unit][pair], '.2f')}"


def _describe_kernel_matches(context: FigureContext, layer: str, units: Sequence[int]) -> str:
    """Return a sentence about the filters that match a classical kernel better than random filters do."""
    matches = _get_matches(context, layer)
    if not matches or matches["kernels"] is None or matches["r"] is None:
        return ""
    baseline, kernels, correlations = matches["baseline"], matches["kernels"], matches["r"]
    best_channels = [int(np.abs(row).argmax()) for row in correlations]
    best = {unit: correlations[unit][best_channels[unit]] for unit in units}
    matched = [unit for unit in units if abs(best[unit]) > baseline]
    if not matched:
        return (
            " No filter matches a classical kernel better than random filters do (95th percentile: "
            f"{baseline:.2f})."
        )
    matched.sort(key=lambda unit: -abs(best[unit]))
    is_rgb = len(correlations[0]) == 3
    descriptions = [
        f"{unit} {kernels[unit][best_channels[unit]]}"
        f"{f' in {RGB_LETTERS[best_channels[unit]]}' if is_rgb else ''} ({format_number(best[unit], '.2f')})"
        for unit in matched[:MAX_NAMED_UNITS]
    ]
    return (
        f" Most similar to classical kernels, by correlation: {join_names(descriptions)}; 95th percentile of "
        f"random filters: {baseline:.2f}."
    )


def draw_filter_map_pairs(context: FigureContext, layer: str) -> CaptionedFigure:
    """Draw a unit per row: its filter, then its feature map of each image.

    Args:
        context: The network's results and views.
        layer: Name of a convolution with filters (units, channels, h, w) and output (units, H, W).

    Returns:
        A figure of kind "pairs", of at most as many units as fit in MAX_PAIRS_HEIGHT pixels, or MAX_CHANNELS
        if fewer fit.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    weight, outputs = context.weight(layer), context.outputs(layer)
    weight_scales, map_scales = context.make_weight_scales(layer), context.make_map_scales(layer)
    is_rgb = context.has_rgb_filters(layer)
    tile_size = max(TILE_SIZE, context.input_size, *outputs[0].shape[1:])
    max_units = max(MAX_CHANNELS, MAX_PAIRS_HEIGHT // (tile_size + HEADER_HEIGHT + GAP))
    units = context.select_units(layer, len(weight))[:max_units]
    room = max(2, min(MAX_CHANNELS, count_tiles_per_row(tile_size) - len(outputs)))
    channels, channel_text = _select_channels(weight[units], 3 if is_rgb else room)
    free: TileRow = [None] * (len(channels) + (1 if is_rgb else 0))
    names = [image["name"] for image in context.images]
    rows: list[TileRow] = [free + [context.make_titled_input_tile(name) for name in names]]
    for unit in units:
        row: TileRow = [make_rgb_tile(weight_scales, layer, weight[unit], unit)] if is_rgb else []
        for n, channel in enumerate(channels):
            title, right_title = ("", RGB_LETTERS[n]) if is_rgb else (unit, f"ch {channel}")
            row.append(make_tile(weight_scales, layer, weight[unit, channel], title, right_title))
        row += [make_tile(map_scales, layer, output[unit], unit) for output in outputs]
        rows.append(row)
    middle = max(1, len(rows) // 2)
    bars = [
        make_colour_bar(weight_scales, layer, 0, middle - 1, "weight"),
        make_colour_bar(map_scales, layer, middle, len(rows) - 1, "activation"),
    ]
    caption = Caption(
        f"{layer}: filters and feature maps, units {format_unit_range(units)} of {len(weight)}, on "
        f"{context.image_phrase}, weights {weight_scales.describe_extent(layer)}, maps "
        f"{map_scales.describe_extent(layer)}",
        f"A row per unit. Left: the weights of {channel_text}"
        f"{', first as RGB (grey = 0)' if is_rgb else ''}; right: the feature maps of "
        f"{context.image_list}, with bias, before any activation function. "
        f"{weight_scales.describe(layer, 'weights')} {map_scales.describe(layer, 'feature maps')}"
        f"{context.display_note}",
    )
    labels = ["input", *(f"unit {unit}" for unit in units)]
    options = MontageOptions(group_starts=(len(free),))
    return context.make_montage("pairs", layer, rows, labels, bars, caption, options)


def _select_channels(weight: np.ndarray, max_channels: int) -> tuple[list[int], str]:
    """Return the input channels of filters (units, C, h, w) that are shown, and a phrase about them."""
    count = weight.shape[1]
    if count == 1:
        return [0], "its one input channel"
    if count <= max_channels:
        return list(range(count)), f"all {count} input channels"
    norms = np.sqrt((weight.astype(np.float64) ** 2).sum((0, 2, 3)))
    channels = sorted(np.argsort(-norms, kind="stable")[:max_channels].tolist())
    if max_channels == 1:
        return channels, f"1 of {count} input channels, {channels[0]}, the one with the largest weights"
    return channels, f"{max_channels} of {count} input channels, those with the largest weights"
