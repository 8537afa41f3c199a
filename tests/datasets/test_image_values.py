"""Data sets of any number of channels and data type: prepared, checked, read, cached, previewed."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from convatlas import UserError
from convatlas.datasets import cache, formats, previews
from convatlas.datasets.image_values import check_dataset_values
from convatlas.pixels import GREY, RGB, PixelFormat

SETTINGS: Any = {"format": "images", "test_share": 0.5, "on_bad_image": "error"}
FIVE = PixelFormat(5, (0, 4095))


def prepare(folder: Path, **changes: Any) -> Path:
    """Prepare the data set of the files in `folder`/source."""
    settings = SETTINGS | {"source": str(folder / "source")} | changes
    formats.prepare(folder / "data", settings, "datasets.mine")
    return folder / "data"


@pytest.fixture
def scenes(tmp_path: Path) -> np.ndarray:
    """Write scenes of five channels, 12 bits in 16: .npy, .npz and .tif; return them, (6, 8, 10, 5)."""
    values = np.random.default_rng(0).integers(0, 4096, (6, 8, 10, 5)).astype(np.uint16)
    values[0, 0, 0], values[0, 0, 1] = 0, 4095
    (tmp_path / "source").mkdir()
    for n, scene in enumerate(values):
        path = tmp_path / f"source/{n}"
        if n % 3 == 0:
            np.save(path.with_suffix(".npy"), np.moveaxis(scene, 2, 0))
        elif n % 3 == 1:
            np.savez(path.with_suffix(".npz"), scene)
        else:
            tifffile.imwrite(path.with_suffix(".tif"), np.moveaxis(scene, 2, 0), photometric="minisblack")
    return values


def test_scenes_of_five_channels(
    tmp_path: Path, scenes: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    data = prepare(tmp_path)
    description = formats.describe(data)
    (group,) = description["values"]
    assert (group["channels"], group["dtype"], group["images"]) == (5, "uint16", 6)
    assert (group["min"], group["max"], group["range"]) == (0, 4095, [0, 65535])
    assert description["image_sizes"]["median"] == [8, 10]
    with caplog.at_level(logging.INFO):
        check_dataset_values(description, FIVE, "mine", "networks.own.input")
    assert "6 images of datasets.mine: uint16 values from 0 to 4095; 0 to 4095" in caplog.text
    pixels = formats.load(data, "test").read_images(FIVE, (8, 10), "stretch")
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, scenes.transpose(0, 3, 1, 2) / 4095 * 255, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(cache.load_images(data, "test", FIVE, (8, 10), "stretch"), pixels)
    np.testing.assert_array_equal(cache.find_cached_images(data, "test", FIVE, (8, 10), "stretch"), pixels)
    assert cache.find_cached_images(data, "test", PixelFormat(5), (8, 10), "stretch") is None
    (tmp_path / "out").mkdir()
    preview = previews.write_previews(data, tmp_path / "out")["test"][0]
    shown = np.asarray(Image.open(tmp_path / "out" / preview["file"]))
    np.testing.assert_array_equal(shown, np.round(scenes[0, ..., :3] / 4095 * 255))


def test_what_a_network_does_not_take_is_refused_before_training(
    tmp_path: Path, scenes: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    description = formats.describe(prepare(tmp_path))
    with pytest.raises(
        UserError, match=r"6 images of datasets\.mine have 5 channels, and the network takes 3"
    ):
        check_dataset_values(description, RGB, "mine", "networks.own.input")
    check_dataset_values(description, PixelFormat(5), "mine", "networks.own.input")
    assert "little contrast; if these are all values, set networks.own.input.range: [0, 4095]" in caplog.text
    description["values"][0] |= {"dtype": "float32", "range": [0, 1]}
    with pytest.raises(UserError, match=r"set networks\.own\.input\.range: \[0, 4095\]"):
        check_dataset_values(description, PixelFormat(5), "mine", "networks.own.input")
    del description["values"]
    check_dataset_values(description, GREY, "mine", "networks.own.input")
    with pytest.raises(UserError, match=r"datasets\.mine have 3 channels, and the network takes 5"):
        check_dataset_values(description, FIVE, "mine", "networks.own.input")


def test_files_of_8_and_16_bits_are_mixed(tmp_path: Path) -> None:
    plane = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "source").mkdir()
    Image.fromarray(plane).save(tmp_path / "source/a.png")
    Image.fromarray(plane.astype(np.uint16) * 257).save(tmp_path / "source/b.png")
    data = prepare(tmp_path)
    pixels = formats.load(data, "test").read_images(GREY, (16, 16), "stretch")
    np.testing.assert_allclose(pixels[0], pixels[1], atol=1e-4)
    np.testing.assert_array_equal(pixels[0, 0], plane)


def test_plain_images_stay_bytes_and_need_no_entry(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Image.new("RGB", (9, 8), "red").save(tmp_path / "source/a.png")
    data = prepare(tmp_path)
    assert "values" not in formats.describe(data)
    assert formats.load(data, "test").read_images(RGB, (8, 8), "cover").dtype == np.uint8


def test_images_with_nan_are_faulty(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    values = np.full((4, 4), 0.5, np.float32)
    np.save(tmp_path / "source/a.npy", values)
    values[1, 2] = np.nan
    np.save(tmp_path / "source/b.npy", values)
    with pytest.raises(UserError, match=r"b\.npy .*NaN\) in row 1, column 2"):
        prepare(tmp_path)
    (skipped,) = formats.describe(prepare(tmp_path, on_bad_image="skip"))["skipped"]
    assert skipped["path"] == "images/b.npy"
