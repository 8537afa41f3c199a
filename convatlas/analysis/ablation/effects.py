"""What ablation costs, with its uncertainty: paired comparisons of the same images."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import bdtr, ndtr, stdtr

from convatlas.analysis.ablation.outcomes import (
    Measure,
    Outcomes,
    average_finite,
    compute_values,
    divide,
    mean_of_classes,
)

SIGNIFICANCE = 0.05  # largest adjusted p of an effect that is reported
Z = 1.959964  # of an interval of 95 %
RESAMPLES = 1000  # of the images, for the uncertainty of an IoU


@dataclass(frozen=True)
class Effects:
    """What each of K ablations costs: how much the measure gets worse. Classes without images are NaN.

    Attributes:
        values: The measure with the ablation, (K,).
        effects: By how much it is worse than without: a drop of accuracy or IoU, a rise of the loss; (K,).
        intervals: Their intervals of 95 %, (K, 2).
        p: Their p values, two-sided, (K,); adjusted by `adjust_all`.
        class_effects: The same for the images of each class, or for its IoU, (K, classes).
        class_intervals: (K, classes, 2).
        class_p: (K, classes).
        loss_changes: Change of the mean loss, (K,).
        loss_errors: Its standard error, (K,).
        loss_p: The p values of the changes, (K,).
        class_loss_changes: Of the images of each class, (K, classes); NaN of a segmentation network.
        class_loss_p: (K, classes).
    """

    values: np.ndarray
    effects: np.ndarray
    intervals: np.ndarray
    p: np.ndarray
    class_effects: np.ndarray
    class_intervals: np.ndarray
    class_p: np.ndarray
    loss_changes: np.ndarray
    loss_errors: np.ndarray
    loss_p: np.ndarray
    class_loss_changes: np.ndarray
    class_loss_p: np.ndarray


def compare(
    baseline: Outcomes, ablated: Outcomes, measure: Measure, labels: np.ndarray, n_classes: int, seed: int = 0
) -> Effects:
    """Compare what a network predicts with and without ablations.

    Accuracy: the interval of a difference of paired proportions of Agresti & Min (Statistics in Medicine 24,
    2005), and McNemar's exact test. IoU: bootstrap over images. Loss: the paired t-test.

    Args:
        baseline: Without ablation, one condition.
        ablated: With K ablations.
        measure: What is compared.
        labels: The class of each image, (N,) int64; of a segmentation network they are not used.
        n_classes: Number of classes.
        seed: Of the bootstrap.
    """
    membership = np.zeros((len(labels), n_classes))
    if measure != "mean_iou":
        membership[np.arange(len(labels)), labels] = 1
    all_images = np.ones((baseline.losses.shape[1], 1))
    with np.errstate(invalid="ignore"):  # infinite with and without: NaN, as no difference is known
        changes = np.subtract(ablated.losses, baseline.losses, dtype=float)
    loss = _compare_losses(changes, all_images)
    class_loss = _compare_losses(changes, membership)
    if measure == "accuracy":
        overall, classes = (_compare_hits(baseline, ablated, m) for m in (all_images, membership))
    elif measure == "loss":
        overall, classes = loss, class_loss
    else:
        overall, classes = _compare_overlaps(baseline, ablated, seed)
    return Effects(
        values=compute_values(ablated, measure),
        effects=overall[0][:, 0],
        intervals=overall[1][:, 0],
        p=overall[2][:, 0],
        class_effects=classes[0],
        class_intervals=classes[1],
        class_p=classes[2],
        loss_changes=loss[0][:, 0],
        loss_errors=_average_groups(changes, all_images)[1][:, 0],
        loss_p=loss[2][:, 0],
        class_loss_changes=class_loss[0],
        class_loss_p=class_loss[2],
    )


Comparison = tuple[np.ndarray, np.ndarray, np.ndarray]  # effects, intervals and p of groups of images


def _average_groups(changes: np.ndarray, membership: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of changes (K, N) in groups of images (N, groups), and their standard errors."""
    is_known = ~np.isnan(changes)
    counts = is_known @ membership
    finite = np.where(np.isfinite(changes), changes, 0)
    means = divide(finite @ membership, counts)
    rises, falls = (((changes == limit) @ membership) > 0 for limit in (np.inf, -np.inf))
    means[rises], means[falls], means[rises & falls] = np.inf, -np.inf, np.nan
    variances = divide(
        finite**2 @ membership - counts * np.where(np.isfinite(means), means, 0) ** 2, counts - 1
    )
    errors = np.sqrt(divide(np.maximum(variances, 0), counts))
    errors[(counts < 2) | ~np.isfinite(means)] = np.nan
    return means, errors


def _compare_hits(baseline: Outcomes, ablated: Outcomes, membership: np.ndarray) -> Comparison:
    """Compare accuracies in groups of images."""
    assert baseline.hits is not None and ablated.hits is not None
    lost = (baseline.hits & ~ablated.hits) @ membership
    gained = (~baseline.hits & ablated.hits) @ membership
    counts = membership.sum(0)
    # Agresti & Min: half an image more in each of the four cells.
    center = divide(lost - gained, counts + 2)
    error = np.sqrt(divide(lost + gained + 1 - (lost - gained) ** 2 / (counts + 2), (counts + 2) ** 2))
    intervals = np.stack([center - Z * error, center + Z * error], -1).clip(-1, 1)
    intervals[:, counts == 0] = np.nan
    p = np.minimum(1, 2 * bdtr(np.minimum(lost, gained), (lost + gained).astype(int), 0.5))
    p[:, counts == 0] = np.nan
    return divide(lost - gained, np.broadcast_to(counts, lost.shape)), intervals, p


def _compare_losses(changes: np.ndarray, membership: np.ndarray) -> Comparison:
    """Compare losses in groups of images."""
    means, errors = _average_groups(changes, membership)
    counts = (~np.isnan(changes)) @ membership
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * stdtr(np.maximum(counts - 1, 1), -np.abs(means / errors))
    p = np.where((means == 0) | (np.isnan(errors) & np.isfinite(means)), 1.0, p)
    p = np.where(np.isinf(means), 0.0, np.where(counts == 0, np.nan, p))
    return means, np.stack([means - Z * errors, means + Z * errors], -1), p


def _compare_overlaps(baseline: Outcomes, ablated: Outcomes, seed: int) -> tuple[Comparison, Comparison]:
    """Compare the mean IoU, and the IoU of each class, by bootstrap over images."""
    resampled, values = [], []
    weights = draw_resamples(baseline.losses.shape[1], seed)
    for outcomes in (baseline, ablated):
        assert outcomes.intersections is not None and outcomes.unions is not None
        intersections, unions = (a.astype(float) for a in (outcomes.intersections, outcomes.unions))
        values.append(divide(intersections.sum(1), unions.sum(1)))
        # (resamples, N) with (conditions, N, classes) is (conditions, resamples, classes).
        resampled.append(divide(weights @ intersections, weights @ unions))
    classes = _summarise_resamples(values[0] - values[1], resampled[0] - resampled[1])
    means = [mean_of_classes(array)[..., None] for array in (*values, *resampled)]
    return _summarise_resamples(means[0] - means[1], means[2] - means[3]), classes


def draw_resamples(n_images: int, seed: int) -> np.ndarray:
    """Draw bootstrap samples of images with a fixed seed.

    Returns:
        How often each image is in each sample, (RESAMPLES, images) float64.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_images, np.full(n_images, 1 / n_images), RESAMPLES).astype(float)


def _summarise_resamples(effects: np.ndarray, resampled: np.ndarray) -> Comparison:
    """Return effects (K, groups) with intervals and p from their resamples (K, resamples, groups)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.std(resampled, axis=1, ddof=1)
        p = 2 * ndtr(-np.abs(effects / errors))
    p = np.where(effects == 0, 1.0, p)
    intervals = np.stack([effects - Z * errors, effects + Z * errors], -1)
    return effects, intervals, p


def estimate_baseline(baseline: Outcomes, measure: Measure, seed: int = 0) -> tuple[float, list[float]]:
    """Return the measure without ablation, with its interval of 95 %.

    Args:
        baseline: One condition.
        measure: What is measured: of accuracy Wilson's interval, of IoU by bootstrap, of the loss Z standard
            errors.
        seed: Of the bootstrap.
    """
    value = float(compute_values(baseline, measure)[0])
    n = baseline.losses.shape[1]
    if measure == "accuracy":
        center = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * np.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
        return value, [float(center - half), float(center + half)]
    if measure == "loss":
        _, errors = _average_groups(baseline.losses.astype(float), np.ones((n, 1)))
        return value, [value - Z * float(errors[0, 0]), value + Z * float(errors[0, 0])]
    assert baseline.intersections is not None and baseline.unions is not None
    weights = draw_resamples(n, seed)
    resampled = mean_of_classes(
        divide(weights @ baseline.intersections.astype(float), weights @ baseline.unions.astype(float))
    )
    low, high = np.percentile(resampled, [2.5, 97.5])
    return value, [float(low), float(high)]


def list_class_values(baseline: Outcomes, measure: Measure, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the measure of each class without ablation, (classes,); NaN of a class without images."""
    if measure == "mean_iou":
        assert baseline.intersections is not None and baseline.unions is not None
        return divide(baseline.intersections[0].sum(0), baseline.unions[0].sum(0))
    rows = baseline.losses if measure == "loss" else baseline.hits
    assert rows is not None
    members = [rows[:, labels == c].astype(float) for c in range(n_classes)]
    return np.array([average_finite(part)[0] if part.size else np.nan for part in members])


def adjust_all(effects: list[Effects]) -> list[Effects]:
    """Adjust the p values of several layers' ablations together, overall and by class.

    Args:
        effects: Those of each layer, with p values as `compare` returns them.
    """
    ends = np.cumsum([len(item.p) for item in effects])[:-1]
    adjusted = {
        name: np.split(adjust_p(np.concatenate([getattr(item, name) for item in effects])), ends)
        for name in ("p", "class_p", "loss_p", "class_loss_p")
    }
    return [
        replace(item, **{name: parts[n] for name, parts in adjusted.items()})
        for n, item in enumerate(effects)
    ]


def adjust_p(p: np.ndarray) -> np.ndarray:
    """Adjust p values for their number by the false discovery rate (Benjamini & Hochberg 1995).

    Args:
        p: p values of any shape; NaN are left out.

    Returns:
        The smallest false discovery rates at which each is significant, of the same shape.
    """
    adjusted = p.copy()
    known = np.flatnonzero(~np.isnan(p))
    values = p.ravel()[known]
    order = values.argsort(kind="stable")[::-1]
    ranks = np.arange(len(values), 0, -1)
    adjusted.ravel()[known[order]] = np.minimum.accumulate(values[order] * len(values) / ranks).clip(max=1)
    return adjusted
