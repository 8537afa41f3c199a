"""Image files: resized as torchvision resizes them, listed in folders; the channels that are shown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas import UserError, image_io

RNG = np.random.default_rng(0)


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


@pytest.mark.parametrize("resize", ["cover", "stretch", 80, 40])
def test_the_visible_part_is_that_of_a_ramp(resize: int | str) -> None:
    size = (50, 60)
    for width, height in [(200, 200), (90, 180), (240, 100)]:
        ramps = np.stack(np.meshgrid(np.linspace(40, 240, width), np.linspace(40, 240, height)), -1)
        pixels = np.concatenate([ramps, ramps[..., :1]], -1).astype(np.uint8)
        resized = image_io.resize_to(Image.fromarray(pixels), size, resize).astype(float)
        left, top, right, bottom = image_io.compute_visible_box((width, height), size, resize)
        for ramp, low, high in ((resized[25, :, 0], left, right), (resized[:, 30, 1], top, bottom)):
            centres = low + (high - low) * (np.arange(len(ramp)) + 0.5) / len(ramp)
            is_inside = (centres > 0.03) & (centres < 0.97)
            np.testing.assert_allclose(ramp[is_inside], 40 + 200 * centres[is_inside], atol=4)


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


# Display


@pytest.mark.parametrize(
    ("preprocessing", "channels", "text"),
    [
        ({"mean": [0.5]}, [0], ""),
        ({"mean": [0.5] * 2}, [0], "of the 2 channels, channel 0 is shown"),
        ({"mean": [0.5] * 3}, [0, 1, 2], ""),
        ({"mean": [0.5] * 3, "channels": "bgr"}, [2, 1, 0], "true colours"),
        ({"mean": [0.5] * 5}, [0, 1, 2], "of the 5 channels, 0, 1 and 2 are shown as red, green and blue"),
        ({"mean": [0.5] * 5, "display": [3, 2, 1]}, [3, 2, 1], "3, 2 and 1 are shown"),
        ({"mean": [0.5] * 5, "display": [4]}, [4], "channel 4 is shown"),
    ],
)
def test_channels_are_shown_as_configured(preprocessing: Any, channels: list[int], text: str) -> None:
    values = RNG.standard_normal((2, len(preprocessing["mean"]), 3, 4))
    np.testing.assert_array_equal(image_io.select_display(values, preprocessing), values[:, channels])
    assert text in image_io.describe_display(preprocessing)
    assert bool(text) == bool(image_io.describe_display(preprocessing))
    ordered = values[:, [2, 1, 0]] if "channels" in preprocessing else values
    np.testing.assert_array_equal(image_io.order_as_rgb(values, preprocessing), ordered)
