"""The layers, units and classes for which images are optimised."""

from collections.abc import Sequence

import numpy as np

from convatlas import UserError
from convatlas.attribution.targets import number_classes
from convatlas.layer_selection import choose_layers, choose_projected_layers, space_evenly
from convatlas.pipeline.config_types import CountOrAll, LayerSelection
from convatlas.results import Results, list_projection_keys, projected_units

DEFAULT_LAYER_COUNT = 4  # where the config names none: of the projected layers, evenly spaced


def select_layers(results: Results, selection: LayerSelection | None, key: str) -> list[str]:
    """Return the layers for whose units images are optimised, in execution order.

    Args:
        results: The network's results, with its projections.
        selection: `views.feature_visualisation.layers`; None chooses some of the projected layers, or of the
            convolutions and pooling layers where none is projected.
        key: Place of the selection in the config, for messages.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if selection is not None:
        return choose_layers(results.layers, selection, key)
    names = list(list_projected_units(results)) or choose_projected_layers(results.layers, "all", key)
    return space_evenly(names, DEFAULT_LAYER_COUNT)


def list_projected_units(results: Results) -> dict[str, list[int]]:
    """Return the units that are projected on any sample image, by layer, in the order of the projections.

    Args:
        results: The network's results.
    """
    units: dict[str, list[int]] = {}
    for image in results.images:
        arrays = results.projections(image["name"])
        for layer in dict.fromkeys(key.partition("@")[0] for key in list_projection_keys(arrays)):
            units.setdefault(layer, []).extend(projected_units(arrays, layer))
    return {layer: list(dict.fromkeys(numbers)) for layer, numbers in units.items()}


def select_units(
    results: Results, layer: str, selection: CountOrAll | Sequence[int], key: str, projected: Sequence[int]
) -> list[int]:
    """Return the units of a layer for which images are optimised.

    Args:
        results: The network's results.
        layer: Name of the layer.
        selection: `views.feature_visualisation.units`: a number, "all", or numbers of units.
        key: Place of the selection in the config, for messages.
        projected: The units of the layer that are projected on a sample image, which come first.

    Returns:
        Their numbers: of a limited number those with projections, the largest maxima over the data set
        first; then others. None of a layer whose output has no units.

    Raises:
        UserError: The layer has no unit of a number.
    """
    count = next(iter(results.layer(layer)["output_shape"]), 0)
    if isinstance(selection, list):
        if wrong := [unit for unit in selection if unit >= count]:
            raise UserError(f"{key}: {layer} has no unit {wrong[0]}; it has {count}, counted from 0")
        return list(dict.fromkeys(selection))
    limit = count if selection == "all" else int(str(selection))
    if limit >= count:
        return list(range(count))
    order = list(dict.fromkeys([*projected, *range(count)]))
    maxima = read_dataset_maxima(results, layer)
    if maxima is not None:
        order.sort(key=lambda unit: (unit not in projected, -float(maxima[unit])))
    return order[:limit]


def read_dataset_maxima(results: Results, layer: str) -> np.ndarray | None:
    """Return the maximum of each unit over the data set, (units,); None where it is not tracked.

    Args:
        results: The network's results.
        layer: Name of the layer.
    """
    name = f"{layer}@max"
    return results.statistics[name] if results.has_statistics and name in results.statistics else None


def list_dead_units(results: Results, layer: str) -> frozenset[int]:
    """Return the units of a layer that are never above zero over the data set.

    Args:
        results: The network's results.
        layer: Name of the layer.
    """
    entries = results.dataset_statistics["layers"] if results.has_statistics else []
    return frozenset(unit for entry in entries if entry["name"] == layer for unit in entry["dead"])


def select_classes(results: Results, selection: CountOrAll | Sequence[int | str], key: str) -> list[int]:
    """Return the classes for which images are optimised.

    Args:
        results: The network's results.
        selection: `views.feature_visualisation.classes`: a number, "all", or numbers and names of classes.
        key: Place of the selection in the config, for messages.

    Returns:
        Their numbers: of a limited number those that are predicted for sample images first.

    Raises:
        UserError: There is no such class.
    """
    names = results.network["classes"]
    if isinstance(selection, list):
        return number_classes(selection, names, key)
    limit = len(names) if selection == "all" else int(str(selection))
    if limit >= len(names):
        return list(range(len(names)))
    predicted = [image["prediction"] for image in results.images if image["prediction"] is not None]
    return list(dict.fromkeys([*predicted, *range(len(names))]))[:limit]
