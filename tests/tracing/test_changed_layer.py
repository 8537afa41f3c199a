"""Runs with a changed layer, against hooks on the network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.tracing.changed_layer import ChangedLayerRuns


class Branches(nn.Module):
    """A residual connection, a concatenation, operations in place, and a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.side = nn.Conv2d(6, 4, 1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = self.conv(self.conv(x)) + self.drop(x)
        x += 0.5
        F.relu_(x)
        x = torch.cat([x, self.side(x)], 1)
        return self.fc(self.flatten(x.mean((2, 3))))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    network = Branches()
    network(torch.randn(8, 3, 5, 5))  # statistics of the norm
    return network.eval()


def run_with_hook(network: nn.Module, path: str, call: int, x: Tensor, in_place: bool = False) -> Tensor:
    """Run a network with channel 1 of the output of one call of a module set to 0."""
    n_calls = 0

    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        if n_calls != call:
            return output
        changed = output if in_place else output.clone()
        changed[:, 1] = 0
        return changed

    handle = network.get_submodule(path).register_forward_hook(hook)
    try:
        return network(x.clone())
    finally:
        handle.remove()


def zero_unit_one(output: Tensor) -> Tensor:
    changed = output.clone()
    changed[:, 1] = 0
    return changed


@torch.no_grad()
def test_changed_layers_equal_hooks_bit_for_bit(network: nn.Module) -> None:
    x = torch.randn(4, 3, 5, 5)
    paths = {"stem": ("stem", 1), "norm": ("norm", 1), "conv": ("conv", 1), "conv:2": ("conv", 2)}
    paths |= {"drop": ("drop", 1), "side": ("side", 1), "relu": ("relu", 1), "fc": ("fc", 1)}
    with ChangedLayerRuns(network, paths) as runs:
        for batch in (x, x.flip(0)):
            assert torch.equal(runs.load(batch), network(batch.clone()))
            assert runs.reuses
            for layer, (path, call) in paths.items():
                expected = run_with_hook(network, path, call, batch, in_place=path == "relu")
                assert not torch.equal(expected, network(batch.clone()))
                assert torch.equal(runs.run(layer, zero_unit_one), expected), layer
    assert "forward" not in network.get_submodule("conv").__dict__


@torch.no_grad()
def test_functions_in_place_change_what_the_network_reads_again(network: nn.Module) -> None:
    x = torch.randn(4, 3, 5, 5)
    with ChangedLayerRuns(network, ["relu:2"]) as runs:
        runs.load(x)
        changed = runs.run("relu:2", zero_unit_one)
    hidden = network.relu(network.norm(network.stem(x)))
    hidden = (network.conv(network.conv(hidden)) + hidden + 0.5).relu()
    hidden[:, 1] = 0
    expected = network.fc(torch.cat([hidden, network.side(hidden)], 1).mean((2, 3)))
    assert torch.allclose(changed, expected, atol=1e-6)


@torch.no_grad()
def test_layers_before_the_changed_one_are_not_computed_again(network: nn.Module) -> None:
    calls: list[int] = []
    original: Callable[..., Tensor] = network.stem._conv_forward
    network.stem._conv_forward = lambda *args: (calls.append(1), original(*args))[1]
    with ChangedLayerRuns(network, ["side"]) as runs:
        runs.load(torch.randn(4, 3, 5, 5))
        for _ in range(5):
            runs.run("side", zero_unit_one)
    assert len(calls) == 1


class Counter(nn.Module):
    """A layer whose output depends on how often it has been called."""

    n_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_calls += 1
        return x * self.n_calls


def test_a_network_with_a_state_is_not_reused(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), Counter())
    with ChangedLayerRuns(network, ["0"]) as runs:
        runs.load(torch.randn(2, 1, 3, 3))
        assert runs.reuses is False
    assert "from call to call" in caplog.text


def test_an_unknown_layer_is_refused(network: nn.Module) -> None:
    with ChangedLayerRuns(network, ["stem"]) as runs:
        runs.load(torch.randn(2, 3, 5, 5))
        with pytest.raises(UserError, match="does not call the layer 'stem:2'"):
            runs.run("stem:2", zero_unit_one)
