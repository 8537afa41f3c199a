"""The diagram of an encoder and a decoder: a U, with the skip connections across."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convatlas.gallery.diagrams.layered_layout import Edge, Point
from convatlas.gallery.diagrams.nodes import (
    CHAR_WIDTH,
    MAX_COMPACT_SHEETS,
    NodeContent,
    Orientation,
    measure_text,
    scale_glyphs,
)
from convatlas.gallery.diagrams.picture import (
    LINE_HEIGHT,
    TEXT_GAP,
    Node,
    Picture,
    Text,
    format_arrow,
    format_point,
    place_text_below,
)

# Lengths in pixels of the SVG
MARGIN = 8.0
PITCH = {"wide": 84.0, "compact": 38.0}  # between levels
MIN_COLUMN = {"wide": 76.0, "compact": 30.0}
PAGE_WIDTH = {"wide": 1134.0, "compact": 500.0}
COMPACT_SCALE = 0.45
TURN_SHIFT = 5.0  # between the ways down to the turn and up from it
SKIP_SHIFT = 5.0  # of a skip connection above the middle of a map
FLOW_SHIFT = 6.0  # of the way down and up below it
CORNER = 6.0
NARROW_WIDTH, NARROW_COLUMN, NARROW_CHARS = 326.0, 82.0, 22
NARROW_GAP = 24.0  # between the text of a node and the next one


@dataclass(frozen=True)
class UGraph:
    """The nodes of an encoder and a decoder.

    Attributes:
        contents: The input, the blocks and the output, in execution order.
        edges: Pairs of nodes (from, to).
        levels: The level of each node, 0 at the top.
        bottom: The number of the node at the turn.
        joins: How the skip connection ends, as "cat", by its edge.
    """

    contents: Sequence[NodeContent]
    edges: Sequence[Edge]
    levels: Sequence[int]
    bottom: int
    joins: dict[Edge, str]


def draw_u(graph: UGraph, orientation: Orientation) -> Picture:
    """Draw an encoder and a decoder.

    Args:
        graph: The nodes.
        orientation: "wide" or "compact", one column for each node; "narrow", two columns.
    """
    if orientation == "narrow":
        return _build_folded(graph)
    if orientation == "compact":
        graph = replace(graph, contents=scale_glyphs(graph.contents, COMPACT_SCALE, MAX_COMPACT_SHEETS))
    pitch = PITCH[orientation]
    column = max(MIN_COLUMN[orientation], min(110.0, PAGE_WIDTH[orientation] / len(graph.contents)))
    lines = [_choose_lines(content, orientation, column) for content in graph.contents]
    top = MARGIN + max(content.glyph.height / 2 + content.glyph.depth for content in graph.contents)
    centres = [(MARGIN + column * (n + 0.5), top + pitch * level) for n, level in enumerate(graph.levels)]
    nodes = [_place_node(*item, column / 2 - 2) for item in zip(graph.contents, lines, centres, strict=True)]
    bottom_edge = max(node.area[1] + node.area[3] for node in nodes)
    drawn = _draw_edges(graph, nodes, centres)
    return Picture(
        width=round(2 * MARGIN + column * len(nodes)),
        height=round(bottom_edge + MARGIN),
        nodes=nodes,
        lines=drawn.lines,
        arrows=drawn.arrows,
        skips=drawn.skips,
        texts=drawn.texts if orientation == "wide" else [],
    )


@dataclass(frozen=True)
class _Edges:
    """The paths of the edges, and the words at the ends of skip connections."""

    lines: list[str]
    arrows: list[str]
    skips: list[str]
    texts: list[Text]


def _choose_lines(content: NodeContent, orientation: Orientation, column: float) -> list[tuple[str, str]]:
    """Choose the lines of text below a node."""
    if orientation == "compact":
        return [(content.channels, "shape")] if content.channels else []
    return content.wrap_lines(int((column - 4) / CHAR_WIDTH))


def _place_node(
    content: NodeContent, lines: Sequence[tuple[str, str]], centre: Point, half_width: float
) -> Node:
    """Place a node with its text below it."""
    (x, y), glyph = centre, content.glyph
    width = max(12.0, min(half_width, measure_text(lines) / 2 + 2))
    texts, area = place_text_below(lines, x, y + glyph.height / 2 + TEXT_GAP, width)
    return Node(content, round(x - glyph.width / 2, 1), round(y - glyph.height / 2, 1), texts, area)


def _draw_edges(graph: UGraph, nodes: Sequence[Node], centres: Sequence[Point]) -> _Edges:
    """Draw the way down and up with one corner in each step, and the skip connections straight across."""
    drawn = _Edges([], [], [], [])
    for start, end in graph.edges:
        (x0, y0), (x1, y1) = centres[start], centres[end]
        source, target = nodes[start], nodes[end]
        right = _get_side(source, True)
        left = target.x - 2
        is_skip = (start, end) in graph.joins
        if graph.levels[start] == graph.levels[end]:
            is_alone = end == start + 1 and sum(other == end for _, other in graph.edges) == 1
            y = y0 - SKIP_SHIFT if is_skip else y0 if is_alone else y0 + FLOW_SHIFT
            path = f"M{format_point((right, y))}H{round(left - 4, 1):g}"
            (drawn.skips if is_skip else drawn.lines).append(path)
            drawn.arrows.append(format_arrow((left, y), "right"))
            if is_skip:
                drawn.texts.append(
                    Text(graph.joins[start, end], round(left - 20, 1), round(y - 5, 1), "label")
                )
        elif y1 > y0:
            y = y0 + min(FLOW_SHIFT, source.content.glyph.height / 4)
            tip = target.y - target.content.glyph.depth - 2
            x1 -= TURN_SHIFT if end == graph.bottom else 0
            drawn.lines.append(
                f"M{format_point((right, y))}H{round(x1 - CORNER, 1):g}q{CORNER:g} 0 {CORNER:g} {CORNER:g}"
                f"V{round(tip - 4, 1):g}"
            )
            drawn.arrows.append(format_arrow((x1, tip), "down"))
        else:
            y = y1 + min(FLOW_SHIFT, target.content.glyph.height / 4)
            foot = source.y - source.content.glyph.depth - 2
            x0 += TURN_SHIFT if start == graph.bottom else 0
            drawn.lines.append(
                f"M{format_point((x0, foot))}V{round(y + CORNER, 1):g}q0 -{CORNER:g} {CORNER:g} -{CORNER:g}"
                f"H{round(left - 4, 1):g}"
            )
            drawn.arrows.append(format_arrow((left, y), "right"))
    return drawn


# In two columns: the way down on the left, the way up on the right


def _build_folded(graph: UGraph) -> Picture:
    """Place the nodes of the encoder below one another, and those of the decoder on the same levels."""
    lines = [content.wrap_lines(NARROW_CHARS) for content in graph.contents]
    rows = _assign_rows(graph)
    centres: list[Point] = [(0.0, 0.0)] * len(rows)
    top = MARGIN
    for number in range(max(rows) + 1):
        members = [n for n, row in enumerate(rows) if row == number]
        glyphs = [graph.contents[n].glyph for n in members]
        rise = max(glyph.height / 2 + glyph.depth for glyph in glyphs)
        for n in members:
            centres[n] = (_choose_column(n, graph.bottom), top + rise)
        fall = max(
            glyph.height / 2 + TEXT_GAP + LINE_HEIGHT * len(lines[n])
            for n, glyph in zip(members, glyphs, strict=True)
        )
        top += rise + fall + NARROW_GAP
    half = NARROW_COLUMN - 4
    nodes = [_place_node(*item, half) for item in zip(graph.contents, lines, centres, strict=True)]
    drawn = _draw_folded_edges(graph, nodes, centres)
    height = round(top - NARROW_GAP + MARGIN)
    return Picture(round(NARROW_WIDTH), height, nodes, drawn.lines, drawn.arrows, drawn.skips, drawn.texts)


def _choose_column(node: int, bottom: int) -> float:
    """Return the middle of the column of a node: on the left before the turn, on the right after it."""
    if node == bottom:
        return NARROW_WIDTH / 2
    return NARROW_COLUMN if node < bottom else NARROW_WIDTH - NARROW_COLUMN


def _assign_rows(graph: UGraph) -> list[int]:
    """Return the row of each node: the levels, and a row for each further node of a level on one side."""
    rows = [0] * len(graph.contents)
    first = 0
    for level in sorted(set(graph.levels)):
        members = [n for n, other in enumerate(graph.levels) if other == level]
        left = [n for n in members if n <= graph.bottom]
        right = [n for n in members if n > graph.bottom][::-1]
        depth = max(len(left), len(right))
        for side in (left, right):
            for n, node in enumerate(side):
                rows[node] = first + depth - len(side) + n
        first += depth
    return rows


def _draw_folded_edges(graph: UGraph, nodes: Sequence[Node], centres: Sequence[Point]) -> _Edges:
    """Draw the steps down, the turn, the steps up and the skip connections across."""
    drawn = _Edges([], [], [], [])
    for start, end in graph.edges:
        (x0, y0), (x1, y1) = centres[start], centres[end]
        source, target = nodes[start], nodes[end]
        below = source.area[1] + source.area[3]
        right = _get_side(source, True)
        if (start, end) in graph.joins:
            drawn.skips.append(f"M{format_point((right, y0))}H{round(target.x - 6, 1):g}")
            drawn.arrows.append(format_arrow((target.x - 2, y1), "right"))
            drawn.texts.append(
                Text(graph.joins[start, end], round((right + target.x) / 2, 1), round(y0 - 5, 1), "label")
            )
        elif end == graph.bottom and x0 < x1:
            drawn.lines.append(f"M{format_point((x0, below))}V{round(y1, 1):g}H{round(target.x - 6, 1):g}")
            drawn.arrows.append(format_arrow((target.x - 2, y1), "right"))
        elif x0 == x1 and end != start + 1:  # past others of the column, on its outer side
            is_right = x0 > NARROW_WIDTH / 2
            edge = NARROW_WIDTH - 4 if is_right else 4
            leave, tip = (_get_side(node, is_right) for node in (source, target))
            near = tip + 4 if is_right else tip - 4
            drawn.lines.append(f"M{format_point((leave, y0))}H{edge:g}V{round(y1, 1):g}H{round(near, 1):g}")
            drawn.arrows.append(format_arrow((tip, y1), "left" if is_right else "right"))
        elif x0 == x1 and y1 > y0:
            tip = target.y - target.content.glyph.depth - 2
            drawn.lines.append(f"M{format_point((x0, below))}V{round(tip - 4, 1):g}")
            drawn.arrows.append(format_arrow((x1, tip), "down"))
        elif x0 <= x1 and y1 < y0:
            tip = target.area[1] + target.area[3] + 1
            foot = (right, y0) if x0 < x1 else (x0, source.y - source.content.glyph.depth - 2)
            turn = f"H{round(x1, 1):g}" if x0 < x1 else ""
            drawn.lines.append(f"M{format_point(foot)}{turn}V{round(tip + 4, 1):g}")
            drawn.arrows.append(format_arrow((x1, tip), "up"))
        else:
            drawn.skips.append(f"M{format_point((right, y0))}L{format_point((target.x - 6, y1))}")
            drawn.arrows.append(format_arrow((target.x - 2, y1), "right"))
    return drawn


def _get_side(node: Node, is_right: bool) -> float:
    """Return where lines begin and end at the right or left side of a node."""
    return node.x + node.content.glyph.width + node.content.glyph.depth + 2 if is_right else node.x - 2
