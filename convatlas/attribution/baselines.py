"""Images without information to compare an image with: black, its mean colour, or the image blurred."""

import torch
from torch import Tensor
from torch.nn import functional

from convatlas.models.preprocessing import Preprocessing

BLUR_SHARE = 1 / 16  # standard deviation of the blur, of the shorter side
KERNEL_RADIUS = 3  # of the blur's kernel, in standard deviations


def make_baseline(x: Tensor, kind: str, preprocessing: Preprocessing | None = None) -> Tensor:
    """Return the baselines of images, (N, C, H, W).

    Args:
        x: Preprocessed images, (N, C, H, W).
        kind: "black"; "mean", the mean of each channel over the image; or "blurred", by a Gaussian with a
            standard deviation of a sixteenth of the shorter side.
        preprocessing: That of the images; None of images in 0..1.

    Raises:
        ValueError: `kind` is none of these.
    """
    if kind == "black":
        return make_constant(x, 0.0, preprocessing)
    if kind == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x)
    if kind != "blurred":
        raise ValueError(f"a baseline is black, mean or blurred, not {kind!r}")
    return _blur(x)


def make_constant(x: Tensor, value: float, preprocessing: Preprocessing | None = None) -> Tensor:
    """Return images of one grey, (N, C, H, W), as the network takes them.

    Args:
        x: Preprocessed images, (N, C, H, W).
        value: The grey before normalisation, 0 for black, 0.5 for mid-grey.
        preprocessing: That of the images; None of images in 0..1.
    """
    if preprocessing is None:
        return torch.full_like(x, value)
    mean, std = (x.new_tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return ((value - mean) / std).expand_as(x)


def _blur(x: Tensor) -> Tensor:
    """Blur images by a Gaussian, one axis after the other; the edges are repeated."""
    sigma = BLUR_SHARE * min(x.shape[2:])
    radius = max(1, round(KERNEL_RADIUS * sigma))
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    planes = x.flatten(0, 1)[:, None]
    planes = functional.pad(planes, [radius] * 4, mode="replicate")
    planes = functional.conv2d(planes, kernel.reshape(1, 1, -1, 1))
    planes = functional.conv2d(planes, kernel.reshape(1, 1, 1, -1))
    return planes.reshape(x.shape)
