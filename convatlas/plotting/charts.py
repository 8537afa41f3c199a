"""Charts: training curves, confusion matrix, and values of a layer."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter

from convatlas.names import format_number
from convatlas.plotting.colormap import (
    INFINITE_COLOUR,
    NAN_COLOUR,
    ColourScale,
    find_non_finite,
    mark_non_finite,
)
from convatlas.plotting.labelled_figure import (
    ACCENT_COLOUR,
    HAIRLINE_RGB,
    LABEL_PIXELS,
    MUTED_COLOUR,
    make_chart_figure,
)
from convatlas.plotting.montage import make_drawable, text_width
from convatlas.records import HistoryRow

ROW_LENGTHS = (100, 200, 500, 1000)  # values in a row of a heat map
PREFERRED_ROWS = 25  # rows of a heat map at most, where a row length allows it
MAX_LABELLED = 20  # values that are drawn as bars, and classes whose counts are printed, at most
GRID_COLOUR = HAIRLINE_RGB
BLUE, OCHRE = "#1f6a9a", "#a87a12"


def plot_training_curves(history: Sequence[HistoryRow], checkpoint_epoch: int, caption: str) -> Figure:
    """Return the loss, the accuracy and, of a segmentation network, the mean IoU over the epochs.

    Args:
        history: A row per epoch; metrics that are missing are not drawn.
        checkpoint_epoch: The epoch whose weights were kept, marked by a line.
        caption: The caption.
    """
    epochs = [row["epoch"] for row in history]
    is_segmentation = history[0].get("validation_mean_iou") is not None
    titles = {"loss": "cross-entropy", "accuracy": "accuracy"}
    if is_segmentation:
        titles |= {"accuracy": "pixel accuracy", "mean_iou": "mean IoU"}
    figure, chart = make_chart_figure(1900 if is_segmentation else 1500, 560, caption)
    axes = chart.subplots(1, len(titles), squeeze=False)[0]
    for ax, metric in zip(axes, titles, strict=True):
        for split, colour in (("train", MUTED_COLOUR), ("validation", ACCENT_COLOUR)):
            values = _list_values(history, f"{split}_{metric}")
            if values:
                ax.plot(epochs, values, color=colour, label=split, marker="o" if len(epochs) == 1 else "")
        ax.axvline(checkpoint_epoch, color=GRID_COLOUR, linewidth=0.6, linestyle=":")
        ax.set(xlabel="epoch", title=titles[metric])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False)
        if metric == "loss":
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            ax.yaxis.set_major_formatter("{x:g}")  # the default formatter needs mathtext, which is off
            ax.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())
    chart.subplots_adjust(left=0.07, right=0.97, top=0.88, bottom=0.18, wspace=0.18)
    return figure


def _list_values(history: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Return a column of the history without missing values."""
    return [row[key] for row in history if row.get(key) is not None]


def plot_confusion_matrix(
    counts: np.ndarray, classes: Sequence[str], caption: str, per_cent: bool = False
) -> Figure:
    """Return the confusion matrix, shaded by the shares of each row.

    Args:
        counts: (classes, classes); rows are the true class, columns the predicted.
        classes: Their names.
        caption: The caption.
        per_cent: Whether to print shares of the row instead of counts, as for pixels.
    """
    figure, chart = make_chart_figure(1200, 1000, caption)
    ax = chart.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = ax.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    ax.set(xlabel="predicted", ylabel="true")
    left = 0.06
    if len(classes) <= MAX_LABELLED:
        left = max(left, (60 + max(text_width(name, LABEL_PIXELS) for name in classes)) / 1200)
        names = [make_drawable(name) for name in classes]
        ax.set_xticks(range(len(classes)), names)
        ax.set_yticks(range(len(classes)), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "black" if row == column else ACCENT_COLOUR
                colour = "white" if shares[row, column] > 0.5 else colour
                text = f"{100 * shares[row, column]:.1f} %" if per_cent else f"{count}"
                ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    chart.colorbar(image, ax=ax, fraction=0.04, pad=0.03, label="share of the true class")
    chart.subplots_adjust(left=left, right=0.88, top=0.96, bottom=0.1)
    return figure


def plot_unit_bars(
    values: np.ndarray,
    names: Sequence[str],
    titles: Sequence[str],
    highlighted: Sequence[Collection[int]],
    caption: str,
) -> Figure:
    """Return the few values of a layer as bars: one chart per image, with one axis for all.

    Args:
        values: (images, units).
        names: The name of each unit.
        titles: The title of each chart.
        highlighted: The units of each image that are coloured.
        caption: The caption.
    """
    figure, axes = _make_stacked_axes(titles, 260, 0.5, caption)
    for ax, row, units in zip(axes, values, highlighted, strict=True):
        colours = [ACCENT_COLOUR if n in units else MUTED_COLOUR for n in range(len(row))]
        finite = np.isfinite(row)
        ax.bar(range(len(row)), np.where(finite, row, 0), color=colours, width=0.7)
        for n in np.flatnonzero(~finite).tolist():
            colour = np.divide(NAN_COLOUR if np.isnan(row[n]) else INFINITE_COLOUR, 255)
            ax.text(n, 0, format_number(row[n]), color=colour, ha="center", va="bottom", fontweight="bold")
        ax.axhline(0, color=GRID_COLOUR, linewidth=0.6)
        ax.set_xticks(range(len(row)), [make_drawable(name) for name in names])
        ax.tick_params(labelbottom=True)
        for unit in units:
            ax.get_xticklabels()[unit].set(color=ACCENT_COLOUR, fontweight="bold")
    return figure


def choose_row_length(count: int) -> int:
    """Return how many of a layer's values stand in a row of a heat map.

    Args:
        count: The number of values.

    Returns:
        The smallest of ROW_LENGTHS that needs at most PREFERRED_ROWS rows, or else the largest.
    """
    return next((length for length in ROW_LENGTHS if count <= PREFERRED_ROWS * length), ROW_LENGTHS[-1])


def plot_unit_heatmaps(
    values: np.ndarray,
    titles: Sequence[str],
    scale: ColourScale,
    highlighted: Sequence[Collection[int]],
    caption: str,
) -> Figure:
    """Return the many values of a layer as heat maps, one per image.

    Args:
        values: (images, units).
        titles: The title of each heat map.
        scale: The colour scale of all.
        highlighted: The units of each image that are framed.
        caption: The caption.
    """
    length = choose_row_length(values.shape[1])
    rows = -(-values.shape[1] // length)
    height = rows * max(4, min(26, 650 // rows))
    figure, axes = _make_stacked_axes(titles, height + 80, 80 / height, caption)
    padded = np.full((len(values), rows * length), np.nan)
    padded[:, : values.shape[1]] = values
    ticks = range(0, rows, max(1, rows // 5))
    for ax, cells, units in zip(axes, padded.reshape(len(values), rows, length), highlighted, strict=True):
        image = ax.imshow(
            cells, aspect="auto", cmap=scale.cmap, vmin=scale.low, vmax=scale.high, interpolation="nearest"
        )
        if find_non_finite(values):
            ax.imshow(_colour_non_finite(cells, values.shape[1]), aspect="auto", interpolation="nearest")
        ax.set_yticks(ticks, [str(length * row) for row in ticks])
        ax.set_ylabel("unit", fontsize=6.5)
        for unit in units:
            corner = unit % length - 0.5, unit // length - 0.5
            frame = Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.2, clip_on=False)
            ax.add_patch(frame)
    bar = figure.colorbar(image, ax=axes, fraction=0.02, pad=0.02, label="activation")
    bar.outline.set_linewidth(0.6)
    return figure


def _colour_non_finite(cells: np.ndarray, count: int) -> npt.NDArray[np.uint8]:
    """Return the colours (rows, columns, 4) of NaN and infinity; transparent elsewhere, and after `count`."""
    pixels = np.zeros((*cells.shape, 4), np.uint8)
    is_shown = np.arange(cells.size).reshape(cells.shape) < count
    pixels[..., :3] = mark_non_finite(pixels[..., :3].copy(), cells)
    pixels[..., 3] = 255 * (~np.isfinite(cells) & is_shown)
    return pixels


def _make_stacked_axes(
    titles: Sequence[str], height: int, spacing: float, caption: str
) -> tuple[Figure, list[Axes]]:
    """Return charts one below the other, `height` pixels each, `spacing` of it between them."""
    total = height * len(titles) + 60
    figure, chart = make_chart_figure(1500, total, caption)
    axes = list(chart.subplots(len(titles), 1, squeeze=False, sharex=True, sharey=True)[:, 0])
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontsize=7)
    chart.subplots_adjust(left=0.085, right=0.9, top=1 - 60 / total, bottom=60 / total, hspace=spacing)
    return figure, axes
