"""Occlusion: how much the score of a class drops when a grey square hides a part of the image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from convatlas import UserError
from convatlas.attribution.baselines import GREY, fill_colour
from convatlas.attribution.methods.method import (
    Explanation,
    Maps,
    Method,
    allocate_maps,
    check_count,
    empty_checks,
)

POSITIONS = 8  # of the square along the shorter side, by default


def compute_occlusion(explanation: Explanation, size: int | None = None, stride: int | None = None) -> Maps:
    """Return how much the score of each target drops when a grey square hides a pixel.

    The square moves by `stride` from where it hides the first pixels of the image to where it hides the last,
    and beyond the borders, so that as many positions hide each pixel. A pixel's value is the mean drop over
    these.

    Args:
        explanation: What is to be explained.
        size: Side of the square in pixels; None chooses two strides.
        stride: Pixels between its positions; None chooses half of the size, or an eighth of the shorter side.

    Raises:
        UserError: The images have no two spatial axes, the size or the stride is no positive number, or the
            stride is larger than the size, so that some pixels were never hidden.
    """
    images, scores = explanation.images, explanation.scores
    if images.ndim != 4:
        raise UserError(f"occlusion is of images, and x has the shape {tuple(images.shape)}")
    side, step = choose_square(images.shape[2:], size, stride)
    grey = fill_colour(images[:1], GREY, explanation.preprocessing)
    unchanged = scores(torch.cat([images, grey]))[: len(images)]
    targets = scores.make_targets(unchanged, explanation.classes)
    reference = targets.select(unchanged)
    squares = list_squares(images.shape[2:], side, step)
    values, counts = allocate_maps(explanation, 1).zero_(), images.new_zeros(images.shape[2:])
    for rows, columns in squares:
        counts[rows, columns] += 1
    for n, image in enumerate(images):
        drops = []
        for start in range(0, len(squares), batch_size := scores.count_images(image[None])):
            batch = occlude(image, squares[start : start + batch_size], grey[0])
            owners = torch.full((len(batch),), n, device=images.device)
            drops.append(reference[n] - targets.take(owners).select(scores(batch)))
        for (rows, columns), drop in zip(squares, torch.cat(drops), strict=True):
            values[n, :, 0, rows, columns] += drop[:, None, None]
    checks = empty_checks(explanation.classes)
    for row in checks:
        for entry in row:
            entry |= {"size": side, "stride": step, "positions": len(squares)}
    return Maps(values / counts, checks)


def occlude(image: Tensor, squares: Sequence[tuple[slice, slice]], fill: Tensor) -> Tensor:
    """Return copies of an image, each with one square hidden.

    Args:
        image: The image (C, H, W).
        squares: Rows and columns of the squares, from `list_squares`.
        fill: What is seen within a square, (C, H, W), such as grey.

    Returns:
        (squares, C, H, W).
    """
    batch = image.expand(len(squares), *image.shape).clone()
    for copy, (rows, columns) in zip(batch, squares, strict=True):
        copy[:, rows, columns] = fill[:, rows, columns]
    return batch


def choose_square(shape: torch.Size, size: int | None, stride: int | None) -> tuple[int, int]:
    """Return the side of the square and the pixels between its positions.

    Args:
        shape: Height and width of the image.
        size: The side, or None.
        stride: The stride, or None.

    Raises:
        UserError: One is no positive integer, or the stride is larger than the side.
    """
    for name, value in (("size", size), ("stride", stride)):
        if value is not None:
            check_count("occlusion", name, value)
    step = stride or (max(1, size // 2) if size else math.ceil(min(shape) / POSITIONS))
    side = size or 2 * step
    if step > side:
        raise UserError(f"occlusion: a stride of {step} leaves pixels between squares of {side} pixels")
    return side, step


def list_squares(shape: torch.Size, side: int, step: int) -> list[tuple[slice, slice]]:
    """Return the rows and columns that the square hides at each position.

    Args:
        shape: Height and width of the image.
        side: Side of the square.
        step: Pixels between its positions.
    """
    rows, columns = (
        [slice(max(0, start), start + side) for start in range(step - side, length, step)] for length in shape
    )
    return [(row, column) for row in rows for column in columns]


def _probe(explanation: Explanation, size: int | None = None, stride: int | None = None) -> Maps:
    """Hide all of the image at once, with settings that are possible."""
    choose_square(explanation.images.shape[2:], size, stride)
    largest = max(explanation.images.shape[2:])
    return compute_occlusion(explanation, largest, largest)


OCCLUSION = Method(
    name="occlusion",
    title="Occlusion",
    returns="map",
    requires=frozenset({"class scores"}),
    citation="Zeiler, Fergus 2013, arXiv 1311.2901, section 4.2",
    caveat="A grey square is itself unusual; where one of two parts suffices, hiding one changes little.",
    check="Each value is a measured drop of the logit; a square over all pixels gives that of a grey image.",
    compute=compute_occlusion,
    settings={"size": None, "stride": None},
    is_contribution=True,
    probe=_probe,
)
