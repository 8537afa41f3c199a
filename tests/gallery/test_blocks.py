"""The drawings of blocks: which there are, what is in them, and that every line ends where it should."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from convatlas.gallery.diagrams.block_diagram import BlockDiagram, draw_blocks
from convatlas.gallery.diagrams.layered_layout import NODE_GAP, Box, layout_graph
from convatlas.models.architectures.lenet5 import lenet5
from convatlas.models.architectures.sd_unet import sd_unet
from convatlas.tracing.layers import list_layers


def drawn(
    network: nn.Module, side: int, blocks: tuple[str, ...] = (), channels: int = 3
) -> list[BlockDiagram]:
    layers = list_layers(network.eval(), (channels, side, side), blocks=blocks)
    return draw_blocks(json.loads(json.dumps(layers)))


def said(drawing: BlockDiagram) -> list[list[str]]:
    return [[text.text for text in node.texts] for node in drawing.nodes]


UNET = sd_unet(4)


def test_sd_unet_has_three_blocks_and_a_whole() -> None:
    whole, attention, down, pyramid = drawn(UNET, 160)
    assert (whole.title, whole.name, whole.similar_blocks) == ("Full network", "", [])
    assert (attention.name, attention.similar_blocks) == (
        "encoder.0",
        [*(f"encoder.{n}" for n in range(1, 5)), *(f"decoder.{n}" for n in range(4))],
    )
    assert (down.name, down.similar_blocks) == ("downs.0", ["downs.1", "downs.2", "downs.3"])
    assert (pyramid.title, pyramid.name, pyramid.similar_blocks) == ("Pyramid", "pyramid", [])
    assert "encoder.1, encoder.2, encoder.3, encoder.4, decoder.0, decoder.1 and 2 more" in attention.caption


def test_squeeze_and_attention_is_drawn_as_its_formula() -> None:
    attention = drawn(UNET, 160)[1]
    assert said(attention) == [
        ["input", "3 × 160 × 160"],
        ["squeeze", "AvgPool2d 2 × 2", "3 × 80 × 80"],
        ["attention.0", "conv 3 × 3 → norm → LeakyReLU", "4 × 80 × 80"],
        ["main.0", "conv 3 × 3 → norm → LeakyReLU", "4 × 160 × 160"],
        ["attention.1", "conv 3 × 3 → norm → LeakyReLU", "4 × 80 × 80"],
        ["main.1", "conv 3 × 3 → norm → LeakyReLU", "4 × 160 × 160"],
        ["expand", "Upsample", "4 × 160 × 160"],
        ["×", "4 × 160 × 160"],
        ["+", "4 × 160 × 160"],
        ["output", "4 × 160 × 160"],
    ]
    wide = "4 × 160 × 160"
    assert f"× {wide}, from expand {wide} and main.1 {wide}" in attention.description
    assert f"+ {wide}, from × {wide} and expand {wide}" in attention.description


def test_the_pyramid_tells_dilations_and_what_they_cannot_show() -> None:
    pyramid = drawn(UNET, 160)[3]
    assert ["atrous18", "conv 3 × 3 d18 → norm → LeakyReLU", "32 × 10 × 10"] in said(pyramid)
    assert pyramid.caption.endswith("d = dilation.")
    assert [note.split(":")[0] for note in pyramid.notes] == [
        "pyramid.atrous12.conv",
        "pyramid.atrous18.conv",
    ]
    assert not any(drawing.notes for drawing in drawn(UNET, 160)[:3])


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("resnet18", 64, [("BasicBlock", "layer1.0", 4), ("BasicBlock", "layer2.0", 2)]),
        ("googlenet", 64, [("Inception", "inception3a", 8)]),
        ("squeezenet1_0", 64, [("Fire", "features.3", 7)]),
        ("vgg16", 64, []),
        ("vit_b_16", 224, [("EncoderBlock", "encoder.layers.encoder_layer_0", 11)]),
        ("densenet121", 64, [("_DenseBlock", "features.denseblock1", 0)]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_blocks_of_a_kind_are_drawn_once(name: str, side: int, expected: list[tuple[str, str, int]]) -> None:
    network = torchvision.models.get_model(name, weights=None)
    assert [(d.title, d.name, len(d.similar_blocks)) for d in drawn(network, side)] == expected


def test_the_blocks_of_a_residual_network() -> None:
    plain, halving = drawn(torchvision.models.resnet18(), 64)
    names = ["conv1", "bn1", "relu", "conv2", "bn2", "+", "relu:2", "output"]
    assert [texts[0] for texts in said(plain)] == ["input", *names]
    assert said(plain)[0] == ["input", "from maxpool", "64 × 16 × 16"]
    assert ["downsample", "conv 1 × 1 s2 → norm", "128 × 8 × 8"] in said(halving)
    assert "+ 64 × 16 × 16, from bn2 64 × 16 × 16 and input 64 × 16 × 16" in plain.description


def test_blocks_asked_for_change_nothing() -> None:
    network = torchvision.models.resnet18()
    assert drawn(network, 64) == drawn(network, 64, ("layer1", "layer2.0"))


def test_a_chain_has_no_drawing_and_neither_have_layers_of_unknown_inputs() -> None:
    assert drawn(lenet5(), 28, channels=1) == []
    layers = list_layers(UNET, (3, 64, 64))
    assert draw_blocks([{k: v for k, v in layer.items() if k != "inputs"} for layer in layers]) == []


def test_a_functional_network_and_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.relu(self.a(x))
            return x, torch.cat([x, self.b(y)], 1)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.two = nn.Conv2d(3, 3, 1), Two()

        def forward(self, x: Tensor) -> Tensor:
            x, y = self.two(self.stem(x), x)
            return x.mean() + y

    drawing = drawn(Whole(), 8)[-1]
    texts = said(drawing)
    assert texts[:2] == [["input", "from stem", "3 × 8 × 8"], ["input", "3 × 8 × 8"]]
    assert ["relu", "4 × 8 × 8"] in texts
    assert ["cat", "8 × 8 × 8"] in texts
    assert sum(text[0] == "output" for text in texts) == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["inception_v3", "densenet121", "mobilenet_v3_large", "swin_t", "sd_unet"])
def test_nodes_do_not_overlap_and_lines_join_them(name: str) -> None:
    network = UNET if name == "sd_unet" else torchvision.models.get_model(name, weights=None)
    for drawing in drawn(network, 128):
        for n, node in enumerate(drawing.nodes):
            assert node.x >= 0 and node.x + node.width <= drawing.width
            assert node.y >= 0 and node.y + node.height <= drawing.height
            for other in drawing.nodes[:n]:
                beside = node.x >= other.x + other.width or other.x >= node.x + node.width
                assert beside or node.y >= other.y + other.height or other.y >= node.y + node.height
        for line, head in zip(drawing.edge_paths, drawing.arrow_paths, strict=True):
            start, end = numbers(line)[:2], numbers(head)[:2]
            end = [end[0] + 3.5, end[1] + 6]
            assert any(touches(node, start, node.height) for node in drawing.nodes)
            assert any(touches(node, end, 0) for node in drawing.nodes)


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", path)]


def touches(node: Any, point: list[float], at: float) -> bool:
    """Whether a point is on a node's upper (0) or lower edge; that of a round one bends."""
    slack = 14 if node.kind == "merge" and not at else 0.2
    return node.x <= point[0] <= node.x + node.width and abs(node.y + at - point[1]) <= slack


# The layout.


def test_rows_follow_the_longest_path_and_late_nodes_the_first_that_they_lead_to() -> None:
    boxes = [Box(10, 10, 20)] * 5
    layout = layout_graph(boxes, [(0, 1), (1, 2), (0, 3), (2, 3), (4, 3)], floating_sources=[0, 4])
    tops = [y for _, y in layout.positions]
    assert tops[0] < tops[1] < tops[2] < tops[3]
    assert tops[4] == tops[2]


def test_a_line_that_passes_rows_is_straight_and_beside_what_it_passes() -> None:
    boxes = [Box(10, 10, 20), Box(40, 40, 20), Box(40, 40, 20), Box(10, 10, 20)]
    layout = layout_graph(boxes, [(0, 1), (1, 2), (2, 3), (0, 3)])
    passing = layout.edge_routes[3][2:-2]
    assert len({round(x) for x, _ in passing}) == 1
    assert all(abs(passing[0][0] - layout.positions[n][0]) >= 40 + NODE_GAP for n in (1, 2))
    assert all(a[1] <= b[1] + 1e-9 for way in layout.edge_routes for a, b in pairwise(way))


def test_branches_that_need_not_cross_do_not() -> None:
    """Two chains, the second of which is listed first in its second row."""
    edges = [(0, 1), (0, 2), (2, 3), (1, 4), (3, 5), (4, 5)]
    places = layout_graph([Box(10, 10, 20)] * 6, edges).positions
    assert (places[1][0] < places[2][0]) == (places[4][0] < places[3][0])
