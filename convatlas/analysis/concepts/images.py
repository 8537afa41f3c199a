"""Images of a split with their concepts: the regions of each image, and the kinds of image it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

INSIDE, RIVAL, OUTSIDE, IGNORED = range(4)  # parts of an image that a region divides it into
N_PARTS = 3  # that are counted


@dataclass(frozen=True)
class RegionConcept:
    """A region of an image, as a division of the codes of its pixels.

    Attributes:
        name: Its name.
        parts: The part of each code: INSIDE, OUTSIDE, RIVAL (outside, but in the region that holds this one,
            as the rest of the pet around the head) or IGNORED, (codes,) int64.
        rival: Name of the region that holds this one, which a unit of this region must not merely follow;
            None without any.
    """

    name: str
    parts: Tensor
    rival: str | None = None

    def select_parts(self, codes: Tensor) -> Tensor:
        """Return the part of each pixel, int64.

        Args:
            codes: The codes of the pixels, of any shape.
        """
        return self.parts.to(codes.device)[codes.long()]


@dataclass(frozen=True)
class ImageConcept:
    """A kind of image.

    Attributes:
        name: Its name.
        group: What it is one of: "class", "breed" or "species".
    """

    name: str
    group: str


@dataclass(frozen=True)
class ConceptImages:
    """Images with what is known of them.

    Attributes:
        inputs: The preprocessed images, (1, C, H, W) each; read when they are asked for.
        codes: The codes of the pixels of each image, (h, w) uint8; None of images without regions.
        shows: Whether an image is of a kind, (image concepts, images) bool.
        is_labelled: Whether the kinds of an image are known, (images,) bool.
    """

    inputs: Sequence[Tensor]
    codes: Sequence[Tensor] | None
    shows: npt.NDArray[np.bool_]
    is_labelled: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class PixelCodes:
    """How the mask and the head box of an image are written as one code per pixel.

    The code is the class of the mask, plus the number of classes if the pixel is outside of a known head box,
    or twice that if it is inside; the last code is that of pixels without a class.

    Attributes:
        classes: The classes of the masks.
    """

    classes: Sequence[str]

    @property
    def ignored(self) -> int:
        """The code of pixels without a class."""
        return 3 * len(self.classes)

    def encode(self, mask: Tensor, head: Tensor | None) -> Tensor:
        """Return the codes of an image's pixels, uint8.

        Args:
            mask: Indices into the classes, others where a pixel has none, (h, w).
            head: The head box, (h, w) bool; None if it is not known.
        """
        count = len(self.classes)
        codes = mask.long() + (0 if head is None else count * (1 + head.long()))
        return torch.where(mask.long() < count, codes, self.ignored).to(torch.uint8)

    def list_regions(self, head_owner: str | None = None) -> list[RegionConcept]:
        """Return the regions: each class of the masks, and the head.

        Args:
            head_owner: The class of the masks that the head is part of; None without head boxes.
        """
        count = len(self.classes)
        regions = []
        for number, name in enumerate(self.classes):
            parts = [INSIDE if code % count == number else OUTSIDE for code in range(3 * count)]
            regions.append(RegionConcept(name, torch.tensor([*parts, IGNORED])))
        if head_owner is not None:
            owner = self.classes.index(head_owner)
            outside = [RIVAL if number == owner else OUTSIDE for number in range(count)]
            parts = [*[IGNORED] * count, *outside, *[INSIDE] * count, IGNORED]
            regions.append(RegionConcept("head", torch.tensor(parts), head_owner))
        return regions


def list_image_concepts(
    groups: Mapping[str, Sequence[str]],
) -> tuple[list[ImageConcept], npt.NDArray[np.bool_]]:
    """Return the kinds of image, of each division of the images once.

    Args:
        groups: By group, the kind of each image; "" where it is not known.

    Returns:
        The concepts, and whether each image is of each of them, (concepts, images). A group that divides the
        images as an earlier one does, as breeds do where they are the classes, is left out, and so is a group
        of one kind.
    """
    concepts: list[ImageConcept] = []
    members: list[npt.NDArray[np.bool_]] = []
    divisions: set[bytes] = set()
    for group, kinds in groups.items():
        names = sorted({*kinds} - {""})
        shows = np.array(kinds)[None] == np.array(names, dtype=str)[:, None]
        division = np.unique(shows, axis=0).tobytes()
        if len(names) > 1 and division not in divisions:
            divisions.add(division)
            concepts += [ImageConcept(name, group) for name in names]
            members.append(shows)
    image_count = max(map(len, groups.values()), default=0)
    return concepts, np.concatenate([np.zeros((0, image_count), bool), *members])
