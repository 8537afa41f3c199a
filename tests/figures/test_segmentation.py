"""The figures of segmentation, of a synthetic network of twelve convolutions."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import ndimage
from torch.nn import functional

from convatlas import UserError
from convatlas.figures import build, context, segmentation, segmentation_examples
from convatlas.figures.context import CaptionedFigure, FigureContext
from convatlas.figures.segmentation import fade_outside_mask
from convatlas.figures.segmentation_examples import classify_differences
from convatlas.plotting.labelled_figure import ACCENT_COLOUR, figure_style
from convatlas.plotting.montage import Montage, Tile
from convatlas.results import Results
from tests.support.arrays import read_npz
from tests.support.fake_results import VIEWS, make_results
from tests.support.fake_segmentation import (
    NAMES,
    ROLES,
    SIDE,
    make_analysis,
    make_segmentation_results,
    make_selective_unit,
    write_segmentation,
)
from tests.support.workspace import ROOT


@dataclass
class Drawing:
    """A figure, and the tiles and labels that it was drawn from."""

    figure: CaptionedFigure
    rows: list[list[Tile | None]]
    labels: list[str]


Draw = Callable[..., list[Drawing]]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Draw:
    """Return a function that draws the figures and records their tiles and labels."""
    last: dict[str, Any] = {}
    assemble_montage, make_montage_figure = context.assemble_montage, context.make_montage_figure

    def record_montage(rows: list[list[Tile | None]], **layout: Any) -> Montage:
        last["rows"] = rows
        return assemble_montage(rows, **layout)

    def record_figure(montage: Montage, labels: list[str], *args: Any) -> Figure:
        last["labels"] = labels
        return make_montage_figure(montage, labels, *args)

    monkeypatch.setattr(context, "assemble_montage", record_montage)
    monkeypatch.setattr(context, "make_montage_figure", record_figure)

    def draw_all(
        is_segmentation: bool = True, changes: dict[str, Any] | None = None, **views: Any
    ) -> list[Drawing]:
        folder = write_segmentation(tmp_path / "own", is_segmentation, **(changes or {}))
        with figure_style():
            return [
                Drawing(figure, last.pop("rows", []), last.pop("labels", []))
                for figure in segmentation.draw_segmentation_figures(
                    FigureContext(Results(folder), VIEWS | views)
                )
            ]

    return draw_all


def get_activations() -> dict[str, dict[str, np.ndarray]]:
    return make_segmentation_results().activations


# Which figures


def test_a_network_without_an_analysis_has_no_such_figures(tmp_path: Path) -> None:
    folder = make_results().write(tmp_path / "own")
    assert list(segmentation.draw_segmentation_figures(FigureContext(Results(folder), VIEWS))) == []


def test_the_figures_and_their_files(draw: Draw) -> None:
    files = [drawing.figure.file for drawing in draw()]
    assert files == ["segmentation.png", "mask.png", "mask-first.png", "mask-first+units.png"]
    assert [drawing.figure.file for drawing in draw(is_segmentation=False)] == files[1:]


def test_an_analysis_without_convolutions_has_no_figures_of_layers(draw: Draw) -> None:
    none = {"layers": [], "final": None, "emergence": None}
    assert [drawing.figure.kind for drawing in draw(changes=none)] == ["segmentation"]


def test_all_figures_of_a_network_are_in_the_order_of_its_page(tmp_path: Path) -> None:
    results = Results(write_segmentation(tmp_path / "own"))
    with figure_style():
        figures = list(build.draw_figures(results, VIEWS | {"show": "maps", "highlight": [12, NAMES[4]]}))
    kinds = [(figure.kind, figure.subject) for figure in figures]
    assert kinds[:3] == [("curves", ""), ("confusion", ""), ("segmentation", "")]
    assert kinds[3:6] == [("mask", ""), ("mask", "first"), ("mask", "first")]
    others = [name for name in NAMES if name not in (NAMES[4], "head")]
    assert [subject for kind, subject in kinds if kind in ("maps", "values")] == [NAMES[4], "head", *others]
    assert all(figure.caption == f"own, {figure.alt}." for figure in figures)


# Truth and prediction


def test_the_difference_of_each_pair_of_classes() -> None:
    truth, prediction = np.mgrid[:3, :3].astype(np.uint8)  # rows pet, background, border
    names = np.array(list(segmentation_examples.DIFFERENCE_COLOURS))[classify_differences(truth, prediction)]
    assert names.tolist() == [
        ["correct, pet", "missed pet", "at the border"],
        ["false pet", "correct", "at the border"],
        ["at the border", "at the border", "correct"],
    ]


def test_each_example_is_its_photograph_truth_prediction_and_difference(draw: Draw, tmp_path: Path) -> None:
    drawing = draw()[0]
    examples = read_npz(tmp_path / "own/masks/examples.npz")
    colours = np.array([to_rgb(colour) for colour in segmentation_examples.CLASS_COLOURS.values()])
    assert len(drawing.rows) == 4
    for n, row in enumerate(drawing.rows):
        assert [tile.title for tile in row] == ["photograph", "ground truth", "prediction", "difference"]
        np.testing.assert_array_equal(row[0].values, examples["photograph"][n] / 255)
        np.testing.assert_array_equal(row[1].values, colours[examples["truth"][n]])
        np.testing.assert_array_equal(row[2].values, colours[examples["prediction"][n]])
    assert drawing.labels[1].split("\n") == [
        "best", "test image 1", "", "IoU", "pet 0.81", "background 0.91", "border –", "mean 0.70"
    ]  # fmt: skip
    texts = [text.get_text() for legend in drawing.figure.figure.legends for text in legend.get_texts()]
    assert texts == [*segmentation_examples.CLASS_COLOURS, *segmentation_examples.DIFFERENCE_COLOURS]


# Where segmentation emerges


def test_the_curves_are_the_measurements(draw: Draw) -> None:
    analysis = make_analysis()
    figure = draw()[1].figure.figure
    upper, lower, roles = figure.subfigs[0].axes
    lines = {line.get_label(): line for ax in (upper, lower) for line in ax.get_lines()}
    keys = {
        "shuffled masks": "chance_iou",
        "energy above\n8 cycles": "high_frequency_share",
        "|r| with\nthe edges": "edge_correlation",
    }
    for label, key in keys.items():
        np.testing.assert_array_equal(lines[label].get_xdata(), range(1, 13))
        np.testing.assert_array_equal(lines[label].get_ydata(), [layer[key] for layer in analysis["layers"]])
    above, below = lines["best map"], lines["best map, not\nabove chance"]
    np.testing.assert_array_equal(below.get_xdata(), [1])
    np.testing.assert_array_equal(above.get_xdata(), range(2, 13))
    values = [*below.get_ydata(), *above.get_ydata()]
    np.testing.assert_array_equal(values, [layer["iou"] for layer in analysis["layers"]])
    (band,) = [path for path in upper.collections if path.get_label() == "chance"]
    np.testing.assert_allclose(np.unique(band.get_paths()[0].vertices[:, 1]), [0.26, 0.34])
    assert set(lines["all-pet baseline"].get_ydata()) == {0.29}
    assert upper.get_ylim() == lower.get_ylim() == (0, 1)
    assert [text.get_text() for text in roles.get_legend().get_texts()] == list(dict.fromkeys(ROLES))
    colours = [patch.get_facecolor() for patch in roles.patches]
    assert len(colours) == 12 and len(set(colours)) == len(set(ROLES))
    assert colours[0] == colours[2] == colours[8] != colours[1]


def get_marks(drawing: Drawing) -> list[str]:
    return [text.get_text() for text in drawing.figure.figure.subfigs[0].axes[0].texts]


def test_the_emergence_and_a_remark_are_marked(draw: Draw) -> None:
    ordinal = make_analysis()["emergence"]["ordinal"]
    assert get_marks(draw()[1]) == [f"{ordinal}: first at 90 % of the last layer's IoU ▾"]
    drawing = draw(remark={"ordinal": 3, "text": "maps look like the mask"})[1]
    assert get_marks(drawing)[1] == "▾ 3: maps look like the mask"
    assert drawing.figure.explanation.endswith("Layer 3: maps look like the mask.")
    assert get_marks(draw(changes={"emergence": None})[1]) == []


def test_nothing_is_shown_of_layers_and_units_at_chance(draw: Draw) -> None:
    layers = make_analysis()["layers"]
    for layer in layers:
        layer["above_chance"] = False
        layer["selective_units"] = [unit | {"above_chance": False} for unit in layer["selective_units"]]
    changes = {"layers": layers, "emergence": None}
    _, curves = draw(changes=changes, remark={"ordinal": 3, "text": "maps look like the mask"})
    assert get_marks(curves) == ["▾ 3: maps look like the mask (here not above chance)"]
    assert "0 of 12 layers are above chance" in curves.figure.explanation
    assert "the first" not in curves.figure.explanation


def test_a_remark_at_a_layer_beyond_the_last_is_not_drawn(draw: Draw) -> None:
    drawing = draw(remark={"ordinal": 43, "text": "maps look like the mask"})[1]
    assert len(get_marks(drawing)) == 1 and "Layer 43" not in drawing.figure.explanation


@pytest.mark.parametrize(
    ("highlight", "expected"),
    [(None, [3, 4, 6, 7, 9, 10, 12]), ([12, "part.5*", 2], [2, 5, 12])],
)
def test_the_best_maps_of_the_highlighted_layers(
    draw: Draw, highlight: list[Any] | None, expected: list[int]
) -> None:
    drawing = draw(**({"highlight": highlight} if highlight else {}))[2]
    layers, outputs = make_analysis()["layers"], get_activations()["first"]
    tiles = [tile for row in drawing.rows[::2] for tile in row[1:] if tile]
    masked_tiles = [tile for row in drawing.rows[1::2] for tile in row[1:] if tile]
    assert [int(tile.note.split()[0]) for tile in tiles] == expected
    caption = drawing.figure.explanation
    assert caption.endswith("Not shown, as not above chance: 1 part.1.attention.") == (highlight is None)
    for tile, masked_tile, ordinal in zip(tiles, masked_tiles, expected, strict=True):
        layer = layers[ordinal - 1]
        assert tile.note == f"{ordinal} {layer['name']}" and tile.title == f"unit {layer['unit']}"
        assert tile.right_title == f"IoU {layer['iou']:.2f}"
        np.testing.assert_array_equal(tile.values, outputs[layer["name"]][layer["unit"]])
        assert masked_tile.values.shape == (4 * SIDE, 4 * SIDE, 3)


@pytest.mark.parametrize("side", [1, 6, 24, 48])
@pytest.mark.parametrize("at_least", [True, False])
def test_the_mask_of_a_thresholded_map_is_the_one_that_was_measured(side: int, at_least: bool) -> None:
    rng = np.random.default_rng(side)
    values, image = rng.normal(size=(side, side)).astype(np.float32), rng.random((SIDE, SIDE, 3)) / 2
    resized = functional.interpolate(torch.from_numpy(values)[None, None], (SIDE, SIDE), mode="bilinear")
    mask = ((resized[0, 0] >= 0.1) == at_least).numpy()
    result = fade_outside_mask(image, values, {"threshold": 0.1, "at_least": at_least})
    outline = (result == to_rgb(ACCENT_COLOUR)).all(-1)
    np.testing.assert_array_equal(result[mask & ~outline], image[mask & ~outline])
    assert (result[~mask] > 0.75).all() and not (outline & ~mask).any()
    inside = ndimage.binary_erosion(mask, border_value=1)
    np.testing.assert_array_equal(outline, mask & ~inside)


def test_the_separating_units_are_sorted_by_their_auc(draw: Draw) -> None:
    layers = make_analysis()["layers"]
    layers[4]["selective_units"] = [make_selective_unit(6, 0.02)]
    layers[3]["selective_units"] = [make_selective_unit(5, 0.01) | {"above_chance": False}]
    first, second = draw(changes={"layers": layers})[3].rows
    assert [tile.right_title for tile in first[1:4]] == ["AUC 0.02", "AUC 0.85", "AUC 0.84"]
    assert first[1].note == "5 part.5.down" and first[1].title == "unit 6"
    assert second[1].note == ""
    for row, image in ((first, "first"), (second, "second")):
        np.testing.assert_array_equal(row[1].values, get_activations()[image]["part.5.down"][6])
        np.testing.assert_array_equal(row[2].values, get_activations()[image]["head"][2])
    assert len(first) == 9


def test_an_unknown_highlighted_layer_is_refused(draw: Draw) -> None:
    with pytest.raises(UserError, match=r"networks\.own\.views\.highlight: no layer 'hat'"):
        draw(highlight=["hat"])


def test_the_figures_job_imports_no_torch(tmp_path: Path) -> None:
    folder = write_segmentation(tmp_path / "own")
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
