"""List the layers of a network in execution order, with their shapes, inputs and receptive fields."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, cast

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
from convatlas.tracing.layer_windows import Filters, LayerWindow, make_window, track_windows
from convatlas.tracing.operations import OperationTracker
from convatlas.tracing.receptive_field import describe_field
from convatlas.tracing.window_geometry import AxisWindow, get_axis_windows

UNKNOWN_GEOMETRY = {"kernel": None, "stride": None, "padding": None, "dilation": None, "groups": None}

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
    It follows from the operations that ran, inside layers and functions too. Where fields differ from value
    to value, as after upsampling, it is the smallest window that holds each. `receptive_start` and
    `receptive_step` are None where every value depends on all of an axis, and where rows and columns are not
    the last axes of the output. All are None where they are not known.

    A layer that computes by code of its own, as one that pads its input in `forward()`, has the kernel,
    stride, padding, dilation and groups of the one convolution or pooling that ran in it; padding is
    [near, far] per axis where the sides differ.

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
    return trace_layers(network, shape, downsample_name, blocks).layers


class TracedNetwork(NamedTuple):
    """The layers of a network, and filters that its modules' attributes do not tell.

    Attributes:
        layers: The entries of layers.json.
        filters: The weight and the bias, by the path of the module, of each convolution and linear layer that
            computes by its own code, or that a composite module calls as a function. None where they differ
            from call to call or from image to image, or where the code does more than one product.
    """

    layers: list[Layer]
    filters: dict[str, Filters | None]


@torch.no_grad()
def trace_layers(
    network: nn.Module,
    shape: tuple[int, ...],
    downsample_name: str = "downsample",
    blocks: Collection[str] = (),
) -> TracedNetwork:
    """Run a network once and return its layers, as `list_layers`, with the filters that it computed.

    Args:
        network: As in `list_layers`.
        shape: As in `list_layers`.
        downsample_name: As in `list_layers`.
        blocks: As in `list_layers`.

    Raises:
        UserError: As in `list_layers`.
    """
    first_parameter = next(network.parameters(), torch.empty(0))
    dtype = first_parameter.dtype if first_parameter.is_floating_point() else torch.float32
    x = torch.zeros(1, *shape, device=first_parameter.device, dtype=dtype)
    with track_windows(network) as windows:
        lister = _LayerLister(network, x, blocks, windows)
        tracking = lister.tracker.track(network, blocks), lister.operations
        with raise_on_wrong_input(x), tracking[0], tracking[1], trace(network, lister.add, blocks):
            network(x)
    layers = lister.layers
    layers += lister.list_uncalled_modules()
    layers += lister.list_unused_parameters()
    convolutions = [layer for layer in layers if layer["kind"] == "conv"]
    for ordinal, layer in enumerate(convolutions, 1):
        layer["ordinal"] = ordinal
        layer["role"] = _convolution_role(network, layer["module"], downsample_name)
    for layer in layers:
        layer["within"] = _parent_types(network, layer)
    _add_tap_notes(network, layers, lister.windows, shape[1:])
    return TracedNetwork(layers, lister.collect_filters())


class _LayerLister:
    """Makes an entry of layers.json from each call of a forward pass.

    Attributes:
        windows: The window of each layer that computes by its own code or is a function, by its name.
        layers: The entries.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        blocks: Collection[str],
        leaf_windows: Mapping[nn.Module, LayerWindow | None],
    ) -> None:
        self.network, self.blocks, self.leaf_windows = network, blocks, leaf_windows
        self.layers: list[Layer] = []
        self.windows: dict[str, LayerWindow] = {}
        self.filters: dict[str, list[Filters | None]] = {}  # of each call, by the path of the module
        self.tracker = DataflowTracker(x)
        self.operations = OperationTracker(x)
        self.counted_parameters: set[nn.Parameter] = set()  # that an entry already counts

    def add(self, call: Call) -> None:
        """Add the entry of a call."""
        module = call.module
        is_own_call = module is not None and module is self.network.get_submodule(call.path)
        is_block = module is not None and call.path in self.blocks and is_own_call and not is_leaf(module)
        if is_block:
            inputs = self.tracker.block_inputs[call.path]
        else:
            inputs = self.tracker.source_layers(call.inputs)
            self.tracker.assign_layer(call.layer, call.output)
        entry = _layer_entry(call.layer, call.path, call.type, call.kind, module)
        entry["inputs"] = list(inputs)
        # A single number for the whole batch may be the first of several inputs: a factor, for example.
        main_input = next((tensor for tensor in call.inputs if tensor.ndim), call.input)
        entry["input_shape"] = _shape_without_batch(main_input)
        entry["output_shape"] = _shape_without_batch(call.output)
        if not is_block:
            self._describe_window(entry, call, is_own_call)
            # A function has the parameters that have met what depends on the input since the last one.
            read = _own_parameters(module) if is_own_call else self.operations.take_parameters()
            entry["parameters"] = self._count_parameters(read)
        field = describe_field(self.operations.field_of(call.output), call.output.ndim)
        entry["receptive_field"], entry["receptive_start"], entry["receptive_step"] = field
        if call.output.is_complex():
            entry["notes"].append(COMPLEX_OUTPUT_NOTE)
        weight = getattr(module, "weight", None)
        if call.kind in ("conv", "linear") and isinstance(weight, Tensor) and weight.is_complex():
            entry["notes"].append(COMPLEX_WEIGHT_NOTE)
        self.layers.append(entry)

    def _describe_window(self, entry: Layer, call: Call, is_own_call: bool) -> None:
        """Describe a layer by the product or pooling that it ran, where its attributes do not tell it."""
        products = self.operations.take_products()
        if is_own_call and call.module is not None and call.module in self.leaf_windows:
            window = self.leaf_windows[call.module]
        elif call.module is None and call.kind in ("conv", "linear"):
            window = make_window(products[0]) if len(products) == 1 else None
        else:
            return
        if call.kind == "other" and window and window.is_convolution and _own_parameters(call.module):
            entry["kind"] = "conv"
        if entry["kind"] in ("conv", "pool") or window is not None:
            geometry = UNKNOWN_GEOMETRY if window is None else window.geometry()
            entry.update(geometry)  # type: ignore[typeddict-item]
        if entry["kind"] in ("conv", "linear"):
            is_constant = window is not None and not any(
                map(self.operations.depends_on_input, window.filters)
            )
            self.filters.setdefault(call.path, []).append(window.filters if window and is_constant else None)
        if window is not None:
            self.windows[call.layer] = window

    def _count_parameters(self, parameters: Iterable[nn.Parameter]) -> int:
        """Count the numbers in parameters that no entry counts yet."""
        new = set(parameters) - self.counted_parameters
        self.counted_parameters |= new
        return sum(parameter.numel() for parameter in new)

    def collect_filters(self) -> dict[str, Filters | None]:
        """Return the filters of each module whose calls all took the same ones, None for others."""
        return {path: calls[0] if _are_equal(calls) else None for path, calls in self.filters.items()}

    def list_uncalled_modules(self) -> list[Layer]:
        """Return the entries of the leaf modules that the forward pass never called."""
        called = {layer["module"] for layer in self.layers}
        layers = []
        for path, module in named_leaf_modules(self.network):
            if path not in called:
                entry = _layer_entry(path, path, type(module).__name__, module_kind(module), module)
                entry["parameters"], entry["called"] = self._count_parameters(_own_parameters(module)), False
                layers.append(entry)
        return layers

    def list_unused_parameters(self) -> list[Layer]:
        """Return an entry for each parameter of a composite module that no layer has read."""
        layers = []
        for name, parameter in self.network.named_parameters():
            if parameter not in self.counted_parameters:
                entry = _layer_entry(name, name.rpartition(".")[0], type(parameter).__name__, "other", None)
                entry["parameters"], entry["called"] = self._count_parameters([parameter]), False
                layers.append(entry)
        return layers


def _are_equal(calls: Sequence[Filters | None]) -> bool:
    """Return whether the filters of several calls are the same."""
    if None in calls:
        return False
    first = calls[0]
    return all(
        a is b or (a is not None and b is not None and torch.equal(a, b))
        for filters in calls[1:]
        for a, b in zip(first or (), filters or (), strict=True)
    )


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


def _add_tap_notes(
    network: nn.Module, layers: list[Layer], windows: Mapping[str, LayerWindow], input_size: Sequence[int]
) -> None:
    """Add a note to each convolution with taps that never meet its input."""
    fixed_size: set[str] = set()  # layers whose size does not grow with the network's input
    for layer in layers:
        has_fixed_input = bool(layer["inputs"]) and fixed_size.issuperset(layer["inputs"])
        is_size_fixing = layer["kind"] == "linear" or "daptive" in layer["type"] or layer["type"] == "mean"
        if has_fixed_input or is_size_fixing:
            fixed_size.add(layer["name"])
        axes = _find_axis_windows(network, layer, windows) if layer["called"] else None
        if axes is not None and layer["kind"] == "conv":
            network_size = None if has_fixed_input else input_size
            note = kernel_taps.describe_inactive_taps(axes, layer["input_shape"][1:], network_size)
            if note:
                layer["notes"].append(note)


def _find_axis_windows(
    network: nn.Module, layer: Layer, windows: Mapping[str, LayerWindow]
) -> list[AxisWindow] | None:
    """Return the window of a convolution along each axis; None where the padding is not known to be zeros."""
    if layer["name"] in windows:
        return windows[layer["name"]].axis_windows()
    module = network.get_submodule(layer["module"])
    if not isinstance(module, nn.modules.conv._ConvNd) or layer["kernel"] is None:
        return None
    return get_axis_windows(module) if not module.transposed and module.padding_mode == "zeros" else None


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


def _own_parameters(module: nn.Module | None) -> list[nn.Parameter]:
    """Return the parameters of a module, those of its parametrizations among them, without its children's."""
    if module is None:
        return []
    parameters = list(module.parameters(recurse=False))
    if isinstance(parametrizations := getattr(module, "parametrizations", None), nn.Module):
        parameters += parametrizations.parameters()
    return parameters
