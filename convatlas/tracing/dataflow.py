"""Where tensors come from: which layers' outputs each one was computed from, by its identity."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convatlas.tracing.calls import leaves, tensors_in

INPUT = "input"  # the name of the network's own input


class Flow:
    """The layers that tensors were computed from, told of the layers' calls as they happen.

    Functions that are no layers (indexing, `chunk`, `expand`, ...) hand on what they were given. A layer
    that gives back its own input, as dropout does in evaluation, has its output replaced by an alias, so
    that a shortcut around it is told from the way through it.
    """

    def __init__(self, x: Tensor) -> None:
        self.names: dict[int, tuple[str, ...]] = {id(x): (INPUT,)}
        self.alive: list[Tensor] = [x]  # so that no identity is given out twice
        self.made: tuple[Tensor, ...] = ()  # all that the last call gave
        self.same: Tensor | None = None  # the input that the last call gave back, where it did
        self.given: dict[str, tuple[str, ...]] = {}  # what composite modules were given, as they began

    def of(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        """The layers that these tensors come from, each once, in order."""
        return tuple(dict.fromkeys(name for tensor in tensors for name in self.names.get(id(tensor), ())))

    def name(self, layer: str, output: Tensor) -> None:
        """Note that the call that has just ended was `layer`'s, and gave `output` and what else it gave."""
        self.hand_on(self.made if any(made is output for made in self.made) else (output,), (layer,))

    def as_given(self, output: Tensor) -> Tensor:
        """The input that the last call gave back, where `output` is its alias; else `output`."""
        return output if self.same is None or all(t is not output for t in self.made) else self.same

    def hand_on(self, tensors: Iterable[Tensor], names: tuple[str, ...]) -> None:
        for tensor in tensors:
            self.names[id(tensor)] = names
            self.alive.append(tensor)

    def aliased(self, output: Any, given: tuple[Tensor, ...], versions: list[int]) -> Any:
        """`output`, or an alias of it where it is one of `given`, not changed in place."""
        before = {id(tensor): version for tensor, version in zip(given, versions, strict=True)}
        self.same = None
        if isinstance(output, Tensor) and before.get(id(output)) == _version(output):
            self.same, output = output, output.view_as(output)
        self.made = tensors_in(output)
        return output

    @contextmanager
    def follow(self, network: nn.Module, blocks: Collection[str]) -> Iterator[None]:
        """Follow tensors through the calls of `network`; to be entered before `calls.watch` is."""
        handles = []
        for _, module in leaves(network):
            handles += self._through_leaf(module)
        for path in blocks:
            enter = self._beginning(path)
            handles.append(network.get_submodule(path).register_forward_pre_hook(enter, with_kwargs=True))
        try:
            with _Functions(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _through_leaf(self, module: nn.Module) -> list[Any]:
        """Hook a module that holds no others."""
        versions: list[list[int]] = []  # a stack, for modules that call themselves

        def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            versions.append([_version(tensor) for tensor in tensors_in([inputs, named])])

        def leave(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            return self.aliased(output, tensors_in([inputs, named]), versions.pop())

        return [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]

    def _beginning(self, path: str) -> Callable[..., None]:
        """Note what a composite module is given, before a layer in it changes that in place."""

        def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.given[path] = self.of(tensors_in([inputs, named]))

        return enter


class _Functions(TorchFunctionMode):
    """Hands names on through functions; those that are layers are named afterwards."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = tensors_in([args, kwargs])
        names, versions = self.flow.of(given), [_version(tensor) for tensor in given]
        output = func(*args, **kwargs)
        if getattr(func, "__name__", "") == "__setitem__":
            self.flow.hand_on(given[:1], names)
        elif tensors_in(output):
            output = self.flow.aliased(output, given, versions)
            self.flow.hand_on(self.flow.made, names)
        return output


def _version(tensor: Tensor) -> int:
    """A number that grows with each change in place."""
    return 0 if tensor.is_inference() else tensor._version
