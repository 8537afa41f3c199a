"""Changes of images, against NumPy's padding and rotation and SciPy's interpolation."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from convatlas.analysis.invariance.transforms import Transform, make_transform, warp, warp_labels

BLACK = torch.tensor([-0.5, 0.0, 2.0])
PADDINGS: list[Any] = ["edge", "reflect", "zero"]
NUMPY_MODES = {"edge": "edge", "reflect": "symmetric"}
SCIPY_MODES = {"edge": "nearest", "reflect": "reflect", "zero": "grid-constant"}


def make_images(height: int = 12, width: int = 9) -> Tensor:
    """Return two images of three channels with many exact zeros, in which a rounding error would show."""
    images = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    return torch.from_numpy(np.where(images > 0, images, 0))


def pad_with_numpy(images: Tensor, margin: int, padding: str) -> np.ndarray:
    """Return images with a margin on each side."""
    width = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    if padding != "zero":
        mode: Any = NUMPY_MODES[padding]
        return np.pad(images.numpy(), width, mode)
    planes = [np.pad(images.numpy()[:, [c]], width, constant_values=float(BLACK[c])) for c in range(3)]
    return np.concatenate(planes, 1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("step", [-5.0, -1.0, 0.0, 3.0, 12.0])
def test_a_translation_by_whole_pixels_is_a_slice_of_the_padded_image(padding: Any, step: float) -> None:
    images, margin = make_images(), 12
    padded = pad_with_numpy(images, margin, padding)
    first = margin - int(step)
    down = warp(images, Transform("vertical", ()).compute_matrix(step), padding, BLACK)
    np.testing.assert_array_equal(down, padded[:, :, first : first + 12, margin:-margin])
    right = warp(images, Transform("horizontal", ()).compute_matrix(step), padding, BLACK)
    np.testing.assert_array_equal(right, padded[:, :, margin:-margin, first : first + 9])


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, -1])
def test_quarter_turns_are_those_of_numpy_and_a_full_turn_is_none(padding: Any, turns: int) -> None:
    images = make_images(11, 11)
    turned = warp(images, Transform("rotation", ()).compute_matrix(90.0 * turns), padding, BLACK)
    np.testing.assert_array_equal(turned, np.rot90(images.numpy(), turns, (2, 3)))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("name", "step"), [("scale", 0.6), ("scale", 1.7), ("rotation", 33.0), ("rotation", 200.0)]
)
def test_other_changes_are_those_of_scipy(padding: Any, name: Any, step: float) -> None:
    images, matrix = make_images(), Transform(name, ()).compute_matrix(step)
    inverse = matrix[::-1, 1::-1]  # for (row, column)
    centre = np.array([(12 - 1) / 2, (9 - 1) / 2])
    expected = np.stack(
        [
            [
                ndimage.affine_transform(
                    plane.astype(np.float64),
                    inverse,
                    centre - inverse @ centre,
                    order=1,
                    mode=SCIPY_MODES[padding],
                    cval=float(BLACK[c]),
                )
                for c, plane in enumerate(image)
            ]
            for image in images.numpy()
        ]
    )
    np.testing.assert_allclose(warp(images, matrix, padding, BLACK), expected, atol=2e-6)


@pytest.mark.parametrize("name", ["vertical", "horizontal", "scale", "rotation"])
def test_the_unchanged_image_is_a_step_and_changes_no_bit(name: Any) -> None:
    transform = make_transform(name, (0.5, 0.9) if name != "rotation" else (40.0, 90.0), 3, (12, 9))
    assert transform.identity in transform.steps
    assert len(transform.steps) == 4
    images = make_images()
    assert torch.equal(warp(images, transform.compute_matrix(transform.identity), "zero", BLACK), images)


def test_translations_are_whole_pixels_and_each_step_occurs_once() -> None:
    assert make_transform("vertical", (-0.25, 0.25), 9, (8, 100)).steps == (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert make_transform("horizontal", (-0.1, 0.1), 3, (8, 100)).steps == (-10.0, 0.0, 10.0)
    assert make_transform("scale", (0.6, 1.8), 13, (8, 8)).steps[4] == 1.0


@pytest.mark.parametrize("count", [2, 6, 9, 13, 40])
@pytest.mark.parametrize("length", [28, 64, 224])
@pytest.mark.parametrize("ends", [(-0.25, 0.25), (-0.1, 0.3), (0, 0.4), (0.25, -0.25)])
def test_translations_are_evenly_spaced(ends: tuple[float, float], length: int, count: int) -> None:
    steps = np.array(make_transform("vertical", ends, count, (length, 8)).steps)
    assert len(set(np.diff(steps))) == 1
    assert 0 in steps
    stride = steps[1] - steps[0]
    assert round(min(ends) * length) <= steps[0] < round(min(ends) * length) + stride
    assert round(max(ends) * length) - stride < steps[-1] <= round(max(ends) * length)


def test_labels_move_with_the_pixels_and_nothing_comes_in() -> None:
    labels = torch.arange(12).reshape(1, 3, 4)
    moved = warp_labels(labels, Transform("vertical", ()).compute_matrix(1), -1)
    assert moved[0].tolist() == [[-1] * 4, [0, 1, 2, 3], [4, 5, 6, 7]]
    shrunk = warp_labels(torch.ones(1, 8, 8).long(), Transform("scale", ()).compute_matrix(0.5), -1)
    assert int((shrunk == 1).sum()) == 16
    assert set(shrunk.flatten().tolist()) == {-1, 1}
