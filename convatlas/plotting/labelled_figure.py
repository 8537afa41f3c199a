"""Labelled plates: a montage or chart with its row labels, colour bars and caption, as PNG or PDF."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.image import FigureImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from convatlas.files import atomic_write
from convatlas.plotting.colormap import ColourScale, colour_table
from convatlas.plotting.montage import BACKGROUND_COLOUR, HAIRLINE, TEXT_COLOUR, Montage, text_width
from convatlas.plotting.quantize import quantize_image

DPI = 200  # plates are shown at half their pixels, so that they are sharp on a fine screen
TOP_MARGIN = 44  # pixels above a montage, for the names of the colour bars
BOTTOM_MARGIN = 14  # pixels below it, for the lowest number of a colour bar
COLOUR_BAR_COLUMN_WIDTH = 190  # pixels of the column of colour bars
COLOUR_BAR_WIDTH = 22  # pixels that a colour bar is wide
TICK_LENGTH = 6  # pixels of a mark beside it
LABEL_POINTS = 7.5  # the labels' font
SMALL_POINTS = 6.5  # that of colour bars
LABEL_PIXELS = LABEL_POINTS * DPI / 72  # the same in pixels
MIN_WIDTH = 1200  # pixels of the narrowest plate, so that its caption has room
ACCENT_COLOUR = "#9c3d22"
MUTED_COLOUR = "#8d8778"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": LABEL_POINTS,
    "text.color": np.divide(TEXT_COLOUR, 255),
    "axes.facecolor": np.divide(BACKGROUND_COLOUR, 255),
    "axes.edgecolor": np.divide(HAIRLINE, 255),
    "axes.labelcolor": np.divide(TEXT_COLOUR, 255),
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": np.divide(TEXT_COLOUR, 255),
    "ytick.color": np.divide(TEXT_COLOUR, 255),
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a class may be called $5
}


class _PixelImage(FigureImage):
    """Pixels set into a figure one for one, `left` and `bottom` in pixels, without being resampled as PNG.

    `colormap` names the scale, where they are a bar of it.
    """

    def __init__(
        self, figure: Figure, pixels: np.ndarray, left: int, bottom: int, colormap: str = ""
    ) -> None:
        super().__init__(figure, offsetx=left, offsety=bottom, origin="upper")
        self.set_data(pixels)
        self.pixels, self.colormap = pixels, colormap

    def make_image(
        self, renderer: RendererBase, magnification: float = 1.0, unsampled: bool = False
    ) -> tuple[np.ndarray, float, float, Any]:
        if not isinstance(renderer, RendererAgg):
            return super().make_image(renderer, magnification, unsampled)
        opaque = np.full((*self.pixels.shape[:2], 1), 255, np.uint8)
        return np.concatenate([self.pixels, opaque], 2)[::-1], self.ox, self.oy, None


@dataclass(frozen=True)
class ColourBar:
    """A colour bar beside the lines `first` to `last` of a montage; `ends` names ends that have no number."""

    first_row: int
    last_row: int
    scale: ColourScale
    label: str
    end_labels: tuple[str, str] | None = None


def make_montage_figure(
    montage: Montage, labels: Sequence[str], bars: Sequence[ColourBar], caption: str
) -> Figure:
    """Set a montage, pixel for pixel, between its row labels and colour bars, above its caption."""
    height, width = montage.pixels.shape[:2]
    left = 48 + max(text_width(line, LABEL_PIXELS) for label in labels for line in label.split("\n"))
    full = max(MIN_WIDTH, left + width + COLOUR_BAR_COLUMN_WIDTH)
    text = _wrap_caption(caption, full)
    foot = caption_height(caption, full)
    total = TOP_MARGIN + height + BOTTOM_MARGIN + foot
    figure = _make_figure(full, total)
    figure.images.append(_PixelImage(figure, montage.pixels, left, foot + BOTTOM_MARGIN))
    for label, (top, bottom) in zip(labels, montage.row_spans, strict=True):
        y = 1 - (TOP_MARGIN + (top + bottom) / 2) / total
        figure.text((left - 16) / full, y, label, ha="right", va="center", linespacing=1.4)
    for before, bar, after in zip([None, *bars], bars, [*bars[1:], None], strict=False):
        top, bottom = montage.row_spans[bar.first_row][0], montage.row_spans[bar.last_row][1]
        room = 34 if after and after.label != bar.label else 0  # for the name of the next
        tall = min(bottom - top - room, 420)
        titled = before is None or before.label != bar.label
        _draw_colour_bar(figure, left + width + 18, TOP_MARGIN + top, tall, bar, titled)
    _add_caption(figure, text)
    return figure


def make_chart_figure(width: int, height: int, caption: str) -> tuple[Figure, Figure]:
    """Start a plate of charts `width` x `height` pixels: the whole figure and the part above the caption."""
    text = _wrap_caption(caption, width)
    foot = caption_height(caption, width)
    figure = _make_figure(width, height + foot)
    chart, below = figure.subfigures(2, 1, height_ratios=[height, foot])
    for part in (chart, below):
        part.set_facecolor(np.divide(BACKGROUND_COLOUR, 255))
    _add_caption(figure, text)
    return figure, chart


def add_pixels(figure: Figure, pixels: np.ndarray, left: int, bottom: int, cmap: str = "") -> None:
    """Set pixels (H, W, 3) into a plate one for one; `colormap` names the scale that they are a bar of."""
    figure.images.append(_PixelImage(figure, pixels, left, bottom, cmap))


def save_figure(figure: Figure, path: Path, pdf: bool) -> None:
    """Write a plate as PNG, and as PDF beside it where asked, without dates or software names."""
    with atomic_write(path) as aside:
        figure.canvas.draw()
        scales = [colour_table(name) for name in sorted({image.colormap for image in figure.images} - {""})]
        picture = quantize_image(np.asarray(figure.canvas.buffer_rgba()), scales)
        picture.save(aside, format="png", dpi=(DPI, DPI))
    if pdf:
        with atomic_write(path.with_suffix(".pdf")) as aside:
            metadata = {"CreationDate": None, "Creator": None, "Producer": None}
            figure.savefig(aside, format="pdf", metadata=metadata, facecolor=figure.get_facecolor())


def figure_style() -> Any:
    """The look of all plates, as a context."""
    return matplotlib.rc_context(STYLE)


def _make_figure(width: int, height: int) -> Figure:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=np.divide(BACKGROUND_COLOUR, 255))
    figure.suppressComposite = True  # each picture by itself in a PDF, without a seam between them
    FigureCanvasAgg(figure)
    return figure


def _wrap_caption(caption: str, width: int) -> str:
    return textwrap.fill(caption, max(40, int(width / 11.6)))


def caption_height(caption: str, width: int) -> int:
    """Pixels that a caption takes at the foot of a plate `width` pixels wide."""
    return 46 + 32 * (_wrap_caption(caption, width).count("\n") + 1)


def _add_caption(figure: Figure, text: str) -> None:
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


def _draw_colour_bar(figure: Figure, left: int, top: int, tall: int, bar: ColourBar, titled: bool) -> None:
    """Draw a colour bar, `left` and `top` in pixels from the plate's corner, without the cost of axes."""
    full, total = map(round, figure.get_size_inches() * DPI)

    def y(value: float) -> float:
        return 1 - (top + tall * (high - value) / (high - low)) / total

    def line(start: tuple[float, float], end: tuple[float, float]) -> None:
        figure.add_artist(
            Line2D(*zip(start, end, strict=True), linewidth=0.6, color=np.divide(TEXT_COLOUR, 255))
        )

    low, high = bar.scale.low, bar.scale.high
    steps = colour_table(bar.scale.cmap)[np.linspace(255, 0, tall).round().astype(int)]
    pixels = steps[:, None].repeat(COLOUR_BAR_WIDTH, 1)
    figure.images.append(_PixelImage(figure, pixels, left, total - top - tall, bar.scale.cmap))
    frame = Rectangle((left / full, y(low)), COLOUR_BAR_WIDTH / full, tall / total, fill=False, linewidth=0.6)
    frame.set(edgecolor=np.divide(HAIRLINE, 255), transform=figure.transFigure)
    figure.add_artist(frame)
    if bar.end_labels:
        ticks = {low: bar.end_labels[0], high: bar.end_labels[1]}
    else:
        middle = 0.0 if low < 0 < high else (low + high) / 2
        ticks = {value: f"{value:.3g}".replace("-", "−") for value in (low, middle, high)}
    for value, words in ticks.items():
        edge = left + COLOUR_BAR_WIDTH
        line((edge / full, y(value)), ((edge + TICK_LENGTH) / full, y(value)))
        figure.text((edge + 2 * TICK_LENGTH) / full, y(value), words, va="center_baseline", size=SMALL_POINTS)
    if titled:
        figure.text(left / full, 1 - (top - 22) / total, bar.label, size=SMALL_POINTS)
