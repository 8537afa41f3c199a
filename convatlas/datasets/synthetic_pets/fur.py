"""The fur and the face: the unlit colour of each visible pixel."""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import ImageColor

from convatlas.datasets.synthetic_pets.breeds import (
    BODY,
    EAR,
    EYES,
    HEAD,
    LEG,
    NOSE,
    TAIL,
    TONGUE,
    Breed,
)
from convatlas.datasets.synthetic_pets.skeleton import Generator
from convatlas.datasets.synthetic_pets.surface import SurfacePixels

Cover = tuple[np.ndarray, np.ndarray]  # how far the pattern and the light parts cover the ground, (N,) each


def parse_colour(colour: str) -> np.ndarray:
    """Return a colour as RGB (3,) float32 from 0 to 255.

    Args:
        colour: Hexadecimal digits, such as "#cf9050".
    """
    return np.array(ImageColor.getrgb(colour), np.float32)


def _smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    values: np.ndarray = t * t * (3 - 2 * t)
    return values


@cache
def cloud_noise(wavelength: float) -> np.ndarray:
    """Return smooth periodic noise (256, 256) float32 of mean 0 and unit variance, always the same.

    White noise is filtered by a Gaussian: its spectrum is multiplied by exp(-2 (f × wavelength)²) at the
    frequency f.

    Args:
        wavelength: Size of the clouds in pixels.
    """
    spectrum = np.fft.fft2(np.random.default_rng(1).normal(size=(256, 256)))
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    noise = np.fft.ifft2(spectrum * np.exp(-2 * (frequency * wavelength) ** 2)).real
    normalized: np.ndarray = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return normalized


@cache
def stroke_noise() -> np.ndarray:
    """Return periodic noise of strokes at 16 angles from 0 to π: (16, 256, 256) float32 of unit variance."""
    spectrum = np.fft.fft2(np.random.default_rng(2).normal(size=(256, 256)))
    angle = np.arange(16)[:, None, None] * np.pi / 16
    fy, fx = np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    strokes = np.fft.ifft2(spectrum * np.exp(-2 * ((along * 16) ** 2 + (across * 3.5) ** 2))).real
    deviation = strokes.std(axis=(1, 2), keepdims=True)
    normalized: np.ndarray = ((strokes - strokes.mean()) / deviation).astype(np.float32)
    return normalized


def _sample_noise(skin: SurfacePixels, wavelength: float, rng: Generator) -> np.ndarray:
    """Return noise (N,) fixed to the body; the wavelength is in fortieths of the head's radius."""
    position = np.where((skin.zone >= HEAD)[:, None], skin.head_coordinates, skin.body_coordinates) * 40
    x = position[:, 2] * 0.8 + position[:, 0] * 0.75 + rng.integers(256)
    y = position[:, 1] + position[:, 0] * 0.3 + rng.integers(256)
    noise: np.ndarray = cloud_noise(wavelength)[y.astype(np.int32) & 255, x.astype(np.int32) & 255]
    return noise


def _belly_mask(skin: SurfacePixels, noise: np.ndarray, edge: float) -> np.ndarray:
    """Cover the belly."""
    mask: np.ndarray = _smoothstep(-skin.dorsal + 0.12 * noise, edge, edge + 0.2) * (skin.zone == BODY)
    return mask


def _socks_mask(skin: SurfacePixels, noise: np.ndarray, edge: float) -> np.ndarray:
    """Cover the ends of the legs."""
    mask: np.ndarray = _smoothstep(skin.chain_fraction + 0.05 * noise, edge, edge + 0.12) * (skin.zone == LEG)
    return mask


def _muzzle_mask(skin: SurfacePixels, noise: np.ndarray, width: float) -> np.ndarray:
    """Cover the lower face, narrowing to a blaze between the eyes."""
    u, v, w = skin.head_coordinates.T
    inside = width - 0.55 * np.maximum(v + 0.1, -0.6) - np.abs(u) + 0.04 * noise
    on_face: np.ndarray = _smoothstep(inside, 0, 0.12) * _smoothstep(w, 0.15, 0.45) * (skin.zone == HEAD)
    return on_face


def _solid(skin: SurfacePixels, rng: Generator) -> Cover:
    """One colour, darker in clouds."""
    noise = _sample_noise(skin, 40, rng)
    light = 0.6 * _belly_mask(skin, noise, 0.2) + 0.4 * _muzzle_mask(skin, noise, 0.1)
    return 0.6 * _smoothstep(noise, 0, 2), light


def _tabby(skin: SurfacePixels, rng: Generator) -> Cover:
    """Stripes across the body, rings on legs and tail."""
    noise = _sample_noise(skin, 40, rng)
    u, v, _ = np.abs(skin.head_coordinates.T)
    trunk = np.sin(2 * np.pi * (1.6 * skin.chain_distance + 0.22 * noise)) * _smoothstep(skin.dorsal, -0.8, 0)
    rings = np.sin(2 * np.pi * (1.8 * skin.chain_distance + 0.1 * noise))
    brow = np.cos(2 * np.pi * u / 0.3 + 0.4 * noise) * _smoothstep(v, 0.25, 0.4)
    cheek = np.sin(2 * np.pi * (0.4 * u - v) / 0.36 + 0.5 * noise) * _smoothstep(u, 0.5, 0.65)
    head = np.where(skin.head_coordinates[:, 1] > 0.25, brow, cheek)
    stripes = np.select([skin.zone == BODY, skin.zone == HEAD, skin.zone == EAR], [trunk, head, -1], rings)
    light = 0.8 * _belly_mask(skin, noise, 0.35) + 0.9 * _muzzle_mask(skin, noise, -0.08)
    return _smoothstep(stripes, 0, 0.6), light


def _points(skin: SurfacePixels, rng: Generator) -> Cover:
    """Dark face, ears, feet and tail."""
    noise = _sample_noise(skin, 40, rng)
    nose = np.array((0, -0.1, 0.85), np.float32)
    nose_distance = np.linalg.norm(skin.head_coordinates - nose, axis=1) + 0.05 * noise
    mask = (1 - _smoothstep(nose_distance, 0.35, 0.8)) * (skin.zone == HEAD)
    ends = (skin.zone == EAR) | (skin.zone == TAIL)
    return mask + _socks_mask(skin, noise, 0.5) + ends, 0.5 * _belly_mask(skin, noise, 0.2)


def _tuxedo(skin: SurfacePixels, rng: Generator) -> Cover:
    """Light belly, feet, muzzle and tip of the tail."""
    noise = _sample_noise(skin, 40, rng)
    light = (
        _belly_mask(skin, noise, 0.25)
        + _socks_mask(skin, noise, 0.55)
        + _muzzle_mask(skin, noise, rng.uniform(0, 0.25))
    )
    tip = _smoothstep(skin.chain_fraction, 0.85, 0.9) * (skin.zone == TAIL)
    return 0.4 * _smoothstep(noise, 0, 2), light + tip


def _patches(skin: SurfacePixels, rng: Generator) -> Cover:
    """Patches of two colours."""
    first, second = _sample_noise(skin, 60, rng), _sample_noise(skin, 60, rng)
    bare = 1 - _muzzle_mask(skin, first, 0.05) - _belly_mask(skin, first, 0.4)
    return _smoothstep(first, 0.3, 0.4) * bare, _smoothstep(second, 0.6, 0.7) * bare


def _spots(skin: SurfacePixels, rng: Generator) -> Cover:
    """Spots."""
    noise, wide = _sample_noise(skin, 16, rng), _sample_noise(skin, 60, rng)
    spots = _smoothstep(noise, 0.75, 1.0) * (1 - _muzzle_mask(skin, wide, -0.1))
    spots = np.where(skin.zone == EAR, 0.8, spots)
    return spots, 0.9 * _muzzle_mask(skin, wide, -0.05) + 0.7 * _belly_mask(skin, wide, 0.4)


def _brindle(skin: SurfacePixels, rng: Generator) -> Cover:
    """Irregular dark stripes."""
    noise = _sample_noise(skin, 40, rng)
    fine_noise = _sample_noise(skin, 14, rng)
    stripes = np.sin(2 * np.pi * (4.5 * skin.chain_distance + 0.8 * noise)) + 0.9 * fine_noise
    light = (
        _belly_mask(skin, noise, 0.4)
        + _muzzle_mask(skin, noise, rng.uniform(0.1, 0.3))
        + _socks_mask(skin, noise, 0.75)
    )
    return 0.7 * _smoothstep(stripes, -0.4, 0.9), light


def _saddle(skin: SurfacePixels, rng: Generator) -> Cover:
    """Dark back, cap and ears."""
    noise = _sample_noise(skin, 40, rng)
    cap = _smoothstep(skin.head_coordinates[:, 1] + 0.05 * noise, 0.45, 0.65) * (skin.zone == HEAD)
    back = _smoothstep(skin.dorsal + 0.15 * noise, -0.1, 0.3) * ((skin.zone == BODY) | (skin.zone == TAIL))
    light = _belly_mask(skin, noise, 0.3) + _socks_mask(skin, noise, 0.25) + _muzzle_mask(skin, noise, 0.3)
    return cap + back + 0.8 * (skin.zone == EAR), light


def _tan(skin: SurfacePixels, rng: Generator) -> Cover:
    """Light brows, feet, belly and muzzle."""
    noise = _sample_noise(skin, 40, rng)
    u, v, w = skin.head_coordinates.T
    brow_distance = np.hypot(np.abs(u) - 0.28, v - 0.62)
    brows = (1 - _smoothstep(brow_distance, 0.09, 0.14)) * (w > 0) * (skin.zone == HEAD)
    light = (
        brows
        + _socks_mask(skin, noise, 0.4)
        + _belly_mask(skin, noise, 0.55)
        + _muzzle_mask(skin, noise, 0.3)
    )
    return 0.5 * _smoothstep(noise, 0, 2), light


FUR_PATTERNS: dict[str, Callable[[SurfacePixels, Generator], Cover]] = {
    "solid": _solid, "tabby": _tabby, "points": _points, "tuxedo": _tuxedo, "patches": _patches,
    "spots": _spots, "brindle": _brindle, "saddle": _saddle, "tan": _tan,
}  # fmt: skip


def paint_fur(skin: SurfacePixels, breed: Breed, rng: Generator) -> np.ndarray:
    """Return the unlit colour of each pixel, without the face.

    Args:
        skin: The visible pixels (N).
        breed: The breed.
        rng: Draws the variation within the breed.

    Returns:
        RGB (N, 3) float32 from 0 to 255.
    """
    tone = (rng.normal(1, 0.025, 3) * rng.uniform(0.85, 1.12)).astype(np.float32)
    ground, pattern, light = (parse_colour(colour) * tone for colour in breed.colours)
    pattern_cover, light_cover = (
        np.clip(cover, 0, 1).astype(np.float32)[:, None] for cover in FUR_PATTERNS[breed.pattern](skin, rng)
    )
    colour = ground + pattern_cover * (pattern - ground)
    colour += light_cover * (light - colour)
    if breed.ears in ("upright", "small", "tall", "pricked"):
        inner_ear = 0.75 * _smoothstep(skin.dorsal, 0.25, 0.7) * (skin.zone == EAR)
        colour += inner_ear.astype(np.float32)[:, None] * (parse_colour("#c99a8c") - colour)
    colour[skin.zone == NOSE] = parse_colour(breed.nose)
    colour[skin.zone == TONGUE] = parse_colour("#d9808a")
    if rng.random() < 0.3:  # a collar
        band = (skin.zone == BODY) & (np.abs(skin.chain_distance - rng.uniform(0.35, 0.45)) < 0.13)
        colour[band] = rng.uniform(20, 220, 3)
    return colour


def paint_face(colour: np.ndarray, skin: SurfacePixels, breed: Breed, rng: Generator) -> None:
    """Paint eyes and mouth into the colours of the skin.

    Args:
        colour: RGB (N, 3) float32 of the visible pixels, from 0 to 255; changed in place.
        skin: The visible pixels, N rows.
        breed: The species, and the colour of the eyes.
        rng: Draws how far the lids and pupils open, and the brightness of the eyes.
    """
    on_face = np.flatnonzero((skin.zone == HEAD) & (skin.head_coordinates[:, 2] > 0))
    face, (u, v, w) = colour[on_face], skin.head_coordinates[on_face].T
    is_cat, eye, dark = breed.species == "cat", EYES[breed.species], parse_colour("#171213")

    def paint(cover: np.ndarray, tint: np.ndarray) -> None:
        face[:] += np.asarray(cover, np.float32)[:, None] * (tint - face)

    side = np.arctan2(np.abs(u), w) - eye.side
    up = np.arctan2(v, np.hypot(u, w)) - eye.up - eye.slant * side
    lids = np.hypot(side / eye.width, up / (eye.height * rng.uniform(0.75, 1.05)))
    pupil = (
        np.hypot(side / (rng.uniform(0.12, 0.4) if is_cat else 0.5), up / (0.85 if is_cat else 0.5))
        / eye.height
    )
    glint = np.hypot(np.arctan2(u, w) - np.sign(u) * eye.side + 0.05, up - 0.06) / eye.height
    on_skull = u * u + v * v + w * w < 1.3
    paint((1 - _smoothstep(lids, 1.15, 1.4)) * on_skull, dark)
    inside = (1 - _smoothstep(lids, 0.92, 1.05)) * on_skull
    if not is_cat:  # the white beside a dog's round iris
        paint(inside, parse_colour("#7a6a60"))
        inside = inside * (1 - _smoothstep(np.hypot(side, up) / eye.height, 0.85, 1.0))
    paint(inside, parse_colour(breed.eyes) * np.float32(rng.uniform(0.85, 1.15)))
    paint(inside * (1 - _smoothstep(pupil, 0.85, 1.05)), dark * 0.4)
    paint(inside * (1 - _smoothstep(glint, 0.2, 0.32)), parse_colour("#ffffff"))
    if is_cat:
        mouth = (np.abs(u) < 0.33) & (np.abs(v + 0.47 + 0.12 * np.sin(np.abs(u) * 9)) < 0.035)
        mouth = (mouth | ((np.abs(u) < 0.03) & (np.abs(v + 0.38) < 0.09))) & (w > 0.55)
    else:
        mouth = (np.abs(v + 0.56) < 0.04) & (np.abs(u) < 0.5) & (w > 0.5)
        mouth |= (np.abs(u) < 0.03) & (np.abs(v + 0.42) < 0.13) & (w > 0.9)
    paint(0.75 * mouth, dark)
    colour[on_face] = face
