"""The most class-selective units of a network, and the layers among whose units they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convatlas.records import DatasetStatistics, Layer, LayerStatistics
from convatlas.statistics.class_preference import find_preferred_classes

MAX_SELECTIVE_UNITS = 20  # that are listed


@dataclass(frozen=True)
class ClassSelectiveUnit:
    """A class-selective unit.

    Attributes:
        layer: Name of its layer.
        unit: Its number.
        selectivity: Its class selectivity, in 0..1.
        class_name: The class that it prefers, with the largest mean response.
        effect_size: How far that mean stands out, Cohen's d.
        class_mean: The mean response to that class.
        other_classes_mean: The mean of the mean responses to the other classes.
    """

    layer: str
    unit: int
    selectivity: float
    class_name: str
    effect_size: float
    class_mean: float
    other_classes_mean: float


def list_activation_statistics(layers: Sequence[Layer], summary: DatasetStatistics) -> list[LayerStatistics]:
    """List the activation layers with statistics, whose dead units stand for those of the network.

    Args:
        layers: layers.json.
        summary: statistics.json.
    """
    kinds = {layer["name"]: layer["kind"] for layer in layers}
    return [layer for layer in summary["layers"] if kinds.get(layer["name"]) == "activation"]


def find_selective_units(
    statistics: Mapping[str, np.ndarray], layers: Sequence[str], summary: DatasetStatistics
) -> list[ClassSelectiveUnit]:
    """Find the most class-selective units, equally many of each class as far as there are.

    Only units that prefer their class by effect size, and are positive on as many images as there are top
    activations: a unit that is positive on one image is selective by that alone.

    Args:
        statistics: statistics.npz.
        layers: The layers to search.
        summary: statistics.json.

    Returns:
        The most selective unit first, equal ones in the layers' order.
    """
    candidates: list[tuple[float, str, int, int, float]] = []  # selectivity, layer, unit, class, effect size
    class_images = np.array(summary["class_images"])
    for layer in layers:
        preference = find_preferred_classes(statistics, layer, class_images, summary["images"])
        selectivity = statistics[f"{layer}@selectivity"]
        is_active = statistics[f"{layer}@values"][:, -1] > 0
        for unit in np.flatnonzero(is_active & (selectivity > 0) & (preference.preferred >= 0)).tolist():
            preferred, effect_size = int(preference.preferred[unit]), float(preference.effect_size[unit])
            candidates.append((float(selectivity[unit]), layer, unit, preferred, effect_size))
    candidates.sort(key=lambda candidate: -candidate[0])
    # In turns: the most selective unit of each class, then the second of each, and so on.
    ranks: Counter[str] = Counter()
    turns = []
    for n, (_, _, _, preferred, _) in enumerate(candidates):
        name = summary["classes"][preferred]
        turns.append((ranks[name], n))
        ranks[name] += 1
    units = []
    for n in sorted(n for _, n in sorted(turns)[:MAX_SELECTIVE_UNITS]):
        value, layer, unit, preferred, effect_size = candidates[n]
        means = statistics[f"{layer}@classes"][unit]
        units.append(
            ClassSelectiveUnit(
                layer=layer,
                unit=unit,
                selectivity=value,
                class_name=summary["classes"][preferred],
                effect_size=effect_size,
                class_mean=float(means[preferred]),
                other_classes_mean=float(np.nanmean(np.delete(means, preferred))),
            )
        )
    return units
