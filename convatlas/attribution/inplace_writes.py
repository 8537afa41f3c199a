"""What a network wrote in place: which operation, and into which part of a tensor.

Autograd records a write into a view of a tensor (a slice, or the output of an instance norm) as CopySlices,
which hides the operation: its backward pass is exact, but nothing tells a rectifier from a sum. An operation
in place may also overwrite a value that autograd has saved, so that no backward pass can run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, saved_tensors_hooks

from convatlas.tracing.dispatch_mode import DispatchMode

WRITE_NODE = "CopySlices"
METADATA_KEY = "convatlas.write"  # in the metadata of a node


class _Layout(NamedTuple):
    """Where the values of a tensor are in its storage."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Write(NamedTuple):
    """An operation in place on a view of a tensor.

    Attributes:
        operation: The operation as its node would be named, such as Relu or ClampMin.
        arguments: Its arguments after the tensor.
        view: Where the values that it wrote are.
        base: Where those of the whole tensor are.
        device: Its device.
    """

    operation: str
    arguments: tuple[Any, ...]
    view: _Layout
    base: _Layout
    device: torch.device

    def region(self) -> Tensor:
        """Return which values of the whole tensor were written, as a mask of its shape."""
        size, stride, offset = self.view
        mask = torch.empty_strided(self.base.size, self.base.stride, dtype=torch.bool, device=self.device)
        mask.zero_()
        mask.as_strided(size, stride, offset - self.base.offset).fill_(True)
        return mask


class _WriteRecorder(DispatchMode):
    """Records each operation in place on a view, by the number that autograd gives its node."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.writes: dict[int, Write] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func._schema.name.rpartition("::")[2]
        if name.endswith("_") and torch.is_grad_enabled() and isinstance(args[0], Tensor):
            view, base = args[0], args[0]._base
            if base is not None and base.dtype == view.dtype:
                operation = "".join(word.capitalize() for word in name.split("_"))
                arguments = tuple(None if isinstance(value, Tensor) else value for value in args[1:])
                # The next number is that of the CopySlices, which autograd adds when the operation has run.
                number = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
                self.writes[number] = Write(operation, arguments, _layout(view), _layout(base), base.device)
        return output


def _layout(tensor: Tensor) -> _Layout:
    """Return the layout of a tensor."""
    return _Layout(tensor.size(), tensor.stride(), int(tensor.storage_offset()))


@contextmanager
def record_writes() -> Iterator[dict[int, Write]]:
    """Record the writes of a network, and let it overwrite values that autograd has saved.

    Yields:
        The writes so far, by the number of their node, for `label_writes`.
    """

    def save(tensor: Tensor) -> Tensor:
        return tensor if isinstance(tensor, nn.Parameter) else tensor.clone()

    recorder = _WriteRecorder()
    with saved_tensors_hooks(save, lambda saved: saved), recorder:
        yield recorder.writes


def label_writes(top: Node, writes: dict[int, Write]) -> None:
    """Attach the writes to their nodes.

    Args:
        top: The uppermost node of the graph.
        writes: The writes by the number of their node, from `record_writes`.
    """
    for node in all_nodes(top):
        if _is_write(node) and node._sequence_nr() in writes:
            node.metadata[METADATA_KEY] = writes[node._sequence_nr()]


def find_write(node: Node) -> Write | None:
    """Return the write that a node stands for.

    Args:
        node: A node of autograd's graph.

    Returns:
        The write that `label_writes` attached; None for other nodes, and where it is not known.
    """
    if not _is_write(node):
        return None
    metadata: Any = node.metadata  # a dict, in spite of its type
    write: Write | None = metadata.get(METADATA_KEY)
    return write


def writes_in_place(top: Node) -> bool:
    """Return whether a graph holds writes, or cannot run as a saved value is overwritten.

    Args:
        top: The uppermost node of the graph.
    """
    return any(_is_write(node) or _is_saved_value_lost(node) for node in all_nodes(top))


def _is_write(node: Any) -> bool:
    return bool(node.name().endswith(WRITE_NODE))


def _is_saved_value_lost(node: Any) -> bool:
    """Return whether a value that a node has saved was overwritten."""
    try:
        for attribute in _saved_attributes(type(node)):
            getattr(node, attribute)
    except RuntimeError as error:
        return "modified by an inplace operation" in str(error)
    return False


_SAVED_ATTRIBUTES: dict[type, list[str]] = {}


def _saved_attributes(kind: type) -> list[str]:
    """Return the attributes of a class of nodes that hold what it has saved."""
    if kind not in _SAVED_ATTRIBUTES:
        _SAVED_ATTRIBUTES[kind] = [name for name in dir(kind) if name.startswith("_saved_")]
    return _SAVED_ATTRIBUTES[kind]


def all_nodes(top: Node) -> list[Any]:
    """Return every node of a graph.

    Args:
        top: The uppermost node.
    """
    nodes: dict[Any, None] = {}
    pending: list[Any] = [top]
    while pending:
        node = pending.pop()
        if node not in nodes:
            nodes[node] = None
            pending += [child for child, _ in node.next_functions if child is not None]
    return list(nodes)
