"""Possible shortcuts: which units are tested, and how probable coincidences are, against brute force."""

import itertools
import math

import numpy as np
import pytest

from convatlas.statistics.shortcuts import (
    Coincidence,
    CoincidenceTest,
    compute_subclass_probability,
    find_common_positions,
    find_common_subclasses,
    select_significant,
    select_tested_units,
)

K = 3
VALUES = np.array([3.0, 2.0, 1.0])


def test_equal_zero_and_non_finite_activations_are_not_tested() -> None:
    values = np.array([[3, 2, 1], [6, 6, 6], [2, 1, 0], [0, 0, 0], [np.nan, 2, 1], [3, 3, 1], [-1, -2, -3]])
    assert select_tested_units(values).tolist() == [True, False, False, False, False, True, False]
    assert not select_tested_units(np.ones((2, 1))).any()  # one activation coincides with itself


def test_the_chance_of_one_position_is_that_of_the_other_units_positions() -> None:
    area = 4
    positions = np.array([[2, 2, 2], [0, 0, 1], [1, 2, 0], [3, 3, 3], [0, 0, 0]])
    values = np.stack([VALUES, VALUES, VALUES, VALUES, VALUES * 0])  # the last unit is dead
    test = find_common_positions(values, positions, area)
    assert test.tested == {0, 1, 2, 3}
    assert [(found.unit, found.value) for found in test.coincidences] == [(0, 2), (3, 3)]
    for found in test.coincidences:
        others = [sorted(set(positions[unit].tolist())) for unit in range(4) if unit != found.unit]
        weights = [sum(position in row for row in others) + 1 / area for position in range(area)]
        shares = [weight / sum(weights) for weight in weights]
        expected = 0.0
        for draw in itertools.product(range(area), repeat=K):
            if len(set(draw)) == 1:
                expected += math.prod(shares[position] for position in draw)
        assert found.p_value == pytest.approx(expected)


def test_a_lone_unit_is_compared_with_equal_shares_and_a_single_position_is_certain() -> None:
    (found,) = find_common_positions(VALUES[None], np.full((1, K), 5), 9).coincidences
    assert found.p_value == pytest.approx(9 * (1 / 9) ** K)
    assert find_common_positions(VALUES[None], np.zeros((1, K), int), 1) == CoincidenceTest(frozenset(), [])


def test_random_positions_are_rarely_marked() -> None:
    """The share of random layers with a marked unit is at most the level of significance."""
    rng = np.random.default_rng(0)
    values = np.broadcast_to(VALUES, (40, K))
    marked = 0
    for _ in range(300):
        positions = rng.choice(25, size=(40, K), p=np.arange(25) / 300)
        coincidences = find_common_positions(values, positions, 25).coincidences
        marked += bool(select_significant([coincidences], 40)[0])
    assert marked <= 0.05 * 300 + 3 * math.sqrt(0.05 * 300)


def test_the_chance_of_one_subclass_is_counted_over_all_choices_of_images() -> None:
    subclasses = np.array([0, 0, 0, 0, 1, 1, 1, 2, 3, 3, 3])
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    images = np.array([[0, 1, 3], [4, 5, 6], [0, 1, 4], [8, 9, 10], [0, 1, 8]])
    test = find_common_subclasses(np.stack([VALUES] * 5), images, labels, subclasses)
    assert test.tested == {0, 1, 2, 3, 4}
    # Class 1 has one subclass, so that the images of unit 3 have only their class in common.
    assert [(found.unit, found.value) for found in test.coincidences] == [(0, 0), (1, 1)]
    choices = list(itertools.combinations(range(8), K))
    expected = sum(len({subclasses[n] for n in choice}) == 1 for choice in choices) / len(choices)
    assert {found.p_value for found in test.coincidences} == {expected}
    assert compute_subclass_probability([4, 3, 1], K) == expected


def test_images_without_a_class_have_no_subclass_in_common() -> None:
    test = find_common_subclasses(
        VALUES[None], np.array([[0, 1, 2]]), np.full(5, -1), np.array([0, 0, 0, 1, 1])
    )
    assert test == CoincidenceTest(frozenset({0}), [])


def test_p_values_are_adjusted_for_the_tests_of_all_layers() -> None:
    first = [Coincidence(1, "position", 4, 1e-4), Coincidence(2, "position", 4, 1e-2)]
    second = [Coincidence(5, "subclass", 0, 5.1e-4)]
    (marked,), others = select_significant([first, second], 100)
    assert (marked.unit, others) == (1, [])
    assert marked.p_value == pytest.approx(1e-2)
