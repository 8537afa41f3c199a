"""Figures of the deconvnet projections of one image."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import (
    CLIPPING_NOTE,
    MontageOptions,
    count_tiles_per_row,
    make_colour_bar,
    make_projection_tile,
    split_into_chunks,
)
from convatlas.names import format_shape, join_names
from convatlas.plotting.colormap import LayerScales
from convatlas.plotting.montage import TileRow
from convatlas.records import SampleImage
from convatlas.results import UNITS_SUFFIX, list_projection_keys, projected_units

MAX_VALUES = 3_200_000  # values of an image's projections that a figure shows: about 2 MB as PNG
MIN_UNITS = 2  # units of a layer that are drawn, however large their projections are


def draw_projections(context: FigureContext, image: SampleImage) -> Iterator[CaptionedFigure]:
    """Draw the projections of an image, in as many figures as MAX_VALUES requires.

    Of a large input only the first units of each layer are drawn, about MAX_VALUES values of all together.

    Args:
        context: The network's results and views.
        image: An entry of images.json whose projections are present.

    Yields:
        Figures of kind "deconv". The projections of one layer are all in the same figure.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    projections = context.projections(image["name"])
    scales = context.make_projection_scales([image["name"]])
    shapes = {key: projections[key].shape for key in list_projection_keys(projections)}
    share = MAX_VALUES / max(MAX_VALUES, sum(map(math.prod, shapes.values())))
    unit_counts = {key: max(min(MIN_UNITS, shape[0]), int(shape[0] * share)) for key, shape in shapes.items()}
    value_counts = {key: unit_counts[key] * math.prod(shape[1:]) for key, shape in shapes.items()}
    for number, keys in enumerate(_split_by_layer(value_counts), 1):
        suffix = f"+{number}" if number > 1 else ""
        counts = {key: unit_counts[key] for key in keys}
        yield _draw_projection_figure(context, image, scales, counts, suffix)


def _split_by_layer(value_counts: Mapping[str, int]) -> list[list[str]]:
    """Split keys into parts of at most MAX_VALUES values each, without separating those of one layer."""
    parts: list[list[str]] = []
    room = 0
    for _, group in groupby(value_counts, key=lambda key: key.partition("@")[0]):
        keys = list(group)
        count = sum(value_counts[key] for key in keys)
        if count > room:
            parts.append([])
            room = MAX_VALUES
        parts[-1] += keys
        room -= count
    return parts


def _draw_projection_figure(
    context: FigureContext,
    image: SampleImage,
    scales: LayerScales,
    unit_counts: Mapping[str, int],
    suffix: str,
) -> CaptionedFigure:
    """Draw one figure: for each key a group of rows with its first units."""
    projections = context.projections(image["name"])
    rows: list[TileRow] = []
    labels, bars = [], []
    for key, count in unit_counts.items():
        layer, _, selection = key.partition("@")
        array, units = projections[key][:count], projected_units(projections, layer)
        inactive, first_row = context.find_inactive_units(image["name"], layer), len(rows)
        tiles_per_row = count_tiles_per_row(max(array.shape[2:]))
        for n, chunk in enumerate(split_into_chunks(range(len(array)), tiles_per_row)):
            head = context.make_input_tile(image["name"]) if not rows else None
            tiles = [
                make_projection_tile(scales, key, array[i], units[i], units[i] in inactive) for i in chunk
            ]
            rows.append([head, *tiles])
            labels.append(f"{layer}\n{'strongest location' if selection else 'whole map'}" if n == 0 else "")
        bars.append(make_colour_bar(scales, key, first_row, len(rows) - 1, "projection"))
    caption = _write_caption(context, image, scales, unit_counts)
    options = MontageOptions(tile_size=context.tile_size, group_starts=(1,))
    return context.make_montage("deconv", image["name"], rows, labels, bars, caption, options, suffix)


def _write_caption(
    context: FigureContext, image: SampleImage, scales: LayerScales, unit_counts: Mapping[str, int]
) -> Caption:
    name, keys = image["name"], list(unit_counts)
    projections = context.projections(name)
    first_keys: dict[str, str] = {}
    for key in keys:
        first_keys.setdefault(key.partition("@")[0], key)
    n_inactive = sum(
        len(
            set(projected_units(projections, layer)[: unit_counts[key]])
            & context.find_inactive_units(name, layer)
        )
        for layer, key in first_keys.items()
    )
    partial = [layer for layer in first_keys if f"{layer}{UNITS_SUFFIX}" in projections]
    layers = list(first_keys)
    extent = scales.describe_extent(keys[0])
    if len(keys) > 1 and scales.mode == "per_layer":
        extent = "a scale per group"
    line = (
        f"{layers[0] if len(layers) == 1 else f'{len(layers)} layers'}: deconvnet projections on "
        f"{context.image_titles[name]}, {extent}"
    )
    text = (
        f"Projections of {join_names(layers)} on {context.describe_image(image, ', ')}, "
        f"to the input of {format_shape(projections[keys[0]].shape[2:])} pixels, signed; input first. "
        f"{_describe_scales(scales, keys)}{context.display_note}{context.rectification_note}"
    )
    if partial:
        text += f" Of {join_names(partial)} the most active units, strongest first."
    if any(unit_counts[key] < len(projections[key]) for key in keys):
        counts = join_names([str(count) for count in sorted(set(unit_counts.values()))])
        text += f" Because of their size only the first {counts} units of each layer are shown."
    if n_inactive:
        text += f" Crossed out: units inactive on this image ({n_inactive}), whose projection is zero."
    return Caption(line, text)


def _describe_scales(scales: LayerScales, keys: Sequence[str]) -> str:
    """Return sentences about the scales of projections."""
    text = scales.describe(keys[0], "projections")
    if scales.mode == "per_layer":
        text = f"Each group has its own colour scale: {scales.for_layer(keys[0]).description}."
    return f"{text} {CLIPPING_NOTE}" if scales.as_rgb and scales.mode != "per_tile" else text
