"""The index of layers, against tables of the bundled networks."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convatlas.architectures.lenet5 import lenet5
from convatlas.architectures.simple_cnn import simple_cnn
from convatlas.calls import kind
from convatlas.extractor import index

# name, kind, output shape, parameters, receptive field
LENET5 = [
    ("conv1", "conv", [6, 28, 28], 156, 5),
    ("relu1", "activation", [6, 28, 28], 0, 5),
    ("pool1", "pool", [6, 14, 14], 0, 6),
    ("conv2", "conv", [16, 10, 10], 2416, 14),
    ("relu2", "activation", [16, 10, 10], 0, 14),
    ("pool2", "pool", [16, 5, 5], 0, 16),
    ("flatten", "reshape", [400], 0, 16),
    ("fc1", "linear", [120], 48120, 28),
    ("relu3", "activation", [120], 0, 28),
    ("fc2", "linear", [84], 10164, 28),
    ("relu4", "activation", [84], 0, 28),
    ("fc3", "linear", [10], 850, 28),
    ("log_softmax", "activation", [10], 0, 28),
]
SIMPLE_CNN = [
    ("conv1", "conv", [32, 48, 48], 320, 3),
    ("relu1", "activation", [32, 48, 48], 0, 3),
    ("conv2", "conv", [16, 46, 46], 4624, 5),
    ("relu2", "activation", [16, 46, 46], 0, 5),
    ("conv3", "conv", [8, 44, 44], 1160, 7),
    ("relu3", "activation", [8, 44, 44], 0, 7),
    ("pool1", "pool", [8, 22, 22], 0, 8),
    ("flatten", "reshape", [3872], 0, 8),
    ("fc", "linear", [10], 38730, 50),
]
BUNDLED = [(lenet5, (1, 28, 28), LENET5), (simple_cnn, (1, 50, 50), SIMPLE_CNN)]
KEYS = [
    *["name", "module", "type", "kind", "input_shape", "output_shape", "kernel", "stride", "padding"],
    *["dilation", "groups", "parameters", "receptive_field", "receptive_start", "receptive_step"],
    *["ordinal", "role", "called", "notes"],
]


@pytest.mark.parametrize(("architecture", "shape", "table"), BUNDLED, ids=["lenet5", "simple_cnn"])
def test_the_bundled_networks(architecture: Any, shape: tuple[int, ...], table: list[tuple]) -> None:
    layers = index(architecture().eval(), shape)
    assert [
        (layer["name"], layer["kind"], layer["output_shape"], layer["parameters"], layer["receptive_field"])
        for layer in layers
    ] == [(*row, [field, field]) for *row, field in table]
    before = [list(shape), *(layer["output_shape"] for layer in layers[:-1])]
    assert [layer["input_shape"] for layer in layers] == before
    assert all(layer["module"] == layer["name"] and layer["called"] for layer in layers)


def test_parameters_add_up() -> None:
    sums = [
        sum(layer["parameters"] for layer in index(architecture(), shape))
        for architecture, shape, _ in BUNDLED
    ]
    assert sums == [61706, 44834]


def test_convolutions_are_numbered_from_1() -> None:
    for architecture, shape, _ in BUNDLED:
        layers = index(architecture(), shape)
        numbers = [layer["ordinal"] for layer in layers if layer["kind"] == "conv"]
        assert numbers == list(range(1, len(numbers) + 1))
        assert {layer["ordinal"] for layer in layers if layer["kind"] != "conv"} == {None}


def test_every_layer_has_every_key_of_the_contract() -> None:
    network = Chosen(nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3))
    for layer in index(network, (1, 8, 8)):
        assert set(layer) == set(KEYS)


def test_what_a_layer_is_made_of() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), stride=2, padding=(1, 2), dilation=(1, 2), groups=4),
        nn.MaxPool2d(3, 2, padding=1),
        nn.ReLU(),
    )
    conv, pool, relu = index(network, (4, 24, 24))
    keys = ("type", "kernel", "stride", "padding", "dilation", "groups")
    assert [conv[key] for key in keys] == ["Conv2d", [3, 5], [2, 2], [1, 2], [1, 2], 4]
    assert [pool[key] for key in keys] == ["MaxPool2d", [3, 3], [2, 2], [1, 1], [1, 1], None]
    assert [relu[key] for key in keys] == ["ReLU", None, None, None, None, None]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.ConvTranspose2d(1, 1, 1), "conv"),
        (nn.AdaptiveAvgPool2d(1), "pool"),
        (nn.AvgPool2d(2), "pool"),
        (nn.BatchNorm2d(1), "norm"),
        (nn.GroupNorm(1, 1), "norm"),
        (nn.LayerNorm(1), "norm"),
        (nn.SiLU(), "activation"),
        (nn.PReLU(), "activation"),
        (nn.Softmax(1), "activation"),
        (nn.Dropout2d(), "dropout"),
        (nn.Flatten(), "reshape"),
        (nn.Upsample(2), "other"),
        (nn.RMSNorm(1), "norm"),
        (type("Mine", (nn.Conv2d,), {})(1, 1, 1), "conv"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_kinds(module: nn.Module, expected: str) -> None:
    assert kind(module) == expected


# What is called, and how often.


class Chosen(nn.Module):
    """Calls its first module, twice, and never its second."""

    def __init__(self, used: nn.Module, spare: nn.Module) -> None:
        super().__init__()
        self.spare, self.used = spare, used

    def forward(self, x: Tensor) -> Tensor:
        return self.used(self.used(x)[:, :1])


def test_a_module_called_twice_is_listed_twice_and_its_parameters_once() -> None:
    first, second, _ = index(Chosen(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 8, 8))
    assert [first["name"], first["module"], first["parameters"], first["ordinal"]] == ["used", "used", 20, 1]
    assert [second["name"], second["module"], second["parameters"], second["ordinal"]] == [
        "used:2",
        "used",
        0,
        2,
    ]
    assert second["output_shape"] == [2, 4, 4]


def test_a_module_that_is_never_called_comes_last_and_says_so() -> None:
    *called, spare = index(Chosen(nn.Conv2d(1, 2, 3), nn.Linear(4, 5)), (1, 8, 8))
    assert all(layer["called"] for layer in called)
    assert [spare["name"], spare["called"], spare["parameters"]] == ["spare", False, 25]
    assert spare["input_shape"] is None
    assert spare["output_shape"] is None
    assert spare["receptive_field"] is None


def test_layers_are_in_the_order_of_execution_not_of_registration() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Conv2d(2, 3, 1)))
            self.stem = nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.stem(x))

    layers = index(Backwards(), (1, 4, 4))
    assert [(layer["name"], layer["ordinal"]) for layer in layers] == [
        ("stem", 1),
        ("block.0", None),
        ("block.1.0", 2),
    ]


def test_the_index_leaves_the_network_as_it_was() -> None:
    network = lenet5().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    index(network, (1, 28, 28))
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("network", [nn.Sequential(nn.ReLU()), nn.Sequential(nn.Conv2d(1, 1, 1)).double()])
def test_networks_without_parameters_or_in_double_precision_are_indexed(network: nn.Module) -> None:
    assert [layer["output_shape"] for layer in index(network, (1, 4, 4))] == [[1, 4, 4]]


def test_the_convolutions_of_shortcuts_are_told_by_the_name_given() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(OrderedDict(shortcut=nn.Conv2d(2, 2, 1))))
    roles = [[layer["role"] for layer in index(network, (1, 4, 4), name)] for name in ("shortcut", "down")]
    assert roles == [["main", "downsample"], ["main", "main"]]
