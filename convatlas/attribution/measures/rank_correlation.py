"""Spearman's rank correlation of attribution maps.

Each map is ranked once, however many pairs it is in. SciPy's `spearmanr` ranks both maps of every pair, and
the import of scipy.stats alone costs more than the ranks of 200 maps of 224 × 224 pixels.
"""

import numpy as np

MIN_VALUES = 3  # with fewer, every correlation is -1 or 1


def magnitudes(maps: np.ndarray) -> np.ndarray:
    """Return the magnitude of each pixel of maps, summed over channels.

    Args:
        maps: Signed maps, (..., C, H, W).

    Returns:
        (..., H, W) float32.
    """
    summed: np.ndarray = np.abs(maps).sum(-3, dtype=np.float32)
    return summed


def rank(values: np.ndarray) -> np.ndarray:
    """Return the ranks of a map's pixels, centred and with the norm 1; equal values share their mean rank.

    The dot product of two such maps is their Spearman correlation.

    Args:
        values: The map, of any shape.

    Returns:
        (pixels,) float64; NaN where the correlation is not defined: the map is constant or not finite.
    """
    flat = np.ravel(values)
    order = np.argsort(flat)
    in_order = flat[order]
    starts = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]])  # of runs of equal values
    counts = np.diff(starts, append=len(flat))
    if len(starts) < 2 or len(flat) < MIN_VALUES or not np.isfinite(in_order[[0, -1]]).all():
        return np.full(len(flat), np.nan)
    ranks = np.empty(len(flat))
    ranks[order] = np.repeat(starts + (counts - 1) / 2, counts)
    ranks -= ranks.mean()
    return ranks / np.linalg.norm(ranks)


def rank_maps(maps: np.ndarray) -> np.ndarray:
    """Return the ranks of the magnitudes of several maps, as `rank`.

    Args:
        maps: Signed maps, (..., C, H, W).

    Returns:
        (maps, H * W) float64.
    """
    flat = magnitudes(maps).reshape(-1, maps.shape[-2] * maps.shape[-1])
    return np.stack([rank(values) for values in flat]) if len(flat) else np.empty(flat.shape)


def mean_or_none(values: np.ndarray) -> float | None:
    """Return the mean of the correlations that are defined; None where none is.

    Args:
        values: Correlations; NaN where one is not defined.
    """
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else None
