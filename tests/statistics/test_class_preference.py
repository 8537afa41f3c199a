"""The preferred class of units, against Cohen's d of all values."""

import numpy as np

from convatlas.statistics.class_preference import find_preferred_classes


def cohens_d(group: np.ndarray, others: np.ndarray) -> float:
    """Return the difference of the means by the pooled standard deviation."""
    squares = (len(group) - 1) * group.var(ddof=1) + (len(others) - 1) * others.var(ddof=1)
    return float((group.mean() - others.mean()) / np.sqrt(squares / (len(group) + len(others) - 2)))


def make_statistics(values: np.ndarray, labels: np.ndarray, n_classes: int) -> dict[str, np.ndarray]:
    """Return the arrays of statistics.npz of a layer from the mean of each image's map, (N, U)."""
    with np.errstate(invalid="ignore"):
        means = [
            values[labels == label].mean(0) if (labels == label).any() else np.full(values.shape[1], np.nan)
            for label in range(n_classes)
        ]
    arrays = {"mean": values.mean(0), "image_std": values.std(0), "classes": np.stack(means, 1)}
    return {f"a@{name}": array.astype(np.float32) for name, array in arrays.items()}


def test_the_effect_size_is_cohens_d_between_a_class_and_the_other_images() -> None:
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(200) < 190, np.arange(200) % 3, -1)  # ten images without a class
    values = rng.normal(5, 2, (200, 40))
    values[:, 20:] += rng.uniform(0, 4, 20) * (labels == 1)[:, None]
    statistics = make_statistics(values, labels, 4)  # and a class without images
    class_images = np.bincount(labels[labels >= 0], minlength=4)
    preference = find_preferred_classes(statistics, "a", class_images, 200)
    for unit in range(40):
        groups = [values[labels == label, unit] for label in range(3)]
        top = int(np.argmax([group.mean() for group in groups]))
        assert preference.top_class[unit] == top
        expected = cohens_d(groups[top], values[labels != top, unit])
        np.testing.assert_allclose(preference.effect_size[unit], expected, rtol=1e-4, atol=1e-4)
        assert preference.preferred[unit] == (top if expected >= 0.8 else -1)
    assert (preference.preferred[:20] == -1).all()  # of units that respond to all classes alike


def test_few_images_of_a_class_need_a_larger_effect() -> None:
    labels = np.array([1] * 5 + [0] * 92 + [2] * 3)
    values = np.random.default_rng(0).normal(size=(100, 500))
    values[:5, 0] = 9
    values[-1, 1] = 90  # of an image of a class with too few
    counts = np.array([92, 5, 3])
    preference = find_preferred_classes(make_statistics(values, labels, 3), "a", counts, 100)
    assert preference.preferred[0] == 1
    assert (preference.effect_size[1:] > 0.8).sum() > 10  # by chance
    assert (preference.preferred[1:] == -1).all()


def test_no_class_is_preferred_where_none_can_be() -> None:
    values = np.array([[0, 1, np.nan], [0, 2, 1], [0, 3, 1], [0, 4, 1]])
    labels = np.array([0, 0, 1, 1])
    preference = find_preferred_classes(make_statistics(values, labels, 2), "a", np.array([2, 2]), 4)
    assert preference.preferred.tolist() == [-1, -1, -1]
    assert np.isnan(preference.effect_size).all()  # with few images
    one_class = find_preferred_classes(make_statistics(values, labels * 0, 1), "a", np.array([4]), 4)
    assert one_class.preferred.tolist() == [-1, -1, -1]
