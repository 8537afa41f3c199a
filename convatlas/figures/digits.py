"""Figures of the projections of images chosen by class: a row per class, a column per unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.lines import Line2D

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import CLIPPING_NOTE, make_projection_tile, split_into_chunks
from convatlas.names import describe_classes, format_number, format_shape, join_names
from convatlas.plotting.colormap import LayerScales, colour_table
from convatlas.plotting.labelled_figure import (
    DPI,
    HAIRLINE_RGB,
    MIN_WIDTH,
    add_pixels,
    caption_height,
    make_chart_figure,
)
from convatlas.plotting.montage import (
    HAIRLINE_COLOUR,
    Montage,
    TileRow,
    assemble_montage,
    shorten_to_width,
    text_width,
)
from convatlas.records import SampleImage, TileGroup, TileLayout
from convatlas.results import UNITS_SUFFIX, list_projection_keys, projected_units

UNITS_PER_BAND = 24  # columns of units; further units are in further bands
BANDS_PER_FIGURE = 4
GAP, HEADER_HEIGHT = 8, 2  # pixels between tiles, and above each row of them
MARGIN = 40  # pixels at the figure's edges
BAND_TOP_MARGIN = 116  # pixels above the tiles of a band, for names and numbers
BAND_BOTTOM_MARGIN = 104  # pixels below them, for colour bars
MAX_COLOUR_BAR_LENGTH, COLOUR_BAR_THICKNESS = 464, 20  # pixels
MIN_LABELLED_LENGTH = 240  # pixels of a colour bar above which it has labels at both ends
# Fonts in points, of a figure that the pages show at two fifths of its pixels.
NAME_POINTS, NUMBER_POINTS = 11.0, 9.5
DIGIT_POINTS, WORD_POINTS = 26.0, 11.0  # of a row's name: one letter, or a word
SERIF = "STIXGeneral"


@dataclass(frozen=True)
class UnitGroup:
    """Units of one layer side by side in a band.

    Attributes:
        key: The key of their projections, <layer> or <layer>@peak.
        units: Their numbers.
        first_column: The column of the first one; that of the input is 0.
    """

    key: str
    units: list[int]
    first_column: int

    @property
    def layer(self) -> str:
        """Name of the layer."""
        return self.key.partition("@")[0]


Band = Sequence[UnitGroup]


def select_digit_images(images: Sequence[SampleImage]) -> list[SampleImage]:
    """Return the images that the config chose by class.

    Args:
        images: Entries of images.json.

    Returns:
        Those that have a label and are named "digit-<class>", in the same order.
    """
    return [image for image in images if image["name"].startswith("digit-") and image["label"] is not None]


def draw_digit_figures(context: FigureContext) -> Iterator[CaptionedFigure]:
    """Draw the projections of the whole maps, then those of the strongest locations.

    Args:
        context: The network's results and views.

    Yields:
        Figures of kind "digits", each of at most BANDS_PER_FIGURE bands of UNITS_PER_BAND units, with the
        places of their tiles; none where no image chosen by class has projections.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    images = [
        image
        for image in select_digit_images(context.results.images)
        if len(context.projections(image["name"]))
    ]
    if not images:
        return
    scales = context.make_projection_scales([image["name"] for image in images])
    all_keys = list_projection_keys(context.projections(images[0]["name"]))
    for is_peak in (False, True):
        keys = [key for key in all_keys if key.endswith("@peak") == is_peak]
        bands = _arrange_bands(context, images, keys)
        for number, chunk in enumerate(split_into_chunks(bands, BANDS_PER_FIGURE), 1):
            suffix = ("+peak" if is_peak else "") + (f"+{number}" if number > 1 else "")
            yield _draw_digit_figure(context, images, scales, chunk, suffix)


def _arrange_bands(
    context: FigureContext, images: Sequence[SampleImage], keys: Sequence[str]
) -> list[list[UnitGroup]]:
    """Arrange the units that are projected for any of the images, UNITS_PER_BAND in a band."""
    bands: list[list[UnitGroup]] = []
    room = 0
    for key in keys:
        layer = key.partition("@")[0]
        units_by_image = [projected_units(context.projections(image["name"]), layer) for image in images]
        units = sorted({unit for units in units_by_image for unit in units})
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
    context: FigureContext,
    images: Sequence[SampleImage],
    scales: LayerScales,
    bands: Sequence[Band],
    suffix: str,
) -> CaptionedFigure:
    montages = [_assemble_band(context, images, scales, band) for band in bands]
    classes = context.network["dataset_classes"] or []
    names = [classes[image["label"]] for image in images if image["label"] is not None]
    points = DIGIT_POINTS if max(map(len, names)) == 1 else WORD_POINTS
    left = MARGIN + 16 + max(text_width(name, points * DPI / 72) for name in names)
    width = max(MIN_WIDTH, left + max(montage.pixels.shape[1] for montage in montages) + MARGIN)
    height = sum(BAND_TOP_MARGIN + montage.pixels.shape[0] + BAND_BOTTOM_MARGIN for montage in montages)
    caption = _write_caption(context, images, scales, bands)
    canvas = _FigureCanvas(width, height, context.format_line(caption))
    groups: list[TileGroup] = []
    top = 0
    for band, montage in zip(bands, montages, strict=True):
        top += BAND_TOP_MARGIN
        canvas.draw_pixels(montage.pixels, left, top)
        for name, (row_top, row_bottom) in zip(names, montage.row_spans, strict=True):
            y = top + (row_top + row_bottom) / 2
            canvas.draw_text(left - 12, y, name, points, ha="right", va="center", family=SERIF)
        canvas.draw_text(left + montage.column_lefts[0], top - 12, "input", NUMBER_POINTS)
        groups += [_draw_group(canvas, scales, group, montage, left, top) for group in band]
        top += montage.pixels.shape[0] + BAND_BOTTOM_MARGIN
    layout: TileLayout = {
        "images": [image["name"] for image in images],
        "tile_size": context.tile_size,
        "pitch": context.tile_size + GAP,
        "input": left + montages[0].column_lefts[0],
        "groups": groups,
    }
    figure = context.make_figure("digits", "", caption, canvas.figure, suffix)
    return replace(figure, tile_layout=layout)


def _assemble_band(
    context: FigureContext, images: Sequence[SampleImage], scales: LayerScales, band: Band
) -> Montage:
    rows: list[TileRow] = []
    for image in images:
        name = image["name"]
        projections = context.projections(name)
        row: TileRow = [context.make_input_tile(name, title="")]
        for group in band:
            array, units = projections[group.key], projected_units(projections, group.layer)
            inactive = context.find_inactive_units(name, group.layer)
            for unit in group.units:
                if unit not in units:
                    row.append(None)
                    continue
                values = array[units.index(unit)]
                tile = make_projection_tile(scales, group.key, values, unit, unit in inactive)
                row.append(replace(tile, title="", right_title=""))
        rows.append(row)
    group_starts = [group.first_column for group in band]
    return assemble_montage(rows, context.tile_size, HEADER_HEIGHT, GAP, group_starts)


def _draw_group(
    canvas: "_FigureCanvas", scales: LayerScales, group: UnitGroup, montage: Montage, left: int, top: int
) -> TileGroup:
    """Draw the name, the numbers and the colour bar of a group, and return where its tiles are."""
    lefts = [left + montage.column_lefts[group.first_column + n] for n in range(len(group.units))]
    right = lefts[-1] + montage.row_spans[0][1] - montage.row_spans[0][0]
    bottom = top + montage.pixels.shape[0]
    name = shorten_to_width(group.layer, right - lefts[0], NAME_POINTS * DPI / 72)
    canvas.draw_text(lefts[0], top - 64, name, NAME_POINTS, family=SERIF)
    canvas.draw_line(lefts[0], right, top - 52)
    for x, unit in zip(lefts, group.units, strict=True):
        canvas.draw_text(x, top - 12, str(unit), NUMBER_POINTS)
    length = min(MAX_COLOUR_BAR_LENGTH, right - lefts[0])
    canvas.draw_colour_bar(lefts[0], bottom + 14, length, scales, group.key)
    return {
        "layer": group.layer,
        "units": group.units,
        "left": lefts[0],
        "tops": [top + row_top for row_top, _ in montage.row_spans],
        "colour_bar": [lefts[0] - GAP, bottom + 8, length + 2 * GAP, BAND_BOTTOM_MARGIN - 24],
    }


class _FigureCanvas:
    """A figure that is drawn in pixels from its upper left corner."""

    def __init__(self, width: int, height: int, caption: str) -> None:
        self.width, self.height = width, height
        self.figure, self.panel = make_chart_figure(width, height, caption)
        self.panel.patch.set_visible(False)  # the pixels are below it
        self.caption_height = caption_height(caption, width)

    def draw_pixels(self, pixels: npt.NDArray[np.uint8], left: int, top: int, *colormaps: str) -> None:
        bottom = self.caption_height + self.height - top - len(pixels)
        add_pixels(self.figure, pixels, left, bottom, colormaps)

    def draw_text(self, x: float, y: float, text: str, points: float, **style: Any) -> None:
        self.panel.text(x / self.width, 1 - y / self.height, text, size=points, **style)

    def draw_line(self, left: int, right: int, y: int) -> None:
        x_data = [left / self.width, right / self.width]
        y_data = [1 - y / self.height] * 2
        self.panel.add_artist(Line2D(x_data, y_data, color=HAIRLINE_RGB, linewidth=0.8))

    def draw_colour_bar(self, left: int, top: int, length: int, scales: LayerScales, key: str) -> None:
        """Draw the scale of a group from left to right, with its ends and its middle below."""
        scale = scales.for_layer(key)
        pixels = np.full((COLOUR_BAR_THICKNESS, length, 3), HAIRLINE_COLOUR, np.uint8)
        pixels[1:-1, 1:-1] = colour_table(scale.cmap)[np.arange(length - 2) * 256 // (length - 2)]
        self.draw_pixels(pixels, left, top, scale.cmap)
        low, high = scales.end_labels(key) or (format_number(scale.low), format_number(scale.high))
        labels = [(0.5, f"± {high}", "center")]
        if length > MIN_LABELLED_LENGTH:
            labels = [(0.0, low, "left"), (0.5, "0", "center"), (1.0, high, "right")]
        y = top + COLOUR_BAR_THICKNESS + 8
        for position, text, alignment in labels:
            self.draw_text(left + position * length, y, text, NUMBER_POINTS, ha=alignment, va="top")


def _write_caption(
    context: FigureContext, images: Sequence[SampleImage], scales: LayerScales, bands: Sequence[Band]
) -> Caption:
    groups = [group for band in bands for group in band]
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.layer] = counts.get(group.layer, 0) + len(group.units)
    layers = join_names([f"{layer} ({count})" for layer, count in counts.items()])
    location = "strongest location" if groups[0].key.endswith("@peak") else "whole map"
    projections = context.projections(images[0]["name"])
    n_inactive = sum(
        len(set(group.units) & context.find_inactive_units(image["name"], group.layer))
        for image in images
        for group in groups
    )
    extent = scales.describe_extent(groups[0].key)
    line = (
        f"{layers}: deconvnet projections of {sum(counts.values())} units for "
        f"{describe_classes(images, context.network)}, {location}, "
        f"{'a scale per layer' if len(counts) > 1 and scales.mode == 'per_layer' else extent}"
    )
    text = (
        f"To the {format_shape(projections[groups[0].key].shape[2:])} pixels of the input, signed; one row "
        f"per image, one column per unit, input first. {_describe_scale(scales, groups[0].key)}"
    )
    if any(f"{layer}{UNITS_SUFFIX}" in projections for layer in counts):
        text += " Empty: units that are not among the most active of their layer."
    if n_inactive:
        text += f" Crossed out: units inactive on an image ({n_inactive}), whose projection is zero."
    return Caption(line, text + context.display_note + context.rectification_note)


def _describe_scale(scales: LayerScales, key: str) -> str:
    if scales.mode == "per_tile":
        return scales.describe(key, "projections", dense=True)
    subject = (
        "All layers share one colour scale"
        if scales.mode == "shared"
        else "Each layer has its own colour scale"
    )
    text = f"{subject}, the same in all rows: {scales.for_layer(key).description}."
    return f"{text} {CLIPPING_NOTE}" if scales.as_rgb else text
