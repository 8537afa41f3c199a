"""Near-duplicates between splits: images that were planted, and no others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas.datasets import formats, near_duplicates
from convatlas.datasets.base import ImageDataset
from convatlas.datasets.near_duplicates import find_near_duplicates, write_near_duplicates
from tests.support.dataset_pass import write_digits

N_IMAGES = 20
DESCRIPTION: Any = {}  # of images of 8 bits


@pytest.fixture
def splits(tmp_path: Path) -> tuple[ImageDataset, ImageDataset]:
    """Return a test and a training split of smooth noise: four test images are made of training images."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for n in range(N_IMAGES):
            coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
            coarse.resize((120, 90), Image.Resampling.BICUBIC).save(tmp_path / f"{split}/{n}.png")
    train, test = tmp_path / "train", tmp_path / "test"
    Image.open(train / "3.png").save(test / "5.png")  # the same pixels
    Image.open(train / "7.png").resize((200, 150)).save(test / "6.png")
    Image.open(train / "9.png").point(lambda value: 0.8 * value + 20).save(test / "8.png", quality=80)
    Image.open(train / "11.png").convert("L").save(test / "10.png")
    Image.new("RGB", (120, 90), (9, 9, 9)).save(test / "12.png")
    Image.new("RGB", (120, 90), (99, 99, 99)).save(train / "12.png")
    labels, names = np.zeros(N_IMAGES, np.int64), [str(n) for n in range(N_IMAGES)]
    return tuple(  # type: ignore[return-value]
        ImageDataset(labels, names, [str(tmp_path / f"{split}/{n}.png") for n in names])
        for split in ("test", "train")
    )


@pytest.mark.parametrize("block", [256, 3])
def test_the_planted_duplicates_are_found(
    splits: tuple[ImageDataset, ImageDataset], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "TEST_BLOCK", block)
    result = find_near_duplicates(*splits, DESCRIPTION)
    assert (result["test"], result["train"]) == (N_IMAGES, N_IMAGES)
    found = {(pair["test"], pair["train"]) for pair in result["pairs"]}
    assert found == {(5, 3), (6, 7), (8, 9), (10, 11)}
    assert [pair["test"] for pair in result["pairs"] if pair["is_exact"]] == [5]
    for pair in result["pairs"]:
        grey = [
            np.asarray(
                Image.open(str(dataset.paths[index])).convert("L").resize((64, 64), Image.Resampling.BOX)
            )
            for dataset, index in zip(splits, (pair["test"], pair["train"]), strict=True)
        ]
        expected = np.corrcoef(*(values.ravel().astype(float) for values in grey))[0, 1]
        assert pair["correlation"] == pytest.approx(expected, abs=1e-3)


def test_the_first_pairs_have_thumbnails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_SHOWN_PAIRS", 2)
    write_digits(tmp_path)  # whose splits are of different noise
    images = formats.load(tmp_path / "digits", "test")
    monkeypatch.setattr(near_duplicates.formats, "load", lambda data, split: images)
    result = write_near_duplicates(tmp_path / "digits", tmp_path)
    assert len(result["pairs"]) == len(images)
    assert all(pair["is_exact"] for pair in result["pairs"])
    assert len(result["images"]) >= 2
    for image in result["images"].values():
        assert Image.open(tmp_path / image["file"]).size == tuple(image["size"]) == (28, 28)


def test_a_data_set_without_training_images_has_none(splits: tuple[ImageDataset, ImageDataset]) -> None:
    empty = ImageDataset(np.zeros(0, np.int64), [], [])
    assert find_near_duplicates(splits[0], empty, DESCRIPTION)["pairs"] == []
