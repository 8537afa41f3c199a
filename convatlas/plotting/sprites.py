"""Sprites: the units of a layer as tiles of one picture in few greys, which the pages colour and enlarge.

Tiles follow one another in raster order, without gaps. The ends of each unit's scale are stored beside it.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from convatlas.names import make_unique_name, slugify
from convatlas.plotting.colormap import magnitude_quantile
from convatlas.plotting.png import encode_png

MAX_SHEET_SIZE = 4096  # pixels of a sheet's longer side at most
ZERO_GREY = 128  # the grey of zero where values are signed; 1 and 255 are the ends
MAX_TILE_CHANNELS = 9  # input channels of a filter that a tile shows at most
MAX_SLUG_LENGTH = 100  # characters
LOSSY_QUALITY = 80  # of 100
SIGNIFICANT_DIGITS = 6  # of the numbers beside the pictures


@dataclass(frozen=True)
class SheetLayout:
    """How tiles are arranged: columns and rows of each sheet, and the number of sheets."""

    columns: int
    rows: int
    sheets: int


def compute_sheet_layout(tiles: int, height: int, width: int) -> SheetLayout:
    """Arrange tiles on sheets of one size that are nearly square.

    Args:
        tiles: Their number.
        height: Pixels of a tile.
        width: Pixels of a tile.

    Returns:
        The layout; no side of a sheet exceeds MAX_SHEET_SIZE, and free places of the last sheet are black.

    Raises:
        ValueError: A tile is larger than a sheet.
    """
    if max(height, width) > MAX_SHEET_SIZE:
        raise ValueError(f"a tile of {height} x {width} pixels is larger than a sheet, {MAX_SHEET_SIZE}")
    columns = min(tiles, MAX_SHEET_SIZE // width, math.ceil(math.sqrt(tiles * height / width)))
    max_rows = MAX_SHEET_SIZE // height
    if math.ceil(tiles / columns) > max_rows:
        columns = min(tiles, MAX_SHEET_SIZE // width)
    rows = min(max_rows, math.ceil(tiles / columns))
    return SheetLayout(columns, rows, math.ceil(tiles / (columns * rows)))


def assemble_sheets(tiles: npt.NDArray[np.uint8], layout: SheetLayout) -> list[npt.NDArray[np.uint8]]:
    """Put tiles (n, h, w) or (n, h, w, 3) in their places: sheets (rows · h, columns · w[, 3]).

    Args:
        tiles: The tiles, in raster order.
        layout: Their arrangement.
    """
    height, width, *channels = tiles.shape[1:]
    tiles_per_sheet = layout.columns * layout.rows
    sheets = []
    for first in range(0, len(tiles), tiles_per_sheet):
        chunk = tiles[first : first + tiles_per_sheet]
        if len(chunk) < tiles_per_sheet:
            padding = np.zeros((tiles_per_sheet - len(chunk), *tiles.shape[1:]), np.uint8)
            chunk = np.concatenate([chunk, padding])
        grid = chunk.reshape(layout.rows, layout.columns, height, width, *channels).swapaxes(1, 2)
        sheets.append(grid.reshape(layout.rows * height, layout.columns * width, *channels))
    return sheets


def write_sheets(path: Path, tiles: npt.NDArray[np.uint8], layout: SheetLayout) -> str:
    """Write the sheets of tiles: <path>.<suffix>, <path>.2.<suffix>, <path>.3.<suffix>, ...

    Args:
        path: The first sheet, without a suffix.
        tiles: (n, h, w), written as PNG, or (n, h, w, 3), written as lossless WebP, half its size.
        layout: Their arrangement.

    Returns:
        The suffix, "png" or "webp".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix, encode = ("webp", encode_webp) if tiles.ndim == 4 else ("png", encode_png)
    for number, pixels in enumerate(assemble_sheets(tiles, layout), 1):
        name = path.name if number == 1 else f"{path.name}.{number}"
        path.with_name(f"{name}.{suffix}").write_bytes(encode(pixels))
    return suffix


def write_marks(path: Path, is_marked: npt.NDArray[np.bool_], layout: SheetLayout) -> None:
    """Write sheets that mark pixels of tiles, transparent elsewhere: <path>.nan.png, <path>.nan.2.png, ...

    Args:
        path: As in `write_sheets`.
        is_marked: (n, h, w).
        layout: The arrangement of the tiles.
    """
    for number, pixels in enumerate(assemble_sheets(np.where(is_marked, 255, 0).astype(np.uint8), layout), 1):
        suffix = ".nan.png" if number == 1 else f".nan.{number}.png"
        Image.fromarray(pixels).save(path.with_name(path.name + suffix), transparency=0, optimize=True)


def encode_webp(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode a picture as lossless WebP.

    Args:
        pixels: (H, W, 3) uint8, RGB.

    Returns:
        The content of the file.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", lossless=True, method=4, quality=75)
    return buffer.getvalue()


def encode_lossy_webp(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode a picture that is no map of values as WebP, a fifth as large as lossless.

    Args:
        pixels: (H, W, 3) uint8, RGB.

    Returns:
        The content of the file.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", method=4, quality=LOSSY_QUALITY)
    return buffer.getvalue()


def make_unique_slugs(names: Sequence[str]) -> list[str]:
    """Return safe file names, unique even where capitals are ignored.

    Args:
        names: Any names; of equal slugs the later ones get "-2", "-3".
    """
    used: set[str] = set()
    return [make_unique_name(slugify(name)[:MAX_SLUG_LENGTH], used) for name in names]


# Values as greys


@dataclass(frozen=True)
class QuantizedMaps:
    """The feature maps of a layer on one image.

    Attributes:
        tiles: (units, h, w) uint8.
        low: The minimum of each unit's finite values, (units,) float64; NaN without any.
        high: The maximum, likewise.
        mean: The mean; NaN of a unit with values that are NaN or infinite.
        zero_fraction: The share of values that are 0.
        non_finite: Which values are NaN or infinite, (units, h, w) bool; None where none is.
    """

    tiles: npt.NDArray[np.uint8]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    zero_fraction: npt.NDArray[np.float64]
    non_finite: npt.NDArray[np.bool_] | None = None


def to_planes(values: np.ndarray) -> np.ndarray:
    """Return a layer's output as one plane per unit.

    Args:
        values: (units, H, W), (units, W) or (units,), or volumes (units, D, H, W), which are not changed.

    Returns:
        (units, h, w), where (units, W) becomes (units, 1, W), and a value is a plane of 1 x 1.
    """
    if values.ndim == 2:
        return values[:, None]
    return values if values.ndim >= 3 else values.reshape(-1, 1, 1)


def quantize_maps(values: np.ndarray, levels: int) -> QuantizedMaps:
    """Draw feature maps in equal steps of grey from each unit's minimum (0) to its maximum (255).

    Args:
        values: (units, h, w). A constant unit is drawn as 0. Values that are NaN or infinite are drawn as 0
            too, below the marks of `write_marks`.
        levels: Number of greys.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    finite = np.isfinite(flat)
    finite_or_nan = flat if finite.all() else np.where(finite, flat, np.nan)
    has_finite = finite.any(1)
    low, high, mean = (np.full(len(flat), np.nan) for _ in range(3))
    if has_finite.any():
        rows = finite_or_nan[has_finite]
        low[has_finite], high[has_finite] = np.nanmin(rows, 1), np.nanmax(rows, 1)
        mean[has_finite] = rows.mean(1)
    zero_fraction = (flat == 0).mean(1)
    # Halved, so that no span overflows.
    span = np.where(high > low, high / 2 - low / 2, np.inf)[:, None]
    with np.errstate(invalid="ignore"):
        position = np.nan_to_num((finite_or_nan / 2 - low[:, None] / 2) / span)
    steps = np.round(np.clip(position, 0, 1) * (levels - 1)).astype(np.uint8)
    tiles = _grey_levels(levels)[steps].reshape(values.shape)
    non_finite = None if finite.all() else ~finite.reshape(values.shape)
    return QuantizedMaps(tiles, low, high, mean, zero_fraction, non_finite)


def _grey_levels(levels: int) -> npt.NDArray[np.uint8]:
    """Return the grey of each step, (levels,): 0 to 255."""
    return np.round(np.arange(levels) * 255 / (levels - 1)).astype(np.uint8)


def quantize_signed(
    values: np.ndarray, levels: int, quantile: float = 1
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Draw signed tiles in equal steps of grey on both sides of zero.

    On each side of zero there are `levels` / 4 steps, since colours have three channels of them, and since
    weights are noise, which compresses badly.

    Args:
        values: (n, ...). Values that are NaN or infinite are drawn as zero, below the marks of `write_marks`.
        levels: Number of greys of a feature map.
        quantile: The scale of a tile ends at this quantile of its nonzero magnitudes; values beyond are
            clipped. 1 means the maximum.

    Returns:
        The tiles, (n, ...) uint8 from 1 to 255, and the end of each tile's scale, (n,): a value is
        (grey − ZERO_GREY) / 127 of it.
    """
    flat = np.nan_to_num(values.reshape(len(values), -1).astype(np.float64), nan=0, posinf=0, neginf=0)
    if quantile < 1:
        ends = np.array([magnitude_quantile(tile, quantile) for tile in flat])
    else:
        ends = np.abs(flat).max(1, initial=0)
    side_steps = max(1, levels // 4)
    steps = np.round(np.clip(flat / np.where(ends > 0, ends, 1)[:, None], -1, 1) * side_steps)
    tiles = (ZERO_GREY + np.round(steps * 127 / side_steps)).astype(np.uint8)
    return tiles.reshape(values.shape), ends


# Filters


@dataclass(frozen=True)
class FilterTiles:
    """The filters of a layer.

    Attributes:
        tiles: (units, h, w) or (units, h, w, 3) uint8.
        max_abs: The largest magnitude of each unit's weights, (units,).
        channels: The input channels that each unit's tile shows, (units, n), where not all are shown.
        non_finite: Which pixels show a weight that is NaN or infinite, (units, h, w) bool; None without any.
    """

    tiles: npt.NDArray[np.uint8]
    max_abs: npt.NDArray[np.float64]
    channels: npt.NDArray[np.int64] | None = None
    non_finite: npt.NDArray[np.bool_] | None = None


def make_filter_tiles(weight: np.ndarray, levels: int, as_rgb: bool = False) -> FilterTiles | None:
    """Draw a tile for each unit's weights.

    The kernels of the MAX_TILE_CHANNELS input channels of largest norm are arranged in a block in the order
    of channels, separated by one pixel of zero.

    Args:
        weight: (units, channels, h, w).
        levels: Number of greys of a feature map.
        as_rgb: Whether to draw three channels as RGB, with grey for zero.

    Returns:
        The tiles, or None where the weights have another shape or are empty, and of kernels of one pixel,
        whose weights have no places.
    """
    if weight.ndim != 4 or not weight.size or (weight.shape[2:] == (1, 1) and not as_rgb):
        return None
    if as_rgb:
        tiles, max_abs = quantize_signed(weight, levels)
        non_finite = find_non_finite_pixels(weight)
        return FilterTiles(tiles.transpose(0, 2, 3, 1), max_abs, None, non_finite)
    channels = None
    if weight.shape[1] > MAX_TILE_CHANNELS:
        norms = np.nan_to_num(np.square(weight.astype(np.float64)).sum((2, 3)), nan=np.inf)
        channels = np.sort(np.argsort(-norms, axis=1, kind="stable")[:, :MAX_TILE_CHANNELS], axis=1)
        weight = np.take_along_axis(weight, channels[..., None, None], 1)
    tiles, max_abs = quantize_signed(weight, levels)
    return FilterTiles(assemble_unit_blocks(tiles, gap=1), max_abs, channels, _mark_blocks(weight, gap=1))


def find_non_finite_pixels(values: np.ndarray) -> npt.NDArray[np.bool_] | None:
    """Return which pixels have NaN or infinity in a channel, (n, h, w) bool; None where none has.

    Args:
        values: (n, C, h, w).
    """
    is_marked: npt.NDArray[np.bool_] = ~np.isfinite(values).all(1)
    return is_marked if is_marked.any() else None


def _mark_blocks(weight: np.ndarray, gap: int) -> npt.NDArray[np.bool_] | None:
    """Return which pixels of the blocks of kernels (units, n, h, w) are NaN or infinite; None without any."""
    finite = np.isfinite(weight)
    if finite.all():
        return None
    is_marked: npt.NDArray[np.bool_] = (
        assemble_unit_blocks(np.where(finite, 0, 255).astype(np.uint8), gap) == 255
    )
    return is_marked


def assemble_unit_blocks(tiles: npt.NDArray[np.uint8], gap: int) -> npt.NDArray[np.uint8]:
    """Arrange the tiles of each unit in a nearly square block.

    Args:
        tiles: (units, n, h, w), in raster order.
        gap: Pixels between tiles; they and free places have ZERO_GREY.

    Returns:
        (units, H, W) uint8.
    """
    units, count, height, width = tiles.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((units, rows * columns, height + gap, width + gap), ZERO_GREY, np.uint8)
    canvas[:, :count, :height, :width] = tiles
    grid = canvas.reshape(units, rows, columns, height + gap, width + gap).swapaxes(2, 3)
    grid = grid.reshape(units, rows * (height + gap), columns * (width + gap))
    return grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap]


def round_significant(values: np.ndarray, digits: int = SIGNIFICANT_DIGITS) -> list[float | None]:
    """Return numbers rounded to significant digits, as short as JSON can write them.

    Args:
        values: Numbers of any shape; those that are not finite become None.
        digits: Significant digits.
    """
    numbers = [float(f"{value:.{digits}g}") for value in values.ravel().tolist()]
    return [
        None if not math.isfinite(number) else int(number) if number.is_integer() else number
        for number in numbers
    ]
