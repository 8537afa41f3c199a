"""The diagrams of a network's blocks, one for each structure: the layers in a block and the data flow."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from convatlas.gallery.diagrams.block_text import (
    NodeLine,
    collect_notes,
    describe_child,
    describe_graph,
    write_caption,
)
from convatlas.gallery.diagrams.block_tree import (
    ModuleCall,
    build_call_tree,
    find_consumers,
    get_layers,
    is_chain,
    select_leaf_calls,
)
from convatlas.gallery.diagrams.layered_layout import Box, Edge, Point, layout_graph
from convatlas.names import format_shape
from convatlas.records import Layer

MAX_NODES, MAX_EDGES = 24, 48  # with which a diagram is legible
MAX_INPUTS = 3  # that are drawn as nodes of their own
# Lengths in pixels of the SVG
CHAR_WIDTH, LINE_HEIGHT, PADDING = 6.7, 16.0, 9.0  # of text at 12 px
MERGE_RADIUS = 13.0  # of the round node at which branches meet
ARROW_SPACING = 9.0  # between arrows that end at one node
ARROWHEAD_LENGTH = 6.0


@dataclass(frozen=True)
class Text:
    """A line of a node: its text, position and role: name, type, shape, sign or side-label."""

    text: str
    x: float
    y: float
    role: str


@dataclass(frozen=True)
class Node:
    """A box: its kind (a layer's, "input", "output", "merge" or "block"), place, size and lines."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    texts: list[Text]


@dataclass(frozen=True)
class BlockDiagram:
    """The diagram of a block; a template writes the SVG.

    Attributes:
        title: The class of the block.
        name: The path of the module that is drawn; "" for the network.
        similar_blocks: The paths of the other modules of its structure.
        caption: The caption.
        notes: The notes of layers.json on its layers.
        description: The data flow in words.
        width: The width of the canvas.
        height: The height of the canvas.
        nodes: The boxes.
        edge_paths: The SVG paths of the lines.
        arrow_paths: The SVG paths of the arrowheads.
    """

    title: str
    name: str
    similar_blocks: list[str]
    caption: str
    notes: list[str]
    description: str
    width: float
    height: float
    nodes: list[Node]
    edge_paths: list[str]
    arrow_paths: list[str]


@dataclass
class Graph:
    """The nodes of a block: the kind and the lines of each, and the edges (from, to) between them."""

    kinds: list[str] = field(default_factory=list)
    lines: list[list[NodeLine]] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)

    def add_node(self, kind: str, lines: list[NodeLine]) -> int:
        """Add a node and return its number.

        Args:
            kind: The kind as which it is drawn, such as "conv" or "merge".
            lines: The lines of text in it, from the top.
        """
        self.kinds.append(kind)
        self.lines.append(lines)
        return len(self.kinds) - 1


def draw_blocks(layers: Sequence[Layer]) -> list[BlockDiagram]:
    """Draw each structure of block that is more than a chain, in execution order.

    A block is a call of a composite module, or of the network itself, with 2 to MAX_NODES children: layers,
    sequential modules and blocks. Two have the same structure if their class, the types of their layers and
    the edges between them are equal; kernels, strides and shapes may differ.

    Args:
        layers: layers.json.
    """
    leaves = select_leaf_calls(layers)
    consumers = find_consumers(leaves)
    calls_by_structure: dict[Hashable, list[ModuleCall]] = {}
    for call in build_call_tree(leaves).walk():
        if _is_drawable(call):
            calls_by_structure.setdefault(call.compute_signature(), []).append(call)
    layers_by_name = {layer["name"]: layer for layer in leaves}
    return [_draw_block(calls, consumers, layers_by_name) for calls in calls_by_structure.values()]


def _is_drawable(call: ModuleCall) -> bool:
    """Return whether a block is more than a chain and small enough to be legible."""
    n_children, edges = len(call.children), call.find_edges()
    if not 2 <= n_children <= MAX_NODES or len(edges) > MAX_EDGES:
        return False
    return not is_chain(edges, n_children)


def _draw_block(
    calls: Sequence[ModuleCall], consumers: Mapping[str, Sequence[str]], layers: Mapping[str, Layer]
) -> BlockDiagram:
    """Draw the first of the blocks of one structure."""
    call = calls[0]
    similar = list(dict.fromkeys(other.path for other in calls[1:]))
    graph = _build_graph(call, consumers, layers)
    n_incoming = [sum(end == node for _, end in graph.edges) for node in range(len(graph.kinds))]
    boxes = [_measure_node(*node) for node in zip(graph.kinds, graph.lines, n_incoming, strict=True)]
    inputs = [node for node, kind in enumerate(graph.kinds) if kind == "input"]
    layout = layout_graph(boxes, graph.edges, inputs)
    routes = _spread_arrow_ends(layout.edge_routes, graph, boxes)
    return BlockDiagram(
        title=call.type or "Full network",
        name=call.path,
        similar_blocks=similar,
        caption=write_caption(calls, similar, [line for lines in graph.lines for line in lines]),
        notes=collect_notes(call),
        description=describe_graph(graph.lines, graph.edges),
        width=round(layout.width),
        height=round(layout.height),
        nodes=[
            _place_node(*node) for node in zip(graph.kinds, graph.lines, boxes, layout.positions, strict=True)
        ],
        edge_paths=[_format_edge_path(route) for route in routes],
        arrow_paths=[_format_arrow_path(route[-1]) for route in routes],
    )


# The graph


def _build_graph(
    call: ModuleCall, consumers: Mapping[str, Sequence[str]], layers: Mapping[str, Layer]
) -> Graph:
    """Build the graph of a block, with its inputs first and its outputs last."""
    graph = Graph()
    inside = {layer["name"] for layer in call.layers}
    sources = [name for layer in call.layers for name in layer.get("inputs", ()) if name not in inside]
    node_of = _add_inputs(graph, list(dict.fromkeys(sources)), layers, call.layers)
    for child in call.children:
        node = graph.add_node(*describe_child(child, call))
        for layer in get_layers(child):
            starts = [node_of.get(name, node) for name in layer.get("inputs", ())]
            graph.edges += [
                (start, node) for start in starts if start != node and (start, node) not in graph.edges
            ]
            node_of[layer["name"]] = node
    for layer in call.layers:
        users = consumers.get(layer["name"], [])
        if not users or not inside.issuperset(users):
            lines = [NodeLine("output", "name"), NodeLine(format_shape(layer["output_shape"]), "shape")]
            output = graph.add_node("output", lines)
            graph.edges.append((node_of[layer["name"]], output))
    return graph


def _add_inputs(
    graph: Graph, names: Sequence[str], layers: Mapping[str, Layer], inside: Sequence[Layer]
) -> dict[str, int]:
    """Add the inputs of a block, or one node for many inputs, and return the node of each."""
    if len(names) > MAX_INPUTS:
        lines = [NodeLine("input", "name"), NodeLine(f"from {len(names)} layers", "type")]
        return dict.fromkeys(names, graph.add_node("input", lines))
    node_of = {}
    for name in names:
        lines = [NodeLine("input", "name")]
        if name in layers:
            lines.append(NodeLine(f"from {name}", "type"))
            shape = layers[name]["output_shape"]
        else:
            shape = next(layer["input_shape"] for layer in inside if name in layer["inputs"])
        lines.append(NodeLine(format_shape(shape), "shape"))
        node_of[name] = graph.add_node("input", lines)
    return node_of


# The canvas


def _measure_node(kind: str, lines: Sequence[NodeLine], n_incoming: int) -> Box:
    """Measure the room that a node takes; a merge is as wide as the arrows that end at it."""
    if kind == "merge":  # its shape is written to the right of it
        sign, shape = lines
        half_sign = 6 + CHAR_WIDTH * len(sign.text) / 2 if len(sign.text) > 1 else 0
        half_width = max(MERGE_RADIUS, half_sign, ARROW_SPACING * (n_incoming - 1) / 2 + 5)
        return Box(half_width, half_width + 6 + CHAR_WIDTH * len(shape.text), 2 * MERGE_RADIUS)
    half_width = PADDING + CHAR_WIDTH * max(len(line.text) for line in lines) / 2
    return Box(half_width, half_width, LINE_HEIGHT * len(lines) + PADDING)


def _place_node(kind: str, lines: Sequence[NodeLine], box: Box, position: Point) -> Node:
    """Place a node, and its lines in it."""
    x, y = position
    left, top = round(x - box.left, 1), round(y, 1)
    if kind == "merge":
        (sign, _), (shape, _) = lines
        baseline, half_width = y + MERGE_RADIUS + 4, box.left
        texts = [
            _place_text(sign, x, baseline, "sign"),
            _place_text(shape, x + half_width + 6, baseline, "side-label"),
        ]
        return Node(kind, left, top, round(2 * half_width, 1), 2 * MERGE_RADIUS, texts)
    texts = [_place_text(line.text, x, y + LINE_HEIGHT * (n + 1), line.role) for n, line in enumerate(lines)]
    return Node(kind, left, top, round(box.left + box.right, 1), box.height, texts)


def _place_text(text: str, x: float, y: float, role: str) -> Text:
    """Round the position of a text."""
    return Text(text, round(x, 1), round(y, 1), role)


def _spread_arrow_ends(
    routes: Sequence[list[Point]], graph: Graph, boxes: Sequence[Box]
) -> list[list[Point]]:
    """Move the ends of the arrows that end at one node apart, in the order from left to right."""
    spread = list(routes)
    for node, box in enumerate(boxes):
        incoming = [n for n, (_, end) in enumerate(graph.edges) if end == node]
        incoming.sort(key=lambda n: routes[n][-3][0])
        width = 2 * box.left - 10
        spacing = min(ARROW_SPACING, width / max(1, len(incoming) - 1))
        for rank, edge in enumerate(incoming):
            shift = spacing * (rank - (len(incoming) - 1) / 2)
            (x, y), (_, bottom) = routes[edge][-2:]
            drop = 0.0
            if graph.kinds[node] == "merge":  # down to the round side of the node
                inward = max(0.0, abs(shift) - (box.left - MERGE_RADIUS))
                drop = MERGE_RADIUS - (MERGE_RADIUS**2 - inward**2) ** 0.5
            spread[edge] = [*routes[edge][:-2], (x + shift, y), (x + shift, bottom + drop)]
    return spread


def _format_edge_path(route: Sequence[Point]) -> str:
    """Write a route as an SVG path: straight within rows, S-shaped between them."""
    steps = [f"M{_format_point(route[0])}"]
    for n, (start, end) in enumerate(pairwise(route)):
        if n % 2 == 0 or start[0] == end[0]:
            if _format_point(end) != _format_point(start):
                steps.append(f"L{_format_point(end)}")
        else:
            middle = (start[1] + end[1]) / 2
            points = ((start[0], middle), (end[0], middle), end)
            steps.append(f"C{' '.join(map(_format_point, points))}")
    return " ".join(steps)


def _format_arrow_path(tip: Point) -> str:
    """Write an arrowhead that points down to its tip as an SVG path."""
    return f"M{_format_point((tip[0] - 3.5, tip[1] - ARROWHEAD_LENGTH))} h7 l-3.5 {ARROWHEAD_LENGTH:g}z"


def _format_point(point: Point) -> str:
    """Write a point with one decimal."""
    return f"{point[0]:.1f} {point[1]:.1f}"
