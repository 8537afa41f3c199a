"""Plates of one layer: its filters, its maps, both side by side, or its values."""

import textwrap
from collections.abc import Sequence

import numpy as np

from convatlas.figures.context import (
    COLUMNS,
    Array,
    Desk,
    Line,
    Plate,
    bar,
    by,
    chunks,
    fitting,
    in_colour,
    listed,
    small,
    span,
    tile,
)
from convatlas.plotting import charts
from convatlas.plotting.colormap import Scale, Scales
from convatlas.plotting.montage import EDGE, GAP, STRIP

FEW = 8  # input channels of a filter that are all shown
MANY = 64  # units above which a plate is dense: no number over each tile, one image
LARGE = 12_000_000  # pixels above which a plate of maps is dense too
DENSE = 28  # pixels that a tile of a dense plate fills
TILES = 4096  # of a dense plate of filters: of many units fewer channels are shown
TALL = 5000  # pixels that the rows of pairs take at most
LABEL = 36  # letters a line of a row's label
COLOURS = "RGB"
SHORT = {"brightness": "bright", "sobel_x": "vert.", "sobel_y": "horiz.", "sobel_diagonal_down": "diag /",
         "sobel_diagonal_up": "diag \\", "sobel_magnitude": "edge", "laplacian": "spot", "harris": "corner",
         "erosion": "erode", "dilation": "dilate", "lbp": "LBP"}  # fmt: skip


def filters(desk: Desk, layer: str) -> Plate:
    """Units side by side, an input channel a line; those that look at an image's colours as colours."""
    if desk.sees_colours(layer):
        return _colour_filters(desk, layer)
    weight, scales = desk.weight(layer), desk.weight_scales(layer)
    units = desk.units(layer, len(weight))
    dense = len(units) * min(FEW, weight.shape[1]) > 4 * MANY or len(units) > MANY
    channels, view = _channels(weight[units], max(1, min(FEW, TILES // len(units))))
    lines: list[Line] = []
    labels = []
    for part in chunks(units, MANY if dense else COLUMNS):
        for channel in channels:
            draw = small if dense else tile
            lines.append([draw(scales, layer, weight[unit, channel], unit) for unit in part])
            labels.append(f"{span(part)}, channel {channel}" if dense else f"channel {channel}")
    text = (
        f"The filters of {layer}: units {span(units)} of {len(weight)}, each {by(weight.shape[2:])}, "
        f"over {view}. {scales.words(layer, dense=dense)}{_kernels_met(desk, layer, units)}"
    )
    bars = [bar(scales, layer, 0, len(lines) - 1, "weight")]
    layout = {"edge": DENSE, "strip": 4, "gap": 4} if dense else {}
    return desk.montage("filters", layer, lines, labels, bars, text, **layout)


def _colour_filters(desk: Desk, layer: str) -> Plate:
    """Each filter in colour, then its red, green and blue kernels, with how alike they are."""
    weight, scales = desk.weight(layer), desk.weight_scales(layer)
    units = desk.units(layer, len(weight))
    lines: list[Line] = []
    for part in chunks(units, 4):
        line: Line = []
        for unit in part:
            line += [in_colour(scales, layer, weight[unit], unit, _alike(desk, layer, unit))]
            notes = [_with(desk, layer, unit, c) for c in range(3)]
            line += [tile(scales, layer, weight[unit, c], COLOURS[c], "", notes[c]) for c in range(3)]
        lines.append(line)
    text = (
        f"The filters of {layer}: units {span(units)} of {len(weight)}, each {by(weight.shape[2:])}, first "
        "as colours about grey, then its kernels for red, green and blue. Over the kernels stand the "
        "correlations of red with green (RG), green with blue (GB) and blue with red (BR): alike, the unit "
        "sees light and dark (luminance); opposed, it sees colour. "
        f"{scales.words(layer)}{_kernels_met(desk, layer, units)}"
    )
    bars = [bar(scales, layer, 0, len(lines) - 1, "weight")]
    labels = [f"units\n{span(part)}" for part in chunks(units, 4)]
    return desk.montage("filters", layer, lines, labels, bars, text, apart=(4, 8, 12))


def _alike(desk: Desk, layer: str, unit: int) -> str:
    found = desk.filters_like
    return found["colour"][unit] if found and found["layer"] == layer else ""


def _with(desk: Desk, layer: str, unit: int, channel: int) -> str:
    """The correlation of a colour's kernel with the next colour's."""
    found = desk.filters_like
    if not found or found["layer"] != layer:
        return ""
    pair = {0: 0, 1: 2, 2: 1}[channel]  # kept as red-green, red-blue, green-blue
    value = f"{found['channels'][unit][pair]:.2f}".replace("-", "−")
    return f"{COLOURS[channel]}{COLOURS[(channel + 1) % 3]} {value}"


def _kernels_met(desk: Desk, layer: str, units: Sequence[int]) -> str:
    """Say which of a first layer's filters resemble a classical kernel more than random filters do."""
    found = desk.filters_like
    if not found or found["layer"] != layer or found["kernels"] is None:
        return ""
    best = [max(range(len(row)), key=lambda c, row=row: abs(row[c])) for row in found["r"]]
    beaten = [u for u in units if abs(found["r"][u][best[u]]) > found["baseline"]]
    if not beaten:
        return f" None is nearer to a classical kernel than random filters are (r {found['baseline']:.2f})."
    beaten.sort(key=lambda u: -abs(found["r"][u][best[u]]))
    colours = COLOURS if len(found["r"][0]) == 3 else ""
    named = [
        f"{u} {found['kernels'][u][best[u]]}{f' in {colours[best[u]]}' if colours else ''} "
        f"({found['r'][u][best[u]]:.2f})".replace("-", "−")
        for u in beaten[:5]
    ]
    return (
        f" Nearest to a classical kernel, by correlation: {listed(named)}; 95 % of random filters stay below "
        f"{found['baseline']:.2f}."
    )


def maps(desk: Desk, layer: str) -> Plate:
    """An image a row, the input first, then its maps; a dense grid of one image's where they are many."""
    there = desk.layers[layer]["output_shape"]
    units = desk.units(layer, there[0])
    side = max(EDGE, desk.side, *there[1:])
    if len(units) > MANY or len(units) * len(desk.images) * side**2 > LARGE:
        return _dense(desk, layer, units)
    scales = desk.map_scales(layer)
    lines: list[Line] = []
    labels = []
    for row, (image, found) in enumerate(zip(desk.images, desk.outputs(layer), strict=True)):
        for n, part in enumerate(chunks(units, fitting(side))):
            head = desk.input(image) if n == 0 else None
            notes = [_resembles(desk, layer, unit) if row == 0 else "" for unit in part]
            tiles = [tile(scales, layer, found[u], u, "", note) for u, note in zip(part, notes, strict=True)]
            lines.append([head, *tiles])
            labels.append(_wrapped(desk.seen_as(image, "\n")) if n == 0 else "")
    text = (
        f"The feature maps of {layer} ({desk.layers[layer]['type']}): units {span(units)} of "
        f"{there[0]}, each {by(there[1:])}, a row an image: {desk.image_names}; the input first. "
        f"{scales.words(layer)}{_features_met(desk, layer, units)}"
    )
    bars = [bar(scales, layer, 0, len(lines) - 1, "activation")]
    return desk.montage("maps", layer, lines, labels, bars, text, apart=(1,))


def _dense(desk: Desk, layer: str, units: Sequence[int]) -> Plate:
    """Many maps of the first image, without room for numbers, which the lines' labels give."""
    image, scales = desk.images[0], desk.map_scales(layer)
    found = desk.activations[image["name"]][layer]
    side = max(found.shape[1:])
    columns = 32 if side <= DENSE else 16
    parts = chunks(units, columns)
    lines: list[Line] = [[small(scales, layer, found[unit], unit) for unit in part] for part in parts]
    text = (
        f"The feature maps of {layer} ({desk.layers[layer]['type']}) on {desk.seen_as(image, ', ')}: units "
        f"{span(units)} of {len(found)}, each {by(found.shape[1:])}, {columns} a line. "
        f"{scales.words(layer, dense=True)}{_features_met(desk, layer, units)}"
    )
    bars = [bar(scales, layer, 0, len(lines) - 1, "activation")]
    layout = {"edge": DENSE, "strip": 4, "gap": 4}
    return desk.montage("maps", layer, lines, [span(part) for part in parts], bars, text, **layout)


def _resembles(desk: Desk, layer: str, unit: int) -> str:
    """The note over a map that resembles a classical feature: its short name and r."""
    match = desk.units_like[layer]["units"][unit] if layer in desk.units_like else None
    if match is None:
        return ""
    return f"{SHORT[match['feature'].rstrip('+-')]} {match['r']:.2f}".replace("-", "−")


def _features_met(desk: Desk, layer: str, units: Sequence[int]) -> str:
    """Say which of the units drawn resemble a classical feature, the likest first."""
    if layer not in desk.units_like:
        return ""
    like, least = desk.units_like[layer], desk.least_like
    found = [(unit, like["units"][unit]) for unit in units if like["units"][unit]]
    untrained = f"of an untrained network's units 95 % stay below {like['baseline']:.2f}"
    if not found:
        return (
            f" No unit drawn is said to resemble a classical feature: that takes an r of {least:g}, and "
            f"{untrained}."
        )
    found.sort(key=lambda pair: -abs(pair[1]["r"]))
    named = [f"{u} {match['words']} ({match['r']:.2f})".replace("(-", "(−") for u, match in found[:4]]
    more = f", and {len(found) - 4} more" if len(found) > 4 else ""
    return f" Likest to a classical feature, by correlation: {', '.join(named)}{more}; {untrained}."


def pairs(desk: Desk, layer: str) -> Plate:
    """A unit a row: its filter, then its map of each image."""
    weight, weights, found = desk.weight(layer), desk.weight_scales(layer), desk.map_scales(layer)
    outputs = desk.outputs(layer)
    colours = desk.sees_colours(layer)
    side = max(EDGE, desk.side, *outputs[0].shape[1:])
    units = desk.units(layer, len(weight))[: max(FEW, TALL // (side + STRIP + GAP))]
    most = 3 if colours else max(2, min(FEW, fitting(side) - len(outputs)))
    channels, view = _channels(weight[units], most)
    blank: Line = [None] * (len(channels) + colours)
    lines: list[Line] = [blank + [desk.input(image, image["name"]) for image in desk.images]]
    for unit in units:
        kernels: Line = [in_colour(weights, layer, weight[unit], unit)] if colours else []
        named = COLOURS if colours else [f"ch {c}" for c in channels]
        for channel, name in zip(channels, named, strict=True):
            kernels.append(tile(weights, layer, weight[unit, channel], "" if colours else unit, name))
        lines.append([*kernels, *(tile(found, layer, output[unit], unit) for output in outputs)])
    half = max(1, len(lines) // 2)
    bars = [
        bar(weights, layer, 0, half - 1, "weight"),
        bar(found, layer, half, len(lines) - 1, "activation"),
    ]
    text = (
        f"Each filter of {layer} beside its own maps, units {span(units)} of {len(weight)}: at the left "
        f"{by(weight.shape[2:])} weights over {view}{', first as colours about grey' if colours else ''}, at "
        f"the right what they make of {desk.image_names}, bias added, before any activation. "
        f"{weights.words(layer, 'weights')} {found.words(layer, 'maps')}"
    )
    labels = ["input", *(f"unit {unit}" for unit in units)]
    return desk.montage("pairs", layer, lines, labels, bars, text, apart=(len(blank),))


def values(desk: Desk, layer: str) -> Plate:
    """A layer without spatial axes: bars where there are few units, else strips."""
    found = np.stack([output.ravel() for output in desk.outputs(layer)])
    count, classes = found.shape[1], desk.network["classes"]
    titles = [desk.seen_as(image, "   ") for image in desk.images]
    named = count == len(classes)
    predicted = [image["prediction"] if named else None for image in desk.images]
    marked = any(unit is not None for unit in predicted)
    text = f"The {count} values of {layer} ({desk.layers[layer]['type']}) on {desk.image_names}. "
    if count > charts.FEW:
        scale = Scale.of(found)
        across = charts.across(count)
        lines = f"Each line has {across} units" if count > across else "All stand on one line"
        text += f"{lines}, the first of them at its left: {scale.words}"
        caption = desk.caption(text + ("; the prediction is framed." if marked else "."))
        figure = charts.strips(found, titles, scale, predicted, caption)
        return desk.plate("values", layer, caption, figure)
    caption = desk.caption(text + "One axis for all" + ("; the prediction is coloured." if marked else "."))
    names = classes if named else [str(unit) for unit in range(count)]
    return desk.plate("values", layer, caption, charts.bars(found, names, titles, predicted, caption))


def tokens(desk: Desk, layer: str) -> Plate:
    """A layer of vectors without a place, as a transformer's: each image's as one tile, a row a vector."""
    scales = Scales("per_layer", {layer: desk.outputs(layer)})
    lines: list[Line] = [
        [desk.input(image), tile(scales, layer, output, "")]
        for image, output in zip(desk.images, desk.outputs(layer), strict=True)
    ]
    shape = desk.layers[layer]["output_shape"]
    text = (
        f"The {shape[0]} vectors of {shape[1]} values of {layer} ({desk.layers[layer]['type']}) on "
        f"{desk.image_names}, a vector a row. {scales.words(layer)}"
    )
    bars = [bar(scales, layer, 0, len(lines) - 1, "activation")]
    return desk.montage("values", layer, lines, [image["name"] for image in desk.images], bars, text)


def _channels(weight: Array, most: int = FEW) -> tuple[list[int], str]:
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


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.fill(line, LABEL) for line in label.split("\n"))
