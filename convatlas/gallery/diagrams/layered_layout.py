"""A directed graph laid out in rows, from top to bottom, with few crossings and few bends.

Sugiyama, Tagawa & Toda, Methods for Visual Understanding of Hierarchical System Structures, IEEE
Transactions on Systems, Man, and Cybernetics 11(2), 1981: rows by longest path, order by barycentres.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

ROW_GAP = 28.0  # between rows, where the lines bend
NODE_GAP = 22.0  # between neighbours in a row
DUMMY_HALF_WIDTH = 5.0  # half the width of the way of a line that passes a row
ORDERING_SWEEPS = 12  # to order the rows
PLACEMENT_SWEEPS = 90  # sweeps to place the columns
SINGLE_EDGE_WEIGHT, DUMMY_EDGE_WEIGHT = 4.0, 8.0  # what links weigh, against 1 for those that branch or meet
MARGIN = 8.0

Edge = tuple[int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """What stands at a node: how far it reaches to both sides of the line through it, and its height."""

    left: float
    right: float
    height: float


@dataclass(frozen=True)
class GraphLayout:
    """Where nodes stand (the line through each, and its top) and which way each edge takes.

    A way's points come in pairs: straight down from the one to the other, then on to the next pair.
    """

    width: float
    height: float
    positions: list[Point]
    edge_routes: list[list[Point]]


def layout_graph(
    boxes: Sequence[Box], edges: Sequence[Edge], floating_sources: Collection[int] = ()
) -> GraphLayout:
    """Place nodes so that every edge (from, to) leads down; nodes are in such an order already.

    Nodes in `late` have no edges into them, and stand in the row above the first that they lead to.
    """
    count, row_of = len(boxes), _assign_rows(len(boxes), edges, floating_sources)
    boxes, paths = list(boxes), []
    for start, end in edges:  # a line that passes rows has a narrow box of its own in each
        path = [start]
        for row in range(row_of[start] + 1, row_of[end]):
            path.append(len(boxes))
            boxes.append(Box(DUMMY_HALF_WIDTH, DUMMY_HALF_WIDTH, 0))
            row_of.append(row)
        paths.append([*path, end])
    links = [link for path in paths for link in pairwise(path)]
    rows = _order_rows(row_of, links)
    xs = _place_columns(rows, boxes, links)
    laid = _build_layout(rows, row_of, boxes, xs, paths)
    return replace(laid, positions=laid.positions[:count])


def _assign_rows(count: int, edges: Sequence[Edge], late: Collection[int]) -> list[int]:
    """The row of each node: one below the lowest that leads to it."""
    rows = [0] * count
    for end in range(count):
        rows[end] = max((rows[start] + 1 for start, to in edges if to == end), default=0)
    for node in late:
        rows[node] = min((rows[end] - 1 for start, end in edges if start == node), default=0)
    return [row - min(rows, default=0) for row in rows]


def _order_rows(row_of: Sequence[int], links: Sequence[Edge]) -> list[list[int]]:
    """The nodes of each row from left to right, in the order with the fewest crossings that was met."""
    rows = [[node for node, row in enumerate(row_of) if row == number] for number in range(max(row_of) + 1)]
    before, after = _find_neighbours(len(row_of), links)
    best, fewest = rows, _count_crossings(rows, links)
    for sweep in range(ORDERING_SWEEPS):
        down = sweep % 2 == 0
        rows = [list(row) for row in rows]
        for number in range(len(rows)) if down else reversed(range(len(rows))):
            place = {node: at for row in rows for at, node in enumerate(row)}
            near = before if down else after
            rows[number].sort(key=lambda n, p=place, near=near: _mean([p[m] for m in near[n]], p[n]))
        _swap_neighbours(rows, before, after)
        if (crossings := _count_crossings(rows, links)) < fewest:
            best, fewest = rows, crossings
    return best


def _swap_neighbours(rows: Sequence[list[int]], before: list[list[int]], after: list[list[int]]) -> None:
    """Swap neighbours in a row as long as that takes crossings away."""
    place = {node: at for row in rows for at, node in enumerate(row)}

    def crossed(left: int, right: int) -> int:
        pairs = [(a, b) for near in (before, after) for a in near[left] for b in near[right]]
        return sum(place[a] > place[b] for a, b in pairs)

    swapped = True
    while swapped:
        swapped = False
        for row in rows:
            for at in range(len(row) - 1):
                left, right = row[at : at + 2]
                if crossed(right, left) < crossed(left, right):
                    row[at : at + 2] = right, left
                    place[left], place[right] = at + 1, at
                    swapped = True


def _count_crossings(rows: Sequence[Sequence[int]], links: Sequence[Edge]) -> int:
    place = {node: (number, at) for number, row in enumerate(rows) for at, node in enumerate(row)}
    spans = [(place[start][0], place[start][1], place[end][1]) for start, end in links]
    return sum(
        a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for n, a in enumerate(spans) for b in spans[:n]
    )


def _place_columns(rows: Sequence[Sequence[int]], boxes: Sequence[Box], links: Sequence[Edge]) -> list[float]:
    """The line through each node, so that links are short, and straight rather than a little bent each.

    Least squares, row after row; then each link weighs the more the straighter it is, which approaches
    the least sum of lengths. What leads to one node alone, which nothing else leads to, stands over it
    rather; and lines that pass rows are the straightest.
    """
    before, after = _find_neighbours(len(boxes), links)
    near: list[list[tuple[int, float]]] = [[] for _ in boxes]
    for start, end in links:
        alone = len(after[start]) == len(before[end]) == 1
        passes = boxes[start].height == boxes[end].height == 0
        weight = DUMMY_EDGE_WEIGHT if passes else SINGLE_EDGE_WEIGHT if alone else 1.0
        near[start].append((end, weight))
        near[end].append((start, weight))
    xs = [0.0] * len(boxes)
    for row in rows:
        _place_row(row, boxes, xs, [0.0] * len(row), [1.0] * len(row))
    for sweep in range(PLACEMENT_SWEEPS):
        squares = sweep < PLACEMENT_SWEEPS // 3
        for row in rows if sweep % 2 else reversed(rows):
            wanted, weights = [], []
            for node in row:
                pulls = [
                    (xs[m], weight / (1 if squares else max(1.0, abs(xs[m] - xs[node]))))
                    for m, weight in near[node]
                ]
                weights.append(sum(pull for _, pull in pulls) or 1.0)
                wanted.append(sum(x * pull for x, pull in pulls) / weights[-1] if pulls else xs[node])
            _place_row(row, boxes, xs, wanted, weights)
    return xs


def _place_row(
    row: Sequence[int], boxes: Sequence[Box], xs: list[float], wanted: Sequence[float], by: Sequence[float]
) -> None:
    """Set a row's `xs` nearest to those wanted, in squares weighted `by`, without overlaps.

    This is isotonic regression, by pooling adjacent violators.
    """
    shift, shifts = 0.0, [0.0]
    for left, right in pairwise(row):
        shift += boxes[left].right + NODE_GAP + boxes[right].left
        shifts.append(shift)
    pools: list[tuple[float, float, int]] = []  # mean, weight and number of those that press each other
    for want, offset, weight in zip(wanted, shifts, by, strict=True):
        mean, number = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, heavy, count = pools.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight, number = weight + heavy, number + count
        pools.append((mean, weight, number))
    means = [mean for mean, _, number in pools for _ in range(number)]
    for node, mean, offset in zip(row, means, shifts, strict=True):
        xs[node] = mean + offset


def _build_layout(
    rows: Sequence[Sequence[int]],
    row_of: Sequence[int],
    boxes: Sequence[Box],
    xs: Sequence[float],
    paths: Sequence[Sequence[int]],
) -> GraphLayout:
    """Give the rows their heights, and the edges their ways."""
    left = min(x - box.left for x, box in zip(xs, boxes, strict=True)) - MARGIN
    right = max(x + box.right for x, box in zip(xs, boxes, strict=True)) + MARGIN
    xs = [x - left for x in xs]
    tops, heights, y = [], [max(boxes[node].height for node in row) for row in rows], MARGIN
    for number, height in enumerate(heights):
        tops.append(y)
        bends = [abs(xs[a] - xs[b]) for path in paths for a, b in pairwise(path) if row_of[a] == number]
        y += (
            height + ROW_GAP + min(30.0, 0.06 * max(bends, default=0))
        )  # wide bends need room to be told apart
    middles = [top + height / 2 for top, height in zip(tops, heights, strict=True)]
    places = [(x, middles[row] - box.height / 2) for x, row, box in zip(xs, row_of, boxes, strict=True)]
    ways = []
    for path in paths:
        start, *passing, end = path
        way = [(xs[start], places[start][1] + boxes[start].height)]
        way.append((xs[start], tops[row_of[start]] + heights[row_of[start]]))
        for node in passing:
            top = tops[row_of[node]]
            way += [(xs[node], top), (xs[node], top + heights[row_of[node]])]
        ways.append([*way, (xs[end], tops[row_of[end]]), (xs[end], places[end][1])])
    return GraphLayout(right - left, tops[-1] + heights[-1] + MARGIN, places, ways)


def _find_neighbours(count: int, links: Sequence[Edge]) -> tuple[list[list[int]], list[list[int]]]:
    """Those above and those below each node that it is linked with."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for start, end in links:
        after[start].append(end)
        before[end].append(start)
    return before, after


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
