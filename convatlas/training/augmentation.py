"""Random changes of training images, each one's own, its mask changed alike."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas.datasets.formats import IGNORE_INDEX

LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # what red, green and blue add to brightness (ITU-R BT.601)


def augment(
    images: Tensor, masks: Tensor | None, settings: dict[str, Any], size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Change images (N, C, H, W) of 0..255 and masks (N, H, W), if any, as the config's `training` says.

    What is framed comes to size × size; for its parts to be as sharp as whole images, it is given larger.
    """
    if (settings["crop"], settings["scale"], settings["stretch"], settings["rotate"]) != (1, 1, 0, 0):
        images, masks = random_affine(images, settings, size, generator, masks)
    images, masks = random_shift(images, settings["shift"], generator, masks)
    if settings["flip"]:
        images, masks = random_horizontal_flip(images, generator, masks)
    if settings["colour"]:
        images = colour_jitter(images, settings["colour"], generator)
    return images, masks


def resize_masks(masks: Tensor, size: int) -> Tensor:
    """Bring masks (N, H, W) to size × size: the nearest pixels, as is right for classes."""
    nearest = F.interpolate(masks[:, None].float(), (size, size), mode="nearest-exact")
    return nearest[:, 0].to(masks.dtype)


def random_shift(
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
    return moved, None if masks is None else F.pad(masks, [most] * 4, value=IGNORE_INDEX)[each, rows, columns]


def random_horizontal_flip(
    images: Tensor, generator: torch.Generator, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Mirror about half of the images, left to right."""
    chosen = torch.randint(2, (len(images), 1, 1, 1), generator=generator).to(images.device).bool()
    mirrored = None if masks is None else torch.where(chosen[:, 0], masks.flip(2), masks)
    return torch.where(chosen, images.flip(3), images), mirrored


def random_affine(
    images: Tensor,
    settings: dict[str, Any],
    size: int,
    generator: torch.Generator,
    masks: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Show each image in a frame of its own, size × size, mirrored where that reaches beyond its edges.

    A frame's side is between `crop` and `scale` of the image's; as far as `stretch` allows it is wider than
    high or higher than wide, and turned by up to `rotate` degrees either way. A frame that is smaller than the
    image lies within it, a larger one around it, but for its turn. Images are interpolated, to float; a
    mask's pixels are their nearest.
    """
    n = len(images)
    side, x, y, wide, angle = torch.rand(5, n, generator=generator)
    side = settings["crop"] + (settings["scale"] - settings["crop"]) * side
    ratio = (1 + settings["stretch"]) ** (wide - 0.5)
    width, height = side * ratio, side / ratio
    # In affine_grid's terms, in which the image reaches from -1 to 1: the frame's sides and its middle.
    angle = math.radians(settings["rotate"]) * (2 * angle - 1)
    across, down = (1 - width).abs() * (2 * x - 1), (1 - height).abs() * (2 * y - 1)
    theta = torch.stack(
        [
            torch.stack([width * angle.cos(), -height * angle.sin(), across]),
            torch.stack([width * angle.sin(), height * angle.cos(), down]),
        ]
    )
    grid = F.affine_grid(theta.permute(2, 0, 1).to(images.device), [n, 1, size, size], align_corners=False)
    shown = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    if masks is None:
        return shown, None
    pixels = masks[:, None].float()
    nearest = F.grid_sample(pixels, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return shown, nearest[:, 0].to(masks.dtype)


def colour_jitter(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Change each image's brightness, contrast and saturation by factors within 1 ± `most`."""
    factors = 1 + most * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    x = images.float() * brightness
    x = x.mean((1, 2, 3), keepdim=True).lerp(x, contrast)
    if x.shape[1] == 3:
        grey = (x * x.new_tensor(LUMA_WEIGHTS)[:, None, None]).sum(1, keepdim=True)
        x = torch.lerp(grey, x, saturation)
    return x.clamp(0, 255)
