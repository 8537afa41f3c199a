"""The uncertainty of ablation's costs, against scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from convatlas.analysis.ablation.effects import adjust_p, compare, estimate_baseline
from convatlas.analysis.ablation.outcomes import Outcomes
from convatlas.models.outputs import Output
from convatlas.records import OutputKind
from convatlas.training.image_losses import compute_image_losses
from convatlas.training.losses import compute_loss


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_accuracies_are_compared_by_mcnemars_exact_test(generator: np.random.Generator) -> None:
    labels = np.arange(60) % 3
    losses = generator.random((1, 60), np.float32)
    before, after = generator.random((1, 60)) < 0.9, generator.random((4, 60)) < 0.7
    effects = compare(Outcomes(losses, before), Outcomes(losses.repeat(4, 0), after), "accuracy", labels, 4)
    for n in range(4):
        for c, members in [(None, np.full(60, True)), *((c, labels == c) for c in range(3))]:
            lost = int((before[0] & ~after[n] & members).sum())
            gained = int((~before[0] & after[n] & members).sum())
            p = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
            actual = effects.p[n] if c is None else effects.class_p[n, c]
            assert actual == pytest.approx(min(1, p))
            low, high = effects.intervals[n] if c is None else effects.class_intervals[n, c]
            size = members.sum() + 2  # Agresti & Min
            share = np.array([lost + 0.5, gained + 0.5]) / size
            error = 1.959964 * np.sqrt((share.sum() - (share[0] - share[1]) ** 2) / size)
            assert (low + high) / 2 == pytest.approx(share[0] - share[1])
            assert high - low == pytest.approx(2 * error)
    assert np.isnan(effects.class_effects[:, 3]).all()  # a class without images


def test_losses_are_compared_by_the_paired_t_test(generator: np.random.Generator) -> None:
    before = generator.random((1, 30), np.float32)
    after = before + generator.normal(0.02, 0.1, (5, 30)).astype(np.float32)
    effects = compare(Outcomes(before), Outcomes(after), "loss", np.zeros(30, int), 1)
    expected = [stats.ttest_rel(row, before[0]).pvalue for row in after.astype(float)]
    assert effects.p == pytest.approx(expected, rel=1e-4)


def test_an_infinite_loss_is_a_cost_and_an_unknown_one_none() -> None:
    before = np.array([[1, 1, np.nan, 1]], np.float32)
    after = np.array([[1, np.inf, np.nan, 1], [2, 2, np.nan, 2.5]], np.float32)
    effects = compare(Outcomes(before), Outcomes(after), "loss", np.zeros(4, int), 1)
    assert effects.effects.tolist() == [np.inf, pytest.approx(3.5 / 3)]
    assert effects.p[0] == 0


def test_ious_are_compared_by_bootstrap(generator: np.random.Generator) -> None:
    unions = generator.integers(50, 100, (1, 40, 2))
    intersections = (unions * generator.uniform(0.6, 0.9, unions.shape)).astype(np.int32)
    worse = (intersections * generator.uniform(0.7, 1, (2, 40, 2))).astype(np.int32)
    worse[1] = intersections[0]  # nothing changes
    losses = np.zeros((2, 40), np.float32)
    before = Outcomes(losses[:1], None, intersections, unions)
    effects = compare(
        before, Outcomes(losses, None, worse, unions.repeat(2, 0)), "mean_iou", np.zeros(40, int), 2
    )
    assert effects.effects[1] == 0 and effects.p[1] == 1
    assert np.isnan(effects.class_loss_changes).all()
    samples = []
    for _ in range(2000):
        index = generator.integers(0, 40, 40)
        sums = [part[0, index].sum(0) for part in (intersections, worse, unions)]
        samples.append(((sums[0] - sums[1]) / sums[2]).mean())
    low, high = effects.intervals[0]
    assert effects.effects[0] == pytest.approx((low + high) / 2)
    assert high - low == pytest.approx(2 * 1.96 * np.std(samples), rel=0.1)


def test_p_values_are_adjusted_by_the_false_discovery_rate(generator: np.random.Generator) -> None:
    p = generator.random((7, 5)) ** 3
    expected = stats.false_discovery_control(p.ravel()).reshape(p.shape)
    assert adjust_p(p) == pytest.approx(expected)
    p[2, 2] = np.nan
    known = ~np.isnan(p)
    assert adjust_p(p)[known] == pytest.approx(stats.false_discovery_control(p[known]))


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    hits = np.arange(50)[None] < 47
    value, interval = estimate_baseline(Outcomes(np.zeros((1, 50), np.float32), hits), "accuracy")
    expected = stats.binomtest(47, 50).proportion_ci(method="wilson")
    assert (value, *interval) == pytest.approx((0.94, expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(
    "kind", ["softmax", "log-softmax", "probabilities", "sigmoid", "multi-label", "independent-probabilities"]
)
@pytest.mark.parametrize("size", [(), (5, 4)])
def test_losses_of_images_equal_the_loss_of_each_alone(kind: OutputKind, size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(6, 3, *size, generator=generator) * 0.9 + 0.05
    labels = torch.randint(0, 3, (6, *size), generator=generator)
    if size:
        labels[:, 0] = 255
        labels[2] = 255
    losses = compute_image_losses(scores, labels, Output(kind, "", (3, *size), 3).score_kind)
    pairs = zip(scores[:, None], labels[:, None], strict=True)
    expected = torch.stack([compute_loss(*pair, kind) for pair in pairs])
    assert torch.allclose(losses, expected, atol=1e-6, equal_nan=True)
