"""The layout of graphs in rows."""

from itertools import pairwise

from convatlas.gallery.diagrams.layered_layout import NODE_GAP, Box, layout_graph


def test_rows_follow_the_longest_path_and_floating_sources_are_above_their_first_target() -> None:
    boxes = [Box(10, 10, 20)] * 5
    layout = layout_graph(boxes, [(0, 1), (1, 2), (0, 3), (2, 3), (4, 3)], floating_sources=[0, 4])
    tops = [y for _, y in layout.positions]
    assert tops[0] < tops[1] < tops[2] < tops[3]
    assert tops[4] == tops[2]


def test_an_edge_that_passes_rows_is_straight_and_beside_their_nodes() -> None:
    boxes = [Box(10, 10, 20), Box(40, 40, 20), Box(40, 40, 20), Box(10, 10, 20)]
    layout = layout_graph(boxes, [(0, 1), (1, 2), (2, 3), (0, 3)])
    passed = layout.edge_routes[3][2:-2]
    assert len({round(x) for x, _ in passed}) == 1
    assert all(abs(passed[0][0] - layout.positions[n][0]) >= 40 + NODE_GAP for n in (1, 2))
    assert all(a[1] <= b[1] + 1e-9 for route in layout.edge_routes for a, b in pairwise(route))


def test_branches_do_not_cross_without_need() -> None:
    """Two chains, the second of which is listed first in its second row."""
    edges = [(0, 1), (0, 2), (2, 3), (1, 4), (3, 5), (4, 5)]
    positions = layout_graph([Box(10, 10, 20)] * 6, edges).positions
    assert (positions[1][0] < positions[2][0]) == (positions[4][0] < positions[3][0])
