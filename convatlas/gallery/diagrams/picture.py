"""A diagram on its canvas: nodes and edges with their places, from which a template writes the SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from convatlas.gallery.diagrams.layered_layout import Point
from convatlas.gallery.diagrams.nodes import SHEET_OFFSET, NodeContent

LINE_HEIGHT = 14.0  # pixels of the SVG
ARROWHEAD_LENGTH = 6.0
TEXT_GAP = 5.0  # between a node's picture and its text
RIM = 1.5  # of the front map
BADGE_HEIGHT = 18.0
BADGE_GAP = 3.0  # between a sign and the picture


@dataclass(frozen=True)
class Text:
    """A line of text: its baseline's start or middle, and its role: name, detail, shape, sign or label."""

    text: str
    x: float
    y: float
    role: str


@dataclass(frozen=True)
class Node:
    """A node on the canvas.

    Attributes:
        content: What it shows.
        x: The left edge of its front map.
        y: The top edge of its front map.
        texts: Its lines of text.
        area: The left and top edge, the width and the height of the room of its text.
        badge: The middle and the width of the sign of an operation that joins inputs.
    """

    content: NodeContent
    x: float
    y: float
    texts: list[Text]
    area: tuple[float, float, float, float]
    badge: tuple[float, float, float] | None = None

    @property
    def stack_path(self) -> str:
        """Return the SVG path of the maps behind the front one, the rearmost first, and of its rim."""
        width, height = self.content.glyph.width, self.content.glyph.height
        path = ""
        for n in range(self.content.glyph.sheets - 1, -1, -1):
            rim = 0 if n else RIM
            corner = format_point((self.x + SHEET_OFFSET * n - rim, self.y - SHEET_OFFSET * n - rim))
            sides = [f"{round(side + 2 * rim, 1):g}" for side in (width, height)]
            path += f"M{corner}h{sides[0]}v{sides[1]}h-{sides[0]}z"
        return path


@dataclass(frozen=True)
class Picture:
    """A diagram: its size, nodes, the paths of lines and of skip connections, arrowheads, and loose texts."""

    width: float
    height: float
    nodes: list[Node]
    lines: list[str]
    arrows: list[str]
    skips: list[str]
    texts: list[Text]


def measure_badge(content: NodeContent) -> float:
    """Return the width of the sign of an operation that joins inputs; 0 for other nodes.

    Args:
        content: The node.
    """
    return max(BADGE_HEIGHT, 6.5 * len(content.sign) + 9) if content.sign else 0.0


def place_text_below(
    lines: Sequence[tuple[str, str]], x: float, top: float, half_width: float
) -> tuple[list[Text], tuple[float, float, float, float]]:
    """Place lines of text below a point, and return them with the area that they take.

    Args:
        lines: Each line and its role.
        x: Their middle.
        top: The upper edge of the first.
        half_width: Half of the width of the area.
    """
    texts = [
        Text(line, round(x, 1), round(top + LINE_HEIGHT * (n + 1) - 3, 1), role)
        for n, (line, role) in enumerate(lines)
    ]
    height = LINE_HEIGHT * len(lines) + 2
    return texts, (round(x - half_width, 1), round(top, 1), round(2 * half_width, 1), height)


def format_route(route: Sequence[Point], horizontal: bool) -> str:
    """Write a route as an SVG path: straight within rows, S-shaped between them.

    Args:
        route: Points in pairs, as of a GraphLayout.
        horizontal: Whether it runs from left to right, else from top to bottom.
    """
    along, across = (0, 1) if horizontal else (1, 0)
    path = f"M{format_point(route[0])}"
    position = route[0]
    for n, (start, end) in enumerate(pairwise(route)):
        if n % 2 == 0 or abs(start[across] - end[across]) < 0.05:
            continue  # straight on
        if format_point(position) != format_point(start):
            path += f"L{format_point(start)}"
        middle = (start[along] + end[along]) / 2
        bends = [(middle, point[1]) if horizontal else (point[0], middle) for point in (start, end)]
        path += f"C{' '.join(map(format_point, (*bends, end)))}"
        position = end
    return path if format_point(position) == format_point(route[-1]) else f"{path}L{format_point(route[-1])}"


def format_arrow(tip: Point, direction: str) -> str:
    """Write an arrowhead as an SVG path.

    Args:
        tip: Where it ends.
        direction: "right", "left", "down" or "up".
    """
    x, y = tip
    half, length = 3.5, ARROWHEAD_LENGTH
    if direction in ("right", "left"):
        step = length if direction == "right" else -length
        return f"M{format_point((x - step, y - half))}v7l{step:g} -{half:g}z"
    sign = -1 if direction == "down" else 1
    return f"M{format_point((x - half, y + sign * length))}h7l-{half:g} {-sign * length:g}z"


def format_point(point: Point) -> str:
    """Write a point with at most one decimal.

    Args:
        point: The point.
    """
    return f"{round(point[0], 1):g} {round(point[1], 1):g}"
