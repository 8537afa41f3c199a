"""The chart of where segmentation emerges: what is measured of each convolution, with its chance level."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from convatlas.plotting.charts import BLUE, GRID_COLOUR, OCHRE
from convatlas.plotting.labelled_figure import ACCENT_COLOUR, MUTED_COLOUR, TEXT_RGB, make_chart_figure
from convatlas.records import SegmentationAnalysis, SegmentationLayer

# Lightness differs, not hue alone, so that the colours differ for colour-blind readers too.
ROLE_COLOURS = ("#c9762f", "#2b5f86", "#8fb7d1", "#5d4f7a", "#d9bf55", "#8c3b2a", "#7f8a79", "#b9b0a0")


class Remark(NamedTuple):
    """A remark at a convolution."""

    ordinal: int
    text: str


class _Curve(NamedTuple):
    """A curve over the layers: the key of its values in masks.json, and its look."""

    key: Literal["chance_iou", "high_frequency_share", "edge_correlation"]
    label: str
    colour: str
    marker: str


def plot_mask_emergence(analysis: SegmentationAnalysis, remark: Remark | None, caption: str) -> Figure:
    """Return how well each convolution segments, and how much fine detail it has, over their ordinals.

    Args:
        analysis: masks.json.
        remark: A remark at a convolution.
        caption: The caption.
    """
    layers, emergence = analysis["layers"], analysis["emergence"]
    figure, chart = make_chart_figure(1900, 1110, caption)
    axes = chart.subplots(3, 1, squeeze=False, sharex=True, height_ratios=[11, 8, 0.7])
    agreement, detail, roles = axes[:, 0]
    _plot_ious(agreement, layers)
    _plot_curve(agreement, layers, _Curve("chance_iou", "shuffled masks", MUTED_COLOUR, ""))
    share = analysis["pet_share"]
    agreement.axhline(
        share, color=MUTED_COLOUR, linewidth=0.8, linestyle=(0, (4, 3)), label="all-pet baseline"
    )
    cutoff = analysis["cutoff_frequency"]
    _plot_curve(detail, layers, _Curve("high_frequency_share", f"energy above\n{cutoff:g} cycles", BLUE, "s"))
    _plot_curve(detail, layers, _Curve("edge_correlation", "|r| with\nthe edges", OCHRE, "D"))
    detail.set_title("fine detail", loc="left")
    remarks = []
    if emergence:
        remarks.append((Remark(emergence["ordinal"], "first at 90 % of the last layer's IoU"), "-"))
    if remark:
        remarks.append((remark, ":"))
    for n, (mark, linestyle) in enumerate(remarks):
        _mark_layer(agreement, detail, mark, 1.02 + 0.065 * n, linestyle)
    agreement.set_title("agreement with the mask (IoU)", loc="left", pad=8 + 11 * len(remarks))
    for ax in (agreement, detail):
        ax.set_ylim(0, 1)
        ax.grid(axis="y", color=GRID_COLOUR, linewidth=0.3, alpha=0.6)
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    _draw_roles(roles, layers)
    chart.subplots_adjust(left=0.045, right=0.855, top=0.895, bottom=0.145, hspace=0.22)
    return figure


def _plot_ious(ax: Axes, layers: Sequence[SegmentationLayer]) -> None:
    """Plot the IoU of each layer with its interval, filled where above chance, and the band of its chance."""
    ordinals = [layer["ordinal"] for layer in layers]
    ious = np.array([layer["iou"] for layer in layers])
    low, high = np.array([[layer["chance"]["low"], layer["chance"]["high"]] for layer in layers]).T
    # Steps, so that a single layer has a band too.
    edges = np.array([[ordinal - 0.5, ordinal + 0.5] for ordinal in ordinals]).ravel()
    band = low.repeat(2), high.repeat(2)
    ax.fill_between(edges, *band, color=MUTED_COLOUR, alpha=0.25, linewidth=0, label="chance")
    ax.plot(ordinals, ious, color=ACCENT_COLOUR, linewidth=1.1)
    intervals = np.array([layer["interval"] for layer in layers]).T
    ax.vlines(ordinals, *intervals, color=ACCENT_COLOUR, linewidth=0.6)
    is_above = np.array([layer["above_chance"] for layer in layers])
    for selected, face, label in (
        (is_above, ACCENT_COLOUR, "best map"),
        (~is_above, "white", "best map, not\nabove chance"),
    ):
        if selected.any():
            points = np.array(ordinals)[selected], ious[selected]
            (markers,) = ax.plot(*points, color=ACCENT_COLOUR, marker="o", linestyle="", label=label)
            markers.set(markerfacecolor=face, markersize=3.5)


def _plot_curve(ax: Axes, layers: Sequence[SegmentationLayer], curve: _Curve) -> None:
    """Plot a value of the layers over their ordinals."""
    ax.plot(
        [layer["ordinal"] for layer in layers],
        [layer[curve.key] for layer in layers],
        color=curve.colour,
        label=curve.label,
        marker=curve.marker,
        markersize=3,
        linewidth=1.1,
    )


def _mark_layer(upper: Axes, lower: Axes, remark: Remark, height: float, linestyle: str) -> None:
    """Mark a layer by a line through both charts, with a text above them."""
    for ax in (upper, lower):
        ax.axvline(remark.ordinal, color=TEXT_RGB, linewidth=0.7, linestyle=linestyle, zorder=0)
    low, high = upper.get_xlim()
    is_right = remark.ordinal > (low + high) / 2
    label = f"{remark.ordinal}: {remark.text}"
    text = f"{label} ▾" if is_right else f"▾ {label}"
    transform, alignment = upper.get_xaxis_transform(), "right" if is_right else "left"
    upper.text(remark.ordinal, height, text, transform=transform, ha=alignment, fontsize=7)


def _draw_roles(ax: Axes, layers: Sequence[SegmentationLayer]) -> None:
    """Draw a strip with the role of each convolution, and its legend below."""
    names = list(dict.fromkeys(layer["role"] or "other" for layer in layers))
    colours = {name: ROLE_COLOURS[n % len(ROLE_COLOURS)] for n, name in enumerate(names)}
    for layer in layers:
        corner, colour = (layer["ordinal"] - 0.5, 0), colours[layer["role"] or "other"]
        ax.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
    ax.set(ylim=(0, 1), yticks=[], xlabel="convolution, in execution order")
    ax.set_xlim(layers[0]["ordinal"] - 0.8, layers[-1]["ordinal"] + 0.8)
    ax.spines[:].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(26, integer=True, min_n_ticks=2))
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in colours.values()]
    ax.legend(
        handles,
        names,
        frameon=False,
        ncols=len(names),
        loc="upper center",
        bbox_to_anchor=(0.5, -2.9),
        handlelength=1,
        handleheight=1,
        columnspacing=1.6,
    )
