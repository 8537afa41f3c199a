"""Plates, tile by tile, against a small hand-made network whose every array is at hand."""

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
from convatlas.figures.layers import SHORT_FEATURE_NAMES
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
class Drawn:
    """A plate, and what it was made of."""

    plate: CaptionedFigure
    lines: list[list[Tile | None]]
    labels: list[str]
    bars: list[ColourBar]
    chart: tuple[Any, ...]
    layout: dict[str, Any]

    @property
    def tiles(self) -> Iterator[tuple[str, int, Tile]]:
        """Each tile of a unit, with its row's label (the last one above it) and the unit."""
        label = ""
        for line, given in zip(self.lines, self.labels, strict=True):
            label = given or label
            for tile in line:
                if tile is not None and tile.title not in INPUT_TITLES:
                    yield label, int(tile.title), tile

    @property
    def inputs(self) -> list[Tile]:
        return [tile for line in self.lines for tile in line if tile and tile.title in INPUT_TITLES]


Draw = Callable[..., dict[tuple[str, str], Drawn]]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Draw:
    """Draw the plates of FakeResults, by kind and subject, without making pictures of them."""
    last: dict[str, Any] = {}

    def laid(lines: list[list[Tile | None]], **layout: Any) -> None:
        last.update(lines=lines, layout=layout)

    def plate(montage: None, labels: list[str], bars: list[ColourBar], caption: str) -> Figure:
        last.update(labels=labels, bars=bars)
        return Figure()

    def chart(*given: Any) -> Figure:
        last["chart"] = given
        return Figure()

    monkeypatch.setattr(context, "assemble_montage", laid)
    monkeypatch.setattr(context, "make_montage_figure", plate)
    for name in ("plot_unit_bars", "plot_unit_heatmaps", "plot_training_curves", "plot_confusion_matrix"):
        monkeypatch.setattr(charts, name, chart)

    def draw(results: FakeResults | None = None, **views: Any) -> dict[tuple[str, str], Drawn]:
        folder = (results or make_results()).write(tmp_path / "own")
        drawn = {}
        for plate in build.draw_figures(folder, "own", VIEWS | views):
            parts = (last.pop(name, []) for name in ("lines", "labels", "bars", "chart", "layout"))
            drawn[plate.kind, plate.subject] = Drawn(plate, *parts)
            assert not last
        return drawn

    return draw


def ends(values: np.ndarray, signed: bool = False) -> tuple[float, float]:
    """The scale that spans values, worked out by hand."""
    if signed or values.min() < 0 < values.max():
        return -abs(values).max(), abs(values).max()
    return min(values.min(), 0), max(values.max(), 0)


def spanned(bar: ColourBar) -> tuple[float, float]:
    return bar.scale.low, bar.scale.high


def pooled(results: FakeResults, *names: str) -> np.ndarray:
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
        for unit, line in enumerate(pairs.lines[1:]):
            *kernels, first, second = line
            assert {tile.title for tile in line if tile} == {str(unit)}
            for tile in kernels:
                channel = int(tile.right_title.removeprefix("ch "))
                np.testing.assert_array_equal(tile.values, results.filters[name][unit, channel])
            for tile, image in ((first, "first"), (second, "second")):
                np.testing.assert_array_equal(tile.values, results.activations[image][name][unit])
        assert pairs.layout["group_starts"] == (len(kernels),)
        assert len(pairs.lines[0]) == len(line)
        assert [tile is not None for tile in pairs.lines[0]] == [False] * len(kernels) + [True] * 2


def test_filters_that_see_colours_are_drawn_in_them(draw: Draw) -> None:
    """Grey is zero, and the end of the scale is the largest weight of any unit."""
    results = make_results()
    weight = results.filters["conv1"]
    results.filter_matches = match_first_filters(weight)
    plate = draw(results, scale="per_layer")["filters", "conv1"]
    assert [len(line) for line in plate.lines] == [16, 4]
    assert plate.labels == ["units\n0–3", "units\n4"] and plate.layout["group_starts"] == (4, 8, 12)
    tiles = [tile for line in plate.lines for tile in line if tile]
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
    words = draw(results)["filters", "conv1"].plate.caption
    assert "by correlation: 3 Sobel x in G (1.00)" in words
    assert f"95 % of random filters stay below {random_baseline(3):.2f}" in words
    results.filter_matches |= {"baseline": 1.0}
    words = draw(results)["filters", "conv1"].plate.caption
    assert "None is nearer to a classical kernel than random filters are" in words and "Sobel" not in words


def test_pairs_of_filters_that_see_colours(draw: Draw) -> None:
    results = make_results()
    weight = results.filters["conv1"]
    plate = draw(results)["pairs", "conv1"]
    assert plate.layout["group_starts"] == (4,)
    for unit, line in enumerate(plate.lines[1:]):
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
                assert "One value in a hundred" in drawn["deconv", image].plate.caption
        assert seen == [(key, unit) for key, array in projections.items() for unit in range(len(array))]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_comes_first_as_it_was_before_normalisation(draw: Draw, channels: int) -> None:
    results = make_results(channels)
    drawn = draw(results)
    pictures = [results.inputs[name] for name in ("first", "second")]
    for (kind, subject), plate in drawn.items():
        if kind in ("filters", "values", "curves", "confusion"):
            assert not plate.inputs
            continue
        expected = [results.inputs[subject]] if kind in ("deconv", "classical") else pictures
        assert len(plate.inputs) == len(expected)
        for tile, picture in zip(plate.inputs, expected, strict=True):
            values = tile.values.transpose(2, 0, 1) if channels == 3 else tile.values[None]
            np.testing.assert_allclose(values, picture, atol=1e-6)
            assert tile.scale == (None if channels == 3 else ColourScale(0, 1, "gray"))
        if kind in ("maps", "deconv"):
            assert [line[0] is None for line in plate.lines] == [
                not (label and (kind == "maps" or n == 0)) for n, label in enumerate(plate.labels)
            ]


def test_the_cover_shows_what_caused_the_strongest_activation(draw: Draw) -> None:
    results = make_results(1)
    plate = draw(results)["cover", ""]
    for image, tile in zip(("first", "second"), plate.lines[1], strict=True):
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
def test_many_maps_are_a_dense_plate_of_the_first_image(draw: Draw, scale: str) -> None:
    results = wide(2048, 7)
    plate = draw(results, layers=["block.conv2"], show="maps", scale=scale)["maps", "block.conv2"]
    tiles = [tile for line in plate.lines for tile in line if tile]
    assert {(tile.title, tile.right_title, tile.note) for tile in tiles} == {("", "", "")}
    assert "printed above" not in plate.plate.caption
    np.testing.assert_array_equal([t.values for t in tiles], results.activations["first"]["block.conv2"])
    assert plate.labels == [f"{n}–{n + 31}" for n in range(0, 2048, 32)]
    assert "on first, true cat, predicted cat (75.0 %): units 0–2047 of 2048" in plate.plate.caption


@pytest.mark.parametrize("show", ["maps", "filters"])
def test_dense_plates_are_small(tmp_path: Path, show: str) -> None:
    """Also as files; their labels stand beside their lines, one above the other."""
    views = VIEWS | {"layers": ["block.conv2"], "show": show}
    with figure_style():
        plate = next(
            p for p in build.draw_figures(wide(2048, 7).write(tmp_path), "own", views) if p.kind == show
        )
        save_figure(plate.figure, tmp_path / plate.file, False)
        labels = [text for text in plate.figure.texts if text.get_ha() == "right"]
        boxes = [label.get_window_extent() for label in labels]
    said = plate.to_dict(False)
    assert (tmp_path / plate.file).stat().st_size < 1_000_000
    assert max(said["width"], said["height"]) < 4096
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes))


def test_of_many_filters_fewer_channels_are_drawn(draw: Draw) -> None:
    results = wide(2048, 7)
    weight = results.filters["block.conv2"]
    plate = draw(results, layers=["block.conv2"], show="filters")["filters", "block.conv2"]
    largest = sorted(np.argsort(-(weight.astype(float) ** 2).sum((0, 2, 3)))[:2])
    for label, line in zip(plate.labels, plate.lines, strict=True):
        units, channel = label.split(", channel ")
        first, last = map(int, units.split("–"))
        assert int(channel) in largest
        np.testing.assert_array_equal([t.values for t in line if t], weight[first : last + 1, int(channel)])
    assert len(plate.lines) == 2 * 2048 / 64
    assert "2 of 12 input channels" in plate.plate.caption


def test_as_many_pairs_as_a_page_is_tall(draw: Draw) -> None:
    plate = draw(wide(100, 7), layers=["block.conv2"])["pairs", "block.conv2"]
    assert len(plate.labels) == 1 + 34
    assert "units 0–33 of 100" in plate.plate.caption


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
    words = drawn["maps", "conv1"].plate.caption
    assert "0 vertical edge (−0.83), 4 horizontal edge (0.60); of an untrained network's units 95 %" in words
    assert "0 vertical edge, darker to the right (0.75)" in drawn["maps", "relu"].plate.caption
    words = drawn["maps", "block.conv2"].plate.caption
    assert "that takes an r of 0.5, and of an untrained network's units 95 % stay below 0.52" in words
    assert "resemble" not in drawn["maps", "pool"].plate.caption  # which was not compared
    assert "4 horizontal" not in draw(n_filters=4)["maps", "conv1"].plate.caption


def test_the_classical_plate_has_a_feature_a_row_and_the_maps_that_resemble_it(draw: Draw) -> None:
    results = make_results()
    results.unit_matches["block.conv2"]["units"][7] = make_match("sobel_x+", 0.9)
    results.unit_matches["relu:2"] = {"baseline": 0.3, "units": [None] * 18}
    results.unit_matches["relu:2"]["units"][7] = make_match("sobel_x", 0.899)
    plate = draw(results)["classical", "second"]
    head, *rows = plate.lines
    assert [tile.title for tile in head] == ["input"]
    for row, (name, feature), label in zip(rows, FEATURES.items(), plate.labels[1:], strict=True):
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
    for (kind, subject), plate in drawn.items():
        names = SPATIAL if scale == "shared" else [subject]
        maps = ends(pooled(results, *names)) if subject in SPATIAL else None
        if kind in ("filters", "pairs"):
            whole = np.concatenate(weights) if scale == "shared" else results.filters[subject]
            filters = ends(whole, signed=True)
        if kind == "maps":
            assert list(map(spanned, plate.bars)) == [maps]
        elif kind == "filters":
            assert list(map(spanned, plate.bars)) == [filters]
        elif kind == "pairs":
            assert list(map(spanned, plate.bars)) == [filters, maps]
        elif kind == "deconv":
            own = results.projections[subject]
            every = np.concatenate([a.ravel() for p in results.projections.values() for a in p.values()])
            whole = [every] * 4 if scale == "shared" else list(own.values())
            assert list(map(spanned, plate.bars)) == [ends(array, signed=True) for array in whole]
            assert [bar.first_row for bar in plate.bars] == [0, 1, 2, 4]
            assert [bar.last_row for bar in plate.bars] == [0, 1, 3, 5]
        if kind in ("maps", "filters", "deconv"):
            for bar in plate.bars:
                rows = [tile for line in plate.lines[bar.first_row : bar.last_row + 1] for tile in line]
                assert {t.scale for t in rows if t and t.title != "input"} == {bar.scale}
                assert bar.end_labels is None


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_with_their_own_scale_print_where_it_ends(draw: Draw, channels: int) -> None:
    results = make_results(channels)
    for (kind, subject), plate in draw(results, scale="per_tile").items():
        if kind in ("cover", "classical") or (channels == 3 and subject == "conv1" and kind != "maps"):
            continue
        assert all(bar.end_labels is not None for bar in plate.bars)
        for label, unit, tile in plate.tiles:
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
    [("per_layer", "share one scale: "), ("shared", "share one scale with those of the other layers drawn: "),
     ("per_tile", "has a scale of its own, its end printed above it")],
)  # fmt: skip
def test_captions_name_what_is_shown(draw: Draw, scale: str, words: str) -> None:
    results = make_results(1)
    drawn = draw(results, scale=scale)
    for n, ((kind, subject), plate) in enumerate(drawn.items(), 1):
        caption = plate.plate.caption
        assert caption.startswith(f"Plate {n}. own. ")
        assert subject in caption
        assert plate.plate.alt and plate.plate.alt in caption
        if kind in ("cover", "maps", "pairs", "values"):
            assert "first" in caption and "second" in caption
        if kind in ("maps", "filters", "pairs") or (kind == "deconv" and scale != "per_layer"):
            assert words in caption
        if kind in ("maps", "values"):
            assert next(item["type"] for item in results.layers if item["name"] == subject) in caption
    for subject, shape in (("conv1", "units 0–4 of 5, each 8 × 6"), ("pool", "units 0–17 of 18, each 4 × 3")):
        assert shape in drawn["maps", subject].plate.caption
    assert "units 0–4 of 5, each 3 × 3, over its one input channel" in drawn["filters", "conv1"].plate.caption
    assert "8 × 6 pixels" in drawn["deconv", "first"].plate.caption
    for subject, meaning in (
        ("conv1", "white is zero, red positive, blue negative"),
        ("relu", "dark is zero"),
    ):
        assert scale == "shared" or meaning in drawn["maps", subject].plate.caption


def test_the_legend_of_projections_in_colours_is_not_that_of_signed_tiles(draw: Draw) -> None:
    """An RGB projection stands about grey; nothing there is white where it is zero."""
    drawn = draw(make_results(3))
    for plate in (drawn["deconv", "first"], drawn["cover", ""]):
        assert "white is zero" not in plate.plate.caption
        assert all(bar.scale.cmap != "RdBu_r" for bar in plate.bars)


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
    assert spanned(drawn["maps", "relu"].bars[0]) == ends(pooled(results, "relu", "pool"))


def test_fewer_are_drawn_where_fewer_are_asked(draw: Draw) -> None:
    drawn = draw(n_images=1, n_filters=3)
    assert [[t.title for t in line if t] for line in drawn["maps", "pool"].lines] == [
        ["input", "0", "1", "2"]
    ]
    assert "units 0–2 of 18" in drawn["maps", "pool"].plate.caption
    assert len(drawn["pairs", "conv1"].lines) == 4


def test_more_than_there_are_draws_all_and_says_so_once(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(n_images=9, n_filters=18, layers=["conv1", "relu", "pool"])
    assert {unit for _, unit, _ in drawn["maps", "conv1"].tiles} == set(range(5))
    assert {unit for _, unit, _ in drawn["maps", "pool"].tiles} == set(range(18))
    assert len(drawn["maps", "conv1"].inputs) == 2
    assert caplog.messages == [
        "9 images asked for, there are 2: all are drawn",
        "18 units in conv1 asked for, there are 5: all are drawn",
        "18 units in relu asked for, there are 5: all are drawn",
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
    assert [tile.right_title for tile in drawn["pairs", "block.conv2"].lines[1][:8]] == [
        f"ch {c}" for c in largest
    ]
    assert "all 3 input channels" in drawn["pairs", "conv1"].plate.caption
    for kind in ("filters", "pairs"):
        caption = drawn[kind, "block.conv2"].plate.caption
        assert "8 of 12 input channels, those with the largest weights" in caption


# Dead units


@pytest.mark.parametrize("scale", ["per_layer", "per_tile", "shared"])
@pytest.mark.parametrize("channels", [1, 3])
def test_dead_units_are_crossed_and_no_others(draw: Draw, channels: int, scale: str) -> None:
    drawn = draw(make_results(channels), scale=scale)
    dead = {"first": {("conv1", 2), ("pool", 3)}, "second": {("conv1", 2)}}
    for image, expected in dead.items():
        plate = drawn["deconv", image]
        crossed = [(label.split("\n")[0], unit) for label, unit, tile in plate.tiles if tile.crossed_out]
        assert sorted(crossed) == sorted([*expected] * 2)  # for either selection
        assert all((tile.right_title == "dead") == tile.crossed_out for _, _, tile in plate.tiles)
        assert f"Units dead on this image ({len(expected)}) are crossed" in plate.plate.caption


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
    for image, dead in (("first", {("conv1", 2), ("pool", 3)}), ("second", {("conv1", 2)})):
        plate = drawn["deconv", image]
        tiles = [(label.split("\n")[0], unit, tile.crossed_out) for label, unit, tile in plate.tiles]
        expected = [("conv1", 4), ("conv1", 2)] * 2 + [("pool", 9), ("pool", 3), ("pool", 0)] * 2
        assert tiles == [(*each, each in dead) for each in expected]
        words = plate.plate.caption
        assert "Of conv1 and pool the units that answer the image most, the strongest first" in words
        assert f"Units dead on this image ({len(dead)})" in words
    assert [tile.title for tile in drawn["cover", ""].lines[1] if tile] == ["0", "0"]


def test_projections_that_are_too_large_for_one_plate_have_several(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(projections_module, "MAX_VALUES", 1)
    plates = [
        p for p in build.draw_figures(make_results().write(tmp_path), "own", VIEWS) if p.kind == "deconv"
    ]
    names = ["deconv-first.png", "deconv-first+2.png", "deconv-second.png", "deconv-second+2.png"]
    assert [plate.file for plate in plates] == names
    assert ["activation of conv1 on" in plate.caption for plate in plates] == [True, False] * 2


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
        monkeypatch.setattr(projections_module, "groupby", lambda keys, key: [("", keys)])  # on one plate
    plate = draw(results)["deconv", "first"]
    found = [unit for label, unit, _ in plate.tiles if label.startswith("conv1\nwhole")]
    assert found == [4, 3, 0, 1, 2][: units[0]]
    assert len([unit for label, unit, _ in plate.tiles if label.startswith("pool\nstrong")]) == units[1]
    assert ("For its size" in plate.plate.caption) == (units != (5, 18))


def test_the_cover_crosses_no_unit_that_is_alive(draw: Draw) -> None:
    """Its projection may be zero all the same."""
    results = make_results()
    for projections in results.projections.values():
        projections["pool"][:] = 0
    assert not any(
        tile.crossed_out or tile.right_title for tile in draw(results)["cover", ""].lines[1] if tile
    )


def test_the_cover_crosses_a_dead_unit(draw: Draw) -> None:
    results = make_results()
    for image, projections in results.projections.items():
        results.activations[image]["pool"][:] = 0
        projections["pool"][:] = 0
    assert all(tile.crossed_out for tile in draw(results)["cover", ""].lines[1] if tile)


# Values


def test_values_as_bars_where_they_are_few(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results)
    for name, names, marked in (("fc", CLASSES, [2, 3]), ("neck", list("0123456"), [None, None])):
        values, given, titles, coloured, _ = drawn["values", name].chart
        np.testing.assert_array_equal(values, [found[name] for found in results.activations.values()])
        assert (given, coloured) == (names, marked)
        assert titles[1].split("   ") == ["second", "true cat", "predicted dog (75.0 %)"]
    assert "the prediction is coloured" in drawn["values", "fc"].plate.caption
    assert "coloured" not in drawn["values", "neck"].plate.caption


def test_values_as_strips_where_they_are_many(draw: Draw) -> None:
    results = make_results()
    plate = draw(results)["values", "flatten"]
    values, _, scale, marked, caption = plate.chart
    assert marked == [None, None]
    np.testing.assert_array_equal(values, [found["flatten"] for found in results.activations.values()])
    assert (scale.low, scale.high) == ends(values)
    assert "The 216 values of flatten" in caption and "100 units" in caption


def test_strips_hold_each_value_once_and_in_order() -> None:
    values = np.random.default_rng(0).normal(size=(2, 216))
    figure = charts.plot_unit_heatmaps(
        values, ["a", "b"], ColourScale.from_values(values), [101, None], "A caption."
    )
    shown = [ax.images[0].get_array() for part in figure.subfigs for ax in part.axes if ax.get_title("left")]
    for row, image in zip(values, shown, strict=True):
        assert image.shape == (3, 100)
        np.testing.assert_array_equal(np.ma.filled(image, np.nan).ravel()[:216], row)
        assert np.ma.getmaskarray(np.ma.masked_invalid(image)).sum() == 300 - 216
    frames = [ax.patches for part in figure.subfigs for ax in part.axes if ax.get_title("left")]
    assert [frame.get_xy() for frame in frames[0]] == [(0.5, 0.5)] and not frames[1]  # line 1, place 1


@pytest.mark.parametrize(
    ("count", "width"), [(21, 100), (2500, 100), (4096, 200), (25088, 1000), (10**6, 1000)]
)
def test_strips_of_many_values_stay_within_a_page(count: int, width: int) -> None:
    """VGG flattens to 25,088."""
    figure = charts.plot_unit_heatmaps(np.zeros((1, count)), ["a"], ColourScale(0, 1, "gray"), [None], "")
    assert charts.choose_row_length(count) == width
    assert figure.get_size_inches()[1] * figure.dpi < (1000 if count < 10**6 else 5000)


def test_bars_are_as_high_as_the_values() -> None:
    values = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]])
    figure = charts.plot_unit_bars(values, CLASSES[:3], ["a", "b"], [2, None], "A caption.")
    axes = [ax for part in figure.subfigs for ax in part.axes]
    np.testing.assert_array_equal([[bar.get_height() for bar in ax.patches] for ax in axes], values)
    assert [label.get_text() for label in axes[0].get_xticklabels()] == CLASSES[:3]
    colours = [[bar.get_facecolor() for bar in ax.patches] for ax in axes]
    assert colours[0][2] not in colours[0][:2] and len(set(colours[1])) == 1
    assert axes[0].get_ylim() == axes[1].get_ylim()


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
def test_a_plate_is_as_large_as_it_says(tmp_path: Path, height: int) -> None:
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
        for plate in build.draw_figures(results.write(tmp_path), "own", views):
            if plate.kind in ("maps", "values"):
                plate.figure.canvas.draw()


def test_captions_and_labels_lie_within_their_room(tmp_path: Path) -> None:
    with figure_style():
        for plate in build.draw_figures(make_results().write(tmp_path), "own", VIEWS | {"scale": "per_tile"}):
            said = plate.to_dict(False)
            *labels, caption = plate.figure.texts or plate.figure.subfigs[-1].texts or plate.figure.texts
            box = caption.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= said["width"], plate.file
            assert 0 <= box.y0 < box.y1 <= said["caption_height"] < said["height"], plate.file
            assert " ".join(caption.get_text().split()) == plate.caption
            for label in labels:
                assert label.get_window_extent().x0 >= 0, plate.file


def draw_files(folder: Path, **views: Any) -> Path:
    """Run scripts/figures.py on a results folder."""
    main = runpy.run_path(str(ROOT / "scripts/figures.py"))["main"]
    settings = VIEWS | {"layers": ["relu:2", "relu_2", "fc"], "n_filters": 2} | views
    main(argparse.Namespace(output=str(folder), name="own", settings=settings))
    return folder / "figures"


def test_files(tmp_path: Path) -> None:
    """PNG, and PDF where asked, the same bytes twice; plates.json tells their sizes."""
    one, two = (make_results().write(tmp_path / name) for name in ("one", "two"))
    found, again = (
        {path.name: path.read_bytes() for path in draw_files(folder, pdf=True).iterdir()}
        for folder in (one, two)
    )
    assert found == again
    plates = json.loads(found.pop("plates.json"))
    assert sorted(found) == sorted([p["file"] for p in plates] + [p["pdf"] for p in plates])
    assert len(plates) == 10
    for plate in plates:
        assert found[plate["pdf"]].startswith(b"%PDF")
        assert not re.search(rb"/(CreationDate|ModDate|Producer|Creator)\b", found[plate["pdf"]])
        with Image.open(one / "figures" / plate["file"]) as picture:
            assert picture.size == (plate["width"], plate["height"])
            assert set(picture.info) <= {"dpi"}
        assert 0 < plate["caption_height"] < plate["height"]
        assert plate["caption_height"] == caption_height(plate["caption"], plate["width"])


def test_no_pdf_where_none_is_asked_and_old_plates_go(tmp_path: Path) -> None:
    folder = make_results().write(tmp_path / "own")
    (folder / "figures").mkdir()
    (folder / "figures/old.pdf").touch()
    drawn = draw_files(folder, layers=["fc"])
    assert not list(drawn.glob("*.pdf"))
    assert all(plate["pdf"] is None for plate in json.loads((drawn / "plates.json").read_text()))


def test_file_names_are_safe_and_each_its_own(draw: Draw) -> None:
    drawn = draw()
    names = [plate.plate.file for plate in drawn.values()]
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
    assert not any("predicted" in plate.plate.caption for plate in drawn.values())


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
    plate = draw(results)["values", "relu_2"]
    assert "The 9 vectors of 20 values of relu_2" in plate.plate.caption
    assert plate.labels == ["first", "second"]
    for (_, tile), outputs in zip(plate.lines, results.activations.values(), strict=True):
        np.testing.assert_array_equal(tile.values, outputs["relu_2"])
    assert spanned(plate.bars[0]) == (0, 180)


def test_values_of_four_axes_are_left_out_and_said_to_be(
    draw: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(shaped(2, 3, 4, 5))
    assert not [subject for _, subject in drawn if subject == "relu_2"] and ("maps", "pool") in drawn
    assert caplog.messages == ["no plate of relu_2, whose values have 4 axes"]


@pytest.mark.parametrize("scale", ["per_layer", "shared"])
def test_maps_of_one_pixel_are_values(draw: Draw, scale: str) -> None:
    """As after average pooling; a convolution between such maps has filters, but no pairs."""
    results = shaped(30, 1, 1)
    results.layers[5] |= {"kind": "conv", "module": "block.conv2"}
    drawn = draw(results, scale=scale)
    values = drawn["values", "relu_2"].chart[0]
    np.testing.assert_array_equal(values, [np.arange(30), np.arange(1, 31)])
    assert not {("maps", "relu_2"), ("pairs", "relu_2")} & set(drawn) and ("filters", "relu_2") in drawn
