"""Colour scales: what the colours of a tile mean, and which tiles share one scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import matplotlib
import numpy as np
import numpy.typing as npt

from convatlas.names import format_number

RGB_CMAP = "gray"  # of a diverging scale: three channels are drawn as red, green and blue, grey at 0
NAN_COLOUR = (224, 0, 190)  # magenta and orange: no colour map has them
INFINITE_COLOUR = (255, 145, 0)
NON_FINITE_COLOURS = {"NaN": NAN_COLOUR, "±∞": INFINITE_COLOUR}
NON_FINITE_NOTES = {"NaN": "Magenta: NaN.", "±∞": "Orange: infinite."}  # for captions


@dataclass(frozen=True)
class ColourScale:
    """A colour scale: the values at its ends, and the name of its matplotlib colour map."""

    low: float
    high: float
    cmap: str

    @classmethod
    def from_values(cls, *arrays: np.ndarray) -> "ColourScale":
        """Return the scale that spans the finite values of all arrays.

        Signed values get a diverging scale centred on zero, all others viridis; values of one sign span
        from zero, so that dark means zero (or the minimum, where all are negative).
        """
        arrays = tuple(map(select_finite, arrays))
        low = min((float(array.min()) for array in arrays if array.size), default=0.0)
        high = max((float(array.max()) for array in arrays if array.size), default=0.0)
        if low < 0 < high:
            return cls.diverging(*arrays)
        if low < 0:
            return cls(low, 0.0, "viridis")
        return cls(0.0, high or 1.0, "viridis")

    @classmethod
    def diverging(cls, *arrays: np.ndarray) -> "ColourScale":
        """Return the scale centred on zero that spans the finite values of arrays, whatever their signs."""
        arrays = tuple(map(select_finite, arrays))
        max_abs = max((float(np.abs(array).max()) for array in arrays if array.size), default=0.0) or 1.0
        return cls(-max_abs, max_abs, "RdBu_r")

    @property
    def is_diverging(self) -> bool:
        """Whether zero lies within the scale."""
        return self.low < 0 < self.high

    @property
    def description(self) -> str:
        """What the colours mean, for a caption."""
        if self.is_diverging and self.cmap == RGB_CMAP:
            return "RGB, grey = 0"
        if self.is_diverging:
            return "white = 0, red positive, blue negative"
        return "dark = 0, bright = maximum" if self.low == 0 else "bright = 0, dark = minimum"

    @property
    def extent(self) -> str:
        """The values at its ends, for a caption, such as "±0.5" or "0 to 3.2"."""
        if self.is_diverging and self.low == -self.high:
            return f"±{format_number(self.high)}"
        return f"{format_number(self.low)} to {format_number(self.high)}"

    def to_rgb(self, values: np.ndarray) -> npt.NDArray[np.uint8]:
        """Return the colours of values, clipped to the scale; NaN and infinity have colours of their own.

        Args:
            values: Values of any shape, such as (H, W).

        Returns:
            An array with an axis of three more, such as (H, W, 3), uint8.
        """
        finite = np.isfinite(values)
        known = values if finite.all() else np.where(finite, values, 0)
        position = (known.astype(np.float64) - self.low) / (self.high - self.low)
        pixels = colour_table(self.cmap)[np.clip(np.round(255 * position), 0, 255).astype(np.uint8)]
        return pixels if finite.all() else mark_non_finite(pixels, values)


def select_finite(values: np.ndarray) -> np.ndarray:
    """Return the finite values: the array itself where all are, else (n,).

    Args:
        values: Values of any shape.
    """
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


def find_non_finite(values: np.ndarray) -> list[str]:
    """Return the keys of NON_FINITE_COLOURS that are needed for values, in their order.

    Args:
        values: Values of any shape.
    """
    if np.isfinite(values).all():
        return []
    is_present = {"NaN": np.isnan(values).any(), "±∞": np.isinf(values).any()}
    return [name for name, present in is_present.items() if present]


def mark_non_finite(pixels: npt.NDArray[np.uint8], values: np.ndarray) -> npt.NDArray[np.uint8]:
    """Colour the pixels whose values are NaN or infinite.

    Args:
        pixels: (..., 3), changed in place.
        values: (...), their values.

    Returns:
        `pixels`.
    """
    pixels[np.isinf(values)] = INFINITE_COLOUR
    pixels[np.isnan(values)] = NAN_COLOUR
    return pixels


@cache
def colour_table(cmap: str) -> npt.NDArray[np.uint8]:
    """Return the 256 colours of a matplotlib colour map: (256, 3) uint8.

    Args:
        cmap: Its name in matplotlib, such as "viridis".

    Raises:
        KeyError: Matplotlib has no colour map of this name.
    """
    return np.round(255 * matplotlib.colormaps[cmap](np.arange(256))[:, :3]).astype(np.uint8)


def magnitude_quantile(values: np.ndarray, quantile: float = 0.99) -> float:
    """Return the quantile of the magnitudes of the finite, nonzero values; 0 where there are none.

    A scale that ends there is not set by a few outliers.

    Args:
        values: Values of any shape and sign.
        quantile: The quantile, in 0..1.
    """
    magnitudes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.quantile(magnitudes, quantile)) if magnitudes.size else 0.0


@dataclass
class LayerScales:
    """The scales of the tiles of some layers.

    Attributes:
        mode: "per_tile" (a scale for each tile), "per_layer" or "shared" (one scale for all layers).
        layers: By layer, the arrays over all its units and images that a scale must span.
        signed: Whether every scale is diverging, as for weights and projections.
        as_rgb: Whether signed values of three channels are drawn as RGB, with grey for zero.
    """

    mode: str
    layers: Mapping[str, Sequence[np.ndarray]]
    signed: bool = False
    as_rgb: bool = False

    @cached_property
    def _layer_scales(self) -> dict[str, ColourScale]:
        """The scale of each layer; in mode "per_tile" only its colour map is used."""
        make_scale = self._make_diverging if self.signed else ColourScale.from_values
        if self.mode == "shared":
            shared = make_scale(*(array for arrays in self.layers.values() for array in arrays))
            return dict.fromkeys(self.layers, shared)
        return {layer: make_scale(*arrays) for layer, arrays in self.layers.items()}

    def _make_diverging(self, *arrays: np.ndarray) -> ColourScale:
        scale = ColourScale.diverging(*arrays)
        return replace(scale, cmap=RGB_CMAP) if self.as_rgb else scale

    def for_layer(self, layer: str) -> ColourScale:
        """Return the scale of a layer, which its colour bar shows.

        Args:
            layer: A key of `layers`.
        """
        return self._layer_scales[layer]

    def for_tile(self, layer: str, values: np.ndarray) -> ColourScale:
        """Return the scale of one tile of a layer: its own in mode "per_tile", otherwise that of the layer.

        Args:
            layer: A key of `layers`.
            values: The values of the tile, (H, W) or (3, H, W).
        """
        layer_scale = self._layer_scales[layer]
        if self.mode != "per_tile":
            return layer_scale
        if layer_scale.is_diverging:
            return self._make_diverging(values)
        finite = select_finite(values)
        if layer_scale.high:
            return ColourScale(0.0, float(finite.max(initial=0)) or 1.0, layer_scale.cmap)
        return ColourScale(float(finite.min(initial=0)) or -1.0, 0.0, layer_scale.cmap)

    def end_labels(self, layer: str) -> tuple[str, str] | None:
        """Return the labels of a colour bar's ends, or None where they are numbers.

        Tiles that have a scale each share a colour bar whose ends are words.

        Args:
            layer: A key of `layers`.

        Returns:
            The labels of the lower and the upper end, such as ("0", "max").
        """
        if self.mode != "per_tile":
            return None
        scale = self._layer_scales[layer]
        low = "−max" if scale.is_diverging else "min" if scale.low else "0"
        return low, "max" if scale.high else "0"

    def describe_extent(self, layer: str) -> str:
        """Return the scale of a layer's tiles for the line of a caption.

        Args:
            layer: A key of `layers`.
        """
        return "a scale per tile" if self.mode == "per_tile" else self._layer_scales[layer].extent

    def describe(self, layer: str, subject: str = "tiles", dense: bool = False) -> str:
        """Return a sentence for a caption: which tiles share a scale, and what its colours mean.

        Args:
            layer: Name of the layer.
            subject: What the tiles show, in the plural.
            dense: Whether nothing is printed above the tiles.
        """
        description = self._layer_scales[layer].description
        if self.mode == "per_tile":
            printed = "" if dense else " (end printed above)"
            return (
                f"Each tile has its own colour scale{printed}; {subject} cannot be compared by colour: "
                f"{description}."
            )
        extent = " across the layers shown" if self.mode == "shared" else ""
        return f"All {subject} share one colour scale{extent}: {description}."
