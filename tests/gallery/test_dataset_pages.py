"""The pages of data sets."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convatlas.datasets import previews
from convatlas.files import read_json, write_json
from convatlas.gallery.pages.datasets import MAX_SKIPPED_FILES, MAX_TABLE_CLASSES
from tests.datasets.test_previews import prepare_classes
from tests.support.site import CONFIG, DATASET, HOSTILE_TEXT, PageParser, build_site, write_network


def build_site_with_examples(folder: Path, **change: Any) -> Path:
    """Build the gallery of a small network whose data set has examples."""
    write_network(folder, "own")
    write_json(folder / "data/animals/dataset.json", DATASET | change)
    examples_folder = folder / "results/_datasets/animals"
    examples_folder.mkdir(parents=True)
    entry = {"size": [6, 8], "trimap": None, "head_box": None}
    examples: dict[str, Any] = {"classes": [0, 2], "train": [], "test": []}
    for split in ("train", "test"):
        for n in (0, 2):
            file = f"{split}-{n}.png"
            Image.new("L", (8, 6)).save(examples_folder / file)
            examples[split].append(entry | {"class": n, "name": f"{split} {HOSTILE_TEXT}", "file": file})
    Image.new("P", (8, 6)).save(examples_folder / "t.png")
    examples["test"][1] |= {"trimap": "t.png", "head_box": [0.25, 0.5, 0.75, 1]}
    write_json(examples_folder / "examples.json", examples)
    return build_site(folder, "own", config=CONFIG | {"networks": {"own": CONFIG["networks"]["own"]}})


def test_the_page_shows_counts_examples_and_source(tmp_path: Path) -> None:
    site = build_site_with_examples(tmp_path)
    page = PageParser(site / "datasets/animals.html")
    words = " ".join(page.text.split())
    for expected in ("Animals", "Made up.", "40", "8", "ant", "10", "cd" * 32, "None: every listed image"):
        assert expected in words, expected
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
    assert page.images[0]["alt"] == f"ant, training image train {HOSTILE_TEXT}"
    assert "of 2 of the 4 classes" in words
    assert "datasets/animals.html" in PageParser(site / "index.html").links
    assert not (site / "datasets/animals/examples.json").exists()


def test_embedded_data_name_the_data_set_that_they_replace(tmp_path: Path) -> None:
    site = build_site_with_examples(tmp_path, format="mnist")
    assert "replaces MNIST" in PageParser(site / "datasets/animals.html").text
    site = build_site_with_examples(tmp_path / "own", format="mnist", source="directory")
    assert "replaces" not in PageParser(site / "datasets/animals.html").text


def test_skipped_files_are_named(tmp_path: Path) -> None:
    skipped = [
        {"path": f"{n}{HOSTILE_TEXT}", "reason": "image missing"} for n in range(MAX_SKIPPED_FILES + 3)
    ]
    page = PageParser(build_site_with_examples(tmp_path, skipped=skipped) / "datasets/animals.html")
    words = " ".join(page.text.split())
    assert f"{MAX_SKIPPED_FILES + 3} listed images are unusable and excluded" in words
    assert (
        f"{MAX_SKIPPED_FILES - 1}{HOSTILE_TEXT}: image missing" in words and "and 3 more, listed in" in words
    )
    assert f"{MAX_SKIPPED_FILES}{HOSTILE_TEXT}" not in words
    assert not [image for image in page.images if "onerror" in image]


@pytest.mark.parametrize("count", [0, 1000])
def test_data_without_classes_or_with_a_thousand(tmp_path: Path, count: int) -> None:
    assert count == 0 or count > MAX_TABLE_CLASSES
    counts = {"train": [2] * count or [0], "test": [1] * count or [7]}
    write_network(tmp_path, "own")
    classes = [f"class {n}" for n in range(count)]
    write_json(tmp_path / "data/animals/dataset.json", DATASET | {"classes": classes, "counts": counts})
    text = (build_site(tmp_path, "own") / "datasets/animals.html").read_text()
    assert text.count("<") < 1000  # and no row for each
    assert ("class 999: 2 + 1." in text) is bool(count)


def test_the_page_reads_what_the_script_writes(tmp_path: Path) -> None:
    """What the script writes is what the page reads."""
    data = prepare_classes(tmp_path / "made", 4, 4)
    write_network(tmp_path, "own")
    data.rename(tmp_path / "data/mine")
    own = tmp_path / "results/own/network.json"
    write_json(own, read_json(own) | {"dataset": "mine"})
    folder = tmp_path / "results/_datasets/mine"
    folder.mkdir(parents=True)
    write_json(folder / "examples.json", previews.write_previews(tmp_path / "data/mine", folder))
    page = PageParser(build_site(tmp_path, "own") / "datasets/mine.html")
    assert len(page.images) == 4 * (2 + 2) and "Images of 4 classes" in page.text
