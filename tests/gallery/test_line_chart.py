"""Line charts with axes: places, gaps, bands and ticks."""

import math

import pytest
from matplotlib.ticker import MaxNLocator

from convatlas.gallery.line_chart import Axis, Series, choose_ticks, draw_line_chart


def test_lines_break_at_missing_values_and_keep_their_places() -> None:
    line = Series("accuracy", [0.0, 1.0, None, math.nan, 0.5])
    chart = draw_line_chart([line], [0, 1, 2, 3, 4], Axis("epoch"), Axis("share", (0, 1)), "alt")
    assert chart.series[0].polylines == ["0.0,100.0 25.0,0.0", "100.0,50.0"]
    assert [point.text for point in chart.series[0].points] == [
        "accuracy, epoch 0: 0",
        "accuracy, epoch 1: 1",
        "accuracy, epoch 4: 0.5",
    ]


def test_a_band_runs_along_its_lower_edge_and_back_along_the_upper() -> None:
    line = Series("mean", [1, 2], low=[0, 1], high=[2, 3])
    chart = draw_line_chart([line], [0, 1], Axis("x"), Axis("y", (0, 4)), "alt")
    assert chart.series[0].bands == ["0.0,100.0 100.0,75.0 100.0,25.0 0.0,50.0"]


def test_controls_are_drawn_first_and_listed_in_their_order() -> None:
    lines = [Series("line", [1, 2]), Series("control", [1, 1], dashed=True), Series("", [0, 1], thin=True)]
    chart = draw_line_chart(lines, [0, 1], Axis("x"), Axis("y"), "alt")
    assert [line.series.label for line in chart.series] == ["", "control", "line"]
    assert [line.label for line in chart.legend] == ["line", "control"]


@pytest.mark.parametrize("limits", [(0, 1), (-3, 2900), (0.2, 0.21), (17, 93), (0, 7e-5), (-1, 1)])
def test_ticks_are_those_of_matplotlib(limits: tuple[float, float]) -> None:
    locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    ticks, margin = locator.tick_values(*limits), 1e-9 * (limits[1] - limits[0])
    expected = [tick for tick in ticks if limits[0] - margin <= tick <= limits[1] + margin]
    assert choose_ticks(*limits) == pytest.approx(expected)


def test_a_constant_or_empty_chart_has_an_axis() -> None:
    chart = draw_line_chart([Series("x", [2, 2])], [0, 1], Axis("x"), Axis("y"), "alt")
    assert chart.series[0].polylines == ["0.0,50.0 100.0,50.0"]
    empty = draw_line_chart([Series("x", [None])], [0], Axis("x"), Axis("y"), "alt")
    assert empty.series[0].polylines == []
