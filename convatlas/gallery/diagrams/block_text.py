"""The words of a diagram: what a block is called in it, what it consists of, and its tooltip."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, starmap, takewhile

from convatlas.gallery.diagrams.blocks import Block
from convatlas.names import format_shape
from convatlas.records import Layer

OPERATOR_SIGNS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "matmul": "@", "bmm": "@"}
UNINFORMATIVE_TYPES = frozenset({"", "Sequential", "ModuleList", "ModuleDict"})
SHORT_TYPES = {"conv": "conv", "linear": "linear", "norm": "norm"}
SPACE, PART_END = re.compile(" "), re.compile("[._/–-]|[a-z](?=[A-Z])")
MAX_PARTS = 3  # kinds of blocks that the description of a group lists
MAX_NAME_LENGTH = 24  # characters; of a longer name the end is shown
MAX_LISTED_LAYERS = 6  # of a tooltip


def name_blocks(blocks: Sequence[Block]) -> list[str]:
    """Name the blocks of a diagram by the ends of their paths that tell them apart.

    A path that is a number, as in a Sequential, follows the type: "Fire 3".

    Args:
        blocks: The blocks of one diagram.

    Returns:
        A name for each, unique unless the paths are not.
    """
    paths = [_split_path(block) for block in blocks]
    names = []
    for block, path in zip(blocks, paths, strict=True):
        depth = 1
        while depth < len(path) and sum(other[-depth:] == path[-depth:] for other in paths) > 1:
            depth += 1
        names.append(_format_name(block, path, depth))
    return names


def describe_block(block: Block) -> str:
    """Describe what a block consists of, as "conv 3 × 3, stride 2", "4 × Fire" or "BasicBlock".

    Args:
        block: The block.
    """
    if block.group == "repeat":
        return f"{len(block.children)} × {describe_type(block.children[0])}"
    if block.is_unit:
        return describe_layer(block.main_layer)
    if block.group == "" and block.type not in UNINFORMATIVE_TYPES:
        return block.type.lstrip("_")
    parts = list(starmap(_format_count, _count_types(block.children)))
    if len(parts) <= MAX_PARTS:
        return ", ".join(parts)
    largest = max(block.children, key=lambda child: len(child.layers))
    return f"{describe_type(largest)}, {len(block.layers) - len(largest.layers)} more layers"


def describe_layer(layer: Layer) -> str:
    """Describe a layer by its type, kernel and what is unusual: "max pool 3 × 3, stride 2".

    Args:
        layer: The layer.
    """
    words = [
        shorten_type(layer),
        *([format_shape(layer["kernel"])] if isinstance(layer["kernel"], list) else []),
    ]
    return ", ".join([" ".join(words), *_describe_steps(layer)])


def describe_type(block: Block) -> str:
    """Name the kind of a block: its class, or the short type of a unit's main layer.

    Args:
        block: The block.
    """
    if block.is_unit:
        return shorten_type(block.main_layer)
    if block.type not in UNINFORMATIVE_TYPES:
        return block.type.lstrip("_")
    counts = _count_types(block.children)
    return _format_count(*counts[0]) if len(counts) == 1 else f"{len(block.layers)} layers"


def shorten_type(layer: Layer) -> str:
    """Shorten the type of a layer, as "conv" for Conv2d.

    Args:
        layer: The layer.
    """
    kind, name = layer["kind"], layer["type"]
    if kind == "conv":
        is_depthwise = (layer["groups"] or 1) > 1 and layer["groups"] == layer["input_shape"][0]
        return "transposed conv" if "ranspose" in name else "depthwise conv" if is_depthwise else "conv"
    if kind == "pool":
        operation = next((word for word in ("max", "avg") if word in name.lower()), "")
        adaptive = ""
        if "daptive" in name:
            adaptive = "global " if set(layer["output_shape"][1:]) == {1} else "adaptive "
        return f"{adaptive}{operation} pool" if operation else name
    return SHORT_TYPES.get(kind, name)


def write_tooltip(block: Block, name: str) -> str:
    """Write what a pointer over a block shows: its path, description, shapes, parameters and main layers.

    Args:
        block: The block.
        name: Its name in the diagram.
    """
    path = block.path.replace("–", " to ")
    parameters = sum(layer["parameters"] for layer in block.layers)
    shapes = [format_shape(shape) for shape in (block.layers[0]["input_shape"], block.output["output_shape"])]
    lines = [
        path if path != name else "",
        describe_block(block),
        " → ".join(shapes),
        f"{parameters:,} parameters" if parameters else "",
    ]
    names = [shorten_type(layer) for layer in block.layers]
    if len(names) > MAX_LISTED_LAYERS:
        lines.append(f"{len(names)} layers")
    elif len(names) > 1:
        lines.append((" → " if block.is_unit else ", ").join(names))
    return "\n".join(filter(None, lines))


def wrap_text(text: str, max_chars: int, max_lines: int) -> list[str]:
    """Wrap a text at spaces, or else at dots, underscores and capitals; what does not fit ends in "…".

    Args:
        text: The text.
        max_chars: The greatest length of a line.
        max_lines: The greatest number of lines.
    """
    lines: list[str] = []
    rest = text
    while rest and len(lines) < max_lines:
        end = _find_break(rest, max_chars)
        lines.append(rest[:end].strip())
        rest = rest[end:].strip()
    if rest:
        lines[-1] = f"{lines[-1][: max_chars - 1]}…"
    return lines


def _find_break(text: str, max_chars: int) -> int:
    """Return where the first line of a text ends."""
    if len(text) <= max_chars:
        return len(text)
    spaces = [match.end() for match in SPACE.finditer(text, 0, max_chars + 1)]
    parts = [match.end() for match in PART_END.finditer(text, 0, max_chars)]
    if spaces and spaces[-1] > max_chars // 3:
        return spaces[-1]
    return parts[-1] if parts else max_chars


def _count_types(blocks: Sequence[Block]) -> list[tuple[str, int]]:
    """Count the kinds of neighbours in a row, equal blocks of a group as many."""
    kinds = [
        kind
        for block in blocks
        for kind in [describe_type(block.children[0] if block.group == "repeat" else block)]
        * (len(block.children) if block.group == "repeat" else 1)
    ]
    return [(kind, len(list(run))) for kind, run in groupby(kinds)]


def _get_named_block(block: Block) -> Block:
    """Return the block after which a group is named: of unlike blocks the one with most layers."""
    if block.group != "run":
        return block
    return _get_named_block(max(block.children, key=lambda child: len(child.layers)))


def _split_path(block: Block) -> list[str]:
    """Split a path into the names of modules, the last a range for equal blocks."""
    if block.group == "run":
        first, last = (_split_path(block.children[n]) for n in (0, -1))
        is_range = first[:-1] == last[:-1] and first[-1][:1].isdigit() and last[-1][:1].isdigit()
        if not is_range:
            return _split_path(_get_named_block(block))
        return [*first[:-1], f"{first[-1].split('–')[0]}–{last[-1].split('–')[-1]}"]
    if block.group != "repeat":
        return _split_name(block.path)
    first, last = (_split_path(block.children[n]) for n in (0, -1))
    shared = _count_shared(first, last)
    start, end = ".".join(first[shared:]) or first[-1], ".".join(last[shared:]) or last[-1]
    prefix = start[: _count_shared(start, end)].rstrip("0123456789")
    return [*first[:shared], f"{start}–{end[len(prefix) :] or end}"]


def _count_shared(first: Sequence[str], last: Sequence[str]) -> int:
    """Return how many items two sequences have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _split_name(name: str) -> list[str]:
    """Split the name of a layer or module at dots and at the slash before an operation."""
    return name.replace("/", ".").split(".")


def _format_name(block: Block, path: Sequence[str], depth: int) -> str:
    """Join the last parts of a path; numbers follow the type or the module of what they number."""
    name = ".".join(path[-depth:])
    if name.replace("–", "").isdigit():
        named = _get_named_block(block)
        kind = describe_type(named.children[0] if named.group == "repeat" else named)
        is_range_of_many = block.group == "run" and "–" in name
        is_typed = not kind[0].isdigit() and len(kind) <= MAX_NAME_LENGTH - len(name) and not is_range_of_many
        return f"{kind if is_typed or len(path) == 1 else path[-2]} {name}"
    while len(name) > MAX_NAME_LENGTH and depth > 1:
        depth -= 1
        name = f"….{'.'.join(path[-depth:])}"
    return name


def _format_count(kind: str, count: int) -> str:
    """Write a kind of blocks with their number."""
    return f"{count} × {kind}" if count > 1 else kind


def _describe_steps(layer: Layer) -> Iterator[str]:
    """Write a layer's stride, dilation and groups where they are not usual."""
    usual_stride = layer["kernel"] if layer["kind"] == "pool" else None
    is_depthwise = layer["kind"] == "conv" and (layer["groups"] or 1) == layer["input_shape"][0]
    steps = {"stride": layer["stride"], "dilation": layer["dilation"]}
    if not is_depthwise:
        steps["groups"] = [layer["groups"] or 1]
    for word, value in steps.items():
        values = value if isinstance(value, list) else [value or 1]
        if set(values) != {1} and (word != "stride" or values != usual_stride):
            yield f"{word} {values[0] if len(set(values)) == 1 else ' × '.join(map(str, values))}"
