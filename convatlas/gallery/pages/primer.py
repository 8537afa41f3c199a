"""The primer: what the words on the pages mean, with numbers and drawings from a network of the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convatlas.files import Npz, read_json
from convatlas.gallery.pages.network import NetworkData
from convatlas.gallery.pages.site import GalleryContext, SitePage

Array = np.ndarray
POOLING_PATCH_SIZE = 4  # values on a side of the example of pooling
MAX_CONE_LAYERS = 6  # windows that the drawing of a receptive field goes up
MAX_PAIRED_LAYERS = 12  # layers at most of a convnet that is drawn beside its deconvnet
MAX_PRINTED_KERNEL = 7  # places on a side of a kernel whose weights are printed

# matplotlib's RdBu_r and viridis, at 21 even places, between which colours are within 4 of 255; the gallery
# is made without matplotlib.
RDBU = (
    "#053061", "#134c87", "#2267ac", "#327cb7", "#4393c3", "#6bacd1", "#90c4dd",
    "#b1d5e7", "#d1e5f0", "#e4eef4", "#f7f6f6", "#fae9df", "#fddbc7", "#f8bfa4",
    "#f4a683", "#e58368", "#d6604d", "#c43b3c", "#b1182b", "#8d0c25", "#67001f",
)  # fmt: skip
VIRIDIS = (
    "#440154", "#481467", "#482576", "#463480", "#414487", "#3b528b", "#355f8d",
    "#2f6c8e", "#2a788e", "#25848e", "#21918c", "#1e9c89", "#22a884", "#2fb47c",
    "#42be71", "#5cc863", "#7ad151", "#9bd93c", "#bddf26", "#dde318", "#fde725",
)  # fmt: skip
# An example of pooling for a run that has none of its own: a map, and a signal that comes from above.
EXAMPLE_MAP = np.array([[1, 6, 2, 0], [3, 5, 9, 4], [8, 0, 1, 7], [2, 3, 0, 5]], np.float32)
EXAMPLE_SIGNAL = np.array([[2, -3], [1, 4]], np.float32)

# What a convnet does at a layer of a kind, and its deconvnet on the way down
FORWARD_STEPS = {"conv": "filter", "activation": "rectify", "pool": "max-pool", "linear": "weigh", "norm": "normalise",
      "reshape": "flatten", "dropout": "pass on"}  # fmt: skip
DECONVNET_STEPS = {"conv": "filter, transposed", "activation": "rectify", "pool": "unpool", "norm": "scale",
        "linear": "weigh, transposed", "reshape": "put back", "dropout": "pass on"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A value drawn as a square: its place in the drawing, its colours and whether it is a maximum."""

    x: float
    y: float
    text: str
    fill: str
    text_colour: str
    is_maximum: bool = False


@dataclass(frozen=True)
class Grid:
    """Values drawn as a table of squares; `alt` says them."""

    width: float
    height: float
    cells: list[Cell]
    alt: str


def make_pages(atlas: GalleryContext) -> Iterator[SitePage]:
    """Yield the primer, worked on the network of the run that shows most of it."""
    page = choose_network(atlas.networks)
    folder = atlas.results / page.name
    first = page.images[0]["name"]
    steps = folder / "steps/steps.json"
    told = read_json(steps) if steps.is_file() else None
    values = {
        "page": page,
        "image": first,
        "kernel": choose_kernel(page, Npz(folder / "filters.npz")),
        "convs": [
            layer | {"counts": format_parameter_count(layer)}
            for layer in page.layers
            if format_parameter_count(layer)
        ],
        "zeros": count_zeros(page, Npz(folder / f"activations/{first}.npz")),
        "cone": trace_receptive_field(page.layers),
        "sizes": [layer for layer in page.layers if layer["arithmetic"]][:MAX_CONE_LAYERS],
        "pooling": make_pooling_example(folder, told),
        "pair": pair_layers(page.layers, told),
        "ends": make_colour_bars(folder, page),
        "ramps": {"RdBu_r": RDBU, "viridis": VIRIDIS},
    }
    yield SitePage("primer.html", "primer.html", "Primer", values, "About")


def choose_network(pages: Sequence[NetworkData]) -> NetworkData:
    """The network whose numbers are told: rather a plain chain, and of these the one that pools most often.

    Then the smallest, for it can be told whole.
    """

    def worth(page: NetworkData) -> tuple[bool, int, int]:
        called = [layer for layer in page.layers if layer["called"]]
        is_chain = len(find_leading_chain(page.layers)) == len(called)
        return is_chain, sum(is_max_pool(layer) for layer in called), -len(called)

    return max(pages, key=worth)


def is_max_pool(layer: dict[str, Any]) -> bool:
    return layer["kind"] == "pool" and "max" in layer["type"].lower()


def find_leading_chain(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers from the input on of which each has but the one before it as its input."""
    found: list[dict[str, Any]] = []
    for layer in layers:
        if not layer["called"] or layer.get("inputs") != [found[-1]["name"] if found else "input"]:
            break
        found.append(layer)
    return found


# Filters


def format_parameter_count(layer: dict[str, Any]) -> str | None:
    """Write out how many parameters a convolution has: units · channels · places + biases."""
    if layer["kind"] != "conv" or not layer["called"] or not layer["parameters"]:
        return None
    units, channels = layer["output_shape"][0], layer["input_shape"][0] // layer["groups"]
    weights = units * channels * int(np.prod(layer["kernel"]))
    biases = layer["parameters"] - weights
    if "Transpose" in layer["type"] or biases not in (0, units):
        return None
    product = " · ".join(map(str, [units, channels, *layer["kernel"]]))
    return f"{product}{f' + {units}' if biases else ''} = {layer['parameters']:,}"


def choose_kernel(page: NetworkData, filters: Mapping[str, Array]) -> dict[str, Any] | None:
    """The filter of the first convolution whose weights are strongest, one channel of it, as a grid."""
    planar = (layer for layer in page.layers if format_parameter_count(layer) and len(layer["kernel"]) == 2)
    layer = next((layer for layer in planar if layer["module"] in filters), None)
    if layer is None or max(layer["kernel"]) > MAX_PRINTED_KERNEL:
        return None
    weight = filters[layer["module"]]
    unit, channel = np.unravel_index(np.square(weight).sum((2, 3)).argmax(), weight.shape[:2])
    shown = draw_grid(weight[unit, channel], float(np.abs(weight[unit, channel]).max()))
    return {"layer": layer, "unit": int(unit), "channel": int(channel), "grid": shown}


# Feature maps


def count_zeros(page: NetworkData, outputs: Mapping[str, Array]) -> dict[str, Any] | None:
    """The first ReLU's output on an image: its layer, and how many of its values are zero."""
    for layer in page.layers:
        if layer["kind"] == "activation" and layer["called"] and layer["type"].lower() == "relu":
            values = outputs[layer["name"]]
            return {"layer": layer, "zeros": int((values == 0).sum()), "size": values.size}
    return None


# Receptive fields


def trace_receptive_field(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Follow one value down to the pixels, along one axis: the rows of a drawing, the uppermost first.

    A row has the `name` of the layer, its `size`, the `first` and the `last` of its values on which the
    value depends (those beyond the border left out), and the layer `by` which it is made; the last row is
    the input's. Empty where the network has no window to begin with.
    """
    windows = [layer for layer in find_leading_chain(layers) if _is_sliding_window(layer)][:MAX_CONE_LAYERS]
    if not windows:
        return []
    rows = []
    first = last = windows[-1]["output_shape"][-1] // 2
    for layer in reversed(windows):
        rows.append(_make_row(layer["name"], layer["output_shape"][-1], first, last) | {"by": layer})
        kernel, stride, padding = (layer[key][-1] for key in ("kernel", "stride", "padding"))
        dilation = (layer["dilation"] or [1])[-1]
        first = first * stride - padding
        last = last * stride - padding + dilation * (kernel - 1)
    return [*rows, _make_row("input", windows[0]["input_shape"][-1], first, last)]


def _make_row(name: str, size: int, first: int, last: int) -> dict[str, Any]:
    return {"name": name, "size": size, "first": max(first, 0), "last": min(last, size - 1)}


def _is_sliding_window(layer: dict[str, Any]) -> bool:
    known = all(isinstance(layer[key], list) for key in ("kernel", "stride", "padding"))
    slides = layer["kind"] in ("conv", "pool") and len(layer["output_shape"]) == 3
    return known and slides and "Transpose" not in layer["type"]


# Pooling


def make_pooling_example(folder: Path, told: dict[str, Any] | None) -> dict[str, Any]:
    """A worked example of pooling by 2 × 2, its switches and unpooling, from the run where it has one.

    A part of a map as it came to a max-pooling layer, and what the deconvnet's signal of steps/ did there:
    what came to the pooling from above, unpooled, and rectified.
    """
    up, above, source = (_find_pooling_example(folder, told) if told else None) or (
        EXAMPLE_MAP,
        EXAMPLE_SIGNAL,
        None,
    )
    small, places = max_pool(up)
    down = max_unpool(above, places)
    most = float(max(np.abs(above).max(), 1e-9))
    return {
        "source": source,
        "up": draw_grid(up, float(up.max()), VIRIDIS, places),
        "small": draw_grid(small, float(up.max()), VIRIDIS),
        "switches": [int(place) for place in places.ravel()],
        "above": draw_grid(above, most),
        "down": draw_grid(down, most, maxima=places),
        "rectified": draw_grid(down.clip(0), most),
    }


def max_pool(values: Array) -> tuple[Array, Array]:
    """Max-pool (H, W) by 2 × 2: the maxima, and the switches, their flat places; of equals the first."""
    height, width = values.shape
    windows = values.reshape(height // 2, 2, width // 2, 2).swapaxes(1, 2).reshape(height // 2, width // 2, 4)
    inside = windows.argmax(-1)
    rows, columns = np.indices(inside.shape)
    return windows.max(-1), (2 * rows + inside // 2) * width + 2 * columns + inside % 2


def max_unpool(values: Array, switches: Array) -> Array:
    """Put each value in the place of its switch, zero elsewhere: (h, w) to (2 h, 2 w)."""
    down = np.zeros((2 * values.shape[0], 2 * values.shape[1]), values.dtype)
    down.flat[switches.ravel()] = values.ravel()
    return down


def _find_pooling_example(folder: Path, told: dict[str, Any]) -> tuple[Array, Array, dict[str, Any]] | None:
    """The most telling part of a map at a 2 × 2 max pooling that the signal of steps/ was unpooled by."""
    layers = {layer["name"]: layer for layer in read_json(folder / "layers.json")}
    signals = Npz(folder / "steps/signals.npz")
    outputs = Npz(folder / f"activations/{told['image']}.npz")
    examples = []
    for above, below in zip(told["steps"], told["steps"][1:], strict=False):
        pool = layers.get(above["layer"])
        if pool is None or below["through"] != [pool["name"]] or not _is_2x2_max_pool(pool):
            continue
        maps, signal = outputs[pool["inputs"][0]], signals[above["layer"]]
        units = signals.get(f"{above['layer']}@units", np.arange(len(signal)))
        for n, unit in enumerate(units):
            row, column, worth = _find_informative_part(maps[unit], signal[n])
            up = maps[unit][
                2 * row : 2 * row + POOLING_PATCH_SIZE, 2 * column : 2 * column + POOLING_PATCH_SIZE
            ]
            part = signal[n][row : row + POOLING_PATCH_SIZE // 2, column : column + POOLING_PATCH_SIZE // 2]
            source = {"pool": pool["name"], "map": pool["inputs"][0], "unit": int(unit)}
            source |= {"image": told["image"], "row": 2 * row, "column": 2 * column}
            examples.append((worth, (up, part, source)))
    return max(examples, key=lambda example: example[0])[1] if examples else None


def _is_2x2_max_pool(layer: dict[str, Any]) -> bool:
    """Whether a layer pools by 2 × 2 windows, side by side."""
    plain = layer["kernel"] == [2, 2] == layer["stride"] and layer["padding"] == [0, 0]
    return is_max_pool(layer) and plain


def _find_informative_part(values: Array, signal: Array) -> tuple[int, int, tuple[int, float]]:
    """Where a part of a map shows most: signals of both signs, in windows that hold different values."""
    side = POOLING_PATCH_SIZE // 2
    best = (0, 0, (-1, 0.0))
    for row in range(signal.shape[0] - side + 1):
        for column in range(signal.shape[1] - side + 1):
            part = signal[row : row + side, column : column + side]
            up = values[2 * row : 2 * row + POOLING_PATCH_SIZE, 2 * column : 2 * column + POOLING_PATCH_SIZE]
            if up.shape != (POOLING_PATCH_SIZE, POOLING_PATCH_SIZE):
                continue
            shown = len(np.unique(up.round(1))) + 8 * min((part > 0).sum(), (part < 0).sum(), 1)
            worth = (int(shown), float(np.abs(part).sum()))
            if worth > best[2]:
                best = (row, column, worth)
    return best


# The deconvnet


def pair_layers(layers: Sequence[dict[str, Any]], told: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The layers of a convnet from the pixels up, each with what the deconvnet does there on the way down.

    Of the network's own where it is a chain up to the layer followed in steps/, and no longer than PAIR;
    else of one stage as any has.
    """
    stage = [("convolution", "conv", None), ("ReLU", "activation", None), ("max pooling", "pool", None)]
    road = find_leading_chain(layers)
    names = [layer["name"] for layer in road]
    if told and told["layer"] in names[:MAX_PAIRED_LAYERS]:
        top = names.index(told["layer"]) + 1
        stage = [(layer["name"], layer["kind"], layer["output_shape"]) for layer in road[:top]]
    return [
        {
            "name": name,
            "kind": kind,
            "up": FORWARD_STEPS.get(kind, kind),
            "down": DECONVNET_STEPS.get(kind, kind),
            "shape": " × ".join(map(str, shape)) if shape else "",
        }
        for name, kind, shape in stage
    ]


# Scales


def make_colour_bars(folder: Path, page: NetworkData) -> list[dict[str, Any]]:
    """Colour bars with numbers of the run: of weights, of a map, of projections, as far as it has them."""
    bars = []
    filters = Npz(folder / "filters.npz")
    conv = next(
        (layer for layer in page.layers if layer["kind"] == "conv" and layer["module"] in filters), None
    )
    if conv:
        most = float(np.abs(filters[conv["module"]]).max())
        bars.append({"what": f"weights of {conv['name']}", "low": -most, "high": most})
    name = page.images[0]["name"]
    found = count_zeros(page, outputs := Npz(folder / f"activations/{name}.npz"))
    if found:
        layer = found["layer"]["name"]
        bars.append({"what": f"values of {layer} on {name}", "low": 0.0, "high": float(outputs[layer].max())})
    projections = Npz(folder / f"deconv/{name}.npz")
    if len(projections):
        key = next(iter(projections))
        most = float(np.abs(projections[key]).max())
        bars.append({"what": f"projections of {key} on {name}", "low": -most, "high": most})
    return bars


# Squares


def draw_grid(
    values: Array, most: float, ramp: Sequence[str] = RDBU, maxima: Array | None = None, side: float = 46
) -> Grid:
    """Draw values (H, W) as squares: signed ones over -most..most, those under viridis over 0..most."""
    low = 0.0 if ramp is VIRIDIS else -most
    cells = []
    for n, value in enumerate(values.ravel().tolist()):
        row, column = divmod(n, values.shape[1])
        fill = interpolate_colour(ramp, (value - low) / (most - low) if most > low else 0.5)
        marked = maxima is not None and n in maxima
        cells.append(
            Cell(column * side, row * side, format_value(value), fill, choose_text_colour(fill), marked)
        )
    rows = "; ".join(", ".join(format_value(value) for value in row) for row in values.tolist())
    return Grid(values.shape[1] * side, values.shape[0] * side, cells, rows)


def format_value(value: float) -> str:
    """Two digits after the point, as many as fit a square; zero is 0."""
    return "0" if value == 0 else f"{value:.2f}".replace("-", "−")


def interpolate_colour(ramp: Sequence[str], place: float) -> str:
    """The colour at a place, 0..1, between the steps of a ramp."""
    at = min(max(place, 0.0), 1.0) * (len(ramp) - 1)
    n = min(int(at), len(ramp) - 2)
    below, above = (np.array([int(ramp[k][i : i + 2], 16) for i in (1, 3, 5)]) for k in (n, n + 1))
    return "#{:02x}{:02x}{:02x}".format(*np.round(below + (at - n) * (above - below)).astype(int).tolist())


def choose_text_colour(fill: str) -> str:
    """Black or white, whichever stands out more (WCAG 2.2, relative luminance)."""
    parts = np.array([int(fill[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#fff" if luminance < 0.179 else "#000"
