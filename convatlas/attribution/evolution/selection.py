"""The layers and units whose evolution is computed, and what is wrong with their names."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from convatlas import UserError
from convatlas.attribution.deconv_checks import check_rules
from convatlas.attribution.unit_selection import select_top_units
from convatlas.layer_selection import choose_projected_layers
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config_types import LayerSelection, NetworkConfig, UnitSelection
from convatlas.records import Layer
from convatlas.tracing.config_checks import list_selected_layers

log = logging.getLogger(__name__)

MAX_LAYERS = 4  # where the config names none
UNIT_PRESERVING_KINDS = ("norm", "activation", "pool", "dropout")


class OwnFilters(NamedTuple):
    """The convolution with the filters of a layer's units, and the axis of its weight that counts them."""

    module: str
    axis: int


def choose_layers(layers: Sequence[Layer], selection: LayerSelection | None, key: str) -> list[str]:
    """Return the names of the layers whose units are followed through training.

    Args:
        layers: layers.json.
        selection: `views.evolution.layers`; None selects at most MAX_LAYERS of the convolutions and pooling
            layers, evenly spaced, with the last one.
        key: The place of `views.evolution` in the config, for the error.

    Raises:
        UserError: A selected layer does not exist.
    """
    if selection is not None:
        return choose_projected_layers(layers, selection, f"{key}.layers")
    names = choose_projected_layers(layers, "all", key)
    count = min(MAX_LAYERS, len(names))
    positions = np.linspace(0, len(names) - 1, count + 1)[1:] if count < len(names) else np.arange(count)
    return [names[int(position)] for position in positions.round()]


def choose_units(values: np.ndarray, selection: UnitSelection) -> np.ndarray:
    """Return the numbers of a layer's units that are projected, int32.

    Args:
        values: The strongest activation of each unit after the last epoch, (units,).
        selection: `views.evolution.units`: how many, the strongest first; "all", or their numbers.
    """
    if isinstance(selection, list):
        return np.array([unit for unit in selection if unit < len(values)], np.int32)
    return select_top_units(values, selection)


def find_own_filters(layers: Sequence[Layer], layer: str) -> OwnFilters | None:
    """Return the convolution whose filters are those of a layer's units; None where there is none.

    It is the layer itself, or the one that it is computed from by operations on each unit's map alone.

    Args:
        layers: layers.json.
        layer: Name of the layer.
    """
    entries = {entry["name"]: entry for entry in layers if entry["called"]}
    entry = entries.get(layer)
    units = entry["output_shape"][:1] if entry else []
    while entry is not None and entry["output_shape"][:1] == units:
        if entry["kind"] == "conv":
            is_transposed = "Transpose" in entry["type"]
            if is_transposed and (entry["groups"] or 1) > 1:
                return None
            return OwnFilters(entry["module"], int(is_transposed))
        if entry["kind"] not in UNIT_PRESERVING_KINDS or len(entry["inputs"]) != 1:
            return None
        entry = entries.get(entry["inputs"][0])
    return None


def find_evolution_errors(
    network: nn.Module, preprocessing: Preprocessing, settings: NetworkConfig, key: str
) -> Iterator[str]:
    """Yield the units of `views.evolution` that a network's layers lack; log why layers will be skipped.

    Args:
        network: The network, untrained.
        preprocessing: Its preprocessing.
        settings: Its section of the config.
        key: Place of the section in the config.
    """
    evolution = settings["views"]["evolution"]
    if evolution is None or not preprocessing.is_image:
        return
    section, selection = f"{key}.views.evolution", evolution["layers"]
    entries = selection if isinstance(selection, list) else []
    layers = list_selected_layers(network, preprocessing.shape, settings["downsample_name"], entries)
    try:
        names = choose_layers(layers, selection, section)
    except UserError:  # reported with its own key
        return
    x = torch.zeros(1, *preprocessing.shape, requires_grad=True)
    for layer in layers:
        if layer["name"] not in names:
            continue
        try:
            check_rules(network, x, [layer["name"]], settings["views"]["deconv"]["rectify"])
        except UserError as error:
            log.info("%s: %s will be skipped: %s", section, layer["name"], error)
        count = layer["output_shape"][0] if layer["output_shape"] else 0
        missing = [unit for unit in _as_list(evolution["units"]) if unit >= count]
        if missing:
            yield (
                f"{section}.units: {layer['name']} has no units {missing}; it has {count}, counted from 0. "
                "Give other numbers, how many units to choose, or other layers"
            )


def _as_list(selection: UnitSelection) -> list[int]:
    """Return the numbers of units that a selection lists."""
    return selection if isinstance(selection, list) else []
