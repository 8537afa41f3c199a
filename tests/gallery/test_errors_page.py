"""The page of a network's errors: its numbers against those of predictions.csv, and its images."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from convatlas.datasets.base import write_splits
from convatlas.datasets.thumbnails import write_thumbnails
from convatlas.files import write_json
from convatlas.gallery import prediction_images
from convatlas.gallery.confusions import group_by_cell
from convatlas.gallery.image_groups import group_by_class, group_by_subclass
from convatlas.gallery.pages.errors import list_explored_images
from convatlas.gallery.prediction_images import ImageSheet
from convatlas.records import ImagePrediction
from tests.support.browser import needs_chromium
from tests.support.fake_results import VIEWS, FakeResults, make_mask_prediction, make_prediction, make_results
from tests.support.site import CONFIG, DATASET, HOSTILE_TEXT, PageParser, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Two errors 2 → 0, one 1 → 3; image 5 is the most confident error, 4 that with the highest loss.
ROWS = [
    make_prediction(0, 0, 0, 0.99, 0.01),
    make_prediction(1, 1, 1, 0.6, 0.5),
    make_prediction(2, 2, 0, 0.7, 1.5),
    make_prediction(3, 2, 2, 0.8, 0.2),
    make_prediction(4, 1, 3, 0.5, 5.0),
    make_prediction(5, 2, 0, 0.9, 2.5),
]
CLASSES = ["ant", "bee", "cat", HOSTILE_TEXT]
MISSING = 3  # the image whose file is gone
N_MANY = 1000


def write_images(folder: Path, rows: Sequence[ImagePrediction], size: tuple[int, int], missing: int) -> None:
    """Write test images, each as bright as ten times its number, and splits.csv."""
    (folder / "images").mkdir(parents=True)
    for index in {row["index"] for row in rows} - {missing}:
        Image.new("RGB", size, (10 * index % 256,) * 3).save(folder / f"images/{index}.png")
    write_splits(folder, [("test", row["label"] or 0, f"images/{row['index']}.png") for row in rows])


def make_classified(rows: list[ImagePrediction], classes: list[str], **network: Any) -> FakeResults:
    results = make_results()
    results.predictions = [row | {"file": f"images/{row['index']}.png"} for row in rows]
    results.network |= {"classes": classes, "dataset_classes": classes} | network
    return results


def make_segmented() -> FakeResults:
    """Return results whose image 3 has no labelled pixel, and so no IoU."""
    results = make_results()
    results.predictions = [
        make_mask_prediction(index, index % 2, value)
        for index, value in enumerate([0.5, 0.25, 0.75, None, 1.0])
    ]
    results.metrics = {
        "mean_iou": 0.5, "iou": {"pet": 0.5, "background": None}, "dice": {"pet": 0.6, "background": None},
        "pixel_accuracy": 0.7, "confusion": [[1, 1], [0, 0]], "images": 5,
    }  # fmt: skip
    return results


def make_many() -> list[ImagePrediction]:
    """Return predictions of many classes, most of them wrong."""
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, N_MANY, (2, 300)).tolist()
    return [
        make_prediction(index, label, prediction, float(rng.random()))
        for index, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of classifiers, one without errors and one of many classes, and other networks."""
    folder = tmp_path_factory.mktemp("errors")
    many_classes = [f"class {n}" for n in range(N_MANY)]
    output = {"kind": "multi-label", "path": "", "shape": [4], "reason": ""}
    networks = {
        "own": make_classified(ROWS, CLASSES, output=output),
        "right": make_classified([ROWS[0], ROWS[3]], CLASSES),
        "many": make_classified(make_many(), many_classes, dataset="many"),
        "masks": make_segmented(),
        "untested": make_classified([], CLASSES),
    }
    for name, results in networks.items():
        write_network(folder, name, results)
    write_images(folder / "data/animals", ROWS, (6, 8), MISSING)
    write_images(folder / "data/many", make_many(), (3, 3), -1)
    write_json(folder / "data/animals/dataset.json", DATASET | {"classes": CLASSES})
    counts = dict.fromkeys(("train", "test"), [1] * N_MANY)
    write_json(folder / "data/many/dataset.json", DATASET | {"classes": many_classes, "counts": counts})
    config = CONFIG | {"networks": {name: {"views": VIEWS} for name in networks}}
    return build_site(folder, *networks, config=config)


def read_page(site: Path, network: str, suffix: str = "-errors") -> tuple[PageParser, str]:
    """Return a page of a network and its words."""
    page = PageParser(site / f"networks/{network}{suffix}.html")
    return page, " ".join(page.text.split())


def read_indices(page: PageParser) -> list[int]:
    """Return the numbers of the images on a page, in order."""
    return [int(str(image["alt"]).rpartition(" ")[2]) for image in page.images]


def test_the_page_shows_errors_by_confidence_and_by_cell(site: Path) -> None:
    page, words = read_page(site, "own")
    assert "3 of 6 test images are misclassified" in words
    assert "Most frequent confusion: cat → ant, 2 images" in words
    errors, right, cells = [5, 2, 4], [1, 0], [5, 2, 4, 0, 1]
    assert read_indices(page) == [*errors, *right, *cells]
    assert page.images[0]["alt"] == "cat, test image 5"
    with Image.open(site / "networks" / str(page.images[0]["src"])) as image:
        assert (image.size, image.getpixel((0, 0))) == ((6, 8), 50)
    assert "no thumbnail" in words and f"image {MISSING}, {MISSING}.png" in words
    matrix = {f"cell-{row['label']}-{row['prediction']}" for row in ROWS}
    assert {link[1:] for link in page.links if link.startswith("#cell")} == matrix
    text = (site / "networks/own-errors.html").read_text()
    assert all(text.count(f'id="{cell}"') == 1 for cell in matrix)
    links = read_page(site, "own", "")[0].links
    assert "own-errors.html#cell-2-0" in links and "own-errors.html" in links
    # Several classes may be right, and names are text.
    assert "classes of this network are independent" in words
    assert f"bee → {HOSTILE_TEXT}" in words
    assert not [image for image in page.images if "onerror" in image]


def test_without_errors_and_without_predictions(site: Path) -> None:
    assert "None of the 2 test images is misclassified" in read_page(site, "right")[1]
    assert "No test image is misclassified" in read_page(site, "right", "")[1]
    assert not (site / "networks/untested-errors.html").exists()
    assert "untested-errors.html" not in " ".join(read_page(site, "untested", "")[0].links)


def test_of_many_classes_the_most_frequent_confusions_are_listed(site: Path) -> None:
    page, words = read_page(site, "many")
    assert "The 50 most frequent confusions of the 1,000 classes" in words
    assert len(list((site / "thumbnails/many").iterdir())) == prediction_images.MAX_IMAGES
    text = (site / "networks/many-errors.html").read_text()
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert len(anchors) > 50 and all(f'id="{anchor}"' in text for anchor in anchors)
    assert len(text) < 300_000


def test_the_images_of_a_segmentation_network_are_ordered_by_iou(site: Path) -> None:
    page, words = read_page(site, "masks")
    assert read_indices(page) == [1, 0, 4, 2]
    order = [words.index(f"IoU {value}") for value in ("0.25", "0.50 pet", "1.00", "0.75 pet")]
    assert order == sorted(order)
    assert "1 without a labelled pixel" in words and "pet 0.50, background –" in words


def test_cells_and_groups_are_those_of_the_rows() -> None:
    counts = Counter((row["label"], row["prediction"]) for row in ROWS)
    cells = group_by_cell(ROWS)
    assert {(cell.label, cell.prediction): len(cell.rows) for cell in cells} == counts
    assert [(cell.label, cell.prediction) for cell in cells] == [(2, 0), (1, 3), (0, 0), (1, 1), (2, 2)]
    assert cells[0].share == pytest.approx(2 / 3)
    groups = group_by_class(ROWS, CLASSES)
    assert [(group.name, len(group.rows), group.n_errors) for group in groups] == [
        ("cat", 3, 2), ("bee", 2, 1), ("ant", 1, 0),
    ]  # fmt: skip
    by_breed = group_by_subclass(ROWS, CLASSES, ["a", "b", "c", "d", "b", "c"])
    assert [(group.name, group.accuracy) for group in by_breed] == [
        ("c (cat)", 0), ("b (bee)", 0.5), ("a (ant)", 1), ("d (cat)", 1),
    ]  # fmt: skip
    assert group_by_subclass(ROWS, CLASSES, ["a", "b", "c", "c", "b", "c"]) == []  # as the classes
    assert group_by_subclass(ROWS, CLASSES, None) == []


def test_test_images_among_the_sample_images_are_in_the_explorer() -> None:
    images = [("a", "test", 3), ("b", "train", 4), ("c", None, None)]
    network: Any = SimpleNamespace(
        images=[{"name": name, "split": split, "index": index} for name, split, index in images]
    )
    assert list_explored_images(network) == {3: "a"}


def test_large_images_are_reduced_up_to_a_number_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "few", ROWS, (300, 200), missing=-1)
    write_json(tmp_path / "few/dataset.json", DATASET)
    description: Any = DATASET
    sheet = ImageSheet("few", tmp_path / "few", tmp_path / "previews", description)
    monkeypatch.setattr(prediction_images, "MAX_BYTES", 1)
    assert [image.row["index"] for image in sheet.add([ROWS[5], ROWS[2]])] == [5]
    (image,) = sheet.add(ROWS)
    assert (image.thumbnail, image.size) == ("thumbnails/few/test-00005.webp", (96, 64))
    (tmp_path / "t.webp").write_bytes(sheet.thumbnails[image.thumbnail])
    with Image.open(tmp_path / "t.webp") as picture:
        assert picture.size == (96, 64)


def test_stored_thumbnails_are_shown(tmp_path: Path) -> None:
    write_images(tmp_path / "few", ROWS, (300, 200), missing=-1)
    write_json(tmp_path / "few/dataset.json", DATASET)
    description: Any = DATASET
    sheet = ImageSheet("few", tmp_path / "few", tmp_path, description)
    sheet.add(ROWS)
    write_thumbnails(tmp_path / "few", tmp_path)
    for path in (tmp_path / "few/images").iterdir():
        path.unlink()  # so that no thumbnail can be made
    stored = ImageSheet("few", tmp_path / "few", tmp_path, description)
    assert stored.add(ROWS) == sheet.select(ROWS)
    assert stored.thumbnails == sheet.thumbnails


def test_without_the_data_there_are_no_thumbnails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    description: Any = DATASET
    sheet = ImageSheet("few", tmp_path / "few", tmp_path / "previews", description)
    assert [image.thumbnail for image in sheet.add(ROWS[:2])] == ["", ""]
    assert sheet.thumbnails == {} and sheet.subclasses is None
    assert "no thumbnails of test images" in caplog.text


@needs_chromium
def test_the_page_is_accessible_and_sorts_by_loss(browser: "Browser", site: Path) -> None:
    for scheme, width in (("light", 1280), ("dark", 360)):
        page, errors = open_page(browser, site, "networks/own-errors.html", width, scheme)
        assert errors == []
        violations = Axe().run(page).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        images = page.locator("#first ~ .predictions img")
        assert images.evaluate_all("all => all.map(i => i.alt.at(-1))") == ["5", "2", "4"]
        page.get_by_label("Sort images by").select_option("loss")
        assert images.evaluate_all("all => all.map(i => i.alt.at(-1))") == ["4", "5", "2"]
        page.get_by_label("Sort images by").select_option("probability")
        assert images.evaluate_all("all => all.map(i => i.alt.at(-1))") == ["5", "2", "4"]
        page.get_by_role("link", name="2, cat predicted as ant").click()
        assert page.evaluate("document.querySelector(':target').textContent").startswith("cat → ant")
        page.context.close()
