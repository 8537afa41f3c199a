"""Batches of a split in their order, decoded ahead by threads, and images that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convatlas import UserError
from convatlas.datasets import cache, formats, sample_images
from convatlas.datasets.loader import BatchLoader
from convatlas.models.preprocessing import Preprocessing
from convatlas.pixels import RGB, PixelFormat
from convatlas.statistics.shards import shard_batches
from tests.support.dataset_pass import write_photographs

PREPROCESSING = Preprocessing(40, (0.5,) * 3, (0.25,) * 3)


def test_batches_come_in_order_with_the_pixels_of_the_files(tmp_path: Path) -> None:
    data = write_photographs(tmp_path)
    loader = BatchLoader(data, "test", PREPROCESSING, 5)
    assert len(loader) == 3
    batches = list(loader.read_batches([0, 1, 2]))
    assert [batch.index for batch in batches] == [0, 1, 2]
    np.testing.assert_array_equal(np.concatenate([batch.indices for batch in batches]), np.arange(12))
    expected = formats.load(data, "test").read_images(RGB, (40, 40), "cover")
    np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in batches]), expected)
    cache.load_images(data, "test", RGB, (40, 40), "cover")
    for path in (tmp_path / "source").rglob("*.png"):
        path.unlink()
    (cached,) = BatchLoader(data, "test", PREPROCESSING, 5).read_batches([2])
    np.testing.assert_array_equal(cached.pixels, expected[10:])


def test_images_are_read_as_they_are_for_activations(tmp_path: Path) -> None:
    """By the network's own interpolation, which is bicubic for some of torchvision's weights."""
    data = write_photographs(tmp_path)
    preprocessing = Preprocessing(32, (0.5,) * 3, (0.5,) * 3, 40, "bicubic")
    test = formats.load(data, "test")
    expected = np.concatenate([preprocessing.read_pixels(path).numpy() for path in test.paths])
    for is_cached in (False, True):
        (batch,) = BatchLoader(data, "test", preprocessing, len(test)).read_batches([0])
        np.testing.assert_array_equal(batch.pixels, expected)
        if not is_cached:
            cache.load_images(data, "test", RGB, (32, 32), 40)  # of another interpolation
            cached = cache.load_images(data, "test", RGB, (32, 32), 40, "bicubic")
            np.testing.assert_array_equal(cached, expected)
    (image,) = sample_images.choose_images(
        {"indices": [3]}, nn.Identity(), preprocessing, test, torch.device("cpu"), "networks.own.images"
    )
    assert torch.equal(image.x, preprocessing(torch.from_numpy(expected[3:4])))


def test_only_the_requested_batches_are_read(tmp_path: Path) -> None:
    data = write_photographs(tmp_path)
    for path in formats.load(data, "test").paths[4:]:
        Path(str(path)).resolve().unlink()
    loader = BatchLoader(data, "test", PREPROCESSING, 4)
    assert len(list(loader.read_batches(range(1)))) == 1
    with pytest.raises(UserError, match="on_bad_image"):
        list(loader.read_batches(range(2)))


class MillionImages:
    """A data set of a million image files and one more, the last, that cannot be read."""

    paths, names = [Path("somewhere")], {1_000_000: "ant/1000000.png"}
    has_image_files = is_plain = True
    read_images, get_dtype = formats.ImageDataset.read_images, formats.ImageDataset.get_dtype
    _cast = formats.ImageDataset._cast

    def __len__(self) -> int:
        return 1_000_001

    def read_pixels(self, n: int, pixel_format: PixelFormat) -> np.ndarray:
        if n == 1_000_000:
            raise UserError("ant/1000000.png: not an image")
        return np.zeros((40, 40, pixel_format.channels), np.uint8)


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_an_unreadable_image_after_a_million_others(
    on_bad_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "load", lambda folder, split: MillionImages())
    monkeypatch.setattr(cache, "find_cached_images", lambda *args: None)
    loader = BatchLoader(tmp_path / "ants", "test", PREPROCESSING, 8, on_bad_image)
    (last_index,) = shard_batches(len(loader) - 1, len(loader), len(loader))
    if on_bad_image == "error":
        with pytest.raises(UserError, match=r"1000000\.png: not an image; .* datasets\.ants\."):
            list(loader.read_batches([last_index]))
        return
    before, last = loader.read_batches([last_index - 1, last_index])
    assert before.indices.tolist() == list(range(999_992, 1_000_000))
    assert (len(last.indices), len(last.pixels), last.index) == (0, 0, 125_000)
    assert loader.skipped == [
        {"image": 1_000_000, "name": "ant/1000000.png", "reason": "ant/1000000.png: not an image"}
    ]
