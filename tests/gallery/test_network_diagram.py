"""The diagram of a network: its stages, and where they lie."""

import itertools
import random
from typing import Any

import pytest
import torchvision

from convatlas.gallery.diagrams.network_diagram import STAGE_GAP, draw_network
from convatlas.models.architectures.sd_unet import sd_unet
from convatlas.tracing.layers import list_layers
from tests.support.fake_results import make_layer, make_results


def make_chain(shapes: list[list[int]]) -> list[dict[str, Any]]:
    pairs = itertools.pairwise(shapes)
    return [make_layer(f"layer{n}", "conv", tuple(a), tuple(b)) for n, (a, b) in enumerate(pairs)]


@pytest.mark.parametrize("seed", range(8))
def test_stages_do_not_overlap_and_are_as_high_as_their_maps(seed: int) -> None:
    rng = random.Random(seed)
    sides = [rng.choice((1, 2, 7, 28, 100, 224)) for _ in range(12)]
    layers = make_chain([[rng.randint(1, 2048), side, side] for side in sides] + [[1000], [10]])
    diagram = draw_network([*layers, make_layer("aux", "conv", (), (), called=False)])
    stages = diagram.stages
    for stage, next_stage in itertools.pairwise(stages):
        assert stage.x + stage.width + STAGE_GAP <= next_stage.x + 1e-9
    for stage in stages:
        assert stage.x >= 0 and stage.x + stage.width <= diagram.width
        assert stage.y >= 0 and stage.y + stage.height <= diagram.height
        assert stage.y + stage.height / 2 == pytest.approx(diagram.center_y)
        side = int(stage.shape.split(" × ")[-1]) if "×" in stage.shape else 1
        assert stage.height == pytest.approx(max(5, 150 * side / max(sides)))
    widths = {int(stage.shape.split()[0]): stage.width for stage in stages}
    assert [widths[units] for units in sorted(widths)] == sorted(widths.values())


def test_stages_are_in_order_of_execution() -> None:
    stages = draw_network(make_results().layers).stages
    assert [[name for name, _ in stage.layers] for stage in stages] == [
        ["input"],
        ["conv1", "relu"],
        ["block/cat"],
        ["block.conv2", "relu:2", "relu_2"],
        ["pool"],
        ["flatten"],
        ["neck"],
        ["fc"],
    ]
    assert stages[3].shape == "18 × 8 × 6" and stages[-1].shape == "4"
    assert [stage.kind for stage in stages[:3]] == ["input", "conv", "merge"]
    assert all(layers == [name] for stage in stages for name, layers in stage.layers)


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
    """Every layer has exactly one label, in execution order."""
    network = torchvision.models.get_model(name, weights=None).eval()
    side = 299 if name == "inception_v3" else 96
    layers = list_layers(network, (3, side, side))
    stages = draw_network(layers).stages
    assert 8 <= len(stages) <= 21
    assert max(len(stage.layers) for stage in stages) <= 8
    called = [layer["name"] for layer in layers if layer["called"]]
    assert [name for stage in stages[1:] for _, names in stage.layers for name in names] == called
    names = [name for stage in stages for name, _ in stage.layers]
    assert len(set(names)) == len(names) and set(LARGE[name]) <= set(names)


def test_a_network_of_many_modules_of_many_shapes_is_drawn_in_few_stages() -> None:
    layers = make_chain([[3 + n % 7, 40 - n % 2, 40] for n in range(120)])
    assert len(draw_network(layers).stages) == 21


def test_skip_connections_are_above_the_stages_that_they_skip() -> None:
    """SD-UNet has four, each inside the one before; those of a ResNet stay within their stages."""
    layers = list_layers(sd_unet(2), (3, 64, 64))
    diagram = draw_network(layers)
    ends = [[stage.layers[0][0] for stage in (skip.start, skip.end)] for skip in diagram.skips]
    assert [start.partition(":")[0] for start, _ in ends] == [f"encoder.{n}" for n in range(4)]
    starts, stops = ([getattr(skip, end).center_x for skip in diagram.skips] for end in ("start", "end"))
    assert starts == sorted(starts) and stops == sorted(stops, reverse=True)
    levels = [skip.y for skip in diagram.skips]
    assert levels == sorted(levels) and len(set(levels)) == 4
    assert levels[0] > 0 and levels[-1] < min(stage.y for stage in diagram.stages)
    resnet = list_layers(torchvision.models.resnet18(), (3, 64, 64))
    assert draw_network(resnet).skips == []
