"""What the page on the ablation of a network shows: costs above noise, curves, and a table of all units."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convatlas.gallery.line_chart import Axis, LineChart, Series, draw_line_chart
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.table_data import TableColumn
from convatlas.records import AblationAnalysis, AblationCost, AblationCurve, LayerAblation

KINDS = {"zero": "by zero", "mean": "by its mean"}
MAX_CLASS_COLUMNS = 12  # classes with a column each, those that single units matter for most
MAX_LISTED_UNITS = 30
MEASURES = {"accuracy": "accuracy", "mean_iou": "mean IoU", "loss": "loss"}
EFFECTS = {"accuracy": "accuracy drop, points", "mean_iou": "mean IoU drop", "loss": "loss increase"}


@dataclass(frozen=True)
class ClassCell:
    """The effect on a class: its text, "" within noise, and its magnitude and sign for the colour."""

    text: str
    magnitude: float
    is_worse: bool


@dataclass(frozen=True)
class UnitCost:
    """A unit whose ablation raises the loss by more than noise.

    Attributes:
        layer: Name of its layer.
        unit: Its number.
        effect: The effect of replacing its map by zero, with its interval; "" within noise.
        mean_effect: Of replacing it by its mean.
        loss_change: The change of the loss, by zero; "" within noise.
        classes: The effects on the classes that have columns, by zero.
    """

    layer: str
    unit: int
    effect: str
    mean_effect: str
    loss_change: str
    classes: Sequence[ClassCell]


@dataclass(frozen=True)
class LayerCurves:
    """The curves of a layer, by what replaces the maps, with a title each."""

    layer: LayerAblation
    charts: Sequence[tuple[str, LineChart]]


class AblationReader:
    """Reads the ablation of a network for its page.

    Args:
        network: The network.
        analysis: Its ablation.json, of an ablation that is defined.
    """

    def __init__(self, network: NetworkData, analysis: AblationAnalysis) -> None:
        self.network, self.analysis = network, analysis
        self.arrays = network.results.ablation_arrays
        self.layers = [layer["layer"] for layer in analysis["layers"]]
        self.class_columns = self._choose_classes()

    def join(self, quantity: str) -> np.ndarray:
        """Return an array of all layers' units, (units, ...)."""
        return np.concatenate([self.arrays[f"{layer}@{quantity}"] for layer in self.layers])

    def mask_noise(self, quantity: str, p: str) -> np.ndarray:
        """Return effects of all layers' units, NaN where they are within noise."""
        return np.where(self.join(p) <= self.analysis["significance"], self.join(quantity), np.nan)

    def _choose_classes(self) -> list[int]:
        """Return the classes with a column: all, or those with the most units that matter for them."""
        n_classes = len(self.analysis["classes"])
        if n_classes <= MAX_CLASS_COLUMNS:
            return list(range(n_classes))
        counts = (~np.isnan(self.mask_noise("zero_class_effects", "zero_class_p"))).sum(0)
        return sorted((-counts).argsort(kind="stable")[:MAX_CLASS_COLUMNS].tolist())

    @property
    def n_units(self) -> int:
        """Number of units that were ablated."""
        return sum(layer["measured"] for layer in self.analysis["layers"])

    def format_value(self, value: float | None) -> str:
        """Write a value of the measure."""
        if value is None:
            return "–"
        return f"{100 * value:.1f} %" if self.analysis["measure"] == "accuracy" else f"{value:.3f}"

    def format_effect(self, value: float | None) -> str:
        """Write an effect, positive where the network is worse: a drop of accuracy in percentage points."""
        if value is None or not np.isfinite(value):
            return ""
        if self.analysis["measure"] == "accuracy":
            return f"{100 * value:.1f}".replace("-", "−")
        return f"{value:.3f}".replace("-", "−")

    def format_interval(self, interval: Sequence[float | None]) -> str:
        """Write an interval of effects."""
        return " to ".join(self.format_effect(end) or "–" for end in interval)

    def list_units(self) -> list[UnitCost]:
        """List the units whose ablation by zero raises the loss beyond noise, the largest increase first."""
        effects = self.mask_noise("zero_effects", "zero_p")
        losses = self.mask_noise("zero_loss_changes", "zero_loss_p")
        classes = self.mask_noise("zero_class_effects", "zero_class_p")[:, self.class_columns]
        means = self.mask_noise("mean_effects", "mean_p")
        order = np.argsort(-self.join("zero_loss_changes"), kind="stable")
        intervals, n_layers = self.join("zero_intervals"), self.layer_numbers
        units = self.join("units")
        magnitudes = np.abs(np.where(np.isfinite(classes), classes, 0))
        magnitudes /= magnitudes.max(initial=0) or 1.0

        def describe(row: int) -> UnitCost:
            text = self.format_effect(effects[row])
            return UnitCost(
                self.layers[n_layers[row]],
                int(units[row]),
                f"{text} ({self.format_interval(intervals[row])})" if text else "",
                self.format_effect(means[row]),
                f"{losses[row]:.3g}" if np.isfinite(losses[row]) else "",
                [
                    ClassCell(self.format_effect(value), float(magnitude), value > 0)
                    for value, magnitude in zip(classes[row], magnitudes[row], strict=True)
                ],
            )

        return [describe(row) for row in order[losses[order] > 0][:MAX_LISTED_UNITS]]

    @property
    def layer_numbers(self) -> np.ndarray:
        """Return the number of the layer of each unit."""
        return np.repeat(
            np.arange(len(self.layers)), [layer["measured"] for layer in self.analysis["layers"]]
        )

    def make_columns(self, explorer_layers: Sequence[str]) -> list[TableColumn]:
        """Make the columns of the table of all units; effects within noise are empty.

        Args:
            explorer_layers: The layers in the explorer, to which the units link.
        """
        factor = 100 if self.analysis["measure"] == "accuracy" else 1
        title = EFFECTS[self.analysis["measure"]]
        order = np.argsort(-self.join("zero_loss_changes"), kind="stable")
        unlinked = [n for n, layer in enumerate(self.layers) if layer not in explorer_layers]
        classes = factor * self.mask_noise("zero_class_effects", "zero_class_p")
        columns = [
            TableColumn("layer", "layer", self.layer_numbers, self.layers, unlinked=unlinked),
            TableColumn("unit", "unit", self.join("units"), is_header=True, is_link=True),
            TableColumn(
                "loss", "loss increase, by zero", self.mask_noise("zero_loss_changes", "zero_loss_p")
            ),
            TableColumn(
                "loss-mean", "loss increase, by mean", self.mask_noise("mean_loss_changes", "mean_loss_p")
            ),
        ]
        if self.analysis["measure"] != "loss":
            columns += [
                TableColumn(
                    kind, f"{title}, by {kind}", factor * self.mask_noise(f"{kind}_effects", f"{kind}_p")
                )
                for kind in KINDS
            ]
        columns += [
            TableColumn(f"class-{c}", self.analysis["classes"][c], classes[:, c]) for c in self.class_columns
        ]
        return [
            TableColumn(
                column.key, column.title, _hide_infinite(column.values[order]), column.choices,
                column.is_header, column.is_link, column.unlinked,
            )
            for column in columns
        ]  # fmt: skip

    def list_curves(self) -> Iterator[LayerCurves]:
        """Yield the curves of each layer."""
        for layer in self.analysis["layers"]:
            charts = [
                (f"Each map replaced {text}", self._draw_curve(layer, layer["curves"][kind]))
                for kind, text in KINDS.items()
            ]
            yield LayerCurves(layer, charts)

    def _draw_curve(self, layer: LayerAblation, curve: AblationCurve) -> LineChart:
        """Draw the measure against the share of units removed."""
        measure = self.analysis["measure"]
        factor = 100 if measure == "accuracy" else 1
        rows = [curve["important_first"], curve["important_last"], *curve["random"]]
        important, unimportant, *random = (factor * np.array(row, float) for row in rows)
        mean, low, high = (part(random, axis=0) for part in (np.mean, np.min, np.max))
        control = f"random order, mean and range of {len(random)}"
        series = [
            Series("most important first", important.tolist(), 0),
            Series("least important first", unimportant.tolist(), 2),
            Series(control, mean.tolist(), 1, low.tolist(), high.tolist(), dashed=True),
        ]
        shares = [100 * count / layer["measured"] for count in curve["counts"]]
        half = int(np.argmin(np.abs(np.array(shares) - 50)))
        alt = (
            f"with {shares[half]:.0f} % of the units removed, {_format(important[half])} with the most "
            f"important first, {_format(unimportant[half])} with the least important first, "
            f"{_format(mean[half])} in random order"
        )
        y = Axis(
            {"accuracy": "accuracy, %", "mean_iou": "mean IoU", "loss": "loss"}[measure],
            {"accuracy": (0.0, 100.0), "mean_iou": (0.0, 1.0), "loss": None}[measure],
        )
        return draw_line_chart(series, shares, Axis("units removed, %", (0.0, 100.0)), y, alt)

    @property
    def class_sizes(self) -> str:
        """Say how many images a class has; "" of a segmentation network."""
        sizes = [n for n in self.analysis["class_images"] if n]
        if not sizes:
            return ""
        low, high = min(sizes), max(sizes)
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    def describe_class_cost(self, cost: AblationCost) -> str:
        """Name the class that the ablation of a layer costs most, above noise; "" if none."""
        pairs = zip(cost["class_effects"], cost["class_p"], strict=True)
        effects = [
            effect if effect is not None and p is not None and p <= self.analysis["significance"] else 0.0
            for effect, p in pairs
        ]
        if not effects or max(effects) <= 0:
            return ""
        worst = int(np.argmax(effects))
        return f"{self.analysis['classes'][worst]} ({self.format_effect(effects[worst])})"

    def list_findings(self) -> list[str]:
        """List what stands out above noise, as sentences; the largest of many is said to be that."""
        findings = []
        effects = self.mask_noise("zero_effects", "zero_p")
        if (effects > 0).any():
            row = int(np.nanargmax(effects))
            layer, unit = self.layers[self.layer_numbers[row]], int(self.join("units")[row])
            interval = self.format_interval(self.join("zero_intervals")[row])
            findings.append(
                f"Unit {unit} of {layer} matters most: without it {self.describe_change(effects[row])} "
                f"(95 % interval {interval}). This is the largest of {self.n_units:,} effects, chosen on the "
                "same images; the interval is not adjusted for that."
            )
        classes = self.mask_noise("zero_class_effects", "zero_class_p")
        if (classes > 0).any():
            row, c = divmod(int(np.nanargmax(classes)), classes.shape[1])
            layer, unit = self.layers[self.layer_numbers[row]], int(self.join("units")[row])
            findings.append(
                f"Class {self.analysis['classes'][c]} depends most on a single unit, {unit} of {layer}: "
                f"{self.describe_change(classes[row, c], ' of the class')} without it. "
                f"This is the largest of {np.isfinite(self.join('zero_class_effects')).sum():,} effects of "
                "units on classes, chosen on the same images."
            )
        n_matter = sum(layer["significant"]["zero"] for layer in self.analysis["layers"])
        findings.append(
            f"{n_matter:,} of {self.n_units:,} units raise the loss by more than noise when they alone are "
            f"replaced by zero; of the others no effect on the loss shows on these "
            f"{self.analysis['images']:,} images."
        )
        return findings

    def describe_change(self, effect: float, part: str = "") -> str:
        """Say how much worse the measure is."""
        text, measure = self.format_effect(float(effect)), self.analysis["measure"]
        if measure == "loss":
            return f"the loss{part} rises by {text}" if text else f"the loss{part} is no longer finite"
        if measure == "accuracy":
            return f"the accuracy{part} drops by {text} points"
        return f"the {'IoU' if part else 'mean IoU'}{part} drops by {text}"


def _hide_infinite(values: np.ndarray) -> np.ndarray:
    """Return numbers for a table, NaN where they are infinite."""
    return np.where(np.isfinite(values), values, np.nan)


def _format(value: float) -> str:
    """Write a number; "–" where it is not finite."""
    return f"{value:.3g}" if np.isfinite(value) else "–"


def read_ablation(config: Mapping[str, Any], network: NetworkData) -> AblationReader | None:
    """Read the ablation of a network; None where the config does not ask for it, or it is undefined.

    Args:
        config: The resolved config.
        network: The network.
    """
    analysis = network.results.ablation
    views = config["networks"][network.name]["views"]
    if views.get("ablation") is None or analysis is None or analysis["undefined"] is not None:
        return None
    return AblationReader(network, analysis)


def make_effect_columns(
    reader: AblationReader, layers: Sequence[str], n_units: Sequence[int]
) -> list[TableColumn]:
    """Make the column of the unit table that says what the ablation of a unit costs.

    Args:
        reader: The ablation of the network.
        layers: The layers of the table.
        n_units: The number of units of each.
    """
    rows = {layer: np.full(n, np.nan) for layer, n in zip(layers, n_units, strict=True)}
    for layer in {*reader.layers} & {*layers}:
        units, p, changes = (
            reader.arrays[f"{layer}@{name}"] for name in ("units", "zero_loss_p", "zero_loss_changes")
        )
        is_known = p <= reader.analysis["significance"]
        rows[layer][units[is_known]] = _hide_infinite(changes[is_known])
    return [TableColumn("ablation", "loss increase without it", np.concatenate([*rows.values()]))]


def describe_unit_costs(reader: AblationReader) -> dict[str, dict[int, str]]:
    """Describe what the ablation of single units costs beyond noise, as a sentence by layer and unit.

    Args:
        reader: The ablation of the network.
    """
    losses = reader.mask_noise("zero_loss_changes", "zero_loss_p")
    effects = reader.mask_noise("zero_effects", "zero_p")
    sentences: dict[str, dict[int, str]] = {layer: {} for layer in reader.layers}
    for number, unit, loss, effect in zip(
        reader.layer_numbers, reader.join("units"), losses, effects, strict=True
    ):
        if not loss > 0:  # within noise, too
            continue
        changes = [f"the loss rises by {loss:.3g}" if np.isfinite(loss) else "the loss is no longer finite"]
        if effect > 0 and reader.analysis["measure"] != "loss":
            changes.append(reader.describe_change(effect))
        sentences[reader.layers[number]][int(unit)] = f"Replaced by zero, {' and '.join(changes)}."
    return sentences
