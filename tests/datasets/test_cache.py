"""Images and masks decoded once: the same arrays, read from a file that is made anew with the data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas import image_io
from convatlas.datasets import cache, formats
from convatlas.datasets.base import IGNORE_INDEX
from convatlas.datasets.synthetic_pets.generate import draw_pets

SETTINGS: dict[str, Any] = {"target": "species", "on_bad_image": "error", "mirrors": []}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "drawn").mkdir()
    draw_pets(tmp_path / "drawn", count=36)
    return prepared(tmp_path)


def prepared(folder: Path) -> Path:
    settings = {"format": "oxford-iiit-pet", "source": str(folder / "drawn")} | SETTINGS
    formats.prepare(folder / "pets", settings, "datasets.pets")
    return folder / "pets"


@pytest.mark.parametrize("resize", ["stretch", 20, 40])
def test_the_arrays_are_those_of_the_files(made: Path, resize: int | str) -> None:
    """A shorter side of 20 leaves the image's surroundings unknown in a mask of 32."""
    for split in ("train", "test"):
        examples = formats.load(made, split)
        found = cache.load_images(made, split, "RGB", 32, resize)
        np.testing.assert_array_equal(found, examples.read_images("RGB", 32, resize))
        masks = cache.load_masks(made, split, 32, resize)
        assert masks.shape == (len(examples), 32, 32)
        trimaps = [
            image_io.resize_to(examples.read_trimap(n), 32, resize, "nearest") for n in range(len(examples))
        ]
        expected = np.stack(trimaps)[..., 0].astype(int) - 1
        np.testing.assert_array_equal(masks, np.where(expected < 0, IGNORE_INDEX, expected))
        assert set(np.unique(masks)) <= {0, 1, 2, IGNORE_INDEX}


def test_files_are_decoded_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array(cache.load_images(made, "test", "RGB", 16, "stretch"))
    monkeypatch.setattr(image_io, "read_image", None)
    np.testing.assert_array_equal(cache.load_images(made, "test", "RGB", 16, "stretch"), first)


def test_what_is_changed_in_memory_is_not_changed_on_disk(made: Path) -> None:
    found = cache.load_masks(made, "test", 16, "stretch")
    found[:] = 7
    assert not (cache.load_masks(made, "test", 16, "stretch") == 7).any()


def test_an_edit_of_the_data_makes_it_anew(made: Path) -> None:
    before = np.array(cache.load_images(made, "train", "RGB", 16, "stretch"))
    path = Path(str(formats.load(made, "train").paths[0])).resolve()
    with Image.open(path) as image:
        image.convert("L").save(path)
    prepared(made.parent)
    after = cache.load_images(made, "train", "RGB", 16, "stretch")
    assert not np.array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1:], before[1:])
    assert len(list((made / "cache").iterdir())) == 1
