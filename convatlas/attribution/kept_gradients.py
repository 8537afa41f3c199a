"""Record the graph of a network that switches gradients off, or checkpoints, inside its forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction


class _KeepGradients(TorchFunctionMode):
    """Ignores torch.no_grad() and torch.set_grad_enabled(False)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch._C._set_grad_enabled and args == (False,):
            return None
        return func(*args, **(kwargs or {}))


def _run_without_checkpoint(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    """Run a function that a reentrant checkpoint would run without a graph."""
    return function(*args)


@contextmanager
def keep_gradients(network: nn.Module) -> Iterator[None]:
    """Let a network record its graph under torch.no_grad() and in reentrant checkpoints while the block runs.

    Its outputs do not change. What torch.no_grad() covers inside a leaf module stays without a graph.

    Args:
        network: The network that runs in the block. Its buffers are detached from the graph at the end.
    """
    CheckpointFunction.apply = _run_without_checkpoint
    try:
        with _KeepGradients():
            yield
    finally:
        del CheckpointFunction.apply  # torch's own is inherited
        for buffer in network.buffers():  # one that the network updates would keep the graph
            if buffer.grad_fn is not None:
                buffer.detach_()
