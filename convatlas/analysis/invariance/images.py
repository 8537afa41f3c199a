"""The images that are changed: the sample images of a network, and test images of other classes."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convatlas.datasets import formats
from convatlas.datasets.base import ImageDataset
from convatlas.models.preprocessing import Preprocessing
from convatlas.records import SampleImage
from convatlas.results import Results


class ChosenImages(NamedTuple):
    """Images as inputs of a network.

    Attributes:
        entries: Their entries as in images.json.
        x: The inputs, (N, C, H, W) float32.
    """

    entries: list[SampleImage]
    x: Tensor


def choose_images(
    results: Results, data: str | Path | None, preprocessing: Preprocessing, count: int
) -> ChosenImages:
    """Choose images of a network: its first sample images, then test images, of other classes where it can.

    Args:
        results: The network's results, with its recorded activations.
        data: The folder of its data set; None without one.
        preprocessing: The network's preprocessing.
        count: The number of images; fewer where there are no more.
    """
    entries = list(results.images[:count])
    inputs = [torch.from_numpy(results.activations(entry["name"])["input"]).float() for entry in entries]
    if data is not None and len(entries) < count:
        test = formats.load(data, "test")
        used = {entry["index"] for entry in entries if entry["index"] is not None}
        labels = {entry["label"] for entry in entries if entry["label"] is not None}
        for index in islice(list_other_images(test.labels, used, labels), count - len(entries)):
            entries.append(_describe_test_image(test, index))
            inputs.append(read_input(test, index, preprocessing))
    return ChosenImages(entries, torch.stack(inputs) if inputs else torch.empty(0, *preprocessing.shape))


def list_other_images(labels: np.ndarray, used: set[int], used_labels: set[int]) -> Iterator[int]:
    """Yield test images: the first one of each other class, then images spread evenly over the split.

    Args:
        labels: The class of each image of the split, (N,); -1 without one.
        used: Indices of the images that are not yielded.
        used_labels: The classes that are not yielded first.
    """
    used = set(used)
    for label in np.unique(labels[labels >= 0]).tolist():
        first = next((index for index in np.flatnonzero(labels == label).tolist() if index not in used), None)
        if label not in used_labels and first is not None:
            used.add(first)
            yield first
    for index in _list_spread(len(labels)):
        if index not in used:
            used.add(index)
            yield index


def _list_spread(count: int) -> Sequence[int]:
    """Return the numbers below a count so that the first ones are spread over them: multiples of a step."""
    step = next((step for step in range(round(count * 0.618), count) if np.gcd(step, count) == 1), 1)
    return [(n * step) % count for n in range(count)]


def read_input(dataset: ImageDataset, index: int, preprocessing: Preprocessing) -> Tensor:
    """Return an image of a split as the network's input, (C, H, W).

    Args:
        dataset: The split.
        index: The image's index in it.
        preprocessing: The network's preprocessing.
    """
    target = preprocessing
    pixels = dataset.read_images(
        target.pixel_format, target.size, target.resize, [index], target.interpolation
    )
    return preprocessing(torch.from_numpy(pixels))[0]


def _describe_test_image(dataset: ImageDataset, index: int) -> SampleImage:
    """Return the entry of a test image, as in images.json, without a prediction."""
    label = int(dataset.labels[index])
    return {
        "name": f"test-{index:05d}",
        "split": "test",
        "index": index,
        "path": None,
        "label": label if label >= 0 else None,
        "prediction": None,
        "probability": None,
    }
