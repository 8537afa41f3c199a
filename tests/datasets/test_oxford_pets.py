"""Oxford-IIIT Pet, from directories right and wrong, drawn, and real; torchvision reads the same."""

import logging
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from convatlas import UserError
from convatlas.datasets import oxford_pets
from convatlas.datasets.formats import describe, load, prepare
from tests.support.real_data import get_real_data

KEY = "datasets.d"
SETTINGS = {"format": "oxford-iiit-pet", "mirrors": [], "target": "breed", "on_bad_image": "error"}
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
                np.testing.assert_array_equal(examples.read_image(n, "RGB"), image)
            np.testing.assert_array_equal(examples.read_trimap(n), trimap)


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
    found = examples.read_images("RGB", 16, 18, [2, 0])
    for pixels, name in zip(found, ["Some_Cat_10", "Some_Cat_1"], strict=True):
        with Image.open(theirs / f"images/{name}.jpg") as image:
            expected = functional.center_crop(functional.resize(image, 18), 16)
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), expected)
    every = examples.read_images("L", 12, "stretch")
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
    assert [examples.read_head_box(n) for n in range(3)] == [(3, 4, 15, 16), None, None]
    with pytest.raises(UserError, match=r"old_hound_1\.xml"):
        examples.read_head_box(3)
    for n, name in enumerate(examples.names):
        assert examples.read_trimap(n).mode == "L"
        np.testing.assert_array_equal(examples.read_trimap(n), noise(name)[:, :, 0] % 3 + 1)
    (theirs / "annotations/trimaps/Some_Cat_1.png").write_text("no image")
    with pytest.raises(UserError, match=r"trimap .*Some_Cat_1\.png"):
        examples.read_trimap(0)


def test_the_hash_is_of_the_contents(tmp_path: Path, theirs: Path) -> None:
    """The same elsewhere; another when an image, a trimap, a label or the split is another."""
    first = make(tmp_path / "made", theirs)["sha256"]
    assert make(tmp_path / "again", lay_out(tmp_path / "copy"))["sha256"] == first
    trainval = theirs / "annotations/trainval.txt"
    others = tmp_path / "other.jpg", tmp_path / "other.png"
    Image.fromarray(noise("Some_Cat_1")[::-1]).save(others[0])
    Image.fromarray(np.ones(noise("Some_Cat_1").shape[:2], np.uint8)).save(others[1])
    changes = {
        theirs / "images/Some_Cat_1.jpg": others[0].read_bytes(),
        theirs / "annotations/trimaps/Some_Cat_1.png": others[1].read_bytes(),
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
    with pytest.raises(UserError, match=r"datasets\.d\.source.*output folder"):
        make(tmp_path / "made", tmp_path / named)
    assert len(list((made / "images").iterdir())) == 6


# Bad images


def trimap_of(name: str, folder: Path) -> tuple[Path, np.ndarray]:
    """Where the trimap of an image lies, and its values (H, W)."""
    return folder / f"annotations/trimaps/{name}.png", noise(name)[:, :, 0] % 3 + 1


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # only decoding finds that


def redraw(name: str, folder: Path, mode: str | None = None, **values: int) -> None:
    """Write a trimap in another mode, with other values at its start, or filled with one."""
    path, trimap = trimap_of(name, folder)
    trimap[...] = values.get("fill", trimap)
    trimap[0, : len(values)] = [*values.values()]
    image = Image.fromarray(trimap)
    (image.convert(mode) if mode else image).save(path)


def crop(name: str, folder: Path) -> None:
    path, trimap = trimap_of(name, folder)
    Image.fromarray(trimap[:-1]).save(path)


# How to spoil an image, and what is said of it, after the file that is named
BAD = {
    "no image": (lambda name, folder: (folder / f"images/{name}.jpg").unlink(), "image missing"),
    "half an image": (
        lambda name, folder: halve(folder / f"images/{name}.jpg"),
        "image that cannot be read: image file is truncated",
    ),
    "text": (
        lambda name, folder: (folder / f"images/{name}.jpg").write_text("<html>"),
        "image that cannot be read: no image",
    ),
    "no trimap": (lambda name, folder: trimap_of(name, folder)[0].unlink(), "trimap missing"),
    "half a trimap": (
        lambda name, folder: halve(trimap_of(name, folder)[0]),
        "trimap that cannot be read: image file is truncated",
    ),
    "colours": (
        lambda name, folder: redraw(name, folder, "RGB"),
        "trimap of more than one channel: it is RGB",
    ),
    "alpha": (lambda name, folder: redraw(name, folder, "LA"), "trimap of more than one channel: it is LA"),
    "values": (
        lambda name, folder: redraw(name, folder, a=255, b=0, c=4),
        "trimap with values outside 1-3: 0, 4, 255",
    ),
    "many values": (
        lambda name, folder: redraw(name, folder, a=9, b=8, c=7, d=6, e=5, f=4, g=10),
        "trimap with values outside 1-3: 4, 5, 6, 7, 8 and 2 more",
    ),
    "two values": (lambda name, folder: redraw(name, folder, "1"), "trimap with values outside 1-3: 0"),
    "16 bits": (  # 257 would be 1 in 8 bits
        lambda name, folder: Image.fromarray(np.full(noise(name).shape[:2], 257, np.uint16)).save(
            trimap_of(name, folder)[0]
        ),
        "trimap with values outside 1-3: 257",
    ),
    "size": (crop, "trimap of another size than its image: {w} × {h_1} pixels, the image {w} × {h}"),
    "background": (lambda name, folder: redraw(name, folder, fill=2), "trimap without a pixel of the pet"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_image_stops_or_is_left_out(tmp_path: Path, theirs: Path, fault: str) -> None:
    spoil, reason = BAD[fault]
    spoil("Some_Cat_10", theirs)
    height, width = noise("Some_Cat_10").shape[:2]
    kind, _, detail = reason.format(h=height, h_1=height - 1, w=width).partition(": ")
    path = theirs / (
        "images/Some_Cat_10.jpg" if kind.startswith("image") else trimap_of("Some_Cat_10", theirs)[0]
    )
    words = ["1 of 6 images", f"{kind}: 1, the first is {path}", detail]
    assert_refused(tmp_path, theirs, *words, "trainval.txt", "datasets.d.on_bad_image: skip")
    found = make(tmp_path / "made", theirs, on_bad_image="skip")
    assert [one["path"] for one in found["skipped"]] == ["oxford-iiit-pet/images/Some_Cat_10.jpg"]
    assert found["skipped"][0]["reason"].startswith(": ".join(filter(None, (kind, detail))))
    assert "\n" not in found["skipped"][0]["reason"]
    assert str(tmp_path) not in (tmp_path / "made/dataset.json").read_text()
    assert found["counts"] == {"train": [1, 1, 1], "test": [1, 1, 0]}
    assert found["classes"] == ["Some Cat", "Shaggy Dog", "Old Hound"]
    assert load(tmp_path / "made", "train").names == ["Some_Cat_1", "shaggy_dog_2", "old_hound_1"]


def test_all_faults_are_counted_at_once(
    tmp_path: Path, theirs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (theirs / "images/Unlisted_1.jpg").write_text("no image")  # in no list, so no fault
    (theirs / "images/Some_Cat_1.mat").touch()
    for name, *faults in (
        ("Some_Cat_1", "half an image", "values"),
        ("Some_Cat_2", "no image", "no trimap"),
        ("shaggy_dog_2", "text"),
        ("shaggy_dog_1", "size"),
    ):
        for fault in faults:
            BAD[fault][0](name, theirs)
    trimaps = theirs / "annotations/trimaps"
    words = [
        "4 of 6 images cannot be used",
        f"- image that cannot be read: 2, the first is {theirs}/images/Some_Cat_1.jpg (",
        f"- trimap with values outside 1-3: 1, the first is {trimaps}/Some_Cat_1.png (0, 4, 255)",
        f"- image missing: 1, the first is {theirs}/images/Some_Cat_2.jpg\n",
        f"- trimap missing: 1, the first is {trimaps}/Some_Cat_2.png\n",
        f"- trimap of another size than its image: 1, the first is {trimaps}/shaggy_dog_1.png (",
    ]
    assert_refused(tmp_path, theirs, *words)
    words = ["no image in the class Shaggy Dog, the split test;", "fix"]
    assert_refused(tmp_path, theirs, *words, on_bad_image="skip")
    redraw("shaggy_dog_1", theirs)
    caplog.clear()
    with caplog.at_level(logging.INFO, "convatlas"):
        found = make(tmp_path / "made", theirs, on_bad_image="skip")
    assert "2 other files" in caplog.text
    left_out = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(left_out) == len(found["skipped"]) == 3
    assert found["skipped"][0]["reason"].endswith("; trimap with values outside 1-3: 0, 4, 255")
    assert found["skipped"][2] == {
        "path": "oxford-iiit-pet/images/Some_Cat_2.jpg",
        "reason": "image missing; trimap missing",
    }
    used = sum(map(sum, found["counts"].values()))
    assert used + len(found["skipped"]) == len(TRAINVAL) + len(TEST)


def test_nothing_is_left_out_of_good_images(tmp_path: Path, theirs: Path) -> None:
    first = make(tmp_path / "made", theirs)
    assert first["skipped"] == []
    assert make(tmp_path / "made", theirs, on_bad_image="skip") == first


def test_of_a_palette_the_indices_count(tmp_path: Path, theirs: Path) -> None:
    path, trimap = trimap_of("Some_Cat_1", theirs)
    image = Image.fromarray(trimap)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(path)
    with Image.open(path) as image:
        assert image.mode == "P"
    make(tmp_path / "made", theirs)
    np.testing.assert_array_equal(load(tmp_path / "made", "train").read_trimap(0), trimap)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_head_s_box_is_turned_with_its_photograph(tmp_path: Path, theirs: Path, orientation: int) -> None:
    """It lies where the head, a bright part of the photograph, lies upright."""
    stored = np.zeros((20, 30), np.uint8)
    stored[2:7, 5:14] = 200
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(stored).save(theirs / "images/Some_Cat_1.jpg", exif=exif, quality=100)
    Image.fromarray(stored // 200 + 1).save(trimap_of("Some_Cat_1", theirs)[0])
    corners = "<xmin>5</xmin><ymin>2</ymin><xmax>14</xmax><ymax>7</ymax>"
    xml = theirs / "annotations/xmls/Some_Cat_1.xml"
    xml.write_text(BOX.format(corners))
    make(tmp_path / "made", theirs)
    examples = load(tmp_path / "made", "train")
    rows, columns = np.nonzero(np.asarray(examples.read_image(0, "L")) > 100)
    upright = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert examples.read_head_box(0) == upright
    size = "<annotation><size><width>{}</width><height>{}</height></size>"
    xml.write_text(BOX.format(corners).replace("<annotation>", size.format(30, 20)))
    assert examples.read_head_box(0) == upright
    if orientation >= 5:  # of the upright photograph's size alone: drawn on that
        xml.write_text(BOX.format(corners).replace("<annotation>", size.format(20, 30)))
        assert examples.read_head_box(0) == (5, 2, 14, 7)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_trimap_is_turned_with_its_photograph(tmp_path: Path, theirs: Path, orientation: int) -> None:
    """As drawn on the stored pixels; what has the upright photograph's size alone is upright."""
    stored = np.ones((20, 30), np.uint8)
    stored[:6, :9] = [2] * 4 + [3] * 5  # lopsided in every way
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photograph = Image.fromarray(np.stack([stored * 80] * 3, -1))
    photograph.save(theirs / "images/Some_Cat_1.jpg", exif=exif, quality=100)
    Image.fromarray(stored).save(trimap_of("Some_Cat_1", theirs)[0])
    make(tmp_path / "made", theirs)
    examples = load(tmp_path / "made", "train")
    turned = np.asarray(examples.read_trimap(0))
    brightness = np.asarray(examples.read_image(0, "L")).astype(int)
    assert turned.shape == brightness.shape
    assert np.abs(turned * 80 - brightness).max() < 40
    if orientation >= 5:
        upright = np.full((30, 20), 2, np.uint8)
        upright[:4, :7] = 1
        Image.fromarray(upright).save(trimap_of("Some_Cat_1", theirs)[0])
        make(tmp_path / "made", theirs)
        np.testing.assert_array_equal(load(tmp_path / "made", "train").read_trimap(0), upright)


def test_bad_official_files_never_stop_a_download(
    tmp_path: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redraw("Some_Cat_10", theirs, fill=2)
    archives = [tmp_path / "download" / f"{part}.tar.gz" for part in oxford_pets.SUBFOLDERS]
    archives[0].parent.mkdir()
    for part, path in zip(oxford_pets.SUBFOLDERS, archives, strict=True):
        with tarfile.open(path, "w:gz") as archive:
            archive.add(theirs / part, part)
    monkeypatch.setattr(oxford_pets, "_download", lambda *_: archives)
    found = make(tmp_path / "made", "download")
    assert [one["reason"] for one in found["skipped"]] == ["trimap without a pixel of the pet"]


def test_a_fault_keeps_the_data_set_made_before(tmp_path: Path, theirs: Path) -> None:
    before = make(tmp_path / "made", theirs)
    (theirs / "images/Some_Cat_1.jpg").write_text("no image")
    with pytest.raises(UserError):
        make(tmp_path / "made", theirs)
    assert describe(tmp_path / "made") == before
    assert load(tmp_path / "made", "train").names == [name for name, *_ in TRAINVAL]


# Real and drawn


def test_the_real_photographs(tmp_path: Path) -> None:
    source = get_real_data("pets")
    found = make(tmp_path, source)
    lines = (source / "oxford-iiit-pet/annotations/list.txt").read_text().splitlines()
    numbers = sorted({int(line.split()[1]) - 1 for line in lines})
    assert len(found["classes"]) == len(numbers) == 33
    assert found["classes"][:2] == ["Abyssinian", "American Bulldog"]
    assert {split: sum(counts) for split, counts in found["counts"].items()} == {"train": 360, "test": 335}
    assert found["skipped"] == []  # Abyssinian_34, with its empty trimap, is in no list
    for split, part in oxford_pets.SPLIT_LISTS.items():  # all that the official lists name is used
        listed = (source / f"oxford-iiit-pet/annotations/{part}.txt").read_text().splitlines()
        breeds = [int(line.split()[1]) - 1 for line in listed]
        assert found["counts"][split] == [breeds.count(number) for number in numbers]
        assert load(tmp_path, split).names == [line.split()[0] for line in listed]
    assert_as_torchvision(tmp_path, numbers)
    examples = load(tmp_path, "test")
    odd = examples.names.index("Abyssinian_5")  # an RGBA PNG
    with Image.open(str(examples.paths[odd])) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
    assert examples.read_image(odd, "RGB").mode == "RGB"


def test_the_drawn_pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = pytest.importorskip("convatlas.datasets.synthetic_pets.generate")
    monkeypatch.setattr(drawn, "draw_pets", lambda folder, draw=drawn.draw_pets: draw(folder, count=30))
    found = make(tmp_path, "embedded")
    assert not (tmp_path / "oxford-iiit-pet/images").is_symlink()
    assert sum(map(sum, found["counts"].values())) == 30
    assert found["skipped"] == []
    assert "not photographs" in found["description"]
    assert_as_torchvision(tmp_path, list(range(len(found["classes"]))))
    examples = load(tmp_path, "train")
    left, top, right, bottom = examples.read_head_box(0)
    width, height = examples.read_trimap(0).size
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    species = make(tmp_path, "embedded", target="species")
    assert species["classes"] == oxford_pets.SPECIES
    for split in ("train", "test"):
        kinds = [kind for _, _, kind, _, _ in torchvisions(tmp_path, split)]
        assert load(tmp_path, split).labels.tolist() == kinds
