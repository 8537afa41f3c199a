"""Work on autograd's graph below a layer: order its nodes, and make the signals of units."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from convatlas.attribution.backward_rules import next_nodes, node_type
from convatlas.tracing.window_geometry import window_extent


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
