"""A network drawn as the way an image takes: a block a stage, high as its maps and wide as its units."""

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

HIGHEST = 150.0  # of the block with the largest maps
LOWEST = 5.0
WIDEST = 84.0
BETWEEN = 34.0  # room for the arrow between two blocks
ABOVE, BELOW, LINE = 26.0, 16.0, 15.0


@dataclass(frozen=True)
class Block:
    """One stage: the layers whose outputs have the same shape, one after the other, and where it is drawn."""

    x: float
    y: float
    width: float
    height: float
    shape: str
    layers: list[str]
    kind: str

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Drawing:
    """Blocks on a canvas; a template makes SVG of it."""

    width: float
    height: float
    axis: float
    blocks: list[Block]


def draw(layers: list[dict[str, Any]]) -> Drawing:
    """Lay out the called layers of layers.json as stages, from the input at the left to the output."""
    called = [layer for layer in layers if layer["called"]]
    stages = [(called[0]["input_shape"], ["input"], "input")]
    for shape, group in groupby(called, key=lambda layer: layer["output_shape"]):
        members = list(group)
        stages.append((shape, [layer["name"] for layer in members], members[0]["kind"]))
    most = max(size(shape) for shape, *_ in stages)
    axis = ABOVE + HIGHEST / 2
    blocks, x = [], 4.0
    for shape, names, kind in stages:
        height = max(LOWEST, HIGHEST * size(shape) / most)
        width = min(WIDEST, 5 + 5 * math.sqrt(shape[0]))
        # A block is at least as wide as the words under it.
        room = max(width, 6.4 * max(map(len, [*names, words(shape)])))
        left = x + (room - width) / 2
        blocks.append(Block(left, axis - height / 2, width, height, words(shape), names, kind))
        x += room + BETWEEN
    tallest = max(len(block.layers) for block in blocks)
    return Drawing(x - BETWEEN + 4, ABOVE + HIGHEST + BELOW + LINE * tallest + 4, axis, blocks)


def size(shape: list[int]) -> int:
    """The height of a layer's maps; 1 where it has no spatial axes."""
    return shape[-2] if len(shape) > 2 else 1


def words(shape: list[int]) -> str:
    return " × ".join(map(str, shape))
