"""Receptive fields, against what impulses reach: pixel by pixel, filters of ones, nothing that cancels."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas.tracing.layers import list_layers

CHAINS = {
    "strides": [nn.Conv2d(1, 1, 3, stride=2), nn.Conv2d(1, 1, 5, stride=3), nn.Conv2d(1, 1, 2)],
    "dilations": [nn.Conv2d(1, 1, 3, dilation=2), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, dilation=3)],
    "pools": [
        nn.MaxPool2d(3, 2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(1, 1, 3),
        nn.MaxPool2d(2, 1, dilation=2),
    ],
    "uneven": [
        nn.Conv2d(1, 1, (1, 4), stride=(1, 2)),
        nn.Dropout(),
        nn.MaxPool2d((3, 2)),
        nn.Conv2d(1, 1, (2, 1), dilation=(2, 1)),
    ],
    "paddings": [
        nn.Conv2d(1, 1, 5, padding="same"),
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 1, 3, padding="same", dilation=3),
        nn.Conv2d(1, 1, 3, padding=(2, 0), stride=2),
    ],
    "same padding of even kernels": [
        nn.Conv2d(1, 1, (4, 2), padding="same"),
        nn.Conv2d(1, 1, 2, padding="same", dilation=3),
        nn.Conv2d(1, 1, 3, stride=2),
    ],
    "an in-place activation": [nn.Conv2d(1, 1, 3), nn.ReLU(inplace=True), nn.Conv2d(1, 1, 3)],
}


class Branches(nn.Module):
    """Two ways from one signal, which meet in the end."""

    def __init__(self, meet: str, *ways: nn.Module) -> None:
        super().__init__()
        self.meet, self.ways = meet, nn.ModuleList(ways)

    def forward(self, x: Tensor) -> Tensor:
        one, other = (way(x) for way in self.ways)
        match self.meet:
            case "in place":
                one += other
                return F.relu(one)
            case "concatenated":
                return torch.cat([one, other], 1)
            case "multiplied":
                return one * other
        return one + other


def ways(meet: str) -> list[nn.Module]:
    """A stem, two residual blocks of branches that reach differently far, one with strides, and a head."""
    two = 2 if meet == "concatenated" else 1
    far = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Conv2d(1, 1, (3, 5), padding=(1, 2)))
    short, down = nn.Conv2d(two, 1, 1, stride=2), nn.Conv2d(two, 1, 4, stride=2, padding=1)
    first = Branches(meet, nn.Identity(), far)
    return [nn.Conv2d(1, 1, 3), first, Branches(meet, short, down), nn.MaxPool2d(2, 1), nn.Conv2d(two, 1, 1)]


def impulses(network: nn.Module, side: int) -> dict[str, Tensor]:
    """What each module makes of a side x side input with one bright pixel, for every pixel."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda *io, name=name: found.update({name: io[-1].sum(1)}))
        for name, module in network.named_modules()
    ]
    with torch.no_grad():
        network(torch.eye(side * side).reshape(-1, 1, side, side))
    for handle in handles:
        handle.remove()
    return found


def measured(out: Tensor) -> tuple[list[int], list[int], list[int]]:
    """The extent of what reaches a layer's middle value, where it starts, and that value's place."""
    side = round(len(out) ** 0.5)
    place = [size // 2 for size in out.shape[1:]]
    seen = out[:, place[0], place[1]].reshape(side, side) > 0
    extents = [seen.any(axis).nonzero() for axis in (1, 0)]
    assert all(extent[0] > 0 and extent[-1] < side - 1 for extent in extents)  # not cut by a border
    size = [int(extent[-1] - extent[0]) + 1 for extent in extents]
    return size, [int(extent[0]) for extent in extents], place


def positive(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0 if parameter.ndim > 1 else 0.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return network.eval()


def assert_reached(network: nn.Module, side: int) -> None:
    """Each module's field has the extent that is measured, and stands where it is measured."""
    out = impulses(positive(network), side)
    known = 0
    for layer in list_layers(network, (1, side, side)):
        if layer["name"] != layer["module"] or layer["receptive_field"] is None:
            continue
        known += 1
        size, start, place = measured(out[layer["name"]])
        assert layer["receptive_field"] == size, layer["name"]
        at = [first + i * step for first, i, step in zip(
            layer["receptive_start"], place, layer["receptive_step"], strict=True
        )]  # fmt: skip
        assert at == start, layer["name"]
    assert known > 2


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name: str) -> None:
    assert_reached(nn.Sequential(*CHAINS[name]), 36)


@pytest.mark.parametrize("meet", ["added", "in place", "concatenated", "multiplied"])
def test_branches_that_reach_differently_far(meet: str) -> None:
    network = nn.Sequential(*ways(meet))
    if meet == "multiplied":  # impulses never meet in a product: the sum sees what it sees
        layers = list_layers(network, (1, 40, 36))
        expected = list_layers(nn.Sequential(*ways("added")), (1, 40, 36))
        assert [x["receptive_field"] for x in layers] == [x["receptive_field"] for x in expected]
    else:
        assert_reached(network, 36)


def fields(network: nn.Module, side: int) -> dict[str, Any]:
    return {layer["name"]: layer["receptive_field"] for layer in list_layers(network, (3, side, side))}


def test_resnet50() -> None:
    """Worked out by hand: a stage's first 3x3 adds two jumps of those before it, each other two of its own.

    That makes 427; the 483 often quoted are TensorFlow's, which halves in a stage's last block.
    """
    found = fields(torchvision.models.resnet50(), 64)
    expected = {"conv1": 7, "maxpool": 11, "layer1.2/add": 11 + 3 * 8, "layer2.3.conv3": 35 + 8 + 3 * 16}
    expected |= {"layer3.5/add": 91 + 16 + 5 * 32, "layer4.2.relu:3": 267 + 32 + 2 * 64, "fc": 64}
    assert {name: found[name] for name in expected} == {name: [n, n] for name, n in expected.items()}


def test_known_networks() -> None:
    """Araujo, Norris & Sim, Computing receptive fields of convolutional neural networks, Distill 2019."""
    assert fields(torchvision.models.alexnet().features, 64)["12"] == [195, 195]
    assert fields(torchvision.models.vgg16().features, 32)["30"] == [212, 212]


# Where it is not known, it is null.


class Shift(nn.Module):
    """A leaf that looks around, and does not say how far."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.roll(3, -1)


@pytest.mark.parametrize(
    "module",
    [nn.PixelUnshuffle(2), nn.Upsample(scale_factor=2), Shift(), *map(nn.AdaptiveAvgPool2d, (6, 9))],
    ids=repr,
)
def test_after_a_layer_of_another_kind_it_is_right_or_null(module: nn.Module) -> None:
    conv = nn.LazyConv2d(1, 3)
    network = nn.Sequential(nn.Conv2d(1, 1, 3), module, conv)
    network(torch.zeros(1, 1, 20, 20))
    out = impulses(positive(network), 20)
    *_, last = list_layers(network, (1, 20, 20))
    assert last["receptive_field"] in (None, measured(out["2"])[0])


class Does(nn.Module):
    def __init__(self, do: Any) -> None:
        super().__init__()
        self.do, self.conv, self.last = do, nn.Conv2d(3, 3, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.do(self.conv(x)))


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        (lambda x: x + x.roll(3, -1), None),
        (lambda x: x + x.flip(-1), None),
        (lambda x: torch.cat([x, x], 2), None),
        (lambda x: x.mT, None),
        (lambda x: x.reshape(1, 1, 18, 6), None),
        (lambda x: x @ x, None),
        (lambda x: x + torch.ones(3, 1, 1), [3, 3]),
        (lambda x: x.view(1, 3, 1, 6, 6).squeeze(2), None),
        (lambda x: x.mean(1, keepdim=True), [3, 3]),
        (lambda x: x * x.mean((2, 3), keepdim=True), [8, 8]),
        (lambda x: F.adaptive_avg_pool2d(x, 1), [8, 8]),
        (lambda x: F.avg_pool2d(x, 2), [4, 4]),
        (lambda x: F.conv1d(x.flatten(2), torch.ones(1, 3, 3)), None),
        (lambda x: F.linear(x.flatten(1), torch.ones(2, 108)), [8, 8]),
    ],
)
def test_functions(do: Any, expected: list[int] | None) -> None:
    assert fields(Does(do), 8)["last"] == expected


def conv(kernel: int, padding: int, mode: str) -> nn.Conv2d:
    return nn.Conv2d(1, 1, kernel, padding=padding, padding_mode=mode)


@pytest.mark.parametrize(
    ("first", "known"),
    [
        (conv(3, 1, "circular"), False),
        (conv(5, 2, "reflect"), True),
        (conv(4, 2, "reflect"), False),
        (conv(2, 3, "replicate"), False),
        (conv(5, 2, "replicate"), True),
        (nn.LPPool2d(2, 3), True),
        (nn.FractionalMaxPool2d(2, output_size=7), False),
        (nn.GLU(2), False),
        (Does(lambda x: torch.stack([x[:, :1], x[:, :1]], 2).flatten(2, 3)), False),
    ],
    ids=repr,
)
def test_no_value_depends_on_a_pixel_beyond_its_field(first: nn.Module, known: bool) -> None:
    """At each place, the borders too, where some paddings bring pixels from elsewhere."""
    if isinstance(first, Does):
        first.conv = nn.Conv2d(1, 3, 3)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), first, nn.Conv2d(1, 1, 1)).eval()
    *_, last = list_layers(network, (1, 16, 16))
    assert (last["receptive_field"] is not None) == known
    if not known:
        return
    x = torch.rand(1, 1, 16, 16, requires_grad=True)
    out = network(x)
    corners = list(zip(last["receptive_start"], last["receptive_step"], last["receptive_field"], strict=True))
    for place in torch.cartesian_prod(*map(torch.arange, out.shape[2:])).tolist():
        (reached,) = torch.autograd.grad(out[0, 0, *place], x, retain_graph=True)
        for axis, (start, step, size) in enumerate(corners):
            at = start + step * place[axis]
            pixels = reached[0, 0].abs().amax(1 - axis).nonzero()
            assert at <= pixels.min() <= pixels.max() < at + size


def test_a_normalisation_by_the_batch_itself_sees_all_of_an_image() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1, track_running_stats=False)).eval()
    assert list_layers(network, (1, 16, 16))[-1]["receptive_field"] == [16, 16]
