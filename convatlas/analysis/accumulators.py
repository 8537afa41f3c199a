"""Accumulators over images for the units of a layer: value ranges, histograms, correlations, shares.

They take the maps (units, h, w) of one image at a time; memory does not grow with the number of images.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 64  # between the minimum and maximum of a unit on the training images: the thresholds that are tried
CHUNK_VALUES = {"cpu": 2**20, "cuda": 2**24}  # values brought to the masks' resolution at a time
CUTOFF_FREQUENCY = 8  # cycles per image, above which detail is fine

Size = tuple[int, int] | torch.Size


@dataclass(frozen=True)
class ValueRange:
    """The minimum and maximum of each unit, both (units,) float32."""

    low: Tensor
    high: Tensor

    @classmethod
    def from_maps(cls, maps: Tensor) -> "ValueRange":
        """Return the range of the values of maps.

        Args:
            maps: The maps of one image, (units, h, w).
        """
        return cls(*torch.aminmax(maps.flatten(1), dim=1))

    def merge(self, other: "ValueRange") -> "ValueRange":
        """Return the smallest range that contains both.

        Args:
            other: The range of the same units on other images.
        """
        return ValueRange(self.low.minimum(other.low), self.high.maximum(other.high))

    def select_units(self, units: list[int]) -> "ValueRange":
        """Return the range of some of the units.

        Args:
            units: Numbers of the units, in the order of the result.
        """
        return ValueRange(self.low[units], self.high[units])

    def scale_to_bins(self, maps: Tensor) -> Tensor:
        """Scale maps from the range of their unit to 0..BINS.

        Args:
            maps: The maps of one image, (units, h, w).

        Returns:
            (units, h, w); 0 for a unit that is constant. Values outside of the range are not clipped.
        """
        span = self.high - self.low
        scale = torch.where(span > 0, BINS / span, 0)
        return (maps - self.low[:, None, None]) * scale[:, None, None]

    def bin_edge_value(self, unit: int, edge: int) -> float:
        """Return the value at an edge between a unit's bins.

        Args:
            unit: Number of the unit.
            edge: Number of the edge: 0 is the unit's minimum, BINS its maximum.
        """
        low, high = float(self.low[unit]), float(self.high[unit])
        return low + (high - low) * edge / BINS


class MaskHistogram:
    """Joint counts of a layer's values at the masks' resolution, the mask, and the mask of another image.

    Attributes:
        value_range: The range that the bins divide; values outside fall into the outer bins.
        counts: (units, mask, other mask, BINS) int64.
    """

    def __init__(self, value_range: ValueRange) -> None:
        self.value_range = value_range
        device = value_range.low.device
        self.counts = torch.zeros(len(value_range.low), 2, 2, BINS, dtype=torch.int64, device=device)

    def update(self, maps: Tensor, mask: Tensor, other_mask: Tensor) -> None:
        """Count the values of an image's maps, upsampled bilinearly to the masks.

        Args:
            maps: The maps of the image, (units, h, w).
            mask: The mask of the image, (H, W) bool.
            other_mask: The mask of another image, (H, W) bool.
        """
        scaled = self.value_range.scale_to_bins(maps)
        mask_offset = ((2 * mask.int() + other_mask.int()) * BINS).int().flatten()
        for start in range(0, len(maps), step := _units_per_chunk(mask)):
            bins = assign_bins(upsample_maps(scaled[start : start + step], mask.shape)).flatten(1)
            bins += mask_offset
            bins += 4 * BINS * torch.arange(len(bins), dtype=torch.int32, device=bins.device)[:, None]
            counts = torch.bincount(bins.flatten(), minlength=4 * BINS * len(bins))
            self.counts[start : start + step] += counts.view(-1, 2, 2, BINS)

    def counts_by_mask(self, by: Literal["mask", "other_mask"]) -> tuple[Tensor, Tensor]:
        """Return the counts of values inside and outside of one of the two masks.

        Args:
            by: "mask" for the image's own mask, "other_mask" for that of another image.

        Returns:
            The counts inside and those outside, both (units, BINS) int64.
        """
        outside, inside = self.counts.sum(2 if by == "mask" else 1).unbind(1)
        return inside, outside


def upsample_maps(maps: Tensor, size: Size) -> Tensor:
    """Resize maps (units, h, w) to a size (H, W) bilinearly.

    Args:
        maps: The maps of one image.
        size: Height and width of the result.
    """
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]


def assign_bins(scaled: Tensor) -> Tensor:
    """Return the bin of each scaled value, int32; changes its argument in place."""
    return scaled.clamp_(0, BINS - 1).int()


def _units_per_chunk(mask: Tensor) -> int:
    """Return the number of units whose maps are upsampled at a time."""
    return max(1, CHUNK_VALUES.get(mask.device.type, CHUNK_VALUES["cpu"]) // mask.numel())


class RunningCorrelation:
    """Pearson's r of each unit's values with another quantity, over the cells of all images.

    Sums about the mean are merged image by image in float64: Chan, Golub, LeVeque, Updating formulae and a
    pairwise algorithm for computing sample variances (1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean_x = self.mean_y = self.xx = self.xy = self.yy = torch.zeros(())

    def update(self, maps: Tensor, values: Tensor) -> None:
        """Add the cells of one image.

        Args:
            maps: The maps of the image, (units, h, w).
            values: The quantity that the maps are correlated with, (h, w).
        """
        x, y = maps.flatten(1).double(), values.flatten().double()
        mean_x, mean_y = x.mean(1), y.mean()
        x, y = x - mean_x[:, None], y - mean_y
        count = self.count + len(y)
        if not self.count:
            self.mean_x, self.mean_y = torch.zeros_like(mean_x), torch.zeros_like(mean_y)
            self.xx, self.xy, self.yy = self.mean_x, self.mean_x, self.mean_y
        dx, dy = mean_x - self.mean_x, mean_y - self.mean_y
        weight = self.count * len(y) / count
        self.xx = self.xx + x.square().sum(1) + weight * dx.square()
        self.xy = self.xy + x @ y + weight * dx * dy
        self.yy = self.yy + y.square().sum() + weight * dy.square()
        self.mean_x = self.mean_x + dx * len(y) / count
        self.mean_y = self.mean_y + dy * len(y) / count
        self.count = count

    def result(self) -> Tensor:
        """Return the correlations (units,); 0 where either side is constant but for rounding."""
        tolerance = 1e-12 * self.count
        constant = self.xx <= tolerance * self.mean_x.square()
        constant = constant | (self.yy <= tolerance * self.mean_y.square())
        return torch.where(constant, 0, self.xy / (self.xx * self.yy).sqrt().clamp(min=1e-300))


class HeadShareAccumulator:
    """The share of each unit's positive activation inside the head's box, and the box's share of the area.

    Sums over the images that have a box. A unit that is inactive on an image adds a share of 0: a unit that
    is seldom active must not be selected by chance.

    Attributes:
        image_count: Number of images that have a box.
        share_sum: Sum of the shares of activation, (units,) float64.
        area_sum: Sum of the shares of the area.
    """

    def __init__(self) -> None:
        self.image_count, self.share_sum, self.area_sum = 0, torch.zeros(()), torch.zeros(())

    def update(self, maps: Tensor, head_mask: Tensor | None) -> None:
        """Add one image.

        A cell that the box covers in part counts by that part.

        Args:
            maps: The maps of the image, (units, h, w).
            head_mask: The head's box as a mask, (H, W) bool. An image without a box, None, does not count.
        """
        if head_mask is None:
            return
        inside = average_to_size(head_mask, maps.shape[1:]).double()
        positive = maps.clamp(min=0).double()
        total = positive.sum((1, 2))
        self.image_count += 1
        self.share_sum = self.share_sum + (positive * inside).sum((1, 2)) / total.clamp(min=1e-300)
        self.area_sum = self.area_sum + inside.mean()


def average_to_size(values: Tensor, size: Size) -> Tensor:
    """Reduce values (H, W) to a map's cells (h, w) float32: the mean over the part of the image of a cell.

    A pixel that lies in two cells counts in each by its part.

    Args:
        values: Values at the resolution of the image.
        size: Height and width of the map.
    """
    rows, columns = (
        _cell_weights(cells, pixels, values.device) for cells, pixels in zip(size, values.shape, strict=True)
    )
    return rows @ values.float() @ columns.T


@lru_cache(maxsize=64)
def _cell_weights(cells: int, pixels: int, device: torch.device) -> Tensor:
    """Return the weight of each pixel of a line in the mean over each of its equal cells, (cells, pixels)."""
    pixel = torch.arange(pixels, dtype=torch.float64, device=device)
    start = torch.arange(cells, dtype=torch.float64, device=device)[:, None] * (pixels / cells)
    overlap = (start + pixels / cells).minimum(pixel + 1) - start.maximum(pixel)
    return (overlap.clamp(min=0) * (cells / pixels)).float()


def high_frequency_share(maps: Tensor, frequency: float = CUTOFF_FREQUENCY) -> Tensor:
    """Compute the share of each map's spectral energy above a frequency.

    Args:
        maps: (units, h, w).
        frequency: In cycles per image.

    Returns:
        (units,) float64. The mean of a map, frequency 0, does not count; a constant map has the share 0.
    """
    h, w = maps.shape[1:]
    centred = maps - maps.mean((1, 2), keepdim=True)
    energy = torch.fft.rfft2(centred).abs().double().square()
    energy[:, 0, 0] = 0
    # Columns of the half spectrum count for their conjugates too, except the first, and the last of an even
    # width.
    weight = torch.full((energy.shape[2],), 2.0, dtype=torch.float64, device=maps.device)
    weight[0] = 1
    if w % 2 == 0:
        weight[-1] = 1
    energy *= weight
    y = torch.fft.fftfreq(h, 1 / h, device=maps.device)
    x = torch.fft.rfftfreq(w, 1 / w, device=maps.device)
    is_high = y[:, None].square() + x.square() > frequency**2
    total = energy.sum((1, 2))
    rounding = 1e-12 * (h * w) ** 2 * maps.double().square().mean((1, 2))
    return torch.where(total <= rounding, 0, energy[:, is_high].sum(1) / total.clamp(min=1e-300))


class IoUAccumulator:
    """The intersection over union of predicted and true masks: of sums over all images."""

    def __init__(self) -> None:
        self.intersection = self.union = torch.zeros((), dtype=torch.int64)

    def update(self, predicted: Tensor, mask: Tensor) -> None:
        """Add a predicted and a true mask.

        Args:
            predicted: The predicted mask, (H, W) bool.
            mask: The true mask, (H, W) bool.
        """
        self.intersection = self.intersection + (predicted & mask).sum()
        self.union = self.union + (predicted | mask).sum()

    def result(self) -> float:
        """Return the IoU; 0 if the union is empty."""
        return int(self.intersection) / max(int(self.union), 1)


# Read from histograms


@dataclass(frozen=True)
class Threshold:
    """A threshold that turns the maps of one unit into masks.

    Attributes:
        unit: Number of the unit.
        bin_edge: Number of the threshold among the edges of the unit's bins, from 0.
        at_least: Whether the mask is where values are at least the threshold, or where they are less.
        iou: The IoU with the masks that it was chosen on.
    """

    unit: int
    bin_edge: int
    at_least: bool
    iou: float

    def apply(self, scaled: Tensor) -> Tensor:
        """Return the mask that the threshold makes of the unit's map, (H, W) bool.

        Args:
            scaled: The unit's map, scaled to bins and at the resolution of the masks, (H, W).
        """
        return scaled >= self.bin_edge if self.at_least else scaled < self.bin_edge


def compute_ious(inside: Tensor, outside: Tensor) -> Tensor:
    """Compute the IoU of every threshold of every unit.

    Args:
        inside: Counts of values inside of the mask, (units, BINS).
        outside: Counts of values outside of the mask, (units, BINS).

    Returns:
        (units, 2, BINS) float64: of values at least the threshold, then of values less than it. Threshold 0
        is the unit's minimum: all values are at least that, and none is less.
    """
    inside, outside = inside.double(), outside.double()
    total_inside, total_outside = inside.sum(1, keepdim=True), outside.sum(1, keepdim=True)
    less_inside, less_outside = inside.cumsum(1) - inside, outside.cumsum(1) - outside
    at_least = (total_inside - less_inside) / (total_inside + total_outside - less_outside).clamp(min=1)
    less = less_inside / (total_inside + less_outside).clamp(min=1)
    return torch.stack([at_least, less], 1)


def find_best_threshold(inside: Tensor, outside: Tensor) -> Threshold:
    """Return the threshold of the largest IoU over all units, bin edges and directions.

    Of equal IoUs the first counts: of the lowest unit, then of "at least", then of the lowest edge.

    Args:
        inside: Counts of values inside of the mask, (units, BINS).
        outside: Counts of values outside of the mask, (units, BINS).
    """
    ious = compute_ious(inside, outside).flatten()
    best = int(ious.argmax())
    unit, index = divmod(best, 2 * BINS)
    return Threshold(unit, index % BINS, index < BINS, float(ious[best]))


def compute_aucs(inside: Tensor, outside: Tensor) -> Tensor:
    """Compute the area under each unit's ROC curve: the chance that a value inside exceeds one outside.

    Args:
        inside: Counts of values inside of the mask, (units, BINS).
        outside: Counts of values outside of the mask, (units, BINS).

    Returns:
        (units,) float64. Values in one bin count as equal, by half. NaN if there is no value inside, or
        none outside.
    """
    less = (outside.cumsum(1) - outside).double()
    wins = (inside * (less + outside / 2)).sum(1)
    return wins / (inside.sum(1).double() * outside.sum(1))
