"""Random changes of training images, drawn for each image; masks change with their images."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas.datasets.base import IGNORE_INDEX
from convatlas.image_io import Size

# Weights of red, green and blue in luma (ITU-R BT.601).
LUMA_WEIGHTS = (0.299, 0.587, 0.114)


def augment(
    images: Tensor,
    masks: Tensor | None,
    settings: Mapping[str, Any],
    size: Size,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor | None]:
    """Change a batch of images at random, and their masks alike.

    Args:
        images: Pixels (N, C, H, W) in 0..255.
        masks: Masks (N, H, W), uint8, or None.
        settings: The config's `training`: crop, scale, stretch, rotate, shift, flip and colour.
        size: Height and width (H, W) of cropped, scaled, stretched or rotated images; larger `images` keep
            them sharp.
        generator: What all changes are drawn from.

    Returns:
        The images (N, C, H, W), or of their own size where none of the first four changes is set, and
        the masks of the same size.
    """
    if (settings["crop"], settings["scale"], settings["stretch"], settings["rotate"]) != (1, 1, 0, 0):
        images, masks = random_affine(images, settings, size, generator, masks)
    images, masks = random_shift(images, settings["shift"], generator, masks)
    if settings["flip"]:
        images, masks = random_horizontal_flip(images, generator, masks)
    if settings["colour"]:
        images = colour_jitter(images, settings["colour"], generator)
    return images, masks


def resize_masks(masks: Tensor, size: Size) -> Tensor:
    """Resize masks by nearest-neighbour interpolation, which keeps classes.

    Args:
        masks: Masks (N, H, W), uint8.
        size: Height and width (H, W) of the result.
    """
    resized = F.interpolate(masks[:, None].float(), size, mode="nearest-exact")
    return resized[:, 0].to(masks.dtype)


def random_shift(
    images: Tensor, max_shift: int, generator: torch.Generator, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Shift each image by up to `max_shift` pixels along both axes.

    Pixels from outside the image are zeros, and IGNORE_INDEX in masks.

    Args:
        images: Pixels (N, C, H, W).
        max_shift: Pixels.
        generator: What the shifts are drawn from.
        masks: Masks (N, H, W), or None.
    """
    if not max_shift:
        return images, masks
    n, _, height, width = images.shape
    top, left = torch.randint(2 * max_shift + 1, (2, n, 1), generator=generator).to(images.device)
    rows = (top + torch.arange(height, device=images.device))[:, :, None]
    columns = (left + torch.arange(width, device=images.device))[:, None, :]
    batch = torch.arange(n, device=images.device)[:, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    padding = [max_shift] * 4
    shifted = F.pad(images, padding)[batch[:, None], channels, rows[:, None], columns[:, None]]
    if masks is None:
        return shifted, None
    return shifted, F.pad(masks, padding, value=IGNORE_INDEX)[batch, rows, columns]


def random_horizontal_flip(
    images: Tensor, generator: torch.Generator, masks: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Flip each image horizontally with probability 0.5.

    Args:
        images: Pixels (N, C, H, W).
        generator: What the choice is drawn from.
        masks: Masks (N, H, W), or None.
    """
    is_flipped = torch.randint(2, (len(images), 1, 1, 1), generator=generator).to(images.device).bool()
    flipped_masks = None if masks is None else torch.where(is_flipped[:, 0], masks.flip(2), masks)
    return torch.where(is_flipped, images.flip(3), images), flipped_masks


def random_affine(
    images: Tensor,
    settings: Mapping[str, Any],
    size: Size,
    generator: torch.Generator,
    masks: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Show a random frame of each image, with reflection beyond the image's edges.

    A frame's sides are between `crop` and `scale` times the image's; its aspect ratio is changed by up to a
    factor of 1 + `stretch`, and it is rotated by up to `rotate` degrees. Rotation aside, a frame smaller than
    the image lies within it, and a larger one around it.

    Args:
        images: Pixels (N, C, H, W).
        settings: The config's `training`: crop, scale, stretch and rotate.
        size: Height and width (H, W) of the result.
        generator: What the frames are drawn from.
        masks: Masks (N, H, W), or None.

    Returns:
        The images (N, C, H, W), float32, bilinearly interpolated, and the masks (N, H, W), each
        pixel the nearest one.
    """
    n = len(images)
    side, x, y, aspect, angle = torch.rand(5, n, generator=generator)
    side = settings["crop"] + (settings["scale"] - settings["crop"]) * side
    ratio = (1 + settings["stretch"]) ** (aspect - 0.5)
    width, height = side * ratio, side / ratio
    angle = math.radians(settings["rotate"]) * (2 * angle - 1)
    # The frame's centre in the coordinates of affine_grid, in which the image reaches from -1 to 1.
    centre_x, centre_y = (1 - width).abs() * (2 * x - 1), (1 - height).abs() * (2 * y - 1)
    # Of an image that is no square they are not pixels: what a rotation brings to the other axis is scaled.
    aspect_ratio = images.shape[3] / images.shape[2]
    theta = torch.stack(
        [
            torch.stack([width * angle.cos(), -height * angle.sin() / aspect_ratio, centre_x]),
            torch.stack([width * angle.sin() * aspect_ratio, height * angle.cos(), centre_y]),
        ]
    )
    grid = F.affine_grid(theta.permute(2, 0, 1).to(images.device), [n, 1, *size], align_corners=False)
    framed: Tensor = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    if masks is None:
        return framed, None
    pixels = masks[:, None].float()
    nearest = F.grid_sample(pixels, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return framed, nearest[:, 0].to(masks.dtype)


def colour_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change each image's brightness, contrast and saturation by random factors in 1 ± `strength`.

    Args:
        images: Pixels (N, C, H, W) in 0..255; saturation changes only with three channels.
        strength: Largest difference of a factor from 1.
        generator: What the factors are drawn from.

    Returns:
        The images (N, C, H, W) in 0..255, float32.
    """
    factors = 1 + strength * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    x: Tensor = images.float() * brightness
    x = x.mean((1, 2, 3), keepdim=True).lerp(x, contrast)
    if x.shape[1] == 3:
        grey = (x * x.new_tensor(LUMA_WEIGHTS)[:, None, None]).sum(1, keepdim=True)
        x = torch.lerp(grey, x, saturation)
    return x.clamp(0, 255)
