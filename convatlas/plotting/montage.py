"""Montages: tiles are coloured, enlarged without smoothing and arranged in rows on one array of pixels."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.font_manager import get_font
from PIL import Image, ImageDraw, ImageFont

from convatlas.names import transliterate
from convatlas.plotting.colormap import (
    NON_FINITE_COLOURS,
    ColourScale,
    find_non_finite,
    mark_non_finite,
)

BACKGROUND_COLOUR = (255, 253, 248)
HAIRLINE_COLOUR = (176, 170, 158)
TEXT_COLOUR = (60, 56, 50)

TILE_SIZE = 112  # pixels that a tile fills, where a whole factor of enlargement allows
HEADER_HEIGHT = 24  # pixels above a row of tiles, for their titles
NOTE_HEIGHT = 22  # pixels that the header gains where a tile of the row has a note
GAP = 10  # pixels between tiles
FONT_SIZE = 18  # pixels of the titles' font
PlacedText = tuple[int, int, str, str]  # x, y, text, and the anchor of (x, y) in Pillow's terms


@dataclass(frozen=True)
class Tile:
    """A picture of a montage.

    Attributes:
        values: (H, W), coloured by `scale`, or an image (H, W, 3) in 0..1. NaN and infinity have colours of
            their own, NON_FINITE_COLOURS.
        scale: The colour scale of (H, W) values.
        title: Printed above the tile on the left.
        right_title: Printed above the tile on the right.
        note: Printed above both titles.
        crossed_out: Whether a line crosses the tile out.
    """

    values: np.ndarray
    scale: ColourScale | None = None
    title: str = ""
    right_title: str = ""
    note: str = ""
    crossed_out: bool = False

    def render(self, tile_size: int) -> npt.NDArray[np.uint8]:
        """Return the tile's colours, enlarged by the greatest whole factor that fits: (H, W, 3) uint8.

        Args:
            tile_size: Pixels of the longer side at most; a larger tile keeps its size.
        """
        rgb: npt.NDArray[np.uint8]
        if self.values.ndim == 3:
            known = np.nan_to_num(self.values)
            rgb = np.round(255 * np.clip(known, 0, 1)).astype(np.uint8)
            mark_non_finite(rgb, np.abs(self.values).max(-1))
        else:
            assert self.scale is not None
            rgb = self.scale.to_rgb(self.values)
        factor = max(1, tile_size // max(rgb.shape[:2]))
        return rgb.repeat(factor, 1).repeat(factor, 0)  # in this order the fastest, by rows


TileRow = list[Tile | None]  # None leaves a place free


@dataclass(frozen=True)
class Montage:
    """Tiles arranged in rows.

    Attributes:
        pixels: (H, W, 3) uint8.
        row_spans: The top and bottom of the tiles of each row, in pixels.
        column_lefts: The left edge of each column, in pixels.
        non_finite: The keys of NON_FINITE_COLOURS that are drawn, in their order.
        colormaps: The colour maps of the tiles, sorted.
    """

    pixels: npt.NDArray[np.uint8]
    row_spans: list[tuple[int, int]]
    column_lefts: list[int]
    non_finite: list[str] = field(default_factory=list)
    colormaps: list[str] = field(default_factory=list)


def assemble_montage(
    rows: Sequence[Sequence[Tile | None]],
    tile_size: int = TILE_SIZE,
    header_height: int = HEADER_HEIGHT,
    gap: int = GAP,
    group_starts: Collection[int] = (),
) -> Montage:
    """Arrange rows of tiles on a plain background.

    Args:
        rows: The tiles; None leaves a place free.
        tile_size: Pixels of a tile's longer side; a larger tile widens all columns.
        header_height: Pixels above each row, for the tiles' titles.
        gap: Pixels between tiles.
        group_starts: Columns with three gaps before them, where another group begins.
    """
    tile_size = max([tile_size, *(max(tile.values.shape[:2]) for row in rows for tile in row if tile)])
    columns = max(len(row) for row in rows)
    lefts = [
        n * (tile_size + gap) + gap + 2 * gap * sum(start <= n for start in group_starts)
        for n in range(columns + 1)
    ]
    headers = [_measure_header(row, header_height) for row in rows]
    height = sum(headers) + len(rows) * (tile_size + gap)
    canvas = np.empty((height, lefts[-1], 3), np.uint8)
    canvas[:] = np.full((lefts[-1], 3), BACKGROUND_COLOUR, np.uint8)  # by rows, which is fast
    texts: list[PlacedText] = []
    crosses: list[tuple[int, int, int, int]] = []
    spans: list[tuple[int, int]] = []
    top = 0
    for row, header in zip(rows, headers, strict=True):
        top += header
        row_height = 0
        for left, tile in zip(lefts, row, strict=False):
            if tile is None:
                continue
            rgb = tile.render(tile_size)
            tile_height, tile_width = rgb.shape[:2]
            bottom, right = top + tile_height, left + tile_width
            canvas[top - 1 : bottom + 1, left - 1 : right + 1] = HAIRLINE_COLOUR
            canvas[top:bottom, left:right] = rgb
            texts += _place_texts(tile, left, top, tile_width, tile_size + gap - 2)
            if tile.crossed_out:
                crosses.append((left, bottom - 1, right - 1, top))
            row_height = max(row_height, tile_height)
        spans.append((top, top + row_height))
        top += tile_size + gap
    colormaps = sorted({tile.scale.cmap for row in rows for tile in row if tile and tile.scale})
    return Montage(_draw_texts(canvas, texts, crosses), spans, lefts[:-1], list_non_finite(rows), colormaps)


def list_non_finite(rows: Sequence[Sequence[Tile | None]]) -> list[str]:
    """Return the keys of NON_FINITE_COLOURS that tiles show, in their order.

    Args:
        rows: The tiles.
    """
    present = set().union(*(find_non_finite(tile.values) for row in rows for tile in row if tile))
    return [name for name in NON_FINITE_COLOURS if name in present]


def _measure_header(row: Sequence[Tile | None], header_height: int) -> int:
    """Return the pixels above a row: more where a tile has a note."""
    return header_height + (NOTE_HEIGHT if any(tile.note for tile in row if tile) else 0)


def _place_texts(tile: Tile, left: int, top: int, tile_width: int, max_width: int) -> list[PlacedText]:
    """Return the texts above a tile, with their places."""
    title, note = shorten_to_width(tile.title, max_width), shorten_to_width(tile.note, max_width)
    right_title, right = tile.right_title, 0
    if right_title:
        # The right title of a narrow tile extends beyond its edge, so as not to cover the title.
        right = max(left + tile_width, left + text_width(f"{title} {right_title}"))
    if tile.crossed_out and right > left + max_width:
        right_title = ""  # which would cover the next title; the line says the same
    return [
        (left, top - 6, title, "ls"),
        (right, top - 6, right_title, "rs"),
        (left, top - 6 - NOTE_HEIGHT, note, "ls"),
    ]


def shorten_to_width(text: str, width: int, size: float = FONT_SIZE) -> str:
    """Replace the middle of a text that is wider than `width` pixels by an ellipsis.

    Args:
        text: One line.
        width: Pixels available.
        size: Pixels of the font.
    """
    length = len(text)
    short = text
    while length > 2 and text_width(short, size) > width:
        length -= 1
        short = f"{text[: length - length // 2]}…{text[-(length // 2) :]}"
    return short


def _draw_texts(
    canvas: npt.NDArray[np.uint8], texts: list[PlacedText], crosses: list[tuple[int, int, int, int]]
) -> npt.NDArray[np.uint8]:
    """Print all texts and cross out tiles, in one pass."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for x, y, text, anchor in texts:
        if text:
            draw.text((x, y), make_drawable(text), TEXT_COLOUR, _load_font(FONT_SIZE), anchor)
    for line in crosses:
        draw.line(line, HAIRLINE_COLOUR, 2)
    return np.asarray(image)


def text_width(text: str, size: float = FONT_SIZE) -> int:
    """Return the width in pixels of a line of text, rounded up.

    Args:
        text: One line.
        size: Pixels of the font.
    """
    return math.ceil(_load_font(size).getlength(make_drawable(text)))


def make_drawable(text: str) -> str:
    """Return a text as the figures' font can draw it: characters that it lacks are transliterated.

    Args:
        text: Any text, such as the name of a class, which may be in any script.
    """
    glyphs = _list_glyphs()
    return "".join(c if ord(c) in glyphs or c == "\n" else transliterate(c) or "?" for c in text)


@cache
def _list_glyphs() -> frozenset[int]:
    """Return the code points that the font has."""
    return frozenset(get_font(str(_find_font())).get_charmap())


@cache
def _load_font(size: float) -> ImageFont.FreeTypeFont:
    """Load the font of the figures."""
    return ImageFont.truetype(_find_font(), size)


def _find_font() -> Path:
    """Return the sans-serif font that comes with matplotlib: figures look alike on every machine."""
    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
