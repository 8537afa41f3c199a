"""The measures on a trained SqueezeNet and two photographs: the numbers that the documentation states."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from convatlas.attribution.measures.randomisation import cascading_randomisation
from convatlas.attribution.measures.rank_correlation import rank_maps
from convatlas.attribution.measures.redrawn_weights import list_weighted_layers
from convatlas.attribution.measures.specificity import find_shared_peaks
from convatlas.attribution.measures.unit_projections import RULES, project_activations
from convatlas.models import embedded
from convatlas.models.prepare import prepare_network
from convatlas.tracing.calls import trace

SCORES = "flatten"  # the layer of the class scores
UPPER_BLOCKS = [f"features.{n}." for n in (7, 9, 10, 11, 12)]


@pytest.fixture(scope="module")
def network_and_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Tensor]:
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    embedded.write_embedded_weights(path, "networks.squeezenet")
    settings = {"architecture": "torchvision/squeezenet1_1", "weights": "embedded"}
    prepared = prepare_network(settings, None, path, 0, "networks.squeezenet")
    files = [Path(data.__file__).parent / name for name in ("chelsea.png", "coffee.png")]
    read = prepared.preprocessing.read_pixels
    return prepared.network, torch.cat([prepared.preprocessing(read(file)) for file in files])


def project_scores(network: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Return the projections of classes (N, T) by each rule, (rules, N, T, C, H, W)."""
    images = [
        list(project_activations(network, image, SCORES, units, [(0, 0)] * len(units)).values())
        for image, units in zip(x, classes.tolist(), strict=True)
    ]
    return torch.stack([torch.stack(maps) for maps in zip(*images, strict=True)])


def test_maps_hardly_depend_on_the_class_and_on_upper_layers(
    network_and_images: tuple[nn.Module, Tensor],
) -> None:
    network, x = network_and_images
    with torch.no_grad():
        ordered = network(x).argsort(1, descending=True)
    maps = project_scores(network, x, ordered[:, [0, 499]])
    first, second = (rank_maps(maps[:, :, n].numpy()).reshape(3, 2, -1) for n in (0, 1))
    similarity = dict(zip(RULES, (first * second).sum(2).mean(1).tolist(), strict=True))
    assert similarity["gradient"] == pytest.approx(0.58, abs=0.05)
    assert similarity["deconvnet"] > 0.88
    assert similarity["guided_backpropagation"] > 0.95

    weighted = list_weighted_layers(network, x[:1])
    assert len(weighted) == 26
    upper = [layer for layer in weighted if any(layer.name.startswith(name) for name in UPPER_BLOCKS)]
    stages = [[*upper, weighted[-1]], [layer for layer in weighted[:-1] if layer not in upper]]
    computed: dict[str, Tensor] = {}

    def compute(model: nn.Module, images: Tensor) -> Tensor:
        computed.update(zip(RULES, project_scores(model, images, ordered[:, :1]), strict=True))
        return computed[RULES[0]]

    computes = {RULES[0]: compute, **{rule: lambda *_, rule=rule: computed[rule] for rule in RULES[1:]}}
    curves = cascading_randomisation(network, x, computes, stages)
    upper_random, all_random = zip(*(curves[rule] for rule in RULES), strict=True)
    assert upper_random == pytest.approx((0.84, 0.52, 0.935), abs=0.06)
    assert all_random == pytest.approx((0.56, 0.35, 0.58), abs=0.08)


@pytest.mark.parametrize(
    ("layer", "correlation", "tolerance"), [("features.12", 0.97, 0.02), ("features.4", 0.73, 0.1)]
)
def test_projections_from_one_place_are_alike_in_deep_layers(
    network_and_images: tuple[nn.Module, Tensor], layer: str, correlation: float, tolerance: float
) -> None:
    network, x = network_and_images
    outputs: list[Tensor] = []
    correlations: list[float] = []
    with (
        torch.no_grad(),
        trace(
            network,
            lambda call: outputs.append(call.output.clone()) if call.layer == layer else None,
            [layer],
        ),
    ):
        network(x)
    for image, output in zip(x, outputs[0], strict=True):
        for peak in find_shared_peaks(output, limit=12):
            maps = project_activations(network, image, layer, *peak, rules=["deconvnet"])["deconvnet"]
            matrix = np.corrcoef(maps.flatten(1).numpy())
            correlations += matrix[np.triu_indices(len(matrix), 1)].tolist()
    assert np.median(correlations) == pytest.approx(correlation, abs=tolerance)
