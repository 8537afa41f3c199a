"""Montages: tiles coloured, enlarged without smoothing, and laid on one array of pixels."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convatlas.plotting.colormap import Scale

PAPER = (255, 253, 248)
HAIRLINE = (176, 170, 158)
INK = (60, 56, 50)

EDGE = 112  # pixels that a tile fills, where a whole factor of enlargement allows
STRIP = 24  # the strip above a tile that carries its number
NOTE = 22  # what a line's strip has more where its tiles have notes
GAP = 10
NUMBER = 18  # the height of the numbers' font, in pixels
Word = tuple[int, int, str, str]  # x, y, text, and which of its corners stands there, as Pillow names them


@dataclass(frozen=True)
class Tile:
    """One picture of a montage: values (H, W) under a scale, or an (H, W, 3) image in 0..1.

    `number` is printed above it at the left, `mark` at the right, `note` above both; `crossed` strikes it
    out.
    """

    values: np.ndarray
    scale: Scale | None = None
    number: str = ""
    mark: str = ""
    note: str = ""
    crossed: bool = False

    def pixels(self, edge: int) -> np.ndarray:
        """Colour the tile and enlarge it by the greatest whole factor that fits `edge`: uint8 RGB."""
        if self.values.ndim == 3:
            rgb = np.round(255 * np.clip(self.values, 0, 1)).astype(np.uint8)
        else:
            assert self.scale is not None
            rgb = self.scale.rgb(self.values)
        factor = max(1, edge // max(rgb.shape[:2]))
        return rgb.repeat(factor, 0).repeat(factor, 1)


@dataclass(frozen=True)
class Montage:
    """Pixels (H, W, 3) uint8, and where tiles lie: each line's top and bottom row, each column's left."""

    pixels: np.ndarray
    lines: list[tuple[int, int]]
    lefts: list[int]


def assemble(
    lines: Sequence[Sequence[Tile | None]],
    edge: int = EDGE,
    strip: int = STRIP,
    gap: int = GAP,
    apart: Collection[int] = (),
) -> Montage:
    """Lay lines of tiles on paper; None leaves a place free. A tile larger than `edge` widens its cells.

    `strip` pixels above each line carry the tiles' numbers, and `gap` pixels part them: three times as many
    before the columns `apart`, where another group begins.
    """
    edge = max([edge, *(max(tile.values.shape[:2]) for line in lines for tile in line if tile)])
    columns = max(len(line) for line in lines)
    lefts = [n * (edge + gap) + gap + 2 * gap * sum(a <= n for a in apart) for n in range(columns + 1)]
    strips = [strip + NOTE * any(tile.note for tile in line if tile) for line in lines]
    height = sum(strips) + len(lines) * (edge + gap)
    canvas = np.full((height, lefts[-1], 3), PAPER, np.uint8)
    words, crosses, spans, top = [], [], [], 0
    for line, above in zip(lines, strips, strict=True):
        top += above
        tallest = 0
        for left, tile in zip(lefts, line, strict=False):
            if tile is None:
                continue
            rgb = tile.pixels(edge)
            tall, wide = rgb.shape[:2]
            canvas[top - 1 : top + tall + 1, left - 1 : left + wide + 1] = HAIRLINE
            canvas[top : top + tall, left : left + wide] = rgb
            words += _words(tile, left, top, wide, edge + gap - 2)
            if tile.crossed:
                crosses.append((left, top + tall - 1, left + wide - 1, top))
            tallest = max(tallest, tall)
        spans.append((top, top + tallest))
        top += edge + gap
    return Montage(_written(canvas, words, crosses), spans, lefts[:-1])


def _words(tile: Tile, left: int, top: int, wide: int, room: int) -> list[Word]:
    """What is printed above a tile, and where."""
    number, note = fitted(tile.number, room), fitted(tile.note, room)
    # Over a small tile the mark goes on past its edge rather than over the number.
    right = max(left + wide, left + text_width(f"{number} {tile.mark}")) if tile.mark else 0
    return [
        (left, top - 6, number, "ls"),
        (right, top - 6, tile.mark, "rs"),
        (left, top - 6 - NOTE, note, "ls"),
    ]


def fitted(text: str, room: int, size: float = NUMBER) -> str:
    """Leave out of the middle what does not fit `room` pixels, in a font `size` pixels high."""
    keep = len(text)
    short = text
    while keep > 2 and text_width(short, size) > room:
        keep -= 1
        short = f"{text[: keep - keep // 2]}…{text[-(keep // 2) :]}"
    return short


def _written(canvas: np.ndarray, words: list[Word], crosses: list[tuple[int, int, int, int]]) -> np.ndarray:
    """Print what stands above the tiles and strike out the crossed ones, in one pass."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for x, y, text, anchor in words:
        if text:
            draw.text((x, y), text, INK, _font(NUMBER), anchor)
    for ends in crosses:
        draw.line(ends, HAIRLINE, 2)
    return np.asarray(image)


def text_width(text: str, size: float = NUMBER) -> int:
    """The pixels that a line of text takes, in a font `size` pixels high."""
    return math.ceil(_font(size).getlength(text))


@cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    """The sans that matplotlib brings along, so that plates look alike on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
