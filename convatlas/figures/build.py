"""The plates of one network: which are drawn, in the order in which the pages show them."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convatlas.figures import deconv_steps, digits, layers, projections, segmentation, top_activations
from convatlas.figures.context import CaptionedFigure, FigureContext, join_names
from convatlas.plotting import charts

log = logging.getLogger(__name__)


def draw_figures(folder: Path, name: str, views: dict[str, Any]) -> Iterator[CaptionedFigure]:
    """Draw every plate of results/<network>/ as the config's `views` ask; `name` is the network's."""
    desk = FigureContext(folder, name, views)
    projected = [image for image in desk.all_images if len(desk.projections[image["name"]])]
    if projected:
        yield projections.draw_cover(desk, projected[:5])
    if desk.history:
        yield _draw_training_curves(desk)
    if "confusion" in desk.metrics:
        yield _draw_confusion_matrix(desk)
    yield from segmentation.draw_segmentation_figures(desk)
    yield from _draw_layers(desk)
    for image in desk.images:
        yield projections.draw_classical(desk, image)
    yield from digits.draw_digit_figures(desk)
    yield from deconv_steps.draw_deconv_steps(desk)
    yield from top_activations.draw_top_activation_figures(desk)
    for image in projected:
        yield from projections.draw_projections(desk, image)


def _draw_layers(desk: FigureContext) -> Iterator[CaptionedFigure]:
    show = desk.views["show"]
    if show == "filters" and (without := [name for name in desk.layer_names if name not in desk.conv_names]):
        having = [name for name, layer in desk.layers.items() if layer["kind"] == "conv"]
        log.info("no filters in %s; the layers that have them: %s", join_names(without), join_names(having))
    for layer in sorted(
        desk.layer_names, key=lambda name: name not in desk.highlighted_layers
    ):  # as on the page
        is_conv = layer in desk.conv_names and desk.weight(layer).ndim == 4
        if is_conv and show != "maps":
            yield layers.draw_filters(desk, layer)
        if show != "filters":
            yield from _draw_outputs(desk, layer)
        if is_conv and show == "both" and desk.output_ndim(layer) == 3:
            yield layers.draw_filter_map_pairs(desk, layer)


def _draw_outputs(desk: FigureContext, layer: str) -> Iterator[CaptionedFigure]:
    """The plate of what a layer makes, by its axes."""
    drawn = {1: layers.draw_values, 2: layers.draw_tokens, 3: layers.draw_maps}
    axes = desk.output_ndim(layer)
    if axes in drawn:
        yield drawn[axes](desk, layer)
    else:
        log.info("no plate of %s, whose values have %d axes", layer, axes)


def _draw_training_curves(desk: FigureContext) -> CaptionedFigure:
    training = desk.network["training"]
    caption = desk.make_caption(
        f"Training over {len(desk.history)} epochs of {training['images']:,} images, and the images held "
        f"out to validate on. The weights of epoch {training['best_epoch']} are kept."
    )
    figure = charts.plot_training_curves(desk.history, training["best_epoch"], caption)
    return desk.make_figure("curves", "", caption, figure)


def _draw_confusion_matrix(desk: FigureContext) -> CaptionedFigure:
    counts = np.array(desk.metrics["confusion"])
    segments = "mean_iou" in desk.metrics
    if segments:
        text = (
            f"The confusion matrix on the {counts.sum():,} pixels of {desk.metrics['images']:,} test images, "
            f"looked at once, after training: {100 * desk.metrics['pixel_accuracy']:.2f} % are right. Rows "
            "are the true class, columns the predicted; numbers and shades are shares of the row."
        )
    else:
        text = (
            f"The confusion matrix on {counts.sum():,} test images, looked at once, after training: "
            f"{100 * desk.metrics['accuracy']:.2f} % are right. Rows are the true class, columns the "
            "predicted; shades are shares of the row."
        )
    caption = desk.make_caption(text)
    figure = charts.plot_confusion_matrix(counts, desk.network["classes"], caption, segments)
    return desk.make_figure("confusion", "", caption, figure)
