"""The gradient, and guided backpropagation, which rectifies it at each rectifier, for any network.

Rules on autograd's graph reach every rectifier: functional, in place, reused, or inside a block. At a ReLU
with the input f and the backward signal R the gradient passes 1[f > 0] R on, and guided backpropagation
(Springenberg et al., arXiv 1412.6806) 1[f > 0] 1[R > 0] R, which is the rectified gradient. All other
operations have the exact adjoint in both.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from convatlas import UserError
from convatlas.attribution.backward_rules import (
    BackwardRule,
    Grads,
    OneDNNSwitch,
    apply_batch_norm_rule,
    format_layers,
    is_activation,
    is_rectifier,
    node_type,
    reads_pixels,
)
from convatlas.attribution.inplace_writes import find_write


@contextmanager
def attach_gradient_rules(
    top: Node, layers: Mapping[Node, str], guided: bool = False, rectify: bool = False
) -> Iterator[None]:
    """Let every backward pass from a node to the pixels compute the gradient while the block runs.

    Args:
        top: The uppermost node.
        layers: The names of layers, by the last node of each.
        guided: Apply the rule of guided backpropagation at rectifiers.
        rectify: Apply it at activations that are not ReLUs too.

    Raises:
        UserError: `guided`, an activation is not a ReLU and `rectify` is false; the message names the layers.
    """
    hooks: list[RemovableHandle | OneDNNSwitch] = []
    other_activations: dict[str, str] = {}
    try:
        for node, layer in walk_layers(top, layers):
            operation = node_type(node)
            if reads_pixels(node):
                hooks.append(OneDNNSwitch(node))
            if guided and is_activation(node):
                if not is_rectifier(node):
                    other_activations[layer] = operation
                hooks.append(node.register_hook(partial(_get_guided_rule(node), node)))
            elif operation.endswith("BatchNorm") and not getattr(node, "_saved_training", True):
                hooks.append(node.register_hook(partial(apply_batch_norm_rule, node)))
        if other_activations and not rectify:
            raise UserError(
                "guided backpropagation is defined for ReLUs (ReLU6 too), and these activations are none: "
                f"{format_layers(other_activations, layers)}; "
                "views.deconv.rectify: true rectifies the gradient there too, and the page says so"
            )
        yield
    finally:
        for hook in hooks:  # a node that refers to itself through its hook is never freed
            hook.remove()


def walk_layers(top: Node, layers: Mapping[Node, str]) -> Iterator[tuple[Node, str]]:
    """Yield each node of a graph once, with the name of the layer that it belongs to.

    Args:
        top: The uppermost node.
        layers: The names of layers, by the last node of each.
    """
    visited: set[Node] = set()
    pending = [(top, "")]
    while pending:
        node, layer = pending.pop()
        if node in visited:
            continue
        visited.add(node)
        layer = layers.get(node, layer)
        yield node, layer
        pending += [(child, layer) for child, _ in node.next_functions if child is not None]


def _get_guided_rule(node: Node) -> BackwardRule:
    """Return the rule at an activation: the gradient, rectified; of a write in place where it wrote."""
    write = find_write(node)
    if write is None:
        return _rectify_gradient
    region = write.region()

    def rectify_region(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
        return tuple(
            g if g is None or g.shape != region.shape else torch.where(region, g.relu(), g)
            for g in grad_input
        )

    return rectify_region


def _rectify_gradient(node: Node, grad_input: Grads, grad_output: Grads) -> Grads:
    """Rectify the gradient of an activation."""
    return tuple(None if g is None else _rectify(g) for g in grad_input)


def _rectify(gradient: Tensor) -> Tensor:
    return gradient.relu()
