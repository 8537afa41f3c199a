"""Chance levels and intervals of measurements on images and their masks.

A measurement compares the feature map of each image with the mask of that image and sums over the images. Its
chance level is its distribution over permutations of the masks among the images: an exact test of whether the
maps know more of their own image's mask than of the others', to which masks that lie in the centre alone add
nothing. Its interval is the bootstrap over images. Units and thresholds are chosen on other images, so that
choosing the best of many adds nothing to what is measured; many layers are measured on the same images, which
`adjust_p_values` corrects for.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from convatlas.records import ChanceLevel

PERMUTATIONS = 999
RESAMPLES = 1000  # of the bootstrap
CONFIDENCE = 0.95  # of intervals, and share of the permutations in the chance band
SIGNIFICANCE = 0.05  # largest p-value, adjusted for all layers, of what is above chance
MIN_IOU_EFFECT = 0.05  # smallest distance of an IoU above its baselines
MIN_AUC_EFFECT = 0.1  # smallest distance of an AUC from 0.5, and from its mean over the permutations
MIN_HEAD_RATIO = 1.5  # smallest share of activation in the head boxes over its baselines

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Resampling:
    """Permutations and bootstrap resamples of images.

    Attributes:
        permutations: The image whose mask each image gets, (PERMUTATIONS + 1, images); the first row is the
            identity, which counts among the permutations as in any exact test.
        weights: How often each image is in each resample, (RESAMPLES, images).
    """

    permutations: npt.NDArray[np.intp]
    weights: npt.NDArray[np.int32]

    @classmethod
    @lru_cache(maxsize=8)
    def draw(cls, image_count: int) -> "Resampling":
        """Draw them, always the same for a number of images, so that layers and runs can be compared.

        Args:
            image_count: Number of images.
        """
        generator = np.random.default_rng(0)
        identity = np.arange(image_count)
        permutations = [identity, *(generator.permutation(image_count) for _ in range(PERMUTATIONS))]
        weights = generator.multinomial(image_count, np.full(image_count, 1 / image_count), RESAMPLES)
        return cls(np.stack(permutations), weights.astype(np.int32))


class PermutedSums:
    """The sum over images of a quantity of a map and a mask, for every permutation of the masks.

    Attributes:
        sums: (PERMUTATIONS + 1, ...), the first with each image's own mask.
    """

    def __init__(self, resampling: Resampling) -> None:
        self.permutations = resampling.permutations
        self.sums: npt.NDArray[Any] = np.zeros(())

    def update(self, image: int, values: npt.NDArray[Any]) -> None:
        """Add an image.

        Args:
            image: Number of the image.
            values: The quantity of its map with the mask of each image, (images, ...).
        """
        permuted = values[self.permutations[:, image]]
        self.sums = np.add(self.sums, permuted, out=self.sums) if self.sums.ndim else permuted


class ResampledSums:
    """The sum of a quantity over images, for every bootstrap resample.

    Attributes:
        sums: (RESAMPLES, ...).
        weight: Number of images in each resample, (RESAMPLES,); images that are left out do not count.
    """

    def __init__(self, resampling: Resampling) -> None:
        self.weights = resampling.weights
        self.sums: npt.NDArray[Any] = np.zeros(())
        self.weight: npt.NDArray[np.int64] = np.zeros(len(resampling.weights), dtype=np.int64)

    def update(self, image: int, values: npt.NDArray[Any]) -> None:
        """Add an image.

        Args:
            image: Number of the image.
            values: The quantity of the image, (...).
        """
        weighted = np.multiply.outer(self.weights[:, image], values)
        self.sums = np.add(self.sums, weighted, out=self.sums) if self.sums.ndim else weighted
        self.weight += self.weights[:, image]


def compute_interval(values: Array) -> list[float]:
    """Return the central interval of values, which hold no NaN if any is a number.

    Args:
        values: The measurement in each resample, (RESAMPLES,); NaN where it is not defined.
    """
    tail = (1 - CONFIDENCE) / 2
    defined = values[~np.isnan(values)]
    return [float(value) for value in np.quantile(defined, [tail, 1 - tail])]


def adjust_p_values(measurements: Array) -> Array:
    """Return the p-value of each of several measurements, adjusted for their number.

    The p-value is the share of the permutations in which the largest of the measurements, each in standard
    deviations from its own mean, is at least as large as the observed one: Westfall and Young,
    Resampling-based multiple testing (1993), single-step maxT. Measurements on the same images depend on each
    other, and the same permutations keep that dependence.

    Args:
        measurements: (measurements, PERMUTATIONS + 1), of which the first column is observed.

    Returns:
        (measurements,). 1 for a measurement that no permutation changes.
    """
    if not len(measurements):
        return np.zeros(0)
    deviation = measurements - measurements.mean(1, keepdims=True)
    std = deviation.std(1, keepdims=True)
    is_constant = std <= 1e-12
    scores = np.where(is_constant, 0, deviation / np.where(is_constant, 1, std))
    p_values: Array = (scores.max(0) >= scores[:, :1] - 1e-9).mean(1)
    return np.where(is_constant[:, 0], 1, p_values)


def describe_chance(measurement: Array, p_value: float) -> ChanceLevel:
    """Return the chance level of a measurement as it is written.

    Args:
        measurement: Its value for each permutation, (PERMUTATIONS + 1,).
        p_value: Its adjusted p-value.
    """
    low, high = compute_interval(measurement)
    return {"mean": float(measurement.mean()), "low": low, "high": high, "p": float(p_value)}
