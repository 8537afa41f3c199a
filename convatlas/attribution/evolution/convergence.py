"""How near the units of a layer are to those after the last epoch, at each snapshot."""

import warnings
from itertools import combinations, pairwise

import numpy as np


def correlate(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation of two projections over the pixels that are known in both.

    Args:
        one: A projection, (C, h, w); NaN beyond the border of the image.
        other: Another of the same shape.

    Returns:
        NaN where one of them is constant, as the projection of an inactive unit is.
    """
    is_known = np.isfinite(one) & np.isfinite(other)
    a, b = one[is_known].astype(np.float64), other[is_known].astype(np.float64)
    if not a.size or not np.ptp(a) or not np.ptp(b):
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def correlate_with_last(projections: np.ndarray) -> np.ndarray:
    """Return the correlation of each unit's projection with its own after the last epoch.

    Args:
        projections: (epochs, units, C, h, w), with NaN beyond the border of the image.

    Returns:
        (epochs, units) float64; NaN where a projection is constant.
    """
    return np.array(
        [[correlate(*pair) for pair in zip(row, projections[-1], strict=True)] for row in projections]
    )


def correlate_units(projections: np.ndarray) -> float:
    """Return the mean correlation of projections of different units, a control of `correlate_with_last`.

    Args:
        projections: Of one epoch, (units, C, h, w).

    Returns:
        NaN with fewer than two units that have one.
    """
    return mean_known(np.array([correlate(*pair) for pair in combinations(projections, 2)]))


def measure_changes(images: np.ndarray) -> np.ndarray:
    """Return the share of a layer's units whose strongest image is not that of the snapshot before.

    Args:
        images: Number of each unit's strongest image, (epochs, units); -1 while it is inactive.

    Returns:
        (epochs,) float64; NaN of the first, and where all units are inactive in both.
    """
    shares = [float("nan")]
    for before, after in pairwise(images):
        is_active = (before >= 0) | (after >= 0)
        shares.append(float((before != after)[is_active].mean()) if is_active.any() else float("nan"))
    return np.array(shares)


def mean_known(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN without any.

    Args:
        values: Values of any shape.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of an empty mean
        return float(np.nanmean(values)) if values.size else float("nan")
