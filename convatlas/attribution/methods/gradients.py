"""Methods that follow the gradient of a class's score to the pixels."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from convatlas import UserError
from convatlas.attribution.baselines import BASELINES, Baseline, make_baselines
from convatlas.attribution.class_scores import Targets
from convatlas.attribution.gradient_rules import attach_gradient_rules
from convatlas.attribution.methods.backward import MakeInputs, backpropagate_all, sum_gradients
from convatlas.attribution.methods.method import (
    Explanation,
    Maps,
    Method,
    check_count,
    empty_checks,
)

MAX_COMPLETENESS_GAP = 0.05
MAX_STEPS = 256
NOISE_SEED = 0


def compute_gradient(explanation: Explanation) -> Maps:
    """Return the gradient of each target's score by the pixels.

    Args:
        explanation: What is to be explained.
    """
    values = backpropagate_all(explanation, lambda graph: attach_gradient_rules(graph.top, graph.layers))
    return Maps(values, empty_checks(explanation.classes))


def compute_gradient_x_input(explanation: Explanation) -> Maps:
    """Return the gradient of each target's score times the input.

    Args:
        explanation: What is to be explained.
    """
    gradient = compute_gradient(explanation)
    return Maps(gradient.values * explanation.images[:, None], gradient.checks)


def compute_smoothgrad(explanation: Explanation, samples: int = 25, noise: float = 0.15) -> Maps:
    """Return the mean gradient over copies of an image with Gaussian noise.

    `agreement` in the checks is the correlation of the means over the two halves of the samples.

    Args:
        explanation: What is to be explained.
        samples: Number of copies.
        noise: Standard deviation of the noise, as a share of the range of the image's values.

    Raises:
        UserError: The number of samples is no positive integer.
    """
    check_count("smoothgrad", "samples", samples)
    images, scores = explanation.images, explanation.scores
    pixels = images.flatten(1)
    deviations = _append_axes(noise * (pixels.amax(1) - pixels.amin(1)), images)

    def add_noise(owners: Tensor, positions: Tensor) -> Tensor:
        draws = [draw_noise(images[0], int(sample)) for sample in positions]
        return images[owners] + deviations[owners] * torch.stack(draws).to(images)

    targets = scores.make_targets(scores(images), explanation.classes)
    halves = [
        sum_gradients(scores, targets, add_noise, torch.arange(start, samples, 2, dtype=images.dtype))
        for start in range(min(2, samples))
    ]
    checks = empty_checks(explanation.classes)
    for n, k in _pairs(explanation.classes) if samples > 1 else ():
        agreement = float(torch.corrcoef(torch.stack([half[n, k].flatten() for half in halves]))[0, 1])
        checks[n][k]["agreement"] = agreement if math.isfinite(agreement) else None
    return Maps(sum(halves, torch.zeros_like(halves[0])) / samples, checks)


def draw_noise(image: Tensor, sample: int) -> Tensor:
    """Return the standard normal noise of a sample.

    Args:
        image: The image, whose shape it has.
        sample: Number of the sample.
    """
    generator = torch.Generator().manual_seed(NOISE_SEED + sample)
    return torch.randn(image.shape, generator=generator)


def compute_integrated_gradients(
    explanation: Explanation, baseline: Baseline = "black", steps: int = 16, max_steps: int | None = None
) -> Maps:
    """Return the mean gradient on the straight line from a baseline to the image, times their difference.

    The integral is that of the trapezoidal rule. Its steps are doubled, and the gradients so far used again,
    until the sum over the pixels differs from the change of the score by less than 5 %.

    Args:
        explanation: What is to be explained.
        baseline: Where the line starts: "black", "mean" or "blurred", as in `make_baselines`.
        steps: Number of steps at first.
        max_steps: Number of steps that is not exceeded; None is MAX_STEPS.

    Raises:
        UserError: The number of steps is no positive integer, there is no such baseline, or a score for it is
            not finite.
    """
    check_count("integrated_gradients", "steps", steps)
    images, scores = explanation.images, explanation.scores
    baselines = make_baselines(images, baseline, explanation.preprocessing)
    ends = scores(torch.cat([images, baselines]))
    targets = scores.make_targets(ends[: len(images)], explanation.classes)
    changes = targets.select(ends[: len(images)]) - targets.select(ends[len(images) :])
    if not changes.isfinite().all():
        others = ", ".join(kind for kind in BASELINES if kind != baseline)
        raise UserError(
            f"integrated gradients: the score of a class for the baseline {baseline!r} of an image is NaN or "
            f"infinite; choose another baseline: {others}"
        )

    def interpolate(owners: Tensor, positions: Tensor) -> Tensor:
        weights = _append_axes(positions.to(images), images)
        return torch.lerp(baselines[owners], images[owners], weights)

    differences = (images - baselines)[:, None]
    integral = _TrapezoidalIntegral(explanation, targets, interpolate, steps)
    while True:
        values = integral.means * differences
        sums = values.double().flatten(2).sum(2)
        gaps = _measure_gaps(sums, changes.double())
        is_open = gaps > MAX_COMPLETENESS_GAP
        if not is_open.any() or integral.steps.max() * 2 > (max_steps or MAX_STEPS):
            break
        integral.refine(is_open)
    checks = [
        [
            {
                "completeness_gap": gap if math.isfinite(gap) else None,
                "steps": int(integral.steps[n, k]),
                "change": float(changes[n, k]),
                "sum": float(sums[n, k]),
            }
            for k, gap in enumerate(row)
        ]
        for n, row in enumerate(gaps.tolist())
    ]
    return Maps(values, checks)


def _append_axes(values: Tensor, other: Tensor) -> Tensor:
    """Return values with as many axes as another tensor, which they are multiplied with along its first."""
    return values.reshape(*values.shape, *[1] * (other.ndim - values.ndim))


def _measure_gaps(sums: Tensor, changes: Tensor) -> Tensor:
    """Return how far sums are from changes of the score, as shares of these; 0 where both are 0."""
    gaps = (sums - changes).abs()
    return torch.where(gaps == 0, gaps, gaps / changes.abs())


class _TrapezoidalIntegral:
    """The mean gradient between baselines and images, by the trapezoidal rule.

    Attributes:
        means: The mean gradients, (N, T, C, H, W).
        steps: The number of steps of each, (N, T).
    """

    def __init__(
        self, explanation: Explanation, targets: Targets, make_inputs: MakeInputs, steps: int
    ) -> None:
        self.scores, self.targets, self.make_inputs = explanation.scores, targets, make_inputs
        positions = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        weights = torch.full_like(positions, 1 / steps)
        weights[[0, -1]] /= 2
        self.means = sum_gradients(self.scores, targets, make_inputs, positions, weights)
        self.steps = torch.full(targets.classes.shape, steps)

    def refine(self, is_open: Tensor) -> None:
        """Double the steps of some targets of some images, and of others that share a pass with these.

        Args:
            is_open: Which, (N, T).
        """
        rows, columns = is_open.any(1).nonzero()[:, 0], is_open.any(0).nonzero()[:, 0]
        steps = int(self.steps[is_open.cpu()].max())
        targets = self.targets.take(rows, columns)
        middles = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps

        def make_inputs(owners: Tensor, positions: Tensor) -> Tensor:
            return self.make_inputs(rows[owners], positions)

        weights = torch.full_like(middles, 1 / steps)
        means = sum_gradients(self.scores, targets, make_inputs, middles, weights)
        index = rows[:, None], columns
        is_current = (self.steps[rows.cpu()[:, None], columns.cpu()] == steps).to(means.device)
        refined = (self.means[index] + means) / 2
        self.means[index] = torch.where(_append_axes(is_current, means), refined, self.means[index])
        self.steps[rows.cpu()[:, None], columns.cpu()] *= torch.where(is_current.cpu(), 2, 1)


def _probe(explanation: Explanation, **settings: Any) -> Maps:
    """Compute the gradient, which is defined where its mean is."""
    return compute_gradient(explanation)


def _pairs(classes: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the index of each image and target."""
    return ((n, k) for n in range(classes.shape[0]) for k in range(classes.shape[1]))


GRADIENT = Method(
    name="gradient",
    title="Gradient (saliency)",
    returns="pixels",
    requires=frozenset({"class scores"}),
    citation="Simonyan, Vedaldi, Zisserman 2013, arXiv 1312.6034",
    caveat="It says to which pixels the score is sensitive, not from which it was computed.",
    check="It is the exact derivative of the logit.",
    compute=compute_gradient,
)
GRADIENT_X_INPUT = Method(
    name="gradient_x_input",
    title="Gradient × input",
    returns="pixels",
    requires=frozenset({"class scores"}),
    citation="Shrikumar, Greenside, Shcherbina, Kundaje 2016, arXiv 1605.01713",
    caveat="Pixels whose normalised value is zero get no attribution, whatever the network does with them.",
    check="In a network of ReLUs and max pooling without biases it sums to the logit.",
    compute=compute_gradient_x_input,
    is_contribution=True,
)
SMOOTHGRAD = Method(
    name="smoothgrad",
    title="SmoothGrad",
    returns="pixels",
    requires=frozenset({"class scores"}),
    citation="Smilkov, Thorat, Kim, Viégas, Wattenberg 2017, arXiv 1706.03825",
    caveat="It is the gradient of a blurred score; what it shows depends on the noise.",
    check="The agreement is the correlation of the maps of two halves of the samples.",
    compute=compute_smoothgrad,
    settings={"samples": 25, "noise": 0.15},
    probe=_probe,
)
INTEGRATED_GRADIENTS = Method(
    name="integrated_gradients",
    title="Integrated gradients",
    returns="pixels",
    requires=frozenset({"class scores"}),
    citation="Sundararajan, Taly, Yan 2017, arXiv 1703.01365",
    caveat="It explains the change from the baseline: pixels that equal the baseline get no attribution.",
    check="Completeness: it sums to the change of the logit from the baseline; the gap is stated.",
    compute=compute_integrated_gradients,
    settings={"baseline": "black", "steps": 16, "max_steps": None},
    is_contribution=True,
    probe=_probe,
)
