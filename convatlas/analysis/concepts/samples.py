"""Samples of a data set's splits with their concepts: masks, head boxes, classes, breeds and species."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas.analysis.concepts.images import ConceptImages, PixelCodes, list_image_concepts
from convatlas.analysis.concepts.naming import Concepts
from convatlas.analysis.masked_images import PET, MaskSplit, spread_indices
from convatlas.datasets import cache, formats
from convatlas.datasets.base import ImageDataset
from convatlas.datasets.oxford_pets import OxfordPetDataset
from convatlas.datasets.trimaps import MASK_CLASSES
from convatlas.models.preprocessing import Preprocessing

MAX_GRID_SIDE = 112  # pixels at which regions are compared: Bau and others (2017) take half of the input


@dataclass(frozen=True)
class Inputs(Sequence[Tensor]):
    """The inputs of some images of a split, preprocessed when they are asked for.

    Attributes:
        pixels: The images of the split, (N, C, H, W).
        indices: Numbers of the images in the split.
        preprocessing: How an image becomes the network's input.
        device: Where the tensors are.
    """

    pixels: np.ndarray
    indices: Sequence[int]
    preprocessing: Preprocessing
    device: torch.device

    @overload
    def __getitem__(self, n: int) -> Tensor: ...
    @overload
    def __getitem__(self, n: slice) -> list[Tensor]: ...
    def __getitem__(self, n: int | slice) -> Tensor | list[Tensor]:
        if isinstance(n, slice):
            return [self[m] for m in range(*n.indices(len(self)))]
        pixels = torch.from_numpy(np.array(self.pixels[self.indices[n]]))
        return self.preprocessing(pixels[None].to(self.device))

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class ConceptSample:
    """A sample of a split.

    Attributes:
        dataset: The split.
        indices: Numbers of the images in the split.
        images: The images.
    """

    dataset: ImageDataset
    indices: list[int]
    images: ConceptImages


def load_samples(
    data: str | Path, counts: dict[str, int], preprocessing: Preprocessing, device: torch.device
) -> tuple[Concepts, dict[str, ConceptSample]]:
    """Load evenly spaced images of both splits with their concepts.

    Args:
        data: The data set's folder, data/<dataset>.
        counts: Number of images by split, "train" and "test".
        preprocessing: How an image becomes the network's input.
        device: Where the tensors are.

    Returns:
        The concepts, and the sample by split.
    """
    datasets = {split: formats.load(data, split) for split in counts}
    indices = {split: spread_indices(len(datasets[split]), count) for split, count in counts.items()}
    classes = formats.describe(data)["classes"]
    groups: dict[str, list[str]] = {}
    for split, dataset in datasets.items():
        for group, names in list_groups(dataset, classes).items():
            groups.setdefault(group, []).extend(names[index] for index in indices[split])
    kinds, shows = list_image_concepts(groups)
    has_masks = bool(formats.mask_classes(formats.describe(data)))
    regions = PixelCodes(MASK_CLASSES).list_regions(MASK_CLASSES[PET]) if has_masks else []
    samples: dict[str, ConceptSample] = {}
    start = 0
    for split, dataset in datasets.items():
        stop = start + len(indices[split])
        is_labelled = dataset.labels[indices[split]] >= 0
        pixels = cache.load_images(
            data,
            split,
            preprocessing.pixel_format,
            preprocessing.size,
            preprocessing.resize,
            preprocessing.interpolation,
        )
        inputs = Inputs(pixels, indices[split], preprocessing, device)
        codes = (
            load_codes(MaskSplit.load(data, split, preprocessing), indices[split], device)
            if has_masks
            else None
        )
        images = ConceptImages(inputs, codes, shows[:, start:stop], is_labelled)
        samples[split] = ConceptSample(dataset, indices[split], images)
        start = stop
    return Concepts(regions, kinds), samples


def list_groups(dataset: ImageDataset, classes: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the kinds of a split's images, by group: species and breed of pets, or subclasses, and classes.

    Args:
        dataset: The split.
        classes: The names of the classes.
    """
    groups: dict[str, Sequence[str]] = {}
    if isinstance(dataset, OxfordPetDataset):
        groups = {"species": dataset.species, "breed": dataset.subclasses}
    elif dataset.subclasses is not None:
        groups = {"subclass": dataset.subclasses}
    return groups | {"class": [classes[label] if label >= 0 else "" for label in dataset.labels.tolist()]}


def load_codes(split: MaskSplit, indices: Sequence[int], device: torch.device) -> list[Tensor]:
    """Return the codes of the pixels of images, at most MAX_GRID_SIDE a side.

    Args:
        split: A split with masks.
        indices: Numbers of the images.
        device: Where the tensors are.
    """
    encoder = PixelCodes(MASK_CLASSES)
    codes = []
    for index in indices:
        mask, head = torch.from_numpy(np.array(split.classes[index])), split.head_mask(index)
        full = encoder.encode(mask, None if head is None else torch.from_numpy(head))
        codes.append(shrink(full).to(device))
    return codes


def shrink(codes: Tensor) -> Tensor:
    """Bring codes (H, W) uint8 to at most MAX_GRID_SIDE a side, by nearest neighbour.

    Args:
        codes: The codes of the pixels.
    """
    scale = min(1.0, MAX_GRID_SIDE / max(codes.shape))
    size = [max(1, round(side * scale)) for side in codes.shape]
    return F.interpolate(codes[None, None].float(), size, mode="nearest-exact")[0, 0].to(torch.uint8)
