"""The logits of a network that ends in a softmax or a sigmoid: run it without that last operation.

The gradient of a probability or its logarithm mixes all classes; that of a logit belongs to one. Which calls
come last is read from autograd's graph. When the network runs again they return their input, in its values
and in the backward pass, whatever code called them: modules, functions, operators, scripts.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from convatlas.attribution.inplace_writes import all_nodes
from convatlas.models.output_graph import ARRANGEMENTS, get_operation
from convatlas.tracing.dispatch_mode import DispatchMode

FINAL_NODES = {"Softmax", "LogSoftmax", "Sigmoid"}
WRAPPER_NODES = {"Log", "Exp", "Clamp", "ClampMin"}  # of probabilities, as in log(softmax(x))
SKIPPABLE_NODES = FINAL_NODES | WRAPPER_NODES
# The functions that record these nodes.
SKIPPABLE_FUNCTIONS = {
    f"aten::{name}" for name in ("_softmax", "_log_softmax", "sigmoid", "log", "exp", "clamp", "clamp_min")
}
METADATA_KEY = "convatlas.skipped"  # in the metadata of a node


class CallSkipper(DispatchMode):
    """Lets some calls of functions that record a node of `SKIPPABLE_NODES` return their input.

    Args:
        skipped: The numbers of these calls, in the order of the forward pass.
    """

    def __init__(self, skipped: Collection[int] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.skipped = skipped
        self.node_numbers: list[int] = []  # of each call, as autograd counts nodes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.removesuffix("_") not in SKIPPABLE_FUNCTIONS:
            return func(*args, **(kwargs or {}))
        # Autograd has made the node before it dispatches the call.
        self.node_numbers.append(torch.autograd._get_sequence_nr() - 1)  # type: ignore[attr-defined]
        if len(self.node_numbers) - 1 not in self.skipped:
            return func(*args, **(kwargs or {}))
        return args[0] if name.endswith("_") else args[0].clone()

    def find_calls(self, nodes: Collection[Node]) -> frozenset[int]:
        """Return the numbers of the calls that recorded some nodes.

        Args:
            nodes: Nodes of the graph of the run.
        """
        numbers = {node._sequence_nr() for node in nodes}
        return frozenset(n for n, number in enumerate(self.node_numbers) if number in numbers)

    def mark_skipped(self, top: Node) -> None:
        """Let the backward pass skip the calls that the forward pass has skipped.

        Args:
            top: The uppermost node of the graph of the run.
        """
        numbers = {self.node_numbers[call] for call in self.skipped if call < len(self.node_numbers)}
        for node in all_nodes(top):
            if get_operation(node) in SKIPPABLE_NODES and node._sequence_nr() in numbers:
                node.metadata[METADATA_KEY] = True
                node.register_hook(lambda grad_input, grad_output: (grad_output[0], *grad_input[1:]))


def is_skipped(node: Node) -> bool:
    """Return whether a node is of a call that was skipped.

    Args:
        node: A node of autograd's graph.
    """
    metadata: Any = node.metadata  # a dict, in spite of its type
    return METADATA_KEY in metadata


def find_final_nodes(scores: Tensor) -> set[Node]:
    """Return the nodes of the softmaxes or sigmoids that are a network's last operations.

    Args:
        scores: The scores of classes, with their graph.

    Returns:
        The nodes, with those of a logarithm or a clamp after them; none where other operations come last.
    """
    return set() if scores.grad_fn is None else _find_final([scores.grad_fn])


def _find_final(pending: list[Node]) -> set[Node]:
    """Return the final nodes from some nodes down, and those that wrap them; none where others come last."""
    nodes: set[Node] = set()
    while pending:  # past what only arranges values
        node = pending.pop()
        children = [child for child, _ in node.next_functions if child is not None]
        if get_operation(node) in ARRANGEMENTS and children:
            pending += children
        else:
            nodes.add(node)
    operations = {get_operation(node) for node in nodes}
    if operations <= FINAL_NODES:
        return nodes
    if not operations <= WRAPPER_NODES:
        return set()
    below = _find_final([child for node in nodes for child, _ in node.next_functions if child is not None])
    return nodes | below if below else set()


@contextmanager
def skip_calls(network: nn.Module, skipped: Collection[int]) -> Iterator[CallSkipper]:
    """Run a network without some calls, such as its last softmax or sigmoid, while the block runs.

    Args:
        network: The network. It may run several times, which the calls are counted in anew.
        skipped: The numbers of the calls to skip, from `CallSkipper.find_calls`.

    Yields:
        The skipper.
    """
    skipper = CallSkipper(skipped)
    handle = network.register_forward_pre_hook(lambda module, args: skipper.node_numbers.clear())
    try:
        with skipper:
            yield skipper
    finally:
        handle.remove()
