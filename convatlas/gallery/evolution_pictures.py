"""The pictures of a layer's units through training: sheets with rows of units, columns of epochs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convatlas.image_io import select_display
from convatlas.plotting.colormap import ColourScale, colour_table
from convatlas.plotting.sprites import MAX_TILE_CHANNELS, encode_webp, make_filter_tiles, to_planes
from convatlas.plotting.top_activation_tiles import (
    fit_projection_scale,
    render_patches,
    render_projections,
)
from convatlas.records import Preprocessing

MAX_SIDE = 96  # pixels of a tile; larger ones are reduced
LEVELS = 64  # steps of a filter's colours
GAP = 1  # pixels between tiles, where they continue, since browsers round the edges of a tile


@dataclass(frozen=True)
class Sheet:
    """A picture of tiles in rows and columns.

    Attributes:
        path: Its place in the site.
        content: The file, a lossless WebP.
        tile_size: Height and width of a tile in pixels.
        size: Height and width of the sheet.
    """

    path: str
    content: bytes
    tile_size: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def from_tiles(cls, path: str, tiles: npt.NDArray[np.uint8]) -> "Sheet":
        """Arrange tiles.

        Args:
            path: Place of the sheet in the site.
            tiles: (rows, columns, h, w, 3).
        """
        rows, columns, height, width = tiles.shape[:4]
        size = rows * (height + GAP), columns * (width + GAP)
        padded = np.pad(tiles, ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)), mode="edge")
        pixels = np.ascontiguousarray(padded.transpose(0, 2, 1, 3, 4)).reshape(*size, 3)
        return cls(path, encode_webp(pixels), (height, width), size)

    @property
    def geometry(self) -> dict[str, str]:
        """Return how a style sheet places the sheet behind the frame of a tile, by property.

        `dx` and `dy` are the steps between columns and rows, `width` is the sheet's, relative to a tile.
        """
        height, width = self.tile_size
        return {
            "dx": f"{-100 * (width + GAP) / width:.4g}%",
            "dy": f"{-100 * (height + GAP) / height:.4g}%",
            "width": f"{100 * self.size[1] / width:.6g}%",
            "aspect": f"{width} / {height}",
        }


def render_each(
    values: np.ndarray, render: Callable[[np.ndarray], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    """Render tiles one by one, each with its own scale.

    Args:
        values: (epochs, units, ...).
        render: Returns the colours of one, (h, w, 3).

    Returns:
        (units, epochs, h, w, 3).
    """
    return np.stack([[render(tile) for tile in row] for row in values.swapaxes(0, 1)])


def render_projection_tiles(projections: np.ndarray, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Draw projections, white or grey where they are zero.

    Args:
        projections: (epochs, units, C, h, w), signed.
        preprocessing: Of network.json.
    """
    shown = reduce_tiles(select_display(projections, preprocessing))
    return render_each(shown, lambda tile: render_projections(fit_projection_scale(tile), tile))


def render_patch_tiles(patches: np.ndarray, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Draw the parts of images that activations depend on.

    Args:
        patches: (epochs, units, C, h, w), as the network sees them.
        preprocessing: Of network.json.
    """
    return render_each(reduce_tiles(patches), lambda tile: render_patches(preprocessing, tile))


def render_map_tiles(maps: np.ndarray) -> npt.NDArray[np.uint8]:
    """Draw the maps of units on one image.

    Args:
        maps: (epochs, units, ...).
    """
    planes = np.stack([to_planes(row) for row in maps])
    planes = planes.reshape(*maps.shape[:2], -1, planes.shape[-1])  # slices of volumes below one another
    shown = reduce_tiles(planes)
    return render_each(shown, lambda tile: ColourScale.from_values(tile).to_rgb(tile))


def render_filter_tiles(filters: np.ndarray, as_rgb: bool) -> npt.NDArray[np.uint8] | None:
    """Draw filters as blocks of kernels: of many channels those with the largest norm after the last epoch.

    Args:
        filters: (epochs, units, channels, h, w).
        as_rgb: Whether to draw three channels as RGB, with grey for zero.

    Returns:
        (units, epochs, h, w, 3); None of filters without places, such as those of one pixel.
    """
    if filters.ndim != 5:
        return None
    if filters.shape[2] > MAX_TILE_CHANNELS:
        norms = np.nan_to_num(np.square(filters[-1].astype(np.float64)).sum((2, 3)), nan=np.inf)
        channels = np.sort(np.argsort(-norms, axis=1, kind="stable")[:, :MAX_TILE_CHANNELS], axis=1)
        filters = np.take_along_axis(filters, channels[None, :, :, None, None], 2)
    epochs, units = filters.shape[:2]
    flat = filters.reshape(-1, *filters.shape[2:])
    drawn = make_filter_tiles(flat, LEVELS, as_rgb)
    if drawn is None:
        return None
    tiles = drawn.tiles if drawn.tiles.ndim == 4 else colour_table("RdBu_r")[drawn.tiles]
    return tiles.reshape(epochs, units, *tiles.shape[1:]).swapaxes(0, 1)


def reduce_tiles(values: np.ndarray) -> np.ndarray:
    """Return tiles (..., h, w) of at most MAX_SIDE pixels a side: means of squares of pixels.

    Args:
        values: Values with NaN outside the image; the mean is over the others.
    """
    height, width = values.shape[-2:]
    factor = -(-max(height, width) // MAX_SIDE)
    if factor == 1:
        return values
    padding = [(0, 0)] * (values.ndim - 2) + [(0, -height % factor), (0, -width % factor)]
    padded = np.pad(values, padding, constant_values=np.nan)
    blocks = padded.reshape(*values.shape[:-2], -1, factor, padded.shape[-1] // factor, factor)
    is_known = ~np.isnan(blocks)
    counts = is_known.sum((-3, -1))
    sums = np.where(is_known, blocks, 0).sum((-3, -1), dtype=np.float64)
    means: np.ndarray = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means.astype(values.dtype)


def iterate_sheets(
    folder: str, kinds: dict[str, npt.NDArray[np.uint8] | None]
) -> Iterator[tuple[str, Sheet]]:
    """Yield the sheets of a layer by kind.

    Args:
        folder: Their folder in the site.
        kinds: The tiles of each kind; None of a kind that the layer lacks.
    """
    for kind, tiles in kinds.items():
        if tiles is not None:
            yield kind, Sheet.from_tiles(f"{folder}/{kind}.webp", tiles)
