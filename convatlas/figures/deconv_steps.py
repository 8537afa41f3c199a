"""The plate of one unit's projection on its way down to the pixels, step by step, with its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convatlas.figures.context import Array, CaptionedFigure, FigureContext, TileRow, format_shape
from convatlas.figures.projections import CLIPPING_NOTE, symmetric_percentile_range
from convatlas.files import Npz, read_json
from convatlas.plotting.colormap import ColourScale
from convatlas.plotting.labelled_figure import ColourBar
from convatlas.plotting.montage import TILE_SIZE, Tile

MAX_UNITS = 16  # of a layer that are drawn, as many as are kept
MAX_NAMED_LAYERS = 3  # layers that a step goes through and that are told one by one

# What the deconvnet does at a layer, by its kind
VERBS = {"pool": "unpool", "activation": "rectify", "conv": "filter", "linear": "weigh", "norm": "scale",
         "reshape": "put back", "merge": "part", "dropout": "pass on"}  # fmt: skip


def draw_deconv_steps(desk: FigureContext) -> Iterator[CaptionedFigure]:
    """The plate of results/<network>/steps/, if there is one."""
    steps = desk.folder / "steps/steps.json"
    told = read_json(steps) if steps.is_file() else None
    if told:
        yield _draw_steps(desk, told, Npz(desk.folder / "steps/signals.npz"))


def _draw_steps(desk: FigureContext, told: dict[str, Any], signals: Mapping[str, Array]) -> CaptionedFigure:
    image = next(image for image in desk.all_images if image["name"] == told["image"])
    layer, unit, down = told["layer"], told["unit"], told["steps"]
    maps = desk.activations[told["image"]][layer]
    units = _select_most_active_units(maps, unit)
    scales = [ColourScale.from_values(maps[units])]
    lines: list[TileRow] = [[desk.make_input_tile(image), *_make_tiles(maps[units], units, scales[0])]]
    labels = [
        f"the maps of {layer}\n{format_shape(maps.shape)}\n{_format_value_range(maps.min(), maps.max())}"
    ]
    for number, step in enumerate(down, 1):
        signal, kept = signals[step["layer"]], _list_recorded_units(signals, step)
        scales.append(_make_scale(signal, pixels=step["layer"] == "input"))
        if number == 1:  # with the tiles that were set to zero, each under its map
            alone = np.zeros((len(units), *signal.shape[1:]), signal.dtype)
            alone[units.index(unit)] = signal[kept.index(unit)] if unit in kept else 0
            lines.append([None, *_make_tiles(alone, units, scales[-1])])
        elif step["layer"] == "input":
            lines.append([desk.make_input_tile(image), _make_projection_tile(signal, scales[-1])])
        else:
            lines.append([None, *_make_tiles(signal, kept, scales[-1], empty=False)])
        labels.append("\n".join([f"{number}. {_describe_step(desk, step, unit)}", *_format_signal(step)]))
    kinds = ["activation", *["signal"] * (len(down) - 1), "projection"]
    bars = [ColourBar(n, n, scale, kind) for n, (scale, kind) in enumerate(zip(scales, kinds, strict=True))]
    edge = desk.input_size * max(1, round(TILE_SIZE / desk.input_size))
    return desk.make_montage(
        "steps", "", lines, labels, bars, _make_caption_text(desk, told), tile_size=edge, group_starts=(1,)
    )


def _make_caption_text(desk: FigureContext, told: dict[str, Any]) -> str:
    steps = told["steps"]
    many = [step for step in steps if len(step["shape"]) > 1 and step["shape"][0] > MAX_UNITS]
    passed = any(len(step["through"]) > MAX_NAMED_LAYERS for step in steps)
    text = (
        f"From unit {told['unit']} of {told['layer']} down to the pixels of {told['image']}, step by step. "
        "Uppermost the maps that the network made. The deconvnet sets all but one to zero, and goes back "
        "down: unpool into the switches, rectify, filter with the transposed filters; what arrives last is "
        "the unit's projection, beside the input. At the left of each row is what was done, and of the "
        "signal its shape, its range and how many of its values are not zero. Each row has the scale beside "
        f"it: {ColourScale(-1, 1, 'RdBu_r').description}."
    )
    if steps[-1]["shape"][0] == 3:
        text += f" The projection is in colours: {ColourScale(-1, 1, 'gray').description}. {CLIPPING_NOTE}"
    if many:
        text += f" Of more than {MAX_UNITS} units those with the largest values are drawn."
    if passed:
        text += (
            " Where ways part and meet again, as at a skip connection, the signal takes all of them at once."
        )
    if desk.views["deconv"]["rectify"]:
        text += " Rectified at activations that are not a ReLU too, where the method is undefined."
    if steps[0]["nonzero"] == 0:
        text += " The unit is dead on this image: nothing goes down from it."
    return text


def _describe_step(desk: FigureContext, step: dict[str, Any], unit: int) -> str:
    """What the deconvnet did to come to a step, and where that is."""
    through = step["through"]
    if not through:
        return f"all but unit {unit} set to zero"
    if len(through) > MAX_NAMED_LAYERS:
        return f"down {len(through)} layers"
    verbs = ", ".join(_choose_verb(desk.layers[name]) for name in through)
    return f"{verbs} ({', '.join(through)})"


def _choose_verb(layer: dict[str, Any]) -> str:
    if layer["kind"] == "pool" and "max" not in layer["type"].lower():
        return "spread"
    return VERBS.get(layer["kind"], "go back through")


def _format_signal(step: dict[str, Any]) -> list[str]:
    place = "the pixels" if step["layer"] == "input" else step["layer"]
    return [
        f"at {place}: {format_shape(step['shape'])}",
        _format_value_range(step["low"], step["high"]),
        f"{step['nonzero']:,} of {step['size']:,} not zero",
    ]


def _format_value_range(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g}".replace("-", "−")


def _select_most_active_units(maps: Array, unit: int) -> list[int]:
    """The units of a layer that are drawn: all, or of many those that answer most, `unit` among them."""
    if maps.ndim == 1 or len(maps) <= MAX_UNITS:
        return list(range(len(maps)))
    order = np.argsort(-maps.reshape(len(maps), -1).max(1), kind="stable").tolist()
    return order[:MAX_UNITS] if unit in order[:MAX_UNITS] else [unit, *order[: MAX_UNITS - 1]]


def _list_recorded_units(signals: Mapping[str, Array], step: dict[str, Any]) -> list[int]:
    """The units of a step that are kept, by their numbers."""
    kept = signals.get(f"{step['layer']}@units")
    return list(range(step["shape"][0])) if kept is None else kept.tolist()


def _make_tiles(values: Array, units: Sequence[int], scale: ColourScale, empty: bool = True) -> TileRow:
    """A tile a unit, those that are all zero too where `empty`; of values without a place one tile."""
    if values.ndim == 1:
        return [Tile(_to_plane(values), scale)]
    empty = empty or not values.any()  # of a dead unit nothing else is there
    return [
        Tile(_to_plane(values[n]), scale, str(unit)) if empty or values[n].any() else None
        for n, unit in enumerate(units)
    ]


def _make_scale(signal: Array, pixels: bool) -> ColourScale:
    """The scale of a step; that of pixels in colours is for their bulk, as on the plates of projections."""
    if pixels and len(signal) == 3:
        return replace(ColourScale.diverging(symmetric_percentile_range(signal)), cmap="gray")
    return ColourScale.diverging(signal)


def _make_projection_tile(values: Array, scale: ColourScale) -> Tile:
    """The projection (C, H, W): one channel by the scale, three as colours about grey."""
    if len(values) == 3:
        return Tile(0.5 + values.transpose(1, 2, 0) / (2 * scale.high), title="projection")
    return Tile(values[0], scale, "projection")


def _to_plane(values: Array) -> Array:
    """Values as rows and columns: a vector is broken into lines, as near to a square as they fill."""
    if values.ndim > 1:
        return values.reshape(-1, values.shape[-1])
    lines = next(n for n in range(max(1, int(np.sqrt(values.size))), 0, -1) if values.size % n == 0)
    return values.reshape(lines, -1)
