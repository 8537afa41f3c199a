"""Run a network again and again with the output of one layer changed, computing only what follows it."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.tracing.calls import Call, InputVersions, get_version, named_leaf_modules, trace
from convatlas.tracing.replay import collect_all_tensors, is_bit_equal

log = logging.getLogger(__name__)

Change = Callable[[Tensor], Tensor]  # from the output of a layer to what replaces it
Observe = Callable[[str, Tensor], None]  # called with the name of a layer and its output


class ChangedLayerRuns:
    """Runs of a network on one batch of images, each with the output of one layer changed.

    `load` runs the network as it is and keeps the outputs of its leaf modules. `run` returns these where a
    leaf module is called before the changed layer, and computes what comes after. Functions that composite
    modules call before the layer are computed again, as are leaf modules that return a view of their input
    or change it in place. That both give the same is verified on the first batch; a network that keeps
    something from call to call is run from its beginning each time.

    Args:
        network: Any network; in a `with` block it runs in evaluation mode, and is left as it was.
        layers: Names of the layers that will be changed: calls of modules, functions, composite modules.
    """

    def __init__(self, network: nn.Module, layers: Collection[str]) -> None:
        self.network, self.layers = network, layers
        self.stored_outputs = _StoredOutputs(network)
        self.reuses: bool | None = None  # None until it is verified
        self._target: tuple[str, Change] | None = None
        self._observe: Observe | None = None
        self._last_layer = ""
        self._x = torch.zeros(0)

    def __enter__(self) -> Self:
        self._tracer = trace(self.network, self._handle_call, self.layers)
        self._reset = self._tracer.__enter__()
        self._patch = self.stored_outputs.patch_modules()
        self._patch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._patch.__exit__(kind, error, traceback)
        self._tracer.__exit__(kind, error, traceback)

    @torch.no_grad()
    def load(self, x: Tensor, observe: Observe | None = None) -> Any:
        """Run the network as it is on a batch, which the following calls of `run` take as well.

        Args:
            x: Preprocessed images, (N, C, H, W).
            observe: Called with the name and the output of each of the layers when it has been computed.

        Returns:
            What the network returns.
        """
        self._x, self._observe = x, observe
        self.stored_outputs.start("record" if self.reuses is not False else "off")
        result = self._forward()
        self.stored_outputs.finish_recording()
        if self.reuses is None:
            self.reuses = self._verify(result)
        return result

    @torch.no_grad()
    def run(self, layer: str, change: Change) -> Any:
        """Run the network on the batch with the output of a layer changed.

        Args:
            layer: Name of the layer.
            change: Returns what replaces the output; it must not write to it.

        Returns:
            What the network returns.

        Raises:
            UserError: The network does not call the layer, or its output cannot be replaced.
        """
        self._target = layer, change
        self.stored_outputs.start("reuse" if self.reuses else "off")
        try:
            result = self._forward()
            if not self._is_changed():
                raise UserError(f"the network does not call the layer {layer!r} for all images")
            return result
        finally:
            self._target = None

    def _is_changed(self) -> bool:
        """Return whether the layer to change has been called."""
        return self._target is None

    @property
    def n_stored_values(self) -> int:
        """Number of values that are kept of the batch."""
        return sum(output.numel() for output in self.stored_outputs.outputs.values())

    def _forward(self) -> Any:
        """Run the network on a copy of the batch, since a layer may change its input in place."""
        with torch._C.DisableTorchFunction():
            x = self._x.clone()
        self._reset()
        return self.network(x)

    def _handle_call(self, call: Call) -> Tensor | None:
        """Keep the output of a layer, or change it."""
        if self._target is None:
            if call.layer in self.layers:
                self._last_layer = call.layer
                if self._observe:
                    self._observe(call.layer, call.output)
            return None
        if call.layer != self._target[0]:
            return None
        change, self._target = self._target[1], None
        self.stored_outputs.start("off")
        return change(call.output)

    def _verify(self, result: Any) -> bool:
        """Return whether the network gives the same where stored outputs are reused."""
        if not self._last_layer:
            return True
        self._target = self._last_layer, torch.clone
        self.stored_outputs.start("reuse")
        repeated = self._forward()
        self._target = None
        with torch._C.DisableTorchFunction():
            pairs = zip(collect_all_tensors(result), collect_all_tensors(repeated), strict=False)
            if all(is_bit_equal(*pair) for pair in pairs):
                return True
        log.warning("the network keeps something from call to call; it runs from its beginning each time")
        return False


class _StoredOutputs:
    """The outputs of a network's leaf modules, in the order of their calls.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        modules = {id(module): module for _, module in named_leaf_modules(network)}
        self.modules = [
            module for module in modules.values() if not isinstance(module, torch.jit.ScriptModule)
        ]
        self.outputs: dict[int, Tensor] = {}
        self.is_written: set[int] = set()  # outputs that the network changes in place later
        self.recorded: list[tuple[int, Tensor, int, Tensor]] = []  # number, output, its version, a copy
        self.start("off")

    def start(self, mode: Literal["record", "reuse", "off"]) -> None:
        """Start a run, or the part of it after the changed layer."""
        self.mode, self.n_calls, self.is_inside = mode, 0, False
        if mode == "record":
            self.outputs, self.recorded = {}, []

    def finish_recording(self) -> None:
        """Keep the outputs of the run that has ended, as they were when they were computed."""
        for number, output, version, copy in self.recorded:
            is_written = output.is_inference() or get_version(output) != version
            self.outputs[number] = copy if is_written else output
            if is_written:
                self.is_written.add(number)
            else:
                self.is_written.discard(number)
        self.recorded = []

    @contextmanager
    def patch_modules(self) -> Iterator[None]:
        """Let the leaf modules return stored outputs while the block runs."""
        own = [module.__dict__.get("forward") for module in self.modules]
        for module in self.modules:
            module.__dict__["forward"] = self._make_forward(module.forward)
        try:
            yield
        finally:
            for module, forward in zip(self.modules, own, strict=True):
                del module.__dict__["forward"]
                if forward is not None:
                    module.__dict__["forward"] = forward
            self.outputs, self.recorded = {}, []

    def _make_forward(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return the forward pass of a module that stores or reuses its output."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.mode == "off" or self.is_inside:
                return forward(*args, **kwargs)
            number, self.n_calls = self.n_calls, self.n_calls + 1
            if self.mode == "reuse" and number in self.outputs:
                output = self.outputs[number]
                return output.clone() if number in self.is_written else output
            self.is_inside = True
            try:
                arguments = InputVersions([args, kwargs])
                output = forward(*args, **kwargs)
            finally:
                self.is_inside = False
            if self.mode == "record" and _is_independent(output, arguments):
                self.recorded.append((number, output, get_version(output), output.clone()))
            return output

        return run


def _is_independent(output: Any, arguments: InputVersions) -> bool:
    """Return whether an output is a tensor of its own, and the call left its inputs as they were."""
    if not isinstance(output, Tensor) or output.layout != torch.strided:
        return False
    storage = output.untyped_storage().data_ptr()
    return all(
        tensor.layout == torch.strided
        and tensor.untyped_storage().data_ptr() != storage
        and get_version(tensor) == arguments.versions[id(tensor)]
        for tensor in arguments.tensors
    )
