"""Chance levels and intervals, against loops over the permutations and resamples, and scikit-learn."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from convatlas.analysis import chance_level
from convatlas.analysis.accumulators import assign_bins, average_to_size, upsample_maps
from convatlas.analysis.chance_level import (
    PERMUTATIONS,
    RESAMPLES,
    PermutedSums,
    ResampledSums,
    Resampling,
    adjust_p_values,
    compute_interval,
)
from convatlas.analysis.emergence import compute_detail_first, find_emergence
from convatlas.analysis.mask_stack import MaskStack
from convatlas.analysis.masked_images import MaskedImage
from convatlas.analysis.segmentation import SelectedUnits, measure_ranges, select_layer_units
from convatlas.analysis.segmentation_evaluation import describe_layer, evaluate_selection
from convatlas.analysis.selection_evaluator import SelectionEvaluator
from convatlas.records import UnitSegmentation
from tests.analysis.test_segmentation import SIZE, make_images, make_mask

LAYER = "0"
N_CHECKED = 12  # permutations and resamples that are compared with scikit-learn


def make_pets(count: int, seed: int, contrast: float = 1.0, with_heads: bool = True) -> list[MaskedImage]:
    """Return images whose first channel is brighter on the mask, with the head's box in the mask."""
    generator = torch.Generator().manual_seed(seed)
    masks = [make_mask(generator) for _ in range(count)]
    images = []
    for n, mask in enumerate(masks):
        x = torch.randn(1, 3, SIZE, SIZE, generator=generator)
        x[0, 0] += contrast * mask
        row, column = mask.nonzero()[len(mask.nonzero()) // 2].tolist()
        head = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        head[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        x[0, 1] += 3 * contrast * head
        edges = torch.rand(SIZE, SIZE, generator=generator)
        images.append(MaskedImage(x, mask, masks[(n + 1) % count], edges, head if with_heads else None))
    return images


def evaluate(
    train: list[MaskedImage], test: list[MaskedImage], network: nn.Sequential | None = None
) -> tuple[SelectedUnits, UnitSegmentation]:
    """Choose on training images and measure on test images the channels of the image, by default."""
    network = network or nn.Sequential(nn.Identity())
    selections = select_layer_units(network, measure_ranges(network, [LAYER], train), train)
    return selections[LAYER], evaluate_selection(network, selections, test).layers[LAYER]


# The library of resamples


def test_the_first_permutation_is_the_identity_and_the_others_are_permutations() -> None:
    resampling = Resampling.draw(7)
    assert resampling.permutations.shape == (PERMUTATIONS + 1, 7)
    assert resampling.permutations[0].tolist() == list(range(7))
    assert (np.sort(resampling.permutations, axis=1) == np.arange(7)).all()
    assert resampling.weights.shape == (RESAMPLES, 7) and (resampling.weights.sum(1) == 7).all()
    assert np.bincount(resampling.permutations[1:, 0], minlength=7).min() > 100  # uniform


def test_sums_are_those_of_loops() -> None:
    values = np.random.default_rng(0).random((5, 5, 2))  # image, mask, quantity
    resampling = Resampling.draw(5)
    permuted, resampled = PermutedSums(resampling), ResampledSums(resampling)
    for image in (0, 1, 3, 4):  # image 2 is left out
        permuted.update(image, values[image])
        resampled.update(image, values[image, image])
    for row in (0, 1, 77):
        expected = sum(values[image, resampling.permutations[row, image]] for image in (0, 1, 3, 4))
        np.testing.assert_allclose(permuted.sums[row], expected)
        weights = resampling.weights[row]
        expected = sum(weights[image] * values[image, image] for image in (0, 1, 3, 4))
        np.testing.assert_allclose(resampled.sums[row], expected)
        assert resampled.weight[row] == weights.sum() - weights[2]


def test_the_p_value_of_one_measurement_is_the_share_of_permutations() -> None:
    measurement = np.random.default_rng(0).normal(size=(1, PERMUTATIONS + 1))
    measurement[0, 0] = 1.5
    expected = (measurement >= 1.5).mean()
    assert adjust_p_values(measurement) == pytest.approx([expected])
    measurement[0, 0] = 99
    assert adjust_p_values(measurement) == pytest.approx([1 / (PERMUTATIONS + 1)])
    assert adjust_p_values(np.full((2, 9), 0.3)).tolist() == [1, 1]  # no permutation changes them


def test_of_many_layers_at_chance_one_is_significant_in_one_run_of_twenty() -> None:
    """A plain p-value would call one of 50 layers significant in nearly every run."""
    generator = np.random.default_rng(1)
    runs, layers = 200, 50
    hits = plain = 0
    for _ in range(runs):
        scale = generator.uniform(0.1, 10, (layers, 1))
        measurements = generator.normal(size=(layers, 500)) * scale + generator.normal(size=(layers, 1))
        hits += bool((adjust_p_values(measurements) <= chance_level.SIGNIFICANCE).any())
        plain += bool(((measurements >= measurements[:, :1]).mean(1) <= chance_level.SIGNIFICANCE).any())
    assert 2 <= hits <= 20 and plain > 150


# The measurements of a layer


def test_the_iou_of_each_permutation_and_resample_is_that_of_a_loop() -> None:
    train, test = make_pets(8, 1), make_pets(6, 2)
    selection, result = evaluate(train, test)
    threshold = selection.mask_threshold
    predicted = [(image.x[0, threshold.unit] >= result["threshold"]) == threshold.at_least for image in test]
    resampling = Resampling.draw(6)

    def iou(pairs: list[tuple[Tensor, Tensor]]) -> float:
        intersection = sum(int((a & b).sum()) for a, b in pairs)
        return intersection / sum(int((a | b).sum()) for a, b in pairs)

    permuted = np.array(
        [iou([(predicted[n], test[m].mask) for n, m in enumerate(row)]) for row in resampling.permutations]
    )
    assert permuted[0] == result["iou"]
    assert result["chance"]["mean"] == pytest.approx(permuted.mean(), abs=1e-12)
    assert [result["chance"]["low"], result["chance"]["high"]] == pytest.approx(
        np.quantile(permuted, [0.025, 0.975])
    )
    assert result["chance"]["p"] == (permuted >= permuted[0]).mean()
    resampled = [
        iou([(predicted[n], test[n].mask) for n in np.arange(6).repeat(row)]) for row in resampling.weights
    ]
    assert result["interval"] == pytest.approx(np.quantile(resampled, [0.025, 0.975]))


def make_evaluator(train: list[MaskedImage], test: list[MaskedImage]) -> SelectionEvaluator:
    """Return the evaluator of the channels after the test images."""
    selection, _ = evaluate(train, test)
    evaluator = SelectionEvaluator(selection, MaskStack.from_images(test))
    for n, image in enumerate(test):
        evaluator.update(n, image.x[0], image)
    return evaluator


def test_the_auc_of_each_permutation_and_resample_is_that_of_scikit_learn() -> None:
    train, test = make_pets(8, 3), make_pets(5, 4)
    evaluator = make_evaluator(train, test)
    permuted, resampled = evaluator.compute_selective_aucs()
    units = evaluator.selection.selective_units
    value_range = evaluator.selection.measured.value_range.select_units(units)
    bins = [assign_bins(upsample_maps(value_range.scale_to_bins(i.x[0, units]), (SIZE, SIZE))) for i in test]
    resampling = Resampling.draw(5)
    for row in range(N_CHECKED):
        for n in range(len(units)):
            masks = torch.stack([test[m].mask for m in resampling.permutations[row]])
            values = torch.stack([image[n] for image in bins])
            assert permuted[n, row] == pytest.approx(roc_auc_score(masks.flatten(), values.flatten()))
            chosen = np.arange(5).repeat(resampling.weights[row])
            masks = torch.stack([test[m].mask for m in chosen])
            expected = roc_auc_score(masks.flatten(), values[chosen].flatten())
            assert resampled[n, row] == pytest.approx(expected)


def test_the_share_in_the_heads_of_each_permutation_is_that_of_a_loop() -> None:
    train, test = make_pets(8, 5), make_pets(6, 6)
    test[2] = MaskedImage(test[2].x, test[2].mask, test[2].other_mask, test[2].edge_magnitude)  # no box
    evaluator = make_evaluator(train, test)
    permuted, resampled = evaluator.compute_head_shares()
    with_box = [image for image in test if image.head_mask is not None]
    shares = np.zeros((5, 5))
    for n, image in enumerate(with_box):
        positive = image.x[0, evaluator.selection.head_unit].clamp(min=0)
        for m, other in enumerate(with_box):
            inside = average_to_size(other.head_mask, positive.shape)
            shares[n, m] = float((positive * inside).sum() / positive.sum())
    resampling = Resampling.draw(5)
    expected = [shares[range(5), row].mean() for row in resampling.permutations]
    np.testing.assert_allclose(permuted, expected, atol=1e-6)
    expected = [(shares.diagonal() * row).sum() / 5 for row in resampling.weights]
    np.testing.assert_allclose(resampled, expected, atol=1e-6)


# What is above chance


def test_a_planted_pet_unit_and_head_unit_are_above_chance() -> None:
    _, result = evaluate(make_pets(12, 7, 3.0), make_pets(12, 8, 3.0))
    assert result["above_chance"] and result["unit"] == 0
    assert result["selective_units"][0]["above_chance"] and result["selective_units"][0]["unit"] == 0
    assert result["head"]["above_chance"] and result["head"]["unit"] == 1
    assert result["chance"]["high"] < result["interval"][0] < result["iou"] < result["interval"][1]
    assert result["head"]["pet"] == pytest.approx(
        np.mean([float((i.mask & i.head_mask).sum() / i.mask.sum()) for i in make_pets(12, 8, 3.0)])
    )


def test_noise_is_not_above_chance() -> None:
    for seed in range(5):
        network = nn.Sequential(nn.Conv2d(3, 40, 3, padding=1))  # the best of 40 units
        _, result = evaluate(make_pets(12, 40 + seed, 0), make_pets(12, 50 + seed, 0), network)
        assert not result["above_chance"] and not result["head"]["above_chance"]
        assert not any(unit["above_chance"] for unit in result["selective_units"])


def test_a_unit_that_is_active_all_over_the_pet_does_not_respond_to_heads() -> None:
    """Its share in the head box is far above the box's area and chance, as the head is part of the pet."""
    train, test = make_pets(12, 9), make_pets(12, 10)
    for image in (*train, *test):
        image.x[0] = 0.01 * torch.rand(3, SIZE, SIZE) + image.mask.float()
    head = evaluate(train, test)[1]["head"]
    assert head["chance"]["p"] <= 0.05 and head["share"] > 1.5 * max(head["area"], head["chance"]["mean"])
    assert head["share"] == pytest.approx(head["pet"], rel=0.1)
    assert not head["above_chance"]


def test_a_map_of_the_centre_is_not_above_chance_where_all_pets_are_in_the_centre() -> None:
    """The IoU is 1, but the map shows nothing of one image that it does not show of the others."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[3:9, 3:9] = True
    images = [MaskedImage(mask.float().expand(1, 1, -1, -1), mask, mask, mask.float(), mask)] * 8
    _, result = evaluate(images, images)
    assert result["iou"] == 1 and result["chance"]["p"] == 1
    assert not result["above_chance"] and not result["head"]["above_chance"]
    assert not result["selective_units"][0]["above_chance"]


def test_three_images_are_too_few_and_four_suffice() -> None:
    train = make_pets(12, 11, 5.0)
    assert not evaluate(train, make_pets(3, 12, 5.0))[1]["above_chance"]
    assert evaluate(train, make_pets(4, 12, 5.0))[1]["above_chance"]


def test_a_small_effect_is_not_above_chance_however_significant() -> None:
    evaluator = make_evaluator(make_pets(12, 13, 3.0), make_pets(12, 14, 3.0))
    from_p_values: Any = type("P", (), {"mask": 0.001, "selective": [0.001] * 3, "head": 0.001})
    iou = evaluator.mask_overlap.result()
    assert describe_layer(evaluator, from_p_values, iou - 0.06)["above_chance"]
    assert not describe_layer(evaluator, from_p_values, iou - 0.04)["above_chance"]


def test_without_head_boxes_there_is_no_head_unit() -> None:
    assert evaluate(make_pets(5, 15, with_heads=False), make_pets(5, 16, with_heads=False))[1]["head"] is None


def test_a_unit_that_is_lower_on_the_pet_is_above_chance_by_its_distance_below() -> None:
    train, test = make_pets(12, 17, -3.0), make_pets(12, 18, -3.0)
    unit = evaluate(train, test)[1]["selective_units"][0]
    assert unit["auc"] < 0.1 and unit["above_chance"]
    reverse = make_pets(12, 19, 3.0)  # on the test images it is higher
    assert not evaluate(train, reverse)[1]["selective_units"][0]["above_chance"]


def test_without_a_pet_in_the_test_images_nothing_is_above_chance() -> None:
    test = make_images(4, 20)
    for image in test:
        image.mask.zero_()
    _, result = evaluate(make_pets(6, 21), test)
    assert (result["selective_units"], result["above_chance"], result["iou"]) == ([], False, 0)


# Emergence


def make_rows(ious: list[float], above: list[bool]) -> Any:
    return [
        {"name": f"c{n}", "ordinal": n, "iou": iou, "above_chance": is_above, "head": None}
        for n, (iou, is_above) in enumerate(zip(ious, above, strict=True), 1)
    ]


def test_segmentation_emerges_at_the_first_layer_above_chance_that_reaches_nine_tenths() -> None:
    ious = [0.3, 0.73, 0.75, 0.7, 0.8]
    resampled = np.array(ious)[:, None].repeat(RESAMPLES, 1)
    rows = make_rows(ious, [True, False, True, True, True])
    assert find_emergence(rows, resampled) == {
        "layer": "c3", "ordinal": 3, "iou": 0.75, "interval": [3, 3]
    }  # fmt: skip
    rows[2]["iou"] = 0.9 * 0.8  # exactly 90 %
    assert find_emergence(rows, resampled)["ordinal"] == 3
    resampled[2, : RESAMPLES // 3] = 0.1  # a third of the resamples
    assert find_emergence(rows, resampled)["interval"] == [3, 5]
    assert find_emergence(make_rows([0.4, 0.36], [True, False]), resampled[:2]) is None
    assert find_emergence([], resampled[:0]) is None


def test_detail_comes_first_in_a_share_of_the_resamples() -> None:
    details, ious = np.zeros((3, 4)), np.zeros((3, 4))
    details[[0, 1, 2, 0], range(4)] = 1
    ious[[2, 2, 2, 0], range(4)] = 1
    assert compute_detail_first(details, ious) == 0.5
    assert compute_detail_first(details[:0], ious[:0]) == 0


def test_an_interval_ignores_resamples_in_which_nothing_is_measured() -> None:
    assert compute_interval(np.array([np.nan, 2.0, 2.0])) == [2, 2]


def test_no_pet_anywhere_is_an_overlap_of_zero() -> None:
    empty = SimpleNamespace(sums=np.zeros((5, 2)))
    evaluator = SimpleNamespace(permuted_overlaps=empty, resampled_overlaps=empty)
    permuted, resampled = SelectionEvaluator.compute_ious(evaluator)  # type: ignore[arg-type]
    assert not permuted.any() and compute_interval(resampled) == [0, 0]
