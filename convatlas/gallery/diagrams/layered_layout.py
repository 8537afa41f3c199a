"""Layout of a directed graph in rows, from top to bottom, with few crossings and few bends.

Sugiyama, Tagawa & Toda, Methods for Visual Understanding of Hierarchical System Structures, IEEE
Transactions on Systems, Man, and Cybernetics 11(2), 1981: rows by longest path, order by barycentres.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

# Lengths in pixels of the SVG
ROW_GAP = 28.0  # between rows, where the edges bend
MAX_EXTRA_GAP = 30.0  # that is added to it for wide bends, BEND_SHARE of their width
BEND_SHARE = 0.06
NODE_GAP = 22.0  # between neighbours in a row
DUMMY_HALF_WIDTH = 5.0  # of the box of an edge in a row that it passes
MARGIN = 8.0
ORDERING_SWEEPS = 12
PLACEMENT_SWEEPS = 90  # of which the first third minimises squares
# Weights of edge parts, against 1 for those that branch or meet
SINGLE_EDGE_WEIGHT, DUMMY_EDGE_WEIGHT = 4.0, 8.0

Edge = tuple[int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """The room of a node: its extent to the left and right of its centre line, and its height."""

    left: float
    right: float
    height: float


@dataclass(frozen=True)
class GraphLayout:
    """Where nodes and edges are.

    Attributes:
        width: The width of the canvas.
        height: The height of the canvas.
        positions: The centre line and the top of each node.
        heights: The height of each node.
        edge_routes: The points of each edge, in pairs: straight down from the first to the second of a pair,
            then on to the next pair.
    """

    width: float
    height: float
    positions: list[Point]
    heights: list[float]
    edge_routes: list[list[Point]]


def layout_graph(
    boxes: Sequence[Box],
    edges: Sequence[Edge],
    floating_sources: Collection[int] = (),
    row_gap: float = ROW_GAP,
    node_gap: float = NODE_GAP,
) -> GraphLayout:
    """Place nodes so that every edge leads down.

    Args:
        boxes: The room of each node, in an order in which every edge leads to a later node.
        edges: Pairs of nodes (from, to).
        floating_sources: Nodes without incoming edges that are placed right above the first node that they
            lead to, and not in the first row.
        row_gap: Pixels between rows.
        node_gap: Pixels between neighbours in a row.
    """
    n_nodes = len(boxes)
    row_of = _assign_rows(n_nodes, edges, floating_sources)
    boxes = list(boxes)
    paths = []
    for start, end in edges:  # an edge has a narrow box of its own in each row that it passes
        path = [start]
        for row in range(row_of[start] + 1, row_of[end]):
            path.append(len(boxes))
            boxes.append(Box(DUMMY_HALF_WIDTH, DUMMY_HALF_WIDTH, 0))
            row_of.append(row)
        paths.append([*path, end])
    links = [link for path in paths for link in pairwise(path)]
    rows = _order_rows(row_of, links)
    xs = _place_columns(rows, boxes, links, node_gap)
    return _build_layout(rows, row_of, boxes, xs, paths, n_nodes, row_gap)


def _assign_rows(n_nodes: int, edges: Sequence[Edge], floating_sources: Collection[int]) -> list[int]:
    """Return the row of each node: one below the lowest node that leads to it."""
    rows = [0] * n_nodes
    for node in range(n_nodes):
        rows[node] = max((rows[start] + 1 for start, end in edges if end == node), default=0)
    for node in floating_sources:
        rows[node] = min((rows[end] - 1 for start, end in edges if start == node), default=0)
    return [row - min(rows, default=0) for row in rows]


def _order_rows(row_of: Sequence[int], links: Sequence[Edge]) -> list[list[int]]:
    """Order the nodes of each row from left to right, and return the order with the fewest crossings."""
    rows = [[node for node, row in enumerate(row_of) if row == number] for number in range(max(row_of) + 1)]
    upper, lower = _find_neighbours(len(row_of), links)
    best_rows, fewest_crossings = rows, _count_crossings(rows, links)
    for sweep in range(ORDERING_SWEEPS):
        rows = [list(row) for row in rows]
        if sweep % 2 == 0:
            for number in range(len(rows)):
                _sort_row(rows, number, upper)
        else:
            for number in reversed(range(len(rows))):
                _sort_row(rows, number, lower)
        _swap_neighbours(rows, upper, lower)
        crossings = _count_crossings(rows, links)
        if crossings < fewest_crossings:
            best_rows, fewest_crossings = rows, crossings
    return best_rows


def _sort_row(rows: Sequence[list[int]], number: int, neighbours: Sequence[Sequence[int]]) -> None:
    """Sort the nodes of a row by the barycentres of their neighbours' places."""
    place = {node: n for row in rows for n, node in enumerate(row)}

    def barycentre(node: int) -> float:
        places = [place[neighbour] for neighbour in neighbours[node]]
        return sum(places) / len(places) if places else place[node]

    rows[number].sort(key=barycentre)


def _swap_neighbours(
    rows: Sequence[list[int]], upper: Sequence[Sequence[int]], lower: Sequence[Sequence[int]]
) -> None:
    """Swap neighbours in rows as long as that removes crossings."""
    place = {node: n for row in rows for n, node in enumerate(row)}

    def count_crossings(left: int, right: int) -> int:
        pairs = [(a, b) for neighbours in (upper, lower) for a in neighbours[left] for b in neighbours[right]]
        return sum(place[a] > place[b] for a, b in pairs)

    swapped = True
    while swapped:
        swapped = False
        for row in rows:
            for n in range(len(row) - 1):
                left, right = row[n : n + 2]
                if count_crossings(right, left) < count_crossings(left, right):
                    row[n : n + 2] = right, left
                    place[left], place[right] = n + 1, n
                    swapped = True


def _count_crossings(rows: Sequence[Sequence[int]], links: Sequence[Edge]) -> int:
    """Count the pairs of links between the same two rows that cross."""
    place = {node: (number, n) for number, row in enumerate(rows) for n, node in enumerate(row)}
    spans = [(place[start][0], place[start][1], place[end][1]) for start, end in links]
    return sum(
        a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for n, a in enumerate(spans) for b in spans[:n]
    )


def _place_columns(
    rows: Sequence[Sequence[int]], boxes: Sequence[Box], links: Sequence[Edge], node_gap: float
) -> list[float]:
    """Return the centre line of each node, so that links are short and rather straight.

    Rows are placed one after the other, by least squares at first. Then each link weighs the more the
    straighter it is, which approaches the least sum of lengths (iteratively reweighted least squares).
    """
    xs = [0.0] * len(boxes)
    if all(len(row) == 1 for row in rows):
        return xs
    neighbours = _weigh_neighbours(boxes, links)
    for row in rows:
        _place_row(row, boxes, xs, [0.0] * len(row), [1.0] * len(row), node_gap)
    for sweep in range(PLACEMENT_SWEEPS):
        minimises_squares = sweep < PLACEMENT_SWEEPS // 3
        for row in rows if sweep % 2 else reversed(rows):
            targets, weights = [], []
            for node in row:
                pulls = [
                    (xs[m], weight / (1 if minimises_squares else max(1.0, abs(xs[m] - xs[node]))))
                    for m, weight in neighbours[node]
                ]
                weights.append(sum(pull for _, pull in pulls) or 1.0)
                targets.append(sum(x * pull for x, pull in pulls) / weights[-1] if pulls else xs[node])
            _place_row(row, boxes, xs, targets, weights, node_gap)
    return xs


def _weigh_neighbours(boxes: Sequence[Box], links: Sequence[Edge]) -> list[list[tuple[int, float]]]:
    """Return the neighbours of each node, with the weights of the links to them."""
    upper, lower = _find_neighbours(len(boxes), links)
    neighbours: list[list[tuple[int, float]]] = [[] for _ in boxes]
    for start, end in links:
        weight = 1.0
        if boxes[start].height == boxes[end].height == 0:  # an edge that passes rows
            weight = DUMMY_EDGE_WEIGHT
        elif len(lower[start]) == len(upper[end]) == 1:
            weight = SINGLE_EDGE_WEIGHT
        neighbours[start].append((end, weight))
        neighbours[end].append((start, weight))
    return neighbours


def _place_row(
    row: Sequence[int],
    boxes: Sequence[Box],
    xs: list[float],
    targets: Sequence[float],
    weights: Sequence[float],
    node_gap: float,
) -> None:
    """Place the nodes of a row next to their targets, by weighted least squares, without overlaps.

    This is isotonic regression by the pool-adjacent-violators algorithm.
    """
    offsets = [0.0]
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + (boxes[left].right + node_gap + boxes[right].left))
    pools: list[tuple[float, float, int]] = []  # mean, weight and number of nodes that touch
    for target, offset, node_weight in zip(targets, offsets, weights, strict=True):
        mean, weight, count = target - offset, node_weight, 1
        while pools and pools[-1][0] > mean:
            pool_mean, pool_weight, pool_count = pools.pop()
            mean = (mean * weight + pool_mean * pool_weight) / (weight + pool_weight)
            weight, count = weight + pool_weight, count + pool_count
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    for node, mean, offset in zip(row, means, offsets, strict=True):
        xs[node] = mean + offset


def _build_layout(
    rows: Sequence[Sequence[int]],
    row_of: Sequence[int],
    boxes: Sequence[Box],
    xs: Sequence[float],
    paths: Sequence[Sequence[int]],
    n_nodes: int,
    row_gap: float,
) -> GraphLayout:
    """Give rows their heights, and edges their routes."""
    left = min(x - box.left for x, box in zip(xs, boxes, strict=True)) - MARGIN
    right = max(x + box.right for x, box in zip(xs, boxes, strict=True)) + MARGIN
    xs = [x - left for x in xs]
    heights = [max(boxes[node].height for node in row) for row in rows]
    tops = []
    y = MARGIN
    for number, height in enumerate(heights):
        tops.append(y)
        bends = [abs(xs[a] - xs[b]) for path in paths for a, b in pairwise(path) if row_of[a] == number]
        y += height + row_gap + min(MAX_EXTRA_GAP, BEND_SHARE * max(bends, default=0))
    middles = [top + height / 2 for top, height in zip(tops, heights, strict=True)]
    positions = [(x, middles[row] - box.height / 2) for x, row, box in zip(xs, row_of, boxes, strict=True)]
    routes = []
    for start, *passed, end in paths:
        route = [
            (xs[start], positions[start][1] + boxes[start].height),
            (xs[start], tops[row_of[start]] + heights[row_of[start]]),
        ]
        for node in passed:
            top = tops[row_of[node]]
            route += [(xs[node], top), (xs[node], top + heights[row_of[node]])]
        routes.append([*route, (xs[end], tops[row_of[end]]), (xs[end], positions[end][1])])
    return GraphLayout(
        right - left,
        tops[-1] + heights[-1] + MARGIN,
        positions[:n_nodes],
        [box.height for box in boxes[:n_nodes]],
        routes,
    )


def _find_neighbours(n_nodes: int, links: Sequence[Edge]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the linked nodes above and below each node."""
    upper: list[list[int]] = [[] for _ in range(n_nodes)]
    lower: list[list[int]] = [[] for _ in range(n_nodes)]
    for start, end in links:
        lower[start].append(end)
        upper[end].append(start)
    return upper, lower
