"""Networks whose resolution falls and rises again, with skip connections across: encoders with decoders."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from convatlas.gallery.diagrams.blocks import (
    OUTSIDE,
    RESOLUTION_RATIO,
    Block,
    BlockGraph,
    differ_in_resolution,
    index_blocks,
    make_group,
)
from convatlas.gallery.diagrams.folding import DOMINANT_SHARE, split_by_resolution
from convatlas.records import Layer

MAX_RUNS = 15  # blocks of a U
MIN_VALLEY_SHARE = 0.15  # of the layers: a block with a smaller fall and rise in it is drawn as one
EXPANSION_ROUNDS = 12  # modules within modules


@dataclass(frozen=True)
class EncoderDecoder:
    """The blocks of an encoder and a decoder.

    Attributes:
        blocks: One block for each level on the way down and up, in execution order.
        bottom: The number of the block with the lowest resolution.
    """

    blocks: list[Block]
    bottom: int


def find_encoder_decoder(graph: BlockGraph) -> EncoderDecoder | None:
    """Find an encoder and a decoder by the data flow.

    The resolution falls to one lowest level and rises again, and a connection joins a block on the way up
    with one of the same resolution on the way down.

    Args:
        graph: The network.

    Returns:
        None for other networks.
    """
    atoms = _expand(graph)
    runs = split_by_resolution(atoms, graph)
    resolutions = [graph.compute_resolution(run[-1].output["output_shape"]) for run in runs]
    if not 3 <= len(runs) <= MAX_RUNS or not all(resolutions):
        return None
    values = [value for value in resolutions if value]
    bottom = values.index(min(values))
    falls = all(left > right for left, right in pairwise(values[: bottom + 1]))
    rises = all(left < right for left, right in pairwise(values[bottom:]))
    if not (0 < bottom < len(values) - 1 and falls and rises) or not _has_skip(atoms, graph):
        return None
    return EncoderDecoder([make_group(run, "run") for run in runs], bottom)


def _expand(graph: BlockGraph) -> list[Block]:
    """Divide the modules that hold both levels and connections past them."""
    blocks = list(graph.root.children)
    for _ in range(EXPANSION_ROUNDS):
        signatures = [graph.compute_signature(block) for block in blocks]
        expanded: list[Block] = []
        for block, signature in zip(blocks, signatures, strict=True):
            is_single = signatures.count(signature) == 1
            expanded += block.children if _is_divided(block, is_single, graph) else [block]
        if len(expanded) == len(blocks):
            break
        blocks = expanded
    return graph.attach(blocks)


def _is_divided(block: Block, is_single: bool, graph: BlockGraph) -> bool:
    """Return whether a module is divided: it has levels, and several ways in or out, or is a large valley."""
    if block.is_unit or not block.children:
        return False
    share = len(block.layers) / len(graph.layers)
    outer = _list_resolutions([child.output for child in block.children], graph)
    inner = _list_resolutions(block.layers, graph)
    if share >= DOMINANT_SHARE or not inner:
        return share >= DOMINANT_SHARE
    has_ways = len(graph.get_sources(block.layers)) > 1 or len(graph.get_exits(block)) > 1
    if has_ways and outer and differ_in_resolution(max(outer), min(outer)):
        return True
    output = graph.compute_resolution(block.output["output_shape"])
    return is_single and share >= MIN_VALLEY_SHARE and differ_in_resolution(output, min(inner))


def _list_resolutions(layers: Sequence[Layer], graph: BlockGraph) -> list[float]:
    """Return the resolutions of maps, without those of a single value as after global pooling."""
    sides = [graph.compute_resolution(layer["output_shape"]) for layer in layers]
    return [side for side in sides if side and side > 1]


def _has_skip(atoms: Sequence[Block], graph: BlockGraph) -> bool:
    """Return whether a block joins its input from below with one that was never below its resolution."""
    block_of = index_blocks(atoms)
    lowest: list[float] = []  # the lowest resolution on the way to each block
    for block in atoms:
        resolution = graph.compute_resolution(block.output["output_shape"])
        assert resolution is not None  # as each run has one
        inputs = []
        for name in graph.get_sources(block.layers):
            source = graph.by_name.get(name)
            side = graph.compute_resolution(source["output_shape"]) if source else None
            number = block_of.get(name, OUTSIDE)
            is_broadcast = (
                len(block.layers) == 1
                and block.output["kind"] == "merge"
                and (side is None or side * RESOLUTION_RATIO <= resolution)
            )
            if number != OUTSIDE and side and not is_broadcast:
                inputs.append((side, lowest[number]))
        from_above = any(
            low * RESOLUTION_RATIO > side and not differ_in_resolution(side, resolution)
            for side, low in inputs
        )
        from_below = any(low * RESOLUTION_RATIO <= resolution for _, low in inputs)
        if from_above and from_below:
            return True
        lowest.append(min([resolution, *(low for _, low in inputs)]))
    return False
