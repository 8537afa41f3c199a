"""What an image is optimised for: a unit of a layer, or the logit of a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from convatlas import UserError
from convatlas.attribution.class_scores import ClassScores
from convatlas.attribution.network_graph import run_until_layer, run_until_module

Aim = Literal["channel", "neuron"]


class Response(NamedTuple):
    """What a network computed of a batch, with the graph.

    Attributes:
        x: The input, (N, C, H, W), which requires a gradient.
        values: The outputs of the units, (N, units, ...), detached.
        edge: Where they stand in autograd's graph.
    """

    x: Tensor
    values: Tensor
    edge: GradientEdge


class Objective(Protocol):
    """What is maximised: the weighted sum of the outputs of a unit, or of a class."""

    def record(self, x: Tensor) -> Response:
        """Run the network as far as needed, with the graph.

        Args:
            x: Its input, (N, C, H, W).

        Raises:
            UserError: The network does not take the input, or nothing depends on it.
        """
        ...

    def make_signal(self, values: Tensor, units: Sequence[int]) -> Tensor:
        """Return the gradient of the objective of each image by the outputs of the units.

        Args:
            values: The outputs, (N, units, ...).
            units: The unit of each image.
        """
        ...


@dataclass(frozen=True)
class LayerObjective:
    """A unit of a layer.

    Attributes:
        network: The network, which runs up to the layer.
        layer: Name of the layer.
        aim: The mean of the unit's map ("channel"), or the value at its centre ("neuron").
    """

    network: nn.Module
    layer: str
    aim: Aim = "channel"

    def record(self, x: Tensor) -> Response:
        """Run the network up to the layer; see `Objective`."""
        x = x.detach().requires_grad_()
        output = run_until_module(self.network, x, self.layer) or run_until_layer(self.network, x, self.layer)
        if output.value.ndim < 2:
            raise UserError(f"the layer {self.layer!r} has no units: its output is one number")
        return Response(x, output.value, output.edge)

    def make_signal(self, values: Tensor, units: Sequence[int]) -> Tensor:
        """Return the gradient of each image's objective by the maps; see `Objective`."""
        signal = torch.zeros_like(values)
        for row, unit in enumerate(units):
            if self.aim == "neuron":
                signal[(row, unit, *(side // 2 for side in values.shape[2:]))] = 1
            else:
                signal[row, unit] = 1 / values[0, 0].numel()
        return signal


@dataclass(frozen=True)
class ClassObjective:
    """The logit of a class; in a segmentation its mean over the pixels.

    Attributes:
        scores: The scores of the network's classes.
    """

    scores: ClassScores

    def record(self, x: Tensor) -> Response:
        """Run the network to its end; see `Objective`."""
        graph = self.scores.record(x)
        return Response(graph.x, graph.scores.detach(), get_gradient_edge(graph.scores))

    def make_signal(self, values: Tensor, units: Sequence[int]) -> Tensor:
        """Return the gradient of each image's logit by the scores; see `Objective`."""
        signal = torch.zeros_like(values)
        for row, unit in enumerate(units):
            signal[row, unit] = 1 / values[0, 0].numel()
        return signal
