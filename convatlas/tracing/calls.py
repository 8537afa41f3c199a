"""Trace the layer calls of a forward pass: calls of modules, functions and operators alike.

A layer is a call of a leaf module, or a call of a function or operator by a composite module; `layer_names`
names it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convatlas import UserError
from convatlas.records import Kind
from convatlas.tracing.layer_kinds import FUNCTION_KINDS, module_kind
from convatlas.tracing.layer_names import function_name, next_call_name
from convatlas.tracing.replay import CallArguments, CallVerifier, collect_all_tensors, map_tensors

# Modules of torch.nn that are equivalent to a function, with the function's arguments after the input.
POOLING_MODULES = {
    "max_pool2d": (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    "avg_pool2d": (nn.AvgPool2d, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "adaptive_max_pool2d": (nn.AdaptiveMaxPool2d, ("output_size",)),
}


@dataclass(frozen=True)
class Call:
    """One call of one layer. Tensors are those of the forward pass, not copies.

    Attributes:
        layer: The name of the layer.
        path: Dotted path of the module that is called or, for a function, that calls it.
        type: Class of the module, or name of the function.
        kind: Kind of the layer.
        module: The module; for a function, an equivalent module where there is one.
        inputs: The tensors passed in that depend on the network's input, or all where none does.
        output: The first tensor of the output that is not an input, returned unchanged beside others.
    """

    layer: str
    path: str
    type: str
    kind: Kind
    module: nn.Module | None
    inputs: tuple[Tensor, ...]
    output: Tensor

    @property
    def input(self) -> Tensor:
        """The first input."""
        return self.inputs[0]


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module calls no other modules, apart from parametrizations of its weights.

    Args:
        module: The module. An nn.MultiheadAttention is a leaf, as is a convolution or pooling layer that
            holds only the padding that it applies to its input.
    """
    if isinstance(module, nn.MultiheadAttention):  # it reads the weights of its child without calling it
        return True
    children = [child for name, child in module.named_children() if name != "parametrizations"]
    return not children or (module_kind(module) in ("conv", "pool") and all(map(_only_pads, children)))


def _has_parameters(module: nn.Module) -> bool:
    """Return whether a module holds parameters, itself or in its children."""
    return next(module.parameters(), None) is not None


def _only_pads(module: nn.Module) -> bool:
    """Return whether a module pads its input, or returns it as it is."""
    is_padding = isinstance(module, nn.Identity) or "pad" in type(module).__name__.lower()
    return is_padding and not list(module.children()) and not _has_parameters(module)


def named_leaf_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the leaf modules of a network with their dotted paths, each module once.

    Args:
        network: Any network.
    """
    leaves = {path for path, module in _named_modules(network) if path and is_leaf(module)}
    # Of the modules in a leaf, those of nn.MultiheadAttention hold weights.
    return (
        (path, module)
        for path, module in _named_modules(network)
        if path in leaves and (path.rpartition(".")[0] not in leaves or _has_parameters(module))
    )


def composite_modules(network: nn.Module) -> list[str]:
    """Return the dotted paths of the modules of a network that are no leaves.

    Args:
        network: Any network.
    """
    return [path for path, module in network.named_modules() if path and not is_leaf(module)]


def _named_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module with its path, apart from those that only compute the weights of another."""
    return ((p, m) for p, m in network.named_modules() if "parametrizations" not in p.split("."))


def is_single_image(network: nn.Module, x: Tensor) -> bool:
    """Return whether `x` is one image (C, H, W), not a batch, by the axes of the network's convolutions.

    Args:
        network: Any network.
        x: Its input, with or without a batch axis.
    """
    convolutions = (m for m in network.modules() if isinstance(m, nn.modules.conv._ConvNd))
    spatial_axes = next((len(conv.kernel_size) for conv in convolutions), 2)
    return x.ndim == spatial_axes + 1


def drop_batch_axis(tensor: Tensor) -> Tensor:
    """Return what a layer computed for one image: the only element of a batch of one.

    Args:
        tensor: The output of a layer for one image. One without a batch axis, as where a network folds
            patches into it, is returned as it is, and so is a vector of one value, which is one unit.
    """
    return tensor[0] if tensor.ndim > 1 and tensor.shape[0] == 1 else tensor


@contextmanager
def raise_on_wrong_input(x: Tensor) -> Iterator[None]:
    """Turn an error of the forward pass in the block into a UserError that states the shape of the input.

    Args:
        x: The network's input, (N, C, H, W) for images.

    Raises:
        UserError: The block raised a RuntimeError, ValueError or IndexError.
        torch.OutOfMemoryError: The block raised it; it is passed on unchanged.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(
            f"the network does not take an input of shape {tuple(x.shape)} and type {x.dtype}: "
            f"{type(error).__name__}: {error}"
        ) from error


@contextmanager
def trace(
    network: nn.Module,
    callback: Callable[[Call], Tensor | None],
    blocks: Collection[str] = (),
    verify: bool = False,
) -> Iterator[Callable[[], None]]:
    """Pass every layer call of a network to a function while the block runs.

    A function whose arguments do not depend on the network's input is no layer, nor is a call whose output
    is a single number for the whole batch (0-d). The network runs in evaluation mode while the block runs,
    and is left as it was.

    Args:
        network: Any network. The block runs it, as often as it likes.
        callback: Called with each call when it has ended. A tensor that it returns replaces the output of the
            call in what follows, where the layer works in place also the input that it has changed.
        blocks: Paths of composite modules whose calls are passed on too.
        verify: Apply each call of a layer again, before it is passed on, and compare the outputs bit for bit.

    Yields:
        A function that restarts the numbering of calls, to be called before each further run.

    Raises:
        UserError: With `verify`, a layer gives another output when it is applied again to its input, or the
            network draws random numbers.
    """
    tracer = _CallTracer(callback, CallVerifier() if verify else None)
    handles = []
    for path, module in _named_modules(network):
        leaf = bool(path) and is_leaf(module)
        pre_hook = tracer.make_pre_hook(path, leaf)
        forward_hook = tracer.make_forward_hook(path, leaf, traced=leaf or path in blocks)
        handles.append(module.register_forward_pre_hook(pre_hook, with_kwargs=True))
        if tracer.verifier:  # around `forward` alone, without the module's other hooks
            verify_hook = tracer.make_verify_hook(path, leaf)
            handles.append(module.register_forward_hook(verify_hook, with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(forward_hook, with_kwargs=True))
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with tracer:
            yield tracer.reset
    finally:
        tracer.resume_tracing()
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()


class _CallTracer(TorchFunctionMode):
    """Follows which module is running, and which tensors depend on the network's input."""

    def __init__(
        self, callback: Callable[[Call], Tensor | None], verifier: CallVerifier | None = None
    ) -> None:
        super().__init__()
        self.callback, self.verifier = callback, verifier
        self.verified: list[CallArguments | None] = []  # arguments of the modules that are running
        self.reset()
        self.active_modules: list[str] = []  # paths of the composite modules that are running
        self.arguments: list[InputVersions] = []  # of the modules that are running, before they ran
        self.leaf_depth = 0
        # Torch chooses fused kernels inside a leaf only where no function mode is active.
        self.untraced = torch._C.DisableTorchFunction()

    def reset(self) -> None:
        """Restart the numbering of calls."""
        self.call_counts = Counter({"input": 1})  # "input" names the network's input in the records

    def make_pre_hook(self, path: str, leaf: bool) -> Callable[..., None]:
        """Return the hook that runs before a module."""

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.active_modules and not self.leaf_depth:
                _mark_input_dependent([args, kwargs])
            self.arguments.append(InputVersions([args, kwargs]))
            if self.verifier:
                self._capture(self.verifier, module if leaf else None, args, kwargs)
            if not leaf:
                self.active_modules.append(path)
                return
            if not self.leaf_depth:
                self.untraced.__enter__()
            self.leaf_depth += 1

        return enter

    def _capture(self, verifier: CallVerifier, leaf: nn.Module | None, args: Any, kwargs: Any) -> None:
        """Keep the arguments of a module that is about to run, where it is a layer."""
        with torch._C.DisableTorchFunction():
            verifier.check_random_state(self._describe_caller())
            is_layer = leaf is not None and not self.leaf_depth
            self.verified.append(verifier.capture(args, kwargs, leaf) if is_layer else None)

    def _describe_caller(self) -> str:
        """Return which module is running, as text."""
        path = self.active_modules[-1] if self.active_modules else ""
        return f"module {path!r}" if path else "the network"

    def make_verify_hook(self, path: str, leaf: bool) -> Callable[..., None]:
        """Return the hook that applies a layer again when it has run."""

        def verify(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            arguments, verifier = self.verified.pop(), self.verifier
            with torch._C.DisableTorchFunction():
                if verifier:
                    verifier.check_random_state(f"layer {path!r}" if leaf else self._describe_caller())
                if verifier and arguments:
                    name = next_call_name(path, self.call_counts.copy())
                    verifier.verify(name, module.forward, arguments, output)

        return verify

    def make_forward_hook(self, path: str, leaf: bool, traced: bool) -> Callable[..., None]:
        """Return the hook that runs after a module."""

        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            arguments = self.arguments.pop()
            dependent = _collect_input_dependent(arguments.tensors)
            outputs, inputs = arguments.select_new(output), dependent or arguments.tensors
            if dependent:
                _mark_input_dependent(output)
            if traced and _has_axes(outputs) and inputs and self.leaf_depth == int(leaf):
                name = next_call_name(path, self.call_counts)
                type_name, kind = type(module).__name__, module_kind(module)
                call = Call(name, path, type_name, kind, module, inputs, outputs[0])
                output = self._call_back(call, output, arguments)
            if not leaf:
                self.active_modules.pop()
            elif self.leaf_depth == 1:
                self.resume_tracing()
            else:
                self.leaf_depth -= 1
            return output

        return leave

    def _call_back(self, call: Call, output: Any, arguments: "InputVersions") -> Any:
        """Pass a call on, and return what its caller gets: the output, or one with another tensor in it."""
        with torch._C.DisableTorchFunction():  # what the callback computes is no layer
            replacement = self.callback(call)
            if replacement is None:
                return output
            _mark_input_dependent(replacement)
            return _replace_output(call, output, arguments, replacement)

    def resume_tracing(self) -> None:
        """Trace functions again after a leaf, or after an exception inside one."""
        if self.leaf_depth:
            self.leaf_depth = 0
            self.untraced.__exit__(None, None, None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if iterates(func, args):
            return iter(self.__torch_function__(Tensor.unbind, types, args))
        inputs, name = _collect_input_dependent([args, kwargs]), function_name(func)
        is_layer = name in FUNCTION_KINDS and bool(inputs and self.active_modules) and not self.leaf_depth
        arguments = self.verifier.capture(args, kwargs) if self.verifier and is_layer else None
        versions = InputVersions([args, kwargs]) if is_layer else None
        output = func(*args, **kwargs)
        if self.verifier:
            self.verifier.check_random_state(f"{name}, called by {self._describe_caller()},")
        if not inputs:
            return output
        outputs = collect_tensors(output)
        changed = collect_tensors(args[:1]) if name == "setitem" else outputs
        _mark_input_dependent(changed)
        if args and any(tensor is args[0] for tensor in changed):
            with torch._C.DisableTorchFunction():  # a write into a part of a tensor changes the tensor
                _mark_input_dependent(args[0]._base)
        if versions and _has_axes(outputs):
            path = self.active_modules[-1]
            layer = next_call_name(f"{path}/{name}" if path else name, self.call_counts)
            if self.verifier and arguments:
                self.verifier.verify(layer, func, arguments, output)
            module = _equivalent_module(name, args[1:], kwargs)
            call = Call(layer, path, name, FUNCTION_KINDS[name], module, inputs, outputs[0])
            return self._call_back(call, output, versions)
        return output


def _replace_output(call: Call, output: Any, arguments: "InputVersions", replacement: Tensor) -> Any:
    """Return the output of a call with another tensor in the place of `call.output`.

    Raises:
        UserError: The tensor is an attribute of an object in the output, or it is not known whether the call
            changed its input in place.
    """
    is_input = any(call.output is tensor for tensor in arguments.tensors)
    if is_input and call.output.is_inference():
        raise UserError(
            f"the output of the layer {call.layer!r} cannot be replaced: it is the layer's input, in "
            "torch.inference_mode(); take that out of the forward pass, or name another layer"
        )
    if is_input and not arguments.is_unchanged(call.output):  # in place: the network may read it again
        call.output.copy_(replacement)
        return output
    if not any(call.output is tensor for tensor in collect_all_tensors(output)):
        raise UserError(
            f"the output of the layer {call.layer!r} cannot be replaced: it is within an object "
            f"({type(output).__name__}); name the layer that computes it"
        )
    return map_tensors(output, lambda tensor: replacement if tensor is call.output else tensor)


def _equivalent_module(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module | None:
    """Return the pooling module that computes the same as a function call; None for other functions."""
    if name not in POOLING_MODULES:
        return None
    module_class, parameters = POOLING_MODULES[name]
    known = {key: value for key, value in kwargs.items() if key in parameters and value is not None}
    module: nn.Module = module_class(**dict(zip(parameters, args, strict=False)), **known)
    return module


def iterates(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Return whether a function iterates over the first axis of a tensor, as `for image in batch` does.

    What an iterator returns is hidden from function modes; `Tensor.unbind` returns the same tensors.

    Args:
        func: The function, as passed to a function mode.
        args: Its arguments.
    """
    return func is Tensor.__iter__ and args[0].ndim > 0


def collect_tensors(value: Any) -> tuple[Tensor, ...]:
    """Return every tensor in nested tuples, lists and dicts, in order, and those that objects in them hold.

    Args:
        value: The arguments or the output of a call. Of an object, such as a dataclass or a detector's list
            of images, the attributes are taken that are tensors.
    """
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return tuple(tensor for item in value for tensor in collect_tensors(item))
    if isinstance(value, nn.Module) or not hasattr(value, "__dict__"):
        return ()
    return tuple(item for item in vars(value).values() if isinstance(item, Tensor))


def depends_on_input(call: Call) -> bool:
    """Return whether the inputs of a call depend on the network's input.

    Args:
        call: The call of a layer.
    """
    return bool(_collect_input_dependent(call.inputs))


class InputVersions:
    """The tensors passed to a call, with their versions before it; a version grows with a change in place.

    Args:
        arguments: The arguments of the call, before it runs, as it may append to a list among them.
    """

    def __init__(self, arguments: Any) -> None:
        self.tensors = collect_tensors(arguments)
        self.versions = {id(tensor): get_version(tensor) for tensor in self.tensors}

    def is_unchanged(self, output: Any) -> bool:
        """Return whether an output of the call is one of its inputs, unchanged.

        Args:
            output: What the call returned, or a part of it.
        """
        return isinstance(output, Tensor) and self.versions.get(id(output)) == get_version(output)

    def select_new(self, outputs: Any) -> tuple[Tensor, ...]:
        """Return the tensors in the output of the call apart from unchanged inputs, or all if none is new.

        Args:
            outputs: What the call returned.
        """
        tensors = collect_tensors(outputs)
        return tuple(tensor for tensor in tensors if not self.is_unchanged(tensor)) or tensors


def get_version(tensor: Tensor) -> int:
    """Return a number that grows with each change of a tensor in place.

    Args:
        tensor: The tensor. For inference tensors, which count no changes, the number is always 0.
    """
    return 0 if tensor.is_inference() else tensor._version


def _has_axes(outputs: tuple[Tensor, ...]) -> bool:
    """Return whether the output of a call is more than a single number for the whole batch."""
    return bool(outputs) and outputs[0].ndim > 0


def _collect_input_dependent(value: Any) -> tuple[Tensor, ...]:
    """Return every tensor in a nested value that depends on the network's input."""
    return tuple(tensor for tensor in collect_tensors(value) if hasattr(tensor, "_depends_on_input"))


def _mark_input_dependent(value: Any) -> None:
    """Mark every tensor in a nested value as dependent on the network's input, apart from parameters."""
    for tensor in collect_tensors(value):
        if not isinstance(tensor, nn.Parameter):  # a network may return one besides its output
            tensor._depends_on_input = True  # type: ignore[attr-defined]
