"""Images of a split with the masks that feature maps are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.color import rgb2gray
from skimage.filters import sobel
from torch import Tensor

from convatlas import UserError, image_io
from convatlas.datasets import cache, formats
from convatlas.datasets.oxford_pets import OxfordPetDataset
from convatlas.datasets.trimaps import MASK_CLASSES
from convatlas.models.preprocessing import Preprocessing

PET = MASK_CLASSES.index("pet")


@dataclass(frozen=True)
class MaskedImage:
    """An input of the network, and what its feature maps are compared with.

    Attributes:
        x: The preprocessed image, (1, C, H, W).
        mask: True on the pet, (H, W) bool.
        other_mask: The mask of another image, (H, W) bool.
        edge_magnitude: Sobel magnitude of the image, (H, W) float32.
        head_mask: True in the bounding box of the head, (H, W) bool; None if it is not known.
    """

    x: Tensor
    mask: Tensor
    other_mask: Tensor
    edge_magnitude: Tensor
    head_mask: Tensor | None = None


def sobel_magnitude(image: np.ndarray) -> np.ndarray:
    """Compute the Sobel magnitude of an image's brightness.

    Args:
        image: (C, H, W) in 0..1. Of three channels the brightness is the luminance (Rec. 709), of other
            numbers the mean.

    Returns:
        (H, W) float32.
    """
    gray = rgb2gray(image, channel_axis=0) if len(image) == 3 else image.mean(axis=0)
    magnitude: np.ndarray = sobel(gray)
    return magnitude.astype(np.float32)


@dataclass(frozen=True)
class MaskSplit:
    """A split of Oxford-IIIT Pet at the network's input size.

    Attributes:
        examples: The images and annotations.
        preprocessing: How an image becomes the network's input.
        pixels: Images (N, C, H, W) uint8, memory-mapped.
        classes: Class of each pixel, (N, H, W) uint8, memory-mapped.
    """

    examples: OxfordPetDataset
    preprocessing: Preprocessing
    pixels: np.ndarray
    classes: np.ndarray

    @classmethod
    def load(cls, folder: str | Path, name: str, preprocessing: Preprocessing) -> "MaskSplit":
        """Load a split of a data set.

        Args:
            folder: The data set's folder, data/<dataset>.
            name: "train" or "test".
            preprocessing: How an image becomes the network's input.

        Raises:
            UserError: The data set has no masks.
        """
        examples = formats.load(folder, name)
        if not isinstance(examples, OxfordPetDataset):
            raise UserError(
                f"{folder} has no masks; where segmentation emerges is measured on data sets of the format "
                "oxford-iiit-pet only"
            )
        size, resize = preprocessing.size, preprocessing.resize
        pixels = cache.load_images(
            folder, name, preprocessing.pixel_format, size, resize, preprocessing.interpolation
        )
        return cls(examples, preprocessing, pixels, cache.load_masks(folder, name, size, resize))

    def head_mask(self, n: int) -> np.ndarray | None:
        """Return the bounding box of the head in an image as a mask.

        Args:
            n: Number of the image in the split.

        Returns:
            (H, W) bool, at the size of the network's input. None if the box is not known, or lies outside of
            the part of the image that the network sees.

        Raises:
            UserError: The annotation cannot be read.
        """
        box = self.examples.read_head_box(n)
        if box is None:
            return None
        left, top, right, bottom = (max(corner, 0) for corner in box)
        width, height = self.examples.read_trimap(n).size
        inside = np.zeros((height, width), np.uint8)
        inside[top:bottom, left:right] = 1
        resized = image_io.resize_labels_to(
            Image.fromarray(inside), self.preprocessing.size, self.preprocessing.resize
        )
        mask = resized == 1
        return mask if mask.any() else None


@dataclass(frozen=True)
class MaskSample:
    """A sample of a split, whose images are prepared one at a time during iteration.

    The other mask of an image is the mask of the image half of the sample away, which is seldom of the same
    breed.

    Attributes:
        split: The split.
        indices: Numbers of the images in the split.
        device: Where the tensors are.
    """

    split: MaskSplit
    indices: list[int]
    device: torch.device

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[MaskedImage]:
        split, half = self.split, len(self.indices) // 2
        for n, other in zip(self.indices, self.indices[half:] + self.indices[:half], strict=True):
            pixels, head_mask = split.pixels[n], split.head_mask(n)
            yield MaskedImage(
                split.preprocessing(self._to_tensor(pixels)[None]),
                self._to_tensor(split.classes[n] == PET),
                self._to_tensor(split.classes[other] == PET),
                self._to_tensor(sobel_magnitude(pixels / 255)),
                None if head_mask is None else self._to_tensor(head_mask),
            )

    def _to_tensor(self, array: np.ndarray) -> Tensor:
        """Return an array as a tensor on the device."""
        return torch.from_numpy(array).to(self.device)

    def pet_share(self) -> float:
        """Return the share of the images' pixels that show a pet."""
        return float(np.mean([(self.split.classes[n] == PET).mean() for n in self.indices]))


def sample_indices(image_count: int, sample_size: int, name: str) -> list[int]:
    """Return the numbers of images spread evenly over a split; all of a smaller split.

    Args:
        image_count: Number of images in the split.
        sample_size: Number of images to return.
        name: Name of the split in an error message.

    Raises:
        UserError: The sample has fewer than two images.
    """
    if min(image_count, sample_size) < 2:
        raise UserError(
            f"{name} has {image_count} images and {sample_size} are to be used (views.masks); at least two "
            "are needed, because each is compared with the mask of another"
        )
    return spread_indices(image_count, sample_size)


def spread_indices(image_count: int, sample_size: int) -> list[int]:
    """Return numbers that are spread evenly over the images of a split; all of a smaller split.

    Args:
        image_count: Number of images in the split.
        sample_size: Number of images to return.
    """
    positions = np.linspace(0, image_count - 1, min(image_count, sample_size))
    return [int(position) for position in positions.round()]
