"""The deconvnet of Zeiler & Fergus, Visualizing and understanding convolutional networks
(arXiv 1311.2901), section 2.1: which pixels caused an activation.

All other activations of the layer are set to zero; then, layer by layer down to the pixels,
the signal is (i) unpooled into the switches, (ii) rectified, (iii) filtered with the
transposed filters, without biases. What arrives at the pixels is signed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

from convatlas import UserError
from convatlas.attribution.backward_rules import attach_rules
from convatlas.attribution.graph import (
    edge_shape,
    isolate_units,
    signal_entry,
    topological_order,
    unit_signals,
)
from convatlas.attribution.network_graph import run_until_layer
from convatlas.models.state import list_non_finite
from convatlas.tracing.calls import drop_batch_axis, is_single_image

Select = Literal["map", "peak"]

# Values of the input in one backward pass: more cost memory and save no time (benchmarks/deconvnet.py).
MAX_BATCH_VALUES = 2**20


def project(
    network: nn.Module,
    x: Tensor,
    layer: str,
    units: Sequence[int] | None = None,
    select: Select = "map",
    rectify: bool = False,
) -> Tensor:
    """Project the activations of a layer's units to the pixels that caused them.

    The network runs once per image, no further than the layer, in evaluation mode, and is left as it was.

    Args:
        network: Any network whose activations on the way to the layer are ReLUs.
        x: A preprocessed image (C, H, W), or a batch (N, C, H, W).
        layer: Name of a layer, as in layers.json, or path of a composite module.
        units: Numbers of the units, from 0, in the order of the result; by default all. The units of a layer
            are along the first axis of its `output_shape` in layers.json.
        select: Project the whole map of a unit, or its "peak", the single strongest location.
        rectify: Rectify the signal at activations that are not ReLUs too, where the method is undefined.

    Returns:
        The projections, (units, C, H, W) of an image or (N, units, C, H, W) of a batch, signed, in the
        input's scale of values; zero for an inactive unit, one without a positive activation.

    Raises:
        UserError: There is no such layer or unit, the network does not take an input of this shape, or an
            operation on the way has no deconvnet rule; an activation that is not a ReLU has none without
            `rectify`; or projections of finite activations are not finite.

    Examples:
        >>> import convatlas as ca
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
        >>> tuple(ca.project(network, torch.rand(1, 28, 28), "2").shape)
        (6, 1, 28, 28)
        >>> tuple(ca.project(network, torch.rand(8, 1, 28, 28), "2", units=[3, 0], select="peak").shape)
        (8, 2, 1, 28, 28)
    """
    if not x.numel():
        raise UserError(f"x has the shape {tuple(x.shape)}; give one image (C, H, W) or a batch (N, C, H, W)")
    if is_single_image(network, x):
        return _project_image(network, x, layer, units, select, rectify)
    return torch.stack([_project_image(network, image, layer, units, select, rectify) for image in x])


def _project_image(
    network: nn.Module, image: Tensor, layer: str, units: Sequence[int] | None, select: Select, rectify: bool
) -> Tensor:
    """Project units of a layer for one image: (units, C, H, W)."""
    x = image.detach()[None].clone().requires_grad_()
    output, edge, layers = run_until_layer(network, x, layer)
    chosen = validate_units(layer, units, output.shape[1])
    seeds = make_seed_signal(output, select)
    with attach_rules(edge, layers, rectify):
        projections = backpropagate_units(x, edge, seeds, chosen)
    return _check_finite(network, layer, seeds[:, chosen], projections)


def backpropagate_units(x: Tensor, edge: GradientEdge, seeds: Tensor, units: Sequence[int]) -> Tensor:
    """Backpropagate the signal of each unit of a layer to the pixels, under the rules that are attached.

    Args:
        x: The network's input, (1, C, H, W).
        edge: Where the layer stands in autograd's graph.
        seeds: The signal of each unit at the layer, (1, units, ...).
        units: Numbers of the units.

    Returns:
        (units, C, H, W).
    """
    entry = signal_entry(edge)

    def backpropagate(signal: Tensor) -> Tensor:
        return torch.autograd.grad(entry, x, signal, retain_graph=True)[0]

    projections = [x.new_zeros(0, *x.shape[1:])]
    batch_size = max(1, MAX_BATCH_VALUES // x.numel())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # vmap falls back to a loop
        for start in range(0, len(units), batch_size):
            signals = unit_signals(edge, seeds, units[start : start + batch_size])
            projections.append(torch.func.vmap(backpropagate)(signals)[:, 0])
    return torch.cat(projections)


def project_positions(
    network: nn.Module, images: Tensor, layer: str, units: Tensor, positions: Tensor, rectify: bool = False
) -> tuple[Tensor, Tensor]:
    """Project one activation of each image to its pixels, as `project` does a peak.

    Args:
        network: As in `project`.
        images: Preprocessed images, (N, C, H, W).
        layer: As in `project`.
        units: The unit of each image's activation, (N,).
        positions: Row and column of each activation in its map, (N, 2).
        rectify: As in `project`.

    Returns:
        The projections of the rectified activations, (N, C, H, W), signed, and the activations, (N,).

    Raises:
        UserError: As in `project`.
    """
    x = images.detach().clone().requires_grad_()
    output, edge, layers = run_until_layer(network, x, layer)
    rows = torch.arange(len(output), device=output.device)
    maps = output.reshape(*output.shape[:2], -1, output.shape[-1] if output.ndim > 2 else 1)
    index = (rows, units, *positions.T)
    activations, seeds = maps[index], torch.zeros_like(maps)
    seeds[index] = activations.relu()
    with attach_rules(edge, layers, rectify):
        projections = torch.autograd.grad(edge, x, seeds.view(edge_shape(edge)))[0]
    return _check_finite(network, layer, seeds, projections), activations


def _check_finite(network: nn.Module, layer: str, seeds: Tensor, projections: Tensor) -> Tensor:
    """Return projections; raise UserError where those of finite activations are not finite.

    With weights that are NaN or infinite they cannot be, and are shown as they are.
    """
    is_unexpected = seeds.isfinite().all() and not projections.isfinite().all()
    if is_unexpected and not list_non_finite(network):
        raise UserError(
            f"the deconvnet projection of the layer {layer!r} is not finite, though its activations are: the "
            "signal grew beyond float32, or met an infinite value on its way down. Leave the layer "
            "out of views.deconv.layers and views.strongest.project, or choose one nearer to the input"
        )
    return projections


@dataclass(frozen=True)
class ProjectionStep:
    """The signal of one projection at one layer on its way down.

    Attributes:
        layer: The layer at whose output the signal is, or "input".
        signal: The signal, (units, ...), or (C, H, W) at the input.
        passed_layers: The layers that it went through since the step before, the uppermost first.
    """

    layer: str
    signal: Tensor
    passed_layers: list[str]


def project_stepwise(
    network: nn.Module, image: Tensor, layer: str, unit: int, select: Select = "map", rectify: bool = False
) -> list[ProjectionStep]:
    """Follow the projection of one unit down: the signal at each layer that lies on every path to the pixels.

    Args:
        network: As in `project`.
        image: A preprocessed image, (C, H, W).
        layer: As in `project`.
        unit: Number of the unit.
        select: As in `project`.
        rectify: As in `project`.

    Returns:
        The steps from the top. The first is the seed, the unit's map with all others zero; the last, at
        "input", equals what `project` returns for the unit, bit for bit. In a chain of layers every output
        is a step; where branches part and meet again, only their ends are.

    Raises:
        UserError: As in `project`.
    """
    x = image.detach()[None].clone().requires_grad_()
    output, edge, layers = run_until_layer(network, x, layer)
    validate_units(layer, [unit], output.shape[1])
    seeds = make_seed_signal(output, select)

    order, on_every_path = topological_order(edge.node)
    signals: dict[Node, Tensor] = {edge.node: isolate_units(seeds, [unit])[0]}
    with attach_rules(edge, layers, rectify):
        hooks = [
            node.register_prehook(lambda grad_output, node=node: _store_signal(signals, node, grad_output))
            for node in on_every_path
            if node in layers and node is not edge.node
        ]
        projection = torch.autograd.grad(signal_entry(edge), x, unit_signals(edge, seeds, [unit])[0])[0]
    for hook in hooks:
        hook.remove()

    steps: list[ProjectionStep] = []
    passed_layers: list[str] = []
    for node in order:
        if node in signals:
            name = layer if node is edge.node else layers[node]
            steps.append(ProjectionStep(name, drop_batch_axis(signals[node]), passed_layers))
            passed_layers = []
        if node in layers:
            passed_layers.append(layers[node])
    return [*steps, ProjectionStep("input", projection[0], passed_layers)]


def _store_signal(signals: dict[Node, Tensor], node: Node, grad_output: Sequence[Tensor | None]) -> None:
    """Store the signal that arrives at a node, where it is a single one."""
    present = [signal for signal in grad_output if signal is not None]
    if len(present) == 1:
        signals[node] = present[0].clone()


def validate_units(layer: str, units: Sequence[int] | None, unit_count: int) -> list[int]:
    """Return the units as a list, all of them by default.

    Args:
        layer: Name of the layer, for the error.
        units: Numbers of units; None selects all.
        unit_count: Number of units that the layer has.

    Raises:
        UserError: `units` is a number instead of a list, or the layer lacks some of them.
    """
    if units is None:
        return list(range(unit_count))
    if isinstance(units, int):
        raise UserError(f"units is a list of unit numbers, such as [{units}], not {units}")
    if wrong := sorted(set(units) - set(range(unit_count))):
        raise UserError(f"{layer} has no units {wrong}; it has {unit_count}, counted from 0")
    return list(units)


def make_seed_signal(activation: Tensor, select: Select) -> Tensor:
    """Rectify a layer's output and keep each unit's whole map or its peak.

    Args:
        activation: The output, (N, units, ...).
        select: "map", or "peak": the largest value, the first in raster order.

    Returns:
        The seed of each unit, (N, units, ...); zero for an inactive unit.

    Raises:
        ValueError: `select` is neither.
    """
    rectified = activation.relu()
    if select == "map":
        return rectified
    if select != "peak":
        raise ValueError(f"select is 'map' or 'peak', not {select!r}")
    flat = rectified.flatten(2) if rectified.ndim > 2 else rectified[..., None]
    value, index = flat.max(-1, keepdim=True)
    return torch.zeros_like(flat).scatter(-1, index, value).reshape(rectified.shape)
