"""Tiles of the top activations of a unit: their deconvnet projections, and the image patches.

The arrangement of Zeiler & Fergus, Visualizing and understanding convolutional networks (arXiv 1311.2901),
figure 2: a block of projections beside a block of patches, in the same order.
"""

import math

import numpy as np
import numpy.typing as npt

from convatlas.image_io import denormalize, select_display
from convatlas.plotting.colormap import NAN_COLOUR, RGB_CMAP, ColourScale, magnitude_quantile, select_finite
from convatlas.records import Preprocessing

OUTSIDE_COLOUR = (216, 209, 196)  # of what lies outside the image, or outside the receptive field
TILE_GAP = 2  # pixels between the tiles of a block
OUTLINE_COLOUR = (230, 90, 40)  # of a tiny patch in the image around it
OUTLINE_WIDTH = 2  # pixels
RGB_STEP = 8  # of 255, in which RGB projections are drawn: they are noise, which would take twice the bytes


def fit_projection_scale(projections: np.ndarray) -> ColourScale:
    """Return the scale, centred on zero, of projections.

    Three channels are drawn as RGB, up to the 99th percentile of the nonzero magnitudes.

    Args:
        projections: (..., C, h, w), NaN where an activation does not depend on a pixel.
    """
    if projections.shape[-3] == 3:
        end = magnitude_quantile(projections) or 1.0
        return ColourScale(-end, end, RGB_CMAP)
    end = float(np.abs(select_finite(projections)).max(initial=0)) or 1.0
    return ColourScale(-end, end, "RdBu_r")


def render_projections(scale: ColourScale, projections: np.ndarray) -> npt.NDArray[np.uint8]:
    """Return the colours of projections (..., C, h, w), signed: (..., h, w, 3).

    Three channels are drawn as RGB, with grey for zero; a single one in the colours of the scale.

    Args:
        scale: The colour scale of the projections.
        projections: NaN where an activation does not depend on a pixel; ∞ has the colour of NaN.
    """
    known = np.nan_to_num(projections, posinf=0, neginf=0)
    if projections.shape[-3] == 3:
        steps = np.round(np.moveaxis(known, -3, -1) / scale.high * 128 / RGB_STEP)
        pixels = np.clip(128 + RGB_STEP * steps, 0, 255).astype(np.uint8)
    else:
        pixels = scale.to_rgb(known[..., 0, :, :])
    return _fill_outside(pixels, projections)


def render_patches(preprocessing: Preprocessing, patches: np.ndarray) -> npt.NDArray[np.uint8]:
    """Return the colours of patches (..., C, h, w) of inputs, without normalisation: (..., h, w, 3).

    Of several channels those are drawn that are shown, as `image_io.get_display` chooses them.

    Args:
        preprocessing: Of network.json.
        patches: NaN beyond the border of the image; ∞ has the colour of NaN.
    """
    pixels = _to_uint8(
        np.moveaxis(select_display(denormalize(patches, preprocessing), preprocessing), -3, -1)
    )
    return _fill_outside(pixels if pixels.shape[-1] == 3 else pixels[..., :1].repeat(3, -1), patches)


def assemble_tile_block(tiles: npt.NDArray[np.uint8], factor: int = 1) -> npt.NDArray[np.uint8]:
    """Arrange tiles (k, h, w, 3) in a nearly square block, TILE_GAP pixels apart: (H, W, 3).

    Args:
        tiles: The tiles, in the order of rows. Free places have OUTSIDE_COLOUR.
        factor: A whole number by which the tiles are enlarged.
    """
    enlarged = tiles.repeat(factor, 1).repeat(factor, 2)
    count, height, width = enlarged.shape[:3]
    columns = math.ceil(math.sqrt(count))  # three of nine
    rows = -(-count // columns)
    size = rows * (height + TILE_GAP) - TILE_GAP, columns * (width + TILE_GAP) - TILE_GAP
    canvas = np.full((*size, 3), OUTSIDE_COLOUR, np.uint8)
    for n, tile in enumerate(enlarged):
        top, left = n // columns * (height + TILE_GAP), n % columns * (width + TILE_GAP)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def outline_box(
    tile: npt.NDArray[np.uint8], corner: npt.NDArray[np.integer], size: npt.NDArray[np.integer]
) -> None:
    """Draw an outline around a box of a tile, in place, as far as it is within the tile.

    Args:
        tile: (H, W, 3).
        corner: Row and column of the box's upper left pixel.
        size: Its height and width.
    """
    outer = np.zeros((tile.shape[0] + 2 * OUTLINE_WIDTH, tile.shape[1] + 2 * OUTLINE_WIDTH), np.bool_)
    (top, left), (bottom, right) = corner, corner + size
    limits = np.clip([top, left, bottom, right], -OUTLINE_WIDTH, max(outer.shape)) + OUTLINE_WIDTH
    rows, columns = slice(limits[0], limits[2]), slice(limits[1], limits[3])
    outer[
        max(0, rows.start - OUTLINE_WIDTH) : rows.stop + OUTLINE_WIDTH,
        max(0, columns.start - OUTLINE_WIDTH) : columns.stop + OUTLINE_WIDTH,
    ] = True
    outer[rows, columns] = False
    tile[outer[OUTLINE_WIDTH:-OUTLINE_WIDTH, OUTLINE_WIDTH:-OUTLINE_WIDTH]] = OUTLINE_COLOUR


def _to_uint8(shares: np.ndarray) -> npt.NDArray[np.uint8]:
    """Return values in 0..1 as uint8; NaN becomes 0."""
    pixels: npt.NDArray[np.uint8] = np.round(255 * np.clip(np.nan_to_num(shares), 0, 1)).astype(np.uint8)
    return pixels


def _fill_outside(pixels: npt.NDArray[np.uint8], values: np.ndarray) -> npt.NDArray[np.uint8]:
    """Fill the places where all channels of `values` (..., C, h, w) are NaN, or where any is infinite."""
    pixels[np.isnan(values).all(-3)] = OUTSIDE_COLOUR
    pixels[np.isinf(values).any(-3)] = NAN_COLOUR
    return pixels
