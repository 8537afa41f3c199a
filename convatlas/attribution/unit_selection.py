"""The units of a layer whose projections are kept: those with the largest scores."""

import numpy as np
import numpy.typing as npt

from convatlas.pipeline.config_types import CountOrAll


def select_top_units(scores: np.ndarray, limit: CountOrAll) -> npt.NDArray[np.int32]:
    """Return the units with the largest scores, largest first; all in their own order.

    Args:
        scores: The score of each unit, (units,).
        limit: How many units to return at most, or "all".
    """
    if limit == "all" or int(limit) >= len(scores):
        return np.arange(len(scores), dtype=np.int32)
    return np.argsort(-scores, kind="stable")[: int(limit)].astype(np.int32)


def unit_maxima(output: np.ndarray) -> np.ndarray:
    """Return the largest finite activation of each unit, (units,); -inf of a unit without any.

    Args:
        output: The output of a layer for one image, (units, ...).
    """
    finite = np.isfinite(output)
    known = output if finite.all() else np.where(finite, output, -np.inf)
    maxima: np.ndarray = known.reshape(len(output), -1).max(1)
    return maxima
