"""Surroundings and camera."""

from functools import cache

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from skimage import data

from convatlas.datasets.synthetic_pets.animal import BREEDS, Generator
from convatlas.datasets.synthetic_pets.coat import cloud_noise, parse_colour, stroke_noise


@cache
def _load_backgrounds() -> tuple[list[Image.Image], list[Image.Image]]:
    """Colour photographs and grey textures that scikit-image ships (its cat is left out), and hair."""
    colour = (data.astronaut, data.coffee, data.rocket, data.retina, data.immunohistochemistry)
    grey = (data.brick, data.grass, data.gravel, data.camera, data.moon, data.coins, data.page, data.cell)
    photographs = [read() for read in (*colour, data.hubble_deep_field)] + [data.stereo_motorcycle()[0]]
    textures = [read() for read in grey] + list(
        (128 + 50 * stroke_noise()[::4]).clip(0, 255).astype(np.uint8)
    )
    return [Image.fromarray(a) for a in photographs], [Image.fromarray(a) for a in textures]


def _choose_tint(rng: Generator) -> np.ndarray:
    """The colour of some coat, lest colour give the animal away, or a muted other."""
    breeds = list(BREEDS.values())
    colour = parse_colour(breeds[rng.integers(len(breeds))].colours[rng.integers(3)]) * rng.normal(1, 0.05, 3)
    return colour if rng.random() < 0.65 else colour.mean() + rng.uniform(-35, 35, 3)


def _draw_background(size: np.ndarray, rng: Generator) -> Image.Image:
    """A cut-out of a photograph or a tinted texture, perhaps out of focus."""
    tinted = rng.random() < 0.7
    shelf = _load_backgrounds()[tinted]
    source = shelf[rng.integers(len(shelf))]
    cut = size * min(rng.uniform(0.3, 1.6), *(np.array(source.size) / size * 0.999))
    corner = rng.random(2) * (np.array(source.size) - cut)
    image = source.resize(size.tolist(), Image.Resampling.BILINEAR, (*corner, *(corner + cut)))
    if tinted:
        dark, bright = _choose_tint(rng) * rng.uniform(0.3, 0.95), _choose_tint(rng) * rng.uniform(0.7, 1.2)
        grey = np.asarray(image, np.float32)[..., None] / 255
        image = _to_image(np.float32(dark) + np.float32(bright - dark) * grey)
    else:
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.2, 0.8))
    return image.filter(ImageFilter.BoxBlur(float(rng.choice([0, 0, 1, 2, 4]))))


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_scenery(size: np.ndarray, feet: int, rng: Generator) -> Image.Image:
    """A wall, perhaps a floor that starts above the feet's row, and things that stand around."""
    scene = _draw_background(size, rng)
    if rng.random() < 0.7:
        w, h = size.tolist()
        horizon = int(np.clip(feet - rng.uniform(0.05, 0.5) * h, 20, h - 20))
        inset = rng.uniform(0.1, 0.35) * w
        near = (0, 0, inset, h, w - inset, h, w, 0)  # the nearer, the larger
        scene.paste(
            _draw_background(size, rng).transform((w, h - horizon), Image.Transform.QUAD, near), (0, horizon)
        )
    for _ in range(rng.integers(0, 2)):
        _draw_object(scene, size, rng)
    return scene


def _draw_object(scene: Image.Image, size: np.ndarray, rng: Generator) -> None:
    """A cushion, box or bush, shaded like a bulge."""
    half, centre, power = rng.uniform(0.1, 0.35, 2) * size, rng.random(2) * size, int(rng.choice([2, 3, 6]))
    x = (np.arange(size[0], dtype=np.float32) - centre[0]) / half[0]
    y = (np.arange(size[1], dtype=np.float32)[:, None] - centre[1]) / half[1]
    bulge = np.abs(x) ** power + np.abs(y) ** power
    bulge = bulge + rng.choice([0, 0.1, 0.2]) * cloud_noise(40)[: size[1], : size[0]]
    shade = np.clip(1.1 - 0.25 * bulge - 0.2 * y + rng.uniform(-0.3, 0.3) * x, 0.2, 1.4)
    filling = _to_image(np.asarray(_draw_background(size, rng)) * shade[..., None])
    scene.paste(filling, (0, 0), _to_image(255 * (1 - bulge) * half.min() / power))


def compose(pet: Image.Image, scene: Image.Image, rng: Generator) -> Image.Image:
    """Lay a premultiplied RGBA animal over a scene, with the shadows that it casts."""
    alpha = pet.getchannel(3)
    left, top, right, bottom = alpha.getbbox()
    flat = alpha.crop((left, top, right, bottom)).resize((right - left, (bottom - top) // 4 + 1))
    ground = Image.new("L", pet.size)
    ground.paste(flat, (left + int(rng.normal(0, 6)), bottom - flat.height * 2 // 3))
    below = np.asarray(ground.filter(ImageFilter.BoxBlur(6)), np.float32)
    behind = np.asarray(alpha.filter(ImageFilter.BoxBlur(7)), np.float32)
    shadow = 1 - 0.55 * np.maximum(below, 0.4 * behind) / 255
    rgba = np.asarray(pet, np.float32)
    bare = (shadow * (1 - rgba[..., 3] / 255))[..., None]
    return _to_image(np.asarray(scene) * bare + rgba[..., :3])


def simulate_camera(image: Image.Image, rng: Generator) -> Image.Image:
    """Add what a camera adds: softness, white balance, exposure, grain."""
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    warmth = rng.normal(0, 0.05)
    pixels = np.asarray(image) * np.float32([1 + warmth, 1, 1 - warmth]) * np.float32(rng.uniform(0.85, 1.25))
    grain = np.float32(rng.uniform(1.5, 7.5))
    return _to_image(pixels + grain * rng.standard_normal(pixels.shape, np.float32))
