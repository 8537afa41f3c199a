"""The bins of the histograms of activations, which need no knowledge of their range. No torch here.

The bins are logarithmic: two for each power of two, of positive and of negative values, from the exponent and
the first bit of the fraction of a float32. Counts are integers, the same in any order of the images.
"""

import numpy as np

MAX_POSITIONS = 16  # values of a map that are counted
LOWEST_EXPONENT, HIGHEST_EXPONENT = -12, 16  # of two; magnitudes beyond them share a bin
BINS_PER_SIGN = 2 * (HIGHEST_EXPONENT - LOWEST_EXPONENT) + 2  # with one below and one above
ZERO_BIN = BINS_PER_SIGN
N_BINS = 2 * BINS_PER_SIGN + 1


def list_bin_edges() -> np.ndarray:
    """List the magnitudes that bound the bins of positive values, ascending, (BINS_PER_SIGN + 1,).

    Bin k of the positive values, `histogram[..., ZERO_BIN + 1 + k]`, counts values from edge k up to, but
    without, edge k + 1; the first edge is 0, the last infinity. `histogram[..., ZERO_BIN - 1 - k]` counts the
    negative values with these magnitudes, and `histogram[..., ZERO_BIN]` zeros, and magnitudes below 2^-127.
    """
    powers = 2.0 ** np.arange(LOWEST_EXPONENT, HIGHEST_EXPONENT)
    return np.array([0.0, *np.stack([powers, 1.5 * powers], 1).ravel(), 2.0**HIGHEST_EXPONENT, np.inf])


def _make_bin_table() -> np.ndarray:
    """Return the bin by a float32's upper bits: sign, exponent, first of the fraction; (1024,) uint64.

    The bin N_BINS is that of values that are not finite.
    """
    exponents = (np.arange(512) >> 1) - 127
    positions = np.arange(512) - 2 * (127 + LOWEST_EXPONENT) + 1
    distances = positions.clip(0, BINS_PER_SIGN - 1) + 1
    distances[0] = 0
    is_finite = exponents < 128
    signs = (np.where(is_finite, ZERO_BIN + sign * distances, N_BINS) for sign in (1, -1))
    return np.concatenate([*signs]).astype(np.uint64)


BIN_TABLE = _make_bin_table()
