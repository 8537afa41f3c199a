"""Choose, on training images, the concepts that each unit separates best.

Of each unit one region and one kind of image are chosen, as they answer different questions: where in an
image the unit is active, and on which images. The measure is the area under the ROC curve (AUC).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from convatlas.analysis.accumulators import compute_aucs, compute_ious
from convatlas.analysis.chance_level import MIN_AUC_EFFECT, Array
from convatlas.analysis.concepts.images import INSIDE, N_PARTS, OUTSIDE, RIVAL, ConceptImages, RegionConcept
from convatlas.analysis.concepts.layer_reader import LayerReader
from convatlas.analysis.concepts.unit_values import ImageValues, count_bins

NO_CONCEPT = -1
TIE = 1e-9  # smaller differences count as none, of which the concept on which the unit is high is chosen


@dataclass(frozen=True)
class ChosenConcepts:
    """The concept chosen for each unit of a layer, of one type.

    Attributes:
        concept: Its number, NO_CONCEPT for a unit that separates none, (units,).
        is_high: Whether the unit's values are higher on the concept, or lower, (units,) bool.
        auc: The AUC on the training images, (units,); NaN without a concept.
        bin_edge: Of a region, the threshold of the largest IoU, as the number of an edge between the unit's
            bins, (units,): the predicted mask is where values are at least it, or below it if the unit is
            low on the region.
        iou: That IoU on the training images, (units,).
    """

    concept: npt.NDArray[np.int64]
    is_high: npt.NDArray[np.bool_]
    auc: Array
    bin_edge: npt.NDArray[np.int64]
    iou: Array

    def find_units(self, concept: int) -> npt.NDArray[np.intp]:
        """Return the numbers of the units of a concept.

        Args:
            concept: Its number.
        """
        return np.flatnonzero(self.concept == concept)


def count_regions(
    reader: LayerReader, values: dict[str, ImageValues], images: ConceptImages, n_codes: int
) -> dict[str, Tensor]:
    """Count the values of each unit by the code of the pixel, over images.

    Args:
        reader: The network and its layers.
        values: The values of the layers on the same images; layers without maps are left out.
        images: Images with regions.
        n_codes: Number of codes.

    Returns:
        By layer (units, n_codes, BINS) int64.
    """
    assert images.codes is not None
    codes = images.codes
    counts: dict[str, Tensor] = {}

    def update(image: int, layer: str, output: Tensor) -> None:
        new = count_bins(output, values[layer].value_range, codes[image][None], n_codes)
        counts[layer] = counts[layer] + new if layer in counts else new

    reader.visit(images, update, [layer for layer in values if values[layer].has_maps])
    return counts


def group_parts(counts: Tensor, region: RegionConcept) -> tuple[Tensor, Tensor, Tensor]:
    """Return the counts inside of a region, in its rival, and outside, all (units, BINS).

    Args:
        counts: Counts by code, (units, codes, BINS).
        region: The region.
    """
    members = F.one_hot(region.parts, N_PARTS + 1).to(counts)
    parts = torch.einsum("ucb,cp->pub", counts.double(), members.double())
    return parts[INSIDE], parts[RIVAL], parts[RIVAL] + parts[OUTSIDE]


def choose_regions(
    counts: Tensor,
    is_finite: Tensor,
    regions: Sequence[RegionConcept],
    is_usable: npt.NDArray[np.bool_],
) -> ChosenConcepts:
    """Choose the region that each unit separates best from the rest of the images.

    A region with a rival, as the head in the pet, is chosen only if the unit also separates it from the
    rival, by at least MIN_AUC_EFFECT on the same side.

    Args:
        counts: Counts of each unit's values by code on training images, (units, codes, BINS).
        is_finite: Whether a unit's values are all finite, (units,) bool.
        regions: The regions.
        is_usable: Whether a region is in enough images of both splits, (regions,).
    """
    parts = [group_parts(counts, region) for region in regions]
    aucs = np.stack([compute_aucs(inside, outside).cpu().numpy() for inside, _, outside in parts])
    effects = np.nan_to_num(np.abs(aucs - 0.5)) * is_usable[:, None]
    for number, region in enumerate(regions):
        if region.rival is not None:
            inside, rival, _ = parts[number]
            separation = (compute_aucs(inside, rival).cpu().numpy() - 0.5) * np.sign(aucs[number] - 0.5)
            effects[number] *= np.nan_to_num(separation) >= MIN_AUC_EFFECT
    chosen = _choose(effects, aucs, is_finite.cpu().numpy())
    bin_edge, iou = np.zeros(len(chosen.concept), np.int64), np.full(len(chosen.concept), np.nan)
    for number, (inside, _, outside) in enumerate(parts):
        units = chosen.find_units(number)
        direction = torch.from_numpy(np.where(chosen.is_high[units], 0, 1))
        ious = compute_ious(inside[units], outside[units]).cpu()
        # The first edge is left out, at which a mask is the whole image, or empty.
        best = ious[torch.arange(len(units)), direction, 1:].max(1)
        bin_edge[units], iou[units] = best.indices.numpy() + 1, best.values.numpy()
    return ChosenConcepts(chosen.concept, chosen.is_high, chosen.auc, bin_edge, iou)


def choose_kinds(
    values: Array, is_finite: Tensor, shows: npt.NDArray[np.bool_], is_usable: npt.NDArray[np.bool_]
) -> ChosenConcepts:
    """Choose the kind of image that each unit separates best from the other images.

    The measure is the AUC in its standard deviations among permutations of the images: of rare kinds large
    AUCs are frequent by chance.

    Args:
        values: The units' values on training images, (units, images).
        is_finite: Whether a unit's values are all finite, (units,) bool.
        shows: Whether an image is of a kind, (concepts, images).
        is_usable: Whether a concept has enough images in both splits, (concepts,).
    """
    aucs, stds = compute_image_aucs(values, shows)
    with np.errstate(invalid="ignore", divide="ignore"):
        effects = np.abs(aucs - 0.5) / stds
    effects = np.nan_to_num(np.where(is_usable[:, None], effects, 0), posinf=0)
    return _choose(effects, aucs, is_finite.cpu().numpy())


def compute_image_aucs(values: Array, shows: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Compute the AUC of each unit for each kind of image, and its standard deviation by chance.

    The AUC is that of Mann and Whitney's U with ties counted by half; its standard deviation is over all
    permutations of the images, exact for ties too: that of the mean of a sample without replacement.

    Args:
        values: The units' values, (units, images).
        shows: Whether an image is of a kind, (concepts, images).

    Returns:
        Both (concepts, units); NaN of a kind of no image or of all.
    """
    n_images = values.shape[1]
    n_inside = shows.sum(1, keepdims=True).astype(float)
    n_outside = n_images - n_inside
    ranks = rankdata(values, axis=1).astype(np.float64) if values.size else values
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_ranks = (shows.astype(float) @ ranks.T) / n_inside
        aucs = (mean_ranks - (n_inside + 1) / 2) / n_outside
        variance = ranks.var(1, ddof=1) * n_outside / (n_inside * n_images)
        stds = np.sqrt(variance) / n_outside
    return aucs, stds


def _choose(effects: Array, aucs: Array, is_finite: npt.NDArray[np.bool_]) -> ChosenConcepts:
    """Choose the concept of the largest effect; both (concepts, units)."""
    n_units = len(is_finite)
    if not len(effects):
        nothing = np.full(n_units, NO_CONCEPT)
        nan = np.full(n_units, np.nan)
        return ChosenConcepts(nothing, np.ones(n_units, bool), nan, np.zeros(n_units, np.int64), nan)
    best = (effects + TIE * (aucs > 0.5)).argmax(0)
    units = np.arange(n_units)
    is_chosen = is_finite & (effects[best, units] > TIE)
    auc = np.where(is_chosen, aucs[best, units], np.nan)
    return ChosenConcepts(
        concept=np.where(is_chosen, best, NO_CONCEPT),
        is_high=~(auc < 0.5),
        auc=auc,
        bin_edge=np.zeros(n_units, np.int64),
        iou=np.full(n_units, np.nan),
    )
