"""The masks of all images of a sample, which the maps of each image are compared with."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from convatlas.analysis.accumulators import BINS, average_to_size
from convatlas.analysis.masked_images import MaskedImage


@dataclass(frozen=True)
class MaskStack:
    """The masks of images, for chance levels by permutation.

    Memory grows with the number of images by two masks of float32 an image.

    Attributes:
        masks: True on the pet, (images, pixels) float32.
        areas: Number of pixels of each mask, (images,).
        heads: The head boxes of the images that have one, (boxes, H, W) float32.
        head_numbers: The number of each image's box; without images that have none.
        pet_in_head: Of each box, the share of its image's pet that it covers; NaN without a pet.
    """

    masks: Tensor
    areas: npt.NDArray[np.int64]
    heads: Tensor
    head_numbers: dict[int, int]
    pet_in_head: npt.NDArray[np.float64]
    _cells: dict[torch.Size, Tensor] = field(default_factory=dict)

    @classmethod
    def from_images(cls, images: Iterable[MaskedImage]) -> "MaskStack":
        """Stack the masks of images.

        Args:
            images: The images, in the order in which they are numbered.
        """
        masks: list[Tensor] = []
        heads: list[Tensor] = []
        head_numbers: dict[int, int] = {}
        pet_in_head: list[float] = []
        for n, image in enumerate(images):
            masks.append(image.mask.flatten().float())
            if image.head_mask is not None:
                head_numbers[n] = len(heads)
                heads.append(image.head_mask.float())
                pet = int(image.mask.sum())
                pet_in_head.append(int((image.mask & image.head_mask).sum()) / pet if pet else np.nan)
        stack = torch.stack(masks)
        areas = stack.sum(1).cpu().numpy().astype(np.int64)
        boxes = torch.stack(heads) if heads else stack.new_zeros(0, 1, 1)
        return cls(stack, areas, boxes, head_numbers, np.array(pet_in_head))

    def overlap(self, predicted: Tensor) -> npt.NDArray[np.int64]:
        """Return intersection and union, in pixels, of a predicted mask with the mask of each image.

        Args:
            predicted: The predicted mask of one image, (H, W) bool.

        Returns:
            (images, 2).
        """
        flat = predicted.flatten().float()
        intersection = (self.masks @ flat).cpu().numpy().astype(np.int64)
        return np.stack([intersection, int(predicted.sum()) + self.areas - intersection], 1)

    def count_bins(self, bins: Tensor) -> npt.NDArray[np.int32]:
        """Count the values of an image's maps inside of the mask of each image.

        Args:
            bins: The bin of each value at the resolution of the masks, (units, H, W) int32.

        Returns:
            (images, units, BINS).
        """
        pixels = self.masks.T
        empty = pixels.new_zeros(BINS, len(self.masks))
        counts = [empty.index_add(0, unit, pixels) for unit in bins.flatten(1).long()]
        return torch.stack(counts).permute(2, 0, 1).cpu().numpy().astype(np.int32)

    def share_in_heads(self, values: Tensor) -> npt.NDArray[np.float64]:
        """Return the share of the positive values of one map that lies in the head box of each image.

        Args:
            values: The map of one image, (h, w).

        Returns:
            (boxes,); 0 for a map without positive values.
        """
        size = values.shape
        if size not in self._cells:
            self._cells[size] = torch.stack([average_to_size(box, size) for box in self.heads]).double()
        positive = values.clamp(min=0).double()
        shares = (self._cells[size] * positive).sum((1, 2)) / positive.sum().clamp(min=1e-300)
        return shares.cpu().numpy()
