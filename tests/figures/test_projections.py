"""Figures of deconvnet projections."""

from pathlib import Path

import numpy as np
import pytest

from convatlas.figures import build
from convatlas.figures import projections as projections_module
from convatlas.plotting.top_activation_tiles import RGB_STEP
from convatlas.results import Results
from tests.support.drawings import Draw
from tests.support.fake_results import (
    VIEWS,
    FakeResults,
    make_results,
)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_projection_is_its_unit_of_its_selection(draw: Draw, channels: int) -> None:
    """RGB projections are grey at zero, and scaled to the 99th percentile of the nonzero magnitudes."""
    results = make_results(channels)
    drawn = draw(results)
    keys = {"conv1\nwhole map": "conv1", "conv1\nstrongest location": "conv1@peak",
             "pool\nwhole map": "pool", "pool\nstrongest location": "pool@peak"}  # fmt: skip
    for image, projections in results.projections.items():
        drawn_units = []
        for label, unit, tile in drawn["deconv", image].tiles:
            projection = projections[keys[label]][unit]
            drawn_units.append((keys[label], unit))
            if tile.crossed_out or channels == 1:
                np.testing.assert_array_equal(tile.values, projection[0])
            else:
                group = abs(projections[keys[label]])
                max_abs = np.percentile(group[group > 0], 99)
                values = (tile.values.transpose(2, 0, 1) - 0.5) * 2 * max_abs
                np.testing.assert_allclose(
                    values, projection, atol=1.001 * max_abs * RGB_STEP / 255
                )  # half a step
                assert (
                    "Nonzero magnitudes above their 99th percentile are clipped"
                    in drawn["deconv", image].figure.explanation
                )
        assert drawn_units == [
            (key, unit) for key, array in projections.items() for unit in range(len(array))
        ]


def test_rgb_projections_are_grey_at_zero(draw: Draw) -> None:
    """An RGB projection is grey where it is zero, not white."""
    drawn = draw(make_results(3))
    for drawing in (drawn["deconv", "first"], drawn["cover", ""]):
        assert "white = 0" not in drawing.figure.explanation
        assert all(bar.scale.cmap != "RdBu_r" for bar in drawing.bars)


@pytest.mark.parametrize("scale", ["per_layer", "per_tile", "shared"])
@pytest.mark.parametrize("channels", [1, 3])
def test_inactive_units_are_crossed_out_and_no_others(draw: Draw, channels: int, scale: str) -> None:
    drawn = draw(make_results(channels), scale=scale)
    inactive = {"first": {("conv1", 2), ("pool", 3)}, "second": {("conv1", 2)}}
    for image, expected in inactive.items():
        drawing = drawn["deconv", image]
        crossed = [(label.split("\n")[0], unit) for label, unit, tile in drawing.tiles if tile.crossed_out]
        assert sorted(crossed) == sorted([*expected] * 2)  # for either selection
        assert all((tile.right_title == "inactive") == tile.crossed_out for _, _, tile in drawing.tiles)
        assert f"Crossed out: units inactive on this image ({len(expected)})" in drawing.figure.explanation


def make_partial_projections() -> FakeResults:
    """Return results with projections of some units of conv1 and pool only, in the order of @units."""
    results = make_results()
    for image, projections in results.projections.items():
        for name, units in (("conv1", [4, 2]), ("pool", [9, 3, 0])):
            for key in (name, f"{name}@peak"):
                projections[key] = projections[key][units]
            projections[f"{name}@units"] = np.array(units, np.int32)
        results.activations[image]["pool"][0, 0, 0] = 99
    return results


def test_projections_of_some_units_have_their_numbers(draw: Draw) -> None:
    drawn = draw(make_partial_projections())
    for image, inactive in (("first", {("conv1", 2), ("pool", 3)}), ("second", {("conv1", 2)})):
        drawing = drawn["deconv", image]
        tiles = [(label.split("\n")[0], unit, tile.crossed_out) for label, unit, tile in drawing.tiles]
        expected = [("conv1", 4), ("conv1", 2)] * 2 + [("pool", 9), ("pool", 3), ("pool", 0)] * 2
        assert tiles == [(*unit, unit in inactive) for unit in expected]
        caption = drawing.figure.explanation
        assert "Of conv1 and pool the most active units, strongest first" in caption
        assert f"units inactive on this image ({len(inactive)})" in caption
    assert [tile.title for tile in drawn["cover", ""].rows[1] if tile] == ["0", "0"]


def test_projections_that_are_too_large_for_one_figure_have_several(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(projections_module, "MAX_VALUES", 1)
    figures = [
        figure
        for figure in build.draw_figures(Results(make_results().write(tmp_path)), VIEWS)
        if figure.kind == "deconv"
    ]
    names = ["deconv-first.png", "deconv-first+2.png", "deconv-second.png", "deconv-second+2.png"]
    assert [figure.file for figure in figures] == names
    assert ["Projections of conv1 on" in figure.explanation for figure in figures] == [True, False] * 2


@pytest.mark.parametrize(("max_values", "units"), [(1, (2, 2)), (3312, (2, 9)), (6624, (5, 18))])
def test_of_large_projections_the_first_units_are_drawn(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, max_values: int, units: tuple[int, int]
) -> None:
    """There are twice 5 and 18 projections of 3 x 8 x 6 values; the units of conv1 are in another order."""
    monkeypatch.setattr(projections_module, "MAX_VALUES", max_values)
    results = make_results()
    for projections in results.projections.values():
        projections["conv1@units"] = np.array([4, 3, 0, 1, 2])
    if max_values == 1:
        monkeypatch.setattr(projections_module, "groupby", lambda keys, key: [("", keys)])  # on one figure
    drawing = draw(results)["deconv", "first"]
    units_of_conv1 = [unit for label, unit, _ in drawing.tiles if label.startswith("conv1\nwhole")]
    assert units_of_conv1 == [4, 3, 0, 1, 2][: units[0]]
    assert len([unit for label, unit, _ in drawing.tiles if label.startswith("pool\nstrong")]) == units[1]
    assert ("Because of their size" in drawing.figure.explanation) == (units != (5, 18))
