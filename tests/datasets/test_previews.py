"""Previews of a data set: which images are chosen, and what the pictures and overlays show."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.datasets import formats, previews, thumbnails, trimaps
from convatlas.records import Previews
from tests.support.pets_source import BOX, prepare_pets, write_pets_source
from tests.support.workspace import ROOT, read_files

SETTINGS = {"format": "images", "test_share": 0.5, "on_bad_image": "error"}


def write_previews(data: Path, folder: Path) -> Previews:
    """Write previews into a new folder."""
    folder.mkdir()
    return previews.write_previews(data, folder)


def prepare_classes(folder: Path, class_count: int, image_count: int) -> Path:
    """Prepare a data set of image files, each with a colour of its own, made of class, and number."""
    for label in range(class_count):
        class_folder = folder / f"source/class {label:03d}"
        class_folder.mkdir(parents=True)
        for n in range(image_count):
            Image.new("RGB", (9, 7), (label % 256, label // 256, n)).save(class_folder / f"{n}.png")
    formats.prepare(folder / "data", SETTINGS | {"source": str(folder / "source")}, "datasets.mine")
    return folder / "data"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 50])
def test_items_are_chosen_evenly(count: int) -> None:
    chosen = previews.choose_evenly(range(50), count)
    assert len(chosen) == len(set(chosen)) == count
    for n, item in enumerate(chosen):  # one of each of `count` equal parts
        assert n * 50 <= item * count < (n + 1) * 50
    assert previews.choose_evenly([3, 1], 9) == [3, 1]


def test_images_are_chosen_at_random_from_all_subclasses() -> None:
    breeds = [f"breed {n // 20}" for n in range(60)]  # in the order of the split
    chosen = previews.choose_at_random(range(60), 7, breeds)
    assert chosen == sorted(set(chosen)) == previews.choose_at_random(range(60), 7, breeds)
    assert sorted([breeds[n] for n in chosen].count(f"breed {k}") for k in range(3)) == [2, 2, 3]
    one_by_one = [previews.choose_at_random(range(start, start + 20), 1, breeds)[0] % 20 for start in (0, 20)]
    assert one_by_one != [10, 10]  # not the middle one
    assert previews.choose_at_random([3, 1], 9) == [1, 3]
    assert previews.choose_at_random([], 4) == []


def test_stored_thumbnails_are_those_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepare_classes(tmp_path, 2, 6)
    test = formats.load(data, "test")
    assert thumbnails.read_thumbnails(tmp_path) == {}  # without a file
    assert thumbnails.write_thumbnails(data, tmp_path) == len(test) == 6
    stored = thumbnails.read_thumbnails(tmp_path)
    assert stored == {
        index: thumbnails.make_thumbnail(test, index, formats.describe(data), thumbnails.PAGE_SIDE)
        for index in range(6)
    }
    Path(test.paths[0]).write_bytes(b"damaged")
    monkeypatch.setattr(thumbnails, "MAX_STORED", 3)
    thumbnails.write_thumbnails(data, tmp_path)
    assert thumbnails.read_thumbnails(tmp_path) == {index: stored[index] for index in (1, 2)}


def test_a_few_images_of_each_class_and_split_are_shown(tmp_path: Path) -> None:
    data = prepare_classes(tmp_path, 5, 20)
    result = write_previews(data, tmp_path / "out")
    assert result["classes"] == [0, 1, 2, 3, 4]
    for split in ("train", "test"):
        names = formats.load(data, split).names
        assert [preview["class"] for preview in result[split]] == [
            label for label in range(5) for _ in range(previews.PREVIEWS_PER_CLASS)
        ]
        for preview in result[split]:
            assert preview["name"] in names
            pixels = np.asarray(Image.open(tmp_path / "out" / preview["file"]).convert("RGB"))
            assert pixels.shape == (*preview["size"], 3) == (7, 9, 3)
            label, name = preview["name"].removeprefix("class ").split("/")
            assert (pixels == [int(label), 0, int(name.removesuffix(".png"))]).all()
            assert int(label) == preview["class"]
    files = {preview["file"] for split in ("train", "test") for preview in result[split]}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files


def test_of_many_classes_some_are_shown(tmp_path: Path) -> None:
    result = write_previews(prepare_classes(tmp_path / "many", 120, 2), tmp_path / "out")
    assert len(result["classes"]) == previews.MAX_PREVIEWS // 2
    assert len(result["train"]) == len(result["test"]) == previews.MAX_PREVIEWS // 2
    assert result["classes"][0] < 3 and result["classes"][-1] > 116


def test_images_without_classes_are_shown(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(parents=True)
    for n in range(30):
        Image.new("RGB", (500, 20), (n, 0, 0)).save(source / f"{n:02d}.png")
    formats.prepare(tmp_path / "data", SETTINGS | {"source": str(source)}, "datasets.plain")
    result = write_previews(tmp_path / "data", tmp_path / "out")
    assert result["classes"] == result["train"] == []
    assert len(result["test"]) == previews.PREVIEWS_WITHOUT_CLASSES
    for preview in result["test"]:
        assert (preview["class"], preview["size"]) == (None, [6, previews.MAX_SIDE])
        assert (preview["trimap"], preview["head_box"]) == (None, None)


def test_trimaps_and_head_boxes_match_the_photographs(tmp_path: Path) -> None:
    """The photographs show a bright pet with a brighter head: the overlay covers it and nothing else."""
    source = write_pets_source(tmp_path / "source/oxford-iiit-pet")
    trimap = np.full((240, 320), trimaps.BACKGROUND, np.uint8)
    trimap[80:200, 100:300] = trimaps.BORDER
    trimap[100:180, 120:280] = trimaps.PET
    photograph = np.where(trimap == trimaps.PET, 150, 20).astype(np.uint8)
    photograph[100:140, 120:200] = 250
    for path in (source / "images").iterdir():
        Image.fromarray(photograph).save(path, quality=95)
        Image.fromarray(trimap).save(source / f"annotations/trimaps/{path.stem}.png")
    corners = "<xmin>120</xmin><ymin>100</ymin><xmax>200</xmax><ymax>140</ymax>"
    (source / "annotations/xmls/Some_Cat_2.xml").write_text(BOX.format(corners))
    prepare_pets(tmp_path / "data", source)
    result = write_previews(tmp_path / "data", tmp_path / "out")
    boxes = {preview["name"]: preview["head_box"] for preview in result["test"]}
    assert boxes == {"shaggy_dog_1": None, "Some_Cat_2": [120 / 320, 0.4167, 200 / 320, 0.5833]}
    for preview in result["train"] + result["test"]:
        assert preview["size"] == [108, 144]
        pixels = np.asarray(Image.open(tmp_path / "out" / preview["file"]).convert("L"))
        overlay = np.asarray(Image.open(tmp_path / "out" / str(preview["trimap"])).convert("RGBA"))
        assert pixels.shape == overlay.shape[:2]
        visible = overlay[:, :, 3] > 0
        pet = (overlay == previews.TRIMAP_COLOURS[trimaps.PET]).all(2)
        border = (overlay == previews.TRIMAP_COLOURS[trimaps.BORDER]).all(2)
        assert (pet == (pixels > 90)).mean() > 0.99
        np.testing.assert_array_equal(visible, pet | border)
        assert border.sum() == pytest.approx((trimap == trimaps.BORDER).sum() * 0.45**2, rel=0.05)


@pytest.mark.parametrize(
    ("box", "relative"),
    [
        ((-20, -5, 50, 20), [0, 0, 0.5, 0.4]),
        ((50, 25, 200, 90), [0.5, 0.5, 1, 1]),
        ((100, 0, 120, 50), None),
        ((10, 50, 20, 60), None),
        ((30, 10, 30, 20), None),
    ],
)
def test_a_head_box_is_clipped_to_its_image(box: trimaps.Box, relative: list[float] | None) -> None:
    assert previews._to_relative_box(box, 100, 50) == relative


@pytest.mark.parametrize(
    ("size", "preview_size", "suffix"),
    [((64, 20), (64, 20), ".png"), ((65, 20), (65, 20), ".jpg"), ((1440, 3), (144, 1), ".jpg")],
)
def test_small_images_are_kept_without_loss_and_none_is_enlarged(
    tmp_path: Path, size: tuple[int, int], preview_size: tuple[int, int], suffix: str
) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    (tmp_path / "source").mkdir()
    image.save(tmp_path / "source/a.png")
    formats.prepare(tmp_path / "data", SETTINGS | {"source": str(tmp_path / "source")}, "datasets.mine")
    (preview,) = write_previews(tmp_path / "data", tmp_path / "out")["test"]
    assert preview["file"] == f"test-00000{suffix}"
    assert preview["size"] == list(preview_size[::-1])
    with Image.open(tmp_path / "out" / preview["file"]) as written:
        assert written.size == preview_size
        if suffix == ".png":
            np.testing.assert_array_equal(written, image)


def test_the_script_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    data = prepare_classes(tmp_path, 3, 6)
    script = [sys.executable, "scripts/previews.py", "--name", "mine", "--data", str(data)]
    for name in ("a", "b"):
        subprocess.run([*script, "--output", str(tmp_path / name)], cwd=ROOT, check=True, capture_output=True)
    first, second = read_files(tmp_path / "a"), read_files(tmp_path / "b")
    assert first == second and "examples.json" in first
    subprocess.run([*script, "--output", str(tmp_path / "a")], cwd=ROOT, check=True, capture_output=True)
    assert read_files(tmp_path / "a") == first


def test_previews_of_the_real_pets_take_well_under_a_megabyte(tmp_path: Path, mnist: Path) -> None:
    prepare_pets(tmp_path / "data", mnist.parent / "pets", target="breed")
    result = write_previews(tmp_path / "data", tmp_path / "out")
    assert len(result["classes"]) > 30
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < 800_000
