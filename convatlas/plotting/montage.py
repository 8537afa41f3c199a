"""Montages: tiles coloured, enlarged without smoothing, and laid on one array of pixels."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convatlas.plotting.colormap import ColourScale

BACKGROUND_COLOUR = (255, 253, 248)
HAIRLINE = (176, 170, 158)
TEXT_COLOUR = (60, 56, 50)

TILE_SIZE = 112  # pixels that a tile fills, where a whole factor of enlargement allows
HEADER_HEIGHT = 24  # the strip above a tile that carries its number
NOTE_HEIGHT = 22  # what a line's strip has more where its tiles have notes
GAP = 10
FONT_SIZE = 18  # the height of the numbers' font, in pixels
PlacedText = tuple[
    int, int, str, str
]  # x, y, text, and which of its corners stands there, as Pillow names them


@dataclass(frozen=True)
class Tile:
    """One picture of a montage: values (H, W) under a scale, or an (H, W, 3) image in 0..1.

    `number` is printed above it at the left, `mark` at the right, `note` above both; `crossed` strikes it
    out.
    """

    values: np.ndarray
    scale: ColourScale | None = None
    title: str = ""
    right_title: str = ""
    note: str = ""
    crossed_out: bool = False

    def render(self, tile_size: int) -> np.ndarray:
        """Colour the tile and enlarge it by the greatest whole factor that fits `edge`: uint8 RGB."""
        if self.values.ndim == 3:
            rgb = np.round(255 * np.clip(self.values, 0, 1)).astype(np.uint8)
        else:
            assert self.scale is not None
            rgb = self.scale.to_rgb(self.values)
        factor = max(1, tile_size // max(rgb.shape[:2]))
        return rgb.repeat(factor, 0).repeat(factor, 1)


@dataclass(frozen=True)
class Montage:
    """Pixels (H, W, 3) uint8, and where tiles lie: each line's top and bottom row, each column's left."""

    pixels: np.ndarray
    row_spans: list[tuple[int, int]]
    column_lefts: list[int]


def assemble_montage(
    rows: Sequence[Sequence[Tile | None]],
    tile_size: int = TILE_SIZE,
    header_height: int = HEADER_HEIGHT,
    gap: int = GAP,
    group_starts: Collection[int] = (),
) -> Montage:
    """Lay lines of tiles on paper; None leaves a place free. A tile larger than `edge` widens its cells.

    `strip` pixels above each line carry the tiles' numbers, and `gap` pixels part them: three times as many
    before the columns `apart`, where another group begins.
    """
    tile_size = max([tile_size, *(max(tile.values.shape[:2]) for line in rows for tile in line if tile)])
    columns = max(len(line) for line in rows)
    lefts = [
        n * (tile_size + gap) + gap + 2 * gap * sum(a <= n for a in group_starts) for n in range(columns + 1)
    ]
    strips = [header_height + NOTE_HEIGHT * any(tile.note for tile in line if tile) for line in rows]
    height = sum(strips) + len(rows) * (tile_size + gap)
    canvas = np.full((height, lefts[-1], 3), BACKGROUND_COLOUR, np.uint8)
    words, crosses, spans, top = [], [], [], 0
    for line, above in zip(rows, strips, strict=True):
        top += above
        tallest = 0
        for left, tile in zip(lefts, line, strict=False):
            if tile is None:
                continue
            rgb = tile.render(tile_size)
            tall, wide = rgb.shape[:2]
            canvas[top - 1 : top + tall + 1, left - 1 : left + wide + 1] = HAIRLINE
            canvas[top : top + tall, left : left + wide] = rgb
            words += _place_texts(tile, left, top, wide, tile_size + gap - 2)
            if tile.crossed_out:
                crosses.append((left, top + tall - 1, left + wide - 1, top))
            tallest = max(tallest, tall)
        spans.append((top, top + tallest))
        top += tile_size + gap
    return Montage(_draw_texts(canvas, words, crosses), spans, lefts[:-1])


def _place_texts(tile: Tile, left: int, top: int, wide: int, room: int) -> list[PlacedText]:
    """What is printed above a tile, and where."""
    number, note = shorten_to_width(tile.title, room), shorten_to_width(tile.note, room)
    # Over a small tile the mark goes on past its edge rather than over the number.
    right = max(left + wide, left + text_width(f"{number} {tile.right_title}")) if tile.right_title else 0
    return [
        (left, top - 6, number, "ls"),
        (right, top - 6, tile.right_title, "rs"),
        (left, top - 6 - NOTE_HEIGHT, note, "ls"),
    ]


def shorten_to_width(text: str, width: int, size: float = FONT_SIZE) -> str:
    """Leave out of the middle what does not fit `room` pixels, in a font `size` pixels high."""
    keep = len(text)
    short = text
    while keep > 2 and text_width(short, size) > width:
        keep -= 1
        short = f"{text[: keep - keep // 2]}…{text[-(keep // 2) :]}"
    return short


def _draw_texts(
    canvas: np.ndarray, words: list[PlacedText], crosses: list[tuple[int, int, int, int]]
) -> np.ndarray:
    """Print what stands above the tiles and strike out the crossed ones, in one pass."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for x, y, text, anchor in words:
        if text:
            draw.text((x, y), text, TEXT_COLOUR, _load_font(FONT_SIZE), anchor)
    for ends in crosses:
        draw.line(ends, HAIRLINE, 2)
    return np.asarray(image)


def text_width(text: str, size: float = FONT_SIZE) -> int:
    """The pixels that a line of text takes, in a font `size` pixels high."""
    return math.ceil(_load_font(size).getlength(text))


@cache
def _load_font(size: float) -> ImageFont.FreeTypeFont:
    """The sans that matplotlib brings along, so that plates look alike on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
