"""Move images, and scale and rotate them about their centre: bilinear, exact where whole pixels move."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

TransformName = Literal["vertical", "horizontal", "scale", "rotation"]
Padding = Literal["edge", "reflect", "zero"]

FULL_TURN = 360.0  # degrees
STEP_DIGITS = 6  # decimals to which steps are rounded, so that a step of 1 is exactly 1
PLACE_DIGITS = 9  # decimals of a pixel


@dataclass(frozen=True)
class Transform:
    """A change of an image, by one number.

    Attributes:
        name: "vertical" or "horizontal", a translation by pixels, down or to the right; "scale", an
            enlargement about the centre by a factor; "rotation", counterclockwise about the centre, by
            degrees.
        steps: The numbers, ascending, that of the unchanged image among them.
    """

    name: TransformName
    steps: tuple[float, ...]

    @property
    def identity(self) -> float:
        """The number of the unchanged image."""
        return get_identity(self.name)

    def compute_matrix(self, step: float) -> np.ndarray:
        """Return the matrix (2, 3) from a pixel of the changed image to its place in the unchanged one.

        Args:
            step: The number. A rotation is taken modulo 360 degrees.

        Returns:
            float64, for (x, y, 1) in pixels from the centre, x to the right, y down.
        """
        if self.name == "scale":
            return np.array([[1 / step, 0, 0], [0, 1 / step, 0]])
        if self.name == "rotation":
            angle = math.radians(step % FULL_TURN)
            cosine, sine = math.cos(angle), math.sin(angle)
            return np.array([[cosine, -sine, 0], [sine, cosine, 0]])
        shift = (-step, 0.0) if self.name == "horizontal" else (0.0, -step)
        return np.array([[1, 0, shift[0]], [0, 1, shift[1]]])


def get_identity(name: TransformName) -> float:
    """Return the number of a transform that leaves images unchanged.

    Args:
        name: Name of the transform.
    """
    return 1.0 if name == "scale" else 0.0


def make_transform(
    name: TransformName, ends: tuple[float, float], count: int, size: tuple[int, int]
) -> Transform:
    """Return a transform with evenly spaced steps.

    Args:
        name: Name of the transform.
        ends: The first and the last number: of a translation in shares of the image's height or width, which
            become whole pixels; factors of a scale; degrees of a rotation.
        count: The number of steps; of a translation, the closest that whole pixels allow. The step of the
            unchanged image is added where none is it.
        size: Height and width of the image in pixels.
    """
    if name in ("vertical", "horizontal"):
        values = _space_translations(ends, count, size[name == "horizontal"])
    else:
        values = np.linspace(*ends, count)
    steps = {round(value, STEP_DIGITS) + 0.0 for value in values.tolist()} | {get_identity(name)}
    return Transform(name, tuple(sorted(steps)))


def _space_translations(ends: tuple[float, float], count: int, length: int) -> np.ndarray:
    """Return evenly spaced translations by whole pixels, 0 among them where it lies between the ends."""
    first, last = (round(end * length) for end in sorted(ends))
    stride = max(1, round((last - first) / (count - 1)))
    if not first <= 0 <= last:
        return np.arange(first, last + 1, stride)
    stride = max(1, min(stride, max(-first, last)))  # more than the unchanged image
    return np.arange(-(-first // stride) * stride, last + 1, stride)


def locate_pixels(matrix: np.ndarray, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return where each pixel of a changed image lies in the unchanged one.

    Args:
        matrix: Of `Transform.compute_matrix`.
        size: Height and width of the image in pixels.

    Returns:
        Rows and columns in pixels, (H, W) float64 each, rounded so that quarter turns meet whole pixels.
    """
    height, width = size
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    columns, rows = (line[0] * x + line[1] * y + line[2] for line in matrix)
    places = (rows + (height - 1) / 2, columns + (width - 1) / 2)
    first, second = (torch.from_numpy(place.round(PLACE_DIGITS)) for place in places)
    return first, second


def warp(images: Tensor, matrix: np.ndarray, padding: Padding, black: Tensor) -> Tensor:
    """Change images, with bilinear interpolation.

    Interpolation and padding commute with the normalisation of pixels, so that images may be normalised
    before: a pixel that moves by whole pixels then keeps its value bit for bit.

    Args:
        images: (N, C, H, W) float32.
        matrix: Of `Transform.compute_matrix`.
        padding: What lies outside the image: "edge", the nearest pixel of its border; "reflect", the image
            mirrored at the outer edge of its border pixels; "zero", black.
        black: The value of a black pixel in each channel, (C,).

    Returns:
        (N, C, H, W) float32.
    """
    height, width = images.shape[-2:]
    rows, columns = (place.to(images.device) for place in locate_pixels(matrix, (height, width)))
    pixels = images.reshape(-1, height * width).T.contiguous()  # (H * W, N * C): a pixel is read at once
    values, outside = torch.zeros_like(pixels), torch.zeros_like(rows)
    for row, row_weight in _split_places(rows):
        for column, column_weight in _split_places(columns):
            weight = row_weight * column_weight
            if padding == "zero":
                is_outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
                outside += weight * is_outside
                weight = weight * ~is_outside
            index = _pad_index(row, height, padding) * width + _pad_index(column, width, padding)
            if weight.any():
                values.addcmul_(pixels.index_select(0, index.flatten()), weight.reshape(-1, 1).float())
    warped = values.T.contiguous().reshape(images.shape)
    if padding == "zero":
        warped += outside.float() * black.to(images)[:, None, None]
    return warped


def _split_places(places: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the indices of the pixels on both sides of places along an axis, with their weights."""
    before = places.floor()
    share = places - before
    return [(before.long(), 1 - share), (before.long() + 1, share)]


def _pad_index(index: Tensor, length: int, padding: Padding) -> Tensor:
    """Return the index of the pixel within an axis that stands for each one, within or outside."""
    if padding != "reflect":
        return index.clamp(0, length - 1)
    period = index % (2 * length)
    return torch.minimum(period, 2 * length - 1 - period)


def warp_labels(labels: Tensor, matrix: np.ndarray, outside: int) -> Tensor:
    """Change maps of labels, by nearest neighbour.

    Args:
        labels: (N, H, W) integers.
        matrix: Of `Transform.compute_matrix`.
        outside: The label of pixels from outside the map.

    Returns:
        (N, H, W).
    """
    height, width = labels.shape[-2:]
    rows, columns = (place.to(labels.device) for place in locate_pixels(matrix, (height, width)))
    row, column = (rows + 0.5).floor().long(), (columns + 0.5).floor().long()
    is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    warped = labels[:, row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return warped.where(is_inside, outside)
