"""The rendered pet: its surface with fur, light and outline."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from convatlas.datasets.synthetic_pets.breeds import EAR, HEAD, NOSE, Breed
from convatlas.datasets.synthetic_pets.fur import paint_face, paint_fur, stroke_noise
from convatlas.datasets.synthetic_pets.skeleton import Animal, Generator
from convatlas.datasets.synthetic_pets.surface import SurfacePixels, find_surface_pixels, render_surface


def render_animal(
    animal: Animal, breed: Breed, shape: np.ndarray, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw an animal without a background.

    Args:
        animal: The animal, in pixels.
        breed: Its breed.
        shape: Height and width in pixels (2,).
        rng: Draws fur and light.

    Returns:
        Premultiplied RGBA (H, W, 4) uint8, and the positions (x, y) of the pixels of the head (M, 2).
    """
    height, width = shape.tolist()
    outside, depth, owner = render_surface(animal, (height, width))
    fur = breed.fur_length * animal.scale
    skin = find_surface_pixels(animal, outside, depth, owner, fur)
    colour = paint_fur(skin, breed, rng)
    paint_face(colour, skin, breed, rng)
    colour *= _compute_brightness(skin, depth, animal.scale, breed.fur_length, rng)[:, None]
    coverage = _compute_coverage(skin, outside, fur)
    drawing = np.zeros((*outside.shape, 4), np.uint8)
    drawing[skin.rows, skin.columns, :3] = colour.clip(0, 255) * coverage[:, None]
    drawing[skin.rows, skin.columns, 3] = 255 * coverage
    on_head = np.isin(skin.zone, (HEAD, EAR, NOSE)) & (coverage > 0.5)
    return drawing, np.column_stack([skin.columns[on_head], skin.rows[on_head]])


def _sample_hair(skin: SurfacePixels, direction: np.ndarray) -> np.ndarray:
    """Return noise (N,) of strokes along directions (N, 2); 0 on nose and tongue."""
    angle = np.round(np.arctan2(direction[:, 1], direction[:, 0]) * (16 / np.pi)).astype(np.int32) % 16
    hair: np.ndarray = stroke_noise()[angle, skin.rows & 255, skin.columns & 255] * (skin.zone < NOSE)
    return hair


def _compute_gradient(skin: SurfacePixels, field: np.ndarray) -> np.ndarray:
    """Return the gradient (N, 2) of a field (H, W), to the right and down."""
    down, right = np.gradient(field)
    return np.column_stack([right[skin.rows, skin.columns], down[skin.rows, skin.columns]])


def _compute_brightness(
    skin: SurfacePixels, depth: np.ndarray, scale: float, fur: float, rng: Generator
) -> np.ndarray:
    """Return the brightness (N,) under a lamp and the sky, with ambient occlusion and the relief of hair."""
    normal = np.pad(-_compute_gradient(skin, depth).clip(-2, 2), ((0, 0), (0, 1)), constant_values=1)
    normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None]
    lamp = np.array([rng.uniform(-0.9, 0.9), rng.uniform(-1, -0.3), rng.uniform(0.5, 1)], np.float32)
    direct = np.clip(0.25 + 0.75 * normal @ (lamp / np.linalg.norm(lamp)), 0, 1)
    coarse = Image.fromarray(np.maximum(depth, depth.max() - np.float32(4 * scale))).reduce(4)
    blurred = Image.fromarray(ndimage.gaussian_filter(np.asarray(coarse), 0.075 * scale))
    surroundings = np.asarray(blurred.resize(depth.shape[::-1], Image.Resampling.BILINEAR))
    occlusion = np.clip((surroundings - depth)[skin.rows, skin.columns] / scale, 0, 0.8)  # they are nearer
    contrast = rng.uniform(0.6, 0.9)
    brightness = 1.12 - 0.62 * contrast + contrast * (direct - 0.3) - 0.12 * normal[:, 1] - 0.6 * occlusion
    relief = 1 + (0.03 + 0.6 * fur) * _sample_hair(skin, skin.hair_direction)
    shaded: np.ndarray = np.clip(brightness, 0.2, 1.6) * relief
    return shaded


def _compute_coverage(skin: SurfacePixels, outside: np.ndarray, fur: float) -> np.ndarray:
    """Return how much of each pixel is covered (N,): tips of hair fray the outline."""
    direction = skin.hair_direction / (np.linalg.norm(skin.hair_direction, axis=1, keepdims=True) + 1e-3)
    hair = _sample_hair(skin, _compute_gradient(skin, outside) + 0.6 * direction)
    fringe = outside[skin.rows, skin.columns] + 0.4 * fur * np.clip(hair, -1.5, 1.5)
    coverage: np.ndarray = np.clip(0.5 - fringe / 1.5, 0, 1)
    return coverage


def draw_whiskers(image: Image.Image, animal: Animal, fine: float, rng: Generator) -> Image.Image:
    """Return an image with whiskers on the visible sides of the face.

    Args:
        image: The image.
        animal: The animal, in pixels of the supersampled drawing.
        fine: The factor of the supersampling.
        rng: Draws their lengths.
    """
    layer = Image.new("L", (image.width * 4, image.height * 4))
    t = np.linspace(0, 1, 7)[:, None]
    for mirror in (-1, 1):
        if (animal.head_rotation @ np.array([mirror * 0.6, 0, 0.8]))[2] < 0.05:
            continue
        for rise in (-0.28, -0.12, 0.05, 0.2):
            start = np.array([mirror * 0.25, -0.36 + 0.15 * rise, 0.92])
            end = np.array([mirror * rng.uniform(1.2, 1.6), -0.45 + 1.3 * rise, 0.7])
            curve = start + t * (end - start) + 2 * t * (1 - t) * (0, 0.18, 0.1)
            path = (curve @ animal.head_rotation.T * animal.scale + animal.head_centre)[:, :2] * 4 / fine
            ImageDraw.Draw(layer).line(path.ravel().tolist(), fill=190, width=2)
    return Image.composite(Image.new("RGB", image.size, "#f4f0ea"), image, layer.reduce(4))
