"""Figures of the segmentation analysis: in which layers segmentation emerges, and what is segmented."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from PIL import Image

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.segmentation_examples import draw_examples
from convatlas.figures.tiles import MontageOptions, count_tiles_per_row, split_into_chunks
from convatlas.names import join_names
from convatlas.plotting import emergence_chart
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import (
    ACCENT_COLOUR,
    BACKGROUND_RGB,
)
from convatlas.plotting.montage import Tile, TileRow
from convatlas.records import SegmentationAnalysis, SegmentationLayer

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
    """Draw the figures of the segmentation analysis, if there is one.

    Args:
        context: The network's results and views.

    Yields:
        The examples (kind "segmentation"), then (kind "mask") the emergence over the layers, the feature maps
        that agree best with the mask, and the units that separate best; of the last two only what is above
        chance.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    analysis = context.results.segmentation
    if analysis is None:
        return
    if analysis["examples"]:
        yield draw_examples(context, analysis)
    if analysis["layers"]:
        yield _draw_mask_emergence(context, analysis)
    if context.images:
        layers = _select_layers(context, analysis["layers"])
        if any(layer["above_chance"] for layer in layers):
            yield _draw_best_maps(context, context.images[0]["name"], layers)
        if units := _select_separating_units(context, analysis["layers"]):
            yield _draw_separating_units(context, units)


def _draw_mask_emergence(context: FigureContext, analysis: SegmentationAnalysis) -> CaptionedFigure:
    """Draw the agreement with the mask and the fine detail of each convolution, in execution order."""
    cutoff = analysis["cutoff_frequency"]
    text = (
        f"{_describe_agreement(analysis)} Below: share of the spectral energy above {cutoff:g} cycles per "
        f"image, which maps of at most {2 * cutoff:g} pixels cannot represent, and the largest correlation "
        "|r| of a feature map with the image's edges (Sobel)."
    )
    remark = None
    configured = context.views.get("remark")
    layers = {layer["ordinal"]: layer for layer in analysis["layers"]}
    if configured and (layer := layers.get(configured["ordinal"])):
        suffix = "" if layer["above_chance"] else " (here not above chance)"
        remark = emergence_chart.Remark(layer["ordinal"], configured["text"] + suffix)
        text += f" Layer {remark.ordinal}: {remark.text}."
    n_layers, n_images = len(analysis["layers"]), analysis["images"]["test"]
    caption = Caption(
        f"{n_layers} convolutions: where segmentation emerges, IoU with the mask over {n_images} test images",
        text,
    )
    figure = emergence_chart.plot_mask_emergence(analysis, remark, context.format_line(caption))
    return context.make_figure("mask", "", caption, figure)


def _describe_agreement(analysis: SegmentationAnalysis) -> str:
    """Say what the upper chart shows: the IoUs, what chance is, and where segmentation emerges."""
    images, layers, emergence = analysis["images"], analysis["layers"], analysis["emergence"]
    test, confidence = analysis["test"], f"{100 * analysis['test']['confidence']:.0f} %"
    above = sum(layer["above_chance"] for layer in layers)
    text = (
        f"Above: IoU of the best thresholded "
        f"feature map with the mask of the pet, over {images['test']:,} test images (unit and threshold "
        f"chosen on {images['train']:,} training images), with its {confidence} interval (bootstrap over "
        f"images). Chance: the central {confidence} of the IoUs of the same maps with the masks permuted "
        "between images. Shuffled masks: unit and threshold chosen on them, too. All-pet baseline: "
        f"{analysis['pet_share']:.2f}. {above} of {len(layers)} layers are above chance: p ≤ "
        f"{test['significance']:g}, adjusted for the number of layers, and an IoU at least "
        f"{test['min_iou_effect']:g} above the mean of the permutations, shuffled masks and the baseline."
    )
    if emergence:
        low, high = emergence["interval"]
        spread = f"; layers {low} to {high} in 95 % of the resamples" if low < high else ""
        text += (
            f" {emergence['layer']} ({emergence['ordinal']}) is the first of them to reach 90 % of the last "
            f"layer's {layers[-1]['iou']:.2f}{spread}."
        )
    return text


def _draw_best_maps(
    context: FigureContext, image: str, selected: Sequence[SegmentationLayer]
) -> CaptionedFigure:
    """Draw the best map of each layer above chance on one image, and below it the image within its mask."""
    layers = [layer for layer in selected if layer["above_chance"]]
    others = [_name_layer(layer) for layer in selected if not layer["above_chance"]]
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
    line = (
        f"{len(layers)} convolutions: feature maps with the largest IoU on {context.image_titles[image]}, a "
        "scale per tile"
    )
    text = (
        "The feature map of each convolution that agrees best with the mask of the pet, and below it the "
        "image within the thresholded map. Above each: ordinal and name of the "
        "convolution, unit, and IoU over the test images, not over this one. Unit and threshold were chosen "
        "on training images. Each feature map has its own colour scale; signed ones are white at 0."
    )
    if others:
        text += f" Not shown, as not above chance: {join_names(others)}."
    options = MontageOptions(tile_size=tile_size, group_starts=(1,))
    return context.make_montage("mask", image, rows, labels, [], Caption(line, text), options)


def _make_unit_tile(layer: SegmentationLayer, values: np.ndarray, unit: int, right_title: str) -> Tile:
    """Return the tile of a feature map with the ordinal and name of its convolution above it."""
    return Tile(values, ColourScale.from_values(values), f"unit {unit}", right_title, _name_layer(layer))


def _name_layer(layer: SegmentationLayer) -> str:
    """Return the ordinal and name of a convolution."""
    return f"{layer['ordinal']} {layer['name']}"


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
    line = (
        f"all convolutions: the {len(units)} units that best separate pet from background, on "
        f"{f'{len(names)} images' if len(names) > 1 else context.image_titles[names[0]]}, a scale per tile"
    )
    text = (
        "Units that separate pet from background better than chance. Above each: ordinal and name of the "
        "convolution, unit, and area under its ROC curve (AUC) over the pixels of the test images: 1 is "
        "perfect separation, 0.5 none; below 0.5 the unit is lower on the pet. Units were chosen on training "
        "images. Each tile has its own colour scale; signed ones are white at 0."
    )
    labels = [context.describe_image(image, "\n") for image in images]
    options = MontageOptions(tile_size=context.labelled_tile_size, group_starts=(1,))
    return context.make_montage("mask", names[0], rows, labels, [], Caption(line, text), options, "+units")


def _select_separating_units(
    context: FigureContext, layers: Sequence[SegmentationLayer]
) -> list[SeparatingUnit]:
    """Return the units of the recorded layers that separate best, of those above chance."""
    recorded = context.activations(context.images[0]["name"])
    units = [
        SeparatingUnit(layer, entry["unit"], entry["auc"])
        for layer in layers
        for entry in layer["selective_units"]
        if layer["name"] in recorded and entry["above_chance"]
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
