"""From image files to inputs, against Pillow's resizing and the formula of the normalisation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas import UserError, image_io
from convatlas.image_io import denormalize
from convatlas.models.preprocessing import Preprocessing, merge_input_settings

GREY = Preprocessing(28, (0.5,), (0.5,))
COLOUR = Preprocessing(28, (0.5,) * 3, (0.5,) * 3)


def make_pixels(height: int, width: int, channels: int = 1, n: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, height, width), dtype=np.uint8)


# Preprocessing.


def test_an_input_of_the_networks_size_is_only_normalised() -> None:
    pixels = make_pixels(28, 28, channels=3, n=2)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = Preprocessing(28, mean, std)(torch.from_numpy(pixels))
    expected = (pixels / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [8, 28, 64, 101])
@pytest.mark.parametrize("size", [28, 50])
def test_pixels_are_resized_as_by_pillow(side: int, size: int) -> None:
    pixels = make_pixels(side, side, n=2)
    result = Preprocessing(size, (0.1,), (0.4,))(torch.from_numpy(pixels))
    for image, expected in zip(result, pixels, strict=True):
        plane = Image.fromarray(expected[0].astype(np.float32) / 255)
        resized = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(image[0], (resized - 0.1) / 0.4, atol=1e-5)


def test_preprocessing_does_not_change_the_pixels() -> None:
    pixels = torch.from_numpy(make_pixels(28, 28))
    before = pixels.clone()
    GREY(pixels)
    assert torch.equal(pixels, before)


def test_preprocessing_is_written_and_read() -> None:
    preprocessing = Preprocessing(20, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "stretch", "bicubic")
    description = {"size": 20, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    description |= {"resize": "stretch", "interpolation": "bicubic"}
    assert preprocessing.to_dict() == description
    assert Preprocessing.from_config(description) == preprocessing


def test_a_configured_size_replaces_the_resizing_of_the_weights() -> None:
    known = {"size": 224, "resize": 256}
    assert merge_input_settings(known, {"size": 64}) == {"size": 64}
    assert merge_input_settings(known, {"size": 64, "resize": 70}) == {"size": 64, "resize": 70}
    assert merge_input_settings(known, {"mean": [0.1]}) == {"size": 224, "resize": 256, "mean": [0.1]}


@pytest.mark.parametrize("size", [0, [], [8] * 4, [8, 0], [8, "9"], "28", None, [8.0, 8]])
def test_a_wrong_size_is_refused(size: object) -> None:
    with pytest.raises(UserError, match=r"own.input.size: .* is neither a number of pixels nor \[height"):
        Preprocessing.from_config({"size": size, "mean": [0.5], "std": [0.5]}, "own.input")


def test_height_and_width_differ(tmp_path: Path) -> None:
    """An image is resized to cover the size and its centre is cropped; pixels of another size are resized."""
    preprocessing = Preprocessing.from_config({"size": [20, 50], "mean": [0.0], "std": [1.0]})
    assert preprocessing.shape == (1, 20, 50)
    assert preprocessing.to_dict()["size"] == [20, 50]
    assert Preprocessing.from_config(preprocessing.to_dict()) == preprocessing
    path = tmp_path / "tall.png"
    image = Image.fromarray(make_pixels(80, 60)[0, 0])
    image.save(path)
    resized = np.asarray(image.resize((50, 66), Image.Resampling.BILINEAR))  # 66 = int(50 * 80 / 60)
    assert np.array_equal(preprocessing.read_pixels(path)[0, 0], resized[23:43])
    small = make_pixels(10, 10)
    plane = Image.fromarray(small[0, 0].astype(np.float32) / 255)
    stretched = plane.resize((50, 20), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(preprocessing(torch.from_numpy(small))[0, 0], np.asarray(stretched), atol=1e-5)


@pytest.mark.parametrize("size", [(6,), (2, 3, 4)])
def test_inputs_that_are_no_images_are_only_normalised(tmp_path: Path, size: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=(2, *size))
    np.save(tmp_path / "a.npy", values)
    settings = {"size": list(size), "mean": [1.0, 2.0], "std": [3.0, 4.0]}
    preprocessing = Preprocessing.from_config(settings)
    assert preprocessing.shape == (2, *size) and not preprocessing.is_image
    assert Preprocessing.from_config(preprocessing.to_dict()) == preprocessing
    expected = np.stack([(values[0] - 1) / 3, (values[1] - 2) / 4])
    x = preprocessing(preprocessing.read_pixels(tmp_path / "a.npy"))
    np.testing.assert_allclose(x[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        denormalize(x[0].numpy(), preprocessing.to_dict()), values, rtol=1e-4, atol=1e-5
    )


def test_smaller_inputs_keep_the_aspect_ratio() -> None:
    oblong = Preprocessing((40, 100), (0.5,), (0.5,))
    assert oblong.with_shorter_side(20).size == (20, 50)
    assert GREY.with_shorter_side(14) == Preprocessing(14, (0.5,), (0.5,))


@pytest.mark.parametrize("resize", [28, 40, "stretch"])
def test_an_oblong_image_is_read_at_the_networks_size(tmp_path: Path, resize: int | str) -> None:
    path = tmp_path / "wide.png"
    Image.fromarray(make_pixels(60, 90, 3)[0].transpose(1, 2, 0)).save(path)
    result = Preprocessing(28, (0.5,) * 3, (0.5,) * 3, resize).read_pixels(path)
    with Image.open(path) as image:
        sides = (28, 28) if resize == "stretch" else (resize * 90 // 60, resize)
        resized = np.asarray(image.resize(sides, Image.Resampling.BILINEAR))
    left, top = ((side - 28) // 2 for side in sides)
    assert np.array_equal(result[0].permute(1, 2, 0), resized[top : top + 28, left : left + 28])


def test_an_unknown_key_of_an_input_is_named() -> None:
    with pytest.raises(UserError, match=r"networks\.own\.input: unknown 'siz'; did you mean 'size'"):
        Preprocessing.from_config({"siz": 3, "mean": [0.0], "std": [1.0]}, "networks.own.input")


# Image files.

RGB = make_pixels(28, 28, 3)[0].transpose(1, 2, 0)
LUMA = RGB @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def save_image(folder: Path, array: np.ndarray, mode: str | None = None, name: str = "a.png") -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(folder / name)
    return folder / name


def test_a_grey_file_is_read_unchanged(tmp_path: Path) -> None:
    plane = make_pixels(28, 28)[0, 0]
    path = save_image(tmp_path, plane)
    assert np.array_equal(GREY.read_pixels(path), plane[None, None])
    assert np.array_equal(COLOUR.read_pixels(path), np.stack([plane] * 3)[None])
    assert GREY.read_pixels(path).dtype == torch.uint8


def test_a_colour_file_is_read_in_the_order_red_green_blue_or_as_luma(tmp_path: Path) -> None:
    path = save_image(tmp_path, RGB)
    assert np.array_equal(COLOUR.read_pixels(path)[0], RGB.transpose(2, 0, 1))
    np.testing.assert_allclose(GREY.read_pixels(path)[0, 0], LUMA, atol=1)


def test_an_opaque_rgba_file_is_read_as_its_colours(tmp_path: Path) -> None:
    path = save_image(tmp_path, np.dstack([RGB, np.full((28, 28), 255, np.uint8)]))
    assert Image.open(path).mode == "RGBA"
    assert np.array_equal(COLOUR.read_pixels(path)[0], RGB.transpose(2, 0, 1))
    np.testing.assert_allclose(GREY.read_pixels(path)[0, 0], LUMA, atol=1)


def test_a_palette_file_is_read_as_its_colours_not_its_indices(tmp_path: Path) -> None:
    few = (RGB // 128) * 255  # eight colours
    path = save_image(tmp_path, few, "P")
    colours = np.asarray(Image.open(path).convert("RGB"))
    assert Image.open(path).mode == "P"
    assert np.array_equal(COLOUR.read_pixels(path)[0], colours.transpose(2, 0, 1))
    np.testing.assert_allclose(
        GREY.read_pixels(path)[0, 0], colours @ np.array([0.299, 0.587, 0.114]), atol=1
    )


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("preprocessing", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_16_bit_grey_file_is_scaled_not_clipped(
    tmp_path: Path, name: str, preprocessing: Preprocessing
) -> None:
    plane = (np.arange(28 * 28).reshape(28, 28) * 83).astype(np.uint16)
    result = preprocessing.read_pixels(save_image(tmp_path, plane, name=name))
    assert result.shape == (1, preprocessing.shape[0], 28, 28)
    for channel in result[0]:
        np.testing.assert_allclose(channel, plane / 257, atol=1)


def test_a_black_and_white_file_is_black_and_white(tmp_path: Path) -> None:
    plane = make_pixels(28, 28)[0, 0] > 127
    assert np.array_equal(GREY.read_pixels(save_image(tmp_path, plane))[0, 0], 255 * plane)


@pytest.mark.parametrize("preprocessing", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_file_of_any_mode_and_size_becomes_an_input(
    tmp_path: Path, mode: str, preprocessing: Preprocessing
) -> None:
    path = save_image(tmp_path, RGB[:20, :17], mode if mode != "I;16" else "L")
    if mode == "I;16":
        path = save_image(tmp_path, RGB[:20, :17, 0].astype(np.uint16) * 257)
    assert Image.open(path).mode == mode
    x = preprocessing(preprocessing.read_pixels(path))
    assert x.shape == (1, *preprocessing.shape)
    assert x.min() >= -1 - 1e-6
    assert x.max() <= 1 + 1e-6


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    return save_image(tmp_path, RGB).read_bytes()


@pytest.mark.parametrize("damage", ["empty", "text", "half", "short header", "words for numbers"])
def test_a_file_that_is_not_an_image_is_reported(tmp_path: Path, png: bytes, damage: str) -> None:
    contents = {
        "empty": b"",
        "text": b"no image\n",
        "half": png[: len(png) // 2],
        "short header": png[:11] + b"\x05" + png[12:],
        "words for numbers": b"P5 two by four 255\n" + bytes(64),
    }
    path = tmp_path / "odd.png"
    path.write_bytes(contents[damage])
    with pytest.raises(UserError, match=r"odd\.png"):
        GREY.read_pixels(path)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere.png", "cannot read the image"), (".", "is no regular file")]
)
def test_a_missing_file_is_reported(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GREY.read_pixels(tmp_path / name)


def test_transparent_images_are_read_on_white(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 4), np.uint8)
    image[2:4, :, 3] = 255  # a black stroke, nothing else
    path = save_image(tmp_path, image)
    read = Preprocessing(8, (0.5,), (0.5,)).read_pixels(path)[0, 0].numpy()
    assert (read[2:4] == 0).all()
    assert (np.delete(read, [2, 3], axis=0) == 255).all()


def test_values_above_16_bits_do_not_wrap(tmp_path: Path) -> None:
    path = tmp_path / "deep.tiff"
    Image.fromarray(np.repeat(np.array([[0, 65535, 70000]], np.int32), 3, axis=0)).save(path)
    preprocessing = Preprocessing(3, (0.5,), (0.5,))
    with pytest.raises(UserError, match=r"set input\.range: \[0, 70000\]"):
        preprocessing.read_pixels(path)
    pixels = replace(preprocessing, range=(0, 65535)).read_pixels(path)
    assert pixels[0, 0, 0].tolist() == [0, 255, 255]


def test_a_bgr_network_sees_blue_first_and_its_pages_true_colours(tmp_path: Path) -> None:
    colours = make_pixels(16, 16, channels=3)[0].transpose(1, 2, 0)
    Image.fromarray(colours).save(tmp_path / "a.png")
    known = {"size": 16, "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}
    settings = merge_input_settings(known, {"channels": "bgr"})
    assert (settings["mean"], settings["std"]) == ([0.6, 0.5, 0.4], [0.3, 0.2, 0.1])
    preprocessing = Preprocessing.from_config(settings)
    x = preprocessing(preprocessing.read_pixels(tmp_path / "a.png"))[0].numpy()
    expected = (colours[..., ::-1] / 255 - settings["mean"]) / settings["std"]
    np.testing.assert_allclose(x, expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-5)
    record = preprocessing.to_dict()
    shown = image_io.select_display(image_io.denormalize(x, record), record)
    np.testing.assert_allclose(shown, colours.transpose(2, 0, 1) / 255, atol=1e-6)
    assert Preprocessing.from_config(record) == preprocessing


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"channels": 5}, ["must have one number per channel, 5"]),
        ({"channels": "grey"}, ["must have one number per channel, 1"]),
        ({"range": [4095, 0]}, ["input.range: [4095, 0]"]),
        ({"display": [3]}, ["input.display: [3]", "0 to 2"]),
        ({"display": [0, 1]}, ["one channel (grey) or three"]),
    ],
)
def test_impossible_channels_and_ranges_are_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        Preprocessing.from_config({"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, **settings})
    for word in words:
        assert word in str(error.value)
