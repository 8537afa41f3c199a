"""The worked examples of the primer, with numbers of a run: parameters, receptive fields, scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pooling_example import is_max_pool
from convatlas.gallery.value_grid import Grid, draw_grid
from convatlas.names import format_shape, title_images
from convatlas.records import DeconvSteps, Layer
from convatlas.results import Results

MAX_CONE_LAYERS = 6  # convolutions and pooling layers in the drawing of a receptive field
MAX_PAIRED_LAYERS = 12  # layers of a convnet that is drawn beside its deconvnet
MAX_PRINTED_KERNEL = 7  # values on a side of a kernel whose weights are printed

# What a convnet does at a kind of layer, and what its deconvnet does there
FORWARD_STEPS = {
    "conv": "filter",
    "activation": "rectify",
    "pool": "max-pool",
    "linear": "linear",
    "norm": "normalise",
    "reshape": "flatten",
    "dropout": "identity",
}
BACKWARD_STEPS = {
    "conv": "transposed filter",
    "activation": "rectify",
    "pool": "unpool",
    "linear": "transposed linear",
    "norm": "scale",
    "reshape": "reshape",
    "dropout": "identity",
}


@dataclass(frozen=True)
class ParameterCount:
    """The number of parameters of a convolution, as a formula."""

    layer: Layer
    formula: str


@dataclass(frozen=True)
class KernelExample:
    """One channel of a filter, with its weights."""

    layer: Layer
    unit: int
    channel: int
    grid: Grid


@dataclass(frozen=True)
class ZeroCount:
    """How many values of a layer's output are zero."""

    layer: Layer
    zeros: int
    size: int


@dataclass(frozen=True)
class FieldRow:
    """A row in the drawing of a receptive field, along one axis.

    Attributes:
        name: The layer, or "input".
        size: The number of its values.
        first: The first value in the field.
        last: The last value in the field.
        layer: The layer's entry in layers.json; None for the input.
    """

    name: str
    size: int
    first: int
    last: int
    layer: Layer | None = None


@dataclass(frozen=True)
class LayerPair:
    """A layer of a convnet, and what the deconvnet does there.

    Attributes:
        name: Name of the layer.
        kind: Its kind.
        forward: What the convnet does.
        backward: What the deconvnet does.
        shape: The output shape, as text; "" where no network is shown.
    """

    name: str
    kind: str
    forward: str
    backward: str
    shape: str


@dataclass(frozen=True)
class ColourBarExample:
    """A colour bar: what it shows, and its ends."""

    description: str
    min: float
    max: float


def choose_network(networks: Sequence[NetworkData]) -> NetworkData:
    """Choose the network whose numbers the primer shows.

    A network of images comes first, then a chain of layers, then the one with the most max-pooling layers,
    then the smallest.

    Args:
        networks: The networks of the run, at least one. Of equal ones the first is chosen.
    """

    def rank(network: NetworkData) -> tuple[bool, bool, int, int]:
        called = [layer for layer in network.layers if layer["called"]]
        is_chain = len(find_leading_chain(network.layers)) == len(called)
        has_maps = any(layer["kind"] == "conv" and len(layer["output_shape"]) == 3 for layer in called)
        return has_maps, is_chain, sum(is_max_pool(layer) for layer in called), -len(called)

    return max(networks, key=rank)


def find_leading_chain(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers from the input on, each of which is computed from the one before it alone.

    Args:
        layers: layers.json.
    """
    chain: list[Layer] = []
    for layer in layers:
        source = chain[-1]["name"] if chain else "input"
        if not layer["called"] or layer.get("inputs") != [source]:
            break
        chain.append(layer)
    return chain


# Filters


def count_parameters(layers: Sequence[Layer]) -> list[ParameterCount]:
    """Count the parameters of each convolution whose number follows from its shapes.

    Args:
        layers: layers.json.
    """
    formulas = [(layer, format_parameter_count(layer)) for layer in layers]
    return [ParameterCount(layer, formula) for layer, formula in formulas if formula]


def format_parameter_count(layer: Layer) -> str | None:
    """Write the number of parameters of a convolution: units · channels · kernel size + biases.

    Args:
        layer: The layer.

    Returns:
        The formula with its result; None for a layer whose number of parameters is not this.
    """
    kernel, groups = layer["kernel"], layer["groups"]
    if layer["kind"] != "conv" or not layer["called"] or not layer["parameters"] or not kernel or not groups:
        return None
    units, channels = layer["output_shape"][0], layer["input_shape"][0] // groups
    n_biases = layer["parameters"] - units * channels * int(np.prod(kernel))
    if "Transpose" in layer["type"] or n_biases not in (0, units):
        return None
    product = " · ".join(map(str, [units, channels, *kernel]))
    biases = f" + {units}" if n_biases else ""
    return f"{product}{biases} = {layer['parameters']:,}"


def choose_kernel(layers: Sequence[Layer], filters: Mapping[str, np.ndarray]) -> KernelExample | None:
    """Choose the filter of the first convolution with the largest norm, and of it the first such channel.

    Args:
        layers: layers.json.
        filters: filters.npz.

    Returns:
        None without a convolution whose kernel is small enough to be printed.
    """
    planar = [count.layer for count in count_parameters(layers) if len(count.layer["kernel"] or []) == 2]
    layer = next((layer for layer in planar if layer["module"] in filters), None)
    if layer is None or max(layer["kernel"] or []) > MAX_PRINTED_KERNEL:
        return None
    weight = filters[layer["module"]]
    unit, channel = np.unravel_index(np.square(weight).sum((2, 3)).argmax(), weight.shape[:2])
    kernel = weight[unit, channel]
    return KernelExample(layer, int(unit), int(channel), draw_grid(kernel, float(np.abs(kernel).max())))


# Feature maps


def count_zeros(layers: Sequence[Layer], outputs: Mapping[str, np.ndarray]) -> ZeroCount | None:
    """Count the zeros in the output of the first ReLU.

    Args:
        layers: layers.json.
        outputs: The recorded outputs on an image.
    """
    for layer in layers:
        if layer["kind"] == "activation" and layer["called"] and layer["type"].lower() == "relu":
            values = outputs[layer["name"]]
            return ZeroCount(layer, int((values == 0).sum()), values.size)
    return None


# Receptive fields


def trace_receptive_field(layers: Sequence[Layer]) -> list[FieldRow]:
    """Trace one value of a layer down to the pixels, along one axis.

    The layers are the convolutions and pooling layers of the chain at the beginning of the network.

    From the values first..last of its output, a layer reads first · S - P to last · S - P + D(K-1) of its
    input (Araujo, Norris, Sim, Computing receptive fields of convolutional neural networks, Distill 2019).

    Args:
        layers: layers.json.

    Returns:
        A row per layer, from the last down to the input; nothing without such layers. Values beyond the
        border are not counted.
    """
    windows = [layer for layer in find_leading_chain(layers) if _is_sliding_window(layer)][:MAX_CONE_LAYERS]
    if not windows:
        return []
    rows: list[FieldRow] = []
    first = last = windows[-1]["output_shape"][-1] // 2
    for layer in reversed(windows):
        rows.append(_make_field_row(layer["name"], layer["output_shape"][-1], first, last, layer))
        kernel, stride, padding = (_get_last(layer[key]) for key in ("kernel", "stride", "padding"))
        dilation = (layer["dilation"] or [1])[-1]
        first = first * stride - padding
        last = last * stride - padding + dilation * (kernel - 1)
    return [*rows, _make_field_row("input", windows[0]["input_shape"][-1], first, last)]


def _make_field_row(name: str, size: int, first: int, last: int, layer: Layer | None = None) -> FieldRow:
    """Make a row whose field ends at the border."""
    return FieldRow(name, size, max(first, 0), min(last, size - 1), layer)


def _is_sliding_window(layer: Layer) -> bool:
    """Return whether a layer slides a window with a known kernel, stride and padding over maps."""
    values = [layer[key] for key in ("kernel", "stride", "padding")]
    is_known = all(isinstance(value, list) and isinstance(value[-1], int) for value in values)
    is_planar = layer["kind"] in ("conv", "pool") and len(layer["output_shape"]) == 3
    return is_known and is_planar and "Transpose" not in layer["type"]


def _get_last(values: object) -> int:
    """Return the last of a layer's kernel, stride or padding, known to be a list."""
    assert isinstance(values, list)
    return int(values[-1])


# The deconvnet


def pair_layers(layers: Sequence[Layer], steps: DeconvSteps | None) -> list[LayerPair]:
    """Pair each layer of a convnet, from the pixels up, with what its deconvnet does.

    Args:
        layers: layers.json.
        steps: steps.json, whose layer is the last that is shown. Without it, or where the network is no short
            chain up to there, a typical stage of a convnet is shown.
    """
    chain = find_leading_chain(layers)
    names = [layer["name"] for layer in chain[:MAX_PAIRED_LAYERS]]
    if steps and steps["layer"] in names:
        return [
            _make_pair(layer["name"], layer["kind"], format_shape(layer["output_shape"]))
            for layer in chain[: names.index(steps["layer"]) + 1]
        ]
    return [
        _make_pair("convolution", "conv"),
        _make_pair("ReLU", "activation"),
        _make_pair("max pooling", "pool"),
    ]


def _make_pair(name: str, kind: str, shape: str = "") -> LayerPair:
    """Look up what is done at a layer of a kind."""
    return LayerPair(name, kind, FORWARD_STEPS.get(kind, kind), BACKWARD_STEPS.get(kind, kind), shape)


# Scales


def make_colour_bars(results: Results) -> list[ColourBarExample]:
    """Make colour bars for weights, for a feature map and for projections, as far as the run has them.

    Args:
        results: A network's results.

    Returns:
        The ends of each scale: symmetric about 0 for weights and projections, from 0 on for the map of the
        first ReLU.
    """
    bars = []
    convolutions = [layer for layer in results.layers if layer["kind"] == "conv"]
    conv = next((layer for layer in convolutions if layer["module"] in results.filters), None)
    if conv:
        max_abs = float(np.abs(results.filters[conv["module"]]).max())
        bars.append(ColourBarExample(f"weights of {conv['name']}", -max_abs, max_abs))
    image = results.images[0]["name"]
    title = title_images(results.images, results.network)[image]
    outputs = results.activations(image)
    relu = count_zeros(results.layers, outputs)
    if relu:
        name = relu.layer["name"]
        bars.append(ColourBarExample(f"activations of {name} on {title}", 0.0, float(outputs[name].max())))
    projections = results.projections(image)
    if len(projections):
        key = next(iter(projections))
        max_abs = float(np.abs(projections[key]).max())
        bars.append(ColourBarExample(f"projections of {key} on {title}", -max_abs, max_abs))
    return bars
