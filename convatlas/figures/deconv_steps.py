"""The plate of one unit's projection on its way down to the pixels, step by step, with its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convatlas.figures.context import Array, Desk, Line, Plate, by
from convatlas.figures.projections import BEYOND, bulk_of
from convatlas.files import Npz, read_json
from convatlas.plotting.colormap import Scale
from convatlas.plotting.labelled_figure import Bar
from convatlas.plotting.montage import EDGE, Tile

UNITS = 16  # of a layer that are drawn, as many as are kept
WITHIN = 3  # layers that a step goes through and that are told one by one

# What the deconvnet does at a layer, by its kind
VERBS = {"pool": "unpool", "activation": "rectify", "conv": "filter", "linear": "weigh", "norm": "scale",
         "reshape": "put back", "merge": "part", "dropout": "pass on"}  # fmt: skip


def draw(desk: Desk) -> Iterator[Plate]:
    """The plate of results/<network>/steps/, if there is one."""
    steps = desk.folder / "steps/steps.json"
    told = read_json(steps) if steps.is_file() else None
    if told:
        yield _steps(desk, told, Npz(desk.folder / "steps/signals.npz"))


def _steps(desk: Desk, told: dict[str, Any], signals: Mapping[str, Array]) -> Plate:
    image = next(image for image in desk.every_image if image["name"] == told["image"])
    layer, unit, down = told["layer"], told["unit"], told["steps"]
    maps = desk.activations[told["image"]][layer]
    units = _strongest(maps, unit)
    scales = [Scale.of(maps[units])]
    lines: list[Line] = [[desk.input(image), *_tiles(maps[units], units, scales[0])]]
    labels = [f"the maps of {layer}\n{by(maps.shape)}\n{_range(maps.min(), maps.max())}"]
    for number, step in enumerate(down, 1):
        signal, kept = signals[step["layer"]], _kept(signals, step)
        scales.append(_scale(signal, pixels=step["layer"] == "input"))
        if number == 1:  # with the tiles that were set to zero, each under its map
            alone = np.zeros((len(units), *signal.shape[1:]), signal.dtype)
            alone[units.index(unit)] = signal[kept.index(unit)] if unit in kept else 0
            lines.append([None, *_tiles(alone, units, scales[-1])])
        elif step["layer"] == "input":
            lines.append([desk.input(image), _pixels(signal, scales[-1])])
        else:
            lines.append([None, *_tiles(signal, kept, scales[-1], empty=False)])
        labels.append("\n".join([f"{number}. {_done(desk, step, unit)}", *_numbers(step)]))
    kinds = ["activation", *["signal"] * (len(down) - 1), "projection"]
    bars = [Bar(n, n, scale, kind) for n, (scale, kind) in enumerate(zip(scales, kinds, strict=True))]
    edge = desk.side * max(1, round(EDGE / desk.side))
    return desk.montage("steps", "", lines, labels, bars, _text(desk, told), edge=edge, apart=(1,))


def _text(desk: Desk, told: dict[str, Any]) -> str:
    steps = told["steps"]
    many = [step for step in steps if len(step["shape"]) > 1 and step["shape"][0] > UNITS]
    passed = any(len(step["through"]) > WITHIN for step in steps)
    text = (
        f"From unit {told['unit']} of {told['layer']} down to the pixels of {told['image']}, step by step. "
        "Uppermost the maps that the network made. The deconvnet sets all but one to zero, and goes back "
        "down: unpool into the switches, rectify, filter with the transposed filters; what arrives last is "
        "the unit's projection, beside the input. At the left of each row is what was done, and of the "
        "signal its shape, its range and how many of its values are not zero. Each row has the scale beside "
        f"it: {Scale(-1, 1, 'RdBu_r').words}."
    )
    if steps[-1]["shape"][0] == 3:
        text += f" The projection is in colours: {Scale(-1, 1, 'gray').words}. {BEYOND}"
    if many:
        text += f" Of more than {UNITS} units those with the largest values are drawn."
    if passed:
        text += (
            " Where ways part and meet again, as at a skip connection, the signal takes all of them at once."
        )
    if desk.views["deconv"]["rectify"]:
        text += " Rectified at activations that are not a ReLU too, where the method is undefined."
    if steps[0]["nonzero"] == 0:
        text += " The unit is dead on this image: nothing goes down from it."
    return text


def _done(desk: Desk, step: dict[str, Any], unit: int) -> str:
    """What the deconvnet did to come to a step, and where that is."""
    through = step["through"]
    if not through:
        return f"all but unit {unit} set to zero"
    if len(through) > WITHIN:
        return f"down {len(through)} layers"
    verbs = ", ".join(_verb(desk.layers[name]) for name in through)
    return f"{verbs} ({', '.join(through)})"


def _verb(layer: dict[str, Any]) -> str:
    if layer["kind"] == "pool" and "max" not in layer["type"].lower():
        return "spread"
    return VERBS.get(layer["kind"], "go back through")


def _numbers(step: dict[str, Any]) -> list[str]:
    place = "the pixels" if step["layer"] == "input" else step["layer"]
    return [
        f"at {place}: {by(step['shape'])}",
        _range(step["low"], step["high"]),
        f"{step['nonzero']:,} of {step['size']:,} not zero",
    ]


def _range(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g}".replace("-", "−")


def _strongest(maps: Array, unit: int) -> list[int]:
    """The units of a layer that are drawn: all, or of many those that answer most, `unit` among them."""
    if maps.ndim == 1 or len(maps) <= UNITS:
        return list(range(len(maps)))
    order = np.argsort(-maps.reshape(len(maps), -1).max(1), kind="stable").tolist()
    return order[:UNITS] if unit in order[:UNITS] else [unit, *order[: UNITS - 1]]


def _kept(signals: Mapping[str, Array], step: dict[str, Any]) -> list[int]:
    """The units of a step that are kept, by their numbers."""
    kept = signals.get(f"{step['layer']}@units")
    return list(range(step["shape"][0])) if kept is None else kept.tolist()


def _tiles(values: Array, units: Sequence[int], scale: Scale, empty: bool = True) -> Line:
    """A tile a unit, those that are all zero too where `empty`; of values without a place one tile."""
    if values.ndim == 1:
        return [Tile(_plane(values), scale)]
    empty = empty or not values.any()  # of a dead unit nothing else is there
    return [
        Tile(_plane(values[n]), scale, str(unit)) if empty or values[n].any() else None
        for n, unit in enumerate(units)
    ]


def _scale(signal: Array, pixels: bool) -> Scale:
    """The scale of a step; that of pixels in colours is for their bulk, as on the plates of projections."""
    if pixels and len(signal) == 3:
        return replace(Scale.diverging(bulk_of(signal)), colours="gray")
    return Scale.diverging(signal)


def _pixels(values: Array, scale: Scale) -> Tile:
    """The projection (C, H, W): one channel by the scale, three as colours about grey."""
    if len(values) == 3:
        return Tile(0.5 + values.transpose(1, 2, 0) / (2 * scale.high), number="projection")
    return Tile(values[0], scale, "projection")


def _plane(values: Array) -> Array:
    """Values as rows and columns: a vector is broken into lines, as near to a square as they fill."""
    if values.ndim > 1:
        return values.reshape(-1, values.shape[-1])
    lines = next(n for n in range(max(1, int(np.sqrt(values.size))), 0, -1) if values.size % n == 0)
    return values.reshape(lines, -1)
