"""AUCs, IoUs, their intervals and their permutations, against loops over pixels and images."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from convatlas.analysis.accumulators import BINS, ValueRange, assign_bins
from convatlas.analysis.chance_level import Resampling
from convatlas.analysis.concepts import evaluation
from convatlas.analysis.concepts.evaluation import RegionMasks, compute_ious, measure_regions
from convatlas.analysis.concepts.images import IGNORED, INSIDE, RIVAL, ConceptImages
from convatlas.analysis.concepts.layer_reader import LayerReader
from convatlas.analysis.concepts.selection import (
    ChosenConcepts,
    choose_regions,
    compute_image_aucs,
    count_regions,
)
from convatlas.analysis.concepts.unit_values import measure_values
from tests.support.planted_concepts import CONCEPTS, LAYER, UNITS, make_images, make_network

RNG = np.random.default_rng(0)
FINITE = [unit for name, unit in UNITS.items() if name != "nan"]
PET, HEAD = CONCEPTS.regions[0], CONCEPTS.regions[3]


def auc_of_pairs(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the share of pairs in which the value inside is larger, ties by half."""
    return float(mannwhitneyu(inside, outside).statistic) / (len(inside) * len(outside))


def measure(
    train: ConceptImages, test: ConceptImages
) -> tuple[ChosenConcepts, evaluation.Measurement, np.ndarray]:
    """Return what is chosen and measured of the planted units, and the bins of the test images' values."""
    reader = LayerReader.choose(make_network(), [LAYER], train)
    values = measure_values(reader, train, "mean")
    counts = count_regions(reader, values, train, len(PET.parts))
    chosen = choose_regions(
        counts[LAYER], values[LAYER].is_finite, CONCEPTS.regions, np.ones(len(CONCEPTS.regions), bool)
    )
    value_range: ValueRange = values[LAYER].value_range
    measured = measure_regions(reader, {LAYER: chosen}, {LAYER: value_range}, test, CONCEPTS.regions)
    bins = [assign_bins(value_range.scale_to_bins(x[0])).numpy() for x in test.inputs]
    return chosen, measured[LAYER], np.stack(bins)


@pytest.fixture(scope="module")
def measured() -> tuple[ChosenConcepts, evaluation.Measurement, np.ndarray, ConceptImages]:
    test = make_images(12, 1, FINITE, box_share=0.5)
    return *measure(make_images(12, 0, FINITE), test), test


def test_the_auc_of_a_region_is_that_of_all_pairs_of_pixels(
    measured: tuple[ChosenConcepts, evaluation.Measurement, np.ndarray, ConceptImages],
) -> None:
    chosen, measurement, bins, test = measured
    assert test.codes is not None
    for unit in np.flatnonzero(chosen.concept >= 0):
        parts = [CONCEPTS.regions[chosen.concept[unit]].select_parts(codes).numpy() for codes in test.codes]
        stacked = np.stack(parts)
        values = bins[:, unit]
        inside = values[stacked == INSIDE]
        outside = values[(stacked != INSIDE) & (stacked != IGNORED)]
        assert measurement.auc[unit] == pytest.approx(auc_of_pairs(inside, outside), abs=1e-12)


def test_the_auc_of_permuted_masks_is_that_of_all_pairs_of_pixels(
    measured: tuple[ChosenConcepts, evaluation.Measurement, np.ndarray, ConceptImages],
) -> None:
    """Also of the head, whose box half of the images have: the boxes are permuted among these."""
    chosen, measurement, bins, test = measured
    assert test.codes is not None
    names = [CONCEPTS.regions[concept].name for concept in chosen.concept if concept >= 0]
    assert {"pet", "head"} <= set(names)
    for unit in np.flatnonzero(chosen.concept >= 0):
        region = CONCEPTS.regions[chosen.concept[unit]]
        known = list(RegionMasks.from_images(test, region).numbers)
        masks = np.stack([region.select_parts(test.codes[n]).numpy() == INSIDE for n in known])
        values = bins[known, unit]
        for sample, permutation in list(enumerate(Resampling.draw(len(known)).permutations))[:4]:
            expected = auc_of_pairs(values[masks[permutation]], values[~masks[permutation]])
            assert measurement.permuted[unit, sample] == pytest.approx(expected, abs=1e-5)
        assert measurement.permuted[unit, 0] == pytest.approx(measurement.auc[unit], abs=1e-5)


def test_the_iou_and_its_ceiling_are_those_of_masks(
    measured: tuple[ChosenConcepts, evaluation.Measurement, np.ndarray, ConceptImages],
) -> None:
    chosen, measurement, bins, test = measured
    assert test.codes is not None
    assert measurement.counts is not None
    iou, ceiling, share = compute_ious(measurement.counts, chosen)
    for unit in np.flatnonzero(chosen.concept >= 0):
        region = CONCEPTS.regions[chosen.concept[unit]]
        parts = np.stack([region.select_parts(codes).numpy() for codes in test.codes])
        is_known, mask = parts != IGNORED, parts == INSIDE
        active = bins[:, unit] >= chosen.bin_edge[unit]
        active = (active if chosen.is_high[unit] else ~active) & is_known
        assert iou[unit] == pytest.approx((active & mask).sum() / (active | mask).sum())
        assert share[unit] == pytest.approx(active.sum() / is_known.sum())
        # The best arrangement of as many active pixels: as many as possible inside of the mask.
        n_active, n_mask = int(active.sum()), int(mask.sum())
        best = min(n_active, n_mask) / (n_mask + max(n_active - n_mask, 0))
        assert ceiling[unit] == pytest.approx(best)
        assert iou[unit] <= ceiling[unit]


def test_the_interval_of_a_region_is_that_of_resampled_images(
    measured: tuple[ChosenConcepts, evaluation.Measurement, np.ndarray, ConceptImages],
) -> None:
    chosen, measurement, _, _ = measured
    assert measurement.counts is not None
    for concept, rival in ((0, False), (3, False), (3, True)):
        unit = int(chosen.find_units(concept)[0])
        low, high = evaluation.resample_region_aucs(measurement.counts[:, [unit]], rival)
        counts = measurement.counts[:, unit].astype(int)
        counts = counts[counts.any((1, 2))]
        aucs = []
        for weights in Resampling.draw(len(counts)).weights:
            sums = (weights[:, None, None] * counts).sum(0)
            outside = sums[RIVAL] if rival else sums[INSIDE + 1 :].sum(0)
            less = outside.cumsum() - outside
            aucs.append((sums[INSIDE] * (less + outside / 2)).sum() / (sums[INSIDE].sum() * outside.sum()))
        assert [low[0], high[0]] == pytest.approx(np.quantile(aucs, [0.025, 0.975]), abs=1e-6)


# Kinds of image


def test_the_auc_of_a_kind_is_that_of_all_pairs_of_images() -> None:
    values = RNG.integers(0, 5, (3, 14)).astype(float)  # with ties
    shows = np.stack([np.arange(14) < 4, np.arange(14) % 3 == 0])
    aucs, _ = compute_image_aucs(values, shows)
    for concept, unit in itertools.product(range(2), range(3)):
        row = values[unit]
        assert aucs[concept, unit] == pytest.approx(auc_of_pairs(row[shows[concept]], row[~shows[concept]]))


def test_its_deviation_is_that_over_all_permutations() -> None:
    """Of seven images, of which two are of the kind and some have equal values."""
    values = np.array([[1.0, 1, 2, 5, 5, 5, 9]])
    choices = [np.isin(np.arange(7), pair) for pair in itertools.combinations(range(7), 2)]
    aucs, stds = compute_image_aucs(values, np.stack(choices))
    assert aucs.mean() == pytest.approx(0.5)
    assert stds == pytest.approx(np.full_like(stds, aucs.std()))


def test_the_interval_of_a_kind_is_that_of_resampled_images() -> None:
    values = RNG.normal(size=(1, 15)).round(1)
    shows = np.arange(15)[None] < 6
    low, high = evaluation.resample_image_aucs(values, shows)
    aucs = []
    for weights in Resampling.draw(15).weights:
        row, is_shown = np.repeat(values[0], weights), np.repeat(shows[0], weights)
        aucs.append(
            auc_of_pairs(row[is_shown], row[~is_shown]) if is_shown.any() and not is_shown.all() else np.nan
        )
    assert [low[0], high[0]] == pytest.approx(np.nanquantile(aucs, [0.025, 0.975]), abs=1e-9)


def test_values_of_bins_are_upsampled_bilinearly() -> None:
    """A map of one value per 4 x 4 pixels is compared with the mask at the mask's resolution."""
    images = make_images(6, 3, FINITE)
    coarse = ConceptImages(
        [torch.nn.functional.avg_pool2d(x, 4) for x in images.inputs],
        images.codes,
        images.shows,
        images.is_labelled,
    )
    chosen, measurement, _ = measure(coarse, coarse)
    assert chosen.concept[0] == 0
    assert measurement.counts is not None
    assert measurement.counts[:, 0].sum() == 6 * 16 * 16
    assert 0.8 < measurement.auc[0] < 1
    assert measurement.counts.shape[-1] == BINS
