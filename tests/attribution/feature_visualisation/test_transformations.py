"""The random transformations of images in each step."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from convatlas.attribution.feature_visualisation.transformations import (
    draw_transformations,
    transform_images,
)


def test_an_image_is_sampled_where_the_transformation_says() -> None:
    size = (20, 30)
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    (transformation,) = draw_transformations(torch.Generator().manual_seed(1), 1, size)
    result = transform_images(image, transformation[None])[0, 0]
    rows, columns = np.mgrid[:20, :30] + 0.5
    x, y = columns / 15 - 1, rows / 10 - 1
    source_x, source_y = np.einsum("ij,jrc->irc", transformation.numpy(), np.stack([x, y, np.ones_like(x)]))
    places = np.stack([(source_y + 1) * 10 - 0.5, (source_x + 1) * 15 - 0.5])
    expected = ndimage.map_coordinates(image[0, 0].numpy(), places, order=1, mode="constant", cval=0.5)
    inside = np.all((places >= 0) & (places <= [[[19]], [[29]]]), 0)
    np.testing.assert_allclose(result.numpy()[inside], expected[inside], atol=1e-5)


def test_transformations_stay_within_their_limits() -> None:
    draws = draw_transformations(torch.Generator().manual_seed(0), 2000, (64, 64)).numpy()
    zoom = np.sqrt(np.linalg.det(draws[:, :, :2]))
    assert 1 / 1.1 < zoom.min() < 0.93
    assert 1.08 < zoom.max() < 1 / 0.9
    angle = np.degrees(np.arctan2(draws[:, 1, 0], draws[:, 0, 0]))
    assert 9 < np.abs(angle).max() <= 10
    pixels = np.abs(draws[:, :, 2]) * 32
    assert 2 < pixels.max() < 2 + 1.5  # of 64 pixels: 2, and 1 that is rotated and scaled


def test_rotation_keeps_the_shape_of_pixels_in_wide_images() -> None:
    for matrix in draw_transformations(torch.Generator().manual_seed(0), 5, (10, 40)).numpy()[:, :, :2]:
        in_pixels = np.diag([20, 5]) @ matrix @ np.diag([1 / 20, 1 / 5])
        assert in_pixels @ in_pixels.T == pytest.approx(np.linalg.det(in_pixels) * np.eye(2), abs=1e-6)


def test_beyond_the_border_is_grey_and_without_a_transformation_nothing_changes() -> None:
    image = torch.rand(1, 3, 9, 9)
    identity = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(transform_images(image, identity), image)
    away = torch.tensor([[[1.0, 0, 5], [0, 1, 0]]])
    assert (transform_images(image, away) == 0.5).all()
