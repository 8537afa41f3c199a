"""Oxford-IIIT Pet, from directories right and wrong, drawn, and real; torchvision reads the same."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from convatlas import UserError
from convatlas.datasets import describe, load, pets, prepare

KEY = "datasets.d"
SETTINGS = {"format": "oxford-iiit-pet", "mirrors": [], "target": "breed", "skip_unreadable": False}
TRAINVAL = [("Some_Cat_1", 5, 1), ("shaggy_dog_2", 9, 2), ("Some_Cat_10", 5, 1), ("old_hound_1", 12, 2)]
TEST = [("shaggy_dog_1", 9, 2), ("Some_Cat_2", 5, 1)]
BOX = "<annotation><object><name>cat</name><bndbox>{}</bndbox></object></annotation>"


def noise(name: str) -> np.ndarray:
    """An image of its own for each name, 20 to 40 pixels high and wide."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(0, 256, (*rng.integers(20, 41, 2), 3), np.uint8)


def lay_out(folder: Path) -> Path:
    """Write a small set in the official layout into images/ and annotations/ of a folder."""
    for inner in ("images", "annotations/trimaps", "annotations/xmls"):
        (folder / inner).mkdir(parents=True)
    for split, lines in {"trainval": TRAINVAL, "test": TEST}.items():
        text = "".join(f"{name} {label} {species} 1\n" for name, label, species in lines)
        (folder / f"annotations/{split}.txt").write_text("#Image CLASS-ID SPECIES BREED-ID\n\n" + text)
        for name, *_ in lines:
            Image.fromarray(noise(name)).save(folder / f"images/{name}.jpg")
            Image.fromarray(noise(name)[:, :, 0] % 3 + 1).save(folder / f"annotations/trimaps/{name}.png")
    return folder


def make(folder: Path, source: Path | str, **settings: Any) -> dict[str, Any]:
    prepare(folder, SETTINGS | {"source": str(source)} | settings, KEY)
    return describe(folder)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "theirs/oxford-iiit-pet")


def torchvisions(folder: Path, split: str) -> Iterator[tuple[str, int, int, Image.Image, Image.Image]]:
    """What torchvision reads: path, breed, species, image and trimap; of files without comments."""
    from torchvision.datasets import OxfordIIITPet  # noqa: PLC0415  seconds to import

    kinds = ("category", "binary-category", "segmentation")
    found = OxfordIIITPet(folder, "trainval" if split == "train" else "test", kinds)
    for path, (image, (breed, species, trimap)) in zip(found._images, found, strict=True):
        yield str(path), breed, species, image, trimap


def assert_as_torchvision(folder: Path, numbers: list[int]) -> None:
    """Compare both splits with torchvision's; `numbers` are the official ones of the classes, from 0."""
    for split in ("train", "test"):
        examples = load(folder, split)
        expected = list(torchvisions(folder, split))
        assert examples.paths == [path for path, *_ in expected]
        assert [numbers[label] for label in examples.labels] == [breed for _, breed, *_ in expected]
        for n in range(0, len(examples), 1 + len(examples) // 20):
            path, _, _, image, trimap = expected[n]
            with Image.open(path) as file:
                plain = file.mode == "RGB" and file.getexif().get(ExifTags.Base.Orientation, 1) == 1
            if plain:  # torchvision neither turns images nor lays them on white
                np.testing.assert_array_equal(examples.image(n, "RGB"), image)
            np.testing.assert_array_equal(examples.trimap(n), trimap)


@pytest.mark.parametrize("named", ["theirs", "theirs/oxford-iiit-pet"])
def test_a_directory_is_linked(
    tmp_path: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # again over itself
        make(Path("made"), named)
    monkeypatch.chdir("/")
    made = tmp_path / "made"
    assert {path.name for path in made.iterdir()} == {"oxford-iiit-pet", "splits.csv", "dataset.json"}
    assert {path.name for path in (made / "oxford-iiit-pet").iterdir()} == {"images", "annotations"}
    for part in ("images", "annotations"):
        assert (made / "oxford-iiit-pet" / part).is_symlink()
        assert (made / "oxford-iiit-pet" / part).samefile(theirs / part)
    for split, lines in {"train": TRAINVAL, "test": TEST}.items():
        examples = load(made, split)
        assert examples.names == [name for name, *_ in lines]
        assert examples.labels.dtype == np.int64
        assert [[5, 9, 12][label] for label in examples.labels] == [label for _, label, _ in lines]
        assert [Path(str(path)).stem for path in examples.paths] == examples.names


@pytest.mark.parametrize(
    ("target", "classes", "counts"),
    [
        ("breed", ["Some Cat", "Shaggy Dog", "Old Hound"], {"train": [2, 1, 1], "test": [1, 1, 0]}),
        ("species", ["cat", "dog"], {"train": [2, 2], "test": [1, 1]}),
    ],
)
def test_classes(tmp_path: Path, theirs: Path, target: str, classes: list[str], counts: dict) -> None:
    found = make(tmp_path / "made", theirs, target=target)
    assert found["classes"] == classes
    assert found["counts"] == counts
    assert (found["format"], found["source"], found["target"]) == ("oxford-iiit-pet", "directory", target)
    areas = sorted((noise(name).shape[:2] for name, *_ in TRAINVAL + TEST), key=np.prod)
    assert found["image_shape"] is None
    assert found["image_sizes"] == {
        name: list(areas[n]) for name, n in {"smallest": 0, "median": 2, "largest": 5}.items()
    }
    for split in counts:
        assert (
            np.bincount(load(tmp_path / "made", split).labels, minlength=len(classes)).tolist()
            == counts[split]
        )


def test_pixels_are_those_of_the_files(tmp_path: Path, theirs: Path) -> None:
    from torchvision.transforms import functional  # noqa: PLC0415

    make(tmp_path / "made", theirs)
    examples = load(tmp_path / "made", "train")
    found = examples.pixels("RGB", 16, 18, [2, 0])
    for pixels, name in zip(found, ["Some_Cat_10", "Some_Cat_1"], strict=True):
        with Image.open(theirs / f"images/{name}.jpg") as image:
            expected = functional.center_crop(functional.resize(image, 18), 16)
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), expected)
    every = examples.pixels("L", 12, "stretch")
    assert (every.shape, every.dtype) == ((4, 1, 12, 12), np.uint8)
    with Image.open(theirs / "images/old_hound_1.jpg") as image:
        np.testing.assert_array_equal(
            every[3, 0], image.convert("L").resize((12, 12), Image.Resampling.BILINEAR)
        )


def test_trimaps_and_heads(tmp_path: Path, theirs: Path) -> None:
    corners = "<xmin>3</xmin><ymin>4</ymin><xmax>15.0</xmax><ymax>16</ymax>"
    (theirs / "annotations/xmls/Some_Cat_1.xml").write_text(BOX.format(corners))
    (theirs / "annotations/xmls/shaggy_dog_2.xml").write_text("<annotation></annotation>")
    (theirs / "annotations/xmls/old_hound_1.xml").write_text(BOX.format("<xmin>3</xmin>"))
    make(tmp_path / "made", theirs)
    examples = load(tmp_path / "made", "train")
    assert [examples.head_box(n) for n in range(3)] == [(3, 4, 15, 16), None, None]
    with pytest.raises(UserError, match=r"old_hound_1\.xml"):
        examples.head_box(3)
    for n, name in enumerate(examples.names):
        assert examples.trimap(n).mode == "L"
        np.testing.assert_array_equal(examples.trimap(n), noise(name)[:, :, 0] % 3 + 1)
    (theirs / "annotations/trimaps/Some_Cat_1.png").write_text("no image")
    with pytest.raises(UserError, match=r"trimap .*Some_Cat_1\.png"):
        examples.trimap(0)


def test_the_hash_is_of_the_contents(tmp_path: Path, theirs: Path) -> None:
    """The same elsewhere; another when an image, a trimap, a label or the split is another."""
    first = make(tmp_path / "made", theirs)["sha256"]
    assert make(tmp_path / "again", lay_out(tmp_path / "copy"))["sha256"] == first
    trainval = theirs / "annotations/trainval.txt"
    changes = {
        theirs / "images/Some_Cat_1.jpg": (theirs / "images/Some_Cat_2.jpg").read_bytes(),
        theirs / "annotations/trimaps/Some_Cat_1.png": (
            theirs / "annotations/trimaps/Some_Cat_2.png"
        ).read_bytes(),
        trainval: trainval.read_bytes().replace(b"Some_Cat_10 5 1", b"Some_Cat_10 9 2"),
    }
    found = {first}
    for path, content in changes.items():
        before = path.read_bytes()
        path.write_bytes(content)
        found.add(make(tmp_path / "made", theirs, target="species")["sha256"])
        path.write_bytes(before)
    assert len(found) == 4


# What is wrong with a directory


def assert_refused(tmp_path: Path, source: Path | str, *words: str, **settings: Any) -> None:
    with pytest.raises(UserError) as error:
        make(tmp_path / "made", source, **settings)
    for word in (KEY, *words):
        assert word in str(error.value)
    assert [path for path in (tmp_path / "made").rglob("*") if path.is_file()] == []


def test_missing_files_are_counted(tmp_path: Path, theirs: Path) -> None:
    for path in ("images/Some_Cat_2.jpg", "annotations/trimaps/old_hound_1.png", "images/shaggy_dog_2.jpg"):
        (theirs / path).unlink()
    words = ["3 of the 12 images and trimaps", str(theirs / "images/shaggy_dog_2.jpg")]
    assert_refused(tmp_path, theirs, *words, skip_unreadable=True)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (("trainval", "Some_Cat_10 5 1", "Some_Cat_10 6 1"), ["two numbers", "Some Cat"]),
        (("test", "shaggy_dog_1 9 2", "shaggy_dog_1 5 2"), ["number 5", "Some Cat", "Shaggy Dog"]),
        (("test", "Some_Cat_2 5", "Some_Cat_1 5"), ["Some_Cat_1 twice"]),
        (("test", "Some_Cat_2 5 1 1", "Some_Cat_2"), ["line 4", "test.txt", "'Some_Cat_2'"]),
        (("test", "Some_Cat_2 5 1", "Some_Cat_2 5 3"), ["line 4", "test.txt", "1 or 2"]),
        (("test", "Some_Cat_2 5 1", "Some_Cat_2 x 1"), ["line 4", "test.txt"]),
        (("test", "\n", "\n#"), ["test.txt", "names no image"]),
    ],
)
def test_faulty_lists_are_reported(tmp_path: Path, theirs: Path, edit: tuple, words: list[str]) -> None:
    path = theirs / f"annotations/{edit[0]}.txt"
    text = path.read_text()
    assert edit[1] in text
    path.write_text(text.replace(*edit[1:]))
    assert_refused(tmp_path, theirs, *words)


@pytest.mark.parametrize("lost", ["annotations/test.txt", "images", "annotations", "."])
def test_a_directory_without_the_layout_is_reported(tmp_path: Path, theirs: Path, lost: str) -> None:
    path = theirs / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    assert_refused(tmp_path, theirs, str(theirs), "images/ and annotations/", ".source")


@pytest.mark.parametrize("named", ["made", "made/oxford-iiit-pet", "link"])
def test_a_directory_made_from_itself_loses_nothing(tmp_path: Path, named: str) -> None:
    made = lay_out(tmp_path / "made/oxford-iiit-pet")
    (tmp_path / "link").symlink_to(made)
    with pytest.raises(UserError, match=r"datasets\.d\.source.*made here"):
        make(tmp_path / "made", tmp_path / named)
    assert len(list((made / "images").iterdir())) == 6


def test_unreadable_files_stop_or_are_left_out(
    tmp_path: Path, theirs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (theirs / "images/Some_Cat_1.jpg").read_bytes()
    (theirs / "images/Some_Cat_1.jpg").write_bytes(whole[: len(whole) // 2])  # only decoding finds that
    (theirs / "images/old_hound_1.jpg").write_text("no image")
    (theirs / "images/Unlisted_1.jpg").write_text("no image")
    (theirs / "images/Some_Cat_1.mat").touch()
    words = ["of 6 image files 2", str(theirs / "images/Some_Cat_1.jpg"), "skip_unreadable: true"]
    assert_refused(tmp_path, theirs, *words)
    with caplog.at_level(logging.INFO, "convatlas"):
        found = make(tmp_path / "made", theirs, skip_unreadable=True)
    assert "2 other files" in caplog.text
    left_out = [record.message for record in caplog.records if "left out" in record.message]
    assert len(left_out) == 2
    assert "Some_Cat_1.jpg" in left_out[0]
    assert "old_hound_1.jpg" in left_out[1]
    assert found["classes"] == ["Some Cat", "Shaggy Dog"]
    assert load(tmp_path / "made", "train").names == ["shaggy_dog_2", "Some_Cat_10"]


def test_a_fault_keeps_the_data_set_made_before(tmp_path: Path, theirs: Path) -> None:
    before = make(tmp_path / "made", theirs)
    (theirs / "images/Some_Cat_1.jpg").write_text("no image")
    with pytest.raises(UserError):
        make(tmp_path / "made", theirs)
    assert describe(tmp_path / "made") == before
    assert load(tmp_path / "made", "train").names == [name for name, *_ in TRAINVAL]


# Real and drawn


def test_the_real_photographs(tmp_path: Path) -> None:
    given = os.environ.get("CONVATLAS_TEST_DATA")
    if not given:
        pytest.skip("CONVATLAS_TEST_DATA names no folder of real data")
    source = Path(given) / "pets"
    found = make(tmp_path, source)
    lines = (source / "oxford-iiit-pet/annotations/list.txt").read_text().splitlines()
    numbers = sorted({int(line.split()[1]) - 1 for line in lines})
    assert len(found["classes"]) == len(numbers) == 33
    assert found["classes"][:2] == ["Abyssinian", "American Bulldog"]
    assert {split: sum(counts) for split, counts in found["counts"].items()} == {"train": 360, "test": 335}
    assert_as_torchvision(tmp_path, numbers)
    examples = load(tmp_path, "test")
    odd = examples.names.index("Abyssinian_5")  # an RGBA PNG
    with Image.open(str(examples.paths[odd])) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
    assert examples.image(odd, "RGB").mode == "RGB"


def test_the_drawn_pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = pytest.importorskip("convatlas.datasets.drawn")
    monkeypatch.setattr(drawn, "draw_pets", lambda folder, draw=drawn.draw_pets: draw(folder, count=30))
    found = make(tmp_path, "embedded")
    assert not (tmp_path / "oxford-iiit-pet/images").is_symlink()
    assert sum(map(sum, found["counts"].values())) == 30
    assert "not photographs" in found["description"]
    assert_as_torchvision(tmp_path, list(range(len(found["classes"]))))
    examples = load(tmp_path, "train")
    left, top, right, bottom = examples.head_box(0)
    width, height = examples.trimap(0).size
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    species = make(tmp_path, "embedded", target="species")
    assert species["classes"] == pets.SPECIES
    for split in ("train", "test"):
        kinds = [kind for _, _, kind, _, _ in torchvisions(tmp_path, split)]
        assert load(tmp_path, split).labels.tolist() == kinds
