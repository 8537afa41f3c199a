"""The data set of crops of real photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas import UserError
from convatlas.datasets import formats, photographs
from tests.support.workspace import read_files

SETTINGS = {"format": "images", "source": "embedded", "test_share": 0.2, "on_bad_image": "error"}
KEY = "datasets.photographs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photographs"
    formats.prepare(folder, SETTINGS, KEY)
    return folder


def test_the_crops_are_test_images_without_labels(folder: Path) -> None:
    dataset = formats.load(folder, "test")
    assert 400 <= len(dataset) <= 450
    assert (dataset.labels == -1).all()
    assert len(formats.load(folder, "train")) == 0
    assert dataset.names[0].startswith("astronaut-whole-0-0")


def test_each_photograph_has_its_source_and_licence(folder: Path) -> None:
    description = formats.describe(folder)
    credits = description["credits"]
    assert sum(credit["crops"] for credit in credits) == len(formats.load(folder, "test"))
    assert all(credit["author"] and credit["licence"] and "://" in credit["url"] for credit in credits)


def test_two_runs_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    formats.prepare(tmp_path / "again", SETTINGS, KEY)
    assert read_files(tmp_path / "again") == read_files(folder)


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (256, 256), (1411, 1411)])
def test_the_crops_of_each_scale_cover_the_image(width: int, height: int) -> None:
    numbers = np.arange(width * height, dtype=np.int32).reshape(height, width)
    image = Image.fromarray(numbers, "I")
    for scale in photographs.SCALES:
        crops = [crop for name, crop in photographs.crop_squares(image) if name.startswith(scale)]
        assert all(crop.width == crop.height <= photographs.MAX_SIDE for crop in crops)
        if crops[0].width < photographs.MAX_SIDE:  # not reduced
            assert (
                len(np.unique(np.concatenate([np.asarray(crop).ravel() for crop in crops])))
                == image.width * image.height
            )


def test_a_missing_photograph_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photographs.FOLDERS, photographs.SCIKIT_IMAGE, "nowhere")
    with pytest.raises(UserError, match=rf"{KEY}.source: astronaut.png is missing from the package skimage"):
        formats.prepare(tmp_path / "photographs", SETTINGS, KEY)
    assert not (tmp_path / "photographs/dataset.json").exists()
