"""What the plates of one network share: the arrays they are drawn from, their numbers, captions and tiles."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

from convatlas.files import Npz, read_json
from convatlas.image_io import brightness
from convatlas.names import choose_layers, listed, seen_as
from convatlas.plotting.colormap import Scale, Scales
from convatlas.plotting.labelled_figure import Bar, caption_height, montage_plate
from convatlas.plotting.montage import EDGE, GAP, Tile, assemble

log = logging.getLogger(__name__)

COLUMNS = 16  # tiles a line
WIDTH = COLUMNS * (EDGE + GAP)  # pixels that a line of tiles may take
Line = list[Tile | None]
Array = np.ndarray
Item = TypeVar("Item")


@dataclass(frozen=True)
class Plate:
    """One plate: where it goes, what it is, and the drawing."""

    file: str
    kind: str  # a key of gallery.KINDS
    subject: str  # the layer, or the image of a deconv or classical plate
    caption: str
    alt: str
    figure: Figure = field(repr=False)
    cells: dict[str, Any] | None = None  # where its tiles lie, of a plate that pages take apart

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
        } | ({"cells": self.cells} if self.cells else {})


class Desk:
    """The folder results/<network>/, as the config's `views` ask for it; `name` is the network's.

    Arrays are read when they are drawn, so that memory is that of a layer or of an image's projections.
    """

    def __init__(self, folder: Path, name: str, views: dict[str, Any]) -> None:
        self.folder, self.name, self.views = folder, name, views
        self.plates = 0
        self.said: set[str] = set()
        self.network = read_json(folder / "network.json")
        self.metrics = read_json(folder / "metrics.json")
        self.layers = {layer["name"]: layer for layer in read_json(folder / "layers.json")}
        self.filters = Npz(folder / "filters.npz")
        like = read_json(folder / "classical/units.json")
        self.units_like, self.least_like = like["layers"], like["threshold"]
        self.filters_like = read_json(folder / "classical/filters.json")
        follows = views.get("strongest") is not None and self.network["dataset"]
        self.survey: dict[str, Any] | None = read_json(folder / "statistics.json") if follows else None
        masks = folder / "masks/masks.json"  # of a network whose data set has masks
        self.masks: dict[str, Any] | None = read_json(masks) if masks.is_file() else None
        with (folder / "history.csv").open() as file:
            self.history = list(csv.DictReader(file))
        self.every_image = read_json(folder / "images.json")
        self.images = self.every_image[: self.at_most(views["n_images"], len(self.every_image), "images")]
        names = [image["name"] for image in self.every_image]
        self.activations = {name: Npz(folder / f"activations/{name}.npz") for name in names}
        self.projections = {name: Npz(folder / f"deconv/{name}.npz") for name in names}
        self.classical = {name: Npz(folder / f"classical/{name}.npz") for name in names}
        key = f"networks.{name}.views.layers"
        self.chosen = choose_layers(list(self.layers.values()), views["layers"], key)
        self.road = self._chosen("road")
        self.convs = [layer for layer in self.chosen if self.layers[layer]["module"] in self.filters
                      and self.layers[layer]["kind"] == "conv"]  # fmt: skip

    def _chosen(self, key: str) -> list[str]:
        """The layers that a key of the views names, none where it is absent."""
        wanted = self.views.get(key)
        named = f"networks.{self.name}.views.{key}"
        return choose_layers(list(self.layers.values()), wanted, named) if wanted else []

    # What there is

    @cached_property
    def examples(self) -> Npz:
        """Photographs with their truth and prediction, of a network that segments."""
        return Npz(self.folder / "masks/examples.npz")

    def axes(self, layer: str) -> int:
        """The number of axes of a layer's output: 3 for maps, 1 for values, maps of one pixel too."""
        shape = self.layers[layer]["output_shape"]
        return len(shape) if any(side > 1 for side in shape[1:]) else 1

    def outputs(self, layer: str) -> list[Array]:
        """What a layer makes of each image drawn, (units, ...)."""
        return [self.activations[image["name"]][layer] for image in self.images]

    def weight(self, layer: str) -> Array:
        """A layer's filters, (units, channels, ...), as a transposed convolution does not keep them."""
        weight = self.filters[self.layers[layer]["module"]]
        return weight.swapaxes(0, 1) if "Transpose" in self.layers[layer]["type"] else weight

    def sees_colours(self, layer: str) -> bool:
        """Whether a layer's filters look at the image's own red, green and blue."""
        return self.layers[layer]["ordinal"] == 1 and self.weight(layer).shape[1] == 3

    def weight_scales(self, layer: str) -> Scales:
        """The scales of a layer's filters."""
        if self.views["scale"] == "shared":
            return self._shared_weights
        return Scales(self.views["scale"], {layer: [self.weight(layer)]}, signed=True)

    def map_scales(self, layer: str) -> Scales:
        """The scales of a layer's maps."""
        if self.views["scale"] == "shared":
            return self._shared_maps
        return Scales(self.views["scale"], {layer: self.outputs(layer)})

    @cached_property
    def _shared_weights(self) -> Scales:
        return Scales("shared", {layer: [ends_of(self.weight(layer))] for layer in self.convs}, signed=True)

    @cached_property
    def _shared_maps(self) -> Scales:
        spatial = [layer for layer in self.chosen if self.axes(layer) == 3]
        return Scales("shared", {layer: [ends_of(a) for a in self.outputs(layer)] for layer in spatial})

    def units(self, layer: str, there: int) -> range:
        """The units of a layer that are drawn."""
        return range(self.at_most(self.views["n_filters"], there, f"units in {layer}"))

    def at_most(self, wanted: int | str, there: int, what: str) -> int:
        """What can be drawn of what is wanted; says so in the log, once, where that is less."""
        if isinstance(wanted, int) and wanted > there and what not in self.said:
            self.said.add(what)
            log.info("%d %s asked for, there are %d: all are drawn", wanted, what, there)
        return there if wanted == "all" else min(int(wanted), there)

    # Words

    @property
    def image_names(self) -> str:
        return listed([image["name"] for image in self.images])

    def seen_as(self, image: dict[str, Any], between: str) -> str:
        """An image's name, its class and the network's prediction."""
        return seen_as(image, self.network, between)

    def caption(self, text: str) -> str:
        """Number a plate and say whose it is."""
        self.plates += 1
        return f"Plate {self.plates}. {self.name}. {text}"

    # Tiles and plates

    @property
    def side(self) -> int:
        """The side of the input, in pixels."""
        return self.network["preprocessing"]["size"]

    def input(self, image: dict[str, Any], number: str = "input") -> Tile:
        """The input as the network saw it, (C, H, W), its normalisation undone: grey or RGB in 0..1."""
        x = self.activations[image["name"]]["input"]
        pixels = np.clip(brightness(x, self.network["preprocessing"]), 0, 1)
        if len(pixels) == 3:
            return Tile(pixels.transpose(1, 2, 0), number=number)
        return Tile(pixels[0], Scale(0.0, 1.0, "gray"), number=number)

    def montage(
        self,
        kind: str,
        subject: str,
        lines: list[Line],
        labels: list[str],
        bars: list[Bar],
        text: str,
        part: str = "",
        **layout: Any,
    ) -> Plate:
        """A plate of tiles; `layout` is as in montage.assemble."""
        caption = self.caption(text)
        figure = montage_plate(assemble(lines, **layout), labels, bars, caption)
        return self.plate(kind, subject, caption, figure, part)

    def plate(self, kind: str, subject: str, caption: str, figure: Figure, part: str = "") -> Plate:
        """Name a drawing's file and give it its text for those who cannot see it.

        `part` tells the plates of one kind and subject apart; no image's name ends as it does.
        """
        stem = "-".join(filter(None, (kind, subject.replace("/", "+").replace(":", "~")))) + part
        alt = caption.removeprefix(f"Plate {self.plates}. {self.name}. ").partition(". ")[0]
        return Plate(f"{stem}.png", kind, subject, caption, alt, figure)


def tile(scales: Scales, layer: str, values: Array, unit: int | str, mark: str = "", note: str = "") -> Tile:
    """The tile of one unit; where tiles have scales of their own, it tells where its own ends."""
    scale = scales.of_tile(layer, values)
    if scales.choice == "per_tile":
        end = (scale.high or scale.low) if values.any() else 0
        mark = f"{mark} {end:.2g}".strip()
    return Tile(values, scale, str(unit), mark, note)


def small(scales: Scales, layer: str, values: Array, _: int) -> Tile:
    """The tile of one unit on a dense plate, where nothing is printed above it."""
    return Tile(values, scales.of_tile(layer, values))


def in_colour(scales: Scales, key: str, values: Array, unit: int | str, note: str = "") -> Tile:
    """The tile of signed values of three channels, (3, H, W), as colours about grey."""
    pixels = 0.5 + values.transpose(1, 2, 0) / (2 * scales.of_tile(key, values).high)
    return replace(tile(scales, key, values, unit, "", note), values=pixels, scale=None)


def bar(scales: Scales, layer: str, first: int, last: int, label: str) -> Bar:
    return Bar(first, last, scales.of(layer), label, scales.ends(layer))


def chunks(units: Sequence[Item], size: int = COLUMNS) -> list[Sequence[Item]]:
    return [units[start : start + size] for start in range(0, len(units), size)]


def fitting(side: int) -> int:
    """How many tiles of `side` pixels a line holds."""
    return max(4, min(COLUMNS, WIDTH // (max(side, EDGE) + GAP)))


def span(units: Sequence[int]) -> str:
    return str(units[0]) if len(units) == 1 else f"{units[0]}–{units[-1]}"


def by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def ends_of(array: Array) -> Array:
    """The least and the greatest value, which are all that a scale needs of an array."""
    return np.array([array.min(), array.max()]) if array.size else array
