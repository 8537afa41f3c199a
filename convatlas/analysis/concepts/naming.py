"""Name units by the concepts that they separate better than chance on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import nn

from convatlas.analysis.accumulators import BINS, ValueRange
from convatlas.analysis.chance_level import CONFIDENCE, MIN_AUC_EFFECT, SIGNIFICANCE, Array, adjust_p_values
from convatlas.analysis.concepts.evaluation import (
    Measurement,
    compute_ious,
    compute_rival_aucs,
    measure_kinds,
    measure_regions,
    resample_image_aucs,
    resample_region_aucs,
)
from convatlas.analysis.concepts.images import INSIDE, ConceptImages, ImageConcept, RegionConcept
from convatlas.analysis.concepts.layer_reader import LayerReader
from convatlas.analysis.concepts.selection import (
    NO_CONCEPT,
    ChosenConcepts,
    choose_kinds,
    choose_regions,
    count_regions,
)
from convatlas.analysis.concepts.unit_values import Pooling, measure_values

MIN_EXAMPLES = 3  # images of both splits that show a concept, and that do not, without which it is not tested


@dataclass(frozen=True)
class Concepts:
    """The concepts of a data set.

    Attributes:
        regions: The regions of its images.
        kinds: The kinds of its images.
    """

    regions: Sequence[RegionConcept]
    kinds: Sequence[ImageConcept]


@dataclass(frozen=True)
class ConceptTest:
    """The concepts that were chosen for a layer's units, and what was measured of them."""

    chosen: ChosenConcepts
    measurement: Measurement

    def compute_effects(self) -> Array:
        """Return the AUC of each unit for each permutation, 1 minus it if the unit is low on its concept."""
        permuted = self.measurement.permuted
        return np.where(self.chosen.is_high[:, None], permuted, 1 - permuted)


@dataclass(frozen=True)
class MeasuredConcepts:
    """The concept of each unit of a layer, of one type, as measured on test images; all (units,).

    Attributes:
        concept: Number of the concept; NO_CONCEPT for a unit without one.
        is_high: Whether the unit is higher on the concept, or lower.
        train_auc: The AUC on the training images.
        auc: The AUC on the test images; below 0.5 for a unit that is low on the concept.
        low: Low end of its interval; NaN for units that are not named.
        high: High end of its interval.
        chance_mean: Mean of the AUC over permutations.
        chance_low: Low end of its central interval over permutations.
        chance_high: High end.
        p: The p-value, adjusted for all units of all layers, and for the families of concepts.
        is_named: Whether the unit separates the concept better than chance.
        regions: Of regions, further quantities by name: `threshold`, `train_iou`, `iou`, `iou_ceiling`,
            `active_share`, `rival_auc`, `rival_low` and `rival_high`.
    """

    concept: npt.NDArray[np.int64]
    is_high: npt.NDArray[np.bool_]
    train_auc: Array
    auc: Array
    low: Array
    high: Array
    chance_mean: Array
    chance_low: Array
    chance_high: Array
    p: Array
    is_named: npt.NDArray[np.bool_]
    regions: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerConcepts:
    """The concepts of the units of a layer.

    Attributes:
        regions: The region of each unit; None of a layer without maps, or images without regions.
        kinds: The kind of image of each unit; None without kinds.
        excluded: Numbers of the units with NaN or infinite values.
        values: The unit's values on the test images, (units, images).
    """

    regions: MeasuredConcepts | None
    kinds: MeasuredConcepts | None
    excluded: list[int]
    values: Array


@dataclass(frozen=True)
class NamedUnits:
    """The concepts of the units of several layers.

    Attributes:
        layers: By name.
        tested: The concepts of which there are enough images, regions first, (concepts,) bool.
        families: Number of families of tests, by which p-values are multiplied.
    """

    layers: dict[str, LayerConcepts]
    tested: npt.NDArray[np.bool_]
    families: int


def name_units(
    network: nn.Module,
    layers: Sequence[str],
    concepts: Concepts,
    train: ConceptImages,
    test: ConceptImages,
    pooling: Pooling = "mean",
) -> NamedUnits:
    """Find the concepts that each unit separates best on training images, and test them on test images.

    Args:
        network: Any network.
        layers: Names of layers; those without units are left out.
        concepts: The concepts.
        train: Images that concepts and thresholds are chosen on.
        test: Other images, that they are measured on.
        pooling: How a unit's map is pooled where kinds of image are compared: its mean or maximum.
    """
    reader = LayerReader.choose(network, layers, train)
    values = measure_values(reader, train, pooling)
    test_values = measure_values(reader, test, pooling)
    is_finite = {layer: values[layer].is_finite & test_values[layer].is_finite for layer in values}
    usable_regions = find_usable_regions(concepts.regions, train) & find_usable_regions(
        concepts.regions, test
    )
    usable_kinds = find_usable_kinds(train) & find_usable_kinds(test)

    tests: dict[tuple[str, str], ConceptTest] = {}
    if usable_regions.any():
        counts = count_regions(reader, values, train, len(concepts.regions[0].parts))
        chosen = {
            layer: choose_regions(counts[layer], is_finite[layer], concepts.regions, usable_regions)
            for layer in counts
        }
        ranges = {layer: values[layer].value_range for layer in chosen}
        measurements = measure_regions(reader, chosen, ranges, test, concepts.regions)
        tests |= {("region", layer): ConceptTest(chosen[layer], measurements[layer]) for layer in chosen}
    test_arrays = {layer: layer_values.stack() for layer, layer_values in test_values.items()}
    if usable_kinds.any():
        for layer in values:
            trained = values[layer].stack()[:, train.is_labelled]
            choice = choose_kinds(trained, is_finite[layer], train.shows[:, train.is_labelled], usable_kinds)
            labelled = test_arrays[layer][:, test.is_labelled]
            tests["image", layer] = ConceptTest(
                choice, measure_kinds(labelled, choice, test.shows[:, test.is_labelled])
            )

    has_rival = np.array([region.rival is not None for region in concepts.regions], bool)
    p_values, n_families = adjust_for_families(tests, has_rival)
    results = {}
    for layer in values:
        regions = kinds = None
        if ("region", layer) in tests:
            key, value_range = ("region", layer), values[layer].value_range
            regions = describe_regions(tests[key], p_values[key], value_range, has_rival)
        if ("image", layer) in tests:
            key, labelled = ("image", layer), test_arrays[layer][:, test.is_labelled]
            kinds = describe_kinds(tests[key], p_values[key], labelled, test.shows[:, test.is_labelled])
        results[layer] = LayerConcepts(
            regions,
            kinds,
            excluded=(~is_finite[layer]).nonzero().flatten().tolist(),
            values=test_arrays[layer],
        )
    return NamedUnits(results, np.concatenate([usable_regions, usable_kinds]), n_families)


def find_usable_regions(regions: Sequence[RegionConcept], images: ConceptImages) -> npt.NDArray[np.bool_]:
    """Return which regions are in at least MIN_EXAMPLES images, (regions,).

    Args:
        regions: The regions.
        images: Images of a split.
    """
    counts = [
        sum(bool((region.select_parts(codes) == INSIDE).any()) for codes in images.codes or ())
        for region in regions
    ]
    return np.array(counts, int) >= MIN_EXAMPLES


def find_usable_kinds(images: ConceptImages) -> npt.NDArray[np.bool_]:
    """Return which kinds at least MIN_EXAMPLES images are, and as many are not, (concepts,).

    Args:
        images: Images of a split.
    """
    shows = images.shows[:, images.is_labelled]
    counts = shows.sum(1)
    usable: npt.NDArray[np.bool_] = np.minimum(counts, shows.shape[1] - counts) >= MIN_EXAMPLES
    return usable


def adjust_for_families(
    tests: Mapping[tuple[str, str], ConceptTest], has_rival: npt.NDArray[np.bool_]
) -> tuple[dict[tuple[str, str], Array], int]:
    """Adjust the p-values of all units of all layers for their number.

    Within a family, by the largest measurement in each permutation (`adjust_p_values`); between families, by
    their number (Bonferroni). Families are the regions that are known on every image, the regions with a
    rival, which are known on some and permuted among these, and the kinds of image.

    Args:
        tests: By type of concept, "region" or "image", and layer.
        has_rival: Whether a region has a rival, (regions,).

    Returns:
        The adjusted p-values by the same keys, (units,), NaN without a concept; and the number of families.
    """
    families: dict[tuple[str, bool], list[tuple[tuple[str, str], npt.NDArray[np.intp]]]] = {}
    p_values = {key: np.full(len(test.chosen.concept), np.nan) for key, test in tests.items()}
    for key, test in tests.items():
        concept = test.chosen.concept
        rival = has_rival[concept] if key[0] == "region" else np.zeros(len(concept), bool)
        for side in (False, True):
            units = np.flatnonzero((concept != NO_CONCEPT) & (rival == side))
            if len(units):
                families.setdefault((key[0], side), []).append((key, units))
    for members in families.values():
        adjusted = adjust_p_values(
            np.concatenate([tests[key].compute_effects()[units] for key, units in members])
        )
        ends = np.cumsum([len(units) for _, units in members])[:-1]
        for (key, units), values in zip(members, np.split(adjusted, ends), strict=True):
            p_values[key][units] = np.minimum(values * len(families), 1)
    return p_values, len(families)


def describe_kinds(
    test: ConceptTest, p: Array, values: Array, shows: npt.NDArray[np.bool_]
) -> MeasuredConcepts:
    """Return the kinds of image of a layer's units, with the intervals of those that are named.

    Args:
        test: What was chosen and measured.
        p: The adjusted p-values, (units,).
        values: The units' values on labelled test images, (units, images).
        shows: Whether an image is of a kind, (concepts, images).
    """
    described = _describe(test, p)
    units = np.flatnonzero(described.is_named)
    described.low[units], described.high[units] = resample_image_aucs(
        values[units], shows[described.concept[units]]
    )
    return described


def describe_regions(
    test: ConceptTest, p: Array, value_range: ValueRange, has_rival: npt.NDArray[np.bool_]
) -> MeasuredConcepts:
    """Return the regions of a layer's units, with the intervals of those that are named.

    A unit is named by a region with a rival only if the interval of its AUC of the two is on its side of 0.5:
    a unit that is as high all over the pet does not respond to heads.

    Args:
        test: What was chosen and measured.
        p: The adjusted p-values, (units,).
        value_range: The ranges of the units on the training images.
        has_rival: Whether a region has a rival, (regions,).
    """
    chosen, counts = test.chosen, test.measurement.counts
    assert counts is not None
    described = _describe(test, p)
    sign = np.where(chosen.is_high, 1, -1)
    rival_auc, rival_low, rival_high = (np.full(len(sign), np.nan) for _ in range(3))
    for concept in np.unique(chosen.concept[described.is_named]):
        units = np.flatnonzero(described.is_named & (chosen.concept == concept))
        described.low[units], described.high[units] = resample_region_aucs(counts[:, units])
        if has_rival[concept]:
            rival_auc[units] = compute_rival_aucs(counts[:, units])
            rival_low[units], rival_high[units] = resample_region_aucs(counts[:, units], rival=True)
            is_specific = np.where(sign[units] > 0, rival_low[units] > 0.5, rival_high[units] < 0.5)
            described.is_named[units] = is_specific
    iou, ceiling, active_share = compute_ious(counts, chosen)
    low, high = value_range.low.cpu().double().numpy(), value_range.high.cpu().double().numpy()
    described.regions.update(
        threshold=np.where(chosen.concept != NO_CONCEPT, low + (high - low) * chosen.bin_edge / BINS, np.nan),
        train_iou=chosen.iou,
        iou=iou,
        iou_ceiling=ceiling,
        active_share=active_share,
        rival_auc=rival_auc,
        rival_low=rival_low,
        rival_high=rival_high,
    )
    return described


def _describe(test: ConceptTest, p: Array) -> MeasuredConcepts:
    """Return the measured concepts of a layer: those are named that are significant and large enough."""
    chosen, auc, permuted = test.chosen, test.measurement.auc, test.measurement.permuted
    sign = np.where(chosen.is_high, 1, -1)
    tail = (1 - CONFIDENCE) / 2
    mean = permuted.mean(1)
    low, high = np.quantile(permuted, [tail, 1 - tail], axis=1)
    effect = np.minimum(sign * (auc - 0.5), sign * (auc - mean))
    return MeasuredConcepts(
        concept=chosen.concept,
        is_high=chosen.is_high,
        train_auc=chosen.auc,
        auc=auc,
        low=np.full(len(auc), np.nan),
        high=np.full(len(auc), np.nan),
        chance_mean=mean,
        chance_low=low,
        chance_high=high,
        p=p,
        is_named=(p <= SIGNIFICANCE) & (effect >= MIN_AUC_EFFECT),
    )
