"""Plates of one layer: its filters, its maps, both side by side, or its values."""

import textwrap
from collections.abc import Sequence

import numpy as np

from convatlas.figures.context import (
    MAX_COLUMNS,
    Array,
    CaptionedFigure,
    FigureContext,
    TileRow,
    count_tiles_per_row,
    format_shape,
    format_unit_range,
    join_names,
    make_colour_bar,
    make_dense_tile,
    make_rgb_tile,
    make_tile,
    split_into_chunks,
)
from convatlas.plotting import charts
from convatlas.plotting.colormap import ColourScale, LayerScales
from convatlas.plotting.montage import GAP, HEADER_HEIGHT, TILE_SIZE

MAX_CHANNELS = 8  # input channels of a filter that are all shown
DENSE_UNITS = 64  # units above which a plate is dense: no number over each tile, one image
DENSE_PIXELS = 12_000_000  # pixels above which a plate of maps is dense too
DENSE_TILE_SIZE = 28  # pixels that a tile of a dense plate fills
MAX_DENSE_TILES = 4096  # of a dense plate of filters: of many units fewer channels are shown
MAX_PAIRS_HEIGHT = 5000  # pixels that the rows of pairs take at most
LABEL_CHARACTERS = 36  # letters a line of a row's label
RGB_LETTERS = "RGB"
SHORT_FEATURE_NAMES = {"brightness": "bright", "sobel_x": "vert.", "sobel_y": "horiz.", "sobel_diagonal_down": "diag /",
         "sobel_diagonal_up": "diag \\", "sobel_magnitude": "edge", "laplacian": "spot", "harris": "corner",
         "erosion": "erode", "dilation": "dilate", "lbp": "LBP"}  # fmt: skip


def draw_filters(desk: FigureContext, layer: str) -> CaptionedFigure:
    """Units side by side, an input channel a line; those that look at an image's colours as colours."""
    if desk.has_rgb_filters(layer):
        return _draw_rgb_filters(desk, layer)
    weight, scales = desk.weight(layer), desk.make_weight_scales(layer)
    units = desk.select_units(layer, len(weight))
    dense = len(units) * min(MAX_CHANNELS, weight.shape[1]) > 4 * DENSE_UNITS or len(units) > DENSE_UNITS
    channels, view = _select_channels(weight[units], max(1, min(MAX_CHANNELS, MAX_DENSE_TILES // len(units))))
    lines: list[TileRow] = []
    labels = []
    for part in split_into_chunks(units, DENSE_UNITS if dense else MAX_COLUMNS):
        for channel in channels:
            draw = make_dense_tile if dense else make_tile
            lines.append([draw(scales, layer, weight[unit, channel], unit) for unit in part])
            labels.append(f"{format_unit_range(part)}, channel {channel}" if dense else f"channel {channel}")
    text = (
        f"The filters of {layer}: units {format_unit_range(units)} of {len(weight)}, each {format_shape(weight.shape[2:])}, "
        f"over {view}. {scales.describe(layer, dense=dense)}{_describe_kernel_matches(desk, layer, units)}"
    )
    bars = [make_colour_bar(scales, layer, 0, len(lines) - 1, "weight")]
    layout = {"tile_size": DENSE_TILE_SIZE, "header_height": 4, "gap": 4} if dense else {}
    return desk.make_montage("filters", layer, lines, labels, bars, text, **layout)


def _draw_rgb_filters(desk: FigureContext, layer: str) -> CaptionedFigure:
    """Each filter in colour, then its red, green and blue kernels, with how alike they are."""
    weight, scales = desk.weight(layer), desk.make_weight_scales(layer)
    units = desk.select_units(layer, len(weight))
    lines: list[TileRow] = []
    for part in split_into_chunks(units, 4):
        line: TileRow = []
        for unit in part:
            line += [make_rgb_tile(scales, layer, weight[unit], unit, _describe_colour(desk, layer, unit))]
            notes = [_format_channel_correlation(desk, layer, unit, c) for c in range(3)]
            line += [
                make_tile(scales, layer, weight[unit, c], RGB_LETTERS[c], "", notes[c]) for c in range(3)
            ]
        lines.append(line)
    text = (
        f"The filters of {layer}: units {format_unit_range(units)} of {len(weight)}, each {format_shape(weight.shape[2:])}, first "
        "as colours about grey, then its kernels for red, green and blue. Over the kernels stand the "
        "correlations of red with green (RG), green with blue (GB) and blue with red (BR): alike, the unit "
        "sees light and dark (luminance); opposed, it sees colour. "
        f"{scales.describe(layer)}{_describe_kernel_matches(desk, layer, units)}"
    )
    bars = [make_colour_bar(scales, layer, 0, len(lines) - 1, "weight")]
    labels = [f"units\n{format_unit_range(part)}" for part in split_into_chunks(units, 4)]
    return desk.make_montage("filters", layer, lines, labels, bars, text, group_starts=(4, 8, 12))


def _describe_colour(desk: FigureContext, layer: str, unit: int) -> str:
    found = desk.filter_matches
    return found["colour_classes"][unit] if found and found["layer"] == layer else ""


def _format_channel_correlation(desk: FigureContext, layer: str, unit: int, channel: int) -> str:
    """The correlation of a colour's kernel with the next colour's."""
    found = desk.filter_matches
    if not found or found["layer"] != layer:
        return ""
    pair = {0: 0, 1: 2, 2: 1}[channel]  # kept as red-green, red-blue, green-blue
    value = f"{found['channel_correlations'][unit][pair]:.2f}".replace("-", "−")
    return f"{RGB_LETTERS[channel]}{RGB_LETTERS[(channel + 1) % 3]} {value}"


def _describe_kernel_matches(desk: FigureContext, layer: str, units: Sequence[int]) -> str:
    """Say which of a first layer's filters resemble a classical kernel more than random filters do."""
    found = desk.filter_matches
    if not found or found["layer"] != layer or found["kernels"] is None:
        return ""
    best = [max(range(len(row)), key=lambda c, row=row: abs(row[c])) for row in found["r"]]
    beaten = [u for u in units if abs(found["r"][u][best[u]]) > found["baseline"]]
    if not beaten:
        return f" None is nearer to a classical kernel than random filters are (r {found['baseline']:.2f})."
    beaten.sort(key=lambda u: -abs(found["r"][u][best[u]]))
    colours = RGB_LETTERS if len(found["r"][0]) == 3 else ""
    named = [
        f"{u} {found['kernels'][u][best[u]]}{f' in {colours[best[u]]}' if colours else ''} "
        f"({found['r'][u][best[u]]:.2f})".replace("-", "−")
        for u in beaten[:5]
    ]
    return (
        f" Nearest to a classical kernel, by correlation: {join_names(named)}; 95 % of random filters stay below "
        f"{found['baseline']:.2f}."
    )


def draw_maps(desk: FigureContext, layer: str) -> CaptionedFigure:
    """An image a row, the input first, then its maps; a dense grid of one image's where they are many."""
    there = desk.layers[layer]["output_shape"]
    units = desk.select_units(layer, there[0])
    side = max(TILE_SIZE, desk.input_size, *there[1:])
    if len(units) > DENSE_UNITS or len(units) * len(desk.images) * side**2 > DENSE_PIXELS:
        return _draw_dense_maps(desk, layer, units)
    scales = desk.make_map_scales(layer)
    lines: list[TileRow] = []
    labels = []
    for row, (image, found) in enumerate(zip(desk.images, desk.outputs(layer), strict=True)):
        for n, part in enumerate(split_into_chunks(units, count_tiles_per_row(side))):
            head = desk.make_input_tile(image) if n == 0 else None
            notes = [_format_match(desk, layer, unit) if row == 0 else "" for unit in part]
            tiles = [
                make_tile(scales, layer, found[u], u, "", note) for u, note in zip(part, notes, strict=True)
            ]
            lines.append([head, *tiles])
            labels.append(_wrap_label(desk.describe_image(image, "\n")) if n == 0 else "")
    text = (
        f"The feature maps of {layer} ({desk.layers[layer]['type']}): units {format_unit_range(units)} of "
        f"{there[0]}, each {format_shape(there[1:])}, a row an image: {desk.joined_image_names}; the input first. "
        f"{scales.describe(layer)}{_describe_feature_matches(desk, layer, units)}"
    )
    bars = [make_colour_bar(scales, layer, 0, len(lines) - 1, "activation")]
    return desk.make_montage("maps", layer, lines, labels, bars, text, group_starts=(1,))


def _draw_dense_maps(desk: FigureContext, layer: str, units: Sequence[int]) -> CaptionedFigure:
    """Many maps of the first image, without room for numbers, which the lines' labels give."""
    image, scales = desk.images[0], desk.make_map_scales(layer)
    found = desk.activations[image["name"]][layer]
    side = max(found.shape[1:])
    columns = 32 if side <= DENSE_TILE_SIZE else 16
    parts = split_into_chunks(units, columns)
    lines: list[TileRow] = [
        [make_dense_tile(scales, layer, found[unit], unit) for unit in part] for part in parts
    ]
    text = (
        f"The feature maps of {layer} ({desk.layers[layer]['type']}) on {desk.describe_image(image, ', ')}: units "
        f"{format_unit_range(units)} of {len(found)}, each {format_shape(found.shape[1:])}, {columns} a line. "
        f"{scales.describe(layer, dense=True)}{_describe_feature_matches(desk, layer, units)}"
    )
    bars = [make_colour_bar(scales, layer, 0, len(lines) - 1, "activation")]
    layout = {"tile_size": DENSE_TILE_SIZE, "header_height": 4, "gap": 4}
    return desk.make_montage(
        "maps", layer, lines, [format_unit_range(part) for part in parts], bars, text, **layout
    )


def _format_match(desk: FigureContext, layer: str, unit: int) -> str:
    """The note over a map that resembles a classical feature: its short name and r."""
    match = desk.unit_matches[layer]["units"][unit] if layer in desk.unit_matches else None
    if match is None:
        return ""
    return f"{SHORT_FEATURE_NAMES[match['feature'].rstrip('+-')]} {match['r']:.2f}".replace("-", "−")


def _describe_feature_matches(desk: FigureContext, layer: str, units: Sequence[int]) -> str:
    """Say which of the units drawn resemble a classical feature, the likest first."""
    if layer not in desk.unit_matches:
        return ""
    like, least = desk.unit_matches[layer], desk.match_threshold
    found = [(unit, like["units"][unit]) for unit in units if like["units"][unit]]
    untrained = f"of an untrained network's units 95 % stay below {like['baseline']:.2f}"
    if not found:
        return (
            f" No unit drawn is said to resemble a classical feature: that takes an r of {least:g}, and "
            f"{untrained}."
        )
    found.sort(key=lambda pair: -abs(pair[1]["r"]))
    named = [f"{u} {match['description']} ({match['r']:.2f})".replace("(-", "(−") for u, match in found[:4]]
    more = f", and {len(found) - 4} more" if len(found) > 4 else ""
    return f" Likest to a classical feature, by correlation: {', '.join(named)}{more}; {untrained}."


def draw_filter_map_pairs(desk: FigureContext, layer: str) -> CaptionedFigure:
    """A unit a row: its filter, then its map of each image."""
    weight, weights, found = desk.weight(layer), desk.make_weight_scales(layer), desk.make_map_scales(layer)
    outputs = desk.outputs(layer)
    colours = desk.has_rgb_filters(layer)
    side = max(TILE_SIZE, desk.input_size, *outputs[0].shape[1:])
    units = desk.select_units(layer, len(weight))[
        : max(MAX_CHANNELS, MAX_PAIRS_HEIGHT // (side + HEADER_HEIGHT + GAP))
    ]
    most = 3 if colours else max(2, min(MAX_CHANNELS, count_tiles_per_row(side) - len(outputs)))
    channels, view = _select_channels(weight[units], most)
    blank: TileRow = [None] * (len(channels) + colours)
    lines: list[TileRow] = [blank + [desk.make_input_tile(image, image["name"]) for image in desk.images]]
    for unit in units:
        kernels: TileRow = [make_rgb_tile(weights, layer, weight[unit], unit)] if colours else []
        named = RGB_LETTERS if colours else [f"ch {c}" for c in channels]
        for channel, name in zip(channels, named, strict=True):
            kernels.append(make_tile(weights, layer, weight[unit, channel], "" if colours else unit, name))
        lines.append([*kernels, *(make_tile(found, layer, output[unit], unit) for output in outputs)])
    half = max(1, len(lines) // 2)
    bars = [
        make_colour_bar(weights, layer, 0, half - 1, "weight"),
        make_colour_bar(found, layer, half, len(lines) - 1, "activation"),
    ]
    text = (
        f"Each filter of {layer} beside its own maps, units {format_unit_range(units)} of {len(weight)}: at the left "
        f"{format_shape(weight.shape[2:])} weights over {view}{', first as colours about grey' if colours else ''}, at "
        f"the right what they make of {desk.joined_image_names}, bias added, before any activation. "
        f"{weights.describe(layer, 'weights')} {found.describe(layer, 'maps')}"
    )
    labels = ["input", *(f"unit {unit}" for unit in units)]
    return desk.make_montage("pairs", layer, lines, labels, bars, text, group_starts=(len(blank),))


def draw_values(desk: FigureContext, layer: str) -> CaptionedFigure:
    """A layer without spatial axes: bars where there are few units, else strips."""
    found = np.stack([output.ravel() for output in desk.outputs(layer)])
    count, classes = found.shape[1], desk.network["classes"]
    titles = [desk.describe_image(image, "   ") for image in desk.images]
    named = count == len(classes)
    predicted = [image["prediction"] if named else None for image in desk.images]
    marked = any(unit is not None for unit in predicted)
    text = f"The {count} values of {layer} ({desk.layers[layer]['type']}) on {desk.joined_image_names}. "
    if count > charts.MAX_LABELLED:
        scale = ColourScale.from_values(found)
        across = charts.choose_row_length(count)
        lines = f"Each line has {across} units" if count > across else "All stand on one line"
        text += f"{lines}, the first of them at its left: {scale.description}"
        caption = desk.make_caption(text + ("; the prediction is framed." if marked else "."))
        figure = charts.plot_unit_heatmaps(found, titles, scale, predicted, caption)
        return desk.make_figure("values", layer, caption, figure)
    caption = desk.make_caption(
        text + "One axis for all" + ("; the prediction is coloured." if marked else ".")
    )
    names = classes if named else [str(unit) for unit in range(count)]
    return desk.make_figure(
        "values", layer, caption, charts.plot_unit_bars(found, names, titles, predicted, caption)
    )


def draw_tokens(desk: FigureContext, layer: str) -> CaptionedFigure:
    """A layer of vectors without a place, as a transformer's: each image's as one tile, a row a vector."""
    scales = LayerScales("per_layer", {layer: desk.outputs(layer)})
    lines: list[TileRow] = [
        [desk.make_input_tile(image), make_tile(scales, layer, output, "")]
        for image, output in zip(desk.images, desk.outputs(layer), strict=True)
    ]
    shape = desk.layers[layer]["output_shape"]
    text = (
        f"The {shape[0]} vectors of {shape[1]} values of {layer} ({desk.layers[layer]['type']}) on "
        f"{desk.joined_image_names}, a vector a row. {scales.describe(layer)}"
    )
    bars = [make_colour_bar(scales, layer, 0, len(lines) - 1, "activation")]
    return desk.make_montage("values", layer, lines, [image["name"] for image in desk.images], bars, text)


def _select_channels(weight: Array, most: int = MAX_CHANNELS) -> tuple[list[int], str]:
    """Choose the input channels of filters (units, C, h, w) to show, `most` or all; say which they are."""
    count = weight.shape[1]
    if count == 1:
        return [0], "its one input channel"
    if count <= most:
        return list(range(count)), f"all {count} input channels"
    norms = np.sqrt((weight.astype(np.float64) ** 2).sum((0, 2, 3)))
    chosen = sorted(np.argsort(-norms, kind="stable")[:most].tolist())
    if most == 1:
        return chosen, f"1 of {count} input channels, {chosen[0]}, the one with the largest weights"
    return chosen, f"{most} of {count} input channels, those with the largest weights"


def _wrap_label(label: str) -> str:
    return "\n".join(textwrap.fill(line, LABEL_CHARACTERS) for line in label.split("\n"))
