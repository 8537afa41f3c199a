"""The figures of a network, tile by tile, against synthetic results whose arrays are at hand."""

import argparse
import itertools
import json
import logging
import re
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from convatlas.analysis.classical import FEATURES
from convatlas.analysis.kernels import random_baseline
from convatlas.figures import build, context
from convatlas.figures import projections as projections_module
from convatlas.figures.context import CaptionedFigure
from convatlas.figures.feature_maps import SHORT_FEATURE_NAMES
from convatlas.plotting import charts
from convatlas.plotting.colormap import ColourScale, colour_table
from convatlas.plotting.labelled_figure import (
    DPI,
    LABEL_PIXELS,
    TOP_MARGIN,
    ColourBar,
    caption_height,
    figure_style,
    make_chart_figure,
    make_montage_figure,
    save_figure,
)
from convatlas.plotting.montage import GAP, TILE_SIZE, Tile, assemble_montage, text_width
from convatlas.plotting.top_activation_tiles import RGB_STEP
from convatlas.results import Results
from tests.support.fake_results import (
    CLASSES,
    FLAT,
    INPUT_TITLES,
    SPATIAL,
    VIEWS,
    FakeResults,
    make_match,
    make_minimal_results,
    make_results,
    match_first_filters,
)
from tests.support.workspace import ROOT


@dataclass
class Drawing:
    """A figure, and what it was drawn from."""

    figure: CaptionedFigure
    rows: list[list[Tile | None]]
    labels: list[str]
    bars: list[ColourBar]
    chart: tuple[Any, ...]  # arguments of the function that plots it
    layout: dict[str, Any]  # arguments of assemble_montage

    @property
    def tiles(self) -> Iterator[tuple[str, int, Tile]]:
        """Each tile of a unit, with the label of its group of rows and the unit."""
        group_label = ""
        for row, label in zip(self.rows, self.labels, strict=True):
            group_label = label or group_label
            for tile in row:
                if tile is not None and tile.title not in INPUT_TITLES:
                    yield group_label, int(tile.title), tile

    @property
    def inputs(self) -> list[Tile]:
        return [tile for row in self.rows for tile in row if tile and tile.title in INPUT_TITLES]


Draw = Callable[..., dict[tuple[str, str], Drawing]]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Draw:
    """Return a function that draws FakeResults: the drawings by kind and subject, without pixels."""
    last: dict[str, Any] = {}

    def assemble_montage(rows: list[list[Tile | None]], **layout: Any) -> None:
        last.update(rows=rows, layout=layout)

    def make_montage_figure(montage: None, labels: list[str], bars: list[ColourBar], caption: str) -> Figure:
        last.update(labels=labels, bars=bars)
        return Figure()

    def plot(*args: Any) -> Figure:
        last["chart"] = args
        return Figure()

    monkeypatch.setattr(context, "assemble_montage", assemble_montage)
    monkeypatch.setattr(context, "make_montage_figure", make_montage_figure)
    for name in ("plot_unit_bars", "plot_unit_heatmaps", "plot_training_curves", "plot_confusion_matrix"):
        monkeypatch.setattr(charts, name, plot)

    def draw_all(results: FakeResults | None = None, **views: Any) -> dict[tuple[str, str], Drawing]:
        folder = (results or make_results()).write(tmp_path / "own")
        drawings = {}
        for figure in build.draw_figures(Results(folder), VIEWS | views):
            parts = (last.pop(name, []) for name in ("rows", "labels", "bars", "chart", "layout"))
            drawings[figure.kind, figure.subject] = Drawing(figure, *parts)
            assert not last
        return drawings

    return draw_all


def find_ends(values: np.ndarray, signed: bool = False) -> tuple[float, float]:
    """Return the ends of the scale that spans values, computed independently."""
    if signed or values.min() < 0 < values.max():
        return -abs(values).max(), abs(values).max()
    return min(values.min(), 0), max(values.max(), 0)


def get_ends(bar: ColourBar) -> tuple[float, float]:
    return bar.scale.low, bar.scale.high


def join_activations(results: FakeResults, *names: str) -> np.ndarray:
    return np.concatenate(
        [results.activations[image][name].ravel() for image in results.activations for name in names]
    )


# Tiles


def test_each_map_is_its_unit_of_its_image(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    for name in SPATIAL:
        seen = []
        for label, unit, tile in drawn["maps", name].tiles:
            image = label.split("\n")[0]
            np.testing.assert_array_equal(tile.values, results.activations[image][name][unit])
            seen.append((image, unit))
        units = len(results.activations["first"][name])
        assert seen == [(image, unit) for image in ("first", "second") for unit in range(units)]


def test_each_filter_is_its_unit_and_channel(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    seen = []
    for label, unit, tile in drawn["filters", "block.conv2"].tiles:
        channel = int(label.removeprefix("channel "))
        np.testing.assert_array_equal(tile.values, results.filters["block.conv2"][unit, channel])
        seen.append((unit, channel))
    assert len(seen) == len(set(seen)) == 18 * 8


def test_each_pair_is_a_filter_and_the_maps_it_makes(draw: Draw) -> None:
    results = make_results(1)
    for name in ("conv1", "block.conv2"):
        pairs = draw(results)["pairs", name]
        assert pairs.labels == ["input", *(f"unit {unit}" for unit in range(len(results.filters[name])))]
        for unit, line in enumerate(pairs.rows[1:]):
            *kernels, first, second = line
            assert {tile.title for tile in line if tile} == {str(unit)}
            for tile in kernels:
                channel = int(tile.right_title.removeprefix("ch "))
                np.testing.assert_array_equal(tile.values, results.filters[name][unit, channel])
            for tile, image in ((first, "first"), (second, "second")):
                np.testing.assert_array_equal(tile.values, results.activations[image][name][unit])
        assert pairs.layout["group_starts"] == (len(kernels),)
        assert len(pairs.rows[0]) == len(line)
        assert [tile is not None for tile in pairs.rows[0]] == [False] * len(kernels) + [True] * 2


def test_filters_that_see_colours_are_drawn_in_them(draw: Draw) -> None:
    """Grey is zero, and the end of the scale is the largest weight of any unit."""
    results = make_results()
    weight = results.filters["conv1"]
    results.filter_matches = match_first_filters(weight)
    drawing = draw(results, scale="per_layer")["filters", "conv1"]
    assert [len(line) for line in drawing.rows] == [16, 4]
    assert drawing.labels == ["units\n0–3", "units\n4"] and drawing.layout["group_starts"] == (4, 8, 12)
    tiles = [tile for line in drawing.rows for tile in line if tile]
    for unit, kernel in enumerate(weight):
        composite, *channels = tiles[4 * unit : 4 * unit + 4]
        expected = 0.5 + kernel.transpose(1, 2, 0) / (2 * abs(weight).max())
        np.testing.assert_allclose(composite.values, expected, atol=1e-6)
        assert (composite.title, composite.note) == (
            str(unit),
            results.filter_matches["colour_classes"][unit],
        )
        assert [tile.title for tile in channels] == ["R", "G", "B"]
        red, green, blue = kernel.reshape(3, -1)
        pairs = {"RG": (red, green), "GB": (green, blue), "BR": (blue, red)}
        for tile, values, (name, pair) in zip(channels, kernel, pairs.items(), strict=True):
            np.testing.assert_array_equal(tile.values, values)
            said, r = tile.note.split()
            assert said == name
            assert float(r.replace("−", "-")) == pytest.approx(np.corrcoef(*pair)[0, 1], abs=0.00501)


def test_captions_name_the_kernels_that_filters_resemble(draw: Draw) -> None:
    results = make_results()
    results.filters["conv1"] *= 1e-3
    results.filters["conv1"][3, 1] -= [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    results.filter_matches = match_first_filters(results.filters["conv1"])
    words = draw(results)["filters", "conv1"].figure.caption
    assert "by correlation: 3 Sobel x in G (1.00)" in words
    assert f"95th percentile of random filters: {random_baseline(3):.2f}" in words
    results.filter_matches |= {"baseline": 1.0}
    words = draw(results)["filters", "conv1"].figure.caption
    assert (
        "No filter matches a classical kernel better than random filters do" in words and "Sobel" not in words
    )


def test_pairs_of_filters_that_see_colours(draw: Draw) -> None:
    results = make_results()
    weight = results.filters["conv1"]
    drawing = draw(results)["pairs", "conv1"]
    assert drawing.layout["group_starts"] == (4,)
    for unit, line in enumerate(drawing.rows[1:]):
        composite, *channels, first, second = line
        np.testing.assert_allclose(
            composite.values, 0.5 + weight[unit].transpose(1, 2, 0) / (2 * abs(weight).max()), atol=1e-6
        )
        assert composite.title == str(unit) and [tile.right_title for tile in channels] == ["R", "G", "B"]
        for tile, values in zip(channels, weight[unit], strict=True):
            np.testing.assert_array_equal(tile.values, values)
        for tile, image in ((first, "first"), (second, "second")):
            np.testing.assert_array_equal(tile.values, results.activations[image]["conv1"][unit])


def test_each_filter_of_a_transposed_convolution_is_its_unit(draw: Draw) -> None:
    """Their weight is (inputs, units, ...), as in state_dict()."""
    results = make_results()
    results.layers[3]["type"] = "ConvTranspose2d"
    weight = results.filters["block.conv2"] = results.filters["block.conv2"].swapaxes(0, 1).copy()
    seen = set()
    for label, unit, tile in draw(results)["filters", "block.conv2"].tiles:
        np.testing.assert_array_equal(tile.values, weight[int(label.removeprefix("channel ")), unit])
        seen.add(unit)
    assert seen == set(range(18))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_projection_is_its_unit_of_its_selection(draw: Draw, channels: int) -> None:
    """Colours stand about grey, channel by channel, at the ends where 1 % of what is not zero lies beyond."""
    results = make_results(channels)
    drawn = draw(results)
    words = {"conv1\nwhole map": "conv1", "conv1\nstrongest location": "conv1@peak",
             "pool\nwhole map": "pool", "pool\nstrongest location": "pool@peak"}  # fmt: skip
    for image, projections in results.projections.items():
        seen = []
        for label, unit, tile in drawn["deconv", image].tiles:
            projection = projections[words[label]][unit]
            seen.append((words[label], unit))
            if tile.crossed_out or channels == 1:
                np.testing.assert_array_equal(tile.values, projection[0])
            else:
                group = abs(projections[words[label]])
                most = np.percentile(group[group > 0], 99)
                found = (tile.values.transpose(2, 0, 1) - 0.5) * 2 * most
                np.testing.assert_allclose(
                    found, projection, atol=1.001 * most * RGB_STEP / 255
                )  # half a step
                assert (
                    "Nonzero magnitudes above their 99th percentile are clipped"
                    in drawn["deconv", image].figure.caption
                )
        assert seen == [(key, unit) for key, array in projections.items() for unit in range(len(array))]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_comes_first_as_it_was_before_normalisation(draw: Draw, channels: int) -> None:
    results = make_results(channels)
    drawn = draw(results)
    pictures = [results.inputs[name] for name in ("first", "second")]
    for (kind, subject), drawing in drawn.items():
        if kind in ("filters", "values", "curves", "confusion"):
            assert not drawing.inputs
            continue
        expected = [results.inputs[subject]] if kind in ("deconv", "classical") else pictures
        assert len(drawing.inputs) == len(expected)
        for tile, picture in zip(drawing.inputs, expected, strict=True):
            values = tile.values.transpose(2, 0, 1) if channels == 3 else tile.values[None]
            np.testing.assert_allclose(values, picture, atol=1e-6)
            assert tile.scale == (None if channels == 3 else ColourScale(0, 1, "gray"))
        if kind in ("maps", "deconv"):
            assert [line[0] is None for line in drawing.rows] == [
                not (label and (kind == "maps" or n == 0)) for n, label in enumerate(drawing.labels)
            ]


def test_the_cover_shows_what_caused_the_strongest_activation(draw: Draw) -> None:
    results = make_results(1)
    drawing = draw(results)["cover", ""]
    for image, tile in zip(("first", "second"), drawing.rows[1], strict=True):
        unit = int(np.unravel_index(results.activations[image]["pool"].argmax(), (18, 4, 3))[0])
        assert tile is not None and int(tile.title) == unit
        np.testing.assert_array_equal(tile.values, results.projections[image]["pool"][unit, 0])


# Many units


def wide(units: int, side: int) -> FakeResults:
    """The network, with a block.conv2 of many units of 3 × 3 filters and maps of `side`."""
    rng = np.random.default_rng(0)
    results = make_results()
    results.layers[3]["output_shape"] = [units, side, side]
    results.unit_matches.pop("block.conv2")
    results.filters["block.conv2"] = rng.normal(size=(units, 12, 3, 3)).astype(np.float32)
    for outputs in results.activations.values():
        outputs["block.conv2"] = rng.normal(size=(units, side, side)).astype(np.float32)
    return results


@pytest.mark.parametrize("scale", ["per_layer", "per_tile"])
def test_many_maps_are_a_dense_figure_of_the_first_image(draw: Draw, scale: str) -> None:
    results = wide(2048, 7)
    drawing = draw(results, layers=["block.conv2"], show="maps", scale=scale)["maps", "block.conv2"]
    tiles = [tile for line in drawing.rows for tile in line if tile]
    assert {(tile.title, tile.right_title, tile.note) for tile in tiles} == {("", "", "")}
    assert "printed above" not in drawing.figure.caption
    np.testing.assert_array_equal([t.values for t in tiles], results.activations["first"]["block.conv2"])
    assert drawing.labels == [f"{n}–{n + 31}" for n in range(0, 2048, 32)]
    assert "on first, true cat, predicted cat (75.0 %): units 0–2047 of 2048" in drawing.figure.caption


@pytest.mark.parametrize("show", ["maps", "filters"])
def test_dense_figures_are_small(tmp_path: Path, show: str) -> None:
    """Also as files; their labels stand beside their lines, one above the other."""
    views = VIEWS | {"layers": ["block.conv2"], "show": show}
    with figure_style():
        figure = next(
            p for p in build.draw_figures(Results(wide(2048, 7).write(tmp_path)), views) if p.kind == show
        )
        save_figure(figure.figure, tmp_path / figure.file, False)
        labels = [text for text in figure.figure.texts if text.get_ha() == "right"]
        boxes = [label.get_window_extent() for label in labels]
    said = figure.to_dict(False)
    assert (tmp_path / figure.file).stat().st_size < 1_000_000
    assert max(said["width"], said["height"]) < 4096
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes))


def test_of_many_filters_fewer_channels_are_drawn(draw: Draw) -> None:
    results = wide(2048, 7)
    weight = results.filters["block.conv2"]
    drawing = draw(results, layers=["block.conv2"], show="filters")["filters", "block.conv2"]
    largest = sorted(np.argsort(-(weight.astype(float) ** 2).sum((0, 2, 3)))[:2])
    for label, line in zip(drawing.labels, drawing.rows, strict=True):
        units, channel = label.split(", channel ")
        first, last = map(int, units.split("–"))
        assert int(channel) in largest
        np.testing.assert_array_equal([t.values for t in line if t], weight[first : last + 1, int(channel)])
    assert len(drawing.rows) == 2 * 2048 / 64
    assert "2 of 12 input channels" in drawing.figure.caption


def test_as_many_pairs_as_a_page_is_tall(draw: Draw) -> None:
    drawing = draw(wide(100, 7), layers=["block.conv2"])["pairs", "block.conv2"]
    assert len(drawing.labels) == 1 + 34
    assert "units 0–33 of 100" in drawing.figure.caption


# What resembles something


def test_notes_over_the_first_images_maps_name_what_they_resemble(draw: Draw) -> None:
    drawn = draw()
    expected = {"conv1": {0: "vert. −0.83", 4: "horiz. 0.60"}, "relu": {0: "vert. 0.75"}}
    for name in SPATIAL:
        found = {(label.split("\n")[0], unit): tile.note for label, unit, tile in drawn["maps", name].tiles}
        noted = {key: note for key, note in found.items() if note}
        assert noted == {("first", unit): note for unit, note in expected.get(name, {}).items()}


def test_notes_fit_over_their_tiles() -> None:
    assert set(SHORT_FEATURE_NAMES) == set(FEATURES)
    assert max(text_width(f"{short} −0.88") for short in SHORT_FEATURE_NAMES.values()) <= TILE_SIZE + GAP - 2


def test_captions_name_the_features_that_maps_resemble(draw: Draw) -> None:
    drawn = draw()
    words = drawn["maps", "conv1"].figure.caption
    assert (
        "0 vertical edge (−0.83), 4 horizontal edge (0.60); 95th percentile of the untrained network" in words
    )
    assert "0 vertical edge, darker to the right (0.75)" in drawn["maps", "relu"].figure.caption
    words = drawn["maps", "block.conv2"].figure.caption
    assert "(|r| ≥ 0.5 is needed; 95th percentile of the untrained network: 0.52)" in words
    assert "classical" not in drawn["maps", "pool"].figure.caption  # which was not compared
    assert "4 horizontal" not in draw(n_filters=4)["maps", "conv1"].figure.caption


def test_the_classical_figure_has_a_feature_a_row_and_the_maps_that_resemble_it(draw: Draw) -> None:
    results = make_results()
    results.unit_matches["block.conv2"]["units"][7] = make_match("sobel_x+", 0.9)
    results.unit_matches["relu:2"] = {"baseline": 0.3, "units": [None] * 18}
    results.unit_matches["relu:2"]["units"][7] = make_match("sobel_x", 0.899)
    drawing = draw(results)["classical", "second"]
    head, *rows = drawing.rows
    assert [tile.title for tile in head] == ["input"]
    for row, (name, feature), label in zip(rows, FEATURES.items(), drawing.labels[1:], strict=True):
        np.testing.assert_array_equal(row[0].values, results.classical["second"][name])
        assert label.replace("\n", " ") == feature.caption
        if name not in ("sobel_x", "sobel_y"):
            assert len(row) == 1
    vertical, horizontal = ([(t.note, t.title, t.right_title) for t in rows[n][1:]] for n in (1, 2))
    assert vertical == [  # and not relu:2, which only repeats block.conv2
        ("block.conv2", "unit 7", "0.90"), ("conv1", "unit 0", "−0.83"), ("relu", "unit 0", "0.75"),
    ]  # fmt: skip
    assert horizontal == [("conv1", "unit 4", "0.60")]
    outputs = results.activations["second"]
    for tile, values in zip(rows[1][1:], (outputs["block.conv2"][7], outputs["conv1"][0]), strict=False):
        np.testing.assert_array_equal(tile.values, values)


# Labels, bars and captions


def test_rows_name_the_image_its_class_and_the_prediction(draw: Draw) -> None:
    labels = draw(n_filters=2)["maps", "conv1"].labels
    assert labels[0].split("\n") == ["first", "true cat", "predicted cat (75.0 %)"]
    assert labels[1].split("\n") == ["second", "true cat", "predicted dog (75.0 %)"]


def test_an_image_without_a_class_has_none_named(draw: Draw) -> None:
    results = make_results()
    results.images[0]["label"] = None
    labels = draw(results)["maps", "conv1"].labels
    assert labels[0].split("\n") == ["first", "predicted cat (75.0 %)"]


@pytest.mark.parametrize("scale", ["per_layer", "shared"])
def test_bars_end_where_the_data_end(draw: Draw, scale: str) -> None:
    results = make_results(1)
    drawn = draw(results, scale=scale, n_filters=2)  # not of the units drawn alone
    weights = [results.filters[name].ravel() for name in ("conv1", "block.conv2")]
    for (kind, subject), drawing in drawn.items():
        names = SPATIAL if scale == "shared" else [subject]
        maps = find_ends(join_activations(results, *names)) if subject in SPATIAL else None
        if kind in ("filters", "pairs"):
            whole = np.concatenate(weights) if scale == "shared" else results.filters[subject]
            filters = find_ends(whole, signed=True)
        if kind == "maps":
            assert list(map(get_ends, drawing.bars)) == [maps]
        elif kind == "filters":
            assert list(map(get_ends, drawing.bars)) == [filters]
        elif kind == "pairs":
            assert list(map(get_ends, drawing.bars)) == [filters, maps]
        elif kind == "deconv":
            own = results.projections[subject]
            every = np.concatenate([a.ravel() for p in results.projections.values() for a in p.values()])
            whole = [every] * 4 if scale == "shared" else list(own.values())
            assert list(map(get_ends, drawing.bars)) == [find_ends(array, signed=True) for array in whole]
            assert [bar.first_row for bar in drawing.bars] == [0, 1, 2, 4]
            assert [bar.last_row for bar in drawing.bars] == [0, 1, 3, 5]
        if kind in ("maps", "filters", "deconv"):
            for bar in drawing.bars:
                rows = [tile for line in drawing.rows[bar.first_row : bar.last_row + 1] for tile in line]
                assert {t.scale for t in rows if t and t.title != "input"} == {bar.scale}
                assert bar.end_labels is None


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_with_their_own_scale_print_where_it_ends(draw: Draw, channels: int) -> None:
    results = make_results(channels)
    for (kind, subject), drawing in draw(results, scale="per_tile").items():
        if kind in ("cover", "classical") or (channels == 3 and subject == "conv1" and kind != "maps"):
            continue
        assert all(bar.end_labels is not None for bar in drawing.bars)
        for label, unit, tile in drawing.tiles:
            if tile.crossed_out:
                continue
            values = tile.values
            if values.ndim == 3:  # in colours
                key = label.replace("\nwhole map", "").replace("\nstrongest location", "@peak")
                values = results.projections[subject][key][unit]
            most = abs(values).max()
            assert tile.right_title.split()[-1:] == [f"{most:.2g}"], (kind, subject)
            if tile.scale and most:
                assert tile.scale.high == most and tile.scale.low in (0, -most)


@pytest.mark.parametrize(
    ("scale", "words"),
    [("per_layer", "share one colour scale: "),
     ("shared", "share one colour scale across the layers shown: "),
     ("per_tile", "has its own colour scale (end printed above)")],
)  # fmt: skip
def test_captions_name_what_is_shown(draw: Draw, scale: str, words: str) -> None:
    results = make_results(1)
    drawn = draw(results, scale=scale)
    for n, ((kind, subject), drawing) in enumerate(drawn.items(), 1):
        caption = drawing.figure.caption
        assert caption.startswith(f"Figure {n}. own. ")
        assert subject in caption
        assert drawing.figure.alt and drawing.figure.alt in caption
        if kind in ("cover", "maps", "pairs", "values"):
            assert "first" in caption and "second" in caption
        if kind in ("maps", "filters", "pairs") or (kind == "deconv" and scale != "per_layer"):
            assert words in caption
        if kind in ("maps", "values"):
            assert next(item["type"] for item in results.layers if item["name"] == subject) in caption
    for subject, shape in (("conv1", "units 0–4 of 5, each 8 × 6"), ("pool", "units 0–17 of 18, each 4 × 3")):
        assert shape in drawn["maps", subject].figure.caption
    assert (
        "units 0–4 of 5, each 3 × 3, over its one input channel" in drawn["filters", "conv1"].figure.caption
    )
    assert "8 × 6 pixels" in drawn["deconv", "first"].figure.caption
    for subject, meaning in (
        ("conv1", "white = 0, red positive, blue negative"),
        ("relu", "dark = 0"),
    ):
        assert scale == "shared" or meaning in drawn["maps", subject].figure.caption


def test_the_legend_of_projections_in_colours_is_not_that_of_signed_tiles(draw: Draw) -> None:
    """An RGB projection is grey where it is zero, not white."""
    drawn = draw(make_results(3))
    for drawing in (drawn["deconv", "first"], drawn["cover", ""]):
        assert "white = 0" not in drawing.figure.caption
        assert all(bar.scale.cmap != "RdBu_r" for bar in drawing.bars)


# What is chosen


@pytest.mark.parametrize(
    ("show", "kinds"),
    [("filters", {"filters"}), ("maps", {"maps", "values"}),
     ("both", {"filters", "maps", "values", "pairs"})],
)  # fmt: skip
def test_show(draw: Draw, show: str, kinds: set[str]) -> None:
    always = {"cover", "curves", "confusion", "classical", "deconv"}
    assert {kind for kind, _ in draw(show=show)} == kinds | always


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("all", [*SPATIAL, *FLAT]), (["pool", "conv1"], ["conv1", "pool"]), ([2], ["block.conv2"]),
     (["relu*", 1], ["conv1", "relu", "relu:2", "relu_2"])],
)  # fmt: skip
def test_layers(draw: Draw, layers: str | list[str | int], expected: list[str]) -> None:
    drawn = draw(layers=layers, show="maps")
    assert [subject for kind, subject in drawn if kind in ("maps", "values")] == expected


def test_a_shared_scale_is_shared_by_the_layers_drawn(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results, layers=["relu", "pool"], scale="shared")
    assert get_ends(drawn["maps", "relu"].bars[0]) == find_ends(join_activations(results, "relu", "pool"))


def test_fewer_are_drawn_where_fewer_are_asked(draw: Draw) -> None:
    drawn = draw(n_images=1, n_filters=3)
    assert [[t.title for t in line if t] for line in drawn["maps", "pool"].rows] == [["input", "0", "1", "2"]]
    assert "units 0–2 of 18" in drawn["maps", "pool"].figure.caption
    assert len(drawn["pairs", "conv1"].rows) == 4


def test_more_than_there_are_draws_all_and_says_so_once(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(n_images=9, n_filters=18, layers=["conv1", "relu", "pool"])
    assert {unit for _, unit, _ in drawn["maps", "conv1"].tiles} == set(range(5))
    assert {unit for _, unit, _ in drawn["maps", "pool"].tiles} == set(range(18))
    assert len(drawn["maps", "conv1"].inputs) == 2
    assert caplog.messages == [
        "9 images requested, 2 available: drawing all",
        "18 units in conv1 requested, 5 available: drawing all",
        "18 units in relu requested, 5 available: drawing all",
    ]


def test_all_is_all_and_nothing_to_speak_of(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(n_images="all", n_filters="all")
    assert {unit for _, unit, _ in drawn["maps", "pool"].tiles} == set(range(18))
    assert not caplog.messages


def test_filters_of_layers_without_them(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(show="filters", layers=["relu", "conv1", "pool"])
    assert [subject for kind, subject in drawn if kind in ("filters", "maps", "values", "pairs")] == ["conv1"]
    (message,) = caplog.messages
    without, having = message.split(";")
    assert without == "no filters in relu and pool"
    assert "conv1" in having and "block.conv2" in having and "relu" not in having


def test_filters_of_a_network_that_has_none(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    results = make_results()
    results.layers = [item for item in results.layers if item["kind"] != "conv"]
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(results, show="filters", layers=["relu"])
    assert not [kind for kind, _ in drawn if kind in ("filters", "maps")]
    assert len(caplog.messages) == 1


def test_of_many_input_channels_those_with_the_largest_weights(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    squares = [sum(float(w) ** 2 for w in results.filters["block.conv2"][:, c].flat) for c in range(12)]
    largest = sorted(sorted(range(12), key=lambda c: squares[c])[-8:])
    labels = drawn["filters", "block.conv2"].labels
    assert labels == [f"channel {c}" for c in largest] * 2  # 18 units, 16 a line
    assert [tile.right_title for tile in drawn["pairs", "block.conv2"].rows[1][:8]] == [
        f"ch {c}" for c in largest
    ]
    assert "all 3 input channels" in drawn["pairs", "conv1"].figure.caption
    for kind in ("filters", "pairs"):
        caption = drawn[kind, "block.conv2"].figure.caption
        assert "8 of 12 input channels, those with the largest weights" in caption


# Dead units


@pytest.mark.parametrize("scale", ["per_layer", "per_tile", "shared"])
@pytest.mark.parametrize("channels", [1, 3])
def test_dead_units_are_crossed_and_no_others(draw: Draw, channels: int, scale: str) -> None:
    drawn = draw(make_results(channels), scale=scale)
    inactive = {"first": {("conv1", 2), ("pool", 3)}, "second": {("conv1", 2)}}
    for image, expected in inactive.items():
        drawing = drawn["deconv", image]
        crossed = [(label.split("\n")[0], unit) for label, unit, tile in drawing.tiles if tile.crossed_out]
        assert sorted(crossed) == sorted([*expected] * 2)  # for either selection
        assert all((tile.right_title == "inactive") == tile.crossed_out for _, _, tile in drawing.tiles)
        assert f"Crossed out: units inactive on this image ({len(expected)})" in drawing.figure.caption


def some_units() -> FakeResults:
    """Of conv1 and pool the strongest units alone are projected, in the order of @units."""
    results = make_results()
    for image, projections in results.projections.items():
        for name, units in (("conv1", [4, 2]), ("pool", [9, 3, 0])):
            for key in (name, f"{name}@peak"):
                projections[key] = projections[key][units]
            projections[f"{name}@units"] = np.array(units, np.int32)
        results.activations[image]["pool"][0, 0, 0] = 99
    return results


def test_projections_of_some_units_carry_their_numbers(draw: Draw) -> None:
    drawn = draw(some_units())
    for image, inactive in (("first", {("conv1", 2), ("pool", 3)}), ("second", {("conv1", 2)})):
        drawing = drawn["deconv", image]
        tiles = [(label.split("\n")[0], unit, tile.crossed_out) for label, unit, tile in drawing.tiles]
        expected = [("conv1", 4), ("conv1", 2)] * 2 + [("pool", 9), ("pool", 3), ("pool", 0)] * 2
        assert tiles == [(*each, each in inactive) for each in expected]
        words = drawing.figure.caption
        assert "Of conv1 and pool the most active units, strongest first" in words
        assert f"units inactive on this image ({len(inactive)})" in words
    assert [tile.title for tile in drawn["cover", ""].rows[1] if tile] == ["0", "0"]


def test_projections_that_are_too_large_for_one_figure_have_several(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(projections_module, "MAX_VALUES", 1)
    figures = [
        p for p in build.draw_figures(Results(make_results().write(tmp_path)), VIEWS) if p.kind == "deconv"
    ]
    names = ["deconv-first.png", "deconv-first+2.png", "deconv-second.png", "deconv-second+2.png"]
    assert [figure.file for figure in figures] == names
    assert ["projections of conv1 on" in figure.caption for figure in figures] == [True, False] * 2


@pytest.mark.parametrize(("large", "units"), [(1, (2, 2)), (3312, (2, 9)), (6624, (5, 18))])
def test_of_projections_that_are_large_the_first_units_are_drawn(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, large: int, units: tuple[int, int]
) -> None:
    """Twice 5 and 18 projections of 3 x 8 x 6 values; of conv1 the units are numbered otherwise."""
    monkeypatch.setattr(projections_module, "MAX_VALUES", large)
    results = make_results()
    for projections in results.projections.values():
        projections["conv1@units"] = np.array([4, 3, 0, 1, 2])
    if large == 1:
        monkeypatch.setattr(projections_module, "groupby", lambda keys, key: [("", keys)])  # on one figure
    drawing = draw(results)["deconv", "first"]
    found = [unit for label, unit, _ in drawing.tiles if label.startswith("conv1\nwhole")]
    assert found == [4, 3, 0, 1, 2][: units[0]]
    assert len([unit for label, unit, _ in drawing.tiles if label.startswith("pool\nstrong")]) == units[1]
    assert ("Because of their size" in drawing.figure.caption) == (units != (5, 18))


def test_the_cover_crosses_no_unit_that_is_alive(draw: Draw) -> None:
    """Its projection may be zero all the same."""
    results = make_results()
    for projections in results.projections.values():
        projections["pool"][:] = 0
    assert not any(
        tile.crossed_out or tile.right_title for tile in draw(results)["cover", ""].rows[1] if tile
    )


def test_the_cover_crosses_a_dead_unit(draw: Draw) -> None:
    results = make_results()
    for image, projections in results.projections.items():
        results.activations[image]["pool"][:] = 0
        projections["pool"][:] = 0
    assert all(tile.crossed_out for tile in draw(results)["cover", ""].rows[1] if tile)


# Values


def test_values_as_bars_where_they_are_few(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    for name, names, marked in (("fc", CLASSES, [2, 3]), ("neck", list("0123456"), [None, None])):
        values, given, titles, coloured, _ = drawn["values", name].chart
        np.testing.assert_array_equal(values, [found[name] for found in results.activations.values()])
        assert (given, coloured) == (names, marked)
        assert titles[1].split("   ") == ["second", "true cat", "predicted dog (75.0 %)"]
    assert "the prediction is coloured" in drawn["values", "fc"].figure.caption
    assert "coloured" not in drawn["values", "neck"].figure.caption


def test_values_as_strips_where_they_are_many(draw: Draw) -> None:
    results = make_results()
    drawing = draw(results)["values", "flatten"]
    values, _, scale, marked, caption = drawing.chart
    assert marked == [None, None]
    np.testing.assert_array_equal(values, [found["flatten"] for found in results.activations.values()])
    assert (scale.low, scale.high) == find_ends(values)
    assert "The 216 values of flatten" in caption and "100 units" in caption


# Pictures


def test_the_montage_stands_in_the_picture_pixel_for_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    montage = assemble_montage([[Tile(rng.random((9, 7, 3))) for _ in range(3)] for _ in range(2)])
    bars = [ColourBar(0, 1, ColourScale(-2.5, 2.5, "RdBu_r"), "weight")]
    with figure_style():
        save_figure(
            make_montage_figure(montage, ["one", "two"], bars, "A caption."), tmp_path / "a.png", False
        )
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    height, width = montage.pixels.shape[:2]
    left = 48 + max(text_width(label, LABEL_PIXELS) for label in ("one", "two"))
    np.testing.assert_array_equal(
        pixels[TOP_MARGIN : TOP_MARGIN + height, left : left + width], montage.pixels
    )


@pytest.mark.parametrize(
    ("scale", "given", "texts"),
    [
        (ColourScale(-2.5, 2.5, "RdBu_r"), None, ["−2.5", "0", "2.5"]),
        (ColourScale(0, 0.125, "viridis"), None, ["0", "0.0625", "0.125"]),
        (ColourScale(0, 3, "viridis"), ("0", "max"), ["0", "max"]),
    ],
)
def test_the_colour_bar_prints_its_ends(
    scale: ColourScale, given: tuple[str, str] | None, texts: list[str]
) -> None:
    montage = assemble_montage([[Tile(np.zeros((9, 7, 3)))]])
    figure = make_montage_figure(montage, ["one"], [ColourBar(0, 0, scale, "weight", given)], "A caption.")
    words = {text.get_text(): text.get_position()[1] for text in figure.texts[1:-1]}
    assert list(words) == [*texts, "weight"]
    steps = figure.images[1].pixels
    table = colour_table(scale.cmap)
    np.testing.assert_array_equal(steps[[0, -1]][:, 0], [table[255], table[0]])
    height = round(figure.get_size_inches()[1] * DPI)
    ends = np.array([words[texts[0]], words[texts[-1]]]) * height
    np.testing.assert_allclose(ends, [figure.images[1].oy, figure.images[1].oy + len(steps)])


@pytest.mark.parametrize("height", range(720, 740))
def test_a_figure_is_as_large_as_it_says(tmp_path: Path, height: int) -> None:
    """Whatever the size: pixels over dots an inch, times dots an inch, may fall just short of a pixel."""
    figure, _ = make_chart_figure(300, height, "")
    said = CaptionedFigure("a.png", "maps", "", "", "", figure).to_dict(False)
    save_figure(figure, tmp_path / "a.png", False)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (said["width"], said["height"]) == (300, height + caption_height("", 300))


def test_text_is_printed_as_it_is(tmp_path: Path) -> None:
    """Dollars in a name are no formula."""
    results = make_results()
    results.network["classes"] = ["$\\frac$", "$a$", "$_$", "$^$"]
    views = VIEWS | {"layers": ["relu", "fc"], "n_filters": 2}
    with figure_style():
        for figure in build.draw_figures(Results(results.write(tmp_path)), views):
            if figure.kind in ("maps", "values"):
                figure.figure.canvas.draw()


def test_captions_and_labels_lie_within_their_room(tmp_path: Path) -> None:
    with figure_style():
        for figure in build.draw_figures(
            Results(make_results().write(tmp_path)), VIEWS | {"scale": "per_tile"}
        ):
            said = figure.to_dict(False)
            *labels, caption = figure.figure.texts or figure.figure.subfigs[-1].texts or figure.figure.texts
            box = caption.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= said["width"], figure.file
            assert 0 <= box.y0 < box.y1 <= said["caption_height"] < said["height"], figure.file
            assert " ".join(caption.get_text().split()) == figure.caption
            for label in labels:
                assert label.get_window_extent().x0 >= 0, figure.file


def draw_files(folder: Path, **views: Any) -> Path:
    """Run scripts/figures.py on a results folder."""
    main = runpy.run_path(str(ROOT / "scripts/figures.py"))["main"]
    settings = VIEWS | {"layers": ["relu:2", "relu_2", "fc"], "n_filters": 2} | views
    main(argparse.Namespace(output=str(folder), name="own", settings=settings))
    return folder / "figures"


def test_files(tmp_path: Path) -> None:
    """PNG, and PDF where asked, the same bytes twice; figures.json tells their sizes."""
    one, two = (make_results().write(tmp_path / name / "own") for name in ("one", "two"))
    found, again = (
        {path.name: path.read_bytes() for path in draw_files(folder, pdf=True).iterdir()}
        for folder in (one, two)
    )
    assert found == again
    figures = json.loads(found.pop("figures.json"))
    assert sorted(found) == sorted([p["file"] for p in figures] + [p["pdf"] for p in figures])
    assert len(figures) == 10
    for figure in figures:
        assert found[figure["pdf"]].startswith(b"%PDF")
        assert not re.search(rb"/(CreationDate|ModDate|Producer|Creator)\b", found[figure["pdf"]])
        with Image.open(one / "figures" / figure["file"]) as picture:
            assert picture.size == (figure["width"], figure["height"])
            assert set(picture.info) <= {"dpi"}
        assert 0 < figure["caption_height"] < figure["height"]
        assert figure["caption_height"] == caption_height(figure["caption"], figure["width"])


def test_no_pdf_where_none_is_asked_and_old_figures_go(tmp_path: Path) -> None:
    folder = make_results().write(tmp_path / "own")
    (folder / "figures").mkdir()
    (folder / "figures/old.pdf").touch()
    drawn = draw_files(folder, layers=["fc"])
    assert not list(drawn.glob("*.pdf"))
    assert all(figure["pdf"] is None for figure in json.loads((drawn / "figures.json").read_text()))


def test_file_names_are_safe_and_each_its_own(draw: Draw) -> None:
    drawn = draw()
    names = [drawing.figure.file for drawing in drawn.values()]
    assert len(set(map(str.lower, names))) == len(names)
    assert {("maps", "relu:2"), ("maps", "relu_2"), ("maps", "block/cat")} <= set(drawn)
    for name in names:
        assert re.fullmatch(r"[\w.+~-]+\.png", name)


# Networks that lack something


def test_a_network_that_was_not_trained_or_tested(draw: Draw) -> None:
    results = make_results()
    results.metrics, results.history = {}, results.history.splitlines(keepends=True)[0]
    kinds = {kind for kind, _ in draw(results)}
    assert not kinds & {"curves", "confusion"} and "maps" in kinds


def test_a_network_without_projections(draw: Draw) -> None:
    results = make_results()
    results.projections = {name: {} for name in results.activations}
    kinds = {kind for kind, _ in draw(results)}
    assert not kinds & {"cover", "deconv"} and "maps" in kinds


def test_an_image_without_a_prediction(draw: Draw) -> None:
    """images.json has null where it does not apply, as for a network that segments."""
    results = make_results()
    results.images = [
        image | dict.fromkeys(("label", "prediction", "probability")) for image in results.images
    ]
    assert [label for label in draw(results)["maps", "conv1"].labels if label] == ["first", "second"]


@pytest.mark.parametrize("scale", ["per_tile", "per_layer", "shared"])
def test_a_network_of_which_little_is_known(draw: Draw, scale: str) -> None:
    drawn = draw(make_minimal_results(), scale=scale)
    assert {kind for kind, _ in drawn} == {
        "cover", "filters", "maps", "pairs", "values", "classical", "deconv"
    }  # fmt: skip
    assert not any("predicted" in drawing.figure.caption for drawing in drawn.values())


def shaped(*shape: int) -> FakeResults:
    """The network, with a relu_2 of this shape."""
    results = make_results()
    results.layers[5]["output_shape"] = list(shape)
    for n, outputs in enumerate(results.activations.values()):
        outputs["relu_2"] = np.arange(n, n + np.prod(shape), dtype=np.float32).reshape(shape)
    return results


def test_vectors_without_a_place_are_one_tile_an_image(draw: Draw) -> None:
    """As a transformer's tokens."""
    results = shaped(9, 20)
    drawing = draw(results)["values", "relu_2"]
    assert "The 9 vectors of 20 values of relu_2" in drawing.figure.caption
    assert drawing.labels == ["first", "second"]
    for (_, tile), outputs in zip(drawing.rows, results.activations.values(), strict=True):
        np.testing.assert_array_equal(tile.values, outputs["relu_2"])
    assert get_ends(drawing.bars[0]) == (0, 180)


def test_values_of_four_axes_are_left_out_and_said_to_be(
    draw: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(shaped(2, 3, 4, 5))
    assert not [subject for _, subject in drawn if subject == "relu_2"] and ("maps", "pool") in drawn
    assert caplog.messages == ["no figure of relu_2: its output has 4 axes"]


@pytest.mark.parametrize("scale", ["per_layer", "shared"])
def test_maps_of_one_pixel_are_values(draw: Draw, scale: str) -> None:
    """As after average pooling; a convolution between such maps has filters, but no pairs."""
    results = shaped(30, 1, 1)
    results.layers[5] |= {"kind": "conv", "module": "block.conv2"}
    drawn = draw(results, scale=scale)
    values = drawn["values", "relu_2"].chart[0]
    np.testing.assert_array_equal(values, [np.arange(30), np.arange(1, 31)])
    assert not {("maps", "relu_2"), ("pairs", "relu_2")} & set(drawn) and ("filters", "relu_2") in drawn
