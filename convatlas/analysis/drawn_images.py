"""Images drawn from the test split of a data set: the same ones for every network, stratified by class."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.models.preprocessing import Preprocessing
from convatlas.records import Split

log = logging.getLogger(__name__)

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
    """Images of a split as one network takes them.

    Attributes:
        indices: Their numbers in the split, in their order.
        pixels: The images (N, C, H, W), uint8 or floats in 0..255, at the size of the network's input.
        preprocessing: The network's preprocessing.
    """

    indices: list[int]
    pixels: Tensor
    preprocessing: Preprocessing

    def preprocess(self, first: int = 0, last: int | None = None) -> Tensor:
        """Return some of the images as inputs of the network, (n, C, H, W) float32.

        Args:
            first: Index of the first one.
            last: Index after the last one; None for all that follow.
        """
        return self.preprocessing(self.pixels[first:last])


def draw_images(
    data: str | Path,
    preprocessing: Preprocessing,
    count: int | None,
    seed: int,
    skip_unreadable: bool = True,
    at_least: int = 1,
) -> DrawnImages:
    """Draw images of the test split, stratified by class.

    Args:
        data: The data set's folder, data/<dataset>.
        preprocessing: The network's preprocessing.
        count: Number of images; all of a smaller split, or if None.
        seed: Seed of the order, which is the same for every network and number of images.
        skip_unreadable: Whether an image that cannot be read is replaced by the next one.
        at_least: The smallest number of images.

    Raises:
        UserError: There are fewer images, or one cannot be read.
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
        except UserError as error:
            if not skip_unreadable:
                raise
            log.warning("skipped: %s", error)
            continue
        indices.append(index)
        pixels.append(torch.from_numpy(image))
    if len(indices) < at_least:
        raise UserError(f"{data}: at least {at_least} test images are needed, and {len(indices)} can be read")
    return DrawnImages(indices, torch.cat(pixels), preprocessing)
