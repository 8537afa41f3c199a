"""Where the mask appears: how well a layer's single maps agree with the masks of a data set.

Three passes over images, one image and one layer's maps at a time: `ranges` finds between which ends each
unit's values lie, `search` chooses units and levels on training images, `evaluate` tests the chosen ones
on others. Nothing that grows with the number of images is kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skimage.color import rgb2gray
from skimage.filters import sobel
from torch import Tensor, nn

from convatlas.analysis.accumulators import (
    HeadShareAccumulator,
    IoUAccumulator,
    MaskHistogram,
    RunningCorrelation,
    Threshold,
    ValueRange,
    average_to_size,
    compute_aucs,
    find_best_threshold,
    high_frequency_share,
    upsample_maps,
)
from convatlas.tracing.calls import Call, trace

MAX_SELECTIVE_UNITS = 3  # units named, at most
EMERGENCE_FRACTION = 0.9  # of the last layer's agreement


@dataclass(frozen=True)
class MaskedImage:
    """One image: the network's input (1, C, H, W), and what its maps are compared with, each (H, W).

    `mask` is true on the pet, `other` is the mask of another image; `edge_magnitude` is that of the
    image's gradient, float32, and `head` is true in the head's box, None where that is not known.
    """

    x: Tensor
    mask: Tensor
    other_mask: Tensor
    edge_magnitude: Tensor
    head_mask: Tensor | None = None


def sobel_magnitude(image: np.ndarray) -> np.ndarray:
    """The Sobel magnitude of an image's brightness, (C, H, W) in 0..1 to (H, W) float32.

    Three channels count by their luminance (Rec. 709), others by their mean.
    """
    gray = rgb2gray(image, channel_axis=0) if len(image) == 3 else image.mean(axis=0)
    return sobel(gray).astype(np.float32)


@torch.no_grad()
def visit_feature_maps(
    network: nn.Module, x: Tensor, layers: Sequence[str], callback: Callable[[str, Tensor], None]
) -> Tensor:
    """Run one image (1, C, H, W); show each layer's maps (units, h, w) float32 to `see`, and keep none.

    Values that are not finite count as 0. Gives the network's output.
    """
    wanted = set(layers)

    def shown(call: Call) -> None:
        if call.layer in wanted:
            callback(call.layer, call.output[0].float().nan_to_num(0, 0, 0))

    with trace(network, shown):
        return network(x.clone())


# The first pass


def measure_ranges(
    network: nn.Module, layers: Sequence[str], images: Iterable[MaskedImage]
) -> dict[str, ValueRange]:
    """The range of each unit of each layer over all images."""
    found: dict[str, ValueRange] = {}

    def see(layer: str, maps: Tensor) -> None:
        span = ValueRange.from_maps(maps)
        found[layer] = found[layer].merge(span) if layer in found else span

    for image in images:
        visit_feature_maps(network, image.x, layers, see)
    return found


# The second pass


@dataclass(frozen=True)
class LayerSelection:
    """What the training images chose of a layer: thresholds for the masks and for those of other images, and
    the units that separate best, follow edges best and see most of the head (None without boxes).

    `magnitude` says that it is the unit's absolute value that follows edges, as that of a filter does that
    is positive on one side of an edge and negative on the other.
    """

    value_range: ValueRange
    mask_threshold: Threshold
    chance_threshold: Threshold
    selective_units: list[int]
    edge_unit: int
    use_magnitude: bool
    head_unit: int | None


class UnitSelector:
    """The sums over training images from which a layer's units and levels are chosen."""

    def __init__(self, span: ValueRange) -> None:
        self.histogram, self.edge_correlation, self.head_share = (
            MaskHistogram(span),
            RunningCorrelation(),
            HeadShareAccumulator(),
        )

    def update(self, maps: Tensor, image: MaskedImage) -> None:
        """Take in a layer's maps (units, h, w) of an image."""
        self.histogram.update(maps, image.mask, image.other_mask)
        self.edge_correlation.update(
            torch.cat([maps, maps.abs()]), average_to_size(image.edge_magnitude, maps.shape[1:])
        )
        self.head_share.update(maps, image.head_mask)

    def result(self) -> LayerSelection:
        """Choose."""
        inside, outside = self.histogram.counts_by_mask("mask")
        magnitude, edge = divmod(int(self.edge_correlation.result().abs().argmax()), len(inside))
        distance = (compute_aucs(inside, outside) - 0.5).abs().nan_to_num(0)
        return LayerSelection(
            self.histogram.value_range,
            find_best_threshold(inside, outside),
            find_best_threshold(*self.histogram.counts_by_mask("other")),
            distance.sort(descending=True, stable=True).indices[:MAX_SELECTIVE_UNITS].tolist(),
            edge,
            bool(magnitude),
            int(self.head_share.share_sum.argmax()) if self.head_share.image_count else None,
        )


def select_layer_units(
    network: nn.Module, layers: Sequence[str], images: Iterable[MaskedImage], spans: Mapping[str, ValueRange]
) -> dict[str, LayerSelection]:
    """Choose each layer's units and levels on training images, given the ranges of the same images."""
    sums = {layer: UnitSelector(spans[layer]) for layer in layers}
    for image in images:
        visit_feature_maps(
            network, image.x, layers, lambda layer, maps, image=image: sums[layer].update(maps, image)
        )
    return {layer: found.result() for layer, found in sums.items()}


# The third pass


class SelectionEvaluator:
    """The sums over test images that say how well a layer's choice does there."""

    def __init__(self, chosen: LayerSelection) -> None:
        self.selection = chosen
        self.mask_overlap, self.chance_overlap = IoUAccumulator(), IoUAccumulator()
        self.histogram = MaskHistogram(chosen.value_range.select_units(chosen.selective_units))
        self.edge_correlation, self.head_share = RunningCorrelation(), HeadShareAccumulator()
        self.high_frequency_sum, self.image_count = torch.zeros((), dtype=torch.float64), 0

    def update(self, maps: Tensor, image: MaskedImage) -> None:
        """Take in a layer's maps (units, h, w) of an image."""
        chosen = self.selection
        units = [chosen.mask_threshold.unit, chosen.chance_threshold.unit]
        best, chance = upsample_maps(
            chosen.value_range.select_units(units).scale_to_bins(maps[units]), image.mask.shape
        )
        self.mask_overlap.update(chosen.mask_threshold.apply(best), image.mask)
        self.chance_overlap.update(chosen.chance_threshold.apply(chance), image.other_mask)
        self.histogram.update(maps[chosen.selective_units], image.mask, image.other_mask)
        edge = maps[[chosen.edge_unit]]
        self.edge_correlation.update(
            edge.abs() if chosen.use_magnitude else edge,
            average_to_size(image.edge_magnitude, maps.shape[1:]),
        )
        if chosen.head_unit is not None:
            self.head_share.update(maps[[chosen.head_unit]], image.head_mask)
        self.high_frequency_sum, self.image_count = (
            self.high_frequency_sum + high_frequency_share(maps).mean(),
            self.image_count + 1,
        )

    def to_dict(self) -> dict[str, Any]:
        """The layer's entry in masks.json, less its name, ordinal, role and shape."""
        chosen = self.selection
        found = compute_aucs(*self.histogram.counts_by_mask("mask")).tolist()
        return {
            "iou": self.mask_overlap.result(),
            "train_iou": chosen.mask_threshold.iou,
            "chance_iou": self.chance_overlap.result(),
            "unit": chosen.mask_threshold.unit,
            "threshold": chosen.value_range.bin_edge_value(
                chosen.mask_threshold.unit, chosen.mask_threshold.bin_edge
            ),
            "at_least": chosen.mask_threshold.at_least,
            "high_frequency_share": float(self.high_frequency_sum) / self.image_count,
            "edge_correlation": abs(float(self.edge_correlation.result()[0])),
            "edge_unit": chosen.edge_unit,
            "edge_magnitude": chosen.use_magnitude,
            "selective_units": [
                {"unit": unit, "auc": auc}
                for unit, auc in zip(chosen.selective_units, found, strict=True)
                if auc == auc  # not NaN, as it is where no test image has a pet
            ],
            "head": self._head_entry(),
        }

    def _head_entry(self) -> dict[str, Any] | None:
        if not self.head_share.image_count:
            return None
        share, area = (
            float(self.head_share.share_sum[0]) / self.head_share.image_count,
            float(self.head_share.area_sum) / self.head_share.image_count,
        )
        return {"unit": self.selection.head_unit, "share": share, "area": area}


def evaluate_selection(
    network: nn.Module, chosen: Mapping[str, LayerSelection], images: Iterable[MaskedImage]
) -> dict[str, dict[str, Any]]:
    """Evaluate each layer's choice on test images: the layer's entry in masks.json."""
    sums = {layer: SelectionEvaluator(choice) for layer, choice in chosen.items()}
    for image in images:
        visit_feature_maps(
            network, image.x, list(chosen), lambda layer, maps, image=image: sums[layer].update(maps, image)
        )
    return {layer: found.to_dict() for layer, found in sums.items()}


# What the curve says


def select_convolutions(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of layers.json that are measured: the convolutions that are called and make maps."""
    return [
        layer
        for layer in layers
        if layer["ordinal"] is not None and layer["called"] and len(layer["output_shape"] or []) == 3
    ]


def find_emergence(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The last layer's agreement, and the first layer that reaches REACHED of it; null without layers."""
    if not layers:
        return {"final": None, "emergence": None}
    final = layers[-1]
    first = next(layer for layer in layers if layer["iou"] >= EMERGENCE_FRACTION * final["iou"])
    return {
        name: {"layer": layer["name"], "ordinal": layer["ordinal"], "iou": layer["iou"]}
        for name, layer in (("final", final), ("emergence", first))
    }
