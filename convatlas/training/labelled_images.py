"""Images with labels or masks, and how the splits of a data set are loaded for training and evaluation."""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from convatlas.datasets import cache, formats
from convatlas.models.preprocessing import Preprocessing

MAX_BYTES_ON_GPU = 4e9  # of a split that is kept in a GPU's memory


class LabelledImages:
    """Images with a class each, or with a class for each pixel.

    Indexing selects images without copying them: those in a memory-mapped file are read batch by batch.

    Args:
        images: Pixels (N, C, H, W), uint8 or float32 in 0..255.
        labels: Classes (N,), int64, or masks (N, H, W), uint8.
        indices: Indices of the selected images, (M,), int64; all by default.
    """

    def __init__(self, images: Tensor, labels: Tensor, indices: Tensor | None = None) -> None:
        self._images, self._labels = images, labels
        self.indices = torch.arange(len(labels), device=labels.device) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, selection: Tensor | slice) -> Self:
        return type(self)(self._images, self._labels, self.indices[selection])

    @property
    def images(self) -> Tensor:
        """The selected images, (M, C, H, W)."""
        return self._images[self.indices]

    @property
    def labels(self) -> Tensor:
        """The selected images' classes (M,) or masks (M, H, W)."""
        return self._labels[self.indices]

    @property
    def has_pixel_labels(self) -> bool:
        """Whether each pixel has a class."""
        return self._labels.ndim > 1


def hold_out(split: LabelledImages, fraction: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Divide a split at random into training and validation images, which do not overlap.

    Args:
        split: The images.
        fraction: Fraction of the images in the validation set, which has one image at least.
        seed: Seed of the division; splits of equal length are divided alike.

    Returns:
        The training images and the validation images.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)).to(split.indices.device)
    count = max(1, round(fraction * len(split)))
    return split[order[count:]], split[order[:count]]


def load_training_splits(
    folder: str | Path,
    preprocessing: Preprocessing,
    has_pixel_labels: bool,
    validation: float,
    crop: float,
    seed: int,
    device: torch.device,
) -> tuple[LabelledImages, LabelledImages]:
    """Load the training split of a data set, and hold out its validation images.

    Args:
        folder: The data set's folder, data/<dataset>.
        preprocessing: The network's; it determines the images' size.
        has_pixel_labels: Load the masks, not the classes.
        validation: Fraction of the images that is held out.
        crop: Smallest fraction of a side that a random crop takes; training images are enlarged by its
            inverse, so that crops are as sharp as whole images.
        seed: Seed of the division.
        device: Where the images are kept, if they are few.

    Returns:
        The training images and the validation images, of the network's size.
    """
    enlarged = load_split(folder, "train", preprocessing, has_pixel_labels, device, 1 / crop)
    train, _ = hold_out(enlarged, validation, seed)
    _, held_out = hold_out(
        load_split(folder, "train", preprocessing, has_pixel_labels, device), validation, seed
    )
    return train, held_out


def load_split(
    folder: str | Path,
    split: str,
    preprocessing: Preprocessing,
    has_pixel_labels: bool,
    device: torch.device,
    enlargement: float = 1.0,
) -> LabelledImages:
    """Load a split of a data set at a network's size.

    Args:
        folder: The data set's folder, data/<dataset>.
        split: "train" or "test".
        preprocessing: The network's; it determines the images' size.
        has_pixel_labels: Load the masks, not the classes.
        device: Where the images are kept, if they take less than MAX_BYTES_ON_GPU.
        enlargement: Factor of the size, for data sets of image files; others keep their own size.
    """
    size = tuple(round(enlargement * side) for side in preprocessing.size)
    resize = preprocessing.resize
    if not isinstance(resize, str):
        resize = round(enlargement * resize)
    images = torch.from_numpy(
        cache.load_images(
            folder, split, preprocessing.pixel_format, size, resize, preprocessing.interpolation
        )
    )
    if has_pixel_labels:
        labels = cache.load_masks(folder, split, size, resize)
    else:
        labels = formats.load(folder, split).labels
    storage = device if images.nbytes < MAX_BYTES_ON_GPU else torch.device("cpu")
    return LabelledImages(images.to(storage), torch.from_numpy(labels).to(storage))
