"""The rules of receptive fields for operations that move values: views, slices, joins and shuffles."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from convatlas.tracing.field_operation import (
    FieldOf,
    Operation,
    UnknownFieldError,
    broadcast,
    field_of_input,
    rules_by_name,
    take,
)
from convatlas.tracing.receptive_field import NO_BOUND, AxisField, unite


def _view(operation: Operation, field_of: FieldOf) -> AxisField:
    field = field_of_input(operation, field_of)
    return field.reshape(operation.input.shape, operation.result.shape)


def _permute(operation: Operation, field_of: FieldOf) -> AxisField:
    return field_of_input(operation, field_of).permute(operation.get_dims("dims"))


def _transpose(operation: Operation, field_of: FieldOf) -> AxisField:
    field = field_of_input(operation, field_of)
    dims = list(range(field.ndim))
    if "dim0" in operation.arguments:
        a, b = operation.get_dims("dim0") + operation.get_dims("dim1")
        dims[a], dims[b] = dims[b], dims[a]
    else:
        dims.reverse()
    return field.permute(dims)


def _expand(operation: Operation, field_of: FieldOf) -> AxisField:
    return broadcast(field_of_input(operation, field_of), operation.input.shape, operation.result.shape)


def _unsqueeze(operation: Operation, field_of: FieldOf) -> AxisField:
    return field_of_input(operation, field_of).insert(operation.arguments["dim"] % operation.result.ndim)


def _squeeze(operation: Operation, field_of: FieldOf) -> AxisField:
    field = field_of_input(operation, field_of)
    for d in sorted(operation.get_dims(), reverse=True):
        field = field.drop(d) if operation.input.shape[d] == 1 else field
    return field


def _slice(operation: Operation, field_of: FieldOf) -> AxisField:
    arguments = operation.arguments
    (d,) = operation.get_dims()
    size = operation.input.shape[d]
    part = range(size)[arguments.get("start") : arguments.get("end") : arguments.get("step", 1)]
    return take(field_of_input(operation, field_of), d, part, size)


def _select(operation: Operation, field_of: FieldOf) -> AxisField:
    (d,) = operation.get_dims()
    size = operation.input.shape[d]
    index = operation.arguments["index"] % size
    return take(field_of_input(operation, field_of), d, range(index, index + 1), size).drop(d)


def _split(operation: Operation, field_of: FieldOf) -> list[AxisField | None]:
    field, (d,) = field_of_input(operation, field_of), operation.get_dims()
    ends = np.cumsum([part.shape[d] for part in operation.output]).tolist()
    starts = [0, *ends[:-1]]
    return [take(field, d, range(a, b), int(ends[-1])) for a, b in zip(starts, ends, strict=True)]


def _unbind(operation: Operation, field_of: FieldOf) -> list[AxisField | None]:
    field, (d,) = field_of_input(operation, field_of), operation.get_dims()
    size = operation.input.shape[d]
    return [take(field, d, range(n, n + 1), size).drop(d) for n in range(size)]


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
    field = field_of_input(operation, field_of)
    for d in operation.get_dims("dims"):
        size = operation.input.shape[d]
        field = _rearrange(field, d, np.arange(size)[::-1], size)
    return field


def _roll(operation: Operation, field_of: FieldOf) -> AxisField:
    field, shifts = field_of_input(operation, field_of), operation.arguments["shifts"]
    if not operation.arguments.get("dims"):
        raise UnknownFieldError(operation.name)
    for d, shift in zip(operation.get_dims("dims"), shifts, strict=True):
        size = operation.input.shape[d]
        field = _rearrange(field, d, np.roll(np.arange(size), shift), size)
    return field


def _repeat(operation: Operation, field_of: FieldOf) -> AxisField:
    field = field_of_input(operation, field_of).lift(operation.result.ndim)
    sizes = (1,) * (field.ndim - operation.input.ndim) + operation.input.shape
    for d, count in enumerate(operation.arguments["repeats"]):
        if count > 1:
            field = _rearrange(field, d, np.tile(np.arange(sizes[d]), count), sizes[d])
    return field


def _shuffle_pixels(operation: Operation, field_of: FieldOf) -> AxisField:
    field, factor = field_of_input(operation, field_of), operation.arguments["upscale_factor"]
    *batch, channels, height, width = operation.input.shape
    n = len(batch)
    parts = [*batch, channels // factor**2, factor, factor, height, width]
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    shuffled = field.reshape(operation.input.shape, parts).permute(order)
    return shuffled.reshape([parts[d] for d in order], operation.result.shape)


def _unshuffle_pixels(operation: Operation, field_of: FieldOf) -> AxisField:
    field, factor = field_of_input(operation, field_of), operation.arguments["downscale_factor"]
    *batch, channels, height, width = operation.input.shape
    n = len(batch)
    parts = [*batch, channels, height // factor, factor, width // factor, factor]
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    shuffled = field.reshape(operation.input.shape, parts).permute(order)
    return shuffled.reshape([parts[d] for d in order], operation.result.shape)


def _shuffle_channels(operation: Operation, field_of: FieldOf) -> AxisField:
    field, groups, shape = (
        field_of_input(operation, field_of),
        operation.arguments["groups"],
        operation.input.shape,
    )
    parts = [shape[0], groups, shape[1] // groups, *shape[2:]]
    order = [0, 2, 1, *range(3, len(parts))]
    return field.reshape(shape, parts).permute(order).reshape([parts[d] for d in order], shape)


def _unfold(operation: Operation, field_of: FieldOf) -> AxisField:
    field, arguments = field_of_input(operation, field_of), operation.arguments
    d = arguments["dimension"] % field.ndim
    size, step = operation.input.shape[d], arguments["step"]
    starts = np.arange(operation.result.shape[d]) * step
    taps = [field.select(d, starts + n, size).rescale(d, Fraction(step)) for n in range(arguments["size"])]
    return _concatenate([(tap.insert(tap.ndim), 1) for tap in taps], field.ndim)


RULES = rules_by_name(
    {
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
        _unfold: "unfold",
    }
)
