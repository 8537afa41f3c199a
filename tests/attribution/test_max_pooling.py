"""Max pooling in channels last, against torch's own for contiguous maps."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.attribution import max_pooling
from convatlas.attribution.max_pooling import accelerate_max_pooling
from convatlas.attribution.network_graph import run_to_output


class FunctionalPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, stride=2, padding=1, dilation=1, ceil_mode=True)


POOLS = [
    nn.MaxPool2d(3, 2, ceil_mode=True),
    nn.MaxPool2d(2),
    nn.MaxPool2d((2, 3), stride=(1, 2), padding=1, dilation=2),
    FunctionalPool(),
]


@pytest.fixture
def pooled_shapes(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of the maps that are pooled in channels last."""
    shapes = []

    def is_faster(x: Tensor) -> bool:
        if decide(x):
            shapes.append(x.shape)
        return decide(x)

    decide = max_pooling._is_faster
    monkeypatch.setattr(max_pooling, "_is_faster", is_faster)
    return shapes


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_values_switches_and_gradients_are_the_same_bit_for_bit(
    pool: nn.Module, pooled_shapes: list[torch.Size]
) -> None:
    maps = torch.randn(2, 16, 33, 35, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # ties
    maps[0, :, ::5] = torch.nan
    maps[1, :, :, ::4] = -torch.inf
    results = []
    for is_fast in (False, True):
        x = maps.clone().requires_grad_()
        if is_fast:
            with accelerate_max_pooling():
                y = pool(x)
        else:
            y = pool(x)
        assert y.is_contiguous()
        signal = torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape)
        results.append((y.detach(), y.grad_fn._saved_result1, torch.autograd.grad(y, x, signal)[0]))
        assert y.grad_fn.name() == "MaxPool2DWithIndicesBackward0"
    for expected, actual in zip(*results, strict=True):
        assert torch.equal(expected.nan_to_num(7), actual.nan_to_num(7))
    assert pooled_shapes == [maps.shape]
    assert pool(maps).isnan().any() and not pooled_shapes[1:]  # torch is left as it was


def test_attribution_pools_so_in_modules_and_functions(pooled_shapes: list[torch.Size]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), FunctionalPool()).eval()
    x = torch.rand(1, 3, 128, 128, requires_grad=True)
    for named in (False, True):  # traced or not
        run_to_output(network, x, lambda output: output, named=named)
    assert pooled_shapes == [(1, 8, 128, 128), (1, 8, 64, 64)] * 2
    run_to_output(network, x.detach()[:, :, :32, :32].requires_grad_(), lambda output: output)
    assert len(pooled_shapes) == 4  # small maps cost more to convert
