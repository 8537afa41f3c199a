"""The diagrams of a network: its blocks on one page, and the inside of each block, level by level."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from convatlas.gallery.diagrams.block_text import describe_block
from convatlas.gallery.diagrams.blocks import OUTSIDE, Block, BlockGraph
from convatlas.gallery.diagrams.encoder_decoder import EncoderDecoder, find_encoder_decoder
from convatlas.gallery.diagrams.flow_layout import draw_flow
from convatlas.gallery.diagrams.folding import arrange, arrange_network, number_levels
from convatlas.gallery.diagrams.layered_layout import Edge
from convatlas.gallery.diagrams.nodes import NodeContent, NodeFactory
from convatlas.gallery.diagrams.picture import Picture
from convatlas.gallery.diagrams.u_layout import UGraph, draw_u
from convatlas.names import join_names, make_unique_name
from convatlas.records import Layer

MAX_ENDS = 3  # inputs, and outputs, that are drawn as nodes of their own
MAX_LEVEL_NODES = 100  # of the diagrams of blocks; a page of more would be slow to load
MAX_UNIT_NODES = 60  # up to which the layers of each unit have a diagram, and not only of those at the top
MAX_LISTED_BLOCKS = 6  # of the same structure
MAX_EDGES_PER_NODE = 2.5  # of a diagram; with more, connections past blocks are left out


@dataclass(frozen=True)
class FlowGraph:
    """The nodes of a diagram, pairs of them (from, to), and how many of those are left out."""

    contents: list[NodeContent]
    edges: list[Edge]
    n_omitted: int = 0

    @property
    def description(self) -> str:
        """Describe the data flow for readers who do not see it: the inputs of each node that has several."""
        labels = [content.sign or content.name for content in self.contents]
        inputs: dict[int, list[str]] = {}
        for start, end in self.edges:
            inputs.setdefault(end, []).append(labels[start])
        return "; ".join(f"{labels[end]} from {' and '.join(names)}" for end, names in inputs.items())


@dataclass(frozen=True)
class Level:
    """The diagram of the inside of a block.

    Attributes:
        anchor: Its id on the page.
        title: The path of the block, and what it consists of.
        label: The name of the block in the diagram around it.
        description: The data flow in words.
        wide: The diagram from left to right, which scrolls on a narrow page.
        note: What the diagram leaves out, and which blocks it stands for, too; "" if nothing.
        levels: The diagrams of the insides of its blocks.
    """

    anchor: str
    title: str
    label: str
    description: str
    wide: Picture
    note: str
    levels: list["Level"]

    def walk(self) -> Iterator["Level"]:
        """Yield this level and those within it."""
        yield self
        for level in self.levels:
            yield from level.walk()


@dataclass(frozen=True)
class NetworkDiagram:
    """The diagrams of a network.

    Attributes:
        wide: Its blocks for wide pages.
        narrow: Its blocks for narrow pages.
        compact: Its blocks with hardly any text.
        levels: The diagrams of the insides of its blocks.
        description: The data flow in words.
        is_encoder_decoder: Whether it is drawn as a U.
    """

    wide: Picture
    narrow: Picture
    compact: Picture
    levels: list[Level]
    description: str
    is_encoder_decoder: bool

    @cached_property
    def nodes(self) -> list[NodeContent]:
        """Return the nodes of all diagrams, those of the network first."""
        pictures = [level.wide for top in self.levels for level in top.walk()]
        return [*self.top_nodes, *(node.content for picture in pictures for node in picture.nodes)]

    @property
    def top_nodes(self) -> list[NodeContent]:
        """Return the nodes of the network's own diagram."""
        return [node.content for node in self.wide.nodes]


def draw_network(layers: Sequence[Layer]) -> NetworkDiagram:
    """Draw the diagrams of a network.

    Args:
        layers: layers.json.
    """
    return _DiagramBuilder(layers).build()


class _DiagramBuilder:
    """Builder of the diagrams of a network."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.graph = BlockGraph(layers)
        self.factory = NodeFactory(self.graph)
        self.encoder_decoder = find_encoder_decoder(self.graph)
        self.top = self.encoder_decoder.blocks if self.encoder_decoder else arrange_network(self.graph)
        # The blocks that the diagram of a block shows, by the block's identity
        self.arranged: dict[int, list[Block]] = {}
        self.insides: dict[int, list[Block]] = {}  # of the blocks that have one
        self.anchors: dict[int, str] = {}
        self.similar: dict[str, list[str]] = {}  # blocks that share a diagram, by its anchor
        self._choose_levels()

    def build(self) -> NetworkDiagram:
        """Draw all diagrams."""
        graph = self._build_graph(self.top, is_network=True)
        if self.encoder_decoder:
            u_graph = self._build_u_graph(graph, self.encoder_decoder)
            wide, narrow, compact = (draw_u(u_graph, size) for size in ("wide", "narrow", "compact"))
        else:
            wide, narrow, compact = (
                draw_flow(graph.contents, graph.edges, size) for size in ("wide", "narrow", "compact")
            )
        return NetworkDiagram(
            wide=wide,
            narrow=narrow,
            compact=compact,
            levels=self._build_levels(self.top, graph.contents),
            description=graph.description,
            is_encoder_decoder=self.encoder_decoder is not None,
        )

    def _choose_levels(self) -> None:
        """Choose the blocks whose insides are drawn, the outermost first, and name their anchors.

        Where the nodes would be too many, units within blocks are not opened, blocks of one structure share
        the diagram of the first, and the innermost have none.
        """
        blocks = self._list_openable(with_units=True)
        if self._count_nodes(blocks) > MAX_UNIT_NODES:
            blocks = self._list_openable(with_units=False)
        is_large = self._count_nodes(blocks) > MAX_LEVEL_NODES
        used: set[str] = set()
        shared: dict[int, str] = {}
        budget = MAX_LEVEL_NODES
        for block in blocks:
            signature = self.graph.compute_signature(block)
            cost = len(self.insides[id(block)]) + 1
            if is_large and (signature in shared or cost > budget):
                del self.insides[id(block)]
                if signature in shared:
                    self.anchors[id(block)] = shared[signature]
                    self.similar.setdefault(shared[signature], []).append(block.path.replace("–", " to "))
                continue
            budget -= cost
            anchor = make_unique_name(f"block-{block.path.replace('–', '-to-')}", used)
            self.anchors[id(block)] = shared[signature] = anchor

    def _list_openable(self, with_units: bool) -> list[Block]:
        """List the blocks that can be opened, the outermost first, and arrange their insides."""
        self.insides = {}
        openable: list[Block] = []
        level = [block for block in self.top if block.children]
        while level:
            openable += level
            for block in level:
                if id(block) not in self.arranged:
                    self.arranged[id(block)] = arrange(block.children, self.graph)
                self.insides[id(block)] = self.arranged[id(block)]
            inner = [child for block in level for child in self.insides[id(block)] if child.children]
            level = [block for block in inner if with_units or not block.is_unit]
        return openable

    def _count_nodes(self, blocks: Sequence[Block]) -> int:
        """Count the nodes of the diagrams of blocks, with an input each."""
        return sum(len(self.insides[id(block)]) + 1 for block in blocks)

    def _build_levels(self, blocks: Sequence[Block], contents: Sequence[NodeContent]) -> list[Level]:
        """Draw the insides of blocks."""
        labels = {id(content.block): content.name for content in contents if content.block}
        levels = []
        for block in blocks:
            if id(block) not in self.insides:
                continue
            inside = self.insides[id(block)]
            graph = self._build_graph(inside)
            levels.append(
                Level(
                    anchor=self.anchors[id(block)],
                    title=f"{block.path.replace('–', ' to ')}: {describe_block(block)}",
                    label=labels[id(block)],
                    description=graph.description,
                    wide=draw_flow(graph.contents, graph.edges, "wide"),
                    note=self._write_note(self.anchors[id(block)], graph.n_omitted),
                    levels=self._build_levels(inside, graph.contents),
                )
            )
        return levels

    def _write_note(self, anchor: str, n_omitted: int) -> str:
        """Write which other blocks a diagram stands for, and how many connections it leaves out."""
        names = self.similar.get(anchor, [])
        sentences = []
        if names:
            n_more = len(names) - MAX_LISTED_BLOCKS
            listed = (
                join_names(names)
                if n_more <= 0
                else f"{', '.join(names[:MAX_LISTED_BLOCKS])} and {n_more} more"
            )
            sentences.append(f"Same structure, with shapes of their own: {listed}.")
        if n_omitted:
            sentences.append(f"{n_omitted} connections past blocks are not drawn.")
        return " ".join(sentences)

    def _build_graph(self, blocks: Sequence[Block], is_network: bool = False) -> FlowGraph:
        """Build the graph of a diagram, with its inputs first, and the outputs of the network last."""
        edges = self.graph.find_edges(blocks)
        outside: dict[str, list[int]] = {}
        for edge in edges:
            if edge.start == OUTSIDE:
                for name in edge.sources:
                    outside.setdefault(name, []).append(edge.end)
        groups = [[name] for name in outside] if len(outside) <= MAX_ENDS else [list(outside)]
        contents: list[NodeContent] = []
        pairs: list[Edge] = []
        for group in groups:
            targets = list(dict.fromkeys(end for name in group for end in outside[name]))
            title = "input" if not is_network or len(groups) == 1 else group[0]
            users = [blocks[end] for end in targets]
            contents.append(self.factory.make_input(group, title, users))
            pairs += [(len(contents) - 1, end + len(groups)) for end in targets]
        contents += self.factory.make_blocks(blocks, self.anchors)
        offset = len(groups)
        pairs += [(edge.start + offset, edge.end + offset) for edge in edges if edge.start != OUTSIDE]
        if is_network:
            self._add_outputs(blocks, contents, pairs, offset)
        shown = _thin_edges(pairs, len(contents))
        return FlowGraph(contents, shown, len(pairs) - len(shown))

    def _add_outputs(
        self, blocks: Sequence[Block], contents: list[NodeContent], pairs: list[Edge], offset: int
    ) -> None:
        """Add the outputs of the network: the layers that no layer uses."""
        ends = [
            (number, layer["name"])
            for number, block in enumerate(blocks)
            for layer in block.layers
            if not self.graph.consumers.get(layer["name"])
        ]
        if len(ends) > MAX_ENDS:
            ends = ends[-1:]
        for n, (number, name) in enumerate(ends, 1):
            title = "output" if len(ends) == 1 else f"output {n}"
            pairs.append((number + offset, len(contents)))
            contents.append(self.factory.make_output([name], title))

    def _build_u_graph(self, graph: FlowGraph, network: EncoderDecoder) -> UGraph:
        """Build the graph of an encoder and a decoder."""
        shapes = [content.shape for content in graph.contents]
        sides = [self.graph.compute_resolution([int(n) for n in shape.split(" × ")]) for shape in shapes]
        n_inputs = sum(content.kind == "input" for content in graph.contents)
        bottom = network.bottom + n_inputs
        levels = number_levels([side or 1 for side in sides])
        joins = {}
        for start, end in graph.edges:
            if start < bottom < end and levels[start] == levels[end] and graph.contents[end].kind != "output":
                joins[start, end] = self._name_join(graph.contents[start], graph.contents[end])
        return UGraph(graph.contents, graph.edges, levels, bottom, joins)

    def _name_join(self, start: NodeContent, end: NodeContent) -> str:
        """Return the operation by which a block joins the output of another, "" where a module does."""
        if start.block is None or end.block is None:
            return ""
        names = {layer["name"] for layer in start.block.layers}
        users = [layer for layer in end.block.layers if names & set(layer["inputs"])]
        return next((layer["type"] for layer in users if layer["kind"] == "merge"), "")


def _thin_edges(edges: Sequence[Edge], n_nodes: int) -> list[Edge]:
    """Return the edges, or, where they are many, those from the nearest node to each and one out of each.

    Args:
        edges: Pairs of nodes (from, to).
        n_nodes: Number of nodes.
    """
    if len(edges) <= MAX_EDGES_PER_NODE * n_nodes:
        return list(edges)
    nearest = {end: max(start for start, other in edges if other == end) for _, end in edges}
    shown = {(start, end) for end, start in nearest.items()}
    with_way_out = {start for start, _ in shown}
    for start, end in edges:
        if start not in with_way_out:
            shown.add((start, end))
            with_way_out.add(start)
    return [edge for edge in edges if edge in shown]
