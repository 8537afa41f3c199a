"""The extractor on torchvision's networks, built without weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, list_models
from torchvision.models.regnet import BlockParams

from convatlas.extractor import Extractor

# networks.md of the field's older extractor: convolutions of the main path, Sequential containers,
# down-sampling convolutions, linear layers, blocks.
COUNTS = {
    "resnet18": (17, 4, 3, 1, 8),
    "resnet34": (33, 4, 3, 1, 16),
    "resnet50": (49, 4, 4, 1, 16),
    "resnet101": (100, 4, 4, 1, 33),
    "resnet152": (151, 4, 4, 1, 50),
    "vgg11": (8, 2, 0, 3, 0),
    "vgg13": (10, 2, 0, 3, 0),
    "vgg16": (13, 2, 0, 3, 0),
    "vgg19": (16, 2, 0, 3, 0),
    "alexnet": (5, 2, 0, 3, 0),
}
# Those on which it fails, and how many convolutions there are.
CONVOLUTIONS = {
    "squeezenet1_0": 26,
    "densenet121": 120,
    "googlenet": 59,
    "inception_v3": 96,
    "mobilenet_v2": 52,
    "efficientnet_b0": 81,
    "convnext_tiny": 22,
    "regnet_y_400mf": 85,
    "mnasnet1_0": 52,
    "shufflenet_v2_x1_0": 56,
}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], nn.Module]:
    """Builds a network on the meta device, where its numbers take no memory and no time."""
    regnet: Any = BlockParams.from_init_params.__func__  # type: ignore[attr-defined]

    def on_cpu(cls: type, *arguments: Any, **named: Any) -> Any:
        with torch.device("cpu"):  # it computes its widths with tensors
            return regnet(cls, *arguments, **named)

    monkeypatch.setattr(BlockParams, "from_init_params", classmethod(on_cpu))

    def build(name: str) -> nn.Module:
        with torch.device("meta"):
            return get_model(name, weights=None)

    return build


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_of_the_field(built: Callable[[str], nn.Module], name: str) -> None:
    extractor = Extractor(built(name))
    info = extractor.info()
    found = tuple(info[key] for key in ("conv", "sequential", "downsample", "linear", "blocks"))
    assert found == COUNTS[name]
    assert extractor.info() == info
    assert not extractor.conv_layers.keys() & extractor.downsample_layers.keys()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_networks_on_which_others_fail(built: Callable[[str], nn.Module], name: str) -> None:
    assert len(Extractor(built(name)).conv_layers) == CONVOLUTIONS[name]


@pytest.mark.parametrize("name", list_models(module=torchvision.models))
@pytest.mark.filterwarnings("ignore")
def test_every_convolution_of_every_classification_network_is_found(
    built: Callable[[str], nn.Module], name: str
) -> None:
    """By the shapes in state_dict(): no other layer has a weight of more than two axes."""
    network = built(name)
    extractor = Extractor(network)
    expected = {
        key.removesuffix(".weight"): tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
        if key.endswith(".weight") and tensor.ndim > 2
    }
    found = extractor.conv_weights | {n: m.weight for n, m in extractor.downsample_layers.items()}
    assert {layer: tuple(weight.shape) for layer, weight in found.items()} == expected


def test_vision_transformer_has_37_linears(built: Callable[[str], nn.Module]) -> None:
    assert len(Extractor(built("vit_b_16")).linear_weights) == 37


def test_containers_subclasses_and_other_convolutions() -> None:
    class Mine(nn.Conv2d):
        pass

    class Chain(nn.Sequential):
        pass

    network = nn.ModuleDict(
        {
            "a": nn.ModuleList([nn.Conv1d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1)]),
            "b": Chain(Mine(1, 1, 1), nn.Linear(1, 1)),
            "shortcut": nn.Sequential(nn.Conv2d(1, 1, 1)),
        }
    )
    extractor = Extractor(network, downsample_name="shortcut")
    assert list(extractor.conv_layers) == ["a.0", "a.1", "a.2", "b.0"]
    assert list(extractor.downsample_layers) == ["shortcut.0"]
    assert extractor.linear_weights["b.1"] is network["b"][1].weight
    assert "shortcut" in str(extractor.info())
    assert "parameters" in str(extractor.info())
