"""The list of layers, against tables of the bundled networks."""

import json
import re
from collections import OrderedDict
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.models.architectures.lenet5 import lenet5
from convatlas.models.architectures.sd_unet import sd_unet
from convatlas.models.architectures.simple_cnn import simple_cnn
from convatlas.tracing import kernel_taps
from convatlas.tracing.layer_kinds import module_kind
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import record
from convatlas.tracing.window_geometry import AxisWindow, get_axis_windows

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
    *["ordinal", "role", "called", "notes", "inputs", "within"],
]


@pytest.mark.parametrize(("architecture", "shape", "table"), BUNDLED, ids=["lenet5", "simple_cnn"])
def test_the_bundled_networks(architecture: Any, shape: tuple[int, ...], table: list[tuple]) -> None:
    layers = list_layers(architecture().eval(), shape)
    assert [
        (layer["name"], layer["kind"], layer["output_shape"], layer["parameters"], layer["receptive_field"])
        for layer in layers
    ] == [(*row, [field, field]) for *row, field in table]
    before = [list(shape), *(layer["output_shape"] for layer in layers[:-1])]
    assert [layer["input_shape"] for layer in layers] == before
    assert all(layer["module"] == layer["name"] and layer["called"] for layer in layers)


def test_parameters_add_up() -> None:
    sums = [
        sum(layer["parameters"] for layer in list_layers(architecture(), shape))
        for architecture, shape, _ in BUNDLED
    ]
    assert sums == [61706, 44834]


def test_convolutions_are_numbered_from_1() -> None:
    for architecture, shape, _ in BUNDLED:
        layers = list_layers(architecture(), shape)
        numbers = [layer["ordinal"] for layer in layers if layer["kind"] == "conv"]
        assert numbers == list(range(1, len(numbers) + 1))
        assert {layer["ordinal"] for layer in layers if layer["kind"] != "conv"} == {None}


def test_every_layer_has_every_key_of_the_contract() -> None:
    network = Chosen(nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3))
    for layer in list_layers(network, (1, 8, 8)):
        assert set(layer) == set(KEYS)


def test_the_geometry_of_a_layer() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), stride=2, padding=(1, 2), dilation=(1, 2), groups=4),
        nn.MaxPool2d(3, 2, padding=1),
        nn.ReLU(),
    )
    conv, pool, relu = list_layers(network, (4, 24, 24))
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
    assert module_kind(module) == expected


class Blur(nn.Module):
    """A fixed filter, with attributes named as those of a convolution, or without some of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(3, 1, 3, 3) / 9)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, [1] * 4, "reflect"), self.weight, stride=2, groups=3)


@pytest.mark.parametrize(
    "attributes",
    [
        {"stride": 3},
        {"stride": 2, "kernel_size": None, "padding": [1] * 4},
        {"stride": torch.tensor(2), "dilation": {}, "groups": "all"},
        {"padding": "reflect", "kernel_size": 5},
    ],
)
def test_a_module_that_slides_its_own_window_is_described_by_what_it_computes(
    attributes: dict[str, Any],
) -> None:
    """Its attributes do not tell."""
    blur, conv = list_layers(nn.Sequential(Blur(**attributes), nn.Conv2d(3, 4, 3)), (3, 8, 8))
    geometry = [blur[key] for key in ("kernel", "stride", "padding", "dilation", "groups")]
    assert geometry == [[3, 3], [2, 2], [1, 1], [1, 1], 3]
    assert blur["output_shape"] == conv["input_shape"] == [3, 4, 4]
    assert [blur["kind"], blur["receptive_field"], conv["receptive_field"]] == ["other", [3, 3], [7, 7]]
    json.dumps([blur, conv])


class AppendingPool(nn.Module):
    """Appends a coarser level to the list of feature maps that it gets, and returns all."""

    def forward(self, levels: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        levels.append(F.max_pool2d(levels[-1], 2))
        return levels, [*names, "pool"]


def test_a_leaf_may_append_to_a_list_that_it_gets() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)
            self.coarser, self.head = AppendingPool(), nn.Conv2d(2, 3, 1)

        def forward(self, x: Tensor) -> list[Tensor]:
            fine = self.conv1(x)
            levels, _ = self.coarser([fine, self.conv2(fine)], ["a", "b"])
            return [self.head(level) for level in levels]

    layers = {layer["name"]: layer for layer in list_layers(Pyramid(), (1, 12, 12))}
    assert layers["coarser"]["inputs"] == ["conv1", "conv2"]
    assert layers["coarser"]["output_shape"] == [2, 4, 4]  # of the level that it adds
    assert layers["coarser"]["receptive_field"] == [6, 6]
    heads = [layers[name] for name in ("head", "head:2", "head:3")]
    assert [head["inputs"] for head in heads] == [["conv1"], ["conv2"], ["coarser"]]
    assert [head["receptive_field"] for head in heads] == [[3, 3], [5, 5], [6, 6]]


@pytest.mark.parametrize("first", [False, True], ids=["second operand", "first operand"])
def test_a_single_number_for_the_whole_batch_is_no_layer(first: bool) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.mean() * x if first else x * x.mean()
            x = self.pool(self.conv(x)).flatten(1)
            return x.mean(1), x.mean()

    network = Scaled()
    layers = list_layers(network, (1, 6, 6))
    assert [layer["name"] for layer in layers] == ["mul", "conv", "pool", "flatten", "mean"]
    assert layers[0]["inputs"] == ["input"]
    assert layers[0]["input_shape"] == layers[0]["output_shape"] == [1, 6, 6]
    assert layers[0]["receptive_field"] == layers[1]["receptive_field"] == [6, 6]
    assert layers[-1]["output_shape"] == [1]  # one value per image is one unit
    outputs = record(network, torch.rand(1, 6, 6)).outputs
    assert [list(output.shape) for output in outputs.values()] == [layer["output_shape"] for layer in layers]


# What is called, and how often.


class Chosen(nn.Module):
    """Calls its first module, twice, and never its second."""

    def __init__(self, used: nn.Module, spare: nn.Module) -> None:
        super().__init__()
        self.spare, self.used = spare, used

    def forward(self, x: Tensor) -> Tensor:
        return self.used(self.used(x)[:, :1])


def test_a_module_called_twice_is_listed_twice_and_its_parameters_once() -> None:
    first, second, _ = list_layers(Chosen(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 8, 8))
    assert [first["name"], first["module"], first["parameters"], first["ordinal"]] == ["used", "used", 20, 1]
    assert [second["name"], second["module"], second["parameters"], second["ordinal"]] == [
        "used:2",
        "used",
        0,
        2,
    ]
    assert second["output_shape"] == [2, 4, 4]


def test_a_module_that_is_never_called_comes_last_and_is_marked() -> None:
    *called, spare = list_layers(Chosen(nn.Conv2d(1, 2, 3), nn.Linear(4, 5)), (1, 8, 8))
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

    layers = list_layers(Backwards(), (1, 4, 4))
    assert [(layer["name"], layer["ordinal"]) for layer in layers] == [
        ("stem", 1),
        ("block.0", None),
        ("block.1.0", 2),
    ]


def test_listing_leaves_the_network_as_it_was() -> None:
    network = lenet5().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    list_layers(network, (1, 28, 28))
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("network", [nn.Sequential(nn.ReLU()), nn.Sequential(nn.Conv2d(1, 1, 1)).double()])
def test_networks_without_parameters_or_in_double_precision_are_listed(network: nn.Module) -> None:
    assert [layer["output_shape"] for layer in list_layers(network, (1, 4, 4))] == [[1, 4, 4]]


def test_convolutions_of_shortcuts_are_recognised_by_the_downsample_name() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(OrderedDict(shortcut=nn.Conv2d(2, 2, 1))))
    roles = [
        [layer["role"] for layer in list_layers(network, (1, 4, 4), name)] for name in ("shortcut", "down")
    ]
    assert roles == [["main", "downsample"], ["main", "main"]]


class Net(nn.Module):
    """A composite module with any forward function and submodules."""

    def __init__(self, forward: Any, **modules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def inputs_of(network: nn.Module, blocks: tuple[str, ...] = (), side: int = 8) -> dict[str, list[str]]:
    layers = list_layers(network.eval(), (4, side, side), blocks=blocks)
    return {layer["name"]: layer["inputs"] for layer in layers}


def conv() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1)


# What a layer is computed from.


def test_inputs_are_listed_in_order_through_branches_and_merges() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a)
        return torch.cat([b, x, a, b], 1)

    assert inputs_of(Net(forward, a=conv(), b=conv())) == {
        "a": ["input"],
        "b": ["a"],
        "cat": ["b", "input", "a"],
    }


def test_the_input_of_a_change_in_place_is_the_layer_that_it_changes() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.relu(a)  # `a` is now the rectified one
        c = self.b(b)
        c += a
        c[:, :1] = x[:, :1]
        return F.relu_(c)

    assert inputs_of(Net(forward, a=conv(), b=conv(), relu=nn.ReLU(inplace=True))) == {
        "a": ["input"],
        "relu": ["a"],
        "b": ["relu"],
        "add": ["b", "relu"],
        "relu:2": ["add", "input"],
    }


@pytest.mark.parametrize("same", [nn.Identity(), nn.Dropout(), nn.Dropout2d(0.1)])
def test_a_shortcut_around_a_layer_that_returns_its_input_is_distinguished(same: nn.Module) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.same(a)
        c = F.dropout(a, training=self.training)
        return self.b(b) + a + c

    inputs = inputs_of(Net(forward, a=conv(), b=conv(), same=same))
    assert [inputs[name] for name in ("same", "dropout", "b")] == [["a"], ["a"], ["same"]]
    assert [inputs[name] for name in ("add", "add:2")] == [["b", "a"], ["add", "dropout"]]


def test_a_layer_that_returns_its_input_has_its_receptive_field() -> None:
    layers = list_layers(nn.Sequential(conv(), nn.Dropout(), nn.Identity(), conv()).eval(), (4, 9, 9))
    assert [layer["receptive_field"] for layer in layers] == [[3, 3], [3, 3], [3, 3], [5, 5]]


def test_parts_and_views_of_a_tensor_have_its_sources() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        a, b = self.a(x).chunk(2, 1)
        return torch.cat([a, self.b(torch.where(b > 0, x[:, 2:], b).repeat(1, 2, 1, 1))], 1)

    assert inputs_of(Net(forward, a=conv(), b=conv())) == {
        "a": ["input"],
        "b": ["a", "input"],
        "cat": ["a", "b"],
    }


class Preprocess(nn.Module):
    """Pads images into one batch, and returns it in an object, as the detectors of torchvision do."""

    def forward(self, x: Tensor) -> SimpleNamespace:
        batch = x.new_zeros(len(x), 3, 12, 12)
        for n, image in enumerate(x):
            batch[n, :, :10, :10].copy_(image / 2)
        return SimpleNamespace(tensors=batch, sizes=[(10, 10)] * len(x))


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.preprocess, self.conv, self.conv2 = Preprocess(), nn.Conv2d(3, 2, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch = self.preprocess(x).tensors
        maps = torch.stack([F.relu(self.conv(image)) for image in batch])
        joined = maps.new_zeros(len(x), 4, *maps.shape[2:])
        joined[:, :2].copy_(maps)
        joined[:, 2:].add_(maps.mean(1, keepdim=True))
        return self.conv2(joined.tanh())


def test_sources_pass_through_iteration_writes_into_parts_and_objects() -> None:
    layers = {layer["name"]: layer for layer in list_layers(Writing(), (3, 10, 10))}
    inputs = {name: layer["inputs"] for name, layer in layers.items()}
    assert inputs == {
        "preprocess": ["input"],
        "conv": ["preprocess"],
        "relu": ["conv"],
        "stack": ["relu"],
        "mean": ["stack"],
        "add": ["stack", "mean"],
        "tanh": ["stack", "add"],
        "conv2": ["tanh"],
    }
    assert layers["preprocess"]["output_shape"] == [3, 12, 12]


def test_the_source_of_switches_is_the_layer_that_returned_them() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        small, where = self.pool(x)
        return self.unpool(self.a(small), where)

    pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    assert inputs_of(Net(forward, a=conv(), pool=pool, unpool=unpool))["unpool"] == ["a", "pool"]


def test_composite_modules_have_inputs_and_are_never_an_input() -> None:
    inner = nn.Sequential(nn.ReLU(inplace=True), conv())
    network = Net(lambda self, x: self.block(self.a(x)) * 2, a=conv(), block=inner)
    without_blocks, with_blocks = inputs_of(network), inputs_of(network, ("block",))
    assert without_blocks == {"a": ["input"], "block.0": ["a"], "block.1": ["block.0"], "mul": ["block.1"]}
    assert with_blocks == without_blocks | {"block": ["a"]}


def test_functions_that_a_listed_block_calls_are_layers_too() -> None:
    network = torchvision.models.resnet18().eval()
    without_blocks = list_layers(network, (3, 32, 32))
    with_blocks = list_layers(network, (3, 32, 32), blocks=("layer2.0", "layer3"))
    assert [layer for layer in with_blocks if layer["name"] not in ("layer2.0", "layer3")] == without_blocks
    added = next(layer for layer in without_blocks if layer["name"] == "layer2.0/add")
    assert added["inputs"] == ["layer2.0.bn2", "layer2.0.downsample.1"]
    assert added["within"] == ["Sequential", "BasicBlock"]
    assert [layer["inputs"] for layer in with_blocks if layer["name"] == "layer2.0"] == [["layer1.1.relu:2"]]


@pytest.mark.parametrize("name", ["densenet121", "shufflenet_v2_x1_0", "swin_t", "vit_b_16", "googlenet"])
@pytest.mark.filterwarnings("ignore")
def test_every_layer_comes_from_earlier_ones_and_all_but_the_last_is_used(name: str) -> None:
    network = torchvision.models.get_model(name, weights=None).eval()
    side = 224 if name == "vit_b_16" else 64
    layers = [layer for layer in list_layers(network, (3, side, side)) if layer["called"]]
    known = {"input"}
    for layer in layers:
        assert layer["inputs"] and known.issuperset(layer["inputs"]), layer["name"]
        known.add(layer["name"])
    assert known - {name for layer in layers for name in layer["inputs"]} == {layers[-1]["name"]}


# Roles.


def test_a_network_declares_its_roles_and_the_first_pattern_counts() -> None:
    network = nn.Sequential(OrderedDict(stem=conv(), down=nn.Sequential(conv(), conv()), last=conv()))
    network.roles = {"down.1": "second", "down": "down", "la*": "end", "*": "rest"}
    convs = list_layers(network, (4, 8, 8))
    assert [layer["role"] for layer in convs] == ["rest", "down", "second", "end"]
    network.roles = {"l*": "end"}
    roles = [layer["role"] for layer in list_layers(network, (4, 8, 8), "down")]
    assert roles == ["main", "downsample", "downsample", "end"]
    network.roles = ["no", "mapping"]
    assert {layer["role"] for layer in list_layers(network, (4, 8, 8))} == {"main"}


# Taps that never meet the image.


def test_notes_of_sd_unets_wide_dilations_state_the_input_that_they_need() -> None:
    """The published sizes: 208 pixels for a dilation of 12, 304 for one of 18."""
    network = sd_unet(2).eval()
    assert kernel_taps.format_notes(list_layers(network, (3, 160, 160))) == [
        f"pyramid.atrous{d}.conv: dilation {d} on a 10 × 10 input: only the centre tap reads the input, "
        f"the others only padding; all taps read an input of at least {d + 1} × {d + 1} "
        f"({n} × {n} at the network's input)"
        for d, n in ((12, 208), (18, 304))
    ]
    assert kernel_taps.format_notes(list_layers(network, (3, 320, 320))) == []


def test_active_taps_are_those_with_a_gradient() -> None:
    """For all small convolutions of one axis."""
    for k, s, p, d, n in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 4), (1, 2, 5), (1, 2, 5, 9)):
        if n + 2 * p < d * (k - 1) + 1:
            continue
        module = nn.Conv1d(1, 1, k, s, p, d)
        module(torch.ones(1, 1, n)).sum().backward()
        active = module.weight.grad[0, 0].nonzero()[:, 0].tolist()
        window = AxisWindow(k, s, (p, p), d)
        assert kernel_taps.find_active_taps(window, n) == active
        needed = kernel_taps.minimum_input_size(window, n)
        assert len(kernel_taps.find_active_taps(window, needed)) == k
        assert needed == n or len(kernel_taps.find_active_taps(window, needed - 1)) < k


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 4])
def test_taps_of_an_even_kernel_with_same_padding_are_those_with_a_gradient(
    kernel: int, dilation: int
) -> None:
    """Of an odd total of padding the larger half is at the far side."""
    for pixels in range(1, 8):
        module = nn.Conv1d(1, 1, kernel, padding="same", dilation=dilation)
        module(torch.ones(1, 1, pixels)).sum().backward()
        active = module.weight.grad[0, 0].nonzero()[:, 0].tolist()
        (window,) = get_axis_windows(module)
        assert kernel_taps.find_active_taps(window, pixels) == active


@pytest.mark.parametrize(
    ("module", "side", "expected"),
    [
        (nn.Conv2d(1, 1, 3, padding=1), 1, "a kernel of 3 × 3 on a 1 × 1 input: only the centre tap"),
        (nn.Conv2d(1, 1, 3, padding="same", dilation=4), 4, "dilation 4 on a 4 × 4 input: only the centre"),
        (nn.Conv2d(1, 1, (1, 3), padding=(0, 9), dilation=(1, 9)), 8, "dilation 1 × 9 on a 8 × 8 input"),
        (nn.Conv2d(1, 1, 5, padding=6, dilation=3), 5, "only 9 of 25 taps read the input, .* 7 × 7"),
        (nn.Conv2d(1, 1, 3, padding=4, dilation=4), 5, None),
        (nn.Conv2d(1, 1, 3, padding=3, dilation=4, padding_mode="circular"), 4, None),
        (nn.ConvTranspose2d(1, 1, 3, dilation=8), 4, None),
    ],
)
def test_notes(module: nn.Module, side: int, expected: str | None) -> None:
    (layer,) = list_layers(nn.Sequential(module), (1, side, side))
    if expected is None:
        assert layer["notes"] == []
    else:
        (note,) = layer["notes"]
        assert re.search(expected, note)


def test_a_convolution_of_more_axes_than_the_image() -> None:
    network = nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 1, 3, padding=2, dilation=2))
    (note,) = list_layers(network, (2, 4, 4))[1]["notes"]
    assert note.endswith("at least 3 × 4 × 4")


def test_no_input_size_is_stated_where_a_layers_size_does_not_grow_with_it() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(1, 1, 3, padding=2, dilation=2))
    (note,) = list_layers(network, (1, 64, 64))[1]["notes"]
    assert note.endswith("at least 3 × 3")


def test_a_convolution_that_runs_on_a_batch_of_windows_is_described() -> None:
    """efficientvit_m0's blocks move the windows of an image to the batch axis."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 5, padding=2, dilation=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            windows = x.unflatten(2, (-1, 4)).unflatten(4, (-1, 4)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
            return self.conv(windows).flatten(1).sum(0)

    layer = next(layer for layer in list_layers(Windows(), (2, 8, 8)) if layer["kind"] == "conv")
    assert layer["output_shape"] == [4, 3, 4, 4]
    assert layer["kernel"] == [5, 5]
