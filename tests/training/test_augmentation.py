"""Random changes of images and their masks, against formulas and torchvision."""

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

SIDE = 14  # so small that no pixel's number is IGNORE_INDEX
SIZE = (SIDE, SIDE)
FULL_FRAME: dict[str, Any] = {"crop": 1.0, "scale": 1.0, "stretch": 0.0, "rotate": 0.0}
NO_CHANGES: dict[str, Any] = FULL_FRAME | {"shift": 0, "flip": False, "colour": 0.0}


def make_generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def make_ramps(n: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Return images with each pixel's row, column and their sum as channels, and masks of pixel numbers."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack([row, column, row + column]).to(torch.uint8)
    return image.expand(n, -1, -1, -1).clone(), (row * side + column).to(torch.uint8).expand(
        n, -1, -1
    ).clone()


@pytest.mark.parametrize("size", [7, 9, 14, 28])
def test_a_resized_mask_holds_the_nearest_pixels(size: int) -> None:
    """By the centres of the pixels."""
    _, masks = make_ramps(2)
    columns = [int((i + 0.5) * SIDE / (2 * size)) for i in range(2 * size)]
    resized = resize_masks(masks, (size, 2 * size))
    nearest = [int((i + 0.5) * SIDE / size) for i in range(size)]
    assert resized.tolist() == [[[row * SIDE + column for column in columns] for row in nearest]] * 2
    assert resized.dtype == torch.uint8


def test_without_changes_nothing_is_drawn() -> None:
    images, masks = make_ramps(4)
    generator = make_generator()
    result = augment(images, masks, NO_CHANGES, SIZE, generator)
    assert torch.equal(result[0], images)
    assert torch.equal(result[1], masks)
    assert torch.equal(generator.get_state(), make_generator().get_state())


def test_a_mask_is_shifted_with_its_image() -> None:
    images, masks = make_ramps(50)
    shifted, new_masks = random_shift(images, 3, make_generator(), masks)
    known = new_masks != IGNORE_INDEX
    row, column = new_masks // SIDE, new_masks % SIDE
    assert torch.equal(shifted[:, 0][known], row[known])
    assert torch.equal(shifted[:, 1][known], column[known])
    assert not shifted.permute(0, 2, 3, 1)[~known].any()
    assert 0 < (~known).sum() < known.sum()


def test_a_mask_is_flipped_with_its_image() -> None:
    images, masks = make_ramps(50)
    flipped, new_masks = random_horizontal_flip(images, make_generator(), masks)
    assert torch.equal(flipped[:, 1], new_masks % SIDE)
    assert {int(mask[0, 0]) for mask in new_masks} == {0, 13}


def test_a_crop_of_a_larger_image_is_sharp() -> None:
    """Half of either side of an image of twice the size, brought to the size: its very pixels."""
    images, masks = make_ramps(20, 2 * SIDE)
    crops, new_masks = random_affine(images, FULL_FRAME | {"crop": 0.5}, SIZE, make_generator(), masks)
    assert crops.shape == (20, 3, SIDE, SIDE) and new_masks.shape == (20, SIDE, SIDE)
    steps = (crops[:, 0, 1:] - crops[:, 0, :-1])[:, 1:-1]  # rows of the image per row of the crop
    assert float(steps.min()) >= 1 - 1e-3 and float(steps.max()) <= 2 + 1e-3


@pytest.mark.parametrize("crop", [0.5, 0.9])
def test_a_crop_lies_within_the_image(crop: float) -> None:
    """The ramps' values tell where each part lies: it is as large as was drawn, and inside."""
    images, masks = make_ramps(200)
    crops, new_masks = random_affine(images, FULL_FRAME | {"crop": crop}, SIZE, make_generator(), masks)
    steps = (crops[:, 0, 7] - crops[:, 0, 6]).mean(1)  # rows of the image per row of the crop
    assert float(steps.min()) >= crop - 1e-3
    assert float(steps.max()) <= 1 + 1e-3
    assert float(steps.max() - steps.min()) > 0.8 * (1 - crop)
    assert torch.allclose(steps, (crops[:, 1, :, 7] - crops[:, 1, :, 6]).mean(1), atol=1e-4)  # square
    assert float(crops.min()) >= 0
    assert float(crops[:, :2].max()) <= 13
    inside = slice(1, -1)  # at the borders the image is flipped by half a pixel
    row, column = (new_masks // SIDE).float(), (new_masks % SIDE).float()
    for interpolated, nearest in ((crops[:, 0], row), (crops[:, 1], column)):
        assert float((interpolated - nearest)[:, inside, inside].abs().max()) <= 0.5 + 1e-3
    assert new_masks.dtype == torch.uint8


def test_a_frame_of_the_full_size_shows_the_image() -> None:
    images, masks = make_ramps(3)
    crops, new_masks = random_affine(images, FULL_FRAME, SIZE, make_generator(), masks)
    torch.testing.assert_close(crops, images.float(), atol=1e-4, rtol=0)
    assert torch.equal(new_masks, masks)


def test_a_larger_frame_reflects_the_image_beyond_its_edges() -> None:
    """Twice the side shows the image at half its size, somewhere, and flipped copies around it."""
    images, masks = make_ramps(30)
    shown, new_masks = random_affine(
        images, FULL_FRAME | {"crop": 2.0, "scale": 2.0}, SIZE, make_generator(), masks
    )
    steps = shown[:, 0].mean(2).diff(dim=1)  # of the image's rows, which rise in it and fall beside it
    assert float(steps.abs().max()) <= 2 + 1e-3
    assert int((steps.abs() > 2 - 1e-2).sum(1).min()) >= SIDE - 5  # a fold takes two
    rises = (steps > 0).sum(1)
    assert int(rises.min()) >= 4
    assert int(rises.max()) <= 9
    assert int(new_masks.max()) < SIDE * SIDE


def test_a_frame_is_rotated_as_by_torchvision_and_stretched() -> None:
    """Each image against torchvision's rotation by the angle that was drawn, away from the edges."""
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.random((6, 3, 5, 5), dtype=np.float32) * 255)
    images = torch.nn.functional.interpolate(smooth, (40, 40), mode="bicubic", align_corners=True).clamp(
        0, 255
    )
    shown, _ = random_affine(images, FULL_FRAME | {"rotate": 30.0}, (40, 40), make_generator())
    angles = 30 * (2 * torch.rand(5, 6, generator=make_generator())[4] - 1)
    assert float(angles.abs().max()) > 10
    inside = slice(12, 28)
    for image, rotated, angle in zip(images, shown, angles.tolist(), strict=True):
        expected = tv.rotate(image, angle, interpolation=tv.InterpolationMode.BILINEAR)
        difference = (rotated - expected)[:, inside, inside].abs()
        assert float(difference.max()) < 1.0, angle
    ramp, _ = make_ramps(100)
    shown, _ = random_affine(
        ramp, FULL_FRAME | {"crop": 0.5, "scale": 0.5, "stretch": 0.5}, SIZE, make_generator()
    )
    down, across = shown[:, 0].diff(dim=1).mean((1, 2)), shown[:, 1].diff(dim=2).mean((1, 2))
    ratio = across / down
    assert 1.4 < float(ratio.max()) <= 1.51 and 1.4 < float(1 / ratio.min()) <= 1.51
    assert torch.allclose(down * across, torch.tensor(0.25), atol=0.01)


def test_colour_jitter_changes_colours_as_torchvision() -> None:
    """Brightness, contrast about the mean and saturation about grey, by the factors that are drawn."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(100, 150, (40, 3, 8, 8), dtype=np.uint8))
    jittered = colour_jitter(images, 0.3, make_generator())
    factors = 0.7 + 0.6 * torch.rand(3, 40, 1, 1, 1, generator=make_generator())
    for image, result, (b, c, s) in zip(images, jittered, factors[..., 0, 0, 0].T.tolist(), strict=True):
        x = image.float() * b
        x = x.mean() + c * (x - x.mean())
        grey = tv.rgb_to_grayscale(x / 255) * 255
        assert torch.allclose(result, grey + s * (x - grey), atol=0.05)
    assert float(factors.min()) < 0.75 < 1.25 < float(factors.max())


def test_colour_jitter_stays_in_range_and_leaves_grey_grey() -> None:
    extremes = torch.tensor([0, 255], dtype=torch.uint8).repeat(2, 1, 32, 1)
    jittered = colour_jitter(extremes, 0.9, make_generator())
    assert float(jittered.min()) >= 0
    assert float(jittered.max()) <= 255
    grey = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(5, 3, 8, 8)
    jittered = colour_jitter(grey, 0.5, make_generator())
    torch.testing.assert_close(jittered[:, 0], jittered[:, 2], atol=1e-3, rtol=0)


def test_a_rotation_of_an_oblong_image_does_not_shear_it() -> None:
    """Distances in pixels stay: a step along the frame moves one pixel, at the angle that was drawn."""
    row, column = torch.meshgrid(torch.arange(20.0), torch.arange(80.0), indexing="ij")
    images = torch.stack([row, column]).expand(30, -1, -1, -1)
    shown, _ = random_affine(images, FULL_FRAME | {"rotate": 8.0}, (20, 80), make_generator())
    angles = torch.deg2rad(8 * (2 * torch.rand(5, 30, generator=make_generator())[4] - 1))
    centre = shown[:, :, 8:12, 36:44]
    rows, columns = centre[:, 0].diff(dim=2).mean((1, 2)), centre[:, 1].diff(dim=2).mean((1, 2))
    assert torch.allclose(rows, angles.sin(), atol=1e-4)
    assert torch.allclose(columns, angles.cos(), atol=1e-4)
    down = centre[:, 1].diff(dim=1).mean((1, 2))
    assert torch.allclose(down, -angles.sin(), atol=1e-4)


def test_the_same_seed_gives_the_same_changes() -> None:
    images, masks = make_ramps(8)
    settings = {"shift": 2, "flip": True, "colour": 0.2}
    settings |= {"crop": 0.6, "scale": 1.4, "stretch": 0.3, "rotate": 20.0}
    one, other = (augment(images, masks, settings, SIZE, make_generator()) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
