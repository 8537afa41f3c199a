"""Tiles of units, and how they are arranged."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from convatlas.plotting.colormap import LayerScales, select_finite
from convatlas.plotting.labelled_figure import ColourBar
from convatlas.plotting.montage import GAP, HEADER_HEIGHT, TILE_SIZE, Tile
from convatlas.plotting.top_activation_tiles import RGB_STEP

MAX_COLUMNS = 16  # tiles in a row
MAX_ROW_WIDTH = MAX_COLUMNS * (TILE_SIZE + GAP)  # pixels
MAX_DENSE_COLUMNS = 64  # tiles in a row of a dense figure
DENSE_TILE_SIZE = 28  # pixels of a tile of a dense figure
CLIPPING_NOTE = "Nonzero magnitudes above their 99th percentile are clipped."  # of RGB projections
Item = TypeVar("Item")


@dataclass(frozen=True)
class MontageOptions:
    """How the tiles of a montage are arranged; see `assemble_montage`."""

    tile_size: int = TILE_SIZE
    header_height: int = HEADER_HEIGHT
    gap: int = GAP
    group_starts: Collection[int] = ()


DEFAULT_OPTIONS = MontageOptions()
DENSE_OPTIONS = MontageOptions(tile_size=DENSE_TILE_SIZE, header_height=4, gap=4)


def make_tile(
    scales: LayerScales,
    layer: str,
    values: np.ndarray,
    title: int | str,
    right_title: str = "",
    note: str = "",
) -> Tile:
    """Return the tile of one unit; a tile with its own scale has the scale's end printed above it.

    Args:
        scales: The scales of the layer's tiles.
        layer: Name of the layer, a key of `scales`.
        values: (H, W).
        title: The unit, or what the tile shows.
        right_title: A text above the tile on the right.
        note: A text above both titles.
    """
    scale = scales.for_tile(layer, values)
    if scales.mode == "per_tile":
        end = (scale.high or scale.low) if values.any() else 0
        right_title = f"{right_title} {end:.2g}".strip()
    return Tile(values, scale, str(title), right_title, note)


def make_dense_tile(scales: LayerScales, layer: str, values: np.ndarray) -> Tile:
    """Return the tile of one unit without any text.

    Args:
        scales: The scales of the layer's tiles.
        layer: Name of the layer, a key of `scales`.
        values: (H, W).
    """
    return Tile(values, scales.for_tile(layer, values))


def make_rgb_tile(
    scales: LayerScales, layer: str, values: np.ndarray, title: int | str, note: str = ""
) -> Tile:
    """Return a tile of signed values (3, H, W) drawn as RGB, with grey for zero.

    Args:
        scales: The scales of the layer's tiles.
        layer: Name of the layer, a key of `scales`.
        values: Values of three channels.
        title: The unit, or what the tile shows.
        note: A text above the title.
    """
    pixels = to_rgb_pixels(values, scales.for_tile(layer, values).high)
    return replace(make_tile(scales, layer, values, title, "", note), values=pixels, scale=None)


def make_projection_tile(
    scales: LayerScales, key: str, values: np.ndarray, unit: int, inactive: bool
) -> Tile:
    """Return the tile of a projection (C, H, W), signed; that of an inactive unit is crossed out.

    Args:
        scales: The scales of the projections.
        key: The key of the projection, <layer> or <layer>@peak.
        values: Three channels are drawn as RGB, in steps of RGB_STEP; a single one in colours of the scale.
        unit: The unit.
        inactive: Whether it has no positive activation on the image.
    """
    if inactive:
        return Tile(values[0], scales.for_layer(key), str(unit), "inactive", crossed_out=True)
    if not scales.as_rgb:
        return make_tile(scales, key, values[0], unit)
    tile = make_rgb_tile(scales, key, values, unit)
    return replace(tile, values=0.5 + np.round((tile.values - 0.5) * 255 / RGB_STEP) * RGB_STEP / 255)


def to_rgb_pixels(values: np.ndarray, max_abs: float) -> np.ndarray:
    """Return signed values as an image with grey for zero.

    Args:
        values: (3, H, W).
        max_abs: The magnitude, above 0, that is drawn as 0 or 1.

    Returns:
        (H, W, 3), 0.5 + value / (2 · `max_abs`). Values of larger magnitude are beyond 0..1; `Tile` clips
        them.
    """
    pixels: np.ndarray = 0.5 + values.transpose(1, 2, 0) / (2 * max_abs)
    return pixels


def make_colour_bar(scales: LayerScales, layer: str, first_row: int, last_row: int, label: str) -> ColourBar:
    """Return the colour bar of a layer beside rows of tiles.

    Args:
        scales: The scales.
        layer: A key of `scales`.
        first_row: The first row of the tiles.
        last_row: Their last row.
        label: What the values are.
    """
    return ColourBar(first_row, last_row, scales.for_layer(layer), label, scales.end_labels(layer))


def split_into_chunks(items: Sequence[Item], size: int = MAX_COLUMNS) -> list[Sequence[Item]]:
    """Split a sequence into chunks; the last may be shorter.

    Args:
        items: The sequence.
        size: Items in a chunk.
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


def count_tiles_per_row(tile_size: int) -> int:
    """Return how many tiles fit in a row of MAX_ROW_WIDTH pixels: 4 to MAX_COLUMNS.

    Args:
        tile_size: Pixels of a tile's longer side; below TILE_SIZE it counts as TILE_SIZE.
    """
    return max(4, min(MAX_COLUMNS, MAX_ROW_WIDTH // (max(tile_size, TILE_SIZE) + GAP)))


def format_unit_range(units: Sequence[int]) -> str:
    """Return the first and last unit as text, such as "0–15"; of one unit its number.

    Args:
        units: Numbers of units in ascending order, at least one.
    """
    return str(units[0]) if len(units) == 1 else f"{units[0]}–{units[-1]}"


def value_range(values: np.ndarray) -> np.ndarray:
    """Return the minimum and maximum, which are all that a scale needs: (2,), or (0,) without finite values.

    Args:
        values: Values of any shape; NaN and infinity do not count.
    """
    finite = select_finite(values)
    return np.array([finite.min(), finite.max()]) if finite.size else finite.ravel()
