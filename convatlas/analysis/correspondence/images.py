"""Sets of images with the box of the head in each, drawn from a data set with such boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convatlas import UserError
from convatlas.analysis.correspondence.boxes import Box, list_offsets, project_box
from convatlas.datasets import formats
from convatlas.datasets.oxford_pets import OxfordPetDataset
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import suggest_nearest
from convatlas.records import Split

SPLITS: Sequence[Split] = ("test", "train")  # the official boxes are those of training images


@dataclass(frozen=True)
class BoxedImage:
    """An image of a split with the box of its head in pixels of the network's input."""

    index: int
    label: int
    box: Box


def number_dataset_classes(
    selection: Sequence[str | int] | None, classes: Sequence[str], key: str
) -> list[int]:
    """Return the numbers of the data set's classes that a selection names; all of None.

    Args:
        selection: Names and numbers, from 0.
        classes: Names of the data set's classes.
        key: Place of the selection in the config, for the error.

    Raises:
        UserError: There is no such class.
    """
    numbers = []
    for entry in range(len(classes)) if selection is None else selection:
        if isinstance(entry, int) and entry < len(classes):
            numbers.append(entry)
        elif isinstance(entry, str) and entry in classes:
            numbers.append(list(classes).index(entry))
        else:
            raise UserError(f"{key}: no class {entry!r}; {suggest_nearest(entry, classes)}")
    return numbers


def draw_sets(
    dataset: OxfordPetDataset,
    preprocessing: Preprocessing,
    labels: Sequence[int],
    sets: int,
    images: int,
    seed: int,
) -> list[list[BoxedImage]]:
    """Draw sets of different images whose box is seen and could lie elsewhere in the image.

    Args:
        dataset: The split.
        preprocessing: The network's preprocessing.
        labels: The classes of the images.
        sets: The number of sets.
        images: The number of images of each.
        seed: Of the order of the images.

    Returns:
        The sets; fewer where there are too few such images.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(np.isin(dataset.labels, labels)))
    chosen: list[BoxedImage] = []
    for index in order.tolist():
        if len(chosen) == sets * images:
            break
        box = read_box(dataset, index, preprocessing)
        if box is not None and list_offsets(box, preprocessing.size).any():
            chosen.append(BoxedImage(index, int(dataset.labels[index]), box))
    return [chosen[n : n + images] for n in range(0, len(chosen) - images + 1, images)]


def read_box(dataset: OxfordPetDataset, index: int, preprocessing: Preprocessing) -> Box | None:
    """Return the box of the head in an image, in pixels of the network's input; None where it is not seen.

    Args:
        dataset: The split.
        index: The image's index in it.
        preprocessing: The network's preprocessing.
    """
    box = dataset.read_head_box(index)
    if box is None:
        return None
    size = dataset.read_trimap(index).size
    return project_box(box, size, preprocessing.size, preprocessing.resize)


def read_inputs(
    dataset: OxfordPetDataset, images: Sequence[BoxedImage], preprocessing: Preprocessing
) -> Tensor:
    """Return images as the network's inputs, (N, C, H, W).

    Args:
        dataset: The split.
        images: The images.
        preprocessing: The network's preprocessing.
    """
    target = preprocessing
    indices = [image.index for image in images]
    pixels = dataset.read_images(
        target.pixel_format, target.size, target.resize, indices, target.interpolation
    )
    return preprocessing(torch.from_numpy(pixels))


def load_boxed_splits(data: str | Path) -> dict[Split, OxfordPetDataset]:
    """Return the splits of a data set with boxes; none of a data set without any.

    Args:
        data: The data set's folder, data/<dataset>.
    """
    splits = {split: formats.load(data, split) for split in SPLITS}
    return {split: dataset for split, dataset in splits.items() if isinstance(dataset, OxfordPetDataset)}
