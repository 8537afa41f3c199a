"""Montages: tiles coloured, enlarged without smoothing, and laid on one array of pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convatlas.scales import Scale

PAPER = (255, 253, 248)
HAIRLINE = (176, 170, 158)
INK = (60, 56, 50)

EDGE = 112  # pixels that a tile fills, where a whole factor of enlargement allows
STRIP = 24  # the strip above a tile that carries its number
GAP = 10
NUMBER = 18  # the height of the numbers' font, in pixels


@dataclass(frozen=True)
class Tile:
    """One picture of a montage: values (H, W) under a scale, or an (H, W, 3) image in 0..1.

    `number` is printed above it at the left, `mark` at the right; `crossed` strikes it out.
    """

    values: np.ndarray
    scale: Scale | None = None
    number: str = ""
    mark: str = ""
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
    """Pixels (H, W, 3) uint8, and where each line of tiles lies: its top and bottom row of pixels."""

    pixels: np.ndarray
    lines: list[tuple[int, int]]


def assemble(lines: Sequence[Sequence[Tile | None]], edge: int = EDGE) -> Montage:
    """Lay lines of tiles on paper; None leaves a place free. A tile larger than `edge` widens its cells."""
    edge = max([edge, *(max(tile.values.shape[:2]) for line in lines for tile in line if tile)])
    columns = max(len(line) for line in lines)
    height = len(lines) * (STRIP + edge + GAP)
    canvas = np.full((height, columns * (edge + GAP) + GAP, 3), PAPER, np.uint8)
    notes, crosses, spans = [], [], []
    for row, line in enumerate(lines):
        top = row * (STRIP + edge + GAP) + STRIP
        tallest = 0
        for column, tile in enumerate(line):
            if tile is None:
                continue
            left = column * (edge + GAP) + GAP
            rgb = tile.pixels(edge)
            tall, wide = rgb.shape[:2]
            canvas[top - 1 : top + tall + 1, left - 1 : left + wide + 1] = HAIRLINE
            canvas[top : top + tall, left : left + wide] = rgb
            notes += [(left, top, tile.number, "ls"), (left + wide, top, tile.mark, "rs")]
            if tile.crossed:
                crosses.append((left, top + tall - 1, left + wide - 1, top))
            tallest = max(tallest, tall)
        spans.append((top, top + tallest))
    return Montage(_written(canvas, notes, crosses), spans)


def _written(
    canvas: np.ndarray, notes: list[tuple[int, int, str, str]], crosses: list[tuple[int, int, int, int]]
) -> np.ndarray:
    """Print the numbers above the tiles and strike out the crossed ones, in one pass."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for left, top, text, anchor in notes:
        if text:
            draw.text((left, top - 6), text, INK, _font(), anchor)
    for ends in crosses:
        draw.line(ends, HAIRLINE, 2)
    return np.asarray(image)


@cache
def _font() -> ImageFont.FreeTypeFont:
    """The sans that matplotlib brings along, so that plates look alike on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", NUMBER)
