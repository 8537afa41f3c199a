"""The strongest activations of one unit as a picture: what caused them, and beside it the images' own pixels.

The arrangement of Zeiler & Fergus, Visualizing and understanding convolutional networks (arXiv 1311.2901),
figure 2: a block of projections, and a block of the patches of the images, in the same order.
"""

import math
from typing import Any

import numpy as np

from convatlas.files import Npz
from convatlas.image_io import denormalize
from convatlas.plotting.colormap import ColourScale

OUTSIDE_COLOUR = (216, 209, 196)  # what an activation does not depend on, or lies beyond an image's border
TILE_GAP = 2  # pixels between the pictures of a block
RGB_STEP = (
    8  # of 255, that projections in colour are drawn in: they are noise, which would take twice the bytes
)


def read_projected_units(strongest: Npz, layer: str) -> list[int]:
    """The units of a layer that strongest.npz has projections of, in its order: those named, else all."""
    key = f"{layer}@units"
    return strongest[key].tolist() if key in strongest else list(range(len(strongest[f"{layer}@values"])))


def magnitude_percentile(values: np.ndarray) -> float:
    """The end within which 99 % of the values lie that are not zero: a few beyond would grey all others."""
    there = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.percentile(there, 99)) if there.size else 0.0


def fit_projection_scale(projections: np.ndarray) -> ColourScale:
    """The scale of projections (..., C, h, w), about zero: of three channels that of colours about grey."""
    colour = projections.shape[-3] == 3
    end = (
        magnitude_percentile(projections)
        if colour
        else float(np.nan_to_num(np.abs(projections)).max(initial=0))
    )
    return ColourScale(-(end or 1.0), end or 1.0, "gray" if colour else "RdBu_r")


def render_projections(scale: ColourScale, projections: np.ndarray) -> np.ndarray:
    """Colour projections (..., C, h, w), signed: (..., h, w, 3) uint8. Of few channels the first is drawn."""
    if projections.shape[-3] == 3:
        steps = np.round(np.nan_to_num(np.moveaxis(projections, -3, -1)) / scale.high * 128 / RGB_STEP)
        pixels = np.clip(128 + RGB_STEP * steps, 0, 255).astype(np.uint8)
    else:
        pixels = scale.to_rgb(np.nan_to_num(projections[..., 0, :, :]))
    return _fill_outside(pixels, projections)


def render_patches(preprocessing: dict[str, Any], patches: np.ndarray) -> np.ndarray:
    """Undo the normalisation of patches (..., C, h, w) of inputs: (..., h, w, 3) uint8, grey or in colour."""
    pixels = _to_uint8(np.moveaxis(denormalize(patches, preprocessing), -3, -1))
    return _fill_outside(pixels if pixels.shape[-1] == 3 else pixels[..., :1].repeat(3, -1), patches)


def assemble_tile_block(tiles: np.ndarray, factor: int = 1) -> np.ndarray:
    """Lay pictures (k, h, w, 3) uint8 in rows, as near to a square as they come, enlarged: (H, W, 3).

    LINE pixels are between them; places that are free are as what lies beyond an image.
    """
    enlarged = tiles.repeat(factor, 1).repeat(factor, 2)
    count, height, width = enlarged.shape[:3]
    across = count_block_columns(count)
    down = -(-count // across)
    canvas = np.full(
        (down * (height + TILE_GAP) - TILE_GAP, across * (width + TILE_GAP) - TILE_GAP, 3),
        OUTSIDE_COLOUR,
        np.uint8,
    )
    for n, picture in enumerate(enlarged):
        top, left = n // across * (height + TILE_GAP), n % across * (width + TILE_GAP)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def count_block_columns(count: int) -> int:
    """How many of a unit's pictures stand side by side: three of nine."""
    return math.ceil(math.sqrt(count))


def _to_uint8(shares: np.ndarray) -> np.ndarray:
    """0..1 as uint8; what is not a number is 0."""
    return np.round(255 * np.clip(np.nan_to_num(shares), 0, 1)).astype(np.uint8)


def _fill_outside(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mark the places of `values` (..., C, h, w) where nothing is."""
    pixels[np.isnan(values).all(-3)] = OUTSIDE_COLOUR
    return pixels
