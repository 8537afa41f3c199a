"""The pictures of a lecture: arrays as small files of the site, with their colour scales."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convatlas.names import format_number
from convatlas.plotting.colormap import ColourScale, magnitude_quantile
from convatlas.plotting.sprites import encode_webp

LEVELS = 32  # steps of a colour scale, an even number, so that zero of a diverging one is exact
RGB_LEVELS = 8  # steps of each channel of a projection in colour


@dataclass(frozen=True)
class Picture:
    """A picture on a slide.

    Attributes:
        path: Its place in the site.
        width: Pixels.
        height: Pixels.
        alt: What it shows.
        scale: Its colour scale; None for an image.
    """

    path: str
    width: int
    height: int
    alt: str
    scale: ColourScale | None = None

    @property
    def scale_ends(self) -> tuple[str, str] | None:
        """Return the values at the ends of the colour scale, as text; None for an image."""
        return (format_number(self.scale.low), format_number(self.scale.high)) if self.scale else None


class PictureFolder:
    """The pictures of a lecture on one image, collected before they are written to the site.

    Args:
        path: Their folder in the site.

    Attributes:
        files: Their content, lossless WebP, by their places in the site.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, bytes] = {}

    def add_map(self, name: str, values: np.ndarray, alt: str, scale: ColourScale | None = None) -> Picture:
        """Add a map in LEVELS steps of the colours of a scale, one pixel per value.

        Args:
            name: The name of the file, without a suffix.
            values: The map (H, W).
            alt: What it shows.
            scale: The colour scale; that of its values by default.
        """
        scale = scale or ColourScale.from_values(values)
        step = (scale.high - scale.low) / LEVELS
        rounded = scale.low + np.round((values.astype(np.float64) - scale.low) / step) * step
        return self._add(name, scale.to_rgb(rounded), alt, scale)

    def add_image(self, name: str, planes: np.ndarray, alt: str) -> Picture:
        """Add an image: three planes in colour, the mean of others in grey.

        Args:
            name: The name of the file, without a suffix.
            planes: (C, H, W) in 0..1.
            alt: What it shows.
        """
        pixels = np.nan_to_num(planes).clip(0, 1)
        if len(pixels) != 3:
            pixels = pixels.mean(axis=0, keepdims=True).repeat(3, 0)
        return self._add(name, np.round(255 * pixels).astype(np.uint8).transpose(1, 2, 0), alt)

    def add_projection(self, name: str, values: np.ndarray, alt: str) -> Picture:
        """Add a projection, which is signed: grey is zero in colour, white in a single channel.

        Args:
            name: The name of the file, without a suffix.
            values: (1, H, W), or (3, H, W) as red, green and blue.
            alt: What it shows.
        """
        if len(values) == 1:
            return self.add_map(name, values[0], alt, ColourScale.diverging(values))
        max_abs = magnitude_quantile(values) or 1.0
        steps = np.round(RGB_LEVELS * (0.5 + values / (2 * max_abs)).clip(0, 1))
        return self.add_image(name, steps / RGB_LEVELS, alt)

    def _add(
        self, name: str, pixels: npt.NDArray[np.uint8], alt: str, scale: ColourScale | None = None
    ) -> Picture:
        """Add a file, or reuse one of the same content."""
        content = encode_webp(pixels)
        path = next((path for path, other in self.files.items() if other == content), None)
        if path is None:
            path = f"{self.path}/{name}.webp"
            self.files[path] = content
        return Picture(path, pixels.shape[1], pixels.shape[0], alt, scale)


def format_box(size: Sequence[int], top: float, left: float, height: float, width: float) -> str:
    """Return the CSS of a box over a picture, clipped to it, in percent.

    Args:
        size: Height and width of the picture.
        top: First row of the box.
        left: First column.
        height: Rows.
        width: Columns.
    """
    spans = []
    for first, extent, length in ((top, height, size[0]), (left, width, size[1])):
        begin, end = max(first, 0), min(first + extent, length)
        spans.append((100 * begin / length, 100 * (end - begin) / length))
    (top, height), (left, width) = spans
    return f"top: {top:.3f}%; left: {left:.3f}%; height: {height:.3f}%; width: {width:.3f}%"
