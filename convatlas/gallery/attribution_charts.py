"""The charts beside attribution maps: deletion and insertion curves, and the randomisation test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from convatlas.gallery.diagrams.small_chart import Curve, Role, SmallChart, draw_chart, round_up
from convatlas.names import format_number
from convatlas.records import AttributionImage, AttributionMap, AttributionMethod

CURVES: tuple[tuple[Literal["deletion", "insertion"], Role], ...] = (
    ("deletion", "falling"),
    ("insertion", "rising"),
)
WEAK_BASELINE = 0.5  # of the image's probability, which the blurred image keeps
MAX_SPOKEN_VALUES = 6  # of a curve, for screen readers


@dataclass(frozen=True)
class CurveArea:
    """The area under a curve, and under that of the random order, None where there is none."""

    label: str
    role: Role
    auc: float
    random_auc: float | None


def list_areas(entry: AttributionMap, image: AttributionImage) -> list[CurveArea]:
    """List the areas under the deletion and the insertion curve of a map, as far as they were measured.

    Args:
        entry: The map.
        image: Its image.
    """
    random = image["random_order"].get(str(entry["class"]))
    return [
        CurveArea(label, role, curve["auc"], random[label]["auc"] if random else None)
        for label, role in CURVES
        if (curve := entry[label])
    ]


def describe_weak_baseline(image: AttributionImage, number: int) -> str:
    """Say where the blurred image keeps most of a class's probability; "" elsewhere.

    Args:
        image: The image.
        number: Number of the class.
    """
    curves = [entry["deletion"] for entry in image["maps"] if entry["class"] == number]
    values = next((curve["values"] for curve in curves if curve), None)
    if values is None or values[-1] < WEAK_BASELINE * values[0]:
        return ""
    return (
        f"The blurred image still has a probability of {100 * values[-1]:.1f} % for this class, so that "
        "deletion and insertion say little here."
    )


def draw_perturbation(
    entry: AttributionMap, image: AttributionImage, fractions: Sequence[float]
) -> SmallChart | None:
    """Draw the deletion and the insertion curve of a map beside those of the random order.

    Args:
        entry: The map.
        image: Its image, whose maps for the same class share the vertical axis.
        fractions: The fractions of the pixels, from 0 to 1.

    Returns:
        None where the curves were not measured.
    """
    random = image["random_order"].get(str(entry["class"]))
    curves = [Curve(label, role, curve["values"]) for label, role in CURVES if (curve := entry[label])]
    if not curves:
        return None
    alt = "; ".join(
        f"{curve.label}, most relevant pixels first: probability {_list_values(curve.values)}"
        for curve in curves
    )
    if random:
        curves += [Curve(label, role, random[label]["values"], True) for label, role in CURVES]
    same_class = [other for other in image["maps"] if other["class"] == entry["class"]]
    values = [curve["values"] for other in same_class for label, _ in CURVES if (curve := other[label])] + [
        curve.values for curve in curves
    ]
    highest = max(value for row in values for value in row if value is not None)
    limits = (0.0, round_up(highest))
    return draw_chart(curves, fractions, "probability", limits, ("0 %", "100 % of pixels"), alt)


def draw_randomisation(method: AttributionMethod) -> SmallChart | None:
    """Draw the similarity of a method's map to the trained network's as weights are redrawn.

    Args:
        method: The method.

    Returns:
        None where it was not measured.
    """
    test = method["randomisation"]
    return draw_similarity(test["layers"], test["similarity"]) if test else None


def draw_similarity(layers: Sequence[Sequence[str]], similarity: Sequence[float | None]) -> SmallChart | None:
    """Draw a curve of similarity to what the trained network gives.

    Args:
        layers: The layers that are redrawn at each stage.
        similarity: The Spearman correlation after each stage.

    Returns:
        None without a stage.
    """
    if not similarity:
        return None
    values = [1.0, *similarity]
    lowest = min((value for value in values if value is not None), default=0)
    low = -round_up(-lowest) if lowest < 0 else 0
    alt = (
        "Spearman correlation with the result of the trained network as the weights are redrawn from "
        f"{layers[0][0]} to {layers[-1][-1]}: {_list_values(similarity)}"
    )
    n_layers = sum(map(len, layers))
    ends = ("trained", f"{n_layers} layer{'s' if n_layers > 1 else ''} redrawn")
    curve = Curve("similarity", "similarity", values)
    return draw_chart([curve], range(len(values)), "correlation", (low, 1), ends, alt)


def _list_values(values: Sequence[float | None]) -> str:
    """List MAX_SPOKEN_VALUES values of a curve at most, evenly spaced."""
    count = min(MAX_SPOKEN_VALUES, len(values))
    indices = np.linspace(0, len(values) - 1, count).round().astype(int).tolist()
    numbers = [values[index] for index in indices]
    return ", ".join("undefined" if number is None else format_number(number, ".2f") for number in numbers)
