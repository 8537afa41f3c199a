"""The figures of images chosen by class: a row per class and a column per unit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas.figures.context import FigureContext
from convatlas.figures.digits import draw_digit_figures
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import figure_style
from convatlas.plotting.montage import HAIRLINE_COLOUR
from convatlas.results import Results
from tests.support.fake_results import PLANE, VIEWS, FakeResults, make_digit_results, make_results


def draw(folder: Path, results: FakeResults, **views: Any) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Return the entry in figures.json and the pixels of each figure."""
    results.write(folder / "own")
    context = FigureContext(Results(folder / "own"), VIEWS | views)
    drawn = []
    with figure_style():
        for figure in draw_digit_figures(context):
            figure.figure.canvas.draw()
            drawn.append((figure.to_dict([]), np.asarray(figure.figure.canvas.buffer_rgba())[..., :3]))
    return drawn


def test_each_class_is_a_row_and_each_unit_a_column_pixel_for_pixel(tmp_path: Path) -> None:
    results = make_digit_results()
    drawn = draw(tmp_path, results)
    assert [entry["file"] for entry, _ in drawn] == ["digits.png", "digits+peak.png"]
    for (entry, pixels), suffix in zip(drawn, ("", "@peak"), strict=True):
        layout = entry["tile_layout"]
        assert entry["kind"] == "digits" and layout["images"] == ["digit-2", "digit-3"]
        assert [(group["layer"], group["units"]) for group in layout["groups"]] == [
            ("conv1", list(range(5))), ("pool", list(range(18)))
        ]  # fmt: skip
        factor = layout["tile_size"] // max(PLANE)
        for group in layout["groups"]:
            arrays = [results.projections[name][group["layer"] + suffix] for name in layout["images"]]
            scale = ColourScale.diverging(*arrays)  # one for all images
            for array, name, top in zip(arrays, layout["images"], group["tops"], strict=True):
                outputs = results.activations[name][group["layer"]]
                is_inactive = outputs.reshape(len(array), -1).max(1) <= 0
                for n, unit in enumerate(group["units"]):
                    left = group["left"] + n * layout["pitch"]
                    tile = pixels[top : top + PLANE[0] * factor, left : left + PLANE[1] * factor]
                    expected = scale.to_rgb(array[unit, 0]).repeat(factor, 0).repeat(factor, 1)
                    assert np.array_equal(tile, expected) != is_inactive[unit]  # which is crossed out
                    assert (pixels[top - 1, left - 1] == HAIRLINE_COLOUR).all()


def test_the_input_is_the_first_tile_of_each_row(tmp_path: Path) -> None:
    results = make_digit_results()
    entry, pixels = draw(tmp_path, results)[0]
    layout = entry["tile_layout"]
    factor = layout["tile_size"] // max(PLANE)
    for name, top in zip(layout["images"], layout["groups"][0]["tops"], strict=True):
        tile = pixels[top:, layout["input"] :][::factor, ::factor][: PLANE[0], : PLANE[1]]
        assert np.abs(tile[..., 0] - 255 * results.inputs[name][0]).max() <= 1


def test_the_caption_names_units_classes_location_and_scale(tmp_path: Path) -> None:
    (whole, _), (peak, _) = draw(tmp_path, make_digit_results())
    for entry, location in ((whole, "whole map"), (peak, "strongest location")):
        assert entry["caption"] == (
            "own, conv1 (5) and pool (18): deconvnet projections of 23 units for cat and dog, "
            f"{location}, a scale per layer."
        )
        assert "8 × 6 pixels" in entry["explanation"]
        assert "Each layer has its own colour scale" in entry["explanation"]
    assert "Crossed out: units inactive on an image (3)" in whole["explanation"]


@pytest.mark.parametrize(
    ("scale", "text"),
    [("per_tile", "Each tile has its own colour scale;"), ("shared", "All layers share one colour scale")],
)
def test_the_caption_describes_other_scales(tmp_path: Path, scale: str, text: str) -> None:
    assert text in draw(tmp_path, make_digit_results(), scale=scale)[0][0]["explanation"]


def test_rgb_projections(tmp_path: Path) -> None:
    entry, pixels = draw(tmp_path, make_digit_results(3))[0]
    assert (
        "grey = 0" in entry["explanation"]
        and "Nonzero magnitudes above their 99th percentile are clipped" in entry["explanation"]
    )
    group = entry["tile_layout"]["groups"][1]
    tile = pixels[group["tops"][0] :, group["left"] :][: PLANE[0], : PLANE[1]]
    assert np.ptp(tile.astype(int), axis=2).max() > 20


def test_a_unit_has_one_column_where_other_units_are_projected_for_each_image(tmp_path: Path) -> None:
    results = make_digit_results()
    for name, units in (("digit-2", [4, 1]), ("digit-3", [0, 4])):
        projections = results.projections[name]
        projections |= {key: projections[key][units] for key in ("conv1", "conv1@peak")}
        projections["conv1@units"] = np.array(units, np.int32)
    entry, pixels = draw(tmp_path, results)[0]
    layout = entry["tile_layout"]
    group = layout["groups"][0]
    assert group["units"] == [0, 1, 4]
    assert "Empty: units that are not among the most active of their layer." in entry["explanation"]
    empty = {
        (row, column)
        for row, top in enumerate(group["tops"])
        for column in range(3)
        if not (pixels[top - 1, group["left"] + column * layout["pitch"]] == HAIRLINE_COLOUR).all()
    }
    assert empty == {(0, 0), (1, 1)}


def test_many_units_are_in_several_bands_and_figures(tmp_path: Path) -> None:
    results = make_digit_results()
    rng = np.random.default_rng(0)
    for name in results.activations:
        results.projections[name] = {"pool": rng.normal(size=(130, 1, *PLANE)).astype(np.float32)}
        results.activations[name]["pool"] = rng.random((130, 4, 3)).astype(np.float32)
    drawn = draw(tmp_path, results)
    assert [entry["file"] for entry, _ in drawn] == ["digits.png", "digits+2.png"]
    groups = [group for entry, _ in drawn for group in entry["tile_layout"]["groups"]]
    assert [len(group["units"]) for group in groups] == [24, 24, 24, 24, 24, 10]
    assert [unit for group in groups for unit in group["units"]] == list(range(130))
    tops = [group["tops"][0] for group in drawn[0][0]["tile_layout"]["groups"]]
    assert tops == sorted(set(tops))


def test_there_is_no_figure_without_such_images_or_projections(tmp_path: Path) -> None:
    assert draw(tmp_path, make_results(1)) == []
    results = make_digit_results()
    results.projections = {name: {} for name in results.projections}
    assert draw(tmp_path, results) == []
