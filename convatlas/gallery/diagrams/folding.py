"""Which blocks one diagram shows: equal neighbours as one, and others in groups, so that it fits the page."""

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

from convatlas.gallery.diagrams.blocks import (
    Block,
    BlockGraph,
    count_layers,
    differ_in_resolution,
    make_group,
)

COMFORTABLE_BLOCKS = 8  # of a diagram, up to which nothing is folded
MAX_BLOCKS = 12  # of a diagram
MIN_BLOCKS = 5  # of the network's own diagram, if its modules can be divided
MAX_PERIOD = 12  # blocks of a pattern that repeats
DOMINANT_SHARE = 0.5  # of the layers, from which a module of the network is shown as its parts


def arrange_network(graph: BlockGraph) -> list[Block]:
    """Choose the blocks of the network's own diagram.

    A module that holds most of the layers, as the `features` of many networks, is shown as its parts.

    Args:
        graph: The network.
    """
    blocks = graph.root.children or [graph.root]
    while True:
        shown = arrange(blocks, graph)
        candidates = [block for block in blocks if block.children and not block.is_unit]
        largest = max(candidates, key=lambda block: len(block.layers), default=None)
        if largest is None:
            return shown
        index = blocks.index(largest)
        expanded = graph.attach([*blocks[:index], *largest.children, *blocks[index + 1 :]])
        is_dominant = len(largest.layers) >= DOMINANT_SHARE * len(graph.layers)
        if not is_dominant and (
            len(shown) >= MIN_BLOCKS or len(fold_repeats(expanded, graph)) > COMFORTABLE_BLOCKS
        ):
            return shown
        blocks = expanded


def arrange(blocks: Sequence[Block], graph: BlockGraph) -> list[Block]:
    """Fold blocks until a diagram of them is legible.

    Args:
        blocks: Neighbours in execution order.
        graph: The network.

    Returns:
        At most MAX_BLOCKS blocks with all of the layers.
    """
    n_edges = len(graph.find_edges(blocks))
    if len(blocks) <= COMFORTABLE_BLOCKS and n_edges <= 2 * len(blocks):
        return list(blocks)
    steps: list[Callable[[Sequence[Block]], list[Block]]] = [
        lambda items: fold_repeats(items, graph),
        lambda items: fold_repeats(items, graph, MAX_PERIOD),
        lambda items: group_by_resolution(items, graph),
        merge_smallest,
    ]
    folded = list(blocks)
    for number, fold in enumerate(steps):
        if number and len(folded) <= MAX_BLOCKS:
            break
        candidate = fold(folded)
        if len(candidate) > 1:  # a single block would show nothing
            folded = candidate
    return folded


def fold_repeats(blocks: Sequence[Block], graph: BlockGraph, max_period: int = 1) -> list[Block]:
    """Fold equal blocks that follow one another, each of which is computed from the one before.

    Args:
        blocks: Neighbours in execution order.
        graph: The network.
        max_period: The greatest number of blocks of a pattern.
    """
    keys = [_compute_fold_key(block, graph) for block in blocks]
    folded: list[Block] = []
    start = 0
    while start < len(blocks):
        period, count = _find_repeat(keys, start, max_period)
        parts = [
            make_group(blocks[n : n + period], "run") for n in range(start, start + period * count, period)
        ]
        count = _count_linked(parts, graph)
        if count > 1:
            folded.append(make_group(parts[:count], "repeat"))
            start += period * count
        else:
            folded.append(blocks[start])
            start += 1
    return folded


def group_by_resolution(blocks: Sequence[Block], graph: BlockGraph) -> list[Block]:
    """Group neighbours whose maps have about the same resolution.

    Args:
        blocks: Neighbours in execution order.
        graph: The network.
    """
    return [make_group(run, "run") for run in split_by_resolution(blocks, graph)]


def split_by_resolution(blocks: Sequence[Block], graph: BlockGraph) -> list[list[Block]]:
    """Divide neighbours where the resolution of their outputs changes.

    Args:
        blocks: Neighbours in execution order.
        graph: The network.
    """
    runs: list[list[Block]] = []
    previous: float | None = None
    for block in blocks:
        resolution = graph.compute_resolution(block.output["output_shape"])
        if not runs or differ_in_resolution(previous, resolution):
            runs.append([])
        runs[-1].append(block)
        previous = resolution
    return runs


def merge_smallest(blocks: Sequence[Block]) -> list[Block]:
    """Merge the smallest neighbours until MAX_BLOCKS are left.

    Args:
        blocks: Neighbours in execution order.
    """
    parts = [[block] for block in blocks]
    sizes = [count_layers(part) for part in parts]
    while len(parts) > MAX_BLOCKS:
        sums = [left + right for left, right in pairwise(sizes)]
        index = sums.index(min(sums))
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
        sizes[index : index + 2] = [sums[index]]
    return [make_group(part, "run") for part in parts]


def _compute_fold_key(block: Block, graph: BlockGraph) -> Hashable:
    """Return what blocks that may be folded have in common: structure and size of the maps."""
    shape = block.output["output_shape"]
    size = tuple(shape[1:]) if graph.compute_resolution(shape) is not None else len(shape)
    return graph.compute_signature(block), size


def _find_repeat(keys: Sequence[Hashable], start: int, max_period: int) -> tuple[int, int]:
    """Return period and count of the pattern at `start` that repeats over most blocks, the shortest first."""
    best = (1, 1)
    for period in range(1, max_period + 1):
        pattern = keys[start : start + period]
        count = 1
        while keys[start + count * period : start + (count + 1) * period] == pattern:
            count += 1
        if count > 1 and count * period > best[0] * best[1]:
            best = (period, count)
    return best


def _count_linked(parts: Sequence[Block], graph: BlockGraph) -> int:
    """Return how many parts form a sequence: each uses the one before, and nothing else that is new."""
    known = set(graph.get_sources(parts[0].layers))
    for n, (previous, part) in enumerate(pairwise(parts), 1):
        names = {layer["name"] for layer in previous.layers}
        sources = set(graph.get_sources(part.layers))
        if not sources & names or not sources <= known | names:
            return n
        known |= names
    return len(parts)


def number_levels(resolutions: Sequence[float]) -> list[int]:
    """Number resolutions from the highest, which is 0; those that hardly differ share a level.

    Args:
        resolutions: Mean sides of maps.
    """
    levels: dict[float, int] = {}
    previous: float | None = None
    level = -1
    for value in sorted(resolutions, reverse=True):
        if previous is None or differ_in_resolution(previous, value):
            previous = value
            level += 1
        levels[value] = level
    return [levels[value] for value in resolutions]
