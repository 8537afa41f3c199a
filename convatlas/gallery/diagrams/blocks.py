"""The blocks of a network: its modules, units of a convolution with what follows it, and groups of blocks."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from convatlas.gallery.diagrams.block_tree import (
    ModuleCall,
    build_call_tree,
    find_consumers,
    select_leaf_calls,
)
from convatlas.records import Layer

ATTACHED_KINDS = frozenset({"norm", "activation", "dropout", "reshape"})  # that belong to the layer before
OUTSIDE = -1  # the start of an edge from outside
RESOLUTION_RATIO = 1.5  # between two maps, from which on their resolutions count as different

Group = Literal["", "repeat", "run"]


@dataclass
class Block:
    """Consecutive layers that a diagram draws as one.

    Attributes:
        path: The path of its module, or the name of its layer; "" for the network.
        type: The class of its module, or the type of its layer.
        layers: Its layers, in execution order.
        children: The blocks in it; none of a layer.
        group: "repeat" for equal blocks one after the other, "run" for other neighbours, "" for a module,
            a layer, or a layer with the norm and activation after it.
    """

    path: str
    type: str
    layers: list[Layer]
    children: list["Block"] = field(default_factory=list)
    group: Group = ""

    @property
    def output(self) -> Layer:
        """Return the last layer, before the reshapes after it, as a flatten before a linear layer."""
        return next((layer for layer in reversed(self.layers) if layer["kind"] != "reshape"), self.layers[-1])

    @property
    def main_layer(self) -> Layer:
        """Return the layer after which a unit is named: the first that is no norm, activation or reshape."""
        return next((layer for layer in self.layers if layer["kind"] not in ATTACHED_KINDS), self.layers[0])

    @property
    def is_unit(self) -> bool:
        """Return whether it is one layer, or one with what is attached to it."""
        n_main = sum(layer["kind"] not in ATTACHED_KINDS for layer in self.layers)
        return n_main <= 1 and not any(child.children for child in self.children)


@dataclass(frozen=True)
class BlockEdge:
    """The edge from one block to another, by their numbers, and the layers whose outputs it carries."""

    start: int
    end: int
    sources: list[str]


class BlockGraph:
    """The blocks of a network as a tree, and the data flow between its layers.

    Args:
        layers: layers.json.

    Attributes:
        layers: The called layers that are no composite modules, in execution order.
        consumers: The layers that are computed from each layer, by its name.
        root: The block of the network.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = _chain_unknown_inputs(select_leaf_calls(layers))
        self.consumers = find_consumers(self.layers)
        self.by_name = {layer["name"]: layer for layer in self.layers}
        self._signatures: dict[Hashable, int] = {}
        self._signature_of: dict[int, int] = {}
        self.n_axes = len(self.layers[0]["input_shape"]) if self.layers else 0
        self.root = self._convert(build_call_tree(self.layers)) if self.layers else Block("", "", [])

    def get_sources(self, layers: Sequence[Layer]) -> list[str]:
        """Return what layers are computed from outside of them, each name once.

        Args:
            layers: The layers of a block.
        """
        inside = {layer["name"] for layer in layers}
        names = dict.fromkeys(name for layer in layers for name in layer["inputs"])
        return [name for name in names if name not in inside]

    def get_exits(self, block: Block) -> list[str]:
        """Return the layers of a block that are used outside of it, or by no layer.

        Args:
            block: The block.
        """
        inside = {layer["name"] for layer in block.layers}
        return [
            name
            for name in (layer["name"] for layer in block.layers)
            if not (users := self.consumers.get(name)) or not inside.issuperset(users)
        ]

    def find_edges(self, blocks: Sequence[Block]) -> list[BlockEdge]:
        """Return the edges between blocks, and from OUTSIDE, each pair once.

        Args:
            blocks: Blocks without common layers, in execution order.
        """
        block_of = {layer["name"]: n for n, block in enumerate(blocks) for layer in block.layers}
        edges: dict[tuple[int, int], list[str]] = {}
        for n, block in enumerate(blocks):
            for name in self.get_sources(block.layers):
                edges.setdefault((block_of.get(name, OUTSIDE), n), []).append(name)
        return [BlockEdge(start, end, names) for (start, end), names in edges.items()]

    def compute_resolution(self, shape: Sequence[int] | None) -> float | None:
        """Return the mean side of maps, None for what has no spatial axes, as vectors and tokens.

        Args:
            shape: The shape of a layer's output, or of the input.
        """
        if not shape or len(shape) != self.n_axes or len(shape) < 2:
            return None
        return float(math.prod(shape[1:]) ** (1 / (len(shape) - 1)))

    def compute_signature(self, block: Block) -> int:
        """Return a number that blocks of the same class, kernels and edges have in common.

        Args:
            block: The block.
        """
        if id(block) not in self._signature_of:
            layer = block.layers[0]
            value: Hashable = tuple(
                str(layer[key]) for key in ("type", "kernel", "stride", "dilation", "padding")
            )
            if block.children:
                edges = tuple((edge.start, edge.end) for edge in self.find_edges(block.children))
                value = block.type, tuple(map(self.compute_signature, block.children)), edges
            self._signature_of[id(block)] = self._signatures.setdefault(value, len(self._signatures))
        return self._signature_of[id(block)]

    def attach(self, blocks: Sequence[Block]) -> list[Block]:
        """Join norms, activations, dropout and reshapes with the block of which alone they are computed.

        Args:
            blocks: Neighbours in execution order.
        """
        attached: list[Block] = []
        for block in blocks:
            if attached and self._is_attached(block, attached[-1]):
                attached[-1] = _join(attached[-1], block)
            else:
                attached.append(block)
        return attached

    def _convert(self, call: ModuleCall) -> Block:
        """Convert the call of a module to a block, without levels that hold a single block."""
        children = self.attach(
            [
                self._convert(child) if isinstance(child, ModuleCall) else _make_layer_block(child)
                for child in call.children
            ]
        )
        block = Block(call.path, call.type, call.layers, children)
        if call.path and block.is_unit:
            return Block(call.path, call.type, call.layers, list(map(_make_layer_block, call.layers)))
        if len(children) == 1 and children[0].children:
            (child_block,) = children
            is_named = call.type not in ("", "Sequential")
            return Block(
                call.path, call.type if is_named else child_block.type, call.layers, child_block.children
            )
        return block

    def _is_attached(self, block: Block, previous: Block) -> bool:
        """Return whether a norm, activation, dropout or reshape is all that a unit before it leads to.

        A larger block takes only a reshape.
        """
        kinds = {layer["kind"] for layer in block.layers}
        if not kinds <= (ATTACHED_KINDS if previous.is_unit else {"reshape"}):
            return False
        name = previous.layers[-1]["name"]
        used = self.consumers.get(name, [])
        return self.get_sources(block.layers) == [name] and used == [block.layers[0]["name"]]


def differ_in_resolution(first: float | None, second: float | None) -> bool:
    """Return whether two resolutions differ by RESOLUTION_RATIO, or only one exists.

    Args:
        first: A mean side of maps, or None.
        second: Another.
    """
    if first is None or second is None:
        return first is not second
    return max(first, second) >= RESOLUTION_RATIO * min(first, second)


def make_group(blocks: Sequence[Block], group: Group) -> Block:
    """Make a group of neighbours, or return the only one.

    Args:
        blocks: The neighbours.
        group: The kind of group.
    """
    if len(blocks) == 1:
        return blocks[0]
    layers = [layer for block in blocks for layer in block.layers]
    kind = blocks[0].type if group == "repeat" else ""
    return Block(f"{blocks[0].path}–{blocks[-1].path}", kind, layers, list(blocks), group)


def _make_layer_block(layer: Layer) -> Block:
    """Make the block of a layer."""
    return Block(layer["name"], layer["type"], [layer])


def _join(block: Block, attached: Block) -> Block:
    """Join a block and what is attached to it."""
    layers = [*block.layers, *attached.layers]
    children = list(map(_make_layer_block, layers)) if block.is_unit else [*block.children, attached]
    return Block(block.path, block.type, layers, children)


def _chain_unknown_inputs(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers without any known input as a chain, and others as they are."""
    if any(layer.get("inputs") for layer in layers):
        return [layer if "inputs" in layer else _with_inputs(layer, []) for layer in layers]
    names = ["input", *(layer["name"] for layer in layers)]
    return [_with_inputs(layer, [name]) for layer, name in zip(layers, names, strict=False)]


def _with_inputs(layer: Layer, names: list[str]) -> Layer:
    """Return a copy of a layer with other inputs."""
    copy = layer.copy()
    copy["inputs"] = names
    return copy


def count_layers(blocks: Iterable[Block]) -> int:
    """Return the number of layers of blocks.

    Args:
        blocks: The blocks.
    """
    return sum(len(block.layers) for block in blocks)


def index_blocks(blocks: Sequence[Block]) -> Mapping[str, int]:
    """Return the number of the block of each layer, by the layer's name.

    Args:
        blocks: Blocks without common layers.
    """
    return {layer["name"]: n for n, block in enumerate(blocks) for layer in block.layers}
