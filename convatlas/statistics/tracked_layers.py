"""The layers whose units a pass over a data set tracks."""

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from convatlas.models.build import get_device
from convatlas.models.memory_format import convert_memory_format
from convatlas.tracing.calls import Call, trace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackedLayer:
    """A layer whose units are tracked.

    Attributes:
        name: The layer's name, as in layers.json.
        shape: Shape of its output without the batch axis: (units, ...).
        first_unit: Position of its first unit among the units of all tracked layers.
    """

    name: str
    shape: tuple[int, ...]
    first_unit: int

    @property
    def area(self) -> int:
        """Number of values in the map of one unit."""
        return math.prod(self.shape[1:])

    @property
    def unit_slice(self) -> slice:
        """Positions of its units among the units of all tracked layers."""
        return slice(self.first_unit, self.first_unit + self.shape[0])


@torch.no_grad()
def find_tracked_layers(
    network: nn.Module, shape: tuple[int, ...], names: Collection[str]
) -> tuple[list[TrackedLayer], torch.memory_format]:
    """Return those of the named layers that have units, in execution order.

    A layer is skipped if the first axis of its output is not the batch axis, or if the output holds no
    floating-point or complex numbers. The network is converted to channels last, which is faster on every
    device, or to the contiguous format if it does not run in channels last.

    Args:
        network: The network, in evaluation mode. Its memory format is changed.
        shape: Shape (C, H, W) of one input.
        names: Names of layers and of composite modules.

    Returns:
        The tracked layers, and the memory format that the network runs in.

    Raises:
        RuntimeError: The network runs in neither memory format.
    """
    memory_format = convert_memory_format(network, shape)
    zeros = torch.zeros(2, *shape, device=get_device(network)).to(memory_format=memory_format)
    return _trace_layers(network, zeros, names), memory_format


def _trace_layers(network: nn.Module, x: torch.Tensor, names: Collection[str]) -> list[TrackedLayer]:
    """Run the network on a batch of two images and list the named layers with units."""
    layers: list[TrackedLayer] = []

    def add_layer(call: Call) -> None:
        output = call.output
        if call.layer not in names or any(layer.name == call.layer for layer in layers):
            return
        has_numbers = output.is_floating_point() or output.is_complex()
        if output.ndim < 2 or len(output) != 2 or not output[0].numel() or not has_numbers:
            log.info("skipped %s, which has no units: its output is %s", call.layer, tuple(output.shape))
            return
        first_unit = layers[-1].unit_slice.stop if layers else 0
        layers.append(TrackedLayer(call.layer, tuple(output.shape[1:]), first_unit))

    with trace(network, add_layer, names):
        network(x)
    return layers
