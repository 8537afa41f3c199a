"""List the layers of a network in execution order, with their shapes, inputs and receptive fields."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn

from convatlas.records import Kind, Layer
from convatlas.tracing import kernel_taps
from convatlas.tracing.calls import (
    Call,
    is_leaf,
    named_leaf_modules,
    raise_on_wrong_input,
    trace,
)
from convatlas.tracing.dataflow import DataflowTracker
from convatlas.tracing.layer_kinds import module_kind
from convatlas.tracing.receptive_field import ReceptiveField, propagate_field

COMPLEX_OUTPUT_NOTE = "its output is complex: figures and statistics show the magnitude"
COMPLEX_WEIGHT_NOTE = "its weights are complex, and not shown"


@torch.no_grad()
def list_layers(
    network: nn.Module,
    shape: tuple[int, ...],
    downsample_name: str = "downsample",
    blocks: Collection[str] = (),
) -> list[Layer]:
    """Run a network once and return its layers in execution order.

    `inputs` of a layer names the layers whose outputs it was computed from, each once, in order; "input" is
    the network's own input. A composite module is never an input: the layer in it that computed its output
    is. `within` has the class of each module on the way to the layer, from the outermost.

    The `role` of a convolution is what the network declares: its attribute `roles`, where it is a dict, maps
    patterns of dotted paths (`"pyramid.*"`, as in fnmatch; the path of a module stands for all in it) to
    roles, and the first match counts. Without it the role is "downsample" or "main". `notes` states where
    taps of a convolution never meet its input.

    `receptive_field` is [height, width] in pixels of the input that one value can depend on, borders not
    counted; that of the value in row i and column j starts at `receptive_start` + (i, j) × `receptive_step`.
    They are None where they are not known.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        shape: Shape of one input, (C, H, W).
        downsample_name: Name of the submodules that down-sample shortcuts.
        blocks: Paths of composite modules to list as layers too.

    Returns:
        The entries of layers.json. Modules that the forward pass never calls come last, with `called` False
        and without shapes.

    Raises:
        UserError: The network does not take an input of this shape.

    Examples:
        >>> import convatlas as ca
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
        >>> for layer in ca.layers(network, (1, 28, 28)):
        ...     print(layer["name"], layer["kind"], layer["output_shape"], layer["receptive_field"])
        0 conv [6, 24, 24] [5, 5]
        1 activation [6, 24, 24] [5, 5]
        2 pool [6, 12, 12] [6, 6]
    """
    first_parameter = next(network.parameters(), torch.empty(0))
    dtype = first_parameter.dtype if first_parameter.is_floating_point() else torch.float32
    x = torch.zeros(1, *shape, device=first_parameter.device, dtype=dtype)
    lister = _LayerLister(network, x, blocks)
    with raise_on_wrong_input(x), lister.tracker.track(network, blocks), trace(network, lister.add, blocks):
        network(x)
    layers = lister.layers + _list_uncalled_modules(network, {layer["module"] for layer in lister.layers})
    convolutions = [layer for layer in layers if layer["kind"] == "conv"]
    for ordinal, layer in enumerate(convolutions, 1):
        layer["ordinal"] = ordinal
        layer["role"] = _convolution_role(network, layer["module"], downsample_name)
    for layer in layers:
        layer["within"] = _parent_types(network, layer)
    _add_tap_notes(network, layers, shape[1:])
    return layers


class _LayerLister:
    """Makes an entry of layers.json from each call of a forward pass."""

    def __init__(self, network: nn.Module, x: Tensor, blocks: Collection[str]) -> None:
        self.network, self.blocks = network, blocks
        self.layers: list[Layer] = []
        self.input_size = x.shape[2:]
        # The tracker keeps every tensor alive, so that no identity in `fields` is used twice.
        self.tracker = DataflowTracker(x)
        self.fields: dict[int, ReceptiveField | None] = {id(x): ReceptiveField.identity(x.ndim - 2)}
        self.counted_modules: set[str] = set()  # whose parameters an entry already has

    def add(self, call: Call) -> None:
        """Add the entry of a call."""
        module = call.module
        is_own_call = module is not None and module is self.network.get_submodule(call.path)
        is_block = module is not None and call.path in self.blocks and is_own_call and not is_leaf(module)
        if is_block:
            inputs = self.tracker.block_inputs[call.path]
        else:
            inputs = self.tracker.source_layers(call.inputs)
            self._propagate(call)
        entry = _layer_entry(call.layer, call.path, call.type, call.kind, module)
        entry["inputs"] = list(inputs)
        # A single number for the whole batch may be the first of several inputs: a factor, for example.
        main_input = next((tensor for tensor in call.inputs if tensor.ndim), call.input)
        entry["input_shape"] = _shape_without_batch(main_input)
        entry["output_shape"] = _shape_without_batch(call.output)
        if module is not None and not is_block and call.path not in self.counted_modules:
            entry["parameters"] = _count_parameters(module)
            self.counted_modules.add(call.path)
        _set_receptive_field(entry, self.fields.get(id(call.output)), self.input_size)
        if call.output.is_complex():
            entry["notes"].append(COMPLEX_OUTPUT_NOTE)
        weight = getattr(module, "weight", None)
        if call.kind in ("conv", "linear") and isinstance(weight, Tensor) and weight.is_complex():
            entry["notes"].append(COMPLEX_WEIGHT_NOTE)
        self.layers.append(entry)

    def _propagate(self, call: Call) -> None:
        """Record which layer the output of a call comes from, and its receptive field."""
        input_fields = [self.fields.get(id(tensor)) for tensor in call.inputs]
        unaliased = replace(call, output=self.tracker.resolve_alias(call.output))
        self.fields[id(call.output)] = propagate_field(unaliased, input_fields)
        self.tracker.assign_layer(call.layer, call.output)


def _list_uncalled_modules(network: nn.Module, called: Collection[str]) -> list[Layer]:
    """Return the entries of the leaf modules that the forward pass never called."""
    layers = []
    for path, module in named_leaf_modules(network):
        if path not in called:
            entry = _layer_entry(path, path, type(module).__name__, module_kind(module), module)
            entry["parameters"], entry["called"] = _count_parameters(module), False
            layers.append(entry)
    return layers


def _convolution_role(network: nn.Module, path: str, downsample_name: str) -> str:
    """Return the role of a convolution, as the network declares it or by its path."""
    roles = getattr(network, "roles", None)
    for pattern, role in roles.items() if isinstance(roles, dict) else ():
        if fnmatchcase(path, pattern) or path.startswith(f"{pattern}."):
            return str(role)
    return "downsample" if downsample_name in path.split(".") else "main"


def _parent_types(network: nn.Module, layer: Layer) -> list[str]:
    """Return the classes of the modules that contain or call a layer, below the network itself."""
    parts = layer["module"].split(".") if layer["module"] else []
    if is_leaf(network.get_submodule(layer["module"])) or layer["name"].split(":")[0] == layer["module"]:
        parts = parts[:-1]
    paths = [".".join(parts[: n + 1]) for n in range(len(parts))]
    return [type(network.get_submodule(path)).__name__ for path in paths]


def _add_tap_notes(network: nn.Module, layers: list[Layer], input_size: Sequence[int]) -> None:
    """Add a note to each convolution with taps that never meet its input."""
    fixed_size: set[str] = set()  # layers whose size does not grow with the network's input
    for layer in layers:
        has_fixed_input = bool(layer["inputs"]) and fixed_size.issuperset(layer["inputs"])
        is_size_fixing = layer["kind"] == "linear" or "daptive" in layer["type"] or layer["type"] == "mean"
        if has_fixed_input or is_size_fixing:
            fixed_size.add(layer["name"])
        module = network.get_submodule(layer["module"])
        if layer["called"] and layer["kind"] == "conv" and isinstance(module, nn.modules.conv._ConvNd):
            network_size = None if has_fixed_input else input_size
            note = kernel_taps.describe_inactive_taps(module, layer["input_shape"][1:], network_size)
            if note:
                layer["notes"].append(note)


def _set_receptive_field(entry: Layer, field: ReceptiveField | None, input_size: Sequence[int]) -> None:
    """Set the receptive field of an entry; a global field has the same start everywhere, and no step."""
    if field is None:
        return
    entry["receptive_field"] = field.size(input_size)
    if not field.is_global:
        entry["receptive_start"], entry["receptive_step"] = list(field.first), list(field.step)


def _shape_without_batch(tensor: Tensor) -> list[int]:
    """Return the shape of a tensor without the batch axis, where the first axis is one.

    A vector of one value, one per image of the batch, is one unit: [1].
    """
    return list(tensor.shape[1:] if tensor.ndim > 1 and tensor.shape[0] == 1 else tensor.shape)


def _layer_entry(layer: str, path: str, type_name: str, kind: Kind, module: nn.Module | None) -> Layer:
    """Return an entry with every key of layers.json, and with what is known from the module alone."""
    axes = next((n for n in (1, 2, 3) if type(module).__name__.endswith(f"{n}d")), 2)
    groups = getattr(module, "groups", None)
    entry = {
        "name": layer,
        "module": path,
        "type": type_name,
        "kind": kind,
        "input_shape": None,
        "output_shape": None,
        "inputs": [],
        "within": [],
        "kernel": _as_list(getattr(module, "kernel_size", None), axes),
        "stride": _as_list(getattr(module, "stride", None), axes),
        "padding": _as_list(getattr(module, "padding", None), axes),
        "dilation": _as_list(getattr(module, "dilation", None), axes),
        "groups": groups if isinstance(groups, int) else None,
        "parameters": 0,
        "receptive_field": None,
        "receptive_start": None,
        "receptive_step": None,
        "ordinal": None,
        "role": None,
        "called": True,
        "notes": [],
    }
    return cast(Layer, entry)


def _as_list(value: Any, axes: int) -> Any:
    """Return a module's attribute as JSON: one number per axis, None, or a word such as "same".

    An attribute of another type, as a module of the user's own may have under such a name, is None.
    """
    if isinstance(value, int):
        return [value] * axes
    if isinstance(value, tuple | list) and all(isinstance(number, int) for number in value):
        return list(value)
    return value if isinstance(value, str) else None


def _count_parameters(module: nn.Module) -> int:
    """Return how many numbers a module learns, apart from its children."""
    count = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    if isinstance(parametrizations := getattr(module, "parametrizations", None), nn.Module):
        count += sum(parameter.numel() for parameter in parametrizations.parameters())
    return count
