"""The plate of the digits: a digit a row, a unit a column, and where they meet what caused its answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from convatlas.figures.context import (
    Array,
    CaptionedFigure,
    FigureContext,
    TileRow,
    format_shape,
    join_names,
    split_into_chunks,
)
from convatlas.figures.projections import (
    CLIPPING_NOTE,
    find_inactive_units,
    list_projected_units,
    list_projection_keys,
    make_projection_scales,
    make_projection_tile,
)
from convatlas.names import describe_classes
from convatlas.plotting.colormap import LayerScales, colour_table
from convatlas.plotting.labelled_figure import DPI, MIN_WIDTH, add_pixels, caption_height, make_chart_figure
from convatlas.plotting.montage import (
    HAIRLINE,
    TILE_SIZE,
    Montage,
    assemble_montage,
    shorten_to_width,
    text_width,
)

UNITS_PER_BAND = 24  # units side by side; of more there are further bands
BANDS_PER_FIGURE = 4  # on a plate
GAP, HEADER_HEIGHT = 8, 2  # pixels between tiles, and above each line of them
MARGIN = 40  # pixels at the plate's edges
BAND_TOP_MARGIN, BAND_BOTTOM_MARGIN = (
    116,
    104,
)  # pixels of a band over its tiles, for names and numbers, and under them, for bars
MAX_COLOUR_BAR_LENGTH, COLOUR_BAR_THICKNESS = 464, 20  # pixels that a colour bar is long, at most, and thick
# Fonts, in points: of a plate that is shown at two fifths of its pixels.
NAME_POINTS, NUMBER_POINTS = 11.0, 9.5
DIGIT_POINTS, WORD_POINTS = 26.0, 11.0  # of a row's name: one letter, or a word


@dataclass(frozen=True)
class UnitGroup:
    """Units of one layer side by side, the first in column `first` of its band; the input's column is 0."""

    key: str  # of the projections
    units: list[int]
    first_column: int

    @property
    def layer(self) -> str:
        return self.key.partition("@")[0]


def select_digit_images(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images that were chosen by their class, as digits are."""
    return [image for image in images if image["name"].startswith("digit-") and image["label"] is not None]


def draw_digit_figures(desk: FigureContext) -> Iterator[CaptionedFigure]:
    """A plate for each way in which units are projected: by the whole map, by the strongest location."""
    images = [image for image in select_digit_images(desk.all_images) if len(desk.projections[image["name"]])]
    if not images:
        return
    scales = make_projection_scales(desk, [image["name"] for image in images])
    every = list_projection_keys(desk.projections[images[0]["name"]])
    for peak in (False, True):
        keys = [key for key in every if key.endswith("@peak") == peak]
        for number, bands in enumerate(
            split_into_chunks(_arrange_bands(desk, images, keys), BANDS_PER_FIGURE), 1
        ):
            part = ("+peak" if peak else "") + (f"+{number}" if number > 1 else "")
            yield _draw_digit_figure(desk, images, scales, bands, part)


def _arrange_bands(
    desk: FigureContext, images: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[list[UnitGroup]]:
    """Lay out the units that are projected of any of the images, as many in a band as there is room for."""
    bands: list[list[UnitGroup]] = []
    room = 0
    for key in keys:
        layer = key.partition("@")[0]
        of_images = [list_projected_units(desk.projections[image["name"]], layer) for image in images]
        units = sorted({unit for units in of_images for unit in units})
        if room < len(units) <= UNITS_PER_BAND:
            room = 0  # a new band, rather than a layer in two parts
        while units:
            if not room:
                bands.append([])
                room = UNITS_PER_BAND
            bands[-1].append(UnitGroup(key, units[:room], 1 + UNITS_PER_BAND - room))
            units, room = units[room:], max(0, room - len(units))
    return bands


def _draw_digit_figure(
    desk: FigureContext,
    images: Sequence[dict[str, Any]],
    scales: LayerScales,
    bands: Sequence[list[UnitGroup]],
    part: str,
) -> CaptionedFigure:
    montages = [_assemble_band(desk, images, scales, band) for band in bands]
    names = [desk.network["dataset_classes"][image["label"]] for image in images]
    font = DIGIT_POINTS if max(map(len, names)) == 1 else WORD_POINTS
    left = MARGIN + 16 + max(text_width(name, font * DPI / 72) for name in names)
    width = max(MIN_WIDTH, left + max(montage.pixels.shape[1] for montage in montages) + MARGIN)
    height = sum(BAND_TOP_MARGIN + montage.pixels.shape[0] + BAND_BOTTOM_MARGIN for montage in montages)
    caption = desk.make_caption(_make_caption_text(desk, images, scales, bands))
    canvas = _FigureCanvas(width, height, caption)
    groups, top = [], 0
    for band, montage in zip(bands, montages, strict=True):
        top += BAND_TOP_MARGIN
        canvas.draw_pixels(montage.pixels, left, top)
        for name, (above, below) in zip(names, montage.row_spans, strict=True):
            canvas.draw_text(
                left - 12,
                top + (above + below) / 2,
                name,
                font,
                ha="right",
                va="center",
                family="STIXGeneral",
            )
        canvas.draw_text(left + montage.column_lefts[0], top - 12, "input", NUMBER_POINTS)
        for group in band:
            groups.append(_draw_group(canvas, scales, group, montage, left, top))
        top += montage.pixels.shape[0] + BAND_BOTTOM_MARGIN
    cells = {
        "images": [image["name"] for image in images],
        "edge": _tile_size(desk),
        "pitch": _tile_size(desk) + GAP,
        "input": left + montages[0].column_lefts[0],
        "groups": groups,
    }
    return replace(desk.make_figure("digits", "", caption, canvas.figure, part), cells=cells)


def _tile_size(desk: FigureContext) -> int:
    return desk.input_size * max(1, round(TILE_SIZE / desk.input_size))


def _assemble_band(
    desk: FigureContext, images: Sequence[dict[str, Any]], scales: LayerScales, band: Sequence[UnitGroup]
) -> Montage:
    lines = []
    for image in images:
        line: TileRow = [replace(desk.make_input_tile(image), title="")]
        for group in band:
            projections = desk.projections[image["name"]]
            array, kept = projections[group.key], list_projected_units(projections, group.layer)
            dead = find_inactive_units(desk, image, group.layer)
            for unit in group.units:
                if unit in kept:
                    found = make_projection_tile(
                        scales, group.key, array[kept.index(unit)], unit, unit in dead
                    )
                    line.append(replace(found, title="", right_title=""))
                else:
                    line.append(None)
        lines.append(line)
    return assemble_montage(
        lines, _tile_size(desk), HEADER_HEIGHT, GAP, [group.first_column for group in band]
    )


def _draw_group(
    canvas: "_FigureCanvas", scales: LayerScales, group: UnitGroup, montage: Montage, left: int, top: int
) -> dict[str, Any]:
    """Name a group and number its columns over them, draw its scale under them; give where all this lies."""
    lefts = [left + montage.column_lefts[group.first_column + n] for n in range(len(group.units))]
    right = lefts[-1] + montage.row_spans[0][1] - montage.row_spans[0][0]
    bottom = top + montage.pixels.shape[0]
    name = shorten_to_width(group.layer, right - lefts[0], NAME_POINTS * DPI / 72)
    canvas.draw_text(lefts[0], top - 64, name, NAME_POINTS, family="STIXGeneral")
    canvas.draw_rule(lefts[0], right, top - 52)
    for x, unit in zip(lefts, group.units, strict=True):
        canvas.draw_text(x, top - 12, str(unit), NUMBER_POINTS)
    long = min(MAX_COLOUR_BAR_LENGTH, right - lefts[0])
    canvas.draw_colour_bar(lefts[0], bottom + 14, long, scales, group.key)
    return {
        "layer": group.layer,
        "units": group.units,
        "left": lefts[0],
        "tops": [top + above for above, _ in montage.row_spans],
        "bar": [lefts[0] - GAP, bottom + 8, long + 2 * GAP, BAND_BOTTOM_MARGIN - 24],
    }


class _FigureCanvas:
    """A plate to be filled: places are pixels from its upper left corner."""

    def __init__(self, width: int, height: int, caption: str) -> None:
        self.width, self.height = width, height
        self.figure, self.panel = make_chart_figure(width, height, caption)
        self.panel.patch.set_visible(False)  # the pixels lie under it
        self.caption_height = caption_height(caption, width)

    def draw_pixels(self, pixels: Array, left: int, top: int, colours: str = "") -> None:
        add_pixels(self.figure, pixels, left, self.caption_height + self.height - top - len(pixels), colours)

    def draw_text(self, x: float, y: float, text: str, size: float, **how: Any) -> None:
        self.panel.text(x / self.width, 1 - y / self.height, text, size=size, **how)

    def draw_rule(self, left: int, right: int, y: int) -> None:
        x = np.array([left, right]) / self.width
        line = Line2D(x, [1 - y / self.height] * 2, color=np.divide(HAIRLINE, 255), linewidth=0.8)
        self.panel.add_artist(line)

    def draw_colour_bar(self, left: int, top: int, long: int, scales: LayerScales, key: str) -> None:
        """The scale of a group, from left to right, its ends and its middle below."""
        scale = scales.for_layer(key)
        framed = np.full((COLOUR_BAR_THICKNESS, long, 3), HAIRLINE, np.uint8)
        framed[1:-1, 1:-1] = colour_table(scale.cmap)[np.arange(long - 2) * 256 // (long - 2)]
        self.draw_pixels(framed, left, top, scale.cmap)
        low, high = scales.end_labels(key) or (format_number(scale.low), format_number(scale.high))
        ends = [(0.0, low, "left"), (0.5, "0", "center"), (1.0, high, "right")]
        for share, text, side in ends if long > 240 else [(0.5, f"± {high}", "center")]:
            self.draw_text(
                left + share * long, top + COLOUR_BAR_THICKNESS + 8, text, NUMBER_POINTS, ha=side, va="top"
            )


def _make_caption_text(
    desk: FigureContext,
    images: Sequence[dict[str, Any]],
    scales: LayerScales,
    bands: Sequence[list[UnitGroup]],
) -> str:
    groups = [group for band in bands for group in band]
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.layer] = counts.get(group.layer, 0) + len(group.units)
    units = sum(counts.values())
    select = "single strongest location" if groups[0].key.endswith("@peak") else "whole map"
    projections = desk.projections[images[0]["name"]]
    pixels = format_shape(projections[groups[0].key].shape[2:])
    dead = sum(
        len(set(group.units) & find_inactive_units(desk, image, group.layer))
        for image in images
        for group in groups
    )
    text = (
        f"What caused the answers of the {units} units of "
        f"{join_names([f'{layer} ({count})' for layer, count in counts.items()])} to "
        f"{describe_classes(images, desk.network)}: the deconvnet's projections of each unit's {select} to the "
        f"{pixels} pixels, signed, an image a row and a unit a column, the input first. "
        f"{_describe_scale(scales, groups[0].key)}"
    )
    if any(f"{layer}@units" in projections for layer in counts):
        text += " A place is empty where a unit is not among those of its layer that answer most."
    if dead:
        text += f" Units dead on an image ({dead}) are crossed: nowhere positive, so projected to nothing."
    if desk.views["deconv"]["rectify"]:
        text += " Rectified at activations that are not a ReLU too, where the method is undefined."
    return text


def _describe_scale(scales: LayerScales, key: str) -> str:
    if scales.mode == "per_tile":
        words = scales.describe(key, "projections", dense=True)
    else:
        which = (
            "All layers have one scale" if scales.mode == "shared" else "Each layer has the scale under it"
        )
        words = f"{which}, the same in all rows: {scales.for_layer(key).description}."
    return f"{words} {CLIPPING_NOTE}" if scales.as_rgb and scales.mode != "per_tile" else words


def format_number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
