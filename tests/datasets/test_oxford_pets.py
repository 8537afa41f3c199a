"""Oxford-IIIT Pet from directories, synthetic and real, compared with what torchvision reads."""

import logging
import re
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
from convatlas.datasets.formats import describe, load
from convatlas.pixels import GREY, RGB
from tests.support.pets_source import (
    BOX,
    KEY,
    TEST,
    TRAINVAL,
    draw_noise,
    prepare_pets,
    write_pets_source,
)
from tests.support.real_data import get_real_data


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pets_source(tmp_path / "source/oxford-iiit-pet")


def read_with_torchvision(
    folder: Path, split: str
) -> Iterator[tuple[str, int, int, Image.Image, Image.Image]]:
    """Yield what torchvision reads: path, breed, species, image and trimap."""
    from torchvision.datasets import OxfordIIITPet  # noqa: PLC0415  seconds to import

    kinds = ("category", "binary-category", "segmentation")
    dataset = OxfordIIITPet(folder, "trainval" if split == "train" else "test", kinds)
    for path, (image, (breed, species, trimap)) in zip(dataset._images, dataset, strict=True):
        yield str(path), breed, species, image, trimap


def check_against_torchvision(folder: Path, numbers: list[int]) -> None:
    """Compare both splits with torchvision's; `numbers` are the official numbers of the classes, from 0."""
    for split in ("train", "test"):
        dataset = load(folder, split)
        expected = list(read_with_torchvision(folder, split))
        assert dataset.paths == [path for path, *_ in expected]
        assert [numbers[label] for label in dataset.labels] == [breed for _, breed, *_ in expected]
        for n in range(0, len(dataset), 1 + len(dataset) // 20):
            path, _, _, image, trimap = expected[n]
            with Image.open(path) as file:
                plain = file.mode == "RGB" and file.getexif().get(ExifTags.Base.Orientation, 1) == 1
            if plain:  # torchvision neither turns images nor lays them on white
                np.testing.assert_array_equal(dataset.read_pixels(n, RGB), image)
            np.testing.assert_array_equal(dataset.read_trimap(n), trimap)


@pytest.mark.parametrize("name", ["source", "source/oxford-iiit-pet"])
def test_a_directory_is_linked(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # again over itself
        prepare_pets(Path("data"), name)
    monkeypatch.chdir("/")
    data = tmp_path / "data"
    assert {path.name for path in data.iterdir()} == {"oxford-iiit-pet", "splits.csv", "dataset.json"}
    assert {path.name for path in (data / "oxford-iiit-pet").iterdir()} == {"images", "annotations"}
    for part in ("images", "annotations"):
        assert (data / "oxford-iiit-pet" / part).is_symlink()
        assert (data / "oxford-iiit-pet" / part).samefile(source / part)
    for split, lines in {"train": TRAINVAL, "test": TEST}.items():
        dataset = load(data, split)
        assert dataset.names == [name for name, *_ in lines]
        assert dataset.labels.dtype == np.int64
        assert [[5, 9, 12][label] for label in dataset.labels] == [label for _, label, _ in lines]
        assert [Path(str(path)).stem for path in dataset.paths] == dataset.names


@pytest.mark.parametrize(
    ("target", "classes", "counts"),
    [
        ("breed", ["Some Cat", "Shaggy Dog", "Old Hound"], {"train": [2, 1, 1], "test": [1, 1, 0]}),
        ("species", ["cat", "dog"], {"train": [2, 2], "test": [1, 1]}),
    ],
)
def test_classes(tmp_path: Path, source: Path, target: str, classes: list[str], counts: dict) -> None:
    description = prepare_pets(tmp_path / "data", source, target=target)
    assert description["classes"] == classes
    assert description["counts"] == counts
    assert (description["format"], description["source"]) == ("oxford-iiit-pet", "directory")
    assert description["target"] == target
    areas = sorted((draw_noise(name).shape[:2] for name, *_ in TRAINVAL + TEST), key=np.prod)
    assert description["image_shape"] is None
    assert description["image_sizes"] == {
        name: list(areas[n]) for name, n in {"smallest": 0, "median": 2, "largest": 5}.items()
    }
    for split in counts:
        assert (
            np.bincount(load(tmp_path / "data", split).labels, minlength=len(classes)).tolist()
            == counts[split]
        )


def test_breeds_are_in_the_order_of_their_numbers(tmp_path: Path, source: Path) -> None:
    for name in ("trainval", "test"):
        path = source / f"annotations/{name}.txt"
        path.write_text(re.sub(r"(shaggy_dog_\d+) 9", r"\1 2", path.read_text()))
    description = prepare_pets(tmp_path / "data", source)
    assert description["classes"] == ["Shaggy Dog", "Some Cat", "Old Hound"]
    assert load(tmp_path / "data", "train").labels.tolist() == [1, 0, 1, 2]


def test_pixels_are_those_of_the_files(tmp_path: Path, source: Path) -> None:
    from torchvision.transforms import functional  # noqa: PLC0415

    prepare_pets(tmp_path / "data", source)
    dataset = load(tmp_path / "data", "train")
    pixels = dataset.read_images(RGB, (16, 16), 18, [2, 0])
    for image_pixels, name in zip(pixels, ["Some_Cat_10", "Some_Cat_1"], strict=True):
        with Image.open(source / f"images/{name}.jpg") as image:
            expected = functional.center_crop(functional.resize(image, 18), 16)
        np.testing.assert_array_equal(image_pixels.transpose(1, 2, 0), expected)
    grey = dataset.read_images(GREY, (12, 12), "stretch")
    assert (grey.shape, grey.dtype) == ((4, 1, 12, 12), np.uint8)
    with Image.open(source / "images/old_hound_1.jpg") as image:
        np.testing.assert_array_equal(
            grey[3, 0], image.convert("L").resize((12, 12), Image.Resampling.BILINEAR)
        )


def test_trimaps_and_heads(tmp_path: Path, source: Path) -> None:
    corners = "<xmin>3</xmin><ymin>4</ymin><xmax>15.0</xmax><ymax>16</ymax>"
    (source / "annotations/xmls/Some_Cat_1.xml").write_text(BOX.format(corners))
    (source / "annotations/xmls/shaggy_dog_2.xml").write_text("<annotation></annotation>")
    (source / "annotations/xmls/old_hound_1.xml").write_text(BOX.format("<xmin>3</xmin>"))
    prepare_pets(tmp_path / "data", source)
    dataset = load(tmp_path / "data", "train")
    assert [dataset.read_head_box(n) for n in range(3)] == [(3, 4, 15, 16), None, None]
    with pytest.raises(UserError, match=r"old_hound_1\.xml"):
        dataset.read_head_box(3)
    for n, name in enumerate(dataset.names):
        assert dataset.read_trimap(n).mode == "L"
        np.testing.assert_array_equal(dataset.read_trimap(n), draw_noise(name)[:, :, 0] % 3 + 1)
    (source / "annotations/trimaps/Some_Cat_1.png").write_text("no image")
    with pytest.raises(UserError, match=r"trimap .*Some_Cat_1\.png"):
        dataset.read_trimap(0)


def test_the_hash_is_of_the_contents(tmp_path: Path, source: Path) -> None:
    """It does not depend on the folder, but on images, trimaps, labels and splits."""
    first = prepare_pets(tmp_path / "data", source)["sha256"]
    assert prepare_pets(tmp_path / "again", write_pets_source(tmp_path / "copy"))["sha256"] == first
    trainval = source / "annotations/trainval.txt"
    others = tmp_path / "other.jpg", tmp_path / "other.png"
    Image.fromarray(draw_noise("Some_Cat_1")[::-1]).save(others[0])
    Image.fromarray(np.ones(draw_noise("Some_Cat_1").shape[:2], np.uint8)).save(others[1])
    changes = {
        source / "images/Some_Cat_1.jpg": others[0].read_bytes(),
        source / "annotations/trimaps/Some_Cat_1.png": others[1].read_bytes(),
        trainval: trainval.read_bytes().replace(b"Some_Cat_10 5 1", b"Some_Cat_10 9 2"),
    }
    hashes = {first, prepare_pets(tmp_path / "data", source, target="species")["sha256"]}
    for path, content in changes.items():
        before = path.read_bytes()
        path.write_bytes(content)
        hashes.add(prepare_pets(tmp_path / "data", source, target="species")["sha256"])
        path.write_bytes(before)
    assert len(hashes) == 5


# Faulty directories


def check_refused(tmp_path: Path, source: Path | str, *words: str, **settings: Any) -> None:
    with pytest.raises(UserError) as error:
        prepare_pets(tmp_path / "data", source, **settings)
    for word in (KEY, *words):
        assert word in str(error.value)
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


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
def test_faulty_lists_are_reported(tmp_path: Path, source: Path, edit: tuple, words: list[str]) -> None:
    path = source / f"annotations/{edit[0]}.txt"
    text = path.read_text()
    assert edit[1] in text
    path.write_text(text.replace(*edit[1:]))
    check_refused(tmp_path, source, *words)


@pytest.mark.parametrize("lost", ["annotations/test.txt", "images", "annotations", "."])
def test_a_directory_without_the_layout_is_reported(tmp_path: Path, source: Path, lost: str) -> None:
    path = source / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    check_refused(tmp_path, source, str(source), "images/ and annotations/", ".source")


@pytest.mark.parametrize("name", ["data", "data/oxford-iiit-pet", "link"])
def test_a_source_in_the_output_folder_is_kept(tmp_path: Path, name: str) -> None:
    data = write_pets_source(tmp_path / "data/oxford-iiit-pet")
    (tmp_path / "link").symlink_to(data)
    with pytest.raises(UserError, match=r"datasets\.d\.source.*output folder"):
        prepare_pets(tmp_path / "data", tmp_path / name)
    assert len(list((data / "images").iterdir())) == 6


# Bad images


def read_source_trimap(name: str, folder: Path) -> tuple[Path, np.ndarray]:
    """Return the path of an image's trimap and its values (H, W)."""
    return folder / f"annotations/trimaps/{name}.png", draw_noise(name)[:, :, 0] % 3 + 1


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # only decoding detects this


def redraw(name: str, folder: Path, mode: str | None = None, **values: int) -> None:
    """Write a trimap in another mode, with other values at its start, or filled with one."""
    path, trimap = read_source_trimap(name, folder)
    trimap[...] = values.get("fill", trimap)
    trimap[0, : len(values)] = [*values.values()]
    image = Image.fromarray(trimap)
    (image.convert(mode) if mode else image).save(path)


def crop(name: str, folder: Path) -> None:
    path, trimap = read_source_trimap(name, folder)
    Image.fromarray(trimap[:-1]).save(path)


# How to damage an image, and the fault that is reported
FAULTS = {
    "no image": (lambda name, folder: (folder / f"images/{name}.jpg").unlink(), "image missing"),
    "half an image": (
        lambda name, folder: halve(folder / f"images/{name}.jpg"),
        "image that cannot be read: image file is truncated",
    ),
    "text": (
        lambda name, folder: (folder / f"images/{name}.jpg").write_text("<html>"),
        "image that cannot be read: no image",
    ),
    "no trimap": (lambda name, folder: read_source_trimap(name, folder)[0].unlink(), "trimap missing"),
    "half a trimap": (
        lambda name, folder: halve(read_source_trimap(name, folder)[0]),
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
        lambda name, folder: Image.fromarray(np.full(draw_noise(name).shape[:2], 257, np.uint16)).save(
            read_source_trimap(name, folder)[0]
        ),
        "trimap with values outside 1-3: 257",
    ),
    "size": (crop, "trimap of another size than its image: {w} × {h_1} pixels, the image {w} × {h}"),
    "background": (lambda name, folder: redraw(name, folder, fill=2), "trimap without a pixel of the pet"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_image_is_an_error_or_skipped(tmp_path: Path, source: Path, fault: str) -> None:
    damage, reason = FAULTS[fault]
    damage("Some_Cat_10", source)
    height, width = draw_noise("Some_Cat_10").shape[:2]
    kind, _, detail = reason.format(h=height, h_1=height - 1, w=width).partition(": ")
    path = source / (
        "images/Some_Cat_10.jpg" if kind.startswith("image") else read_source_trimap("Some_Cat_10", source)[0]
    )
    words = ["1 of 6 images", f"{kind}: 1, the first is {path}", detail]
    check_refused(tmp_path, source, *words, "trainval.txt", "datasets.d.on_bad_image: skip")
    description = prepare_pets(tmp_path / "data", source, on_bad_image="skip")
    assert [file["path"] for file in description["skipped"]] == ["oxford-iiit-pet/images/Some_Cat_10.jpg"]
    assert description["skipped"][0]["reason"].startswith(": ".join(filter(None, (kind, detail))))
    assert "\n" not in description["skipped"][0]["reason"]
    assert str(tmp_path) not in (tmp_path / "data/dataset.json").read_text()
    assert description["counts"] == {"train": [1, 1, 1], "test": [1, 1, 0]}
    assert description["classes"] == ["Some Cat", "Shaggy Dog", "Old Hound"]
    assert load(tmp_path / "data", "train").names == ["Some_Cat_1", "shaggy_dog_2", "old_hound_1"]


def test_all_faults_are_counted_at_once(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "images/Unlisted_1.jpg").write_text("no image")  # in no list, so no fault
    (source / "images/Some_Cat_1.mat").touch()
    for name, *faults in (
        ("Some_Cat_1", "half an image", "values"),
        ("Some_Cat_2", "no image", "no trimap"),
        ("shaggy_dog_2", "text"),
        ("shaggy_dog_1", "size"),
    ):
        for fault in faults:
            FAULTS[fault][0](name, source)
    trimaps = source / "annotations/trimaps"
    words = [
        "4 of 6 images cannot be used",
        f"- image that cannot be read: 2, the first is {source}/images/Some_Cat_1.jpg (",
        f"- trimap with values outside 1-3: 1, the first is {trimaps}/Some_Cat_1.png (0, 4, 255)",
        f"- image missing: 1, the first is {source}/images/Some_Cat_2.jpg\n",
        f"- trimap missing: 1, the first is {trimaps}/Some_Cat_2.png\n",
        f"- trimap of another size than its image: 1, the first is {trimaps}/shaggy_dog_1.png (",
    ]
    check_refused(tmp_path, source, *words)
    words = ["no image in the class Shaggy Dog, the split test;", "fix"]
    check_refused(tmp_path, source, *words, on_bad_image="skip")
    redraw("shaggy_dog_1", source)
    caplog.clear()
    with caplog.at_level(logging.INFO, "convatlas"):
        description = prepare_pets(tmp_path / "data", source, on_bad_image="skip")
    assert "2 other files" in caplog.text
    messages = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(messages) == len(description["skipped"]) == 3
    assert description["skipped"][0]["reason"].endswith("; trimap with values outside 1-3: 0, 4, 255")
    assert description["skipped"][2] == {
        "path": "oxford-iiit-pet/images/Some_Cat_2.jpg",
        "reason": "image missing; trimap missing",
    }
    used = sum(map(sum, description["counts"].values()))
    assert used + len(description["skipped"]) == len(TRAINVAL) + len(TEST)


def test_good_images_are_not_skipped(tmp_path: Path, source: Path) -> None:
    first = prepare_pets(tmp_path / "data", source)
    assert first["skipped"] == []
    assert prepare_pets(tmp_path / "data", source, on_bad_image="skip") == first


def test_the_values_of_a_trimap_in_palette_mode_are_its_indices(tmp_path: Path, source: Path) -> None:
    path, trimap = read_source_trimap("Some_Cat_1", source)
    image = Image.fromarray(trimap)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(path)
    with Image.open(path) as image:
        assert image.mode == "P"
    prepare_pets(tmp_path / "data", source)
    np.testing.assert_array_equal(load(tmp_path / "data", "train").read_trimap(0), trimap)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_head_box_is_turned_with_its_photograph(tmp_path: Path, source: Path, orientation: int) -> None:
    """The head is a bright part of the photograph."""
    stored = np.zeros((20, 30), np.uint8)
    stored[2:7, 5:14] = 200
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(stored).save(source / "images/Some_Cat_1.jpg", exif=exif, quality=100)
    Image.fromarray(stored // 200 + 1).save(read_source_trimap("Some_Cat_1", source)[0])
    corners = "<xmin>5</xmin><ymin>2</ymin><xmax>14</xmax><ymax>7</ymax>"
    xml = source / "annotations/xmls/Some_Cat_1.xml"
    xml.write_text(BOX.format(corners))
    prepare_pets(tmp_path / "data", source)
    dataset = load(tmp_path / "data", "train")
    rows, columns = np.nonzero(dataset.read_pixels(0, GREY)[..., 0] > 100)
    upright = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert dataset.read_head_box(0) == upright
    size = "<annotation><size><width>{}</width><height>{}</height></size>"
    xml.write_text(BOX.format(corners).replace("<annotation>", size.format(30, 20)))
    assert dataset.read_head_box(0) == upright
    if orientation >= 5:  # the size of only the upright photograph: annotated on that
        xml.write_text(BOX.format(corners).replace("<annotation>", size.format(20, 30)))
        assert dataset.read_head_box(0) == (5, 2, 14, 7)


def test_the_head_box_of_a_square_photograph_is_turned(tmp_path: Path, source: Path) -> None:
    """Its annotated size does not show whether it was annotated upright: it belongs to the stored pixels."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # rotated clockwise by 90° for display
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(source / "images/Some_Cat_1.jpg", exif=exif)
    Image.fromarray(np.ones((30, 30), np.uint8)).save(read_source_trimap("Some_Cat_1", source)[0])
    corners = "<xmin>5</xmin><ymin>2</ymin><xmax>14</xmax><ymax>7</ymax>"
    size = "<annotation><size><width>30</width><height>30</height></size>"
    xml = source / "annotations/xmls/Some_Cat_1.xml"
    xml.write_text(BOX.format(corners).replace("<annotation>", size))
    prepare_pets(tmp_path / "data", source)
    assert load(tmp_path / "data", "train").read_head_box(0) == (23, 5, 28, 14)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_trimap_is_turned_with_its_photograph(tmp_path: Path, source: Path, orientation: int) -> None:
    """A trimap belongs to the stored pixels, unless only the upright photograph has its size."""
    stored = np.ones((20, 30), np.uint8)
    stored[:6, :9] = [2] * 4 + [3] * 5  # without any symmetry
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photograph = Image.fromarray(np.stack([stored * 80] * 3, -1))
    photograph.save(source / "images/Some_Cat_1.jpg", exif=exif, quality=100)
    Image.fromarray(stored).save(read_source_trimap("Some_Cat_1", source)[0])
    prepare_pets(tmp_path / "data", source)
    dataset = load(tmp_path / "data", "train")
    turned = np.asarray(dataset.read_trimap(0))
    brightness = dataset.read_pixels(0, GREY)[..., 0].astype(int)
    assert turned.shape == brightness.shape
    assert np.abs(turned * 80 - brightness).max() < 40
    if orientation >= 5:
        upright = np.full((30, 20), 2, np.uint8)
        upright[:4, :7] = 1
        Image.fromarray(upright).save(read_source_trimap("Some_Cat_1", source)[0])
        prepare_pets(tmp_path / "data", source)
        np.testing.assert_array_equal(load(tmp_path / "data", "train").read_trimap(0), upright)


def test_bad_official_files_never_stop_a_download(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redraw("Some_Cat_10", source, fill=2)
    archives = [tmp_path / "download" / f"{part}.tar.gz" for part in oxford_pets.SUBFOLDERS]
    archives[0].parent.mkdir()
    for part, path in zip(oxford_pets.SUBFOLDERS, archives, strict=True):
        with tarfile.open(path, "w:gz") as archive:
            archive.add(source / part, part)
    monkeypatch.setattr(oxford_pets, "_download", lambda *_: archives)
    description = prepare_pets(tmp_path / "data", "download")
    assert [file["reason"] for file in description["skipped"]] == ["trimap without a pixel of the pet"]


def test_a_fault_keeps_the_data_set_prepared_before(tmp_path: Path, source: Path) -> None:
    before = prepare_pets(tmp_path / "data", source)
    (source / "images/Some_Cat_1.jpg").write_text("no image")
    with pytest.raises(UserError):
        prepare_pets(tmp_path / "data", source)
    assert describe(tmp_path / "data") == before
    assert load(tmp_path / "data", "train").names == [name for name, *_ in TRAINVAL]


# Real and synthetic pets


def test_the_real_photographs(tmp_path: Path) -> None:
    source = get_real_data("pets")
    description = prepare_pets(tmp_path, source)
    lines = (source / "oxford-iiit-pet/annotations/list.txt").read_text().splitlines()
    numbers = sorted({int(line.split()[1]) - 1 for line in lines})
    assert len(description["classes"]) == len(numbers) == 33
    assert description["classes"][:2] == ["Abyssinian", "American Bulldog"]
    assert {split: sum(counts) for split, counts in description["counts"].items()} == {
        "train": 360,
        "test": 335,
    }
    assert description["skipped"] == []  # Abyssinian_34, with its empty trimap, is in no list
    for split, part in oxford_pets.SPLIT_LISTS.items():  # all that the official lists name is used
        listed = (source / f"oxford-iiit-pet/annotations/{part}.txt").read_text().splitlines()
        breeds = [int(line.split()[1]) - 1 for line in listed]
        assert description["counts"][split] == [breeds.count(number) for number in numbers]
        assert load(tmp_path, split).names == [line.split()[0] for line in listed]
    check_against_torchvision(tmp_path, numbers)
    dataset = load(tmp_path, "test")
    index = dataset.names.index("Abyssinian_5")  # an RGBA PNG
    with Image.open(str(dataset.paths[index])) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
    assert dataset.read_pixels(index, RGB).shape[2] == 3


def test_the_synthetic_pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = pytest.importorskip("convatlas.datasets.synthetic_pets.generate")
    draw_pets = generate.draw_pets
    monkeypatch.setattr(generate, "draw_pets", lambda folder: draw_pets(folder, count=30))
    description = prepare_pets(tmp_path, "embedded")
    assert not (tmp_path / "oxford-iiit-pet/images").is_symlink()
    assert sum(map(sum, description["counts"].values())) == 30
    assert description["skipped"] == []
    assert "not photographs" in description["description"]
    check_against_torchvision(tmp_path, list(range(len(description["classes"]))))
    dataset = load(tmp_path, "train")
    left, top, right, bottom = dataset.read_head_box(0)
    width, height = dataset.read_trimap(0).size
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    species = prepare_pets(tmp_path, "embedded", target="species")
    assert species["classes"] == oxford_pets.SPECIES
    for split in ("train", "test"):
        kinds = [kind for _, _, kind, _, _ in read_with_torchvision(tmp_path, split)]
        assert load(tmp_path, split).labels.tolist() == kinds
