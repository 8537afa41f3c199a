"""The slide of an activation function: a map before and after it, and the function as recorded."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convatlas.gallery.lecture.pictures import Picture, PictureFolder
from convatlas.names import format_number
from convatlas.records import Layer

MAX_CURVE_POINTS = 60


@dataclass(frozen=True)
class ActivationContent:
    """An activation function on the map of a unit.

    Attributes:
        layer: The activation function.
        unit: The unit.
        before: The map before it.
        after: The map after it, on the same scale.
        n_negative: How many values are below zero before and after.
        n_zero: How many values are zero after it.
        n_values: The number of values.
        curve: The recorded values after it over those before it, as points of an SVG of 100 × 100.
        ends: The values at the ends of both axes, as text.
        origin: Where zero is on the axes.
        normalisation: The layer between the convolution and the activation function; "" without one.
    """

    layer: Layer
    unit: int
    before: Picture
    after: Picture
    n_negative: tuple[int, int]
    n_zero: int
    n_values: int
    curve: list[tuple[float, float]]
    ends: tuple[str, str]
    origin: float
    normalisation: str


def make_activation(
    layer: Layer, convolution: Layer, unit: int, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> ActivationContent | None:
    """Show a map before and after an activation function.

    Args:
        layer: The activation function.
        convolution: The convolution before it.
        unit: The unit.
        outputs: The recorded outputs on the image.
        pictures: Where the pictures are added.

    Returns:
        None where the map has NaN or infinite values, or the map before it is not recorded.
    """
    source = layer["inputs"][0]
    if source not in outputs:
        return None
    before, after = outputs[source][unit], outputs[layer["name"]][unit]
    if not (np.isfinite(before).all() and np.isfinite(after).all()) or before.shape != after.shape:
        return None
    first = pictures.add_map("activation-before", before, f"Map of unit {unit} before {layer['type']}")
    second = pictures.add_map(
        "activation-after", after, f"Map of unit {unit} after {layer['type']}", first.scale
    )
    low, high = (float(function(np.stack([before, after]))) for function in (np.min, np.max))
    low, high = min(low, 0.0), max(high, 0.0)
    span = (high - low) or 1.0
    order = np.argsort(before, axis=None, kind="stable")
    picked = order[np.unique(np.linspace(0, order.size - 1, MAX_CURVE_POINTS).round().astype(int))]
    curve = [
        (round(100 * (x - low) / span, 1), round(100 - 100 * (y - low) / span, 1))
        for x, y in zip(before.ravel()[picked].tolist(), after.ravel()[picked].tolist(), strict=True)
    ]
    return ActivationContent(
        layer=layer,
        unit=unit,
        before=first,
        after=second,
        n_negative=(int((before < 0).sum()), int((after < 0).sum())),
        n_zero=int((after == 0).sum()),
        n_values=before.size,
        curve=curve,
        ends=(format_number(low), format_number(high)),
        origin=round(-100 * low / span, 1),
        normalisation="" if source == convolution["name"] else source,
    )
