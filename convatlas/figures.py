"""The plates of one network: which are drawn, from which arrays, on which scale, with which caption."""

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from convatlas.files import read_json, read_npz
from convatlas.montage import EDGE, Scale, Tile, assemble
from convatlas.names import choose_layers
from convatlas.plates import ACCENT, Bar, caption_height, chart_plate, montage_plate

log = logging.getLogger(__name__)

COLUMNS = 16  # tiles a line
FEW = 8  # input channels of a filter that are all shown
STRIP = 100  # values a line, where a layer without spatial axes is drawn as strips
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

    def described(self) -> dict[str, Any]:
        width, height = self.figure.get_size_inches() * self.figure.dpi
        return {
            "file": self.file,
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
        self.said: set[str] = set()
        self.network = read_json(folder / "network.json")
        self.metrics = read_json(folder / "metrics.json")
        self.layers = {layer["name"]: layer for layer in read_json(folder / "layers.json")}
        self.filters = read_npz(folder / "filters.npz")
        with (folder / "history.csv").open() as file:
            self.history = list(csv.DictReader(file))
        images = read_json(folder / "images.json")
        self.images = images[: self._at_most(views["n_images"], len(images), "images")]
        self.activations = [read_npz(folder / f"activations/{i['name']}.npz") for i in self.images]
        self.deconv = [read_npz(folder / f"deconv/{i['name']}.npz") for i in self.images]
        self.chosen = choose_layers(
            list(self.layers.values()), views["layers"], f"networks.{name}.views.layers"
        )
        self.plates = 0

    def draw(self) -> Iterator[Plate]:
        """Draw every plate, in the order in which the pages show them."""
        if any(self.deconv):
            yield self._cover()
        if self.history:
            yield self._curves()
        if "confusion" in self.metrics:
            yield self._confusion()
        yield from self._layers()
        for image, inputs, projections in zip(self.images, self.activations, self.deconv, strict=True):
            yield self._deconv(image, inputs["input"], projections)

    def _layers(self) -> Iterator[Plate]:
        show = self.views["show"]
        convs = [name for name in self.chosen if self.layers[name]["kind"] == "conv"]
        if show == "filters" and (without := [name for name in self.chosen if name not in convs]):
            having = ", ".join(n for n, layer in self.layers.items() if layer["kind"] == "conv")
            log.info("no filters in %s; the layers that have them: %s", ", ".join(without), having)
        for layer in self.chosen:
            if layer in convs and show != "maps":
                yield self._filters(layer, self._scale(self._weights(convs)))
            if show != "filters":
                spatial = self.activations[0][layer].ndim == 3
                yield self._maps(layer) if spatial else self._values(layer)
            if layer in convs and show == "both":
                yield self._pairs(layer, self._scale(self._weights(convs)))

    # Scales. Each gives a function from a layer, and the tile's values, to the tile's scale.

    def _scale(self, layers: dict[str, list[np.ndarray]]) -> "Scales":
        return Scales(self.views["scale"], layers)

    def _weights(self, convs: Sequence[str]) -> dict[str, list[np.ndarray]]:
        return {name: [self.filters[self.layers[name]["module"]]] for name in convs}

    def _outputs(self) -> dict[str, list[np.ndarray]]:
        """The maps of every chosen layer with spatial axes, image by image."""
        return {
            layer: [arrays[layer] for arrays in self.activations]
            for layer in self.chosen
            if self.activations[0][layer].ndim == 3
        }

    # Plates of a layer

    def _filters(self, layer: str, scales: "Scales") -> Plate:
        weight = self.filters[self.layers[layer]["module"]]
        units = self._units(layer, len(weight))
        channels, view = _channels(weight[units])
        lines: list[Line] = []
        labels = []
        for part in _chunks(units):
            for channel in channels:
                lines.append(
                    [Tile(weight[u, channel], scales(layer, weight[u, channel]), str(u)) for u in part]
                )
                labels.append(f"channel {channel}")
        bars = scales.bars(layer, 0, len(lines) - 1, "weight")
        text = (
            f"The filters of {layer}: units {_span(units)} of {len(weight)}, each {_by(weight.shape[2:])} "
            f"over {view}. {scales.words(layer)}"
        )
        return self._montage("filters", layer, lines, labels, bars, text)

    def _maps(self, layer: str) -> Plate:
        scales = self._scale(self._outputs())
        shape = self.activations[0][layer].shape
        units = self._units(layer, shape[0])
        lines: list[Line] = []
        labels = []
        for image, arrays in zip(self.images, self.activations, strict=True):
            for n, part in enumerate(_chunks(units)):
                head = self._input(arrays["input"]) if n == 0 else None
                maps = arrays[layer]
                lines.append([head, *(Tile(maps[u], scales(layer, maps[u]), str(u)) for u in part)])
                labels.append(self._seen_as(image) if n == 0 else "")
        bars = scales.bars(layer, 0, len(lines) - 1, "activation")
        text = (
            f"The feature maps of {layer} ({self.layers[layer]['type']}): units {_span(units)} of {shape[0]}, "
            f"each {_by(shape[1:])}, a row an image, the input first. {scales.words(layer)}"
        )
        return self._montage("maps", layer, lines, labels, bars, text)

    def _pairs(self, layer: str, weights: "Scales") -> Plate:
        maps = self._scale(self._outputs())
        weight = self.filters[self.layers[layer]["module"]]
        units = self._units(layer, len(weight))
        channels, view = _channels(weight[units])
        lines: list[Line] = [[None] * len(channels) + [self._input(a["input"]) for a in self.activations]]
        for u in units:
            kernels = [Tile(weight[u, c], weights(layer, weight[u, c]), str(u), f"ch {c}") for c in channels]
            beside = [Tile(a[layer][u], maps(layer, a[layer][u]), str(u)) for a in self.activations]
            lines.append([*kernels, *beside])
        half = len(lines) // 2
        bars = [
            *weights.bars(layer, 0, max(0, half - 1), "weight"),
            *maps.bars(layer, half, len(lines) - 1, "activation"),
        ]
        names = ", ".join(image["name"] for image in self.images)
        text = (
            f"Each filter of {layer} beside its own maps: at the left {_by(weight.shape[2:])} weights over "
            f"{view}, at the right what they make of {names}, bias added, before any activation. "
            f"{weights.words(layer, 'weights')} {maps.words(layer, 'maps')}"
        )
        labels = ["input", *(f"unit {u}" for u in units)]
        return self._montage("pairs", layer, lines, labels, bars, text)

    def _values(self, layer: str) -> Plate:
        """A layer without spatial axes: bars where there are few units, else strips."""
        values = np.stack([arrays[layer].ravel() for arrays in self.activations])
        bars = values.shape[1] <= 20
        scale = Scale.of(values)
        text = f"The {values.shape[1]} values of {layer} ({self.layers[layer]['type']}), an image after the other. "
        if bars:
            text += (
                "One axis for all; the prediction is coloured."
                if self._is_last(layer)
                else "One axis for all."
            )
        else:
            text += f"Each line has {STRIP} units, the first of them at its left: {_words(scale)}."
        caption = self._caption(text)
        height = (260 if bars else 110 + 26 * -(-values.shape[1] // STRIP)) * len(values) + 60
        figure, chart = chart_plate(1500, height, caption)
        axes = chart.subplots(len(values), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for ax, row, image in zip(axes, values, self.images, strict=True):
            self._bars(ax, row, layer, image) if bars else _strips(ax, row, scale)
            ax.set_title(self._seen_as(image).replace("\n", "   "), loc="left", fontsize=7)
        chart.subplots_adjust(
            left=0.07, right=0.9, top=1 - 60 / height, bottom=60 / height, hspace=0.5 if bars else 0.7
        )
        if not bars:
            mapped = axes[0].images[0]
            chart.colorbar(
                mapped, ax=list(axes), fraction=0.02, pad=0.02, label="activation"
            ).outline.set_linewidth(0.6)
        return self._plate("values", layer, caption, figure)

    def _bars(self, ax: Any, row: np.ndarray, layer: str, image: dict[str, Any]) -> None:
        names = self.network["classes"] if len(row) == len(self.network["classes"]) else None
        colours = ["#8d8778"] * len(row)
        if self._is_last(layer):
            colours[image["prediction"]] = ACCENT
        ax.bar(np.arange(len(row)), row, color=colours, width=0.7)
        ax.axhline(0, color="#b0aa9e", linewidth=0.6)
        ax.set_xticks(np.arange(len(row)), names or [str(unit) for unit in range(len(row))])
        ax.tick_params(labelbottom=True)
        if self._is_last(layer):
            ax.get_xticklabels()[image["prediction"]].set(color=ACCENT, fontweight="bold")

    def _is_last(self, layer: str) -> bool:
        return self.layers[layer]["output_shape"] == [len(self.network["classes"])]

    # Plates of an image and of the network

    def _deconv(self, image: dict[str, Any], pixels: np.ndarray, projections: dict[str, np.ndarray]) -> Plate:
        scales = self._scale({key: [array] for key, array in projections.items()})
        lines: list[Line] = []
        labels, bars, dead = [], [], 0
        for key, array in projections.items():
            layer, _, select = key.partition("@")
            first = len(lines)
            for n, part in enumerate(_chunks(range(len(array)))):
                head = self._input(pixels) if not lines else None
                lines.append([head, *(_projection(array[u], scales(key, array[u]), u) for u in part)])
                labels.append(f"{layer}\n{'strongest location' if select else 'whole map'}" if n == 0 else "")
            dead += 0 if select else sum(not projection.any() for projection in array)
            bars += scales.bars(key, first, len(lines) - 1, "projection")
        layers = dict.fromkeys(key.partition("@")[0] for key in projections)
        words = scales.words(next(iter(projections)), "projections")
        if self.views["scale"] == "per_layer":
            words = "Each group shares the scale beside it: white is zero, red positive, blue negative."
        text = (
            f"What caused each activation of {_listed(list(layers))} on {self._seen_as(image, ', ')}: the deconvnet's "
            f"projections to the input of {_by(pixels.shape[1:])} pixels, signed, the input first. "
            f"{words}"
            + (
                f" {dead} crossed units are dead on this image: nowhere positive, so projected to nothing."
                if dead
                else ""
            )
        )
        return self._montage("deconv", image["name"], lines, labels, bars, text)

    def _cover(self) -> Plate:
        """Each image, and below it what caused the strongest activation of the deepest projected layer."""
        layer = [key for key in self.deconv[0] if "@" not in key][-1]
        strongest = [
            int(arrays[layer].reshape(len(arrays[layer]), -1).max(1).argmax()) for arrays in self.activations
        ]
        caused = [projections[layer][unit] for projections, unit in zip(self.deconv, strongest, strict=True)]
        scale = Scale.of(*caused)
        lines: list[Line] = [
            [self._input(arrays["input"]) for arrays in self.activations],
            [_projection(values, scale, unit) for values, unit in zip(caused, strongest, strict=True)],
        ]
        bars = [Bar(1, 1, scale, "projection")]
        caption = self._caption(
            f"{_listed([image['name'] for image in self.images])}, and below each what caused the strongest "
            f"activation of {layer}: its unit's whole map, projected to the pixels by the deconvnet. "
            f"All projections share one scale: {_words(scale)}."
        )
        labels = ["input", f"the unit of\n{layer} that\nanswers most"]
        return self._plate(
            "cover", "", caption, montage_plate(assemble(lines, 2 * EDGE), labels, bars, caption)
        )

    def _curves(self) -> Plate:
        epochs = [int(row["epoch"]) for row in self.history]
        kept = self.network["training"]["kept_epoch"]
        caption = self._caption(
            f"Training over {len(epochs)} epochs of {self.network['training']['images']:,} images, and the images "
            f"held out to validate on. The weights of epoch {kept} are kept."
        )
        figure, chart = chart_plate(1500, 560, caption)
        for ax, what in zip(chart.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for part, colour in (("train", "#8d8778"), ("validation", ACCENT)):
                ax.plot(
                    epochs, [float(row[f"{part}_{what}"]) for row in self.history], color=colour, label=part
                )
            ax.axvline(kept, color="#b0aa9e", linewidth=0.6, linestyle=":")
            ax.set(xlabel="epoch", title="cross-entropy" if what == "loss" else "accuracy")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            if what == "loss":
                ax.set_yscale("log")
            ax.legend(frameon=False)
        chart.subplots_adjust(left=0.07, right=0.97, top=0.88, bottom=0.18, wspace=0.18)
        return self._plate("curves", "", caption, figure)

    def _confusion(self) -> Plate:
        counts = np.array(self.metrics["confusion"])
        classes = self.network["classes"]
        caption = self._caption(
            f"The confusion matrix on {counts.sum():,} test images, looked at once, after training: "
            f"{100 * self.metrics['accuracy']:.2f} % are right. Rows are the true class, columns the predicted; "
            "shades are shares of the row."
        )
        figure, chart = chart_plate(1200, 1000, caption)
        ax = chart.subplots()
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        mapped = ax.imshow(shares, cmap="Greys", vmin=0, vmax=1)
        ax.set(xlabel="predicted", ylabel="true")
        if len(classes) <= 20:
            ax.set_xticks(range(len(classes)), classes)
            ax.set_yticks(range(len(classes)), classes)
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    shade = "white" if shares[row, column] > 0.5 else "black"
                    colour = shade if row == column else ACCENT
                    ax.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)
        chart.colorbar(mapped, ax=ax, fraction=0.04, pad=0.03, label="share of the true class")
        chart.subplots_adjust(left=0.06, right=0.88, top=0.96, bottom=0.1)
        return self._plate("confusion", "", caption, figure)

    # What all plates share

    def _montage(
        self, kind: str, subject: str, lines: list[Line], labels: list[str], bars: list[Bar], text: str
    ) -> Plate:
        caption = self._caption(text)
        return self._plate(kind, subject, caption, montage_plate(assemble(lines), labels, bars, caption))

    def _caption(self, text: str) -> str:
        self.plates += 1
        return f"Plate {self.plates}. {self.name}. {text}"

    def _plate(self, kind: str, subject: str, caption: str, figure: Figure) -> Plate:
        stem = "-".join(filter(None, (kind, subject.replace("/", "_").replace(":", "_"))))
        alt = caption.removeprefix(f"Plate {self.plates}. {self.name}. ").partition(". ")[0]
        return Plate(f"{stem}.png", kind, subject, caption, alt, figure)

    def _input(self, x: np.ndarray) -> Tile:
        """The input as the network saw it, its normalisation undone: (C, H, W) to grey or RGB in 0..1."""
        given = self.network["preprocessing"]
        mean, std = (np.array(given[key], np.float32)[:, None, None] for key in ("mean", "std"))
        pixels = np.clip(x * std + mean, 0, 1)
        if len(pixels) == 3:
            return Tile(pixels.transpose(1, 2, 0), number="input")
        return Tile(pixels[0], Scale(0.0, 1.0, "gray"), number="input")

    def _seen_as(self, image: dict[str, Any], between: str = "\n") -> str:
        """An image's name, its class and the network's prediction."""
        classes = self.network["classes"]
        parts = [image["name"]]
        if image["label"] is not None:
            parts.append(f"true {classes[image['label']]}")
        parts.append(f"predicted {classes[image['prediction']]} ({100 * image['probability']:.1f} %)")
        return between.join(parts)

    def _units(self, layer: str, there: int) -> range:
        return range(self._at_most(self.views["n_filters"], there, f"units in {layer}"))

    def _at_most(self, wanted: int | str, there: int, what: str) -> int:
        if isinstance(wanted, int) and wanted > there and what not in self.said:
            self.said.add(what)
            log.info("%d %s asked for, there are %d: all are drawn", wanted, what, there)
        return there if wanted == "all" else min(int(wanted), there)


class Scales:
    """The colour scales of a plate: one a tile, one a layer, or one shared by all layers of a kind."""

    def __init__(self, choice: str, layers: dict[str, list[np.ndarray]]) -> None:
        self.choice, self.layers = choice, layers
        self.shared = Scale.of(*sum(layers.values(), [])) if choice == "shared" else None

    def __call__(self, layer: str, values: np.ndarray) -> Scale:
        return Scale.of(values) if self.choice == "per_tile" else self.of(layer)

    def of(self, layer: str) -> Scale:
        """The scale that the tiles of a layer share; for `per_tile`, one that has the layer's colours."""
        return self.shared or Scale.of(*self.layers[layer])

    def bars(self, layer: str, first: int, last: int, label: str) -> list[Bar]:
        ends = None
        if self.choice == "per_tile":
            ends = ("−max", "max") if self.of(layer).low < 0 else ("0", "max")
        return [Bar(first, last, self.of(layer), label, ends)]

    def words(self, layer: str, what: str = "tiles") -> str:
        """Say for the caption what shares the scale and what its colours mean."""
        if self.choice == "per_tile":
            return f"Each tile has a scale of its own, so {what} cannot be compared by colour."
        over = ", as in every layer of this network" if self.choice == "shared" else ""
        return f"All {what} share one scale{over}: {_words(self.of(layer))}."


def _words(scale: Scale) -> str:
    if scale.low < 0 < scale.high:
        return "white is zero, red positive, blue negative"
    return "dark is zero, bright the maximum" if scale.low == 0 else "bright is zero, dark the minimum"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _projection(projection: np.ndarray, scale: Scale, unit: int) -> Tile:
    """A tile of one projection (C, H, W), signed: a map of one channel, or RGB about grey for three."""
    dead = not projection.any()
    if len(projection) == 3:
        pixels = 0.5 + projection.transpose(1, 2, 0) / (2 * max(abs(scale.low), scale.high))
        return Tile(pixels, None, str(unit), "dead" if dead else "", dead)
    return Tile(projection[0], scale, str(unit), "dead" if dead else "", dead)


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


def _span(units: range) -> str:
    return "0" if len(units) == 1 else f"0–{len(units) - 1}"


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _strips(ax: Any, row: np.ndarray, scale: Scale) -> None:
    lines = -(-len(row) // STRIP)
    padded = np.full(lines * STRIP, np.nan)
    padded[: len(row)] = row
    ax.imshow(padded.reshape(lines, STRIP), aspect="auto", cmap=scale.colours, vmin=scale.low, vmax=scale.high,
              extent=(-0.5, STRIP - 0.5, lines - 0.5, -0.5), interpolation="nearest")  # fmt: skip
    every = max(1, lines // 5)
    ax.set_yticks(range(0, lines, every), [str(STRIP * line) for line in range(0, lines, every)])
    ax.set_ylabel("unit", fontsize=6.5)
