"""What surrounds a pet, and the camera: backgrounds, objects, shadows, exposure and grain."""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from skimage import data

from convatlas.datasets.synthetic_pets.breeds import BREEDS
from convatlas.datasets.synthetic_pets.fur import cloud_noise, parse_colour, stroke_noise
from convatlas.datasets.synthetic_pets.skeleton import Generator

# Functions of skimage.data
PHOTOGRAPHS = ("astronaut", "coffee", "rocket", "retina", "immunohistochemistry", "hubble_deep_field")
TEXTURES = ("brick", "grass", "gravel", "camera", "moon", "coins", "page", "cell")


def _read_background(name: str) -> Any:
    """Read an image that scikit-image ships, or a pair of images."""
    return getattr(data, name)()


@cache
def _load_backgrounds() -> tuple[list[Image.Image], list[Image.Image]]:
    """Return colour photographs (without the cat) and grey textures that scikit-image ships, and hair."""
    photographs = [_read_background(name) for name in PHOTOGRAPHS] + [
        _read_background("stereo_motorcycle")[0]
    ]
    textures = [_read_background(name) for name in TEXTURES]
    textures += list((128 + 50 * stroke_noise()[::4]).clip(0, 255).astype(np.uint8))
    return [Image.fromarray(a) for a in photographs], [Image.fromarray(a) for a in textures]


def _choose_tint(rng: Generator) -> np.ndarray:
    """Choose the colour of some breed's fur, so that colour does not give the pet away, or a muted one."""
    breeds = list(BREEDS.values())
    colour = parse_colour(breeds[rng.integers(len(breeds))].colours[rng.integers(3)]) * rng.normal(1, 0.05, 3)
    return colour if rng.random() < 0.65 else colour.mean() + rng.uniform(-35, 35, 3)


def _draw_background(size: np.ndarray, rng: Generator) -> Image.Image:
    """Return a part of a photograph or a tinted texture, perhaps out of focus."""
    tinted = rng.random() < 0.7
    photographs, textures = _load_backgrounds()
    sources = textures if tinted else photographs
    source = sources[rng.integers(len(sources))]
    crop_size = size * min(rng.uniform(0.3, 1.6), *(np.array(source.size) / size * 0.999))
    corner = rng.random(2) * (np.array(source.size) - crop_size)
    image = source.resize(size.tolist(), Image.Resampling.BILINEAR, (*corner, *(corner + crop_size)))
    if tinted:
        dark, bright = _choose_tint(rng) * rng.uniform(0.3, 0.95), _choose_tint(rng) * rng.uniform(0.7, 1.2)
        grey = np.asarray(image, np.float32)[..., None] / 255
        image = _to_image(dark.astype(np.float32) + (bright - dark).astype(np.float32) * grey)
    else:
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.2, 0.8))
    return image.filter(ImageFilter.BoxBlur(float(rng.choice([0, 0, 1, 2, 4]))))


def _to_image(pixels: np.ndarray) -> Image.Image:
    """Return pixel values from 0 to 255 as an image."""
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_scenery(size: np.ndarray, feet: int, rng: Generator) -> Image.Image:
    """Draw a wall, perhaps a floor, and perhaps an object.

    Args:
        size: Width and height in pixels.
        feet: The row of the pet's feet; the floor begins above it.
        rng: Draws everything.
    """
    scene = _draw_background(size, rng)
    if rng.random() < 0.7:
        w, h = size.tolist()
        horizon = int(np.clip(feet - rng.uniform(0.05, 0.5) * h, 20, h - 20))
        inset = rng.uniform(0.1, 0.35) * w
        corners = (0, 0, inset, h, w - inset, h, w, 0)  # of a perspective: larger where it is nearer
        floor = _draw_background(size, rng).transform((w, h - horizon), Image.Transform.QUAD, corners)
        scene.paste(floor, (0, horizon))
    for _ in range(rng.integers(0, 2)):
        _draw_object(scene, size, rng)
    return scene


def _draw_object(scene: Image.Image, size: np.ndarray, rng: Generator) -> None:
    """Draw a cushion, box or bush into the scene, shaded like a bulge."""
    half, centre, power = rng.uniform(0.1, 0.35, 2) * size, rng.random(2) * size, int(rng.choice([2, 3, 6]))
    x = (np.arange(size[0], dtype=np.float32) - centre[0]) / half[0]
    y = (np.arange(size[1], dtype=np.float32)[:, None] - centre[1]) / half[1]
    bulge = np.abs(x) ** power + np.abs(y) ** power
    bulge = bulge + rng.choice([0, 0.1, 0.2]) * cloud_noise(40)[: size[1], : size[0]]
    shade = np.clip(1.1 - 0.25 * bulge - 0.2 * y + rng.uniform(-0.3, 0.3) * x, 0.2, 1.4)
    filling = _to_image(np.asarray(_draw_background(size, rng)) * shade[..., None])
    scene.paste(filling, (0, 0), _to_image(255 * (1 - bulge) * half.min() / power))


def compose(pet: Image.Image, scene: Image.Image, rng: Generator) -> Image.Image:
    """Return a scene with a pet and the shadows that it casts.

    Args:
        pet: Premultiplied RGBA, with at least one visible pixel.
        scene: RGB of the same size.
        rng: Draws the direction of the shadow.
    """
    alpha = pet.getchannel(3)
    box = alpha.getbbox()
    assert box is not None
    left, top, right, bottom = box
    flat = alpha.crop((left, top, right, bottom)).resize((right - left, (bottom - top) // 4 + 1))
    ground = Image.new("L", pet.size)
    ground.paste(flat, (left + int(rng.normal(0, 6)), bottom - flat.height * 2 // 3))
    below = np.asarray(ground.filter(ImageFilter.BoxBlur(6)), np.float32)
    behind = np.asarray(alpha.filter(ImageFilter.BoxBlur(7)), np.float32)
    shadow = 1 - 0.55 * np.maximum(below, 0.4 * behind) / 255
    rgba = np.asarray(pet, np.float32)
    scene_weight = (shadow * (1 - rgba[..., 3] / 255))[..., None]
    return _to_image(np.asarray(scene) * scene_weight + rgba[..., :3])


def simulate_camera(image: Image.Image, rng: Generator) -> Image.Image:
    """Return an image with the softness, white balance, exposure and grain of a camera.

    Args:
        image: The scene, RGB.
        rng: Draws the strength of each effect, and the grain.
    """
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    warmth = rng.normal(0, 0.05)
    white_balance = np.array([1 + warmth, 1, 1 - warmth], np.float32)
    pixels = np.asarray(image) * white_balance * np.float32(rng.uniform(0.85, 1.25))
    grain = np.float32(rng.uniform(1.5, 7.5))
    return _to_image(pixels + grain * rng.standard_normal(pixels.shape, np.float32))
