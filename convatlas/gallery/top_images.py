"""The top-activating images of every unit of a network, and which units are possible shortcuts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from convatlas.datasets.base import ImageDataset
from convatlas.gallery.explorer_statistics import PASS_THROUGH_KINDS
from convatlas.gallery.network_data import NetworkData
from convatlas.records import DatasetStatistics, Layer
from convatlas.statistics.shortcuts import (
    Coincidence,
    CoincidenceTest,
    find_common_positions,
    find_common_subclasses,
    select_significant,
)

VALUE_DIGITS = 3  # significant digits of activations
MIN_COMMON_SHARE = 0.5  # of a layer's tested units with one position each: the layer is named as a whole


@dataclass(frozen=True)
class LayerTopImages:
    """The top activations of a layer's units, the strongest first.

    Attributes:
        layer: Its entry in layers.json.
        values: (units, k) float32.
        images: Numbers of the images in the split, (units, k); -1 for none.
        positions: Flat indices into the unit's map, (units, k).
        dead: The units that are never positive.
        non_finite: The units with NaN or infinite values on an image.
    """

    layer: Layer
    values: np.ndarray
    images: np.ndarray
    positions: np.ndarray
    dead: Sequence[int]
    non_finite: Sequence[int]

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.layer["name"]

    @property
    def width(self) -> int:
        """Number of columns of a unit's map."""
        return self.layer["output_shape"][-1] if len(self.layer["output_shape"]) > 1 else 1

    @cached_property
    def keys(self) -> list[bytes]:
        """The images and positions of each unit, by which the same unit is found in a later layer."""
        return [row.tobytes() for row in np.concatenate([self.images, self.positions], 1).astype(np.int32)]

    @cached_property
    def joined_rows(self) -> np.ndarray:
        """The images, positions and rounded values of each unit as whole numbers, (units, 3k) int32."""
        values = self.values.ravel().tolist()
        rounded = np.array([float(f"{value:.{VALUE_DIGITS}g}") for value in values], np.float32)
        bits = rounded.reshape(self.values.shape).view(np.int32)
        return np.concatenate([self.images, self.positions, bits], 1).astype(np.int32)

    @property
    def area(self) -> int:
        """Number of positions of a unit's map."""
        return int(np.prod(self.layer["output_shape"][1:]))


@dataclass(frozen=True)
class MarkedUnit:
    """A possible shortcut.

    Attributes:
        layer: Name of its layer, the first with these top activations.
        unit: Its number.
        kind: What its top activations have in common; the first where they have both.
        reason: The same as a sentence.
        p_value: The probability of that by chance, adjusted for all tests.
        later: Later layers with a unit of the same top activations, and its number.
    """

    layer: str
    unit: int
    kind: Literal["position", "subclass"]
    reason: str
    p_value: float
    later: list[tuple[str, int]]


@dataclass(frozen=True)
class LayerTests:
    """The tests of a layer's units.

    Attributes:
        positions: For one position.
        subclasses: For one subclass.
        new_units: The units whose top activations are not those of a unit of an earlier layer.
    """

    positions: CoincidenceTest
    subclasses: CoincidenceTest
    new_units: frozenset[int]

    @property
    def new_coincidences(self) -> list[Coincidence]:
        """The coincidences of units whose top activations are not those of a unit of an earlier layer."""
        coincidences = [*self.positions.coincidences, *self.subclasses.coincidences]
        return [coincidence for coincidence in coincidences if coincidence.unit in self.new_units]

    @property
    def n_new(self) -> int:
        """Number of tests of these units."""
        return sum(len(test.tested & self.new_units) for test in (self.positions, self.subclasses))


@dataclass(frozen=True)
class TopImages:
    """The top-activating images of a network over its data set.

    Attributes:
        summary: statistics.json.
        layers: The tracked layers, without those that only rearrange or pass on values.
        dataset: The split; None where its files are gone.
        tests: The tests of each layer.
    """

    summary: DatasetStatistics
    layers: Sequence[LayerTopImages]
    dataset: ImageDataset | None
    tests: Sequence[LayerTests]

    @cached_property
    def n_tests(self) -> int:
        """Number of tests for which the p-values are adjusted."""
        return sum(tests.n_new for tests in self.tests)

    @cached_property
    def marked_units(self) -> list[MarkedUnit]:
        """The possible shortcuts, the least probable first; equal ones in the order of the layers."""
        significant = select_significant([tests.new_coincidences for tests in self.tests], self.n_tests)
        marked: dict[bytes, MarkedUnit] = {}
        for layer, coincidences in zip(self.layers, significant, strict=True):
            for unit, key in enumerate(layer.keys):
                if key in marked:
                    marked[key].later.append((layer.name, unit))
            for coincidence in coincidences:
                key, reason = layer.keys[coincidence.unit], self._describe(layer, coincidence)
                row = marked.get(key)
                if row is None:
                    marked[key] = MarkedUnit(
                        layer.name, coincidence.unit, coincidence.kind, reason, coincidence.p_value, []
                    )
                elif row.unit == coincidence.unit:  # a position and a subclass
                    p_value = min(row.p_value, coincidence.p_value)
                    marked[key] = replace(row, reason=f"{row.reason} {reason}", p_value=p_value)
                else:
                    row.later.append((layer.name, coincidence.unit))
        return sorted(marked.values(), key=lambda row: row.p_value)

    @cached_property
    def marks(self) -> Mapping[str, Mapping[int, str]]:
        """Why units are possible shortcuts, by layer and unit; only of layers with such units."""
        marks: dict[str, dict[int, str]] = {}
        for row in self.marked_units:
            chance = f"By chance: p = {format_p_value(row.p_value)}, adjusted for {self.n_tests:,} tests."
            for layer, unit in [(row.layer, row.unit), *row.later]:
                marks.setdefault(layer, {})[unit] = f"{row.reason} {chance}"
        return marks

    @property
    def common_layers(self) -> list[tuple[str, int, int]]:
        """The layers most of whose tested units have a position in common, with both numbers of units."""
        rows = [
            (layer.name, len(tests.positions.coincidences), len(tests.positions.tested))
            for layer, tests in zip(self.layers, self.tests, strict=True)
        ]
        return [row for row in rows if row[2] and row[1] / row[2] >= MIN_COMMON_SHARE]

    @cached_property
    def image_counts(self) -> Counter[int]:
        """For how many units each image is among the top-activating ones, by its number."""
        counts: Counter[int] = Counter()
        for layer in self.layers:
            numbers, n_units = np.unique(layer.images[layer.images >= 0], return_counts=True)
            counts.update(dict(zip(numbers.tolist(), n_units.tolist(), strict=True)))
        return counts

    def _describe(self, layer: LayerTopImages, coincidence: Coincidence) -> str:
        """Return what the top activations of a unit have in common, as a sentence."""
        k = layer.values.shape[1]
        if coincidence.kind == "position":
            return f"All {k} maxima lie at {describe_position(layer, coincidence.value)}."
        image = int(layer.images[coincidence.unit, 0])
        assert self.dataset is not None  # which has the subclass
        subclass = (self.dataset.subclasses or [])[image]
        label = self.summary["classes"][int(self.dataset.labels[image])]
        return f"All {k} images are of one subclass of {label}: {subclass}."


def format_p_value(p_value: float) -> str:
    """Write a p-value with one significant digit and a true minus sign.

    Args:
        p_value: The p-value.
    """
    return f"{p_value:.1g}".replace("-", "−")


def describe_position(layer: LayerTopImages, position: int) -> str:
    """Return a position in a layer's maps as text, with the size of the maps.

    Args:
        layer: The layer.
        position: The flat index.
    """
    row, column = divmod(position, layer.width)
    size = layer.layer["output_shape"][1:]
    if len(size) == 1:
        return f"position {column} of {size[0]}"
    return f"row {row}, column {column} of the {' × '.join(map(str, size))} map"


def read_top_images(network: NetworkData, dataset: ImageDataset | None) -> TopImages:
    """Read the top-activating images of a network's units, and test them for coincidences.

    Args:
        network: A network with statistics.
        dataset: The split of its data set over which they were computed; None where its files are gone.
    """
    summary, statistics = network.results.dataset_statistics, network.results.statistics
    entries = {layer["name"]: layer for layer in network.layers}
    layers = []
    for tracked in summary["layers"]:
        name = tracked["name"]
        entry = entries.get(name)
        if entry is None or entry["kind"] in PASS_THROUGH_KINDS:
            continue
        rows, columns = np.moveaxis(statistics[f"{name}@positions"], -1, 0)
        width = entry["output_shape"][-1] if len(entry["output_shape"]) > 1 else 1
        layers.append(
            LayerTopImages(
                layer=entry,
                values=statistics[f"{name}@values"],
                images=statistics[f"{name}@images"],
                positions=rows * width + columns,
                dead=tracked["dead"],
                non_finite=tracked.get("non_finite", []),
            )
        )
    return TopImages(summary, layers, dataset, _test_layers(layers, dataset))


def _test_layers(layers: Sequence[LayerTopImages], dataset: ImageDataset | None) -> list[LayerTests]:
    """Test the units of each layer for one position and for one subclass."""
    subclasses = dataset.subclasses if dataset else None
    numbers = np.unique(subclasses, return_inverse=True)[1] if subclasses else None
    known: set[bytes] = set()
    tests = []
    for layer in layers:
        positions = find_common_positions(layer.values, layer.positions, layer.area)
        by_subclass = CoincidenceTest(frozenset(), [])
        if dataset is not None and numbers is not None:
            by_subclass = find_common_subclasses(layer.values, layer.images, dataset.labels, numbers)
        new_units = frozenset(unit for unit, key in enumerate(layer.keys) if key not in known)
        known.update(layer.keys)
        tests.append(LayerTests(positions, by_subclass, new_units))
    return tests
