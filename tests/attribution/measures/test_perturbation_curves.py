"""Deletion and insertion against a loop over pixels."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas.attribution.measures.perturbation_curves import perturbation_curves, pixel_relevance

FRACTIONS = tuple(n / 20 for n in range(21))
torch.manual_seed(0)
NETWORK = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 48, 3)).eval()
IMAGE, BASELINE = torch.rand(3, 8, 10), torch.zeros(3, 8, 10)
RELEVANCE = torch.stack([torch.randperm(80).reshape(8, 10).float() for _ in range(3)])


def score(x: Tensor) -> Tensor:
    """Return the probabilities of classes 2 and 0."""
    return NETWORK(x).softmax(1)[:, [2, 0]]


def replace_pixels(start: Tensor, end: Tensor, order: np.ndarray, count: int) -> Tensor:
    result = start.clone()
    for pixel in order[:count]:
        result[:, pixel // 10, pixel % 10] = end[:, pixel // 10, pixel % 10]
    return result


@torch.no_grad()
def test_curves_are_those_of_a_loop_over_pixels() -> None:
    targets = [0, 1, 1]
    curves = perturbation_curves(score, IMAGE, BASELINE, RELEVANCE, targets, FRACTIONS)
    for relevance, target, curve in zip(RELEVANCE, targets, curves.maps, strict=True):
        order = np.argsort(-relevance.flatten().numpy())
        for name, start, end in (("deletion", IMAGE, BASELINE), ("insertion", BASELINE, IMAGE)):
            expected = [
                float(score(replace_pixels(start, end, order, round(f * 80))[None])[0, target])
                for f in FRACTIONS
            ]
            assert curve[name]["values"] == pytest.approx(expected, abs=1e-6)
            area = sum((a + b) / 2 * 0.05 for a, b in pairwise(expected))
            assert curve[name]["auc"] == pytest.approx(area, abs=1e-6)


@torch.no_grad()
def test_the_control_is_the_mean_of_random_orders() -> None:
    arguments = (IMAGE, BASELINE, RELEVANCE, [0, 1, 1], FRACTIONS)
    curves = perturbation_curves(score, *arguments, random_orders=4, seed=7)
    generator = torch.Generator().manual_seed(7)
    orders = [torch.randperm(80, generator=generator).numpy() for _ in range(4)]
    for target, curve in enumerate(curves.random_order):
        deletion = [
            np.mean([
                float(score(replace_pixels(IMAGE, BASELINE, order, round(f * 80))[None])[0, target])
                for order in orders
            ])
            for f in FRACTIONS
        ]  # fmt: skip
        assert curve["deletion"]["values"] == pytest.approx(deletion, abs=1e-6)
        assert curve["insertion"]["values"] == pytest.approx(deletion[::-1], abs=1e-6)


def test_equal_pixels_are_in_random_order() -> None:
    """Not in that of rows, in which maps with many zeros would be deleted from the top."""
    zero_pixels: list[Tensor] = []

    def record(x: Tensor) -> Tensor:
        zero_pixels.append(x[:, 0] == 0)
        return x.mean((1, 2, 3))[:, None]

    ones, zeros = torch.ones(1, 20, 20), torch.zeros(1, 20, 20)
    perturbation_curves(record, ones, zeros, zeros, [0], FRACTIONS)
    half = torch.cat(zero_pixels)[2 + 9].float()  # of the deletion, after both ends
    assert half.mean() == 0.5
    assert half[:10].mean() == pytest.approx(0.5, abs=0.1)


def test_a_perfect_map_beats_the_control() -> None:
    """The score is the share of a few bright pixels: deleting these first takes it all at once."""
    image = torch.zeros(1, 20, 20)
    image[0, 3:5, 3:5] = 1

    def count(x: Tensor) -> Tensor:
        return x.sum((1, 2, 3))[:, None] / 4

    curves = perturbation_curves(count, image, image * 0, torch.cat([image, -image]), [0, 0], FRACTIONS)
    perfect, worst = curves.maps
    assert perfect["deletion"]["auc"] == pytest.approx(0.025)
    assert perfect["insertion"]["auc"] == pytest.approx(0.975)
    assert worst["deletion"]["auc"] > curves.random_order[0]["deletion"]["auc"] > 0.2


def test_relevance_of_contributions_has_a_sign() -> None:
    maps = torch.tensor([[[[1.0, -2]], [[-3, 1]]]])
    assert pixel_relevance(maps, signed=True).tolist() == [[[-2, -1]]]
    assert pixel_relevance(maps, signed=False).tolist() == [[[4, 3]]]
