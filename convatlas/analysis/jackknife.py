"""The delete-a-group jackknife: standard errors of statistics that have no formula of their own."""

import numpy as np


def jackknife_error(replicates: np.ndarray) -> np.ndarray:
    """Return the standard error of a statistic by the delete-a-group jackknife.

    Args:
        replicates: The statistic without each group of images, (groups, ...).

    Returns:
        The error, of the shape of the statistic; NaN without groups.
    """
    groups = len(replicates)
    if groups < 2:
        return np.full(replicates.shape[1:], np.nan)
    squares = np.square(replicates - replicates.mean(0)).sum(0)
    return np.asarray(np.sqrt((groups - 1) / groups * squares))
