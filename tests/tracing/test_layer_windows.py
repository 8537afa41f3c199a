"""Layers that compute by their own code are described by the operations that ran in them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.attribution.sequential_deconvnet import Deconvnet
from convatlas.tracing.layer_windows import has_own_forward
from convatlas.tracing.layers import list_layers, trace_layers
from convatlas.tracing.record import collect_filters, record

GEOMETRY = ("kernel", "stride", "padding", "dilation", "groups")


class PaddedConv(nn.Conv2d):
    """Pads in forward; its own padding is 0."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (5, 5, 5, 5)), self.weight, self.bias, self.stride)


class StaticSameConv(nn.Conv2d):
    """Holds the padding as a child, more of it at the far side, as EfficientNet-PyTorch's do."""

    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.static_padding(x), self.weight, self.bias, self.stride)


class StandardisedConv(nn.Conv2d):
    """Normalises its weight, as timm's do."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.view(1, len(self.weight), -1), None, None, training=True)
        return self._conv_forward(x, weight.view_as(self.weight), self.bias)


class OwnConv(nn.Module):
    """A convolution that is no subclass of one; its weight is a product."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 27))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, (self.left @ self.right).view(4, 3, 3, 3), padding=1)


class FunctionalConv(nn.Module):
    """Applies weights that another module computes, from a code or from the image."""

    def __init__(self, from_image: bool) -> None:
        super().__init__()
        self.from_image, self.code, self.weights = from_image, nn.Parameter(torch.rand(3)), nn.Linear(3, 108)

    def forward(self, x: Tensor) -> Tensor:
        code = x.mean((0, 2, 3)) if self.from_image else self.code
        return F.conv2d(x, self.weights(code).view(4, 3, 3, 3), stride=2)


class NormConv(nn.Conv2d):
    """A convolution that holds the normalisation after it, as Detectron2's do."""

    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.norm = nn.BatchNorm2d(self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(F.conv2d(x, self.weight, self.bias, padding=1)))


@pytest.mark.parametrize(
    ("module", "geometry"),
    [
        (PaddedConv(3, 4, 11), [[11, 11], [1, 1], [5, 5], [1, 1], 1]),
        (StaticSameConv(3, 4, 3, stride=2), [[3, 3], [2, 2], [[0, 1], [0, 1]], [1, 1], 1]),
        (StandardisedConv(3, 4, (3, 5), padding=(1, 2)), [[3, 5], [1, 1], [1, 2], [1, 1], 1]),
        (OwnConv(), [[3, 3], [1, 1], [1, 1], [1, 1], 1]),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), [[3, 3], [1, 1], [0, 0], [1, 1], 1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_convolution_with_code_of_its_own(module: nn.Module, geometry: list[Any]) -> None:
    """It is one layer, and its filters are those that reproduce its output."""
    network = nn.Sequential(module).eval()
    (layer,), computed = trace_layers(network, (3, 16, 16))
    assert [layer["name"], layer["kind"], layer["ordinal"]] == ["0", "conv", 1]
    assert [layer[key] for key in GEOMETRY] == geometry
    assert layer["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    filters = collect_filters(network, computed)
    x = torch.rand(1, 3, 16, 16)
    sides = [side if isinstance(side, list) else [side, side] for side in layer["padding"]]
    padded = F.pad(x, [*sides[1], *sides[0]])
    expected = F.conv2d(padded, filters["0"], filters.get("0.bias"), layer["stride"])
    torch.testing.assert_close(network(x), expected)


def test_a_convolution_that_holds_layers() -> None:
    network = nn.Sequential(NormConv(3, 4, 3, bias=False)).eval()
    layers, computed = trace_layers(network, (3, 8, 8))
    assert [layer["name"] for layer in layers] == ["0/conv2d", "0.norm", "0/relu"]
    assert [layers[0][key] for key in GEOMETRY] == [[3, 3], [1, 1], [1, 1], [1, 1], 1]
    assert [layer["parameters"] for layer in layers] == [108, 8, 0]
    assert torch.equal(collect_filters(network, computed)["0"], network[0].weight)


def test_filters_that_another_module_computes() -> None:
    network = FunctionalConv(from_image=False)
    layers, computed = trace_layers(network, (3, 8, 8))
    assert [layers[-1][key] for key in GEOMETRY] == [[3, 3], [2, 2], [0, 0], [1, 1], 1]
    expected = network.weights(network.code).view(4, 3, 3, 3)
    assert torch.equal(collect_filters(network, computed)[""], expected)


def test_filters_that_depend_on_the_image_are_left_out() -> None:
    network = FunctionalConv(from_image=True)
    layers, computed = trace_layers(network, (3, 8, 8))
    assert list(collect_filters(network, computed)) == ["weights", "weights.bias"]
    conv = next(layer for layer in layers if layer["kind"] == "conv")
    assert conv["receptive_field"] == [8, 8]  # through the weights
    assert conv["notes"] == ["its filters are computed from the image, and not shown"]


def test_a_convolution_by_a_matrix_product_has_no_known_kernel() -> None:
    class Unfolded(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            columns = F.unfold(x, 5).mT  # whatever its kernel size is
            return F.linear(columns, torch.rand(4, 75)).mT.reshape(len(x), 4, *(n - 4 for n in x.shape[2:]))

    network = nn.Sequential(Unfolded(3, 4, 3))
    (layer,), computed = trace_layers(network, (3, 8, 8))
    assert [layer[key] for key in GEOMETRY] == [None] * 5
    assert layer["receptive_field"] == [5, 5]
    assert layer["notes"] == [
        "its own code computes no single convolution or product, and its filters are not shown"
    ]
    assert not collect_filters(network, computed)


class SamePool(nn.MaxPool2d):
    """Pads at the far side by a value, as timm's and EfficientNet-PyTorch's do."""

    def __init__(self, value: float) -> None:
        super().__init__(3, 2)
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=self.value), self.kernel_size, self.stride)


@pytest.mark.parametrize("value", [-torch.inf, 0.0])
def test_switches_of_a_pool_that_pads_point_into_its_input(value: float) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Conv2d(1, 2, 3), SamePool(value)), torch.randn(2, 1, 14, 12)
    activations = record(network, x)
    source, output, switches = activations.outputs["0"], activations.outputs["1"], activations.switches["1"]
    assert switches.shape == output.shape
    inside = switches >= 0
    maxima = source.flatten(2).gather(2, switches.clamp(min=0).flatten(2)).view_as(output)
    assert torch.equal(maxima[inside], output[inside])
    assert inside.all() == (value != 0)
    assert (output[~inside] == value).all()
    (layer,) = [layer for layer in list_layers(network, (1, 14, 12)) if layer["kind"] == "pool"]
    assert [layer["padding"], layer["receptive_start"]] == [[[0, 1], [0, 1]], [0, 0]]


def test_the_deconvnet_of_a_chain_unpools_to_no_pixel_where_padding_is_the_maximum() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), SamePool(0.0))
    nn.init.constant_(network[0].weight, -1.0)
    nn.init.constant_(network[0].bias, -1.0)
    projection = Deconvnet(network, "1")(torch.rand(1, 1, 4, 4))
    assert projection[..., -1, -1].abs().max() == 0


def test_every_parameter_is_counted_once() -> None:
    """Those of composite modules, tied ones and those that nothing reads too."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.unused = nn.Conv2d(3, 4, 4, stride=4), nn.Parameter(torch.ones(7))
            self.first, self.position = nn.Parameter(torch.ones(1, 1, 4)), nn.Parameter(torch.ones(1, 17, 4))
            self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)])
            self.blocks[1].weight = self.blocks[0].weight
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.first.expand(len(x), -1, -1), self.patches(x).flatten(2).mT], 1)
            x = self.scale * self.blocks[0](x + self.position)
            return self.blocks[1](x)

    network = Tokens()
    layers = list_layers(network, (3, 16, 16))
    assert sum(layer["parameters"] for layer in layers) == sum(p.numel() for p in network.parameters())
    counts = {layer["name"]: layer["parameters"] for layer in layers}
    assert [counts[name] for name in ("cat", "add", "mul", "blocks.1", "unused")] == [4, 68, 4, 4, 7]


def test_modules_of_torch_compute_by_its_code() -> None:
    modules = [nn.Conv2d(1, 1, 1), nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)), nn.ReLU()]
    assert not any(map(has_own_forward, modules))
    assert has_own_forward(PaddedConv(1, 1, 1))
