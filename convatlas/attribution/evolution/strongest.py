"""The strongest activation of every unit over images, in one pass for all layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.datasets.loader import BatchLoader
from convatlas.models import build
from convatlas.models.memory_format import choose_input_format
from convatlas.tracing.calls import Call, trace
from convatlas.tracing.record import to_real


class StrongestActivations(NamedTuple):
    """The strongest activation of each unit of a layer over images.

    Attributes:
        values: The largest finite activation of each unit, (units,) float32; -∞ without one.
        images: Number of its image, (units,) int32, the first of equal ones; -1 for an inactive unit, without
            a positive activation.
        positions: Row and column of it in the map, (units, 2) int32; 0 for an inactive unit.
    """

    values: np.ndarray
    images: np.ndarray
    positions: np.ndarray


@torch.no_grad()
def find_strongest(
    network: nn.Module, layers: Sequence[str], loader: BatchLoader, indices: Sequence[int] | None = None
) -> dict[str, StrongestActivations]:
    """Find the strongest activation of every unit of some layers over the images of a split.

    Args:
        network: The network, which runs in evaluation mode.
        layers: Names of layers, or of composite modules.
        loader: The images, in batches. The last batch is filled up with zeros, so that the values of an image
            do not depend on how many others are in its batch.
        indices: Numbers of the batches, from 0; by default all.

    Returns:
        The activations by layer, without layers that have no units: those whose output is not one entry per
        image, and those that the network does not call.
    """
    device = build.get_device(network)
    memory_format = choose_input_format(network, loader.preprocessing.shape)
    strongest: dict[str, StrongestActivations] = {}
    with _record(network, layers) as (reset, outputs):
        for batch in loader.read_batches(range(len(loader)) if indices is None else indices):
            if not len(batch.indices):  # none could be read
                continue
            x = loader.preprocessing(build.to_device(torch.from_numpy(batch.pixels), device))
            missing = loader.batch_size - len(x)
            reset()
            outputs.clear()
            x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x
            network(x.contiguous(memory_format=memory_format))
            for layer, output in outputs.items():
                if output.ndim < 2 or len(output) != loader.batch_size or not output.is_floating_point():
                    continue
                new = _find_in_batch(output[: len(batch.indices)], batch.indices)
                strongest[layer] = _merge(strongest[layer], new) if layer in strongest else new
    return strongest


@torch.no_grad()
def record_maps(network: nn.Module, layers: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """Return the outputs of some layers on inputs.

    Args:
        network: The network, which runs in evaluation mode.
        layers: Names of layers, or of composite modules.
        x: Preprocessed inputs, (N, C, H, W).

    Returns:
        (N, units, ...) by layer, real.
    """
    with _record(network, layers) as (_, outputs):
        network(x)
    return outputs


@contextmanager
def _record(network: nn.Module, layers: Sequence[str]) -> Iterator[tuple[Any, dict[str, Tensor]]]:
    """Record copies of layers' outputs; yields what restarts the count of calls, and the outputs by layer."""
    outputs: dict[str, Tensor] = {}

    def record(call: Call) -> None:
        if call.layer in layers:
            outputs[call.layer] = to_real(call.output).clone()  # a later operation may change it in place

    with trace(network, record, layers) as reset:
        yield reset, outputs


def _find_in_batch(output: Tensor, numbers: np.ndarray) -> StrongestActivations:
    """Return the strongest activations of a batch.

    Args:
        output: The output of a layer, (n, units, ...).
        numbers: Numbers of the images, (n,).
    """
    width = output.shape[-1] if output.ndim > 2 else 1
    flat = output.reshape(*output.shape[:2], -1).float()
    maxima, places = torch.where(flat.isfinite(), flat, -torch.inf).max(2)
    values, rows = maxima.max(0)
    places = places.gather(0, rows[None])[0]
    is_active = values > 0
    images = np.where(is_active.cpu(), numbers[rows.cpu().numpy()], -1).astype(np.int32)
    positions = torch.stack([places // width, places % width], 1) * is_active[:, None]
    return StrongestActivations(values.cpu().numpy(), images, positions.int().cpu().numpy())


def _merge(one: StrongestActivations, later: StrongestActivations) -> StrongestActivations:
    """Return the stronger activation of each unit; of equal ones the earlier."""
    is_later = later.values > one.values
    return StrongestActivations(
        np.where(is_later, later.values, one.values),
        np.where(is_later, later.images, one.images),
        np.where(is_later[:, None], later.positions, one.positions),
    )
