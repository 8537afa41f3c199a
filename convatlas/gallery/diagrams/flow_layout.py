"""Diagrams of any graph: from left to right on wide pages, from top to bottom on narrow ones."""

from collections.abc import Sequence

from convatlas.gallery.diagrams.layered_layout import Box, Edge, GraphLayout, Point, layout_graph
from convatlas.gallery.diagrams.nodes import (
    CHAR_WIDTH,
    MAX_COMPACT_SHEETS,
    MAX_SHEETS,
    NodeContent,
    Orientation,
    measure_text,
    scale_glyphs,
)
from convatlas.gallery.diagrams.picture import (
    BADGE_GAP,
    BADGE_HEIGHT,
    LINE_HEIGHT,
    TEXT_GAP,
    Node,
    Picture,
    Text,
    format_arrow,
    format_route,
    measure_badge,
    place_text_below,
)

PAGE_WIDTH, COMPACT_WIDTH = 1150.0, 510.0
WIDE_SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the pictures; the first with which a diagram fits is taken
COMPACT_SCALES = (0.75, 0.65, 0.55, 0.45, 0.35)
NARROW_SCALE = 0.8
MIN_CHARS, MAX_CHARS = 11, 19  # of a line below a node
NARROW_CHARS = 30  # of a line beside a node
CHAIN_GAP, BRANCH_GAP, COMPACT_GAP = 10.0, 26.0, 3.0  # between columns
NARROW_GAP = 20.0  # between rows
MAX_EXTRA_GAP = 30.0  # between the columns of a short chain
COMPACT_TEXT_GAP = 6.0  # between texts
MIN_ARROW = 10.0  # half of the least distance between two pictures


def draw_flow(contents: Sequence[NodeContent], edges: Sequence[Edge], orientation: Orientation) -> Picture:
    """Draw a graph.

    Args:
        contents: The nodes, in an order in which every edge leads to a later node.
        edges: Pairs of nodes (from, to).
        orientation: "wide" with text below the nodes, "compact" with the number of channels alone, or
            "narrow" with text beside the nodes.
    """
    inputs = [n for n, content in enumerate(contents) if content.kind == "input"]
    if orientation == "narrow":
        contents = scale_glyphs(contents, NARROW_SCALE)
        lines = [content.wrap_lines(NARROW_CHARS) for content in contents]
        boxes = [_measure_row(content, text) for content, text in zip(contents, lines, strict=True)]
        return _build_narrow(contents, lines, edges, layout_graph(boxes, edges, inputs, row_gap=NARROW_GAP))
    is_compact = orientation == "compact"
    is_chain = all(end == start + 1 for start, end in edges)
    gap = COMPACT_GAP if is_compact else CHAIN_GAP if is_chain else BRANCH_GAP
    n_columns = _count_columns(contents, edges)
    room = COMPACT_WIDTH if is_compact else PAGE_WIDTH
    for scale in COMPACT_SCALES if is_compact else WIDE_SCALES:
        drawn = scale_glyphs(contents, scale, MAX_COMPACT_SHEETS if is_compact else MAX_SHEETS)
        lines = _choose_lines(drawn, room / n_columns - gap, orientation)
        half = max(content.glyph.height for content in drawn) / 2
        boxes = [_measure_column(*item, half, is_compact) for item in zip(drawn, lines, strict=True)]
        layout = layout_graph(boxes, edges, inputs, row_gap=gap, node_gap=14)
        if layout.height <= room:
            break
    if is_chain and not is_compact and len(contents) > 1:
        gap += min(MAX_EXTRA_GAP, max(0.0, room - layout.height) / (len(contents) - 1))
        layout = layout_graph(boxes, edges, inputs, row_gap=gap)
    return _build_wide(drawn, lines, edges, layout, half)


def _count_columns(contents: Sequence[NodeContent], edges: Sequence[Edge]) -> int:
    """Return the number of nodes on the longest way."""
    ranks = [0] * len(contents)
    for start, end in sorted(edges):
        ranks[end] = max(ranks[end], ranks[start] + 1)
    return max(ranks) + 1


def _choose_lines(
    contents: Sequence[NodeContent], column: float, orientation: Orientation
) -> list[list[tuple[str, str]]]:
    """Choose the lines of text below each node, as long as the columns allow."""
    if orientation == "compact":
        lines = [[(content.channels, "shape")] for content in contents]
        return [line if measure_text(line) <= column else [] for line in lines]
    max_chars = min(MAX_CHARS, max(MIN_CHARS, int(column / CHAR_WIDTH)))
    return [content.wrap_lines(max_chars) for content in contents]


# From left to right: the layout of rows is transposed


def _measure_column(
    content: NodeContent, lines: Sequence[tuple[str, str]], half_height: float, is_compact: bool
) -> Box:
    """Measure a node: its extent above and below the line of its middle, and the width of its column."""
    glyph = content.glyph
    arrow = MIN_ARROW / 2 if is_compact else MIN_ARROW
    width = glyph.width + 2 * max(glyph.depth, _extend(content)) + 2 * arrow
    below = half_height + TEXT_GAP + LINE_HEIGHT * len(lines)
    text_width = measure_text(lines) + (COMPACT_TEXT_GAP if is_compact and lines else 0.0)
    return Box(glyph.height / 2 + glyph.depth, below, max(text_width, width))


def _extend(content: NodeContent) -> float:
    """Return the room that the sign of a node takes before its picture."""
    width = measure_badge(content)
    return width + BADGE_GAP if width else 0.0


def _build_wide(
    contents: Sequence[NodeContent],
    lines: Sequence[Sequence[tuple[str, str]]],
    edges: Sequence[Edge],
    layout: GraphLayout,
    half_height: float,
) -> Picture:
    """Place nodes and edges from left to right."""
    nodes = []
    for content, text, (y, left), box_width in zip(
        contents, lines, layout.positions, layout.heights, strict=True
    ):
        x, glyph = left + box_width / 2, content.glyph
        top = y + half_height + TEXT_GAP
        texts, area = place_text_below(text, x, top, max(measure_text(text), 24.0) / 2)
        badge = None
        if content.sign:
            badge = (
                round(x - glyph.width / 2 - _extend(content) / 2 - 1, 1),
                round(y, 1),
                measure_badge(content),
            )
        node_left, node_top = round(x - glyph.width / 2, 1), round(y - glyph.height / 2, 1)
        nodes.append(Node(content, node_left, node_top, texts, area, badge))
    routes = []
    for (start, end), route in zip(edges, layout.edge_routes, strict=True):
        points: list[Point] = [(y, x) for x, y in route]
        source, target = nodes[start], nodes[end]
        glyph = source.content.glyph
        points[0] = (source.x + glyph.width + glyph.depth + 2, points[0][1])
        points[-1] = (target.x - _extend(target.content) - 2, points[-1][1])
        routes.append(points)
    return Picture(
        width=round(layout.height),
        height=round(layout.width),
        nodes=nodes,
        lines=[format_route([*route[:-1], (route[-1][0] - 4, route[-1][1])], True) for route in routes],
        arrows=list(dict.fromkeys(format_arrow(route[-1], "right") for route in routes)),
        skips=[],
        texts=[],
    )


# From top to bottom


def _measure_row(content: NodeContent, lines: Sequence[tuple[str, str]]) -> Box:
    """Measure a node: its extent to the left and right of the line of its middle, and its height."""
    glyph = content.glyph
    right = glyph.width / 2 + glyph.depth + TEXT_GAP + 3 + measure_text(lines)
    before = BADGE_HEIGHT + BADGE_GAP if content.sign else 0.0
    height = before + glyph.depth + max(glyph.height, LINE_HEIGHT * len(lines))
    return Box(max(glyph.width, measure_badge(content)) / 2, right, height)


def _build_narrow(
    contents: Sequence[NodeContent],
    lines: Sequence[Sequence[tuple[str, str]]],
    edges: Sequence[Edge],
    layout: GraphLayout,
) -> Picture:
    """Place nodes and edges from top to bottom."""
    nodes = []
    for content, text, (x, top) in zip(contents, lines, layout.positions, strict=True):
        glyph = content.glyph
        before = BADGE_HEIGHT + BADGE_GAP if content.sign else 0.0
        y = top + before + glyph.depth
        left = x + glyph.width / 2 + glyph.depth + TEXT_GAP + 3
        first = y + max(0.0, (glyph.height - LINE_HEIGHT * len(text)) / 2)
        texts = [
            Text(line, round(left, 1), round(first + LINE_HEIGHT * (n + 1) - 3, 1), role)
            for n, (line, role) in enumerate(text)
        ]
        area = (
            round(left - 3, 1),
            round(first - 1, 1),
            round(measure_text(text) + 6, 1),
            LINE_HEIGHT * len(text) + 2,
        )
        badge = (
            (round(x, 1), round(top + BADGE_HEIGHT / 2, 1), measure_badge(content)) if content.sign else None
        )
        nodes.append(Node(content, round(x - glyph.width / 2, 1), round(y, 1), texts, area, badge))
    routes = []
    for (start, end), route in zip(edges, layout.edge_routes, strict=True):
        points = list(route)
        source, target = nodes[start], nodes[end]
        points[0] = (points[0][0], source.y + source.content.glyph.height + 2)
        rise = target.content.glyph.depth + (BADGE_HEIGHT + BADGE_GAP if target.badge else 0)
        points[-1] = (points[-1][0], target.y - rise - 2)
        routes.append(points)
    return Picture(
        width=round(layout.width),
        height=round(layout.height),
        nodes=nodes,
        lines=[format_route([*route[:-1], (route[-1][0], route[-1][1] - 4)], False) for route in routes],
        arrows=list(dict.fromkeys(format_arrow(route[-1], "down") for route in routes)),
        skips=[],
        texts=[],
    )
