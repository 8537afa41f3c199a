"""What is measured of the units of one layer, summed over the test images.

Sums are kept for each of the permutations and resamples of `convatlas.analysis.chance_level`.
"""

import numpy as np
import torch
from torch import Tensor

from convatlas.analysis.accumulators import (
    BINS,
    HeadShareAccumulator,
    IoUAccumulator,
    MaskHistogram,
    RunningCorrelation,
    assign_bins,
    average_to_size,
    compute_aucs,
    high_frequency_share,
    upsample_maps,
)
from convatlas.analysis.chance_level import Array, PermutedSums, ResampledSums, Resampling
from convatlas.analysis.mask_stack import MaskStack
from convatlas.analysis.masked_images import MaskedImage
from convatlas.analysis.segmentation import SelectedUnits, find_finite_units


class SelectionEvaluator:
    """Accumulators over test images that measure the units and thresholds chosen for a layer."""

    def __init__(self, selection: SelectedUnits, stack: MaskStack) -> None:
        self.selection, self.stack = selection, stack
        self.mask_overlap, self.chance_overlap = IoUAccumulator(), IoUAccumulator()
        self.selective_range = selection.measured.value_range.select_units(selection.selective_units)
        self.histogram = MaskHistogram(self.selective_range)
        self.edge_correlation, self.head_share = RunningCorrelation(), HeadShareAccumulator()
        self.high_frequency_sum, self.image_count = torch.zeros((), dtype=torch.float64), 0
        self.excluded_count = 0
        images = Resampling.draw(len(stack.masks))
        boxes = Resampling.draw(max(len(stack.heads), 1))  # unused without boxes
        self.permuted_overlaps, self.resampled_overlaps = PermutedSums(images), ResampledSums(images)
        self.permuted_bins, self.resampled_bins = PermutedSums(images), ResampledSums(images)
        self.permuted_shares, self.resampled_shares = PermutedSums(boxes), ResampledSums(boxes)
        self.resampled_details = ResampledSums(images)
        self.pet_shares: list[float] = []

    def update(self, n: int, maps: Tensor, image: MaskedImage) -> None:
        """Add one test image, unless one of the measured units has a value on it that is not finite.

        Args:
            n: Number of the image.
            maps: The layer's maps for the image, (units, h, w).
            image: The image and its masks.
        """
        maps = self.selection.measured.select_maps(maps)
        if not find_finite_units(maps).all():
            self.excluded_count += 1
            return
        self.image_count += 1
        self._update_masks(n, maps, image)
        self._update_selective_units(n, maps, image)
        self._update_head_unit(n, maps, image)
        edge_map = maps[[self.selection.edge_unit]]
        self.edge_correlation.update(
            edge_map.abs() if self.selection.use_magnitude else edge_map,
            average_to_size(image.edge_magnitude, maps.shape[1:]),
        )
        share = high_frequency_share(maps).mean()
        self.high_frequency_sum = self.high_frequency_sum + share
        self.resampled_details.update(n, np.array(float(share)))

    def _update_masks(self, n: int, maps: Tensor, image: MaskedImage) -> None:
        """Add the overlaps of the two thresholded maps with the masks."""
        selection = self.selection
        units = [selection.mask_threshold.unit, selection.chance_threshold.unit]
        scaled = selection.measured.value_range.select_units(units).scale_to_bins(maps[units])
        mask_map, chance_map = upsample_maps(scaled, image.mask.shape)
        predicted = selection.mask_threshold.apply(mask_map)
        self.mask_overlap.update(predicted, image.mask)
        self.chance_overlap.update(selection.chance_threshold.apply(chance_map), image.other_mask)
        overlaps = self.stack.overlap(predicted)
        self.permuted_overlaps.update(n, overlaps)
        self.resampled_overlaps.update(n, overlaps[n])

    def _update_selective_units(self, n: int, maps: Tensor, image: MaskedImage) -> None:
        """Add the values of the selective units inside and outside of the masks."""
        selected = maps[self.selection.selective_units]
        self.histogram.update(selected, image.mask, image.other_mask)
        scaled = upsample_maps(self.selective_range.scale_to_bins(selected), image.mask.shape)
        bins = assign_bins(scaled)
        inside = self.stack.count_bins(bins)
        total = np.stack([np.bincount(unit, minlength=BINS) for unit in bins.flatten(1).cpu().numpy()])
        self.permuted_bins.update(n, inside)
        self.resampled_bins.update(n, np.stack([inside[n], total - inside[n]]).astype(np.int32))

    def _update_head_unit(self, n: int, maps: Tensor, image: MaskedImage) -> None:
        """Add the share of activation in the head box, if the image has one."""
        if self.selection.head_unit is None or image.head_mask is None:
            return
        self.head_share.update(maps[[self.selection.head_unit]], image.head_mask)
        number = self.stack.head_numbers[n]
        shares = self.stack.share_in_heads(maps[self.selection.head_unit])
        self.permuted_shares.update(number, shares)
        self.resampled_shares.update(number, shares[number])
        self.pet_shares.append(self.stack.pet_in_head[number])

    def compute_ious(self) -> tuple[Array, Array]:
        """Return the IoU for each permutation, (PERMUTATIONS + 1,), and resample, (RESAMPLES,)."""
        permuted, resampled = self.permuted_overlaps.sums, self.resampled_overlaps.sums
        with np.errstate(invalid="ignore"):
            ious = resampled[:, 0] / resampled[:, 1]
        if np.isnan(ious).all():  # no image shows the pet, and no pixel is predicted as it
            ious = np.zeros_like(ious)
        return permuted[:, 0] / np.maximum(permuted[:, 1], 1), ious

    def compute_selective_aucs(self) -> tuple[Array, Array]:
        """Return the AUC of each selective unit, (units, PERMUTATIONS + 1) and (units, RESAMPLES)."""
        inside = self.permuted_bins.sums
        total = self.histogram.counts.sum((1, 2)).cpu().numpy()
        resampled = self.resampled_bins.sums
        return _compute_aucs(inside, total - inside), _compute_aucs(resampled[:, 0], resampled[:, 1])

    def compute_head_shares(self) -> tuple[Array, Array]:
        """Return the mean share in the head boxes, (PERMUTATIONS + 1,) and (RESAMPLES,)."""
        resampled = self.resampled_shares
        with np.errstate(invalid="ignore"):
            return (
                self.permuted_shares.sums / self.head_share.image_count,
                resampled.sums / resampled.weight,
            )

    def resample_details(self) -> Array:
        """Return the share of high frequencies in each resample, (RESAMPLES,)."""
        with np.errstate(invalid="ignore"):
            return self.resampled_details.sums / self.resampled_details.weight

    def has_heads(self) -> bool:
        """Return whether a unit is chosen for heads, and a test image has a box."""
        return self.selection.head_unit is not None and self.head_share.image_count > 0


def _compute_aucs(inside: np.ndarray, outside: np.ndarray) -> Array:
    """Compute AUCs from counts (samples, units, BINS): (units, samples), NaN without pixels on a side."""
    counts = (torch.from_numpy(side).flatten(0, 1) for side in (inside, outside))
    aucs: Array = compute_aucs(*counts).view(len(inside), -1).numpy().T
    return aucs
