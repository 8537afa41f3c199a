"""Images of pets with known concepts, and a network whose units are planted among its input's channels."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.analysis.concepts.images import ConceptImages, ImageConcept, PixelCodes
from convatlas.analysis.concepts.naming import Concepts

SIDE = 16
CLASSES = ["pet", "background", "border"]
CODES = PixelCodes(CLASSES)
BREEDS = ["beagle", "boxer", "sphynx"]
CONCEPTS = Concepts(CODES.list_regions("pet"), [ImageConcept(breed, "breed") for breed in BREEDS])
LAYER = "0"


class Annotation:
    """A pet somewhere in an image, with a border and a head, of a breed; its head box may be unknown."""

    def __init__(self, rng: np.random.Generator, has_box: bool) -> None:
        top, left = rng.integers(1, 6, 2)
        height, width = rng.integers(7, 10, 2)
        self.mask = torch.ones(SIDE, SIDE, dtype=torch.uint8)
        self.mask[top - 1 : top + height + 1, left - 1 : left + width + 1] = 2
        self.mask[top : top + height, left : left + width] = 0
        self.head = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        self.head[top : top + 4, left : left + 4] = True
        self.has_box = has_box
        self.breed = int(rng.integers(len(BREEDS)))

    @property
    def pet(self) -> Tensor:
        return (self.mask == 0).float()

    @property
    def codes(self) -> Tensor:
        return CODES.encode(self.mask, self.head if self.has_box else None)


Unit = Callable[[Annotation, Tensor], Tensor]  # the map of a unit, of an annotation and noise (SIDE, SIDE)
UNITS: dict[str, Unit] = {
    "pet": lambda image, noise: image.pet,
    "complement": lambda image, noise: 1 - image.pet,
    "noise": lambda image, noise: noise,
    "head": lambda image, noise: image.head + 0.1 * noise,
    "breed": lambda image, noise: (image.breed == 1) + 0.3 * noise,
    "not breed": lambda image, noise: -2.0 * (image.breed == 2) + 0.3 * noise,
    "centre": lambda image, noise: torch.hann_window(SIDE).outer(torch.hann_window(SIDE)),
    "constant": lambda image, noise: torch.ones(SIDE, SIDE),
    "nan": lambda image, noise: image.pet * torch.nan,
}


def make_images(
    count: int, seed: int, units: Sequence[Unit] = tuple(UNITS.values()), box_share: float = 1.0
) -> ConceptImages:
    """Return images whose channels are the maps of planted units."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    annotations = [Annotation(rng, n < box_share * count) for n in range(count)]
    inputs = [
        torch.stack([unit(image, torch.randn(SIDE, SIDE, generator=generator)).float() for unit in units])
        for image in annotations
    ]
    shows = np.array([[image.breed == n for image in annotations] for n in range(len(BREEDS))])
    return ConceptImages(
        [x[None] for x in inputs], [image.codes for image in annotations], shows, np.ones(count, bool)
    )


class Copy(nn.Module):
    """A layer that outputs its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def make_network() -> nn.Sequential:
    """Return a network whose units are the channels of its input."""
    return nn.Sequential(Copy())
