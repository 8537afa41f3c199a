"""Let the gradient through rectifiers that block all of it, so that a unit that is off at the start can rise.

As in Lucid (misc/redirected_relu_grad.py): where no gradient passes a rectifier for an image, that which
raises its inputs passes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from convatlas.attribution.backward_rules import Grads, is_activation, is_rectifier
from convatlas.attribution.gradient_rules import walk_layers
from convatlas.attribution.inplace_writes import find_write


@contextmanager
def open_rectifiers(top: Node) -> Iterator[None]:
    """Redirect the gradient at rectifiers that block it, in backward passes of the block from a node.

    Args:
        top: The uppermost node of autograd's graph.
    """
    hooks: list[RemovableHandle] = []
    try:
        for node, _ in walk_layers(top, {}):
            if is_activation(node) and is_rectifier(node):
                hooks.append(node.register_hook(partial(_redirect, node)))
        yield
    finally:
        for hook in hooks:  # a node that refers to itself through its hook is never freed
            hook.remove()


def _redirect(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
    """Return the gradient at a rectifier; of images whose gradient is blocked, what raises its inputs."""
    signal = grad_output[0]
    assert signal is not None
    write = find_write(node)
    region = None if write is None else write.region()
    return tuple(
        gradient if gradient is None or gradient.shape != signal.shape else _open(gradient, signal, region)
        for gradient in grad_input
    )


def _open(gradient: Tensor, signal: Tensor, region: Tensor | None) -> Tensor:
    """Redirect the gradient of a rectifier, of a write in place within its region."""
    passed = gradient if region is None else gradient.where(region, 0)
    is_blocked = ~passed.flatten(1).any(1)
    if not is_blocked.any():
        return gradient
    is_blocked = is_blocked.reshape(-1, *[1] * (gradient.ndim - 1))
    redirected = signal.relu() if region is None else torch.where(region, signal.relu(), gradient)
    return torch.where(is_blocked, redirected, gradient)
