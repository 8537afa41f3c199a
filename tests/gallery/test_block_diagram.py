"""The diagrams of blocks: which there are, their nodes and words, and the ends of their edges."""

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


def draw(
    network: nn.Module, side: int, blocks: tuple[str, ...] = (), channels: int = 3
) -> list[BlockDiagram]:
    layers = list_layers(network.eval(), (channels, side, side), blocks=blocks)
    return draw_blocks(json.loads(json.dumps(layers)))


def read_texts(diagram: BlockDiagram) -> list[list[str]]:
    return [[text.text for text in node.texts] for node in diagram.nodes]


UNET = sd_unet(4)


def test_sd_unet_has_three_blocks_and_a_diagram_of_the_network() -> None:
    network, attention, down, pyramid = draw(UNET, 160)
    assert (network.title, network.name, network.similar_blocks) == ("Full network", "", [])
    assert (attention.name, attention.similar_blocks) == (
        "encoder.0",
        [*(f"encoder.{n}" for n in range(1, 5)), *(f"decoder.{n}" for n in range(4))],
    )
    assert (down.name, down.similar_blocks) == ("downs.0", ["downs.1", "downs.2", "downs.3"])
    assert (pyramid.title, pyramid.name, pyramid.similar_blocks) == ("Pyramid", "pyramid", [])
    assert "encoder.1, encoder.2, encoder.3, encoder.4, decoder.0, decoder.1 and 2 more" in attention.caption


def test_squeeze_and_attention_is_drawn_as_its_formula() -> None:
    attention = draw(UNET, 160)[1]
    assert read_texts(attention) == [
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


def test_the_pyramid_shows_dilations_and_notes() -> None:
    pyramid = draw(UNET, 160)[3]
    assert ["atrous18", "conv 3 × 3 d18 → norm → LeakyReLU", "32 × 10 × 10"] in read_texts(pyramid)
    assert pyramid.caption.endswith("d = dilation.")
    assert [note.split(":")[0] for note in pyramid.notes] == [
        "pyramid.atrous12.conv",
        "pyramid.atrous18.conv",
    ]
    assert not any(diagram.notes for diagram in draw(UNET, 160)[:3])


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
def test_blocks_of_one_structure_are_drawn_once(
    name: str, side: int, expected: list[tuple[str, str, int]]
) -> None:
    network = torchvision.models.get_model(name, weights=None)
    assert [(d.title, d.name, len(d.similar_blocks)) for d in draw(network, side)] == expected


def test_the_blocks_of_a_residual_network() -> None:
    plain, halving = draw(torchvision.models.resnet18(), 64)
    names = ["conv1", "bn1", "relu", "conv2", "bn2", "+", "relu:2", "output"]
    assert [texts[0] for texts in read_texts(plain)] == ["input", *names]
    assert read_texts(plain)[0] == ["input", "from maxpool", "64 × 16 × 16"]
    assert ["downsample", "conv 1 × 1 s2 → norm", "128 × 8 × 8"] in read_texts(halving)
    assert "+ 64 × 16 × 16, from bn2 64 × 16 × 16 and input 64 × 16 × 16" in plain.description


def test_recorded_composite_modules_change_nothing() -> None:
    network = torchvision.models.resnet18()
    assert draw(network, 64) == draw(network, 64, ("layer1", "layer2.0"))


def test_a_chain_and_layers_without_known_inputs_have_no_diagram() -> None:
    assert draw(lenet5(), 28, channels=1) == []
    layers = list_layers(UNET, (3, 64, 64))
    assert draw_blocks([{k: v for k, v in layer.items() if k != "inputs"} for layer in layers]) == []


def test_a_functional_network_and_several_inputs_and_outputs() -> None:
    class TwoBranches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.relu(self.a(x))
            return x, torch.cat([x, self.b(y)], 1)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.two = nn.Conv2d(3, 3, 1), TwoBranches()

        def forward(self, x: Tensor) -> Tensor:
            x, y = self.two(self.stem(x), x)
            return x.mean() + y

    diagram = draw(Network(), 8)[-1]
    texts = read_texts(diagram)
    assert texts[:2] == [["input", "from stem", "3 × 8 × 8"], ["input", "3 × 8 × 8"]]
    assert ["relu", "4 × 8 × 8"] in texts
    assert ["cat", "8 × 8 × 8"] in texts
    assert sum(text[0] == "output" for text in texts) == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["inception_v3", "densenet121", "mobilenet_v3_large", "swin_t", "sd_unet"])
def test_nodes_do_not_overlap_and_edges_join_them(name: str) -> None:
    network = UNET if name == "sd_unet" else torchvision.models.get_model(name, weights=None)
    for diagram in draw(network, 128):
        for n, node in enumerate(diagram.nodes):
            assert node.x >= 0 and node.x + node.width <= diagram.width
            assert node.y >= 0 and node.y + node.height <= diagram.height
            for other in diagram.nodes[:n]:
                is_beside = node.x >= other.x + other.width or other.x >= node.x + node.width
                assert is_beside or node.y >= other.y + other.height or other.y >= node.y + node.height
        for line, head in zip(diagram.edge_paths, diagram.arrow_paths, strict=True):
            start, end = parse_numbers(line)[:2], parse_numbers(head)[:2]
            end = [end[0] + 3.5, end[1] + 6]
            assert any(touches_edge(node, start, node.height) for node in diagram.nodes)
            assert any(touches_edge(node, end, 0) for node in diagram.nodes)


def parse_numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", path)]


def touches_edge(node: Any, point: list[float], y_offset: float) -> bool:
    """Return whether a point is on the upper (0) or lower edge of a node; that of a merge is round."""
    tolerance = 14 if node.kind == "merge" and not y_offset else 0.2
    return node.x <= point[0] <= node.x + node.width and abs(node.y + y_offset - point[1]) <= tolerance


# The layout


def test_rows_follow_the_longest_path_and_floating_sources_are_above_their_first_target() -> None:
    boxes = [Box(10, 10, 20)] * 5
    layout = layout_graph(boxes, [(0, 1), (1, 2), (0, 3), (2, 3), (4, 3)], floating_sources=[0, 4])
    tops = [y for _, y in layout.positions]
    assert tops[0] < tops[1] < tops[2] < tops[3]
    assert tops[4] == tops[2]


def test_an_edge_that_passes_rows_is_straight_and_beside_their_nodes() -> None:
    boxes = [Box(10, 10, 20), Box(40, 40, 20), Box(40, 40, 20), Box(10, 10, 20)]
    layout = layout_graph(boxes, [(0, 1), (1, 2), (2, 3), (0, 3)])
    passed = layout.edge_routes[3][2:-2]
    assert len({round(x) for x, _ in passed}) == 1
    assert all(abs(passed[0][0] - layout.positions[n][0]) >= 40 + NODE_GAP for n in (1, 2))
    assert all(a[1] <= b[1] + 1e-9 for route in layout.edge_routes for a, b in pairwise(route))


def test_branches_do_not_cross_without_need() -> None:
    """Two chains, the second of which is listed first in its second row."""
    edges = [(0, 1), (0, 2), (2, 3), (1, 4), (3, 5), (4, 5)]
    positions = layout_graph([Box(10, 10, 20)] * 6, edges).positions
    assert (positions[1][0] < positions[2][0]) == (positions[4][0] < positions[3][0])
