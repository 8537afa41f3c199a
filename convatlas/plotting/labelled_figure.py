"""Labelled figures: a montage or chart with row labels, colour bars and a caption, as PNG or PDF."""

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import FigureImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from convatlas.names import format_number
from convatlas.plotting.colormap import NON_FINITE_COLOURS, ColourScale, colour_table
from convatlas.plotting.montage import (
    BACKGROUND_COLOUR,
    HAIRLINE_COLOUR,
    TEXT_COLOUR,
    Montage,
    make_drawable,
    text_width,
)
from convatlas.plotting.png import encode_indexed_png
from convatlas.plotting.quantize import quantize_image
from convatlas.plotting.vector_files import save_pdf, save_svg
from convatlas.records import FigureFormat

DPI = 200  # the pages show figures at half their pixels, so that they are sharp on a high-density screen
TOP_MARGIN = 44  # pixels above a montage, for the names of the colour bars
BOTTOM_MARGIN = 14  # pixels below it, for the lowest number of a colour bar
LEFT_MARGIN = 48  # pixels beside the row labels, on both sides together
COLOUR_BAR_COLUMN_WIDTH = 190  # pixels of the column of colour bars
COLOUR_BAR_WIDTH = 22  # pixels
MAX_COLOUR_BAR_HEIGHT = 420  # pixels
COLOUR_BAR_TITLE_HEIGHT = 34  # pixels between a colour bar and the next, which has another name
TICK_LENGTH = 6  # pixels
LEGEND_TOP = 10  # pixels above the colours of NaN and infinity
LEGEND_SIZE = 20  # pixels of each
LABEL_POINTS = 7.5  # font of the labels
SMALL_POINTS = 6.5  # font of the colour bars
CAPTION_POINTS = 9.5
LABEL_PIXELS = LABEL_POINTS * DPI / 72
MIN_WIDTH = 1200  # pixels of the narrowest figure, so that its caption fits
ACCENT_COLOUR = "#9c3d22"
MUTED_COLOUR = "#8d8778"
BACKGROUND_RGB, HAIRLINE_RGB, TEXT_RGB = (
    tuple(np.divide(colour, 255).tolist()) for colour in (BACKGROUND_COLOUR, HAIRLINE_COLOUR, TEXT_COLOUR)
)

STYLE: dict[Any, Any] = {  # keys of matplotlib's rcParams
    "font.family": "DejaVu Sans",
    "font.size": LABEL_POINTS,
    "text.color": TEXT_RGB,
    "axes.facecolor": BACKGROUND_RGB,
    "axes.edgecolor": HAIRLINE_RGB,
    "axes.labelcolor": TEXT_RGB,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT_RGB,
    "ytick.color": TEXT_RGB,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a class may be called $5
}


class PixelImage(FigureImage):
    """Pixels placed in a figure one to one, which a PNG shows without resampling.

    Attributes:
        pixels: (H, W, 3) uint8.
        colormaps: The colour maps whose colours the pixels have.
    """

    def __init__(
        self,
        figure: Figure,
        pixels: npt.NDArray[np.uint8],
        left: int,
        bottom: int,
        colormaps: Sequence[str] = (),
    ) -> None:
        super().__init__(figure, offsetx=left, offsety=bottom, origin="upper")
        self.set_data(pixels)
        self.pixels, self.colormaps = pixels, colormaps

    def make_image(
        self, renderer: RendererBase, magnification: float = 1.0, unsampled: bool = False
    ) -> tuple[np.ndarray, float, float, Any]:
        """Return the pixels for a PNG as they are, in other formats as matplotlib resamples them.

        Args:
            renderer: The renderer; only Agg, which draws the PNG, gets the pixels as they are.
            magnification: As in matplotlib, unused for a PNG.
            unsampled: As in matplotlib, unused for a PNG.

        Returns:
            The image, for a PNG (H, W, 4) uint8 from the bottom row up, its pixels from the left and from the
            bottom of the figure, and its transformation, None for a PNG.
        """
        if not isinstance(renderer, RendererAgg):
            return super().make_image(renderer, magnification, unsampled)
        opaque = np.full((*self.pixels.shape[:2], 4), 255, np.uint8)
        for channel in range(3):  # one by one, which is four times as fast as all at once
            opaque[..., channel] = self.pixels[..., channel]
        return opaque[::-1], self.ox, self.oy, None


@dataclass(frozen=True)
class ColourBar:
    """A colour bar beside rows of a montage.

    Attributes:
        first_row: The first row beside which it stands.
        last_row: The last one.
        scale: The colours and the values at the ends.
        label: What the values are.
        end_labels: Labels of the ends that replace the numbers.
    """

    first_row: int
    last_row: int
    scale: ColourScale
    label: str
    end_labels: tuple[str, str] | None = None


def make_montage_figure(
    montage: Montage, labels: Sequence[str], bars: Sequence[ColourBar], caption: str
) -> Figure:
    """Return a figure of a montage, pixel for pixel, between row labels and colour bars, above its caption.

    Args:
        montage: The tiles.
        labels: A label of each row; lines are separated by newlines.
        bars: The colour bars, from top to bottom.
        caption: The caption, which is wrapped.
    """
    height, width = montage.pixels.shape[:2]
    left = LEFT_MARGIN + max(text_width(line, LABEL_PIXELS) for label in labels for line in label.split("\n"))
    full_width = max(MIN_WIDTH, left + width + COLOUR_BAR_COLUMN_WIDTH)
    text = _wrap_caption(caption, full_width)
    text_height = caption_height(caption, full_width)
    full_height = TOP_MARGIN + height + BOTTOM_MARGIN + text_height
    figure = _make_figure(full_width, full_height)
    # The colours of a bar are to stay smooth; without one, those of the tiles.
    colormaps = [] if bars else montage.colormaps
    add_pixels(figure, montage.pixels, left, text_height + BOTTOM_MARGIN, colormaps)
    _draw_non_finite_legend(figure, left, montage.non_finite)
    for label, (top, bottom) in zip(labels, montage.row_spans, strict=True):
        y = 1 - (TOP_MARGIN + (top + bottom) / 2) / full_height
        figure.text((left - 16) / full_width, y, label, ha="right", va="center", linespacing=1.4)
    for previous, bar, following in _with_neighbours(bars):
        top, bottom = montage.row_spans[bar.first_row][0], montage.row_spans[bar.last_row][1]
        next_has_title = following is not None and following.label != bar.label
        room = COLOUR_BAR_TITLE_HEIGHT if next_has_title else 0
        bar_height = min(bottom - top - room, MAX_COLOUR_BAR_HEIGHT)
        has_title = previous is None or previous.label != bar.label
        _draw_colour_bar(figure, left + width + 18, TOP_MARGIN + top, bar_height, bar, has_title)
    _add_caption(figure, text)
    return figure


def _draw_non_finite_legend(figure: Figure, left: int, names: Sequence[str]) -> None:
    """Draw the colours of NaN and infinity with their names above a montage."""
    width, height = figure.get_size_inches() * DPI
    for name in names:
        corner = left / width, 1 - (LEGEND_TOP + LEGEND_SIZE) / height
        swatch = Rectangle(corner, LEGEND_SIZE / width, LEGEND_SIZE / height, transform=figure.transFigure)
        swatch.set(facecolor=np.divide(NON_FINITE_COLOURS[name], 255), edgecolor=HAIRLINE_RGB, linewidth=0.6)
        figure.add_artist(swatch)
        y = corner[1] + LEGEND_SIZE / 2 / height
        figure.text((left + LEGEND_SIZE + 8) / width, y, name, va="center_baseline", size=SMALL_POINTS)
        left += LEGEND_SIZE + 96


def _with_neighbours(
    bars: Sequence[ColourBar],
) -> list[tuple[ColourBar | None, ColourBar, ColourBar | None]]:
    """Return each bar with the one before and the one after it."""
    padded = [None, *bars, None]
    return [(padded[n], bar, padded[n + 2]) for n, bar in enumerate(bars)]


def make_chart_figure(width: int, height: int, caption: str) -> tuple[Figure, SubFigure]:
    """Return a figure for charts, and its part above the caption.

    Args:
        width: Pixels of the figure.
        height: Pixels of the part above the caption.
        caption: The caption, which is wrapped.
    """
    text = _wrap_caption(caption, width)
    text_height = caption_height(caption, width)
    figure = _make_figure(width, height + text_height)
    chart, caption_part = figure.subfigures(2, 1, squeeze=False, height_ratios=[height, text_height])[:, 0]
    for part in (chart, caption_part):
        part.set_facecolor(BACKGROUND_RGB)
    _add_caption(figure, text)
    return figure, chart


def add_pixels(
    figure: Figure,
    pixels: npt.NDArray[np.uint8],
    left: int,
    bottom: int,
    colormaps: Sequence[str] = (),
) -> None:
    """Place pixels in a figure one to one.

    Args:
        figure: The figure.
        pixels: (H, W, 3) uint8.
        left: Pixels from the figure's left edge.
        bottom: Pixels from its bottom edge.
        colormaps: The colour maps whose colours they have, which stay smooth in a PNG.
    """
    figure.images.append(PixelImage(figure, pixels, left, bottom, colormaps))


def list_formats(formats: Sequence[FigureFormat]) -> list[FigureFormat]:
    """Return the formats in which figures are written, PNG first.

    Args:
        formats: `views.formats` of the config, in any order, with or without PNG.
    """
    names: tuple[FigureFormat, ...] = ("png", "pdf", "svg")
    return [name for name in names if name == "png" or name in formats]


def save_figure(figure: Figure, path: Path, formats: Sequence[FigureFormat]) -> None:
    """Write a figure as PNG and in further formats, so that equal figures are equal files.

    No file has a date or the name of a program.

    Args:
        figure: The figure.
        path: The PNG file.
        formats: Those of the files beside it, "pdf" and "svg".
    """
    _replace_missing_glyphs(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    images = [image for image in figure.images if isinstance(image, PixelImage)]
    names = sorted({name for image in images for name in image.colormaps})
    tables = [colour_table(name) for name in names]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = quantize_image(pixels, tables)
    if image.mode == "P":
        palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
        path.write_bytes(encode_indexed_png(np.asarray(image), palette, DPI))
    else:
        image.save(path, format="png", dpi=(DPI, DPI))
    for name, save in (("pdf", save_pdf), ("svg", save_svg)):
        if name in formats:
            save(figure, path.with_suffix(f".{name}"))


def _replace_missing_glyphs(figure: Figure) -> None:
    """Transliterate the characters of a figure's texts that its font lacks, in place.

    The labels of ticks are made when the figure is drawn, so that charts pass drawable ones.
    """
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_text(make_drawable(text.get_text()))


def figure_style() -> AbstractContextManager[None]:
    """Return a context in which figures have the project's fonts and colours."""
    return matplotlib.rc_context(STYLE)


def _make_figure(width: int, height: int) -> Figure:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND_RGB)
    figure.suppressComposite = True  # a PDF shows a seam between images that were composed
    FigureCanvasAgg(figure)
    return figure


def _wrap_caption(caption: str, width: int) -> str:
    return textwrap.fill(caption, max(40, int(width / 11.6)))


def caption_height(caption: str, width: int) -> int:
    """Return the pixels that a caption takes at the bottom of a figure.

    Args:
        caption: The caption, without line breaks.
        width: Pixels of the figure.
    """
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
        size=CAPTION_POINTS,
        linespacing=1.25,
    )


def _draw_colour_bar(figure: Figure, left: int, top: int, height: int, bar: ColourBar, title: bool) -> None:
    """Draw a colour bar; `left` and `top` are pixels from the upper left corner. Axes would be slow."""
    full_width, full_height = (round(float(side)) for side in figure.get_size_inches() * DPI)

    def y(value: float) -> float:
        return 1 - (top + height * (high - value) / (high - low)) / full_height

    low, high = bar.scale.low, bar.scale.high
    steps = colour_table(bar.scale.cmap)[np.linspace(255, 0, height).round().astype(int)]
    pixels = steps[:, None].repeat(COLOUR_BAR_WIDTH, 1)
    add_pixels(figure, pixels, left, full_height - top - height, [bar.scale.cmap])
    corner, width = (left / full_width, y(low)), COLOUR_BAR_WIDTH / full_width
    frame = Rectangle(corner, width, height / full_height, fill=False, linewidth=0.6)
    frame.set(edgecolor=HAIRLINE_RGB, transform=figure.transFigure)
    figure.add_artist(frame)
    if bar.end_labels:
        ticks = {low: bar.end_labels[0], high: bar.end_labels[1]}
    else:
        middle = 0.0 if low < 0 < high else (low + high) / 2
        ticks = {value: format_number(value) for value in (low, middle, high)}
    right = left + COLOUR_BAR_WIDTH
    for value, text in ticks.items():
        x_data = [right / full_width, (right + TICK_LENGTH) / full_width]
        figure.add_artist(Line2D(x_data, [y(value)] * 2, linewidth=0.6, color=TEXT_RGB))
        text_x = (right + 2 * TICK_LENGTH) / full_width
        figure.text(text_x, y(value), text, va="center_baseline", size=SMALL_POINTS)
    if title:
        figure.text(left / full_width, 1 - (top - 22) / full_height, bar.label, size=SMALL_POINTS)
