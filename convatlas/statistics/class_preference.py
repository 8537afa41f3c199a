"""The class that a unit prefers, where its effect size says so. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MIN_EFFECT_SIZE = 0.8  # "large": Cohen, Statistical power analysis for the behavioral sciences, 1988
MIN_CLASS_IMAGES = 5  # of a class that a unit may prefer: one image may be extreme by itself
MIN_STANDARD_ERRORS = 4  # of the effect size of a unit that responds to all classes alike
ROUNDING = 1e-6  # relative, of a variance from a float32


@dataclass(frozen=True)
class ClassPreference:
    """The class with the largest mean of each unit of a layer, and how far that mean stands out.

    Attributes:
        top_class: The class with the largest mean activation, of those with at least MIN_CLASS_IMAGES images,
            (U,) int; -1 where a mean is NaN, or there are fewer than two classes.
        effect_size: Cohen's d between the mean activations of these images and of all others, (U,): the
            difference of the means by the pooled standard deviation; NaN without such a class.
        preferred: `top_class` where the effect size is at least MIN_EFFECT_SIZE, and MIN_STANDARD_ERRORS
            times what the numbers of images leave to chance; -1 elsewhere, (U,) int.
    """

    top_class: np.ndarray
    effect_size: np.ndarray
    preferred: np.ndarray


def find_preferred_classes(
    statistics: Mapping[str, np.ndarray], layer: str, class_images: np.ndarray, n_images: int
) -> ClassPreference:
    """Find the class that each unit of a layer prefers.

    Args:
        statistics: statistics.npz.
        layer: Name of the layer.
        class_images: The number of images of each class, (classes,).
        n_images: The number of images of the data set; some may be of no class.
    """
    class_means = statistics[f"{layer}@classes"].astype(np.float64)
    mean = statistics[f"{layer}@mean"].astype(np.float64)
    variance = statistics[f"{layer}@image_std"].astype(np.float64) ** 2
    is_candidate: np.ndarray = class_images >= MIN_CLASS_IMAGES
    if (class_images > 0).sum() < 2 or not is_candidate.any():
        none = np.full(len(mean), -1)
        return ClassPreference(none, np.full(len(mean), np.nan), none)
    is_known = np.logical_and.reduce(np.isfinite(class_means[:, is_candidate]), 1)
    top = np.where(is_candidate & is_known[:, None], class_means, -np.inf).argmax(1)
    n_top = class_images[top]
    n_others = n_images - n_top
    difference = (np.take_along_axis(class_means, top[:, None], 1)[:, 0] - mean) * n_images / n_others
    between = difference**2 * n_top * n_others / n_images**2
    within = np.maximum(variance - between, ROUNDING * variance) * n_images / max(n_images - 2, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        effect_size = np.where(is_known & (variance > 0), difference / np.sqrt(within), np.nan)
    standard_error = np.sqrt(1 / n_top + 1 / n_others)
    is_preferred = effect_size >= np.maximum(MIN_EFFECT_SIZE, MIN_STANDARD_ERRORS * standard_error)
    top = np.where(is_known, top, -1)
    return ClassPreference(top, effect_size, np.where(is_preferred, top, -1))
