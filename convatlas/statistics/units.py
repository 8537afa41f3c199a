"""What a data set says of each unit of a network: mean, deviation, zeros, classes. No torch here.

The units of all layers stand side by side, (U,). Sums of batches are added pairwise, in a tree that the
number of batches alone decides: whoever adds them, in however many parts, comes to the same bits, with
rounding errors that grow with the logarithm of their number (Higham, The accuracy of floating point
summation, SIAM J. Sci. Comput. 14, 1993).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NEVER_POSITIVE_TYPES = ("logsoftmax", "logsigmoid")  # layers whose units are not dead for being so


@dataclass(frozen=True)
class UnitSums:
    """Sums over images, float64: of the mean of a unit's map (U,), of the mean of its squares (U,), and of
    the former for each class that is there, by its number (U,). Arrays, or tensors where a network runs.
    """

    mean_sum: Any
    square_sum: Any
    class_sums: dict[int, Any]

    def __add__(self, other: "UnitSums") -> "UnitSums":
        classes = self.class_sums | other.class_sums
        for label in self.class_sums.keys() & other.class_sums.keys():
            classes[label] = self.class_sums[label] + other.class_sums[label]
        return UnitSums(self.mean_sum + other.mean_sum, self.square_sum + other.square_sum, classes)

    def select_units(self, units: slice) -> "UnitSums":
        """Those of some units."""
        classes = {label: sums[units] for label, sums in self.class_sums.items()}
        return UnitSums(self.mean_sum[units], self.square_sum[units], classes)


@dataclass
class PairwiseSum:
    """Sums of consecutive batches, of which those are added that are two halves of a node of the tree.

    `nodes` are (level, index, sums): the batches from `index * 2**level` on, 2**level of them. They are
    at most twice as many as the tree has levels.
    """

    nodes: list[tuple[int, int, UnitSums]] = field(default_factory=list)

    def push(self, level: int, index: int, sums: UnitSums) -> None:
        """Take in the node that follows the last one."""
        while self.nodes and self.nodes[-1][:2] == (level, index - 1) and index % 2:
            sums = self.nodes.pop()[2] + sums
            level, index = level + 1, index // 2
        self.nodes.append((level, index, sums))

    def total(self) -> UnitSums:
        """The sums of all batches, which began with the first."""
        *before, (_, _, total) = self.nodes
        for _, _, sums in reversed(before):
            total = sums + total
        return total


@dataclass(frozen=True)
class UnitCounts:
    """What may be added in any order: images, images a class (classes,), zeros (U,) int64; and the greatest
    value (U,) float32.
    """

    image_count: int
    class_counts: np.ndarray
    zero_count: np.ndarray
    max: np.ndarray

    def __add__(self, other: "UnitCounts") -> "UnitCounts":
        return UnitCounts(
            self.image_count + other.image_count,
            self.class_counts + other.class_counts,
            self.zero_count + other.zero_count,
            np.fmax(self.max, other.max),
        )

    def select_units(self, units: slice) -> "UnitCounts":
        """Those of some units."""
        return UnitCounts(self.image_count, self.class_counts, self.zero_count[units], self.max[units])


def compute_statistics(sums: UnitSums, counts: UnitCounts, area: int) -> dict[str, np.ndarray]:
    """The statistics of units over the set, by name: (U,) or (U, classes), float32.

    `area` is the values of each unit's map. `mean`, `std` (of the population), `max` and
    `zero_fraction`, the share of values that are 0, are over all values of all images; `classes` is the mean
    over the images of each class, NaN for a class without images, and `selectivity` follows from it.
    A unit that gave NaN has NaN for its mean and deviation.
    """
    mean = sums.mean_sum / counts.image_count
    variance = sums.square_sum / counts.image_count - mean**2
    with np.errstate(invalid="ignore"):
        classes = np.full((len(sums.mean_sum), len(counts.class_counts)), np.nan)
        for label, of_class in sums.class_sums.items():
            classes[:, label] = of_class / counts.class_counts[label]
        std = np.sqrt(np.where(variance > 0, variance, variance * 0))
    found = {
        "mean": mean,
        "std": std,
        "max": counts.max,
        "zero_fraction": counts.zero_count / (counts.image_count * area),
        "classes": classes,
        "selectivity": class_selectivity(classes),
    }
    return {name: array.astype(np.float32) for name, array in found.items()}


def class_selectivity(classes: np.ndarray) -> np.ndarray:
    """The class selectivity of units, given their mean response to each class, (U, classes) to (U,).

    (m - o) / (m + o) of the greatest mean response m and the mean o of those to all other classes: Morcos,
    Barrett, Rabinowitz, Botvinick, On the importance of single directions for generalization (ICLR 2018,
    arXiv 1803.06959). 0 for a unit that answers all alike, or none, and 1 for one that answers a single
    class. NaN where it is not defined: for fewer than two classes with images, and for a unit whose
    response to one is negative. The paper takes responses behind a ReLU.
    """
    there = ~np.isnan(classes).all(0)
    if there.sum() < 2:
        return np.full(len(classes), np.nan)
    means = classes[:, there]
    most = means.max(1)
    others = (means.sum(1) - most) / (means.shape[1] - 1)
    total = most + others
    found = np.divide(most - others, total, out=np.zeros_like(total), where=total != 0)
    return np.where((means < 0).any(1), np.nan, found)


def find_dead_units(maximum: np.ndarray, layer_type: str) -> np.ndarray:
    """Which of a layer's units are nowhere positive over the set, (units,) bool: no ReLU lets them through.

    None of a layer whose values never are, such as a log-softmax.
    """
    return np.zeros(maximum.shape, bool) if is_never_positive(layer_type) else ~(maximum > 0)


def is_never_positive(layer_type: str) -> bool:
    """Whether no value of a layer of this type is ever positive."""
    return any(name in layer_type.lower().replace("_", "") for name in NEVER_POSITIVE_TYPES)


@dataclass(frozen=True)
class TopActivations:
    """The strongest activations of each unit, strongest first, one an image, all (U, k).

    `values` float32; `images` are numbers in the split, int32, -1 behind the last; `places` flat indices
    into the unit's map, int32. Of equal values the one of the earlier image comes first, and within an
    image the first in raster order.
    """

    values: np.ndarray
    images: np.ndarray
    flat_positions: np.ndarray

    def merge(self, later: "TopActivations") -> "TopActivations":
        """The strongest of these and of those of later images."""
        values = np.concatenate([self.values, later.values], 1)
        order = np.argsort(-values, axis=1, kind="stable")[:, : self.values.shape[1]]
        images = np.concatenate([self.images, later.images], 1)
        places = np.concatenate([self.flat_positions, later.flat_positions], 1)
        return TopActivations(*(np.take_along_axis(array, order, 1) for array in (values, images, places)))


def unravel_positions(places: np.ndarray, shape: list[int]) -> np.ndarray:
    """Rows and columns of flat indices, (units, k) to (units, k, 2) int32, of a layer's output `shape`.

    The rows of a map of one axis are 0, those of one of three count through its first two.
    """
    width = shape[-1] if len(shape) > 1 else 1
    return np.stack(np.divmod(places, width), -1).astype(np.int32)


def iter_unit_slices(layers: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], slice]]:
    """Each layer (with `shape`, its units first) and the place of its units among those of all layers."""
    first = 0
    for layer in layers:
        yield layer, slice(first, first := first + layer["shape"][0])
