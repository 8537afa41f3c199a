"""Plates that are charts: training curves, the confusion matrix, layers without spatial axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from convatlas.montage import HAIRLINE
from convatlas.plates import ACCENT, QUIET, chart_plate
from convatlas.scales import Scale

ACROSS = (100, 200, 500, 1000)  # values a line of a strip
LINES = 25  # of a strip, where that is to be had
FEW = 20  # values that are drawn as bars, classes whose counts are printed
FAINT = np.divide(HAIRLINE, 255)


def curves(history: Sequence[dict[str, Any]], kept: int, caption: str) -> Figure:
    """Loss and accuracy over the epochs, on the images trained on and those held out."""
    epochs = [int(row["epoch"]) for row in history]
    figure, chart = chart_plate(1500, 560, caption)
    for ax, what in zip(chart.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, colour in (("train", QUIET), ("validation", ACCENT)):
            values = [float(row[f"{part}_{what}"]) for row in history]
            ax.plot(epochs, values, color=colour, label=part, marker="o" if len(epochs) == 1 else "")
        ax.axvline(kept, color=FAINT, linewidth=0.6, linestyle=":")
        ax.set(xlabel="epoch", title="cross-entropy" if what == "loss" else "accuracy")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False)
        if what == "loss":
            ax.set_yscale("log")
    chart.subplots_adjust(left=0.07, right=0.97, top=0.88, bottom=0.18, wspace=0.18)
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str], caption: str) -> Figure:
    """The confusion matrix (classes, classes): rows true, columns predicted, shaded by the row's shares."""
    figure, chart = chart_plate(1200, 1000, caption)
    ax = chart.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shaded = ax.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    ax.set(xlabel="predicted", ylabel="true")
    if len(classes) <= FEW:
        ax.set_xticks(range(len(classes)), classes)
        ax.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                right = "white" if shares[row, column] > 0.5 else "black"
                colour = right if row == column else ACCENT
                ax.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)
    chart.colorbar(shaded, ax=ax, fraction=0.04, pad=0.03, label="share of the true class")
    chart.subplots_adjust(left=0.06, right=0.88, top=0.96, bottom=0.1)
    return figure


def bars(
    values: np.ndarray,
    names: Sequence[str],
    titles: Sequence[str],
    marked: Sequence[int | None],
    caption: str,
) -> Figure:
    """The few values of a layer as bars: `values` (images, units), one chart an image, one axis for all."""
    figure, axes = _stacked(titles, 260, 0.5, caption)
    for ax, row, mark in zip(axes, values, marked, strict=True):
        colours = [ACCENT if unit == mark else QUIET for unit in range(len(row))]
        ax.bar(range(len(row)), row, color=colours, width=0.7)
        ax.axhline(0, color=FAINT, linewidth=0.6)
        ax.set_xticks(range(len(row)), names)
        ax.tick_params(labelbottom=True)
        if mark is not None:
            ax.get_xticklabels()[mark].set(color=ACCENT, fontweight="bold")
    return figure


def across(count: int) -> int:
    """How many of a layer's values stand on a line of a strip."""
    return next((each for each in ACROSS if count <= LINES * each), ACROSS[-1])


def strips(
    values: np.ndarray, titles: Sequence[str], scale: Scale, marked: Sequence[int | None], caption: str
) -> Figure:
    """The many values of a layer as strips of cells: `values` (images, units), with a frame about the unit
    `marked` of each image.
    """
    width = across(values.shape[1])
    lines = -(-values.shape[1] // width)
    tall = lines * max(4, min(26, 650 // lines))
    figure, axes = _stacked(titles, tall + 80, 80 / tall, caption)
    padded = np.full((len(values), lines * width), np.nan)
    padded[:, : values.shape[1]] = values
    every = max(1, lines // 5)
    for ax, row, mark in zip(axes, padded.reshape(len(values), lines, width), marked, strict=True):
        shaded = ax.imshow(
            row, aspect="auto", cmap=scale.colours, vmin=scale.low, vmax=scale.high, interpolation="nearest"
        )
        ax.set_yticks(range(0, lines, every), [str(width * line) for line in range(0, lines, every)])
        ax.set_ylabel("unit", fontsize=6.5)
        if mark is not None:
            corner = mark % width - 0.5, mark // width - 0.5
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.2, clip_on=False))
    bar = figure.colorbar(shaded, ax=list(axes), fraction=0.02, pad=0.02, label="activation")
    bar.outline.set_linewidth(0.6)
    return figure


def _stacked(titles: Sequence[str], height: int, between: float, caption: str) -> tuple[Figure, list[Axes]]:
    """Charts one below the other, one a title, each `height` pixels with its share of the room between."""
    total = height * len(titles) + 60
    figure, chart = chart_plate(1500, total, caption)
    axes = list(chart.subplots(len(titles), 1, squeeze=False, sharex=True, sharey=True)[:, 0])
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontsize=7)
    chart.subplots_adjust(left=0.085, right=0.9, top=1 - 60 / total, bottom=60 / total, hspace=between)
    return figure, axes
