"""The images looked at, with a network whose answers are known."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from skimage import data
from torch import Tensor, nn

from convatlas import UserError
from convatlas.datasets.base import ImageDataset
from convatlas.datasets.sample_images import PHOTOGRAPHS, SampleInput, choose_images, compute_probabilities
from convatlas.models.preprocessing import Preprocessing

KEY = "networks.own.images"
CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(4, (0.25,), (0.5,))


class Reader(nn.Module):
    """Answers with the class that is written into the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        written = (255 * (x[:, 0, 0, 0] * 0.5 + 0.25)).round().long()
        return nn.functional.one_hot(written, 256).float()


class Held(ImageDataset):
    """A test split whose images are at hand, not in files."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__(labels, [str(n) for n in range(len(labels))], [None] * len(labels))
        self.__dict__["images"] = images

    def read_image(self, n: int, mode: str) -> Picture.Image:
        return Picture.fromarray(self.images[n, 0]).convert(mode)


@pytest.fixture(scope="module")
def split() -> Held:
    """60 random images; the network's answer stands in the first pixel, and is right about half the time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    labels = rng.integers(0, 6, 60)
    images[:, 0, 0, 0] = np.where(rng.random(60) < 0.5, labels, rng.integers(0, 6, 60))
    images[labels == 5, 0, 0, 0] = 4  # a class that is never recognised
    return Held(images, labels)


def chosen(wanted: dict[str, Any], split: Held) -> list[SampleInput]:
    return choose_images(wanted, Reader(), PREPROCESSING, split, CPU, KEY)


def expected_x(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy((pixels / 255 - 0.25) / 0.5).float()


def assert_is(found: SampleInput, name: str, pixels: np.ndarray, **rest: Any) -> None:
    empty = {"index": None, "path": None, "label": None}
    assert found.name == name
    torch.testing.assert_close(found.x, expected_x(pixels))
    assert {key: getattr(found, key) for key in empty} == empty | rest


def test_a_digit_is_the_first_of_its_class_that_the_network_gets_right(split: Held) -> None:
    images, labels = split.images, split.labels
    digits = [3, 0, 4, 1, 2]
    firsts = []
    for digit in digits:
        right = [n for n in range(60) if labels[n] == digit and images[n, 0, 0, 0] == digit]
        firsts.append(right[0])
    assert any(list(labels).index(digit) != first for digit, first in zip(digits, firsts, strict=True))
    found = chosen({"digits": digits}, split)
    for image, digit, first in zip(found, digits, firsts, strict=True):
        assert_is(image, f"digit-{digit}", images[first : first + 1], index=first, label=digit)


@pytest.mark.parametrize("digit", [5, 9])
def test_a_digit_that_is_never_right_is_reported(split: Held, digit: int) -> None:
    count = int((split.labels == digit).sum())
    with pytest.raises(UserError, match=rf"{KEY}\.digits: none of the {count} .* class {digit} "):
        chosen({"digits": [0, digit]}, split)


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ({"first": 3}, [0, 1, 2]),
        ({"indices": [7, 2, 59]}, [7, 2, 59]),
        ({"first": 2, "indices": [9, 1]}, [0, 1, 9]),
        ({}, []),
    ],
)
def test_images_by_number(split: Held, wanted: dict[str, Any], indices: list[int]) -> None:
    images, labels = split.images, split.labels
    found = chosen(wanted, split)
    for image, index in zip(found, indices, strict=True):
        pixels, label = images[index : index + 1], int(labels[index])
        assert_is(image, f"test-{index:05d}", pixels, index=index, label=label)


@pytest.mark.parametrize("wanted", [{"indices": [3, 60]}, {"first": 61}])
def test_a_number_beyond_the_last_is_reported(split: Held, wanted: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{KEY}: there is no test image 60; there are 60, counted from 0"):
        chosen(wanted, split)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two dark files of one stem."""
    paths = [tmp_path / "a seven.png", tmp_path / "more/a seven.bmp"]
    paths[1].parent.mkdir()
    for n, path in enumerate(paths):
        Picture.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) + 10 * n).save(path)
    return paths


def test_files_are_read_and_named_by_their_stem(split: Held, files: list[Path]) -> None:
    found = chosen({"files": [str(path) for path in files]}, split)
    for n, (image, name) in enumerate(zip(found, ["a-seven", "a-seven-2"], strict=True)):
        pixels = np.arange(16).reshape(1, 1, 4, 4) + 10 * n
        assert_is(image, name, pixels, path=str(files[n]))


def test_a_folder_stands_for_its_images(split: Held, files: list[Path]) -> None:
    found = chosen({"files": [str(files[1].parent)]}, split)
    assert [(image.name, image.path) for image in found] == [("a-seven", str(files[1]))]


def test_an_image_without_a_label_has_none(split: Held) -> None:
    unlabelled = Held(split.images, np.full(60, -1))
    assert chosen({"first": 1}, unlabelled)[0].label is None


def test_photographs_are_scikit_images(split: Held) -> None:
    preprocessing = Preprocessing(4, (0.5,) * 3, (0.5,) * 3)
    found = choose_images({"photographs": list(PHOTOGRAPHS)}, Reader(), preprocessing, None, CPU, KEY)
    assert [image.name for image in found] == ["cat", "astronaut", "coffee", "rocket"]
    assert found[0].path == "scikit-image: chelsea.png"
    middle = data.chelsea()[:, 75:375].reshape(4, 75, 4, 75, 3).mean((1, 3)).transpose(2, 0, 1)
    assert abs((found[0].x[0].numpy() * 0.5 + 0.5) * 255 - middle).max() < 25  # of box against bilinear


@pytest.mark.parametrize("wanted", [{"digits": [0]}, {"first": 1}, {"indices": [3]}])
def test_test_images_of_a_network_without_a_data_set_are_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{KEY}: the network has no data set"):
        choose_images(wanted, Reader(), PREPROCESSING, None, CPU, KEY)


def test_kinds_are_combined_digits_first_then_numbers_then_files(split: Held, files: list[Path]) -> None:
    wanted = {"files": [str(files[0])], "indices": [30], "first": 1, "digits": [2]}
    found = chosen(wanted, split)
    assert [image.name for image in found] == ["digit-2", "test-00000", "test-00030", "a-seven"]
    assert [image.index is None for image in found] == [False, False, False, True]


def test_a_file_that_cannot_be_read_is_reported_by_name(split: Held, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no image")
    for name in ("words.png", "nowhere.png"):
        with pytest.raises(UserError, match=name):
            chosen({"files": [str(tmp_path / name)]}, split)


def test_a_file_that_cannot_be_read_is_left_out_where_asked(
    split: Held, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps its name to itself, so that those after it are called what they would be."""
    (tmp_path / "a-seven.png").write_text("no image")
    wanted = {"files": [str(tmp_path / "a-seven.png"), str(files[0])], "on_bad_image": "skip"}
    assert [image.name for image in chosen(wanted, split)] == ["a-seven-2"]
    assert "skipped" in caplog.text and "a-seven.png" in caplog.text


@pytest.mark.parametrize(("brightness", "warns"), [(200, True), (20, False)])
def test_a_bright_file_is_warned_of(
    split: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture, brightness: int, warns: bool
) -> None:
    path = tmp_path / "page.png"
    Picture.fromarray(np.full((4, 4), brightness, np.uint8)).save(path)
    with caplog.at_level(logging.WARNING):
        chosen({"files": [str(path)]}, split)
    assert ("page.png is mostly bright" in caplog.text) is warns


def test_an_entry_of_images_json() -> None:
    probabilities = torch.tensor([0.1, 0.7, 0.2])
    of_test = SampleInput("test-00007", torch.zeros(1, 1, 4, 4), index=7, label=2)
    assert of_test.to_dict(probabilities) == {
        "name": "test-00007",
        "split": "test",
        "index": 7,
        "path": None,
        "label": 2,
        "prediction": 1,
        "probability": pytest.approx(0.7),
    }
    mine = SampleInput("mine", torch.zeros(1, 1, 4, 4), path="a/mine.png").to_dict(probabilities)
    assert [mine["split"], mine["index"], mine["path"], mine["label"]] == [None, None, "a/mine.png", None]


def test_what_an_output_says_of_the_classes() -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0]])
    expected = logits[0].softmax(0)
    for output in (logits, logits.log_softmax(1), expected[None], {"out": logits, "aux": 0}, (logits, 0)):
        torch.testing.assert_close(compute_probabilities(output), expected)
    assert compute_probabilities(torch.zeros(1, 3, 8, 8)) is None
