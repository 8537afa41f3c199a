"""Which layers and units of a network a lecture shows: by rules, among the layers that are recorded."""

from collections.abc import Mapping, Sequence

import numpy as np

from convatlas.attribution.unit_selection import unit_maxima
from convatlas.gallery.pooling_example import is_max_pool
from convatlas.records import Layer

MAX_DEEPER_LAYERS = 4
MAX_POOLING_KERNEL = 4  # values on a side of a pooling window whose values are printed
MAIN_ROLE = "main"  # of convolutions, not those of attention or of a shortcut
SAME_UNIT_KINDS = ("norm", "activation", "dropout")  # whose units are those of their input


def find_first_convolution(layers: Sequence[Layer], outputs: Mapping[str, np.ndarray]) -> Layer | None:
    """Find the first convolution of the image, or else the first one.

    Args:
        layers: layers.json.
        outputs: The recorded outputs on an image.
    """
    convolutions = [layer for layer in layers if layer["kind"] == "conv" and has_map(layer, outputs)]
    of_image = (layer for layer in convolutions if layer.get("inputs") == ["input"])
    return next(of_image, next(iter(convolutions), None))


def find_activation(
    layers: Sequence[Layer], convolution: Layer, outputs: Mapping[str, np.ndarray]
) -> Layer | None:
    """Find the activation function that follows a convolution, after a normalisation or not.

    Args:
        layers: layers.json.
        convolution: The convolution.
        outputs: The recorded outputs on an image, which hold the input and the output of the result.
    """
    name = convolution["name"]
    for layer in layers:
        if layer.get("inputs") != [name] or not has_map(layer, outputs):
            continue
        if layer["kind"] == "activation":
            return layer
        if layer["kind"] in SAME_UNIT_KINDS:
            name = layer["name"]
    return None


def find_max_pool(layers: Sequence[Layer], outputs: Mapping[str, np.ndarray]) -> Layer | None:
    """Find the first max-pooling layer with small windows whose switches are recorded.

    Args:
        layers: layers.json.
        outputs: The recorded outputs on an image.
    """
    for layer in layers:
        is_recorded = f"{layer['name']}@switches" in outputs and has_map(layer, outputs)
        if not is_max_pool(layer) or not is_recorded or (layer.get("inputs") or [""])[0] not in outputs:
            continue
        sizes = [layer["kernel"], layer["stride"]]
        is_planar = all(isinstance(size, list) and len(size) == 2 for size in sizes)
        if (
            is_planar
            and max(sizes[0] or []) <= MAX_POOLING_KERNEL
            and (layer["dilation"] or [1]) in ([1], [1, 1])
        ):
            return layer
    return None


def has_same_units(layers: Sequence[Layer], layer: Layer, source: Layer) -> bool:
    """Return whether the units of a layer's input are those of an earlier layer.

    Args:
        layers: layers.json.
        layer: The layer.
        source: The earlier layer.
    """
    by_name = {entry["name"]: entry for entry in layers}
    inputs = layer.get("inputs") or []
    while len(inputs) == 1 and inputs[0] in by_name:
        if inputs[0] == source["name"]:
            return True
        layer = by_name[inputs[0]]
        inputs = (layer.get("inputs") or []) if layer["kind"] in SAME_UNIT_KINDS else []
    return False


def choose_deeper_layers(
    layers: Sequence[Layer], first: Layer, outputs: Mapping[str, np.ndarray]
) -> list[Layer]:
    """Choose layers with maps after the first convolution, spread evenly over the depth.

    They are the activations of the convolutions on the main path, or these where no activation follows. Where
    there are few, pooling layers are added.

    Args:
        layers: layers.json.
        first: The first convolution.
        outputs: The recorded outputs on an image.

    Returns:
        At most MAX_DEEPER_LAYERS, in their order in the network, the deepest among them.
    """
    names = [layer["name"] for layer in layers]
    after = layers[names.index(first["name"]) + 1 :]
    candidates = [layer for layer in after if has_map(layer, outputs) and min(layer["output_shape"][1:]) > 1]
    convolutions = [layer for layer in candidates if layer["kind"] == "conv"]
    on_main_path = [layer for layer in convolutions if layer["role"] in (None, MAIN_ROLE)]
    activations = [find_activation(layers, layer, outputs) or layer for layer in on_main_path or convolutions]
    chosen = {layer["name"]: layer for layer in activations}
    if len(chosen) < MAX_DEEPER_LAYERS:
        chosen |= {layer["name"]: layer for layer in candidates if layer["kind"] == "pool"}
    ordered = sorted(chosen.values(), key=lambda layer: names.index(layer["name"]))
    if len(ordered) <= MAX_DEEPER_LAYERS:
        return ordered
    indices = np.linspace(0, len(ordered) - 1, MAX_DEEPER_LAYERS).round().astype(int).tolist()
    return [ordered[index] for index in indices]


def has_map(layer: Layer, outputs: Mapping[str, np.ndarray]) -> bool:
    """Return whether the maps (units, H, W) of a layer are recorded.

    Args:
        layer: The layer.
        outputs: The recorded outputs on an image.
    """
    return layer["called"] and len(layer["output_shape"]) == 3 and layer["name"] in outputs


def rank_units(maps: np.ndarray) -> list[int]:
    """Return the units of maps, by their maximum, the most active first.

    Args:
        maps: (units, H, W); NaN counts as no activation.
    """
    order: list[int] = np.argsort(-unit_maxima(maps), kind="stable").tolist()
    return order


def find_peak(values: np.ndarray) -> tuple[int, int]:
    """Return row and column of the maximum of a map, the first in raster order.

    Args:
        values: (H, W).
    """
    row, column = divmod(int(np.where(np.isfinite(values), values, -np.inf).argmax()), values.shape[1])
    return row, column
