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

KEY = "datasets.d"
SETTINGS = {"format": "images", "test_share": 0.2, "on_bad_image": "error"}


def draw(path: Path, height: int = 12, width: int = 10) -> Path:
    """Write an image file that differs from all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(os.fsencode(path.name) + os.fsencode(path.parent.name)))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path, "PNG")
    return path


def make(folder: Path, source: Path | str, **settings: Any) -> dict[str, Any]:
    prepare(folder, SETTINGS | {"source": str(source)} | settings, KEY)
    return describe(folder)


def refused(tmp_path: Path, source: Path | str, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        make(tmp_path / "made", source, **settings)
    assert KEY in str(error.value)
    assert list((tmp_path / "made").rglob("*")) == []
    return str(error.value)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """10 cats, 7 dogs and a single emu."""
    for name, count in {"dog": 7, "cat": 10, "emu": 1}.items():
        for n in range(count):
            draw(tmp_path / f"theirs/{name}/{n}.png")
    return tmp_path / "theirs"


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_classes_are_split_by_the_hashes_of_names(tmp_path: Path, theirs: Path, share: float) -> None:
    found = make(tmp_path / "made", theirs, test_share=share)
    assert found["classes"] == ["cat", "dog", "emu"]
    train, test = (load(tmp_path / "made", split) for split in ("train", "test"))
    for label, (name, count) in enumerate({"cat": 10, "dog": 7, "emu": 1}.items()):
        names = [f"{name}/{n}.png" for n in range(count)]
        held = 1 if count == 1 else min(math.ceil(share * count), count - 1)
        tested = sorted(names, key=lambda path: hashlib.sha256(path.encode()).hexdigest())[:held]
        for split, expected in ((test, set(tested)), (train, set(names).difference(tested))):
            assert [n for n in split.names if n.startswith(name)] == sorted(expected)
            assert sum(split.labels == label) == len(expected)
        assert (found["counts"]["train"][label], found["counts"]["test"][label]) == (count - held, held)


def test_a_class_that_cannot_be_written_down_is_reported(tmp_path: Path) -> None:
    draw(tmp_path / "theirs" / os.fsdecode(b"\xff") / "a.png")
    assert "rename" in refused(tmp_path, tmp_path / "theirs")


def test_a_share_of_whole_images_is_exact(tmp_path: Path) -> None:
    """0.1 times 30 is above 3 in floating point."""
    for n in range(30):
        draw(tmp_path / f"theirs/cat/{n}.png")
    assert make(tmp_path / "made", tmp_path / "theirs", test_share=0.1)["counts"]["test"] == [3]


def test_a_folder_without_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"b.png": (30, 20), 'a,"1".JPG': (8, 50), "c.webp": (10, 10), "é\r\n.gif": (40, 40)}
    for name, size in sizes.items():
        draw(tmp_path / "theirs" / name, *size)  # PNG by content, all of them
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # again over itself
        found = make(Path("made"), "theirs")
    monkeypatch.chdir("/")
    assert (tmp_path / "made/images").is_symlink()
    assert (tmp_path / "made/images").samefile(tmp_path / "theirs")
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"images", "splits.csv", "dataset.json"}
    assert (found["classes"], found["counts"], found["target"]) == ([], {"train": [0], "test": [4]}, None)
    assert found["image_sizes"] == {"smallest": [10, 10], "median": [8, 50], "largest": [40, 40]}
    assert len(load(tmp_path / "made", "train")) == 0
    assert load(tmp_path / "made", "train").read_images("RGB", 8, 8).shape == (0, 3, 8, 8)
    test = load(tmp_path / "made", "test")
    assert test.names == sorted(sizes)
    assert test.labels.tolist() == [-1] * 4
    for n, name in enumerate(test.names):
        height, width = sizes[name]
        assert Path(str(test.paths[n])).samefile(tmp_path / "theirs" / name)
        assert test.read_image(n, "L").size == (width, height)


def test_a_name_that_is_no_text_is_kept(tmp_path: Path) -> None:
    path = draw(tmp_path / "theirs" / os.fsdecode(b"\xff\xfe.png"))
    make(tmp_path / "made", tmp_path / "theirs")
    assert Path(str(load(tmp_path / "made", "test").paths[0])).samefile(path)


def test_what_is_no_image_is_passed_over(
    tmp_path: Path, theirs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = make(tmp_path / "made", theirs)
    more = ["cat/notes.txt", "cat/.hidden.png", "Thumbs.db", "empty/readme", ".git/a.png", "cat/deep/a.png"]
    for name in more:
        draw(theirs / name)
    with caplog.at_level(logging.INFO, "convatlas"):
        assert make(tmp_path / "made", theirs) == before
    assert "4 other and hidden files" in caplog.text
    assert "empty holds no image files" in caplog.text
    assert "class emu has 1 usable image" in caplog.text


def test_the_hash_is_of_the_contents(tmp_path: Path, theirs: Path) -> None:
    first = make(tmp_path / "made", theirs)["sha256"]
    theirs.rename(tmp_path / "elsewhere")
    assert make(tmp_path / "made", tmp_path / "elsewhere")["sha256"] == first
    (tmp_path / "elsewhere/cat/3.png").write_bytes((tmp_path / "elsewhere/cat/4.png").read_bytes())
    assert make(tmp_path / "made", tmp_path / "elsewhere")["sha256"] != first


def test_bad_images_stop_or_are_left_out(
    tmp_path: Path, theirs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert make(tmp_path / "good", theirs)["skipped"] == []
    (theirs / "dog/3.png").write_bytes((theirs / "dog/3.png").read_bytes()[:200])
    (theirs / "cat" / os.fsdecode(b"\xff.png")).write_text("no image")
    (theirs / "cat/lost.png").symlink_to("nowhere")
    message = refused(tmp_path, theirs)
    for words in (
        "3 of 20 images cannot be used",
        f"image missing: 1, the first is {theirs}/cat/lost.png",
        f"image that cannot be read: 2, the first is {theirs}/cat/",
        f"{KEY}.on_bad_image: skip",
    ):
        assert words in message
    found = make(tmp_path / "made", theirs, on_bad_image="skip")
    assert [sum(pair) for pair in zip(*found["counts"].values(), strict=True)] == [10, 6, 1]
    assert {one["path"]: one["reason"] for one in found["skipped"]} == {
        "images/cat/lost.png": "image missing",
        "images/cat/\N{REPLACEMENT CHARACTER}.png": "image that cannot be read: no image",
        "images/dog/3.png": "image that cannot be read: image file is truncated",
    }
    left_out = [record.message for record in caplog.records if "skipped" in record.message]
    assert [one["path"] in told for one, told in zip(found["skipped"], left_out, strict=True)] == [True] * 3
    for path in theirs.glob("*/*.png"):
        path.unlink()
        path.write_text("no image")
    with pytest.raises(UserError, match="none of 20"):
        make(tmp_path / "made", theirs, on_bad_image="skip")
    assert describe(tmp_path / "made") == found


def test_no_class_and_no_split_is_left_out_whole(tmp_path: Path, theirs: Path) -> None:
    (theirs / "emu/0.png").write_text("no image")
    assert "no image in the class emu;" in refused(tmp_path, theirs, on_bad_image="skip")
    for name in ("a", "b"):
        draw(tmp_path / f"few/ant/{name}.png")
    assert make(tmp_path / "made", tmp_path / "few")["counts"] == {"train": [1], "test": [1]}
    (tmp_path / "few/ant/a.png").write_text("no image")
    with pytest.raises(UserError, match="no image in the split train;"):
        make(tmp_path / "made", tmp_path / "few", on_bad_image="skip")


def test_what_readers_get_over_is_no_fault(tmp_path: Path) -> None:
    """Extraneous bytes in a JPEG, as in two official photographs of pets, and turned images."""
    (tmp_path / "theirs").mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    image.save(tmp_path / "theirs/a.jpg")
    content = (tmp_path / "theirs/a.jpg").read_bytes()
    (tmp_path / "theirs/b.jpg").write_bytes(content[:-2] + b"\0" * 200 + content[-2:])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "theirs/c.jpg", exif=exif)
    found = make(tmp_path / "made", tmp_path / "theirs")
    assert found["counts"] == {"train": [0], "test": [3]}
    assert found["image_sizes"]["smallest"] == [30, 40]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("embedded", ["embedded", "is not available"]),
        ("download", ["download", "is not available"]),
        ("nowhere", ["no directory 'nowhere'"]),
        ("empty", ["empty holds no image files"]),
        ("both", ["both holds both", "a.png", "cat/"]),
        ("made/images", ["output folder"]),
        ("made", ["output folder"]),
    ],
)
def test_sources_that_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    draw(Path("both/a.png"))
    draw(Path("both/cat/a.png"))
    if source.startswith("made"):
        draw(Path("made/images/a.png"))
        with pytest.raises(UserError, match=rf"{KEY}\.source: .*output folder"):
            make(Path("made"), source)
        assert Path("made/images/a.png").is_file()
        return
    message = refused(Path(), source)
    for word in [*words, f"{KEY}.source", "folder of image files"]:
        assert word in message


def test_progress_is_told(
    tmp_path: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "PROGRESS_INTERVAL", 3)
    make(tmp_path / "made", theirs, test_share=0.4)
    caplog.clear()
    with caplog.at_level(logging.INFO, "convatlas"):
        load(tmp_path / "made", "test").read_images("L", 8, 8)
    assert [record.message for record in caplog.records] == ["read 3 of 8 images", "read 6 of 8 images"]


def test_splits_that_are_damaged_are_reported(tmp_path: Path, theirs: Path) -> None:
    make(tmp_path / "made", theirs)
    splits = tmp_path / "made/splits.csv"
    for content in ("split,label\ntrain,0\n", "split,label,path\ntrain,x,images/a.png\n"):
        splits.write_text(content)
        with pytest.raises(UserError, match=r"splits\.csv is damaged"):
            load(tmp_path / "made", "train")
    splits.unlink()
    with pytest.raises(UserError, match=r"splits\.csv is missing"):
        load(tmp_path / "made", "train")
