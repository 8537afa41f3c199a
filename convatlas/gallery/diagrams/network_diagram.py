"""The diagram of a network: one box per stage, as high as its maps and as wide as its channels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.gallery.diagrams.stages import label_stage, split_stages
from convatlas.names import format_shape
from convatlas.records import Layer

# Lengths in pixels of the SVG
MAX_STAGE_HEIGHT = 150.0  # of the stage with the largest maps
MIN_STAGE_HEIGHT = 5.0
MAX_STAGE_WIDTH = 84.0
STAGE_GAP = 34.0  # between two boxes, for the arrow
MARGIN = 4.0
MARGIN_TOP, MARGIN_BOTTOM, LINE_HEIGHT = 26.0, 16.0, 15.0
SKIP_SPACING = 16.0  # between skip connections, one above the other
LABEL_HEIGHT = 22.0  # above a box, for its shape
CHAR_WIDTH = 6.4  # of the labels
SKIP_RADIUS = 6  # of the rounded corners of a skip connection


@dataclass(frozen=True)
class Stage:
    """A stage and its box.

    Attributes:
        x: The left edge of the box.
        y: The top edge of the box.
        width: The width of the box.
        height: The height of the box.
        shape: The output shape of the stage, as text.
        layers: Each label below the box, and the layers that it stands for.
        kind: The kind of its first layer, or "input".
    """

    x: float
    y: float
    width: float
    height: float
    shape: str
    layers: list[tuple[str, list[str]]]
    kind: str

    @property
    def center_x(self) -> float:
        """Return the horizontal centre of the box."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class SkipConnection:
    """A connection past other stages: from the top of one box, above the others, down to a later box.

    Attributes:
        start: The stage in which it begins.
        end: The stage in which it ends.
        y: The height of its horizontal part.
    """

    start: Stage
    end: Stage
    y: float

    @property
    def line_path(self) -> str:
        """Return the SVG path of the line, up to the arrowhead."""
        r = SKIP_RADIUS
        return (
            f"M{self.start.center_x:.1f} {self.start.y - LABEL_HEIGHT:.1f}V{self.y + r:.1f}q0 -{r} {r} -{r}"
            f"H{self.end.center_x - r:.1f}q{r} 0 {r} {r}V{self.end.y - LABEL_HEIGHT - 5:.1f}"
        )

    @property
    def arrow_path(self) -> str:
        """Return the SVG path of the arrowhead."""
        return f"M{self.end.center_x - 3.5:.1f} {self.end.y - LABEL_HEIGHT - 6:.1f}l3.5 6 3.5 -6z"


@dataclass(frozen=True)
class NetworkDiagram:
    """The boxes and skip connections of a network, and the size of the canvas; a template writes the SVG."""

    width: float
    height: float
    center_y: float
    stages: list[Stage]
    skips: list[SkipConnection]


def draw_network(layers: Sequence[Layer]) -> NetworkDiagram:
    """Lay out the stages of a network from left to right.

    Args:
        layers: layers.json.
    """
    called = [layer for layer in layers if layer["called"]]
    stage_layers = split_stages(called)
    skips = _find_skips(stage_layers)
    all_names = [layer["name"] for layer in called]
    contents = [(called[0]["input_shape"], [("input", ["input"])], "input")]
    for members in stage_layers:
        labels = label_stage([layer["name"] for layer in members], all_names)
        contents.append((members[-1]["output_shape"], labels, str(members[0]["kind"])))
    max_map_height = max(_get_map_height(shape) for shape, _, _ in contents)
    top = MARGIN_TOP + SKIP_SPACING * len(skips)
    center_y = top + MAX_STAGE_HEIGHT / 2
    stages: list[Stage] = []
    x = MARGIN
    for shape, labels, kind in contents:
        height = max(MIN_STAGE_HEIGHT, MAX_STAGE_HEIGHT * _get_map_height(shape) / max_map_height)
        width = min(MAX_STAGE_WIDTH, 5 + 5 * math.sqrt(shape[0]))
        texts = [*(label for label, _ in labels), format_shape(shape)]
        column_width = max(width, CHAR_WIDTH * max(map(len, texts)))
        left = x + (column_width - width) / 2
        stages.append(Stage(left, center_y - height / 2, width, height, format_shape(shape), labels, kind))
        x += column_width + STAGE_GAP
    max_labels = max(len(stage.layers) for stage in stages)
    return NetworkDiagram(
        width=x - STAGE_GAP + MARGIN,
        height=top + MAX_STAGE_HEIGHT + MARGIN_BOTTOM + LINE_HEIGHT * max_labels + MARGIN,
        center_y=center_y,
        stages=stages,
        # The longest is the highest, so that nested ones do not cross.
        skips=[
            SkipConnection(stages[start], stages[end], MARGIN + SKIP_SPACING * n)
            for n, (start, end) in enumerate(skips)
        ],
    )


def _find_skips(stages: Sequence[Sequence[Layer]]) -> list[tuple[int, int]]:
    """Find the connections that skip stages, the longest first; stage 0 is the input."""
    stage_of = {layer["name"]: n for n, stage in enumerate(stages, 1) for layer in stage}
    connections = {
        (stage_of.get(source, 0), stage_of[layer["name"]])
        for stage in stages
        for layer in stage
        for source in layer.get("inputs") or []
    }
    skips = [(start, end) for start, end in connections if end - start > 1]
    return sorted(skips, key=lambda skip: (skip[0] - skip[1], skip))


def _get_map_height(shape: Sequence[int]) -> int:
    """Return the height of a layer's maps; 1 without spatial axes."""
    return shape[-2] if len(shape) > 2 else 1
