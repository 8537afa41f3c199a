"""The layers that are ablated."""

from typing import Any

import pytest
import torch
from torch import nn

import convatlas as ca
from convatlas import UserError
from convatlas.analysis.ablation.layer_choice import (
    OUTPUT_REASON,
    choose_ablated_layers,
)
from convatlas.output_layers import find_output_layers


class TwoHeads(nn.Module):
    """A residual block, and two heads, one of them convolutional."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.hidden, self.fc = nn.Linear(4, 3), nn.Linear(3, 2)
        self.maps = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        x = x + self.block(x)
        scores = self.fc(self.hidden(x.mean((2, 3))).relu())
        return scores.log_softmax(1), self.maps(x).relu()


@pytest.fixture(scope="module")
def layers() -> Any:
    return ca.layers(TwoHeads(), (1, 6, 6), blocks=["block"])


def test_layers_that_compute_the_scores_are_left_out(layers: Any) -> None:
    assert find_output_layers(layers) == {"fc", "log_softmax", "maps", "relu:2"}
    assert choose_ablated_layers(layers, None, "key") == (["stem", "block.0", "hidden"], {})
    assert choose_ablated_layers(layers, "all", "key") == (["stem", "block.0", "hidden"], {})
    names, left_out = choose_ablated_layers(layers, ["block", "fc", 1], "key")
    assert names == ["stem", "block"]
    assert left_out == {"fc": OUTPUT_REASON}


def test_an_unknown_layer_is_refused(layers: Any) -> None:
    with pytest.raises(UserError, match=r"key: no layer 'hiden'; .*hidden"):
        choose_ablated_layers(layers, ["hiden"], "key")


def test_many_layers_are_thinned_evenly_in_depth() -> None:
    network = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(30)])
    names, _ = choose_ablated_layers(ca.layers(network, (1, 2, 2)), None, "key")
    assert len(names) == 12
    assert (names[0], names[-1]) == ("0", "28")


def test_linear_layers_of_tokens_are_left_out_of_the_default() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.Flatten(2), nn.Linear(9, 6), nn.Flatten(), nn.Linear(24, 2)
    )
    assert choose_ablated_layers(ca.layers(network, (1, 3, 3)), None, "key")[0] == ["0"]
