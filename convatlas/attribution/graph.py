"""Work on the graph of autograd below a layer: run a network up to it, order its nodes, make unit signals."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from convatlas import UserError
from convatlas.attribution.backward_rules import next_nodes, node_type, simplify_batch_norms
from convatlas.attribution.inplace_writes import label_writes, record_writes, writes_in_place
from convatlas.attribution.kept_gradients import keep_gradients
from convatlas.names import suggest_nearest
from convatlas.tracing.calls import Call, depends_on_input, raise_on_wrong_input, trace
from convatlas.tracing.window_geometry import window_extent


class LayerOutput(NamedTuple):
    """The output of a layer and the graph that computed it.

    Attributes:
        value: The output, (N, units, ...), detached.
        edge: Where it stands in autograd's graph.
        layers: The names of the layers before it, and its own, by the last node of each.
    """

    value: Tensor
    edge: GradientEdge
    layers: dict[Node, str]


class _LayerReachedError(Exception):
    """The forward pass has reached the layer and need go no further."""


def run_until_layer(network: nn.Module, x: Tensor, layer: str) -> LayerOutput:
    """Run a network up to the first layer of a name, recording what is computed from its input alone.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        x: Its input, (N, C, H, W), which requires a gradient.
        layer: Name of a layer, or path of a composite module.

    Raises:
        UserError: There is no such layer, it has no units or does not depend on the input, or the network
            does not take the input.
    """
    run = _run_once(network, x, layer)
    if run.output.is_complex():
        raise UserError(f"{layer}: its output is complex, and the deconvnet is defined for real activations")
    if run.needs_second:
        del run  # and its graph, before a second one is kept
        # It costs time and memory: only networks that need it pay.
        with keep_gradients(network), record_writes() as writes:
            run = _run_once(network, x, layer)
        if run.hidden_layer:
            raise UserError(
                f"the network runs the layer {run.hidden_layer!r} where gradients are switched off, as in "
                "torch.inference_mode(), so that no deconvnet goes through it; take that out of the forward "
                "pass, or choose a layer before it"
            )
        if run.output.grad_fn is not None:
            label_writes(run.output.grad_fn, writes)
    return LayerOutput(*_detach_output(run, layer), run.layers)


@dataclass
class _Run:
    """What one run of a network up to a layer found.

    Attributes:
        output: The output of the layer.
        layers: As in `LayerOutput`.
        detached_layer: The first layer that takes what depends on the image, and has no place in the graph.
        hidden_layer: The first convolution or linear layer that ran while gradients were switched off.
    """

    output: Tensor
    layers: dict[Node, str]
    detached_layer: str | None
    hidden_layer: str | None

    @property
    def needs_second(self) -> bool:
        """Whether autograd has not recorded all that a deconvnet needs."""
        node = self.output.grad_fn
        return bool(self.hidden_layer) or node is None or writes_in_place(node)


def _run_once(network: nn.Module, x: Tensor, layer: str) -> _Run:
    """Run a network as `run_until_layer` does."""
    run = _Run(x, {}, None, None)
    layer_names: list[str] = []

    def stop_at_layer(call: Call) -> None:
        layer_names.append(call.layer)
        if call.output.grad_fn is not None:
            run.layers.setdefault(call.output.grad_fn, call.layer)
        elif depends_on_input(call):
            run.detached_layer = run.detached_layer or call.layer
            if call.kind in ("conv", "linear") and not torch.is_grad_enabled():
                run.hidden_layer = run.hidden_layer or call.layer
        if call.layer == layer:
            run.output = call.output
            raise _LayerReachedError

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:  # so that the graph holds what depends on the input alone
        parameter.requires_grad_(False)
    try:
        tracing = trace(network, stop_at_layer, blocks=[layer])
        errors = raise_on_wrong_input(x), _raise_on_forbidden_write(layer_names)
        with torch.enable_grad(), simplify_batch_norms(network), errors[0], errors[1], tracing:
            network(x.clone())  # a layer may change its input in place
    except _LayerReachedError:
        return run
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    raise UserError(f"no layer {layer!r} to project from; {suggest_nearest(layer, layer_names)}")


@contextmanager
def _raise_on_forbidden_write(layer_names: list[str]) -> Iterator[None]:
    """Turn an error of autograd about an operation in place into a UserError that says what to edit."""
    try:
        yield
    except RuntimeError as error:
        if "is being modified inplace" not in str(error):
            raise
        place = f"after the layer {layer_names[-1]!r}" if layer_names else "at its beginning"
        raise UserError(
            f"no deconvnet goes through this network: {place} it changes in place a part that split, chunk, "
            "unbind or torch.no_grad() gave it, which autograd cannot follow. In the network, write the "
            "operation out of place, take slices such as x[:, :8] instead, or .clone() the part first. Or "
            f"choose a layer before it. Autograd says: {error}"
        ) from error


def _detach_output(run: _Run, layer: str) -> tuple[Tensor, GradientEdge]:
    """Return a layer's output and its place in the graph; raise UserError where it cannot be projected."""
    output = run.output
    if output.grad_fn is None and run.detached_layer is None:
        raise UserError(f"the layer {layer!r} does not depend on the image; nothing caused it")
    if output.grad_fn is None:
        raise UserError(
            f"autograd's graph says that the layer {layer!r} does not depend on the image: the graph ends at "
            f"the layer {run.detached_layer!r}. The network uses .detach(), .data or torch.inference_mode() "
            "before it, or one of them or torch.no_grad() inside it; take that out of the forward pass, or "
            "choose a layer before it"
        )
    if output.ndim < 2:
        raise UserError(f"the layer {layer!r} has no units: its output has the shape {tuple(output.shape)}")
    return output.detach().clone(), get_gradient_edge(output)


def topological_order(top: Node) -> tuple[list[Node], list[Node]]:
    """Order the nodes of a graph from a node down to the input.

    Args:
        top: The node to start from.

    Returns:
        All nodes, each after all those above it, and those among them that lie on every path down.
    """
    lower: dict[Node, list[Node]] = {}
    pending = [top]
    while pending:
        node = pending.pop()
        if node not in lower:
            lower[node] = next_nodes(node)
            pending += lower[node]
    in_degree = Counter([top, *(node for nodes in lower.values() for node in nodes)])
    unvisited_parents = Counter(in_degree)
    order: list[Node] = []
    on_every_path: list[Node] = []
    ready, open_edges = [top], 1  # edges from an ordered node to one that is not ordered yet
    while ready:
        node = ready.pop()
        order.append(node)
        if open_edges == in_degree[node]:  # every open edge ends here
            on_every_path.append(node)
        open_edges += len(lower[node]) - in_degree[node]
        for child in lower[node]:
            unvisited_parents[child] -= 1
            if not unvisited_parents[child]:
                ready.append(child)
    return order, on_every_path


def signal_entry(edge: GradientEdge) -> GradientEdge:
    """Return the edge at which the signals of `unit_signals` enter the graph.

    Args:
        edge: Where the layer stands in the graph.

    Returns:
        The edge to the input of the layer's convolution if the adjoint of that is computed for all units at
        once; else `edge` itself.
    """
    convolution = _groupable_convolution(edge)
    return edge if convolution is None else GradientEdge(*convolution.next_functions[0])


def unit_signals(edge: GradientEdge, seeds: Tensor, units: Sequence[int]) -> Tensor:
    """Return the signal of each unit at `signal_entry`.

    Args:
        edge: Where the layer stands in the graph.
        seeds: The seed of the layer, (N, channels, ...).
        units: The units.

    Returns:
        (units, N, channels, ...), of the layer or of the input of its convolution.
    """
    convolution = _groupable_convolution(edge)
    if convolution is None:
        return isolate_units(seeds, units)
    return _convolution_grad_input(convolution, seeds, units)


def isolate_units(seeds: Tensor, units: Sequence[int]) -> Tensor:
    """Return each unit's map with the maps of all other units zero.

    Args:
        seeds: The seed of the layer, (N, channels, ...).
        units: The units.

    Returns:
        (units, N, channels, ...).
    """
    isolated = seeds.new_zeros(len(units), *seeds.shape)
    for n, unit in enumerate(units):
        isolated[n, :, unit] = seeds[:, unit]
    return isolated


def _groupable_convolution(edge: GradientEdge) -> Any | None:
    """Return the node of a convolution that can take each unit's map through its own filter, or None.

    That needs stride 1, one group, padding no wider than the filter's extent, and a constant filter.
    """
    node: Any = edge.node
    if node_type(node) != "Convolution" or node._saved_transposed or node._saved_groups != 1:
        return None
    extent = window_extent(node._saved_weight.shape[2:], node._saved_dilation)
    is_inside = all(pad <= reach for pad, reach in zip(node._saved_padding, extent, strict=True))
    has_gradient = [child is not None for child, _ in node.next_functions]
    is_input_only = has_gradient[0] and not any(has_gradient[1:])
    return node if is_inside and is_input_only and set(node._saved_stride) == {1} else None


def _convolution_grad_input(convolution: Any, seeds: Tensor, units: Sequence[int]) -> Tensor:
    """Return the adjoint of a convolution for each unit's map, without multiplying by maps that are zero.

    At stride 1 the adjoint is a convolution with the flipped filter; one group per unit does all at once.
    """
    weight = convolution._saved_weight.detach()[units]
    flipped = weight.flip(list(range(2, weight.ndim))).flatten(0, 1)[:, None]
    dilation = convolution._saved_dilation
    extent = window_extent(weight.shape[2:], dilation)
    padding = [reach - pad for reach, pad in zip(extent, convolution._saved_padding, strict=True)]
    maps = torch.convolution(
        *(seeds[:, units], flipped, None, [1] * len(padding), padding, dilation),
        *(False, [0] * len(padding), len(units)),
    )
    return maps.reshape(len(units), 1, weight.shape[1], *maps.shape[2:])
