"""The stages of a network: runs of one shape, or modules where those are many."""

import pytest
import torchvision

from convatlas.gallery.diagrams.stages import MAX_STAGES, assign_stages, split_stages
from convatlas.tracing.layers import list_layers
from tests.support.fake_results import make_layer, make_results


def test_stages_are_runs_of_one_shape_in_execution_order() -> None:
    layers = [layer for layer in make_results().layers if layer["called"]]
    assert [[layer["name"] for layer in stage] for stage in split_stages(layers)] == [
        ["conv1", "relu"],
        ["block/cat"],
        ["block.conv2", "relu:2", "relu_2"],
        *(["pool"], ["flatten"], ["neck"], ["fc"]),
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_many_shapes_is_divided_by_its_modules() -> None:
    layers = list_layers(torchvision.models.resnet50(weights=None).eval(), (3, 64, 64))
    stages = split_stages(layers)
    assert len(stages) <= MAX_STAGES
    assert [layer["name"] for stage in stages for layer in stage] == [layer["name"] for layer in layers]
    names = assign_stages(layers)
    assert {"layer1", "layer2", "layer3", "layer4"} <= set(names.values())
    assert names["layer3.5.conv2"] == "layer3"


def test_many_modules_of_many_shapes_are_few_stages() -> None:
    shapes = [(3 + n % 7, 40 - n % 2, 40) for n in range(121)]
    layers = [make_layer(f"layer{n}", "conv", shapes[n], shapes[n + 1]) for n in range(120)]
    assert len(split_stages(layers)) == MAX_STAGES
