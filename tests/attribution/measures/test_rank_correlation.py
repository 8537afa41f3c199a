"""Spearman's correlation of maps against SciPy."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from convatlas.attribution.measures.rank_correlation import magnitudes, mean_or_none, rank, rank_maps


@pytest.mark.parametrize("levels", [0, 2, 5, 1000])
def test_correlations_are_those_of_scipy(levels: int) -> None:
    maps = np.random.default_rng(levels).normal(size=(4, 3, 9, 7)).astype(np.float32)
    if levels:  # equal values, many or few
        maps = np.round(maps * levels / 4)
    ranks = rank_maps(maps)
    expected = spearmanr(np.abs(maps).sum(1).reshape(4, -1), axis=1).statistic
    np.testing.assert_allclose(ranks @ ranks.T, expected, atol=1e-12)


@pytest.mark.parametrize("values", [[1.0, 1, 1, 1], [0, np.nan, 1, 2], [0, np.inf, 1, 2], [0, 1]])
def test_maps_without_a_correlation_have_none(values: list[float]) -> None:
    assert np.isnan(rank(np.array(values))).all()


def test_magnitudes_are_summed_over_channels() -> None:
    maps = np.array([[[-1.0, 2]], [[3, -4]]])
    assert magnitudes(maps).tolist() == [[4, 6]]
    assert mean_or_none(np.array([0.5, np.nan, 1])) == 0.75
    assert mean_or_none(np.array([np.nan])) is None
