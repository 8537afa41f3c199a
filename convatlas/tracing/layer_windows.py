"""The window of a layer that computes by its own code, as convolution or pooling ran inside it.

A subclass of nn.Conv2d or nn.MaxPool2d, or a module of any class, may pad its input, compute its weight or
ignore its attributes. What its operations took is what counts.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.records import Kind
from convatlas.tracing.calls import collect_tensors, named_leaf_modules
from convatlas.tracing.field_operation import Operation, per_axis
from convatlas.tracing.layer_kinds import module_kind
from convatlas.tracing.operations import POOLING_OPERATIONS, OperationTracker
from convatlas.tracing.receptive_field import AxisField
from convatlas.tracing.window_geometry import AxisWindow


class Filters(NamedTuple):
    """What a convolution or linear layer computed with.

    Attributes:
        weight: (units, channels, ...).
        bias: (units,).
    """

    weight: Tensor | None
    bias: Tensor | None


@dataclass(frozen=True)
class LayerWindow:
    """A convolution, pooling or linear layer that ran, one number per axis.

    Attributes:
        operation: The operation.
        input_shape: Shape of the layer's input, (N, C, H, W).
        padding: The padding at the near and far side of each axis, that of the layer and of the operation
            together; None where the layer does more to its input than to pad it.
        source: The pixel of the layer's input, along each axis, at each index of the operation's input;
            None as `padding`. It lies outside the input in padding.
    """

    operation: Operation
    input_shape: tuple[int, ...]
    padding: list[tuple[int, int]] | None
    source: list[np.ndarray] | None

    @property
    def kind(self) -> Kind:
        """The kind of layer that it is."""
        if self.operation.name in POOLING_OPERATIONS:
            return "pool"
        return "conv" if self.operation.name == "convolution" else "linear"

    @property
    def filters(self) -> Filters:
        """The weight (units, channels, ...) and the bias (units,) of a convolution or linear layer."""
        arguments = self.operation.arguments
        if self.operation.name == "addmm":
            return Filters(arguments["mat2"].t(), arguments["self"])
        if self.operation.name == "mm":
            return Filters(arguments["mat2"].t(), None)
        return Filters(arguments.get("weight"), arguments.get("bias"))

    def geometry(self) -> dict[str, Any]:
        """Return kernel, stride, padding, dilation and groups as in layers.json.

        Padding is [near, far] per axis where the sides differ.
        """
        arguments = self.operation.arguments
        if self.kind == "linear":
            return {}
        kernel = _kernel_size(self.operation)
        stride = per_axis(arguments["stride"] or kernel, len(kernel))
        padding: Any = self.padding and [list(sides) for sides in self.padding]
        if padding and all(near == far for near, far in padding):
            padding = [near for near, _ in padding]
        dilation = per_axis(arguments["dilation"], len(kernel)) if "dilation" in arguments else None
        geometry = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        return geometry | {"groups": arguments.get("groups")}

    def axis_windows(self) -> list[AxisWindow] | None:
        """Return the window along each axis; None where the padding is not zeros, or not known."""
        if self.kind != "conv" or self.operation.arguments["transposed"] or self.padding is None:
            return None
        geometry = self.geometry()
        axes = zip(geometry["kernel"], geometry["stride"], self.padding, geometry["dilation"], strict=True)
        return [AxisWindow(*axis) for axis in axes] if self.source is not None else None

    def compute_switches(self) -> Tensor | None:
        """Return the switches of max pooling, flat indices into the planes of the layer's input, int64.

        -1 where the maximum is a value of the padding. None where this is no max pooling, or where the layer
        does more to its input than to pad it.
        """
        if self.operation.name != "max_pool2d_with_indices" or self.source is None or len(self.source) != 2:
            return None
        switches: Tensor = self.operation.output[1]
        rows, columns = (torch.from_numpy(pixels).to(switches.device) for pixels in self.source)
        row, column = rows[switches // len(columns)], columns[switches % len(columns)]
        height, width = self.input_shape[2:]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return torch.where(inside, row * width + column, -1)


def has_own_forward(module: nn.Module) -> bool:
    """Return whether a module computes by code of its own, not by that of a class of torch.nn.

    Args:
        module: Any module.
    """
    methods = [getattr(type(module), name, None) for name in ("forward", "_conv_forward")]
    sources = [getattr(method, "__module__", None) or "" for method in methods if method is not None]
    is_own = not all(source.startswith("torch.nn.") for source in sources)
    return is_own or "forward" in vars(module)


@contextmanager
def track_windows(
    network: nn.Module, kinds: Collection[Kind] = ("conv", "linear", "pool", "other")
) -> Iterator[dict[nn.Module, LayerWindow | None]]:
    """Follow what happens inside the leaf modules of a network that compute by their own code.

    Enter this before `calls.trace`, so that its hooks run first. The same kernels run as without it.

    Args:
        network: Any network. The block runs it.
        kinds: The kinds of the modules.

    Yields:
        The window of the last call of each such module; None where no convolution or pooling, or more than
        one, ran in it.
    """
    windows: dict[nn.Module, LayerWindow | None] = {}
    trackers: list[tuple[OperationTracker, Tensor] | None] = []  # a stack, for modules that call themselves

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = next((tensor for tensor in collect_tensors([args, kwargs]) if tensor.ndim >= 3), None)
        trackers.append(None if x is None else (OperationTracker(x).__enter__(), x))

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        windows[module] = None
        if (tracked := trackers.pop()) is not None:
            tracker, x = tracked
            tracker.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            windows[module] = _find_window(tracker, x)

    handles = []
    for _, module in named_leaf_modules(network):
        if has_own_forward(module) and module_kind(module) in kinds:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave, with_kwargs=True, always_call=True))
    try:
        yield windows
    finally:
        for handle in handles:
            handle.remove()


def make_window(operation: Operation) -> LayerWindow:
    """Return the window of a convolution or pooling function that a composite module calls.

    Args:
        operation: The operation that the function ran.
    """
    if operation.name in ("addmm", "mm"):
        return LayerWindow(operation, tuple(operation.input.shape), None, None)
    axes = len(_kernel_size(operation))
    padding = [(n, n) for n in per_axis(operation.arguments["padding"], axes)]
    source = [np.arange(size) for size in operation.input.shape[2:]]
    return LayerWindow(operation, tuple(operation.input.shape), padding, source)


def _find_window(tracker: OperationTracker, x: Tensor) -> LayerWindow | None:
    """Return the one convolution or pooling that ran while a layer's input was followed."""
    products = tracker.take_products()
    if len(products) != 1:
        return None
    (operation,) = products
    if operation.name in ("addmm", "mm"):
        return LayerWindow(operation, tuple(x.shape), None, None)
    source = operation.arguments["input" if operation.name == "convolution" else "self"]
    field, shape = tracker.field_of(source), tuple(x.shape)
    axes = len(_kernel_size(operation))
    if field is None or source.ndim != x.ndim or len(field) != axes:
        is_pool = operation.name in POOLING_OPERATIONS  # one along a single axis runs as one along two
        return None if is_pool else LayerWindow(operation, shape, None, None)
    offsets = [_find_offset(along, 2 + n) for n, along in enumerate(field)]
    own = per_axis(operation.arguments["padding"], axes)
    padding = [
        (n + offset, n + source.shape[d] - offset - x.shape[d])
        for d, (n, offset) in enumerate(zip(own, offsets, strict=True), 2)
        if offset is not None
    ]
    is_exact = all(
        (along.first == along.last).all() and along.first.size == source.shape[d]
        for d, along in enumerate(field, 2)
    )
    pixels = [along.first.ravel() for along in field] if is_exact else None
    return LayerWindow(operation, shape, padding if len(padding) == axes else None, pixels)


def _find_offset(field: AxisField, d: int) -> int | None:
    """Return how many values stand before a layer's input along a dimension; None where it is scattered."""
    if field.axis != d or field.step != 1 or field.first.size != field.first.shape[d]:
        return None
    first, last = field.first.ravel(), field.last.ravel()
    inside = np.flatnonzero((first == last) & (first >= 0) & (first < field.pixels))  # not mirrored padding
    offsets = inside - first[inside]
    return int(offsets[0]) if len(offsets) and (offsets == offsets[0]).all() else None


def _kernel_size(operation: Operation) -> list[int]:
    """Return the size of the kernel of a convolution or pooling, one number per axis."""
    if operation.name == "convolution":
        return list(operation.arguments["weight"].shape[2:])
    return per_axis(operation.arguments["kernel_size"], 3 if "3d" in operation.name else 2)
