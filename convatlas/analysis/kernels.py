"""Classical kernels beside learned filters: which published kernel a filter resembles.

Sobel, Prewitt, Scharr, Laplacian, Gaussian and Gabor, of any odd size. A resemblance counts for something
above what random filters reach too (`random_baseline`).
"""

from functools import cache

import numpy as np
from scipy.signal import convolve2d
from skimage.filters import gabor_kernel

from convatlas.analysis.sobel import SOBEL_DIAGONAL_DOWN, SOBEL_DIAGONAL_UP, SOBEL_X

CHANNEL_SIMILARITY = (
    0.75  # of channels' kernels; in pure noise fewer than 1 in 20 filters, even of 3 × 3, reach it
)

SCHARR_X = np.array([[-3.0, 0, 3], [-10, 0, 10], [-3, 0, 3]])
LAPLACIAN = np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])  # scikit-image's sign


def classical_kernels(size: int) -> dict[str, np.ndarray]:
    """The classical kernels of an odd size from 3, each (size, size), less its mean and of length 1.

    Of 3 × 3 as published. Wider ones: Sobel, Scharr and the Laplacian convolved with a binomial, which
    blurs as a Gaussian does; Prewitt as the slope of the plane that fits best; the Gaussian
    as a binomial of the size. From 5 × 5 on also Gabor functions of eight directions, up to three
    wavelengths and two phases, even (a bar) and odd (an edge); the direction is that of change, clockwise
    from rightwards. Empty for other sizes.
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
    return {name: standardize_rows(k.reshape(1, -1)).reshape(size, size) for name, k in table.items()}


def _binomial_kernel(size: int) -> np.ndarray:
    """Pascal's row times itself, (size, size): for 3, [1, 2, 1] down and across."""
    row = np.ones(1)
    for _ in range(size - 1):
        row = np.convolve(row, [0.5, 0.5])
    return np.outer(row, row)


def _widen_kernel(kernel: np.ndarray, size: int) -> np.ndarray:
    return convolve2d(kernel, _binomial_kernel(size - 2))


def _gabor_kernels(size: int) -> dict[str, np.ndarray]:
    """Gabor functions of (size, size), their round envelope a fifth of it; wavelengths from 3 pixels."""
    table: dict[str, np.ndarray] = {}
    for wavelength in sorted({max(3, round(size / waves)) for waves in (1, 2, 3)}):
        for angle in np.arange(8) * 22.5:
            wave = gabor_kernel(
                1 / wavelength, np.deg2rad(angle), sigma_x=size / 5, sigma_y=size / 5, n_stds=5
            )
            edge = (len(wave) - size) // 2  # 5 sigma reach past the size in every direction
            middle = wave[edge : edge + size, edge : edge + size]
            table[f"Gabor {angle:g}° λ{wavelength} even"] = middle.real
            table[f"Gabor {angle:g}° λ{wavelength} odd"] = middle.imag
    return table


def match_kernels(weight: np.ndarray) -> tuple[np.ndarray, list[list[str]]] | None:
    """The best classical kernel of each channel of filters (units, channels, k, k), by Pearson's |r|.

    Gives r, signed, (units, channels) float32, and the kernels' names; r leaves a kernel's mean and scale
    out. A constant one has r = 0 and the name "". None where `kernels` has none of the size.
    """
    units, channels, height, width = weight.shape
    table = classical_kernels(height)
    if not table or height != width:
        return None
    names = list(table)
    correlation = pearson_correlation(
        weight.reshape(units * channels, -1), np.stack(list(table.values())).reshape(len(names), -1)
    )
    chosen = np.abs(correlation).argmax(axis=1)
    values = np.take_along_axis(correlation, chosen[:, None], axis=1).reshape(units, channels)
    words = np.where(values == 0, "", np.array(names)[chosen].reshape(units, channels))
    return values.astype(np.float32), words.tolist()


@cache
def random_baseline(size: int, seed: int = 0, n: int = 2000) -> float:
    """The 95th percentile of the best |r| of `kernel_matches` for `n` filters (size, size) of Gaussian noise.

    1 where there are no kernels of the size: nothing beats it.
    """
    found = match_kernels(np.random.default_rng(seed).standard_normal((n, 1, size, size)))
    return 1.0 if found is None else float(np.percentile(np.abs(found[0]), 95))


def channel_correlations(weight: np.ndarray) -> np.ndarray:
    """Pearson's r of filters' (units, 3, k, k) red with green, red with blue, green with blue: (units, 3)."""
    red, green, blue = (standardize_rows(weight[:, c].reshape(len(weight), -1)) for c in range(3))
    pairs = ((red, green), (red, blue), (green, blue))
    return np.stack([(a * b).sum(axis=1) for a, b in pairs], axis=1).clip(-1, 1).astype(np.float32)


def classify_channels(row: np.ndarray) -> str:
    """Say what a filter's `channel_correlations` (3,) mean.

    "luminance": all r ≥ 0.75, one pattern in every channel; "colour": some r ≤ −0.75, one channel
    against another; else "mixed".
    """
    if row.min() >= CHANNEL_SIMILARITY:
        return "luminance"
    return "colour" if row.min() <= -CHANNEL_SIMILARITY else "mixed"


def pearson_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of each row of `a` (n, p) with each of `b` (m, p): (n, m) float64."""
    return np.clip(standardize_rows(a) @ standardize_rows(b).T, -1, 1)


def standardize_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (n, p) less their mean and over their length; 0 where that is nothing but rounding."""
    rows = np.asarray(rows, dtype=np.float64)
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0)
    rounding = 1e-6 * np.abs(rows).max(axis=1, keepdims=True) * np.sqrt(rows.shape[1])
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > rounding)
