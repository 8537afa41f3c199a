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
from convatlas.image_io import denormalize
from convatlas.layer_selection import choose_layers
from convatlas.names import describe_image, join_names
from convatlas.plotting.colormap import ColourScale, LayerScales
from convatlas.plotting.labelled_figure import ColourBar, caption_height, make_montage_figure
from convatlas.plotting.montage import GAP, TILE_SIZE, Tile, assemble_montage

log = logging.getLogger(__name__)

MAX_COLUMNS = 16  # tiles a line
MAX_ROW_WIDTH = MAX_COLUMNS * (TILE_SIZE + GAP)  # pixels that a line of tiles may take
TileRow = list[Tile | None]
Array = np.ndarray
Item = TypeVar("Item")


@dataclass(frozen=True)
class CaptionedFigure:
    """One plate: where it goes, what it is, and the drawing."""

    file: str
    kind: str  # a key of gallery.KINDS
    subject: str  # the layer, or the image of a deconv or classical plate
    caption: str
    alt: str
    figure: Figure = field(repr=False)
    cells: dict[str, Any] | None = None  # where its tiles lie, of a plate that pages take apart

    def to_dict(self, pdf: bool) -> dict[str, Any]:
        """Its entry in figures/figures.json, from which the pages are made."""
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


class FigureContext:
    """The folder results/<network>/, as the config's `views` ask for it; `name` is the network's.

    Arrays are read when they are drawn, so that memory is that of a layer or of an image's projections.
    """

    def __init__(self, folder: Path, name: str, views: dict[str, Any]) -> None:
        self.folder, self.name, self.views = folder, name, views
        self.figure_count = 0
        self.logged: set[str] = set()
        self.network = read_json(folder / "network.json")
        self.metrics = read_json(folder / "metrics.json")
        self.layers = {layer["name"]: layer for layer in read_json(folder / "layers.json")}
        self.filters = Npz(folder / "filters.npz")
        like = read_json(folder / "classical/units.json")
        self.unit_matches, self.match_threshold = like["layers"], like["threshold"]
        self.filter_matches = read_json(folder / "classical/filters.json")
        follows = views.get("strongest") is not None and self.network["dataset"]
        self.statistics_summary: dict[str, Any] | None = (
            read_json(folder / "statistics.json") if follows else None
        )
        masks = folder / "masks/masks.json"  # of a network whose data set has masks
        self.masks: dict[str, Any] | None = read_json(masks) if masks.is_file() else None
        with (folder / "history.csv").open() as file:
            self.history = list(csv.DictReader(file))
        self.all_images = read_json(folder / "images.json")
        self.images = self.all_images[: self.limit_count(views["n_images"], len(self.all_images), "images")]
        names = [image["name"] for image in self.all_images]
        self.activations = {name: Npz(folder / f"activations/{name}.npz") for name in names}
        self.projections = {name: Npz(folder / f"deconv/{name}.npz") for name in names}
        self.classical = {name: Npz(folder / f"classical/{name}.npz") for name in names}
        key = f"networks.{name}.views.layers"
        self.layer_names = choose_layers(list(self.layers.values()), views["layers"], key)
        self.highlighted_layers = self._choose_layers("highlight")
        self.conv_names = [layer for layer in self.layer_names if self.layers[layer]["module"] in self.filters
                      and self.layers[layer]["kind"] == "conv"]  # fmt: skip

    def _choose_layers(self, key: str) -> list[str]:
        """The layers that a key of the views names, none where it is absent."""
        wanted = self.views.get(key)
        named = f"networks.{self.name}.views.{key}"
        return choose_layers(list(self.layers.values()), wanted, named) if wanted else []

    # What there is

    @cached_property
    def segmentation_examples(self) -> Npz:
        """Photographs with their truth and prediction, of a network that segments."""
        return Npz(self.folder / "masks/examples.npz")

    def output_ndim(self, layer: str) -> int:
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

    def has_rgb_filters(self, layer: str) -> bool:
        """Whether a layer's filters look at the image's own red, green and blue."""
        return self.layers[layer]["ordinal"] == 1 and self.weight(layer).shape[1] == 3

    def make_weight_scales(self, layer: str) -> LayerScales:
        """The scales of a layer's filters."""
        if self.views["scale"] == "shared":
            return self._shared_weight_scales
        return LayerScales(self.views["scale"], {layer: [self.weight(layer)]}, signed=True)

    def make_map_scales(self, layer: str) -> LayerScales:
        """The scales of a layer's maps."""
        if self.views["scale"] == "shared":
            return self._shared_map_scales
        return LayerScales(self.views["scale"], {layer: self.outputs(layer)})

    @cached_property
    def _shared_weight_scales(self) -> LayerScales:
        return LayerScales(
            "shared", {layer: [value_range(self.weight(layer))] for layer in self.conv_names}, signed=True
        )

    @cached_property
    def _shared_map_scales(self) -> LayerScales:
        spatial = [layer for layer in self.layer_names if self.output_ndim(layer) == 3]
        return LayerScales(
            "shared", {layer: [value_range(a) for a in self.outputs(layer)] for layer in spatial}
        )

    def select_units(self, layer: str, available: int) -> range:
        """The units of a layer that are drawn."""
        return range(self.limit_count(self.views["n_filters"], available, f"units in {layer}"))

    def limit_count(self, requested: int | str, available: int, what: str) -> int:
        """What can be drawn of what is wanted; says so in the log, once, where that is less."""
        if isinstance(requested, int) and requested > available and what not in self.logged:
            self.logged.add(what)
            log.info("%d %s asked for, there are %d: all are drawn", requested, what, available)
        return available if requested == "all" else min(int(requested), available)

    # Words

    @property
    def joined_image_names(self) -> str:
        return join_names([image["name"] for image in self.images])

    def describe_image(self, image: dict[str, Any], separator: str) -> str:
        """An image's name, its class and the network's prediction."""
        return describe_image(image, self.network, separator)

    def make_caption(self, text: str) -> str:
        """Number a plate and say whose it is."""
        self.figure_count += 1
        return f"Plate {self.figure_count}. {self.name}. {text}"

    # Tiles and plates

    @property
    def input_size(self) -> int:
        """The side of the input, in pixels."""
        return self.network["preprocessing"]["size"]

    def make_input_tile(self, image: dict[str, Any], title: str = "input") -> Tile:
        """The input as the network saw it, (C, H, W), its normalisation undone: grey or RGB in 0..1."""
        x = self.activations[image["name"]]["input"]
        pixels = np.clip(denormalize(x, self.network["preprocessing"]), 0, 1)
        if len(pixels) == 3:
            return Tile(pixels.transpose(1, 2, 0), title=title)
        return Tile(pixels[0], ColourScale(0.0, 1.0, "gray"), title=title)

    def make_montage(
        self,
        kind: str,
        subject: str,
        rows: list[TileRow],
        labels: list[str],
        bars: list[ColourBar],
        text: str,
        suffix: str = "",
        **layout: Any,
    ) -> CaptionedFigure:
        """A plate of tiles; `layout` is as in montage.assemble."""
        caption = self.make_caption(text)
        figure = make_montage_figure(assemble_montage(rows, **layout), labels, bars, caption)
        return self.make_figure(kind, subject, caption, figure, suffix)

    def make_figure(
        self, kind: str, subject: str, caption: str, figure: Figure, suffix: str = ""
    ) -> CaptionedFigure:
        """Name a drawing's file and give it its text for those who cannot see it.

        `part` tells the plates of one kind and subject apart; no image's name ends as it does.
        """
        stem = "-".join(filter(None, (kind, subject.replace("/", "+").replace(":", "~")))) + suffix
        alt = caption.removeprefix(f"Plate {self.figure_count}. {self.name}. ").partition(". ")[0]
        return CaptionedFigure(f"{stem}.png", kind, subject, caption, alt, figure)


def make_tile(
    scales: LayerScales, layer: str, values: Array, unit: int | str, right_title: str = "", note: str = ""
) -> Tile:
    """The tile of one unit; where tiles have scales of their own, it tells where its own ends."""
    scale = scales.for_tile(layer, values)
    if scales.mode == "per_tile":
        end = (scale.high or scale.low) if values.any() else 0
        right_title = f"{right_title} {end:.2g}".strip()
    return Tile(values, scale, str(unit), right_title, note)


def make_dense_tile(scales: LayerScales, layer: str, values: Array, _: int) -> Tile:
    """The tile of one unit on a dense plate, where nothing is printed above it."""
    return Tile(values, scales.for_tile(layer, values))


def make_rgb_tile(scales: LayerScales, key: str, values: Array, unit: int | str, note: str = "") -> Tile:
    """The tile of signed values of three channels, (3, H, W), as colours about grey."""
    pixels = 0.5 + values.transpose(1, 2, 0) / (2 * scales.for_tile(key, values).high)
    return replace(make_tile(scales, key, values, unit, "", note), values=pixels, scale=None)


def make_colour_bar(scales: LayerScales, layer: str, first: int, last: int, label: str) -> ColourBar:
    return ColourBar(first, last, scales.for_layer(layer), label, scales.end_labels(layer))


def split_into_chunks(units: Sequence[Item], size: int = MAX_COLUMNS) -> list[Sequence[Item]]:
    return [units[start : start + size] for start in range(0, len(units), size)]


def count_tiles_per_row(side: int) -> int:
    """How many tiles of `side` pixels a line holds."""
    return max(4, min(MAX_COLUMNS, MAX_ROW_WIDTH // (max(side, TILE_SIZE) + GAP)))


def format_unit_range(units: Sequence[int]) -> str:
    return str(units[0]) if len(units) == 1 else f"{units[0]}–{units[-1]}"


def format_shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def value_range(array: Array) -> Array:
    """The least and the greatest value, which are all that a scale needs of an array."""
    return np.array([array.min(), array.max()]) if array.size else array
