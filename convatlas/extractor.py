"""The index of a network's layers: which there are, what is called, in which order, with which shapes.

A layer is a leaf module's call under its dotted path; later calls of one module get `:2`, `:3`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# The field's kinds of layer, by the module's class; the first match counts.
KINDS: list[tuple[str, tuple[type, ...]]] = [
    ("conv", (nn.modules.conv._ConvNd,)),
    ("linear", (nn.Linear, nn.Bilinear)),
    ("pool", (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._LPPoolNd,
              nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)),
    ("norm", (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)),
    ("dropout", (nn.modules.dropout._DropoutNd,)),
    ("reshape", (nn.Flatten, nn.Unflatten)),
]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call of one layer: its name, module, input and output, as they are, not copied."""

    layer: str
    path: str
    module: nn.Module
    input: Tensor
    output: Tensor


def kind(module: nn.Module) -> str:
    """Give a layer's kind: conv, linear, pool, norm, activation, dropout, reshape or other."""
    for name, classes in KINDS:
        if isinstance(module, classes):
            return name
    return "activation" if type(module).__module__ == "torch.nn.modules.activation" else "other"


def is_leaf(module: nn.Module) -> bool:
    """Whether a module holds no others."""
    return next(module.children(), None) is None


def leaves(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give the modules of a network that hold no others, each once, with their dotted paths."""
    return ((path, module) for path, module in network.named_modules() if path and is_leaf(module))


class Extractor:
    """Finds every layer of a network, at any depth, and tells the main path from down-sampling.

    Nothing is run. `downsample_name` names the submodules (as ResNet's `layer2.0.downsample`) whose
    convolutions match a shortcut to the main path's size; those are in `downsample_layers` alone. Each
    module is found once, under the first of its dotted names.
    """

    def __init__(self, model: nn.Module, downsample_name: str = "downsample") -> None:
        self.model, self.downsample_name = model, downsample_name
        self.modules = {name: module for name, module in model.named_modules() if name} or {"": model}

    def of_kind(self, *kinds: str) -> dict[str, nn.Module]:
        """Every layer of these kinds, as `kind` tells them, by its dotted name."""
        return {name: module for name, module in self.modules.items() if kind(module) in kinds}

    @property
    def conv_layers(self) -> dict[str, nn.Module]:
        """The convolutions of the main path: 1d, 2d, 3d, transposed, and their subclasses."""
        return {name: module for name, module in self.of_kind("conv").items() if not self.downsamples(name)}

    @property
    def downsample_layers(self) -> dict[str, nn.Module]:
        """The convolutions within submodules called `downsample_name`."""
        return {name: module for name, module in self.of_kind("conv").items() if self.downsamples(name)}

    @property
    def linear_layers(self) -> dict[str, nn.Module]:
        """The linear layers, subclasses too."""
        return self.of_kind("linear")

    @property
    def conv_weights(self) -> dict[str, Tensor]:
        """The weight of each convolution of the main path, itself, not a copy."""
        return {name: module.weight for name, module in self.conv_layers.items()}

    @property
    def linear_weights(self) -> dict[str, Tensor]:
        """The weight of each linear layer, itself, not a copy."""
        return {name: module.weight for name, module in self.linear_layers.items()}

    def downsamples(self, name: str) -> bool:
        """Whether a dotted name lies within a submodule called `downsample_name`."""
        return self.downsample_name in name.split(".")

    def info(self) -> "Info":
        """Count what there is; asked twice it answers the same."""
        containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        sequential = [
            n for n, m in self.modules.items() if isinstance(m, nn.Sequential) and not self.downsamples(n)
        ]
        held = {
            id(child) for m in self.modules.values() if isinstance(m, containers) for child in m.children()
        }
        blocks = [
            m
            for m in self.modules.values()
            if id(m) in held and not is_leaf(m) and not isinstance(m, containers)
        ]
        return Info(
            downsample_name=self.downsample_name,
            conv=len(self.conv_layers),
            downsample=len(self.downsample_layers),
            linear=len(self.linear_layers),
            sequential=len(sequential),
            blocks=len(blocks),
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
        )


class Info(dict[str, Any]):
    """The counts of a network; prints as a table.

    conv: convolutions of the main path; downsample: those of the shortcuts; linear: linear layers;
    sequential: nn.Sequential containers, those of shortcuts apart; blocks: composite modules of a class
    of their own that stand in a container, as ResNet's bottlenecks do; parameters: numbers learned.
    """

    def __str__(self) -> str:
        return "\n".join(
            f"{key:16} {value:>12,}" if isinstance(value, int) else f"{key:16} {value:>12}"
            for key, value in self.items()
        )


def call_name(path: str, calls: Counter[str]) -> str:
    """Count one more call of the module at `path`, and name it: `path`, then `path:2`, `path:3`."""
    calls[path] += 1
    return path if calls[path] == 1 else f"{path}:{calls[path]}"


@contextmanager
def watch(network: nn.Module, see: Callable[[Call], None]) -> Iterator[None]:
    """Show every call of a leaf module to `see` while the block runs.

    The network runs in evaluation mode meanwhile, and is left as it was.
    """
    calls: Counter[str] = Counter()

    def hook(path: str) -> Callable[..., None]:
        def seen(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            given = inputs[0] if inputs else next(iter(named.values()))
            see(Call(call_name(path, calls), path, module, given, output))

        return seen

    handles = [module.register_forward_hook(hook(path), with_kwargs=True) for path, module in leaves(network)]
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()


@torch.no_grad()
def index(
    network: nn.Module, shape: tuple[int, ...], downsample_name: str = "downsample"
) -> list[dict[str, Any]]:
    """List the layers of `network` in execution order, for one input of `shape` (C, H, W).

    One object a layer, as layers.json has it. A convolution's `role` is "main", or "downsample" within a
    submodule called `downsample_name`. `receptive_field` is [height, width] in pixels of
    the input that one value can depend on, borders not counted; null where it is not known.
    Modules that the forward pass never calls come last, with `called` false.
    """
    layers: list[dict[str, Any]] = []
    seen: dict[int, _Reach] = {}
    alive: list[Tensor] = []  # so that no identity in `seen` is given out twice

    def see(call: Call) -> None:
        reach = _reach(call, seen.get(id(call.input)), shape)
        seen[id(call.output)] = reach
        alive.append(call.output)
        first = call.layer == call.path
        layers.append(
            _described(call.layer, call.path, call.module)
            | {"parameters": _parameters(call.module) if first else 0}
            | {"input_shape": list(call.input.shape[1:]), "output_shape": list(call.output.shape[1:])}
            | {"receptive_field": reach.size if reach else None, "called": True}
        )

    like = next(network.parameters(), torch.empty(0))
    x = torch.zeros(1, *shape, device=like.device, dtype=like.dtype)
    seen[id(x)] = _Reach([1, 1], [1, 1])
    with watch(network, see):
        network(x)
    called = {layer["module"] for layer in layers}
    for path, module in leaves(network):
        if path not in called:
            layers.append(
                _described(path, path, module) | {"parameters": _parameters(module), "called": False}
            )
    downsamples = Extractor(network, downsample_name).downsamples
    convs = [layer for layer in layers if layer["kind"] == "conv"]
    for ordinal, layer in enumerate(convs, 1):
        role = "downsample" if downsamples(layer["module"]) else "main"
        layer |= {"ordinal": ordinal, "role": role}
    return layers


def _described(layer: str, path: str, module: nn.Module) -> dict[str, Any]:
    """Every key of layers.json, with what is known from the module alone."""
    axes = 2
    return {
        "name": layer,
        "module": path,
        "type": type(module).__name__,
        "kind": kind(module),
        "input_shape": None,
        "output_shape": None,
        "kernel": _tuple(getattr(module, "kernel_size", None), axes),
        "stride": _tuple(getattr(module, "stride", None), axes),
        "padding": _tuple(getattr(module, "padding", None), axes),
        "dilation": _tuple(getattr(module, "dilation", None), axes),
        "groups": getattr(module, "groups", None),
        "parameters": 0,
        "receptive_field": None,
        "ordinal": None,
        "role": None,
        "called": True,
        "notes": [],
    }


def _tuple(value: Any, axes: int) -> Any:
    if isinstance(value, int):
        return [value] * axes
    return list(value) if isinstance(value, tuple) else value


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


@dataclass(frozen=True)
class _Reach:
    """How far a value reaches into the input: its receptive field, and the step between neighbours."""

    size: list[int]
    step: list[int]


def _reach(call: Call, before: _Reach | None, shape: tuple[int, ...]) -> _Reach | None:
    """Follow the receptive field through one layer (Dumoulin & Visin, arXiv 1603.07285, chapter 2)."""
    if before is None:
        return None
    if kind(call.module) == "linear":  # every value may depend on the whole input
        return _Reach(list(shape[1:]), before.step)
    pointwise = kind(call.module) in ("activation", "dropout", "reshape")
    if pointwise or isinstance(call.module, nn.modules.batchnorm._BatchNorm | nn.Identity):
        return before
    if not hasattr(call.module, "kernel_size") or getattr(call.module, "transposed", False):
        return None  # not of a kind that says how far it looks
    axes = call.output.ndim - 2
    kernel, stride, dilation = (
        _tuple(getattr(call.module, name, 1), axes) for name in ("kernel_size", "stride", "dilation")
    )
    size = [
        s + (k - 1) * d * j for s, k, d, j in zip(before.size, kernel, dilation, before.step, strict=True)
    ]
    return _Reach(size, [j * s for j, s in zip(before.step, stride, strict=True)])
