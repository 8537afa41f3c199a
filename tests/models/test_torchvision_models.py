"""Torchvision's networks: the extractor on each of them, recording and deconvnet on one of each family."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.models.regnet import BlockParams

from convatlas import UserError
from convatlas.attribution.deconvnet import project
from convatlas.tracing.calls import composite_modules
from convatlas.tracing.extractor import Extractor
from convatlas.tracing.layer_kinds import FUNCTION_KINDS
from convatlas.tracing.layer_names import FUNCTION_ALIASES, next_call_name
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import record

# networks.md of the field's older extractor: convolutions of the main path, Sequential containers,
# down-sampling convolutions, linear layers, blocks.
COUNTS = {
    "resnet18": (17, 4, 3, 1, 8),
    "resnet34": (33, 4, 3, 1, 16),
    "resnet50": (49, 4, 4, 1, 16),
    "resnet101": (100, 4, 4, 1, 33),
    "resnet152": (151, 4, 4, 1, 50),
    "vgg11": (8, 2, 0, 3, 0),
    "vgg13": (10, 2, 0, 3, 0),
    "vgg16": (13, 2, 0, 3, 0),
    "vgg19": (16, 2, 0, 3, 0),
    "alexnet": (5, 2, 0, 3, 0),
}
# Those on which it fails, and how many convolutions there are.
CONVOLUTIONS = {
    "squeezenet1_0": 26,
    "densenet121": 120,
    "googlenet": 59,
    "inception_v3": 96,
    "mobilenet_v2": 52,
    "efficientnet_b0": 81,
    "convnext_tiny": 22,
    "regnet_y_400mf": 85,
    "mnasnet1_0": 52,
    "shufflenet_v2_x1_0": 56,
}


@pytest.fixture
def build_on_meta(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], nn.Module]:
    """Builds a network on the meta device, where its weights take no memory and no time."""
    regnet: Any = BlockParams.from_init_params.__func__  # type: ignore[attr-defined]

    def on_cpu(cls: type, *arguments: Any, **named: Any) -> Any:
        with torch.device("cpu"):  # it computes its widths with tensors
            return regnet(cls, *arguments, **named)

    monkeypatch.setattr(BlockParams, "from_init_params", classmethod(on_cpu))

    def build(name: str) -> nn.Module:
        with torch.device("meta"):
            return get_model(name, weights=None)

    return build


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_of_the_field(build_on_meta: Callable[[str], nn.Module], name: str) -> None:
    extractor = Extractor(build_on_meta(name))
    info = extractor.info()
    counts = tuple(info[key] for key in ("conv", "sequential", "downsample", "linear", "blocks"))
    assert counts == COUNTS[name]
    assert extractor.info() == info
    assert not extractor.conv_layers.keys() & extractor.downsample_layers.keys()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_networks_on_which_others_fail(build_on_meta: Callable[[str], nn.Module], name: str) -> None:
    assert len(Extractor(build_on_meta(name)).conv_layers) == CONVOLUTIONS[name]


@pytest.mark.parametrize("name", list_models(module=torchvision.models))
@pytest.mark.filterwarnings("ignore")
def test_every_convolution_of_every_classification_network_is_found(
    build_on_meta: Callable[[str], nn.Module], name: str
) -> None:
    """By the shapes in state_dict(): no other layer has a weight of more than two axes."""
    network = build_on_meta(name)
    extractor = Extractor(network)
    expected = {
        key.removesuffix(".weight"): tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
        if key.endswith(".weight") and tensor.ndim > 2
    }
    weights = extractor.conv_weights | {n: m.weight for n, m in extractor.downsample_layers.items()}
    assert {layer: tuple(weight.shape) for layer, weight in weights.items()} == expected


def test_vision_transformer_has_37_linears(build_on_meta: Callable[[str], nn.Module]) -> None:
    assert len(Extractor(build_on_meta("vit_b_16")).linear_weights) == 37


def test_containers_subclasses_and_other_convolutions() -> None:
    class Mine(nn.Conv2d):
        pass

    class Chain(nn.Sequential):
        pass

    network = nn.ModuleDict(
        {
            "a": nn.ModuleList([nn.Conv1d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1)]),
            "b": Chain(Mine(1, 1, 1), nn.Linear(1, 1)),
            "shortcut": nn.Sequential(nn.Conv2d(1, 1, 1)),
        }
    )
    extractor = Extractor(network, downsample_name="shortcut")
    assert list(extractor.conv_layers) == ["a.0", "a.1", "a.2", "b.0"]
    assert list(extractor.downsample_layers) == ["shortcut.0"]
    assert extractor.linear_weights["b.1"] is network["b"][1].weight
    assert "shortcut" in str(extractor.info())
    assert "parameters" in str(extractor.info())


def test_resnet152_is_indexed_whole() -> None:
    layers = list_layers(get_model("resnet152").eval(), (3, 32, 32))
    assert sum(layer["kind"] == "conv" for layer in layers) == 155
    assert [layer["ordinal"] for layer in layers if layer["kind"] == "conv"] == [*range(1, 156)]
    assert sum(layer["name"].endswith("/add") for layer in layers) == 50
    assert sum(layer["type"] == "ReLU" for layer in layers) == 151


# Recording and deconvnet: the smallest network of each family and the side of its smallest input,
# random weights. With each: whether all of its activations are ReLUs.

FAMILIES = {
    "alexnet": (63, True),
    "vgg11": (32, True),
    "resnet18": (32, True),
    "squeezenet1_1": (17, True),
    "densenet121": (32, True),
    "googlenet": (32, True),
    "inception_v3": (75, True),
    "mobilenet_v2": (32, True),
    "mobilenet_v3_small": (32, False),
    "efficientnet_b0": (32, False),
    "efficientnet_v2_s": (32, False),
    "convnext_tiny": (32, False),
    "regnet_x_400mf": (32, True),
    "regnet_y_400mf": (32, False),
    "mnasnet0_5": (32, True),
    "shufflenet_v2_x0_5": (32, True),
    "resnext50_32x4d": (32, True),
    "wide_resnet50_2": (32, True),
    "vit_b_32": (32, False),
    "swin_t": (32, False),
    "swin_v2_t": (32, False),
    "maxvit_t": (224, False),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},  # slow
    "inception_v3": {"init_weights": False},
    "vit_b_32": {"image_size": 32},
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """A network with its name and an image; one thread, since several only wait for each other here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = get_model(request.param, weights=None, **ARGUMENTS.get(request.param, {})).eval()
    side, _ = FAMILIES[request.param]
    yield request.param, network, torch.randn(3, side, side)
    torch.set_num_threads(threads)


class Copying(torch.fx.Interpreter):
    """Runs a feature extractor; copies what depends on the image, before another node changes it in place."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__(graph)
        self.copies: dict[torch.fx.Node, Tensor] = {}

    def run_node(self, node: torch.fx.Node) -> Any:
        output = super().run_node(node)
        first = output[0] if isinstance(output, tuple | list) else output
        depends = node.op == "placeholder" or any(other in self.copies for other in node.all_input_nodes)
        if isinstance(first, Tensor) and depends:
            self.copies[node] = first.clone()
        return output


def get_our_name(name: str, node: torch.fx.Node) -> tuple[str, str]:
    """Return the module of a node, and our name of its first call, such as layer1.0/add."""
    if node.op == "call_module":
        return str(node.target), str(node.target)
    path, function = name.rpartition(".")[0], getattr(node.target, "__name__", str(node.target)).strip("_")
    function = FUNCTION_ALIASES.get(function, function)
    return path, f"{path}/{function}" if path else function


@pytest.mark.filterwarnings("ignore")
def test_records_equal_torchvisions_feature_extractor(family: tuple[str, nn.Module, Tensor]) -> None:
    """Bit for bit, wherever it has the node; what it has besides are parts of leaves, slices, and sizes."""
    _, network, image = family
    composite = set(composite_modules(network))
    graph = create_feature_extractor(network, get_graph_node_names(network)[1])
    run = Copying(graph)
    with torch.no_grad():
        run.run(image[None])
    expected, calls = {}, Counter({"input": 1})
    (output,) = graph.graph.find_nodes(op="output")
    for name, node in output.args[0].items():
        path, layer = get_our_name(name, node)
        function = layer.rpartition("/")[2] in FUNCTION_KINDS and (not path or path in composite)
        if node in run.copies and (function or node.op == "call_module"):
            expected[next_call_name(layer, calls)] = run.copies[node]
    outputs = record(network, image[None], list(expected)).outputs
    assert len(expected) >= 20
    for layer, output in expected.items():
        assert torch.equal(outputs[layer], output), layer


def test_projections_of_every_family(family: tuple[str, nn.Module, Tensor]) -> None:
    name, network, image = family
    _, relus = FAMILIES[name]
    outputs = record(network, image[None]).outputs
    layer, top = [
        (layer, output) for layer, output in outputs.items() if output.any() and "drop" not in layer
    ][-1]
    fires = top.flatten(2).amax(-1) if top.ndim > 2 else top
    units = [int(fires[0].argmax()), int(fires[0].argmin())]
    if not relus:
        with pytest.raises(UserError, match=r"activations are none: \S+ \(\w+\).*rectify: true"):
            project(network, image, layer, units)
    projections = project(network, image, layer, units, rectify=not relus)
    assert projections.shape == (2, *image.shape)
    assert projections.isfinite().all()
    assert projections[0].any()
    assert projections[1].any() == (fires[0, units[1]] > 0)
