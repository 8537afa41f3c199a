"""Follow what PyTorch computes, operation by operation: the receptive field of every tensor, and products."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convatlas.tracing.dispatch_mode import DispatchMode
from convatlas.tracing.field_operation import Operation, UnknownFieldError
from convatlas.tracing.field_rules import propagate
from convatlas.tracing.receptive_field import NO_BOUND, AxisField, Field, identity_field

POOLING_OPERATIONS = {"max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d"}
PRODUCTS = POOLING_OPERATIONS | {"convolution", "addmm", "mm"}


class OperationTracker(DispatchMode):
    """Follows the receptive field of every tensor while it is active, inside layers and functions too.

    Args:
        x: The input, (N, C, H, W).

    Attributes:
        products: The convolutions, matrix products and pooling operations that have run on what depends on
            the input.
        parameters: The parameters that have met what depends on the input.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fields: dict[int, Field | None] = {id(x): identity_field(x.shape)}
        self.products: list[Operation] = []
        self.parameters: set[torch.nn.Parameter] = set()
        self.computed_from: dict[int, set[torch.nn.Parameter]] = {}  # of tensors independent of the input
        self.keep_alive: list[Any] = [x]  # so that no identity is used twice
        self.aliases: dict[int, list[Tensor]] = {}  # the tensors of each storage
        self._register(x)

    def field_of(self, tensor: Tensor) -> Field | None:
        """Return the receptive field of a tensor; None where it is not known or does not depend on the input.

        Args:
            tensor: A tensor that was computed while the tracker was active.
        """
        return self.fields.get(id(tensor))

    def depends_on_input(self, tensor: Tensor | None) -> bool:
        """Return whether a tensor was computed from the input."""
        return id(tensor) in self.fields

    def take_products(self) -> list[Operation]:
        """Return the products that have run since the last call of this method."""
        products, self.products = self.products, []
        return products

    def take_parameters(self) -> set[torch.nn.Parameter]:
        """Return the parameters that have met what depends on the input since the last call."""
        parameters, self.parameters = self.parameters, set()
        return parameters

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func._can_decompose():  # as autograd does everywhere else
            with self:
                return func.decompose(*args, **kwargs)
        output = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            self._follow(Operation.from_call(func, args, kwargs, output), func)
        return output

    def _follow(self, operation: Operation, func: Any) -> None:
        """Record the fields of what an operation returned or wrote."""
        outputs = operation.output if isinstance(operation.output, tuple | list) else [operation.output]
        outputs = [tensor for tensor in outputs if isinstance(tensor, Tensor)]
        if not outputs:
            return
        parameters = {p for t in operation.tensors for p in self._sources(t)}
        if any(map(self.depends_on_input, operation.tensors)):
            self.parameters |= parameters
            if operation.name in PRODUCTS:
                self.products.append(operation)
        elif parameters:
            self.computed_from |= {id(tensor): parameters for tensor in outputs}
        writes = func._schema.is_mutable and any(outputs[0] is tensor for tensor in operation.tensors)
        fields = self._propagate(operation, outputs)
        for tensor, field in zip(outputs, fields, strict=True):
            self._set(tensor, field)
            if writes:
                self._write_through(tensor)
            else:
                self._register(tensor)

    def _sources(self, tensor: Tensor) -> set[torch.nn.Parameter]:
        """Return the parameters from which a tensor that does not depend on the input was computed."""
        return (
            {tensor} if isinstance(tensor, torch.nn.Parameter) else self.computed_from.get(id(tensor), set())
        )

    def _propagate(self, operation: Operation, outputs: Sequence[Tensor]) -> list[Any]:
        """Return the field of each output: CONSTANT where the input does not matter, None where unknown."""
        read = [tensor for tensor in operation.tensors if id(tensor) in self.fields]
        if not read:
            return [CONSTANT] * len(outputs)
        if any(self.fields[id(tensor)] is None for tensor in read):
            return [None] * len(outputs)
        along: list[list[AxisField | None]] = []
        try:
            for axis in range(len(self.fields[id(read[0])] or ())):
                result = propagate(operation, partial(self._along, axis=axis))
                along.append(result if isinstance(result, list) else [result] * len(outputs))
            return [_collect(parts, tensor) for *parts, tensor in zip(*along, outputs, strict=True)]
        except (
            UnknownFieldError,
            LookupError,
            TypeError,
            ValueError,
        ):  # arguments that the rules do not know
            return [None] * len(outputs)

    def _along(self, tensor: Tensor, axis: int) -> AxisField | None:
        """Return the field of a tensor along an axis of the input; None for a constant."""
        field = self.fields.get(id(tensor))
        return None if field is None else field[axis]

    def _set(self, tensor: Tensor, field: Any) -> None:
        if field is CONSTANT:
            self.fields.pop(id(tensor), None)
        else:
            self.fields[id(tensor)] = field

    def _register(self, tensor: Tensor) -> None:
        """Remember a tensor among those of its storage."""
        self.keep_alive.append(tensor)
        if tensor.layout == torch.strided:
            self.aliases.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)

    def _write_through(self, written: Tensor) -> None:
        """Set the fields of the other tensors in the storage of a tensor that was written."""
        if written.layout != torch.strided:
            return
        for tensor in self.aliases.get(written.untyped_storage()._cdata, []):
            if tensor is written:
                continue
            if _geometry(tensor) == _geometry(written):
                self._set(tensor, self.fields.get(id(written), CONSTANT))
            else:
                self._set(tensor, self._overlay(tensor, written))

    def _overlay(self, tensor: Tensor, written: Tensor) -> Any:
        """Return the field of a tensor after a write into another one of its storage."""
        fields = [self.fields.get(id(t), CONSTANT) for t in (tensor, written)]
        if fields[0] is CONSTANT is fields[1]:
            return CONSTANT
        if None in fields:
            return None
        axes = next(len(field) for field in fields if field is not CONSTANT)
        under, over = ([None] * axes if field is CONSTANT else field for field in fields)
        return tuple(_overlay_along(under[n], over[n], tensor, written) for n in range(axes))


CONSTANT: Any = object()  # the field of a tensor that does not depend on the input


def _collect(parts: Sequence[AxisField | None], tensor: Tensor) -> Any:
    """Return the field of a tensor from those along each axis; None where they do not fit its shape."""
    if any(part is None for part in parts):
        return CONSTANT
    field = tuple(part for part in parts if part is not None)
    for part in field:
        sizes = zip(part.first.shape, tensor.shape, strict=False)
        if part.ndim != tensor.ndim or any(size not in (1, length) for size, length in sizes):
            return None
    return field


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    """Return which values of its storage a tensor holds, and how."""
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _overlay_along(
    field: AxisField | None, written_field: AxisField | None, tensor: Tensor, written: Tensor
) -> AxisField:
    """Return the field of a tensor, along an axis, after a write into another tensor of its storage."""
    known = field or written_field
    assert known is not None
    bounds = []
    for name, nothing in (("first", NO_BOUND), ("last", -NO_BOUND)):
        storage = np.full(tensor.untyped_storage().nbytes() // tensor.itemsize, nothing)
        place, written_place = _place(storage, tensor), _place(storage, written)
        place[...] = nothing if field is None else getattr(field, name)
        written_place[...] = nothing if written_field is None else getattr(written_field, name)
        bounds.append(place.copy())
    axis = None
    if field is not None:
        axis = field.axis
    elif written_field is not None and written_field.axis is not None:
        along = written.stride(written_field.axis)
        axis = next((d for d, stride in enumerate(tensor.stride()) if stride == along), None)
    return replace(known, first=bounds[0], last=bounds[1], axis=axis).simplify()


def _place(storage: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return the part of an array of the size of a tensor's storage that the tensor holds."""
    strides = [stride * storage.itemsize for stride in tensor.stride()]
    return np.lib.stride_tricks.as_strided(storage[tensor.storage_offset() :], tensor.shape, strides)
