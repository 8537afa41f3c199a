"""Folders of image files, with and without classes."""

import hashlib
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from convatlas import UserError
from convatlas.datasets import base
from convatlas.datasets.formats import describe, load, prepare
from convatlas.pixels import GREY, RGB
from convatlas.records import DatasetDescription

KEY = "datasets.d"
SETTINGS = {"format": "images", "test_share": 0.2, "on_bad_image": "error"}


def write_image(path: Path, height: int = 12, width: int = 10) -> Path:
    """Write a PNG, whatever the path's suffix, that differs from all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(os.fsencode(path.name) + os.fsencode(path.parent.name)))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path, "PNG")
    return path


def prepare_folder(folder: Path, source: Path | str, **settings: Any) -> DatasetDescription:
    """Prepare a data set named d and return its description."""
    prepare(folder, SETTINGS | {"source": str(source)} | settings, KEY)
    return describe(folder)


def read_refusal(tmp_path: Path, source: Path | str, **settings: Any) -> str:
    """Return the error message of a source that is refused; nothing is written."""
    with pytest.raises(UserError) as error:
        prepare_folder(tmp_path / "data", source, **settings)
    assert KEY in str(error.value)
    assert list((tmp_path / "data").rglob("*")) == []
    return str(error.value)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder of 10 cats, 7 dogs and a single emu."""
    for name, count in {"dog": 7, "cat": 10, "emu": 1}.items():
        for n in range(count):
            write_image(tmp_path / f"source/{name}/{n}.png")
    return tmp_path / "source"


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_classes_are_split_by_the_hashes_of_the_names(tmp_path: Path, source: Path, share: float) -> None:
    description = prepare_folder(tmp_path / "data", source, test_share=share)
    assert description["classes"] == ["cat", "dog", "emu"]
    train, test = (load(tmp_path / "data", split) for split in ("train", "test"))
    for label, (name, count) in enumerate({"cat": 10, "dog": 7, "emu": 1}.items()):
        names = [f"{name}/{n}.png" for n in range(count)]
        test_count = 1 if count == 1 else min(math.ceil(share * count), count - 1)
        test_names = sorted(names, key=lambda path: hashlib.sha256(path.encode()).hexdigest())[:test_count]
        for split, expected in ((test, set(test_names)), (train, set(names).difference(test_names))):
            assert [n for n in split.names if n.startswith(name)] == sorted(expected)
            assert sum(split.labels == label) == len(expected)
        assert description["counts"]["train"][label] == count - test_count
        assert description["counts"]["test"][label] == test_count


def test_a_class_whose_name_is_not_text_is_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "source" / os.fsdecode(b"\xff") / "a.png")
    assert "rename" in read_refusal(tmp_path, tmp_path / "source")


def test_a_share_that_is_a_whole_number_of_images_is_exact(tmp_path: Path) -> None:
    """0.28 times 25 is above 7 in floating point."""
    for n in range(25):
        write_image(tmp_path / f"source/cat/{n}.png")
    assert prepare_folder(tmp_path / "data", tmp_path / "source", test_share=0.28)["counts"]["test"] == [7]


def test_a_folder_without_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"b.png": (30, 20), 'a,"1".JPG': (8, 50), "c.webp": (10, 10), "é\r\n.gif": (40, 40)}
    for name, size in sizes.items():
        write_image(tmp_path / "source" / name, *size)  # PNG by content, all of them
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time replaces the first
        description = prepare_folder(Path("data"), "source")
    monkeypatch.chdir("/")
    assert (tmp_path / "data/images").is_symlink()
    assert (tmp_path / "data/images").samefile(tmp_path / "source")
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"images", "splits.csv", "dataset.json"}
    assert (description["classes"], description["target"]) == ([], None)
    assert description["counts"] == {"train": [0], "test": [4]}
    assert description["image_sizes"] == {"smallest": [10, 10], "median": [8, 50], "largest": [40, 40]}
    assert len(load(tmp_path / "data", "train")) == 0
    assert load(tmp_path / "data", "train").read_images(RGB, (8, 8), 8).shape == (0, 3, 8, 8)
    test = load(tmp_path / "data", "test")
    assert test.names == sorted(sizes)
    assert test.labels.tolist() == [-1] * 4
    for n, name in enumerate(test.names):
        height, width = sizes[name]
        assert Path(str(test.paths[n])).samefile(tmp_path / "source" / name)
        assert test.read_pixels(n, GREY).shape == (height, width, 1)


def test_a_name_that_is_not_text_is_kept(tmp_path: Path) -> None:
    path = write_image(tmp_path / "source" / os.fsdecode(b"\xff\xfe.png"))
    prepare_folder(tmp_path / "data", tmp_path / "source")
    assert Path(str(load(tmp_path / "data", "test").paths[0])).samefile(path)


def test_other_files_are_ignored(tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = prepare_folder(tmp_path / "data", source)
    others = ["cat/notes.txt", "cat/.hidden.png", "Thumbs.db", "empty/readme", ".git/a.png", "cat/deep/a.png"]
    for name in others:
        write_image(source / name)
    with caplog.at_level(logging.INFO, "convatlas"):
        assert prepare_folder(tmp_path / "data", source) == before
    assert "4 other and hidden files" in caplog.text
    assert "empty holds no image files" in caplog.text
    assert "class emu has 1 usable image" in caplog.text


def test_the_hash_is_of_the_contents(tmp_path: Path, source: Path) -> None:
    first = prepare_folder(tmp_path / "data", source)["sha256"]
    assert prepare_folder(tmp_path / "data", source, test_share=0.5)["sha256"] != first, "the splits count"
    source.rename(tmp_path / "elsewhere")
    assert prepare_folder(tmp_path / "data", tmp_path / "elsewhere")["sha256"] == first
    (tmp_path / "elsewhere/cat/3.png").write_bytes((tmp_path / "elsewhere/cat/4.png").read_bytes())
    assert prepare_folder(tmp_path / "data", tmp_path / "elsewhere")["sha256"] != first


def test_bad_images_are_an_error_or_skipped(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert prepare_folder(tmp_path / "good", source)["skipped"] == []
    (source / "dog/3.png").write_bytes((source / "dog/3.png").read_bytes()[:200])
    (source / "cat" / os.fsdecode(b"\xff.png")).write_text("no image")
    (source / "cat/lost.png").symlink_to("nowhere")
    message = read_refusal(tmp_path, source)
    for words in (
        "3 of 20 images cannot be used",
        f"image missing: 1, the first is {source}/cat/lost.png",
        f"image that cannot be read: 2, the first is {source}/cat/",
        f"{KEY}.on_bad_image: skip",
    ):
        assert words in message
    description = prepare_folder(tmp_path / "data", source, on_bad_image="skip")
    assert [sum(pair) for pair in zip(*description["counts"].values(), strict=True)] == [10, 6, 1]
    assert {file["path"]: file["reason"] for file in description["skipped"]} == {
        "images/cat/lost.png": "image missing",
        "images/cat/\N{REPLACEMENT CHARACTER}.png": "image that cannot be read: no image",
        "images/dog/3.png": "image that cannot be read: image file is truncated",
    }
    messages = [record.message for record in caplog.records if "skipped" in record.message]
    assert all(
        file["path"] in message for file, message in zip(description["skipped"], messages, strict=True)
    )
    for path in source.glob("*/*.png"):
        path.unlink()
        path.write_text("no image")
    with pytest.raises(UserError, match="none of 20"):
        prepare_folder(tmp_path / "data", source, on_bad_image="skip")
    assert describe(tmp_path / "data") == description


def test_not_all_images_of_a_class_or_split_are_skipped(tmp_path: Path, source: Path) -> None:
    (source / "emu/0.png").write_text("no image")
    assert "no image in the class emu;" in read_refusal(tmp_path, source, on_bad_image="skip")
    for name in ("a", "b"):
        write_image(tmp_path / f"few/ant/{name}.png")
    assert prepare_folder(tmp_path / "data", tmp_path / "few")["counts"] == {"train": [1], "test": [1]}
    (tmp_path / "few/ant/a.png").write_text("no image")
    with pytest.raises(UserError, match="no image in the split train;"):
        prepare_folder(tmp_path / "data", tmp_path / "few", on_bad_image="skip")


def test_what_readers_ignore_is_not_a_fault(tmp_path: Path) -> None:
    """Extraneous bytes in a JPEG, as in two official photographs of pets, and rotated images."""
    (tmp_path / "source").mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    image.save(tmp_path / "source/a.jpg")
    content = (tmp_path / "source/a.jpg").read_bytes()
    (tmp_path / "source/b.jpg").write_bytes(content[:-2] + b"\0" * 200 + content[-2:])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "source/c.jpg", exif=exif)
    description = prepare_folder(tmp_path / "data", tmp_path / "source")
    assert description["counts"] == {"train": [0], "test": [3]}
    assert description["image_sizes"]["smallest"] == [30, 40]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("download", ["download", "is not available"]),
        ("nowhere", ["no directory 'nowhere'"]),
        ("empty", ["empty holds no image files"]),
        ("both", ["both holds both", "a.png", "cat/"]),
        ("data/images", ["output folder"]),
        ("data", ["output folder"]),
    ],
)
def test_unsuitable_sources_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write_image(Path("both/a.png"))
    write_image(Path("both/cat/a.png"))
    if source.startswith("data"):
        write_image(Path("data/images/a.png"))
        with pytest.raises(UserError, match=rf"{KEY}\.source: .*output folder"):
            prepare_folder(Path("data"), source)
        assert Path("data/images/a.png").is_file()
        return
    message = read_refusal(Path(), source)
    for word in [*words, f"{KEY}.source", "folder of image files"]:
        assert word in message


def test_progress_is_logged(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "PROGRESS_INTERVAL", 3)
    prepare_folder(tmp_path / "data", source, test_share=0.4)
    caplog.clear()
    with caplog.at_level(logging.INFO, "convatlas"):
        load(tmp_path / "data", "test").read_images(GREY, (8, 8), 8)
    assert [record.message for record in caplog.records] == ["read 3 of 8 images", "read 6 of 8 images"]


def test_damaged_splits_are_reported(tmp_path: Path, source: Path) -> None:
    prepare_folder(tmp_path / "data", source)
    splits = tmp_path / "data/splits.csv"
    for content in ("split,label\ntrain,0\n", "split,label,path\ntrain,x,images/a.png\n"):
        splits.write_text(content)
        with pytest.raises(UserError, match=r"splits\.csv is damaged"):
            load(tmp_path / "data", "train")
    splits.unlink()
    with pytest.raises(UserError, match=r"splits\.csv is missing"):
        load(tmp_path / "data", "train")
