"""The index of a network's layers: which there are, what is called, in which order, with which shapes."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.tracing import kernel_taps
from convatlas.tracing.calls import Call, is_leaf, module_kind, named_leaf_modules, trace
from convatlas.tracing.dataflow import DataflowTracker
from convatlas.tracing.receptive_field import ReceptiveField, propagate_field


class Extractor:
    """Finds every layer of a network, at any depth, and tells the main path from down-sampling.

    Nothing is run. `downsample_name` names the submodules (as ResNet's `layer2.0.downsample`) whose
    convolutions match a shortcut to the main path's size; those are in `downsample_layers` alone. Each
    module is found once, under the first of its dotted names.
    """

    def __init__(self, model: nn.Module, downsample_name: str = "downsample") -> None:
        self.model, self.downsample_name = model, downsample_name
        self.modules = {name: module for name, module in model.named_modules() if name} or {"": model}

    def modules_of_kind(self, *kinds: str) -> dict[str, nn.Module]:
        """Every layer of these kinds, as `kind` tells them, by its dotted name."""
        return {name: module for name, module in self.modules.items() if module_kind(module) in kinds}

    @property
    def conv_layers(self) -> dict[str, nn.Module]:
        """The convolutions of the main path: 1d, 2d, 3d, transposed, and their subclasses."""
        return {
            name: module
            for name, module in self.modules_of_kind("conv").items()
            if not self.is_downsample(name)
        }

    @property
    def downsample_layers(self) -> dict[str, nn.Module]:
        """The convolutions within submodules called `downsample_name`."""
        return {
            name: module for name, module in self.modules_of_kind("conv").items() if self.is_downsample(name)
        }

    @property
    def linear_layers(self) -> dict[str, nn.Module]:
        """The linear layers, subclasses too."""
        return self.modules_of_kind("linear")

    @property
    def conv_weights(self) -> dict[str, Tensor]:
        """The weight of each convolution of the main path, itself, not a copy."""
        return {name: module.weight for name, module in self.conv_layers.items()}

    @property
    def linear_weights(self) -> dict[str, Tensor]:
        """The weight of each linear layer, itself, not a copy."""
        return {name: module.weight for name, module in self.linear_layers.items()}

    def is_downsample(self, name: str) -> bool:
        """Whether a dotted name lies within a submodule called `downsample_name`."""
        return self.downsample_name in name.split(".")

    def info(self) -> "NetworkSummary":
        """Count what there is; asked twice it answers the same."""
        containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        sequential = [
            n for n, m in self.modules.items() if isinstance(m, nn.Sequential) and not self.is_downsample(n)
        ]
        held = {
            id(child) for m in self.modules.values() if isinstance(m, containers) for child in m.children()
        }
        blocks = [
            m
            for m in self.modules.values()
            if id(m) in held and not is_leaf(m) and not isinstance(m, containers)
        ]
        return NetworkSummary(
            downsample_name=self.downsample_name,
            conv=len(self.conv_layers),
            downsample=len(self.downsample_layers),
            linear=len(self.linear_layers),
            sequential=len(sequential),
            blocks=len(blocks),
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
        )


class NetworkSummary(dict[str, Any]):
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


@torch.no_grad()
def list_layers(
    network: nn.Module,
    shape: tuple[int, ...],
    downsample_name: str = "downsample",
    blocks: Collection[str] = (),
) -> list[dict[str, Any]]:
    """List the layers of `network` in execution order, for one input of `shape` (C, H, W).

    One object a layer, as layers.json has it; composite modules named in `blocks` are layers too.
    `inputs` names the layers whose outputs a layer was computed from, each once, in order; "input" is the
    network's own input; a composite module is nobody's input, but the layer in it that made its output.
    `within` has the class of each module on the way to the layer, from the outermost.

    A convolution's `role` is what the network says itself: its attribute `roles`, where it is a dict, maps
    patterns of dotted paths (`"pyramid.*"`, as fnmatch knows them; a module's path stands for all in it)
    to roles, of which the first that matches counts. Else it is "downsample" within a submodule called
    `downsample_name`, or "main". `notes` say where a convolution's taps never meet its input.

    `receptive_field` is [height, width] in pixels of the input that one value can depend on, borders
    not counted; that of the value in row i and column j starts at `receptive_start` + (i, j) ×
    `receptive_step`. null where it is not known. Modules that the forward pass never calls come last, with
    `called` false.
    """
    layers: list[dict[str, Any]] = []
    like = next(network.parameters(), torch.empty(0))
    x = torch.zeros(1, *shape, device=like.device, dtype=like.dtype)
    flow = DataflowTracker(x)  # keeps every tensor, so that no identity in `fields` is given out twice
    fields: dict[int, ReceptiveField | None] = {id(x): ReceptiveField.identity(len(shape) - 1)}
    counted: set[str] = set()

    def see(call: Call) -> None:
        own_call = call.module is not None and call.module is network.get_submodule(call.path)
        block = call.path in blocks and own_call and not is_leaf(call.module)  # not a function in one
        inputs = flow.block_inputs[call.path] if block else flow.source_layers(call.inputs)
        if not block:
            before = [fields.get(id(tensor)) for tensor in call.inputs]
            fields[id(call.output)] = propagate_field(
                replace(call, output=flow.resolve_alias(call.output)), before
            )
            flow.assign_layer(call.layer, call.output)
        own = call.module if call.module is not None and call.path not in counted and not block else None
        counted.add(call.path if own is not None else "")
        layers.append(
            _layer_entry(call.layer, call.path, call.type, call.kind, call.module)
            | {"parameters": _count_parameters(own), "called": True, "inputs": list(inputs)}
            | {
                "input_shape": _shape_without_batch(call.input),
                "output_shape": _shape_without_batch(call.output),
            }
            | _receptive_field_entry(fields.get(id(call.output)), shape[1:])
        )

    with flow.track(network, blocks), trace(network, see, blocks):
        network(x)
    called = {layer["module"] for layer in layers}
    for path, module in named_leaf_modules(network):
        if path not in called:
            uncalled = _layer_entry(path, path, type(module).__name__, module_kind(module), module)
            layers.append(uncalled | {"parameters": _count_parameters(module), "called": False})
    convs = [layer for layer in layers if layer["kind"] == "conv"]
    for ordinal, layer in enumerate(convs, 1):
        layer |= {"ordinal": ordinal, "role": _convolution_role(network, layer["module"], downsample_name)}
    for layer in layers:
        layer["within"] = _parent_types(network, layer)
    _add_tap_notes(network, layers, shape[1:])
    return layers


def composite_modules(network: nn.Module) -> list[str]:
    """The dotted paths of a network's composite modules."""
    return [path for path, module in network.named_modules() if path and not is_leaf(module)]


def _convolution_role(network: nn.Module, path: str, downsample_name: str) -> str:
    """What a convolution is for."""
    roles = getattr(network, "roles", None)
    for pattern, role in roles.items() if isinstance(roles, dict) else ():
        if fnmatchcase(path, pattern) or path.startswith(f"{pattern}."):
            return role
    return "downsample" if downsample_name in path.split(".") else "main"


def _parent_types(network: nn.Module, layer: dict[str, Any]) -> list[str]:
    """The classes of the modules that hold a layer, or call it, below the network itself."""
    parts = layer["module"].split(".") if layer["module"] else []
    if is_leaf(network.get_submodule(layer["module"])) or layer["name"].split(":")[0] == layer["module"]:
        parts = parts[:-1]
    paths = [".".join(parts[: n + 1]) for n in range(len(parts))]
    return [type(network.get_submodule(path)).__name__ for path in paths]


def _add_tap_notes(network: nn.Module, layers: list[dict[str, Any]], sides: Sequence[int]) -> None:
    """Note where taps of a convolution never meet its input, and where the network's own is too small."""
    fixed: set[str] = set()  # layers whose size does not grow with the network's input
    for layer in layers:
        still = bool(layer["inputs"]) and fixed.issuperset(layer["inputs"])
        if still or layer["kind"] == "linear" or "daptive" in layer["type"] or layer["type"] == "mean":
            fixed.add(layer["name"])
        module = network.get_submodule(layer["module"])
        if layer["called"] and layer["kind"] == "conv" and isinstance(module, nn.modules.conv._ConvNd):
            note = kernel_taps.describe_inactive_taps(
                module, layer["input_shape"][1:], None if still else sides
            )
            layer["notes"] += [note] if note else []


def _receptive_field_entry(field: ReceptiveField | None, shape: Sequence[int]) -> dict[str, Any]:
    """A receptive field's entries in layers.json; one that is the whole input starts nowhere else."""
    if field is None:
        return {}
    reach: dict[str, Any] = {"receptive_field": field.size(shape)}
    if not field.is_global:
        reach |= {"receptive_start": list(field.first), "receptive_step": list(field.step)}
    return reach


def _shape_without_batch(tensor: Tensor) -> list[int]:
    """A tensor's shape without the batch axis, where the first axis is one."""
    return list(tensor.shape[1:] if tensor.ndim and tensor.shape[0] == 1 else tensor.shape)


def _layer_entry(
    layer: str, path: str, type_name: str, kind_name: str, module: nn.Module | None
) -> dict[str, Any]:
    """Every key of layers.json, with what is known from the module alone."""
    axes = next((n for n in (1, 2, 3) if type(module).__name__.endswith(f"{n}d")), 2)
    return {
        "name": layer,
        "module": path,
        "type": type_name,
        "kind": kind_name,
        "input_shape": None,
        "output_shape": None,
        "inputs": [],
        "within": [],
        "kernel": _as_list(getattr(module, "kernel_size", None), axes),
        "stride": _as_list(getattr(module, "stride", None), axes),
        "padding": _as_list(getattr(module, "padding", None), axes),
        "dilation": _as_list(getattr(module, "dilation", None), axes),
        "groups": getattr(module, "groups", None),
        "parameters": 0,
        "receptive_field": None,
        "receptive_start": None,
        "receptive_step": None,
        "ordinal": None,
        "role": None,
        "called": True,
        "notes": [],
    }


def _as_list(value: Any, axes: int) -> Any:
    if isinstance(value, int):
        return [value] * axes
    return list(value) if isinstance(value, tuple) else value


def _count_parameters(module: nn.Module | None) -> int:
    """The numbers that a module learned, those apart that its children did."""
    if module is None:
        return 0
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    weights = getattr(module, "parametrizations", None)  # where those of a parametrised layer are kept
    return own + sum(parameter.numel() for parameter in weights.parameters()) if weights else own
