"""Verify what a network computes: each call of a layer, applied again to its inputs, gives its output."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from convatlas import UserError

log = logging.getLogger(__name__)

# By how much two outputs of one call may differ on a GPU, where some sums have no fixed order.
GPU_TOLERANCE = 1e-3
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes per number
SWITCH_OFF = "set `record: {verify: false}` in the config, or verify=False in convatlas.record"


@dataclass(frozen=True)
class CallArguments:
    """The arguments of a call as they were before it.

    Attributes:
        originals: Its positional and keyword arguments, in containers of their own.
        copies: The same with copies of the tensors, where the call may change them in place.
        versions: The tensors with their versions, which grow with each change in place.
    """

    originals: tuple[Any, Any]
    copies: tuple[Any, Any] | None
    versions: list[tuple[Tensor, int]]

    def restore(self) -> tuple[Any, Any]:
        """Return the arguments with the values that they had before the call."""
        is_unchanged = all(
            not tensor.is_inference() and tensor._version == version for tensor, version in self.versions
        )
        return self.originals if is_unchanged or self.copies is None else self.copies


class CallVerifier:
    """Applies each call of a layer again, compares the outputs bit for bit, and finds random draws."""

    def __init__(self) -> None:
        self.random_state = _get_random_state()

    def capture(self, args: Any, kwargs: Any, module: nn.Module | None = None) -> CallArguments:
        """Return the arguments of a call that is about to run, with copies where it may change them.

        Args:
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            module: The module that is called; None for a function.
        """
        versions: dict[int, tuple[Tensor, int]] = {}

        def collect(tensor: Tensor) -> Tensor:
            versions[id(tensor)] = (tensor, 0 if tensor.is_inference() else tensor._version)
            return tensor

        originals = map_tensors((args, kwargs), collect)
        copies = None
        if module is None or _may_write_to_inputs(module):
            with _disable_current_modes():  # `track_windows` follows the call, not the check
                copied = {key: _copy_with_layout(tensor) for key, (tensor, _) in versions.items()}
            copies = map_tensors(originals, lambda tensor: copied[id(tensor)])
        return CallArguments(originals, copies, list(versions.values()))

    def check_random_state(self, place: str) -> None:
        """Raise UserError where torch drew random numbers since the last check.

        Args:
            place: What ran since then, for the error.
        """
        if _get_random_state() == self.random_state:
            return
        raise UserError(
            f"{place} draws random numbers in evaluation mode, so that no two runs compute the same, and a "
            "record is one draw of many. Draw them only where self.training is true (F.dropout needs "
            f"training=self.training); or, to record one draw all the same, {SWITCH_OFF}"
        )

    def verify(self, layer: str, function: Callable[..., Any], arguments: CallArguments, output: Any) -> None:
        """Apply a call again to the arguments that it had, and compare the outputs.

        Args:
            layer: Name of the layer, for the error.
            function: What was called: a function, or the `forward` of a module.
            arguments: Its arguments, as `capture` returned them before the call.
            output: What it returned.

        Raises:
            UserError: It returns something else, or fails.
        """
        with _disable_current_modes():
            self._repeat(layer, function, arguments, output)

    def _repeat(
        self, layer: str, function: Callable[..., Any], arguments: CallArguments, output: Any
    ) -> None:
        """Apply a call again, as `verify` does."""
        args, kwargs = arguments.restore()
        try:
            repeated = function(*args, **kwargs)
        except Exception as error:
            raise UserError(
                f"layer {layer!r} cannot be applied again to its recorded input ({type(error).__name__}: "
                f"{error}). {_explain_state()}"
            ) from error
        tensors, repeated_tensors = collect_all_tensors(output), collect_all_tensors(repeated)
        if len(tensors) != len(repeated_tensors):
            raise UserError(
                f"layer {layer!r} returned {len(tensors)} tensors, and {len(repeated_tensors)} when it was "
                f"applied again to its recorded input. {_explain_state()}"
            )
        for tensor, other in zip(tensors, repeated_tensors, strict=True):
            occasion = "when it is applied again to its recorded input"
            compare_outputs(layer, tensor, other, occasion, tensor.is_cuda)


def compare_outputs(layer: str, output: Tensor, repeated: Tensor, occasion: str, is_gpu: bool) -> None:
    """Raise UserError where two outputs of a layer for one input are not the same, bit for bit.

    Args:
        layer: Name of the layer.
        output: Its output.
        repeated: Its output the second time.
        occasion: When that was, for the error.
        is_gpu: Whether a GPU computed them, where the order of some sums is not fixed: differences of
            rounding are only logged.

    Raises:
        UserError: They differ.
    """
    if is_bit_equal(output, repeated):
        return
    if output.shape != repeated.shape:
        difference = f"the shape {tuple(repeated.shape)} instead of {tuple(output.shape)}"
    else:
        deviation, largest = _measure_difference(output, repeated)
        if is_gpu and deviation <= GPU_TOLERANCE * largest:
            log.warning(
                "layer %r is not reproduced bit for bit on the GPU: values differ by up to %.3g",
                layer,
                deviation,
            )
            return
        difference = f"values that differ by up to {deviation:.3g}, the largest being {largest:.3g}"
    raise UserError(f"layer {layer!r} gives another output {occasion}: {difference}. {_explain_state()}")


def _explain_state() -> str:
    """Return the likely reason for an output that cannot be reproduced, and the cure."""
    return (
        "Probably it keeps something from call to call (a counter, a cache, running statistics), changes its "
        "own weights, or draws random numbers with NumPy or Python; make it a function of its input alone in "
        f"evaluation mode, or, to record it all the same, {SWITCH_OFF}"
    )


def is_bit_equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have the same shape, type and bits; NaN equals NaN.

    Args:
        a: A tensor.
        b: Another one.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    if a.layout != torch.strided or a.is_quantized:
        return bool(torch.equal(a, b))
    integer = INTEGERS[a.element_size()]
    a, b = a.detach().view(integer), b.detach().view(integer)
    # NumPy compares five times as fast as torch.equal does.
    return bool(torch.equal(a, b)) if a.is_cuda else np.array_equal(a.numpy(), b.numpy())


def _measure_difference(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return the largest difference of two tensors of one shape, and the largest absolute value."""
    a, b = (tensor.abs() if tensor.is_complex() else tensor.double() for tensor in (a, b))
    return float((a - b).abs().max()), float(torch.maximum(a.abs(), b.abs()).max())


def collect_all_tensors(value: Any) -> list[Tensor]:
    """Return every tensor in nested tuples, lists and dicts, in order.

    Args:
        value: The output of a call. Objects of other types are skipped.
    """
    tensors: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(value, collect)
    return tensors


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of nested tuples, lists and dicts in which a function replaces each tensor.

    Args:
        value: The arguments or the output of a call. Objects of other types stay as they are.
        function: Called with each tensor, in order.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        mapping = copy.copy(value)
        for key, item in value.items():
            mapping[key] = map_tensors(item, function)
        return mapping
    if isinstance(value, list):
        return [map_tensors(item, function) for item in value]
    if isinstance(value, tuple):
        items = [map_tensors(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def _may_write_to_inputs(module: nn.Module) -> bool:
    """Return whether a module may change its inputs in place: torch's own only where they say so."""
    return bool(getattr(module, "inplace", False)) or not type(module).__module__.startswith("torch.nn.")


def _copy_with_layout(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor with the same strides, on which an operation takes the same way.

    A parameter is returned itself: no layer writes to it.
    """
    if isinstance(tensor, nn.Parameter):
        return tensor
    if tensor.layout != torch.strided or not tensor.numel():
        return tensor.clone()
    span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    storage = tensor.detach().as_strided((span,), (1,), tensor.storage_offset()).clone()
    return storage.as_strided(tensor.shape, tensor.stride(), 0)


def _get_random_state() -> list[bytes]:
    """Return the states of torch's random generators, on the CPU and on GPUs in use."""
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators += torch.cuda.default_generators
    return [generator.get_state().numpy().tobytes() for generator in generators]
