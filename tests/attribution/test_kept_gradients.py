"""Networks that switch gradients off or checkpoint in their forward pass, against the same without."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from convatlas import UserError
from convatlas.attribution.deconvnet import project

X = torch.randn(2, 11, 12, generator=torch.Generator().manual_seed(1)).double()
Context = Callable[[], Any]


class Branches(nn.Module):
    """A stem, a branch that `around` surrounds, and a sum with the stem if `residual`."""

    def __init__(self, around: Context, residual: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.last = nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3)
        self.register_buffer("running", torch.zeros(()))
        self.around, self.residual = around, residual
        self.double().eval()

    def branch(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.conv(x)), 3, 1, 1)
        self.running.mul_(0.9).add_(x.mean())
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) if self.residual else x.repeat(1, 2, 1, 1)
        with self.around():
            y = self.branch(x)
        return self.last(x + y if self.residual else y)


class Checkpointed(Branches):
    def __init__(self, reentrant: bool) -> None:
        super().__init__(nullcontext, True)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(x + checkpoint(self.branch, x, use_reentrant=self.reentrant))


def disabled() -> Any:
    return torch.set_grad_enabled(False)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("around", [torch.no_grad, disabled])
@pytest.mark.parametrize("layer", ["last", "relu"])
def test_layers_without_gradients_equal_those_with(around: Context, residual: bool, layer: str) -> None:
    net, plain = Branches(around, residual), Branches(nullcontext, residual)
    for select in ("map", "peak"):
        projections = project(net, X, layer, select=select)
        assert projections.any()
        torch.testing.assert_close(projections, project(plain, X, layer, select=select), rtol=0, atol=0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_equal_the_network_without(reentrant: bool) -> None:
    projections = project(Checkpointed(reentrant), X, "last")
    torch.testing.assert_close(projections, project(Branches(nullcontext, True), X, "last"), rtol=0, atol=0)


def test_the_network_and_torch_are_left_as_they_were() -> None:
    net = Branches(torch.no_grad, False)
    original = CheckpointFunction.apply
    project(net, X, "last")
    assert net.running.grad_fn is None
    assert not net.running.requires_grad
    assert all(parameter.requires_grad for parameter in net.parameters())
    with torch.no_grad():
        assert not torch.is_grad_enabled()
    assert CheckpointFunction.apply == original


class FrozenConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def test_a_graph_that_ends_is_one_error_with_the_layer_and_the_cure() -> None:
    cases: dict[str, nn.Module] = {
        "1": nn.Sequential(nn.Conv2d(2, 4, 3), FrozenConv(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)).double(),
        "0": nn.Sequential(Detached(), nn.Conv2d(2, 3, 3)).double(),
    }
    for end, net in cases.items():
        layer = list(dict(net.named_children()))[-1]
        with pytest.raises(UserError, match=f"graph ends at the layer '{end}'.*take that out of the forward"):
            project(net, X, layer)


@pytest.mark.parametrize("residual", [False, True])
def test_inference_mode_is_one_error_with_the_layer_and_the_cure(residual: bool) -> None:
    with pytest.raises(UserError, match=r"the layer 'conv' .*inference_mode\(\).*take that out"):
        project(Branches(torch.inference_mode, residual), X, "last")
