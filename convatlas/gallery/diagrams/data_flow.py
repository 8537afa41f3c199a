"""A network drawn as the way an image takes: a block a stage, high as its maps and wide as its units."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, TypeVar

MAX_STAGE_HEIGHT = 150.0  # of the block with the largest maps
MIN_STAGE_HEIGHT = 5.0
MAX_STAGE_WIDTH = 84.0
STAGE_GAP = 34.0  # room for the arrow between two blocks
MARGIN_TOP, MARGIN_BOTTOM, LINE_HEIGHT = 26.0, 16.0, 15.0
SKIP_SPACING = 16.0  # between connections that skip stages, one above the other
LABEL_HEIGHT = 22.0  # above a block, for its shape
MAX_SHAPE_STAGES = 16  # of one shape each, above which a network is drawn by its modules
MAX_STAGES = 20  # stages at most that modules are parted into
MAX_NAMES = 8  # names under a block at most

Item = TypeVar("Item")


@dataclass(frozen=True)
class Stage:
    """One stage and where it is drawn; `layers` has each name under it and the layers that it stands for."""

    x: float
    y: float
    width: float
    height: float
    shape: str
    layers: list[tuple[str, list[str]]]
    kind: str

    @property
    def center_x(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class SkipConnection:
    """A connection past other stages: from the top of one block, above all others, down to a later one."""

    start: Stage
    end: Stage
    y: float

    @property
    def line_path(self) -> str:
        """Its path in SVG's terms, up to where the arrow's head begins."""
        left, right = self.start, self.end
        return (
            f"M{left.center_x:.1f} {left.y - LABEL_HEIGHT:.1f}V{self.y + 6:.1f}q0 -6 6 -6"
            f"H{right.center_x - 6:.1f}q6 0 6 6V{right.y - LABEL_HEIGHT - 5:.1f}"
        )

    @property
    def arrow_path(self) -> str:
        return f"M{self.end.center_x - 3.5:.1f} {self.end.y - LABEL_HEIGHT - 6:.1f}l3.5 6 3.5 -6z"


@dataclass(frozen=True)
class NetworkDiagram:
    """Blocks and connections on a canvas; a template makes SVG of it."""

    width: float
    height: float
    center_y: float
    stages: list[Stage]
    skips: list[SkipConnection]


def draw_network(layers: list[dict[str, Any]]) -> NetworkDiagram:
    """Lay out the called layers of layers.json as stages, from the input at the left to the output."""
    called = [layer for layer in layers if layer["called"]]
    stages = [(called[0]["input_shape"], [("input", ["input"])], "input")]
    parts = _split_stages(called)
    skipping = _find_skips(parts)
    for members in parts:
        names = _label_stage([layer["name"] for layer in members], [layer["name"] for layer in called])
        stages.append((members[-1]["output_shape"], names, members[0]["kind"]))
    most = max(get_map_height(shape) for shape, *_ in stages)
    top = MARGIN_TOP + SKIP_SPACING * len(skipping)
    axis = top + MAX_STAGE_HEIGHT / 2
    blocks, x = [], 4.0
    for shape, names, kind in stages:
        height = max(MIN_STAGE_HEIGHT, MAX_STAGE_HEIGHT * get_map_height(shape) / most)
        width = min(MAX_STAGE_WIDTH, 5 + 5 * math.sqrt(shape[0]))
        # A block is at least as wide as the words under it.
        room = max(width, 6.4 * max(map(len, [*(name for name, _ in names), format_shape(shape)])))
        left = x + (room - width) / 2
        blocks.append(Stage(left, axis - height / 2, width, height, format_shape(shape), names, kind))
        x += room + STAGE_GAP
    tallest = max(len(block.layers) for block in blocks)
    # The longest lies highest, so that nested ones don't cross.
    skips = [SkipConnection(blocks[a], blocks[b], 4 + SKIP_SPACING * n) for n, (a, b) in enumerate(skipping)]
    return NetworkDiagram(
        x - STAGE_GAP + 4,
        top + MAX_STAGE_HEIGHT + MARGIN_BOTTOM + LINE_HEIGHT * tallest + 4,
        axis,
        blocks,
        skips,
    )


def _find_skips(stages: list[list[dict[str, Any]]]) -> list[tuple[int, int]]:
    """Which stage is computed from one before its neighbour, counted from 1, the longest way first.

    0 is the input. Layers that come to a stage by several ways are one connection.
    """
    place = {layer["name"]: n for n, stage in enumerate(stages, 1) for layer in stage}
    ways = {
        (place.get(source, 0), place[layer["name"]])
        for stage in stages
        for layer in stage
        for source in layer.get("inputs") or []
    }
    return sorted((way for way in ways if way[1] - way[0] > 1), key=lambda way: (way[0] - way[1], way))


def assign_stages(layers: list[dict[str, Any]]) -> dict[str, str]:
    """The stage of each called layer, under the name of its modules: `layer2`, or `maxpool to layer1`."""
    called = [layer for layer in layers if layer["called"]]
    every = [layer["name"] for layer in called]
    found: dict[str, str] = {}
    for members in _split_stages(called):
        names = [layer["name"] for layer in members]
        modules = [
            _label_module(run, every)
            for run in _group_consecutive(names, lambda name: _split_module_path(name)[0])
        ]
        found |= dict.fromkeys(names, " to ".join(dict.fromkeys([modules[0], modules[-1]])))
    return found


def _split_stages(layers: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Part the layers into stages: those of one output shape, or, where that gives many, of one module.

    A module that holds most of the layers, as the `features` of many networks, is parted into its own.
    """
    by_shape = _group_consecutive(layers, lambda layer: layer["output_shape"])
    if len(by_shape) <= MAX_SHAPE_STAGES:
        return by_shape
    stages = [layers]
    while len(largest := max(stages, key=len)) > len(layers) / 2:
        parts = _split_by_module(largest)
        if len(parts) == 1 or (len(stages) > 1 and len(stages) - 1 + len(parts) > MAX_STAGES):
            break
        place = stages.index(largest)
        stages[place : place + 1] = parts
    return _merge_small_stages(stages)


def _merge_small_stages(stages: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Join small neighbours of one output shape, and the smallest neighbours until there are MOST stages."""
    joined = stages[:1]
    for stage in stages[1:]:
        both = joined[-1] + stage
        if len(both) <= MAX_NAMES and len(_group_consecutive(both, lambda layer: layer["output_shape"])) == 1:
            joined[-1] = both
        else:
            joined.append(stage)
    while len(joined) > MAX_STAGES:
        place = min(range(len(joined) - 1), key=lambda n: len(joined[n]) + len(joined[n + 1]))
        joined[place : place + 2] = [joined[place] + joined[place + 1]]
    return joined


def _split_by_module(layers: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Part layers by the modules in which their paths first differ."""
    depth = len(_find_common_path([layer["name"] for layer in layers])) + 1
    return _group_consecutive(layers, lambda layer: _split_module_path(layer["name"])[:depth])


def _find_common_path(names: list[str]) -> list[str]:
    """The path of the innermost module that all layers of these names belong to."""
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*map(_split_module_path, names), strict=False))
    return [parts[0] for parts in same]


def _split_module_path(name: str) -> list[str]:
    return name.split("/")[0].split(".")


def _group_consecutive(items: list[Item], key: Callable[[Item], Any]) -> list[list[Item]]:
    return [list(group) for _, group in groupby(items, key=key)]


def _label_stage(layers: list[str], every: list[str]) -> list[tuple[str, list[str]]]:
    """What stands under a stage: its layers, or where they are many the modules that they belong to."""
    if len(layers) <= MAX_NAMES:
        return [(layer, [layer]) for layer in layers]
    named = [
        (_label_layers(m, every), m)
        for m in _group_consecutive(layers, lambda layer: _split_module_path(layer)[0])
    ]
    if len(named) > MAX_NAMES:
        rest = [layer for _, module in named[MAX_NAMES - 1 :] for layer in module]
        named = [*named[: MAX_NAMES - 1], (f"{len(rest)} more", rest)]
    return named


def _label_layers(layers: list[str], every: list[str]) -> str:
    """One name for layers: a single one's own, or their module's."""
    return layers[0] if len(layers) == 1 else f"{_label_module(layers, every)}: {len(layers)} layers"


def _label_module(layers: list[str], every: list[str]) -> str:
    """The module of layers that lie in one, with the parts of it that they are where it has others."""
    if len(layers) == 1:
        return layers[0]
    module = _find_common_path(layers)
    name = ".".join(module)
    parts = [part for layer in layers for part in _split_module_path(layer)[len(module) : len(module) + 1]]
    if parts and sum(_split_module_path(layer)[: len(module)] == module for layer in every) > len(layers):
        name = f"{name}.{parts[0]}–{parts[-1]}"
    return name


def get_map_height(shape: list[int]) -> int:
    """The height of a layer's maps; 1 where it has no spatial axes."""
    return shape[-2] if len(shape) > 2 else 1


def format_shape(shape: list[int]) -> str:
    return " × ".join(map(str, shape))
