"""The plate of the digits: a digit a row, a unit a column, and where they meet what caused its answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from convatlas.figures.context import Array, Desk, Line, Plate, by, chunks, listed
from convatlas.figures.projections import BEYOND, dead_units, keys_of, projection, projection_scales, units_of
from convatlas.names import called
from convatlas.plotting.colormap import Scales, colour_table
from convatlas.plotting.labelled_figure import DPI, LEAST, caption_height, chart_plate, place
from convatlas.plotting.montage import EDGE, HAIRLINE, Montage, assemble, fitted, text_width

COLUMNS = 24  # units side by side; of more there are further bands
BANDS = 4  # on a plate
GAP, STRIP = 8, 2  # pixels between tiles, and above each line of them
MARGIN = 40  # pixels at the plate's edges
ABOVE, BELOW = 116, 104  # pixels of a band over its tiles, for names and numbers, and under them, for bars
BAR, THICK = 464, 20  # pixels that a colour bar is long, at most, and thick
# Fonts, in points: of a plate that is shown at two fifths of its pixels.
NAME, NUMBER = 11.0, 9.5
DIGIT, WORD = 26.0, 11.0  # of a row's name: one letter, or a word


@dataclass(frozen=True)
class Group:
    """Units of one layer side by side, the first in column `first` of its band; the input's column is 0."""

    key: str  # of the projections
    units: list[int]
    first: int

    @property
    def layer(self) -> str:
        return self.key.partition("@")[0]


def digits(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images that were chosen by their class, as digits are."""
    return [image for image in images if image["name"].startswith("digit-") and image["label"] is not None]


def draw(desk: Desk) -> Iterator[Plate]:
    """A plate for each way in which units are projected: by the whole map, by the strongest location."""
    images = [image for image in digits(desk.every_image) if len(desk.projections[image["name"]])]
    if not images:
        return
    scales = projection_scales(desk, [image["name"] for image in images])
    every = keys_of(desk.projections[images[0]["name"]])
    for peak in (False, True):
        keys = [key for key in every if key.endswith("@peak") == peak]
        for number, bands in enumerate(chunks(_bands(desk, images, keys), BANDS), 1):
            part = ("+peak" if peak else "") + (f"+{number}" if number > 1 else "")
            yield _plate(desk, images, scales, bands, part)


def _bands(desk: Desk, images: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[list[Group]]:
    """Lay out the units that are projected of any of the images, as many in a band as there is room for."""
    bands: list[list[Group]] = []
    room = 0
    for key in keys:
        layer = key.partition("@")[0]
        of_images = [units_of(desk.projections[image["name"]], layer) for image in images]
        units = sorted({unit for units in of_images for unit in units})
        if room < len(units) <= COLUMNS:
            room = 0  # a new band, rather than a layer in two parts
        while units:
            if not room:
                bands.append([])
                room = COLUMNS
            bands[-1].append(Group(key, units[:room], 1 + COLUMNS - room))
            units, room = units[room:], max(0, room - len(units))
    return bands


def _plate(
    desk: Desk, images: Sequence[dict[str, Any]], scales: Scales, bands: Sequence[list[Group]], part: str
) -> Plate:
    montages = [_montage(desk, images, scales, band) for band in bands]
    names = [desk.network["dataset_classes"][image["label"]] for image in images]
    font = DIGIT if max(map(len, names)) == 1 else WORD
    left = MARGIN + 16 + max(text_width(name, font * DPI / 72) for name in names)
    width = max(LEAST, left + max(montage.pixels.shape[1] for montage in montages) + MARGIN)
    height = sum(ABOVE + montage.pixels.shape[0] + BELOW for montage in montages)
    caption = desk.caption(_text(desk, images, scales, bands))
    canvas = _Canvas(width, height, caption)
    groups, top = [], 0
    for band, montage in zip(bands, montages, strict=True):
        top += ABOVE
        canvas.pixels(montage.pixels, left, top)
        for name, (above, below) in zip(names, montage.lines, strict=True):
            canvas.text(
                left - 12,
                top + (above + below) / 2,
                name,
                font,
                ha="right",
                va="center",
                family="STIXGeneral",
            )
        canvas.text(left + montage.lefts[0], top - 12, "input", NUMBER)
        for group in band:
            groups.append(_group(canvas, scales, group, montage, left, top))
        top += montage.pixels.shape[0] + BELOW
    cells = {
        "images": [image["name"] for image in images],
        "edge": _edge(desk),
        "pitch": _edge(desk) + GAP,
        "input": left + montages[0].lefts[0],
        "groups": groups,
    }
    return replace(desk.plate("digits", "", caption, canvas.figure, part), cells=cells)


def _edge(desk: Desk) -> int:
    return desk.side * max(1, round(EDGE / desk.side))


def _montage(desk: Desk, images: Sequence[dict[str, Any]], scales: Scales, band: Sequence[Group]) -> Montage:
    lines = []
    for image in images:
        line: Line = [replace(desk.input(image), number="")]
        for group in band:
            projections = desk.projections[image["name"]]
            array, kept = projections[group.key], units_of(projections, group.layer)
            dead = dead_units(desk, image, group.layer)
            for unit in group.units:
                if unit in kept:
                    found = projection(scales, group.key, array[kept.index(unit)], unit, unit in dead)
                    line.append(replace(found, number="", mark=""))
                else:
                    line.append(None)
        lines.append(line)
    return assemble(lines, _edge(desk), STRIP, GAP, [group.first for group in band])


def _group(
    canvas: "_Canvas", scales: Scales, group: Group, montage: Montage, left: int, top: int
) -> dict[str, Any]:
    """Name a group and number its columns over them, draw its scale under them; give where all this lies."""
    lefts = [left + montage.lefts[group.first + n] for n in range(len(group.units))]
    right = lefts[-1] + montage.lines[0][1] - montage.lines[0][0]
    bottom = top + montage.pixels.shape[0]
    name = fitted(group.layer, right - lefts[0], NAME * DPI / 72)
    canvas.text(lefts[0], top - 64, name, NAME, family="STIXGeneral")
    canvas.rule(lefts[0], right, top - 52)
    for x, unit in zip(lefts, group.units, strict=True):
        canvas.text(x, top - 12, str(unit), NUMBER)
    long = min(BAR, right - lefts[0])
    canvas.bar(lefts[0], bottom + 14, long, scales, group.key)
    return {
        "layer": group.layer,
        "units": group.units,
        "left": lefts[0],
        "tops": [top + above for above, _ in montage.lines],
        "bar": [lefts[0] - GAP, bottom + 8, long + 2 * GAP, BELOW - 24],
    }


class _Canvas:
    """A plate to be filled: places are pixels from its upper left corner."""

    def __init__(self, width: int, height: int, caption: str) -> None:
        self.width, self.height = width, height
        self.figure, self.part = chart_plate(width, height, caption)
        self.part.patch.set_visible(False)  # the pixels lie under it
        self.foot = caption_height(caption, width)

    def pixels(self, pixels: Array, left: int, top: int, colours: str = "") -> None:
        place(self.figure, pixels, left, self.foot + self.height - top - len(pixels), colours)

    def text(self, x: float, y: float, text: str, size: float, **how: Any) -> None:
        self.part.text(x / self.width, 1 - y / self.height, text, size=size, **how)

    def rule(self, left: int, right: int, y: int) -> None:
        x = np.array([left, right]) / self.width
        line = Line2D(x, [1 - y / self.height] * 2, color=np.divide(HAIRLINE, 255), linewidth=0.8)
        self.part.add_artist(line)

    def bar(self, left: int, top: int, long: int, scales: Scales, key: str) -> None:
        """The scale of a group, from left to right, its ends and its middle below."""
        scale = scales.of(key)
        framed = np.full((THICK, long, 3), HAIRLINE, np.uint8)
        framed[1:-1, 1:-1] = colour_table(scale.colours)[np.arange(long - 2) * 256 // (long - 2)]
        self.pixels(framed, left, top, scale.colours)
        low, high = scales.ends(key) or (number(scale.low), number(scale.high))
        ends = [(0.0, low, "left"), (0.5, "0", "center"), (1.0, high, "right")]
        for share, text, side in ends if long > 240 else [(0.5, f"± {high}", "center")]:
            self.text(left + share * long, top + THICK + 8, text, NUMBER, ha=side, va="top")


def _text(desk: Desk, images: Sequence[dict[str, Any]], scales: Scales, bands: Sequence[list[Group]]) -> str:
    groups = [group for band in bands for group in band]
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.layer] = counts.get(group.layer, 0) + len(group.units)
    units = sum(counts.values())
    select = "single strongest location" if groups[0].key.endswith("@peak") else "whole map"
    projections = desk.projections[images[0]["name"]]
    pixels = by(projections[groups[0].key].shape[2:])
    dead = sum(
        len(set(group.units) & dead_units(desk, image, group.layer)) for image in images for group in groups
    )
    text = (
        f"What caused the answers of the {units} units of "
        f"{listed([f'{layer} ({count})' for layer, count in counts.items()])} to "
        f"{called(images, desk.network)}: the deconvnet's projections of each unit's {select} to the "
        f"{pixels} pixels, signed, an image a row and a unit a column, the input first. "
        f"{_scale_words(scales, groups[0].key)}"
    )
    if any(f"{layer}@units" in projections for layer in counts):
        text += " A place is empty where a unit is not among those of its layer that answer most."
    if dead:
        text += f" Units dead on an image ({dead}) are crossed: nowhere positive, so projected to nothing."
    if desk.views["deconv"]["rectify"]:
        text += " Rectified at activations that are not a ReLU too, where the method is undefined."
    return text


def _scale_words(scales: Scales, key: str) -> str:
    if scales.choice == "per_tile":
        words = scales.words(key, "projections", dense=True)
    else:
        which = (
            "All layers have one scale" if scales.choice == "shared" else "Each layer has the scale under it"
        )
        words = f"{which}, the same in all rows: {scales.of(key).words}."
    return f"{words} {BEYOND}" if scales.in_colour and scales.choice != "per_tile" else words


def number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
