"""The images looked at, with a network whose answers are known."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import Tensor, nn

from convatlas import UserError
from convatlas.images import Image, choose
from convatlas.networks import Preprocessing

KEY = "networks.own.images"
CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(4, (0.25,), (0.5,))


class Reader(nn.Module):
    """Answers with the class that is written into the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        written = (255 * (x[:, 0, 0, 0] * 0.5 + 0.25)).round().long()
        return nn.functional.one_hot(written, 256).float()


@pytest.fixture(scope="module")
def split() -> tuple[np.ndarray, np.ndarray]:
    """60 random images; the network's answer stands in the first pixel, and is right about half the time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    labels = rng.integers(0, 6, 60)
    images[:, 0, 0, 0] = np.where(rng.random(60) < 0.5, labels, rng.integers(0, 6, 60))
    images[labels == 5, 0, 0, 0] = 4  # a class that is never recognised
    return images, labels


def chosen(wanted: dict[str, Any], split: tuple[np.ndarray, np.ndarray]) -> list[Image]:
    return choose(wanted, Reader(), PREPROCESSING, *split, CPU, KEY)


def expected_x(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy((pixels / 255 - 0.25) / 0.5).float()


def assert_is(found: Image, name: str, pixels: np.ndarray, **rest: Any) -> None:
    empty = {"index": None, "path": None, "label": None}
    assert found.name == name
    torch.testing.assert_close(found.x, expected_x(pixels))
    assert {key: getattr(found, key) for key in empty} == empty | rest


def test_a_digit_is_the_first_of_its_class_that_the_network_gets_right(split: tuple) -> None:
    images, labels = split
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
def test_a_digit_that_is_never_right_is_reported(split: tuple, digit: int) -> None:
    count = int((split[1] == digit).sum())
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
def test_images_by_number(split: tuple, wanted: dict[str, Any], indices: list[int]) -> None:
    images, labels = split
    found = chosen(wanted, split)
    for image, index in zip(found, indices, strict=True):
        pixels, label = images[index : index + 1], int(labels[index])
        assert_is(image, f"test-{index:05d}", pixels, index=index, label=label)


@pytest.mark.parametrize("wanted", [{"indices": [3, 60]}, {"first": 61}])
def test_a_number_beyond_the_last_is_reported(split: tuple, wanted: dict[str, Any]) -> None:
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


def test_files_are_read_and_named_by_their_stem(split: tuple, files: list[Path]) -> None:
    found = chosen({"files": [str(path) for path in files]}, split)
    for n, (image, name) in enumerate(zip(found, ["a-seven", "a-seven-2"], strict=True)):
        pixels = np.arange(16).reshape(1, 1, 4, 4) + 10 * n
        assert_is(image, name, pixels, path=str(files[n]))


def test_kinds_are_combined_digits_first_then_numbers_then_files(split: tuple, files: list[Path]) -> None:
    wanted = {"files": [str(files[0])], "indices": [30], "first": 1, "digits": [2]}
    found = chosen(wanted, split)
    assert [image.name for image in found] == ["digit-2", "test-00000", "test-00030", "a-seven"]
    assert [image.index is None for image in found] == [False, False, False, True]


def test_a_file_that_cannot_be_read_is_reported_by_name(split: tuple, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no image")
    for name in ("words.png", "nowhere.png"):
        with pytest.raises(UserError, match=name):
            chosen({"files": [str(tmp_path / name)]}, split)


@pytest.mark.parametrize(("brightness", "warns"), [(200, True), (20, False)])
def test_a_bright_file_is_warned_of(
    split: tuple, tmp_path: Path, caplog: pytest.LogCaptureFixture, brightness: int, warns: bool
) -> None:
    path = tmp_path / "page.png"
    Picture.fromarray(np.full((4, 4), brightness, np.uint8)).save(path)
    with caplog.at_level(logging.WARNING):
        chosen({"files": [str(path)]}, split)
    assert ("page.png is mostly bright" in caplog.text) is warns


def test_an_entry_of_images_json() -> None:
    probabilities = torch.tensor([0.1, 0.7, 0.2])
    of_test = Image("test-00007", torch.zeros(1, 1, 4, 4), index=7, label=2)
    assert of_test.described(probabilities) == {
        "name": "test-00007",
        "split": "test",
        "index": 7,
        "path": None,
        "label": 2,
        "prediction": 1,
        "probability": pytest.approx(0.7),
    }
    mine = Image("mine", torch.zeros(1, 1, 4, 4), path="a/mine.png").described(probabilities)
    assert [mine["split"], mine["index"], mine["path"], mine["label"]] == [None, None, "a/mine.png", None]
