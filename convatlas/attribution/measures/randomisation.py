"""Cascading randomisation: does a map depend on what the network has learned?

Adebayo et al., Sanity checks for saliency maps (arXiv 1810.03292): the weights are redrawn from the output
down, and the map of each stage is compared with the trained network's. A map that hardly changes does not
show what the redrawn layers have learned. A low similarity does not make a method better than another: see
Binder et al., Shortcomings of top-down randomization-based sanity checks (arXiv 2211.12486).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.attribution.measures.rank_correlation import mean_or_none, rank_maps
from convatlas.attribution.measures.redrawn_weights import WeightedLayer, redraw, restore_weights

# Draws of a stage's weights, until no method has constant maps alone, as where a ReLU ends the scores.
MAX_DRAWS = 8

# From a network and its input (N, C, H, W) to maps (..., C or 1, H, W).
Compute = Callable[[nn.Module, Tensor], Tensor]


def cascading_randomisation(
    network: nn.Module,
    x: Tensor,
    computes: Mapping[str, Compute],
    stages: Sequence[Sequence[WeightedLayer]],
    seed: int = 0,
) -> dict[str, list[float | None]]:
    """Compare the maps of methods before and after the weights are redrawn, stage after stage.

    The network is restored bit for bit, also where a method fails.

    Args:
        network: The network.
        x: Its input, (N, C, H, W).
        computes: The methods by name. Each returns maps (..., C, H, W), the same number each time; the
            targets are those of the trained network.
        stages: The layers that are redrawn at each stage, beside those of the stages before it: from
            `split_stages` of `list_weighted_layers`, from the output down.
        seed: Of the weights.

    Returns:
        For each method the Spearman correlation at each stage between the magnitudes, summed over channels,
        of the map and of the trained network's map; the mean over the maps. None where every map is constant
        or not finite.
    """

    def rank_all() -> dict[str, np.ndarray]:
        return {name: _rank(compute(network, x)) for name, compute in computes.items()}

    similarity: dict[str, list[float | None]] = {name: [] for name in computes}
    trained = rank_all()
    with restore_weights(network):
        for stage in stages:
            for draw in range(MAX_DRAWS):
                for layer in stage:
                    redraw(layer, seed + draw)
                ranks = rank_all()
                if all(np.isfinite(ranks[name][:, 0]).any() for name in computes):
                    break
            for name in computes:
                similarity[name].append(mean_or_none((ranks[name] * trained[name]).sum(1)))
    return similarity


def _rank(maps: Tensor) -> np.ndarray:
    """Return the ranks of maps, (maps, H * W)."""
    with torch.no_grad():
        return rank_maps(maps.detach().float().cpu().numpy())
