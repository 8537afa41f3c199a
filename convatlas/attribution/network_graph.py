"""Run a network up to a layer, or to its end, and record autograd's graph of what follows from its input."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from convatlas import UserError
from convatlas.attribution.backward_rules import simplify_batch_norms
from convatlas.attribution.inplace_writes import label_writes, record_writes, writes_in_place
from convatlas.attribution.kept_gradients import keep_gradients
from convatlas.attribution.layer_maps import MapsFilter, MapsOutput
from convatlas.attribution.max_pooling import accelerate_max_pooling
from convatlas.attribution.untraced import evaluation_mode, record_disabled_gradients, replace_first_output
from convatlas.names import suggest_nearest
from convatlas.tracing.calls import (
    Call,
    depends_on_input,
    drop_batch_axis,
    raise_on_wrong_input,
    trace,
)


class LayerOutput(NamedTuple):
    """The output of a layer and the graph that computed it.

    Attributes:
        value: The output, (N, units, ...), detached. Where the first axis of an image's output is not the
            batch axis, as where a network folds patches into it, its units are along that axis.
        edge: Where it stands in autograd's graph.
        layers: The names of the layers before it, and its own, by the last node of each.
    """

    value: Tensor
    edge: GradientEdge
    layers: dict[Node, str]


class NetworkOutput(NamedTuple):
    """A tensor in the output of a network, with the graph that computed it.

    Attributes:
        value: The tensor, with its graph.
        layers: The names of layers, by the last node of each; none where they are not needed.
        maps: The outputs with maps, in execution order.
    """

    value: Tensor
    layers: dict[Node, str]
    maps: list[MapsOutput]


class _LayerReachedError(Exception):
    """The forward pass has reached the layer and need go no further."""


def run_until_layer(network: nn.Module, x: Tensor, layer: str) -> LayerOutput:
    """Run a network up to the first layer of a name, recording what is computed from its input alone.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        x: Its input, (N, C, H, W), which requires a gradient.
        layer: Name of a layer, or path of a composite module.

    Raises:
        UserError: There is no such layer, it does not depend on the input, its output for several images
            has no batch axis, or the network does not take the input.
    """

    def run_once() -> _Run:
        run = _Run(x, {}, None, None)
        layer_names: list[str] = []

        def stop_at_layer(call: Call) -> None:
            layer_names.append(call.layer)
            run.add(call)
            if call.layer == layer:
                run.output = call.output
                raise _LayerReachedError

        try:
            _run_network(network, x, stop_at_layer, layer_names, [layer])
        except _LayerReachedError:
            return run
        raise UserError(f"no layer {layer!r} to project from; {suggest_nearest(layer, layer_names)}")

    run = _run_with_graph(network, run_once)
    if run.output.is_complex():
        raise UserError(f"{layer}: its output is complex, and the deconvnet is defined for real activations")
    return LayerOutput(*_detach_output(run, layer, len(x)), run.layers)


def run_until_module(network: nn.Module, x: Tensor, layer: str) -> LayerOutput | None:
    """Run a network as `run_until_layer` does, without names of layers, which saves half of the time.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        x: Its input, (N, C, H, W), which requires a gradient.
        layer: Name of a layer, or path of a composite module.

    Returns:
        The output; None where that takes names: for a message, a function, a later call of a module, and
        where autograd does not record all.
    """
    module = dict(network.named_modules()).get(layer)
    if module is None:
        return None
    outputs: list[Any] = []

    def stop(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs.append(output)
        raise _LayerReachedError

    handle = None
    try:
        with (
            evaluation_mode(network),
            _record_input_gradients(network),
            record_disabled_gradients() as disabled,
        ):
            handle = module.register_forward_hook(stop)  # after those that the context registers
            network(x.clone())  # a layer may change its input in place
    except _LayerReachedError:
        pass
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError):
        return None
    finally:
        if handle:
            handle.remove()
    output = outputs[0] if outputs else None
    if (
        disabled
        or not isinstance(output, Tensor)
        or output.grad_fn is None
        or writes_in_place(output.grad_fn)
    ):
        return None
    if output.ndim < 2 or len(output) != len(x) or output.is_complex():
        return None
    return LayerOutput(output.detach().clone(), get_gradient_edge(output), {})


def run_to_output(
    network: nn.Module,
    x: Tensor,
    select: Callable[[Any], Tensor],
    maps: MapsFilter | None = None,
    named: bool = False,
) -> NetworkOutput:
    """Run a network to its end, recording what is computed from its input alone.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        x: Its input, (N, C, H, W), which requires a gradient.
        select: From what the forward pass returns to the tensor in it.
        maps: Which calls of layers to keep the outputs of, if these have maps.
        named: Name the layers; without, tracing is saved where it is not needed.

    Raises:
        UserError: The network does not take the input, or the tensor does not depend on it; and as `select`.
    """

    def run_once() -> _Run:
        run = _Run(x, {}, None, None)
        layer_names: list[str] = []

        def add(call: Call) -> None:
            layer_names.append(call.layer)
            run.add(call)
            if maps and maps.includes(call.output, len(x), call):
                run.maps.append(MapsOutput.from_output(call.layer, call.output, copy=bool(maps.layer)))

        run.output = select(_run_network(network, x, add, layer_names, maps.blocks if maps else ()))
        return run

    if not named and (output := _run_untraced(network, x, select, maps)):
        return output
    run = _run_with_graph(network, run_once)
    if run.output.grad_fn is None:
        raise UserError(_explain_missing_graph("the output of the network", run))
    return NetworkOutput(run.output, run.layers, run.maps)


def _run_untraced(
    network: nn.Module, x: Tensor, select: Callable[[Any], Tensor], maps: MapsFilter | None
) -> NetworkOutput | None:
    """Run a network as `run_to_output` does, without names of layers.

    Returns:
        The output; None where that takes names: for a message, maps of any layer or of a function, and where
        autograd does not record all.
    """
    if maps and (not maps.layer or maps.layer not in dict(network.named_modules())):
        return None
    outputs_with_maps: list[MapsOutput] = []

    def start_graph(output: Any) -> Any:
        """Let the graph begin at the maps: nothing below them is needed."""
        if not (maps and maps.layer and isinstance(output, Tensor) and output.is_floating_point()):
            return output
        start = output.detach().clone().requires_grad_()
        if maps.includes(start, len(x)):
            outputs_with_maps.append(MapsOutput.from_output(maps.layer, start, copy=False))
        return start.clone()  # a later layer may change it in place

    module = network.get_submodule(maps.layer) if maps and maps.layer else None
    try:
        hook = replace_first_output(module, start_graph)
        with (
            evaluation_mode(network),
            _record_input_gradients(network),
            hook,
            record_disabled_gradients() as disabled,
        ):
            inputs = x.clone() if maps is None else x.detach().clone()  # a layer may change them in place
            output = select(network(inputs))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError):
        return None
    if disabled or output.grad_fn is None or writes_in_place(output.grad_fn):
        return None
    return NetworkOutput(output, {}, outputs_with_maps)


@dataclass
class _Run:
    """What one run of a network recorded.

    Attributes:
        output: The output of the layer, or the tensor in that of the network.
        layers: As in `LayerOutput`.
        detached_layer: The first layer that takes what depends on the image, and is not in the graph.
        hidden_layer: The first convolution or linear layer that ran while gradients were switched off.
        maps: As in `NetworkOutput`.
    """

    output: Tensor
    layers: dict[Node, str]
    detached_layer: str | None
    hidden_layer: str | None
    maps: list[MapsOutput] = field(default_factory=list)

    @property
    def needs_second(self) -> bool:
        """Whether autograd has not recorded all that a backward pass needs."""
        node = self.output.grad_fn
        return bool(self.hidden_layer) or node is None or writes_in_place(node)

    def add(self, call: Call) -> None:
        """Record where the output of a layer stands in the graph."""
        if call.output.grad_fn is not None:
            self.layers.setdefault(call.output.grad_fn, call.layer)
        elif depends_on_input(call):
            self.detached_layer = self.detached_layer or call.layer
            if call.kind in ("conv", "linear") and not torch.is_grad_enabled():
                self.hidden_layer = self.hidden_layer or call.layer


def _run_with_graph(network: nn.Module, run_once: Callable[[], _Run]) -> _Run:
    """Run a network, and again with more of it recorded where autograd does not record all."""
    run = run_once()
    if run.needs_second:
        del run  # and its graph, before a second one is kept
        # It costs time and memory: only networks that need it pay.
        with keep_gradients(network), record_writes() as writes:
            run = run_once()
        if run.hidden_layer:
            raise UserError(
                f"the network runs the layer {run.hidden_layer!r} where gradients are switched off, as in "
                "torch.inference_mode(), so that no backward pass goes through it; take that out of the "
                "forward pass, or choose a layer before it"
            )
        if run.output.grad_fn is not None:
            label_writes(run.output.grad_fn, writes)
    return run


def _run_network(
    network: nn.Module,
    x: Tensor,
    callback: Callable[[Call], None],
    layer_names: list[str],
    blocks: Sequence[str],
) -> Any:
    """Run a network in evaluation mode, with gradients to its input alone, and return its output.

    Args:
        network: The network.
        x: Its input, (N, C, H, W), which requires a gradient.
        callback: Called with each call of a layer.
        layer_names: The names of the layers that have run so far, for messages.
        blocks: Paths of composite modules whose calls are passed on too.
    """
    tracing = trace(network, callback, blocks=blocks)
    errors = raise_on_wrong_input(x), _raise_on_forbidden_write(layer_names)
    with _record_input_gradients(network), errors[0], errors[1], tracing:
        return network(x.clone())  # a layer may change its input in place


@contextmanager
def _record_input_gradients(network: nn.Module) -> Iterator[None]:
    """Let a network record the graph of what it computes from its input alone while the block runs."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad(), simplify_batch_norms(network), accelerate_max_pooling():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _raise_on_forbidden_write(layer_names: list[str]) -> Iterator[None]:
    """Turn an error of autograd about an operation in place into a UserError that says what to edit."""
    try:
        yield
    except RuntimeError as error:
        if "is being modified inplace" not in str(error):
            raise
        position = f"after the layer {layer_names[-1]!r}" if layer_names else "at its beginning"
        raise UserError(
            f"no backward pass goes through this network: {position} it changes in place a part that split, "
            "chunk, unbind or torch.no_grad() gave it, which autograd cannot follow. In the network, write "
            "the operation out of place, take slices such as x[:, :8], or .clone() the part first. Or "
            f"choose a layer before it. Autograd says: {error}"
        ) from error


def _detach_output(run: _Run, layer: str, image_count: int) -> tuple[Tensor, GradientEdge]:
    """Return a layer's output and its edge in the graph; raise UserError where it cannot be projected."""
    output = run.output
    if output.grad_fn is None and run.detached_layer is None:
        raise UserError(f"the layer {layer!r} does not depend on the image; nothing caused it")
    if output.grad_fn is None:
        raise UserError(f"{_explain_missing_graph(f'the layer {layer!r}', run)}, or choose a layer before it")
    value = output.detach().clone()
    if image_count == 1:
        value = drop_batch_axis(value)[None]
    elif len(value) != image_count:
        raise UserError(
            f"the layer {layer!r} has no batch axis: its output for {image_count} images has the shape "
            f"{tuple(output.shape)}; project one image at a time"
        )
    return value, get_gradient_edge(output)


def _explain_missing_graph(subject: str, run: _Run) -> str:
    """Return why an output, such as "the layer 'conv1'", is not in the graph."""
    if run.detached_layer is None:
        return f"{subject} does not depend on the image"
    return (
        f"autograd's graph says that {subject} does not depend on the image: the graph ends at the layer "
        f"{run.detached_layer!r}. The network uses .detach(), .data or torch.inference_mode() before it, or "
        "one of them or torch.no_grad() inside it; take that out of the forward pass"
    )
