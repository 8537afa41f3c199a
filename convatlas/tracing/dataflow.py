"""Where tensors come from: which layers' outputs each one was computed from, by its identity."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convatlas.tracing.calls import collect_tensors, named_leaf_modules

INPUT = "input"  # the name of the network's own input


class DataflowTracker:
    """The layers that tensors were computed from, told of the layers' calls as they happen.

    Functions that are no layers (indexing, `chunk`, `expand`, ...) hand on what they were given. A layer
    that gives back its own input, as dropout does in evaluation, has its output replaced by an alias, so
    that a shortcut around it is told from the way through it.
    """

    def __init__(self, x: Tensor) -> None:
        self.sources: dict[int, tuple[str, ...]] = {id(x): (INPUT,)}
        self.keep_alive: list[Tensor] = [x]  # so that no identity is given out twice
        self.last_outputs: tuple[Tensor, ...] = ()  # all that the last call gave
        self.passthrough_input: Tensor | None = None  # the input that the last call gave back, where it did
        self.block_inputs: dict[str, tuple[str, ...]] = {}  # what composite modules were given, as they began

    def source_layers(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        """The layers that these tensors come from, each once, in order."""
        return tuple(dict.fromkeys(name for tensor in tensors for name in self.sources.get(id(tensor), ())))

    def assign_layer(self, layer: str, output: Tensor) -> None:
        """Note that the call that has just ended was `layer`'s, and gave `output` and what else it gave."""
        self.set_sources(
            self.last_outputs if any(made is output for made in self.last_outputs) else (output,), (layer,)
        )

    def resolve_alias(self, output: Tensor) -> Tensor:
        """The input that the last call gave back, where `output` is its alias; else `output`."""
        return (
            output
            if self.passthrough_input is None or all(t is not output for t in self.last_outputs)
            else self.passthrough_input
        )

    def set_sources(self, tensors: Iterable[Tensor], names: tuple[str, ...]) -> None:
        for tensor in tensors:
            self.sources[id(tensor)] = names
            self.keep_alive.append(tensor)

    def alias_passthrough(self, output: Any, given: tuple[Tensor, ...], versions: list[int]) -> Any:
        """`output`, or an alias of it where it is one of `given`, not changed in place."""
        before = {id(tensor): version for tensor, version in zip(given, versions, strict=True)}
        self.passthrough_input = None
        if isinstance(output, Tensor) and before.get(id(output)) == _tensor_version(output):
            self.passthrough_input, output = output, output.view_as(output)
        self.last_outputs = collect_tensors(output)
        return output

    @contextmanager
    def track(self, network: nn.Module, blocks: Collection[str]) -> Iterator[None]:
        """Follow tensors through the calls of `network`; to be entered before `calls.watch` is."""
        handles = []
        for _, module in named_leaf_modules(network):
            handles += self._hook_leaf(module)
        for path in blocks:
            enter = self._make_block_pre_hook(path)
            handles.append(network.get_submodule(path).register_forward_pre_hook(enter, with_kwargs=True))
        try:
            with _FunctionTracker(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook_leaf(self, module: nn.Module) -> list[Any]:
        """Hook a module that holds no others."""
        versions: list[list[int]] = []  # a stack, for modules that call themselves

        def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            versions.append([_tensor_version(tensor) for tensor in collect_tensors([inputs, named])])

        def leave(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            return self.alias_passthrough(output, collect_tensors([inputs, named]), versions.pop())

        return [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]

    def _make_block_pre_hook(self, path: str) -> Callable[..., None]:
        """Note what a composite module is given, before a layer in it changes that in place."""

        def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.block_inputs[path] = self.source_layers(collect_tensors([inputs, named]))

        return enter


class _FunctionTracker(TorchFunctionMode):
    """Hands names on through functions; those that are layers are named afterwards."""

    def __init__(self, flow: DataflowTracker) -> None:
        super().__init__()
        self.tracker = flow

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = collect_tensors([args, kwargs])
        names, versions = self.tracker.source_layers(given), [_tensor_version(tensor) for tensor in given]
        output = func(*args, **kwargs)
        if getattr(func, "__name__", "") == "__setitem__":
            self.tracker.set_sources(given[:1], names)
        elif collect_tensors(output):
            output = self.tracker.alias_passthrough(output, given, versions)
            self.tracker.set_sources(self.tracker.last_outputs, names)
        return output


def _tensor_version(tensor: Tensor) -> int:
    """A number that grows with each change in place."""
    return 0 if tensor.is_inference() else tensor._version
