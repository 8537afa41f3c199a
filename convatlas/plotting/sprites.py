"""Sprites: all units of a layer as tiles of one picture, in few steps of grey, for pages to colour.

No gaps between tiles; they follow one another in raster order. What a grey means is told beside the
picture: the ends of each unit's own scale.
"""

import io
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas.names import slugify

MAX_SHEET_SIZE = 4096  # pixels that a sheet is wide or high at most
ZERO_GREY = 128  # the grey of zero where values are signed: 1 and 255 are the ends
MAX_TILE_CHANNELS = 9  # input channels of a filter that a tile shows at most
MAX_DRAWN_WEIGHTS = (
    2**19
)  # single weights of a layer that are drawn: of more, each takes a byte and none is seen
PNG_FILTER_NONE, PNG_FILTER_PAETH = 0, 4  # PNG's filters
SIGNIFICANT_DIGITS = 6  # significant digits of numbers beside the pictures


@dataclass(frozen=True)
class SheetLayout:
    """How tiles are laid out: `columns` and `rows` of each sheet, and the number of sheets."""

    columns: int
    rows: int
    sheets: int


def compute_sheet_layout(tiles: int, height: int, width: int) -> SheetLayout:
    """Lay out tiles of so many pixels on sheets near square, none wider or higher than LARGEST.

    All sheets are of one size; the last one's free places are black. Raises ValueError where a tile is
    larger than a sheet.
    """
    if max(height, width) > MAX_SHEET_SIZE:
        raise ValueError(f"a tile of {height} x {width} pixels is larger than a sheet, {MAX_SHEET_SIZE}")
    columns = min(tiles, MAX_SHEET_SIZE // width, math.ceil(math.sqrt(tiles * height / width)))
    most = MAX_SHEET_SIZE // height
    if math.ceil(tiles / columns) > most:
        columns = min(tiles, MAX_SHEET_SIZE // width)
    rows = min(most, math.ceil(tiles / columns))
    return SheetLayout(columns, rows, math.ceil(tiles / (columns * rows)))


def assemble_sheets(tiles: np.ndarray, layout: SheetLayout) -> list[np.ndarray]:
    """Put tiles (n, h, w) or (n, h, w, 3) uint8 in their places: sheets (rows · h, columns · w[, 3])."""
    height, width, *colours = tiles.shape[1:]
    each = layout.columns * layout.rows
    found = []
    for first in range(0, len(tiles), each):
        part = tiles[first : first + each]
        if len(part) < each:
            part = np.concatenate([part, np.zeros((each - len(part), *tiles.shape[1:]), np.uint8)])
        grid = part.reshape(layout.rows, layout.columns, height, width, *colours).swapaxes(1, 2)
        found.append(grid.reshape(layout.rows * height, layout.columns * width, *colours))
    return found


def write_sheets(path: Path, tiles: np.ndarray, layout: SheetLayout) -> str:
    """Write the sheets of tiles: `path` with a suffix, and further ones as <name>.2.png, <name>.3.png, ...

    Greys are PNG, colours are WebP without loss, half as large as that. Gives the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix, encoded = ("webp", encode_webp) if tiles.ndim == 4 else ("png", encode_png)
    for number, pixels in enumerate(assemble_sheets(tiles, layout), 1):
        name = path.name if number == 1 else f"{path.name}.{number}"
        path.with_name(f"{name}.{suffix}").write_bytes(encoded(pixels))
    return suffix


def encode_webp(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 as WebP, without loss."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "webp", lossless=True, method=4, quality=75)
    return written.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode (H, W) uint8 of few greys as PNG (W3C, 2003).

    A tenth to a fifth smaller than Pillow's, in a third of its time, for greys are numbered and stand in a
    palette: neighbours differ by 1 or 2 steps then, not by 4 or 5 of 256, and the numbers are predicted
    (Paeth) where that tells more than it hides, as it does of maps and does not of weights.
    """
    height, width = pixels.shape
    greys = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).astype(np.uint8)
    steps = np.zeros(256, np.uint8)
    steps[greys] = np.arange(len(greys))
    lines, palette = steps[pixels], _make_png_chunk(b"PLTE", greys.repeat(3).tobytes())
    method, strategy = PNG_FILTER_NONE, zlib.Z_FILTERED
    if _compute_entropy(rest := lines - _predict_paeth(lines)) < _compute_entropy(lines):
        lines, method, strategy = rest, PNG_FILTER_PAETH, zlib.Z_RLE
    filtered = np.concatenate([np.full((height, 1), method, np.uint8), lines], 1)
    deflate = zlib.compressobj(6, zlib.DEFLATED, 15, 9, strategy)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    data = _make_png_chunk(b"IDAT", deflate.compress(filtered.tobytes()) + deflate.flush())
    return (
        b"\x89PNG\r\n\x1a\n"
        + _make_png_chunk(b"IHDR", header)
        + palette
        + data
        + _make_png_chunk(b"IEND", b"")
    )


def _make_png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _predict_paeth(lines: np.ndarray) -> np.ndarray:
    """What PNG's filter 4 expects of each pixel (H, W) by those at its left, above it, and above those."""
    around = np.pad(lines.astype(np.int16), ((1, 0), (1, 0)))
    left, above, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    expected = left + above - corner
    of_left, of_above, of_corner = (abs(expected - near) for near in (left, above, corner))
    nearest = np.where(of_above <= of_corner, above, corner)
    return np.where((of_left <= of_above) & (of_left <= of_corner), left, nearest).astype(np.uint8)


def _compute_entropy(values: np.ndarray) -> float:
    """Bits a value, uint8, each by itself."""
    share = np.bincount(values.ravel(), minlength=256) / values.size
    return -float((share * np.log2(share, where=share > 0, out=np.zeros(256))).sum())


def make_unique_slugs(names: Sequence[str]) -> list[str]:
    """Names that are safe in files, each once even where capitals count for nothing; at most 100 letters."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = slugify(name)[:100]
        given, copies = stem, 1
        while given.lower() in taken:
            copies += 1
            given = f"{stem}-{copies}"
        taken.add(given.lower())
        found.append(given)
    return found


# Values in steps of grey


@dataclass(frozen=True)
class QuantizedMaps:
    """A layer's maps on one image: tiles (units, h, w) uint8, and each unit's numbers, (units,) float64.

    `low` and `high` are the ends of a unit's scale, `zeros` the share of its values that are 0.
    """

    tiles: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    zero_fraction: np.ndarray


def to_planes(values: np.ndarray) -> np.ndarray:
    """The output of a layer, (units, ...) of at most three axes, as (units, h, w); a value is 1 x 1."""
    shape = values.shape
    if len(shape) == 2:
        return values[:, None]
    return values if len(shape) == 3 else values.reshape(-1, 1, 1)


def quantize_maps(values: np.ndarray, levels: int) -> QuantizedMaps:
    """Draw maps (units, h, w) in `levels` steps between each unit's lowest and highest value.

    0 is the lowest and 255 the highest; a constant unit is 0. What is not finite counts for nothing in the
    numbers; it is drawn at the end that it lies beyond, NaN at the lower.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    finite = np.isfinite(flat)
    there = flat if finite.all() else np.where(finite, flat, np.nan)
    some = finite.any(1)
    low, high, mean = (np.zeros(len(flat)) for _ in range(3))
    if some.any():
        kept = there[some]
        low[some], high[some] = np.nanmin(kept, 1), np.nanmax(kept, 1)
        mean[some] = np.nanmean(kept, 1)
    zeros = (flat == 0).mean(1)
    # Halved, so that no span is too large for a number.
    span = np.where(high > low, high / 2 - low / 2, np.inf)[:, None]
    with np.errstate(invalid="ignore"):
        place = np.clip(np.nan_to_num((flat / 2 - low[:, None] / 2) / span, nan=0, posinf=1, neginf=0), 0, 1)
    steps = np.round(place * (levels - 1)).astype(np.uint8)
    return QuantizedMaps(grey_levels(levels)[steps].reshape(values.shape), low, high, mean, zeros)


def grey_levels(levels: int) -> np.ndarray:
    """The grey of each step, (levels,) uint8: 0 to 255."""
    return np.round(np.arange(levels) * 255 / (levels - 1)).astype(np.uint8)


def quantize_signed(values: np.ndarray, levels: int, quantile: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """Draw tiles (n, ...) about zero: uint8 from 1 to 255, and the end of each one's scale, (n,).

    A value is (grey - ZERO) / 127 of the end: the greatest magnitude, or that which the share `within` of
    the values that are not zero do not exceed; those beyond are drawn as it is. On both sides of zero there
    are a fourth as many steps as `levels`: colours have three channels of them, and weights are noise, which
    takes most room. What is not finite is drawn as zero.
    """
    flat = np.nan_to_num(values.reshape(len(values), -1).astype(np.float64), nan=0, posinf=0, neginf=0)
    size = np.abs(flat)
    if quantile < 1:
        ends = np.array([np.quantile(tile[tile > 0], quantile) if tile.any() else 0 for tile in size])
    else:
        ends = size.max(1, initial=0)
    side = max(1, levels // 4)
    steps = np.round(np.clip(flat / np.where(ends > 0, ends, 1)[:, None], -1, 1) * side)
    tiles = (ZERO_GREY + np.round(steps * 127 / side)).astype(np.uint8)
    return tiles.reshape(values.shape), ends


# Filters


@dataclass(frozen=True)
class FilterTiles:
    """A layer's filters: tiles (units, h, w) or (units, h, w, 3) uint8, and each unit's greatest weight.

    `channels` are the input channels that each unit's tile shows, (units, n), where not all are there.
    """

    tiles: np.ndarray
    max_abs: np.ndarray
    channels: np.ndarray | None = None


def make_filter_tiles(weight: np.ndarray, levels: int, as_rgb: bool = False) -> FilterTiles | None:
    """Draw a tile a unit of weights (units, channels[, h, w]); None where there is no plain picture of them.

    `colour` draws three channels as RGB about grey. Of kernels of several channels a tile has those of
    greatest norm, KERNELS at most, in the order of channels, as a block with a pixel of zero between; of
    single weights it has all, as a block near square.
    """
    single = weight.ndim == 2 or (weight.ndim == 4 and weight.shape[2:] == (1, 1))
    if weight.ndim not in (2, 4) or not weight.size or (single and weight.size > MAX_DRAWN_WEIGHTS):
        return None
    if single:
        tiles, most = quantize_signed(weight.reshape(len(weight), -1), levels)
        return FilterTiles(assemble_unit_blocks(tiles[..., None, None], gap=0), most)
    if as_rgb:
        tiles, most = quantize_signed(weight, levels)
        return FilterTiles(tiles.transpose(0, 2, 3, 1), most)
    channels = None
    if weight.shape[1] > MAX_TILE_CHANNELS:
        norms = np.square(weight.astype(np.float64)).sum((2, 3))
        channels = np.sort(np.argsort(-norms, axis=1, kind="stable")[:, :MAX_TILE_CHANNELS], axis=1)
        weight = np.take_along_axis(weight, channels[..., None, None], 1)
    tiles, most = quantize_signed(weight, levels)
    return FilterTiles(assemble_unit_blocks(tiles, gap=1), most, channels)


def assemble_unit_blocks(tiles: np.ndarray, gap: int) -> np.ndarray:
    """Lay the tiles of each unit, (units, n, h, w), side by side, near square: (units, H, W).

    Between them, and in places that are free, is ZERO.
    """
    units, count, height, width = tiles.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((units, rows * columns, height + gap, width + gap), ZERO_GREY, np.uint8)
    canvas[:, :count, :height, :width] = tiles
    grid = canvas.reshape(units, rows, columns, height + gap, width + gap).swapaxes(2, 3)
    grid = grid.reshape(units, rows * (height + gap), columns * (width + gap))
    return grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap]


def round_significant(values: np.ndarray, digits: int = SIGNIFICANT_DIGITS) -> list[float]:
    """Numbers to a few significant digits, whole ones without a point: as short as JSON can have them."""
    found = (float(f"{value:.{digits}g}") for value in values.ravel().tolist())
    return [int(value) if value.is_integer() else value for value in found]
