"""The calls of composite modules as a tree, and which of them have the same structure."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from convatlas.records import Layer

CONTAINER_TYPES = ("ModuleList", "ModuleDict")  # which only hold modules, and are never called
OUTSIDE = -1  # the start of an edge from outside a block

Edge = tuple[int, int]


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

    def relative_name(self, name: str) -> str:
        """Return the name of a layer or module relative to this module.

        Args:
            name: The full name of a layer or path of a module in this module.
        """
        return name[len(self.path) + 1 :] if self.path else name

    def walk(self) -> Iterator["ModuleCall"]:
        """Yield this call and all calls in it, in the order in which they begin."""
        yield self
        for child in self.children:
            if isinstance(child, ModuleCall):
                yield from child.walk()

    @property
    def is_sequential(self) -> bool:
        """Return whether each layer, at any depth, is computed from the layer before it alone."""
        pairs = zip(self.layers, self.layers[1:], strict=False)
        return all(layer.get("inputs") == [previous["name"]] for previous, layer in pairs)

    def find_edges(self) -> list[Edge]:
        """Return which child is computed from which, each pair once; OUTSIDE stands for what is outside."""
        child_of = {layer["name"]: n for n, child in enumerate(self.children) for layer in get_layers(child)}
        edges = [
            (child_of.get(source, OUTSIDE), n)
            for n, child in enumerate(self.children)
            for layer in get_layers(child)
            for source in layer.get("inputs", ())
        ]
        return [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]

    def compute_signature(self) -> Hashable:
        """Return what blocks of the same structure have in common: class, types of layers and edges."""
        if self.is_sequential:
            return self.type, tuple(layer["type"] for layer in self.layers)
        children = tuple(
            child.compute_signature() if isinstance(child, ModuleCall) else child["type"]
            for child in self.children
        )
        return self.type, children, tuple(self.find_edges())


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


def get_layers(child: ModuleCall | Layer) -> list[Layer]:
    """Return the layers of a composite module's call, or the layer itself.

    Args:
        child: A child of a block.
    """
    return child.layers if isinstance(child, ModuleCall) else [child]


def is_chain(edges: Sequence[Edge], n_children: int) -> bool:
    """Return whether each child is computed from the one before it alone.

    Args:
        edges: The edges of a block, from child to child or from OUTSIDE.
        n_children: Number of its children.
    """
    chain = {(n - 1, n) for n in range(n_children)}
    return chain.issuperset(edges)


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
