"""Sums over images from which a layer's units are judged: ranges, histograms, correlations, shares.

They take one image's maps (units, h, w) at a time and keep nothing that grows with the number of images.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 64  # between the ends of a unit's values on the training images: the levels that are tried
CHUNK_VALUES = {"cpu": 2**20, "cuda": 2**24}  # values brought to the masks' resolution at a time
CUTOFF_FREQUENCY = 8  # cycles per image, above which detail is fine

Size = tuple[int, int]


@dataclass(frozen=True)
class ValueRange:
    """The ends of each unit's values, both (units,) float32."""

    low: Tensor
    high: Tensor

    @classmethod
    def from_maps(cls, maps: Tensor) -> "ValueRange":
        """The range of the values of maps (units, h, w)."""
        return cls(*torch.aminmax(maps.flatten(1), dim=1))

    def merge(self, other: "ValueRange") -> "ValueRange":
        """The range that holds both."""
        return ValueRange(self.low.minimum(other.low), self.high.maximum(other.high))

    def select_units(self, units: list[int]) -> "ValueRange":
        """The ends of some of the units."""
        return ValueRange(self.low[units], self.high[units])

    def scale_to_bins(self, maps: Tensor) -> Tensor:
        """Bring maps' values to 0..BINS between their unit's ends; those of a constant unit to 0."""
        span = self.high - self.low
        scale = torch.where(span > 0, BINS / span, 0)
        return (maps - self.low[:, None, None]) * scale[:, None, None]

    def bin_edge_value(self, unit: int, edge: int) -> float:
        """The value at an edge between a unit's bins, 0 for the lowest."""
        low, high = float(self.low[unit]), float(self.high[unit])
        return low + (high - low) * edge / BINS


class MaskHistogram:
    """Counts of a layer's values at the masks' resolution, together with the mask's and the other mask's.

    `counts` is (units, mask, other mask, BINS) int64. Values beyond the range fall into the outer bins.
    """

    def __init__(self, span: ValueRange) -> None:
        self.value_range = span
        self.counts = torch.zeros(len(span.low), 2, 2, BINS, dtype=torch.int64, device=span.low.device)

    def update(self, maps: Tensor, mask: Tensor, other: Tensor) -> None:
        """Count maps (units, h, w), brought bilinearly to the size of the masks (H, W)."""
        scaled = self.value_range.scale_to_bins(maps)
        place = ((2 * mask.int() + other.int()) * BINS).int().flatten()
        for part in range(0, len(maps), step := _units_per_chunk(mask)):
            bins = _to_bins(upsample_maps(scaled[part : part + step], mask.shape)).flatten(1)
            bins += place
            bins += 4 * BINS * torch.arange(len(bins), dtype=torch.int32, device=bins.device)[:, None]
            counted = torch.bincount(bins.flatten(), minlength=4 * BINS * len(bins))
            self.counts[part : part + step] += counted.view(-1, 2, 2, BINS)

    def counts_by_mask(self, by: str) -> tuple[Tensor, Tensor]:
        """Counts (units, BINS) inside and outside of the "mask", or of the "other" mask."""
        outside, inside = self.counts.sum(2 if by == "mask" else 1).unbind(1)
        return inside, outside


def upsample_maps(maps: Tensor, size: Size) -> Tensor:
    """Bring maps (units, h, w) to `size` bilinearly."""
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]


def _to_bins(scaled: Tensor) -> Tensor:
    """The bin of each value, int32; works in place."""
    return scaled.clamp_(0, BINS - 1).int()


def _units_per_chunk(mask: Tensor) -> int:
    return max(1, CHUNK_VALUES.get(mask.device.type, CHUNK_VALUES["cpu"]) // mask.numel())


class RunningCorrelation:
    """Pearson's r of each unit's values with one other quantity, over the cells of all images.

    Sums about the mean, merged image by image, in float64: Chan, Golub, LeVeque, Updating formulae and a
    pairwise algorithm for computing sample variances (1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean_x = self.mean_y = self.xx = self.xy = self.yy = torch.zeros(())

    def update(self, maps: Tensor, values: Tensor) -> None:
        """Take in maps (units, h, w) and what they are compared with, (h, w)."""
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
        """The correlations (units,); 0 where either is constant, but for rounding."""
        floor = 1e-12 * self.count
        constant = (self.xx <= floor * self.mean_x.square()) | (self.yy <= floor * self.mean_y.square())
        return torch.where(constant, 0, self.xy / (self.xx * self.yy).sqrt().clamp(min=1e-300))


class HeadShareAccumulator:
    """The share of each unit's positive activation inside the head's box, and the box's of the area.

    Both are means over the images that have a box. A unit that is nowhere positive in an image has no
    share there, which counts as 0: a unit that is seldom active must not be chosen by luck.
    """

    def __init__(self) -> None:
        self.image_count, self.share_sum, self.area_sum = 0, torch.zeros(()), torch.zeros(())

    def update(self, maps: Tensor, head: Tensor | None) -> None:
        """Take in maps (units, h, w) and the box (H, W); a map's cell counts by its part inside."""
        if head is None:
            return
        inside = average_to_size(head, maps.shape[1:]).double()
        positive = maps.clamp(min=0).double()
        total = positive.sum((1, 2))
        self.image_count += 1
        self.share_sum = self.share_sum + (positive * inside).sum((1, 2)) / total.clamp(min=1e-300)
        self.area_sum = self.area_sum + inside.mean()


def average_to_size(values: Tensor, size: Size) -> Tensor:
    """Reduce (H, W) to a map's cells (h, w) float32: the mean over each, pixels counting by their part."""
    rows, columns = (
        _cell_weights(cells, pixels, values.device) for cells, pixels in zip(size, values.shape, strict=True)
    )
    return rows @ values.float() @ columns.T


@lru_cache(maxsize=64)
def _cell_weights(cells: int, pixels: int, device: torch.device) -> Tensor:
    """How much each pixel of a line counts in the mean over each of its equal cells, (cells, pixels)."""
    pixel = torch.arange(pixels, dtype=torch.float64, device=device)
    start = torch.arange(cells, dtype=torch.float64, device=device)[:, None] * (pixels / cells)
    overlap = (start + pixels / cells).minimum(pixel + 1) - start.maximum(pixel)
    return (overlap.clamp(min=0) * (cells / pixels)).float()


def high_frequency_share(maps: Tensor, frequency: float = CUTOFF_FREQUENCY) -> Tensor:
    """The share of each map's spectral energy above `frequency` cycles per image, (units, h, w) to (units,).

    The mean (frequency 0) does not count; a constant map has no energy, and counts 0.
    """
    h, w = maps.shape[1:]
    centred = maps - maps.mean((1, 2), keepdim=True)
    energy = torch.fft.rfft2(centred).abs().double().square()
    energy[:, 0, 0] = 0
    twice = torch.full((energy.shape[2],), 2.0, dtype=torch.float64, device=maps.device)
    twice[0] = 1  # the other columns stand for their conjugates too, the last of an even width apart
    if w % 2 == 0:
        twice[-1] = 1
    energy *= twice
    y = torch.fft.fftfreq(h, 1 / h, device=maps.device)
    x = torch.fft.rfftfreq(w, 1 / w, device=maps.device)
    high = y[:, None].square() + x.square() > frequency**2
    total = energy.sum((1, 2))
    rounding = 1e-12 * (h * w) ** 2 * maps.double().square().mean((1, 2))
    return torch.where(total <= rounding, 0, energy[:, high].sum(1) / total.clamp(min=1e-300))


class IoUAccumulator:
    """The IoU of a threshold's masks with given ones: the sum of intersections over the sum of unions."""

    def __init__(self) -> None:
        self.intersection = self.union = torch.zeros((), dtype=torch.int64)

    def update(self, found: Tensor, mask: Tensor) -> None:
        """Take in two masks (H, W) bool."""
        self.intersection, self.union = (
            self.intersection + (found & mask).sum(),
            self.union + (found | mask).sum(),
        )

    def result(self) -> float:
        """The IoU; 0 where there is no union."""
        return int(self.intersection) / max(int(self.union), 1)


# What is read off the histograms


@dataclass(frozen=True)
class Threshold:
    """A mask made of one map: where its value is at least the level (`above`), or less.

    `edge` is the level's number among the edges of the unit's bins, and `iou` what it reached.
    """

    unit: int
    bin_edge: int
    at_least: bool
    iou: float

    def apply(self, scaled: Tensor) -> Tensor:
        """The mask made of the unit's scaled map at the masks' resolution, (H, W) bool."""
        return scaled >= self.bin_edge if self.at_least else scaled < self.bin_edge


def compute_ious(inside: Tensor, outside: Tensor) -> Tensor:
    """The IoU of every threshold, (units, 2, BINS): at least the level and less than it.

    `inside` and `outside` are the counts (units, BINS) of values inside and outside of the mask. Level 0
    is the lowest edge: there the whole image is "at least", and nothing less.
    """
    inside, outside = inside.double(), outside.double()
    total_in, total_out = inside.sum(1, keepdim=True), outside.sum(1, keepdim=True)
    below_in, below_out = inside.cumsum(1) - inside, outside.cumsum(1) - outside
    above = (total_in - below_in) / (total_in + total_out - below_out).clamp(min=1)
    below = below_in / (total_in + below_out).clamp(min=1)
    return torch.stack([above, below], 1)


def find_best_threshold(inside: Tensor, outside: Tensor) -> Threshold:
    """The unit, level and direction of the largest IoU; of equal ones the first."""
    ious = compute_ious(inside, outside).flatten()
    place = int(ious.argmax())
    unit, rest = divmod(place, 2 * BINS)
    return Threshold(unit, rest % BINS, rest < BINS, float(ious[place]))


def compute_aucs(inside: Tensor, outside: Tensor) -> Tensor:
    """The area under each unit's ROC curve, (units,): the chance that a value inside exceeds one outside.

    Values in one bin count as equal, half. NaN where there is nothing inside or outside.
    """
    below = (outside.cumsum(1) - outside).double()
    won = (inside * (below + outside / 2)).sum(1)
    return won / (inside.sum(1).double() * outside.sum(1))
