"""Specificity of a layer's projections: do they show which unit is active, or only where?

Deep in a network, the projections of different units at one position are nearly the same image (Nie, Zhang
and Patel, arXiv 1805.07039). The specificity of a layer is 1 minus the median absolute Spearman correlation
between the magnitudes of projections of different units whose peaks coincide, or nearly.

Correlations are over the pixels on which these projections depend, the smallest box that holds them all: the
zeros outside a small receptive field are common to all units and would make every correlation large.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from convatlas.attribution.measures.rank_correlation import magnitudes, rank
from convatlas.attribution.measures.redrawn_weights import WeightedLayer, redraw, restore_weights
from convatlas.attribution.measures.unit_projections import Position

MAX_UNITS = 5  # of an image
MIN_PAIRS = 5  # for a median

# From a network, an image (C, H, W), units and positions in their maps to the projections of the activations
# there, whatever their sign, (units, C, H, W) by each method.
ProjectActivations = Callable[[nn.Module, Tensor, Sequence[int], Sequence[Position]], Mapping[str, Tensor]]


class Specificity(NamedTuple):
    """The specificity of the projections of a layer's units by one method.

    Attributes:
        value: 1 - median absolute Spearman correlation over pairs of different units; None with fewer than
            MIN_PAIRS pairs.
        pairs: Number of pairs of units.
        similarity: At each stage of randomisation, the median absolute Spearman correlation between the
            projection of a unit and that of the same position in its map with weights redrawn; None where
            none is defined.
        reason: Why `value` is None.
    """

    value: float | None
    pairs: int
    similarity: list[float | None]
    reason: str | None


class SharedPeak(NamedTuple):
    """Units whose peaks coincide, or nearly.

    Attributes:
        units: Their numbers.
        positions: The position of the peak of each.
    """

    units: list[int]
    positions: list[Position]


def find_shared_peaks(
    output: Tensor, tolerance: Position = (0, 0), limit: int = MAX_UNITS
) -> list[SharedPeak]:
    """Find the positions at which most units of a layer have their peaks.

    Args:
        output: The layer's output for an image, (units, H, W), or (units,), whose units share one position.
        tolerance: Rows and columns that two peaks may be apart.
        limit: How many units to return at most: at the position with the most peaks those with the largest,
            then at the next.

    Returns:
        Groups of at least two units.
    """
    maps = output.reshape(len(output), -1, output.shape[-1] if output.ndim > 1 else 1).cpu()
    height, width = maps.shape[1:]
    window = min(tolerance[0] + 1, height), min(tolerance[1] + 1, width)
    values, index = maps.flatten(1).max(1)
    units = values.argsort(descending=True, stable=True)
    units = units[values[units] > 0]
    groups = []
    while limit > 1:
        counts = torch.bincount(index[units], minlength=height * width).reshape(1, height, width)
        sums = functional.avg_pool2d(counts.float(), window, 1, divisor_override=1)[0]
        corner = divmod(int(sums.argmax()), sums.shape[1])
        offsets = torch.stack([index[units] // width - corner[0], index[units] % width - corner[1]], 1)
        inside = ((offsets >= 0) & (offsets < torch.tensor(window))).all(1)
        members = units[inside][:limit]
        if len(members) < 2:
            break
        positions = [divmod(flat, width) for flat in index[members].tolist()]
        groups.append(SharedPeak(members.tolist(), positions))
        units = units[~inside]
        limit -= len(members)
    return groups


def measure_specificity(
    network: nn.Module,
    images: Sequence[Tensor],
    outputs: Sequence[Tensor],
    project: ProjectActivations,
    stages: Sequence[Sequence[WeightedLayer]],
    tolerance: Position = (0, 0),
    seed: int = 0,
) -> dict[str, Specificity]:
    """Measure the specificity of a layer by several methods.

    Args:
        network: The network; it is restored bit for bit.
        images: Sample images, each (C, H, W).
        outputs: The layer's output for each image, (units, H, W).
        project: Projects units of the layer by each method, always the same ones.
        stages: Whose weights are redrawn for the control, stage after stage: the layer's own, then those
            below it, from `split_stages_of_units`.
        tolerance: Rows and columns in the layer's map that two peaks may be apart, from
            `find_peak_tolerance`.
        seed: Of the redrawn weights.

    Returns:
        The specificity by each method; empty where no image has units whose peaks nearly coincide.
    """
    groups = [
        (image, find_shared_peaks(output, tolerance)) for image, output in zip(images, outputs, strict=True)
    ]

    def project_all() -> dict[str, list[np.ndarray]]:
        projections: dict[str, list[np.ndarray]] = {}
        for image, peaks in groups:
            if peaks:
                units = [unit for peak in peaks for unit in peak.units]
                positions = [position for peak in peaks for position in peak.positions]
                sizes = [len(peak.units) for peak in peaks]
                for name, values in project(network, image, units, positions).items():
                    arrays = [magnitudes(part.cpu().numpy()) for part in torch.split(values.float(), sizes)]
                    projections.setdefault(name, []).extend(arrays)
        return projections

    trained, redrawn = project_all(), []
    with restore_weights(network):
        for stage in stages:
            for layer in stage:
                redraw(layer, seed)
            redrawn.append(project_all())
    return {name: _summarise(trained[name], [stage[name] for stage in redrawn]) for name in trained}


def _summarise(trained: Sequence[np.ndarray], redrawn: Sequence[Sequence[np.ndarray]]) -> Specificity:
    """Return the specificity of groups of projections, (units, H, W) each.

    Args:
        trained: The groups with trained weights.
        redrawn: The groups at each stage of randomisation.
    """
    between: list[float] = []
    for group in trained:
        ranks = _rank_in_box(group)
        between += np.abs(ranks @ ranks.T)[np.triu_indices(len(group), 1)].tolist()
    similarity = [
        _median([abs(value) for pair in zip(trained, stage, strict=True) for value in _correlate(*pair)])
        for stage in redrawn
    ]
    count = int(np.isfinite(between).sum())
    if count < MIN_PAIRS:
        pairs = "1 pair of units has" if count == 1 else f"{count} pairs of units have"
        reason = f"{pairs} peaks that nearly coincide; {MIN_PAIRS} are needed"
        return Specificity(None, count, similarity, reason)
    return Specificity(1 - float(np.nanmedian(between)), count, similarity, None)


def _correlate(projections: np.ndarray, others: np.ndarray) -> Iterator[float]:
    """Yield the Spearman correlation of each projection with that of the same unit in another network."""
    for pair in zip(projections, others, strict=True):
        first, second = _rank_in_box(np.stack(pair))
        yield float(first @ second)


def _rank_in_box(projections: np.ndarray) -> np.ndarray:
    """Return the ranks of projections over the smallest box outside of which all are zero.

    Args:
        projections: Magnitudes, (N, H, W).

    Returns:
        (N, pixels); NaN where a projection is constant, as if it is zero everywhere.
    """
    rows, columns = (np.flatnonzero(projections.any((0, axis))) for axis in (2, 1))
    if not len(rows):
        return np.full((len(projections), 1), np.nan)
    box = projections[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.stack([rank(values) for values in box])


def _median(values: Sequence[float]) -> float | None:
    """Return the median of the values that are finite; None where none is."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else None
