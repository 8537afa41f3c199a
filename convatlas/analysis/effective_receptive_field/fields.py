"""The gradient of the centre of a layer's output at the pixels of the input.

Luo, Li, Urtasun, Zemel 2016, Understanding the effective receptive field in deep convolutional neural
networks (arXiv 1701.04128).
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.analysis.jackknife import jackknife_error
from convatlas.models.build import get_device
from convatlas.models.memory_format import choose_input_format
from convatlas.tracing.calls import Call, composite_modules, raise_on_wrong_input, trace

BATCH_VALUES = 2**20  # of the input; the graph of a deep network takes some thousand times as many bytes
GROUPS = 8  # of images, whose fields are kept apart for the error
# Pixels above this share of the maximum count; the paper takes the share of the central pixel, which strides
# and pooling may leave out.
THRESHOLD = 1 - 0.9545


@dataclass(frozen=True, eq=False)
class LayerField:
    """The effective receptive field of the centre of a layer's output.

    Attributes:
        position: The centre [row, column] in the layer's output.
        groups: The mean of the absolute gradient over channels and over the images of each group,
            (groups, H, W) float64.
        images: The number of images of each group, (groups,).
    """

    position: tuple[int, int]
    groups: np.ndarray
    images: np.ndarray

    @property
    def field(self) -> np.ndarray:
        """Return the mean over all images, (H, W) float64."""
        return np.asarray(np.average(self.groups, 0, self.images))


def measure_fields(
    network: nn.Module, x: Tensor, layers: Collection[str], seed: int = 0
) -> dict[str, LayerField | str]:
    """Measure the effective receptive field of the centre of each layer's output.

    The gradient is that of the sum over the channels with random signs, other ones for each image, so that
    channels do not cancel out: its mean square is that of the channels' gradients, added up. The centre of an
    even number of rows is the one below the middle.

    Args:
        network: Any network; it runs in evaluation mode and is left as it was.
        x: Preprocessed images (N, C, H, W).
        layers: Names of layers, as in layers.json, or of composite modules.
        seed: Seed of the signs.

    Returns:
        The field of each layer, or why it has none.

    Raises:
        UserError: The network does not take the images.
    """
    device = get_device(network)
    memory_format = choose_input_format(network, x.shape[1:])
    group_count = min(GROUPS, len(x))
    groups = torch.arange(len(x)) % group_count
    sums: dict[str, Tensor] = {}
    positions: dict[str, tuple[int, int]] = {}
    reasons = dict.fromkeys(layers, "the network does not call it for all images")
    size = max(1, BATCH_VALUES // max(1, x[0].numel()))
    for number, part in enumerate(torch.split(torch.arange(len(x)), size)):
        batch = x[part].to(device).to(memory_format=memory_format)
        centres, batch = _run(network, batch, layers, reasons)
        generator = torch.Generator().manual_seed(seed + number)
        for name, (position, values) in centres.items():
            signs = torch.randint(0, 2, values.shape, generator=generator).to(values) * 2 - 1
            gradient = _differentiate(values, signs, batch)
            if gradient is None:
                reasons[name] = "its output has no gradient at the input"
                continue
            if name not in sums:
                sums[name] = torch.zeros(group_count, *x.shape[2:], dtype=torch.float64)
            positions[name] = position
            sums[name].index_add_(0, groups[part], gradient.abs().double().mean(1).cpu())
    counts = groups.bincount(minlength=group_count).numpy()
    return {
        name: LayerField(positions[name], sums[name].numpy() / counts[:, None, None], counts)
        if name in sums
        else reasons[name]
        for name in layers
    }


def _run(
    network: nn.Module, batch: Tensor, layers: Collection[str], reasons: dict[str, str]
) -> tuple[dict[str, tuple[tuple[int, int], Tensor]], Tensor]:
    """Run the network, and return the centre of each layer with the values there, and the input with a graph.

    The values are copied when the layer has run: it may share its output with a later layer that works in
    place.
    """
    centres: dict[str, tuple[tuple[int, int], Tensor]] = {}
    x = batch.requires_grad_()

    def select_centre(call: Call) -> None:
        output = call.output
        if call.layer not in layers:
            return
        if output.ndim != 4 or len(output) != len(x) or not output.is_floating_point():
            reasons[call.layer] = f"its output has no maps of each image: its shape is {tuple(output.shape)}"
            return
        row, column = output.shape[2] // 2, output.shape[3] // 2
        centres[call.layer] = (row, column), output[:, :, row, column].clone()

    blocks = [path for path in composite_modules(network) if path in layers]
    with torch.enable_grad(), trace(network, select_centre, blocks), raise_on_wrong_input(x):
        network(x.clone(memory_format=torch.preserve_format))  # the first layer may work in place
    return centres, x


def _differentiate(values: Tensor, signs: Tensor, x: Tensor) -> Tensor | None:
    """Return the gradient of the sum of some values with signs at the input; None where there is none."""
    if not values.requires_grad:
        return None
    return torch.autograd.grad(values, x, signs, retain_graph=True, allow_unused=True)[0]


@dataclass(frozen=True)
class FieldSize:
    """How large an effective receptive field is.

    Attributes:
        side: Side of a square with as many pixels as are above THRESHOLD of the maximum, in pixels.
        side_error: Its standard error by a jackknife over the groups of images; NaN where not known.
        spread: Standard deviation of the field along rows and columns [vertical, horizontal], in pixels: its
            values are weights of the pixels' positions.
    """

    side: float
    side_error: float
    spread: tuple[float, float]


def measure_size(measured: LayerField) -> FieldSize | None:
    """Measure the size of an effective receptive field.

    Args:
        measured: The field, with its groups of images.

    Returns:
        None where the gradient is zero or not finite.
    """
    field = measured.field
    if not np.isfinite(field).all() or not field.max() > 0:
        return None
    spread = []
    for axis in (1, 0):
        profile = field.sum(axis) / field.sum()
        places = np.arange(len(profile))
        mean = (profile * places).sum()
        spread.append(float(np.sqrt((profile * (places - mean) ** 2).sum())))
    error = float("nan")
    count = len(measured.images)
    if count > 2:
        replicates = [
            _measure_side(np.average(measured.groups, 0, measured.images * (np.arange(count) != group)))
            for group in range(count)
        ]
        error = float(jackknife_error(np.array(replicates)))
    return FieldSize(_measure_side(field), error, (spread[0], spread[1]))


def _measure_side(field: np.ndarray) -> float:
    """Return the side of a square with as many pixels as are above THRESHOLD of the maximum."""
    return float(np.sqrt((field > THRESHOLD * field.max()).sum()))
