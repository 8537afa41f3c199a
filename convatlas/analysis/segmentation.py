"""Where segmentation emerges: how well single feature maps of each layer segment the pets of a data set.

Three passes over images, one image and the maps of one layer at a time: `measure_ranges` finds the range of
each unit's values, `select_layer_units` chooses units and thresholds on training images, and
`evaluate_selection` measures them on test images. Memory does not grow with the number of images.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
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
from convatlas.analysis.masked_images import MaskedImage
from convatlas.records import EmergenceLayer, HeadUnit, Layer, SegmentationLayer, UnitSegmentation
from convatlas.tracing.record import for_each_layer

MAX_SELECTIVE_UNITS = 3  # most selective units that are reported for a layer
EMERGENCE_FRACTION = 0.9  # of the IoU of the last layer, at which segmentation counts as emerged


def visit_feature_maps(
    network: nn.Module, x: Tensor, layers: Sequence[str], callback: Callable[[str, Tensor], None]
) -> None:
    """Run a network on one image and pass the maps of some of its layers to a function, keeping none.

    Args:
        network: Any network.
        x: The preprocessed image, (1, C, H, W).
        layers: Names of layers.
        callback: Called with the name and the maps (units, h, w) float32 of each layer; values that are not
            finite are 0.
    """

    def pass_maps(layer: str, output: Tensor) -> None:
        callback(layer, output[0].float().nan_to_num(0, 0, 0))

    for_each_layer(network, x, layers, pass_maps)


# The first pass


def measure_ranges(
    network: nn.Module, layers: Sequence[str], images: Iterable[MaskedImage]
) -> dict[str, ValueRange]:
    """Return the range of each unit of each layer over images.

    Args:
        network: Any network.
        layers: Names of layers.
        images: Images of one split.
    """
    ranges: dict[str, ValueRange] = {}

    def update_range(layer: str, maps: Tensor) -> None:
        value_range = ValueRange.from_maps(maps)
        ranges[layer] = ranges[layer].merge(value_range) if layer in ranges else value_range

    for image in images:
        visit_feature_maps(network, image.x, layers, update_range)
    return ranges


# The second pass


@dataclass(frozen=True)
class SelectedUnits:
    """The units and thresholds of a layer that were chosen on training images.

    Attributes:
        value_range: Ranges of all units on the training images.
        mask_threshold: The unit and threshold that segment the pet best.
        chance_threshold: Those that segment it best where the masks belong to other images.
        selective_units: The units that separate pet and background best, by AUC.
        edge_unit: The unit that correlates best with edges.
        use_magnitude: Whether its absolute value correlates with edges, as of a filter that is positive on
            one side of an edge and negative on the other.
        head_unit: The unit with the largest share of its activation in the head's box; None without boxes.
    """

    value_range: ValueRange
    mask_threshold: Threshold
    chance_threshold: Threshold
    selective_units: list[int]
    edge_unit: int
    use_magnitude: bool
    head_unit: int | None


class UnitSelector:
    """Accumulators over training images from which the units and thresholds of a layer are chosen."""

    def __init__(self, value_range: ValueRange) -> None:
        self.histogram = MaskHistogram(value_range)
        self.edge_correlation = RunningCorrelation()
        self.head_share = HeadShareAccumulator()

    def update(self, maps: Tensor, image: MaskedImage) -> None:
        """Add one training image.

        Args:
            maps: The layer's maps for the image, (units, h, w).
            image: The image and its masks.
        """
        self.histogram.update(maps, image.mask, image.other_mask)
        edges = average_to_size(image.edge_magnitude, maps.shape[1:])
        self.edge_correlation.update(torch.cat([maps, maps.abs()]), edges)
        self.head_share.update(maps, image.head_mask)

    def result(self) -> SelectedUnits:
        """Choose the units and thresholds."""
        inside, outside = self.histogram.counts_by_mask("mask")
        magnitude, edge_unit = divmod(int(self.edge_correlation.result().abs().argmax()), len(inside))
        selectivity = (compute_aucs(inside, outside) - 0.5).abs().nan_to_num(0)
        order = selectivity.sort(descending=True, stable=True).indices
        head_unit = int(self.head_share.share_sum.argmax()) if self.head_share.image_count else None
        return SelectedUnits(
            value_range=self.histogram.value_range,
            mask_threshold=find_best_threshold(inside, outside),
            chance_threshold=find_best_threshold(*self.histogram.counts_by_mask("other_mask")),
            selective_units=order[:MAX_SELECTIVE_UNITS].tolist(),
            edge_unit=edge_unit,
            use_magnitude=bool(magnitude),
            head_unit=head_unit,
        )


def select_layer_units(
    network: nn.Module,
    layers: Sequence[str],
    images: Iterable[MaskedImage],
    ranges: Mapping[str, ValueRange],
) -> dict[str, SelectedUnits]:
    """Choose the units and thresholds of each layer.

    Args:
        network: Any network.
        layers: Names of layers.
        images: Training images.
        ranges: The ranges of the layers' units on the same images.
    """
    selectors = {layer: UnitSelector(ranges[layer]) for layer in layers}

    def update_selector(image: MaskedImage, layer: str, maps: Tensor) -> None:
        selectors[layer].update(maps, image)

    for image in images:
        visit_feature_maps(network, image.x, layers, partial(update_selector, image))
    return {layer: selector.result() for layer, selector in selectors.items()}


# The third pass


class SelectionEvaluator:
    """Accumulators over test images that measure the units and thresholds chosen for a layer."""

    def __init__(self, selection: SelectedUnits) -> None:
        self.selection = selection
        self.mask_overlap, self.chance_overlap = IoUAccumulator(), IoUAccumulator()
        self.histogram = MaskHistogram(selection.value_range.select_units(selection.selective_units))
        self.edge_correlation, self.head_share = RunningCorrelation(), HeadShareAccumulator()
        self.high_frequency_sum, self.image_count = torch.zeros((), dtype=torch.float64), 0

    def update(self, maps: Tensor, image: MaskedImage) -> None:
        """Add one test image.

        Args:
            maps: The layer's maps for the image, (units, h, w).
            image: The image and its masks.
        """
        selection = self.selection
        units = [selection.mask_threshold.unit, selection.chance_threshold.unit]
        scaled = selection.value_range.select_units(units).scale_to_bins(maps[units])
        mask_map, chance_map = upsample_maps(scaled, image.mask.shape)
        self.mask_overlap.update(selection.mask_threshold.apply(mask_map), image.mask)
        self.chance_overlap.update(selection.chance_threshold.apply(chance_map), image.other_mask)
        self.histogram.update(maps[selection.selective_units], image.mask, image.other_mask)
        edge_map = maps[[selection.edge_unit]]
        self.edge_correlation.update(
            edge_map.abs() if selection.use_magnitude else edge_map,
            average_to_size(image.edge_magnitude, maps.shape[1:]),
        )
        if selection.head_unit is not None:
            self.head_share.update(maps[[selection.head_unit]], image.head_mask)
        self.high_frequency_sum = self.high_frequency_sum + high_frequency_share(maps).mean()
        self.image_count += 1

    def to_dict(self) -> UnitSegmentation:
        """Return the layer's entry in masks.json, except for what layers.json says of it."""
        selection = self.selection
        threshold = selection.mask_threshold
        aucs = compute_aucs(*self.histogram.counts_by_mask("mask")).tolist()
        return {
            "iou": self.mask_overlap.result(),
            "train_iou": threshold.iou,
            "chance_iou": self.chance_overlap.result(),
            "unit": threshold.unit,
            "threshold": selection.value_range.bin_edge_value(threshold.unit, threshold.bin_edge),
            "at_least": threshold.at_least,
            "high_frequency_share": float(self.high_frequency_sum) / self.image_count,
            "edge_correlation": abs(float(self.edge_correlation.result()[0])),
            "edge_unit": selection.edge_unit,
            "edge_magnitude": selection.use_magnitude,
            "selective_units": [
                {"unit": unit, "auc": auc}
                for unit, auc in zip(selection.selective_units, aucs, strict=True)
                if auc == auc  # not NaN, as it is if no test image has a pet
            ],
            "head": self._describe_head_unit(),
        }

    def _describe_head_unit(self) -> HeadUnit | None:
        """Return the unit that is chosen for heads with its mean shares; None without boxes."""
        count = self.head_share.image_count
        if self.selection.head_unit is None or not count:
            return None
        share, area = float(self.head_share.share_sum[0]) / count, float(self.head_share.area_sum) / count
        return {"unit": self.selection.head_unit, "share": share, "area": area}


def evaluate_selection(
    network: nn.Module, selections: Mapping[str, SelectedUnits], images: Iterable[MaskedImage]
) -> dict[str, UnitSegmentation]:
    """Measure the units and thresholds chosen for each layer.

    Args:
        network: Any network.
        selections: What was chosen on training images, by the name of the layer.
        images: Test images.

    Returns:
        By the name of the layer, its entry in masks.json, except for what layers.json says of it.
    """
    evaluators = {layer: SelectionEvaluator(selection) for layer, selection in selections.items()}

    def update_evaluator(image: MaskedImage, layer: str, maps: Tensor) -> None:
        evaluators[layer].update(maps, image)

    for image in images:
        visit_feature_maps(network, image.x, list(selections), partial(update_evaluator, image))
    return {layer: evaluator.to_dict() for layer, evaluator in evaluators.items()}


# Over the layers


def select_convolutions(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers that are measured: called convolutions whose outputs are maps.

    Args:
        layers: layers.json.
    """
    return [
        layer
        for layer in layers
        if layer["ordinal"] is not None and layer["called"] and len(layer["output_shape"] or []) == 3
    ]


def find_emergence(
    layers: Sequence[SegmentationLayer],
) -> tuple[EmergenceLayer | None, EmergenceLayer | None]:
    """Return the last layer, and the first layer that reaches EMERGENCE_FRACTION of its IoU.

    Args:
        layers: The layers of masks.json, in order.

    Returns:
        The last layer and the first one, in that order; both None without layers.
    """
    if not layers:
        return None, None
    last = layers[-1]
    first = next(layer for layer in layers if layer["iou"] >= EMERGENCE_FRACTION * last["iou"])
    return _describe_iou(last), _describe_iou(first)


def _describe_iou(layer: SegmentationLayer) -> EmergenceLayer:
    """Return the name, ordinal and IoU of a layer."""
    return {"layer": layer["name"], "ordinal": layer["ordinal"], "iou": layer["iou"]}
