"""Images without information to compare an image with: black, grey, its mean colour, or the image blurred."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from convatlas import UserError
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import suggest_nearest

Baseline = Literal["black", "mean", "blurred"]
BASELINES: tuple[Baseline, ...] = ("black", "mean", "blurred")
GREY = 0.5  # of values in 0..1
BLUR = 1 / 16  # standard deviation of the blur, as a share of the shorter side
BLUR_RADIUS = 3  # of the blur's kernel, in standard deviations


def make_baselines(images: Tensor, kind: Baseline, preprocessing: Preprocessing | None = None) -> Tensor:
    """Return a baseline for each image.

    Args:
        images: Preprocessed images, (N, C, H, W).
        kind: "black"; "mean", the mean of each channel over the image; or "blurred", the image by a Gaussian
            whose standard deviation is a sixteenth of the shorter side.
        preprocessing: That of the images; None of images in 0..1.

    Returns:
        The baselines in the input's space, (N, C, H, W).

    Raises:
        UserError: There is no such baseline, or the images have no two spatial axes to blur over.
    """
    if kind not in BASELINES:
        raise UserError(f"there is no baseline {kind!r}; {suggest_nearest(kind, list(BASELINES))}")
    if kind == "black":
        return fill_colour(images, 0.0, preprocessing)
    if kind == "mean":
        return images.mean(tuple(range(2, images.ndim)), keepdim=True).expand_as(images).clone()
    return _blur(images)


def fill_colour(images: Tensor, value: float, preprocessing: Preprocessing | None = None) -> Tensor:
    """Return images of one value in all channels.

    Args:
        images: Preprocessed images, (N, C, H, W), whose shape is taken.
        value: The value before normalisation, of 0 for black to 1 for white.
        preprocessing: That of the images; None of images in 0..1.

    Returns:
        (N, C, H, W) in the input's space.
    """
    if preprocessing is None:
        return torch.full_like(images, value)
    axes = (-1,) + (1,) * (images.ndim - 2)
    mean, std = (
        images.new_tensor(values).reshape(axes) for values in (preprocessing.mean, preprocessing.std)
    )
    return ((value - mean) / std).expand_as(images).clone()


def _blur(images: Tensor) -> Tensor:
    """Return images blurred by a Gaussian, one axis after the other; the edges are repeated."""
    if images.ndim != 4:
        raise UserError(f"the baseline 'blurred' is of images, and x has the shape {tuple(images.shape)}")
    sigma = BLUR * min(images.shape[2:])
    radius = math.ceil(BLUR_RADIUS * sigma)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    planes = functional.pad(images.flatten(0, 1)[:, None], [radius] * 4, mode="replicate")
    planes = functional.conv2d(planes, kernel.reshape(1, 1, -1, 1))
    planes = functional.conv2d(planes, kernel.reshape(1, 1, 1, -1))
    return planes.reshape(images.shape)
