"""Measure, on test images, the concepts that were chosen for the units on training images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from convatlas.analysis.accumulators import BINS, ValueRange, compute_aucs
from convatlas.analysis.chance_level import CONFIDENCE, PERMUTATIONS, Array, PermutedSums, Resampling
from convatlas.analysis.concepts.images import IGNORED, INSIDE, N_PARTS, RIVAL, ConceptImages, RegionConcept
from convatlas.analysis.concepts.layer_reader import LayerReader
from convatlas.analysis.concepts.selection import ChosenConcepts, compute_image_aucs
from convatlas.analysis.concepts.unit_values import count_bins, iterate_bins

UNITS_PER_CHUNK = 16  # whose resamples are in memory at a time


@dataclass(frozen=True)
class Measurement:
    """What is measured of the concepts of one type for the units of a layer.

    Attributes:
        auc: The AUC on the test images, (units,); NaN without a concept.
        permuted: The AUC for each permutation of the images' annotations, of which the first is the
            identity, (units, PERMUTATIONS + 1).
        counts: Of regions, counts of values by image and part, (images, units, N_PARTS, BINS) uint16.
    """

    auc: Array
    permuted: Array
    counts: npt.NDArray[np.uint16] | None = None


# Regions


@dataclass(frozen=True)
class RegionMasks:
    """The masks of a region on the test images on which it is known, for chance levels by permutation.

    Attributes:
        masks: (images, pixels) float32.
        numbers: Of each image its number among those on which the region is known; the others are missing.
    """

    masks: Tensor
    numbers: Mapping[int, int]

    @classmethod
    def from_images(cls, images: ConceptImages, region: RegionConcept) -> "RegionMasks":
        """Stack the masks of a region.

        Args:
            images: Images with regions.
            region: The region.
        """
        parts = [region.select_parts(codes) for codes in images.codes or ()]
        known = [n for n, part in enumerate(parts) if bool((part != IGNORED).any())]
        masks = [(parts[n] == INSIDE).flatten().float() for n in known]
        return cls(torch.stack(masks) if masks else torch.zeros(0, 0), {n: m for m, n in enumerate(known)})


def measure_regions(
    reader: LayerReader,
    chosen: Mapping[str, ChosenConcepts],
    ranges: Mapping[str, ValueRange],
    images: ConceptImages,
    regions: Sequence[RegionConcept],
) -> dict[str, Measurement]:
    """Measure how well each unit separates its region on test images, and its chance level.

    Two passes over the images: the first counts values, and the second ranks them among all values of the
    unit and sums the ranks in the mask of every image. The AUC is that sum but for constants, so that the
    sum of one mask per image, in any permutation, gives its AUC.

    Args:
        reader: The network and its layers.
        chosen: What was chosen on training images, by layer with maps.
        ranges: The ranges of the units on the training images.
        images: Test images.
        regions: The regions.
    """
    counts = _count_parts(reader, chosen, ranges, images, regions)
    masks = [RegionMasks.from_images(images, region) for region in regions]
    permuted = _permute_masks(reader, chosen, ranges, images, counts, masks)
    measurements = {}
    for layer, layer_counts in counts.items():
        inside, outside = sum_parts(layer_counts)
        measurements[layer] = Measurement(
            compute_aucs(inside, outside).numpy(), permuted[layer], layer_counts
        )
    return measurements


def _count_parts(
    reader: LayerReader,
    chosen: Mapping[str, ChosenConcepts],
    ranges: Mapping[str, ValueRange],
    images: ConceptImages,
    regions: Sequence[RegionConcept],
) -> dict[str, npt.NDArray[np.uint16]]:
    """Count the values of each unit in the parts into which its region divides each image."""
    assert images.codes is not None
    codes = images.codes
    counts = {
        layer: np.zeros((len(images), len(choice.concept), N_PARTS, BINS), np.uint16)
        for layer, choice in chosen.items()
    }

    def update(image: int, layer: str, output: Tensor) -> None:
        value_range = ranges[layer]
        for number, region in enumerate(regions):
            units = chosen[layer].find_units(number).tolist()
            if units:
                parts = region.select_parts(codes[image])[None]
                new = count_bins(output[units], value_range.select_units(units), parts, N_PARTS + 1)
                counts[layer][image, units] = new[:, :N_PARTS].cpu().numpy().astype(np.uint16)

    reader.visit(images, update, list(chosen))
    return counts


def sum_parts(counts: npt.NDArray[np.uint16]) -> tuple[Tensor, Tensor]:
    """Return the counts inside and outside over all images, both (units, BINS) int64.

    Args:
        counts: Counts by image and part, (images, units, N_PARTS, BINS).
    """
    total = torch.from_numpy(counts.sum(0, dtype=np.int64))
    return total[:, INSIDE], total[:, INSIDE + 1 :].sum(1)


def _permute_masks(
    reader: LayerReader,
    chosen: Mapping[str, ChosenConcepts],
    ranges: Mapping[str, ValueRange],
    images: ConceptImages,
    counts: Mapping[str, npt.NDArray[np.uint16]],
    masks: Sequence[RegionMasks],
) -> dict[str, Array]:
    """Compute the AUC of each unit for each permutation of the masks, (units, PERMUTATIONS + 1)."""
    assert images.codes is not None
    size = images.codes[0].shape
    ranks = {layer: _rank_bins(layer_counts) for layer, layer_counts in counts.items()}
    sums: dict[tuple[str, int], PermutedSums] = {}

    def update(image: int, layer: str, output: Tensor) -> None:
        for concept, region_masks in enumerate(masks):
            units = chosen[layer].find_units(concept).tolist()
            if not units or image not in region_masks.numbers:
                continue
            number, tables = region_masks.numbers[image], ranks[layer][units].to(output.device)
            rank_sums = [
                tables[chunk].gather(1, bins.flatten(1).long()) @ region_masks.masks.T
                for chunk, bins in iterate_bins(output[units], ranges[layer].select_units(units), size)
            ]
            resampling = Resampling.draw(len(region_masks.masks))
            unit_sums = sums.setdefault((layer, concept), PermutedSums(resampling))
            unit_sums.update(number, torch.cat(rank_sums).T.cpu().double().numpy())

    reader.visit(images, update, list(chosen))
    permuted = {
        layer: np.full((len(choice.concept), PERMUTATIONS + 1), np.nan) for layer, choice in chosen.items()
    }
    for (layer, concept), unit_sums in sums.items():
        units = chosen[layer].find_units(concept)
        n_inside = float(masks[concept].masks.double().sum())
        n_all = float(counts[layer][:, units[0]].sum(dtype=np.int64))
        with np.errstate(invalid="ignore", divide="ignore"):
            permuted[layer][units] = ((unit_sums.sums.T / n_inside) * n_all - n_inside / 2) / (
                n_all - n_inside
            )
    return permuted


def _rank_bins(counts: npt.NDArray[np.uint16]) -> Tensor:
    """Return the rank of each bin of a unit among its values on all images, in 0..1, (units, BINS).

    It is the share of the values in lower bins, and half of the share in the bin itself.
    """
    total = counts.sum((0, 2), dtype=np.int64).astype(np.float64)
    ranks = (total.cumsum(1) - total / 2) / np.maximum(total.sum(1, keepdims=True), 1)
    return torch.from_numpy(ranks.astype(np.float32))


def compute_ious(
    counts: npt.NDArray[np.uint16], chosen: ChosenConcepts
) -> tuple[Array, Array, npt.NDArray[np.float64]]:
    """Compute the IoU of each unit at its threshold, and the largest that so many pixels could reach.

    Args:
        counts: Counts by image and part on test images, (images, units, N_PARTS, BINS).
        chosen: The concepts and thresholds, chosen on training images.

    Returns:
        The IoU over all images; its ceiling, min(a, m) / max(a, m) for a active pixels and a region of m;
        and the share of active pixels. NaN without a concept. All (units,).
    """
    inside, outside = (part.numpy() for part in sum_parts(counts))
    is_active = np.arange(BINS) >= chosen.bin_edge[:, None]
    is_active = np.where(chosen.is_high[:, None], is_active, ~is_active)
    overlap, other = (inside * is_active).sum(1), (outside * is_active).sum(1)
    region, active = inside.sum(1), overlap + other
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = overlap / (region + other)
        ceiling = np.minimum(active, region) / np.maximum(active, region)
        share = active / (inside.sum(1) + outside.sum(1))
    return iou, ceiling, share


def resample_region_aucs(counts: npt.NDArray[np.uint16], rival: bool = False) -> tuple[Array, Array]:
    """Compute the central interval of the AUC of units over bootstrap resamples of the test images.

    Args:
        counts: Counts by image and part of the units, (images, units, N_PARTS, BINS).
        rival: Whether the AUC is that of the region and its rival, instead of all other pixels.

    Returns:
        Its low and high ends, (units,).
    """
    counts = counts[counts.any((1, 2, 3))]  # images on which the region is not known have no counts
    weights = Resampling.draw(len(counts)).weights.astype(np.float32)
    intervals = []
    for start in range(0, counts.shape[1], UNITS_PER_CHUNK):
        chunk = counts[:, start : start + UNITS_PER_CHUNK].astype(np.float32)
        sums = (weights @ chunk.reshape(len(chunk), -1)).reshape(len(weights), *chunk.shape[1:])
        outside = sums[:, :, RIVAL] if rival else sums[:, :, INSIDE + 1 :].sum(2)
        sides = (torch.from_numpy(side).double().flatten(0, 1) for side in (sums[:, :, INSIDE], outside))
        intervals.append(_interval(compute_aucs(*sides).view(len(weights), -1).numpy()))
    low, high = np.concatenate(intervals, axis=1) if intervals else np.zeros((2, 0))
    return low, high


def compute_rival_aucs(counts: npt.NDArray[np.uint16]) -> Array:
    """Compute the AUC of each unit between its region and the region's rival.

    Args:
        counts: Counts by image and part of the units, (images, units, N_PARTS, BINS).

    Returns:
        (units,); NaN where the rival is in no image.
    """
    total = torch.from_numpy(counts.sum(0, dtype=np.int64))
    aucs: Array = compute_aucs(total[:, INSIDE], total[:, RIVAL]).numpy()
    return aucs


def _interval(values: Array) -> Array:
    """Return the central interval of values over resamples: (2, units) of (resamples, units)."""
    tail = (1 - CONFIDENCE) / 2
    interval: Array = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return interval


# Kinds of image


def measure_kinds(values: Array, chosen: ChosenConcepts, shows: npt.NDArray[np.bool_]) -> Measurement:
    """Measure how well each unit separates its kind of image on test images, and its chance level.

    Args:
        values: The units' values on test images, (units, images).
        chosen: What was chosen on training images.
        shows: Whether an image is of a kind, (concepts, images).
    """
    auc = np.full(len(values), np.nan)
    permuted = np.full((len(values), PERMUTATIONS + 1), np.nan)
    permutations = Resampling.draw(values.shape[1]).permutations
    for concept in np.unique(chosen.concept[chosen.concept >= 0]):
        units = chosen.find_units(int(concept))
        permuted[units] = compute_image_aucs(values[units], shows[concept][permutations])[0].T
        auc[units] = permuted[units, 0]
    return Measurement(auc, permuted)


def resample_image_aucs(values: Array, shows: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Compute the central interval of the AUC of units over bootstrap resamples of the test images.

    Args:
        values: The units' values, (units, images).
        shows: Of each unit, whether an image is of its kind, (units, images).

    Returns:
        Its low and high ends, (units,).
    """
    weights = torch.from_numpy(Resampling.draw(values.shape[1]).weights).double()
    intervals = np.zeros((2, len(values)))
    for unit, (row, is_shown) in enumerate(zip(values, shows, strict=True)):
        bins = torch.from_numpy(rankdata(row, method="dense").astype(np.int64) - 1)
        sides = [
            torch.zeros(len(weights), int(bins.max()) + 1, dtype=torch.float64).index_add(
                1, bins[side], weights[:, side]
            )
            for side in (torch.from_numpy(is_shown), torch.from_numpy(~is_shown))
        ]
        intervals[:, unit] = _interval(compute_aucs(*sides)[:, None].numpy())[:, 0]
    return intervals[0], intervals[1]
