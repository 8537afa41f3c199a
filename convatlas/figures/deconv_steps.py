"""The figure of one unit's deconvnet projection, step by step from the layer to the pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from convatlas.attribution.unit_selection import unit_maxima
from convatlas.figures.context import Caption, CaptionedFigure, FigureContext, symmetric_range
from convatlas.figures.tiles import CLIPPING_NOTE, MontageOptions, to_rgb_pixels
from convatlas.image_io import get_display, select_display
from convatlas.names import format_number, format_shape
from convatlas.plotting.colormap import RGB_CMAP, ColourScale
from convatlas.plotting.labelled_figure import ColourBar
from convatlas.plotting.montage import Tile, TileRow
from convatlas.records import DeconvStep, DeconvSteps, Layer
from convatlas.results import UNITS_SUFFIX

MAX_UNITS = 16  # units of a layer that are drawn, as many as steps/signals.npz holds
MAX_NAMED_LAYERS = 3  # layers that the label of a step names

# What the deconvnet does at a layer, by its kind.
VERBS = {
    "pool": "unpool",
    "activation": "rectify",
    "conv": "filter",
    "linear": "apply weights",
    "norm": "rescale",
    "reshape": "reshape",
    "merge": "split",
    "dropout": "pass through",
}


def draw_deconv_steps(context: FigureContext) -> Iterator[CaptionedFigure]:
    """Draw the projection that steps/ holds, if there is one.

    The steps are those of Zeiler & Fergus, Visualizing and understanding convolutional networks (arXiv
    1311.2901), section 2.1.

    Args:
        context: The network's results and views.

    Yields:
        No figure, or one of kind "steps", which has the feature maps, then a row per step down to the pixels.

    Raises:
        UserError: A file of the results is missing or damaged.
    """
    if context.results.steps:
        yield _draw_steps(context, context.results.steps, context.results.step_signals)


def _draw_steps(
    context: FigureContext, projection: DeconvSteps, signals: Mapping[str, np.ndarray]
) -> CaptionedFigure:
    image, layer, unit = projection["image"], projection["layer"], projection["unit"]
    maps = context.activations(image)[layer]
    units = _select_most_active_units(maps, unit)
    scales = [ColourScale.from_values(maps[units])]
    rows: list[TileRow] = [[context.make_input_tile(image), *_make_tiles(maps[units], units, scales[0])]]
    value_range = _format_value_range(maps.min(), maps.max())
    labels = [f"feature maps of {layer}\n{format_shape(maps.shape)}\n{value_range}"]
    for number, step in enumerate(projection["steps"], 1):
        signal, signal_units = signals[step["layer"]], _list_recorded_units(signals, step)
        is_input = step["layer"] == "input"
        if is_input:
            signal = select_display(signal, context.network["preprocessing"])
        scale = _make_scale(signal, is_input)
        if number == 1:  # with the units that were set to zero, each below its feature map
            masked = np.zeros((len(units), *signal.shape[1:]), signal.dtype)
            if unit in signal_units:
                masked[units.index(unit)] = signal[signal_units.index(unit)]
            rows.append([None, *_make_tiles(masked, units, scale)])
        elif is_input:
            rows.append([context.make_input_tile(image), _make_pixel_tile(signal, scale)])
        else:
            rows.append([None, *_make_tiles(signal, signal_units, scale, skip_zero=True)])
        scales.append(scale)
        labels.append("\n".join([f"{number}. {_describe_step(context, step, unit)}", *_format_signal(step)]))
    kinds = ["activation", *["signal"] * (len(projection["steps"]) - 1), "projection"]
    bars = [ColourBar(n, n, scale, kind) for n, (scale, kind) in enumerate(zip(scales, kinds, strict=True))]
    caption = _write_caption(context, projection)
    options = MontageOptions(tile_size=context.tile_size, group_starts=(1,))
    return context.make_montage("steps", "", rows, labels, bars, caption, options)


def _write_caption(context: FigureContext, projection: DeconvSteps) -> Caption:
    steps, layer = projection["steps"], projection["layer"]
    has_many_units = any(len(step["shape"]) > 1 and step["shape"][0] > MAX_UNITS for step in steps)
    has_long_step = any(len(step["passed_layers"]) > MAX_NAMED_LAYERS for step in steps)
    line = (
        f"{layer}: deconvnet projection of unit {projection['unit']} on "
        f"{context.image_titles[projection['image']]}, step by step, a scale per row"
    )
    text = (
        f"From top to bottom: the feature maps of {layer}; all units but one set to zero; then back "
        "through unpooling (by the switches), rectification and the transposed filters to the pixels, beside "
        "the input. Left of each row: the operation, and the shape, range and nonzero values of its signal. "
        f"Each row has its own colour scale: {ColourScale(-1, 1, 'RdBu_r').description}."
    )
    if len(get_display(context.network["preprocessing"])) == 3:
        text += f" The projection: {ColourScale(-1, 1, RGB_CMAP).description}. {CLIPPING_NOTE}"
    if has_many_units:
        text += f" Of more than {MAX_UNITS} units those with the largest values are shown."
    if has_long_step:
        text += " Across branches, such as skip connections, the signal takes all paths in one step."
    text += context.display_note + context.rectification_note
    if steps[0]["nonzero_count"] == 0:
        text += " The unit is inactive on this image, so the signal is zero."
    return Caption(line, text)


def _describe_step(context: FigureContext, step: DeconvStep, unit: int) -> str:
    """Return the operation that leads to a step, and the layers that it passes."""
    passed = step["passed_layers"]
    if not passed:
        return f"all units but {unit} set to zero"
    if len(passed) > MAX_NAMED_LAYERS:
        return f"back through {len(passed)} layers"
    verbs = ", ".join(_choose_verb(context.layers[name]) for name in passed)
    return f"{verbs} ({', '.join(passed)})"


def _choose_verb(layer: Layer) -> str:
    if layer["kind"] == "pool" and "max" not in layer["type"].lower():
        return "spread"
    return VERBS.get(layer["kind"], "go back through")


def _format_signal(step: DeconvStep) -> list[str]:
    return [
        f"at {step['layer']}: {format_shape(step['shape'])}",
        _format_value_range(step["min"], step["max"]),
        f"{step['nonzero_count']:,} of {step['value_count']:,} nonzero",
    ]


def _format_value_range(low: float | None, high: float | None) -> str:
    if low is None or high is None or not np.isfinite([low, high]).all():
        return "with NaN or ∞"
    return f"{format_number(low)} to {format_number(high)}"


def _select_most_active_units(maps: np.ndarray, unit: int) -> list[int]:
    """Return the units that are drawn: all, or of many the most active, `unit` among them."""
    if maps.ndim == 1 or len(maps) <= MAX_UNITS:
        return list(range(len(maps)))
    order: list[int] = np.argsort(-unit_maxima(maps), kind="stable").tolist()
    return order[:MAX_UNITS] if unit in order[:MAX_UNITS] else [unit, *order[: MAX_UNITS - 1]]


def _list_recorded_units(signals: Mapping[str, np.ndarray], step: DeconvStep) -> list[int]:
    """Return the numbers of the units that the signal of a step holds."""
    units = signals.get(f"{step['layer']}{UNITS_SUFFIX}")
    return list(range(step["shape"][0])) if units is None else [int(unit) for unit in units]


def _make_tiles(
    values: np.ndarray, units: Sequence[int], scale: ColourScale, skip_zero: bool = False
) -> TileRow:
    """Return a tile per unit, or one tile of values (n,).

    With `skip_zero`, units that are zero everywhere have none, unless all are.
    """
    if values.ndim == 1:
        return [Tile(_to_plane(values), scale)]
    skip_zero = skip_zero and bool(values.any())
    return [
        None if skip_zero and not values[n].any() else Tile(_to_plane(values[n]), scale, str(unit))
        for n, unit in enumerate(units)
    ]


def _make_scale(signal: np.ndarray, is_input: bool) -> ColourScale:
    """Return the scale of a step; RGB pixels have that of the projections' figures."""
    if is_input and len(signal) == 3:
        return replace(ColourScale.diverging(symmetric_range(signal)), cmap=RGB_CMAP)
    return ColourScale.diverging(signal)


def _make_pixel_tile(values: np.ndarray, scale: ColourScale) -> Tile:
    """Return the tile of the projection (C, H, W): three channels as RGB, or one."""
    if len(values) == 3:
        return Tile(to_rgb_pixels(values, scale.high), title="projection")
    return Tile(values[0], scale, "projection")


def _to_plane(values: np.ndarray) -> np.ndarray:
    """Return values as rows and columns; a vector becomes a nearly square rectangle."""
    if values.ndim > 1:
        return values.reshape(-1, values.shape[-1])
    rows = next(n for n in range(max(1, int(np.sqrt(values.size))), 0, -1) if values.size % n == 0)
    return values.reshape(rows, -1)
