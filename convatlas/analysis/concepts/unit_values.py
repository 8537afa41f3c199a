"""Values of units on images: one per image, and histograms by part of the image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convatlas.analysis.accumulators import BINS, CHUNK_VALUES, ValueRange, assign_bins, upsample_maps
from convatlas.analysis.chance_level import Array
from convatlas.analysis.concepts.images import ConceptImages
from convatlas.analysis.concepts.layer_reader import LayerReader
from convatlas.analysis.segmentation import find_finite_units

Pooling = Literal["mean", "max"]

MAP_DIMS = 3  # of an output that has maps: units, height, width


@dataclass
class ImageValues:
    """One value per unit and image of a layer, and the range of each unit's values.

    Attributes:
        values: The mean or maximum of each unit's map on each image, (units,) each.
        is_finite: Whether all values of a unit are finite, (units,) bool.
        value_range: The range of each unit's values.
        output_dims: Number of axes of the output, with that of the units.
    """

    values: list[Tensor]
    is_finite: Tensor
    value_range: ValueRange
    output_dims: int

    @classmethod
    def from_output(cls, output: Tensor, pooling: Pooling) -> "ImageValues":
        """Return the values of one image.

        Args:
            output: The layer's output, (units, ...).
            pooling: How a map is pooled: its mean or maximum.
        """
        flat = output.flatten(1)
        values = flat.mean(1) if pooling == "mean" else flat.amax(1)
        return cls([values], find_finite_units(output), ValueRange.from_maps(output), output.ndim)

    def update(self, other: "ImageValues") -> None:
        """Add another image.

        Args:
            other: The values of the image.
        """
        self.values += other.values
        self.is_finite = self.is_finite & other.is_finite
        self.value_range = self.value_range.merge(other.value_range)

    @property
    def has_maps(self) -> bool:
        """Whether the outputs are maps, (units, h, w)."""
        return self.output_dims == MAP_DIMS

    def stack(self) -> Array:
        """Return the values, (units, images) float64; 0 for a unit that is not finite on all images."""
        values = torch.stack(self.values, 1).cpu().double().numpy()
        return np.where(self.is_finite.cpu().numpy()[:, None], values, 0)


def measure_values(reader: LayerReader, images: ConceptImages, pooling: Pooling) -> dict[str, ImageValues]:
    """Return the values of each layer's units on each image.

    Args:
        reader: The network and its layers.
        images: The images.
        pooling: How a map is pooled: its mean or maximum.
    """
    results: dict[str, ImageValues] = {}

    def update(image: int, layer: str, output: Tensor) -> None:
        values = ImageValues.from_output(output, pooling)
        if layer in results:
            results[layer].update(values)
        else:
            results[layer] = values

    reader.visit(images, update)
    return results


def iterate_bins(maps: Tensor, value_range: ValueRange, size: torch.Size) -> Iterator[tuple[slice, Tensor]]:
    """Yield ranges of units with the bins of their values, upsampled bilinearly, (units, H, W) int32.

    Args:
        maps: The maps of one image, (units, h, w).
        value_range: The range that the bins divide; values outside fall into the outer bins.
        size: Height and width (H, W).
    """
    scaled = value_range.scale_to_bins(maps).nan_to_num(0, 0, 0)
    step = max(1, CHUNK_VALUES.get(maps.device.type, CHUNK_VALUES["cpu"]) // size.numel())
    for start in range(0, len(maps), step):
        chunk = slice(start, start + step)
        yield chunk, assign_bins(upsample_maps(scaled[chunk], size))


def count_bins(maps: Tensor, value_range: ValueRange, parts: Tensor, n_parts: int) -> Tensor:
    """Count the values of maps, upsampled bilinearly, in each part of the image.

    Args:
        maps: The maps of one image, (units, h, w).
        value_range: The range that the bins divide; values outside fall into the outer bins.
        parts: The part of each pixel, less than `n_parts`: of all units (1, H, W), or (units, H, W).
        n_parts: Number of parts.

    Returns:
        (units, n_parts, BINS) int64.
    """
    counts = torch.zeros(len(maps), n_parts, BINS, dtype=torch.int64, device=maps.device)
    for chunk, bins in iterate_bins(maps, value_range, parts.shape[1:]):
        units = torch.arange(len(bins), dtype=torch.int32, device=bins.device)[:, None]
        part = (parts if len(parts) == 1 else parts[chunk]).int().flatten(1)
        index = (units * n_parts + part) * BINS + bins.flatten(1)
        n_counts = len(bins) * n_parts * BINS
        counts[chunk] = torch.bincount(index.flatten(), minlength=n_counts).view(-1, n_parts, BINS)
    return counts
