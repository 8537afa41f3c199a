"""The coat and the face. A coat gives how far its pattern and its light parts cover the ground: (N,) each."""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import ImageColor

from convatlas.datasets.synthetic_pets.animal import (
    BODY,
    EAR,
    EYES,
    HEAD,
    LEG,
    NOSE,
    TAIL,
    TONGUE,
    Breed,
    Random,
)
from convatlas.datasets.synthetic_pets.surface import Skin


def rgb_of(colour: str) -> np.ndarray:
    return np.array(ImageColor.getrgb(colour), np.float32)


def _step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@cache
def cloud_noise(wavelength: float) -> np.ndarray:
    """Smooth noise that tiles, (256, 256), of unit variance."""
    spectrum = np.fft.fft2(np.random.default_rng(1).normal(size=(256, 256)))
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    noise = np.fft.ifft2(spectrum * np.exp(-2 * (frequency * wavelength) ** 2)).real
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


@cache
def stroke_noise() -> np.ndarray:
    """Hair that tiles, at 16 angles from 0 to π: (16, 256, 256), of unit variance."""
    spectrum = np.fft.fft2(np.random.default_rng(2).normal(size=(256, 256)))
    angle = np.arange(16)[:, None, None] * np.pi / 16
    fy, fx = np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    hair = np.fft.ifft2(spectrum * np.exp(-2 * ((along * 16) ** 2 + (across * 3.5) ** 2))).real
    return ((hair - hair.mean()) / hair.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def _noise(skin: Skin, wavelength: float, rng: Random) -> np.ndarray:
    """Noise (N,) that clings to the skin; the wavelength counts in fortieths of the head's radius."""
    place = np.where((skin.zone >= HEAD)[:, None], skin.head, skin.body) * 40
    x = place[:, 2] * 0.8 + place[:, 0] * 0.75 + rng.integers(256)
    y = place[:, 1] + place[:, 0] * 0.3 + rng.integers(256)
    return cloud_noise(wavelength)[y.astype(np.int32) & 255, x.astype(np.int32) & 255]


def _belly(skin: Skin, noise: np.ndarray, edge: float) -> np.ndarray:
    return _step(-skin.dorsal + 0.12 * noise, edge, edge + 0.2) * (skin.zone == BODY)


def _socks(skin: Skin, noise: np.ndarray, edge: float) -> np.ndarray:
    return _step(skin.tip + 0.05 * noise, edge, edge + 0.12) * (skin.zone == LEG)


def _muzzle(skin: Skin, noise: np.ndarray, width: float) -> np.ndarray:
    """The lower face, narrowing to a blaze between the eyes."""
    u, v, w = skin.head.T
    inside = width - 0.55 * np.maximum(v + 0.1, -0.6) - np.abs(u) + 0.04 * noise
    return _step(inside, 0, 0.12) * _step(w, 0.15, 0.45) * (skin.zone == HEAD)


def _solid(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    noise = _noise(skin, 40, rng)
    return 0.6 * _step(noise, 0, 2), 0.6 * _belly(skin, noise, 0.2) + 0.4 * _muzzle(skin, noise, 0.1)


def _tabby(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    noise = _noise(skin, 40, rng)
    u, v, _ = np.abs(skin.head.T)
    trunk = np.sin(2 * np.pi * (1.6 * skin.along + 0.22 * noise)) * _step(skin.dorsal, -0.8, 0)
    rings = np.sin(2 * np.pi * (1.8 * skin.along + 0.1 * noise))
    brow = np.cos(2 * np.pi * u / 0.3 + 0.4 * noise) * _step(v, 0.25, 0.4)
    cheek = np.sin(2 * np.pi * (0.4 * u - v) / 0.36 + 0.5 * noise) * _step(u, 0.5, 0.65)
    head = np.where(skin.head[:, 1] > 0.25, brow, cheek)
    stripes = np.select([skin.zone == BODY, skin.zone == HEAD, skin.zone == EAR], [trunk, head, -1], rings)
    return _step(stripes, 0, 0.6), 0.8 * _belly(skin, noise, 0.35) + 0.9 * _muzzle(skin, noise, -0.08)


def _points(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    noise = _noise(skin, 40, rng)
    away = np.linalg.norm(skin.head - np.float32((0, -0.1, 0.85)), axis=1) + 0.05 * noise
    mask = (1 - _step(away, 0.35, 0.8)) * (skin.zone == HEAD)
    ends = (skin.zone == EAR) | (skin.zone == TAIL)
    return mask + _socks(skin, noise, 0.5) + ends, 0.5 * _belly(skin, noise, 0.2)


def _tuxedo(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    noise = _noise(skin, 40, rng)
    light = _belly(skin, noise, 0.25) + _socks(skin, noise, 0.55) + _muzzle(skin, noise, rng.uniform(0, 0.25))
    return 0.4 * _step(noise, 0, 2), light + _step(skin.tip, 0.85, 0.9) * (skin.zone == TAIL)


def _patches(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    first, second = _noise(skin, 60, rng), _noise(skin, 60, rng)
    bare = 1 - _muzzle(skin, first, 0.05) - _belly(skin, first, 0.4)
    return _step(first, 0.3, 0.4) * bare, _step(second, 0.6, 0.7) * bare


def _spots(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    noise, wide = _noise(skin, 16, rng), _noise(skin, 60, rng)
    spots = np.where(skin.zone == EAR, 0.8, _step(noise, 0.75, 1.0) * (1 - _muzzle(skin, wide, -0.1)))
    return spots, 0.9 * _muzzle(skin, wide, -0.05) + 0.7 * _belly(skin, wide, 0.4)


def _brindle(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    noise = _noise(skin, 40, rng)
    stripes = np.sin(2 * np.pi * (4.5 * skin.along + 0.8 * noise)) + 0.9 * _noise(skin, 14, rng)
    light = _belly(skin, noise, 0.4) + _muzzle(skin, noise, rng.uniform(0.1, 0.3)) + _socks(skin, noise, 0.75)
    return 0.7 * _step(stripes, -0.4, 0.9), light


def _saddle(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    noise = _noise(skin, 40, rng)
    cap = _step(skin.head[:, 1] + 0.05 * noise, 0.45, 0.65) * (skin.zone == HEAD)
    back = _step(skin.dorsal + 0.15 * noise, -0.1, 0.3) * ((skin.zone == BODY) | (skin.zone == TAIL))
    light = _belly(skin, noise, 0.3) + _socks(skin, noise, 0.25) + _muzzle(skin, noise, 0.3)
    return cap + back + 0.8 * (skin.zone == EAR), light


def _tan(skin: Skin, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    noise = _noise(skin, 40, rng)
    u, v, w = skin.head.T
    brows = (1 - _step(np.hypot(np.abs(u) - 0.28, v - 0.62), 0.09, 0.14)) * (w > 0) * (skin.zone == HEAD)
    light = brows + _socks(skin, noise, 0.4) + _belly(skin, noise, 0.55) + _muzzle(skin, noise, 0.3)
    return 0.5 * _step(noise, 0, 2), light


COATS: dict[str, Callable[[Skin, Random], tuple[np.ndarray, np.ndarray]]] = {
    "solid": _solid, "tabby": _tabby, "points": _points, "tuxedo": _tuxedo, "patches": _patches,
    "spots": _spots, "brindle": _brindle, "saddle": _saddle, "tan": _tan,
}  # fmt: skip


def coat_of(skin: Skin, breed: Breed, rng: Random) -> np.ndarray:
    """Colour the skin but for the face: (N, 3) from 0 to 255, unlit."""
    tone = np.float32(rng.normal(1, 0.025, 3) * rng.uniform(0.85, 1.12))
    ground, pattern, light = (rgb_of(colour) * tone for colour in breed.colours)
    second, third = (np.float32(np.clip(cover, 0, 1))[:, None] for cover in COATS[breed.coat](skin, rng))
    colour = ground + second * (pattern - ground)
    colour += third * (light - colour)
    if breed.ears in ("upright", "small", "tall", "pricked"):
        inner = np.float32(0.75 * _step(skin.dorsal, 0.25, 0.7) * (skin.zone == EAR))[:, None]
        colour += inner * (rgb_of("#c99a8c") - colour)
    colour[skin.zone == NOSE] = rgb_of(breed.nose)
    colour[skin.zone == TONGUE] = rgb_of("#d9808a")
    if rng.random() < 0.3:  # a collar
        band = (skin.zone == BODY) & (np.abs(skin.along - rng.uniform(0.35, 0.45)) < 0.13)
        colour[band] = rng.uniform(20, 220, 3)
    return colour


def paint_face(colour: np.ndarray, skin: Skin, breed: Breed, rng: Random) -> None:
    """Paint eyes and mouth into the colours (N, 3)."""
    on_face = np.flatnonzero((skin.zone == HEAD) & (skin.head[:, 2] > 0))
    face, (u, v, w) = colour[on_face], skin.head[on_face].T
    cat, eye, dark = breed.species == "cat", EYES[breed.species], rgb_of("#171213")

    def paint(where: np.ndarray, tint: np.ndarray) -> None:
        face[:] += np.float32(where)[:, None] * (tint - face)

    side = np.arctan2(np.abs(u), w) - eye.side
    up = np.arctan2(v, np.hypot(u, w)) - eye.up - eye.slant * side
    lids = np.hypot(side / eye.width, up / (eye.height * rng.uniform(0.75, 1.05)))
    pupil = (
        np.hypot(side / (rng.uniform(0.12, 0.4) if cat else 0.5), up / (0.85 if cat else 0.5)) / eye.height
    )
    glint = np.hypot(np.arctan2(u, w) - np.sign(u) * eye.side + 0.05, up - 0.06) / eye.height
    on_skull = u * u + v * v + w * w < 1.3
    paint((1 - _step(lids, 1.15, 1.4)) * on_skull, dark)
    inside = (1 - _step(lids, 0.92, 1.05)) * on_skull
    if not cat:  # the white beside a dog's round iris
        paint(inside, rgb_of("#7a6a60"))
        inside = inside * (1 - _step(np.hypot(side, up) / eye.height, 0.85, 1.0))
    paint(inside, rgb_of(breed.eyes) * np.float32(rng.uniform(0.85, 1.15)))
    paint(inside * (1 - _step(pupil, 0.85, 1.05)), dark * 0.4)
    paint(inside * (1 - _step(glint, 0.2, 0.32)), rgb_of("#ffffff"))
    if cat:
        mouth = (np.abs(u) < 0.33) & (np.abs(v + 0.47 + 0.12 * np.sin(np.abs(u) * 9)) < 0.035)
        mouth = (mouth | ((np.abs(u) < 0.03) & (np.abs(v + 0.38) < 0.09))) & (w > 0.55)
    else:
        mouth = (np.abs(v + 0.56) < 0.04) & (np.abs(u) < 0.5) & (w > 0.5)
        mouth |= (np.abs(u) < 0.03) & (np.abs(v + 0.42) < 0.13) & (w > 0.9)
    paint(0.75 * mouth, dark)
    colour[on_face] = face
