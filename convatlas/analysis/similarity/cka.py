"""Unbiased linear centred kernel alignment (CKA) of Gram matrices, with its error by a jackknife.

Kornblith et al. 2019, Similarity of neural network representations revisited (arXiv 1905.00414); the unbiased
estimator HSIC1 of Song et al. 2012, Feature selection via dependence maximization; the average over batches
after Nguyen, Raghu, Kornblith 2020, Do wide and deep networks learn the same things? (arXiv 2010.15327).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convatlas.analysis.jackknife import jackknife_error

MIN_IMAGES = 4  # of a batch, below which HSIC1 is not defined
JACKKNIFE_GROUPS = 10  # of images, each left out once
# Of the mean square of a Gram matrix: below it lies the rounding of a layer whose output is constant.
MIN_SHARE = 1e-20


@dataclass(frozen=True, eq=False)
class LayerSimilarity:
    """CKA of each layer of one network with each of another.

    Attributes:
        values: The CKA, (layers, other layers) float64; NaN where a layer is constant or not finite. The
            estimator is unbiased, so that it is negative where layers share less than chance.
        replicates: The CKA without one group of images each, (groups, layers, other layers); no groups where
            too few images are left.
    """

    values: np.ndarray
    replicates: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Return the standard error of each value; NaN where it is not known."""
        return jackknife_error(self.replicates)


def center_gram(grams: np.ndarray) -> np.ndarray:
    """Return Gram matrices with zero diagonal, centred so that HSIC1 is an inner product.

    With the matrices K̃ of this function, tr(K̃L̃) / (n(n − 3)) equals HSIC1 of K and L (U-centring, Székely
    and Rizzo 2014, Partial distance correlation with methods for dissimilarities, arXiv 1310.2926).

    Args:
        grams: Gram matrices (..., n, n), with n of at least MIN_IMAGES.

    Raises:
        ValueError: There are fewer images.
    """
    n = grams.shape[-1]
    if n < MIN_IMAGES:
        raise ValueError(f"unbiased CKA needs at least {MIN_IMAGES} images, not {n}")
    centered = grams.astype(np.float64)
    diagonal = np.arange(n)
    centered[..., diagonal, diagonal] = 0
    sums = centered.sum(-1)
    centered -= (sums[..., :, None] + sums[..., None, :]) / (n - 2)
    centered += sums.sum(-1)[..., None, None] / ((n - 1) * (n - 2))
    centered[..., diagonal, diagonal] = 0
    return centered


@dataclass(frozen=True, eq=False)
class CenteredLayers:
    """The centred Gram matrices of a network's layers on some images.

    Attributes:
        samples: Of all images, and then without one group of images each: the matrices of each batch,
            (layers, n²). They are divided so that their inner products, summed over the batches, are the
            average HSIC1; NaN for a layer that is constant or not finite.
        images: The number of images of each batch.
    """

    samples: list[list[np.ndarray]]
    images: list[int]

    def get_norms(self, sample: int) -> np.ndarray:
        """Return the root of each layer's HSIC1 with itself, (layers,).

        Args:
            sample: Index into the samples.
        """
        squares = sum(np.square(batch).sum(1) for batch in self.samples[sample])
        return np.asarray(np.sqrt(squares))


def center_layers(grams: Sequence[np.ndarray]) -> CenteredLayers:
    """Centre the Gram matrices of layers, for all images and for the jackknife.

    Args:
        grams: Of each batch the Gram matrices of the layers, (layers, n, n).

    Raises:
        ValueError: A batch has fewer than MIN_IMAGES images.
    """
    samples = [[_center_batch(batch) for batch in grams]]
    for group in range(JACKKNIFE_GROUPS):
        rests = [np.flatnonzero(np.arange(batch.shape[-1]) % JACKKNIFE_GROUPS != group) for batch in grams]
        if all(MIN_IMAGES <= len(rest) < batch.shape[-1] for rest, batch in zip(rests, grams, strict=True)):
            parts = [batch[:, rest[:, None], rest] for batch, rest in zip(grams, rests, strict=True)]
            samples.append([_center_batch(part) for part in parts])
    return CenteredLayers(samples, [batch.shape[-1] for batch in grams])


def _center_batch(grams: np.ndarray) -> np.ndarray:
    """Return the centred matrices of a batch as weighted rows; NaN where a layer is constant."""
    n = grams.shape[-1]
    rows = center_gram(grams).reshape(len(grams), -1)
    scale = np.square(grams.reshape(len(grams), -1).astype(np.float64)).sum(1)
    rows[~(np.square(rows).sum(1) > MIN_SHARE * scale)] = np.nan
    return np.asarray(rows / np.sqrt(n - 3))  # n of the weight and n of HSIC1 cancel


def compute_cka(layers: CenteredLayers, others: CenteredLayers) -> LayerSimilarity:
    """Compute the unbiased CKA of all pairs of layers, and its error.

    Numerators and denominators are averaged over the batches, weighted by their images, before they are
    divided.

    Args:
        layers: The layers of one network.
        others: The layers of another, on the same images.

    Raises:
        ValueError: The batches have other numbers of images.
    """
    if layers.images != others.images:
        raise ValueError(f"the batches have {layers.images} and {others.images} images")
    values = []
    for sample, (left, right) in enumerate(zip(layers.samples, others.samples, strict=True)):
        cross = np.sum([a @ b.T for a, b in zip(left, right, strict=True)], 0)
        values.append(cross / np.multiply.outer(layers.get_norms(sample), others.get_norms(sample)))
    shape = (len(values) - 1, *values[0].shape)
    return LayerSimilarity(values[0], np.array(values[1:]).reshape(shape))
