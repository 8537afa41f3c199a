"""Charts: the curves, bars and heat maps show the values."""

import re

import numpy as np
import pytest

from convatlas.plotting import charts
from convatlas.plotting.colormap import INFINITE_COLOUR, NAN_COLOUR, ColourScale
from convatlas.plotting.labelled_figure import figure_style
from convatlas.records import HistoryRow
from tests.support.fake_results import CLASSES

HISTORY: list[HistoryRow] = [
    {
        "epoch": epoch,
        "lr": 0.1,
        "train_loss": 2.0 / epoch,
        "train_accuracy": 0.5,
        "validation_loss": 2.1 / epoch,
        "validation_accuracy": 0.4,
    }
    for epoch in (1, 2)
]


def test_the_training_curves_have_the_mean_iou_where_the_history_has_it() -> None:
    rows: list[HistoryRow] = [row | {"validation_mean_iou": 0.3 * row["epoch"]} for row in HISTORY]
    with figure_style():
        axes = charts.plot_training_curves(rows, 2, "").subfigs[0].axes
    assert [ax.get_title() for ax in axes] == ["cross-entropy", "pixel accuracy", "mean IoU"]
    (line,) = [line for line in axes[2].get_lines() if line.get_label() == "validation"]
    np.testing.assert_array_equal(line.get_ydata(), [0.3, 0.6])
    with figure_style():
        axes = charts.plot_training_curves(HISTORY, 2, "").subfigs[0].axes
    assert [ax.get_title() for ax in axes] == ["cross-entropy", "accuracy"]


def test_a_mean_iou_of_zero_is_drawn_and_missing_values_are_not() -> None:
    rows: list[HistoryRow] = [row | {"validation_mean_iou": 0.0, "validation_loss": None} for row in HISTORY]
    with figure_style():
        axes = charts.plot_training_curves(rows, 2, "").subfigs[0].axes
    lines = [[line.get_label() for line in ax.get_lines()] for ax in axes]
    assert len(axes) == 3 and "validation" in lines[2] and "validation" not in lines[0]


def test_the_axis_of_the_loss_has_plain_numbers() -> None:
    """Below a decade matplotlib would label the axis with mathtext, which is off."""
    with figure_style():
        figure = charts.plot_training_curves(HISTORY, 2, "")
        figure.canvas.draw()
    axis = figure.subfigs[0].axes[0].yaxis
    texts = [label.get_text() for label in [*axis.get_majorticklabels(), *axis.get_minorticklabels()]]
    assert all(re.fullmatch(r"[\d.]*", text) for text in texts) and "2" in texts


def test_the_confusion_of_pixels_is_in_per_cent() -> None:
    counts = np.array([[70000, 20000, 10000], [9000, 300000, 1000], [12000, 6000, 2000]])
    with figure_style():
        ax = charts.plot_confusion_matrix(counts, CLASSES[:3], "", True).subfigs[0].axes[0]
    assert [text.get_text() for text in ax.texts[:3]] == ["70.0 %", "20.0 %", "10.0 %"]


def test_strips_hold_each_value_once_and_in_order() -> None:
    values = np.random.default_rng(0).normal(size=(2, 216))
    figure = charts.plot_unit_heatmaps(
        values, ["a", "b"], ColourScale.from_values(values), [[101], []], "A caption."
    )
    shown = [ax.images[0].get_array() for part in figure.subfigs for ax in part.axes if ax.get_title("left")]
    for row, image in zip(values, shown, strict=True):
        assert image.shape == (3, 100)
        np.testing.assert_array_equal(np.ma.filled(image, np.nan).ravel()[:216], row)
        assert np.ma.getmaskarray(np.ma.masked_invalid(image)).sum() == 300 - 216
    frames = [ax.patches for part in figure.subfigs for ax in part.axes if ax.get_title("left")]
    assert [frame.get_xy() for frame in frames[0]] == [(0.5, 0.5)] and not frames[1]  # line 1, place 1


def test_charts_of_values_mark_nan_and_infinity() -> None:
    values = np.array([[1, np.nan, -np.inf, 2, np.inf]])
    figure = charts.plot_unit_bars(values, list("abcde"), [""], [[]], "A caption.")
    (axes,) = [ax for part in figure.subfigs for ax in part.axes]
    assert [bar.get_height() for bar in axes.patches] == [1, 0, 0, 2, 0]
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [
        ("NaN", (1, 0)),
        ("−∞", (2, 0)),
        ("∞", (4, 0)),
    ]
    many = np.tile(values, 41)
    figure = charts.plot_unit_heatmaps(many, [""], ColourScale.from_values(many), [[]], "A caption.")
    marks = figure.subfigs[0].axes[0].images[1].get_array().reshape(-1, 4)
    is_marked = np.append(~np.isfinite(many[0]), np.zeros(len(marks) - 205, bool))
    np.testing.assert_array_equal(marks[:, 3] == 255, is_marked)
    assert tuple(marks[1, :3]) == NAN_COLOUR and tuple(marks[2, :3]) == INFINITE_COLOUR


@pytest.mark.parametrize(
    ("count", "width"), [(21, 100), (2500, 100), (4096, 200), (25088, 1000), (10**6, 1000)]
)
def test_strips_of_many_values_stay_within_a_page(count: int, width: int) -> None:
    """VGG flattens to 25,088."""
    figure = charts.plot_unit_heatmaps(np.zeros((1, count)), ["a"], ColourScale(0, 1, "gray"), [[]], "")
    assert charts.choose_row_length(count) == width
    assert figure.get_size_inches()[1] * figure.dpi < (1000 if count < 10**6 else 5000)


def test_bars_are_as_high_as_the_values() -> None:
    values = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]])
    figure = charts.plot_unit_bars(values, CLASSES[:3], ["a", "b"], [[2], []], "A caption.")
    axes = [ax for part in figure.subfigs for ax in part.axes]
    np.testing.assert_array_equal([[bar.get_height() for bar in ax.patches] for ax in axes], values)
    assert [label.get_text() for label in axes[0].get_xticklabels()] == CLASSES[:3]
    colours = [[bar.get_facecolor() for bar in ax.patches] for ax in axes]
    assert colours[0][2] not in colours[0][:2] and len(set(colours[1])) == 1
    assert axes[0].get_ylim() == axes[1].get_ylim()
