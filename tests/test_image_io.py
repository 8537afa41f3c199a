"""Image files: read by content, resized as torchvision resizes them, listed in folders."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from convatlas import UserError, image_io

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 7, 3), np.uint8)


def save_image(path: Path, array: np.ndarray, file_format: str = "PNG", **options: object) -> Path:
    """Save pixels as an image file and return its path."""
    Image.fromarray(array).save(path, file_format, **options)
    return path


# Reading


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_file_is_read_by_its_content(tmp_path: Path, mode: str) -> None:
    black_and_white = (PIXELS // 128) * 255
    frames = [Image.fromarray(black_and_white), Image.fromarray(255 - black_and_white)]
    frames[0].save(tmp_path / "gif.jpg", "GIF", save_all=True, append_images=frames[1:])
    opaque = np.dstack([black_and_white, np.full((9, 7), 255, np.uint8)])
    for path in (
        tmp_path / "gif.jpg",
        save_image(tmp_path / "rgba.jpg", opaque),
        save_image(tmp_path / "none", black_and_white),
    ):
        image = image_io.read_image(path, mode)
        assert (image.mode, image.size) == (mode, (7, 9))
        np.testing.assert_array_equal(image, Image.fromarray(black_and_white).convert(mode))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_rotated_upright(tmp_path: Path, orientation: int) -> None:
    """The orientations of EXIF 2.3, section 4.6.4: https://jdhao.github.io."""
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save_image(tmp_path / "a.png", PIXELS, exif=exif)
    np.testing.assert_array_equal(image_io.read_image(path, "RGB"), upright[orientation](PIXELS))


def test_transparent_pixels_are_white_and_16_bit_images_are_scaled(tmp_path: Path) -> None:
    clear = save_image(tmp_path / "clear.png", np.zeros((4, 4, 4), np.uint8))
    assert np.asarray(image_io.read_image(clear, "RGB")).tolist() == [[[255] * 3] * 4] * 4
    deep = save_image(tmp_path / "deep.png", np.array([[0, 257, 25700, 65535]], np.uint16))
    assert np.asarray(image_io.read_image(deep, "L")).tolist() == [[0, 1, 100, 255]]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "missing", "folder"])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, file_format: str, damage: str) -> None:
    path = save_image(tmp_path / "odd.jpg", RNG.integers(0, 256, (99, 99, 3), np.uint8), file_format)
    contents = {"empty": b"", "text": b"no image", "cut": path.read_bytes()[: path.stat().st_size // 2]}
    path.unlink()
    if damage in contents:
        path.write_bytes(contents[damage])
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"odd\.jpg"):
        image_io.read_image(path, "RGB")


# Resizing


def list_sizes() -> Iterator[tuple[int, int]]:
    """Yield heights and widths of images, edge cases first."""
    yield from [(1, 1), (1, 9), (9, 1), (64, 64), (63, 64), (65, 64), (224, 225), (500, 375), (31, 32)]
    yield from ((int(height), int(width)) for height, width in RNG.integers(2, 300, (60, 2)))


@pytest.mark.parametrize(
    ("size", "resize"), [(64, 64), (64, 73), (65, 73), (224, 232), (64, 50), (65, 50), (9, 8)]
)
def test_images_are_resized_as_by_torchvision(size: int, resize: int) -> None:
    from torchvision.transforms import functional  # noqa: PLC0415  seconds to import

    for height, width in list_sizes():
        for mode in ("RGB", "L"):
            image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
            resized = image_io.resize_to(image, size, resize)
            assert (resized.shape, resized.dtype) == ((size, size, len(mode)), np.uint8)
            expected = functional.center_crop(functional.resize(image, [resize]), [size])
            np.testing.assert_array_equal(resized.squeeze(), expected, f"{height} x {width}")
            stretched = functional.resize(image, [size, size])
            np.testing.assert_array_equal(image_io.resize_to(image, size, "stretch").squeeze(), stretched)


@pytest.mark.parametrize("size", [(64, 64), (40, 100), (101, 33), (1, 7)])
def test_a_covering_image_fills_the_size_at_its_aspect_ratio(size: tuple[int, int]) -> None:
    """Against torchvision: the shorter side, relative to the size, is resized to the size's."""
    from torchvision.transforms import functional  # noqa: PLC0415  seconds to import

    for height, width in list_sizes():
        image = Image.fromarray(RNG.integers(1, 256, (height, width), np.uint8))
        resized = image_io.resize_to(image, size, "cover")
        assert resized.shape == (*size, 1)
        assert resized.min() > 0  # nothing is filled with black
        if size[0] == size[1]:
            np.testing.assert_array_equal(resized, image_io.resize_to(image, size, size[0]))
        scale = max(size[0] / height, size[1] / width)
        sides = [
            max(int(side * scale + 1e-9), least) for side, least in zip((height, width), size, strict=True)
        ]
        expected = functional.center_crop(functional.resize(image, sides), list(size))
        np.testing.assert_array_equal(resized.squeeze(-1), np.asarray(expected), f"{height} x {width}")


@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET1K_V2", "VGG16_Weights.IMAGENET1K_V1"])
def test_images_are_resized_as_by_the_presets_of_torchvision_weights(name: str) -> None:
    """Before normalisation, where values are multiples of 1/255."""
    import torch  # noqa: PLC0415  seconds to import
    from torchvision import models  # noqa: PLC0415

    kind, version = name.split(".")
    preset = getattr(models, kind)[version].transforms()
    preset.mean, preset.std = [0.0] * 3, [1.0] * 3
    for height, width in [(375, 500), (500, 333), (224, 224), (100, 90), (1000, 257)]:
        image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))
        resized = image_io.resize_to(image, preset.crop_size[0], preset.resize_size[0])
        expected = preset(image)
        assert torch.equal(torch.from_numpy(resized.transpose(2, 0, 1).copy()) / 255, expected)


# Listing


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPEG", "b c.png", "a.gif", "a.bmp", "a.tif", "a.TIFF", "x/a.webp"]
)
def test_image_files_are_recognised_by_their_suffix(name: str) -> None:
    assert image_io.has_image_suffix(name)
    assert image_io.has_image_suffix(Path(name))
    for other in (f"{name}.txt", name.rpartition(".")[2], "a.mat", ".png", "jpg"):
        assert not image_io.has_image_suffix(other)


def test_folders_are_listed(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.txt", ".d.png", "inner/e.png", "text"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).touch()
    folder = tmp_path / "folder"
    assert image_io.expand_image_paths([str(folder)]) == [folder / "a.JPG", folder / "b.png"]
    assert image_io.expand_image_paths([folder / "text", folder / "inner"]) == [
        folder / "text",
        folder / "inner/e.png",
    ]
    assert image_io.list_images(folder) == ([folder / "a.JPG", folder / "b.png"], 3)
    assert image_io.expand_image_paths([]) == []


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").touch()
    assert image_io.expand_image_paths(["~/a.png"]) == [tmp_path / "a.png"]


def test_missing_paths_and_empty_folders_are_reported(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"nowhere\.png"):
        image_io.expand_image_paths([tmp_path / "notes.txt", tmp_path / "nowhere.png"])
    with pytest.raises(UserError, match=f"{tmp_path} holds no image files.*png"):
        image_io.expand_image_paths([tmp_path])
