"""A network's blocks, each kind drawn once: the layers in it, and what flows from which to which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

from convatlas.gallery.diagrams.data_flow import format_shape
from convatlas.gallery.diagrams.layered_layout import Box, Point, layout_graph

MAX_NODES, MAX_EDGES = 24, 48  # that one drawing is legible with
MAX_INPUTS = 3  # that are drawn apart
MAX_LISTED_BLOCKS = 6  # blocks that a caption names
MAX_CHAIN_LINES = 4  # lines that a chain of layers is written in
CHAR_WIDTH, LINE_HEIGHT, PADDING = 6.7, 16.0, 9.0  # of text at 12 px
MERGE_RADIUS = 13.0  # of the round node where branches meet
ARROW_SPACING = 9.0  # between arrows that end at one node
ARROWHEAD_LENGTH = 6.0  # an arrow's head
OPERATOR_SIGNS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "matmul": "@", "bmm": "@"}
CONTAINER_TYPES = ("ModuleList", "ModuleDict")  # which only hold modules, and are never called

Layer = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """A line of a node: what it says, where, and which it is: name, type, shape or sign."""

    text: str
    x: float
    y: float
    role: str


@dataclass(frozen=True)
class Node:
    """One thing in a drawing, of a layer's `kind`, or "input", "output", "merge" (round) or "block"."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    texts: list[Text]


@dataclass(frozen=True)
class BlockDiagram:
    """A kind of block, on a canvas of its own; a template makes SVG of it.

    `lines` and `heads` are the `d` of SVG paths; `name` is the module that is drawn, "" for the network
    itself; `alike` are the other modules of its kind; `description` says in words what the lines show.
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
class ModuleCall:
    """A composite module's call: the layers in it, and those and the modules that it calls itself."""

    path: str
    type: str
    layers: list[Layer]
    children: list["ModuleCall | Layer"] = field(default_factory=list)

    def relative_name(self, name: str) -> str:
        """A name as it is within this module."""
        return name[len(self.path) + 1 :] if self.path else name


@dataclass
class Graph:
    """What a block's drawing shows: things with the lines written in them, and which leads to which."""

    kinds: list[str]
    texts: list[list[tuple[str, str]]]  # of each node: (text, what)
    edges: list[tuple[int, int]]

    def add_node(self, kind: str, texts: list[tuple[str, str]]) -> int:
        self.kinds.append(kind)
        self.texts.append(texts)
        return len(self.kinds) - 1


def draw_blocks(layers: Sequence[Layer]) -> list[BlockDiagram]:
    """Draw each kind of block in layers.json that is more than a chain, in the order in which they come.

    A block is a composite module's call, or the network itself, with 2 to MOST_NODES things in it: layers,
    chains of layers in a module of their own, and blocks. Two are of a kind if they have the same class,
    the same types of layers, and the same lines between them; their kernels, strides and sizes may differ.
    """
    called = _select_called_layers(layers)
    used = _find_consumers(called)
    kinds: dict[Any, list[ModuleCall]] = {}
    for part in _walk_calls(_build_call_tree("", "", called, 0)):
        edges = _find_edges(part)
        if _is_drawable(part, edges):
            kinds.setdefault(_compute_signature(part), []).append(part)
    return [_draw_block(parts, used, {layer["name"]: layer for layer in called}) for parts in kinds.values()]


def _select_called_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The layers that are called, less composite modules, whose layers stand for them."""
    called = [layer for layer in layers if layer["called"]]
    paths = [layer["module"].split(".") for layer in called]
    holds = {".".join(path[:n]) for path in paths for n in range(1, len(path))}
    return [layer for layer in called if layer["module"] not in holds or "/" in layer["name"]]


def _find_consumers(layers: Sequence[Layer]) -> dict[str, list[str]]:
    """The layers that use each layer's output."""
    used: dict[str, list[str]] = {}
    for layer in layers:
        for name in layer.get("inputs", ()):
            used.setdefault(name, []).append(layer["name"])
    return used


def _build_call_tree(path: str, type_name: str, layers: list[Layer], depth: int) -> ModuleCall:
    """Make the tree of calls below a module, `depth` of whose like lie on the way to it."""
    part = ModuleCall(path, type_name, layers)
    for inner, run in groupby(layers, key=lambda layer: _find_enclosing_modules(layer)[depth : depth + 1]):
        members = list(run)
        part.children += [_build_call_tree(*inner[0], members, depth + 1)] if inner else members
    return part


def _find_enclosing_modules(layer: Layer) -> list[tuple[str, str]]:
    """Path and class of the modules that a layer is called in, from the outermost."""
    parts, classes = layer["module"].split("."), layer.get("within", ())
    paths = [".".join(parts[: n + 1]) for n in range(len(classes))]
    return [(path, name) for path, name in zip(paths, classes, strict=True) if name not in CONTAINER_TYPES]


def _walk_calls(part: ModuleCall) -> Iterator[ModuleCall]:
    """A part and all in it, in the order in which they begin."""
    yield part
    for item in part.children:
        if isinstance(item, ModuleCall):
            yield from _walk_calls(item)


def _get_layers(item: ModuleCall | Layer) -> list[Layer]:
    return item.layers if isinstance(item, ModuleCall) else [item]


def _find_edges(part: ModuleCall) -> list[tuple[int, int]]:
    """Which of a part's items leads to which, each pair once; -1 stands for what lies outside."""
    place = {layer["name"]: n for n, item in enumerate(part.children) for layer in _get_layers(item)}
    edges = [
        (place.get(name, -1), n)
        for n, item in enumerate(part.children)
        for layer in _get_layers(item)
        for name in layer.get("inputs", ())
    ]
    return [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]


def _is_chain(edges: Sequence[tuple[int, int]], count: int) -> bool:
    return all(edge in [(n - 1, n) for n in range(count)] for edge in edges)


def _is_sequential(part: ModuleCall) -> bool:
    """Whether a part's layers, at any depth, each pass on to the next alone."""
    names = [layer["name"] for layer in part.layers]
    pairs = zip(part.layers[1:], names, strict=False)
    return all(layer.get("inputs") == [before] for layer, before in pairs)


def _is_drawable(part: ModuleCall, edges: Sequence[tuple[int, int]]) -> bool:
    count = len(part.children)
    return 2 <= count <= MAX_NODES and len(edges) <= MAX_EDGES and not _is_chain(edges, count)


def _compute_signature(part: ModuleCall) -> Any:
    """What blocks of a kind have in common."""
    if _is_sequential(part):
        return part.type, tuple(layer["type"] for layer in part.layers)
    items = tuple(
        _compute_signature(item) if isinstance(item, ModuleCall) else item["type"] for item in part.children
    )
    return part.type, items, tuple(_find_edges(part))


# The words.


def _draw_block(
    parts: list[ModuleCall], used: dict[str, list[str]], layers: dict[str, Layer]
) -> BlockDiagram:
    part, *others = parts
    alike = list(dict.fromkeys(other.path for other in others))
    graph = _build_graph(part, used, layers)
    return _layout_diagram(graph, part, alike, _write_caption(parts, alike, graph))


def _build_graph(part: ModuleCall, used: dict[str, list[str]], layers: dict[str, Layer]) -> Graph:
    """The things in a block, with its inputs before them and its outputs after them."""
    graph = Graph([], [], [])
    inside = {layer["name"] for layer in part.layers}
    given = [name for layer in part.layers for name in layer.get("inputs", ()) if name not in inside]
    source = _add_inputs(graph, list(dict.fromkeys(given)), layers, part.layers)
    for item in part.children:
        node = graph.add_node(*_describe_item(item, part))
        for layer in _get_layers(item):
            before = [source[name] for name in layer.get("inputs", ()) if source.get(name, node) != node]
            graph.edges += [(n, node) for n in before if (n, node) not in graph.edges]
            source[layer["name"]] = node
    for layer in part.layers:
        users = used.get(layer["name"], [])
        if not users or not inside.issuperset(users):
            output = graph.add_node(
                "output", [("output", "name"), (format_shape(layer["output_shape"]), "shape")]
            )
            graph.edges.append((source[layer["name"]], output))
    return graph


def _add_inputs(
    graph: Graph, names: list[str], layers: dict[str, Layer], inside: Sequence[Layer]
) -> dict[str, int]:
    """Add what a block is given; many inputs as one."""
    if len(names) > MAX_INPUTS:
        node = graph.add_node("input", [("input", "name"), (f"from {len(names)} layers", "type")])
        return dict.fromkeys(names, node)
    source = {}
    for name in names:
        if name in layers:
            origin, shape = f"from {name}", layers[name]["output_shape"]
        else:
            origin, shape = "", next(x["input_shape"] for x in inside if name in x["inputs"])
        texts = [("input", "name"), (origin, "type"), (format_shape(shape), "shape")]
        source[name] = graph.add_node("input", [(text, what) for text, what in texts if text])
    return source


def _describe_item(item: ModuleCall | Layer, part: ModuleCall) -> tuple[str, list[tuple[str, str]]]:
    """The kind of a thing in a block, and the lines written in it."""
    last = _get_layers(item)[-1]
    shape = (format_shape(last["output_shape"]), "shape")
    if not isinstance(item, ModuleCall):
        if item["kind"] == "merge":
            return "merge", [(OPERATOR_SIGNS.get(item["type"], item["type"]), "sign"), shape]
        return item["kind"], [*_describe_layer(item, part), shape]
    name = (part.relative_name(item.path), "name")
    if _is_sequential(item):
        return _choose_chain_kind(item.layers), [
            name,
            *((text, "type") for text in _describe_chain(item.layers)),
            shape,
        ]
    inner = {each.type if isinstance(each, ModuleCall) else "" for each in item.children}
    holds = f" of {len(item.children)} {next(iter(inner))}" if len(inner) == 1 and inner != {""} else ""
    return "block", [name, (f"{item.type}{holds}", "type"), shape]


def _describe_layer(layer: Layer, part: ModuleCall) -> list[tuple[str, str]]:
    name, kind = part.relative_name(layer["name"]), " ".join([layer["type"], *_describe_kernel(layer)])
    return [(name, "name")] if name.split(":")[0] == kind else [(name, "name"), (kind, "type")]


def _choose_chain_kind(layers: Sequence[Layer]) -> str:
    """The kind that a chain of layers is drawn as."""
    kinds = [layer["kind"] for layer in layers]
    return next((kind for kind in ("conv", "linear") if kind in kinds), kinds[0])


def _describe_chain(layers: Sequence[Layer]) -> list[str]:
    """A chain of layers in a few lines, each from a convolution or the like to the next."""
    segments: list[list[str]] = []
    for layer in layers:
        word = " ".join([_abbreviate_type(layer), *_describe_kernel(layer)])
        if not segments or layer["kind"] not in ("norm", "activation", "dropout"):
            segments.append([])
        segments[-1].append(word)
    lines = [" → ".join(segment) for segment in segments]
    if len(lines) > MAX_CHAIN_LINES:
        rest = sum(map(len, segments[MAX_CHAIN_LINES - 2 : -1]))
        lines = [*lines[: MAX_CHAIN_LINES - 2], f"{rest} more layers", lines[-1]]
    return lines


def _abbreviate_type(layer: Layer) -> str:
    if layer["kind"] == "conv":
        return "transposed conv" if "ranspose" in layer["type"] else "conv"
    return layer["kind"] if layer["kind"] in ("norm", "linear") else layer["type"]


def _describe_kernel(layer: Layer) -> Iterator[str]:
    """A layer's kernel, and its stride, dilation and groups, where they are not 1."""
    if isinstance(layer["kernel"], list):
        yield format_shape(layer["kernel"])
    own = layer["kernel"] if layer["kind"] == "pool" else None  # a pool's stride is its kernel, most often
    for letter, key in (("s", "stride"), ("d", "dilation"), ("g", "groups")):
        value = layer[key] if isinstance(layer[key], list) else [layer[key] or 1]
        if set(value) != {1} and not (letter == "s" and value == own):
            yield letter + (str(value[0]) if len(set(value)) == 1 else "×".join(map(str, value)))


def _write_caption(parts: list[ModuleCall], alike: list[str], graph: Graph) -> str:
    """Say which block is drawn, which others are like it, and what the letters mean."""
    first = parts[0]
    text = f"{first.path or 'The network'}: what each layer is computed from, and the size of what it makes."
    if alike:
        named, rest = alike[:MAX_LISTED_BLOCKS], len(alike) - MAX_LISTED_BLOCKS
        listed = ", ".join(named) + f" and {rest} more" if rest > 0 else _join_words(named)
        windows = [[list(_describe_kernel(layer)) for layer in part.layers] for part in parts]
        own = any(before != after for before, after in pairwise(windows))
        text += f" Alike: {listed}{', some with kernels or strides of their own' if own else ''}."
    shown = {word for texts in graph.texts for line, what in texts if what == "type" for word in line.split()}
    key = {"s": "s the stride", "d": "d the dilation", "g": "g the groups"}
    legend = [said for letter, said in key.items() if any(w[0] == letter and w[1:2].isdigit() for w in shown)]
    return f"{text} {'After a kernel’s size: ' + _join_words(legend) + '.' if legend else ''}".rstrip()


def _join_words(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _collect_notes(part: ModuleCall) -> list[str]:
    """What layers.json notes of the layers that a drawing shows itself, not those in blocks in it."""
    shown = [item for item in part.children if not isinstance(item, ModuleCall) or _is_sequential(item)]
    return [
        f"{layer['name']}: {note}" for item in shown for layer in _get_layers(item) for note in layer["notes"]
    ]


# The canvas.


def _layout_diagram(graph: Graph, part: ModuleCall, alike: list[str], caption: str) -> BlockDiagram:
    ends = [sum(to == n for _, to in graph.edges) for n in range(len(graph.kinds))]
    sizes = [_measure_node(*each) for each in zip(graph.kinds, graph.texts, ends, strict=True)]
    inputs = [n for n, kind in enumerate(graph.kinds) if kind == "input"]
    layout = layout_graph(sizes, graph.edges, inputs)
    nodes = [
        _place_node(kind, texts, size, place)
        for kind, texts, size, place in zip(graph.kinds, graph.texts, sizes, layout.positions, strict=True)
    ]
    ways = _spread_arrow_ends(layout.edge_routes, graph, sizes)
    return BlockDiagram(
        title=part.type or "The whole network",
        name=part.path,
        similar_blocks=alike,
        caption=caption,
        notes=_collect_notes(part),
        description=_describe_graph(graph),
        width=round(layout.width),
        height=round(layout.height),
        nodes=nodes,
        edge_paths=[_format_edge_path(way) for way in ways],
        arrow_paths=[_format_arrow_path(way[-1]) for way in ways],
    )


def _measure_node(kind: str, texts: list[tuple[str, str]], ends: int) -> Box:
    """The room that a node takes; a merge widens with the lines that end there."""
    if kind == "merge":  # its size stands to the right of it
        sign, shape = (text for text, _ in texts)
        half = max(
            MERGE_RADIUS,
            6 + CHAR_WIDTH * len(sign) / 2 if len(sign) > 1 else 0,
            ARROW_SPACING * (ends - 1) / 2 + 5,
        )
        return Box(half, half + 6 + CHAR_WIDTH * len(shape), 2 * MERGE_RADIUS)
    half = PADDING + CHAR_WIDTH * max(len(text) for text, _ in texts) / 2
    return Box(half, half, LINE_HEIGHT * len(texts) + PADDING)


def _place_node(kind: str, texts: list[tuple[str, str]], size: Box, place: Point) -> Node:
    x, y = place
    if kind == "merge":
        (sign, _), (shape, _) = texts
        middle, radius = y + MERGE_RADIUS + 4, size.left
        written = [_place_text(sign, x, middle, "sign"), _place_text(shape, x + radius + 6, middle, "beside")]
        return Node(kind, round(x - radius, 1), round(y, 1), round(2 * radius, 1), 2 * MERGE_RADIUS, written)
    written = [_place_text(text, x, y + LINE_HEIGHT * (n + 1), what) for n, (text, what) in enumerate(texts)]
    return Node(
        kind, round(x - size.left, 1), round(y, 1), round(size.left + size.right, 1), size.height, written
    )


def _place_text(text: str, x: float, y: float, what: str) -> Text:
    return Text(text, round(x, 1), round(y, 1), what)


def _spread_arrow_ends(ways: list[list[Point]], graph: Graph, sizes: Sequence[Box]) -> list[list[Point]]:
    """Let the arrows that end at one node end beside each other, in the order in which they come."""
    ported = list(ways)
    for end in range(len(graph.kinds)):
        ending = [n for n, (_, to) in enumerate(graph.edges) if to == end]
        ending.sort(key=lambda n: ways[n][-3][0])
        room = 2 * sizes[end].left - 10
        apart = min(ARROW_SPACING, room / max(1, len(ending) - 1))
        for n, way in enumerate(ending):
            shift = apart * (n - (len(ending) - 1) / 2)
            (x, y), (_, bottom) = ways[way][-2:]
            down = 0.0
            if graph.kinds[end] == "merge":  # down to where the round end begins
                inward = max(0.0, abs(shift) - (sizes[end].left - MERGE_RADIUS))
                down = MERGE_RADIUS - (MERGE_RADIUS**2 - inward**2) ** 0.5
            ported[way] = [*ways[way][:-2], (x + shift, y), (x + shift, bottom + down)]
    return ported


def _format_edge_path(way: Sequence[Point]) -> str:
    """A path straight down rows, and in an S from one to the next."""
    steps = [f"M{_format_point(way[0])}"]
    for n, (before, after) in enumerate(pairwise(way)):
        if n % 2 == 0 or before[0] == after[0]:
            steps += [f"L{_format_point(after)}"] if _format_point(after) != _format_point(before) else []
        else:
            middle = (before[1] + after[1]) / 2
            steps.append(
                f"C{_format_point((before[0], middle))} {_format_point((after[0], middle))} {_format_point(after)}"
            )
    return " ".join(steps)


def _format_arrow_path(end: Point) -> str:
    return f"M{_format_point((end[0] - 3.5, end[1] - ARROWHEAD_LENGTH))} h7 l-3.5 {ARROWHEAD_LENGTH:g}z"


def _format_point(point: Point) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _describe_graph(graph: Graph) -> str:
    """The drawing in words: what each thing is computed from."""
    names = [" ".join(text for text, what in texts if what != "type") for texts in graph.texts]
    told = []
    for node, name in enumerate(names):
        before = [names[start] for start, end in graph.edges if end == node]
        told += [f"{name}, from {' and '.join(before)}"] if before else []
    return "; ".join(told)
