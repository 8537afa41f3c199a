"""What the deconvnet has no rule for, of the layers that the config projects, before training."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.attribution.deconv_checks import find_deconv_errors
from convatlas.models.preprocessing import Preprocessing


class TwoHeads(nn.Module):
    """A network with an activation that is no ReLU, and one head that only it reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.odd = nn.Conv2d(4, 2, 1)
        self.runs = 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.runs += 1
        maps = F.relu(self.stem(x))
        odd = self.odd(F.gelu(self.first(maps)))
        return self.second(maps), odd


def find_errors(network: nn.Module, **settings: Any) -> list[str]:
    deconv = {"layers": "all", "select": ["map"], "rectify": False, "steps": None}
    views = {"deconv": deconv | settings, "strongest": None}
    preprocessing = SimpleNamespace(shape=(3, 12, 12), is_image=True)
    section = {"views": views, "downsample_name": "downsample"}
    return list(find_deconv_errors(network, cast(Preprocessing, preprocessing), cast(Any, section), "own"))


def test_each_projected_layer_is_checked_with_few_runs() -> None:
    network = TwoHeads()
    assert find_errors(network, layers=["stem", "first", "second"]) == []
    assert network.runs == 3  # to list the layers, for `second`, and for `first`, which it does not contain
    (error,) = find_errors(network)
    assert error.startswith("own.views.deconv: the deconvnet is defined for ReLUs (ReLU6 too)")
    assert "gelu (Gelu); views.deconv.rectify: true" in error


@pytest.mark.parametrize(
    "settings",
    [{"rectify": True}, {"select": []}, {"layers": []}, {"layers": ["none"]}, {"layers": ["second"]}],
)
def test_what_is_not_projected_is_no_error(settings: dict[str, Any]) -> None:
    assert find_errors(TwoHeads(), **settings) == []


def test_the_layer_that_is_followed_in_steps_is_checked() -> None:
    (error,) = find_errors(TwoHeads(), layers=["stem"], steps={"layer": "odd"})
    assert "gelu" in error


def test_an_operation_without_an_adjoint_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2))
    network.append(type("Product", (nn.Module,), {"forward": lambda self, x: x.cumprod(1)})())
    network.append(nn.Conv2d(4, 2, 1)).to(torch.float64)
    (error,) = find_errors(network)
    assert "it knows no adjoint of 3 (CumprodBackward0)" in error
