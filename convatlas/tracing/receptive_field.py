"""Receptive fields: the pixels of the input that a value of a layer can depend on.

Dumoulin & Visin, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), chapter 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from convatlas.tracing.calls import Call
from convatlas.tracing.window_geometry import WindowGeometry, get_window_geometry


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that the value at index i of an axis depends on: `first + i step` to `last + i step`.

    Attributes:
        first: First pixel for index 0, one number per axis; negative beyond the border.
        last: Last pixel for index 0.
        step: Pixels between the fields of neighbouring values.
        is_global: Whether every value depends on all of the input.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    step: tuple[int, ...]
    is_global: bool = False

    @classmethod
    def identity(cls, axes: int) -> "ReceptiveField":
        """Return the field of the input itself, each of whose values depends on one pixel.

        Args:
            axes: The number of spatial axes.
        """
        return cls((0,) * axes, (0,) * axes, (1,) * axes)

    @property
    def as_global(self) -> "ReceptiveField":
        """The field of a layer each of whose values depends on all of the input."""
        return ReceptiveField(self.first, self.last, self.step, is_global=True)

    def size(self, shape: Sequence[int]) -> list[int]:
        """Return its extent in pixels, borders not counted.

        Args:
            shape: Size of the network's input along each spatial axis.
        """
        if self.is_global:
            return list(shape)
        return [last - first + 1 for first, last in zip(self.first, self.last, strict=True)]


def propagate_field(call: Call, input_fields: Sequence[ReceptiveField | None]) -> ReceptiveField | None:
    """Return the receptive field of the output of a call.

    Args:
        call: The call of a layer.
        input_fields: The field of each of its inputs, None where it is not known.

    Returns:
        The field, or None where it is not known.
    """
    fields = [field for field in input_fields if field is not None]
    if not fields or len(fields) < len(input_fields):
        return None
    if call.kind == "linear" or any(field.is_global for field in fields):
        return fields[0].as_global
    if call.kind == "merge":
        return _merge_fields(call, fields)
    axes = len(fields[0].step)
    same_plane = call.output.shape[-axes:] == call.input.shape[-axes:]
    if isinstance(call.module, nn.modules.batchnorm._BatchNorm):
        return fields[0].as_global if call.module.running_mean is None else fields[0]
    if isinstance(call.module, nn.Identity):
        return fields[0]
    if call.kind in ("activation", "dropout"):
        if "softmax" in call.type.lower():
            return fields[0].as_global
        return fields[0] if same_plane else None  # a gated linear unit may halve an axis of the plane
    if call.output is call.input or (same_plane and call.type in ("batch_norm", "mean")):
        return fields[0]
    if call.kind == "pool" and _is_global_pool(call):
        return fields[0].as_global
    if call.kind == "reshape":
        return fields[0] if _keeps_planes(call) else None
    return _propagate_through_window(call, fields[0])


def _merge_fields(call: Call, fields: list[ReceptiveField]) -> ReceptiveField | None:
    """Return the smallest field that contains the fields of all branches that meet."""
    axes = len(fields[0].step)
    planes = {tensor.shape[-axes:] for tensor in (*call.inputs, call.output)}
    if call.type in ("matmul", "bmm") or len({field.step for field in fields}) > 1 or len(planes) > 1:
        return None
    first = tuple(map(min, zip(*(field.first for field in fields), strict=True)))
    last = tuple(map(max, zip(*(field.last for field in fields), strict=True)))
    return ReceptiveField(first, last, fields[0].step)


def _keeps_planes(call: Call) -> bool:
    """Return whether a reshaping layer keeps the order of a plane's values, or flattens it to a vector."""
    reshapes = call.type.lower() in ("flatten", "view", "reshape")
    return reshapes and (call.output.ndim < 3 or call.output.shape[2:] == call.input.shape[2:])


def _is_global_pool(call: Call) -> bool:
    """Return whether a pooling layer reduces each plane to one value."""
    return call.type == "mean" or ("daptive" in call.type and max(call.output.shape[2:], default=1) == 1)


def _propagate_through_window(call: Call, field: ReceptiveField) -> ReceptiveField | None:
    """Return the field of a layer that slides a window: a convolution or pooling layer."""
    axes = len(field.step)
    window = _window_of_call(call, axes) if call.input.ndim == axes + 2 else None
    if window is None:
        return None
    first, last, step = [], [], []
    for axis, extent in enumerate(window.extent):
        jump = field.step[axis]
        first.append(field.first[axis] - window.padding[axis] * jump)
        last.append(field.last[axis] + (extent - window.padding[axis]) * jump)
        step.append(jump * window.stride[axis])
    return ReceptiveField(tuple(first), tuple(last), tuple(step))


def _window_of_call(call: Call, axes: int) -> WindowGeometry | None:
    """Return the window that a layer slides, None where it has none of a fixed size."""
    module = call.module
    if "daptive" in call.type:  # its windows are all equal only where the output's size divides the input's
        sizes = zip(call.input.shape[-axes:], call.output.shape[-axes:], strict=True)
        ratios = [divmod(inputs, outputs) for inputs, outputs in sizes]
        if any(remainder for _, remainder in ratios):
            return None
        kernel = tuple(ratio for ratio, _ in ratios)
        return WindowGeometry(kernel, kernel, (0,) * axes, (1,) * axes)
    # Other modules may have attributes of these names too, for what only their own forward() knows.
    if call.kind not in ("conv", "pool") or getattr(module, "transposed", False):
        return None
    if not _has_window(module, axes):
        return None
    window = get_window_geometry(module, axes)
    return None if _padding_exceeds_window(module, window) else window


def _has_window(module: Any, axes: int) -> bool:
    """Return whether a module has a kernel size and a stride, and all its sizes are numbers per axis."""
    if not hasattr(module, "kernel_size") or not hasattr(module, "stride"):
        return False
    sizes = [module.kernel_size, module.stride or module.kernel_size]
    sizes += [getattr(module, name, 0) for name in ("padding", "dilation")]
    return all(
        isinstance(size, int | str) or (isinstance(size, tuple | list) and len(size) == axes)
        for size in sizes
    )


def _padding_exceeds_window(module: Any, window: WindowGeometry) -> bool:
    """Return whether padding copies pixels to a border that the window there would not reach."""
    mode = getattr(module, "padding_mode", "zeros")
    if mode == "zeros" or not any(padding := module._reversed_padding_repeated_twice):
        return False
    sides = zip(padding[::2], padding[1::2], reversed(window.extent), strict=True)
    return mode == "circular" or any(2 * max(near, far) > extent for near, far, extent in sides)
