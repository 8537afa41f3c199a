"""Possible shortcuts: units whose top activations all lie at one position, or on images of one subclass.

A unit that is most active wherever there is a watermark, a frame or the background of one breed may solve its
data set without the object (Geirhos et al., Shortcut learning in deep neural networks, Nature Machine
Intelligence 2, 2020, arXiv 2004.07780). Top activations also coincide by chance: in a map of 2 × 2 values, or
where all units of a layer peak in the centre. A unit is marked only where that is improbable. No torch here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

SIGNIFICANCE = 0.05  # largest p-value, adjusted for all tests of a network, of a unit that is marked


@dataclass(frozen=True)
class Coincidence:
    """The top activations of a unit that have one position or one subclass in common.

    Attributes:
        unit: Number of the unit.
        kind: What they have in common.
        value: The flat index of the position in the unit's map, or the number of the subclass.
        p_value: The probability of it by chance.
    """

    unit: int
    kind: Literal["position", "subclass"]
    value: int
    p_value: float


@dataclass(frozen=True)
class CoincidenceTest:
    """The units of a layer whose top activations coincide, among those that were tested."""

    tested: frozenset[int]
    coincidences: Sequence[Coincidence]


def select_tested_units(values: np.ndarray) -> npt.NDArray[np.bool_]:
    """Return which units have top activations that can be compared, (units,).

    These are all finite and positive, and not all equal: the images and positions of equal values, such as
    those of a unit that is dead or saturated, are the first ones, not the strongest.

    Args:
        values: The top activations of each unit, in descending order, (units, k).
    """
    if values.shape[1] < 2:
        return np.zeros(len(values), bool)
    with np.errstate(invalid="ignore"):
        selected: npt.NDArray[np.bool_] = np.isfinite(values).all(1) & (values[:, -1] > 0)
        return selected & (values[:, 0] > values[:, -1])


def find_common_positions(values: np.ndarray, positions: np.ndarray, area: int) -> CoincidenceTest:
    """Find the units of a layer whose top activations all lie at one position of their map.

    By chance the k positions of a unit are drawn, independently, from those at which the other tested units
    have top activations, each position counted once per unit, and from one more unit with an equal share of
    each position. So a position that many units of the layer prefer is no surprise, and neither is any in a
    map of few positions.

    Args:
        values: The top activations of each unit, (units, k).
        positions: Their flat indices in the unit's map, (units, k).
        area: Number of positions of a map.

    Returns:
        No test of a map with a single position.
    """
    tested = np.flatnonzero(select_tested_units(values))
    if area < 2 or not len(tested):
        return CoincidenceTest(frozenset(), [])
    distinct = [np.unique(row) for row in positions[tested]]
    counts = np.bincount(np.concatenate(distinct), minlength=area) + 1 / area
    total, k = counts.sum(), values.shape[1]
    coincidences = []
    for unit, own in zip(tested.tolist(), distinct, strict=True):
        if len(own) == 1:
            others = counts.copy()
            others[own] -= 1
            p_value = float(((others / (total - 1)) ** k).sum())
            coincidences.append(Coincidence(unit, "position", int(own[0]), p_value))
    return CoincidenceTest(frozenset(tested.tolist()), coincidences)


def find_common_subclasses(
    values: np.ndarray, images: np.ndarray, labels: np.ndarray, subclasses: np.ndarray
) -> CoincidenceTest:
    """Find the units of a layer whose top activations are all on images of one subclass of a larger class.

    By chance a unit's k images are drawn, without replacement, from those of the class: a unit may prefer a
    class, but within the class no subclass.

    Args:
        values: The top activations of each unit, (units, k).
        images: Numbers of their images, (units, k).
        labels: The class of each image of the split, (N,); negative where it has none.
        subclasses: The number of the subclass of each image of the split, (N,).

    Returns:
        Of classes without several subclasses no coincidences.
    """
    tested = np.flatnonzero(select_tested_units(values))
    sizes = {
        label: np.unique(subclasses[labels == label], return_counts=True)[1].tolist()
        for label in np.unique(labels[labels >= 0]).tolist()
    }
    coincidences = []
    for unit in tested.tolist():
        (label, subclass), *others = {
            (int(labels[image]), int(subclasses[image])) for image in images[unit].tolist()
        }
        if not others and len(sizes.get(label, ())) > 1:
            p_value = compute_subclass_probability(sizes[label], values.shape[1])
            coincidences.append(Coincidence(unit, "subclass", subclass, p_value))
    return CoincidenceTest(frozenset(tested.tolist()), coincidences)


def compute_subclass_probability(sizes: Sequence[int], k: int) -> float:
    """Compute the probability that k different images of a class are all of one subclass.

    Args:
        sizes: Number of images of each subclass of the class.
        k: Number of images drawn.
    """
    return sum(math.comb(size, k) for size in sizes) / math.comb(sum(sizes), k)


def select_significant(groups: Iterable[Sequence[Coincidence]], n_tests: int) -> list[list[Coincidence]]:
    """Return the coincidences that are improbable by chance, with p-values adjusted for all tests.

    By Bonferroni, as the tests of successive layers depend on each other.

    Args:
        groups: The coincidences of each layer of a network.
        n_tests: Number of tests in which they were found.

    Returns:
        Those of each layer with an adjusted p-value of at most SIGNIFICANCE.
    """
    adjusted = [
        [replace(coincidence, p_value=coincidence.p_value * n_tests) for coincidence in group]
        for group in groups
    ]
    return [
        [coincidence for coincidence in group if coincidence.p_value <= SIGNIFICANCE] for group in adjusted
    ]
