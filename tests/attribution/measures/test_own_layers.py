"""The layers whose weights a unit's activation depends on."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.attribution.measures.own_layers import (
    find_own_layers,
    find_peak_tolerance,
    split_stages_of_units,
)
from convatlas.attribution.measures.redrawn_weights import list_weighted_layers
from convatlas.tracing.layers import list_layers


class Block(nn.Module):
    """Two branches whose results are joined, and functions with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 3, padding=1)
        self.first = nn.Parameter(torch.randn(4, 4, 1, 1))
        self.second = nn.Parameter(torch.randn(4, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first).relu()
        x = torch.cat([self.narrow(x), self.wide(x)], 1).relu()
        return F.conv2d(x, self.second)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.block = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), Block()
        self.shared, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.norm(self.stem(x)).relu())
        return self.fc(self.shared(self.shared(x).relu()).mean((2, 3)))


NETWORK = Network().eval()
LAYERS = list_layers(NETWORK, (1, 12, 12), blocks=["block"])
WEIGHTED = list_weighted_layers(NETWORK, torch.rand(1, 1, 12, 12))


@pytest.mark.parametrize(
    ("layer", "own"),
    [
        ("stem", ["stem"]),
        ("norm", ["stem", "norm"]),
        ("relu", ["stem", "norm"]),
        ("block/conv2d", ["block.first"]),
        ("block/relu", ["block.first"]),
        ("block.wide", ["block.wide"]),
        ("block/cat", ["block.narrow", "block.wide"]),
        ("block/relu:2", ["block.narrow", "block.wide"]),
        ("block", ["block.second"]),
        ("shared:2", ["shared"]),
        ("mean", ["shared"]),
        ("fc", ["fc"]),
    ],
)
def test_a_unit_has_the_weights_nearest_before_it(layer: str, own: list[str]) -> None:
    assert [item.name for item in find_own_layers(LAYERS, WEIGHTED, layer)] == own


def test_stages_of_units_go_down_to_the_input() -> None:
    stages = split_stages_of_units(LAYERS, WEIGHTED, "block/cat", 3)
    names = [[item.name for item in stage] for stage in stages]
    assert names == [["block.narrow", "block.wide"], ["block.first", "norm"], ["stem"]]
    assert len(split_stages_of_units(LAYERS, WEIGHTED, "stem", 3)) == 1


def test_near_is_an_eighth_of_the_receptive_field() -> None:
    layer = {**LAYERS[0], "receptive_field": [200, 63], "receptive_step": [16, 8]}
    assert find_peak_tolerance(layer) == (1, 0)
    assert find_peak_tolerance({**layer, "receptive_step": None}) == (0, 0)
