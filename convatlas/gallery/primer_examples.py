"""The worked examples of the primer, with numbers of a run: parameters, receptive fields, pooling, scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.value_grid import VIRIDIS, Grid, draw_grid
from convatlas.names import format_shape
from convatlas.records import DeconvSteps, Layer
from convatlas.results import Results, projected_units

POOLING_PATCH_SIZE = 4  # values on a side of the example of pooling
MAX_CONE_LAYERS = 6  # convolutions and pooling layers in the drawing of a receptive field
MAX_PAIRED_LAYERS = 12  # layers of a convnet that is drawn beside its deconvnet
MAX_PRINTED_KERNEL = 7  # values on a side of a kernel whose weights are printed

# The example of pooling of a run without one: a map, and a signal that the deconvnet passes down.
EXAMPLE_MAP = np.array([[1, 6, 2, 0], [3, 5, 9, 4], [8, 0, 1, 7], [2, 3, 0, 5]], np.float32)
EXAMPLE_SIGNAL = np.array([[2, -3], [1, 4]], np.float32)

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
class PoolingSource:
    """Where the example of pooling is from: layers, unit, image, first row and column of the patch."""

    pool: str
    map: str
    unit: int
    image: str
    row: int
    column: int


@dataclass(frozen=True)
class PoolingExample:
    """Max pooling by 2 × 2, its switches and unpooling.

    Attributes:
        source: Where the numbers are from; None for made-up ones.
        map: A patch of a feature map.
        pooled: The maximum of each window.
        switches: The flat index of each maximum in the patch.
        signal: The deconvnet's signal above the pooling layer.
        unpooled: The signal at the switches.
        rectified: Its positive part.

    """

    source: PoolingSource | None
    map: Grid
    pooled: Grid
    switches: list[int]
    signal: Grid
    unpooled: Grid
    rectified: Grid


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

    A chain of layers comes first, then the one with the most max-pooling layers, then the smallest.
    """

    def rank(network: NetworkData) -> tuple[bool, int, int]:
        called = [layer for layer in network.layers if layer["called"]]
        is_chain = len(find_leading_chain(network.layers)) == len(called)
        return is_chain, sum(is_max_pool(layer) for layer in called), -len(called)

    return max(networks, key=rank)


def is_max_pool(layer: Layer) -> bool:
    """Return whether a layer is a max-pooling layer."""
    return layer["kind"] == "pool" and "max" in layer["type"].lower()


def find_leading_chain(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers from the input on, each of which is computed from the one before it alone."""
    chain: list[Layer] = []
    for layer in layers:
        source = chain[-1]["name"] if chain else "input"
        if not layer["called"] or layer.get("inputs") != [source]:
            break
        chain.append(layer)
    return chain


# Filters


def count_parameters(layers: Sequence[Layer]) -> list[ParameterCount]:
    """Count the parameters of each convolution whose number follows from its shapes."""
    formulas = [(layer, format_parameter_count(layer)) for layer in layers]
    return [ParameterCount(layer, formula) for layer, formula in formulas if formula]


def format_parameter_count(layer: Layer) -> str | None:
    """Write the number of parameters of a convolution: units · channels · kernel size + biases.

    Returns:
        None for a layer whose number of parameters is not this.

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
    is_known = all(isinstance(layer[key], list) for key in ("kernel", "stride", "padding"))
    is_planar = layer["kind"] in ("conv", "pool") and len(layer["output_shape"]) == 3
    return is_known and is_planar and "Transpose" not in layer["type"]


def _get_last(values: object) -> int:
    """Return the last of a layer's kernel, stride or padding, known to be a list."""
    assert isinstance(values, list)
    return int(values[-1])


# Pooling


def make_pooling_example(results: Results) -> PoolingExample:
    """Make an example of pooling, with numbers of the run's deconvnet steps where these pool by 2 × 2."""
    example = _find_pooling_example(results, results.steps) if results.steps else None
    values, signal, source = example or (EXAMPLE_MAP, EXAMPLE_SIGNAL, None)
    pooled, switches = max_pool(values)
    unpooled = max_unpool(signal, switches)
    max_signal = float(max(np.abs(signal).max(), 1e-9))
    return PoolingExample(
        source=source,
        map=draw_grid(values, float(values.max()), VIRIDIS, switches),
        pooled=draw_grid(pooled, float(values.max()), VIRIDIS),
        switches=[int(switch) for switch in switches.ravel()],
        signal=draw_grid(signal, max_signal),
        unpooled=draw_grid(unpooled, max_signal, maxima=switches),
        rectified=draw_grid(unpooled.clip(0), max_signal),
    )


def max_pool(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pool a map by the maximum of 2 × 2 windows.

    Args:
        values: The map (H, W).

    Returns:
        The maxima (H/2, W/2), and the switches: the flat index of the first maximum of each window.

    """
    height, width = values.shape
    windows = values.reshape(height // 2, 2, width // 2, 2).swapaxes(1, 2).reshape(height // 2, width // 2, 4)
    index_in_window = windows.argmax(-1)
    rows, columns = np.indices(index_in_window.shape)
    switches = (2 * rows + index_in_window // 2) * width + 2 * columns + index_in_window % 2
    return windows.max(-1), switches


def max_unpool(values: np.ndarray, switches: np.ndarray) -> np.ndarray:
    """Put values at their switches, and zeros elsewhere.

    Args:
        values: The values (h, w).
        switches: Flat indices into the result (h, w).

    Returns:
        The unpooled values (2 h, 2 w).

    """
    unpooled = np.zeros((2 * values.shape[0], 2 * values.shape[1]), values.dtype)
    unpooled.flat[switches.ravel()] = values.ravel()
    return unpooled


def _find_pooling_example(
    results: Results, steps: DeconvSteps
) -> tuple[np.ndarray, np.ndarray, PoolingSource] | None:
    """Find the most informative patch of a map and its signal at a 2 × 2 max pooling of the steps."""
    layers = {layer["name"]: layer for layer in results.layers}
    signals, outputs = results.step_signals, results.activations(steps["image"])
    best: tuple[np.ndarray, np.ndarray, PoolingSource] | None = None
    best_rank = (-1, -1.0)
    for upper, lower in zip(steps["steps"], steps["steps"][1:], strict=False):
        pool = layers.get(upper["layer"])
        if pool is None or lower["passed_layers"] != [pool["name"]] or not _is_2x2_max_pool(pool):
            continue
        maps, signal = outputs[pool["inputs"][0]], signals[upper["layer"]]
        for n, unit in enumerate(projected_units(signals, upper["layer"])):
            row, column, rank = _find_informative_patch(maps[unit], signal[n])
            if rank > best_rank:
                best_rank = rank
                side = POOLING_PATCH_SIZE // 2
                source = PoolingSource(
                    pool["name"], pool["inputs"][0], unit, steps["image"], 2 * row, 2 * column
                )
                best = (
                    _cut_square(maps[unit], 2 * row, 2 * column, POOLING_PATCH_SIZE),
                    _cut_square(signal[n], row, column, side),
                    source,
                )
    return best


def _is_2x2_max_pool(layer: Layer) -> bool:
    """Return whether a layer pools by the maximum of adjacent 2 × 2 windows."""
    return is_max_pool(layer) and layer["kernel"] == [2, 2] == layer["stride"] and layer["padding"] == [0, 0]


def _find_informative_patch(values: np.ndarray, signal: np.ndarray) -> tuple[int, int, tuple[int, float]]:
    """Find the patch of a map with signals of both signs and many different values.

    Returns row and column in the signal, and the patch's rank.
    """
    side = POOLING_PATCH_SIZE // 2
    best = (0, 0, (-1, 0.0))
    for row in range(signal.shape[0] - side + 1):
        for column in range(signal.shape[1] - side + 1):
            signal_patch = _cut_square(signal, row, column, side)
            patch = _cut_square(values, 2 * row, 2 * column, POOLING_PATCH_SIZE)
            if patch.shape != (POOLING_PATCH_SIZE, POOLING_PATCH_SIZE):
                continue
            n_values = len(np.unique(patch.round(1)))
            has_both_signs = min((signal_patch > 0).sum(), (signal_patch < 0).sum(), 1)
            rank = (int(n_values + 8 * has_both_signs), float(np.abs(signal_patch).sum()))
            if rank > best[2]:
                best = (row, column, rank)
    return best


def _cut_square(values: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """Cut a square out of a map (H, W), smaller at its border."""
    return values[row : row + side, column : column + side]


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
    """Make colour bars for weights, for a feature map and for projections, as far as the run has them."""
    bars = []
    convolutions = [layer for layer in results.layers if layer["kind"] == "conv"]
    conv = next((layer for layer in convolutions if layer["module"] in results.filters), None)
    if conv:
        max_abs = float(np.abs(results.filters[conv["module"]]).max())
        bars.append(ColourBarExample(f"weights of {conv['name']}", -max_abs, max_abs))
    image = results.images[0]["name"]
    outputs = results.activations(image)
    relu = count_zeros(results.layers, outputs)
    if relu:
        name = relu.layer["name"]
        bars.append(ColourBarExample(f"activations of {name} on {image}", 0.0, float(outputs[name].max())))
    projections = results.projections(image)
    if len(projections):
        key = next(iter(projections))
        max_abs = float(np.abs(projections[key]).max())
        bars.append(ColourBarExample(f"projections of {key} on {image}", -max_abs, max_abs))
    return bars
