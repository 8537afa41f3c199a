"""Boxes of a part, in pixels of the network's input, and places of the same size elsewhere in the image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convatlas.image_io import Size, compute_visible_box

MAX_OVERLAP = 0.25  # of the area of a box, by which a place elsewhere may overlap it
MIN_SIDE = 2  # pixels of a box

Offsets = npt.NDArray[np.bool_]


class Box(NamedTuple):
    """A box in pixels of the network's input: its first row and column, and its height and width."""

    top: int
    left: int
    height: int
    width: int

    def move(self, offset: Sequence[int]) -> "Box":
        """Return the box at another place.

        Args:
            offset: Rows down and columns to the right.
        """
        return self._replace(top=self.top + int(offset[0]), left=self.left + int(offset[1]))


def project_box(
    box: tuple[int, int, int, int], image_size: tuple[int, int], size: Size, resize: int | str
) -> Box | None:
    """Return a box of an image in pixels of the network's input, as far as the network sees it.

    Args:
        box: (left, top, right, bottom) in pixels of the image.
        image_size: (width, height) of the image.
        size: Height and width of the network's input.
        resize: What precedes the crop, as in `image_io.resize_to`.

    Returns:
        None where less than MIN_SIDE pixels a side are seen.
    """
    visible = compute_visible_box(image_size, size, resize)
    edges = []
    for axis, length in ((1, size[0]), (0, size[1])):
        first, last = visible[axis], visible[axis + 2]
        shares = [box[axis + end] / image_size[axis] for end in (0, 2)]
        edges.append([round(min(max((share - first) / (last - first), 0), 1) * length) for share in shares])
    (top, bottom), (left, right) = edges
    projected = Box(top, left, bottom - top, right - left)
    return projected if min(projected.height, projected.width) >= MIN_SIDE else None


def list_offsets(box: Box, size: Size) -> Offsets:
    """Return by which offsets a box lies within the image, and off its own place.

    Args:
        box: The box.
        size: Height and width of the image.

    Returns:
        (2 H + 1, 2 W + 1), whether it may be moved by -H to H rows and -W to W columns.
    """
    rows, columns = (np.arange(-length, length + 1) for length in size)
    overlap = np.multiply.outer(
        np.maximum(box.height - np.abs(rows), 0), np.maximum(box.width - np.abs(columns), 0)
    )
    within_rows = (box.top + rows >= 0) & (box.top + rows + box.height <= size[0])
    within_columns = (box.left + columns >= 0) & (box.left + columns + box.width <= size[1])
    is_elsewhere = overlap <= MAX_OVERLAP * box.height * box.width
    offsets: Offsets = np.logical_and.outer(within_rows, within_columns) & is_elsewhere
    return offsets


def draw_offsets(offsets: Offsets, count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw offsets at random, all with the same probability.

    Args:
        offsets: Of `list_offsets`, with one at least.
        count: The number of offsets to draw.
        generator: The generator.

    Returns:
        (count, 2), rows and columns.
    """
    places = np.flatnonzero(offsets)
    drawn = generator.choice(places, count)
    rows, columns = np.unravel_index(drawn, offsets.shape)
    return np.stack([rows - offsets.shape[0] // 2, columns - offsets.shape[1] // 2], 1)


def compute_share(boxes: Sequence[Box], size: Size) -> float:
    """Return the mean share of the image that boxes cover.

    Args:
        boxes: The boxes.
        size: Height and width of the image.
    """
    return float(np.mean([box.height * box.width for box in boxes])) / math.prod(size)
