"""Choose, on training images, the units and thresholds of each layer that segment pets best.

Two passes over the images, one image and the maps of one layer at a time: `measure_ranges` finds the range of
each unit's values, and `select_layer_units` chooses units and thresholds. They are measured on test images in
`convatlas.analysis.segmentation_evaluation`. Memory does not grow with the number of images.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from convatlas.analysis.accumulators import (
    HeadShareAccumulator,
    MaskHistogram,
    RunningCorrelation,
    Threshold,
    ValueRange,
    average_to_size,
    compute_aucs,
    find_best_threshold,
)
from convatlas.analysis.masked_images import MaskedImage
from convatlas.records import Layer
from convatlas.tracing.record import for_each_layer

MAX_SELECTIVE_UNITS = 3  # most selective units that are reported for a layer
MIN_IMAGES = 2  # images with finite values, without which a layer is not measured


def visit_feature_maps(
    network: nn.Module, x: Tensor, layers: Sequence[str], callback: Callable[[str, Tensor], None]
) -> None:
    """Run a network on one image and pass the maps of some of its layers to a function, keeping none.

    Args:
        network: Any network.
        x: The preprocessed image, (1, C, H, W).
        layers: Names of layers.
        callback: Called with the name and the maps (units, h, w) float32 of each layer.
    """

    def pass_maps(layer: str, output: Tensor) -> None:
        callback(layer, output[0].float())

    for_each_layer(network, x, layers, pass_maps)


def find_finite_units(maps: Tensor) -> Tensor:
    """Return which units have no NaN and no infinite value, (units,) bool.

    Args:
        maps: The maps of one image, (units, h, w).
    """
    return maps.isfinite().flatten(1).all(1)


# The first pass


@dataclass(frozen=True)
class MeasuredUnits:
    """The units of a layer that are measured: those whose values are finite on every training image.

    Attributes:
        units: Their numbers. Where the attributes of other classes number units, they number these.
        excluded_units: The numbers of all others.
        value_range: Ranges of the units on the training images.
        excluded_images: Numbers of the training images on which no unit of the layer is finite.
    """

    units: list[int]
    excluded_units: list[int]
    value_range: ValueRange
    excluded_images: frozenset[int]

    def select_maps(self, maps: Tensor) -> Tensor:
        """Return the maps of the measured units.

        Args:
            maps: The maps of all units of the layer, (units, h, w).
        """
        return maps[self.units] if self.excluded_units else maps


@dataclass
class RangeAccumulator:
    """The ranges of a layer's units, and which units and images are finite."""

    value_range: ValueRange | None = None
    is_finite: Tensor | None = None  # (units,) bool
    image_count: int = 0
    excluded_images: list[int] = field(default_factory=list)

    def update(self, image: int, maps: Tensor) -> None:
        """Add one training image.

        Args:
            image: Number of the image.
            maps: The layer's maps for the image, (units, h, w).
        """
        is_finite = find_finite_units(maps)
        if not is_finite.any():
            self.excluded_images.append(image)
            return
        value_range = ValueRange.from_maps(maps)
        self.image_count += 1
        self.value_range = value_range if self.value_range is None else self.value_range.merge(value_range)
        self.is_finite = is_finite if self.is_finite is None else self.is_finite & is_finite

    def result(self) -> MeasuredUnits | None:
        """Return the units that are measured; None if there are none, or fewer than MIN_IMAGES images."""
        if self.value_range is None or self.is_finite is None or self.image_count < MIN_IMAGES:
            return None
        units = self.is_finite.nonzero().flatten().tolist()
        excluded_units = (~self.is_finite).nonzero().flatten().tolist()
        value_range = self.value_range.select_units(units)
        return MeasuredUnits(units, excluded_units, value_range, frozenset(self.excluded_images))


def measure_ranges(
    network: nn.Module, layers: Sequence[str], images: Iterable[MaskedImage]
) -> dict[str, MeasuredUnits]:
    """Return the range of each unit of each layer over images.

    Args:
        network: Any network.
        layers: Names of layers.
        images: Training images.

    Returns:
        By the name of the layer; without layers of which no unit is finite on at least MIN_IMAGES images.
    """
    accumulators = {layer: RangeAccumulator() for layer in layers}

    def update_range(image: int, layer: str, maps: Tensor) -> None:
        accumulators[layer].update(image, maps)

    for n, image in enumerate(images):
        visit_feature_maps(network, image.x, layers, partial(update_range, n))
    results = {layer: accumulator.result() for layer, accumulator in accumulators.items()}
    return {layer: result for layer, result in results.items() if result}


# The second pass


@dataclass(frozen=True)
class SelectedUnits:
    """The units and thresholds of a layer that were chosen on training images.

    Attributes:
        measured: The units that are measured, among which the others are numbered.
        mask_threshold: The unit and threshold that segment the pet best.
        chance_threshold: Those that segment it best where the masks belong to other images.
        selective_units: The units that separate pet and background best, by AUC.
        is_higher_on_pet: For each of them, whether its values are higher on the pet.
        edge_unit: The unit that correlates best with edges.
        use_magnitude: Whether its absolute value correlates with edges, as of a filter that is positive on
            one side of an edge and negative on the other.
        head_unit: The unit with the largest share of its activation in the head's box; None without boxes.
    """

    measured: MeasuredUnits
    mask_threshold: Threshold
    chance_threshold: Threshold
    selective_units: list[int]
    is_higher_on_pet: list[bool]
    edge_unit: int
    use_magnitude: bool
    head_unit: int | None


class UnitSelector:
    """Accumulators over training images from which the units and thresholds of a layer are chosen."""

    def __init__(self, measured: MeasuredUnits) -> None:
        self.measured = measured
        self.histogram = MaskHistogram(measured.value_range)
        self.edge_correlation = RunningCorrelation()
        self.head_share = HeadShareAccumulator()

    def update(self, maps: Tensor, image: MaskedImage) -> None:
        """Add one training image.

        Args:
            maps: The layer's maps for the image, (units, h, w).
            image: The image and its masks.
        """
        maps = self.measured.select_maps(maps)
        self.histogram.update(maps, image.mask, image.other_mask)
        edges = average_to_size(image.edge_magnitude, maps.shape[1:])
        self.edge_correlation.update(torch.cat([maps, maps.abs()]), edges)
        self.head_share.update(maps, image.head_mask)

    def result(self) -> SelectedUnits:
        """Choose the units and thresholds."""
        inside, outside = self.histogram.counts_by_mask("mask")
        magnitude, edge_unit = divmod(int(self.edge_correlation.result().abs().argmax()), len(inside))
        aucs = compute_aucs(inside, outside)
        order = (aucs - 0.5).abs().nan_to_num(0).sort(descending=True, stable=True).indices
        selective_units = order[:MAX_SELECTIVE_UNITS].tolist()
        head_unit = int(self.head_share.share_sum.argmax()) if self.head_share.image_count else None
        return SelectedUnits(
            measured=self.measured,
            mask_threshold=find_best_threshold(inside, outside),
            chance_threshold=find_best_threshold(*self.histogram.counts_by_mask("other_mask")),
            selective_units=selective_units,
            is_higher_on_pet=(aucs[selective_units] >= 0.5).tolist(),
            edge_unit=edge_unit,
            use_magnitude=bool(magnitude),
            head_unit=head_unit,
        )


def select_layer_units(
    network: nn.Module, ranges: Mapping[str, MeasuredUnits], images: Iterable[MaskedImage]
) -> dict[str, SelectedUnits]:
    """Choose the units and thresholds of each layer.

    Args:
        network: Any network.
        ranges: The ranges of the layers' units on the same images.
        images: Training images.
    """
    selectors = {layer: UnitSelector(measured) for layer, measured in ranges.items()}

    def update_selector(n: int, image: MaskedImage, layer: str, maps: Tensor) -> None:
        if n not in ranges[layer].excluded_images:
            selectors[layer].update(maps, image)

    for n, image in enumerate(images):
        visit_feature_maps(network, image.x, list(ranges), partial(update_selector, n, image))
    return {layer: selector.result() for layer, selector in selectors.items()}


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
