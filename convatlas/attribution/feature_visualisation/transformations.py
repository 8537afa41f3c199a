"""Random shifts, scales and rotations in each step, so that an image does not depend on exact pixels.

Olah, Mordvintsev and Schubert (Distill 2017) call this transformation robustness. As in Lucid
(optvis/transform.py) an image of 128 pixels is shifted by up to 4 pixels, scaled by 0.9 to 1.1, rotated by
up to 10 degrees and shifted by up to 2 pixels; shifts are in proportion to the size here. Beyond the border
the image is grey.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

GREY = 0.5
FIRST_SHIFT = 4 / 128  # of the shorter side
SECOND_SHIFT = 2 / 128
SCALES = (0.9, 1.1)
DEGREES = 10


def draw_transformations(generator: torch.Generator, steps: int, size: tuple[int, int]) -> Tensor:
    """Draw the transformations of an image in every step.

    Args:
        generator: The source of all randomness.
        steps: Number of steps.
        size: Height and width of the image in pixels.

    Returns:
        From coordinates of the result, (x, y, 1) in -1..1, to those of the image, (steps, 2, 3).
    """
    numbers = 2 * torch.rand(steps, 6, generator=generator) - 1  # uniform in -1..1
    angle = numbers[:, 0] * math.radians(DEGREES)
    low, high = SCALES
    zoom = 1 / (low + (high - low) * (numbers[:, 1] + 1) / 2)
    rotation = zoom[:, None, None] * torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1
    )
    pixels = min(size) * torch.cat([FIRST_SHIFT * numbers[:, 2:4], SECOND_SHIFT * numbers[:, 4:6]], 1)
    shift = pixels[:, :2] + (rotation @ pixels[:, 2:, None])[..., 0]
    half = torch.tensor([size[1], size[0]]) / 2  # pixels per unit of x and y
    return torch.cat([rotation * half / half[:, None], (shift / half)[..., None]], 2)


def transform_images(images: Tensor, transformations: Tensor) -> Tensor:
    """Transform images, each by its own transformation, with bilinear interpolation.

    Args:
        images: Images (N, C, H, W) in 0..1.
        transformations: One of each image, (N, 2, 3), as `draw_transformations` returns for each step.
    """
    grid = functional.affine_grid(transformations, list(images.shape), align_corners=False)
    return functional.grid_sample(images - GREY, grid, align_corners=False) + GREY
