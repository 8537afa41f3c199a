"""What stands out in a run, in sentences, each only where its data bear it out."""

from pathlib import Path
from typing import Any

import numpy as np

from convatlas.files import Npz

MIN_ABOVE_CHANCE = 0.05  # how far above chance an IoU is said to be an agreement
MIN_HEAD_RATIO = 1.5  # times the box's share of the area, from which a unit is said to see heads
MIN_AUC_DISTANCE = 0.1  # how far from 0.5 an AUC is said to separate


def list_findings(
    folder: Path,
    layers: list[dict[str, Any]],
    images: list[dict[str, Any]],
    metrics: dict[str, Any],
    classes: list[str],
) -> list[str]:
    """Say at most three things about this run, each only where its data bear it out."""
    said = [_describe_confusion(metrics, classes), *_describe_inactive_units(folder, layers, images)]
    return [finding for finding in said if finding][:3]


def _describe_confusion(metrics: dict[str, Any], classes: list[str]) -> str | None:
    if "confusion" not in metrics:
        return None
    counts = np.array(metrics["confusion"], dtype=np.int64)
    wrong = counts - np.diag(counts.diagonal())
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    if wrong.max() < 2 or (wrong == wrong.max()).sum() > 1:
        return None
    if "mean_iou" in metrics:  # of pixels
        return (
            f"The commonest mistake is {classes[true]} taken for {classes[predicted]}: "
            f"{100 * wrong.max() / wrong.sum():.0f} % of the pixels that are wrong on the "
            f"{metrics['images']:,} test images."
        )
    return (
        f"The commonest mistake is {classes[true]} taken for {classes[predicted]}: {wrong.max()} of the "
        f"{wrong.sum()} mistakes on {counts.sum():,} test images."
    )


def _describe_inactive_units(
    folder: Path, layers: list[dict[str, Any]], images: list[dict[str, Any]]
) -> list[str]:
    """Units that stay at zero on every image looked at, and the sparsest layer, after the activations."""
    names = [layer["name"] for layer in layers if layer["kind"] == "activation" and layer["called"]]
    arrays = [Npz(folder / f"activations/{image['name']}.npz") for image in images]
    said, zeros = [], {}
    for name in names:
        values = np.stack([_flatten_maps(a[name]) for a in arrays], axis=1)
        if values.min() < 0:
            continue
        silent = np.flatnonzero(values.max(axis=(1, 2)) == 0)
        zeros[name] = float((values == 0).mean())
        if 0 < len(silent) < len(values):
            listed = ", ".join(map(str, silent[:12])) + (" and others" if len(silent) > 12 else "")
            said.append(
                f"{len(silent)} of the {len(values)} units of {name} {'is' if len(silent) == 1 else 'are'} "
                f"silent on all {len(images)} images looked at: {listed}."
            )
    if zeros and max(zeros.values()) > 0.5:
        sparsest = max(zeros, key=lambda name: zeros[name])
        said.append(
            f"{sparsest} is the sparsest layer: {100 * zeros[sparsest]:.0f} % of its values are zero here."
        )
    return said


def list_emergence_findings(masks: dict[str, Any]) -> list[str]:
    """Say at most three things about where the mask appears, each only where the measurements bear it out.

    `masks` is masks.json.
    """
    if not masks["layers"]:
        return []
    said = [
        _describe_emergence(masks),
        _describe_fine_detail(masks),
        _describe_head_and_pet_units(masks["layers"]),
    ]
    return [sentence for sentence in said if sentence]


def _describe_emergence(masks: dict[str, Any]) -> str | None:
    """Which layer first reaches 90 % of the last one's agreement, where that is more than chance."""
    last = masks["layers"][-1]
    if not _is_above_chance(last):
        return _describe_lost_mask(masks["layers"])
    first = next(layer for layer in masks["layers"] if layer["ordinal"] == masks["reached"]["ordinal"])
    if first is last:
        return (
            f"Only the last convolution reaches 90 % of its own agreement with the mask: {_format_layer(last)}, "
            f"IoU {last['iou']:.2f} where chance gives {last['chance']:.2f}."
        )
    return (
        f"{_format_layer(first)} is the first of {len(masks['layers'])} convolutions whose best map reaches 90 % "
        f"of the last one's agreement with the mask: IoU {first['iou']:.2f} of {last['iou']:.2f}, where "
        f"chance gives {first['chance']:.2f}."
    )


def _describe_lost_mask(layers: list[dict[str, Any]]) -> str | None:
    """Where the mask is best seen, in a network whose last layer does not agree with it."""
    best, last = max(layers, key=lambda layer: layer["iou"]), layers[-1]
    if not _is_above_chance(best):
        return None
    return (
        f"The last convolution does not make the mask: {_format_layer(last)} agrees with it by an IoU of "
        f"{last['iou']:.2f}, where chance gives {last['chance']:.2f}; the best is {_format_layer(best)}, by "
        f"{best['iou']:.2f} where chance gives {best['chance']:.2f}."
    )


def _is_above_chance(layer: dict[str, Any]) -> bool:
    """Whether a layer agrees with the mask by more than chance."""
    return layer["iou"] >= layer["chance"] + MIN_ABOVE_CHANCE


def _describe_fine_detail(masks: dict[str, Any]) -> str | None:
    """Whether fine detail is greatest in an earlier layer than agreement with the mask."""
    layers = masks["layers"]
    fine = max(layers, key=lambda layer: layer["high_frequency"])
    best = max(layers, key=lambda layer: layer["iou"])
    if fine["ordinal"] >= best["ordinal"] or not _is_above_chance(best):
        return None
    return (
        f"Fine detail comes first: the share of energy above {masks['frequency']:g} cycles per image is "
        f"greatest in {_format_layer(fine)} ({fine['high_frequency']:.2f}), the agreement with the mask in "
        f"{_format_layer(best)} (IoU {best['iou']:.2f})."
    )


def _describe_head_and_pet_units(layers: list[dict[str, Any]]) -> str | None:
    """The unit that sees heads most, and the one that best tells pet from background."""
    said = []
    heads = [(layer["head"]["share"] / layer["head"]["area"], layer) for layer in layers
             if layer["head"] and layer["head"]["area"]]  # fmt: skip
    ratio, layer = max(heads, key=lambda pair: pair[0], default=(0.0, layers[0]))
    if ratio >= MIN_HEAD_RATIO:
        head = layer["head"]
        said.append(
            f"Unit {head['unit']} of {_format_layer(layer)} sees heads: {100 * head['share']:.0f} % of its "
            f"activation lies in their boxes, which take {100 * head['area']:.0f} % of the area."
        )
    pairs = [(one, layer) for layer in layers for one in layer["separation"]]
    if pairs:
        one, layer = max(pairs, key=lambda pair: abs(pair[0]["auc"] - 0.5))
        if abs(one["auc"] - 0.5) >= MIN_AUC_DISTANCE:
            lower = ", lower on the pet" if one["auc"] < 0.5 else ""
            said.append(
                f"Unit {one['unit']} of {_format_layer(layer)} separates pet from background best "
                f"(AUC {one['auc']:.2f}{lower})."
            )
    return " ".join(said) or None


def _format_layer(layer: dict[str, Any]) -> str:
    return f"{layer['name']} ({layer['ordinal']})"


def _flatten_maps(output: np.ndarray) -> np.ndarray:
    return output.reshape(len(output), -1)
