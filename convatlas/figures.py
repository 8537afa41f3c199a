"""The plates of one network: which are drawn, from which arrays, on which scale, with which caption."""

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from convatlas import charts
from convatlas.files import read_json, read_npz
from convatlas.montage import EDGE, Tile, assemble
from convatlas.names import choose_layers
from convatlas.plates import Bar, caption_height, montage_plate
from convatlas.scales import Scale, Scales

log = logging.getLogger(__name__)

COLUMNS = 16  # tiles a line
FEW = 8  # input channels of a filter that are all shown
Line = list[Tile | None]


@dataclass(frozen=True)
class Plate:
    """One plate: where it goes, what it is, and the drawing."""

    file: str
    kind: str  # cover, curves, confusion, filters, maps, values, pairs or deconv
    subject: str  # the layer, or the image of a deconv plate
    caption: str
    alt: str
    figure: Figure = field(repr=False)

    def described(self, pdf: bool) -> dict[str, Any]:
        """Its entry in figures/plates.json, from which the pages are made."""
        width, height = self.figure.get_size_inches() * self.figure.dpi
        return {
            "file": self.file,
            "pdf": self.file.replace(".png", ".pdf") if pdf else None,
            "kind": self.kind,
            "subject": self.subject,
            "caption": self.caption,
            "alt": self.alt,
            "width": round(width),
            "height": round(height),
            "caption_height": caption_height(self.caption, round(width)),
        }


class Drawer:
    """Draws the plates of results/<network>/ as the config's `views` ask; `name` is the network's."""

    def __init__(self, folder: Path, name: str, views: dict[str, Any]) -> None:
        self.name, self.views = name, views
        self.plates = 0
        self.said: set[str] = set()
        self.network = read_json(folder / "network.json")
        self.metrics = read_json(folder / "metrics.json")
        self.layers = {layer["name"]: layer for layer in read_json(folder / "layers.json")}
        self.filters = read_npz(folder / "filters.npz")
        with (folder / "history.csv").open() as file:
            self.history = list(csv.DictReader(file))
        self.every_image = read_json(folder / "images.json")
        self.images = self.every_image[: self._at_most(views["n_images"], len(self.every_image), "images")]
        names = [image["name"] for image in self.every_image]
        self.activations = {name: read_npz(folder / f"activations/{name}.npz") for name in names}
        self.projections = {name: read_npz(folder / f"deconv/{name}.npz") for name in names}
        key = f"networks.{name}.views.layers"
        self.chosen = choose_layers(list(self.layers.values()), views["layers"], key)
        self.convs = [layer for layer in self.chosen if self.layers[layer]["kind"] == "conv"]

    def draw(self) -> Iterator[Plate]:
        """Draw every plate, in the order in which the pages show them."""
        projected = [image for image in self.every_image if self.projections[image["name"]]]
        if projected:
            yield self._cover(projected[:5])
        if self.history:
            yield self._curves()
        if "confusion" in self.metrics:
            yield self._confusion()
        yield from self._layers()
        for image in projected:
            yield self._deconv(image)

    def _layers(self) -> Iterator[Plate]:
        show = self.views["show"]
        if show == "filters" and (without := [name for name in self.chosen if name not in self.convs]):
            having = [name for name, layer in self.layers.items() if layer["kind"] == "conv"]
            log.info("no filters in %s; the layers that have them: %s", _listed(without), _listed(having))
        for layer in self.chosen:
            if layer in self.convs and show != "maps":
                yield self._filters(layer)
            if show != "filters":
                yield self._maps(layer) if self._is_spatial(layer) else self._values(layer)
            if layer in self.convs and show == "both":
                yield self._pairs(layer)

    def _is_spatial(self, layer: str) -> bool:
        return len(self.layers[layer]["output_shape"]) == 3

    def _outputs(self, layer: str) -> list[np.ndarray]:
        """What a layer makes of each image drawn, (units, ...)."""
        return [self.activations[image["name"]][layer] for image in self.images]

    @property
    def _names(self) -> str:
        return _listed([image["name"] for image in self.images])

    def _weight(self, layer: str) -> np.ndarray:
        """A layer's filters, (units, channels, ...), as a transposed convolution does not keep them."""
        weight = self.filters[self.layers[layer]["module"]]
        return weight.swapaxes(0, 1) if "Transpose" in self.layers[layer]["type"] else weight

    @cached_property
    def _weight_scales(self) -> Scales:
        return Scales(
            self.views["scale"], {layer: [self._weight(layer)] for layer in self.convs}, signed=True
        )

    @cached_property
    def _map_scales(self) -> Scales:
        spatial = [layer for layer in self.chosen if self._is_spatial(layer)]
        return Scales(self.views["scale"], {layer: self._outputs(layer) for layer in spatial})

    # Plates of a layer

    def _filters(self, layer: str) -> Plate:
        """Units side by side, an input channel a line."""
        weight, scales = self._weight(layer), self._weight_scales
        units = self._units(layer, len(weight))
        channels, view = _channels(weight[units])
        lines: list[Line] = []
        labels = []
        for part in _chunks(units):
            for channel in channels:
                lines.append([_tile(scales, layer, weight[unit, channel], unit) for unit in part])
                labels.append(f"channel {channel}")
        text = (
            f"The filters of {layer}: units {_span(units)} of {len(weight)}, each {_by(weight.shape[2:])} "
            f"over {view}. {scales.words(layer)}"
        )
        bar = _bar(scales, layer, 0, len(lines) - 1, "weight")
        return self._montage("filters", layer, lines, labels, [bar], text)

    def _maps(self, layer: str) -> Plate:
        """An image a row, the input first, then its maps."""
        scales = self._map_scales
        shape = self.layers[layer]["output_shape"]
        units = self._units(layer, shape[0])
        lines: list[Line] = []
        labels = []
        for image, maps in zip(self.images, self._outputs(layer), strict=True):
            for n, part in enumerate(_chunks(units)):
                head = self._input(image) if n == 0 else None
                lines.append([head, *(_tile(scales, layer, maps[unit], unit) for unit in part)])
                labels.append(self._seen_as(image, "\n") if n == 0 else "")
        text = (
            f"The feature maps of {layer} ({self.layers[layer]['type']}): units {_span(units)} of "
            f"{shape[0]}, each {_by(shape[1:])}, a row an image: {self._names}; the input first. "
            f"{scales.words(layer)}"
        )
        bar = _bar(scales, layer, 0, len(lines) - 1, "activation")
        return self._montage("maps", layer, lines, labels, [bar], text)

    def _pairs(self, layer: str) -> Plate:
        """A unit a row: its filter, then its map of each image."""
        weight, weights, maps = self._weight(layer), self._weight_scales, self._map_scales
        outputs = self._outputs(layer)
        units = self._units(layer, len(weight))
        channels, view = _channels(weight[units])
        lines: list[Line] = [[None] * len(channels) + [self._input(image) for image in self.images]]
        for unit in units:
            kernels = [_tile(weights, layer, weight[unit, c], unit, f"ch {c}") for c in channels]
            lines.append([*kernels, *(_tile(maps, layer, output[unit], unit) for output in outputs)])
        half = max(1, len(lines) // 2)
        bars = [
            _bar(weights, layer, 0, half - 1, "weight"),
            _bar(maps, layer, half, len(lines) - 1, "activation"),
        ]
        text = (
            f"Each filter of {layer} beside its own maps: at the left {_by(weight.shape[2:])} weights over "
            f"{view}, at the right what they make of {self._names}, "
            f"bias added, before any activation. "
            f"{weights.words(layer, 'weights')} {maps.words(layer, 'maps')}"
        )
        return self._montage("pairs", layer, lines, ["input", *(f"unit {u}" for u in units)], bars, text)

    def _values(self, layer: str) -> Plate:
        """A layer without spatial axes: bars where there are few units, else strips."""
        values = np.stack([output.ravel() for output in self._outputs(layer)])
        count, classes = values.shape[1], self.network["classes"]
        titles = [self._seen_as(image, "   ") for image in self.images]
        text = f"The {count} values of {layer} ({self.layers[layer]['type']}) on {self._names}. "
        if count > charts.FEW:
            scale = Scale.of(values)
            text += f"Each line has {charts.STRIP} units, the first of them at its left: {scale.words}."
            caption = self._caption(text)
            return self._plate("values", layer, caption, charts.strips(values, titles, scale, caption))
        named = count == len(classes)
        caption = self._caption(
            text + "One axis for all" + ("; the prediction is coloured." if named else ".")
        )
        marked = [image["prediction"] if named else None for image in self.images]
        names = classes if named else [str(unit) for unit in range(count)]
        return self._plate("values", layer, caption, charts.bars(values, names, titles, marked, caption))

    # Plates of an image and of the network

    def _projection_scales(self, image: str) -> Scales:
        """The scales of an image's projections; where all share one, so do all images."""
        of_images = list(self.projections) if self.views["scale"] == "shared" else [image]
        keys = self.projections[image]
        layers = {key: [self.projections[name][key] for name in of_images] for key in keys}
        in_colour = next(iter(keys.values())).shape[1] == 3
        return Scales(self.views["scale"], layers, signed=True, in_colour=in_colour)

    def _dead(self, image: dict[str, Any], layer: str) -> set[int]:
        """The units of a layer that are nowhere positive on an image."""
        output = self.activations[image["name"]][layer]
        return set(np.flatnonzero(output.reshape(len(output), -1).max(1) <= 0).tolist())

    def _deconv(self, image: dict[str, Any]) -> Plate:
        """Every projection of one image: a group of lines for each layer and selection."""
        projections = self.projections[image["name"]]
        scales = self._projection_scales(image["name"])
        lines: list[Line] = []
        labels, bars = [], []
        for key, array in projections.items():
            layer, _, select = key.partition("@")
            dead, first = self._dead(image, layer), len(lines)
            for n, part in enumerate(_chunks(range(len(array)))):
                head = self._input(image) if not lines else None
                tiles = (_projection(scales, key, array[unit], unit, unit in dead) for unit in part)
                lines.append([head, *tiles])
                labels.append(f"{layer}\n{'strongest location' if select else 'whole map'}" if n == 0 else "")
            bars.append(_bar(scales, key, first, len(lines) - 1, "projection"))
        keys = _keys(projections)
        text = (
            f"What caused each activation of {_listed(list(keys))} on {self._seen_as(image, ', ')}: the "
            f"deconvnet's projections to the input of {_by(next(iter(projections.values())).shape[2:])} "
            f"pixels, signed, the input first. {self._words_of(scales, list(projections))}"
        )
        if dead := sum(len(self._dead(image, layer)) for layer in keys):
            text += (
                f" Units dead on this image ({dead}) are crossed: nowhere positive, so projected to nothing."
            )
        return self._montage("deconv", image["name"], lines, labels, bars, text)

    def _words_of(self, scales: Scales, keys: list[str]) -> str:
        """What a caption says of the scales of projections, and of how they were made."""
        words = scales.words(keys[0], "projections")
        if scales.choice == "per_layer":
            words = f"Each group has the scale beside it: {scales.of(keys[0]).words}."
        if self.views["deconv"]["rectify"]:
            words += " Rectified at activations that are not a ReLU too, where the method is undefined."
        return words

    def _cover(self, images: Sequence[dict[str, Any]]) -> Plate:
        """Each image, and below it what caused the strongest activation of the deepest projected layer."""
        names = [image["name"] for image in images]
        layer, key = list(_keys(self.projections[names[0]]).items())[-1]
        outputs = [self.activations[name][layer] for name in names]
        strongest = [int(output.reshape(len(output), -1).max(1).argmax()) for output in outputs]
        caused = [self.projections[name][key][unit] for name, unit in zip(names, strongest, strict=True)]
        scales = Scales("per_layer", {key: caused}, signed=True, in_colour=len(caused[0]) == 3)
        tiles = [
            _projection(scales, key, values, unit, unit in self._dead(image, layer))
            for image, values, unit in zip(images, caused, strongest, strict=True)
        ]
        lines: list[Line] = [[self._input(image) for image in images], tiles]
        labels = ["input", f"the unit of\n{layer} that\nanswers most"]
        what = "strongest location" if "@" in key else "whole map"
        text = (
            f"{_listed(names)}, and below each what caused the strongest activation of {layer}: its unit's "
            f"{what}, projected to the pixels by the deconvnet. {scales.words(key, 'projections')}"
        )
        bar = _bar(scales, key, 1, 1, "projection")
        return self._montage("cover", "", lines, labels, [bar], text, edge=2 * EDGE)

    def _curves(self) -> Plate:
        training = self.network["training"]
        caption = self._caption(
            f"Training over {len(self.history)} epochs of {training['images']:,} images, and the images held "
            f"out to validate on. The weights of epoch {training['kept_epoch']} are kept."
        )
        figure = charts.curves(self.history, training["kept_epoch"], caption)
        return self._plate("curves", "", caption, figure)

    def _confusion(self) -> Plate:
        counts = np.array(self.metrics["confusion"])
        caption = self._caption(
            f"The confusion matrix on {counts.sum():,} test images, looked at once, after training: "
            f"{100 * self.metrics['accuracy']:.2f} % are right. Rows are the true class, columns the "
            "predicted; shades are shares of the row."
        )
        figure = charts.confusion(counts, self.network["classes"], caption)
        return self._plate("confusion", "", caption, figure)

    # What all plates share

    def _montage(
        self,
        kind: str,
        subject: str,
        lines: list[Line],
        labels: list[str],
        bars: list[Bar],
        text: str,
        edge: int = EDGE,
    ) -> Plate:
        caption = self._caption(text)
        figure = montage_plate(assemble(lines, edge), labels, bars, caption)
        return self._plate(kind, subject, caption, figure)

    def _caption(self, text: str) -> str:
        self.plates += 1
        return f"Plate {self.plates}. {self.name}. {text}"

    def _plate(self, kind: str, subject: str, caption: str, figure: Figure) -> Plate:
        stem = "-".join(filter(None, (kind, subject.replace("/", "+").replace(":", "~"))))
        alt = caption.removeprefix(f"Plate {self.plates}. {self.name}. ").partition(". ")[0]
        return Plate(f"{stem}.png", kind, subject, caption, alt, figure)

    def _input(self, image: dict[str, Any]) -> Tile:
        """The input as the network saw it, (C, H, W), its normalisation undone: grey or RGB in 0..1."""
        given = self.network["preprocessing"]
        mean, std = (np.array(given[key], np.float32)[:, None, None] for key in ("mean", "std"))
        pixels = np.clip(self.activations[image["name"]]["input"] * std + mean, 0, 1)
        if len(pixels) == 3:
            return Tile(pixels.transpose(1, 2, 0), number="input")
        return Tile(pixels[0], Scale(0.0, 1.0, "gray"), number="input")

    def _seen_as(self, image: dict[str, Any], between: str) -> str:
        """An image's name, its class and the network's prediction."""
        classes = self.network["classes"]
        parts = [image["name"]]
        if image["label"] is not None:
            parts.append(f"true {classes[image['label']]}")
        if image["prediction"] is not None:
            parts.append(f"predicted {classes[image['prediction']]} ({100 * image['probability']:.1f} %)")
        return between.join(parts)

    def _units(self, layer: str, there: int) -> range:
        return range(self._at_most(self.views["n_filters"], there, f"units in {layer}"))

    def _at_most(self, wanted: int | str, there: int, what: str) -> int:
        """What can be drawn of what is wanted; says so in the log, once, where that is less."""
        if isinstance(wanted, int) and wanted > there and what not in self.said:
            self.said.add(what)
            log.info("%d %s asked for, there are %d: all are drawn", wanted, what, there)
        return there if wanted == "all" else min(int(wanted), there)


def _tile(scales: Scales, layer: str, values: np.ndarray, unit: int, mark: str = "") -> Tile:
    """The tile of one unit; where tiles have scales of their own, it tells where its own ends."""
    scale = scales.of_tile(layer, values)
    if scales.choice == "per_tile":
        end = (scale.high or scale.low) if values.any() else 0
        mark = f"{mark} {end:.2g}".strip()
    return Tile(values, scale, str(unit), mark)


def _projection(scales: Scales, key: str, projection: np.ndarray, unit: int, dead: bool) -> Tile:
    """The tile of one projection (C, H, W), signed: one channel in colours, or three as RGB about grey."""
    if dead:
        return Tile(projection[0], scales.of(key), str(unit), "dead", crossed=True)
    tile = _tile(scales, key, projection, unit)
    if scales.in_colour:
        pixels = 0.5 + projection.transpose(1, 2, 0) / (2 * scales.of_tile(key, projection).high)
        return replace(tile, values=pixels, scale=None)
    return replace(tile, values=projection[0])


def _bar(scales: Scales, layer: str, first: int, last: int, label: str) -> Bar:
    return Bar(first, last, scales.of(layer), label, scales.ends(layer))


def _keys(projections: dict[str, np.ndarray]) -> dict[str, str]:
    """The first key of each projected layer, whichever way its units were selected."""
    keys: dict[str, str] = {}
    for key in projections:
        keys.setdefault(key.partition("@")[0], key)
    return keys


def _channels(weight: np.ndarray) -> tuple[list[int], str]:
    """Choose the input channels of filters (units, C, h, w) to show, and say which they are."""
    count = weight.shape[1]
    if count == 1:
        return [0], "its one input channel"
    if count <= FEW:
        return list(range(count)), f"all {count} input channels"
    norms = np.sqrt((weight.astype(np.float64) ** 2).sum((0, 2, 3)))
    chosen = sorted(np.argsort(-norms, kind="stable")[:FEW].tolist())
    return chosen, f"{FEW} of {count} input channels, those with the largest weights"


def _chunks(units: range) -> list[range]:
    return [units[start : start + COLUMNS] for start in range(0, len(units), COLUMNS)]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "none"


def _span(units: range) -> str:
    return "0" if len(units) == 1 else f"0–{len(units) - 1}"


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
