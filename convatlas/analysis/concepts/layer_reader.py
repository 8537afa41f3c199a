"""Outputs of layers on images, in batches where the network computes each image by itself."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convatlas.analysis.concepts.images import ConceptImages
from convatlas.tracing.record import for_each_layer

MAX_BATCH_VALUES = 2**18  # input values of a batch, of as many images as there are in it
RELATIVE_TOLERANCE = 1e-3  # between the outputs of an image alone and in a batch


@dataclass(frozen=True)
class LayerReader:
    """A network, the layers that are read, and the number of images that it takes at a time.

    Attributes:
        network: The network.
        layers: Names of the layers, whose first axis without that of the batch is that of the units.
        batch_size: Number of images; 1 where the outputs of an image depend on the others of its batch.
    """

    network: nn.Module
    layers: Sequence[str]
    batch_size: int

    @classmethod
    def choose(cls, network: nn.Module, layers: Sequence[str], images: ConceptImages) -> "LayerReader":
        """Choose the layers that have units, and the batch size.

        Args:
            network: Any network.
            layers: Names of layers. One is left out if its output is not that of one image, as where patches
                are folded into the batch axis, or holds no floating-point numbers.
            images: Some images.
        """
        x = images.inputs[0]
        alone = _copy_outputs(network, x, layers)
        units = [layer for layer in layers if layer in alone and _has_units(alone[layer])]
        size = min(max(1, MAX_BATCH_VALUES // math.prod(x.shape)), len(images))
        if size > 1:
            try:
                batch = _copy_outputs(network, torch.cat([images.inputs[n] for n in range(size)]), units)
            except RuntimeError:  # as of a network that reshapes its input for one image
                return cls(network, units, 1)
            if not all(_agrees(alone[layer], batch[layer], size) for layer in units):
                size = 1
        return cls(network, units, size)

    def visit(
        self,
        images: ConceptImages,
        callback: Callable[[int, str, Tensor], None],
        layers: Sequence[str] | None = None,
    ) -> None:
        """Pass the output of each layer on each image to a function, keeping none.

        Args:
            images: The images.
            callback: Called with the number of the image, the layer and its output, (units, ...) float32.
            layers: Names of some of the layers; by default all.
        """
        for start in range(0, len(images), self.batch_size):
            stop = min(start + self.batch_size, len(images))

            def pass_outputs(layer: str, outputs: Tensor, start: int = start) -> None:
                for n, output in enumerate(outputs.float(), start):
                    callback(n, layer, output if output.ndim > 1 else output[:, None])

            x = torch.cat([images.inputs[n] for n in range(start, stop)])
            for_each_layer(self.network, x, self.layers if layers is None else layers, pass_outputs)


def _copy_outputs(network: nn.Module, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return a copy of the outputs of layers on a batch."""
    outputs: dict[str, Tensor] = {}
    for_each_layer(network, x, layers, lambda layer, output: outputs.update({layer: output.clone()}))
    return outputs


def _has_units(output: Tensor) -> bool:
    """Return whether the output on one image has an axis of units with floating-point numbers."""
    return output.ndim > 1 and len(output) == 1 and output.numel() > 0 and output.is_floating_point()


def _agrees(alone: Tensor, batch: Tensor, size: int) -> bool:
    """Return whether the first image of a batch has the outputs that it has alone."""
    if len(batch) != size or batch.shape[1:] != alone.shape[1:]:
        return False
    finite = alone[alone.isfinite()].abs()
    tolerance = RELATIVE_TOLERANCE * (float(finite.max()) if len(finite) else 0.0)
    return torch.allclose(batch[:1], alone, rtol=RELATIVE_TOLERANCE, atol=tolerance, equal_nan=True)
