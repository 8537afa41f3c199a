"""The nodes of a diagram: a stack of maps as large as their resolution, and the words below or beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from convatlas.gallery.diagrams.block_text import (
    OPERATOR_SIGNS,
    describe_block,
    name_blocks,
    shorten_type,
    wrap_text,
    write_tooltip,
)
from convatlas.gallery.diagrams.blocks import Block, BlockGraph
from convatlas.names import format_shape

# Lengths in pixels of the SVG
MAX_SIDE, MIN_SIDE = 72.0, 24.0  # of the maps with the highest resolution, and of the smallest maps
SIDE_EXPONENT = 0.22  # sides grow with this power of the resolution, so that low ones remain legible
VECTOR_WIDTH, MIN_VECTOR_HEIGHT, MAX_VECTOR_HEIGHT = 13.0, 24.0, 64.0
MIN_SHORT_SIDE = 10.0  # of maps that are not square
SHEET_OFFSET = 3.0  # between maps of a stack
SHEETS_BY_CHANNELS = (1, 4, 32, 128)  # one sheet more beyond each of them
MAX_SHEETS, MAX_COMPACT_SHEETS = len(SHEETS_BY_CHANNELS) + 1, 3
CHAR_WIDTH = 6.6  # of a line of text of any role, by which its room is estimated
CHAR_WIDTHS = {"name": 6.9, "detail": 6.1, "shape": 6.1}
RESULT_CHARS, RESULT_WIDTH = 14, 92.0  # of a line of the result below an output

Orientation = Literal["wide", "narrow", "compact"]


@dataclass(frozen=True)
class Glyph:
    """The picture of a node: the front map, and how many maps the stack has."""

    width: float
    height: float
    sheets: int

    @property
    def depth(self) -> float:
        """Return how far the stack reaches above and to the right of the front map."""
        return SHEET_OFFSET * (self.sheets - 1)


@dataclass(frozen=True)
class NodeContent:
    """What a node shows.

    Attributes:
        kind: The kind of its layer, "block", "input" or "output".
        name: Its name in the diagram.
        detail: What it consists of.
        shape: The shape of its output.
        channels: The number of channels or units of its output.
        tooltip: What a pointer over it shows.
        glyph: Its picture.
        layers: The layers one of whose maps it may show, the best first; "input" is the network's input.
        block: The block, unless it is an input or output.
        anchor: The id of the diagram of its inside; "" without one.
    """

    kind: str
    name: str
    detail: str
    shape: str
    channels: str
    tooltip: str
    glyph: Glyph
    layers: list[str]
    block: Block | None = None
    anchor: str = ""

    @property
    def sign(self) -> str:
        """Return the sign of an operation that joins several inputs, "" of other nodes."""
        if self.kind != "merge" or self.block is None:
            return ""
        return OPERATOR_SIGNS.get(self.block.main_layer["type"], self.block.main_layer["type"])

    def wrap_lines(self, max_chars: int) -> list[tuple[str, str]]:
        """Return the lines of text, each with its role: name, detail or shape.

        Args:
            max_chars: The greatest length of a line.
        """
        if self.kind == "output":  # the page writes the result for the image that it shows
            return [(self.name, "name"), ("", "result"), ("", "result")]
        names = [] if self.sign else wrap_text(self.name, max_chars - 1, 2)
        details = [] if self.detail in ("", self.name) else wrap_text(self.detail, max_chars, 3)
        shape = self.shape if len(self.shape) <= max_chars else self.shape.replace(" ", "")
        shapes = wrap_text(shape, max_chars, 2) if shape else []
        roles = (("name", names), ("detail", details), ("shape", shapes))
        return [(line, role) for role, lines in roles for line in lines]


def scale_glyphs(
    contents: Sequence[NodeContent], scale: float, max_sheets: int = MAX_SHEETS
) -> list[NodeContent]:
    """Return nodes with smaller pictures.

    Args:
        contents: The nodes.
        scale: The factor.
        max_sheets: The greatest number of maps in a stack.
    """
    return [
        replace(
            content,
            glyph=Glyph(
                round(content.glyph.width * scale, 1),
                round(content.glyph.height * scale, 1),
                min(max_sheets, content.glyph.sheets),
            ),
        )
        for content in contents
    ]


def measure_text(lines: Sequence[tuple[str, str]]) -> float:
    """Return the width of lines of text.

    Args:
        lines: Each line and its role.
    """
    widths = [RESULT_WIDTH if role == "result" else CHAR_WIDTHS[role] * len(line) for line, role in lines]
    return max(widths, default=0.0)


class NodeFactory:
    """Maker of the nodes of a network's diagrams, on one scale.

    Args:
        graph: The network.
    """

    def __init__(self, graph: BlockGraph) -> None:
        self.graph = graph
        shapes = [layer[key] for layer in graph.layers for key in ("input_shape", "output_shape")]
        sides = [max(shape[1:]) for shape in shapes if graph.compute_resolution(shape)]
        self.max_side = max(sides, default=1)

    def make_blocks(self, blocks: Sequence[Block], anchors: Mapping[int, str]) -> list[NodeContent]:
        """Make the nodes of the blocks of one diagram.

        Args:
            blocks: The blocks.
            anchors: The id of the diagram of the inside of a block, by the block's identity.
        """
        return [
            NodeContent(
                kind=_choose_kind(block),
                name=name,
                detail=_describe_node(block),
                shape=format_shape(block.output["output_shape"]),
                channels=str(block.output["output_shape"][0]) if block.output["output_shape"] else "",
                tooltip=write_tooltip(block, name),
                glyph=self.make_glyph(block.output["output_shape"]),
                layers=[block.output["name"], *(layer["name"] for layer in reversed(block.layers))],
                block=block,
                anchor=anchors.get(id(block), ""),
            )
            for block, name in zip(blocks, name_blocks(blocks), strict=True)
        ]

    def make_input(self, names: Sequence[str], title: str, users: Sequence[Block]) -> NodeContent:
        """Make the node of an input of a diagram.

        Args:
            names: The layers outside of the diagram that it stands for, or inputs of the network.
            title: What it is called.
            users: The blocks that it leads to.
        """
        layer = self.graph.by_name.get(names[-1])
        if layer:
            shape = layer["output_shape"]
        else:
            inner = [layer for block in users for layer in block.layers]
            shape = next((layer["input_shape"] for layer in inner if names[-1] in layer["inputs"]), [])
        detail = "" if not layer else f"from {names[-1]}" if len(names) == 1 else f"from {len(names)} layers"
        return self._make_end("input", title, detail, shape, [names[-1]])

    def make_output(self, names: Sequence[str], title: str) -> NodeContent:
        """Make the node of an output of the network.

        Args:
            names: The layers that it stands for.
            title: What it is called.
        """
        shape = self.graph.by_name[names[-1]]["output_shape"]
        return self._make_end("output", title, "", shape, [names[-1]])

    def make_glyph(self, shape: Sequence[int]) -> Glyph:
        """Make the picture of an output.

        Args:
            shape: Its shape.
        """
        if self.graph.compute_resolution(shape) is None or math.prod(shape[1:]) == 1:
            size = max(shape, default=1)
            height = MIN_VECTOR_HEIGHT + (MAX_VECTOR_HEIGHT - MIN_VECTOR_HEIGHT) * min(
                1, math.log2(1 + size) / 12
            )
            return Glyph(VECTOR_WIDTH, round(height, 1), 1)
        height, width = (1, *shape[1:])[-2:]
        long, short = max(height, width), min(height, width)
        side = max(MIN_SIDE, MAX_SIDE * (long / self.max_side) ** SIDE_EXPONENT)
        other = max(MIN_SHORT_SIDE, side * short / long)
        sheets = 1 + sum(shape[0] > limit for limit in SHEETS_BY_CHANNELS)
        if height >= width:
            return Glyph(round(other, 1), round(side, 1), sheets)
        return Glyph(round(side, 1), round(other, 1), sheets)

    def _make_end(
        self, kind: str, title: str, detail: str, shape: Sequence[int], layers: list[str]
    ) -> NodeContent:
        """Make the node of an input or output."""
        text = format_shape(shape)
        channels = str(shape[0]) if shape else ""
        glyph = replace(self.make_glyph(shape), sheets=1)
        tooltip = "\n".join(filter(None, (title, detail, text)))
        return NodeContent(kind, title, detail, text, channels, tooltip, glyph, layers)


def _choose_kind(block: Block) -> str:
    """Choose the kind as which a block is drawn: that of a unit's main layer, or "block"."""
    return block.main_layer["kind"] if block.is_unit else "block"


def _describe_node(block: Block) -> str:
    """Describe a block in its diagram: of an operation that joins inputs, only what is attached to it."""
    if block.is_unit and block.main_layer["kind"] == "merge":
        return ", ".join(shorten_type(layer) for layer in block.layers[1:])
    return describe_block(block)
