"""The images on which networks are compared: drawn from a split, the same ones for every network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convatlas import UserError
from convatlas.analysis.similarity.cka import MIN_IMAGES
from convatlas.datasets import formats
from convatlas.models.preprocessing import Preprocessing
from convatlas.records import Split

SPLIT: Split = "test"


def order_images(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return a random order of the images of a split of which every part from the start is stratified.

    Args:
        labels: The class of each image, (N,) int64; -1 without one.
        seed: Seed of the order.

    Returns:
        Their numbers in the split, (N,) int64.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    shares = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        shares[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(shares, kind="stable")]


@dataclass(frozen=True, eq=False)
class DrawnImages:
    """Images of a split as one network takes them, in batches.

    Attributes:
        indices: Their numbers in the split, in their order.
        batches: The preprocessed images (n, C, H, W), float32.
    """

    indices: list[int]
    batches: list[Tensor]


def draw_images(
    data: str | Path,
    preprocessing: Preprocessing,
    count: int,
    batch_size: int,
    seed: int,
    skip_unreadable: bool = False,
) -> DrawnImages:
    """Draw images of the test split, stratified by class.

    Args:
        data: The data set's folder, data/<dataset>.
        preprocessing: The network's preprocessing.
        count: Number of images; all of a smaller split.
        batch_size: Images in a batch; a last batch of fewer than MIN_IMAGES is dropped.
        seed: Seed of the order, which is the same for every network and number of images.
        skip_unreadable: Whether an image that cannot be read is replaced by the next one.

    Raises:
        UserError: There are fewer than MIN_IMAGES images, or one cannot be read.
    """
    dataset = formats.load(data, SPLIT)
    indices: list[int] = []
    pixels: list[Tensor] = []
    for index in order_images(dataset.labels, seed).tolist():
        if len(indices) == count:
            break
        try:
            image = dataset.read_images(
                preprocessing.pixel_format,
                preprocessing.size,
                preprocessing.resize,
                [index],
                preprocessing.interpolation,
            )
        except UserError:
            if not skip_unreadable:
                raise
            continue
        indices.append(index)
        pixels.append(torch.from_numpy(image))
    if len(indices) < MIN_IMAGES:
        raise UserError(
            f"{data}: unbiased CKA needs at least {MIN_IMAGES} images, and the test split has {len(indices)}"
        )
    x = preprocessing(torch.cat(pixels))
    batches = [batch for batch in torch.split(x, batch_size) if len(batch) >= MIN_IMAGES]
    return DrawnImages(indices[: sum(map(len, batches))], batches)
