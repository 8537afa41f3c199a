"""Project single activations of a layer's units to the pixels, by the rule of each method."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convatlas.attribution.backward_rules import attach_rules
from convatlas.attribution.deconvnet import backpropagate_units
from convatlas.attribution.gradient_rules import attach_gradient_rules
from convatlas.attribution.network_graph import LayerOutput, run_until_layer

RULES = ("deconvnet", "gradient", "guided_backpropagation")

Position = tuple[int, int]  # row and column in a layer's map


def project_activations(
    network: nn.Module,
    image: Tensor,
    layer: str,
    units: Sequence[int],
    positions: Sequence[Position],
    rectify: bool = False,
    rules: Sequence[str] = RULES,
) -> dict[str, Tensor]:
    """Project one activation of each unit, whatever its value, to the pixels.

    The network runs once for all units and rules.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        image: A preprocessed image, (C, H, W).
        layer: Name of a layer, as in layers.json, or path of a composite module.
        units: Numbers of units, each once.
        positions: Row and column of the activation of each in its map; (0, 0) in a layer without maps.
        rectify: Rectify the signal at activations that are not ReLUs too.
        rules: The methods.

    Returns:
        By method the projections of activations of the size 1, (units, C, H, W).

    Raises:
        UserError: A method is not defined for the network.
    """
    x = image.detach()[None].clone().requires_grad_()
    output = run_until_layer(network, x, layer)
    maps = torch.zeros_like(output.value).reshape(*output.value.shape[:2], -1, _width(output.value))
    rows, columns = (list(axis) for axis in zip(*positions, strict=True))
    maps[0, list(units), rows, columns] = 1
    projections = {}
    for rule in rules:
        with _attach(rule, output, rectify):
            projections[rule] = backpropagate_units(x, output.edge, maps.view_as(output.value), units)
    return projections


def _width(output: Tensor) -> int:
    """Return the width of a layer's maps."""
    return output.shape[-1] if output.ndim > 2 else 1


@contextmanager
def _attach(rule: str, output: LayerOutput, rectify: bool) -> Iterator[None]:
    """Attach the rules of a method to the graph below a layer while the block runs."""
    if rule == "deconvnet":
        with attach_rules(output.edge, output.layers, rectify):
            yield
    else:
        is_guided = rule == "guided_backpropagation"
        with attach_gradient_rules(output.edge.node, output.layers, guided=is_guided, rectify=rectify):
            yield
