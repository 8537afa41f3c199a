"""Pictures in few colours: what stays exact, and how much the rest changes."""

import io

import numpy as np
import pytest
from PIL import Image

from convatlas.plotting.colormap import colour_table
from convatlas.plotting.quantize import MAX_MEAN_ERROR, quantize_image

VIRIDIS, DIVERGING = colour_table("viridis"), colour_table("RdBu_r")
BACKGROUND = (255, 253, 248)


def add_alpha(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def save_and_read(rgb: np.ndarray, *tables: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the mode of the saved image, and its pixels as they are read."""
    file = io.BytesIO()
    image = quantize_image(add_alpha(rgb), list(tables))
    image.save(file, "png")
    return image.mode, np.asarray(Image.open(file).convert("RGB"))


def make_figure(*tables: np.ndarray, photographs: int = 1) -> np.ndarray:
    """Return the pixels of a figure: feature maps with a colour bar for each table, and photographs."""
    rng = np.random.default_rng(0)
    rgb = np.full((400, 600, 3), BACKGROUND, np.uint8)
    for n, table in enumerate(tables):
        rgb[10:266, 20 + 30 * n : 40 + 30 * n] = table[:, None]
        smooth = np.clip(np.cumsum(rng.normal(0, 4, (40, 40)), 1) + 128, 0, 255).astype(np.uint8)
        rgb[20 + 180 * n : 180 + 180 * n, 120:280] = table[smooth].repeat(4, 0).repeat(4, 1)
    for n in range(photographs):
        y, x = np.mgrid[:60, :60]
        photograph = np.stack([4 * y, 4 * x, 2 * (x + y)], -1) + rng.integers(0, 12, (60, 60, 3))
        rgb[10 + 70 * n : 70 + 70 * n, 300:360] = np.clip(photograph, 0, 255)
    return rgb


def max_channel_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(before.astype(int) - after).max(-1)


def test_up_to_256_colours_stay_exactly_as_they_are() -> None:
    rgb = VIRIDIS[np.arange(256 * 30).reshape(30, 256) % 256]
    mode, pixels = save_and_read(rgb)
    assert mode == "P"
    np.testing.assert_array_equal(pixels, rgb)


def test_a_picture_of_one_colour() -> None:
    rgb = np.full((3, 5, 3), BACKGROUND, np.uint8)
    np.testing.assert_array_equal(save_and_read(rgb)[1], rgb)


@pytest.mark.parametrize("tables", [(VIRIDIS,), (DIVERGING,), (VIRIDIS, DIVERGING)])
def test_maps_and_colour_bars_change_by_less_than_a_visible_step(tables: tuple[np.ndarray, ...]) -> None:
    rgb = make_figure(*tables)
    mode, pixels = save_and_read(rgb, *tables)
    assert mode == "P"
    assert max_channel_change(rgb, pixels)[:, :290].max() <= 3 * len(tables)
    assert max_channel_change(rgb, pixels).mean() <= MAX_MEAN_ERROR


def test_a_colour_bar_stays_smooth() -> None:
    """It keeps at least every second colour of its 256."""
    rgb = make_figure(DIVERGING, photographs=5)
    pixels = save_and_read(rgb, DIVERGING)[1][10:266, 25]
    assert len(np.unique(pixels, axis=0)) >= 128


def test_the_background_is_exact() -> None:
    rgb = make_figure(VIRIDIS, DIVERGING, photographs=5)
    pixels = save_and_read(rgb, VIRIDIS, DIVERGING)[1]
    assert (pixels[(rgb == BACKGROUND).all(-1)] == BACKGROUND).all()


def test_a_picture_that_would_change_too_much_stays_rgb() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    mode, pixels = save_and_read(rgb)
    assert mode == "RGB"
    np.testing.assert_array_equal(pixels, rgb)


def test_very_many_colours() -> None:
    """A photograph of 40,000 colours on a large background."""
    rgb = np.full((1500, 1500, 3), BACKGROUND, np.uint8)
    y, x = np.mgrid[:200, :200]
    rgb[:200, :200] = np.stack([y, x, (x + y) // 2], -1)
    mode, pixels = save_and_read(rgb)
    assert mode == "P"
    assert max_channel_change(rgb, pixels)[:200, :200].mean() < 12


def test_quantising_is_deterministic() -> None:
    rgb = add_alpha(make_figure(VIRIDIS, photographs=3))
    first, second = (quantize_image(rgb, [VIRIDIS]) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.getpalette() == second.getpalette()
