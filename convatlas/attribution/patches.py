"""Patches: the part of the input that an activation depends on, cut out and projected."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from convatlas.attribution.deconvnet import MAX_BATCH_VALUES, project_positions
from convatlas.models.build import get_device
from convatlas.records import Layer

Size = tuple[int, int]  # height, width
Slices = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class PatchGeometry:
    """Which pixels of the input the values of a layer's maps depend on.

    The value in row i and column j depends on `field_size` pixels from `start + (i, j) step` on; pixels
    beyond the border are counted.

    Attributes:
        input_size: Size of the input.
        start: First row and column of the field of the value in row 0 and column 0.
        step: Rows and columns between the fields of neighbouring values.
        field_size: Size of the receptive field.
        is_global: Whether a value depends on all of the input, or the field is not known.
    """

    input_size: Size
    start: Size = (0, 0)
    step: Size = (1, 1)
    field_size: Size = (0, 0)
    is_global: bool = True

    @classmethod
    def from_layer(cls, layer: Layer, input_size: Size) -> "PatchGeometry":
        """Return the geometry of a layer.

        Args:
            layer: Its entry in layers.json.
            input_size: Size of the network's input.
        """
        start, step, field = layer["receptive_start"], layer["receptive_step"], layer["receptive_field"]
        makes_maps = len(layer["output_shape"] or ()) == 3
        if not makes_maps or not start or not step or not field:
            return cls(input_size)
        if not len(start) == len(step) == len(field) == 2:
            return cls(input_size)
        return cls(input_size, _pair(start), _pair(step), _pair(field), is_global=False)

    @property
    def patch_size(self) -> Size:
        """The size of a patch: that of the receptive field, along each axis no more than the input's."""
        if self.is_global:
            return self.input_size
        return _pair(list(map(min, self.field_size, self.input_size)))

    def corner(self, position: np.ndarray) -> Size:
        """Return the first row and column of a patch in the input; they are negative beyond the border.

        Args:
            position: Row and column of the value in its map.
        """
        if self.is_global:
            return 0, 0
        axes = zip(self.start, position, self.step, self.field_size, self.input_size, strict=True)
        return _pair([int(start + p * step) if field < size else 0 for start, p, step, field, size in axes])

    def pixel_slices(self, position: np.ndarray) -> Slices:
        """Return the rows and columns of the input that a value depends on, without those beyond the border.

        Args:
            position: Row and column of the value in its map.
        """
        if self.is_global:
            return slice(0, self.input_size[0]), slice(0, self.input_size[1])
        axes = zip(self.start, position, self.step, self.field_size, self.input_size, strict=True)
        firsts = [(start + int(p) * step, field, size) for start, p, step, field, size in axes]
        rows, columns = (slice(max(0, first), min(size, first + field)) for first, field, size in firsts)
        return rows, columns

    def crop_slices(self, position: np.ndarray) -> tuple[Slices, Size]:
        """Return the part of the input on which a network computes the same value, and its position there.

        The part begins a whole number of steps from the input's border, so that every window slides over
        the same pixels; what padding changes at its edges lies outside the receptive field.

        Args:
            position: Row and column of the value in its map.

        Returns:
            Rows and columns of the part; row and column of the value in the map that the part gives.
        """
        row, column = int(position[0]), int(position[1])
        rows, columns = self.pixel_slices(position)
        if self.is_global:
            return (rows, columns), (row, column)
        row_steps, column_steps = rows.start // self.step[0], columns.start // self.step[1]
        cropped_rows = slice(row_steps * self.step[0], rows.stop)
        cropped_columns = slice(column_steps * self.step[1], columns.stop)
        return (cropped_rows, cropped_columns), (row - row_steps, column - column_steps)


def _pair(values: Sequence[int]) -> Size:
    """Return two numbers as a tuple."""
    height, width = values
    return height, width


def extract_patch(image: np.ndarray, geometry: PatchGeometry, position: np.ndarray) -> np.ndarray:
    """Cut the pixels that a value depends on out of an image.

    Args:
        image: (C, H, W).
        geometry: The geometry of the value's layer.
        position: Row and column of the value in its map.

    Returns:
        (C, h, w) float32, NaN where the value does not depend on a pixel, or beyond the border; pixels of the
        image that are NaN are ∞.
    """
    height, width = geometry.patch_size
    patch = np.full((len(image), height, width), np.nan, np.float32)
    rows, columns = geometry.pixel_slices(position)
    top, left = geometry.corner(position)
    pixels = image[:, rows, columns]
    pixels = np.where(np.isnan(pixels), np.inf, pixels)
    patch[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = pixels
    return patch


def extract_context(
    image: np.ndarray, geometry: PatchGeometry, position: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the surroundings of the pixels that a value depends on out of an image.

    Args:
        image: (C, H, W).
        geometry: The geometry of the value's layer.
        position: Row and column of the value in its map.
        size: Height and width of what is cut, if the image is as large.

    Returns:
        (C, h, w) float32, within the image, with the pixels near its centre; and the row and column in the
        image of its upper left pixel, (2,) int32.
    """
    sides = np.minimum(size, image.shape[1:])
    centred = np.array(geometry.corner(position)) + (np.array(geometry.patch_size) - sides) // 2
    top, left = np.clip(centred, 0, np.array(image.shape[1:]) - sides)
    context = image[:, top : top + sides[0], left : left + sides[1]].astype(np.float32)
    return np.where(np.isnan(context), np.inf, context), np.array([top, left], np.int32)


def is_croppable(network: nn.Module, layers: Sequence[Layer], layer: str) -> bool:
    """Return whether a layer computes the same on a part of the input as on all of it, except at the edges.

    Not behind adaptive pooling, whose windows depend on the input's size, nor behind a coarser map or padding
    of one side alone, where they depend on the first pixel, and not where borders are filled with anything
    but zeros, which may come from far away.

    Args:
        network: The network.
        layers: Its layers, as in layers.json.
        layer: Name of one of them.
    """
    step = next(entry["receptive_step"] for entry in layers if entry["name"] == layer)
    for preceding in layers:
        if "daptive" in preceding["type"] or not _is_aligned(preceding, step):
            return False
        module = network.get_submodule(preceding["module"])
        if getattr(module, "padding_mode", "zeros") != "zeros":
            return False
        if preceding["name"] == layer:
            return True
    return False


def _is_aligned(preceding: Layer, step: Sequence[int] | None) -> bool:
    """Return whether the windows of a layer stay where they are on a part that begins whole steps further."""
    padding, own_step = preceding["padding"], preceding["receptive_step"]
    if isinstance(padding, list) and any(isinstance(sides, list) for sides in padding):
        return False
    return not step or not own_step or not any(n % own for n, own in zip(step, own_step, strict=False))


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
    """Project one activation of each image, and cut out the pixels that it depends on.

    Args:
        network: As in `deconvnet.project`.
        layer: As in `deconvnet.project`.
        images: N preprocessed images, (C, H, W).
        geometry: The geometry of the layer.
        units: The unit of each activation, (N,).
        positions: Row and column of each activation in its map, (N, 2).
        rectify: As in `deconvnet.project`.
        crop: Compute on a crop of each image, which needs `is_croppable`.

    Returns:
        The projections (N, C, h, w) float32, signed, NaN where an activation does not depend on a pixel, ∞
        where the projection itself is NaN; and the activations (N,) float32.

    Raises:
        UserError: As in `deconvnet.project`.
    """
    device = get_device(network)
    everything = (slice(0, geometry.input_size[0]), slice(0, geometry.input_size[1]))
    crops = [
        geometry.crop_slices(position) if crop else (everything, _pair(position.tolist()))
        for position in positions
    ]
    indices_by_size: dict[Size, list[int]] = {}
    for n, ((rows, columns), _) in enumerate(crops):
        indices_by_size.setdefault((rows.stop - rows.start, columns.stop - columns.start), []).append(n)

    patches = np.empty((len(images), len(images[0]), *geometry.patch_size), np.float32)
    activations = np.empty(len(images), np.float32)
    for size, indices in indices_by_size.items():
        batch_size = max(1, MAX_BATCH_VALUES // (len(images[0]) * math.prod(size)))
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            x = np.stack([images[n][:, *crops[n][0]] for n in batch])
            projections, values = project_positions(
                network,
                torch.from_numpy(x).to(device),
                layer,
                torch.as_tensor(units[batch], device=device).long(),
                torch.tensor([crops[n][1] for n in batch], device=device),
                rectify,
            )
            activations[batch] = values.cpu().numpy()
            for n, projection in zip(batch, projections.cpu().numpy(), strict=True):
                uncropped = np.zeros((len(projection), *geometry.input_size), np.float32)
                uncropped[:, *crops[n][0]] = projection
                patches[n] = extract_patch(uncropped, geometry, positions[n])
    return patches, activations
