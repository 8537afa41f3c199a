"""Plates and page of masks, of a made-up network of twelve convolutions that segments."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from torch.nn import functional

from convatlas import UserError
from convatlas.figures import build, context, segmentation
from convatlas.figures.context import CaptionedFigure
from convatlas.figures.segmentation import BACKGROUND, BORDER, PET, classify_differences, fade_outside_mask
from convatlas.files import write_json, write_npz
from convatlas.gallery.findings import list_emergence_findings, list_findings
from convatlas.plotting import charts
from convatlas.plotting.labelled_figure import ACCENT_COLOUR, figure_style
from convatlas.plotting.montage import Montage, Tile
from tests.gallery.test_build import CONFIG, DATASET, TIMING, Reader, built
from tests.support.arrays import read_npz
from tests.support.fake_results import VIEWS, FakeResults, make_layer, make_results
from tests.support.workspace import ROOT

SIDE = 48
ROLES = ("attention", "main", "attention", "main", "down", "pyramid", "pyramid", "up", "attention", "main",
         "main", "head")  # fmt: skip
SIDES = (24, 48, 24, 48, 24, 6, 1, 24, 12, 24, 48, 48)
NAMES = (*(f"part.{n}.{role}" for n, role in enumerate(ROLES[:-1], 1)), "head")
CLASSES = ["pet", "background", "border"]
EXAMPLES = ("first", "best", "median", "worst")


def trimap(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """An ellipse of pet with a border about it, (side, side) uint8."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    a, b = rng.uniform(0.2, 0.4, 2)
    far = np.hypot((x - rng.uniform(-0.1, 0.1)) / a, (y - rng.uniform(-0.1, 0.1)) / b)
    return np.select([far < 0.9, far < 1.1], [PET, BORDER], BACKGROUND).astype(np.uint8)


def measured(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """What masks.json says of the convolution `n`, from 0: fine detail first, the mask later."""
    iou = min(0.82, 0.35 + 0.05 * n + 0.02 * float(rng.random()))
    units = 3 if n == 11 else 8
    return {
        "name": NAMES[n],
        "ordinal": n + 1,
        "role": ROLES[n],
        "shape": [units, SIDES[n], SIDES[n]],
        "iou": iou,
        "train_iou": iou + 0.02,
        "chance_iou": 0.31,
        "unit": n % units,
        "threshold": 0.1,
        "at_least": n % 2 == 0,
        "high_frequency_share": 0.0 if SIDES[n] <= 16 else max(0.02, 0.5 - 0.04 * abs(n - 1)),
        "edge_correlation": 0.6 - 0.03 * n,
        "edge_unit": 1,
        "selective_units": [{"unit": u, "auc": 0.5 + 0.03 * n + 0.01 * u} for u in (2, 1, 0)],
        "head": None if n < 3 else {"unit": 2, "share": 0.1 + 0.03 * n, "area": 0.11},
    }


def masks_of(segments: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    layers = [measured(rng, n) for n in range(len(NAMES))]
    reached = next(one for one in layers if one["iou"] >= 0.9 * layers[-1]["iou"])
    iou = {"pet": 0.8123, "background": 0.91, "border": None}
    examples = [
        {"rank": which, "index": n, "name": f"Bombay_{n}", "iou": iou, "mean_iou": 0.7}
        for n, which in enumerate(EXAMPLES)
    ]
    return {
        "size": [SIDE, SIDE],
        "images": {"train": 200, "test": 60},
        "pet_share": 0.29,
        "cutoff_frequency": 8,
        "final": {key: layers[-1][key] for key in ("ordinal", "iou")} | {"layer": layers[-1]["name"]},
        "emergence": {key: reached[key] for key in ("ordinal", "iou")} | {"layer": reached["name"]},
        "layers": layers,
        "examples": examples if segments else [],
        "is_segmentation": segments,
    }


def segmenting(segments: bool = True) -> FakeResults:
    """results/<network>/ of the network, without its masks; without `segments` it tells ant from bee."""
    rng = np.random.default_rng(7)
    window = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    layers, given = [], (3, SIDE, SIDE)
    for n, name in enumerate(NAMES):
        shape = (3 if n == 11 else 8, SIDES[n], SIDES[n])
        layers.append(make_layer(name, "conv", given, shape, ordinal=n + 1, role=ROLES[n], **window))
        given = shape
    outputs = {}
    for image in ("first", "second"):
        seen = trimap(rng) == PET
        outputs[image] = {"input": _photograph(rng, seen).transpose(2, 0, 1)}
        for n, one in enumerate(layers):
            units, side, _ = one["output_shape"]
            small = seen[:: SIDE // side, :: SIDE // side] * 0.1 * n
            outputs[image][one["name"]] = (small + 0.3 * rng.normal(size=(units, side, side))).astype(
                np.float32
            )
    results = make_results()
    nothing = dict.fromkeys(("label", "prediction", "probability"))
    metrics = {
        "mean_iou": 0.6712,
        "iou": {"pet": 0.81, "background": 0.88, "border": None},
        "dice": {"pet": 0.9, "background": 0.94, "border": None},
        "pixel_accuracy": 0.8733,
        "confusion": [[70000, 20000, 10000], [9000, 300000, 1000], [12000, 6000, 2000]],
        "images": 60,
    }
    if not segments:
        metrics = {"accuracy": 0.75, "images": 60}
    return replace(
        results,
        layers=layers,
        images=[image | nothing for image in results.images],
        network=results.network
        | {
            "classes": CLASSES if segments else results.network["classes"],
            "preprocessing": {"size": SIDE, "mean": [0.0] * 3, "std": [1.0] * 3},
        },
        metrics=metrics,
        history="epoch,lr,train_loss,train_accuracy,validation_loss,validation_accuracy,validation_mean_iou\n"
        "1,0.1,2.0,0.5,2.1,0.4,0.3\n2,0.1,1.0,0.75,1.1,0.7,0.6\n3,0.1,0.9,0.8,1.0,0.75,0.65\n",
        filters={
            name: rng.normal(size=(3 if name == "head" else 8, 3, 3, 3)).astype(np.float32) for name in NAMES
        },
        outputs=outputs,
        projections={name: {} for name in outputs},
        units_like={},
        classical={
            name: {key: rng.random((SIDE, SIDE)) - 0.5 for key in array}
            for name, array in results.classical.items()
        },
    )


def _photograph(rng: np.random.Generator, pet: np.ndarray) -> np.ndarray:
    ground = np.where(pet[..., None], rng.random(3), rng.random(3))
    return np.clip(ground + 0.1 * rng.normal(size=(*pet.shape, 3)), 0, 1).astype(np.float32)


def write(folder: Path, segments: bool = True, **changed: Any) -> Path:
    """Write results/<network>/ with its masks; `changed` are keys of masks.json."""
    folder = segmenting(segments).write(folder)
    write_json(folder / "masks/masks.json", masks_of(segments) | changed)
    if segments:
        rng = np.random.default_rng(11)
        truth = np.stack([trimap(rng) for _ in EXAMPLES])
        predicted = np.stack([np.roll(one, 3 * n, axis=1) for n, one in enumerate(truth)])
        photographs = np.stack([255 * _photograph(rng, one == PET) for one in truth]).astype(np.uint8)
        arrays = {"photograph": photographs, "truth": truth, "prediction": predicted}
        write_npz(folder / "masks/examples.npz", arrays)
    return folder


@dataclass
class Drawn:
    """A plate, and the tiles and labels that it was made of."""

    plate: CaptionedFigure
    lines: list[list[Tile | None]]
    labels: list[str]


Draw = Callable[..., list[Drawn]]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Draw:
    """Draw the plates of masks; montages are real, and what was laid out is kept beside them."""
    last: dict[str, Any] = {}
    assemble, montage_plate = context.assemble_montage, context.make_montage_figure

    def laid(lines: list[list[Tile | None]], **layout: Any) -> Montage:
        last["lines"] = lines
        return assemble(lines, **layout)

    def plate(montage: Montage, labels: list[str], *given: Any) -> Figure:
        last["labels"] = labels
        return montage_plate(montage, labels, *given)

    monkeypatch.setattr(context, "assemble_montage", laid)
    monkeypatch.setattr(context, "make_montage_figure", plate)

    def draw(segments: bool = True, changed: dict[str, Any] | None = None, **views: Any) -> list[Drawn]:
        folder = write(tmp_path / "own", segments, **(changed or {}))
        drawn = []
        with figure_style():
            for made in segmentation.draw_segmentation_figures(
                context.FigureContext(folder, "own", VIEWS | views)
            ):
                drawn.append(Drawn(made, last.pop("lines", []), last.pop("labels", [])))
        return drawn

    return draw


def arrays() -> dict[str, dict[str, np.ndarray]]:
    return segmenting().activations


# Which plates


def test_a_network_without_masks_has_no_plates_of_them(tmp_path: Path) -> None:
    folder = make_results().write(tmp_path / "own")
    assert list(segmentation.draw_segmentation_figures(context.FigureContext(folder, "own", VIEWS))) == []


def test_the_plates_and_their_files(draw: Draw) -> None:
    files = [one.plate.file for one in draw()]
    assert files == ["segmentation.png", "mask.png", "mask-first.png", "mask-first+units.png"]
    assert [one.plate.file for one in draw(segments=False)] == files[1:]
    numbers = [one.plate.caption.split(".")[0] for one in draw()]
    assert numbers == ["Plate 1", "Plate 2", "Plate 3", "Plate 4"]


def test_masks_without_a_convolution_are_left_alone(draw: Draw) -> None:
    none = {"layers": [], "final": None, "emergence": None}
    assert [one.plate.kind for one in draw(changed=none)] == ["segmentation"]


def test_all_plates_of_a_network_are_in_the_order_of_its_page(tmp_path: Path) -> None:
    folder = write(tmp_path / "own")
    with figure_style():
        plates = list(
            build.draw_figures(folder, "own", VIEWS | {"show": "maps", "highlight": [12, NAMES[4]]})
        )
    kinds = [(plate.kind, plate.subject) for plate in plates]
    assert kinds[:3] == [("curves", ""), ("confusion", ""), ("segmentation", "")]
    assert kinds[3:6] == [("mask", ""), ("mask", "first"), ("mask", "first")]
    rest = [name for name in NAMES if name not in (NAMES[4], "head")]
    assert [subject for kind, subject in kinds if kind in ("maps", "values")] == [NAMES[4], "head", *rest]
    assert [plate.caption.split(".")[0] for plate in plates] == [f"Plate {n + 1}" for n in range(len(plates))]


# Truth and prediction


def test_the_difference_of_each_pair_of_classes() -> None:
    truth, predicted = np.mgrid[:3, :3].astype(np.uint8)  # rows pet, background, border
    found = np.array(list(segmentation.DIFFERENCE_COLOURS))[classify_differences(truth, predicted)]
    assert found.tolist() == [
        ["right, pet", "missed pet", "at the border"],
        ["false pet", "right", "at the border"],
        ["at the border", "at the border", "right"],
    ]


def test_each_example_is_its_photograph_truth_prediction_and_difference(draw: Draw, tmp_path: Path) -> None:
    plate = draw()[0]
    examples = read_npz(tmp_path / "own/masks/examples.npz")
    colours = np.array([to_rgb(colour) for colour in segmentation.CLASS_COLOURS.values()])
    assert len(plate.lines) == 4
    for n, line in enumerate(plate.lines):
        assert [tile.title for tile in line] == ["photograph", "truth", "prediction", "difference"]
        np.testing.assert_array_equal(line[0].values, examples["photograph"][n] / 255)
        np.testing.assert_array_equal(line[1].values, colours[examples["truth"][n]])
        np.testing.assert_array_equal(line[2].values, colours[examples["prediction"][n]])
    assert plate.labels[1].split("\n") == [
        "best", "Bombay_1", "", "IoU", "pet 0.81", "background 0.91", "border –", "mean 0.70"
    ]  # fmt: skip
    said = [text.get_text() for legend in plate.plate.figure.legends for text in legend.get_texts()]
    assert said == [*segmentation.CLASS_COLOURS, *segmentation.DIFFERENCE_COLOURS]


# Where the mask appears


def test_the_curves_are_the_measurements(draw: Draw) -> None:
    masks = masks_of()
    figure = draw()[1].plate.figure
    above, below, roles = figure.subfigs[0].axes
    lines = {line.get_label(): line for ax in (above, below) for line in ax.get_lines()}
    drawn = {"best map": "iou", "chance": "chance_iou", "energy above\n8 cycles": "high_frequency_share",
             "|r| with\nthe edges": "edge_correlation"}  # fmt: skip
    for label, key in drawn.items():
        np.testing.assert_array_equal(lines[label].get_xdata(), range(1, 13))
        np.testing.assert_array_equal(lines[label].get_ydata(), [layer[key] for layer in masks["layers"]])
    assert set(lines["all called pet"].get_ydata()) == {0.29}
    assert above.get_ylim() == below.get_ylim() == (0, 1)
    assert [text.get_text() for text in roles.get_legend().get_texts()] == list(dict.fromkeys(ROLES))
    colours = [patch.get_facecolor() for patch in roles.patches]
    assert len(colours) == 12 and len(set(colours)) == len(set(ROLES))
    assert colours[0] == colours[2] == colours[8] != colours[1]


def marks(drawn: Drawn) -> list[str]:
    return [text.get_text() for text in drawn.plate.figure.subfigs[0].axes[0].texts]


def test_what_is_marked(draw: Draw) -> None:
    reached = masks_of()["emergence"]["ordinal"]
    assert marks(draw()[1]) == [f"{reached}: the first at 90 % of the last one's IoU ▾"]
    drawn = draw(remark={"ordinal": 3, "text": "maps look like the mask"})[1]
    assert marks(drawn)[1] == "▾ 3: maps look like the mask"
    assert drawn.plate.caption.endswith("Layer 3: maps look like the mask.")
    assert marks(draw(changed={"emergence": None})[1]) == []


def test_a_remark_on_a_layer_that_is_not_there_is_not_made(draw: Draw) -> None:
    drawn = draw(remark={"ordinal": 43, "text": "maps look like the mask"})[1]
    assert len(marks(drawn)) == 1 and "Layer 43" not in drawn.plate.caption


@pytest.mark.parametrize(
    ("highlight", "expected"),
    [(None, [1, 3, 4, 6, 7, 9, 10, 12]), ([12, "part.5*", 2], [2, 5, 12])],
)
def test_the_best_maps_of_the_road(draw: Draw, highlight: list[Any] | None, expected: list[int]) -> None:
    drawn = draw(**({"highlight": highlight} if highlight else {}))[2]
    layers, outputs = masks_of()["layers"], arrays()["first"]
    tiles = [tile for line in drawn.lines[::2] for tile in line[1:] if tile]
    cuts = [tile for line in drawn.lines[1::2] for tile in line[1:] if tile]
    assert [int(tile.note.split()[0]) for tile in tiles] == expected
    for tile, cut, ordinal in zip(tiles, cuts, expected, strict=True):
        layer = layers[ordinal - 1]
        assert tile.note == f"{ordinal} {layer['name']}" and tile.title == f"unit {layer['unit']}"
        assert tile.right_title == f"IoU {layer['iou']:.2f}"
        np.testing.assert_array_equal(tile.values, outputs[layer["name"]][layer["unit"]])
        assert cut.values.shape == (4 * SIDE, 4 * SIDE, 3)


@pytest.mark.parametrize("side", [1, 6, 24, 48])
@pytest.mark.parametrize("above", [True, False])
def test_what_a_threshold_keeps_is_what_was_measured(side: int, above: bool) -> None:
    rng = np.random.default_rng(side)
    values, picture = rng.normal(size=(side, side)).astype(np.float32), rng.random((SIDE, SIDE, 3)) / 2
    large = functional.interpolate(torch.from_numpy(values)[None, None], (SIDE, SIDE), mode="bilinear")
    kept = ((large[0, 0] >= 0.1) == above).numpy()
    found = fade_outside_mask(picture, values, {"threshold": 0.1, "at_least": above})
    outlined = (found == to_rgb(ACCENT_COLOUR)).all(-1)
    np.testing.assert_array_equal(found[kept & ~outlined], picture[kept & ~outlined])
    assert (found[~kept] > 0.75).all() and not (outlined & ~kept).any()
    inside = ndimage.binary_erosion(kept, border_value=1)
    np.testing.assert_array_equal(outlined, kept & ~inside)


def test_the_separating_units_come_the_clearest_first(draw: Draw) -> None:
    layers = masks_of()["layers"]
    layers[4]["selective_units"] = [{"unit": 6, "auc": 0.02}]
    drawn = draw(changed={"layers": layers})[3]
    first, second = drawn.lines
    assert [tile.right_title for tile in first[1:4]] == ["AUC 0.02", "AUC 0.85", "AUC 0.84"]
    assert first[1].note == "5 part.5.down" and first[1].title == "unit 6"
    for line, image in ((first, "first"), (second, "second")):
        np.testing.assert_array_equal(line[1].values, arrays()[image]["part.5.down"][6])
        np.testing.assert_array_equal(line[2].values, arrays()[image]["head"][2])
    assert len(first) == 9


def test_an_unknown_layer_of_the_road_is_refused(draw: Draw) -> None:
    with pytest.raises(UserError, match=r"networks\.own\.views\.highlight: no layer 'hat'"):
        draw(highlight=["hat"])


# Training


def test_the_curves_have_the_mean_iou_where_the_history_has_it() -> None:
    rows = list(csv.DictReader(segmenting().history.splitlines()))
    with figure_style():
        axes = charts.plot_training_curves(rows, 3, "").subfigs[0].axes
    assert [ax.get_title() for ax in axes] == ["cross-entropy", "pixels that are right", "mean IoU"]
    (line,) = [line for line in axes[2].get_lines() if line.get_label() == "validation"]
    np.testing.assert_array_equal(line.get_ydata(), [0.3, 0.6, 0.65])
    rows = list(csv.DictReader(make_results().history.splitlines()))
    with figure_style():
        axes = charts.plot_training_curves(rows, 2, "").subfigs[0].axes
    assert [ax.get_title() for ax in axes] == ["cross-entropy", "accuracy"]


def test_the_axis_of_the_loss_has_plain_numbers() -> None:
    """Where the loss spans less than a decade, matplotlib would write mathematics, which is not parsed."""
    rows = list(csv.DictReader(make_results().history.splitlines()))
    with figure_style():
        figure = charts.plot_training_curves(rows, 2, "")
        figure.canvas.draw()
    axis = figure.subfigs[0].axes[0].yaxis
    words = [label.get_text() for label in [*axis.get_majorticklabels(), *axis.get_minorticklabels()]]
    assert all(re.fullmatch(r"[\d.]*", word) for word in words) and "2" in words


def test_the_confusion_of_pixels_is_in_per_cent() -> None:
    counts = np.array(segmenting().metrics["confusion"])
    with figure_style():
        ax = charts.plot_confusion_matrix(counts, CLASSES, "", True).subfigs[0].axes[0]
    assert [text.get_text() for text in ax.texts[:3]] == ["70.0 %", "20.0 %", "10.0 %"]


# The page


def site(folder: Path, *names: str, **views: Any) -> Path:
    """The gallery of networks that write() has written under results/."""
    for name in names:
        own = folder / "results" / name
        chosen = {"show": "maps", "n_images": 1, "n_filters": 1} | views
        with figure_style():
            plates = [plate.to_dict(False) for plate in build.draw_figures(own, name, VIEWS | chosen)]
        write_json(own / "figures/figures.json", plates)
        for plate in plates:
            Image.new("RGB", (6, 4)).save(own / "figures" / plate["file"])
        write_json(own / "timing.json", TIMING)
    networks = {name: {"views": VIEWS | views} for name in names}
    return built(folder, *names, config=CONFIG | {"networks": networks})


def ready(folder: Path, **dataset: Any) -> Path:
    write(folder / "results/own")
    write(folder / "results/other", segments=False)
    write_json(folder / "data/animals/dataset.json", DATASET | {"format": "oxford-iiit-pet"} | dataset)
    return folder


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of two networks with masks, of which one segments; neither has a main road."""
    skipped = [{"path": f"images/cat_{n}.jpg", "reason": "it is no image"} for n in range(23)]
    folder = ready(tmp_path_factory.mktemp("site"), skipped=skipped)
    network = json.loads((folder / "results/own/network.json").read_text())
    write_json(folder / "results/own/network.json", network | {"source": "Some <Paper>, 2022"})
    return site(folder, "own", "other")


def test_the_page_of_a_network_that_segments(gallery: Path) -> None:
    page = Reader(gallery / "networks/own.html")
    assert "mean IoU 0.67 over the pixels of 60 test images" in page.text
    for words in ("0.810", "0.940", "in no image", "87.33 %", "Where the mask appears"):
        assert words in page.text
    assert "predicted" not in page.text.partition("The images looked at")[2].partition("Where the mask")[0]
    table = (gallery / "networks/own.html").read_text().partition("All 12 convolutions")[2]
    assert table.partition("</table>")[0].count("<tr>") == 13
    card = Reader(gallery / "index.html").text
    assert re.search(r"mean IoU\s*0.67", card) and re.search(r"test accuracy\s*75.00 %", card)


def test_the_page_that_sets_networks_side_by_side(gallery: Path) -> None:
    page = Reader(gallery / "masks.html")
    assert [image["src"] for image in page.images] == ["plates/own/mask.png", "plates/other/mask.png"]
    assert page.text.count("Fine detail comes first") == 2
    assert "trained to segment" in page.text and "not trained on masks" in page.text
    assert "masks.html" in Reader(gallery / "index.html").links
    assert "../masks.html" in Reader(gallery / "networks/other.html").links
    for link in page.links:
        if not link.startswith("#"):
            assert (gallery / link.partition("#")[0]).is_file(), link


def test_without_masks_there_is_no_such_page(tmp_path: Path) -> None:
    segmenting().write(tmp_path / "results/own")
    write_json(tmp_path / "data/animals/dataset.json", DATASET | {"skipped": []})
    gallery = site(tmp_path, "own")
    assert not (gallery / "masks.html").exists()
    for name in ("index.html", "networks/own.html"):
        text = Reader(gallery / name).text
        assert "Where the mask" not in text and "left out" not in text


def test_the_main_road_comes_first_and_the_rest_is_folded(tmp_path: Path) -> None:
    gallery = site(ready(tmp_path), "own", highlight=[1, 12])
    text = (gallery / "networks/own.html").read_text()
    section = text.partition('<h2 id="layers">')[2]
    found = re.findall(r'<h3 id="layer-([^"]+)"|(<details)', section)
    order = [name or "folded" for name, _ in found]
    assert order[:3] == [NAMES[0], "head", "folded"]
    assert [name for name in order[2:] if name != "folded"] == list(NAMES[1:-1])
    assert order.count("folded") > 1
    numbers = [int(n) for n in re.findall(r"Plate (\d+)\. own", section)]
    assert numbers == sorted(numbers)


def test_without_a_road_all_layers_are_open(gallery: Path) -> None:
    section = (gallery / "networks/own.html").read_text().partition('<h2 id="layers">')[2]
    assert re.findall(r'<h3 id="layer-([^"]+)"', section) == list(NAMES) and "<details" not in section


def test_where_a_network_was_published(gallery: Path) -> None:
    assert "After Some <Paper>, 2022." in Reader(gallery / "networks/own.html").text
    assert "After" not in Reader(gallery / "networks/other.html").text


def test_skipped_images_are_listed(gallery: Path) -> None:
    page = Reader(gallery / "index.html").text
    assert "23 images were left out" in page and "and 3 more" in page
    assert page.count("it is no image") == 20 and "images/cat_19.jpg" in page


# What is said


def test_what_is_said_of_the_mask() -> None:
    masks = masks_of()
    first = next(one for one in masks["layers"] if one["ordinal"] == masks["emergence"]["ordinal"])
    said = list_emergence_findings(masks)
    assert len(said) == 3
    assert said[0].startswith(f"{first['name']} ({first['ordinal']}) is the first of 12 convolutions")
    assert said[1].startswith("Fine detail comes first: the share of energy above 8 cycles per image is")
    assert "greatest in part.2.main (2) (0.50)" in said[1]
    assert said[2] == (
        "Unit 2 of head (12) sees heads: 43 % of its activation lies in their boxes, which take 11 % of the "
        "area. Unit 2 of head (12) separates pet from background best (AUC 0.85)."
    )


def test_what_does_not_hold_is_not_said() -> None:
    masks = masks_of()
    for n, one in enumerate(masks["layers"]):
        one |= {"head": None, "selective_units": [{"unit": 0, "auc": 0.55}], "high_frequency_share": 0.01 * n}
    (said,) = list_emergence_findings(masks)
    assert "is the first of 12" in said
    for one in masks["layers"]:
        one["iou"] = one["chance_iou"] + 0.01
    assert list_emergence_findings(masks) == []
    assert list_emergence_findings(masks | {"layers": []}) == []


def test_a_network_that_loses_the_mask_is_said_to() -> None:
    masks = masks_of(False)
    masks["layers"][-1]["iou"] = 0.33
    assert list_emergence_findings(masks)[0] == (
        "The last convolution does not make the mask: head (12) agrees with it by an IoU of 0.33, where "
        "chance gives 0.31; the best is part.11.main (11), by 0.82 where chance gives 0.31."
    )


def test_a_unit_that_is_lower_on_the_pet_is_said_to_be() -> None:
    masks = masks_of()
    masks["layers"][2]["selective_units"] = [{"unit": 7, "auc": 0.05}]
    assert list_emergence_findings(masks)[2].endswith(
        "Unit 7 of part.3.attention (3) separates pet from background best (AUC 0.05, lower on the pet)."
    )


def test_the_commonest_mistake_among_pixels(tmp_path: Path) -> None:
    folder = write(tmp_path / "own")
    results = segmenting()
    said = list_findings(folder, results.layers, results.images, results.metrics, CLASSES)
    assert said == [
        "The commonest mistake is pet taken for background: 34 % of the pixels that are wrong on the 60 test "
        "images."
    ]


def test_drawing_masks_imports_no_torch(tmp_path: Path) -> None:
    folder = write(tmp_path / "own")
    program = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "finally: print('torch' in sys.modules)\n"
    )
    views = json.dumps(VIEWS | {"layers": ["head"]})
    script = [str(ROOT / "scripts/figures.py"), "--name", "own", "--settings", views, "--output", str(folder)]
    done = subprocess.run([sys.executable, "-c", program, *script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    assert (folder / "figures/mask.png").is_file()
