"""Plates of one image: what caused its activations, and what its maps resemble."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from convatlas.analysis.features import FEATURE_CAPTIONS
from convatlas.figures.context import (
    Array,
    CaptionedFigure,
    FigureContext,
    TileRow,
    count_tiles_per_row,
    format_shape,
    join_names,
    make_colour_bar,
    make_rgb_tile,
    make_tile,
    split_into_chunks,
    value_range,
)
from convatlas.plotting.colormap import ColourScale, LayerScales
from convatlas.plotting.montage import TILE_SIZE, Tile
from convatlas.plotting.top_activation_tiles import RGB_STEP

MAX_VALUES = 3_200_000  # values of an image's projections that are drawn, which make some 2 MB
MIN_UNITS = 2  # units of a layer, however large
MAX_MATCHES = 7  # maps beside each classical feature
MIN_LABELLED_TILE_SIZE = 168  # pixels of a tile that has a layer's name over it, at least
CLIPPING_NOTE = "One value in a hundred lies beyond the ends and is drawn as they are."
DUPLICATE_TOLERANCE = 0.005  # what two layers' correlations of one unit differ by, where both are shown


def draw_projections(desk: FigureContext, image: dict[str, Any]) -> Iterator[CaptionedFigure]:
    """The projections of one image, on as many plates as keep each of a size to be opened.

    Of a large input not all units are drawn: the first of each layer, which together have LARGE values.
    """
    projections = desk.projections[image["name"]]
    scales = make_projection_scales(desk, [image["name"]])
    sizes = {key: projections[key].shape for key in list_projection_keys(projections)}
    share = MAX_VALUES / max(MAX_VALUES, sum(map(math.prod, sizes.values())))
    drawn = {key: max(min(MIN_UNITS, shape[0]), int(shape[0] * share)) for key, shape in sizes.items()}
    parts: list[list[str]] = []
    room = 0
    for _, group in groupby(sizes, key=lambda key: key.partition("@")[0]):
        keys = list(group)
        size = sum(drawn[key] * math.prod(sizes[key][1:]) for key in keys)
        if size > room:
            parts.append([])
            room = MAX_VALUES
        parts[-1] += keys
        room -= size
    for number, keys in enumerate(parts, 1):
        given = {key: drawn[key] for key in keys}
        yield _draw_projection_part(desk, image, scales, given, f"+{number}" if number > 1 else "")


def _draw_projection_part(
    desk: FigureContext, image: dict[str, Any], scales: LayerScales, drawn: dict[str, int], part: str
) -> CaptionedFigure:
    """One plate of an image's projections: a group of lines for each key, of so many units."""
    projections, keys = desk.projections[image["name"]], list(drawn)
    lines: list[TileRow] = []
    labels, bars = [], []
    for key in keys:
        layer, _, select = key.partition("@")
        array, units = projections[key][: drawn[key]], list_projected_units(projections, layer)
        dead, first = find_inactive_units(desk, image, layer), len(lines)
        for n, some in enumerate(
            split_into_chunks(range(len(array)), count_tiles_per_row(max(array.shape[2:])))
        ):
            head = desk.make_input_tile(image) if not lines else None
            tiles = [make_projection_tile(scales, key, array[i], units[i], units[i] in dead) for i in some]
            lines.append([head, *tiles])
            labels.append(f"{layer}\n{'strongest location' if select else 'whole map'}" if n == 0 else "")
        bars.append(make_colour_bar(scales, key, first, len(lines) - 1, "projection"))
    layers = _first_key_by_layer(keys)
    shown = {layer: list_projected_units(projections, layer)[: drawn[key]] for layer, key in layers.items()}
    dead_ones = sum(len(set(shown[layer]) & find_inactive_units(desk, image, layer)) for layer in layers)
    fewer = [layer for layer in layers if f"{layer}@units" in projections]
    text = (
        f"What caused each activation of {join_names(list(layers))} on {desk.describe_image(image, ', ')}: the "
        f"deconvnet's projections to the input of {format_shape(projections[keys[0]].shape[2:])} "
        f"pixels, signed, the input first. {_describe_scales(desk, scales, keys)}"
    )
    if fewer:
        text += f" Of {join_names(fewer)} the units that answer the image most, the strongest first."
    if any(drawn[key] < len(projections[key]) for key in keys):
        most = join_names([str(count) for count in sorted(set(drawn.values()))])
        text += f" For its size the plate has but the first {most} of each layer's units."
    if dead_ones:
        text += (
            f" Units dead on this image ({dead_ones}) are crossed: nowhere positive, so projected to nothing."
        )
    edge = desk.input_size * max(1, round(TILE_SIZE / desk.input_size))
    return desk.make_montage(
        "deconv", image["name"], lines, labels, bars, text, part, tile_size=edge, group_starts=(1,)
    )


def draw_cover(desk: FigureContext, images: Sequence[dict[str, Any]]) -> CaptionedFigure:
    """Each image, and below it what caused the strongest activation of the deepest projected layer."""
    names = [image["name"] for image in images]
    layer, key = list(_first_key_by_layer(list_projection_keys(desk.projections[names[0]])).items())[-1]
    tops, caused = [], []
    for name in names:
        units = list_projected_units(desk.projections[name], layer)
        output = desk.activations[name][layer]
        most = output.reshape(len(output), -1).max(1)[units]
        tops.append(units[int(most.argmax())])
        caused.append(desk.projections[name][key][int(most.argmax())])
    colour = len(caused[0]) == 3
    bulk = [symmetric_percentile_range(array) for array in caused] if colour else caused
    scales = LayerScales("per_layer", {key: bulk}, signed=True, as_rgb=colour)
    tiles: TileRow = [
        make_projection_tile(scales, key, values, unit, unit in find_inactive_units(desk, image, layer))
        for image, values, unit in zip(images, caused, tops, strict=True)
    ]
    lines: list[TileRow] = [[desk.make_input_tile(image, image["name"]) for image in images], tiles]
    labels = ["input", f"the unit of\n{layer} that\nanswers most"]
    what = "strongest location" if "@" in key else "whole map"
    text = (
        f"{join_names(names)}, and below each what caused the strongest activation of {layer}: its unit's "
        f"{what}, projected to the pixels by the deconvnet. {scales.describe(key, 'projections')}"
        f"{' ' + CLIPPING_NOTE if colour else ''}"
    )
    bars = [make_colour_bar(scales, key, 1, 1, "projection")]
    return desk.make_montage("cover", "", lines, labels, bars, text, tile_size=2 * TILE_SIZE)


def draw_classical(desk: FigureContext, image: dict[str, Any]) -> CaptionedFigure:
    """A classical feature of the image a row, and the learned maps that resemble it most."""
    found = desk.classical[image["name"]]
    lines: list[TileRow] = [[desk.make_input_tile(image)]]
    labels = [""]
    for name, words in FEATURE_CAPTIONS.items():
        values = found[name]
        scale = (
            ColourScale(0.0, 1.0, "gray")
            if name in ("brightness", "erosion", "dilation")
            else ColourScale.from_values(values)
        )
        lines.append([Tile(values, scale), *_make_match_tiles(desk, image["name"], name)])
        labels.append(words.replace(" (", "\n("))
    edge = desk.input_size * -(-MIN_LABELLED_TILE_SIZE // desk.input_size)
    text = (
        f"Classical features of {desk.describe_image(image, ', ')}, and beside each the maps of this network that "
        "resemble it most: over each the layer, the unit and the correlation r over all images looked at. A "
        f"resemblance counts from an r of {desk.match_threshold:g}, above what 95 % of an untrained network's "
        "units reach; a row without maps has none. What a normalisation only rescales is shown once. Each "
        "tile has a scale of its own, signed ones with white for zero."
    )
    return desk.make_montage(
        "classical", image["name"], lines, labels, [], text, tile_size=edge, group_starts=(1,)
    )


def _make_match_tiles(desk: FigureContext, image: str, feature: str) -> list[Tile]:
    """The maps, of any layer, whose best match is a feature or one of its halves, the likest first."""
    found = [
        (match["r"], layer, unit)
        for layer, like in desk.unit_matches.items()
        for unit, match in enumerate(like["units"])
        if match and match["feature"].rstrip("+-") == feature
    ]
    found.sort(key=lambda entry: -abs(entry[0]))
    tiles: list[Tile] = []
    shown: list[tuple[float, int]] = []
    for r, layer, unit in found:
        if len(shown) == MAX_MATCHES:
            break
        if any(unit == u and abs(abs(r) - abs(other)) < DUPLICATE_TOLERANCE for other, u in shown):
            continue  # as a normalisation's, which is the convolution's on another scale
        shown.append((r, unit))
        values = desk.activations[image][layer][unit]
        tiles.append(
            Tile(values, ColourScale.from_values(values), f"unit {unit}", f"{r:.2f}".replace("-", "−"), layer)
        )
    return tiles


def make_projection_tile(scales: LayerScales, key: str, values: Array, unit: int, dead: bool) -> Tile:
    """The tile of one projection (C, H, W), signed: one channel in colours, or three as RGB about grey."""
    if dead:
        return Tile(values[0], scales.for_layer(key), str(unit), "dead", crossed_out=True)
    if not scales.as_rgb:
        return make_tile(scales, key, values[0], unit)
    drawn = make_rgb_tile(scales, key, values, unit)
    return replace(drawn, values=0.5 + np.round((drawn.values - 0.5) * 255 / RGB_STEP) * RGB_STEP / 255)


def make_projection_scales(desk: FigureContext, images: Sequence[str]) -> LayerScales:
    """The scales of the projections of these images together; where all share one, of all images."""
    of_images = list(desk.projections) if desk.views["scale"] == "shared" else images
    keys = list_projection_keys(desk.projections[images[0]])
    colour = desk.projections[images[0]][keys[0]].shape[1] == 3
    ends = symmetric_percentile_range if colour else value_range
    layers = {key: [ends(desk.projections[name][key]) for name in of_images] for key in keys}
    return LayerScales(desk.views["scale"], layers, signed=True, as_rgb=colour)


def symmetric_percentile_range(array: Array) -> Array:
    """The ends between which 99 % of the values lie that are not zero: a few beyond would grey all others."""
    there = np.abs(array[array != 0])
    end = np.percentile(there, 99) if there.size else 0.0
    return np.array([-end, end])


def _describe_scales(desk: FigureContext, scales: LayerScales, keys: list[str]) -> str:
    """What a caption says of the scales of projections, and of how they were made."""
    words = scales.describe(keys[0], "projections")
    if scales.mode == "per_layer":
        words = f"Each group has the scale beside it: {scales.for_layer(keys[0]).description}."
    if scales.as_rgb and scales.mode != "per_tile":
        words += f" {CLIPPING_NOTE}"
    if desk.views["deconv"]["rectify"]:
        words += " Rectified at activations that are not a ReLU too, where the method is undefined."
    return words


def find_inactive_units(desk: FigureContext, image: dict[str, Any], layer: str) -> set[int]:
    """The units of a layer that are nowhere positive on an image."""
    output = desk.activations[image["name"]][layer]
    return set(np.flatnonzero(output.reshape(len(output), -1).max(1) <= 0).tolist())


def list_projection_keys(projections: Mapping[str, Array]) -> list[str]:
    """The keys of an image's projections, those apart that number the units."""
    return [key for key in projections if not key.endswith("@units")]


def _first_key_by_layer(keys: Sequence[str]) -> dict[str, str]:
    """The first key of each projected layer, whichever way its units were selected."""
    layers: dict[str, str] = {}
    for key in keys:
        layers.setdefault(key.partition("@")[0], key)
    return layers


def list_projected_units(projections: Mapping[str, Array], layer: str) -> list[int]:
    """The numbers of a layer's projected units, in the order in which they are kept."""
    if f"{layer}@units" in projections:
        return projections[f"{layer}@units"].tolist()
    key = next(key for key in projections if key.partition("@")[0] == layer)
    return list(range(len(projections[key])))
