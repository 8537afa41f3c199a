"""The layers that a selection of the config names: all, names, globs and ordinals of convolutions."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from convatlas import UserError
from convatlas.names import suggest_nearest
from convatlas.records import Layer

PROJECTED_KINDS = ("conv", "pool")  # the kinds of layers that are projected where the selection is "all"
COMPLEX_OUTPUT_NOTE = "its output is complex: figures and statistics show the magnitude"  # in layers.json


Item = TypeVar("Item")


class MissingLayerError(UserError):
    """An entry of a selection matches no layer."""


def choose_layers(
    layers: Sequence[Layer], selection: str | Sequence[str | int], key: str, extra_names: Sequence[str] = ()
) -> list[str]:
    """Return the names of the selected layers, in execution order.

    A glob selects composite modules only where it matches no layer: their outputs are those of layers.

    Args:
        layers: layers.json. Layers that are never called cannot be selected.
        selection: "all", or names, globs and ordinals of convolutions, from 1.
        key: The key of the selection in the config, for the error.
        extra_names: Further names that the error may suggest.

    Raises:
        MissingLayerError: An entry of the selection matches no layer.
    """
    called = [layer for layer in layers if layer["called"]]
    names = [layer["name"] for layer in called]
    if selection == "all":
        return names
    composite = _find_composite_names(called)
    selected: set[str] = set()
    for entry in selection:
        if isinstance(entry, int):
            matches = [layer["name"] for layer in called if layer["ordinal"] == entry]
            count = sum(layer["kind"] == "conv" for layer in called)
            allowed = f"there are {count} convolutions, counted from 1"
        else:
            matches = match_names(entry, [name for name in names if name not in composite], composite)
            allowed = suggest_nearest(entry, [*names, *extra_names])
        if not matches:
            raise MissingLayerError(f"{key}: no layer {entry!r}; {allowed}")
        selected.update(matches)
    return [name for name in names if name in selected]


def has_weighted_units(layer: Layer) -> bool:
    """Return whether a layer has weights, and its units along the first axis of its output.

    A linear layer of tokens has them along the last axis: (tokens, features).

    Args:
        layer: An entry of layers.json.
    """
    return layer["kind"] == "conv" or (layer["kind"] == "linear" and len(layer["output_shape"]) == 1)


def match_names(entry: str, layers: Sequence[str], composite: Sequence[str]) -> list[str]:
    """Return the names that a name or glob matches: layers, or else composite modules.

    Args:
        entry: A name, which may be that of a composite module, or a glob.
        layers: Names of layers.
        composite: Names of composite modules.
    """
    if entry in composite:
        return [entry]
    matches = [name for name in layers if fnmatchcase(name, entry)]
    return matches or [name for name in composite if fnmatchcase(name, entry)]


def _find_composite_names(layers: Sequence[Layer]) -> list[str]:
    """Return the names of those entries of layers.json that are calls of composite modules."""
    containers: set[str] = set()
    for layer in layers:
        parts = layer["module"].split(".")
        containers.update(".".join(parts[:n]) for n in range(1, len(parts)))
        if "/" in layer["name"]:  # a function, called by the module
            containers.add(layer["module"])
    return [
        layer["name"]
        for layer in layers
        if layer["module"] in containers and layer["kind"] == "other" and "/" not in layer["name"]
    ]


def choose_projected_layers(
    layers: Sequence[Layer], selection: str | Sequence[str | int], key: str
) -> list[str]:
    """Return the names of the layers whose units are projected, in execution order.

    As `choose_layers`, except that "all" selects only convolutions and pooling layers, none of them with a
    complex output.

    Args:
        layers: layers.json.
        selection: "all", or names, globs and ordinals of convolutions, from 1.
        key: The key of the selection in the config, for the error.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if selection == "all":
        return [
            layer["name"]
            for layer in layers
            if layer["called"]
            and layer["kind"] in PROJECTED_KINDS
            and COMPLEX_OUTPUT_NOTE not in layer["notes"]
        ]
    return choose_layers(layers, selection, key)


def choose_map_layers(layers: Sequence[Layer], selection: Sequence[str | int], key: str) -> list[str]:
    """Return the names of the selected layers with maps, (units, height, width), in execution order.

    Args:
        layers: layers.json.
        selection: Names, ordinals of convolutions, and globs, which select layers with maps alone.
        key: The key of the selection in the config, for the error.

    Raises:
        UserError: An entry of the selection matches no layer, or none with maps.
    """
    maps = [layer for layer in layers if layer["called"] and len(layer["output_shape"]) == 3]
    names = [layer["name"] for layer in maps]
    for entry in selection:
        if not set(choose_layers(layers, [entry], key)) & set(names):
            shape = next(layer["output_shape"] for layer in layers if layer["name"] == entry)
            raise UserError(
                f"{key}: {entry!r} has no maps (units, height, width), its output has the shape {shape}; "
                f"{suggest_nearest(entry, names)}"
            )
    return [name for name in choose_layers(layers, selection, key) if name in names]


def choose_explored_layers(layers: Sequence[Layer], views: Mapping[str, Any], key: str) -> list[str]:
    """Return the names of the layers in the explorer: those of views.atlas.layers, or else of views.layers.

    Args:
        layers: layers.json.
        views: `views` of the network's config.
        key: The key of `views` in the config, for the error.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if views["atlas"]["layers"] is None:
        return choose_layers(layers, views["layers"], f"{key}.layers")
    return choose_layers(layers, views["atlas"]["layers"], f"{key}.atlas.layers")


def space_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return some of a sequence's items, evenly spaced from the first to the last.

    Args:
        items: The items, such as the names of layers in execution order.
        count: The largest number of items, at least 2; all are returned if there are not more.
    """
    if len(items) <= count:
        return list(items)
    step = (len(items) - 1) / (count - 1)
    return [items[round(number * step)] for number in range(count)]
