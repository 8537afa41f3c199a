"""Attribution maps as pictures: the sum over channels in the colours of a printed scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convatlas.gallery.attribution_text import format_quantity
from convatlas.plotting.colormap import ColourScale, magnitude_quantile, select_finite
from convatlas.plotting.sprites import encode_webp, make_unique_slugs

SCALE_QUANTILE = 0.99  # of the nonzero magnitudes: the end of the scale of a method that returns pixels
COLOUR_STEPS = 64  # from end to end of a scale: as many as the explorer's, a third smaller than 256


@dataclass(frozen=True)
class MapScale:
    """The colour scale of a method's maps on an image.

    Attributes:
        colours: The scale.
        is_clipped: Whether values lie beyond its ends.
    """

    colours: ColourScale
    is_clipped: bool

    @classmethod
    def from_maps(cls, maps: Sequence[np.ndarray], signed: bool, quantile: float) -> "MapScale":
        """Return the scale that maps share.

        Args:
            maps: The maps (H, W).
            signed: Whether the scale is diverging, centred on zero.
            quantile: The scale ends at this quantile of the nonzero magnitudes; 1 means the maximum.
        """
        values = np.concatenate([select_finite(values).ravel() for values in maps])
        end = magnitude_quantile(values, quantile)
        is_clipped = bool(np.abs(values).max(initial=0) > end)
        end = end or 1.0
        colours = ColourScale(-end, end, "RdBu_r") if signed else ColourScale(0.0, end, "viridis")
        return cls(colours, is_clipped)

    @property
    def is_signed(self) -> bool:
        """Return whether the scale is centred on zero."""
        return self.colours.is_diverging

    @property
    def ticks(self) -> list[str]:
        """Return the labels below the colour bar, from left to right."""
        low, high = format_quantity(self.colours.low), format_quantity(self.colours.high)
        if self.is_clipped:
            low, high = f"≤ {low}" if self.is_signed else low, f"≥ {high}"
        return [low, "0", high] if self.is_signed else [low, high]


def name_pictures(network: str, image: str, members: Sequence[str]) -> dict[str, str]:
    """Return where in the site the pictures of an image's maps are, by member of its npz file.

    Args:
        network: Name of the network.
        image: Name of the image.
        members: The members, in the order of attribution.json.
    """
    folder = f"attribution/{network}/{image}"
    slugs = make_unique_slugs(members)
    return {member: f"{folder}/{slug}.webp" for member, slug in zip(members, slugs, strict=True)}


def name_input_picture(network: str, image: str) -> str:
    """Return where in the site the picture of an image is.

    Args:
        network: Name of the network.
        image: Name of the image.
    """
    return f"attribution/{network}/{image}.webp"


def sum_channels(values: np.ndarray) -> np.ndarray:
    """Return what a map shows of each pixel: the sum over its channels, float64.

    Args:
        values: (C, H, W) in the input's space, or (1, H, W).

    Returns:
        (H, W).
    """
    summed: np.ndarray = values.astype(np.float64).sum(0)
    return summed


def render_map(values: np.ndarray, scale: ColourScale) -> bytes:
    """Render a map as lossless WebP in COLOUR_STEPS + 1 colours of a scale, one pixel per value.

    Args:
        values: The map (H, W); NaN and infinity have colours of their own.
        scale: The scale.
    """
    step = (scale.high - scale.low) / COLOUR_STEPS
    return encode_webp(scale.to_rgb(np.round(values / step) * step))


def render_input(pixels: np.ndarray) -> bytes:
    """Render an input as lossless WebP.

    Args:
        pixels: (1, H, W) or (3, H, W) in 0..1, as `image_io.to_displayed_pixels` returns them.
    """
    rgb = np.round(255 * pixels.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return encode_webp(np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3))))
