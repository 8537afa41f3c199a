"""Images and masks decoded once: the same arrays, read from a file that is data anew with the data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas import image_io, pixels
from convatlas.datasets import cache, formats
from convatlas.datasets.base import IGNORE_INDEX
from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.pixels import RGB

SETTINGS: dict[str, Any] = {"target": "species", "on_bad_image": "error", "mirrors": []}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the folder of a small prepared data set."""
    (tmp_path / "source").mkdir()
    draw_pets(tmp_path / "source", count=36)
    return prepare_pets(tmp_path)


def prepare_pets(folder: Path) -> Path:
    """Prepare the data set of folder/source in folder/pets."""
    settings = {"format": "oxford-iiit-pet", "source": str(folder / "source")} | SETTINGS
    formats.prepare(folder / "pets", settings, "datasets.pets")
    return folder / "pets"


@pytest.mark.parametrize("resize", ["stretch", 20, 40])
def test_cached_arrays_equal_the_files(data: Path, resize: int | str) -> None:
    """With a shorter side of 20 the mask of 32 is padded with pixels that are ignored."""
    for split in ("train", "test"):
        dataset = formats.load(data, split)
        result = cache.load_images(data, split, RGB, (32, 32), resize)
        np.testing.assert_array_equal(result, dataset.read_images(RGB, (32, 32), resize))
        masks = cache.load_masks(data, split, (32, 32), resize)
        assert masks.shape == (len(dataset), 32, 32)
        trimaps = [
            image_io.resize_to(dataset.read_trimap(n), 32, resize, "nearest") for n in range(len(dataset))
        ]
        expected = np.stack(trimaps)[..., 0].astype(int) - 1
        np.testing.assert_array_equal(masks, np.where(expected < 0, IGNORE_INDEX, expected))
        assert set(np.unique(masks)) <= {0, 1, 2, IGNORE_INDEX}


def test_files_are_decoded_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array(cache.load_images(data, "test", RGB, (16, 16), "stretch"))
    monkeypatch.setattr(pixels, "read_stored_image", None)
    np.testing.assert_array_equal(cache.load_images(data, "test", RGB, (16, 16), "stretch"), first)


def test_a_change_in_memory_does_not_change_the_file(data: Path) -> None:
    result = cache.load_masks(data, "test", (16, 16), "stretch")
    result[:] = 7
    assert not (cache.load_masks(data, "test", (16, 16), "stretch") == 7).any()


def test_a_change_of_the_data_replaces_the_cache(data: Path) -> None:
    before = np.array(cache.load_images(data, "train", RGB, (16, 16), "stretch"))
    path = Path(str(formats.load(data, "train").paths[0])).resolve()
    with Image.open(path) as image:
        image.convert("L").save(path)
    prepare_pets(data.parent)
    after = cache.load_images(data, "train", RGB, (16, 16), "stretch")
    assert not np.array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1:], before[1:])
    assert len(list((data / "cache").iterdir())) == 1
