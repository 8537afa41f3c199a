"""Make the entries of layers.json from the calls of a forward pass."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from convatlas.layer_selection import COMPLEX_OUTPUT_NOTE
from convatlas.records import Kind, Layer
from convatlas.tracing.calls import Call, drop_batch_axis, is_leaf, named_leaf_modules
from convatlas.tracing.dataflow import DataflowTracker
from convatlas.tracing.layer_kinds import module_kind
from convatlas.tracing.layer_windows import Filters, LayerWindow, make_window
from convatlas.tracing.operations import OperationTracker
from convatlas.tracing.receptive_field import describe_field

UNKNOWN_GEOMETRY = {"kernel": None, "stride": None, "padding": None, "dilation": None, "groups": None}

UNKNOWN_FILTERS_NOTE = "its own code computes no single convolution or product, and its filters are not shown"
COMPUTED_FILTERS_NOTE = "its filters are computed from the image, and not shown"
COMPLEX_WEIGHT_NOTE = "its weights are complex, and not shown"


class LayerLister:
    """Makes an entry of layers.json from each call of a forward pass.

    Attributes:
        windows: The window of each layer that computes by its own code or is a function, by its name.
        layers: The entries.

    Args:
        network: Any network.
        x: Its input, (1, C, H, W).
        blocks: Paths of composite modules to list as layers too.
        leaf_windows: The window of the last call of each leaf that computes by its own code, from
            `track_windows`.
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
        entry["input_shape"] = list(drop_batch_axis(main_input).shape)
        entry["output_shape"] = list(drop_batch_axis(call.output).shape)
        if not is_block:
            self._describe_window(entry, call, is_own_call)
            # A function has the parameters that have met what depends on the input since the last one.
            read = _own_parameters(module) if is_own_call else self.operations.take_parameters()
            entry["parameters"] = self._count_parameters(read)
        field = describe_field(self.operations.field_of(call.output), call.output.ndim)
        entry["receptive_field"], entry["receptive_start"], entry["receptive_step"] = field
        if call.output.is_floating_point() and call.output.dtype != torch.float32:
            entry["computed_in"] = str(call.output.dtype).removeprefix("torch.")
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
        if call.kind == "other" and window and window.kind == "conv" and _own_parameters(call.module):
            entry["kind"] = "conv"
        if window is not None and entry["kind"] in ("conv", "linear", "pool"):
            window = window if window.kind == entry["kind"] else None  # as a convolution by a matrix product
        if entry["kind"] in ("conv", "pool") or window is not None:
            geometry = UNKNOWN_GEOMETRY if window is None else window.geometry()
            entry.update(geometry)  # type: ignore[typeddict-item]
        if entry["kind"] in ("conv", "linear"):
            self._add_filters(entry, call, window)
        if window is not None:
            self.windows[call.layer] = window

    def _add_filters(self, entry: Layer, call: Call, window: LayerWindow | None) -> None:
        """Collect the filters of a convolution or linear layer, or note why they are not known."""
        filters = None if window is None else window.filters
        if filters is None and (call.kind == "conv" or call.module is not None):
            entry["notes"].append(UNKNOWN_FILTERS_NOTE)
        elif filters is not None and any(map(self.operations.depends_on_input, filters)):
            entry["notes"].append(COMPUTED_FILTERS_NOTE)
            filters = None
        self.filters.setdefault(call.path, []).append(filters)

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
