"""How much an optimised image depends on its start: compare those of two starts, and those of other units."""

from collections.abc import Sequence

import numpy as np

from convatlas.attribution.feature_visualisation.optimisation import OptimisedImages
from convatlas.records import StartSimilarity

MIN_RESPONSES = 3  # units that are compared


def compare_starts(
    first: OptimisedImages, second: OptimisedImages, units: Sequence[int]
) -> list[StartSimilarity]:
    """Compare the images of units from a second start with those from the first.

    Args:
        first: The images of all units.
        second: Those of the first of these units, from another start.
        units: Numbers of the units.

    Returns:
        For each image of `second`, its similarity to that of the same unit, and the median of those to the
        images of the other units.
    """
    similarities: list[StartSimilarity] = []
    for n in range(len(second.images)):
        pairs = [
            (
                correlate_responses(second.maxima[n], first.maxima[m], [units[n], units[m]]),
                correlate_pixels(second.images[n], first.images[m]),
            )
            for m in range(len(units))
        ]
        others = [pair for m, pair in enumerate(pairs) if m != n]
        similarities.append(
            {
                "responses": pairs[n][0],
                "responses_control": _median([responses for responses, _ in others]),
                "pixels": pairs[n][1],
                "pixels_control": _median([pixels for _, pixels in others]),
            }
        )
    return similarities


def correlate_responses(a: np.ndarray, b: np.ndarray, excluded: Sequence[int]) -> float | None:
    """Return Pearson's correlation of what the units of a layer give for two images.

    Args:
        a: The maximum of each unit for the first image, (units,).
        b: The same for the second.
        excluded: Units that are left out: those for which the images were optimised.

    Returns:
        The correlation; None of too few units, or where all are equal.
    """
    rest = np.setdiff1d(np.arange(len(a)), excluded)
    if len(rest) < MIN_RESPONSES:
        return None
    x, y = (values[rest].astype(np.float64) - values[rest].mean(dtype=np.float64) for values in (a, b))
    return _divide(float(x @ y), float(np.sqrt((x @ x) * (y @ y))))


def correlate_pixels(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the correlation of two images at the shift where it is largest, as the images repeat.

    Args:
        a: An image, (C, h, w).
        b: Another.

    Returns:
        Pearson's correlation within channels; None where an image is constant.
    """
    x, y = (image.astype(np.float64) - image.mean((1, 2), keepdims=True) for image in (a, b))
    spectrum = (np.fft.rfft2(x) * np.fft.rfft2(y).conj()).sum(0)
    products = np.fft.irfft2(spectrum, s=a.shape[1:])
    return _divide(float(products.max()), float(np.sqrt(np.square(x).sum() * np.square(y).sum())))


def _divide(product: float, norm: float) -> float | None:
    return round(product / norm, 6) if norm > 0 else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
