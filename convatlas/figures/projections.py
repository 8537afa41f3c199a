"""Plates of one image: what caused its activations, and what its maps resemble."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from convatlas.analysis.features import WORDS
from convatlas.figures.context import (
    Array,
    Desk,
    Line,
    Plate,
    bar,
    by,
    chunks,
    ends_of,
    fitting,
    in_colour,
    listed,
    tile,
)
from convatlas.plotting.colormap import Scale, Scales
from convatlas.plotting.montage import EDGE, Tile
from convatlas.plotting.top_activation_tiles import STEP

LARGE = 3_200_000  # values of an image's projections that are drawn, which make some 2 MB
FEWEST = 2  # units of a layer, however large
LIKE = 7  # maps beside each classical feature
WIDE = 168  # pixels of a tile that has a layer's name over it, at least
BEYOND = "One value in a hundred lies beyond the ends and is drawn as they are."
NEAR = 0.005  # what two layers' correlations of one unit differ by, where both are shown


def deconv(desk: Desk, image: dict[str, Any]) -> Iterator[Plate]:
    """The projections of one image, on as many plates as keep each of a size to be opened.

    Of a large input not all units are drawn: the first of each layer, which together have LARGE values.
    """
    projections = desk.projections[image["name"]]
    scales = projection_scales(desk, [image["name"]])
    sizes = {key: projections[key].shape for key in keys_of(projections)}
    share = LARGE / max(LARGE, sum(map(math.prod, sizes.values())))
    drawn = {key: max(min(FEWEST, shape[0]), int(shape[0] * share)) for key, shape in sizes.items()}
    parts: list[list[str]] = []
    room = 0
    for _, group in groupby(sizes, key=lambda key: key.partition("@")[0]):
        keys = list(group)
        size = sum(drawn[key] * math.prod(sizes[key][1:]) for key in keys)
        if size > room:
            parts.append([])
            room = LARGE
        parts[-1] += keys
        room -= size
    for number, keys in enumerate(parts, 1):
        given = {key: drawn[key] for key in keys}
        yield _deconv(desk, image, scales, given, f"+{number}" if number > 1 else "")


def _deconv(desk: Desk, image: dict[str, Any], scales: Scales, drawn: dict[str, int], part: str) -> Plate:
    """One plate of an image's projections: a group of lines for each key, of so many units."""
    projections, keys = desk.projections[image["name"]], list(drawn)
    lines: list[Line] = []
    labels, bars = [], []
    for key in keys:
        layer, _, select = key.partition("@")
        array, units = projections[key][: drawn[key]], units_of(projections, layer)
        dead, first = dead_units(desk, image, layer), len(lines)
        for n, some in enumerate(chunks(range(len(array)), fitting(max(array.shape[2:])))):
            head = desk.input(image) if not lines else None
            tiles = [projection(scales, key, array[i], units[i], units[i] in dead) for i in some]
            lines.append([head, *tiles])
            labels.append(f"{layer}\n{'strongest location' if select else 'whole map'}" if n == 0 else "")
        bars.append(bar(scales, key, first, len(lines) - 1, "projection"))
    layers = _layers(keys)
    shown = {layer: units_of(projections, layer)[: drawn[key]] for layer, key in layers.items()}
    dead_ones = sum(len(set(shown[layer]) & dead_units(desk, image, layer)) for layer in layers)
    fewer = [layer for layer in layers if f"{layer}@units" in projections]
    text = (
        f"What caused each activation of {listed(list(layers))} on {desk.seen_as(image, ', ')}: the "
        f"deconvnet's projections to the input of {by(projections[keys[0]].shape[2:])} "
        f"pixels, signed, the input first. {_words_of(desk, scales, keys)}"
    )
    if fewer:
        text += f" Of {listed(fewer)} the units that answer the image most, the strongest first."
    if any(drawn[key] < len(projections[key]) for key in keys):
        most = listed([str(count) for count in sorted(set(drawn.values()))])
        text += f" For its size the plate has but the first {most} of each layer's units."
    if dead_ones:
        text += (
            f" Units dead on this image ({dead_ones}) are crossed: nowhere positive, so projected to nothing."
        )
    edge = desk.side * max(1, round(EDGE / desk.side))
    return desk.montage("deconv", image["name"], lines, labels, bars, text, part, edge=edge, apart=(1,))


def cover(desk: Desk, images: Sequence[dict[str, Any]]) -> Plate:
    """Each image, and below it what caused the strongest activation of the deepest projected layer."""
    names = [image["name"] for image in images]
    layer, key = list(_layers(keys_of(desk.projections[names[0]])).items())[-1]
    tops, caused = [], []
    for name in names:
        units = units_of(desk.projections[name], layer)
        output = desk.activations[name][layer]
        most = output.reshape(len(output), -1).max(1)[units]
        tops.append(units[int(most.argmax())])
        caused.append(desk.projections[name][key][int(most.argmax())])
    colour = len(caused[0]) == 3
    bulk = [bulk_of(array) for array in caused] if colour else caused
    scales = Scales("per_layer", {key: bulk}, signed=True, in_colour=colour)
    tiles: Line = [
        projection(scales, key, values, unit, unit in dead_units(desk, image, layer))
        for image, values, unit in zip(images, caused, tops, strict=True)
    ]
    lines: list[Line] = [[desk.input(image, image["name"]) for image in images], tiles]
    labels = ["input", f"the unit of\n{layer} that\nanswers most"]
    what = "strongest location" if "@" in key else "whole map"
    text = (
        f"{listed(names)}, and below each what caused the strongest activation of {layer}: its unit's "
        f"{what}, projected to the pixels by the deconvnet. {scales.words(key, 'projections')}"
        f"{' ' + BEYOND if colour else ''}"
    )
    bars = [bar(scales, key, 1, 1, "projection")]
    return desk.montage("cover", "", lines, labels, bars, text, edge=2 * EDGE)


def classical(desk: Desk, image: dict[str, Any]) -> Plate:
    """A classical feature of the image a row, and the learned maps that resemble it most."""
    found = desk.classical[image["name"]]
    lines: list[Line] = [[desk.input(image)]]
    labels = [""]
    for name, words in WORDS.items():
        values = found[name]
        scale = Scale(0.0, 1.0, "gray") if name in ("brightness", "erosion", "dilation") else Scale.of(values)
        lines.append([Tile(values, scale), *_likest(desk, image["name"], name)])
        labels.append(words.replace(" (", "\n("))
    edge = desk.side * -(-WIDE // desk.side)
    text = (
        f"Classical features of {desk.seen_as(image, ', ')}, and beside each the maps of this network that "
        "resemble it most: over each the layer, the unit and the correlation r over all images looked at. A "
        f"resemblance counts from an r of {desk.least_like:g}, above what 95 % of an untrained network's "
        "units reach; a row without maps has none. What a normalisation only rescales is shown once. Each "
        "tile has a scale of its own, signed ones with white for zero."
    )
    return desk.montage("classical", image["name"], lines, labels, [], text, edge=edge, apart=(1,))


def _likest(desk: Desk, image: str, feature: str) -> list[Tile]:
    """The maps, of any layer, whose best match is a feature or one of its halves, the likest first."""
    found = [
        (match["r"], layer, unit)
        for layer, like in desk.units_like.items()
        for unit, match in enumerate(like["units"])
        if match and match["feature"].rstrip("+-") == feature
    ]
    found.sort(key=lambda entry: -abs(entry[0]))
    tiles: list[Tile] = []
    shown: list[tuple[float, int]] = []
    for r, layer, unit in found:
        if len(shown) == LIKE:
            break
        if any(unit == u and abs(abs(r) - abs(other)) < NEAR for other, u in shown):
            continue  # as a normalisation's, which is the convolution's on another scale
        shown.append((r, unit))
        values = desk.activations[image][layer][unit]
        tiles.append(Tile(values, Scale.of(values), f"unit {unit}", f"{r:.2f}".replace("-", "−"), layer))
    return tiles


def projection(scales: Scales, key: str, values: Array, unit: int, dead: bool) -> Tile:
    """The tile of one projection (C, H, W), signed: one channel in colours, or three as RGB about grey."""
    if dead:
        return Tile(values[0], scales.of(key), str(unit), "dead", crossed=True)
    if not scales.in_colour:
        return tile(scales, key, values[0], unit)
    drawn = in_colour(scales, key, values, unit)
    return replace(drawn, values=0.5 + np.round((drawn.values - 0.5) * 255 / STEP) * STEP / 255)


def projection_scales(desk: Desk, images: Sequence[str]) -> Scales:
    """The scales of the projections of these images together; where all share one, of all images."""
    of_images = list(desk.projections) if desk.views["scale"] == "shared" else images
    keys = keys_of(desk.projections[images[0]])
    colour = desk.projections[images[0]][keys[0]].shape[1] == 3
    ends = bulk_of if colour else ends_of
    layers = {key: [ends(desk.projections[name][key]) for name in of_images] for key in keys}
    return Scales(desk.views["scale"], layers, signed=True, in_colour=colour)


def bulk_of(array: Array) -> Array:
    """The ends between which 99 % of the values lie that are not zero: a few beyond would grey all others."""
    there = np.abs(array[array != 0])
    end = np.percentile(there, 99) if there.size else 0.0
    return np.array([-end, end])


def _words_of(desk: Desk, scales: Scales, keys: list[str]) -> str:
    """What a caption says of the scales of projections, and of how they were made."""
    words = scales.words(keys[0], "projections")
    if scales.choice == "per_layer":
        words = f"Each group has the scale beside it: {scales.of(keys[0]).words}."
    if scales.in_colour and scales.choice != "per_tile":
        words += f" {BEYOND}"
    if desk.views["deconv"]["rectify"]:
        words += " Rectified at activations that are not a ReLU too, where the method is undefined."
    return words


def dead_units(desk: Desk, image: dict[str, Any], layer: str) -> set[int]:
    """The units of a layer that are nowhere positive on an image."""
    output = desk.activations[image["name"]][layer]
    return set(np.flatnonzero(output.reshape(len(output), -1).max(1) <= 0).tolist())


def keys_of(projections: Mapping[str, Array]) -> list[str]:
    """The keys of an image's projections, those apart that number the units."""
    return [key for key in projections if not key.endswith("@units")]


def _layers(keys: Sequence[str]) -> dict[str, str]:
    """The first key of each projected layer, whichever way its units were selected."""
    layers: dict[str, str] = {}
    for key in keys:
        layers.setdefault(key.partition("@")[0], key)
    return layers


def units_of(projections: Mapping[str, Array], layer: str) -> list[int]:
    """The numbers of a layer's projected units, in the order in which they are kept."""
    if f"{layer}@units" in projections:
        return projections[f"{layer}@units"].tolist()
    key = next(key for key in projections if key.partition("@")[0] == layer)
    return list(range(len(projections[key])))
