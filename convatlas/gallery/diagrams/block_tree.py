"""The calls of composite modules as a tree."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from convatlas.records import Layer

CONTAINER_TYPES = ("ModuleList", "ModuleDict")  # which only hold modules, and are never called


@dataclass
class ModuleCall:
    """A call of a composite module.

    Attributes:
        path: The module's path; "" for the network.
        type: The module's class.
        layers: All layers in it, in execution order.
        children: The layers and composite modules that it calls itself.
    """

    path: str
    type: str
    layers: list[Layer]
    children: list["ModuleCall | Layer"] = field(default_factory=list)


def build_call_tree(layers: Sequence[Layer]) -> ModuleCall:
    """Build the tree of calls of a network.

    Args:
        layers: Its called layers, without composite modules.

    Returns:
        The call of the network itself.
    """
    return _build_call("", "", layers, 0)


def select_leaf_calls(layers: Sequence[Layer]) -> list[Layer]:
    """Select the called layers that are no composite modules.

    Args:
        layers: layers.json.
    """
    called = [layer for layer in layers if layer["called"]]
    paths = [layer["module"].split(".") for layer in called]
    parents = {".".join(path[:depth]) for path in paths for depth in range(1, len(path))}
    return [layer for layer in called if layer["module"] not in parents or "/" in layer["name"]]


def find_consumers(layers: Sequence[Layer]) -> dict[str, list[str]]:
    """Find the layers that are computed from each layer, or from the network's input.

    Args:
        layers: The called layers.

    Returns:
        Names of layers in execution order, by the source's name; no entry for a source without consumers.
    """
    consumers: dict[str, list[str]] = {}
    for layer in layers:
        for source in layer.get("inputs", ()):
            consumers.setdefault(source, []).append(layer["name"])
    return consumers


def _build_call(path: str, type_name: str, layers: Sequence[Layer], depth: int) -> ModuleCall:
    """Build the call of a module that has `depth` composite modules around it."""
    call = ModuleCall(path, type_name, list(layers))
    for modules, run in groupby(layers, key=lambda layer: _find_enclosing_modules(layer)[depth : depth + 1]):
        if modules:
            (child_path, child_type) = modules[0]
            call.children.append(_build_call(child_path, child_type, list(run), depth + 1))
        else:
            call.children += run
    return call


def _find_enclosing_modules(layer: Layer) -> list[tuple[str, str]]:
    """Return path and class of the composite modules around a layer, from the outermost."""
    parts, classes = layer["module"].split("."), layer.get("within", ())
    paths = [".".join(parts[: n + 1]) for n in range(len(classes))]
    return [(path, name) for path, name in zip(paths, classes, strict=True) if name not in CONTAINER_TYPES]
