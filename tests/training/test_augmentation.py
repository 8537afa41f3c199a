"""Random changes of images and their masks, against slices, Pillow and torchvision."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from convatlas.datasets.base import IGNORE_INDEX
from convatlas.training.augmentation import (
    augment,
    colour_jitter,
    random_affine,
    random_horizontal_flip,
    random_shift,
    resize_masks,
)

SIDE = 14  # so that no pixel's number is UNKNOWN
WHOLE: dict[str, Any] = {"crop": 1.0, "scale": 1.0, "stretch": 0.0, "rotate": 0.0}
NOTHING: dict[str, Any] = WHOLE | {"shift": 0, "flip": False, "colour": 0.0}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def ramps(n: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Images of three channels whose value tells each pixel's row and column, and masks that do."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack([row, column, row + column]).to(torch.uint8)
    return image.expand(n, -1, -1, -1).clone(), (row * side + column).to(torch.uint8).expand(
        n, -1, -1
    ).clone()


@pytest.mark.parametrize("size", [7, 9, 14, 28])
def test_a_resized_mask_holds_the_nearest_pixels(size: int) -> None:
    """Pixels' middles are compared, one after another."""
    _, masks = ramps(2)
    found = resize_masks(masks, size)
    nearest = [int((place + 0.5) * SIDE / size) for place in range(size)]
    assert found.tolist() == [[[row * SIDE + column for column in nearest] for row in nearest]] * 2
    assert found.dtype == torch.uint8


def test_nothing_asked_for_changes_nothing_and_draws_nothing() -> None:
    images, masks = ramps(4)
    drawn = generator()
    found = augment(images, masks, NOTHING, SIDE, drawn)
    assert torch.equal(found[0], images)
    assert torch.equal(found[1], masks)
    assert torch.equal(drawn.get_state(), generator().get_state())


def test_a_mask_moves_with_its_image() -> None:
    images, masks = ramps(50)
    moved, with_it = random_shift(images, 3, generator(), masks)
    known = with_it != IGNORE_INDEX
    row, column = with_it // SIDE, with_it % SIDE
    assert torch.equal(moved[:, 0][known], row[known])
    assert torch.equal(moved[:, 1][known], column[known])
    assert not moved.permute(0, 2, 3, 1)[~known].any()
    assert 0 < (~known).sum() < known.sum()


def test_a_mask_is_mirrored_with_its_image() -> None:
    images, masks = ramps(50)
    mirrored, with_it = random_horizontal_flip(images, generator(), masks)
    assert torch.equal(mirrored[:, 1], with_it % SIDE)
    assert {int(mask[0, 0]) for mask in with_it} == {0, 13}


def test_a_part_of_a_larger_image_is_as_sharp_as_a_whole_one() -> None:
    """Half of either side of an image of twice the size, brought to the size: its very pixels."""
    images, masks = ramps(20, 2 * SIDE)
    parts, with_it = random_affine(images, WHOLE | {"crop": 0.5}, SIDE, generator(), masks)
    assert parts.shape == (20, 3, SIDE, SIDE) and with_it.shape == (20, SIDE, SIDE)
    steps = (parts[:, 0, 1:] - parts[:, 0, :-1])[:, 1:-1]  # of the image's rows in each of the part's
    assert float(steps.min()) >= 1 - 1e-3 and float(steps.max()) <= 2 + 1e-3


@pytest.mark.parametrize("least", [0.5, 0.9])
def test_a_crop_is_an_enlarged_part_of_the_image(least: float) -> None:
    """The ramps' values tell where each part lies: it is as large as was drawn, and inside."""
    images, masks = ramps(200)
    parts, with_it = random_affine(images, WHOLE | {"crop": least}, SIDE, generator(), masks)
    steps = (parts[:, 0, 7] - parts[:, 0, 6]).mean(1)  # of the image's rows, in each of the part's
    assert float(steps.min()) >= least - 1e-3
    assert float(steps.max()) <= 1 + 1e-3
    assert float(steps.max() - steps.min()) > 0.8 * (1 - least)
    assert torch.allclose(steps, (parts[:, 1, :, 7] - parts[:, 1, :, 6]).mean(1), atol=1e-4)  # square
    assert float(parts.min()) >= 0
    assert float(parts[:, :2].max()) <= 13
    inside = slice(1, -1)  # at the borders the image is mirrored by half a pixel
    row, column = (with_it // SIDE).float(), (with_it % SIDE).float()
    for given, nearest in ((parts[:, 0], row), (parts[:, 1], column)):
        assert float((given - nearest)[:, inside, inside].abs().max()) <= 0.5 + 1e-3
    assert with_it.dtype == torch.uint8


def test_a_frame_of_the_whole_image_shows_the_image() -> None:
    images, masks = ramps(3)
    parts, with_it = random_affine(images, WHOLE, SIDE, generator(), masks)
    torch.testing.assert_close(parts, images.float(), atol=1e-4, rtol=0)
    assert torch.equal(with_it, masks)


def test_a_wider_frame_mirrors_the_image_beyond_its_edges() -> None:
    """Twice the side shows the image at half its size, somewhere, and mirrored copies around it."""
    images, masks = ramps(30)
    shown, with_it = random_affine(images, WHOLE | {"crop": 2.0, "scale": 2.0}, SIDE, generator(), masks)
    steps = shown[:, 0].mean(2).diff(dim=1)  # of the image's rows, which rise in it and fall beside it
    assert float(steps.abs().max()) <= 2 + 1e-3
    assert int((steps.abs() > 2 - 1e-2).sum(1).min()) >= SIDE - 5  # a fold takes two
    rises = (steps > 0).sum(1)
    assert int(rises.min()) >= 4
    assert int(rises.max()) <= 9
    assert int(with_it.max()) < SIDE * SIDE


def test_a_frame_is_turned_and_stretched_as_torchvision_does_it() -> None:
    """Each image against torchvision's rotation by the angle that was drawn, away from the edges."""
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.random((6, 3, 5, 5), dtype=np.float32) * 255)
    images = torch.nn.functional.interpolate(smooth, (40, 40), mode="bicubic", align_corners=True).clamp(
        0, 255
    )
    shown, _ = random_affine(images, WHOLE | {"rotate": 30.0}, 40, generator())
    angles = 30 * (2 * torch.rand(5, 6, generator=generator())[4] - 1)
    assert float(angles.abs().max()) > 10
    inside = slice(12, 28)
    for image, turned, angle in zip(images, shown, angles.tolist(), strict=True):
        expected = tv.rotate(image, angle, interpolation=tv.InterpolationMode.BILINEAR)
        difference = (turned - expected)[:, inside, inside].abs()
        assert float(difference.max()) < 1.0, angle
    ramp, _ = ramps(100)
    shown, _ = random_affine(ramp, WHOLE | {"crop": 0.5, "scale": 0.5, "stretch": 0.5}, SIDE, generator())
    down, across = shown[:, 0].diff(dim=1).mean((1, 2)), shown[:, 1].diff(dim=2).mean((1, 2))
    ratio = across / down
    assert 1.4 < float(ratio.max()) <= 1.51 and 1.4 < float(1 / ratio.min()) <= 1.51
    assert torch.allclose(down * across, torch.tensor(0.25), atol=0.01)


def test_colours_change_as_torchvision_changes_them() -> None:
    """Brightness, contrast about the mean and saturation about grey, by the factors that are drawn."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(100, 150, (40, 3, 8, 8), dtype=np.uint8))
    found = colour_jitter(images, 0.3, generator())
    factors = 0.7 + 0.6 * torch.rand(3, 40, 1, 1, 1, generator=generator())
    for image, result, (b, c, s) in zip(images, found, factors[..., 0, 0, 0].T.tolist(), strict=True):
        x = image.float() * b
        x = x.mean() + c * (x - x.mean())
        grey = tv.rgb_to_grayscale(x / 255) * 255
        assert torch.allclose(result, grey + s * (x - grey), atol=0.05)
    assert float(factors.min()) < 0.75 < 1.25 < float(factors.max())


def test_colours_stay_in_range_and_grey_stays_grey() -> None:
    extremes = torch.tensor([0, 255], dtype=torch.uint8).repeat(2, 1, 32, 1)
    found = colour_jitter(extremes, 0.9, generator())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 255
    grey = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(5, 3, 8, 8)
    found = colour_jitter(grey, 0.5, generator())
    torch.testing.assert_close(found[:, 0], found[:, 2], atol=1e-3, rtol=0)


def test_the_same_seed_changes_alike() -> None:
    images, masks = ramps(8)
    settings = {"shift": 2, "flip": True, "colour": 0.2}
    settings |= {"crop": 0.6, "scale": 1.4, "stretch": 0.3, "rotate": 20.0}
    one, other = (augment(images, masks, settings, SIDE, generator()) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
