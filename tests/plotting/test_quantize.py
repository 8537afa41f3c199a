"""Plates in few colours: what stays exact, what may change, and by how much."""

import io

import numpy as np
import pytest
from PIL import Image

from convatlas.plotting.colormap import colour_table
from convatlas.plotting.quantize import MAX_MEAN_ERROR, quantize_image

VIRIDIS, DIVERGING = colour_table("viridis"), colour_table("RdBu_r")
PAPER = (255, 253, 248)


def opaque(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def drawn(rgb: np.ndarray, *scales: np.ndarray) -> tuple[str, np.ndarray]:
    """The mode of the picture that is saved, and its pixels as they are read again."""
    file = io.BytesIO()
    picture = quantize_image(opaque(rgb), list(scales))
    picture.save(file, "png")
    return picture.mode, np.asarray(Image.open(file).convert("RGB"))


def plate(*scales: np.ndarray, photographs: int = 1) -> np.ndarray:
    """Paper, maps in the colours of scales with a bar of each, and photographs, as a plate has them."""
    rng = np.random.default_rng(0)
    rgb = np.full((400, 600, 3), PAPER, np.uint8)
    for n, scale in enumerate(scales):
        rgb[10:266, 20 + 30 * n : 40 + 30 * n] = scale[:, None]
        smooth = np.clip(np.cumsum(rng.normal(0, 4, (40, 40)), 1) + 128, 0, 255).astype(np.uint8)
        rgb[20 + 180 * n : 180 + 180 * n, 120:280] = scale[smooth].repeat(4, 0).repeat(4, 1)
    for n in range(photographs):
        y, x = np.mgrid[:60, :60]
        photograph = np.stack([4 * y, 4 * x, 2 * (x + y)], -1) + rng.integers(0, 12, (60, 60, 3))
        rgb[10 + 70 * n : 70 + 70 * n, 300:360] = np.clip(photograph, 0, 255)
    return rgb


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(before.astype(int) - after).max(-1)


def test_up_to_256_colours_stay_exactly_as_they_are() -> None:
    rgb = VIRIDIS[np.arange(256 * 30).reshape(30, 256) % 256]
    mode, found = drawn(rgb)
    assert mode == "P"
    np.testing.assert_array_equal(found, rgb)


def test_one_colour_is_a_picture_too() -> None:
    rgb = np.full((3, 5, 3), PAPER, np.uint8)
    np.testing.assert_array_equal(drawn(rgb)[1], rgb)


@pytest.mark.parametrize("scales", [(VIRIDIS,), (DIVERGING,), (VIRIDIS, DIVERGING)])
def test_maps_and_bars_change_by_less_than_a_step_that_is_seen(scales: tuple[np.ndarray, ...]) -> None:
    rgb = plate(*scales)
    mode, found = drawn(rgb, *scales)
    assert mode == "P"
    assert change(rgb, found)[:, :290].max() <= 3 * len(scales)
    assert change(rgb, found).mean() <= MAX_MEAN_ERROR


def test_a_bar_does_not_fall_into_steps() -> None:
    """As many colours as rows would make it, or every second of them."""
    rgb = plate(DIVERGING, photographs=5)
    found = drawn(rgb, DIVERGING)[1][10:266, 25]
    assert len(np.unique(found, axis=0)) >= 128


def test_paper_stays_paper() -> None:
    rgb = plate(VIRIDIS, DIVERGING, photographs=5)
    found = drawn(rgb, VIRIDIS, DIVERGING)[1]
    assert (found[(rgb == PAPER).all(-1)] == PAPER).all()


def test_what_would_change_too_much_stays_in_full_colour() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    mode, found = drawn(rgb)
    assert mode == "RGB"
    np.testing.assert_array_equal(found, rgb)


def test_more_colours_than_can_be_counted_one_by_one() -> None:
    """A photograph of 40,000 colours, on so much paper that it matters little."""
    rgb = np.full((1500, 1500, 3), PAPER, np.uint8)
    y, x = np.mgrid[:200, :200]
    rgb[:200, :200] = np.stack([y, x, (x + y) // 2], -1)
    mode, found = drawn(rgb)
    assert mode == "P"
    assert change(rgb, found)[:200, :200].mean() < 12


def test_the_same_bytes_twice() -> None:
    rgb = opaque(plate(VIRIDIS, photographs=3))
    first, second = (quantize_image(rgb, [VIRIDIS]) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.getpalette() == second.getpalette()
