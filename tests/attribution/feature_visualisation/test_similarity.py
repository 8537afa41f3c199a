"""The similarity of optimised images from two starts."""

import numpy as np
import pytest

from convatlas.attribution.feature_visualisation.optimisation import OptimisedImages
from convatlas.attribution.feature_visualisation.similarity import (
    compare_starts,
    correlate_pixels,
    correlate_responses,
)

RNG = np.random.default_rng(0)


def test_pixels_are_correlated_at_the_best_shift() -> None:
    image = RNG.random((3, 6, 7))
    other = RNG.random((3, 6, 7))
    assert correlate_pixels(np.roll(image, (2, -3), (1, 2)), image) == pytest.approx(1, abs=1e-6)
    centred = [values - values.mean((1, 2), keepdims=True) for values in (image, other)]
    by_shift = [
        np.corrcoef(np.roll(centred[0], (row, column), (1, 2)).ravel(), centred[1].ravel())[0, 1]
        for row in range(6)
        for column in range(7)
    ]
    assert correlate_pixels(image, other) == pytest.approx(max(by_shift), abs=1e-5)
    assert correlate_pixels(np.ones((1, 4, 4)), RNG.random((1, 4, 4))) is None


def test_responses_leave_the_optimised_units_out() -> None:
    a, b = RNG.random(8), RNG.random(8)
    a[2] = b[2] = 1e6
    rest = np.delete(np.arange(8), 2)
    assert correlate_responses(a, b, [2]) == pytest.approx(np.corrcoef(a[rest], b[rest])[0, 1], abs=1e-5)
    assert correlate_responses(a[:4], b[:4], [0, 1]) is None
    assert correlate_responses(np.ones(8), b, [2]) is None


def test_the_same_unit_is_compared_with_other_units() -> None:
    maxima, pixels = RNG.random((3, 9)).astype(np.float32), RNG.random((3, 1, 5, 5)).astype(np.float32)
    nothing = np.zeros(3, np.float32)
    first = OptimisedImages(pixels, nothing[:, None], nothing, nothing, maxima)
    second = OptimisedImages(pixels[:1], nothing[:1, None], nothing[:1], nothing[:1], maxima[:1])
    (entry,) = compare_starts(first, second, [4, 0, 8])
    assert entry["responses"] == entry["pixels"] == pytest.approx(1, abs=1e-5)
    controls = [correlate_pixels(pixels[0], pixels[n]) for n in (1, 2)]
    assert entry["pixels_control"] == pytest.approx(np.mean(controls))  # type: ignore[arg-type]
    assert compare_starts(first, second, [4])[0]["pixels_control"] is None
