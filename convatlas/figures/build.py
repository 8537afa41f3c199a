"""The plates of one network: which are drawn, in the order in which the pages show them."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convatlas.figures import deconv_steps, digits, layers, projections, segmentation, top_activations
from convatlas.figures.context import Desk, Plate, listed
from convatlas.plotting import charts

log = logging.getLogger(__name__)


def draw(folder: Path, name: str, views: dict[str, Any]) -> Iterator[Plate]:
    """Draw every plate of results/<network>/ as the config's `views` ask; `name` is the network's."""
    desk = Desk(folder, name, views)
    projected = [image for image in desk.every_image if len(desk.projections[image["name"]])]
    if projected:
        yield projections.cover(desk, projected[:5])
    if desk.history:
        yield _curves(desk)
    if "confusion" in desk.metrics:
        yield _confusion(desk)
    yield from segmentation.draw(desk)
    yield from _layers(desk)
    for image in desk.images:
        yield projections.classical(desk, image)
    yield from digits.draw(desk)
    yield from deconv_steps.draw(desk)
    yield from top_activations.draw(desk)
    for image in projected:
        yield from projections.deconv(desk, image)


def _layers(desk: Desk) -> Iterator[Plate]:
    show = desk.views["show"]
    if show == "filters" and (without := [name for name in desk.chosen if name not in desk.convs]):
        having = [name for name, layer in desk.layers.items() if layer["kind"] == "conv"]
        log.info("no filters in %s; the layers that have them: %s", listed(without), listed(having))
    for layer in sorted(desk.chosen, key=lambda name: name not in desk.road):  # as on the page
        is_conv = layer in desk.convs and desk.weight(layer).ndim == 4
        if is_conv and show != "maps":
            yield layers.filters(desk, layer)
        if show != "filters":
            yield from _outputs(desk, layer)
        if is_conv and show == "both" and desk.axes(layer) == 3:
            yield layers.pairs(desk, layer)


def _outputs(desk: Desk, layer: str) -> Iterator[Plate]:
    """The plate of what a layer makes, by its axes."""
    drawn = {1: layers.values, 2: layers.tokens, 3: layers.maps}
    axes = desk.axes(layer)
    if axes in drawn:
        yield drawn[axes](desk, layer)
    else:
        log.info("no plate of %s, whose values have %d axes", layer, axes)


def _curves(desk: Desk) -> Plate:
    training = desk.network["training"]
    caption = desk.caption(
        f"Training over {len(desk.history)} epochs of {training['images']:,} images, and the images held "
        f"out to validate on. The weights of epoch {training['kept_epoch']} are kept."
    )
    figure = charts.curves(desk.history, training["kept_epoch"], caption)
    return desk.plate("curves", "", caption, figure)


def _confusion(desk: Desk) -> Plate:
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
    caption = desk.caption(text)
    figure = charts.confusion(counts, desk.network["classes"], caption, segments)
    return desk.plate("confusion", "", caption, figure)
