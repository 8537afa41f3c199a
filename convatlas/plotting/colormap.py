"""Colour scales: what the colours of tiles mean, and which tiles share one."""

from dataclasses import dataclass, replace
from functools import cache, cached_property

import matplotlib
import numpy as np
from matplotlib.colors import Colormap


@dataclass(frozen=True)
class ColourScale:
    """A colour scale: what its ends mean, and its colours, by matplotlib's name."""

    low: float
    high: float
    cmap: str

    @classmethod
    def from_values(cls, *arrays: np.ndarray) -> "ColourScale":
        """Span the values of all arrays: diverging and centred on zero for signed values, else viridis.

        Values of one sign span from zero, so that darkness means nothing there.
        """
        low = min((float(array.min()) for array in arrays if array.size), default=0.0)
        high = max((float(array.max()) for array in arrays if array.size), default=0.0)
        if low < 0 < high:
            return cls.diverging(*arrays)
        if low < 0:
            return cls(low, 0.0, "viridis")
        return cls(0.0, high or 1.0, "viridis")

    @classmethod
    def diverging(cls, *arrays: np.ndarray) -> "ColourScale":
        """Centred on zero whatever the values' signs, for what is signed by nature."""
        most = max((float(np.abs(array).max()) for array in arrays if array.size), default=0.0) or 1.0
        return cls(-most, most, "RdBu_r")

    @property
    def is_diverging(self) -> bool:
        return self.low < 0 < self.high

    @property
    def description(self) -> str:
        """What the colours mean, for a caption."""
        if self.is_diverging and self.cmap == "gray":
            return "grey is zero, brighter positive and darker negative, in each colour"
        if self.is_diverging:
            return "white is zero, red positive, blue negative"
        return "dark is zero, bright the maximum" if self.low == 0 else "bright is zero, dark the minimum"

    def to_rgb(self, values: np.ndarray) -> np.ndarray:
        """Colour (H, W) values as (H, W, 3) uint8."""
        place = (values.astype(np.float64) - self.low) / (self.high - self.low)
        return colour_table(self.cmap)[np.clip(np.round(255 * place), 0, 255).astype(np.uint8)]


@cache
def colour_table(cmap: str) -> np.ndarray:
    """The 256 colours of a map, (256, 3) uint8."""
    colormap: Colormap = matplotlib.colormaps[cmap]
    return np.round(255 * colormap(np.arange(256))[:, :3]).astype(np.uint8)


@dataclass
class LayerScales:
    """Which tiles share a scale: `per_tile` each alone, `per_layer` a layer's, `shared` all layers'.

    `layers` holds the arrays of each layer over all units and images; `signed` makes every
    scale diverging, as weights and projections need; `in_colour` is for signed values of three
    channels, which are drawn as colours about grey.
    """

    mode: str
    layers: dict[str, list[np.ndarray]]
    signed: bool = False
    as_rgb: bool = False

    @cached_property
    def _layer_scales(self) -> dict[str, ColourScale]:
        """The scale of each layer; for `per_tile`, one that has the layer's colours."""
        make = self._make_diverging if self.signed else ColourScale.from_values
        if self.mode == "shared":
            shared = make(*(array for arrays in self.layers.values() for array in arrays))
            return dict.fromkeys(self.layers, shared)
        return {layer: make(*arrays) for layer, arrays in self.layers.items()}

    def _make_diverging(self, *arrays: np.ndarray) -> ColourScale:
        scale = ColourScale.diverging(*arrays)
        return replace(scale, cmap="gray") if self.as_rgb else scale

    def for_layer(self, layer: str) -> ColourScale:
        """The scale that a layer's colour bar shows."""
        return self._layer_scales[layer]

    def for_tile(self, layer: str, values: np.ndarray) -> ColourScale:
        """The scale of one tile, in its layer's colours."""
        layers = self._layer_scales[layer]
        if self.mode != "per_tile":
            return layers
        if layers.is_diverging:
            return self._make_diverging(values)
        if layers.high:
            return ColourScale(0.0, float(values.max()) or 1.0, layers.cmap)
        return ColourScale(float(values.min()) or -1.0, 0.0, layers.cmap)

    def end_labels(self, layer: str) -> tuple[str, str] | None:
        """What stands at the ends of a colour bar where they have no number, for each tile has its own."""
        if self.mode != "per_tile":
            return None
        scale = self._layer_scales[layer]
        return ("−max" if scale.is_diverging else "min" if scale.low else "0", "max" if scale.high else "0")

    def describe(self, layer: str, subject: str = "tiles", dense: bool = False) -> str:
        """Say for a caption which tiles share the scale and what its colours mean.

        On a `dense` plate no tile has room for its scale's end.
        """
        if self.mode == "per_tile":
            printed = "" if dense else ", its end printed above it"
            return (
                f"Each tile has a scale of its own{printed}, so {subject} cannot be compared "
                f"by colour: {self._layer_scales[layer].description}."
            )
        over = " with those of the other layers drawn" if self.mode == "shared" else ""
        return f"All {subject} share one scale{over}: {self._layer_scales[layer].description}."
