"""The deconvnet of Zeiler & Fergus, Visualizing and understanding convolutional networks
(arXiv 1311.2901), section 2.1: which pixels caused an activation.

All other activations of the layer are set to zero; then, layer by layer down to the pixels,
the signal is (i) unpooled into the switches, (ii) rectified, (iii) filtered with the
transposed filters, without biases. What arrives at the pixels is signed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.activations import Record, record
from convatlas.extractor import call_name, is_leaf, kind

Select = Literal["map", "peak"]


class Deconvnet(nn.Module):
    """A deconvnet attached to one layer of a trained chain of conv, ReLU, max-pool, flatten and linear.

    The chain is an nn.Sequential, nested or not, in evaluation mode; its weights are shared, not
    copied. `rectify` rectifies at activations that are not a ReLU too, where the method is
    undefined. Raises UserError for a layer that is not there, and one that has no inverse.
    """

    def __init__(self, convnet: nn.Sequential, layer: str, rectify: bool = False) -> None:
        super().__init__()
        layers = chain(convnet)
        names = [name for name, _ in layers]
        if layer not in names:
            raise UserError(f"no layer {layer!r} to attach a deconvnet to; there are: {', '.join(names)}")
        down = list(reversed(layers[: names.index(layer) + 1]))
        self.__dict__["convnet"] = convnet  # not a part of this module: its modes and state are its own
        self.names = [name for name, _ in down]
        self.path = nn.ModuleList(_inverse(name, module, rectify) for name, module in down)

    @torch.no_grad()
    def forward(
        self, images: Tensor | Record, units: Sequence[int] | None = None, select: Select = "map"
    ) -> Tensor:
        """Project activations of `units` (all by default) to the input: (N, units, C, H, W), signed.

        `images` (N, C, H, W) are as the network sees them, or the record of their forward pass.
        `select` projects the unit's whole map, or its "peak", the single strongest location.
        """
        found = images if isinstance(images, Record) else record(self.convnet, images)
        top = found.outputs[self.names[0]]
        every = list(range(top.shape[1]))
        if wrong := set(every if units is None else units) - set(every):
            raise UserError(
                f"{self.names[0]} has no units {sorted(wrong)}; it has {len(every)}, counted from 0"
            )
        chosen = torch.tensor(every if units is None else units, dtype=torch.long, device=top.device)
        if not len(chosen):
            return top.new_zeros(len(top), 0, *found.input.shape[1:])
        signal = Signal(seed(top, select)[:, chosen], chosen, top.shape[1])
        inputs = [found.outputs[name] for name in self.names[1:]] + [found.input]
        for name, step, below in zip(self.names, self.path, inputs, strict=True):
            signal = step(signal, below.shape, found.switches.get(name))
        return signal.spread()


class Signal:
    """What travels down, for every unit separately.

    At the top each unit lives in its own channel alone, so `values` is (N, units, ...) and unit k
    is channel `channels[k]` of `width`. The first layer that mixes channels spreads it to
    (N, units, C, ...). Until then each step costs one channel a unit, not all of them.
    """

    def __init__(self, values: Tensor, channels: Tensor | None = None, width: int = 0) -> None:
        self.values, self.channels, self.width = values, channels, width

    def to(self, values: Tensor) -> "Signal":
        """The same units with other values, in the same layout."""
        return Signal(values, self.channels, self.width)

    def spread(self) -> Tensor:
        """Give the values as (N, units, C, ...), zeros in every channel but the unit's own."""
        if self.channels is None:
            return self.values
        n, units, *plane = self.values.shape
        full = self.values.new_zeros(n, units, self.width, *plane)
        full[:, torch.arange(units), self.channels] = self.values
        return full


def seed(activation: Tensor, select: Select) -> Tensor:
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


class Unpool(nn.Module):
    """Put each value back where its maximum was; what meets in one place adds up (overlapping pools)."""

    def forward(self, signal: Signal, shape: torch.Size, switches: Tensor | None) -> Signal:
        assert switches is not None, "a max-pool without recorded switches"
        values = signal.values
        places = switches.unsqueeze(1) if signal.channels is None else switches[:, signal.channels]
        places = places.expand(values.shape).flatten(-2)
        plane = values.new_zeros(*values.shape[:-2], shape[-2] * shape[-1])
        plane.scatter_add_(-1, places, values.flatten(-2))
        return signal.to(plane.unflatten(-1, tuple(shape[-2:])))


class Rectify(nn.Module):
    """Keep what is positive."""

    def forward(self, signal: Signal, shape: torch.Size, switches: Tensor | None) -> Signal:
        return signal.to(signal.values.relu())


class Pass(nn.Module):
    """Dropout and the like, which do nothing in evaluation mode."""

    def forward(self, signal: Signal, shape: torch.Size, switches: Tensor | None) -> Signal:
        return signal


class Unflatten(nn.Module):
    """Give a flat signal its planes back."""

    def forward(self, signal: Signal, shape: torch.Size, switches: Tensor | None) -> Signal:
        return Signal(signal.spread().flatten(2).unflatten(2, tuple(shape[1:])))


class TransposedLinear(nn.Module):
    """Weigh by the transposed matrix, without bias."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight

    def forward(self, signal: Signal, shape: torch.Size, switches: Tensor | None) -> Signal:
        if signal.channels is None:
            return Signal(signal.values @ self.weight)
        return Signal(signal.values.unsqueeze(-1) * self.weight[signal.channels])


class TransposedConv(nn.Module):
    """Filter with the transposed filters: both axes flipped, no bias, back to the input's exact size."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.stride, self.padding = conv.stride, conv.padding
        self.dilation, self.groups = conv.dilation, conv.groups

    def forward(self, signal: Signal, shape: torch.Size, switches: Tensor | None) -> Signal:
        if signal.channels is not None and self.groups == 1:
            # One live channel a unit: its filter alone applies, so units are groups of one channel.
            units = len(signal.channels)
            out = self._filter(signal.values, self.weight[signal.channels], units, shape[-2:])
            return Signal(out.unflatten(1, (units, -1)))
        values = signal.spread()
        out = self._filter(values.flatten(0, 1), self.weight, self.groups, shape[-2:])
        return Signal(out.unflatten(0, values.shape[:2]))

    def _filter(self, x: Tensor, weight: Tensor, groups: int, target: torch.Size) -> Tensor:
        """Transpose the convolution by `weight` (out, in / groups, h, w): (N, out, ...) to (N, in, *target).

        At stride 1 that is a convolution with the flipped filters, which runs several times as
        fast on a CPU as conv_transpose2d (benchmarks/deconvnet.py).
        """
        sizes = list(zip(weight.shape[-2:], self.padding, self.dilation, strict=True))
        opposite = [d * (k - 1) - p for k, p, d in sizes]
        if self.stride == (1, 1) and min(opposite) >= 0:
            flipped = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(-2, -1)
            return F.conv2d(x, flipped, padding=opposite, dilation=self.dilation, groups=groups)
        # What a strided convolution left over at the far edge (Dumoulin & Visin, relationship 14).
        reached = [
            (size - 1) * stride - 2 * p + d * (k - 1) + 1
            for size, stride, (k, p, d) in zip(x.shape[-2:], self.stride, sizes, strict=True)
        ]
        extra = [wanted - there for wanted, there in zip(target, reached, strict=True)]
        return F.conv_transpose2d(x, weight, None, self.stride, self.padding, extra, groups, self.dilation)


def chain(convnet: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the layers of an nn.Sequential, nested or not, in the order in which a signal takes them.

    They are named as in a record: a module that comes again gets `:2`, `:3`.
    """
    paths: dict[nn.Module, str] = {}
    calls: Counter[str] = Counter()
    return [
        (call_name(paths.setdefault(module, path), calls), module) for path, module in _leaves(convnet, "")
    ]


def _leaves(convnet: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    if type(convnet).forward is not nn.Sequential.forward:
        raise UserError(
            "a deconvnet is built from a chain of layers (an nn.Sequential), "
            f"not from {type(convnet).__name__}, which has a way of its own"
        )
    for name, module in convnet._modules.items():  # named_children() leaves out what comes again
        if is_leaf(module):
            yield prefix + name, module
        else:
            yield from _leaves(module, f"{prefix}{name}.")


def _inverse(name: str, module: nn.Module, rectify: bool) -> nn.Module:
    """Choose what the deconvnet does at one layer of the convnet."""
    match module:
        case nn.Conv2d(padding_mode="zeros") if not isinstance(module.padding, str):
            return TransposedConv(module)
        case nn.Conv2d():
            raise UserError(
                f"layer {name!r} is a Conv2d that pads with {module.padding_mode}, padding "
                f"{module.padding!r}; the deconvnet takes one that pads with zeros, by a number"
            )
        case nn.Linear():
            return TransposedLinear(module)
        case nn.MaxPool2d():
            return Unpool()
        case nn.ReLU():
            return Rectify()
        case nn.Flatten(start_dim=1, end_dim=-1):
            return Unflatten()
        case nn.Dropout() | nn.Dropout2d() | nn.Identity():
            return Pass()
        case nn.Sequential() if type(module).forward is nn.Sequential.forward:  # an empty one
            return Pass()
        case _ if rectify and type(module).__module__ == "torch.nn.modules.activation":
            return Rectify()
    hint = "; views.deconv.rectify: true rectifies there" if kind(module) == "activation" else ""
    raise UserError(
        f"layer {name!r} is a {type(module).__name__}, which this deconvnet does not take: it takes conv, "
        f"ReLU, max-pool, flatten, linear and dropout{hint}"
    )
