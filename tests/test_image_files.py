"""What is opened as an image: regular files of known formats, up to a number of pixels."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from convatlas import UserError, image_io
from convatlas.datasets.image_files import validate_images
from convatlas.image_files import LIMIT_VARIABLE, open_image
from convatlas.image_io import expand_image_paths, list_images, resize_to
from convatlas.stored_images import read_stored_image

SIZES = [(31, 47), (224, 224), (100, 3), (3, 100), (640, 12)]  # (width, height)


def random_image(width: int, height: int) -> Image.Image:
    """Return an image of smooth random colours."""
    values = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("read", [open_image, read_stored_image])
def test_fifos_devices_and_links_to_them_are_no_images(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    (tmp_path / "c.png").symlink_to(tmp_path / "a.png")
    Image.new("L", (8, 8)).save(tmp_path / "d.png")
    assert list_images(tmp_path) == ([tmp_path / "d.png"], 3)
    for name in ("a.png", "b.png", "c.png"):
        assert callable(read)
        with pytest.raises(UserError, match="is no regular file"):
            read(tmp_path / name)
        with pytest.raises(UserError, match="is no regular file"):
            expand_image_paths([tmp_path / name])
        with pytest.raises(UserError, match=r"(?s)1 of 1 images cannot be used.*is no regular file"):
            validate_images({tmp_path / name: name}, "error", "datasets.mine", "fix it")


def test_postscript_is_not_passed_to_ghostscript(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:  # which Pillow would do by itself
        assert image.format == "EPS"
    with pytest.raises(UnidentifiedImageError):
        open_image(path)
    with pytest.raises(UserError, match="is no image that can be read"):
        read_stored_image(path)


def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (40, 30)).save(path)
    monkeypatch.setenv(LIMIT_VARIABLE, "1199")
    with pytest.raises(UserError, match=r"40 × 30 pixels, more than 1,199; .* set the environment variable"):
        read_stored_image(path)
    monkeypatch.setenv(LIMIT_VARIABLE, "1200")
    assert read_stored_image(path).values.shape == (30, 40, 1)
    monkeypatch.setenv(LIMIT_VARIABLE, "many")
    with pytest.raises(UserError, match="must be a whole number, not 'many'"):
        read_stored_image(path)


def test_a_header_that_promises_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (30_000, 30_000)).save(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match="30,000 × 30,000 pixels, more than 200,000,000"):
        open_image(path)


@pytest.mark.parametrize("resize", ["cover", "stretch", 50])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", SIZES)
def test_resizing_the_crop_alone_differs_by_rounding(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], interpolation: str, resize: int | str
) -> None:
    image = random_image(*size)
    expected = resize_to(image, (32, 40), resize, interpolation)
    monkeypatch.setattr(image_io, "MAX_RESIZED_PIXELS", 0)
    result = resize_to(image, (32, 40), resize, interpolation)
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= (2 if interpolation != "nearest" else 255)
    assert (difference > 1).mean() < 0.05  # of "nearest" at ties


def test_a_thin_image_takes_little_memory() -> None:
    image = random_image(1, 20_000)
    pixels = resize_to(image, (224, 224), "cover")  # without the crop 3 GB
    assert pixels.shape == (224, 224, 3)
    centre = np.asarray(image)[9_999:10_001]
    assert (np.abs(pixels.astype(int) - centre.mean((0, 1))) < 3).all()
