"""The rules of receptive fields for operations that slide windows, resize or pad.

Dumoulin & Visin, A guide to convolution arithmetic for deep learning (arXiv 1603.07285).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from convatlas.tracing.field_operation import FieldOf, Operation, field_of_input, per_axis, rules_by_name
from convatlas.tracing.receptive_field import NO_BOUND, AxisField, unite


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
    field, arguments = field_of_input(operation, field_of), operation.arguments
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
    field = field_of_input(operation, field_of)
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
    field = field_of_input(operation, field_of)
    for n, d in enumerate(range(2, field.ndim)):
        size, count = operation.input.shape[d], operation.result.shape[d]
        scales = [value for name, value in operation.arguments.items() if name.startswith("scale")]
        scale = scales[n] if n < len(scales) and isinstance(scales[n], float) else None
        firsts, lasts = _resized_sources(operation, size, count, scale)
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
    field = field_of_input(operation, field_of)
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


def _unfold_images(operation: Operation, field_of: FieldOf) -> AxisField:
    """The values of a window, in the channels of the output, count as depending on all of the window."""
    field, arguments = field_of_input(operation, field_of), operation.arguments
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
    field, arguments = field_of_input(operation, field_of).reduce([1]), operation.arguments
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


RULES = rules_by_name(
    {
        _convolve: "convolution",
        _pool: "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d",
        _pool_adaptively: "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d",
        _resize: "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d "
        "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
        _pad_constant: "constant_pad_nd",
        _pad_by_reflection: "reflection_pad1d reflection_pad2d reflection_pad3d",
        _pad_by_replication: "replication_pad1d replication_pad2d replication_pad3d",
        _unfold_images: "im2col",
        _fold_images: "col2im",
    }
)
