"""The words of a block's diagram: the lines in its nodes, its caption, its notes and its description."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from convatlas.gallery.diagrams.block_tree import ModuleCall, get_layers
from convatlas.names import format_shape, join_names
from convatlas.records import Layer

MAX_LISTED_BLOCKS = 6  # that a caption names
MAX_CHAIN_LINES = 4  # in which a chain of layers is written
OPERATOR_SIGNS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "matmul": "@", "bmm": "@"}
LEGEND = {"s": "s = stride", "d": "d = dilation", "g": "g = groups"}


class NodeLine(NamedTuple):
    """A line in a node: its text, and its role: name, type, shape or sign."""

    text: str
    role: str


def describe_child(child: ModuleCall | Layer, parent: ModuleCall) -> tuple[str, list[NodeLine]]:
    """Describe a child of a block.

    Args:
        child: A layer, or the call of a module.
        parent: The call of the block that holds it, relative to which names are written.

    Returns:
        The kind as which it is drawn (a layer's kind, "merge" or "block"), and the lines in its node.
    """
    shape = NodeLine(format_shape(get_layers(child)[-1]["output_shape"]), "shape")
    if not isinstance(child, ModuleCall):
        if child["kind"] == "merge":
            return "merge", [NodeLine(OPERATOR_SIGNS.get(child["type"], child["type"]), "sign"), shape]
        return child["kind"], [*_describe_layer(child, parent), shape]
    name = NodeLine(parent.relative_name(child.path), "name")
    if child.is_sequential:
        chain = [NodeLine(text, "type") for text in _describe_chain(child.layers)]
        return _choose_chain_kind(child.layers), [name, *chain, shape]
    types = {inner.type if isinstance(inner, ModuleCall) else "" for inner in child.children}
    contents = ""
    if len(types) == 1 and types != {""}:
        contents = f" of {len(child.children)} {types.pop()}"
    return "block", [name, NodeLine(f"{child.type}{contents}", "type"), shape]


def write_caption(calls: Sequence[ModuleCall], similar: Sequence[str], lines: Sequence[NodeLine]) -> str:
    """Write the caption of a block's diagram.

    Args:
        calls: The block that is drawn, and the others of its structure.
        similar: The paths of the others.
        lines: The lines in the nodes.
    """
    text = f"{calls[0].path or 'The network'}: data flow and output shapes."
    if similar:
        remaining = len(similar) - MAX_LISTED_BLOCKS
        listed = join_names(similar)
        if remaining > 0:
            listed = f"{', '.join(similar[:MAX_LISTED_BLOCKS])} and {remaining} more"
        kernels = [[list(_describe_kernel(layer)) for layer in call.layers] for call in calls]
        differs = any(left != right for left, right in pairwise(kernels))
        suffix = ", some with different kernel sizes or strides" if differs else ""
        text += f" Same structure: {listed}{suffix}."
    words = {word for line in lines if line.role == "type" for word in line.text.split()}
    letters = {word[0] for word in words if word[1:2].isdigit()}
    legend = [meaning for letter, meaning in LEGEND.items() if letter in letters]
    if legend:
        text += f" After the kernel size: {', '.join(legend)}."
    return text


def collect_notes(call: ModuleCall) -> list[str]:
    """Collect the notes of layers.json on the layers of a block, but not on those of blocks in it.

    Args:
        call: The call of the block. Sequential modules in it count as its own layers.

    Returns:
        Each note after the name of its layer, "name: note".
    """
    children = [child for child in call.children if not isinstance(child, ModuleCall) or child.is_sequential]
    layers = [layer for child in children for layer in get_layers(child)]
    return [f"{layer['name']}: {note}" for layer in layers for note in layer["notes"]]


def describe_graph(nodes: Sequence[Sequence[NodeLine]], edges: Sequence[tuple[int, int]]) -> str:
    """Describe a diagram for readers who do not see it: the inputs of each node.

    Args:
        nodes: The lines in each node.
        edges: Pairs of nodes (from, to).
    """
    names = [" ".join(line.text for line in lines if line.role != "type") for lines in nodes]
    sentences = []
    for node, name in enumerate(names):
        inputs = [names[start] for start, end in edges if end == node]
        if inputs:
            sentences.append(f"{name}, from {' and '.join(inputs)}")
    return "; ".join(sentences)


def _describe_layer(layer: Layer, parent: ModuleCall) -> list[NodeLine]:
    """Write a layer's name, and its type with its kernel where the name does not say it."""
    name, kind = parent.relative_name(layer["name"]), " ".join([layer["type"], *_describe_kernel(layer)])
    lines = [NodeLine(name, "name")]
    if name.split(":")[0] != kind:
        lines.append(NodeLine(kind, "type"))
    return lines


def _choose_chain_kind(layers: Sequence[Layer]) -> str:
    """Choose the kind as which a chain of layers is drawn: its convolution, linear layer or first layer."""
    kinds = [layer["kind"] for layer in layers]
    return next((kind for kind in ("conv", "linear") if kind in kinds), kinds[0])


def _describe_chain(layers: Sequence[Layer]) -> list[str]:
    """Write a chain of layers, a line for each layer with the norms and activations after it."""
    segments: list[list[str]] = []
    for layer in layers:
        words = " ".join([_abbreviate_type(layer), *_describe_kernel(layer)])
        if not segments or layer["kind"] not in ("norm", "activation", "dropout"):
            segments.append([])
        segments[-1].append(words)
    lines = [" → ".join(segment) for segment in segments]
    if len(lines) > MAX_CHAIN_LINES:
        n_omitted = sum(map(len, segments[MAX_CHAIN_LINES - 2 : -1]))
        lines = [*lines[: MAX_CHAIN_LINES - 2], f"{n_omitted} more layers", lines[-1]]
    return lines


def _abbreviate_type(layer: Layer) -> str:
    """Abbreviate the type of a layer in a chain."""
    if layer["kind"] == "conv":
        return "transposed conv" if "ranspose" in layer["type"] else "conv"
    return layer["kind"] if layer["kind"] in ("norm", "linear") else layer["type"]


def _describe_kernel(layer: Layer) -> Iterator[str]:
    """Write a layer's kernel size, and its stride, dilation and groups where they are not 1."""
    if isinstance(layer["kernel"], list):
        yield format_shape(layer["kernel"])
    usual_stride = layer["kernel"] if layer["kind"] == "pool" else None
    for letter, value in (("s", layer["stride"]), ("d", layer["dilation"]), ("g", layer["groups"])):
        values = value if isinstance(value, list) else [value or 1]
        if set(values) == {1} or (letter == "s" and values == usual_stride):
            continue
        yield letter + (str(values[0]) if len(set(values)) == 1 else "×".join(map(str, values)))
