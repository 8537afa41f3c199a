"""Statistics over a data set, against plain formulas over all values, and sums that no division changes."""

import numpy as np
import pytest

from convatlas.statistics.shards import shard_batches
from convatlas.statistics.units import (
    PairwiseSum,
    TopActivations,
    UnitCounts,
    UnitSums,
    class_selectivity,
    compute_statistics,
    find_dead_units,
    unravel_positions,
)


def leaves(count: int) -> list[UnitSums]:
    """Sums of batches whose addition rounds differently in every order."""
    random = np.random.default_rng(count)
    scale = 10.0 ** random.integers(-8, 8, (count, 4))
    return [
        UnitSums(
            s * random.normal(size=4),
            s * random.random(4),
            s * random.random(4),
            {n: row for n, row in enumerate(random.normal(size=(2, 4)) * s) if random.random() < 0.7},
        )
        for s in scale
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 21, 64, 100])
@pytest.mark.parametrize("shards", [1, 2, 3, 7, 10, 200])
def test_sums_are_the_same_however_they_are_divided(count: int, shards: int) -> None:
    batches = leaves(count)
    at_once, merged = PairwiseSum(), PairwiseSum()
    for index, sums in enumerate(batches):
        at_once.push(0, index, sums)
    indices: list[int] = []
    for shard in range(shards):
        own = PairwiseSum()
        for index in shard_batches(shard, shards, count):
            own.push(0, index, batches[index])
            indices.append(index)
        assert len(own.nodes) <= 2 * np.log2(count + 1) + 1
        for node in own.nodes:
            merged.push(*node)
    assert indices == list(range(count))

    def parts(sums: UnitSums) -> dict[object, np.ndarray]:
        arrays = {"means": sums.mean_sum, "squares": sums.square_sum, "means²": sums.squared_mean_sum}
        return arrays | sums.class_sums

    assert parts(at_once.total()).keys() == parts(merged.total()).keys()
    for name, one in parts(at_once.total()).items():
        assert one.tobytes() == parts(merged.total())[name].tobytes()
        exact = np.sum(
            [parts(sums)[name].astype(np.longdouble) for sums in batches if name in parts(sums)], 0
        )
        np.testing.assert_allclose(one, exact.astype(float), rtol=1e-9, atol=1e-9 * np.abs(exact).max())


@pytest.fixture
def values() -> np.ndarray:
    """Values of 3 units on 40 images, maps of 5 × 6: rectified, signed, and one that is constant."""
    random = np.random.default_rng(0)
    maps = random.normal(size=(40, 3, 5, 6)).astype(np.float32)
    maps[:, 0] = maps[:, 0].clip(0)
    maps[:, 2] = 7.3
    return maps


def test_statistics_follow_the_plain_formulas(values: np.ndarray) -> None:
    labels = np.arange(40) % 4
    of_image = values.astype(float).mean((2, 3))
    classes = {label: of_image[labels == label].sum(0) for label in range(4)}
    squares = (values.astype(float) ** 2).mean((2, 3)).sum(0)
    sums = UnitSums(of_image.sum(0), squares, (of_image**2).sum(0), classes)
    zeros, most = (values == 0).sum((0, 2, 3)), values.max((0, 2, 3))
    counts = UnitCounts(40, np.bincount(labels, minlength=5), zeros, most, np.zeros((3, 5), np.int32))
    statistics = compute_statistics(sums, counts, 30)

    flat = values.swapaxes(0, 1).reshape(3, -1).astype(float)
    np.testing.assert_allclose(statistics["mean"], flat.mean(1), rtol=1e-6)
    np.testing.assert_allclose(statistics["std"], flat.std(1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(statistics["image_std"], of_image.std(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(statistics["max"], flat.max(1).astype(np.float32))
    np.testing.assert_allclose(statistics["zero_fraction"], (flat == 0).mean(1), rtol=1e-6)
    means = np.stack([flat.reshape(3, 40, 30)[:, labels == label].mean((1, 2)) for label in range(4)], 1)
    np.testing.assert_allclose(statistics["classes"][:, :4], means, rtol=1e-6)
    assert np.isnan(statistics["classes"][:, 4]).all()  # a class without images
    assert all(array.dtype == np.float32 for array in statistics.values())


def test_selectivity_is_that_of_the_paper() -> None:
    classes = np.array([[3, 1, 0.5, 0], [0, 0, 2, 0], [1, 1, 1, 1], [0, 0, 0, 0], [-1, 2, 0, 0]], float)
    others = (1 + 0.5 + 0) / 3
    expected = [(3 - others) / (3 + others), 1, 0, 0, np.nan]
    np.testing.assert_allclose(class_selectivity(classes, np.ones(classes.shape[1], bool)), expected)
    without = np.insert(classes, 2, np.nan, 1)  # a class without images does not count
    has_images = ~np.isnan(without[0])
    np.testing.assert_allclose(class_selectivity(without, has_images), expected)
    assert np.isnan(class_selectivity(classes[:, :1], np.ones(1, bool))).all()
    assert np.isnan(class_selectivity(np.empty((5, 0)), np.ones(0, bool))).all()


def test_a_unit_is_dead_that_is_nowhere_positive() -> None:
    maximum = np.array([-1, 0, 1e-9, -np.inf, 0, 0], np.float32)
    mean = np.array([-1, 0, 1e-9, np.nan, np.nan, -np.inf])
    assert find_dead_units(maximum, mean, "ReLU").tolist() == [True, True, False, False, False, False]
    assert not find_dead_units(maximum, mean, "log_softmax").any()
    assert not find_dead_units(maximum, mean, "LogSoftmax").any()


def test_nan_and_infinity_show_in_the_statistics_of_their_units_alone(values: np.ndarray) -> None:
    labels = np.arange(40) % 4
    values[1, 0, 2, 3], values[6, 1, 0, 0], values[:, 2] = np.nan, np.inf, np.nan
    of_image = values.astype(float).mean((2, 3))
    classes = {label: of_image[labels == label].sum(0) for label in range(4)}
    squares = (values.astype(float) ** 2).mean((2, 3)).sum(0)
    sums = UnitSums(of_image.sum(0), squares, (of_image**2).sum(0), classes)
    finite = np.where(np.isfinite(values), values, -np.inf).max((0, 2, 3))
    zeros = (values == 0).sum((0, 2, 3))
    counts = UnitCounts(40, np.bincount(labels, minlength=5), zeros, finite, np.zeros((3, 5), np.int32))
    statistics = compute_statistics(sums, counts, 30)

    for name in ("mean", "std", "image_std", "selectivity"):
        assert np.isnan(statistics[name]).all(), name
    known = np.where(np.isfinite(values[:, :2]), values[:, :2], np.nan)
    np.testing.assert_array_equal(statistics["max"], [*np.nanmax(known, (0, 2, 3)), np.nan])
    np.testing.assert_allclose(statistics["zero_fraction"], (values == 0).mean((0, 2, 3)), rtol=1e-6)
    of_class = [of_image[labels == label].mean(0) for label in range(4)]
    expected = np.stack(of_class, 1)
    expected[~np.isfinite(expected)] = np.nan
    np.testing.assert_allclose(statistics["classes"][:, :4], expected, rtol=1e-6)
    assert np.isnan(statistics["classes"]).sum(1).tolist() == [2, 2, 5]


def test_positions_count_rows_and_columns() -> None:
    places = np.array([[0, 5], [11, 4]])
    assert unravel_positions(places, [2, 3, 4]).tolist() == [[[0, 0], [1, 1]], [[2, 3], [1, 0]]]
    assert unravel_positions(places * 0, [2]).tolist() == [[[0, 0]] * 2] * 2
    assert unravel_positions(places, [2, 12]).tolist() == [[[0, 0], [0, 5]], [[0, 11], [0, 4]]]


def test_the_strongest_of_two_parts_are_those_of_both() -> None:
    one = TopActivations(np.array([[3.0, 1.0]]), np.array([[2, 0]]), np.array([[7, 8]]))
    two = TopActivations(np.array([[3.0, 2.0]]), np.array([[5, 4]]), np.array([[1, 1]]))
    joined = one.merge(two)
    assert (joined.values.tolist(), joined.images.tolist()) == ([[3, 3]], [[2, 5]])
    assert joined.flat_positions.tolist() == [[7, 1]]
