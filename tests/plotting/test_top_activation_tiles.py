"""The tiles of a unit's top activations: blocks, patches and projections, against plain loops."""

from typing import Any

import numpy as np
import pytest

from convatlas.plotting import top_activation_tiles
from convatlas.plotting.colormap import NAN_COLOUR


def test_a_block_has_its_pictures_in_rows() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (7, 3, 2, 3), np.uint8)
    block = top_activation_tiles.assemble_tile_block(pictures, 4)
    assert block.shape == (
        3 * 12 + 2 * top_activation_tiles.TILE_GAP,
        3 * 8 + 2 * top_activation_tiles.TILE_GAP,
        3,
    )
    covered = np.zeros(block.shape[:2], bool)
    for n, picture in enumerate(pictures):
        top, left = n // 3 * (12 + top_activation_tiles.TILE_GAP), n % 3 * (8 + top_activation_tiles.TILE_GAP)
        for row in range(12):
            for column in range(8):
                assert (block[top + row, left + column] == picture[row // 4, column // 4]).all()
                covered[top + row, left + column] = True
    assert (block[~covered] == top_activation_tiles.OUTSIDE_COLOUR).all()


def test_patches_are_the_images_own_pixels_and_what_is_beyond_is_neutral() -> None:
    preprocessing: Any = {"size": [4, 5], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 5))
    mean, std = (np.array(preprocessing[key], np.float32)[:, None, None] for key in ("mean", "std"))
    patches = ((pixels / 255 - mean) / std).astype(np.float32)
    patches[1, :, 0] = np.nan
    rendered = top_activation_tiles.render_patches(preprocessing, patches)
    np.testing.assert_array_equal(rendered[0], pixels[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(rendered[1, 1:], pixels[1, :, 1:].transpose(1, 2, 0))
    assert (rendered[1, 0] == top_activation_tiles.OUTSIDE_COLOUR).all()
    grey = top_activation_tiles.render_patches(
        {"size": 1, "mean": [0.0], "std": [1.0]}, np.full((1, 1, 1, 1), 0.5, np.float32)
    )
    assert grey.tolist() == [[[[128, 128, 128]]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_projections_are_signed_about_zero(channels: int) -> None:
    values = np.zeros((1, channels, 1, 4), np.float32)
    values[..., 0], values[..., 1], values[..., 2] = 2, -2, np.nan
    scale = top_activation_tiles.fit_projection_scale(values)
    assert (scale.low, scale.high) == (-2, 2)
    plus, minus, beyond, zero = top_activation_tiles.render_projections(scale, values)[0, 0].astype(int)
    assert tuple(beyond) == top_activation_tiles.OUTSIDE_COLOUR
    if channels == 3:
        assert plus.tolist() == [255] * 3
        assert minus.tolist() == [0] * 3
        assert np.abs(zero - 128).max() <= 1
    else:
        assert plus[0] > plus[2]  # red
        assert minus[2] > minus[0]  # blue
        assert zero.min() > 240


def test_a_few_values_do_not_grey_all_others() -> None:
    values = np.full((1, 3, 100, 100), 0.1, np.float32)
    values[0, 0, 0, 0] = 50
    assert top_activation_tiles.fit_projection_scale(values).high == pytest.approx(0.1)
    assert top_activation_tiles.fit_projection_scale(np.zeros((2, 3, 4, 4))).high == 1
    assert top_activation_tiles.fit_projection_scale(np.full((2, 1, 4, 4), np.nan)).high == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_infinity_stands_for_nan_inside_the_image(channels: int) -> None:
    values = np.zeros((2, channels, 3, 3), np.float32)
    values[0, :, 0], values[0, 0, 1, 1], values[1, -1, 2, 2] = np.nan, np.inf, 4
    scale = top_activation_tiles.fit_projection_scale(values)
    assert scale.high == 4
    pixels = top_activation_tiles.render_projections(scale, values)
    assert (pixels[0, 0] == top_activation_tiles.OUTSIDE_COLOUR).all()
    is_marked = (pixels == NAN_COLOUR).all(-1)
    assert is_marked[0, 1, 1] and is_marked.sum() == 1
