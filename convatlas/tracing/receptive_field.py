"""Receptive fields: which pixels of the input a value of a layer can depend on.

Dumoulin & Visin, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), chapter 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from convatlas.tracing.calls import Call


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that the value at index i of an axis reaches: `first + i step` to `last + i step`.

    One number an axis; pixels beyond the border are counted. `whole` is set where a value depends on
    all of the input, wherever it stands.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    step: tuple[int, ...]
    is_global: bool = False

    @classmethod
    def identity(cls, axes: int) -> "ReceptiveField":
        """Each value of the input depends on itself."""
        return cls((0,) * axes, (0,) * axes, (1,) * axes)

    @property
    def as_global(self) -> "ReceptiveField":
        return ReceptiveField(self.first, self.last, self.step, is_global=True)

    def size(self, shape: Sequence[int]) -> list[int]:
        """Its extent in pixels, for an input whose spatial axes have `shape`."""
        if self.is_global:
            return list(shape)
        return [last - first + 1 for first, last in zip(self.first, self.last, strict=True)]


def propagate_field(call: Call, input_fields: Sequence[ReceptiveField | None]) -> ReceptiveField | None:
    """Follow the receptive field through one call; `before` has the fields of its inputs.

    None where it is not known.
    """
    known = [field for field in input_fields if field is not None]
    if not known or len(known) < len(input_fields):
        return None
    if call.kind == "linear" or any(field.is_global for field in known):
        return known[0].as_global
    if call.kind == "merge":
        return _merge_fields(call, known)
    axes = len(known[0].step)
    same_plane = call.output.shape[-axes:] == call.input.shape[-axes:]
    if isinstance(call.module, nn.modules.batchnorm._BatchNorm):
        return known[0].as_global if call.module.running_mean is None else known[0]
    if isinstance(call.module, nn.Identity):
        return known[0]
    if call.kind in ("activation", "dropout"):
        if "softmax" in call.type.lower():
            return known[0].as_global
        return known[0] if same_plane else None  # a gated linear unit may halve an axis of the plane
    if call.output is call.input or (same_plane and call.type in ("batch_norm", "mean")):
        return known[0]
    if call.kind == "pool" and _is_global_pool(call):
        return known[0].as_global
    if call.kind == "reshape":
        return known[0] if _keeps_planes(call) else None
    return _propagate_through_window(call, known[0])


def _merge_fields(call: Call, fields: list[ReceptiveField]) -> ReceptiveField | None:
    """The fields of branches that meet: the least that holds them all."""
    axes = len(fields[0].step)
    planes = {tensor.shape[-axes:] for tensor in (*call.inputs, call.output)}
    if call.type in ("matmul", "bmm") or len({field.step for field in fields}) > 1 or len(planes) > 1:
        return None
    first = tuple(map(min, zip(*(field.first for field in fields), strict=True)))
    last = tuple(map(max, zip(*(field.last for field in fields), strict=True)))
    return ReceptiveField(first, last, fields[0].step)


def _keeps_planes(call: Call) -> bool:
    """Whether a reshaping layer leaves the values of a plane in their order, or makes them a vector."""
    reshapes = call.type.lower() in ("flatten", "view", "reshape")
    return reshapes and (call.output.ndim < 3 or call.output.shape[2:] == call.input.shape[2:])


def _is_global_pool(call: Call) -> bool:
    """Whether a pooling layer leaves one value a plane."""
    return call.type == "mean" or ("daptive" in call.type and max(call.output.shape[2:], default=1) == 1)


def _propagate_through_window(call: Call, before: ReceptiveField) -> ReceptiveField | None:
    """The field of a layer that slides a window: a convolution or pooling layer."""
    axes = len(before.step)
    window = _window_geometry(call, axes) if call.input.ndim == axes + 2 else None
    if window is None:
        return None
    kernel, stride, padding, dilation = window
    first, last, step = [], [], []
    for axis in range(axes):
        jump = before.step[axis]
        reach = dilation[axis] * (kernel[axis] - 1)
        first.append(before.first[axis] - padding[axis] * jump)
        last.append(before.last[axis] + (reach - padding[axis]) * jump)
        step.append(jump * stride[axis])
    return ReceptiveField(tuple(first), tuple(last), tuple(step))


def _window_geometry(call: Call, axes: int) -> list[tuple[int, ...]] | None:
    """Kernel, stride, padding and dilation of a layer, a number an axis; None where it has none."""
    module = call.module
    if "daptive" in call.type:  # even only where the output divides the input
        sizes = [
            divmod(i, o) for i, o in zip(call.input.shape[-axes:], call.output.shape[-axes:], strict=True)
        ]
        kernel = tuple(ratio for ratio, _ in sizes)
        return None if any(rest for _, rest in sizes) else [kernel, kernel, (0,) * axes, (1,) * axes]
    if (
        not hasattr(module, "stride")
        or getattr(module, "transposed", False)
        or _padding_exceeds_window(module, axes)
    ):
        return None
    padding = getattr(module, "padding", 0)
    if isinstance(padding, str):  # "same": the odd one of an even total goes to the far side
        padding = tuple(reach // 2 for reach in _window_extent(module, axes)) if padding == "same" else 0
    stride = module.stride or module.kernel_size  # of an LPPool2d without one
    given = [module.kernel_size, stride, padding, getattr(module, "dilation", 1)]
    return [_as_tuple(value, axes) for value in given]


def _padding_exceeds_window(module: nn.Module, axes: int) -> bool:
    """Whether a convolution's padding brings pixels to a border that its window there would not reach."""
    how = getattr(module, "padding_mode", "zeros")
    if how == "zeros" or not any(before := module._reversed_padding_repeated_twice):
        return False
    sides = zip(before[::2], before[1::2], reversed(_window_extent(module, axes)), strict=True)
    return how == "circular" or any(2 * max(side) > reach for *side, reach in sides)


def _window_extent(module: nn.Module, axes: int) -> list[int]:
    """How far it is from the first to the last value in a module's window, along each axis."""
    pairs = zip(_as_tuple(module.dilation, axes), _as_tuple(module.kernel_size, axes), strict=True)
    return [dilation * (kernel - 1) for dilation, kernel in pairs]


def _as_tuple(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)
