"""Plates of what excites units most over a data set: what caused it, beside the images' pixels."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from convatlas.figures.context import (
    MAX_ROW_WIDTH,
    Array,
    CaptionedFigure,
    FigureContext,
    TileRow,
    format_shape,
    split_into_chunks,
)
from convatlas.files import Npz
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import ColourBar
from convatlas.plotting.montage import GAP, Tile
from convatlas.plotting.top_activation_tiles import (
    assemble_tile_block,
    fit_projection_scale,
    read_projected_units,
    render_patches,
    render_projections,
)

TARGET_PATCH_SIZE = (
    72  # pixels that the longer side of a projection or patch is brought near to, by a whole factor
)
MAX_VALUES = 500_000  # values that a plate shows, which make some 0.3 MB: of large patches fewer units


def draw_top_activation_figures(desk: FigureContext) -> Iterator[CaptionedFigure]:
    """A plate of each layer whose strongest activations were projected."""
    if desk.statistics_summary is None:
        return
    found = Npz(desk.folder / "strongest.npz")
    layers = [key.removesuffix("@patches") for key in found if key.endswith("@patches")]
    scales = {layer: fit_projection_scale(found[f"{layer}@projections"]) for layer in layers}
    if desk.views["scale"] == "shared":
        widest = max(scales.values(), key=lambda scale: scale.high, default=None)
        scales = dict.fromkeys(layers, widest)
    for layer in layers:
        yield _draw_layer_figure(desk, desk.statistics_summary, found, layer, scales[layer])


def _draw_layer_figure(
    desk: FigureContext, survey: dict[str, Any], found: Npz, layer: str, scale: ColourScale
) -> CaptionedFigure:
    projections, patches = found[f"{layer}@projections"], found[f"{layer}@patches"]
    values = found[f"{layer}@values"]
    units = read_projected_units(found, layer)
    shown = max(1, min(len(units), MAX_VALUES // (2 * math.prod(patches.shape[1:]))))
    factor = max(1, round(TARGET_PATCH_SIZE / max(patches.shape[-2:])))
    pairs = [
        _make_unit_tiles(desk, scale, unit, values[unit], projections[n], patches[n], factor)
        for n, unit in enumerate(units[:shown])
    ]
    edge = max(max(tile.values.shape[:2]) for tile in pairs[0])
    bands = split_into_chunks(pairs, max(1, MAX_ROW_WIDTH // (2 * (edge + GAP) + 2 * GAP)))
    lines: list[TileRow] = [[tile for pair in band for tile in pair] for band in bands]
    labels = [f"{layer}\n{format_shape(patches.shape[-2:])} px", *[""] * (len(lines) - 1)]
    own = desk.views["scale"] == "per_tile"
    ends = ("−most", "most") if own else None
    return desk.make_montage(
        "strongest",
        layer,
        lines,
        labels,
        [ColourBar(0, len(lines) - 1, scale, "projection", ends)],
        _make_caption_text(desk, survey, layer, units[:shown], values, patches[:shown], scale),
        tile_size=edge,
        group_starts=range(2, 2 * len(bands[0]), 2),
    )


def _make_unit_tiles(
    desk: FigureContext,
    scale: ColourScale,
    unit: int,
    values: Array,
    projections: Array,
    patches: Array,
    factor: int,
) -> tuple[Tile, Tile]:
    """The two blocks of a unit, its number and its strongest activation over them."""
    dead = not values[0] > 0
    own = fit_projection_scale(projections) if desk.views["scale"] == "per_tile" else scale
    caused = assemble_tile_block(render_projections(own, projections), factor) / 255
    seen = assemble_tile_block(render_patches(desk.network["preprocessing"], patches), factor) / 255
    strongest = "dead" if dead else f"{values[0]:.3g}"
    return Tile(caused, None, f"unit {unit}", strongest, crossed_out=dead), Tile(seen)


def _make_caption_text(
    desk: FigureContext,
    survey: dict[str, Any],
    layer: str,
    units: list[int],
    values: Array,
    patches: Array,
    scale: ColourScale,
) -> str:
    """The caption."""
    described, k = desk.layers[layer], values.shape[1]
    field = described["receptive_field"]
    looks = f"receptive field {format_shape(field)} pixels" if field else "which depends on the whole image"
    which = "each unit" if len(units) == len(values) else f"{len(units)} of {len(values)} units"
    order = "" if len(units) == len(values) else ", those that answer most, the strongest first"
    beside = "each unit has a scale of its own" if desk.views["scale"] == "per_tile" else "one scale for all"
    text = (
        f"What excites {which} of {layer} ({described['type']}; {looks}) most, over the "
        f"{survey['images']:,} {survey['split']} images of {survey['dataset']}{order}. For each unit, its "
        f"number and its strongest activation above, stand at the left what caused its {k} strongest "
        f"activations, one an image, in rows, the deconvnet's projections, signed, {beside}: {scale.description}; "
        f"at the right, in the same order, the {format_shape(patches.shape[-2:])} pixels of the images that they "
        "depend on."
    )
    if scale.cmap == "gray":
        text += " One value in a hundred lies beyond the ends and is drawn as they are."
    if np.isnan(patches).any():
        text += " What lies beyond an image's border is beige."
    if desk.views["deconv"]["rectify"]:
        text += " Rectified at activations that are not a ReLU too, where the method is undefined."
    return text
