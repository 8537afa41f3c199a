"""The rules by which receptive fields pass through the operations of PyTorch, as its dispatcher runs them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from convatlas.tracing.receptive_field import NO_BOUND, AxisField, unite

FieldOf = Callable[[Tensor], AxisField | None]  # None for a constant
Result = AxisField | list[AxisField | None] | None  # a list for an operation that returns several parts
Rule = Callable[["Operation", FieldOf], Result]


class UnknownFieldError(Exception):
    """The rules do not cover an operation."""


class Operation(NamedTuple):
    """An operation that has run.

    Attributes:
        name: Its name, without the underscore of operations in place, as "relu".
        arguments: Its arguments, by the names in its schema.
        output: What it returned.
        is_pointwise: Whether PyTorch says that it computes each value from those at the same place.
    """

    name: str
    arguments: dict[str, Any]
    output: Any
    is_pointwise: bool

    @classmethod
    def from_call(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> "Operation":
        """Return an operation from a call of the dispatcher.

        Args:
            func: The operator, a torch._ops.OpOverload.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            output: What it returned.
        """
        parameters = func._schema.arguments
        values = dict(zip((p.name for p in parameters), args, strict=False)) | kwargs
        arguments = {p.name: values.get(p.name, p.default_value) for p in parameters}
        name = func._schema.name.rpartition("::")[2]
        name = name if name.startswith("__") else name.rstrip("_")
        return cls(name, arguments, output, torch.Tag.pointwise in func.tags)

    @property
    def input(self) -> Tensor:
        """Its first tensor."""
        return self.tensors[0]

    @property
    def tensors(self) -> list[Tensor]:
        """Its tensors, also those in lists."""
        values = [v for a in self.arguments.values() for v in (a if isinstance(a, list | tuple) else [a])]
        return [value for value in values if isinstance(value, Tensor)]

    @property
    def result(self) -> Tensor:
        """The first tensor that it returned."""
        output: Tensor = self.output if isinstance(self.output, Tensor) else self.output[0]
        return output

    def get_dims(self, name: str = "dim") -> list[int]:
        """Return the dimensions in an argument, counted from 0; all of the input's where it names none."""
        dims = self.arguments.get(name)
        ndim = self.input.ndim
        if dims is None or dims == []:
            return list(range(ndim))
        return [d % ndim for d in ([dims] if isinstance(dims, int) else dims)]


def propagate(operation: Operation, field_of: FieldOf) -> Result:
    """Return the field of what an operation returns, along one axis of the input.

    Args:
        operation: The operation.
        field_of: The field of each of its tensors.

    Raises:
        UnknownFieldError: The rules do not cover the operation.
    """
    fields = [field for t in operation.tensors if (field := field_of(t)) is not None]
    if operation.name in CONSTANTS or not fields:
        return None
    if any(tensor.numel() == 0 for tensor in operation.tensors):
        raise UnknownFieldError(operation.name)
    rule = RULES.get(operation.name, _pointwise if operation.is_pointwise else None)
    if rule is not None:
        return rule(operation, field_of)
    if all(field.is_global for field in fields):  # whatever it computes
        return fields[0].reduce(range(fields[0].ndim), keepdim=False).lift(operation.result.ndim)
    raise UnknownFieldError(operation.name)


def _field_of_input(operation: Operation, field_of: FieldOf) -> AxisField:
    """Return the field of an operation's first tensor, which alone may depend on the image."""
    if any(field_of(tensor) is not None for tensor in operation.tensors[1:]):
        raise UnknownFieldError(operation.name)
    field = field_of(operation.input)
    assert field is not None
    return field


def broadcast(field: AxisField, shape: Sequence[int], new_shape: Sequence[int]) -> AxisField:
    """Return the field of a tensor that is broadcast to another shape.

    Args:
        field: Its field.
        shape: Its shape.
        new_shape: The shape to which it is broadcast.
    """
    lifted = field.lift(len(new_shape))
    axis = lifted.axis
    if axis is None or shape[field.axis or 0] == new_shape[axis]:
        return lifted
    return replace(lifted, axis=None).settle()


def _unite_broadcast(pairs: Sequence[tuple[AxisField | None, Tensor]], shape: Sequence[int]) -> AxisField:
    """Return the field of values computed from tensors that broadcast to a shape."""
    return unite([broadcast(field, tensor.shape, shape) for field, tensor in pairs if field is not None])


def _pointwise(operation: Operation, field_of: FieldOf) -> AxisField:
    pairs = [(field_of(tensor), tensor) for tensor in operation.tensors]
    return _unite_broadcast(pairs, operation.result.shape)


def _copy_into(operation: Operation, field_of: FieldOf) -> AxisField | None:
    source = operation.arguments["src"]
    field = field_of(source)
    return None if field is None else broadcast(field, source.shape, operation.result.shape)


# Operations that move values.


def _view(operation: Operation, field_of: FieldOf) -> AxisField:
    field = _field_of_input(operation, field_of)
    return field.reshape(operation.input.shape, operation.result.shape)


def _permute(operation: Operation, field_of: FieldOf) -> AxisField:
    return _field_of_input(operation, field_of).permute(operation.get_dims("dims"))


def _transpose(operation: Operation, field_of: FieldOf) -> AxisField:
    field = _field_of_input(operation, field_of)
    dims = list(range(field.ndim))
    if "dim0" in operation.arguments:
        a, b = operation.get_dims("dim0") + operation.get_dims("dim1")
        dims[a], dims[b] = dims[b], dims[a]
    else:
        dims.reverse()
    return field.permute(dims)


def _expand(operation: Operation, field_of: FieldOf) -> AxisField:
    return broadcast(_field_of_input(operation, field_of), operation.input.shape, operation.result.shape)


def _unsqueeze(operation: Operation, field_of: FieldOf) -> AxisField:
    return _field_of_input(operation, field_of).insert(operation.arguments["dim"] % operation.result.ndim)


def _squeeze(operation: Operation, field_of: FieldOf) -> AxisField:
    field = _field_of_input(operation, field_of)
    for d in sorted(operation.get_dims(), reverse=True):
        field = field.drop(d) if operation.input.shape[d] == 1 else field
    return field


def _slice(operation: Operation, field_of: FieldOf) -> AxisField:
    arguments = operation.arguments
    (d,) = operation.get_dims()
    size = operation.input.shape[d]
    part = range(size)[arguments.get("start") : arguments.get("end") : arguments.get("step", 1)]
    return _take(_field_of_input(operation, field_of), d, part, size)


def _take(field: AxisField, d: int, part: range, size: int) -> AxisField:
    """Return the field of evenly spaced slices of a tensor along a dimension."""
    return field.select(d, np.array(part, np.int64), size).rescale(d, Fraction(part.step))


def _select(operation: Operation, field_of: FieldOf) -> AxisField:
    (d,) = operation.get_dims()
    size = operation.input.shape[d]
    index = operation.arguments["index"] % size
    return _take(_field_of_input(operation, field_of), d, range(index, index + 1), size).drop(d)


def _split(operation: Operation, field_of: FieldOf) -> list[AxisField | None]:
    field, (d,) = _field_of_input(operation, field_of), operation.get_dims()
    ends = np.cumsum([part.shape[d] for part in operation.output]).tolist()
    starts = [0, *ends[:-1]]
    return [_take(field, d, range(a, b), int(ends[-1])) for a, b in zip(starts, ends, strict=True)]


def _unbind(operation: Operation, field_of: FieldOf) -> list[AxisField | None]:
    field, (d,) = _field_of_input(operation, field_of), operation.get_dims()
    size = operation.input.shape[d]
    return [_take(field, d, range(n, n + 1), size).drop(d) for n in range(size)]


def _cat(operation: Operation, field_of: FieldOf) -> AxisField:
    tensors = [t for t in operation.arguments["tensors"] if t.numel() or t.ndim == operation.result.ndim]
    d = operation.arguments.get("dim", 0) % operation.result.ndim
    return _concatenate([(field_of(t), t.shape[d]) for t in tensors], d)


def _stack(operation: Operation, field_of: FieldOf) -> AxisField:
    d = operation.arguments.get("dim", 0) % operation.result.ndim
    fields = [field_of(tensor) for tensor in operation.arguments["tensors"]]
    return _concatenate([(None if field is None else field.insert(d), 1) for field in fields], d)


def _concatenate(parts: Sequence[tuple[AxisField | None, int]], d: int) -> AxisField:
    """Return the field of tensors, of these sizes along a dimension, joined along it."""
    joined = unite([field.apply(lambda a: a.take([0], d), field.axis) for field, _ in parts if field])
    firsts, lasts = [], []
    for field, size in parts:
        sizes = [size if n == d else length for n, length in enumerate(joined.first.shape)]
        firsts.append(np.broadcast_to(field.first if field else np.int64(NO_BOUND), sizes))
        lasts.append(np.broadcast_to(field.last if field else np.int64(-NO_BOUND), sizes))
    axis = None if joined.axis == d else joined.axis
    first, last = np.concatenate(firsts, d), np.concatenate(lasts, d)
    return replace(joined, first=first, last=last, axis=axis).simplify()


def _index(operation: Operation, field_of: FieldOf) -> AxisField:
    indices = operation.arguments.get("indices", operation.arguments.get("index"))
    if isinstance(indices, Tensor):
        (d,), index = operation.get_dims(), indices
    else:
        present = [(d, index) for d, index in enumerate(indices or ()) if index is not None]
        if len(present) != 1:
            raise UnknownFieldError(operation.name)
        d, index = present[0]
    field = field_of(operation.input)
    if index.ndim != 1 or index.dtype == torch.bool or field is None or field_of(index) is not None:
        raise UnknownFieldError(operation.name)
    return _rearrange(field, d, index.cpu().numpy() % operation.input.shape[d], operation.input.shape[d])


def _rearrange(field: AxisField, d: int, indices: np.ndarray, size: int) -> AxisField:
    """Return the field of a tensor indexed along a dimension, in any order."""
    moved = field.select(d, indices, size)
    return (replace(moved, axis=None) if d == field.axis else moved).simplify()


def _flip(operation: Operation, field_of: FieldOf) -> AxisField:
    field = _field_of_input(operation, field_of)
    for d in operation.get_dims("dims"):
        size = operation.input.shape[d]
        field = _rearrange(field, d, np.arange(size)[::-1], size)
    return field


def _roll(operation: Operation, field_of: FieldOf) -> AxisField:
    field, shifts = _field_of_input(operation, field_of), operation.arguments["shifts"]
    if not operation.arguments.get("dims"):
        raise UnknownFieldError(operation.name)
    for d, shift in zip(operation.get_dims("dims"), shifts, strict=True):
        size = operation.input.shape[d]
        field = _rearrange(field, d, np.roll(np.arange(size), shift), size)
    return field


def _repeat(operation: Operation, field_of: FieldOf) -> AxisField:
    field = _field_of_input(operation, field_of).lift(operation.result.ndim)
    sizes = (1,) * (field.ndim - operation.input.ndim) + operation.input.shape
    for d, count in enumerate(operation.arguments["repeats"]):
        if count > 1:
            field = _rearrange(field, d, np.tile(np.arange(sizes[d]), count), sizes[d])
    return field


def _shuffle_pixels(operation: Operation, field_of: FieldOf) -> AxisField:
    field, factor = _field_of_input(operation, field_of), operation.arguments["upscale_factor"]
    *batch, channels, height, width = operation.input.shape
    n = len(batch)
    parts = [*batch, channels // factor**2, factor, factor, height, width]
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    shuffled = field.reshape(operation.input.shape, parts).permute(order)
    return shuffled.reshape([parts[d] for d in order], operation.result.shape)


def _unshuffle_pixels(operation: Operation, field_of: FieldOf) -> AxisField:
    field, factor = _field_of_input(operation, field_of), operation.arguments["downscale_factor"]
    *batch, channels, height, width = operation.input.shape
    n = len(batch)
    parts = [*batch, channels, height // factor, factor, width // factor, factor]
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    shuffled = field.reshape(operation.input.shape, parts).permute(order)
    return shuffled.reshape([parts[d] for d in order], operation.result.shape)


def _shuffle_channels(operation: Operation, field_of: FieldOf) -> AxisField:
    field, groups, shape = (
        _field_of_input(operation, field_of),
        operation.arguments["groups"],
        operation.input.shape,
    )
    parts = [shape[0], groups, shape[1] // groups, *shape[2:]]
    order = [0, 2, 1, *range(3, len(parts))]
    return field.reshape(shape, parts).permute(order).reshape([parts[d] for d in order], shape)


# Operations that combine values along dimensions.


def _reduce(operation: Operation, field_of: FieldOf) -> AxisField:
    keepdim = operation.arguments.get("keepdim", False)
    return _field_of_input(operation, field_of).reduce(operation.get_dims(), keepdim)


def _spread(operation: Operation, field_of: FieldOf) -> AxisField:
    """Every value along the dimensions depends on all of them."""
    return _field_of_input(operation, field_of).reduce(operation.get_dims())


def _gate(operation: Operation, field_of: FieldOf) -> AxisField:
    field, (d,) = _field_of_input(operation, field_of), operation.get_dims()
    size = operation.input.shape[d]
    return unite([_take(field, d, half, size) for half in (range(size // 2), range(size // 2, size))])


def _layer_norm(operation: Operation, field_of: FieldOf) -> AxisField:
    ndim = operation.input.ndim
    first = ndim - len(operation.arguments["normalized_shape"])
    return _field_of_input(operation, field_of).reduce(range(first, ndim))


def _group_norm(operation: Operation, field_of: FieldOf) -> AxisField:
    return _field_of_input(operation, field_of).reduce(range(1, operation.input.ndim))


def _batch_norm(operation: Operation, field_of: FieldOf) -> AxisField:
    field = _field_of_input(operation, field_of)
    dims = [d for d in range(field.ndim) if d != 1]
    return field.reduce(dims) if operation.arguments.get("training") else field


def _matmul(operation: Operation, field_of: FieldOf) -> AxisField:
    *others, a, b = operation.tensors
    shape = operation.result.shape
    fields = [broadcast(field, t.shape, shape) for t in others if (field := field_of(t)) is not None]
    if (field := field_of(a)) is not None:
        fields.append(field.reduce([a.ndim - 1], keepdim=b.ndim > 1))
    if (field := field_of(b)) is not None:
        fields.append(field.reduce([max(b.ndim - 2, 0)], keepdim=b.ndim > 1))
    return unite(fields).lift(len(shape))


def _attention(operation: Operation, field_of: FieldOf) -> AxisField:
    """Each query attends to all keys and values."""
    ndim = operation.input.ndim
    query, key, value, *others = (field_of(tensor) for tensor in operation.tensors)
    if any(field is not None for field in others):
        raise UnknownFieldError(operation.name)
    fields = [field.reduce([ndim - 2, ndim - 1]) for field in (key, value) if field is not None]
    return unite(fields + ([query.reduce([ndim - 1])] if query is not None else []))


def _attend_to_all(operation: Operation, field_of: FieldOf) -> AxisField:
    """Each token depends on all tokens of its image, (N, tokens, channels)."""
    fields = [field for t in operation.tensors if (field := field_of(t)) is not None]
    return unite([field.reduce([1, 2]) for field in fields])


# Operations that slide windows or resize.


def per_axis(values: Sequence[int], axes: int) -> list[int]:
    """Return a value per axis: a single number stands for all."""
    return list(values) * (axes if len(values) == 1 else 1)


def _convolve(operation: Operation, field_of: FieldOf) -> AxisField:
    arguments = operation.arguments
    weight, shape = arguments["weight"], operation.result.shape
    axes = weight.ndim - 2
    field = field_of(arguments["input"])
    if field is not None:
        windows = zip(
            *(weight.shape[2:], *(per_axis(arguments[k], axes) for k in ("stride", "padding", "dilation"))),
            strict=True,
        )
        slide = _slide_transposed if arguments["transposed"] else _slide
        for d, window in enumerate(windows, 2):
            field = slide(field, d, window, arguments["input"].shape[d], shape[d])
        field = _mix_channels(field, arguments["groups"], shape[1])
    computed = [field_of(tensor) for tensor in operation.tensors[1:]]  # weights that depend on the image
    fields = [f.reduce(range(f.ndim), keepdim=False).lift(len(shape)) for f in computed if f is not None]
    return unite(fields + ([field] if field is not None else []))


Window = tuple[int, int, int, int]  # kernel, stride, padding, dilation along one axis


def _slide(field: AxisField, d: int, window: Window, size: int, count: int) -> AxisField:
    """Return the field of a window that slides along a dimension of this size, `count` times."""
    kernel, stride, padding, dilation = window
    starts = np.arange(count) * stride - padding
    return field.slide(d, starts, range(0, kernel * dilation, dilation), size).rescale(d, Fraction(stride))


def _slide_transposed(field: AxisField, d: int, window: Window, size: int, count: int) -> AxisField:
    """Return the field of a transposed convolution along a dimension.

    Tap t takes the input at i to the output at i S - P + t D.
    """
    kernel, stride, padding, dilation = window
    if field.first.shape[d] == 1 and (d != field.axis or size > 1):
        return field
    taps = []
    for tap in range(kernel):
        inputs, remainder = np.divmod(np.arange(count) + padding - tap * dilation, stride)
        part = field.select(d, inputs, size)
        reached = np.reshape(remainder == 0, [-1 if n == d else 1 for n in range(field.ndim)])
        first, last = np.where(reached, part.first, NO_BOUND), np.where(reached, part.last, -NO_BOUND)
        taps.append(replace(part, first=first, last=last))
    return unite(taps).rescale(d, Fraction(1, stride))


def _mix_channels(field: AxisField, groups: int, channels: int) -> AxisField:
    """Return the field after each output channel has combined the input channels of its group."""
    count = field.first.shape[1]
    if count == 1 or groups == 1:
        return field.reduce([1])
    shape = [field.first.shape[0], groups, count // groups, *field.first.shape[2:]]
    first = field.first.reshape(shape).min(2).repeat(channels // groups, 1)
    last = field.last.reshape(shape).max(2).repeat(channels // groups, 1)
    return replace(field, first=first, last=last).simplify()


def _pool(operation: Operation, field_of: FieldOf) -> AxisField:
    field, arguments = _field_of_input(operation, field_of), operation.arguments
    axes = 3 if "3d" in operation.name else 2
    kernel = per_axis(arguments["kernel_size"], axes)
    stride = per_axis(arguments["stride"] or kernel, axes)
    padding = per_axis(arguments["padding"], axes)
    dilation = per_axis(arguments.get("dilation", [1]), axes)
    for n, window in enumerate(zip(kernel, stride, padding, dilation, strict=True)):
        d = field.ndim - axes + n
        field = _slide(field, d, window, operation.input.shape[d], operation.result.shape[d])
    return field


def _pool_adaptively(operation: Operation, field_of: FieldOf) -> AxisField:
    field = _field_of_input(operation, field_of)
    axes = 3 if "3d" in operation.name else 2
    for d in range(field.ndim - axes, field.ndim):
        size, count = operation.input.shape[d], operation.result.shape[d]
        if count == 1:
            field = field.reduce([d])
            continue
        starts = np.arange(count) * size // count
        ends = -(-np.arange(1, count + 1) * size // count)
        taps = [field.select(d, np.minimum(starts + n, ends - 1), size) for n in range(max(ends - starts))]
        field = unite(taps).rescale(d, Fraction(size, count))
    return field


def _resize(operation: Operation, field_of: FieldOf) -> AxisField:
    field = _field_of_input(operation, field_of)
    for n, d in enumerate(range(2, field.ndim)):
        size, count = operation.input.shape[d], operation.result.shape[d]
        scales = [value for name, value in operation.arguments.items() if name.startswith("scale")]
        given = scales[n] if n < len(scales) and isinstance(scales[n], float) else None
        firsts, lasts = _resized_sources(operation, size, count, given)
        ends = [field.select(d, indices, size) for indices in (firsts, lasts)]
        field = unite(ends).rescale(d, Fraction(size, count))
    return field


def _resized_sources(
    operation: Operation, size: int, count: int, scale: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last index along an axis that each index of the resized axis depends on."""
    name, out = operation.name, np.arange(count)
    ratio = 1 / scale if scale else size / count
    if "nearest" in name:
        exact = 0.5 if "exact" in name else 0.0
        nearest = np.minimum(np.floor((out + exact) * ratio + 1e-9).astype(np.int64), size - 1)
        return nearest, nearest
    reach = 2 if "cubic" in name else 1
    if name.endswith("_aa"):
        centre, support = ratio * (out + 0.5), reach * max(1.0, ratio)
        first = np.maximum(np.floor(centre - support + 0.5), 0)
        return first.astype(np.int64), np.minimum(np.floor(centre + support + 0.5), size).astype(np.int64) - 1
    if operation.arguments.get("align_corners"):
        source = out * ((size - 1) / max(count - 1, 1))
    else:
        source = (out + 0.5) * ratio - 0.5
    first, last = np.floor(source + 1e-6).astype(np.int64), np.ceil(source - 1e-6).astype(np.int64)
    return first - (reach - 1) * (last > first), last + (reach - 1) * (last > first)


def _pad_constant(operation: Operation, field_of: FieldOf) -> AxisField:
    return _pad(operation, field_of, operation.arguments["pad"], None)


def _pad(
    operation: Operation,
    field_of: FieldOf,
    padding: Sequence[int],
    source: Callable[[np.ndarray, int], np.ndarray] | None,
) -> AxisField:
    """Return the field of a padded tensor; `source` gives the index from which a padded value is copied."""
    field = _field_of_input(operation, field_of)
    for n, (near, far) in enumerate(zip(padding[::2], padding[1::2], strict=True)):
        d = field.ndim - 1 - n
        size = operation.input.shape[d]
        indices = np.arange(-near, size + far)
        padded = field.select(d, indices, size)
        if source is not None and (near > 0 or far > 0):
            padded = unite([padded, field.select(d, source(indices, size), size)])
        field = padded
    return field


def _pad_by_reflection(operation: Operation, field_of: FieldOf) -> AxisField:
    def reflect(indices: np.ndarray, size: int) -> np.ndarray:
        mirrored: np.ndarray = size - 1 - np.abs(size - 1 - np.abs(indices))
        return mirrored

    return _pad(operation, field_of, operation.arguments["padding"], reflect)


def _pad_by_replication(operation: Operation, field_of: FieldOf) -> AxisField:
    def clip(indices: np.ndarray, size: int) -> np.ndarray:
        return indices.clip(0, size - 1)

    return _pad(operation, field_of, operation.arguments["padding"], clip)


def _unfold(operation: Operation, field_of: FieldOf) -> AxisField:
    field, arguments = _field_of_input(operation, field_of), operation.arguments
    d = arguments["dimension"] % field.ndim
    size, step = operation.input.shape[d], arguments["step"]
    starts = np.arange(operation.result.shape[d]) * step
    taps = [field.select(d, starts + n, size).rescale(d, Fraction(step)) for n in range(arguments["size"])]
    return _concatenate([(tap.insert(tap.ndim), 1) for tap in taps], field.ndim)


def _unfold_images(operation: Operation, field_of: FieldOf) -> AxisField:
    """The values of a window, in the channels of the output, count as depending on all of the window."""
    field, arguments = _field_of_input(operation, field_of), operation.arguments
    counts = []
    for n, (k, s, p, dilation) in enumerate(
        zip(
            *(per_axis(arguments[key], 2) for key in ("kernel_size", "stride", "padding", "dilation")),
            strict=True,
        )
    ):
        size = operation.input.shape[2 + n]
        counts.append((size + 2 * p - dilation * (k - 1) - 1) // s + 1)
        field = _slide(field, 2 + n, (k, s, p, dilation), size, counts[-1])
    field = field.reduce([1])
    return field.reshape([len(field.first), 1, *counts], [len(field.first), 1, math.prod(counts)])


def _fold_images(operation: Operation, field_of: FieldOf) -> AxisField:
    """The values of a window, in the channels of the input, count as depending on the same pixels."""
    field, arguments = _field_of_input(operation, field_of).reduce([1]), operation.arguments
    keys = ("kernel_size", "stride", "padding", "dilation")
    windows = list(zip(*(per_axis(arguments[key], 2) for key in keys), strict=True))
    sizes = per_axis(arguments["output_size"], 2)
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, (k, s, p, d) in zip(sizes, windows, strict=True)]
    field = field.reshape(
        [*field.first.shape[:2], operation.input.shape[2]], [*field.first.shape[:2], *counts]
    )
    for d, (window, size, count) in enumerate(zip(windows, counts, sizes, strict=True), 2):
        field = _slide_transposed(field, d, window, size, count)
    return field


CONSTANTS = set(
    """
    zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_full
    new_empty new_empty_strided fill zero normal uniform bernoulli exponential random _local_scalar_dense
    """.split()
)
_NAMES_BY_RULE: dict[Rule, str] = {
    _pointwise: "alias detach lift lift_fresh clone contiguous _to_copy dropout native_dropout hardswish "
    "hardsigmoid _prelu_kernel rrelu_with_noise log_sigmoid_forward threshold softplus masked_fill",
    _copy_into: "copy",
    _view: "view _unsafe_view reshape _reshape_alias flatten unflatten",
    _permute: "permute",
    _transpose: "transpose t numpy_T swapaxes",
    _expand: "expand",
    _unsqueeze: "unsqueeze",
    _squeeze: "squeeze",
    _slice: "slice",
    _select: "select",
    _split: "split split_with_sizes unsafe_split unsafe_split_with_sizes chunk",
    _unbind: "unbind",
    _cat: "cat",
    _stack: "stack",
    _index: "index index_select",
    _flip: "flip",
    _roll: "roll",
    _repeat: "repeat",
    _shuffle_pixels: "pixel_shuffle",
    _unshuffle_pixels: "pixel_unshuffle",
    _shuffle_channels: "channel_shuffle native_channel_shuffle",
    _reduce: "mean sum amax amin max min var std var_mean std_mean linalg_vector_norm norm logsumexp prod "
    "any all argmax argmin nansum median aminmax count_nonzero",
    _spread: "_softmax _safe_softmax _log_softmax sort topk",
    _gate: "glu",
    _layer_norm: "native_layer_norm",
    _group_norm: "native_group_norm",
    _batch_norm: "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "cudnn_batch_norm miopen_batch_norm",
    _matmul: "mm bmm addmm baddbmm mv dot addmv",
    _attention: "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_fused_attention_overrideable",
    _attend_to_all: "_native_multi_head_attention _transformer_encoder_layer_fwd",
    _convolve: "convolution",
    _pool: "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d",
    _pool_adaptively: "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d",
    _resize: "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
    _pad_constant: "constant_pad_nd",
    _pad_by_reflection: "reflection_pad1d reflection_pad2d reflection_pad3d",
    _pad_by_replication: "replication_pad1d replication_pad2d replication_pad3d",
    _unfold: "unfold",
    _unfold_images: "im2col",
    _fold_images: "col2im",
}
RULES = {name: rule for rule, names in _NAMES_BY_RULE.items() for name in names.split()}
