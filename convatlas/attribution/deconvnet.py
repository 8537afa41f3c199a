"""The deconvnet of Zeiler & Fergus, Visualizing and understanding convolutional networks
(arXiv 1311.2901), section 2.1: which pixels caused an activation.

All other activations of the layer are set to zero; then, layer by layer down to the pixels,
the signal is (i) unpooled into the switches, (ii) rectified, (iii) filtered with the
transposed filters, without biases. What arrives at the pixels is signed.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.backward_rules import attach_rules, next_nodes, node_type, simplify_batch_norms
from convatlas.names import suggest_nearest
from convatlas.tracing.calls import Call, is_leaf, next_call_name, trace
from convatlas.tracing.record import record

Select = Literal["map", "peak"]
MAX_BATCH_VALUES = (
    2**20
)  # values of the input in a backward pass: more cost memory, save no time (benchmarks/)


def project(
    model: nn.Module,
    image: Tensor,
    layer: str,
    units: Sequence[int] | None = None,
    select: Select = "map",
    rectify: bool = False,
) -> Tensor:
    """Project activations of a layer's units to the input of any network: (units, C, H, W), signed.

    `image` (C, H, W) is as the network sees it, `layer` a name as in layers.json, or a composite
    module's; `units` are all by default. `select` projects a unit's whole map, or its "peak", the single
    strongest location. A unit that is nowhere positive projects to zeros. The network runs once, no
    further than the layer, in evaluation mode, and is left as it was.

    Raises UserError for a layer or unit that is not there, and for a network with activations that are
    not ReLUs, where the method is undefined; `rectify` rectifies the signal there too.
    """
    x = image.detach()[None].clone().requires_grad_()
    top, edge, names = _run_until_layer(model, x, layer)
    chosen = _validate_units(layer, list(range(top.shape[1])) if units is None else list(units), top.shape[1])
    seeds = make_seed_signal(top, select)
    start = _signal_entry(edge)

    def down(signal: Tensor) -> Tensor:
        return torch.autograd.grad(start, x, signal, retain_graph=True)[0]

    found = [image.new_zeros(0, *image.shape)]
    together = max(1, MAX_BATCH_VALUES // image.numel())
    with attach_rules(edge, names, rectify), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # torch takes some units in turn
        for first in range(0, len(chosen), together):
            signals = _unit_signals(edge, seeds, chosen[first : first + together])
            found.append(torch.func.vmap(down)(signals)[:, 0])
    return torch.cat(found)


def project_positions(
    model: nn.Module, images: Tensor, layer: str, units: Tensor, positions: Tensor, rectify: bool = False
) -> tuple[Tensor, Tensor]:
    """Project one activation of each image to its pixels, as `project` does a peak: (N, C, H, W), signed.

    `images` (N, C, H, W) are as the network sees them; of each the activation of a unit, from `units` (N,),
    in a row and column of its map, from `positions` (N, 2), is the seed, rectified. Gives the activations
    themselves, (N,), too. Errors are those of `project`.
    """
    x = images.detach().clone().requires_grad_()
    top, edge, names = _run_until_layer(model, x, layer)
    rows = torch.arange(len(top), device=top.device)
    maps = top.reshape(*top.shape[:2], -1, top.shape[-1] if top.ndim > 2 else 1)
    there = (rows, units, *positions.T)
    values, seeds = maps[there], torch.zeros_like(maps)
    seeds[there] = values.relu()
    with attach_rules(edge, names, rectify):
        return torch.autograd.grad(edge, x, seeds.view_as(top))[0], values


@dataclass(frozen=True)
class ProjectionStep:
    """What comes down to a layer's output, or to the input's pixels: (units, ...), or (C, H, W).

    `through` names the layers that it came through since the step before, the uppermost first.
    """

    layer: str
    signal: Tensor
    passed_layers: list[str]


def project_stepwise(
    model: nn.Module, image: Tensor, layer: str, unit: int, select: Select = "map", rectify: bool = False
) -> list[ProjectionStep]:
    """Follow the projection of one unit down: the signal at each layer that every way to the pixels meets.

    The first step is the seed, the unit's map with all others zero; the last, at "input", is what `project`
    gives of the unit, bit for bit. Between them, in a chain of layers, is the output of each; the branches
    of a block or a skip connection are left out, and what stands where they part and meet is there.
    Arguments and errors are those of `project`.
    """
    x = image.detach()[None].clone().requires_grad_()
    top, edge, names = _run_until_layer(model, x, layer)
    _validate_units(layer, [unit], top.shape[1])
    seeds = make_seed_signal(top, select)

    order, met = _topological_order(edge.node)
    found: dict[Node, Tensor] = {edge.node: _isolate_units(seeds, [unit])[0]}
    with attach_rules(edge, names, rectify):
        kept = [
            node.register_prehook(lambda above, node=node: _store_signal(found, node, above))
            for node in met
            if node in names and node is not edge.node
        ]
        last = torch.autograd.grad(_signal_entry(edge), x, _unit_signals(edge, seeds, [unit])[0])[0]
    for hook in kept:
        hook.remove()

    steps, through = [], []
    for node in order:
        if node in found:
            steps.append(ProjectionStep(layer if node is edge.node else names[node], found[node][0], through))
            through = []
        if node in names:
            through.append(names[node])
    return [*steps, ProjectionStep("input", last[0], through)]


def _store_signal(found: dict[Node, Tensor], node: Node, above: Sequence[Tensor | None]) -> None:
    """Keep what comes down to a step, where it is one signal."""
    signals = [signal for signal in above if signal is not None]
    if len(signals) == 1:
        found[node] = signals[0].clone()


def _topological_order(top: Node) -> tuple[list[Node], list[Node]]:
    """The steps from `top` down, each after all those above it, and which of them every way down meets."""
    lower: dict[Node, list[Node]] = {}
    todo = [top]
    while todo:
        node = todo.pop()
        if node not in lower:
            lower[node] = next_nodes(node)
            todo += lower[node]
    ways = Counter([top, *(node for nodes in lower.values() for node in nodes)])  # that lead to a step
    waiting = Counter(ways)
    order, met, ready, under_way = [], [], [top], 1
    while ready:
        node = ready.pop()
        order.append(node)
        if under_way == ways[node]:  # every way that is under way ends here
            met.append(node)
        under_way += len(lower[node]) - ways[node]
        for other in lower[node]:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return order, met


def _signal_entry(edge: GradientEdge) -> GradientEdge:
    """Where `_signals` enter autograd's graph."""
    step = _groupable_convolution(edge)
    return edge if step is None else GradientEdge(*step.next_functions[0])


def _unit_signals(edge: GradientEdge, seeds: Tensor, units: list[int]) -> Tensor:
    """What goes down from `_start` of each unit: (units, 1, channels, ...)."""
    step = _groupable_convolution(edge)
    return _isolate_units(seeds, units) if step is None else _convolution_grad_input(step, seeds, units)


def _isolate_units(seeds: Tensor, units: list[int]) -> Tensor:
    """Each unit's map with all others zero: (1, channels, ...) to (units, 1, channels, ...)."""
    alone = seeds.new_zeros(len(units), *seeds.shape)
    for n, unit in enumerate(units):
        alone[n, :, unit] = seeds[:, unit]
    return alone


def _groupable_convolution(edge: GradientEdge) -> Any | None:
    """The step at an edge if `_filtered` can take each unit's single map through its own filter."""
    node: Any = edge.node
    if node_type(node) != "Convolution" or node._saved_transposed or node._saved_groups != 1:
        return None
    reach = [d * (k - 1) for d, k in zip(node._saved_dilation, node._saved_weight.shape[2:], strict=True)]
    inside = all(pad <= far for pad, far in zip(node._saved_padding, reach, strict=True))
    depends = [below is not None for below, _ in node.next_functions]
    return node if inside and depends[0] and not any(depends[1:]) and set(node._saved_stride) == {1} else None


def _convolution_grad_input(step: Any, seeds: Tensor, units: list[int]) -> Tensor:
    """What the convolution's adjoint makes of `_alone`, without multiplying by the maps that are zero.

    At stride 1 it is a convolution with the turned filter; one group a unit does all at once.
    """
    weight = step._saved_weight[units]
    turned = weight.flip(list(range(2, weight.ndim))).flatten(0, 1)[:, None]
    dilation, reach = step._saved_dilation, [k - 1 for k in weight.shape[2:]]
    padding = [d * k - p for d, k, p in zip(dilation, reach, step._saved_padding, strict=True)]
    maps = torch.convolution(
        *(seeds[:, units], turned, None, [1] * len(padding), padding, dilation),
        *(False, [0] * len(padding), len(units)),
    )
    return maps.reshape(len(units), 1, weight.shape[1], *maps.shape[2:])


class _LayerReachedError(Exception):
    """The forward pass has come to the layer and need go no further."""


def _run_until_layer(model: nn.Module, x: Tensor, layer: str) -> tuple[Tensor, Any, dict[Node, str]]:
    """Run the network to the first layer of this name.

    Gives its output, where that stands in autograd's graph, and the layers by the last step of each.
    """
    names: dict[Node, str] = {}
    there: list[str] = []
    reached: list[Any] = []

    def see(call: Call) -> None:
        there.append(call.layer)
        if call.output.grad_fn is not None:
            names.setdefault(call.output.grad_fn, call.layer)
        if call.layer == layer:
            if call.output.grad_fn is None:
                raise UserError(f"the layer {layer!r} does not depend on the image; nothing caused it")
            reached.extend([call.output.detach().clone(), get_gradient_edge(call.output)])
            raise _LayerReachedError

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:  # so that autograd follows the image alone
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad(), simplify_batch_norms(model), trace(model, see, blocks=[layer]):
            model(x.clone())  # which a layer may work on in place
    except _LayerReachedError:
        return *reached, names
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    raise UserError(f"no layer {layer!r} to project from; {suggest_nearest(layer, there)}")


def _validate_units(layer: str, units: list[int], there: int) -> list[int]:
    if wrong := sorted(set(units) - set(range(there))):
        raise UserError(f"{layer} has no units {wrong}; it has {there}, counted from 0")
    return units


def make_seed_signal(activation: Tensor, select: Select) -> Tensor:
    """Rectify a layer's output (N, units, ...) and keep each unit's whole map or its peak.

    The peak is the largest value, the first in raster order. A unit that is nowhere positive
    is dead on the image: its seed is zero.
    """
    rectified = activation.relu()
    if select == "map":
        return rectified
    if select != "peak":
        raise ValueError(f"select is 'map' or 'peak', not {select!r}")
    flat = rectified.flatten(2) if rectified.ndim > 2 else rectified[..., None]
    value, place = flat.max(-1, keepdim=True)
    return torch.zeros_like(flat).scatter(-1, place, value).reshape(rectified.shape)


class Deconvnet(nn.Module):
    """The deconvnet as the paper draws it, for a chain of conv, ReLU, max-pool, flatten and linear.

    Attached to one layer of an nn.Sequential, nested or not, in evaluation mode; its weights are shared.
    `project` gives the same of any network, and is what the pipeline runs; this shows each step.
    """

    def __init__(self, convnet: nn.Sequential, layer: str) -> None:
        super().__init__()
        names, modules = zip(*flatten_sequential(convnet), strict=True)
        if layer not in names:
            raise UserError(f"no layer {layer!r} to attach a deconvnet to; {suggest_nearest(layer, names)}")
        top = names.index(layer) + 1
        self.__dict__["convnet"] = convnet  # not a part of this module: its modes and state are its own
        self.reversed_layers = list(zip(names[:top], modules[:top], strict=True))[::-1]

    @torch.no_grad()
    def forward(self, images: Tensor, units: Sequence[int] | None = None, select: Select = "map") -> Tensor:
        """Project activations of `units` (all by default) to the input: (N, units, C, H, W), signed."""
        found = record(self.convnet, images)
        top = found.outputs[self.reversed_layers[0][0]]
        every = range(top.shape[1])
        chosen = _validate_units(
            self.reversed_layers[0][0], list(every if units is None else units), len(every)
        )
        alone = torch.eye(top.shape[1], device=top.device)[chosen]  # all other units are set to zero
        signal = make_seed_signal(top, select)[:, None] * alone.reshape(*alone.shape, *[1] * (top.ndim - 2))
        shape = signal.shape[:2]
        signal = signal.flatten(0, 1)
        below = [found.outputs[name] for name, _ in self.reversed_layers[1:]] + [found.input]
        for (name, module), given in zip(self.reversed_layers, below, strict=True):
            signal = self.backward_step(name, module, signal, given.shape[1:], found.switches.get(name))
        return signal.unflatten(0, shape)

    @staticmethod
    def backward_step(
        name: str, module: nn.Module, signal: Tensor, below: torch.Size, switches: Tensor | None
    ) -> Tensor:
        """Take the signal (N units, ...) through one layer, to the shape of its input, `below`."""
        match module:
            case nn.MaxPool2d():  # (i) unpool: what meets in one place adds up, where windows overlap
                places = switches.repeat_interleave(len(signal) // len(switches), 0).flatten(2)
                plane = signal.new_zeros(len(signal), below[0], below[1] * below[2])
                return plane.scatter_add_(2, places, signal.flatten(2)).unflatten(2, below[1:])
            case nn.ReLU():  # (ii) rectify
                return signal.relu()
            case nn.Conv2d(padding_mode="zeros") if not isinstance(module.padding, str):
                # (iii) filter with the transposed filters, without bias, to the input's exact size
                geometry = (module.stride, module.padding, 0, module.groups, module.dilation)
                short = F.conv_transpose2d(signal, module.weight, None, *geometry).shape[2:]
                extra = [wanted - got for wanted, got in zip(below[1:], short, strict=True)]
                geometry = (module.stride, module.padding, extra, module.groups, module.dilation)
                return F.conv_transpose2d(signal, module.weight, None, *geometry)
            case nn.Linear():
                return signal @ module.weight
            case nn.Flatten(start_dim=1, end_dim=-1):
                return signal.reshape(len(signal), *below)
            case nn.Dropout() | nn.Dropout2d() | nn.Identity():
                return signal
        raise UserError(
            f"layer {name!r} is a {type(module).__name__}, which is not of the chain that Deconvnet draws; "
            "project takes any network"
        )


def flatten_sequential(convnet: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the layers of an nn.Sequential, nested or not, in the order in which a signal takes them.

    They are named as in a record: a module that comes again gets `:2`, `:3`.
    """
    paths: dict[nn.Module, str] = {}
    calls: Counter[str] = Counter()

    def walk(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
        if type(module).forward is not nn.Sequential.forward:
            raise UserError(
                "a deconvnet is built from a chain of layers (an nn.Sequential), "
                f"not from {type(module).__name__}, which has a way of its own"
            )
        found = []
        for name, child in module._modules.items():  # named_children() leaves out what comes again
            if not is_leaf(child):
                found += walk(child, f"{prefix}{name}.")
            else:
                found.append((next_call_name(paths.setdefault(child, prefix + name), calls), child))
        return found

    return walk(convnet, "")
