"""Cascading randomisation against a loop over copies of the network and SciPy."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from convatlas.attribution.measures.randomisation import cascading_randomisation
from convatlas.attribution.measures.redrawn_weights import list_weighted_layers, redraw, split_stages


def compute_gradient(network: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient of the scores of classes 1 and 2, (N, 2, C, H, W)."""
    x = x.clone().requires_grad_()
    scores = network(x).sum(0)
    return torch.stack([torch.autograd.grad(scores[n], x, retain_graph=True)[0] for n in (1, 2)], 1)


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *[nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()],
        *[nn.Flatten(), nn.Linear(4 * 36, 3)],
    ).eval()


def test_similarities_are_those_of_redrawn_copies() -> None:
    network, x = make_network(), torch.rand(2, 2, 10, 10)
    before = copy.deepcopy(network.state_dict())
    stages = split_stages(list_weighted_layers(network, x), 6)
    computes = {"gradient": compute_gradient, "squares": lambda n, x: compute_gradient(n, x) ** 2}
    result = cascading_randomisation(network, x, computes, stages, seed=4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def magnitudes(model: nn.Module, name: str) -> np.ndarray:
        return computes[name](model, x).abs().sum(2).flatten(0, 1).flatten(1).detach().numpy()

    for name in computes:
        model = copy.deepcopy(network)
        expected = []
        for position in ("5", "2", "0"):
            redraw(next(w for w in list_weighted_layers(model, x) if w.name == position), seed=4)
            pairs = zip(magnitudes(model, name), magnitudes(network, name), strict=True)
            expected.append(np.mean([spearmanr(*pair).statistic for pair in pairs]))
        assert result[name] == pytest.approx(expected, abs=1e-6)


def test_a_map_of_the_image_alone_stays_and_a_constant_one_has_none() -> None:
    network, x = make_network(), torch.rand(1, 2, 10, 10)
    stages = split_stages(list_weighted_layers(network, x), 2)
    computes = {"edges": lambda _, x: x.diff(dim=3), "constant": lambda _, x: x * 0}
    result = cascading_randomisation(network, x, computes, stages)
    assert result["edges"] == pytest.approx([1, 1])
    assert result["constant"] == [None, None]


def test_the_network_is_restored_where_a_method_fails() -> None:
    network, x = make_network(), torch.rand(1, 2, 10, 10)
    before = copy.deepcopy(network.state_dict())

    def compute(model: nn.Module, x: Tensor) -> Tensor:
        if not torch.equal(model.state_dict()["5.weight"], before["5.weight"]):
            raise ZeroDivisionError
        return x

    with pytest.raises(ZeroDivisionError):
        cascading_randomisation(network, x, {"m": compute}, split_stages(list_weighted_layers(network, x), 6))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_are_drawn_again_where_no_score_is_left() -> None:
    """As where a network ends in a ReLU, as SqueezeNet does."""
    torch.manual_seed(9)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 1), nn.ReLU()).eval()
    x = torch.rand(1, 2, 2, 2)
    nn.init.constant_(network[1].weight, 1)
    stages = split_stages(list_weighted_layers(network, x), 1)

    def compute(model: nn.Module, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(model(x).sum(), x)[0] * x

    for seed in range(4):  # of one draw, half give no score
        result = cascading_randomisation(network, x, {"m": compute}, stages, seed)
        assert result["m"][0] is not None
