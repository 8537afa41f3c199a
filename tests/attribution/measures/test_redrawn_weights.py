"""Layers whose weights are redrawn: their order, what is drawn, and that they are restored."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d

from convatlas.attribution.measures.redrawn_weights import (
    WeightedLayer,
    list_weighted_layers,
    redraw,
    restore_weights,
    split_evenly,
    split_stages,
)


class Scale(nn.Module):
    """A module of the user's without `reset_parameters`."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Network(nn.Module):
    """Modules in another order than that of the forward pass, and functions with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.auxiliary = nn.Linear(4, 3)
        self.first = nn.Parameter(torch.randn(4, 2, 3, 3))
        self.second = nn.Parameter(torch.randn(4, 4, 3, 3))
        self.norm = nn.BatchNorm2d(4)
        self.frozen = FrozenBatchNorm2d(4)
        self.normed = parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
        self.scale = Scale()
        for norm in (self.norm, self.frozen):
            norm.running_mean.normal_()
            norm.running_var.uniform_(1, 2)
            norm.weight.data.uniform_(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.conv2d(x, self.first)).relu()
        x = self.scale(self.frozen(F.conv2d(x, self.second)))
        if self.training:
            return self.auxiliary(x.mean((2, 3)))
        return self.fc(self.normed(x).mean((2, 3)))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


X = torch.rand(1, 2, 12, 12)


def find(network: nn.Module, name: str) -> WeightedLayer:
    return next(layer for layer in list_weighted_layers(network, X) if layer.name == name)


def test_layers_are_in_the_order_of_the_forward_pass(network: Network) -> None:
    names = [layer.name for layer in list_weighted_layers(network, X)]
    assert network.training
    weight = "normed.parametrizations.weight"
    assert names == ["first", "norm", "second", "frozen", "scale", weight, "normed", "fc"]


def test_a_module_that_is_called_twice_counts_where_it_is_called_last() -> None:
    shared = nn.Conv2d(2, 2, 1)
    network = nn.Sequential(shared, nn.Conv2d(2, 2, 1), shared)
    assert [layer.name for layer in list_weighted_layers(network, X)] == ["1", "0"]


def test_scripted_modules_have_layers_too() -> None:
    network = torch.jit.script(nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)))
    assert [layer.name for layer in list_weighted_layers(network, X)] == ["0", "2"]


@pytest.mark.parametrize("name", ["first", "scale", "normed.parametrizations.weight"])
def test_weights_without_a_reset_are_permuted(network: Network, name: str) -> None:
    layer = find(network, name)
    before = {key: getattr(layer.module, key).clone() for key in layer.weights}
    redraw(layer, seed=3)
    for key, old in before.items():
        new = getattr(layer.module, key)
        assert not torch.equal(new, old)
        assert torch.equal(new.flatten().sort().values, old.flatten().sort().values)


def test_a_layer_is_redrawn_by_its_own_reset(network: Network) -> None:
    redraw(find(network, "fc"), seed=5)
    first = network.fc.weight.clone()
    redraw(find(network, "scale"), seed=5)  # which layers are redrawn besides does not matter
    torch.rand(7)
    redraw(find(network, "fc"), seed=5)
    assert torch.equal(network.fc.weight, first)
    assert first.abs().max() <= 0.5  # 1 / sqrt(4), of torch's default
    redraw(find(network, "fc"), seed=6)
    assert not torch.equal(network.fc.weight, first)


def test_weights_that_a_reset_does_not_reach_are_permuted() -> None:
    """As those of `torch.nn.utils.weight_norm`, from which a hook computes the weight."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(2, 3, 1)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    redraw(list_weighted_layers(network, X)[0], seed=0)
    for name, value in network.state_dict().items():
        assert not torch.equal(value, before[name])
        is_permuted = torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)
        assert is_permuted == (name != "0.bias")


class Picky(nn.Module):
    """A module whose `reset_parameters` needs an argument, or weights that are finite."""

    def __init__(self, needs_argument: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2, 1, 1) + 1)
        self.reset_parameters: Any = self.reset_to if needs_argument else self.reset_like_before

    def reset_to(self, std: float) -> None:
        self.weight.normal_(std=std)

    def reset_like_before(self) -> None:
        if self.weight.isnan().any():
            raise ValueError
        self.weight.normal_(std=float(self.weight.std()))

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.weight)


@pytest.mark.parametrize("needs_argument", [True, False])
def test_a_reset_that_cannot_run_permutes_the_weights(needs_argument: bool) -> None:
    network, x = nn.Sequential(Picky(needs_argument)), X.clone()
    before = network[0].weight.detach().clone()
    (layer,) = list_weighted_layers(network, x)
    assert torch.equal(x, X)
    redraw(layer, seed=1)
    assert torch.equal(network[0].weight.flatten().sort().values, before.flatten().sort().values)


@pytest.mark.parametrize("name", ["norm", "frozen"])
def test_batch_norms_become_the_identity(network: Network, name: str) -> None:
    redraw(find(network, name), seed=0)
    maps = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(network.eval().get_submodule(name)(maps), maps, rtol=1e-4, atol=1e-4)


def test_weights_are_restored_bit_for_bit(network: Network) -> None:
    network.fc.weight.data[0, 0] = torch.nan
    before = {name: value.clone() for name, value in network.state_dict().items()}
    objects = list(network.parameters())
    generator = torch.get_rng_state()
    with pytest.raises(ValueError, match="of a method"), restore_weights(network):
        for layer in list_weighted_layers(network, X):
            redraw(layer, seed=1)
        network.fc.weight = nn.Parameter(torch.zeros(3, 4))
        raise ValueError("of a method")
    after: dict[str, Any] = network.state_dict()
    for name, value in before.items():
        assert value.numpy().tobytes() == after[name].numpy().tobytes(), name
    assert all(a is b for a, b in zip(objects, network.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), generator)


def test_stages_start_at_the_output() -> None:
    layers = [WeightedLayer(str(n), str(n), nn.Identity(), ()) for n in range(26)]
    stages = split_stages(layers, 6)
    assert [len(stage) for stage in stages] == [1, 5, 5, 5, 5, 5]
    assert [layer.name for stage in stages for layer in stage] == [str(n) for n in range(25, -1, -1)]
    assert [len(stage) for stage in split_stages(layers[:3], 6)] == [1, 1, 1]
    assert split_evenly([], 3) == []
