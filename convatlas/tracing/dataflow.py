"""Follow tensors through a network: from which layers' outputs each one was computed."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from convatlas.tracing.calls import InputVersions, collect_tensors, iterates, named_leaf_modules

INPUT = "input"  # the name of the network's own input


class DataflowTracker:
    """Maps each tensor of a forward pass, by its identity, to the layers that it was computed from.

    Functions that are no layers (indexing, `chunk`, `expand`, ...) pass the sources of their arguments on.
    The output of a layer that returns its input unchanged, as dropout does in evaluation mode, is replaced
    by an alias, so that the path through the layer differs from a shortcut around it.

    Args:
        x: The network's input.
    """

    def __init__(self, x: Tensor) -> None:
        self.sources: dict[int, tuple[str, ...]] = {id(x): (INPUT,)}
        self.keep_alive: list[Tensor] = [x]  # so that no identity is used twice
        self.last_outputs: tuple[Tensor, ...] = ()  # the new tensors that the last call returned
        self.passthrough_input: Tensor | None = None  # the input that the last call returned unchanged
        # The tensors into a part of which the last call wrote, with their sources before.
        self.written: list[tuple[Tensor, tuple[str, ...]]] = []
        self.block_inputs: dict[str, tuple[str, ...]] = {}  # sources of the inputs of composite modules

    def source_layers(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        """Return the layers that tensors were computed from, each once, in order.

        Args:
            tensors: Tensors of the forward pass.

        Returns:
            Names of layers, or "input"; empty if the tensors depend on neither.
        """
        return tuple(dict.fromkeys(name for tensor in tensors for name in self.sources.get(id(tensor), ())))

    def assign_layer(self, layer: str, output: Tensor) -> None:
        """Record that the call that has just ended is a call of `layer` and returned `output`.

        Args:
            layer: Name of the layer.
            output: A tensor that the call returned.
        """
        is_last = any(tensor is output for tensor in self.last_outputs)
        self.set_sources(self.last_outputs if is_last else (output,), (layer,))
        if is_last:
            self.assign_written((layer,))

    def resolve_alias(self, output: Tensor) -> Tensor:
        """Return the input that the last call returned unchanged if `output` is its alias, else `output`.

        Args:
            output: A tensor that the last call returned.
        """
        if self.passthrough_input is None or all(tensor is not output for tensor in self.last_outputs):
            return output
        return self.passthrough_input

    def set_sources(self, tensors: Iterable[Tensor], layers: tuple[str, ...]) -> None:
        """Record that tensors were computed from layers.

        Args:
            tensors: Tensors of the forward pass.
            layers: Names of layers, or "input".
        """
        for tensor in tensors:
            self.sources[id(tensor)] = layers
            self.keep_alive.append(tensor)

    def find_written(self, inputs: InputVersions) -> None:
        """Find the tensors into a part of which the call that has just ended wrote.

        Args:
            inputs: The tensors passed to the call.
        """
        self.written = [
            (tensor._base, self.source_layers([tensor._base]))
            for tensor in inputs.tensors
            if tensor._base is not None and not inputs.is_unchanged(tensor)
        ]

    def assign_written(self, layers: tuple[str, ...]) -> None:
        """Record from which layers, besides those before, the last call computed what it wrote into.

        Args:
            layers: Names of layers, or "input".
        """
        for tensor, before in self.written:
            self.set_sources([tensor], tuple(dict.fromkeys([*before, *layers])))

    def alias_passthrough(self, output: Any, inputs: InputVersions) -> Any:
        """Return an alias of `output` if it is one of the inputs, unchanged; else `output` itself.

        Args:
            output: What a call returned.
            inputs: The tensors passed to it.
        """
        self.passthrough_input = None
        self.find_written(inputs)
        if inputs.is_unchanged(output):
            self.passthrough_input, output = output, output.view_as(output)
        self.last_outputs = inputs.select_new(output)
        return output

    @contextmanager
    def track(self, network: nn.Module, blocks: Collection[str]) -> Iterator[None]:
        """Follow tensors through the calls of a network while the block runs.

        Enter this before `calls.trace`, so that its hooks run first.

        Args:
            network: Any network.
            blocks: Paths of composite modules whose inputs are recorded in `block_inputs`.
        """
        handles = []
        for _, module in named_leaf_modules(network):
            handles += self._hook_leaf(module)
        for path in blocks:
            pre_hook = self._make_block_pre_hook(path)
            handles.append(network.get_submodule(path).register_forward_pre_hook(pre_hook, with_kwargs=True))
        try:
            with _FunctionTracker(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook_leaf(self, module: nn.Module) -> list[RemovableHandle]:
        """Hook a leaf module so that an input that it returns unchanged is aliased."""
        inputs: list[InputVersions] = []  # a stack, for modules that call themselves

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs.append(InputVersions([args, kwargs]))

        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            return self.alias_passthrough(output, inputs.pop())

        return [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]

    def _make_block_pre_hook(self, path: str) -> Callable[..., None]:
        """Return a hook that records the inputs of a composite module before they change in place."""

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.block_inputs[path] = self.source_layers(collect_tensors([args, kwargs]))

        return enter


class _FunctionTracker(TorchFunctionMode):
    """Passes sources on through functions; the tracer assigns those that are layers afterwards."""

    def __init__(self, tracker: DataflowTracker) -> None:
        super().__init__()
        self.tracker = tracker

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if iterates(func, args):
            return iter(self.__torch_function__(Tensor.unbind, types, args))
        inputs = InputVersions([args, kwargs])
        layers = self.tracker.source_layers(inputs.tensors)
        output = func(*args, **kwargs)
        if getattr(func, "__name__", "") == "__setitem__":
            self.tracker.set_sources(inputs.tensors[:1], layers)
            self.tracker.find_written(inputs)
            self.tracker.assign_written(layers)
        elif collect_tensors(output):
            output = self.tracker.alias_passthrough(output, inputs)
            self.tracker.set_sources(self.tracker.last_outputs, layers)
            self.tracker.assign_written(layers)
        return output
