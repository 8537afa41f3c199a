"""Image files: read whatever they are, fitted as torchvision fits them, found in folders."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from convatlas import UserError, image_io

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 7, 3), np.uint8)


def saved(path: Path, array: np.ndarray, form: str = "PNG", **options: object) -> Path:
    Image.fromarray(array).save(path, form, **options)
    return path


# Reading; more of it in test_networks.py


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_file_is_read_by_its_content(tmp_path: Path, mode: str) -> None:
    few = (PIXELS // 128) * 255
    frames = [Image.fromarray(few), Image.fromarray(255 - few)]
    frames[0].save(tmp_path / "gif.jpg", "GIF", save_all=True, append_images=frames[1:])
    opaque = np.dstack([few, np.full((9, 7), 255, np.uint8)])
    for path in (tmp_path / "gif.jpg", saved(tmp_path / "rgba.jpg", opaque), saved(tmp_path / "none", few)):
        found = image_io.read_image(path, mode)
        assert (found.mode, found.size) == (mode, (7, 9))
        np.testing.assert_array_equal(found, Image.fromarray(few).convert(mode))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    """What the camera's stored rows and columns are: https://jdhao.github.io, or EXIF 2.3, section 4.6.4."""
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
    path = saved(tmp_path / "a.png", PIXELS, exif=exif)
    np.testing.assert_array_equal(image_io.read_image(path, "RGB"), upright[orientation](PIXELS))


def test_what_is_transparent_lies_on_white_and_deep_images_are_scaled(tmp_path: Path) -> None:
    clear = saved(tmp_path / "clear.png", np.zeros((4, 4, 4), np.uint8))
    assert np.asarray(image_io.read_image(clear, "RGB")).tolist() == [[[255] * 3] * 4] * 4
    deep = saved(tmp_path / "deep.png", np.array([[0, 257, 25700, 65535]], np.uint16))
    assert np.asarray(image_io.read_image(deep, "L")).tolist() == [[0, 1, 100, 255]]


@pytest.mark.parametrize("damage", ["empty", "words", "cut", "missing", "folder"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_what_cannot_be_read_is_named(tmp_path: Path, form: str, damage: str) -> None:
    path = saved(tmp_path / "odd.jpg", RNG.integers(0, 256, (99, 99, 3), np.uint8), form)
    contents = {"empty": b"", "words": b"no image", "cut": path.read_bytes()[: path.stat().st_size // 2]}
    path.unlink()
    if damage in contents:
        path.write_bytes(contents[damage])
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"odd\.jpg"):
        image_io.read_image(path, "RGB")


# Fitting


def shapes() -> Iterator[tuple[int, int]]:
    yield from [(1, 1), (1, 9), (9, 1), (64, 64), (63, 64), (65, 64), (224, 225), (500, 375), (31, 32)]
    yield from ((int(height), int(width)) for height, width in RNG.integers(2, 300, (60, 2)))


@pytest.mark.parametrize(
    ("size", "resize"), [(64, 64), (64, 73), (65, 73), (224, 232), (64, 50), (65, 50), (9, 8)]
)
def test_images_fit_as_torchvision_has_them(size: int, resize: int) -> None:
    from torchvision.transforms import functional  # noqa: PLC0415  seconds to import

    for height, width in shapes():
        for mode in ("RGB", "L"):
            image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
            found = image_io.resize_to(image, size, resize)
            assert (found.shape, found.dtype) == ((size, size, len(mode)), np.uint8)
            expected = functional.center_crop(functional.resize(image, [resize]), [size])
            np.testing.assert_array_equal(found.squeeze(), expected, f"{height} x {width}")
            stretched = functional.resize(image, [size, size])
            np.testing.assert_array_equal(image_io.resize_to(image, size, "stretch").squeeze(), stretched)


@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET1K_V2", "VGG16_Weights.IMAGENET1K_V1"])
def test_images_fit_as_the_weights_of_torchvision_want_them(name: str) -> None:
    """Before it normalises, that is: its values are multiples of 1/255."""
    import torch  # noqa: PLC0415  seconds to import
    from torchvision import models  # noqa: PLC0415

    kind, version = name.split(".")
    preset = getattr(models, kind)[version].transforms()
    preset.mean, preset.std = [0.0] * 3, [1.0] * 3
    for height, width in [(375, 500), (500, 333), (224, 224), (100, 90), (1000, 257)]:
        image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))
        found = image_io.resize_to(image, preset.crop_size[0], preset.resize_size[0])
        expected = preset(image)
        assert torch.equal(torch.from_numpy(found.transpose(2, 0, 1).copy()) / 255, expected)


# Finding


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPEG", "b c.png", "a.gif", "a.bmp", "a.tif", "a.TIFF", "x/a.webp"]
)
def test_images_are_known_by_their_names(name: str) -> None:
    assert image_io.has_image_suffix(name)
    assert image_io.has_image_suffix(Path(name))
    for other in (f"{name}.txt", name.rpartition(".")[2], "a.mat", ".png", "jpg"):
        assert not image_io.has_image_suffix(other)


def test_folders_are_listed(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.txt", ".d.png", "inner/e.png", "words"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).touch()
    folder = tmp_path / "folder"
    assert image_io.expand_image_paths([str(folder)]) == [folder / "a.JPG", folder / "b.png"]
    assert image_io.expand_image_paths([folder / "words", folder / "inner"]) == [
        folder / "words",
        folder / "inner/e.png",
    ]
    assert image_io.list_images(folder) == ([folder / "a.JPG", folder / "b.png"], 3)
    assert image_io.expand_image_paths([]) == []


def test_a_path_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").touch()
    assert image_io.expand_image_paths(["~/a.png"]) == [tmp_path / "a.png"]


def test_missing_paths_and_empty_folders_are_reported(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"nowhere\.png"):
        image_io.expand_image_paths([tmp_path / "notes.txt", tmp_path / "nowhere.png"])
    with pytest.raises(UserError, match=f"{tmp_path} holds no image files.*png"):
        image_io.expand_image_paths([tmp_path])
