"""Classical kernels, and the learned filters that resemble them.

Sobel, Prewitt, Scharr, Laplacian, Gaussian and Gabor kernels of any odd size. A resemblance is reported
above what random filters reach as well (`random_baseline`).
"""

from functools import cache

import numpy as np
from scipy.signal import convolve2d
from skimage.filters import gabor_kernel

from convatlas.analysis.sobel import SOBEL_DIAGONAL_DOWN, SOBEL_DIAGONAL_UP, SOBEL_X

# Of the kernels of two channels; fewer than 1 in 20 filters of noise, even of 3 × 3, reach it.
CHANNEL_SIMILARITY = 0.75

SCHARR_X = np.array([[-3.0, 0, 3], [-10, 0, 10], [-3, 0, 3]])
LAPLACIAN = np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])  # scikit-image's sign


def classical_kernels(size: int) -> dict[str, np.ndarray]:
    """Return the classical kernels of a size.

    Those of 3 × 3 are as published. Of larger ones, Sobel, Scharr and the Laplacian are convolved with a
    binomial kernel, which approximates a Gaussian; Prewitt is the slope of the plane of least squares; the
    Gaussian is a binomial kernel. From 5 × 5 on there are Gabor functions of eight directions, up to three
    wavelengths and two phases, even (a bar) and odd (an edge); the direction is that of change, clockwise
    from rightwards.

    Args:
        size: Side in pixels.

    Returns:
        Name -> (size, size) float64 of mean 0 and norm 1; empty unless the size is odd and at least 3.
    """
    if size < 3 or size % 2 == 0:
        return {}
    prewitt = np.tile(np.arange(size) - size // 2, (size, 1))
    table = {
        "Sobel x": _widen_kernel(SOBEL_X, size),
        "Sobel y": _widen_kernel(SOBEL_X.T, size),
        "Sobel 45° down": _widen_kernel(SOBEL_DIAGONAL_DOWN, size),
        "Sobel 45° up": _widen_kernel(SOBEL_DIAGONAL_UP, size),
        "Prewitt x": prewitt,
        "Prewitt y": prewitt.T,
        "Scharr x": _widen_kernel(SCHARR_X, size),
        "Scharr y": _widen_kernel(SCHARR_X.T, size),
        "Laplacian": _widen_kernel(LAPLACIAN, size),
        "Gaussian": _binomial_kernel(size),
    }
    if size >= 5:
        table |= _gabor_kernels(size)
    return {
        name: standardize_rows(kernel.reshape(1, -1)).reshape(size, size) for name, kernel in table.items()
    }


def _binomial_kernel(size: int) -> np.ndarray:
    """Return the outer product of a row of Pascal's triangle with itself, (size, size)."""
    row = np.ones(1)
    for _ in range(size - 1):
        row = np.convolve(row, [0.5, 0.5])
    return np.outer(row, row)


def _widen_kernel(kernel: np.ndarray, size: int) -> np.ndarray:
    """Convolve a kernel (3, 3) with a binomial one to a larger size."""
    widened: np.ndarray = convolve2d(kernel, _binomial_kernel(size - 2))
    return widened


def _gabor_kernels(size: int) -> dict[str, np.ndarray]:
    """Return Gabor functions whose round envelope has a sigma of size / 5; wavelengths from 3 pixels."""
    table: dict[str, np.ndarray] = {}
    for wavelength in sorted({max(3, round(size / waves)) for waves in (1, 2, 3)}):
        for angle in np.arange(8) * 22.5:
            wave = gabor_kernel(
                1 / wavelength, np.deg2rad(angle), sigma_x=size / 5, sigma_y=size / 5, n_stds=5
            )
            margin = (len(wave) - size) // 2  # 5 sigma exceed the size in every direction
            centre = wave[margin : margin + size, margin : margin + size]
            table[f"Gabor {angle:g}° λ{wavelength} even"] = centre.real
            table[f"Gabor {angle:g}° λ{wavelength} odd"] = centre.imag
    return table


def match_kernels(weight: np.ndarray) -> tuple[np.ndarray, list[list[str]]] | None:
    """Return the classical kernel that each channel of filters resembles most, by Pearson's `|r|`.

    r does not depend on a kernel's mean and scale.

    Args:
        weight: Filters, (units, channels, k, k).

    Returns:
        r, signed, (units, channels) float32, and the names of the kernels; a constant channel has r = 0 and
        the name "". None if there are no classical kernels of the size.
    """
    units, channels, height, width = weight.shape
    table = classical_kernels(height)
    if not table or height != width:
        return None
    names = list(table)
    correlation = pearson_correlation(
        weight.reshape(units * channels, -1), np.stack(list(table.values())).reshape(len(names), -1)
    )
    best = np.abs(correlation).argmax(axis=1)
    r = np.take_along_axis(correlation, best[:, None], axis=1).reshape(units, channels)
    best_names = np.where(r == 0, "", np.array(names)[best].reshape(units, channels))
    return r.astype(np.float32), best_names.tolist()


@cache
def random_baseline(size: int, seed: int = 0, n: int = 2000) -> float:
    """Return the 95th percentile of the `|r|` of `match_kernels` for filters of Gaussian noise.

    Args:
        size: Side of the filters in pixels.
        seed: Of the noise.
        n: Number of filters.

    Returns:
        The percentile; 1, which nothing exceeds, if there are no classical kernels of the size.
    """
    matches = match_kernels(np.random.default_rng(seed).standard_normal((n, 1, size, size)))
    return 1.0 if matches is None else float(np.percentile(np.abs(matches[0]), 95))


def channel_correlations(weight: np.ndarray) -> np.ndarray:
    """Compute Pearson's r between the colour channels of filters.

    Args:
        weight: Filters of RGB inputs, (units, 3, k, k).

    Returns:
        r of red with green, red with blue, and green with blue, (units, 3) float32.
    """
    red, green, blue = (standardize_rows(weight[:, c].reshape(len(weight), -1)) for c in range(3))
    pairs = ((red, green), (red, blue), (green, blue))
    return np.stack([(a * b).sum(axis=1) for a, b in pairs], axis=1).clip(-1, 1).astype(np.float32)


def classify_channels(correlations: np.ndarray) -> str:
    """Return whether a filter responds to luminance or to colour.

    Args:
        correlations: The filter's row of `channel_correlations`, (3,).

    Returns:
        "luminance" if all r ≥ 0.75, one pattern in every channel; "colour" if some r ≤ -0.75, one channel
        against another; else "mixed".
    """
    if correlations.min() >= CHANNEL_SIMILARITY:
        return "luminance"
    return "colour" if correlations.min() <= -CHANNEL_SIMILARITY else "mixed"


def pearson_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute Pearson's r of each row of one array with each row of another.

    Args:
        a: (n, p).
        b: (m, p).

    Returns:
        (n, m) float64; 0 for a row that `standardize_rows` sets to 0.
    """
    correlation: np.ndarray = np.clip(standardize_rows(a) @ standardize_rows(b).T, -1, 1)
    return correlation


def standardize_rows(rows: np.ndarray) -> np.ndarray:
    """Subtract from each row its mean, and divide it by its norm.

    Args:
        rows: (n, p).

    Returns:
        (n, p) float64; 0 for a row that is constant but for rounding, or that is not finite.
    """
    rows = np.asarray(rows, dtype=np.float64)
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0)
    rounding = 1e-6 * np.abs(rows).max(axis=1, keepdims=True) * np.sqrt(rows.shape[1])
    rows = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    standardized: np.ndarray = np.divide(rows, norm, out=np.zeros_like(rows), where=norm > rounding)
    return standardized
