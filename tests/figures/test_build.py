"""The figures of a network: which are drawn, their scales, captions and files."""

import argparse
import json
import logging
import re
import runpy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from convatlas.figures import build
from convatlas.figures.context import CaptionedFigure
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import (
    caption_height,
    figure_style,
    make_chart_figure,
    save_figure,
)
from convatlas.results import Results
from tests.support.drawings import Draw, find_ends, get_ends, join_activations
from tests.support.fake_results import (
    FLAT,
    SPATIAL,
    TITLES,
    VIEWS,
    make_minimal_results,
    make_results,
)
from tests.support.workspace import ROOT

SVG_TEXT = "{http://www.w3.org/2000/svg}text"


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_comes_first_without_normalisation(draw: Draw, channels: int) -> None:
    results = make_results(channels)
    drawn = draw(results)
    inputs = [results.inputs[name] for name in ("first", "second")]
    for (kind, subject), drawing in drawn.items():
        if kind in ("filters", "values", "curves", "confusion"):
            assert not drawing.inputs
            continue
        expected = [results.inputs[subject]] if kind in ("deconv", "classical") else inputs
        assert len(drawing.inputs) == len(expected)
        for tile, image in zip(drawing.inputs, expected, strict=True):
            values = tile.values.transpose(2, 0, 1) if channels == 3 else tile.values[None]
            np.testing.assert_allclose(values, image, atol=1e-6)
            assert tile.scale == (None if channels == 3 else ColourScale(0, 1, "gray"))
        if kind in ("maps", "deconv"):
            assert [row[0] is None for row in drawing.rows] == [
                not (label and (kind == "maps" or n == 0)) for n, label in enumerate(drawing.labels)
            ]


@pytest.mark.parametrize("scale", ["per_layer", "shared"])
def test_bars_end_where_the_data_end(draw: Draw, scale: str) -> None:
    results = make_results(1)
    drawn = draw(results, scale=scale, n_filters=2)  # of all units, not only of those drawn
    weights = [results.filters[name].ravel() for name in ("conv1", "block.conv2")]
    for (kind, subject), drawing in drawn.items():
        names = SPATIAL if scale == "shared" else [subject]
        maps = find_ends(join_activations(results, *names)) if subject in SPATIAL else None
        if kind in ("filters", "pairs"):
            arrays = np.concatenate(weights) if scale == "shared" else results.filters[subject]
            filters = find_ends(arrays, signed=True)
        if kind == "maps":
            assert list(map(get_ends, drawing.bars)) == [maps]
        elif kind == "filters":
            assert list(map(get_ends, drawing.bars)) == [filters]
        elif kind == "pairs":
            assert list(map(get_ends, drawing.bars)) == [filters, maps]
        elif kind == "deconv":
            projections = results.projections[subject]
            all_values = np.concatenate([a.ravel() for p in results.projections.values() for a in p.values()])
            arrays = [all_values] * 4 if scale == "shared" else list(projections.values())
            assert list(map(get_ends, drawing.bars)) == [find_ends(array, signed=True) for array in arrays]
            assert [bar.first_row for bar in drawing.bars] == [0, 1, 2, 4]
            assert [bar.last_row for bar in drawing.bars] == [0, 1, 3, 5]
        if kind in ("maps", "filters", "deconv"):
            for bar in drawing.bars:
                tiles = [tile for row in drawing.rows[bar.first_row : bar.last_row + 1] for tile in row]
                assert {t.scale for t in tiles if t and t.title != "input"} == {bar.scale}
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
            if values.ndim == 3:  # RGB
                key = label.replace("\nwhole map", "").replace("\nstrongest location", "@peak")
                values = results.projections[subject][key][unit]
            max_abs = abs(values).max()
            assert tile.right_title.split()[-1:] == [f"{max_abs:.2g}"], (kind, subject)
            if tile.scale and max_abs:
                assert tile.scale.high == max_abs and tile.scale.low in (0, -max_abs)


@pytest.mark.parametrize(
    ("scale", "text"),
    [("per_layer", "share one colour scale: "),
     ("shared", "share one colour scale across the layers shown: "),
     ("per_tile", "has its own colour scale (end printed above)")],
)  # fmt: skip
def test_captions_name_what_is_shown(draw: Draw, scale: str, text: str) -> None:
    results = make_results(1)
    drawn = draw(results, scale=scale)
    for (kind, subject), drawing in drawn.items():
        caption, explanation = drawing.figure.caption, drawing.figure.explanation
        assert caption.startswith("own, ") and len(caption) < 130 and explanation.endswith(".")
        assert TITLES.get(subject, subject) in caption
        assert drawing.figure.alt and drawing.figure.alt in caption
        if kind in ("cover", "maps", "pairs", "values"):
            assert "on 2 images" in caption
        if kind in ("maps", "pairs", "values"):
            assert "; ".join(TITLES.values()) in explanation
        if kind in ("maps", "filters", "pairs") or (kind == "deconv" and scale != "per_layer"):
            assert text in explanation
        if kind in ("maps", "values"):
            assert next(item["type"] for item in results.layers if item["name"] == subject) in explanation
    for subject, shape in (("conv1", "units 0–4 of 5, 8 × 6 each"), ("pool", "units 0–17 of 18, 4 × 3 each")):
        assert shape in drawn["maps", subject].figure.caption
    assert "units 0–4 of 5, 3 × 3 each" in drawn["filters", "conv1"].figure.caption
    assert "its one input channel" in drawn["filters", "conv1"].figure.explanation
    assert "8 × 6 pixels" in drawn["deconv", "first"].figure.explanation
    for subject, meaning in (
        ("conv1", "white = 0, red positive, blue negative"),
        ("relu", "dark = 0"),
    ):
        assert scale == "shared" or meaning in drawn["maps", subject].figure.explanation


@pytest.mark.parametrize(
    ("show", "kinds"),
    [("filters", {"filters"}), ("maps", {"maps", "values"}),
     ("both", {"filters", "maps", "values", "pairs"})],
)  # fmt: skip
def test_the_views_choose_the_kinds(draw: Draw, show: str, kinds: set[str]) -> None:
    other_kinds = {"cover", "curves", "confusion", "classical", "deconv"}
    assert {kind for kind, _ in draw(show=show)} == kinds | other_kinds


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("all", [*SPATIAL, *FLAT]), (["pool", "conv1"], ["conv1", "pool"]), ([2], ["block.conv2"]),
     (["relu*", 1], ["conv1", "relu", "relu:2", "relu_2"])],
)  # fmt: skip
def test_the_views_choose_the_layers(draw: Draw, layers: str | list[str | int], expected: list[str]) -> None:
    drawn = draw(layers=layers, show="maps")
    assert [subject for kind, subject in drawn if kind in ("maps", "values")] == expected


def test_a_shared_scale_is_shared_by_the_layers_drawn(draw: Draw) -> None:
    results = make_results()
    drawn = draw(results, layers=["relu", "pool"], scale="shared")
    assert get_ends(drawn["maps", "relu"].bars[0]) == find_ends(join_activations(results, "relu", "pool"))


def test_the_views_limit_images_and_units(draw: Draw) -> None:
    drawn = draw(n_images=1, n_filters=3)
    assert [[tile.title for tile in row if tile] for row in drawn["maps", "pool"].rows] == [
        ["input", "0", "1", "2"]
    ]
    assert "units 0–2 of 18" in drawn["maps", "pool"].figure.caption
    assert len(drawn["pairs", "conv1"].rows) == 4


def test_more_than_available_draws_all_and_logs_it_once(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
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


def test_all_draws_all_without_a_log_line(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(n_images="all", n_filters="all")
    assert {unit for _, unit, _ in drawn["maps", "pool"].tiles} == set(range(18))
    assert not caplog.messages


def test_filters_of_layers_without_them(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(show="filters", layers=["relu", "conv1", "pool"])
    assert [subject for kind, subject in drawn if kind in ("filters", "maps", "values", "pairs")] == ["conv1"]
    (message,) = caplog.messages
    without, convolutions = message.split(";")
    assert without == "no filters in relu and pool"
    assert "conv1" in convolutions and "block.conv2" in convolutions and "relu" not in convolutions


def test_filters_of_a_network_that_has_none(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    results = make_results()
    results.layers = [item for item in results.layers if item["kind"] != "conv"]
    with caplog.at_level(logging.INFO, "convatlas"):
        drawn = draw(results, show="filters", layers=["relu"])
    assert not [kind for kind, _ in drawn if kind in ("filters", "maps")]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("height", range(720, 740))
def test_the_size_in_figures_json_is_that_of_the_png(tmp_path: Path, height: int) -> None:
    """Pixels divided by the resolution and multiplied by it again may fall just short of a pixel."""
    figure, _ = make_chart_figure(300, height, "")
    entry = CaptionedFigure("a.png", "maps", "", "", "", "", figure).to_dict([])
    save_figure(figure, tmp_path / "a.png", [])
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (entry["width"], entry["height"]) == (300, height + caption_height("", 300))


def test_text_is_printed_verbatim(tmp_path: Path) -> None:
    """Dollar signs in a name do not start a formula."""
    results = make_results()
    results.network["classes"] = ["$\\frac$", "$a$", "$_$", "$^$"]
    views = VIEWS | {"layers": ["relu", "fc"], "n_filters": 2}
    with figure_style():
        for figure in build.draw_figures(Results(results.write(tmp_path)), views):
            if figure.kind in ("maps", "values"):
                figure.figure.canvas.draw()


def test_captions_and_labels_are_within_their_parts_of_the_figure(tmp_path: Path) -> None:
    with figure_style():
        for figure in build.draw_figures(
            Results(make_results().write(tmp_path)), VIEWS | {"scale": "per_tile"}
        ):
            entry = figure.to_dict([])
            *labels, caption = figure.figure.texts or figure.figure.subfigs[-1].texts or figure.figure.texts
            box = caption.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= entry["width"], figure.file
            assert 0 <= box.y0 < box.y1 <= entry["caption_height"] < entry["height"], figure.file
            assert " ".join(caption.get_text().split()) == figure.caption
            for label in labels:
                assert label.get_window_extent().x0 >= 0, figure.file


def draw_files(folder: Path, **views: Any) -> Path:
    """Run scripts/figures.py on the folder of a network."""
    main = runpy.run_path(str(ROOT / "scripts/figures.py"))["main"]
    settings = VIEWS | {"layers": ["relu:2", "relu_2", "fc"], "n_filters": 2} | views
    main(argparse.Namespace(output=str(folder), name="own", settings=settings))
    return folder / "figures"


def test_files_are_reproducible(tmp_path: Path) -> None:
    """PNG, PDF and SVG are the same bytes twice; the PNG are the same without the others."""
    one, two, plain = (make_results().write(tmp_path / name / "own") for name in ("one", "two", "plain"))
    (plain / "figures").mkdir()
    (plain / "figures/old.pdf").touch()
    formats = ["svg", "pdf"]
    files, files_again, plain_files = (
        {path.name: path.read_bytes() for path in draw_files(folder, formats=formats).iterdir()}
        for folder, formats in ((one, formats), (two, formats), (plain, ["png"]))
    )
    assert files == files_again
    figures = json.loads(files.pop("figures.json"))
    plain_figures = json.loads(plain_files.pop("figures.json"))
    assert plain_files == {name: content for name, content in files.items() if name.endswith(".png")}
    assert plain_figures == [figure | {"formats": ["png"]} for figure in figures]
    assert len(figures) == 10
    for figure in figures:
        assert figure["formats"] == ["png", "pdf", "svg"]
        pdf, svg = (files.pop(figure["file"].replace(".png", f".{name}")) for name in ("pdf", "svg"))
        assert pdf.startswith(b"%PDF")
        assert not re.search(rb"/(CreationDate|ModDate|Producer|Creator)\b", pdf)
        assert b"/FontFile2" in pdf
        texts = " ".join(
            "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(SVG_TEXT)
        )
        assert set(figure["caption"].split()) <= set(texts.split())
        assert svg.count(b"@font-face") == 2
        assert b"<dc:date>" not in svg
        with Image.open(one / "figures" / figure["file"]) as image:
            assert image.size == (figure["width"], figure["height"])
            assert set(image.info) <= {"dpi"}
        assert 0 < figure["caption_height"] < figure["height"]
        assert figure["caption_height"] == caption_height(figure["caption"], figure["width"])
    assert sorted(files) == sorted(figure["file"] for figure in figures)


def test_file_names_are_safe_and_unique(draw: Draw) -> None:
    drawn = draw()
    names = [drawing.figure.file for drawing in drawn.values()]
    assert len(set(map(str.lower, names))) == len(names)
    assert {("maps", "relu:2"), ("maps", "relu_2"), ("maps", "block/cat")} <= set(drawn)
    for name in names:
        assert re.fullmatch(r"[\w.+~-]+\.png", name)


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


@pytest.mark.parametrize("scale", ["per_tile", "per_layer", "shared"])
def test_a_network_with_minimal_results(draw: Draw, scale: str) -> None:
    drawn = draw(make_minimal_results(), scale=scale)
    assert {kind for kind, _ in drawn} == {
        "cover", "filters", "maps", "pairs", "values", "classical", "deconv"
    }  # fmt: skip
    assert not any("predicted" in drawing.figure.explanation for drawing in drawn.values())
