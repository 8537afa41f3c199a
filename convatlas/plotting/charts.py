"""Plates that are charts: training, the confusion matrix, where the mask appears, layers without maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter

from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import ACCENT_COLOUR, LABEL_PIXELS, MUTED_COLOUR, make_chart_figure
from convatlas.plotting.montage import HAIRLINE, TEXT_COLOUR, text_width

ROW_LENGTHS = (100, 200, 500, 1000)  # values a line of a strip
PREFERRED_ROWS = 25  # of a strip, where that is to be had
MAX_LABELLED = 20  # values that are drawn as bars, classes whose counts are printed
GRID_COLOUR = np.divide(HAIRLINE, 255)
TEXT_RGB = np.divide(TEXT_COLOUR, 255)
BLUE, OCHRE = "#1f6a9a", "#a87a12"
# Told apart by those who confuse red and green too: lightness differs, not hue alone.
ROLE_COLOURS = ("#c9762f", "#2b5f86", "#8fb7d1", "#5d4f7a", "#d9bf55", "#8c3b2a", "#7f8a79", "#b9b0a0")


def plot_training_curves(history: Sequence[dict[str, Any]], checkpoint_epoch: int, caption: str) -> Figure:
    """Loss and accuracy over the epochs, on the images trained on and those held out; the mean IoU of the
    latter where the history has it, as for a network that segments.
    """
    epochs = [int(row["epoch"]) for row in history]
    segments = bool(history[0].get("validation_mean_iou"))
    titles = {"loss": "cross-entropy", "accuracy": "accuracy"}
    if segments:
        titles |= {"accuracy": "pixels that are right", "mean_iou": "mean IoU"}
    figure, chart = make_chart_figure(1900 if segments else 1500, 560, caption)
    for ax, what in zip(chart.subplots(1, len(titles)), titles, strict=True):
        for part, colour in (("train", MUTED_COLOUR), ("validation", ACCENT_COLOUR)):
            values = [float(row[f"{part}_{what}"]) for row in history if row.get(f"{part}_{what}")]
            if values:
                ax.plot(epochs, values, color=colour, label=part, marker="o" if len(epochs) == 1 else "")
        ax.axvline(checkpoint_epoch, color=GRID_COLOUR, linewidth=0.6, linestyle=":")
        ax.set(xlabel="epoch", title=titles[what])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False)
        if what == "loss":
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            ax.yaxis.set_major_formatter("{x:g}")  # matplotlib's own needs the text parsed as mathematics
            ax.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())
    chart.subplots_adjust(left=0.07, right=0.97, top=0.88, bottom=0.18, wspace=0.18)
    return figure


def plot_confusion_matrix(
    counts: np.ndarray, classes: Sequence[str], caption: str, per_cent: bool = False
) -> Figure:
    """The confusion matrix (classes, classes): rows true, columns predicted, shaded by the row's shares.

    Printed are the counts, or the shares `per_cent`, as for pixels, which are millions.
    """
    figure, chart = make_chart_figure(1200, 1000, caption)
    ax = chart.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shaded = ax.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    ax.set(xlabel="predicted", ylabel="true")
    few = len(classes) <= MAX_LABELLED
    if few:
        ax.set_xticks(range(len(classes)), classes)
        ax.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "black" if row == column else ACCENT_COLOUR
                colour = "white" if shares[row, column] > 0.5 else colour
                words = f"{100 * shares[row, column]:.1f} %" if per_cent else f"{count}"
                ax.text(column, row, words, ha="center", va="center", color=colour, fontsize=7)
    chart.colorbar(shaded, ax=ax, fraction=0.04, pad=0.03, label="share of the true class")
    left = max(0.06, (60 + max(text_width(name, LABEL_PIXELS) for name in classes)) / 1200) if few else 0.06
    chart.subplots_adjust(left=left, right=0.88, top=0.96, bottom=0.1)
    return figure


def plot_unit_bars(
    values: np.ndarray,
    names: Sequence[str],
    titles: Sequence[str],
    highlighted: Sequence[int | None],
    caption: str,
) -> Figure:
    """The few values of a layer as bars: `values` (images, units), one chart an image, one axis for all."""
    figure, axes = _make_stacked_axes(titles, 260, 0.5, caption)
    for ax, row, mark in zip(axes, values, highlighted, strict=True):
        colours = [ACCENT_COLOUR if unit == mark else MUTED_COLOUR for unit in range(len(row))]
        ax.bar(range(len(row)), row, color=colours, width=0.7)
        ax.axhline(0, color=GRID_COLOUR, linewidth=0.6)
        ax.set_xticks(range(len(row)), names)
        ax.tick_params(labelbottom=True)
        if mark is not None:
            ax.get_xticklabels()[mark].set(color=ACCENT_COLOUR, fontweight="bold")
    return figure


def plot_mask_emergence(masks: dict[str, Any], remark: dict[str, Any] | None, caption: str) -> Figure:
    """Over the ordinals of the convolutions: above, the agreement of each one's best map with the mask;
    below, fine detail; and under both the role of each. `masks` is masks.json, `remark` an ordinal and
    words about it.
    """
    layers = masks["layers"]
    figure, chart = make_chart_figure(1900, 1110, caption)
    agreement, detail, roles = chart.subplots(3, 1, sharex=True, height_ratios=[11, 8, 0.7])
    _plot_over_layers(
        agreement, layers, {"iou": ("best map", ACCENT_COLOUR, "o"), "chance_iou": ("chance", MUTED_COLOUR, "")}
    )
    share = masks["pet_share"]
    agreement.axhline(share, color=MUTED_COLOUR, linewidth=0.8, linestyle=(0, (4, 3)), label="all called pet")
    _plot_over_layers(
        detail,
        layers,
        {
            "high_frequency_share": (f"energy above\n{masks['cutoff_frequency']:g} cycles", BLUE, "s"),
            "edge_correlation": ("|r| with\nthe edges", OCHRE, "D"),
        },
    )
    detail.set_title("fine detail", loc="left")
    marks = []
    if masks["emergence"]:
        marks.append((masks["emergence"]["ordinal"], "the first at 90 % of the last one's IoU", "-"))
    if remark:
        marks.append((remark["ordinal"], remark["text"], ":"))
    for n, (ordinal, words, dashes) in enumerate(marks):
        _mark_layer(agreement, detail, ordinal, f"{ordinal}: {words}", 1.02 + 0.065 * n, dashes)
    agreement.set_title("agreement with the mask (IoU)", loc="left", pad=8 + 11 * len(marks))
    for ax in (agreement, detail):
        ax.set_ylim(0, 1)
        ax.grid(axis="y", color=GRID_COLOUR, linewidth=0.3, alpha=0.6)
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    _draw_roles(roles, layers)
    chart.subplots_adjust(left=0.045, right=0.855, top=0.895, bottom=0.145, hspace=0.22)
    return figure


def _plot_over_layers(ax: Axes, layers: list[dict[str, Any]], lines: dict[str, tuple[str, str, str]]) -> None:
    """Plot keys of the layers over their ordinals, each with its label, colour and marker."""
    ordinals = [layer["ordinal"] for layer in layers]
    for key, (label, colour, marker) in lines.items():
        values = [np.nan if layer[key] is None else layer[key] for layer in layers]
        ax.plot(ordinals, values, color=colour, label=label, marker=marker, markersize=3, linewidth=1.1)


def _mark_layer(above: Axes, below: Axes, ordinal: int, words: str, height: float, dashes: str) -> None:
    """Mark a layer through both charts, and say above them why."""
    for ax in (above, below):
        ax.axvline(ordinal, color=TEXT_RGB, linewidth=0.7, linestyle=dashes, zorder=0)
    low, high = above.get_xlim()
    right = ordinal > (low + high) / 2
    place = above.get_xaxis_transform()
    text = f"{words} ▾" if right else f"▾ {words}"
    above.text(ordinal, height, text, transform=place, ha="right" if right else "left", fontsize=7)


def _draw_roles(ax: Axes, layers: list[dict[str, Any]]) -> None:
    """A strip that tells what each convolution is for, with its legend below."""
    names = list(dict.fromkeys(layer["role"] or "other" for layer in layers))
    colours = {name: ROLE_COLOURS[n % len(ROLE_COLOURS)] for n, name in enumerate(names)}
    for layer in layers:
        corner, colour = (layer["ordinal"] - 0.5, 0), colours[layer["role"] or "other"]
        ax.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
    ax.set(ylim=(0, 1), yticks=[], xlabel="convolution, in the order in which they run")
    ax.set_xlim(layers[0]["ordinal"] - 0.8, layers[-1]["ordinal"] + 0.8)
    ax.spines[:].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(26, integer=True, min_n_ticks=2))
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in colours.values()]
    ax.legend(handles, names, frameon=False, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, -2.9),
              handlelength=1, handleheight=1, columnspacing=1.6)  # fmt: skip


def choose_row_length(count: int) -> int:
    """How many of a layer's values stand on a line of a strip."""
    return next((each for each in ROW_LENGTHS if count <= PREFERRED_ROWS * each), ROW_LENGTHS[-1])


def plot_unit_heatmaps(
    values: np.ndarray,
    titles: Sequence[str],
    scale: ColourScale,
    highlighted: Sequence[int | None],
    caption: str,
) -> Figure:
    """The many values of a layer as strips of cells: `values` (images, units), with a frame about the unit
    `marked` of each image.
    """
    width = choose_row_length(values.shape[1])
    lines = -(-values.shape[1] // width)
    tall = lines * max(4, min(26, 650 // lines))
    figure, axes = _make_stacked_axes(titles, tall + 80, 80 / tall, caption)
    padded = np.full((len(values), lines * width), np.nan)
    padded[:, : values.shape[1]] = values
    every = max(1, lines // 5)
    for ax, row, mark in zip(axes, padded.reshape(len(values), lines, width), highlighted, strict=True):
        shaded = ax.imshow(
            row, aspect="auto", cmap=scale.cmap, vmin=scale.low, vmax=scale.high, interpolation="nearest"
        )
        ax.set_yticks(range(0, lines, every), [str(width * line) for line in range(0, lines, every)])
        ax.set_ylabel("unit", fontsize=6.5)
        if mark is not None:
            corner = mark % width - 0.5, mark // width - 0.5
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.2, clip_on=False))
    bar = figure.colorbar(shaded, ax=list(axes), fraction=0.02, pad=0.02, label="activation")
    bar.outline.set_linewidth(0.6)
    return figure


def _make_stacked_axes(
    titles: Sequence[str], height: int, between: float, caption: str
) -> tuple[Figure, list[Axes]]:
    """Charts one below the other, one a title, each `height` pixels with its share of the room between."""
    total = height * len(titles) + 60
    figure, chart = make_chart_figure(1500, total, caption)
    axes = list(chart.subplots(len(titles), 1, squeeze=False, sharex=True, sharey=True)[:, 0])
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontsize=7)
    chart.subplots_adjust(left=0.085, right=0.9, top=1 - 60 / total, bottom=60 / total, hspace=between)
    return figure, axes
