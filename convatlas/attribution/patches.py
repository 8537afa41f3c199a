"""Patches: the part of the input that an activation depends on, cut out and projected."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from convatlas.attribution.deconvnet import project_positions
from convatlas.models.build import get_device

MAX_BATCH_VALUES = 2**20  # values of the input that are projected at a time

Size = tuple[int, int]


@dataclass(frozen=True)
class PatchGeometry:
    """Where in the input, of size `image` (H, W), a place of a layer's maps looks.

    The value in row i and column j depends on the pixels `first + (i, j) step` and those after, `field` of
    them along each axis; pixels beyond the border are counted. `whole` is set where it depends on all of
    the input, or where that is not known.
    """

    input_size: Size
    start: Size = (0, 0)
    step: Size = (1, 1)
    field_size: Size = (0, 0)
    is_global: bool = True

    @classmethod
    def from_layer(cls, layer: dict[str, Any], image: Size) -> "PatchGeometry":
        """That of a layer, as layers.json has it."""
        keys = ("receptive_start", "receptive_step", "receptive_field")
        first, step, field = (tuple(layer[key] or ()) for key in keys)
        if len(layer["output_shape"] or ()) != 3 or not len(first) == len(step) == len(field) == 2:
            return cls(image)
        return cls(image, first, step, field, is_global=False)

    @property
    def patch_size(self) -> Size:
        """The size of a patch: the receptive field's, along each axis no more than the input's."""
        if self.is_global:
            return self.input_size
        return tuple(min(field, side) for field, side in zip(self.field_size, self.input_size, strict=True))

    def corner(self, position: np.ndarray) -> Size:
        """Where in the input the first row and column of the patch of a position lie; below 0 beyond it."""
        starts = (int(f + p * s) for f, p, s in zip(self.start, position, self.step, strict=True))
        inside = zip(starts, self.field_size, self.input_size, strict=True)
        return (
            (0, 0) if self.is_global else tuple(start if field < side else 0 for start, field, side in inside)
        )

    def pixel_slices(self, position: np.ndarray) -> tuple[slice, slice]:
        """The rows and columns of the input that a position depends on."""
        if self.is_global:
            return slice(0, self.input_size[0]), slice(0, self.input_size[1])
        axes = zip(self.start, position, self.step, self.field_size, self.input_size, strict=True)
        return tuple(
            slice(max(0, f + int(p) * s), min(side, f + int(p) * s + field)) for f, p, s, field, side in axes
        )

    def crop_slices(self, position: np.ndarray) -> tuple[tuple[slice, slice], Size]:
        """The part of the input on which a network computes the same at a position, and the position there.

        It begins a whole number of steps from the input's border, so that every window slides over the same
        pixels; what padding changes at its edges lies outside of what the position depends on.
        """
        seen = self.pixel_slices(position)
        if self.is_global:
            return seen, (int(position[0]), int(position[1]))
        starts = [part.start // step for part, step in zip(seen, self.step, strict=True)]
        rows, columns = (
            slice(start * step, part.stop) for start, step, part in zip(starts, self.step, seen, strict=True)
        )
        return (rows, columns), (int(position[0]) - starts[0], int(position[1]) - starts[1])


def extract_patch(image: np.ndarray, geometry: PatchGeometry, position: np.ndarray) -> np.ndarray:
    """Cut a position's patch out of an image (C, H, W): (C, h, w), NaN where it depends on nothing."""
    height, width = geometry.patch_size
    patch = np.full((len(image), height, width), np.nan, np.float32)
    rows, columns = geometry.pixel_slices(position)
    top, left = geometry.corner(position)
    there = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    patch[:, *there] = image[:, rows, columns]
    return patch


def is_croppable(network: nn.Module, layers: list[dict[str, Any]], layer: str) -> bool:
    """Whether a layer computes the same on a part of the input as on all of it, but at the edges.

    Not behind adaptive pooling, which divides whatever it is given, and not where borders are filled with
    anything but zeros, which may come from far away.
    """
    for earlier in layers:
        if "daptive" in earlier["type"]:
            return False
        module = network.get_submodule(earlier["module"])
        if getattr(module, "padding_mode", "zeros") != "zeros":
            return False
        if earlier["name"] == layer:
            return True
    return False


def project_patches(
    network: nn.Module,
    layer: str,
    images: Sequence[np.ndarray],
    geometry: PatchGeometry,
    units: np.ndarray,
    positions: np.ndarray,
    rectify: bool = False,
    crop: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Project an activation of each image, and cut out the pixels that it depends on: (N, C, h, w), signed.

    `images` are N arrays (C, H, W) as the network sees them, `units` (N,) and `positions` (N, 2) those of
    the activations, which are given too, (N,). What lies around is NaN. Computed on a crop where `crop`
    says that this is the same. Errors are those of `deconvnet.project`.
    """
    device = get_device(network)
    everything = (slice(0, geometry.input_size[0]), slice(0, geometry.input_size[1]))
    crops = [
        geometry.crop_slices(position) if crop else (everything, tuple(position)) for position in positions
    ]
    alike: dict[Size, list[int]] = {}
    for n, ((rows, columns), _) in enumerate(crops):
        alike.setdefault((rows.stop - rows.start, columns.stop - columns.start), []).append(n)

    patches = np.empty((len(images), len(images[0]), *geometry.patch_size), np.float32)
    values = np.empty(len(images), np.float32)
    for size, members in alike.items():
        step = max(1, MAX_BATCH_VALUES // (len(images[0]) * math.prod(size)))
        for first in range(0, len(members), step):
            some = members[first : first + step]
            x = np.stack([images[n][:, *crops[n][0]] for n in some])
            places = torch.tensor([crops[n][1] for n in some], device=device)
            of = torch.as_tensor(units[some], device=device).long()
            found, made = project_positions(
                network, torch.from_numpy(x).to(device), layer, of, places, rectify
            )
            values[some] = made.cpu().numpy()
            for n, projection in zip(some, found.cpu().numpy(), strict=True):
                whole = np.zeros((len(x[0]), *geometry.input_size), np.float32)
                whole[:, *crops[n][0]] = projection
                patches[n] = extract_patch(whole, geometry, positions[n])
    return patches, values
