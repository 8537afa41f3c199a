"""The choice of sample images, with a network whose predictions are known."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

from convatlas import UserError
from convatlas.datasets.base import ImageDataset
from convatlas.datasets.sample_images import PHOTOGRAPHS, SampleInput, choose_images
from convatlas.models.preprocessing import Preprocessing
from convatlas.pixels import PixelFormat

KEY = "networks.own.images"
CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(4, (0.25,), (0.5,))


class FirstPixelNetwork(nn.Module):
    """Predicts the class that is written into the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        classes = (255 * (x[:, 0, 0, 0] * 0.5 + 0.25)).round().long()
        return nn.functional.one_hot(classes, 256).float()


class MemoryDataset(ImageDataset):
    """A test split whose images are in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__(labels, [str(n) for n in range(len(labels))], [None] * len(labels))
        self.__dict__["images"] = images

    def read_pixels(self, n: int, pixel_format: PixelFormat) -> np.ndarray:
        return np.stack([self.images[n, 0]] * pixel_format.channels, axis=2)


@pytest.fixture(scope="module")
def split() -> MemoryDataset:
    """Return 60 random images; the prediction, in the first pixel, is right in about half of them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    labels = rng.integers(0, 6, 60)
    images[:, 0, 0, 0] = np.where(rng.random(60) < 0.5, labels, rng.integers(0, 6, 60))
    images[labels == 5, 0, 0, 0] = 4  # a class that is never predicted
    return MemoryDataset(images, labels)


def choose(selection: dict[str, Any], split: MemoryDataset) -> list[SampleInput]:
    """Choose images of the split."""
    return choose_images(selection, FirstPixelNetwork(), PREPROCESSING, split, CPU, KEY)


def normalize(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy((pixels / 255 - 0.25) / 0.5).float()


def check_image(image: SampleInput, name: str, pixels: np.ndarray, **attributes: Any) -> None:
    """Check an image's name, pixels and attributes; those that are not given are None."""
    empty = {"index": None, "path": None, "label": None}
    assert image.name == name
    torch.testing.assert_close(image.x, normalize(pixels))
    assert {key: getattr(image, key) for key in empty} == empty | attributes


def test_a_digit_is_the_first_of_its_class_that_is_classified_correctly(split: MemoryDataset) -> None:
    pixels, labels = split.images, split.labels
    digits = [3, 0, 4, 1, 2]
    firsts = []
    for digit in digits:
        correct = [n for n in range(60) if labels[n] == digit and pixels[n, 0, 0, 0] == digit]
        firsts.append(correct[0])
    assert any(list(labels).index(digit) != first for digit, first in zip(digits, firsts, strict=True))
    images = choose({"digits": digits}, split)
    for image, digit, first in zip(images, digits, firsts, strict=True):
        check_image(image, f"digit-{digit}", pixels[first : first + 1], index=first, label=digit)


@pytest.mark.parametrize("digit", [5, 9])
def test_a_digit_that_is_never_classified_correctly_is_reported(split: MemoryDataset, digit: int) -> None:
    count = int((split.labels == digit).sum())
    with pytest.raises(UserError, match=rf"{KEY}\.digits: none of the {count} .* class {digit} "):
        choose({"digits": [0, digit]}, split)


@pytest.mark.parametrize(
    ("selection", "indices"),
    [
        ({"first": 3}, [0, 1, 2]),
        ({"indices": [7, 2, 59]}, [7, 2, 59]),
        ({"first": 2, "indices": [9, 1]}, [0, 1, 9]),
        ({}, []),
    ],
)
def test_images_by_index(split: MemoryDataset, selection: dict[str, Any], indices: list[int]) -> None:
    pixels, labels = split.images, split.labels
    images = choose(selection, split)
    for image, index in zip(images, indices, strict=True):
        label = int(labels[index])
        check_image(image, f"test-{index:05d}", pixels[index : index + 1], index=index, label=label)


@pytest.mark.parametrize("selection", [{"indices": [3, 60]}, {"first": 61}])
def test_an_index_beyond_the_last_is_reported(split: MemoryDataset, selection: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{KEY}: there is no test image 60; there are 60, counted from 0"):
        choose(selection, split)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return two dark files with the same stem."""
    paths = [tmp_path / "a seven.png", tmp_path / "more/a seven.bmp"]
    paths[1].parent.mkdir()
    for n, path in enumerate(paths):
        Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) + 10 * n).save(path)
    return paths


def test_files_are_read_and_named_by_their_stem(split: MemoryDataset, files: list[Path]) -> None:
    images = choose({"files": [str(path) for path in files]}, split)
    for n, (image, name) in enumerate(zip(images, ["a-seven", "a-seven-2"], strict=True)):
        pixels = np.arange(16).reshape(1, 1, 4, 4) + 10 * n
        check_image(image, name, pixels, path=str(files[n]))


def test_a_folder_is_replaced_by_its_images(split: MemoryDataset, files: list[Path]) -> None:
    images = choose({"files": [str(files[1].parent)]}, split)
    assert [(image.name, image.path) for image in images] == [("a-seven", str(files[1]))]


def test_an_image_without_a_label_has_none(split: MemoryDataset) -> None:
    unlabelled = MemoryDataset(split.images, np.full(60, -1))
    assert choose({"first": 1}, unlabelled)[0].label is None


def test_photographs_are_those_of_scikit_image(split: MemoryDataset) -> None:
    preprocessing = Preprocessing(4, (0.5,) * 3, (0.5,) * 3)
    images = choose_images(
        {"photographs": list(PHOTOGRAPHS)}, FirstPixelNetwork(), preprocessing, None, CPU, KEY
    )
    assert [image.name for image in images] == ["cat", "astronaut", "coffee", "rocket"]
    assert images[0].path == "scikit-image: chelsea.png"
    middle = data.chelsea()[:, 75:375].reshape(4, 75, 4, 75, 3).mean((1, 3)).transpose(2, 0, 1)
    assert abs((images[0].x[0].numpy() * 0.5 + 0.5) * 255 - middle).max() < 25  # box filter against bilinear


@pytest.mark.parametrize("selection", [{"digits": [0]}, {"first": 1}, {"indices": [3]}])
def test_test_images_of_a_network_without_a_data_set_are_refused(selection: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{KEY}: the network has no data set"):
        choose_images(selection, FirstPixelNetwork(), PREPROCESSING, None, CPU, KEY)


def test_the_order_is_digits_indices_files(split: MemoryDataset, files: list[Path]) -> None:
    selection = {"files": [str(files[0])], "indices": [30], "first": 1, "digits": [2]}
    images = choose(selection, split)
    assert [image.name for image in images] == ["digit-2", "test-00000", "test-00030", "a-seven"]
    assert [image.index is None for image in images] == [False, False, False, True]


def test_a_file_that_cannot_be_read_is_reported_by_name(split: MemoryDataset, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no image")
    for name in ("words.png", "nowhere.png"):
        with pytest.raises(UserError, match=name):
            choose({"files": [str(tmp_path / name)]}, split)


def test_a_file_that_cannot_be_read_is_skipped_on_request(
    split: MemoryDataset, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps its name, so that the names of later files do not depend on it."""
    (tmp_path / "a-seven.png").write_text("no image")
    selection = {"files": [str(tmp_path / "a-seven.png"), str(files[0])], "on_bad_image": "skip"}
    assert [image.name for image in choose(selection, split)] == ["a-seven-2"]
    assert "skipped" in caplog.text and "a-seven.png" in caplog.text


@pytest.mark.parametrize(("brightness", "warns"), [(200, True), (20, False)])
def test_a_warning_about_a_bright_file(
    split: MemoryDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, brightness: int, warns: bool
) -> None:
    path = tmp_path / "page.png"
    Image.fromarray(np.full((4, 4), brightness, np.uint8)).save(path)
    with caplog.at_level(logging.WARNING):
        choose({"files": [str(path)]}, split)
    assert ("page.png is mostly bright" in caplog.text) is warns


def test_an_entry_of_images_json() -> None:
    probabilities = torch.tensor([0.1, 0.7, 0.2])
    test_image = SampleInput("test-00007", torch.zeros(1, 1, 4, 4), index=7, label=2)
    assert test_image.to_dict(probabilities) == {
        "name": "test-00007",
        "split": "test",
        "index": 7,
        "path": None,
        "label": 2,
        "prediction": 1,
        "probability": pytest.approx(0.7),
    }
    multi_label = test_image.to_dict(torch.tensor([0.6, 0.2, 0.9]), is_multi_label=True)
    assert multi_label["predictions"] == [
        {"class": 2, "probability": pytest.approx(0.9)},
        {"class": 0, "probability": pytest.approx(0.6)},
    ]
    own_image = SampleInput("mine", torch.zeros(1, 1, 4, 4), path="a/mine.png").to_dict(probabilities)
    assert own_image["path"] == "a/mine.png"
    assert own_image["split"] is own_image["index"] is own_image["label"] is None
