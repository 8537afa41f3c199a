"""Work on the graph of autograd below a layer: run a network up to it, order its nodes, make unit signals."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from convatlas import UserError
from convatlas.attribution.backward_rules import next_nodes, node_type, simplify_batch_norms
from convatlas.attribution.inplace_writes import label_writes, record_writes, writes_in_place
from convatlas.attribution.kept_gradients import keep_gradients
from convatlas.attribution.untraced import evaluation_mode, replace_first_output, watch_gradients
from convatlas.names import suggest_nearest
from convatlas.tracing.calls import (
    Call,
    depends_on_input,
    drop_batch_axis,
    get_version,
    raise_on_wrong_input,
    trace,
)
from convatlas.tracing.window_geometry import window_extent

# Functions whose outputs of four axes are weights of attention, or tokens by head.
ATTENTION_TYPES = {"matmul", "bmm", "einsum", "softmax", "Softmax", "scaled_dot_product_attention"}


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


class MapsOutput(NamedTuple):
    """The output of a layer with maps, in the graph of a run to the end.

    Attributes:
        layer: Name of the layer.
        edge: Where the output stands in autograd's graph.
        value: The output, (N, units, H, W), detached; its values are those of the layer as long as the
            version is.
        version: Its version when the layer had run.
    """

    layer: str
    edge: GradientEdge
    value: Tensor
    version: int

    @classmethod
    def from_output(cls, layer: str, output: Tensor, copy: bool) -> "MapsOutput":
        """Keep the output of a layer.

        Args:
            layer: Name of the layer.
            output: The output, with its graph.
            copy: Copy its values, so that no later operation changes them.
        """
        value = output.detach()
        return cls(layer, get_gradient_edge(output), value.clone() if copy else value, get_version(value))

    @property
    def is_intact(self) -> bool:
        """Whether no later operation has changed the output in place."""
        return get_version(self.value) == self.version


@dataclass(frozen=True)
class MapsFilter:
    """Which outputs of layers are maps: (N, units, h, w) with more than one position.

    Attributes:
        layer: The name of the only layer, or path of a composite module; None for all layers, whose maps have
            about the aspect ratio of the input, and are no weights of attention.
        aspect_ratio: Height over width of the input.
    """

    layer: str | None = None
    aspect_ratio: float = 1.0

    @property
    def blocks(self) -> list[str]:
        """Paths of composite modules whose outputs are maps too."""
        return [self.layer] if self.layer else []

    def includes(self, output: Tensor, images: int, call: Call | None = None) -> bool:
        """Return whether an output is one of these maps.

        Args:
            output: The output.
            images: Number N of the images of the batch.
            call: The call of the layer; None where it is known to be that of `layer`.
        """
        if output.ndim != 4 or len(output) != images or not output.requires_grad:
            return False
        height, width = output.shape[2:]
        if self.layer is not None or call is None:
            return call is None or call.layer == self.layer
        is_wide = abs(height - width * self.aspect_ratio) > 2 + 0.1 * height
        return height * width > 1 and not is_wide and call.type not in ATTENTION_TYPES


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
    kept: list[MapsOutput] = []

    def start_graph(output: Any) -> Any:
        """Let the graph begin at the maps: nothing below them is needed."""
        if not (maps and maps.layer and isinstance(output, Tensor) and output.is_floating_point()):
            return output
        start = output.detach().clone().requires_grad_()
        if maps.includes(start, len(x)):
            kept.append(MapsOutput.from_output(maps.layer, start, copy=False))
        return start.clone()  # a later layer may change it in place

    module = network.get_submodule(maps.layer) if maps and maps.layer else None
    try:
        hook = replace_first_output(module, start_graph)
        with evaluation_mode(network), _record_input_gradients(network), hook, watch_gradients() as off:
            inputs = x.clone() if maps is None else x.detach().clone()  # a layer may change them in place
            output = select(network(inputs))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError):
        return None
    if off or output.grad_fn is None or writes_in_place(output.grad_fn):
        return None
    return NetworkOutput(output, {}, kept)


@dataclass
class _Run:
    """What one run of a network found.

    Attributes:
        output: The output of the layer, or the tensor in that of the network.
        layers: As in `LayerOutput`.
        detached_layer: The first layer that takes what depends on the image, and has no place in the graph.
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
        with torch.enable_grad(), simplify_batch_norms(network):
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
        place = f"after the layer {layer_names[-1]!r}" if layer_names else "at its beginning"
        raise UserError(
            f"no deconvnet goes through this network: {place} it changes in place a part that split, chunk, "
            "unbind or torch.no_grad() gave it, which autograd cannot follow. In the network, write the "
            "operation out of place, take slices such as x[:, :8] instead, or .clone() the part first. Or "
            f"choose a layer before it. Autograd says: {error}"
        ) from error


def _detach_output(run: _Run, layer: str, image_count: int) -> tuple[Tensor, GradientEdge]:
    """Return a layer's output and its place in the graph; raise UserError where it cannot be projected."""
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
    """Return why an output, such as "the layer 'conv1'", has no place in the graph."""
    if run.detached_layer is None:
        return f"{subject} does not depend on the image"
    return (
        f"autograd's graph says that {subject} does not depend on the image: the graph ends at the layer "
        f"{run.detached_layer!r}. The network uses .detach(), .data or torch.inference_mode() before it, or "
        "one of them or torch.no_grad() inside it; take that out of the forward pass"
    )


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


def edge_shape(edge: GradientEdge) -> torch.Size:
    """Return the shape of the tensor at an edge of the graph.

    Args:
        edge: Where a layer stands in the graph.
    """
    node: Any = edge.node
    shape: torch.Size = node._input_metadata[edge.output_nr].shape
    return shape


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
        return isolate_units(seeds, units).reshape(len(units), *edge_shape(edge))
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

    That needs one image, stride 1, one group, padding no wider than the extent of a filter that is constant.
    """
    node: Any = edge.node
    if node_type(node) != "Convolution" or edge_shape(edge)[0] != 1:
        return None
    if node._saved_transposed or node._saved_groups != 1:
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
