"""Specificity of a layer's projections: do they show which unit is active, or only where?

Deep in a network, the projections of different units from one place are nearly the same picture (Nie, Zhang
and Patel, arXiv 1805.07039). The specificity of a layer is 1 minus the median absolute Spearman correlation
between the magnitudes of projections of different units whose peaks share a place, or nearly.

Correlations are over the pixels on which these projections depend, the smallest box that holds them all: the
zeros outside a small receptive field are common to all units and would make every correlation large.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.attribution.rank_correlation import magnitudes, rank
from convatlas.attribution.redrawn_weights import WeightedLayer, redraw, restore_weights

MAX_UNITS = 6  # of an image
MIN_PAIRS = 5  # for a median

Place = tuple[int, int]  # row and column in a layer's map

# From a network, an image (C, H, W), units and the places in their maps to the projections of the activations
# there, whatever their sign, (units, C, H, W).
ProjectPlaces = Callable[[nn.Module, Tensor, Sequence[int], Sequence[Place]], Tensor]


class Specificity(NamedTuple):
    """The specificity of the projections of a layer's units by one method.

    Attributes:
        value: 1 - median |Spearman| over pairs of different units; None with fewer than MIN_PAIRS pairs.
        randomised: 1 - median |Spearman| between the projection of a unit and that of the same place in its
            map with the weights of its own layer redrawn; None where `value` is.
        pairs: Number of pairs of units.
        reason: Why `value` is None.
    """

    value: float | None
    randomised: float | None
    pairs: int
    reason: str | None


class SharedPeak(NamedTuple):
    """Units whose peaks share a place, or nearly.

    Attributes:
        units: Their numbers.
        places: The place of the peak of each.
    """

    units: list[int]
    places: list[Place]


def find_shared_peaks(output: Tensor, near: Place = (0, 0), limit: int = MAX_UNITS) -> list[SharedPeak]:
    """Find the places at which most units of a layer have their peaks.

    Args:
        output: The layer's output for an image, (units, H, W), or (units,), whose units share one place.
        near: Rows and columns that two peaks may be apart.
        limit: How many units to return at most: at the place with the most, those with the largest peaks;
            then at the next.

    Returns:
        Groups of at least two units.
    """
    maps = output.reshape(len(output), -1, output.shape[-1] if output.ndim > 1 else 1).cpu()
    values, index = maps.flatten(1).max(1)
    active = torch.nonzero(values > 0)[:, 0]
    active = active[values[active].argsort(descending=True, stable=True)]
    places = torch.stack([index // maps.shape[2], index % maps.shape[2]], 1)[active]
    shared = ((places[:, None] - places[None]).abs() <= torch.tensor(near)).all(2)
    groups = []
    while limit > 1 and len(active):
        members = torch.nonzero(shared[shared.sum(1).argmax()])[:limit, 0]
        if len(members) < 2:
            break
        limit -= len(members)
        groups.append(SharedPeak(active[members].tolist(), [(r, c) for r, c in places[members].tolist()]))
        shared[members] = False
        shared[:, members] = False
    return groups


def measure_specificity(
    network: nn.Module,
    images: Sequence[Tensor],
    outputs: Sequence[Tensor],
    projects: Mapping[str, ProjectPlaces],
    own_layers: Sequence[WeightedLayer],
    near: Place = (0, 0),
    seed: int = 0,
) -> dict[str, Specificity]:
    """Measure the specificity of a layer by several methods.

    Args:
        network: The network; it is restored bit for bit.
        images: Sample images, each (C, H, W).
        outputs: The layer's output for each image, (units, H, W).
        projects: The methods by name: deconvnet, gradient, guided_backpropagation.
        own_layers: Whose weights are redrawn for the control, from `find_own_layers`.
        near: Rows and columns in the layer's map that two peaks may be apart, from `near_places`.
        seed: Of the redrawn weights.

    Returns:
        The specificity by each method.
    """
    groups = [
        (image, group)
        for image, output in zip(images, outputs, strict=True)
        for group in find_shared_peaks(output, near)
    ]

    def project_all() -> dict[str, list[np.ndarray]]:
        return {
            name: [
                magnitudes(project(network, image, *group).float().cpu().numpy()) for image, group in groups
            ]
            for name, project in projects.items()
        }

    trained = project_all()
    with restore_weights(network):
        for layer in own_layers:
            redraw(layer, seed)
        redrawn = project_all()
    pairs = [_near_pairs(group.places, near) for _, group in groups]
    return {name: _summarise(trained[name], redrawn[name], pairs) for name in projects}


def _near_pairs(places: Sequence[Place], near: Place) -> list[tuple[int, int]]:
    """Return the pairs of a group whose places are near each other."""
    return [
        (a, b)
        for a, b in combinations(range(len(places)), 2)
        if all(abs(p - q) <= d for p, q, d in zip(places[a], places[b], near, strict=True))
    ]


def _summarise(
    trained: Sequence[np.ndarray], redrawn: Sequence[np.ndarray], pairs: Sequence[list[tuple[int, int]]]
) -> Specificity:
    """Return the specificity of groups of projections, (units, H, W) each."""
    between: list[float] = []
    controls: list[float] = []
    for group, control, group_pairs in zip(trained, redrawn, pairs, strict=True):
        both = np.concatenate([group, control])
        rows, columns = (np.flatnonzero(both.any((0, axis))) for axis in (2, 1))
        if not len(rows):
            continue
        box = both[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        ranks = np.stack([rank(values) for values in box])
        correlations = ranks @ ranks[: len(group)].T
        between += [abs(correlations[a, b]) for a, b in group_pairs]
        controls += np.abs(np.diag(correlations[len(group) :])).tolist()
    defined = [value for value in between if np.isfinite(value)]
    if len(defined) < MIN_PAIRS:
        reason = f"{len(defined)} pairs of units have peaks that share a place; {MIN_PAIRS} are needed"
        return Specificity(None, None, len(defined), reason)
    controls = [value for value in controls if np.isfinite(value)]
    return Specificity(
        float(1 - np.median(defined)),
        float(1 - np.median(controls)) if controls else None,
        len(defined),
        None,
    )
