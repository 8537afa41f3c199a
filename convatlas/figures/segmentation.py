"""Figures of segmentation: what a network segments, and in which layers segmentation emerges."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from convatlas.figures.context import CaptionedFigure, FigureContext
from convatlas.figures.tiles import MontageOptions, count_tiles_per_row, split_into_chunks
from convatlas.names import format_shape, join_names
from convatlas.plotting import charts
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import (
    ACCENT_COLOUR,
    BACKGROUND_RGB,
    COLOUR_BAR_COLUMN_WIDTH,
    HAIRLINE_RGB,
    SMALL_POINTS,
    TOP_MARGIN,
)
from convatlas.plotting.montage import TILE_SIZE, Tile, TileRow
from convatlas.records import SegmentationAnalysis, SegmentationExample, SegmentationLayer

PET, BACKGROUND, BORDER = 0, 1, 2  # the classes of a trimap, as in masks/examples.npz
CLASS_COLOURS = {"pet": "#1f6a9a", "background": "#e3dccb", "border": "#e3a72f"}
# Correct pixels are pale, a little darker on the pet, so that its shape is visible.
DIFFERENCE_COLOURS = {
    "correct": "#efe9dc",
    "correct, pet": "#cfc7b6",
    "missed pet": "#9c2f1a",
    "false pet": "#1f6a9a",
    "at the border": "#e3a72f",
}
N_DEFAULT_LAYERS = 8  # layers whose best maps are drawn where the views highlight none
MAX_SEPARATING_UNITS = 8
MAX_IMAGES = 3  # images on which the separating units are drawn
FADE_FRACTION = 0.82  # how far what lies outside a mask is faded to the background colour


class SeparatingUnit(NamedTuple):
    """A unit that separates pet from background."""

    layer: SegmentationLayer
    unit: int
    auc: float  # area under the ROC curve


def draw_segmentation_figures(context: FigureContext) -> Iterator[CaptionedFigure]:
    """Draw the figures of the segmentation analysis, if there is one."""
    analysis = context.results.segmentation
    if analysis is None:
        return
    if analysis["examples"]:
        yield _draw_examples(context, analysis)
    if analysis["layers"]:
        yield _draw_mask_emergence(context, analysis)
    if context.images:
        if layers := _select_layers(context, analysis["layers"]):
            yield _draw_best_maps(context, context.images[0]["name"], layers)
        if units := _select_separating_units(context, analysis["layers"]):
            yield _draw_separating_units(context, units)


# What is segmented


def _draw_examples(context: FigureContext, analysis: SegmentationAnalysis) -> CaptionedFigure:
    """Draw an example per row: photograph, ground truth, prediction and difference."""
    arrays, examples = context.results.segmentation_examples, analysis["examples"]
    photographs, truths, predictions = (arrays[key] for key in ("photograph", "truth", "prediction"))
    rows: list[TileRow] = []
    for n in range(len(examples)):
        difference = classify_differences(truths[n], predictions[n])
        pictures = {
            "photograph": photographs[n] / 255,
            "ground truth": colour_classes(truths[n], CLASS_COLOURS),
            "prediction": colour_classes(predictions[n], CLASS_COLOURS),
            "difference": colour_classes(difference, DIFFERENCE_COLOURS),
        }
        rows.append([Tile(values, title=title) for title, values in pictures.items()])
    labels = [_format_example_label(example) for example in examples]
    text = (
        f"Segmentation of {len(examples)} test images: photograph, ground truth, prediction and difference, "
        f"at the input size of {format_shape(analysis['size'])} pixels. Rows: the first test image, and the "
        "best, the median and the worst by the IoU of the pet (intersection over union: 1 is perfect); "
        "beside each the IoU of every class. Difference: correct pixels are pale; a pixel is at the border "
        "where only one of ground truth and prediction is border."
    )
    options = MontageOptions(tile_size=3 * TILE_SIZE)
    figure = context.make_montage("segmentation", "", rows, labels, [], text, options)
    _draw_legends(figure.figure)
    return figure


def colour_classes(classes: npt.NDArray[np.integer], colours: Mapping[str, str]) -> npt.NDArray[np.float64]:
    """Return the colours of classes (H, W), which number the entries of `colours`: (H, W, 3) in 0..1."""
    pixels: npt.NDArray[np.float64] = np.array([to_rgb(colour) for colour in colours.values()])[classes]
    return pixels


def classify_differences(
    truth: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Return how a prediction of classes (H, W) differs from the truth.

    Returns:
        (H, W), numbers of the entries of DIFFERENCE_COLOURS.

    """
    differences = np.where(truth == PET, 1, 0)
    differences[(truth == PET) & (prediction == BACKGROUND)] = 2
    differences[(truth == BACKGROUND) & (prediction == PET)] = 3
    differences[(truth != prediction) & ((truth == BORDER) | (prediction == BORDER))] = 4
    return differences


def _format_example_label(example: SegmentationExample) -> str:
    """Return the label of an example; a class absent from truth and prediction has no IoU."""
    rows = [f"{name} {'–' if iou is None else f'{iou:.2f}'}" for name, iou in example["iou"].items()]
    return "\n".join([example["rank"], example["name"], "", "IoU", *rows, f"mean {example['mean_iou']:.2f}"])


def _draw_legends(figure: Figure) -> None:
    """Draw the legends right of a montage, in the column of colour bars."""
    width, height = figure.get_size_inches() * figure.dpi
    for title, colours, offset in (("class", CLASS_COLOURS, 0), ("difference", DIFFERENCE_COLOURS, 190)):
        handles = [
            Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor=HAIRLINE_RGB, linewidth=0.4)
            for colour in colours.values()
        ]
        anchor = 1 - (COLOUR_BAR_COLUMN_WIDTH - 4) / width, 1 - (TOP_MARGIN + 18 + offset) / height
        figure.legend(
            handles,
            list(colours),
            title=title,
            loc="upper left",
            bbox_to_anchor=anchor,
            frameon=False,
            fontsize=SMALL_POINTS,
            title_fontsize=SMALL_POINTS,
            alignment="left",
            borderpad=0,
            borderaxespad=0,
            handlelength=1.2,
            handleheight=1.2,
            handletextpad=0.6,
        )


# Where segmentation emerges


def _draw_mask_emergence(context: FigureContext, analysis: SegmentationAnalysis) -> CaptionedFigure:
    """Draw the agreement with the mask and the fine detail of each convolution, in execution order."""
    images, layers, emergence = analysis["images"], analysis["layers"], analysis["emergence"]
    cutoff = analysis["cutoff_frequency"]
    text = (
        f"Where segmentation emerges in {len(layers)} convolutions. Above: IoU of the best thresholded "
        f"feature map with the mask of the pet, over {images['test']:,} test images (unit and threshold "
        f"chosen on {images['train']:,} training images). Chance: the same search on masks shuffled between "
        f"images. All-pet baseline: {analysis['pet_share']:.2f}."
    )
    if emergence and analysis["final"]:
        text += (
            f" {emergence['layer']} ({emergence['ordinal']}) is the first to reach 90 % of the last layer's "
            f"{analysis['final']['iou']:.2f}."
        )
    text += (
        f" Below: share of the spectral energy above {cutoff:g} cycles per image, which maps of at most "
        f"{2 * cutoff:g} pixels cannot hold, and the largest correlation |r| of a feature map with the "
        "image's edges (Sobel)."
    )
    remark = None
    configured = context.views.get("remark")
    if configured and configured["ordinal"] <= layers[-1]["ordinal"]:
        remark = charts.Remark(configured["ordinal"], configured["text"])
        text += f" Layer {remark.ordinal}: {remark.text}."
    caption = context.make_caption(text)
    figure = charts.plot_mask_emergence(analysis, remark, caption)
    return context.make_figure("mask", "", caption, figure)


def _draw_best_maps(
    context: FigureContext, image: str, layers: Sequence[SegmentationLayer]
) -> CaptionedFigure:
    """Draw the best map of each layer on one image, and below it the image within its thresholded mask."""
    input_tile, tile_size = context.make_input_tile(image), context.labelled_tile_size
    rows: list[TileRow] = []
    labels = []
    for n, chunk in enumerate(split_into_chunks(layers, count_tiles_per_row(tile_size))):
        maps: TileRow = [input_tile if n == 0 else None]
        masked: TileRow = [None]
        for layer in chunk:
            values = context.activations(image)[layer["name"]][layer["unit"]]
            maps.append(_make_unit_tile(layer, values, layer["unit"], f"IoU {layer['iou']:.2f}"))
            factor = tile_size // context.input_size
            masked.append(Tile(fade_outside_mask(_to_rgb_image(input_tile), values, layer, factor)))
        rows += [maps, masked]
        labels += ["feature map", "image within\nthe mask"]
    text = (
        f"The feature map of each of {len(layers)} convolutions that agrees best with the mask of the pet, "
        f"on {image}, and below it the image within the thresholded map. Above each: ordinal and name of the "
        "convolution, unit, and IoU over the test images, not over this one. Unit and threshold were chosen "
        "on training images. Each feature map has its own colour scale; signed ones are white at 0."
    )
    options = MontageOptions(tile_size=tile_size, group_starts=(1,))
    return context.make_montage("mask", image, rows, labels, [], text, options)


def _make_unit_tile(layer: SegmentationLayer, values: np.ndarray, unit: int, right_title: str) -> Tile:
    """Return the tile of a feature map with the ordinal and name of its convolution above it."""
    note = f"{layer['ordinal']} {layer['name']}"
    return Tile(values, ColourScale.from_values(values), f"unit {unit}", right_title, note)


def fade_outside_mask(
    image: np.ndarray, values: np.ndarray, layer: SegmentationLayer, factor: int = 1
) -> npt.NDArray[np.float64]:
    """Return an image faded outside the thresholded map of a layer, with an outline of the mask.

    Args:
        image: (H, W, 3) in 0..1.
        values: The map (h, w), which is resized bilinearly to the image, as where its IoU is measured.
        layer: Its entry in masks.json: with "at_least" the mask is where values are at least the
            threshold, otherwise where they are below it.
        factor: A whole number by which the result is enlarged, so that the outline is thin.

    Returns:
        (factor · H, factor · W, 3) in 0..1.

    """
    size = image.shape[1], image.shape[0]
    resized = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    mask = (resized >= layer["threshold"]) == layer["at_least"]
    faded = FADE_FRACTION * np.array(BACKGROUND_RGB) + (1 - FADE_FRACTION) * image
    result = np.where(mask[..., None], image, faded)
    mask, result = (array.repeat(factor, 0).repeat(factor, 1) for array in (mask, result))
    result[_find_outline(mask)] = to_rgb(ACCENT_COLOUR)
    return result


def _find_outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of a mask (H, W) that have a neighbour outside it."""
    padded = np.pad(mask, 1, mode="edge")
    is_inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~is_inner


def _draw_separating_units(context: FigureContext, units: Sequence[SeparatingUnit]) -> CaptionedFigure:
    """Draw the units that best separate pet from background, on the sample images."""
    images = context.images[:MAX_IMAGES]
    names = [image["name"] for image in images]
    rows: list[TileRow] = []
    for row_index, name in enumerate(names):
        row: TileRow = [context.make_input_tile(name)]
        for layer, unit, auc in units:
            values = context.activations(name)[layer["name"]][unit]
            tile = _make_unit_tile(layer, values, unit, f"AUC {auc:.2f}")
            row.append(tile if row_index == 0 else replace(tile, note=""))
        rows.append(row)
    text = (
        f"The {len(units)} units, of all convolutions, that best separate pet from background, on "
        f"{join_names(names)}. Above each: ordinal and name of the convolution, unit, and area under its ROC "
        "curve (AUC) over the pixels of the test images: 1 is perfect separation, 0.5 none; below 0.5 the "
        "unit is lower on the pet. Units were chosen on training images. Each tile has its own colour scale; "
        "signed ones are white at 0."
    )
    labels = [context.describe_image(image, "\n") for image in images]
    options = MontageOptions(tile_size=context.labelled_tile_size, group_starts=(1,))
    return context.make_montage("mask", names[0], rows, labels, [], text, options, "+units")


def _select_separating_units(
    context: FigureContext, layers: Sequence[SegmentationLayer]
) -> list[SeparatingUnit]:
    """Return the units of the recorded layers that separate best."""
    recorded = context.activations(context.images[0]["name"])
    units = [
        SeparatingUnit(layer, entry["unit"], entry["auc"])
        for layer in layers
        for entry in layer["selective_units"]
        if layer["name"] in recorded
    ]
    units.sort(key=lambda entry: -abs(entry.auc - 0.5))
    return units[: min(MAX_SEPARATING_UNITS, count_tiles_per_row(context.labelled_tile_size))]


def _select_layers(context: FigureContext, layers: Sequence[SegmentationLayer]) -> list[SegmentationLayer]:
    """Return the layers whose best maps are drawn: the highlighted ones, or else evenly spaced ones."""
    recorded = context.activations(context.images[0]["name"])
    available = [layer for layer in layers if layer["name"] in recorded]
    highlighted = [layer for layer in available if layer["name"] in context.highlighted_layers]
    if highlighted or not available:
        return highlighted
    positions = np.unique(np.linspace(0, len(available) - 1, N_DEFAULT_LAYERS).round().astype(int))
    return [available[position] for position in positions]


def _to_rgb_image(tile: Tile) -> np.ndarray:
    """Return the pixels of an input's tile as RGB, (H, W, 3) in 0..1."""
    return tile.values if tile.values.ndim == 3 else np.repeat(tile.values[..., None], 3, axis=2)
