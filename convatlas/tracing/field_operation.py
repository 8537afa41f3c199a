"""What PyTorch's dispatcher runs, and what the rules of `field_rules` share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from convatlas.tracing.receptive_field import AxisField

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


def field_of_input(operation: Operation, field_of: FieldOf) -> AxisField:
    """Return the field of an operation's first tensor, which alone may depend on the image.

    Args:
        operation: The operation.
        field_of: The field of each of its tensors.

    Raises:
        UnknownFieldError: Another tensor depends on the image too.
    """
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


def take(field: AxisField, d: int, part: range, size: int) -> AxisField:
    """Return the field of evenly spaced slices of a tensor.

    Args:
        field: The field of the tensor.
        d: The dimension.
        part: The indices along it.
        size: The size of the tensor along it.
    """
    return field.select(d, np.array(part, np.int64), size).rescale(d, Fraction(part.step))


def per_axis(values: Sequence[int], axes: int) -> list[int]:
    """Return a value per axis.

    Args:
        values: One per axis, or one for all.
        axes: The number of axes.
    """
    return list(values) * (axes if len(values) == 1 else 1)


def rules_by_name(names: dict[Rule, str]) -> dict[str, Rule]:
    """Return the rule of each operation.

    Args:
        names: The names of the operations of each rule, with spaces between.
    """
    return {name: rule for rule, listed in names.items() for name in listed.split()}
