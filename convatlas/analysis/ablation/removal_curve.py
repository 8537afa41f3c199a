"""In which order units are removed, and at which numbers of removed units the network is measured."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

N_POINTS = 11  # of a curve at most, its ends included


@dataclass(frozen=True)
class RemovalCurve:
    """A measure against the number of a layer's units that are ablated together.

    Attributes:
        counts: Numbers of ablated units, (points,), from 0 to all that were measured.
        important_first: The measure with the most important units ablated first, (points,).
        important_last: With the least important units ablated first, (points,).
        random: In random orders, (orders, points).
    """

    counts: np.ndarray
    important_first: np.ndarray
    important_last: np.ndarray
    random: np.ndarray


def choose_counts(n_units: int) -> np.ndarray:
    """Return the numbers of removed units of a curve, ascending from 0 to all, evenly spaced.

    Args:
        n_units: How many units can be removed.
    """
    return np.unique(np.linspace(0, n_units, N_POINTS).round().astype(int))


def order_units(importance: np.ndarray, n_random: int, seed: int) -> np.ndarray:
    """Return the orders in which units are removed: most important first, last, and random ones.

    Args:
        importance: Of each unit, (units,); NaN counts as the most important.
        n_random: How many random orders.
        seed: Of the random orders.

    Returns:
        Positions of units, (2 + n_random, units). Equally important units are in the order of the layer.
    """
    values = np.where(np.isnan(importance), np.inf, importance)
    generator = np.random.default_rng(seed)
    random = [generator.permutation(len(values)) for _ in range(n_random)]
    return np.stack([(-values).argsort(kind="stable"), values.argsort(kind="stable"), *random])


def list_removals(orders: np.ndarray, counts: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield which units are ablated at each point of each order.

    All orders share the ends: without ablated units, which is not yielded, and with all, yielded once.

    Args:
        orders: From `order_units`.
        counts: From `choose_counts`.

    Yields:
        The order, the point, and the positions of the ablated units.
    """
    for number, order in enumerate(orders):
        for point, count in enumerate(counts):
            if 0 < count < orders.shape[1] or (count and number == 0):
                yield number, point, order[:count]
