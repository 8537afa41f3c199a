"""Receptive fields: the pixels of the input that a value of a layer can depend on.

Dumoulin & Visin, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), chapter 2. The
fields of a tensor are held per axis of the input as the first and the last pixel of each value, as arrays
that broadcast to the tensor: operations on the tensor are followed by the same operations on the arrays,
whatever becomes of its dimensions. Beyond the border of a map the pixels are extrapolated, as padding counts.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

NO_BOUND = 2**40  # beyond every pixel: the first of a constant, the last of a value that sees everything


@dataclass(frozen=True)
class AxisField:
    """The pixels along one axis of the input that each value of a tensor depends on.

    Attributes:
        first: First pixel, int64; it broadcasts to the tensor, and has as many dimensions. -NO_BOUND where a
            value depends on all of the axis, NO_BOUND where it depends on no pixel.
        last: Last pixel, the opposite.
        axis: The dimension of the tensor along which the fields move on, None where they do not or where
            they do so irregularly.
        step: Pixels that they move on per index along `axis`.
        coarsest: The largest step of the tensors that it was computed from.
        pixels: Size of the input along its axis.
        later_axes: The number of axes of the input after its own.
    """

    first: np.ndarray
    last: np.ndarray
    axis: int | None
    step: Fraction
    coarsest: Fraction
    pixels: int
    later_axes: int

    @classmethod
    def identity(cls, shape: Sequence[int], axis: int) -> "AxisField":
        """Return the field of the input itself, each of whose values depends on one pixel.

        Args:
            shape: Shape of the input.
            axis: The dimension that is the axis.
        """
        pixels = np.arange(shape[axis]).reshape([-1 if n == axis else 1 for n in range(len(shape))])
        return cls(pixels, pixels, axis, Fraction(1), Fraction(1), shape[axis], len(shape) - 1 - axis)

    @property
    def ndim(self) -> int:
        """The number of dimensions of the tensor."""
        return self.first.ndim

    @property
    def is_global(self) -> bool:
        """Whether every value depends on all of the axis."""
        return bool((self.first == -NO_BOUND).all() and (self.last == NO_BOUND).all())

    def apply(
        self, function: Callable[[np.ndarray], np.ndarray], axis: int | None, step: Fraction | None = None
    ) -> "AxisField":
        """Return the field with both arrays changed by a function.

        Args:
            function: From an array to an array; it moves values, without computing with them.
            axis: The new axis.
            step: The new step, if it changes.
        """
        return replace(
            self, first=function(self.first), last=function(self.last), axis=axis, step=step or self.step
        )

    def lift(self, ndim: int) -> "AxisField":
        """Return the field of the tensor with leading dimensions of size 1, as broadcasting adds them."""
        extra = ndim - self.ndim
        axis = None if self.axis is None else self.axis + extra
        return self.apply(lambda a: a.reshape((1,) * extra + a.shape), axis) if extra else self

    def settle(self) -> "AxisField":
        """Return the field of all of the axis if every value depends on it, up to what no stride reaches."""
        if self.axis is not None:
            return self
        covers = (self.first < self.step) & (self.last > self.pixels - 1 - self.step)
        if not np.all(covers):
            return self
        bound = np.full((1,) * self.ndim, NO_BOUND)
        return replace(self, first=-bound, last=bound)

    def simplify(self) -> "AxisField":
        """Drop dimensions in which nothing varies, and find the axis where the fields move on evenly."""
        dims = [d for d, size in enumerate(self.first.shape) if size > 1 and d != self.axis]
        field = self
        for d in dims:
            if all((a == a.take([0], d)).all() for a in (field.first, field.last)):
                field = field.apply(lambda a, d=d: a.take([0], d), field.axis)  # type: ignore[misc]
        varying = [d for d, size in enumerate(field.first.shape) if size > 1]
        if field.axis is None and len(varying) == 1:
            steps = np.concatenate([np.diff(field.first.ravel()), np.diff(field.last.ravel())])
            if 0 < steps[0] < field.pixels and (steps == steps[0]).all():
                field = replace(field, axis=varying[0], step=Fraction(int(steps[0])))
        return field

    def select(self, d: int, indices: np.ndarray, size: int) -> "AxisField":
        """Return the field of the tensor indexed along a dimension.

        Args:
            d: The dimension.
            indices: Indices along it; beyond the border the fields are extrapolated along the axis, and
                elsewhere such values depend on no pixel.
            size: The size of the tensor along the dimension.
        """
        if self.first.shape[d] == 1 and (d != self.axis or size > 1):
            return self
        if d != self.axis:
            inside = (indices >= 0) & (indices < size)
            shape = [-1 if n == d else 1 for n in range(self.ndim)]
            clipped = self.apply(lambda a: a.take(indices.clip(0, size - 1), d), self.axis)
            present = inside.reshape(shape)
            first = np.where(present, clipped.first, NO_BOUND)
            return replace(clipped, first=first, last=np.where(present, clipped.last, -NO_BOUND))
        period = (self.coarsest / self.step).numerator  # after which upsampled fields repeat
        period = period if period <= size else self.step.denominator
        periods = np.where(
            indices < 0, -(indices // period), np.minimum(0, -((indices - size) // period + 1))
        )
        nearest = (indices + periods * period).clip(0, size - 1)
        shift = (indices - nearest) * self.step.numerator // self.step.denominator
        shift = shift.reshape([-1 if n == d else 1 for n in range(self.ndim)])

        def extrapolate(a: np.ndarray) -> np.ndarray:
            taken: np.ndarray = a.take(nearest, d)
            taken += np.where(np.abs(taken) == NO_BOUND, 0, shift)
            return taken

        return self.apply(extrapolate, self.axis)

    def slide(self, d: int, starts: np.ndarray, taps: Iterable[int], size: int) -> "AxisField":
        """Return the field of windows along a dimension; the caller sets the step.

        Args:
            d: The dimension.
            starts: First index of each window.
            taps: Distances from it of the values in the window.
            size: The size of the tensor along the dimension.
        """
        return unite([self.select(d, starts + tap, size) for tap in taps])

    def rescale(self, d: int, factor: Fraction) -> "AxisField":
        """Return the field with a step larger by a factor if it moves along a dimension."""
        if d != self.axis:
            return self
        step = self.step * factor
        return replace(self, step=step, coarsest=max(self.coarsest, step))

    def drop(self, d: int) -> "AxisField":
        """Return the field without a dimension, along which one value is left."""
        axis = None if self.axis is None or self.axis == d else self.axis - (d < self.axis)
        field = self.apply(lambda a: a.take(0, d), axis)
        return field.settle() if self.axis == d else field

    def insert(self, d: int) -> "AxisField":
        """Return the field with a further dimension of size 1."""
        axis = self.axis if self.axis is None or self.axis < d else self.axis + 1
        return self.apply(lambda a: np.expand_dims(a, d), axis)

    def reduce(self, dims: Sequence[int], keepdim: bool = True) -> "AxisField":
        """Return the field of values that each depend on all values along some dimensions.

        Args:
            dims: The dimensions.
            keepdim: Whether they stay, with size 1.
        """
        first = self.first.min(axis=tuple(dims), keepdims=True)
        last = self.last.max(axis=tuple(dims), keepdims=True)
        axis = None if self.axis in dims else self.axis
        field = replace(self, first=first, last=last, axis=axis)
        if self.axis in dims or any(self.first.shape[d] > 1 for d in dims):
            field = field.settle()
        for d in sorted(dims, reverse=True) if not keepdim else ():
            field = field.drop(d)
        return field

    def permute(self, dims: Sequence[int]) -> "AxisField":
        """Return the field with its dimensions in another order."""
        axis = None if self.axis is None else list(dims).index(self.axis)
        return self.apply(lambda a: a.transpose(dims), axis)

    def reshape(self, shape: Sequence[int], new_shape: Sequence[int]) -> "AxisField":
        """Return the field of the tensor as a view of another shape.

        Args:
            shape: The shape of the tensor.
            new_shape: The shape of the view, with as many values.
        """
        axis, step = None, self.step
        sizes: list[int] = []  # of the arrays before
        new_sizes: list[int] = []  # and after
        for dims, new_dims in _match_dimensions(shape, new_shape):
            varies = self.axis in dims or any(self.first.shape[d] > 1 for d in dims)
            sizes += [shape[d] if varies else 1 for d in dims]
            new_sizes += [new_shape[d] if varies else 1 for d in new_dims]
            if self.axis in dims:
                axis, step = _move_axis(self, shape, dims, new_shape, new_dims)
        field = self.apply(lambda a: np.broadcast_to(a, sizes).reshape(new_sizes), axis, step)
        is_single = axis is None and self.axis is not None and shape[self.axis] == 1
        return field.settle() if is_single else field.simplify()

    def hull(self) -> tuple[int, int] | None:
        """Return the first and last pixel at index 0 of the smallest window that moves on with the fields.

        Every value's field lies in the window at its index. Where fields differ from index to index, as
        after upsampling, the window may be a little larger than each.

        Returns:
            None where the fields do not move on by whole pixels, or too irregularly: where the window would
            be more than twice as large as some value's field, or larger than all by two coarsest steps.
        """
        if self.axis is None or self.step.denominator != 1:
            return None
        others = tuple(d for d in range(self.ndim) if d != self.axis)
        first, last = self.first.min(axis=others), self.last.max(axis=others)
        present = (np.abs(first) < NO_BOUND) & (np.abs(last) < NO_BOUND)
        if not present.any() or (first == -NO_BOUND).any():
            return None
        moved = int(self.step) * np.arange(len(first))
        window = int((first - moved)[present].min()), int((last - moved)[present].max())
        extents = (last - first)[present] + 1
        size = window[1] - window[0] + 1
        return window if size <= 2 * extents.min() and size < extents.max() + 2 * self.coarsest else None

    @property
    def extent(self) -> int | None:
        """The number of pixels that each value depends on; None where it differs from value to value."""
        extents = self.last - self.first
        is_known = not np.ptp(extents) and np.abs(self.first).max() < NO_BOUND
        return int(extents.flat[0]) + 1 if is_known else None


Field = tuple[AxisField, ...]  # one per axis of the input


def identity_field(shape: Sequence[int]) -> Field:
    """Return the field of an input of a shape (N, C, H, W) itself."""
    return tuple(AxisField.identity(shape, axis) for axis in range(2, len(shape)))


def unite(fields: Sequence[AxisField]) -> AxisField:
    """Return the smallest field that contains all of those that meet in one value.

    Args:
        fields: One or more fields of tensors that broadcast to one shape.
    """
    ndim = max(field.ndim for field in fields)
    lifted = [field.lift(ndim) for field in fields]
    if len(lifted) == 1:
        return lifted[0]
    first, last = lifted[0].first, lifted[0].last
    for field in lifted[1:]:
        first, last = np.minimum(first, field.first), np.maximum(last, field.last)
    moving = [field for field in lifted if field.axis is not None]
    axes = {field.axis for field in moving}
    axis = moving[0].axis if len(axes) == 1 else None
    # Steps differ where maps of odd sizes were resized; a whole number is that of the map which was not.
    step = min((field.step for field in moving), key=lambda step: step.denominator, default=lifted[0].step)
    coarsest = max(field.coarsest for field in lifted)
    return replace(lifted[0], first=first, last=last, axis=axis, step=step, coarsest=coarsest)


class FieldDescription(NamedTuple):
    """The receptive field of a layer as in layers.json, one number per axis; None where it is not known.

    Attributes:
        size: Pixels that a value can depend on, borders not counted.
        start: First pixel of the field of the first value.
        step: Pixels between the fields of neighbouring values.
    """

    size: list[int] | None = None
    start: list[int] | None = None
    step: list[int] | None = None


def describe_field(field: Field | None, ndim: int) -> FieldDescription:
    """Describe the receptive field of a layer.

    Args:
        field: The field of its output, None where it is not known.
        ndim: The number of dimensions of the output.

    Returns:
        The description. Start and step are None where a value depends on all of an axis, or where rows and
        columns are not the last dimensions of the output; of a flattened map, they are those of the map.
    """
    if not field:
        return FieldDescription()
    windows = [along.hull() for along in field]
    sizes, starts, steps = [], [], []
    for n, (along, window) in enumerate(zip(field, windows, strict=True)):
        size = (
            along.pixels if along.is_global else along.extent if window is None else window[1] - window[0] + 1
        )
        if size is None:
            return FieldDescription()
        sizes.append(size)
        if window is not None and along.axis == ndim - len(field) + n:
            starts.append(window[0])
            steps.append(int(along.step))
        elif ndim == 2 and along.axis is None and not along.is_global and along.step.denominator == 1:
            starts.append(int(along.first.min()))
            steps.append(int(along.step))
    return FieldDescription(sizes, starts, steps) if len(starts) == len(sizes) else FieldDescription(sizes)


def _match_dimensions(
    shape: Sequence[int], new_shape: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the smallest groups of dimensions of two shapes that hold the same values, in order.

    A dimension of size 1 in one shape alone belongs to the group before it.
    """
    old, new = 0, 0
    while old < len(shape) or new < len(new_shape):
        start, new_start = old, new
        old, new = min(old + 1, len(shape)), min(new + 1, len(new_shape))
        while (size := math.prod(shape[start:old])) != (other := math.prod(new_shape[new_start:new])):
            old, new = (old + 1, new) if size < other else (old, new + 1)
        ones, new_ones = _count_ones(shape[old:]), _count_ones(new_shape[new:])
        old, new = old + max(0, ones - new_ones), new + max(0, new_ones - ones)
        yield list(range(start, old)), list(range(new_start, new))


def _count_ones(sizes: Sequence[int]) -> int:
    """Return how many dimensions of size 1 come first."""
    return next((n for n, size in enumerate(sizes) if size != 1), len(sizes))


def _move_axis(
    field: AxisField, shape: Sequence[int], dims: list[int], new_shape: Sequence[int], new_dims: list[int]
) -> tuple[int | None, Fraction]:
    """Return the axis and the step after the group of dimensions with the axis has become another group."""
    assert field.axis is not None
    if any(
        shape[d] > 1 for d in dims if d < field.axis
    ):  # the fields start again in every row of those before
        return None, field.step
    varying = [d for d in new_dims if new_shape[d] > 1]
    if not varying:  # a single value: the axes of the input are the last dimensions
        return (new_dims[max(-1 - field.later_axes, -len(new_dims))] if new_dims else None), field.step
    inner = math.prod(shape[d] for d in dims if d > field.axis)
    return varying[0], field.step * math.prod(new_shape[d] for d in varying[1:]) / inner
