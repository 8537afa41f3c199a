"""Figures of feature maps."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from convatlas.analysis.classical import FEATURES
from convatlas.figures import build
from convatlas.figures.feature_maps import SHORT_FEATURE_NAMES
from convatlas.plotting.labelled_figure import (
    figure_style,
    save_figure,
)
from convatlas.plotting.montage import GAP, TILE_SIZE, text_width
from convatlas.results import Results
from tests.support.drawings import Draw, make_wide_results
from tests.support.fake_results import (
    SPATIAL,
    TITLES,
    VIEWS,
    make_results,
)


def test_each_map_is_its_unit_of_its_image(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    for name in SPATIAL:
        drawn_units = []
        for label, unit, tile in drawn["maps", name].tiles:
            image = {title: name for name, title in TITLES.items()}[label.split("\n")[0]]
            np.testing.assert_array_equal(tile.values, results.activations[image][name][unit])
            drawn_units.append((image, unit))
        units = len(results.activations["first"][name])
        assert drawn_units == [(image, unit) for image in ("first", "second") for unit in range(units)]


@pytest.mark.parametrize("scale", ["per_layer", "per_tile"])
def test_many_maps_are_a_dense_figure_of_the_first_image(draw: Draw, scale: str) -> None:
    results = make_wide_results(2048, 7)
    drawing = draw(results, layers=["block.conv2"], show="maps", scale=scale)["maps", "block.conv2"]
    tiles = [tile for row in drawing.rows for tile in row if tile]
    assert {(tile.title, tile.right_title, tile.note) for tile in tiles} == {("", "", "")}
    assert "printed above" not in drawing.figure.explanation
    np.testing.assert_array_equal([t.values for t in tiles], results.activations["first"]["block.conv2"])
    assert drawing.labels == [f"{n}–{n + 31}" for n in range(0, 2048, 32)]
    assert "units 0–2047 of 2048, 7 × 7 each, on cat, test image 0" in drawing.figure.caption


@pytest.mark.parametrize("show", ["maps", "filters"])
def test_dense_figures_are_small(tmp_path: Path, show: str) -> None:
    """As files too; the labels of their rows do not overlap."""
    views = VIEWS | {"layers": ["block.conv2"], "show": show}
    with figure_style():
        results = Results(make_wide_results(2048, 7).write(tmp_path))
        figure = next(figure for figure in build.draw_figures(results, views) if figure.kind == show)
        save_figure(figure.figure, tmp_path / figure.file, [])
        labels = [text for text in figure.figure.texts if text.get_ha() == "right"]
        boxes = [label.get_window_extent() for label in labels]
    entry = figure.to_dict([])
    assert (tmp_path / figure.file).stat().st_size < 1_000_000
    assert max(entry["width"], entry["height"]) < 4096
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(boxes))


def test_notes_above_the_maps_of_the_first_image_name_their_matches(draw: Draw) -> None:
    drawn = draw()
    expected = {"conv1": {0: "vert. −0.83", 4: "horiz. 0.60"}, "relu": {0: "vert. 0.75"}}
    for name in SPATIAL:
        notes = {(label.split("\n")[0], unit): tile.note for label, unit, tile in drawn["maps", name].tiles}
        nonempty = {key: note for key, note in notes.items() if note}
        assert nonempty == {(TITLES["first"], unit): note for unit, note in expected.get(name, {}).items()}


def test_notes_fit_above_their_tiles() -> None:
    assert set(SHORT_FEATURE_NAMES) == set(FEATURES)
    assert max(text_width(f"{short} −0.88") for short in SHORT_FEATURE_NAMES.values()) <= TILE_SIZE + GAP - 2


def test_captions_name_the_matched_features(draw: Draw) -> None:
    drawn = draw()
    caption = drawn["maps", "conv1"].figure.explanation
    assert "0 vertical edge (−0.83), 4 horizontal edge (0.60); 95th percentile of the untrained" in caption
    assert "0 vertical edge, darker to the right (0.75)" in drawn["maps", "relu"].figure.explanation
    caption = drawn["maps", "block.conv2"].figure.explanation
    assert "(|r| ≥ 0.5 is needed; 95th percentile of the untrained network: 0.52)" in caption
    assert "classical" not in drawn["maps", "pool"].figure.explanation  # which was not compared
    assert "4 horizontal" not in draw(n_filters=4)["maps", "conv1"].figure.explanation


def test_rows_name_the_image_its_class_and_the_prediction(draw: Draw) -> None:
    labels = draw(n_filters=2)["maps", "conv1"].labels
    assert labels[0].split("\n") == ["cat, test image 0", "predicted cat (75.0 %)"]
    assert labels[1].split("\n") == ["cat, test image 1", "predicted dog (75.0 %)"]


def test_an_image_without_a_class_has_no_class_in_its_label(draw: Draw) -> None:
    results = make_results()
    results.images[0]["label"] = None
    labels = draw(results)["maps", "conv1"].labels
    assert labels[0].split("\n") == ["test image 0", "predicted cat (75.0 %)"]


def test_an_image_without_a_prediction(draw: Draw) -> None:
    """images.json has null for a segmentation network."""
    results = make_results()
    results.images = [
        image | dict.fromkeys(("label", "prediction", "probability")) for image in results.images
    ]
    assert [label for label in draw(results)["maps", "conv1"].labels if label] == [
        "test image 0",
        "test image 1",
    ]
