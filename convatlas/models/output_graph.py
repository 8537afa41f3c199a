"""The autograd graph behind a network's outputs: what computed each, and which was computed from which."""

import re
from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node

# Operations that arrange, copy, convert or enlarge values, and change none of them into another quantity.
ARRANGEMENTS = frozenset(
    "View UnsafeView ReshapeAlias Alias Clone ToCopy Copy Squeeze Unsqueeze Permute Transpose T Expand "
    "Repeat Slice Select Index Narrow AsStrided Unbind Split SplitWithSizes Cat Stack UpsampleBilinear2D "
    "UpsampleNearest2D".split()
)
WEIGHTED_OPERATIONS = frozenset("Convolution Addmm Mm Addmv Mv Bmm Baddbmm".split())


def list_last_operations(tensor: Tensor) -> set[str]:
    """Return the operations that computed the values of a tensor, such as {"Sigmoid"}.

    Args:
        tensor: A tensor of a network's output, with its graph.

    Returns:
        Names as in autograd, without "Backward0"; none of a tensor without a graph.
    """
    return {get_operation(node) for node in _find_computing_nodes(tensor)}


def get_operation(node: Node) -> str:
    """Return the name of a node's operation, such as "Addmm"."""
    return re.sub(r"Backward\d*$", "", node.name().split("::")[-1])


def is_computed_from(later: Tensor, earlier: Tensor) -> bool:
    """Return whether a tensor was computed from another one, or from what computed the other one.

    Args:
        later: A tensor of a network's output.
        earlier: Another one.
    """
    sources = _find_computing_nodes(earlier)
    starts = _find_computing_nodes(later)
    ancestors = set(_walk(parent for node in starts for parent in _get_parents(node)))
    return bool(sources) and sources <= ancestors


def count_weighted_operations(tensor: Tensor) -> int:
    """Return the number of convolutions and matrix products that a tensor was computed by.

    Args:
        tensor: A tensor of a network's output.
    """
    return sum(get_operation(node) in WEIGHTED_OPERATIONS for node in _walk(_find_computing_nodes(tensor)))


def _find_computing_nodes(tensor: Tensor) -> set[Node]:
    """Return the nodes before the last arrangements of a tensor's values."""
    computing: set[Node] = set()
    pending = [tensor.grad_fn] if tensor.grad_fn is not None else []
    while pending:
        node = pending.pop()
        parents = list(_get_parents(node))
        if get_operation(node) in ARRANGEMENTS and parents:
            pending += parents
        else:
            computing.add(node)
    return computing


def _walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield nodes and all before them, each once."""
    visited: set[Node] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node not in visited:
            visited.add(node)
            yield node
            pending += _get_parents(node)


def _get_parents(node: Node) -> Iterator[Node]:
    """Yield the nodes that a node's operation took its values from."""
    return (parent for parent, _ in node.next_functions if parent is not None)
