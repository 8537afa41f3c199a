"""Sentences about what stands out in a run, each only where the measurements support it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from convatlas.analysis.chance_level import is_above_chance
from convatlas.records import SegmentationAnalysis, SegmentationLayer
from convatlas.results import Results

MAX_FINDINGS = 3
MIN_HEAD_RATIO = 1.5  # fraction of activation in the head boxes over the boxes' fraction of the area
MIN_AUC_DISTANCE = 0.1  # from 0.5, from which an AUC is reported
MAX_LISTED_UNITS = 12


def list_findings(results: Results) -> list[str]:
    """List at most three findings: the most frequent confusion, inactive units, the sparsest layer.

    Args:
        results: A network's results.
    """
    metrics = cast(Mapping[str, Any], results.metrics or {})
    findings = [_describe_confusion(metrics, results.network["classes"]), *_describe_inactive_units(results)]
    return [finding for finding in findings if finding][:MAX_FINDINGS]


def _describe_confusion(metrics: Mapping[str, Any], classes: Sequence[str]) -> str | None:
    """State the most frequent confusion; None where there is none, only one error, or a tie."""
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
    """List at most three findings about where segmentation emerges.

    Args:
        analysis: masks.json.
    """
    if not analysis["layers"]:
        return []
    findings = [
        _describe_emergence(analysis),
        _describe_high_frequencies(analysis),
        _describe_head_and_pet_units(analysis["layers"]),
    ]
    return [finding for finding in findings if finding]


def _describe_emergence(analysis: SegmentationAnalysis) -> str | None:
    """Name the first layer that reaches 90 % of the last layer's IoU, where that is above chance."""
    layers = analysis["layers"]
    last = layers[-1]
    if not is_above_chance(last):
        return _describe_best_layer(layers)
    emergence = analysis["emergence"]
    assert emergence is not None  # as there are layers
    first = next(layer for layer in layers if layer["ordinal"] == emergence["ordinal"])
    if first is last:
        return (
            "No convolution before the last reaches 90 % of the last one's IoU with the mask: "
            f"{_format_layer(last)}, IoU {last['iou']:.2f} (chance: {last['chance_iou']:.2f})."
        )
    return (
        f"{_format_layer(first)} is the first of {len(layers)} convolutions whose best feature map reaches "
        f"90 % of the last layer's IoU with the mask: {first['iou']:.2f} of {last['iou']:.2f} "
        f"(chance: {first['chance_iou']:.2f})."
    )


def _describe_best_layer(layers: Sequence[SegmentationLayer]) -> str | None:
    """Name the layer with the largest IoU of a network whose last layer does not segment the image."""
    best, last = max(layers, key=lambda layer: layer["iou"]), layers[-1]
    if not is_above_chance(best):
        return None
    return (
        f"The last convolution does not segment the image: {_format_layer(last)} has IoU {last['iou']:.2f} "
        f"(chance: {last['chance_iou']:.2f}); the best is {_format_layer(best)}, IoU {best['iou']:.2f} "
        f"(chance: {best['chance_iou']:.2f})."
    )


def _describe_high_frequencies(analysis: SegmentationAnalysis) -> str | None:
    """Say that high frequencies peak in an earlier layer than the IoU, where they do."""
    layers = analysis["layers"]
    sharpest = max(layers, key=lambda layer: layer["high_frequency_share"])
    best = max(layers, key=lambda layer: layer["iou"])
    if sharpest["ordinal"] >= best["ordinal"] or not is_above_chance(best):
        return None
    return (
        "High-frequency content peaks earlier: the fraction of spectral energy above "
        f"{analysis['cutoff_frequency']:g} cycles per image is highest in {_format_layer(sharpest)} "
        f"({sharpest['high_frequency_share']:.2f}), the IoU with the mask in {_format_layer(best)} "
        f"({best['iou']:.2f})."
    )


def _describe_head_and_pet_units(layers: Sequence[SegmentationLayer]) -> str | None:
    """Name the unit that responds most to heads, and the one that best separates pet from background."""
    sentences = []
    ratios = [
        (head["share"] / head["area"], layer, head)
        for layer in layers
        if (head := layer.get("head")) and head["area"]
    ]
    if ratios:
        ratio, layer, head = max(ratios, key=lambda item: item[0])
        if ratio >= MIN_HEAD_RATIO:
            sentences.append(
                f"Unit {head['unit']} of {_format_layer(layer)} responds to heads: "
                f"{100 * head['share']:.0f} % of its activation lies inside the head boxes, which cover "
                f"{100 * head['area']:.0f} % of the image."
            )
    units = [(unit, layer) for layer in layers for unit in layer.get("selective_units", [])]
    if units:
        unit, layer = max(units, key=lambda pair: abs(pair[0]["auc"] - 0.5))
        if abs(unit["auc"] - 0.5) >= MIN_AUC_DISTANCE:
            suffix = ", lower on the pet" if unit["auc"] < 0.5 else ""
            sentences.append(
                f"Unit {unit['unit']} of {_format_layer(layer)} discriminates pet from background best "
                f"(AUC {unit['auc']:.2f}{suffix})."
            )
    return " ".join(sentences) or None


def _format_layer(layer: SegmentationLayer) -> str:
    """Name a layer with its ordinal."""
    return f"{layer['name']} ({layer['ordinal']})"
