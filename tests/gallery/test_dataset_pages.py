"""The pages of data sets: the pictures made for them, and what they say."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas.datasets import formats, previews
from convatlas.files import read_json, write_json
from convatlas.gallery.pages.datasets import MAX_SKIPPED_FILES, MAX_TABLE_CLASSES
from tests.datasets.test_oxford_pets import BOX, lay_out, make
from tests.gallery.test_build import CONFIG, DATASET, HOSTILE, Reader, built, write
from tests.support.workspace import ROOT, files_of

PLAIN = {"format": "images", "test_share": 0.5, "on_bad_image": "error"}


def drawn(data: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return previews.write_previews(data, folder)


def of_classes(folder: Path, classes: int, each: int) -> Path:
    """A data set of image files, each of a colour of its own."""
    for n in range(classes):
        inner = folder / f"theirs/class {n:03d}"
        inner.mkdir(parents=True)
        for m in range(each):
            Image.new("RGB", (9, 7), (n % 256, n // 256, m)).save(inner / f"{m}.png")
    formats.prepare(folder / "data", PLAIN | {"source": str(folder / "theirs")}, "datasets.mine")
    return folder / "data"


# The pictures


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 50])
def test_items_are_chosen_evenly(count: int) -> None:
    chosen = previews.choose_evenly(range(50), count)
    assert len(chosen) == len(set(chosen)) == count
    for n, item in enumerate(chosen):  # one of each of `count` equal parts
        assert n * 50 <= item * count < (n + 1) * 50
    assert previews.choose_evenly([3, 1], 9) == [3, 1]


def test_a_few_images_of_each_class_and_split(tmp_path: Path) -> None:
    data = of_classes(tmp_path, 5, 20)
    found = drawn(data, tmp_path / "out")
    assert found["classes"] == [0, 1, 2, 3, 4]
    for split in ("train", "test"):
        assert [one["class"] for one in found[split]] == [
            n for n in range(5) for _ in range(previews.PREVIEWS_PER_CLASS)
        ]
        for one in found[split]:
            picture = np.asarray(Image.open(tmp_path / "out" / one["file"]).convert("RGB"))
            assert picture.shape == (*one["size"], 3) == (7, 9, 3)
            number, name = one["name"].removeprefix("class ").split("/")
            assert (picture == [int(number), 0, int(name.removesuffix(".png"))]).all()
            assert int(number) == one["class"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        one["file"] for split in ("train", "test") for one in found[split]
    }


def test_many_classes_are_shown_in_part_and_images_without_labels_too(tmp_path: Path) -> None:
    found = drawn(of_classes(tmp_path / "many", 120, 2), tmp_path / "out")
    assert len(found["classes"]) == previews.MAX_PREVIEWS // 2
    assert len(found["train"]) == len(found["test"]) == previews.MAX_PREVIEWS // 2
    assert found["classes"][0] < 3 and found["classes"][-1] > 116
    folder = tmp_path / "plain/theirs"
    folder.mkdir(parents=True)
    for n in range(30):
        Image.new("RGB", (500, 20), (n, 0, 0)).save(folder / f"{n:02d}.png")
    formats.prepare(tmp_path / "plain/data", PLAIN | {"source": str(folder)}, "datasets.plain")
    found = drawn(tmp_path / "plain/data", tmp_path / "plain/out")
    assert (found["classes"], found["train"], len(found["test"])) == (
        [],
        [],
        previews.PREVIEWS_WITHOUT_CLASSES,
    )
    assert all(one["class"] is None and one["size"] == [6, previews.MAX_SIDE] for one in found["test"])


def test_trimaps_and_heads_lie_where_the_pet_is(tmp_path: Path) -> None:
    """Bright pets with brighter heads: the overlay covers them in the picture, and nothing else."""
    theirs = lay_out(tmp_path / "theirs/oxford-iiit-pet")
    trimap = np.full((240, 320), 2, np.uint8)
    trimap[80:200, 100:300] = 3
    trimap[100:180, 120:280] = 1
    bright = np.where(trimap == 1, 150, 20).astype(np.uint8)
    bright[100:140, 120:200] = 250
    for path in (theirs / "images").iterdir():
        Image.fromarray(bright).save(path, quality=95)
        Image.fromarray(trimap).save(theirs / f"annotations/trimaps/{path.stem}.png")
    corners = "<xmin>120</xmin><ymin>100</ymin><xmax>200</xmax><ymax>140</ymax>"
    (theirs / "annotations/xmls/Some_Cat_2.xml").write_text(BOX.format(corners))
    make(tmp_path / "made", theirs)
    found = drawn(tmp_path / "made", tmp_path / "out")
    heads = {one["name"]: one["head"] for one in found["test"]}
    assert heads == {"shaggy_dog_1": None, "Some_Cat_2": [120 / 320, 0.4167, 200 / 320, 0.5833]}
    for one in found["train"] + found["test"]:
        assert one["size"] == [108, 144]
        picture = np.asarray(Image.open(tmp_path / "out" / one["file"]).convert("L"))
        overlay = np.asarray(Image.open(tmp_path / "out" / one["trimap"]).convert("RGBA"))
        assert picture.shape == overlay.shape[:2]
        inside = (overlay[:, :, :3] == previews.TRIMAP_COLOURS[1][:3]).all(2) & (overlay[:, :, 3] > 0)
        assert (inside == (picture > 90)).mean() > 0.99
        border = (overlay[:, :, :3] == previews.TRIMAP_COLOURS[3][:3]).all(2) & (overlay[:, :, 3] > 0)
        np.testing.assert_array_equal(overlay[:, :, 3] > 0, inside | border)
        assert border.sum() == pytest.approx((trimap == 3).sum() * 0.45**2, rel=0.05)


def test_the_script_makes_the_same_bytes_twice_well_under_a_megabyte(tmp_path: Path) -> None:
    data = of_classes(tmp_path, 3, 6)
    script = [sys.executable, "scripts/previews.py", "--name", "mine", "--data", str(data)]
    for name in ("a", "b"):
        subprocess.run([*script, "--output", str(tmp_path / name)], cwd=ROOT, check=True, capture_output=True)
    first, second = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert first == second and "examples.json" in first
    subprocess.run([*script, "--output", str(tmp_path / "a")], cwd=ROOT, check=True, capture_output=True)
    assert files_of(tmp_path / "a") == first


def test_real_pets_take_well_under_a_megabyte(tmp_path: Path, mnist: Path) -> None:
    make(tmp_path / "made", mnist.parent / "pets", target="breed")
    found = drawn(tmp_path / "made", tmp_path / "out")
    assert len(found["classes"]) > 30
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < 800_000


# The pages


def with_examples(folder: Path, **change: Any) -> Path:
    """A made-up run with examples of its data set."""
    write(folder, "own")
    write_json(folder / "data/animals/dataset.json", DATASET | change)
    made = folder / "results/_datasets/animals"
    made.mkdir(parents=True)
    entry = {"size": [6, 8], "trimap": None, "head": None}
    found: dict[str, Any] = {"classes": [0, 2], "train": [], "test": []}
    for split in ("train", "test"):
        for n in (0, 2):
            file = f"{split}-{n}.png"
            Image.new("L", (8, 6)).save(made / file)
            found[split].append(entry | {"class": n, "name": f"{split} {HOSTILE}", "file": file})
    Image.new("P", (8, 6)).save(made / "t.png")
    found["test"][1] |= {"trimap": "t.png", "head": [0.25, 0.5, 0.75, 1]}
    write_json(made / "examples.json", found)
    return built(folder, "own", config=CONFIG | {"networks": {"own": CONFIG["networks"]["own"]}})


def test_the_page_shows_counts_examples_and_source(tmp_path: Path) -> None:
    site = with_examples(tmp_path)
    page = Reader(site / "datasets/animals.html")
    words = " ".join(page.text.split())
    for said in ("Animals", "Made up.", "40", "8", "ant", "10", "cd" * 32, "Nothing: every image"):
        assert said in words, said
    assert "../networks/own.html" in page.links
    sources = [image["src"] for image in page.images]
    assert sources == [
        "animals/train-0.png", "animals/test-0.png", "animals/train-2.png", "animals/test-2.png",
        "animals/t.png",
    ]  # fmt: skip
    for source in sources:
        assert (site / "datasets" / str(source)).is_file()
    text = (site / "datasets/animals.html").read_text()
    assert "left: 25.0%; top: 50.0%; right: 25.0%; bottom: 0" in text
    assert page.images[0]["alt"] == f"ant, training image train {HOSTILE}"
    assert "of 2 of the 4 classes" in words
    assert "datasets/animals.html" in Reader(site / "index.html").links
    assert not (site / "datasets/animals/examples.json").exists()


def test_embedded_data_are_said_to_be_a_stand_in(tmp_path: Path) -> None:
    site = with_examples(tmp_path, format="mnist")
    assert "a stand-in for MNIST" in Reader(site / "datasets/animals.html").text
    site = with_examples(tmp_path / "own", format="mnist", source="directory")
    assert "stand-in" not in Reader(site / "datasets/animals.html").text


def test_what_was_left_out_is_named(tmp_path: Path) -> None:
    skipped = [{"path": f"{n}{HOSTILE}", "reason": "image missing"} for n in range(MAX_SKIPPED_FILES + 3)]
    page = Reader(with_examples(tmp_path, skipped=skipped) / "datasets/animals.html")
    words = " ".join(page.text.split())
    assert f"{MAX_SKIPPED_FILES + 3} images that the data set lists cannot be used" in words
    assert f"{MAX_SKIPPED_FILES - 1}{HOSTILE}: image missing" in words and "and 3 more, named in" in words
    assert f"{MAX_SKIPPED_FILES}{HOSTILE}" not in words
    assert not [image for image in page.images if "onerror" in image]


@pytest.mark.parametrize("count", [0, 1000])
def test_data_without_classes_or_with_a_thousand(tmp_path: Path, count: int) -> None:
    assert count == 0 or count > MAX_TABLE_CLASSES
    counts = {"train": [2] * count or [0], "test": [1] * count or [7]}
    write(tmp_path, "own")
    classes = [f"class {n}" for n in range(count)]
    write_json(tmp_path / "data/animals/dataset.json", DATASET | {"classes": classes, "counts": counts})
    text = (built(tmp_path, "own") / "datasets/animals.html").read_text()
    assert text.count("<") < 1000  # and no row for each
    assert ("class 999: 2 + 1." in text) is bool(count)


def test_the_entries_of_the_page_are_those_of_the_script(tmp_path: Path) -> None:
    """What the script writes is what the page reads."""
    data = of_classes(tmp_path / "made", 4, 4)
    write(tmp_path, "own")
    data.rename(tmp_path / "data/mine")
    own = tmp_path / "results/own/network.json"
    write_json(own, read_json(own) | {"dataset": "mine"})
    folder = tmp_path / "results/_datasets/mine"
    folder.mkdir(parents=True)
    write_json(folder / "examples.json", previews.write_previews(tmp_path / "data/mine", folder))
    page = Reader(built(tmp_path, "own") / "datasets/mine.html")
    assert len(page.images) == 4 * (2 + 2) and "Images of 4 classes" in page.text
