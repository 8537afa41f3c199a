"""Labelled plates: a montage or chart with its row labels, colour bars and caption, as PNG or PDF."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from convatlas.files import whole
from convatlas.montage import HAIRLINE, INK, PAPER, Montage, text_width
from convatlas.scales import Scale, colour_table

DPI = 200  # plates are shown at half their pixels, so that they are sharp on a fine screen
HEAD = 44  # pixels above a montage, for the names of the colour bars
TAIL = 14  # pixels below it, for the lowest number of a colour bar
BARS = 190  # pixels of the column of colour bars
POINTS = 7.5  # the labels' font
LABEL = POINTS * DPI / 72  # the same in pixels
LEAST = 1200  # pixels of the narrowest plate, so that its caption has room
ACCENT = "#9c3d22"
QUIET = "#8d8778"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": POINTS,
    "text.color": np.divide(INK, 255),
    "axes.facecolor": np.divide(PAPER, 255),
    "axes.edgecolor": np.divide(HAIRLINE, 255),
    "axes.labelcolor": np.divide(INK, 255),
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": np.divide(INK, 255),
    "ytick.color": np.divide(INK, 255),
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a class may be called $5
}


@dataclass(frozen=True)
class Bar:
    """A colour bar beside the lines `first` to `last` of a montage; `ends` names ends that have no number."""

    first: int
    last: int
    scale: Scale
    label: str
    ends: tuple[str, str] | None = None


def montage_plate(montage: Montage, labels: Sequence[str], bars: Sequence[Bar], caption: str) -> Figure:
    """Set a montage, pixel for pixel, between its row labels and colour bars, above its caption."""
    height, width = montage.pixels.shape[:2]
    left = 48 + max(text_width(line, LABEL) for label in labels for line in label.split("\n"))
    full = max(LEAST, left + width + BARS)
    text = _wrapped(caption, full)
    foot = caption_height(caption, full)
    total = HEAD + height + TAIL + foot
    figure = _figure(full, total)
    figure.figimage(montage.pixels, left, foot + TAIL, origin="upper")
    for label, (top, bottom) in zip(labels, montage.lines, strict=True):
        y = 1 - (HEAD + (top + bottom) / 2) / total
        figure.text((left - 16) / full, y, label, ha="right", va="center", linespacing=1.4)
    for before, bar, after in zip([None, *bars], bars, [*bars[1:], None], strict=False):
        top, bottom = montage.lines[bar.first][0], montage.lines[bar.last][1]
        room = 34 if after and after.label != bar.label else 0  # for the name of the next
        tall = min(bottom - top - room, 420)
        box = ((left + width + 18) / full, 1 - (HEAD + top + tall) / total, 22 / full, tall / total)
        _colour_bar(figure, box, bar, titled=before is None or before.label != bar.label)
    _captioned(figure, text)
    return figure


def chart_plate(width: int, height: int, caption: str) -> tuple[Figure, Figure]:
    """Start a plate of charts `width` x `height` pixels: the whole figure and the part above the caption."""
    text = _wrapped(caption, width)
    foot = caption_height(caption, width)
    figure = _figure(width, height + foot)
    chart, below = figure.subfigures(2, 1, height_ratios=[height, foot])
    for part in (chart, below):
        part.set_facecolor(np.divide(PAPER, 255))
    _captioned(figure, text)
    return figure, chart


def save(figure: Figure, path: Path, pdf: bool) -> None:
    """Write a plate as PNG, and as PDF beside it where asked, without dates or software names."""
    with whole(path) as aside:
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # opaque: an eighth smaller, and faster
        Image.fromarray(pixels).save(aside, format="png", dpi=(DPI, DPI))
    if pdf:
        with whole(path.with_suffix(".pdf")) as aside:
            metadata = {"CreationDate": None, "Creator": None, "Producer": None}
            figure.savefig(aside, format="pdf", metadata=metadata, facecolor=figure.get_facecolor())


def style() -> Any:
    """The look of all plates, as a context."""
    return matplotlib.rc_context(STYLE)


def _figure(width: int, height: int) -> Figure:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=np.divide(PAPER, 255))
    FigureCanvasAgg(figure)
    return figure


def _wrapped(caption: str, width: int) -> str:
    return textwrap.fill(caption, max(40, int(width / 11.6)))


def caption_height(caption: str, width: int) -> int:
    """Pixels that a caption takes at the foot of a plate `width` pixels wide."""
    return 46 + 32 * (_wrapped(caption, width).count("\n") + 1)


def _captioned(figure: Figure, text: str) -> None:
    width, height = figure.get_size_inches() * DPI
    figure.text(
        24 / width,
        22 / height,
        text,
        ha="left",
        va="bottom",
        family="STIXGeneral",
        size=9.5,
        linespacing=1.25,
    )


def _colour_bar(figure: Figure, box: tuple[float, float, float, float], bar: Bar, titled: bool) -> None:
    axes = figure.add_axes(box)
    colours = colour_table(bar.scale.colours)[::-1, None]
    axes.imshow(colours, aspect="auto", extent=(0, 1, bar.scale.low, bar.scale.high), interpolation="nearest")
    low, high = bar.scale.low, bar.scale.high
    ticks = [low, 0.0, high] if low < 0 < high else [low, (low + high) / 2, high]
    if bar.ends:
        axes.set_yticks([low, high], bar.ends)
    else:
        axes.set_yticks(ticks, [f"{tick:.3g}".replace("-", "−") for tick in ticks])
    axes.yaxis.tick_right()
    axes.tick_params(length=2.5, pad=2, labelsize=6.5)
    axes.set_xticks([])
    axes.spines[:].set_visible(True)
    axes.set_title(bar.label if titled else "", fontsize=6.5, loc="left", pad=8)
