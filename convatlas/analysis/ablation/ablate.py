"""Ablate the units of layers, one by one, all together, and in order, and measure what the network loses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from convatlas import UserError
from convatlas.analysis.ablation.effects import (
    Effects,
    adjust_all,
    compare,
    estimate_baseline,
    list_class_values,
)
from convatlas.analysis.ablation.measurement import REPLACEMENTS, Condition, Images, Measurement, Replacement
from convatlas.analysis.ablation.outcomes import (
    Measure,
    Outcomes,
    average_finite,
    choose_measure,
    compute_values,
)
from convatlas.analysis.ablation.removal_curve import RemovalCurve, choose_counts, order_units
from convatlas.models.outputs import LOGITS, Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.tracing.changed_layer import ChangedLayerRuns
from convatlas.training.labelled_images import LabelledImages

MIN_IMAGES = 4  # two in each half


@dataclass(frozen=True)
class LayerAblation:
    """What the ablation of a layer and of its units costs.

    Attributes:
        layer: Its name.
        units: The numbers of the units that were ablated, (K,).
        n_units: How many units it has.
        means: The mean of each of all its units over the images and positions, (n_units,) float32.
        effects: Of each unit, for each replacement.
        layer_effects: Of all units of the layer together, likewise; each has one ablation.
        curves: The measure against the number of units that are ablated, for each replacement.
    """

    layer: str
    units: np.ndarray
    n_units: int
    means: np.ndarray
    effects: Mapping[Replacement, Effects]
    layer_effects: Mapping[Replacement, Effects]
    curves: Mapping[Replacement, RemovalCurve]


@dataclass(frozen=True)
class Ablation:
    """What the ablation of units and layers costs a network.

    Attributes:
        measure: By what the network is measured.
        images: The indices of the images in the split, (N,).
        importance_images: Those on which the order of the units is measured, disjoint from `curve_images`.
        curve_images: Those on which the curves are measured.
        value: The measure without ablation, on all images.
        interval: Its interval of 95 %.
        class_values: The measure of each class, (classes,); NaN without images.
        class_images: Number of images of each class, (classes,); 0 of a segmentation network.
        curve_value: The measure without ablation on `curve_images`.
        layers: The layers.
        left_out: Layers that cannot be ablated, with the reason.
    """

    measure: Measure
    images: np.ndarray
    importance_images: np.ndarray
    curve_images: np.ndarray
    value: float
    interval: list[float]
    class_values: np.ndarray
    class_images: np.ndarray
    curve_value: float
    layers: list[LayerAblation]
    left_out: dict[str, str] = field(default_factory=dict)


def ablate(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: LabelledImages,
    layers: Sequence[str],
    n_classes: int,
    output: Output = LOGITS,
    max_images: int | None = None,
    max_units: int | None = None,
    n_random: int = 5,
    seed: int = 0,
) -> Ablation:
    """Replace the map of each unit of layers by zero, and by its mean, and measure what the network loses.

    The weights stay as they are: nothing is trained again, unlike in table 3 of Zeiler & Fergus. The output
    of a layer is replaced as the layer gives it, before a norm or an activation that follows. Of a module
    that is called several times, a layer is one of the calls. What is computed before a layer is computed
    once for each batch of images.

    Args:
        network: A classifier or a segmentation network; it runs in evaluation mode, and is left as it was.
        preprocessing: Its preprocessing.
        split: Images (N, C, H, W) with classes, or with a mask each.
        layers: Names of layers.
        n_classes: Number of classes.
        output: What the network's output means.
        max_images: How many images to use at most, evenly spaced among those of each class.
        max_units: How many units of a layer to ablate at most, evenly spaced; their curve is of these.
        n_random: Number of random orders.
        seed: Of the random orders, and of the bootstrap.

    Returns:
        The costs of single units and of whole layers on all images; and the curves on one half of the images,
        with units in the order of the rise of the loss on the other half.

    Raises:
        UserError: There are fewer than four images, or the network calls other layers for other images.
    """
    order = choose_images(split, max_images)
    if len(order) < MIN_IMAGES:
        raise UserError(f"ablation needs at least {MIN_IMAGES} images with labels; there are {len(order)}")
    chosen = split[torch.from_numpy(order)]
    importance_half, curve_half = np.arange(0, len(order), 2), np.arange(1, len(order), 2)
    images = Images(network, preprocessing, chosen, output)
    with ChangedLayerRuns(network, layers) as runs:
        measurement = Measurement(images, runs, layers)
        means = {name: values.cpu().numpy() for name, values in measurement.means.items()}
        units = {name: choose_units(len(values), max_units) for name, values in means.items()}
        baseline, outcomes = measurement.ablate_units(units)
        orders = {
            (layer, replacement): order_units(
                measure_importance(baseline, outcomes[layer, replacement], importance_half), n_random, seed
            )
            for layer, replacement in outcomes
        }
        curve_baseline, points = measurement.measure_curves(orders, units, curve_half)

    measure = choose_measure(output)
    labels = np.zeros(len(order), int) if chosen.has_pixel_labels else chosen.labels.cpu().numpy()
    effects, layer_effects = _compare_all(baseline, outcomes, measure, labels, n_classes, seed)
    value, interval = estimate_baseline(baseline, measure, seed)
    curve_value = float(compute_values(curve_baseline, measure)[0])
    return Ablation(
        measure=measure,
        images=order,
        importance_images=order[importance_half],
        curve_images=order[curve_half],
        value=value,
        interval=interval,
        class_values=list_class_values(baseline, measure, labels, n_classes),
        class_images=np.bincount(labels, minlength=n_classes) * (measure != "mean_iou"),
        curve_value=curve_value,
        layers=[
            LayerAblation(
                layer,
                units[layer],
                len(means[layer]),
                means[layer],
                {kind: effects[layer, kind] for kind in REPLACEMENTS},
                {kind: layer_effects[layer, kind] for kind in REPLACEMENTS},
                {
                    kind: _draw_curve(curve_value, points[layer, kind], measure, len(units[layer]), n_random)
                    for kind in REPLACEMENTS
                },
            )
            for layer in means
        ],
        left_out=measurement.left_out,
    )


def measure_importance(baseline: Outcomes, ablated: Outcomes, images: np.ndarray) -> np.ndarray:
    """Return by how much the mean loss of some of the images rises with each unit ablated.

    Args:
        baseline: The outcomes without ablation, of all images.
        ablated: Those with each unit ablated, and last with all.
        images: Indices of the images.
    """
    before, after = (average_finite(part.select_images(images).losses) for part in (baseline, ablated))
    with np.errstate(invalid="ignore"):  # infinite with and without: NaN
        return np.asarray(after[:-1] - before)


def _compare_all(
    baseline: Outcomes,
    outcomes: Mapping[Condition, Outcomes],
    measure: Measure,
    labels: np.ndarray,
    n_classes: int,
    seed: int,
) -> tuple[dict[Condition, Effects], dict[Condition, Effects]]:
    """Compare the outcomes of units, and of layers, with those without ablation; p values are adjusted."""
    units: dict[Condition, Effects] = {}
    layers: dict[Condition, Effects] = {}
    for kind in REPLACEMENTS:
        keys = [key for key in outcomes if key[1] == kind]
        for result, part in ((units, slice(None, -1)), (layers, slice(-1, None))):
            compared = [
                compare(baseline, outcomes[key].select(part), measure, labels, n_classes, seed)
                for key in keys
            ]
            result.update(zip(keys, adjust_all(compared) if compared else [], strict=True))
    return units, layers


def _draw_curve(
    baseline: float, points: Mapping[tuple[int, int], Outcomes], measure: Measure, n_units: int, n_random: int
) -> RemovalCurve:
    """Return a curve from the outcomes at its points."""
    counts = choose_counts(n_units)
    values = np.full((2 + n_random, len(counts)), np.nan)
    for (order, point), outcomes in points.items():
        values[order, point] = compute_values(outcomes, measure)[0]
    values[:, 0], values[:, -1] = baseline, values[0, -1]
    return RemovalCurve(counts, values[0], values[1], values[2:])


def choose_images(split: LabelledImages, max_images: int | None) -> np.ndarray:
    """Return the indices of images of a split, sorted by class, evenly spaced among those of each class.

    Args:
        split: The images.
        max_images: How many at most; None for all.
    """
    n = len(split)
    classes = np.zeros(n) if split.has_pixel_labels else split.labels.cpu().numpy()
    order = classes.argsort(kind="stable")
    if max_images is None or max_images >= n:
        return order
    return np.asarray(order[((np.arange(max_images) + 0.5) * n / max_images).astype(int)])


def choose_units(n_units: int, max_units: int | None) -> np.ndarray:
    """Return the numbers of the units of a layer that are ablated, evenly spaced.

    Args:
        n_units: How many the layer has.
        max_units: How many at most; None for all.
    """
    if max_units is None or max_units >= n_units:
        return np.arange(n_units)
    return ((np.arange(max_units) + 0.5) * n_units / max_units).astype(int)
