"""The traced calls of a network: modules, functions and operators, their names, kinds and inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from convatlas.tracing.calls import Call, composite_modules, trace
from convatlas.tracing.extractor import Extractor
from convatlas.tracing.layer_kinds import module_kind
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import record, record_to_file
from tests.support.arrays import read_npz

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A composite module with any forward function and submodules."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def trace_calls(network: nn.Module, x: Tensor = X, blocks: tuple[str, ...] = ()) -> dict[str, Call]:
    calls: dict[str, Call] = {}

    def add(call: Call) -> None:
        assert call.layer not in calls, "a name came twice"
        calls[call.layer] = call

    with torch.no_grad(), trace(network, add, blocks):
        network(x.clone())
    return calls


# Functions and operators.

ONES = torch.ones(3, 1, 1)
FUNCTIONS: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
    ("relu", "activation", F.relu),
    ("relu", "activation", torch.relu),
    ("relu", "activation", lambda x: x.relu_()),
    ("relu", "activation", lambda x: F.relu(x, inplace=True)),
    ("leaky_relu", "activation", F.leaky_relu),
    ("gelu", "activation", F.gelu),
    ("sigmoid", "activation", torch.sigmoid),
    ("sigmoid", "activation", Tensor.sigmoid),
    ("softmax", "activation", lambda x: x.softmax(1)),
    ("softmax", "activation", lambda x: F.softmax(x, 1)),
    ("log_softmax", "activation", lambda x: F.log_softmax(x, 1)),
    ("clamp", "activation", lambda x: x.clip(0)),
    ("add", "merge", lambda x: x + 1),
    ("add", "merge", lambda x: 1 + x),
    ("add", "merge", lambda x: x.add_(x)),
    ("add", "merge", lambda x: torch.add(x, x)),
    ("sub", "merge", lambda x: 1 - x),
    ("mul", "merge", lambda x: x * x),
    ("div", "merge", lambda x: x / 2),
    ("matmul", "merge", lambda x: x @ x),
    ("cat", "merge", lambda x: torch.cat([x, x], 1)),
    ("cat", "merge", lambda x: torch.cat(dim=1, tensors=(x, x))),
    ("stack", "merge", lambda x: torch.stack([x, x])),
    ("max_pool2d", "pool", lambda x: F.max_pool2d(x, 2)),
    ("max_pool2d", "pool", lambda x: F.max_pool2d(input=x, kernel_size=3, stride=2, padding=1)),
    ("max_pool2d", "pool", lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
    ("max_pool2d", "pool", lambda x: torch.max_pool2d(x, 2)),
    ("avg_pool2d", "pool", lambda x: F.avg_pool2d(x, 2)),
    ("adaptive_avg_pool2d", "pool", lambda x: F.adaptive_avg_pool2d(x, 1)),
    ("adaptive_max_pool2d", "pool", lambda x: F.adaptive_max_pool2d(x, 2)),
    ("mean", "pool", lambda x: x.mean((2, 3))),
    ("mean", "pool", lambda x: torch.mean(x, dim=(2, 3))),
    ("flatten", "reshape", lambda x: torch.flatten(x, 1)),
    ("flatten", "reshape", lambda x: x.flatten(1)),
    ("view", "reshape", lambda x: x.view(1, -1)),
    ("permute", "reshape", lambda x: x.permute(0, 2, 3, 1)),
    ("interpolate", "other", lambda x: F.interpolate(x, scale_factor=2)),
    ("dropout", "dropout", lambda x: F.dropout(x, training=False)),
    ("conv2d", "conv", lambda x: F.conv2d(x, torch.ones(2, 3, 3, 3))),
    ("linear", "linear", lambda x: F.linear(x, torch.ones(2, 8))),
    ("layer_norm", "norm", lambda x: F.layer_norm(x, (8,))),
    ("scaled_dot_product_attention", "other", lambda x: F.scaled_dot_product_attention(x, x, x)),
]


@pytest.mark.parametrize(("name", "kind_name", "function"), FUNCTIONS)
def test_functions_and_operators_are_layers(
    name: str, kind_name: str, function: Callable[[Tensor], Tensor]
) -> None:
    """At the root by the function's name, within a module after its path; their outputs are recorded."""
    block = Net(lambda _, x: function(x), spare=nn.Identity())
    for network, layer in ((block, name), (nn.Sequential(block), f"0/{name}")):
        (call,) = trace_calls(network).values()
        assert (call.layer, call.type, call.kind) == (layer, name, kind_name)
        assert torch.equal(record(network, X).outputs[layer], function(X.clone()))


def test_plus_equals_is_an_addition_with_its_two_inputs() -> None:
    def residual(net: Any, x: Tensor) -> Tensor:
        y = net.conv(x)
        y += x
        return F.relu(y + net.conv(y))

    calls = trace_calls(Net(residual, conv=nn.Conv2d(3, 3, 1)))
    assert list(calls) == ["conv", "add", "conv:2", "add:2", "relu"]
    assert len(calls["add"].inputs) == 2
    assert calls["add:2"].inputs[0] is calls["add"].output
    assert calls["add:2"].inputs[1] is calls["conv:2"].output


@pytest.mark.parametrize(
    "pool",
    [lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1)],
)
def test_a_pooling_function_is_described_as_its_module(pool: Callable[[Tensor], Tensor]) -> None:
    (layer,) = list_layers(Net(lambda _, x: pool(x)), (3, 8, 8))
    assert [layer["kernel"], layer["stride"], layer["padding"]] == [[3, 3], [2, 2], [1, 1]]
    expected = F.max_pool2d(X, 3, 2, 1, return_indices=True)[1]
    assert torch.equal(record(Net(lambda _, x: pool(x)), X).switches["max_pool2d"], expected)


def test_functions_within_a_leaf_are_not_layers() -> None:
    class Leaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + 1)

    assert list(trace_calls(nn.Sequential(Leaf(), nn.Softmax2d()))) == ["0", "1"]


def test_functions_that_the_callback_calls_are_no_layers() -> None:
    layers = []

    def compute(call: Call) -> None:
        layers.append(call.layer)
        F.relu(call.output + 1)

    with trace(network := nn.Sequential(nn.Sequential(nn.Softmax(1)), nn.Flatten()), compute, blocks=["0"]):
        network(X)
    assert layers == ["0.0", "0", "1"]


def test_a_function_of_weights_alone_is_no_layer() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        scale = F.softmax(net.weight * 2, 0).mean() + torch.ones(1).relu()
        return x * scale

    network = Net(forward)
    network.weight = nn.Parameter(torch.ones(3))
    assert list(trace_calls(network)) == ["mul"]
    assert len(trace_calls(network)["mul"].inputs) == 1  # not the weights


def test_dependence_on_the_input_passes_through_functions_that_are_no_layers() -> None:
    def forward(_: Any, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 3)
        filled = torch.zeros(1, 3, 8, 4)
        filled[:] = first.abs().sqrt()[..., :4]
        return filled.relu().mT + second.sum(dtype=torch.float64).to(torch.float32)

    assert list(trace_calls(Net(forward))) == ["relu", "add"]


# Names.


def test_names_at_any_depth() -> None:
    inner = Net(lambda net, x: F.relu(net.bn(net.conv(x))) + x, conv=nn.Conv2d(3, 3, 1), bn=nn.BatchNorm2d(3))
    network = nn.Sequential(nn.Sequential(inner), nn.ReLU())
    assert list(trace_calls(network)) == ["0.0.conv", "0.0.bn", "0.0/relu", "0.0/add", "1"]


def test_reused_modules_and_blocks_are_numbered() -> None:
    block = Net(lambda net, x: net.relu(net.relu(x) - 1), relu=nn.ReLU())
    calls = trace_calls(Net(lambda net, x: net.block(net.block(x)), block=block))
    once = ["block.relu", "block/sub", "block.relu:2"]
    assert list(calls) == [*once, "block.relu:3", "block/sub:2", "block.relu:4"]


def test_a_module_under_two_names_has_the_first_as_its_layer_name() -> None:
    shared = nn.Conv2d(3, 3, 1)
    assert list(trace_calls(Net(lambda net, x: net.b(net.a(x)), a=shared, b=shared))) == ["a", "a:2"]


def test_the_layers_of_a_network_that_is_a_leaf_are_its_functions() -> None:
    assert list(trace_calls(nn.Conv2d(3, 2, 3))) == ["conv2d"]


STRANGE = [
    *["input", "relu", "relu:2", "file", "arr_0", "a b", "a/b", "/root", "..", "größe", "层", "%s", "x\\y"],
    *["con:2", "allow_pickle", "pool@x", "'\"", "self", "npy"],
]


def test_names_are_unique_and_safe_for_any_names_of_modules(tmp_path: Path) -> None:
    names = [name for name in STRANGE if "." not in name]  # which torch refuses

    def forward(net: Any, x: Tensor) -> Tensor:
        for name in names:
            x = F.relu(net.get_submodule(name)(x)) + 0.1
        return x

    network = Net(forward)
    for name in names:
        network.add_module(name, nn.Conv2d(3, 3, 1))
    network.add_module("block", nn.Sequential(nn.Conv2d(3, 3, 1)))  # not called
    activations = record(network, X)
    assert len(activations.outputs) == 3 * len(names)
    assert "input" not in activations.outputs
    record_to_file(network, X, tmp_path / "a.npz")
    read = read_npz(tmp_path / "a.npz")
    assert list(read) == ["input", *activations.outputs]
    assert all((read[layer] == output[0].numpy()).all() for layer, output in activations.outputs.items())
    assert [layer["name"] for layer in list_layers(network, (3, 8, 8))] == [*activations.outputs, "block.0"]


def test_a_child_called_npy_is_distinguished_from_its_parent(tmp_path: Path) -> None:
    network = Net(lambda net, x: net.a(x), a=nn.Sequential())
    network.a.add_module("npy", nn.Conv2d(3, 2, 1))
    network.a.add_module("last", nn.Conv2d(2, 1, 1))
    record_to_file(network, X, tmp_path / "a.npz", blocks=["a"])
    assert {name: len(array) for name, array in read_npz(tmp_path / "a.npz").items()} == {
        "input": 3,
        "a.npy": 2,
        "a.last": 1,
        "a": 1,
    }


# Blocks.


def test_the_outputs_of_blocks_are_layers_where_they_are_named() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()), nn.Flatten())
    assert list(trace_calls(network)) == ["0.0", "0.1", "1"]
    calls = trace_calls(network, blocks=("0",))
    assert list(calls) == ["0.0", "0.1", "0", "1"]
    assert calls["0"].output is calls["0.1"].output
    assert calls["0"].type == "Sequential"
    assert composite_modules(network) == ["0"]
    _, _, block, _ = list_layers(network, (3, 8, 8), blocks=["0"])
    assert [block[key] for key in ("output_shape", "receptive_field", "parameters")] == [[3, 6, 6], [3, 3], 0]


def test_a_block_and_the_network_may_return_a_tuple_or_a_dict() -> None:
    inner = Net(lambda net, x: {"out": net.conv(x), "more": [x + 1]}, conv=nn.Conv2d(3, 2, 1))
    network = Net(lambda net, x: (net.inner(x)["out"].relu(), None, 3), inner=inner)
    calls = trace_calls(network, blocks=("inner",))
    assert list(calls) == ["inner.conv", "inner/add", "inner", "relu"]
    assert calls["inner"].output is calls["inner.conv"].output


# Modules that are leaves although they hold others, or the reverse.


def test_parametrised_layers_are_leaves() -> None:
    network = nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        nn.ReLU(),
        parametrizations.spectral_norm(nn.Conv2d(4, 2, 3)),
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = network.eval()(X)
    activations = record(network, X)
    assert list(activations.outputs) == ["0", "1", "2"]
    assert torch.equal(activations.outputs["2"], expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    layers = list_layers(network, (3, 8, 8))
    assert [(layer["name"], layer["kind"]) for layer in layers] == [
        ("0", "conv"),
        ("1", "activation"),
        ("2", "conv"),
    ]
    assert sum(layer["parameters"] for layer in layers) == sum(p.numel() for p in network.parameters())
    assert list(Extractor(network).conv_layers) == ["0", "2"]


def test_the_layers_of_a_convolution_with_submodules_are_its_calls() -> None:
    class Gated(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3)
            self.gate = nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            return self.gate(super().forward(x))

    assert list(trace_calls(nn.Sequential(Gated()))) == ["0/conv2d", "0.gate"]
    assert list(Extractor(nn.Sequential(Gated())).conv_layers) == ["0"]


def test_attention_is_a_leaf_and_uses_the_same_kernel_as_without_tracing() -> None:
    """Torch fuses it where no gradient is computed and no function is overridden: other bits, within 1e-6."""
    attention = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(net: Any, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        return net.attention(tokens, tokens, tokens)[0] + 1

    network = Net(forward, attention=attention).eval()
    calls = trace_calls(network)
    assert list(calls) == ["flatten", "attention", "add"]
    assert calls["attention"].kind == "other"
    with torch.no_grad():
        assert torch.equal(calls["add"].output, network(X))
    layers = list_layers(network, (3, 8, 8))
    assert sum(layer["parameters"] for layer in layers) == sum(p.numel() for p in network.parameters())


def test_a_leaf_that_fails_leaves_functions_as_they_were() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trace_calls(nn.Sequential(Fails()))
    assert list(trace_calls(Net(lambda _, x: x.relu()))) == ["relu"]


def test_kinds_of_subclasses() -> None:
    assert module_kind(type("Mine", (nn.ReLU,), {})()) == "activation"
    assert module_kind(type("Mine", (nn.Linear,), {})(1, 1)) == "linear"
    assert module_kind(Net(lambda _, x: x)) == "other"


# The network is restored.


def state(network: nn.Module) -> list[Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        [module.training for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
        [len(getattr(module, hook)) for module in network.modules() for hook in hooks],
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_modes_and_gradients_are_restored(fails: bool) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        if fails:
            raise ZeroDivisionError
        return net.b(net.a(x))

    network = Net(forward, a=nn.BatchNorm2d(3), b=nn.Dropout()).train()
    network.b.eval()
    network.a.bias.requires_grad_(False)
    network.a.register_forward_hook(lambda *_: None)
    before = state(network)
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    if fails:
        with pytest.raises(ZeroDivisionError):
            trace_calls(network)
    else:
        trace_calls(network)
    assert state(network) == before
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert torch.overrides._get_current_function_mode() is None


def test_a_parameter_returned_with_the_output_does_not_depend_on_the_input() -> None:
    network = Net(lambda net, x: (x * net.scale.exp().relu(), net.scale))
    network.scale = nn.Parameter(torch.ones(1))
    assert list(trace_calls(network)) == ["mul"]
    assert list(trace_calls(network)) == ["mul"]
