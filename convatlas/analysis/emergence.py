"""The layer at which segmentation emerges."""

from collections.abc import Sequence

import numpy as np

from convatlas.analysis.chance_level import CONFIDENCE, Array
from convatlas.records import EmergenceLayer, FinalLayer, SegmentationLayer

EMERGENCE_FRACTION = 0.9  # of the IoU of the last layer, at which segmentation counts as emerged


def describe_final(layer: SegmentationLayer) -> FinalLayer:
    """Return the name, ordinal and IoU of a layer.

    Args:
        layer: The layer's entry in masks.json.
    """
    return {"layer": layer["name"], "ordinal": layer["ordinal"], "iou": layer["iou"]}


def find_emergence(layers: Sequence[SegmentationLayer], resampled_ious: Array) -> EmergenceLayer | None:
    """Return the first layer above chance that reaches EMERGENCE_FRACTION of the IoU of the last layer.

    Args:
        layers: The layers of masks.json, in order.
        resampled_ious: Their IoUs in each resample of the test images, (layers, RESAMPLES).

    Returns:
        The layer, with the interval of its ordinal over the resamples. None if the last layer is not above
        chance, or there are no layers.
    """
    if not layers or not layers[-1]["above_chance"]:
        return None
    candidates = np.array([layer["above_chance"] for layer in layers])
    ious = np.array([layer["iou"] for layer in layers])
    first = layers[int(_find_first(ious[:, None], candidates)[0])]
    ordinals = np.array([layer["ordinal"] for layer in layers])[_find_first(resampled_ious, candidates)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ordinals, [tail, 1 - tail], method="inverted_cdf")
    return {**describe_final(first), "interval": [int(low), int(high)]}


def _find_first(ious: Array, candidates: np.ndarray) -> np.ndarray:
    """Return the first candidate that reaches the fraction of the last IoU, for IoUs (layers, samples)."""
    reaches = (ious >= EMERGENCE_FRACTION * ious[-1]) & candidates[:, None]
    reaches[-1] = True
    first: np.ndarray = reaches.argmax(0)
    return first


def compute_detail_first(resampled_details: Array, resampled_ious: Array) -> float:
    """Return the share of resamples in which the layer with the most detail precedes that of the largest IoU.

    Args:
        resampled_details: The layers' shares of high frequencies, (layers, RESAMPLES).
        resampled_ious: Their IoUs, (layers, RESAMPLES).
    """
    if not len(resampled_ious):
        return 0.0
    most_detail, best_iou = (
        np.nan_to_num(values, nan=-1).argmax(0) for values in (resampled_details, resampled_ious)
    )
    return float((most_detail < best_iou).mean())
