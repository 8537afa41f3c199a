"""The drawing of a network: its stages, and where they lie."""

import itertools
import random
from typing import Any

import pytest
import torchvision

from convatlas.gallery.diagrams.network_diagram import STAGE_GAP, draw_network
from convatlas.models.architectures.sd_unet import sd_unet
from convatlas.tracing.layers import list_layers
from tests.support.fake_results import make_layer, make_results


def chain(shapes: list[list[int]]) -> list[dict[str, Any]]:
    pairs = itertools.pairwise(shapes)
    return [make_layer(f"layer{n}", "conv", tuple(a), tuple(b)) for n, (a, b) in enumerate(pairs)]


@pytest.mark.parametrize("seed", range(8))
def test_blocks_do_not_overlap_and_are_as_high_as_their_maps(seed: int) -> None:
    rng = random.Random(seed)
    sides = [rng.choice((1, 2, 7, 28, 100, 224)) for _ in range(12)]
    layers = chain([[rng.randint(1, 2048), side, side] for side in sides] + [[1000], [10]])
    drawing = draw_network([*layers, make_layer("aux", "conv", (), (), called=False)])
    blocks = drawing.stages
    for block, after in itertools.pairwise(blocks):
        assert block.x + block.width + STAGE_GAP <= after.x + 1e-9
    for block in blocks:
        assert block.x >= 0 and block.x + block.width <= drawing.width
        assert block.y >= 0 and block.y + block.height <= drawing.height
        assert block.y + block.height / 2 == pytest.approx(drawing.center_y)
        side = int(block.shape.split(" × ")[-1]) if "×" in block.shape else 1
        assert block.height == pytest.approx(max(5, 150 * side / max(sides)))
    widths = {int(block.shape.split()[0]): block.width for block in blocks}
    assert [widths[units] for units in sorted(widths)] == sorted(widths.values())


def test_stages_are_in_order_of_execution() -> None:
    blocks = draw_network(make_results().layers).stages
    assert [[name for name, _ in block.layers] for block in blocks] == [
        ["input"],
        ["conv1", "relu"],
        ["block/cat"],
        ["block.conv2", "relu:2", "relu_2"],
        ["pool"],
        ["flatten"],
        ["neck"],
        ["fc"],
    ]
    assert blocks[3].shape == "18 × 8 × 6" and blocks[-1].shape == "4"
    assert [block.kind for block in blocks[:3]] == ["input", "conv", "merge"]
    assert all(layers == [name] for block in blocks for name, layers in block.layers)


LARGE = {
    "resnet18": ["conv1", "layer1: 14 layers", "layer2: 16 layers", "avgpool", "fc"],
    "densenet121": ["features.conv0", "features.denseblock1: 43 layers", "features.transition1.pool", "relu"],
    "vgg16": ["features.0", "features.24", "features.29", "avgpool", "flatten", "classifier.6"],
    "vgg16_bn": ["features.14–22: 9 layers", "features.33–42: 10 layers"],
    "googlenet": ["conv1.conv", "inception3a: 20 layers", "inception5b: 20 layers", "fc"],
    "mobilenet_v3_small": ["features.0.0", "features.3: 9 layers", "features.11: 15 layers", "classifier.3"],
    "resnet50": ["bn1", "layer3: 62 layers"],
    "inception_v3": ["Mixed_5b: 23 layers"],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LARGE)
def test_large_networks_are_drawn_in_few_stages(name: str) -> None:
    """Every layer stands under exactly one name, in order of execution."""
    network = torchvision.models.get_model(name, weights=None).eval()
    side = 299 if name == "inception_v3" else 96
    layers = list_layers(network, (3, side, side))
    blocks = draw_network(layers).stages
    assert 8 <= len(blocks) <= 21
    assert max(len(block.layers) for block in blocks) <= 8
    called = [layer["name"] for layer in layers if layer["called"]]
    assert [each for block in blocks[1:] for _, stands_for in block.layers for each in stands_for] == called
    names = [each for block in blocks for each, _ in block.layers]
    assert len(set(names)) == len(names) and set(LARGE[name]) <= set(names)


def test_a_network_of_many_modules_of_many_shapes_is_drawn_in_few_stages() -> None:
    layers = chain([[3 + n % 7, 40 - n % 2, 40] for n in range(120)])
    assert len(draw_network(layers).stages) == 21


def test_connections_past_other_stages_are_drawn_above_them() -> None:
    """SD-UNet's four, each within the one before; a ResNet's stay within their stages."""
    layers = list_layers(sd_unet(2), (3, 64, 64))
    drawing = draw_network(layers)
    ends = [[block.layers[0][0] for block in (skip.start, skip.end)] for skip in drawing.skips]
    assert [start.partition(":")[0] for start, _ in ends] == [f"encoder.{n}" for n in range(4)]
    starts, stops = ([getattr(skip, end).center_x for skip in drawing.skips] for end in ("start", "end"))
    assert starts == sorted(starts) and stops == sorted(stops, reverse=True)
    levels = [skip.y for skip in drawing.skips]
    assert levels == sorted(levels) and len(set(levels)) == 4
    assert levels[0] > 0 and levels[-1] < min(block.y for block in drawing.stages)
    resnet = list_layers(torchvision.models.resnet18(), (3, 64, 64))
    assert draw_network(resnet).skips == []
