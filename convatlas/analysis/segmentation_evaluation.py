"""Measure, on test images, the units and thresholds that were chosen for each layer, and their chance levels.

One pass over the images, one image and the maps of one layer at a time, after a pass that stacks their masks.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor, nn

from convatlas.analysis import chance_level
from convatlas.analysis.accumulators import compute_aucs
from convatlas.analysis.chance_level import Array, compute_interval
from convatlas.analysis.mask_stack import MaskStack
from convatlas.analysis.masked_images import MaskedImage
from convatlas.analysis.segmentation import MIN_IMAGES, SelectedUnits, visit_feature_maps
from convatlas.analysis.selection_evaluator import SelectionEvaluator
from convatlas.records import ChanceLevel, HeadUnit, SelectiveUnit, UnitSegmentation


@dataclass(frozen=True)
class PValues:
    """The p-values of a layer, adjusted for all layers.

    Attributes:
        mask: Of the IoU.
        selective: Of the AUC of each selective unit; a unit that is lower on the pet has 1 minus its AUC.
        head: Of the share of activation in the head boxes; 1 without boxes.
    """

    mask: float
    selective: list[float]
    head: float


def _compute_p_values(evaluators: Mapping[str, SelectionEvaluator]) -> dict[str, PValues]:
    """Return the p-values of each layer, of which the IoUs, AUCs and shares are three families."""
    masks = chance_level.adjust_p_values(
        np.stack([evaluator.compute_ious()[0] for evaluator in evaluators.values()])
    )
    aucs = [
        auc if is_higher else 1 - auc
        for evaluator in evaluators.values()
        for auc, is_higher in zip(
            evaluator.compute_selective_aucs()[0], evaluator.selection.is_higher_on_pet, strict=True
        )
    ]
    selective = iter(chance_level.adjust_p_values(np.nan_to_num(np.stack(aucs), nan=0.5)))
    with_heads = [evaluator for evaluator in evaluators.values() if evaluator.has_heads()]
    shares = [evaluator.compute_head_shares()[0] for evaluator in with_heads]
    heads: Iterator[float] = iter(chance_level.adjust_p_values(np.stack(shares)) if shares else [])
    return {
        layer: PValues(
            float(mask),
            [float(next(selective)) for _ in evaluator.selection.selective_units],
            float(next(heads)) if evaluator.has_heads() else 1.0,
        )
        for mask, (layer, evaluator) in zip(masks, evaluators.items(), strict=True)
    }


def describe_layer(evaluator: SelectionEvaluator, p_values: PValues, pet_share: float) -> UnitSegmentation:
    """Return the layer's entry in masks.json, except for what layers.json says of it.

    Args:
        evaluator: The layer's measurements.
        p_values: Their p-values.
        pet_share: The share of the test images' pixels that show a pet: the IoU of a mask of all pixels.
    """
    selection = evaluator.selection
    measured, threshold = selection.measured, selection.mask_threshold
    permuted, resampled = evaluator.compute_ious()
    iou, chance_iou = evaluator.mask_overlap.result(), evaluator.chance_overlap.result()
    chance = chance_level.describe_chance(permuted, p_values.mask)
    baseline = max(chance["mean"], chance_iou, pet_share)
    return {
        "iou": iou,
        "train_iou": threshold.iou,
        "chance_iou": chance_iou,
        "interval": compute_interval(resampled),
        "chance": chance,
        "above_chance": _is_significant(chance) and iou >= baseline + chance_level.MIN_IOU_EFFECT,
        "unit": measured.units[threshold.unit],
        "threshold": measured.value_range.bin_edge_value(threshold.unit, threshold.bin_edge),
        "at_least": threshold.at_least,
        "high_frequency_share": float(evaluator.high_frequency_sum) / evaluator.image_count,
        "edge_correlation": abs(float(evaluator.edge_correlation.result()[0])),
        "edge_unit": measured.units[selection.edge_unit],
        "edge_magnitude": selection.use_magnitude,
        "selective_units": _describe_selective_units(evaluator, p_values.selective),
        "head": _describe_head_unit(evaluator, p_values.head) if evaluator.has_heads() else None,
        "excluded": {
            "units": measured.excluded_units,
            "train": len(measured.excluded_images),
            "test": evaluator.excluded_count,
        },
    }


def _is_significant(chance: ChanceLevel) -> bool:
    """Return whether a measurement is larger than the permutations explain."""
    return chance["p"] <= chance_level.SIGNIFICANCE


def _describe_selective_units(evaluator: SelectionEvaluator, p_values: list[float]) -> list[SelectiveUnit]:
    """Return the units chosen by their AUC with their AUCs; none if no test image has a pet."""
    selection = evaluator.selection
    aucs = compute_aucs(*evaluator.histogram.counts_by_mask("mask")).tolist()
    units: list[SelectiveUnit] = []
    for n, (permuted, resampled) in enumerate(zip(*evaluator.compute_selective_aucs(), strict=True)):
        if np.isnan(permuted).any():
            continue
        chance = chance_level.describe_chance(permuted, p_values[n])
        sign = 1 if selection.is_higher_on_pet[n] else -1
        effect = min(sign * (aucs[n] - 0.5), sign * (aucs[n] - chance["mean"]))
        units.append(
            {
                "unit": selection.measured.units[selection.selective_units[n]],
                "auc": aucs[n],
                "interval": compute_interval(resampled),
                "chance": chance,
                "above_chance": _is_significant(chance) and effect >= chance_level.MIN_AUC_EFFECT,
            }
        )
    return units


def _describe_head_unit(evaluator: SelectionEvaluator, p_value: float) -> HeadUnit:
    """Return the unit that is chosen for heads with its mean share, and the baselines of that share."""
    selection, count = evaluator.selection, evaluator.head_share.image_count
    assert selection.head_unit is not None  # as there are boxes
    share = float(evaluator.head_share.share_sum[0]) / count
    area = float(evaluator.head_share.area_sum) / count
    pet_shares = np.array(evaluator.pet_shares)
    pet = 0.0 if np.isnan(pet_shares).all() else float(np.nanmean(pet_shares))
    permuted, resampled = evaluator.compute_head_shares()
    chance, interval = chance_level.describe_chance(permuted, p_value), compute_interval(resampled)
    is_large = share >= chance_level.MIN_HEAD_RATIO * max(area, chance["mean"]) and interval[0] > pet
    return {
        "unit": selection.measured.units[selection.head_unit],
        "share": share,
        "area": area,
        "pet": pet,
        "interval": interval,
        "chance": chance,
        "above_chance": _is_significant(chance) and is_large,
    }


@dataclass(frozen=True)
class Evaluation:
    """What is measured of all layers on the test images.

    Attributes:
        layers: By the name of the layer, its entry in masks.json, except for what layers.json says of it.
            Layers with finite values on fewer than MIN_IMAGES images are missing.
        resampled_ious: The IoU of each layer in each resample, (layers, RESAMPLES).
        resampled_details: Its share of high frequencies, (layers, RESAMPLES).
    """

    layers: dict[str, UnitSegmentation]
    resampled_ious: Array
    resampled_details: Array


def evaluate_selection(
    network: nn.Module, selections: Mapping[str, SelectedUnits], images: Iterable[MaskedImage]
) -> Evaluation:
    """Measure the units and thresholds chosen for each layer.

    Args:
        network: Any network.
        selections: What was chosen on training images, by the name of the layer.
        images: Test images; iterated twice.
    """
    stack = MaskStack.from_images(images)
    evaluators = {layer: SelectionEvaluator(selection, stack) for layer, selection in selections.items()}

    def update_evaluator(n: int, image: MaskedImage, layer: str, maps: Tensor) -> None:
        evaluators[layer].update(n, maps, image)

    for n, image in enumerate(images):
        visit_feature_maps(network, image.x, list(selections), partial(update_evaluator, n, image))
    evaluators = {
        layer: evaluator for layer, evaluator in evaluators.items() if evaluator.image_count >= MIN_IMAGES
    }
    if not evaluators:
        return Evaluation({}, np.zeros((0, 0)), np.zeros((0, 0)))
    p_values = _compute_p_values(evaluators)
    pet_share = float(stack.masks.double().mean())
    return Evaluation(
        {
            layer: describe_layer(evaluator, p_values[layer], pet_share)
            for layer, evaluator in evaluators.items()
        },
        np.stack([evaluator.compute_ious()[1] for evaluator in evaluators.values()]),
        np.stack([evaluator.resample_details() for evaluator in evaluators.values()]),
    )
