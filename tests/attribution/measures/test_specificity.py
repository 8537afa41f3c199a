"""Specificity of projections: networks whose units are alike or not, by construction."""

import copy
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from convatlas.attribution.measures.redrawn_weights import list_weighted_layers
from convatlas.attribution.measures.specificity import find_shared_peaks, measure_specificity
from convatlas.attribution.measures.unit_projections import Position, project_activations
from convatlas.attribution.measures.unit_specificity import measure_unit_specificity
from convatlas.tracing.layers import list_layers


def run(network: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return network(image[None])[0]


def test_units_are_grouped_by_the_places_of_their_peaks() -> None:
    output = torch.zeros(8, 5, 6)
    for unit, (position, value) in enumerate(
        [
            ((1, 2), 1),
            ((4, 5), 2),
            ((1, 2), 3),
            ((1, 3), 5),
            ((4, 5), 1),
            ((0, 0), 9),
            ((1, 2), 2),
            ((2, 2), -1),
        ]
    ):
        output[(unit, *position)] = value
    output[7] = -1  # inactive
    groups = find_shared_peaks(output)
    assert [group.units for group in groups] == [[2, 6, 0], [1, 4]]
    assert [group.positions[0] for group in groups] == [(1, 2), (4, 5)]
    tolerant = find_shared_peaks(output, tolerance=(0, 1))
    assert tolerant[0].units == [3, 2, 6, 0]
    assert tolerant[0].positions == [(1, 3), (1, 2), (1, 2), (1, 2)]
    assert [group.units for group in find_shared_peaks(output, limit=2)] == [[2, 6]]
    assert find_shared_peaks(torch.tensor([1.0, 3, -1, 2]))[0].units == [1, 3, 0]


def test_specificity_is_the_median_over_pairs() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(2, 64, 5, padding=2), nn.ReLU()).eval()
    images = list(torch.rand(2, 2, 12, 12))
    outputs = [run(network, image) for image in images]
    before = copy.deepcopy(network.state_dict())

    def project(model: nn.Module, image: Tensor, units: Sequence[int], positions: Sequence[Position]) -> dict:
        return project_activations(model, image, "1", units, positions)

    measured = measure_specificity(
        network, images, outputs, project, [list_weighted_layers(network, images[0][None])]
    )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    correlations = []
    for output in outputs:
        for group in find_shared_peaks(output):
            row, column = group.positions[0]  # of a filter of 5 x 5, cut at the border
            box = slice(max(0, 2 - row), 14 - row), slice(max(0, 2 - column), 14 - column)
            filters = network[0].weight.detach()[group.units][:, :, *box].abs().sum(1).flatten(1).numpy()
            correlations += [spearmanr(a, b).statistic for a, b in combinations(filters, 2)]
    for method in ("deconvnet", "gradient", "guided_backpropagation"):  # all are the filter
        assert measured[method].pairs == len(correlations) >= 10
        assert measured[method].value == pytest.approx(1 - np.median(np.abs(correlations)), abs=1e-6)
        assert 0 < measured[method].similarity[0] < 0.5  # of random filters


def make_blind_network() -> nn.Sequential:
    """A network whose deep units all see the one channel before them: where, not which."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *[nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3)],
        *[nn.Conv2d(1, 16, 1), nn.ReLU()],
    ).eval()
    for layer in (network[2], network[3]):
        nn.init.uniform_(layer.weight, 0.1, 1)
        nn.init.zeros_(layer.bias)
    return network


def test_units_of_one_channel_are_not_specific() -> None:
    network = make_blind_network()
    images = list(torch.rand(2, 1, 14, 14))
    layers = list_layers(network, (1, 14, 14))
    outputs = {"4": network, "1": network[:2]}
    entries = measure_unit_specificity(
        network, layers, ["1", "4"], images, lambda layer, n: run(outputs[layer], images[n])
    )
    assert [(entry["layer"], entry["method"]) for entry in entries[::3]] == [
        ("1", "deconvnet"),
        ("4", "deconvnet"),
    ]
    for entry in entries[3:]:
        assert entry["pairs"] == 20
        assert entry["value"] == pytest.approx(0, abs=1e-6)
        # Its own weights change nothing but the sign; those below do.
        assert entry["randomised"] == pytest.approx(0, abs=1e-6)
        assert entry["randomisation"]["layers"] == [["3"], ["2", "0"]]
        assert entry["randomisation"]["similarity"][1] < 0.9
    assert all(entry["value"] is None or entry["value"] > 0.2 for entry in entries[:3])


def test_a_reason_is_stated_where_nothing_is_measured() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()
    layers = list_layers(network, (1, 9, 9))
    image = torch.rand(1, 9, 9)
    entries = {
        entry["method"]: entry
        for entry in measure_unit_specificity(
            network,
            layers,
            ["2"],
            [image],
            lambda layer, n: torch.ones(4, 5, 5) + torch.arange(4).view(4, 1, 1),
        )
    }
    assert "views.deconv.rectify" in entries["deconvnet"]["reason"]
    assert "views.deconv.rectify" in entries["guided_backpropagation"]["reason"]
    assert entries["gradient"]["pairs"] == 6
    few = measure_unit_specificity(
        network, layers, ["2"], [image], lambda layer, n: torch.ones(2, 5, 5), rectify=True
    )
    assert few[0]["reason"] == "1 pair of units has peaks that nearly coincide; 5 are needed"
    entries = measure_unit_specificity(network, layers, ["2"], [image], lambda layer, n: -torch.ones(4, 5, 5))
    assert entries[1]["reason"] == "no two units have peaks that nearly coincide"
    assert measure_unit_specificity(network, layers, ["2"], [], lambda layer, n: image) == []
