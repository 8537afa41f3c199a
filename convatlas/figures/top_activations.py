"""Plates of what excites units most over a data set: what caused it, beside the images' pixels."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from convatlas.figures.context import WIDTH, Array, Desk, Line, Plate, by, chunks
from convatlas.files import Npz
from convatlas.plotting.colormap import Scale
from convatlas.plotting.labelled_figure import Bar
from convatlas.plotting.montage import GAP, Tile
from convatlas.plotting.top_activation_tiles import block, patches_in, projections_in, scale_of, units_of

PICTURE = 72  # pixels that the longer side of a projection or patch is brought near to, by a whole factor
LARGE = 500_000  # values that a plate shows, which make some 0.3 MB: of large patches fewer units


def draw(desk: Desk) -> Iterator[Plate]:
    """A plate of each layer whose strongest activations were projected."""
    if desk.survey is None:
        return
    found = Npz(desk.folder / "strongest.npz")
    layers = [key.removesuffix("@patches") for key in found if key.endswith("@patches")]
    scales = {layer: scale_of(found[f"{layer}@projections"]) for layer in layers}
    if desk.views["scale"] == "shared":
        widest = max(scales.values(), key=lambda scale: scale.high, default=None)
        scales = dict.fromkeys(layers, widest)
    for layer in layers:
        yield _plate(desk, desk.survey, found, layer, scales[layer])


def _plate(desk: Desk, survey: dict[str, Any], found: Npz, layer: str, scale: Scale) -> Plate:
    projections, patches = found[f"{layer}@projections"], found[f"{layer}@patches"]
    values = found[f"{layer}@values"]
    units = units_of(found, layer)
    shown = max(1, min(len(units), LARGE // (2 * math.prod(patches.shape[1:]))))
    factor = max(1, round(PICTURE / max(patches.shape[-2:])))
    pairs = [
        _pair(desk, scale, unit, values[unit], projections[n], patches[n], factor)
        for n, unit in enumerate(units[:shown])
    ]
    edge = max(max(tile.values.shape[:2]) for tile in pairs[0])
    bands = chunks(pairs, max(1, WIDTH // (2 * (edge + GAP) + 2 * GAP)))
    lines: list[Line] = [[tile for pair in band for tile in pair] for band in bands]
    labels = [f"{layer}\n{by(patches.shape[-2:])} px", *[""] * (len(lines) - 1)]
    own = desk.views["scale"] == "per_tile"
    ends = ("−most", "most") if own else None
    return desk.montage(
        "strongest",
        layer,
        lines,
        labels,
        [Bar(0, len(lines) - 1, scale, "projection", ends)],
        _words(desk, survey, layer, units[:shown], values, patches[:shown], scale),
        edge=edge,
        apart=range(2, 2 * len(bands[0]), 2),
    )


def _pair(
    desk: Desk, scale: Scale, unit: int, values: Array, projections: Array, patches: Array, factor: int
) -> tuple[Tile, Tile]:
    """The two blocks of a unit, its number and its strongest activation over them."""
    dead = not values[0] > 0
    own = scale_of(projections) if desk.views["scale"] == "per_tile" else scale
    caused = block(projections_in(own, projections), factor) / 255
    seen = block(patches_in(desk.network["preprocessing"], patches), factor) / 255
    strongest = "dead" if dead else f"{values[0]:.3g}"
    return Tile(caused, None, f"unit {unit}", strongest, crossed=dead), Tile(seen)


def _words(
    desk: Desk,
    survey: dict[str, Any],
    layer: str,
    units: list[int],
    values: Array,
    patches: Array,
    scale: Scale,
) -> str:
    """The caption."""
    described, k = desk.layers[layer], values.shape[1]
    field = described["receptive_field"]
    looks = f"receptive field {by(field)} pixels" if field else "which depends on the whole image"
    which = "each unit" if len(units) == len(values) else f"{len(units)} of {len(values)} units"
    order = "" if len(units) == len(values) else ", those that answer most, the strongest first"
    beside = "each unit has a scale of its own" if desk.views["scale"] == "per_tile" else "one scale for all"
    text = (
        f"What excites {which} of {layer} ({described['type']}; {looks}) most, over the "
        f"{survey['images']:,} {survey['split']} images of {survey['dataset']}{order}. For each unit, its "
        f"number and its strongest activation above, stand at the left what caused its {k} strongest "
        f"activations, one an image, in rows, the deconvnet's projections, signed, {beside}: {scale.words}; "
        f"at the right, in the same order, the {by(patches.shape[-2:])} pixels of the images that they "
        "depend on."
    )
    if scale.colours == "gray":
        text += " One value in a hundred lies beyond the ends and is drawn as they are."
    if np.isnan(patches).any():
        text += " What lies beyond an image's border is beige."
    if desk.views["deconv"]["rectify"]:
        text += " Rectified at activations that are not a ReLU too, where the method is undefined."
    return text
