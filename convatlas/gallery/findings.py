"""Sentences about what stands out in a run, each only where the measurements support it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from convatlas.records import HeadUnit, SegmentationAnalysis, SegmentationLayer
from convatlas.results import Results

MAX_FINDINGS = 3
MIN_STABILITY = 0.95  # share of the bootstrap resamples in which an order of layers holds
MAX_LISTED_UNITS = 12


def list_findings(results: Results) -> list[str]:
    """List at most three findings: the most frequent confusion, inactive units, the sparsest layer.

    Args:
        results: A network's results.
    """
    metrics = cast(Mapping[str, Any], results.metrics or {})
    findings = [describe_confusion(metrics, results.network["classes"]), *_describe_inactive_units(results)]
    return [finding for finding in findings if finding][:MAX_FINDINGS]


def describe_confusion(metrics: Mapping[str, Any], classes: Sequence[str]) -> str | None:
    """State the most frequent confusion; None where there is none, only one error, or a tie.

    Args:
        metrics: metrics.json.
        classes: The names of the network's classes.
    """
    if "confusion" not in metrics:
        return None
    counts = np.array(metrics["confusion"], dtype=np.int64)
    errors = counts - np.diag(counts.diagonal())
    true, predicted = divmod(int(errors.argmax()), len(errors))
    if errors.max() < 2 or (errors == errors.max()).sum() > 1:
        return None
    confusion = f"Most frequent confusion: {classes[true]} → {classes[predicted]}"
    if "mean_iou" in metrics:  # counts of pixels
        return (
            f"{confusion} ({100 * errors.max() / errors.sum():.0f} % of the misclassified pixels on "
            f"{metrics['images']:,} test images)."
        )
    return f"{confusion} ({errors.max()} of {errors.sum()} errors on {counts.sum():,} test images)."


def _describe_inactive_units(results: Results) -> list[str]:
    """Name the units of each activation layer that are zero on every sample image, and the sparsest layer."""
    names = [layer["name"] for layer in results.layers if layer["kind"] == "activation" and layer["called"]]
    activations = [results.activations(image["name"]) for image in results.images]
    findings: list[str] = []
    zero_fractions: dict[str, float] = {}
    for name in names:
        outputs = [arrays[name] for arrays in activations]
        values = np.stack([output.reshape(len(output), -1) for output in outputs], axis=1)
        if values.min() < 0:
            continue
        inactive = np.flatnonzero(values.max(axis=(1, 2)) == 0)
        zero_fractions[name] = float((values == 0).mean())
        if 0 < len(inactive) < len(values):
            listed = ", ".join(map(str, inactive[:MAX_LISTED_UNITS]))
            suffix = " and others" if len(inactive) > MAX_LISTED_UNITS else ""
            findings.append(
                f"{len(inactive)} of {len(values)} units in {name} {'is' if len(inactive) == 1 else 'are'} "
                f"inactive on all {len(activations)} sample images: {listed}{suffix}."
            )
    if zero_fractions and max(zero_fractions.values()) > 0.5:
        sparsest = max(zero_fractions, key=lambda name: zero_fractions[name])
        findings.append(
            f"{sparsest} has the sparsest activations: {100 * zero_fractions[sparsest]:.0f} % are zero on "
            "the sample images."
        )
    return findings


def list_emergence_findings(analysis: SegmentationAnalysis) -> list[str]:
    """List at most three findings about where segmentation emerges: what is above chance, or that nothing is.

    Args:
        analysis: masks.json.
    """
    if not analysis["layers"]:
        return []
    if math.factorial(analysis["images"]["test"]) * analysis["test"]["significance"] < 1:
        return [
            f"{analysis['images']['test']} test images are too few to distinguish a layer from chance: "
            "at least 4 are needed (views.masks.test)."
        ]
    findings = [
        _describe_emergence(analysis),
        _describe_high_frequencies(analysis),
        _describe_head_and_pet_units(analysis),
    ]
    return [finding for finding in findings if finding]


def _describe_emergence(analysis: SegmentationAnalysis) -> str:
    """Name the first layer that reaches 90 % of the last layer's IoU, where that is above chance."""
    layers, emergence = analysis["layers"], analysis["emergence"]
    if emergence is None:
        return _describe_best_layer(analysis)
    last = layers[-1]
    first = next(layer for layer in layers if layer["ordinal"] == emergence["ordinal"])
    if first is last:
        return (
            "No convolution before the last reaches 90 % of the last one's IoU with the mask: "
            f"{_format_layer(last)}, IoU {_format_iou(last)}."
        )
    low, high = emergence["interval"]
    spread = f" In 95 % of the resamples of the test images it is one of the layers {low} to {high}."
    return (
        f"{_format_layer(first)} is the first of {len(layers)} convolutions whose best feature map reaches "
        f"90 % of the last layer's IoU with the mask: {_format_iou(first)}, of {last['iou']:.2f}, "
        f"on {analysis['images']['test']:,} test images."
        f"{spread if low < high else ''}"
    )


def _describe_best_layer(analysis: SegmentationAnalysis) -> str:
    """Say that the last layer does not segment better than chance, and whether another one does."""
    layers = analysis["layers"]
    above = [layer for layer in layers if layer["above_chance"]]
    if not above:
        return (
            "No layer segments the pet better than chance on these "
            f"{analysis['images']['test']:,} test images."
        )
    best = max(above, key=lambda layer: layer["iou"])
    text = (
        f"{len(above)} of {len(layers)} convolutions segment the pet better than chance; the best is "
        f"{_format_layer(best)}, IoU {_format_iou(best)}."
    )
    if analysis["final"] is None:
        return f"{text} The last convolution is not measured."
    return f"{text} The last, {_format_layer(layers[-1])}, does not: IoU {_format_iou(layers[-1])}."


def _describe_high_frequencies(analysis: SegmentationAnalysis) -> str | None:
    """Say that high frequencies peak in an earlier layer than the IoU, where resampled images agree.

    Nothing is said where the maps of the layer with the largest IoU are too small for such frequencies.
    """
    layers, cutoff = analysis["layers"], analysis["cutoff_frequency"]
    sharpest = max(layers, key=lambda layer: layer["high_frequency_share"])
    best = max(layers, key=lambda layer: layer["iou"])
    is_later = sharpest["ordinal"] < best["ordinal"] and analysis["detail_first"] >= MIN_STABILITY
    if not is_later or not best["above_chance"] or min(best["shape"][1:]) <= 2 * cutoff:
        return None
    return (
        "High-frequency content peaks earlier: the fraction of spectral energy above "
        f"{cutoff:g} cycles per image is highest in {_format_layer(sharpest)}, "
        f"{sharpest['high_frequency_share']:.2f}; the IoU with the mask in {_format_layer(best)}, "
        f"{best['iou']:.2f}."
    )


def _describe_head_and_pet_units(analysis: SegmentationAnalysis) -> str:
    """Name the unit that responds most to heads, and the one that best separates pet from background."""
    layers = analysis["layers"]
    heads = [(layer, layer["head"]) for layer in layers if layer["head"]]
    sentences = [_describe_head_unit(heads)] if heads else []
    return " ".join([*sentences, _describe_pet_unit(layers)])


def _describe_head_unit(heads: Sequence[tuple[SegmentationLayer, HeadUnit]]) -> str:
    """Name the unit with the largest share of its activation in the head boxes, of those above chance."""
    above = [(layer, head) for layer, head in heads if head["above_chance"]]
    if not above:
        return "No unit responds to heads more than by chance and more than to the rest of the pet."
    layer, head = max(above, key=lambda pair: pair[1]["share"])
    low, high = head["interval"]
    return (
        f"Unit {head['unit']} of {_format_layer(layer)} responds to heads: {100 * head['share']:.0f} % of "
        f"its activation lies inside the head boxes (95 % interval: {100 * low:.0f} to {100 * high:.0f} %), "
        f"which cover {100 * head['area']:.0f} % of the image and {100 * head['pet']:.0f} % of the pet; "
        f"inside the boxes of other images lies {100 * head['chance']['mean']:.0f} %."
    )


def _describe_pet_unit(layers: Sequence[SegmentationLayer]) -> str:
    """Name the unit that best separates pet from background, of those above chance."""
    above = [(layer, unit) for layer in layers for unit in layer["selective_units"] if unit["above_chance"]]
    if not above:
        return "No unit discriminates pet from background better than chance."
    layer, unit = max(above, key=lambda pair: abs(pair[1]["auc"] - 0.5))
    suffix = ", lower on the pet" if unit["auc"] < 0.5 else ""
    low, high = unit["interval"]
    return (
        f"Unit {unit['unit']} of {_format_layer(layer)} discriminates pet from background best (AUC "
        f"{unit['auc']:.2f}{suffix}; 95 % interval: {low:.2f} to {high:.2f}; by chance "
        f"{unit['chance']['mean']:.2f})."
    )


def _format_layer(layer: SegmentationLayer) -> str:
    """Name a layer with its ordinal."""
    return f"{layer['name']} ({layer['ordinal']})"


def _format_iou(layer: SegmentationLayer) -> str:
    """Format the IoU of a layer with its chance level."""
    chance = layer["chance"]
    return f"{layer['iou']:.2f} (chance: {chance['low']:.2f} to {chance['high']:.2f})"
