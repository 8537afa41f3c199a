"""Networks and their preprocessing, against their tables, Pillow's resizing and formulas by hand."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.files import write_json
from convatlas.networks import Preprocessing, build, choose_device, described, load

CLASSES = [str(digit) for digit in range(10)]
GREY = Preprocessing(28, (0.5,), (0.5,))
COLOUR = Preprocessing(28, (0.5,) * 3, (0.5,) * 3)


def pixels(height: int, width: int, channels: int = 1, n: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, height, width), dtype=np.uint8)


# The bundled networks.


@pytest.mark.parametrize(("name", "count", "side"), [("simple_cnn", 44_834, 50), ("lenet5", 61_706, 28)])
def test_parameters_and_shapes(name: str, count: int, side: int) -> None:
    network, preprocessing = build({"architecture": name}, CLASSES, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert preprocessing.shape == (1, side, side)
    assert network(torch.rand(3, *preprocessing.shape)).shape == (3, 10)
    assert not network.training


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5"])
def test_there_is_one_output_a_class(name: str) -> None:
    network, preprocessing = build({"architecture": name}, ["cat", "dog", "emu"], seed=0)
    assert network(torch.rand(2, *preprocessing.shape)).shape == (2, 3)


def test_lenet5_gives_log_probabilities_and_simple_cnn_logits() -> None:
    lenet, _ = build({"architecture": "lenet5"}, CLASSES, seed=0)
    sums = lenet(torch.randn(4, 1, 28, 28)).exp().sum(1)
    torch.testing.assert_close(sums, torch.ones(4))
    simple, _ = build({"architecture": "simple_cnn"}, CLASSES, seed=0)
    assert isinstance(simple[-1], nn.Linear)


def weights(name: str, seed: int) -> dict[str, Tensor]:
    return build({"architecture": name}, CLASSES, seed)[0].state_dict()


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5"])
def test_weights_are_drawn_from_the_seed(name: str) -> None:
    first, again, other = weights(name, 3), weights(name, 3), weights(name, 4)
    assert list(first) == list(again) == list(other)
    for parameter, tensor in first.items():
        assert torch.equal(tensor, again[parameter])
        assert not torch.equal(tensor, other[parameter])


def test_the_configs_input_overrides_the_architectures() -> None:
    settings = {"architecture": "lenet5", "input": {"mean": [0.25]}}
    _, preprocessing = build(settings, CLASSES, seed=0)
    assert preprocessing == Preprocessing(28, (0.25,), (0.3081,))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 32}, r"lenet5 does not take an input of shape \(1, 32, 32\)"),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, r"lenet5 does not take an input of shape \(3, 28, 28\)"),
        ({"mean": [0.5] * 3}, "one number a channel"),
        ({"mean": [0.5] * 2, "std": [0.5] * 2}, "one number a channel"),
        ({"mean": [], "std": []}, "one number a channel"),
    ],
)
def test_an_input_that_does_not_fit_is_reported(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build({"architecture": "lenet5", "input": given}, CLASSES, seed=0)


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5"])
def test_a_saved_network_is_loaded_bit_for_bit(name: str, tmp_path: Path) -> None:
    settings = {"architecture": name, "input": {"mean": [0.3]}}
    network, preprocessing = build(settings, CLASSES[:7], seed=5)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    description = {"architecture": name, "classes": CLASSES[:7], "preprocessing": described(preprocessing)}
    write_json(tmp_path / "network.json", description)
    again, prepared, read = load(tmp_path)
    x = torch.randn(2, *preprocessing.shape)
    assert torch.equal(again(x), network(x))
    assert prepared == preprocessing
    assert read == description
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_a_network_that_was_not_made_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"network\.json is missing"):
        load(tmp_path)


# Preprocessing.


def test_without_resizing_it_is_the_formula() -> None:
    given = pixels(28, 28, channels=3, n=2)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = Preprocessing(28, mean, std)(torch.from_numpy(given))
    expected = (given / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [8, 28, 64, 101])
@pytest.mark.parametrize("size", [28, 50])
def test_resizing_is_that_of_pillow(side: int, size: int) -> None:
    given = pixels(side, side, n=2)
    found = Preprocessing(size, (0.1,), (0.4,))(torch.from_numpy(given))
    for image, expected in zip(found, given, strict=True):
        plane = Image.fromarray(expected[0].astype(np.float32) / 255)
        resized = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(image[0], (resized - 0.1) / 0.4, atol=1e-5)


def test_preprocessing_leaves_the_pixels_as_they_were() -> None:
    given = torch.from_numpy(pixels(28, 28))
    before = given.clone()
    GREY(given)
    assert torch.equal(given, before)


def test_preprocessing_is_described_and_made_again() -> None:
    preprocessing = Preprocessing(20, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    description = {"size": 20, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert described(preprocessing) == description
    assert Preprocessing.of(description) == preprocessing


# Image files.

RGB = pixels(28, 28, 3)[0].transpose(1, 2, 0)
LUMA = RGB @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def saved(folder: Path, array: np.ndarray, mode: str | None = None, name: str = "a.png") -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(folder / name)
    return folder / name


def test_a_grey_file_is_read_as_it_is(tmp_path: Path) -> None:
    plane = pixels(28, 28)[0, 0]
    path = saved(tmp_path, plane)
    assert np.array_equal(GREY.read(path), plane[None, None])
    assert np.array_equal(COLOUR.read(path), np.stack([plane] * 3)[None])
    assert GREY.read(path).dtype == torch.uint8


def test_a_colour_file_is_read_in_the_order_red_green_blue_or_as_luma(tmp_path: Path) -> None:
    path = saved(tmp_path, RGB)
    assert np.array_equal(COLOUR.read(path)[0], RGB.transpose(2, 0, 1))
    np.testing.assert_allclose(GREY.read(path)[0, 0], LUMA, atol=1)


def test_an_opaque_rgba_file_is_read_as_its_colours(tmp_path: Path) -> None:
    path = saved(tmp_path, np.dstack([RGB, np.full((28, 28), 255, np.uint8)]))
    assert Image.open(path).mode == "RGBA"
    assert np.array_equal(COLOUR.read(path)[0], RGB.transpose(2, 0, 1))
    np.testing.assert_allclose(GREY.read(path)[0, 0], LUMA, atol=1)


def test_a_palette_file_is_read_as_its_colours_not_its_indices(tmp_path: Path) -> None:
    few = (RGB // 128) * 255  # eight colours
    path = saved(tmp_path, few, "P")
    colours = np.asarray(Image.open(path).convert("RGB"))
    assert Image.open(path).mode == "P"
    assert np.array_equal(COLOUR.read(path)[0], colours.transpose(2, 0, 1))
    np.testing.assert_allclose(GREY.read(path)[0, 0], colours @ np.array([0.299, 0.587, 0.114]), atol=1)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("preprocessing", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_16_bit_grey_file_is_scaled_not_clipped(
    tmp_path: Path, name: str, preprocessing: Preprocessing
) -> None:
    plane = (np.arange(28 * 28).reshape(28, 28) * 83).astype(np.uint16)
    found = preprocessing.read(saved(tmp_path, plane, name=name))
    assert found.shape == (1, preprocessing.shape[0], 28, 28)
    for channel in found[0]:
        np.testing.assert_allclose(channel, plane / 257, atol=1)


def test_a_black_and_white_file_is_black_and_white(tmp_path: Path) -> None:
    plane = pixels(28, 28)[0, 0] > 127
    assert np.array_equal(GREY.read(saved(tmp_path, plane))[0, 0], 255 * plane)


@pytest.mark.parametrize("preprocessing", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_file_of_any_mode_and_size_becomes_an_input(
    tmp_path: Path, mode: str, preprocessing: Preprocessing
) -> None:
    path = saved(tmp_path, RGB[:20, :17], mode if mode != "I;16" else "L")
    if mode == "I;16":
        path = saved(tmp_path, RGB[:20, :17, 0].astype(np.uint16) * 257)
    assert Image.open(path).mode == mode
    x = preprocessing(preprocessing.read(path))
    assert x.shape == (1, *preprocessing.shape)
    assert x.min() >= -1 - 1e-6
    assert x.max() <= 1 + 1e-6


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    return saved(tmp_path, RGB).read_bytes()


@pytest.mark.parametrize("damage", ["empty", "text", "half", "short header", "words for numbers"])
def test_a_file_that_is_no_image_is_reported(tmp_path: Path, png: bytes, damage: str) -> None:
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
        GREY.read(path)


@pytest.mark.parametrize("name", ["nowhere.png", "."])
def test_a_file_that_is_not_there_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot read the image"):
        GREY.read(tmp_path / name)


# Devices.


@pytest.fixture
def undetermined() -> Iterator[None]:
    """Torch as it starts, and as it is left: choose_device sets its global state."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    yield
    torch.set_deterministic_debug_mode(before)


@pytest.mark.parametrize(
    ("name", "there", "expected"),
    [("auto", False, "cpu"), ("cpu", False, "cpu"), ("cpu", True, "cpu"), ("auto", True, "cuda")],
)
@pytest.mark.usefixtures("undetermined")
def test_devices(monkeypatch: pytest.MonkeyPatch, name: str, there: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device(name).type == expected
    assert torch.are_deterministic_algorithms_enabled()


def test_cuda_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device: cuda.*use auto or cpu"):
        choose_device("cuda")


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    drawn = np.zeros((8, 8, 4), np.uint8)
    drawn[2:4, :, 3] = 255  # a black stroke, nothing else
    path = saved(tmp_path, drawn)
    read = Preprocessing(8, (0.5,), (0.5,)).read(path)[0, 0].numpy()
    assert (read[2:4] == 0).all()
    assert (np.delete(read, [2, 3], axis=0) == 255).all()


def test_values_above_16_bits_do_not_wrap(tmp_path: Path) -> None:
    path = tmp_path / "deep.tiff"
    Image.fromarray(np.array([[0, 65535, 70000]], np.int32)).save(path)
    assert Preprocessing(8, (0.5,), (0.5,)).read(path).flatten().tolist() == [0, 255, 255]


@pytest.mark.parametrize("content", [b"", b"no weights", bytes(8) + b"{}"])
def test_damaged_weights_are_reported(tmp_path: Path, content: bytes) -> None:
    _, preprocessing = build({"architecture": "lenet5"}, list("0123456789"), seed=0)
    description = {"architecture": "lenet5", "classes": list("0123456789")}
    write_json(tmp_path / "network.json", description | {"preprocessing": described(preprocessing)})
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged"):
        load(tmp_path)
