"""What a network computes of images, in a batch where that changes nothing: outputs of layers, and scores."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convatlas.models.memory_format import choose_input_format
from convatlas.models.outputs import Output
from convatlas.tracing.record import for_each_layer

BATCH_ERRORS = (RuntimeError, ValueError, IndexError, TypeError)  # of a network that takes one image alone
RELATIVE_TOLERANCE = 1e-3  # of an output for an image in a batch, to that for it alone

Reduction = Callable[[str, Tensor, slice], Tensor]  # of a layer's output on the images of a slice, (n, ...)


class Responses(NamedTuple):
    """What a network computes of images.

    Attributes:
        layers: What the outputs of each layer were reduced to, (N, ...).
        scores: The scores of classes, (N, classes) or (N, classes, h, w) of pixels; None without any.
    """

    layers: dict[str, Tensor]
    scores: Tensor | None


class ResponseReader:
    """Reads the responses of a network, to a batch at once where that changes nothing.

    Args:
        network: The network, in evaluation mode.
        layers: Names of the layers.
        output: What the network's output means.
        x: The unchanged images, (N, C, H, W).
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], output: Output, x: Tensor) -> None:
        self.network, self.layers, self.output = network, layers, output
        self.memory_format = choose_input_format(network, tuple(x.shape[1:]))
        self.takes_batches = len(x) == 1 or self._check_batch(x)

    def read(self, x: Tensor, reduce: Reduction) -> Responses:
        """Return the responses to images.

        Args:
            x: The images, (N, C, H, W).
            reduce: What is computed of the output of each layer.
        """
        if self.takes_batches:
            return self._run(x, reduce, slice(0, len(x)))
        parts = [self._run(x[n : n + 1], reduce, slice(n, n + 1)) for n in range(len(x))]
        scores = [part.scores for part in parts if part.scores is not None]
        layers = {layer: torch.cat([part.layers[layer] for part in parts]) for layer in parts[0].layers}
        return Responses(layers, torch.cat(scores) if len(scores) == len(x) else None)

    @torch.no_grad()
    def _run(self, x: Tensor, reduce: Reduction, rows: slice) -> Responses:
        """Run the network on a batch: some rows of the images."""
        layers: dict[str, Tensor] = {}

        def collect(layer: str, values: Tensor) -> None:
            real = values if values.is_floating_point() else values.float()  # of indices and of masks
            layers[layer] = reduce(layer, _restore_batch_axis(real, len(x)), rows)

        batch = x.contiguous(memory_format=self.memory_format)
        outputs = for_each_layer(self.network, batch, self.layers, collect)
        return Responses(layers, self.output.select_scores(outputs, len(x)))

    def _check_batch(self, x: Tensor) -> bool:
        """Return whether the outputs of layers for the first image in the batch are those for it alone."""
        try:
            together = self._run(x, copy, slice(0, len(x))).layers
        except BATCH_ERRORS:
            return False
        alone = self._run(x[:1], copy, slice(0, 1)).layers
        return all(
            torch.dist(together[layer][:1], output) <= RELATIVE_TOLERANCE * output.norm()
            for layer, output in alone.items()
        )


def _restore_batch_axis(output: Tensor, count: int) -> Tensor:
    """Return a layer's output with the axis of images, which `squeeze()` removes; or raise ValueError."""
    if len(output) == count:
        return output
    if count > 1:
        raise ValueError(f"an output of the shape {tuple(output.shape)} for {count} images")
    return output[None]


def copy(layer: str, output: Tensor, rows: slice) -> Tensor:
    """Return a copy of a layer's output, which a later layer may change in place."""
    return output.clone()
