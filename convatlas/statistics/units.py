"""Statistics of units over a data set, from sums, counts and top activations of batches. No torch here.

The units of all layers are concatenated on one axis, (U,). Sums of batches are added pairwise, in a tree
that depends on the number of batches alone: any division into shards gives the same bits, with rounding
errors that grow with the logarithm of the number of batches (Higham, The accuracy of floating point
summation, SIAM J. Sci. Comput. 14, 1993).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

NEVER_POSITIVE_TYPES = ("logsoftmax", "logsigmoid")  # layers whose units are not dead for being so


class LayerShape(TypedDict):
    """A tracked layer in a shard's description."""

    name: str
    shape: list[int]  # of its output without the batch axis: units, ...


@dataclass(frozen=True)
class UnitSums:
    """Sums over images, float64: NumPy arrays, or tensors while a network runs.

    Attributes:
        mean_sum: Sum of the mean of each unit's map, (U,).
        square_sum: Sum of the mean of the squares of each unit's map, (U,).
        squared_mean_sum: Sum of the square of the mean of each unit's map, (U,).
        class_sums: `mean_sum` of the images of each class that occurs, by class number.
    """

    mean_sum: Any
    square_sum: Any
    squared_mean_sum: Any
    class_sums: dict[int, Any]

    def __add__(self, other: "UnitSums") -> "UnitSums":
        class_sums = self.class_sums | other.class_sums
        for label in self.class_sums.keys() & other.class_sums.keys():
            class_sums[label] = self.class_sums[label] + other.class_sums[label]
        return UnitSums(
            self.mean_sum + other.mean_sum,
            self.square_sum + other.square_sum,
            self.squared_mean_sum + other.squared_mean_sum,
            class_sums,
        )

    def select_units(self, units: slice) -> "UnitSums":
        """Return the sums of some of the units.

        Args:
            units: The range of the units on the axis (U,).
        """
        class_sums = {label: sums[units] for label, sums in self.class_sums.items()}
        return UnitSums(
            self.mean_sum[units], self.square_sum[units], self.squared_mean_sum[units], class_sums
        )


@dataclass
class PairwiseSum:
    """A sum of consecutive batches, which adds two nodes when they are the halves of a node of the tree.

    Attributes:
        nodes: (level, index, sums) of `2**level` batches from number `index * 2**level` on; at most twice
            as many nodes as the tree has levels.
    """

    nodes: list[tuple[int, int, UnitSums]] = field(default_factory=list)

    def push(self, level: int, index: int, sums: UnitSums) -> None:
        """Add the node that follows the last one.

        Args:
            level: The node sums `2**level` batches.
            index: Number of the node on its level.
            sums: The sums of its batches.
        """
        while self.nodes and self.nodes[-1][:2] == (level, index - 1) and index % 2:
            sums = self.nodes.pop()[2] + sums
            level, index = level + 1, index // 2
        self.nodes.append((level, index, sums))

    def total(self) -> UnitSums:
        """Return the sums of all batches; the first node must begin with batch 0."""
        *before, (_, _, total) = self.nodes
        for _, _, sums in reversed(before):
            total = sums + total
        return total


@dataclass(frozen=True)
class UnitCounts:
    """Numbers that are exact in any order of addition.

    Attributes:
        image_count: Number of images.
        class_counts: Number of images of each class, (classes,) int64.
        zero_count: Number of values that are 0, (U,) int64.
        max: Maximum of each unit's finite values, (U,) float32; -inf without any.
        histogram: Counts of each unit's values in the bins of histogram_bins.py, (U, bins) int32.
    """

    image_count: int
    class_counts: np.ndarray
    zero_count: np.ndarray
    max: np.ndarray
    histogram: np.ndarray

    def __add__(self, other: "UnitCounts") -> "UnitCounts":
        return UnitCounts(
            self.image_count + other.image_count,
            self.class_counts + other.class_counts,
            self.zero_count + other.zero_count,
            np.fmax(self.max, other.max),
            self.histogram + other.histogram,
        )

    def select_units(self, units: slice) -> "UnitCounts":
        """Return the counts of some of the units.

        Args:
            units: The range of the units on the axis (U,).
        """
        unit_counts = (self.zero_count, self.max, self.histogram)
        return UnitCounts(self.image_count, self.class_counts, *(counts[units] for counts in unit_counts))


def compute_statistics(sums: UnitSums, counts: UnitCounts, area: int) -> dict[str, np.ndarray]:
    """Compute the statistics of a layer's units over the data set.

    Args:
        sums: Sums of the layer's units.
        counts: Counts of the layer's units.
        area: Number of values in the map of each unit.

    Returns:
        By name, float32: `mean`, `std` (of the population), `max` and `zero_fraction` (share of values that
        are 0) over all values of all images, (U,); `image_std`, the standard deviation over the images of
        the mean over a map, (U,); `classes`, the mean over the images of each class, (U, classes), NaN for a
        class without images; `selectivity`, see `class_selectivity`, (U,). `mean`, both standard deviations
        and `selectivity` are NaN for a unit with NaN or infinite values, `classes` for the classes that they
        are in; `max` is that of its finite values, NaN without any.
    """
    mean = _mark_non_finite(sums.mean_sum) / counts.image_count
    variance = sums.square_sum / counts.image_count - mean**2
    image_variance = sums.squared_mean_sum / counts.image_count - mean**2
    with np.errstate(invalid="ignore"):
        classes = np.full((len(sums.mean_sum), len(counts.class_counts)), np.nan)
        for label, class_sum in sums.class_sums.items():
            classes[:, label] = _mark_non_finite(class_sum) / counts.class_counts[label]
        std, image_std = (
            np.sqrt(np.where(squares > 0, squares, squares * 0)) for squares in (variance, image_variance)
        )  # NaN stays NaN
    selectivity = class_selectivity(classes, counts.class_counts > 0)
    statistics = {
        "mean": mean,
        "std": std,
        "image_std": image_std,
        "max": _mark_non_finite(counts.max),
        "zero_fraction": counts.zero_count / (counts.image_count * area),
        "classes": classes,
        "selectivity": np.where(np.isnan(mean), np.nan, selectivity),
    }
    return {name: array.astype(np.float32) for name, array in statistics.items()}


def _mark_non_finite(values: np.ndarray) -> np.ndarray:
    """Return values with NaN in place of infinity."""
    return np.where(np.isfinite(values), values, np.nan)


def class_selectivity(class_means: np.ndarray, has_images: np.ndarray) -> np.ndarray:
    """Compute the class selectivity of units, (m - o) / (m + o).

    m is the largest mean activation over the classes, and o the mean of those of all other classes:
    Morcos, Barrett, Rabinowitz, Botvinick, On the importance of single directions for generalization (ICLR
    2018, arXiv 1803.06959), who take activations after a ReLU.

    Args:
        class_means: Mean activation of each unit for each class, (U, classes).
        has_images: Whether there are images of each class, (classes,) bool; other classes do not count.

    Returns:
        (U,): 0 for a unit with the same mean for all classes, or zero for all; 1 for one that is active
        for a single class. NaN with fewer than two classes that have images, and for a unit with a mean
        that is negative or NaN.
    """
    if has_images.sum() < 2:
        return np.full(len(class_means), np.nan)
    means = class_means[:, has_images]
    largest = means.max(1)
    others = (means.sum(1) - largest) / (means.shape[1] - 1)
    total = largest + others
    selectivity = np.divide(largest - others, total, out=np.zeros_like(total), where=total != 0)
    return np.where((means < 0).any(1), np.nan, selectivity)


def find_dead_units(maximum: np.ndarray, mean: np.ndarray, layer_type: str) -> np.ndarray:
    """Return which units of a layer are never positive on any image, (units,) bool.

    Args:
        maximum: Maximum of each unit's finite values over the data set, (units,).
        mean: A mean or sum of all its values, (units,). No unit counts as dead if it is not finite, since
            NaN or infinite values are neither positive nor zero.
        layer_type: `type` of the layer in layers.json. No unit counts as dead if values of the type are
            never positive, such as those of a log-softmax.
    """
    if is_never_positive(layer_type):
        return np.zeros(maximum.shape, bool)
    is_dead: np.ndarray = ~(maximum > 0) & np.isfinite(mean)
    return is_dead


def is_never_positive(layer_type: str) -> bool:
    """Return whether no value of a layer of this type is ever positive.

    Args:
        layer_type: `type` of the layer in layers.json.
    """
    return any(name in layer_type.lower().replace("_", "") for name in NEVER_POSITIVE_TYPES)


@dataclass(frozen=True)
class TopActivations:
    """The top activations of each unit, the strongest first, one per image.

    Of equal values the one of the earlier image comes first, and within an image the first in raster order.

    Attributes:
        values: (U, k) float32.
        images: Numbers of the images in the split, (U, k) int32; -1 where there are fewer than k.
        flat_positions: Flat indices into the unit's map, (U, k) int32.
    """

    values: np.ndarray
    images: np.ndarray
    flat_positions: np.ndarray

    def merge(self, later: "TopActivations") -> "TopActivations":
        """Return the top activations of these images and of later ones.

        Args:
            later: Top activations of the same units on images with higher numbers.
        """
        values = np.concatenate([self.values, later.values], 1)
        images = np.concatenate([self.images, later.images], 1)
        flat_positions = np.concatenate([self.flat_positions, later.flat_positions], 1)
        order = np.argsort(-values, axis=1, kind="stable")[:, : self.values.shape[1]]
        return TopActivations(
            *(np.take_along_axis(array, order, 1) for array in (values, images, flat_positions))
        )


def unravel_positions(flat_positions: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Convert flat indices into rows and columns.

    Args:
        flat_positions: Flat indices into the maps of units, (units, k).
        shape: Shape of the layer's output, (units, ...). In maps of one axis the row is 0; in maps of three
            axes rows are counted through the first two.

    Returns:
        Rows and columns, (units, k, 2) int32.
    """
    width = shape[-1] if len(shape) > 1 else 1
    return np.stack(np.divmod(flat_positions, width), -1).astype(np.int32)


def iter_unit_slices(layers: Sequence[LayerShape]) -> Iterator[tuple[LayerShape, slice]]:
    """Yield each layer with the positions of its units among the units of all layers.

    Args:
        layers: The tracked layers, in the order in which their units are concatenated.
    """
    first = 0
    for layer in layers:
        yield layer, slice(first, first := first + layer["shape"][0])
