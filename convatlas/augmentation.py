"""Random changes of training images, each one's own, its mask changed alike."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas.datasets import UNKNOWN

GREY = (0.299, 0.587, 0.114)  # what red, green and blue add to brightness (ITU-R BT.601)


def augmented(
    images: Tensor, masks: Tensor | None, settings: dict[str, Any], size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Change images (N, C, H, W) of 0..255 and masks (N, H, W), if any, as the config's `training` says.

    What is cropped comes to size × size; for its parts to be as sharp as whole images, it is given larger.
    """
    if settings["crop"] < 1:
        images, masks = cropped(images, settings["crop"], size, generator, masks)
    images, masks = shifted(images, settings["shift"], generator, masks)
    if settings["flip"]:
        images, masks = flipped(images, generator, masks)
    if settings["colour"]:
        images = recoloured(images, settings["colour"], generator)
    return images, masks


def resized(masks: Tensor, size: int) -> Tensor:
    """Bring masks (N, H, W) to size × size: the nearest pixels, as is right for classes."""
    nearest = F.interpolate(masks[:, None].float(), (size, size), mode="nearest-exact")
    return nearest[:, 0].to(masks.dtype)


def shifted(
    images: Tensor, most: int, generator: torch.Generator, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Shift each image by up to `most` pixels either way on both axes; zeros come in, unknown in a mask."""
    if not most:
        return images, masks
    n, _, height, width = images.shape
    top, left = torch.randint(2 * most + 1, (2, n, 1), generator=generator).to(images.device)
    rows = (top + torch.arange(height, device=images.device))[:, :, None]
    columns = (left + torch.arange(width, device=images.device))[:, None, :]
    each = torch.arange(n, device=images.device)[:, None, None]
    planes = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    moved = F.pad(images, [most] * 4)[each[:, None], planes, rows[:, None], columns[:, None]]
    return moved, None if masks is None else F.pad(masks, [most] * 4, value=UNKNOWN)[each, rows, columns]


def flipped(
    images: Tensor, generator: torch.Generator, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Mirror about half of the images, left to right."""
    chosen = torch.randint(2, (len(images), 1, 1, 1), generator=generator).to(images.device).bool()
    mirrored = None if masks is None else torch.where(chosen[:, 0], masks.flip(2), masks)
    return torch.where(chosen, images.flip(3), images), mirrored


def cropped(
    images: Tensor, least: float, size: int, generator: torch.Generator, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Cut out of each image a part, with between `least` and all of either side, and bring it to size × size.

    Images are interpolated, to float; a mask's pixels are their nearest.
    """
    n = len(images)
    share, x, y = torch.rand(3, n, generator=generator)
    share = least + (1 - least) * share
    # In affine_grid's terms, in which the image reaches from -1 to 1: the part's scale and its middle.
    middle = (1 - share) * (2 * torch.stack([x, y]) - 1)
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([share, zero, middle[0]]), torch.stack([zero, share, middle[1]])])
    theta = theta.permute(2, 0, 1).to(images.device)
    grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
    parts = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    if masks is None:
        return parts, None
    pixels = masks[:, None].float()
    nearest = F.grid_sample(pixels, grid, mode="nearest", padding_mode="border", align_corners=False)
    return parts, nearest[:, 0].to(masks.dtype)


def recoloured(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Change each image's brightness, contrast and saturation by factors within 1 ± `most`."""
    factors = 1 + most * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    x = images.float() * brightness
    x = x.mean((1, 2, 3), keepdim=True).lerp(x, contrast)
    if x.shape[1] == 3:
        grey = (x * x.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)
        x = torch.lerp(grey, x, saturation)
    return x.clamp(0, 255)
