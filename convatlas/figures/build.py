"""The figures of one network: which are drawn, in the order in which the pages show them."""

import logging
from collections.abc import Iterator
from pathlib import Path

from convatlas.figures import (
    classical,
    cover,
    deconv_steps,
    digits,
    feature_maps,
    filters,
    metrics,
    projections,
    relevance,
    segmentation,
    top_activations,
    values,
)
from convatlas.figures.context import CaptionedFigure, FigureContext
from convatlas.files import atomic_write, write_json
from convatlas.image_io import is_image_input
from convatlas.names import join_names
from convatlas.pipeline.config_types import ViewsConfig
from convatlas.plotting.labelled_figure import figure_style, save_figure
from convatlas.results import Results

log = logging.getLogger(__name__)


def write_figures(results: Results, views: ViewsConfig, folder: Path) -> int:
    """Draw the figures of a network into a folder, with figures.json, which lists them in order.

    Args:
        results: The network's results.
        views: `views` of the network's config.
        folder: The folder, which replaces an older one.

    Returns:
        The number of figures.

    Raises:
        UserError: The views name a layer that is not there, or a file is missing or damaged.
    """
    entries = []
    with atomic_write(folder) as temporary, figure_style():
        temporary.mkdir()
        for figure in draw_figures(results, views):
            save_figure(figure.figure, temporary / figure.file, views["formats"])
            entries.append(figure.to_dict(views["formats"]))
        write_json(temporary / "figures.json", entries)
    return len(entries)


def draw_figures(results: Results, views: ViewsConfig) -> Iterator[CaptionedFigure]:
    """Yield the figures of a network, in the order of its page; one is in memory at a time.

    Args:
        results: The network's results.
        views: `views` of the network's config.

    Raises:
        UserError: The views name a layer that is not there, or a file is missing or damaged.
    """
    context = FigureContext(results, views)
    projected = [image for image in results.images if len(context.projections(image["name"]))]
    if projected:
        yield cover.draw_cover(context, projected[: cover.MAX_IMAGES])
    yield from metrics.draw_metrics(context)
    yield from segmentation.draw_segmentation_figures(context)
    yield from _draw_layers(context)
    for image in context.images if is_image_input(results.network["preprocessing"]) else ():
        yield classical.draw_classical(context, image)
    yield from digits.draw_digit_figures(context)
    yield from deconv_steps.draw_deconv_steps(context)
    yield from top_activations.draw_top_activation_figures(context)
    yield from relevance.draw_relevance_figures(context)
    for image in projected:
        yield from projections.draw_projections(context, image)


def _draw_layers(context: FigureContext) -> Iterator[CaptionedFigure]:
    """Draw the filters and outputs of each layer, highlighted layers first, as on the page."""
    show = context.views["show"]
    without = [name for name in context.layer_names if name not in context.conv_names]
    if show == "filters" and without:
        convolutions = [name for name, layer in context.layers.items() if layer["kind"] == "conv"]
        log.info(
            "no filters in %s; the layers that have them: %s", join_names(without), join_names(convolutions)
        )
    for layer in sorted(context.layer_names, key=lambda name: name not in context.highlighted_layers):
        has_2d_kernels = layer in context.conv_names and context.weight(layer).ndim == 4
        if has_2d_kernels and show != "maps":
            yield filters.draw_filters(context, layer)
        if show != "filters":
            yield from _draw_outputs(context, layer)
        if has_2d_kernels and show == "both" and context.output_ndim(layer) == 3:
            yield filters.draw_filter_map_pairs(context, layer)


def _draw_outputs(context: FigureContext, layer: str) -> Iterator[CaptionedFigure]:
    """Draw the output of a layer by its number of axes."""
    draw_by_ndim = {1: values.draw_values, 2: values.draw_tokens, 3: feature_maps.draw_maps}
    ndim = context.output_ndim(layer)
    if ndim in draw_by_ndim:
        yield draw_by_ndim[ndim](context, layer)
    else:
        log.info("no figure of %s: its output has %d axes", layer, ndim)
