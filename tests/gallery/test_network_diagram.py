"""The diagrams of networks: which blocks they show, their words, and what lies where."""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from convatlas.gallery.diagrams.network_diagram import MAX_LEVEL_NODES, NetworkDiagram, draw_network
from convatlas.gallery.diagrams.picture import Picture
from convatlas.models.architectures.sd_unet import sd_unet
from convatlas.tracing.layers import list_layers
from tests.support.fake_results import make_layer, make_results

PAGE_WIDTH, PHONE_WIDTH, CARD_WIDTH = 1152, 328, 520


def draw(network: nn.Module, side: int = 64, channels: int = 3) -> NetworkDiagram:
    return draw_network(list_layers(network.eval(), (channels, side, side)))


def read_nodes(picture: Picture) -> list[tuple[str, str]]:
    return [(node.content.name, node.content.detail) for node in picture.nodes if node.content.block]


def list_pictures(diagram: NetworkDiagram) -> list[Picture]:
    levels = [level for top in diagram.levels for level in top.walk()]
    return [
        diagram.wide,
        diagram.narrow,
        diagram.compact,
        *(level.wide for level in levels),
    ]


def check_places(picture: Picture) -> None:
    """Check that nodes lie on the canvas and apart, and that no text is below another node."""
    boxes = []
    for node in picture.nodes:
        glyph = node.content.glyph
        boxes.append(
            (node.x, node.y - glyph.depth, node.x + glyph.width + glyph.depth, node.y + glyph.height)
        )
    for n, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and top >= 0 and right <= picture.width and bottom <= picture.height
        for other in boxes[:n]:
            is_beside = left >= other[2] or other[0] >= right
            assert is_beside or top >= other[3] or other[1] >= bottom
    for node in picture.nodes:
        for text in node.texts:
            assert 0 <= text.y <= picture.height
            assert not any(x0 < text.x < x1 and y0 < text.y - 4 < y1 for x0, y0, x1, y1 in boxes)


# Encoders and decoders


class Net(nn.Module):
    """Four resolutions in a module each, whose names say nothing."""

    def __init__(self, joins: str) -> None:
        super().__init__()
        self.joins = joins
        self.a, self.b, self.c, self.d = (nn.Conv2d(8 if n else 3, 8, 3, padding=1) for n in range(4))
        self.e, self.f, self.g = (nn.Conv2d(16 if joins == "cat" else 8, 8, 3, padding=1) for _ in range(3))
        self.up, self.down = nn.Upsample(scale_factor=2), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        one = self.a(x)
        two = self.b(self.down(one))
        three = self.c(self.down(two))
        x = self.d(self.down(three))
        for skip, layer in ((three, self.e), (two, self.f), (one, self.g)):
            x = self.up(x)
            if self.joins:
                x = torch.cat([x, skip], 1) if self.joins == "cat" else x + skip
            x = layer(x)
        return x


class Nested(nn.Module):
    """A level within a level, as MONAI builds U-Nets."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4 if depth == 1 else 8, 4, 2, stride=2)
        self.inner = Nested(depth - 1) if depth > 1 else nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.up(self.inner(self.down(x)))], 1)


@pytest.mark.parametrize("joins", ["cat", "add"])
def test_an_encoder_with_a_decoder_is_a_u(joins: str) -> None:
    diagram = draw(Net(joins))
    assert diagram.is_encoder_decoder
    for picture in (diagram.wide, diagram.compact):
        tops = [node.y + node.content.glyph.height / 2 for node in picture.nodes]
        blocks = tops[1:-1]
        assert blocks[:4] == sorted(set(blocks[:4])) and blocks[3:] == sorted(set(blocks[3:]), reverse=True)
        assert [round(value) for value in blocks] == [round(value) for value in blocks[::-1]]
        assert len(picture.skips) == 3
    assert [text.text for text in diagram.wide.texts] == [joins] * 3
    assert [node.content.shape.split(" × ")[1] for node in diagram.wide.nodes[1:-1]] == [
        *("64", "32", "16", "8"),
        *("16", "32", "64"),
    ]
    for picture in list_pictures(diagram):
        check_places(picture)


def test_a_nested_u_is_a_u() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Nested(3), nn.Conv2d(8, 2, 1))
    diagram = draw(network)
    assert diagram.is_encoder_decoder and len(diagram.wide.skips) == 3


def test_the_u_of_sd_unet_has_its_names() -> None:
    diagram = draw(sd_unet(2))
    assert [name for name, _ in read_nodes(diagram.wide)] == [
        *(f"encoder.{n}" for n in range(4)),
        "pyramid",
        *(f"decoder.{n}" for n in range(4)),
    ]
    assert len(diagram.wide.skips) == len(diagram.narrow.skips) == 4
    assert diagram.narrow.width <= PHONE_WIDTH


def test_an_autoencoder_and_squeeze_and_excitation_are_no_u() -> None:
    assert not draw(Net("")).is_encoder_decoder
    assert not draw(torchvision.models.mobilenet_v3_small(weights=None)).is_encoder_decoder


# Folding

TOP = {
    "resnet18": [
        *(("conv1", "conv 7 × 7, stride 2"), ("maxpool", "max pool 3 × 3, stride 2")),
        *((f"layer{n}", "2 × BasicBlock") for n in range(1, 5)),
        *(("avgpool", "global avg pool"), ("fc", "linear")),
    ],
    "squeezenet1_1": [
        *(("conv 0", "conv 3 × 3, stride 2"), ("max pool 2", "max pool 3 × 3, stride 2")),
        *(("Fire 3–4", "2 × Fire"), ("max pool 5", "max pool 3 × 3, stride 2")),
        *(("Fire 6–7", "2 × Fire"), ("max pool 8", "max pool 3 × 3, stride 2")),
        *(("Fire 9–12", "4 × Fire"), ("classifier", "conv, 3 more layers")),
    ],
    "googlenet": [("inception3a–3b", "2 × Inception"), ("inception4a–4e", "5 × Inception")],
    "densenet121": [("denseblock1", "DenseBlock"), ("transition3", "Transition")],
    "mobilenet_v2": [("features 4–6", "3 × InvertedResidual")],
    "vgg16": [("conv 24–28", "3 × conv"), ("classifier", "3 × linear")],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TOP)
def test_networks_fit_the_page_the_phone_and_the_card(name: str) -> None:
    diagram = draw(torchvision.models.get_model(name, weights=None), 96)
    nodes = read_nodes(diagram.wide)
    assert set(TOP[name]) <= set(nodes) and len(nodes) <= 12
    if len(TOP[name]) > 3:
        assert nodes == TOP[name]
    assert diagram.wide.width <= 1.04 * PAGE_WIDTH  # text of 12 pixels remains legible
    assert diagram.narrow.width <= PHONE_WIDTH and diagram.compact.width <= 1.15 * CARD_WIDTH
    shown = [
        layer["name"]
        for node in diagram.wide.nodes
        if node.content.block
        for layer in node.content.block.layers
    ]
    assert len(set(shown)) == len(shown) > 20
    for picture in list_pictures(diagram):
        check_places(picture)


def test_the_inside_of_a_block_shows_its_residual_and_layers() -> None:
    diagram = draw(torchvision.models.resnet18(weights=None))
    levels = {level.anchor: level for top in diagram.levels for level in top.walk()}
    assert {"block-conv1", "block-layer1", "block-layer1.0", "block-layer2.0"} <= set(levels)
    (first,) = [level for level in diagram.levels if level.anchor == "block-layer1"]
    assert [level.anchor for level in first.levels] == ["block-layer1.0", "block-layer1.1"]
    halving = levels["block-layer2.0"]
    assert [node.content.sign or node.content.name for node in halving.wide.nodes] == [
        *("input", "conv1", "conv2", "downsample", "+"),
    ]
    assert "+ from conv2 and downsample" in halving.description
    assert "+ from input and conv2" in levels["block-layer1.0"].description
    assert halving.wide.nodes[0].content.detail == "from layer1.1.relu:2"
    nodes = {node.content.name: node.content for node in diagram.wide.nodes}
    assert nodes["layer2"].anchor == "block-layer2" and nodes["maxpool"].anchor == ""
    assert "layers" in nodes["layer2"].tooltip and "parameters" in nodes["layer2"].tooltip


# Any graph


def make_chain(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Return a chain of convolutions and activations without modules."""
    names = [f"layer{n}" for n in range(count)]
    kinds = [("conv", "activation")[n % 2] for n in range(count)]
    shape = (8, 32, 32)
    return [
        make_layer(name, kind, shape, shape, inputs=[source], within=[], **fields)
        for name, kind, source in zip(names, kinds, ["input", *names], strict=False)
    ]


def make_dense(blocks: int, layers: int) -> list[dict[str, Any]]:
    """Return blocks of layers, each of which reads all layers before it in its block."""
    result: list[dict[str, Any]] = []
    sources = ["input"]
    for block in range(blocks):
        shape = (8 + block, 64 >> block, 64 >> block)
        for n in range(layers):
            module = f"block{block}.layer{n}"
            within = ["Block", "Layer"]
            cat = make_layer(f"{module}/cat", "merge", shape, shape, inputs=list(sources), within=within)
            cat["module"] = module
            conv = make_layer(f"{module}.conv", "conv", shape, shape, inputs=[cat["name"]], within=within)
            result += [cat, conv]
            sources.append(conv["name"])
        sources = sources[-1:]
    return result


@pytest.mark.parametrize("layers", [make_chain(1000), make_dense(5, 100)], ids=["chain", "dense"])
def test_a_thousand_layers_are_drawn_fast_and_in_few_nodes(layers: Sequence[Any]) -> None:
    start = time.process_time()
    diagram = draw_network(layers)
    assert time.process_time() - start < 8  # two seconds on a quiet machine
    levels = [level for top in diagram.levels for level in top.walk()]
    assert sum(len(level.wide.nodes) for level in levels) <= 1.5 * MAX_LEVEL_NODES
    assert all(len(picture.nodes) <= 15 for picture in list_pictures(diagram))
    assert diagram.wide.width <= 1.04 * PAGE_WIDTH


def test_layers_without_known_inputs_are_a_chain() -> None:
    layers = make_chain(6)
    for layer in layers:
        del layer["inputs"], layer["within"]
    diagram = draw_network([*layers, make_layer("aux", "conv", (), (), called=False)])
    assert [name for name, _ in read_nodes(diagram.wide)] == ["layer0", "layer2", "layer4"]
    assert len(diagram.wide.arrows) == 4


def test_several_inputs_and_outputs_vectors_signals_and_volumes() -> None:
    names = ["x", "y", "z", "u", "v"]
    shapes = {"x": (8, 400), "y": (8, 400), "z": (16, 400), "u": (3,), "v": (1,)}
    inputs = {"x": ["input"], "y": ["input 2"], "z": ["x", "y"], "u": ["z"], "v": ["z"]}
    layers = [
        make_layer(name, "merge" if name == "z" else "conv", (2, 400), shapes[name], inputs=inputs[name])
        for name in names
    ]
    diagram = draw_network(layers)
    labels = [node.content.name for node in diagram.wide.nodes]
    assert labels == ["input", "input 2", *names, "output 1", "output 2"]
    signal = diagram.wide.nodes[2].content.glyph
    assert signal.width > 3 * signal.height
    check_places(diagram.wide)
    volume = draw_network([make_layer("conv", "conv", (1, 8, 16, 16), (4, 8, 16, 16), inputs=["input"])])
    assert volume.wide.nodes[1].content.glyph.sheets == 2


def test_the_layers_of_the_fake_results_are_drawn_the_same_each_time() -> None:
    layers = make_results().layers
    first, second = draw_network(layers), draw_network(layers)
    for one, other in zip(list_pictures(first), list_pictures(second), strict=True):
        assert (one.lines, one.arrows, one.width) == (other.lines, other.arrows, other.width)
    shown = [
        layer["name"]
        for node in first.wide.nodes
        if node.content.block
        for layer in node.content.block.layers
    ]
    assert shown == [layer["name"] for layer in layers if layer["called"]]


def test_arrows_lead_to_the_right_in_wide_diagrams_and_down_in_narrow_ones() -> None:
    diagram = draw(torchvision.models.resnet18(weights=None))
    for start, end in pairwise(diagram.wide.nodes):
        assert start.x < end.x
    for start, end in pairwise(diagram.narrow.nodes):
        assert start.y < end.y
