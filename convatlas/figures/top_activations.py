"""Figures of the top-activating images of each unit: image patches beside their deconvnet projections."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from convatlas.figures.context import Caption, CaptionedFigure, FigureContext
from convatlas.figures.tiles import CLIPPING_NOTE, MAX_ROW_WIDTH, MontageOptions, split_into_chunks
from convatlas.image_io import select_display
from convatlas.names import format_shape
from convatlas.plotting.colormap import RGB_CMAP, ColourScale
from convatlas.plotting.labelled_figure import ColourBar
from convatlas.plotting.montage import GAP, Tile, TileRow
from convatlas.plotting.top_activation_tiles import (
    assemble_tile_block,
    fit_projection_scale,
    outline_box,
    render_patches,
    render_projections,
)
from convatlas.records import DatasetStatistics
from convatlas.results import projected_units

TARGET_PATCH_SIZE = 72  # pixels to which a patch's longer side is enlarged, about, by a whole factor
MAX_VALUES = 500_000  # values that a figure shows, about 0.3 MB: of large patches fewer units


def draw_top_activation_figures(context: FigureContext) -> Iterator[CaptionedFigure]:
    """Draw a figure of each layer whose top activations were projected.

    Args:
        context: The network's results and views.

    Yields:
        Figures of kind "strongest", each with about MAX_VALUES values at most; none where the views ask for
        none.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    statistics = context.dataset_statistics
    if statistics is None:
        return
    arrays = context.results.top_activations
    layers = [key.removesuffix("@patches") for key in arrays if key.endswith("@patches")]
    scales = {layer: fit_projection_scale(_read_projections(context, layer)) for layer in layers}
    if scales and context.views["scale"] == "shared":
        scales = dict.fromkeys(layers, max(scales.values(), key=lambda scale: scale.high))
    for layer in layers:
        yield _draw_layer_figure(context, statistics, layer, scales[layer])


def _read_projections(context: FigureContext, layer: str) -> np.ndarray:
    """Return the projections of a layer's top activations in the channels that are shown."""
    projections = context.results.top_activations[f"{layer}@projections"]
    return select_display(projections, context.network["preprocessing"])


def _draw_layer_figure(
    context: FigureContext, statistics: DatasetStatistics, layer: str, scale: ColourScale
) -> CaptionedFigure:
    arrays = context.results.top_activations
    projections, patches = _read_projections(context, layer), arrays[f"{layer}@patches"]
    values = arrays[f"{layer}@values"]
    projected = projected_units(arrays, layer)
    units = projected[: max(1, MAX_VALUES // (2 * math.prod(patches.shape[1:])))]
    factor = max(1, round(TARGET_PATCH_SIZE / max(patches.shape[-2:])))
    entry = next((entry for entry in statistics["layers"] if entry["name"] == layer), None)
    dead = entry["dead"] if entry else []
    blocks = _render_patch_blocks(context, layer, patches[: len(units)], factor)
    pairs = [
        _make_unit_tiles(context, scale, unit, unit in dead, values[unit], projections[n], blocks[n], factor)
        for n, unit in enumerate(units)
    ]
    tile_size = max(max(tile.values.shape[:2]) for tile in pairs[0])
    pairs_per_row = max(1, MAX_ROW_WIDTH // (2 * (tile_size + GAP) + 2 * GAP))
    chunks = split_into_chunks(pairs, pairs_per_row)
    rows: list[TileRow] = [[tile for pair in chunk for tile in pair] for chunk in chunks]
    labels = [f"{layer}\n{format_shape(patches.shape[-2:])} px", *[""] * (len(rows) - 1)]
    end_labels = ("−max", "max") if context.views["scale"] == "per_tile" else None
    bars = [ColourBar(0, len(rows) - 1, scale, "projection", end_labels)]
    caption = _write_caption(context, statistics, layer, units, values, patches[: len(units)], scale)
    if np.isinf(projections[: len(units)]).any() or np.isinf(patches[: len(units)]).any():
        caption = replace(caption, explanation=f"{caption.explanation} Magenta: NaN or infinite.")
    options = MontageOptions(tile_size=tile_size, group_starts=range(2, 2 * len(chunks[0]), 2))
    return context.make_montage("strongest", layer, rows, labels, bars, caption, options)


def _render_patch_blocks(
    context: FigureContext, layer: str, patches: np.ndarray, factor: int
) -> list[np.ndarray]:
    """Return a block of patches for each unit, tiny ones outlined in the image around them: (H, W, 3)."""
    arrays, preprocessing = context.results.top_activations, context.network["preprocessing"]
    if f"{layer}@contexts" not in arrays:
        return [assemble_tile_block(render_patches(preprocessing, unit), factor) for unit in patches]
    contexts = arrays[f"{layer}@contexts"][: len(patches)]
    boxes = (arrays[f"{layer}@corners"] - arrays[f"{layer}@context_corners"])[: len(patches)]
    factor = max(1, round(TARGET_PATCH_SIZE / max(contexts.shape[-2:])))
    blocks = []
    for unit_contexts, corners in zip(contexts, boxes, strict=True):
        tiles = render_patches(preprocessing, unit_contexts).repeat(factor, 1).repeat(factor, 2)
        for tile, corner, values in zip(tiles, corners, unit_contexts, strict=True):
            if not np.isnan(values).all():
                outline_box(tile, factor * corner, factor * np.array(patches.shape[-2:]))
        blocks.append(assemble_tile_block(tiles))
    return blocks


def _make_unit_tiles(
    context: FigureContext,
    scale: ColourScale,
    unit: int,
    is_dead: bool,
    values: np.ndarray,
    projections: np.ndarray,
    patch_block: np.ndarray,
    factor: int,
) -> tuple[Tile, Tile]:
    """Return the two blocks of a unit, with its number and strongest activation above them."""
    if context.views["scale"] == "per_tile":
        scale = fit_projection_scale(projections)
    projection_block = assemble_tile_block(render_projections(scale, projections), factor) / 255
    strongest = "dead" if is_dead else f"{values[0]:.3g}" if np.isfinite(values[0]) else "NaN or ∞"
    return Tile(projection_block, None, f"unit {unit}", strongest, crossed_out=is_dead), Tile(
        patch_block / 255
    )


def _write_caption(
    context: FigureContext,
    statistics: DatasetStatistics,
    layer: str,
    units: Sequence[int],
    values: np.ndarray,
    patches: np.ndarray,
    scale: ColourScale,
) -> Caption:
    field, start = context.layers[layer]["receptive_field"], context.layers[layer]["receptive_start"]
    field_text = f"receptive field {format_shape(field)} pixels" if field else "receptive field not known"
    if start is None and field == list(patches.shape[-2:]):
        field_text = "receptive field: the whole image"
    unit_text, order = "each unit", ""
    if len(units) < len(values):
        unit_text = f"{len(units)} of {len(values)} units"
        order = ". The most active units, strongest first"
    is_per_unit = context.views["scale"] == "per_tile"
    line = (
        f"{layer}: top-activating images of {unit_text}, over {statistics['images']:,} {statistics['split']} "
        f"images of {statistics['dataset']}, projections "
        f"{'a scale per unit' if is_per_unit else scale.extent}"
    )
    patch_text = f"the {format_shape(patches.shape[-2:])} pixels of each image that they depend on"
    if f"{layer}@contexts" in context.results.top_activations:
        patch_text += ", outlined in the image around them"
    text = (
        f"{layer} is a {context.layers[layer]['type']}; {field_text}{order}. "
        f"Left: the deconvnet projections of a unit's {values.shape[1]} strongest activations, one per "
        f"image, in rows, signed, {'a scale per unit' if is_per_unit else 'one scale for all'}: "
        f"{scale.description}; right: {patch_text}. "
        "Above: the unit and its strongest activation."
    )
    if scale.cmap == RGB_CMAP:
        text += f" {CLIPPING_NOTE}"
    if np.isnan(patches).any():
        text += " Beige: outside the image."
    return Caption(line, text + context.display_note + context.rectification_note)
