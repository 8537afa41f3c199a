"""Receptive fields, against the responses to impulses at each pixel, with filters of ones."""

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


class MultiHead(nn.Module):
    """Self-attention of tokens (N, tokens, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Branches(nn.Module):
    """Two branches from one signal that merge in the end."""

    def __init__(self, merge: str, *branches: nn.Module) -> None:
        super().__init__()
        self.merge, self.branches = merge, nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, second = (branch(x) for branch in self.branches)
        match self.merge:
            case "in place":
                first += second
                return F.relu(first)
            case "concatenated":
                return torch.cat([first, second], 1)
            case "multiplied":
                return first * second
        return first + second


def make_branching_network(merge: str) -> list[nn.Module]:
    """A stem, two residual blocks whose branches have different fields, one with strides, and a head."""
    two = 2 if merge == "concatenated" else 1
    far = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Conv2d(1, 1, (3, 5), padding=(1, 2)))
    short, down = nn.Conv2d(two, 1, 1, stride=2), nn.Conv2d(two, 1, 4, stride=2, padding=1)
    first = Branches(merge, nn.Identity(), far)
    return [nn.Conv2d(1, 1, 3), first, Branches(merge, short, down), nn.MaxPool2d(2, 1), nn.Conv2d(two, 1, 1)]


def impulses(network: nn.Module, side: int) -> dict[str, Tensor]:
    """Return each module's response to a side x side input with one bright pixel, for every pixel."""
    outputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda *io, name=name: outputs.update({name: io[-1].sum(1)}))
        for name, module in network.named_modules()
    ]
    with torch.no_grad():
        network(torch.eye(side * side).reshape(-1, 1, side, side))
    for handle in handles:
        handle.remove()
    return outputs


def measure_field(out: Tensor) -> tuple[list[int], list[int], list[int]]:
    """Return the extent and start of the field of a layer's middle value, and the value's position."""
    side = round(len(out) ** 0.5)
    position = [size // 2 for size in out.shape[1:]]
    reached = out[:, position[0], position[1]].reshape(side, side) > 0
    extents = [reached.any(axis).nonzero() for axis in (1, 0)]
    assert all(extent[0] > 0 and extent[-1] < side - 1 for extent in extents)  # not cut by a border
    size = [int(extent[-1] - extent[0]) + 1 for extent in extents]
    return size, [int(extent[0]) for extent in extents], position


def make_positive(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0 if parameter.ndim > 1 else 0.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return network.eval()


def assert_fields_as_measured(network: nn.Module, side: int) -> None:
    """The field of each module has the extent and the start that are measured."""
    out = impulses(make_positive(network), side)
    checked = 0
    for layer in list_layers(network, (1, side, side)):
        if layer["name"] != layer["module"] or layer["receptive_field"] is None:
            continue
        checked += 1
        size, start, position = measure_field(out[layer["name"]])
        assert layer["receptive_field"] == size, layer["name"]
        expected = [first + i * step for first, i, step in zip(
            layer["receptive_start"], position, layer["receptive_step"], strict=True
        )]  # fmt: skip
        assert expected == start, layer["name"]
    assert checked > 2


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name: str) -> None:
    assert_fields_as_measured(nn.Sequential(*CHAINS[name]), 36)


@pytest.mark.parametrize("merge", ["added", "in place", "concatenated", "multiplied"])
def test_branches_with_different_receptive_fields(merge: str) -> None:
    network = nn.Sequential(*make_branching_network(merge))
    if merge == "multiplied":  # impulses never meet in a product: its field is that of the sum
        layers = list_layers(network, (1, 40, 36))
        expected = list_layers(nn.Sequential(*make_branching_network("added")), (1, 40, 36))
        assert [x["receptive_field"] for x in layers] == [x["receptive_field"] for x in expected]
    else:
        assert_fields_as_measured(network, 36)


def get_receptive_fields(network: nn.Module, side: int) -> dict[str, Any]:
    return {layer["name"]: layer["receptive_field"] for layer in list_layers(network, (3, side, side))}


def test_resnet50() -> None:
    """Computed by hand: a stage's first 3x3 adds two jumps of the stage before, the others two of its own.

    That makes 427; the 483 often quoted are TensorFlow's, which halves in a stage's last block.
    """
    receptive_fields = get_receptive_fields(torchvision.models.resnet50(), 64)
    expected = {"conv1": 7, "maxpool": 11, "layer1.2/add": 11 + 3 * 8, "layer2.3.conv3": 35 + 8 + 3 * 16}
    expected |= {"layer3.5/add": 91 + 16 + 5 * 32, "layer4.2.relu:3": 267 + 32 + 2 * 64, "fc": 64}
    assert {name: receptive_fields[name] for name in expected} == {
        name: [n, n] for name, n in expected.items()
    }


def test_known_networks() -> None:
    """Araujo, Norris & Sim, Computing receptive fields of convolutional neural networks, Distill 2019."""
    assert get_receptive_fields(torchvision.models.alexnet().features, 64)["12"] == [195, 195]
    assert get_receptive_fields(torchvision.models.vgg16().features, 32)["30"] == [212, 212]


# Against the pixels that change a value, measured by other pixels in each row and in each column.


class SamePadding(nn.Conv2d):
    """Pads by as much as its input's size needs, more at the far side, as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        totals = [
            max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, s, d, k in zip(x.shape[2:], self.stride, self.dilation, self.kernel_size, strict=True)
        ]
        sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride, 0, self.dilation)


class Own(nn.Module):
    """A leaf that applies a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def blur(x: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, [1] * 4, "reflect"), torch.rand(4, 1, 3, 3).to(x), stride=2, groups=4)


def normalise_channels(x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)


def attend(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(x.shape)


def mix_channels_last(x: Tensor) -> Tensor:
    return F.linear(x.movedim(1, 3), torch.rand(4, 4).to(x)).movedim(3, 1)


def write_into_canvas(x: Tensor) -> Tensor:
    canvas = x.new_zeros(x.shape[0], 4, x.shape[2] + 3, x.shape[3] + 2)
    canvas[:, :, 2:-1, 2:] = x
    return canvas


def add_to_half(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :2] += F.avg_pool2d(x, 5, 1, 2)[:, 2:]
    return x


def pad_circularly_far_inside(x: Tensor) -> Tensor:
    return F.pad(x, [1] * 4, "circular")[:, :, 2:-2, 2:-2]


down, up = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1)
KINDS: dict[str, list[nn.Module]] = {
    "strided slices": [Own(lambda x: x[:, :, ::2, 1::2])],
    "split and chunk": [Own(lambda x: x.chunk(2, 1)[1] * x.split([2, 2], 1)[0]), nn.Conv2d(2, 4, 1)],
    "rows of a split": [Own(lambda x: x.split([5, 5, x.shape[2] - 10], 2)[1])],
    "layer norm of channels": [Own(normalise_channels)],
    "layer scale": [Own(lambda x: x + 0.1 * torch.ones(4, 1, 1).to(x) * F.avg_pool2d(x, 3, 1, 1))],
    "nearest upsampling": [down, nn.Upsample(scale_factor=2)],
    "bilinear upsampling": [down, nn.Upsample(scale_factor=2, mode="bilinear")],
    "aligned bilinear upsampling": [down, nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)],
    "bicubic upsampling": [down, nn.Upsample(scale_factor=2, mode="bicubic")],
    "upsampling to a size": [down, Own(lambda x: F.interpolate(x, size=(20, 20)))],
    "transposed convolution": [down, up],
    "transposed convolution with gaps": [down, nn.ConvTranspose2d(4, 4, 1, stride=2)],
    "constant padding": [nn.ConstantPad2d((1, 2, 0, 3), 0.5)],
    "padding of channels": [Own(lambda x: F.pad(x, (0, 0, 0, 0, 2, 2))[:, 1:5])],
    "same padding": [SamePadding(4, 4, 3, stride=2), SamePadding(4, 4, (2, 5), dilation=2)],
    "blur pool": [Own(blur)],
    "pixels to channels and back": [nn.PixelUnshuffle(2), nn.Conv2d(16, 16, 3), nn.PixelShuffle(2)],
    "shuffled channels": [nn.ChannelShuffle(2)],
    "windows unfolded": [Own(lambda x: x.unfold(2, 2, 2).unfold(3, 3, 2).amax((-1, -2)))],
    "channels last": [Own(mix_channels_last)],
    "a write into a canvas": [Own(write_into_canvas)],
    "an addition in place": [Own(add_to_half)],
    "circular padding cut off": [Own(pad_circularly_far_inside)],
    "one row repeated": [down, Own(lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3))],
    "grouped convolution of joined branches": [
        Own(lambda x: torch.cat([x, F.max_pool2d(x, 5, 1, 2)], 1)),
        nn.Conv2d(8, 4, 3, groups=2),
    ],
}
GLOBAL_KINDS: dict[str, list[nn.Module]] = {
    "squeeze and excitation": [Own(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid())],
    "response normalisation": [Own(lambda x: x / x.norm(dim=(2, 3), keepdim=True))],
    "group norm": [nn.GroupNorm(2, 4)],
    "attention": [Own(attend)],
    "multi-head attention": [Own(lambda x: x.flatten(2).mT), MultiHead(4), Own(lambda x: x.mT[..., None])],
    "a product of maps": [Own(lambda x: x @ x)],
}


def measure_changes(network: nn.Module, x: Tensor, axis: int) -> Tensor:
    """Return whether other pixels in row (or column) s change each row of the output: (s, rows)."""
    batch = x.repeat(1 + x.shape[axis], 1, 1, 1)
    for n in range(x.shape[axis]):
        pixels = batch[n + 1].select(axis - 1, n)
        pixels.copy_(3 * torch.randn(pixels.shape).to(x))
    with torch.no_grad():
        out = network(batch)
    return (out[1:] != out[:1]).movedim(axis, 1).flatten(2).any(2)


def make_double_network(modules: list[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *modules, nn.Conv2d(4, 4, 3, padding=1))
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network.double().eval()


@pytest.mark.parametrize("name", KINDS)
def test_the_field_is_that_measured_by_changing_pixels(name: str) -> None:
    """No value depends on a pixel beyond its field, and one that no border cuts on the first and the last."""
    network, x = make_double_network(KINDS[name]), torch.randn(1, 3, 40, 40).double()
    if name == "upsampling to a size":
        x = x[:, :, :20, :20]
    *_, last = list_layers(network, tuple(x.shape[1:]))
    corners = list(zip(last["receptive_start"], last["receptive_step"], last["receptive_field"], strict=True))
    for axis, (start, step, size) in enumerate(corners, 2):
        changes = measure_changes(network, x, axis)
        reached = []
        for n in range(changes.shape[1]):
            pixels = changes[:, n].nonzero() - start - n * step
            if not len(pixels):  # all of it in padding
                continue
            assert 0 <= pixels.min() <= pixels.max() < size
            reached.append((int(pixels.min()), int(pixels.max())))
        assert min(reached)[0] == 0
        assert max(last for _, last in reached) == size - 1


@pytest.mark.parametrize("name", GLOBAL_KINDS)
def test_the_field_is_the_whole_image(name: str) -> None:
    network, x = make_double_network(GLOBAL_KINDS[name]), torch.randn(1, 3, 12, 12).double()
    last = [layer for layer in list_layers(network, (3, 12, 12)) if layer["called"]][-1]
    assert [last["receptive_field"], last["receptive_start"]] == [[12, 12], None]
    assert all(measure_changes(network, x, axis).all() for axis in (2, 3))


def test_the_field_is_known_in_inference_mode() -> None:
    class Inference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode():
                return F.linear(self.norm(self.conv(x)).movedim(1, 3), torch.rand(2, 4)).movedim(3, 1)

    *_, last = list_layers(Inference().eval(), (3, 8, 8))
    assert last["receptive_field"] == [3, 3]


def test_the_field_of_a_map_of_one_value_grows_with_padding() -> None:
    """As in a ConvNeXt on small images; nothing but the step tells how far the padding reaches."""
    modules = [nn.Conv2d(3, 4, 8, stride=8), Own(mix_channels_last), nn.Conv2d(4, 4, 3, padding=1)]
    for side in (8, 32):
        *_, last = list_layers(nn.Sequential(*modules), (3, side, side))
        assert [last["receptive_field"], last["receptive_start"]] == [[24, 24], [-8, -8]]


# Where the field is not known, it is None.


class Shift(nn.Module):
    """A leaf that depends on neighbours, and at a border on the opposite one."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.roll(3, -1)


@pytest.mark.parametrize(
    "module",
    [nn.PixelUnshuffle(2), nn.Upsample(scale_factor=2), Shift(), *map(nn.AdaptiveAvgPool2d, (6, 9))],
    ids=repr,
)
def test_after_a_layer_of_another_kind_the_field_is_right_or_none(module: nn.Module) -> None:
    conv = nn.LazyConv2d(1, 3)
    network = nn.Sequential(nn.Conv2d(1, 1, 3), module, conv)
    network(torch.zeros(1, 1, 20, 20))
    out = impulses(make_positive(network), 20)
    *_, last = list_layers(network, (1, 20, 20))
    assert last["receptive_field"] in (None, measure_field(out["2"])[0])


class ConvThen(nn.Module):
    """A convolution, then any function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.conv, self.last = function, nn.Conv2d(3, 3, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.conv(x)))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x + x.roll(2, -1), None),
        (lambda x: x + x.flip(-1), None),
        (lambda x: torch.cat([x, x], 2), [3, 3]),
        (lambda x: x.mT, [3, 3]),
        (lambda x: x.reshape(1, 1, 18, 6), [3, 3]),
        (lambda x: x @ x, [8, 8]),
        (lambda x: x + torch.ones(3, 1, 1), [3, 3]),
        (lambda x: x.view(1, 3, 1, 6, 6).squeeze(2), [3, 3]),
        (lambda x: x.mean(1, keepdim=True), [3, 3]),
        (lambda x: x * x.mean((2, 3), keepdim=True), [8, 8]),
        (lambda x: F.adaptive_avg_pool2d(x, 1), [8, 8]),
        (lambda x: F.avg_pool2d(x, 2), [4, 4]),
        (lambda x: F.conv1d(x.flatten(2), torch.ones(1, 3, 3)), None),
        (lambda x: F.linear(x.flatten(1), torch.ones(2, 108)), [8, 8]),
    ],
)
def test_functions(function: Any, expected: list[int] | None) -> None:
    assert get_receptive_fields(ConvThen(function), 8)["last"] == expected


def conv(kernel: int, padding: int, mode: str) -> nn.Conv2d:
    return nn.Conv2d(1, 1, kernel, padding=padding, padding_mode=mode)


@pytest.mark.parametrize(
    ("first", "known"),
    [
        (conv(3, 1, "circular"), False),
        (conv(5, 2, "reflect"), True),
        (conv(4, 2, "reflect"), True),
        (conv(2, 3, "replicate"), False),
        (conv(5, 2, "replicate"), True),
        (nn.LPPool2d(2, 3), True),
        (nn.FractionalMaxPool2d(2, output_size=7), False),
        (nn.GLU(2), True),
        (ConvThen(lambda x: F.avg_pool2d(torch.stack([x, x], 2).flatten(2, 3), 3)), False),
    ],
    ids=repr,
)
def test_no_value_depends_on_a_pixel_beyond_its_field(first: nn.Module, known: bool) -> None:
    """At every position, also at borders, where some paddings copy pixels from elsewhere."""
    if isinstance(first, ConvThen):
        first.conv = nn.Conv2d(1, 1, 3)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), first, nn.Conv2d(1, 1, 1)).eval()
    *_, last = list_layers(network, (1, 16, 16))
    assert (last["receptive_field"] is not None) == known
    if not known:
        return
    x = torch.rand(1, 1, 16, 16, requires_grad=True)
    out = network(x)
    corners = list(zip(last["receptive_start"], last["receptive_step"], last["receptive_field"], strict=True))
    for position in torch.cartesian_prod(*map(torch.arange, out.shape[2:])).tolist():
        (reached,) = torch.autograd.grad(out[0, 0, *position], x, retain_graph=True)
        for axis, (start, step, size) in enumerate(corners):
            first_pixel = start + step * position[axis]
            pixels = reached[0, 0].abs().amax(1 - axis).nonzero()
            assert first_pixel <= pixels.min() <= pixels.max() < first_pixel + size


def test_the_field_of_a_normalisation_by_batch_statistics_is_the_whole_image() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1, track_running_stats=False)).eval()
    assert list_layers(network, (1, 16, 16))[-1]["receptive_field"] == [16, 16]
