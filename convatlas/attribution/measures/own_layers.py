"""The layers whose weights an activation depends on: a unit's own, and those below it."""

from collections.abc import Iterator, Sequence

from convatlas.attribution.measures.redrawn_weights import WeightedLayer, split_evenly
from convatlas.records import Layer

NEAR_SHARE = 8  # peaks are near one another up to one eighth of the receptive field apart


def find_own_layers(
    layers: Sequence[Layer], weighted: Sequence[WeightedLayer], layer: str
) -> list[WeightedLayer]:
    """Return the layers whose weights are those of a layer's units: itself, or the nearest before it.

    Of a layer without weights, such as an activation, these are those that it is computed from; with a norm
    or an activation that has weights, those before it as well.

    Args:
        layers: The entries of layers.json.
        weighted: The layers that hold weights, from `list_weighted_layers`.
        layer: Name of the layer, or of a composite module.
    """
    own = {
        entry["name"]
        for entry in _walk_down(layers, layer, stop_at_weights=True)
        if _has_weights(layers, entry)
    }
    return _find_weighted(layers, weighted, own)


def split_stages_of_units(
    layers: Sequence[Layer], weighted: Sequence[WeightedLayer], layer: str, stages: int
) -> list[list[WeightedLayer]]:
    """Return stages of randomisation for a layer's units: their own weights, then those below, to the input.

    Args:
        layers: The entries of layers.json.
        weighted: The layers that hold weights, from `list_weighted_layers`.
        layer: Name of the layer, or of a composite module.
        stages: How many stages at most.
    """
    own = find_own_layers(layers, weighted, layer)
    all_names = {entry["name"] for entry in _walk_down(layers, layer, stop_at_weights=False)}
    below = [item for item in _find_weighted(layers, weighted, all_names) if item not in own]
    return [stage for stage in (own, *split_evenly(below[::-1], stages - 1)) if stage]


def find_peak_tolerance(entry: Layer) -> tuple[int, int]:
    """Return how many rows and columns two peaks of a layer may be apart to nearly coincide.

    Args:
        entry: The layer, of layers.json.

    Returns:
        As many as make an eighth of the receptive field; 0 where it is not known.
    """
    field, step = entry["receptive_field"], entry["receptive_step"]
    if not field or not step or len(field) != 2:
        return (0, 0)
    rows, columns = (int(size / NEAR_SHARE / stride) for size, stride in zip(field, step, strict=True))
    return (rows, columns)


def _walk_down(layers: Sequence[Layer], layer: str, stop_at_weights: bool) -> Iterator[Layer]:
    """Yield a layer and those that it is computed from, down to the input or to the nearest weights."""
    entries = {entry["name"]: entry for entry in layers if entry["called"]}
    pending, visited = [layer], set()
    while pending:
        name = pending.pop()
        if name in visited or name not in entries:
            continue
        visited.add(name)
        entry = entries[name]
        if last := _last_inner_layer(layers, entry):
            pending.append(last)
            continue
        yield entry
        if not (
            stop_at_weights and _has_weights(layers, entry) and entry["kind"] not in ("norm", "activation")
        ):
            pending += entry["inputs"]


def _last_inner_layer(layers: Sequence[Layer], block: Layer) -> str | None:
    """Return the layer that computes the output of a composite module; None of any other layer."""
    if block["name"] != block["module"]:  # a function
        return None
    inner = [entry["name"] for entry in layers[: layers.index(block)] if _is_inside(entry, block["name"])]
    return inner[-1] if inner else None


def _is_inside(entry: Layer, block: str) -> bool:
    """Return whether a layer is called by a composite module, or by a module in it."""
    is_function = _is_function(entry) and entry["module"] == block
    return entry["called"] and (is_function or entry["module"].startswith(f"{block}."))


def _is_function(entry: Layer) -> bool:
    """Return whether a layer is a call of a function, not of a module."""
    return entry["name"] != entry["module"] and not entry["name"].startswith(f"{entry['module']}:")


def _has_weights(layers: Sequence[Layer], entry: Layer) -> bool:
    """Return whether a layer has weights, also where it is a repeated call of a module."""
    if entry["parameters"] or _is_function(entry):
        return entry["parameters"] > 0
    return any(other["parameters"] and other["module"] == entry["module"] for other in layers)


def _find_weighted(
    layers: Sequence[Layer], weighted: Sequence[WeightedLayer], names: set[str]
) -> list[WeightedLayer]:
    """Return the weights of layers by name, in the order of `weighted`."""
    modules = {entry["module"] for entry in layers}
    composites = {
        path for path in modules if any(other.startswith(f"{path}.") for other in modules) or not path
    }
    chosen = set()
    for entry in layers:
        if entry["name"] not in names:
            continue
        path = entry["module"]
        inside = [
            item
            for item in weighted
            if item.path == path or (path not in composites and item.path.startswith(f"{path}."))
        ]
        calls = [other for other in layers if other["module"] == path and other["parameters"]]
        if _is_function(entry) and len(calls) == len(inside):  # each call of a function has its own
            inside = [item for item, call in zip(inside, calls, strict=True) if call is entry]
        chosen |= set(inside)
    return [item for item in weighted if item in chosen]
