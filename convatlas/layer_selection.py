"""The layers that a selection of the config names: all, names, globs and ordinals of convolutions."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from convatlas import UserError
from convatlas.names import suggest_nearest
from convatlas.records import Layer

PROJECTED_KINDS = ("conv", "pool")  # the kinds of layers that are projected where the selection is "all"


def choose_layers(
    layers: Sequence[Layer], selection: str | Sequence[str | int], key: str, extra_names: Sequence[str] = ()
) -> list[str]:
    """Return the names of the selected layers, in execution order.

    Args:
        layers: layers.json. Layers that are never called cannot be selected.
        selection: "all", or names, globs and ordinals of convolutions, from 1.
        key: The key of the selection in the config, for the error.
        extra_names: Further names that the error may suggest.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    called = [layer for layer in layers if layer["called"]]
    names = [layer["name"] for layer in called]
    if selection == "all":
        return names
    selected: set[str] = set()
    for entry in selection:
        if isinstance(entry, int):
            matches = [layer["name"] for layer in called if layer["ordinal"] == entry]
            count = sum(layer["kind"] == "conv" for layer in called)
            allowed = f"there are {count} convolutions, counted from 1"
        else:
            matches = [name for name in names if fnmatchcase(name, entry)]
            allowed = suggest_nearest(entry, [*names, *extra_names])
        if not matches:
            raise UserError(f"{key}: no layer {entry!r}; {allowed}")
        selected.update(matches)
    return [name for name in names if name in selected]


def choose_projected_layers(
    layers: Sequence[Layer], selection: str | Sequence[str | int], key: str
) -> list[str]:
    """Return the names of the layers whose units are projected, in execution order.

    As `choose_layers`, except that "all" selects only convolutions and pooling layers.

    Args:
        layers: layers.json.
        selection: "all", or names, globs and ordinals of convolutions, from 1.
        key: The key of the selection in the config, for the error.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if selection == "all":
        return [layer["name"] for layer in layers if layer["called"] and layer["kind"] in PROJECTED_KINDS]
    return choose_layers(layers, selection, key)


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
