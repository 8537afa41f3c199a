"""Measures of convergence, against NumPy's correlation and by hand."""

import numpy as np
import pytest

from convatlas.attribution.evolution import convergence


def test_the_correlation_is_numpys_over_the_pixels_known_in_both() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert convergence.correlate(one, other) == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    one[:, 0], other[:, :, 4] = np.nan, np.nan
    expected = np.corrcoef(one[:, 1:, :4].ravel(), other[:, 1:, :4].ravel())[0, 1]
    assert convergence.correlate(one, other) == pytest.approx(expected)


def test_the_last_epoch_correlates_with_itself_and_an_inactive_unit_with_none() -> None:
    projections = np.random.default_rng(1).normal(size=(3, 4, 1, 5, 5)).astype(np.float32)
    projections[0, 2] = np.nan
    projections[1, 1] = 0
    correlations = convergence.correlate_with_last(projections)
    np.testing.assert_allclose(correlations[-1], 1)
    assert np.isnan(correlations[0, 2]) and np.isnan(correlations[1, 1])
    assert np.isfinite(correlations).sum() == 10
    assert convergence.mean_known(correlations[0]) == pytest.approx(np.mean(correlations[0, [0, 1, 3]]))


def test_different_units_are_compared_in_pairs() -> None:
    pattern = np.random.default_rng(2).normal(size=(1, 4, 4)).astype(np.float32)
    assert convergence.correlate_units(np.stack([pattern, 2 * pattern, 5 + pattern])) == pytest.approx(1)
    assert convergence.correlate_units(np.stack([pattern, -pattern])) == pytest.approx(-1)
    assert np.isnan(convergence.correlate_units(pattern[None]))


def test_changes_are_counted_among_the_units_that_are_active() -> None:
    images = np.array([[-1, 4, 7, 9], [-1, 4, 8, 9], [3, 5, -1, 9], [-1, -1, -1, -1], [-1, -1, -1, -1]])
    changes = convergence.measure_changes(images)
    np.testing.assert_allclose(changes, [np.nan, 1 / 3, 3 / 4, 1, np.nan])
