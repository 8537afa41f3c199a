"""The slides of deeper layers with their receptive fields, and of the deconvnet's way back to the pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convatlas.attribution.unit_selection import unit_maxima
from convatlas.gallery.lecture.path import find_peak, rank_units
from convatlas.gallery.lecture.pictures import Picture, PictureFolder, format_box
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.primer_examples import BACKWARD_STEPS, find_leading_chain
from convatlas.image_io import select_display
from convatlas.layer_selection import space_evenly
from convatlas.names import format_number, format_shape
from convatlas.plotting.colormap import ColourScale
from convatlas.records import DeconvSteps, Layer
from convatlas.results import projected_units

N_STRONGEST = 3  # maps of each deeper layer
MAX_STEPS = 6  # signals of a deconvnet between its first layer and the pixels
MAX_NAMED_OPERATIONS = 9  # of a projection without recorded signals


@dataclass(frozen=True)
class DeeperLayer:
    """A deeper layer on an image.

    Attributes:
        layer: The layer.
        units: The units with the largest maxima, the largest first, and their maxima as text.
        maps: Their maps, on one scale.
        peak_box: CSS of the maximum of the first in its map.
        field_box: CSS of the receptive field of this maximum in the image; "" where it is not known.
        field: Its size as text.
    """

    layer: Layer
    units: list[tuple[int, str]]
    maps: list[Picture]
    peak_box: str
    field_box: str
    field: str


def make_deeper_layer(
    layer: Layer, outputs: Mapping[str, np.ndarray], pictures: PictureFolder, name: str
) -> DeeperLayer:
    """Show the strongest maps of a layer on an image, and the receptive field of the maximum of the first.

    Args:
        layer: The layer.
        outputs: The recorded outputs on the image.
        pictures: Where the maps are added.
        name: The beginning of their files' names.
    """
    maps = outputs[layer["name"]]
    units, maxima = rank_units(maps)[:N_STRONGEST], unit_maxima(maps)
    scale = ColourScale.from_values(maps[units])
    row, column = find_peak(maps[units[0]])
    box, field = locate_receptive_field(layer, (row, column), outputs["input"].shape[1:])
    return DeeperLayer(
        layer=layer,
        units=[(unit, format_number(float(maxima[unit]))) for unit in units],
        maps=[
            pictures.add_map(f"{name}-{n}", maps[unit], f"Map of unit {unit} of {layer['name']}", scale)
            for n, unit in enumerate(units)
        ],
        peak_box=format_box(maps.shape[1:], row, column, 1, 1),
        field_box=box,
        field=field,
    )


def locate_receptive_field(layer: Layer, position: tuple[int, int], size: Sequence[int]) -> tuple[str, str]:
    """Return the CSS of the receptive field of a position in the image, and the size of the field as text.

    Args:
        layer: The layer.
        position: Row and column in its map.
        size: Height and width of the image.

    Returns:
        "" and "not known" where the record has no receptive field.
    """
    field, start, step = (layer[key] for key in ("receptive_field", "receptive_start", "receptive_step"))
    if not field or len(field) != 2:
        return "", "not known"
    text, whole = f"{format_shape(field)} pixels", format_box(size, 0, 0, *size)
    if not (start and step):
        is_whole = all(extent >= length for extent, length in zip(field, size, strict=True))
        return (whole, "the whole image") if is_whole else ("", text)
    firsts = [first + stride * index for first, stride, index in zip(start, step, position, strict=True)]
    box = format_box(size, *firsts, *field)
    return box, "the whole image" if box == whole else text


# The deconvnet


@dataclass(frozen=True)
class SignalStep:
    """A signal of the deconvnet on its way to the pixels: what led to it, where it is, and its picture."""

    operation: str
    place: str
    picture: Picture


@dataclass(frozen=True)
class DeconvnetContent:
    """The deconvnet projection of a unit.

    Attributes:
        layer: The layer from which it starts.
        unit: The unit.
        is_peak: Whether only the unit's maximum is projected, or its whole map.
        maximum: The unit's maximum, as text.
        steps: The signals from the unit's map on; the map alone where the others are not recorded.
        operations: What the deconvnet does from there to the pixels, where the signals are not recorded.
        projection: The projection.
        is_rectified: Whether the signal is rectified at activation functions that are not ReLU.
    """

    layer: str
    unit: int
    is_peak: bool
    maximum: str
    steps: list[SignalStep]
    operations: list[str]
    projection: Picture
    is_rectified: bool


def make_deconvnet(
    network: NetworkData, image: str, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> DeconvnetContent | None:
    """Show a projection with its steps where they are of this image, else that of the strongest unit's peak.

    Args:
        network: The network.
        image: Name of the image.
        outputs: The recorded outputs on it.
        pictures: Where the pictures are added.

    Returns:
        None where no layer with maps is projected, or the units are inactive on the image.
    """
    steps = network.results.steps
    if steps and steps["image"] == image and steps["layer"] in outputs:
        content = _show_steps(network, steps, outputs, pictures)
        if content:
            return content
    return _show_projection(network, image, outputs, pictures)


def _show_steps(
    network: NetworkData, steps: DeconvSteps, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> DeconvnetContent | None:
    """Show the recorded signals of a projection, of many those spread evenly on the way."""
    signals, maps = network.results.step_signals, outputs[steps["layer"]]
    *inner, last = steps["steps"]
    is_shown = last["layer"] == "input" and maps.ndim == 3 and maps[steps["unit"]].max() > 0
    if not is_shown or not np.isfinite(signals["input"]).all():
        return None
    planar = space_evenly([n for n, step in enumerate(inner) if len(step["shape"]) == 3], MAX_STEPS)
    layers = {layer["name"]: layer for layer in network.layers}
    shown: list[SignalStep] = []
    previous = 0
    for n in planar:
        step = inner[n]
        signal, units = signals[step["layer"]], projected_units(signals, step["layer"])
        index = (
            units.index(steps["unit"])
            if n == 0
            else int(np.abs(signal).reshape(len(signal), -1).max(1).argmax())
        )
        passed = [name for between in inner[previous + 1 : n + 1] for name in between["passed_layers"]]
        operation = describe_operations([layers[name] for name in passed if name in layers])
        alt = f"Signal at {step['layer']}, channel {units[index]}"
        picture = pictures.add_map(f"signal-{n}", signal[index], alt, ColourScale.diverging(signal[index]))
        shown.append(SignalStep(operation, f"{step['layer']}, channel {units[index]}", picture))
        previous = n
    passed = [name for between in [*inner[previous + 1 :], last] for name in between["passed_layers"]]
    return DeconvnetContent(
        layer=steps["layer"],
        unit=steps["unit"],
        is_peak=False,
        maximum=format_number(float(maps[steps["unit"]].max())),
        steps=shown,
        operations=[describe_operations([layers[name] for name in passed if name in layers])],
        projection=pictures.add_projection(
            "projection", select_display(signals["input"], network.description["preprocessing"]), "Projection"
        ),
        is_rectified=network.rectified,
    )


def _show_projection(
    network: NetworkData, image: str, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> DeconvnetContent | None:
    """Show the projection of the peak of the most active unit of the deepest layer that is projected."""
    projections = network.results.displayed_projections(image)
    for layer in reversed(network.layers):
        name = layer["name"]
        key = f"{name}@peak" if f"{name}@peak" in projections else name
        if (
            not layer["called"]
            or len(layer["output_shape"]) != 3
            or key not in projections
            or name not in outputs
        ):
            continue
        units = projected_units(projections, name)
        maps = outputs[name]
        if not units or unit_maxima(maps[units]).max() <= 0:
            continue
        index = int(unit_maxima(maps[units]).argmax())
        unit, values = units[index], projections[key][index]
        if not np.isfinite(values).all():
            continue
        return DeconvnetContent(
            layer=name,
            unit=unit,
            is_peak=key != name,
            maximum=format_number(float(unit_maxima(maps[[unit]])[0])),
            steps=[
                SignalStep(
                    "", name, pictures.add_map("signal-0", maps[unit], f"Map of unit {unit} of {name}")
                )
            ],
            operations=_list_operations(network.layers, name),
            projection=pictures.add_projection("projection", values, "Projection"),
            is_rectified=network.rectified,
        )
    return None


def _list_operations(layers: Sequence[Layer], name: str) -> list[str]:
    """List what the deconvnet does from a layer down to the pixels of a short chain of layers."""
    chain = find_leading_chain(layers)
    names = [layer["name"] for layer in chain]
    if name not in names or names.index(name) >= MAX_NAMED_OPERATIONS:
        return [f"back through the {_count_layers_below(layers, name)} layers below"]
    passed = [layer for layer in chain[: names.index(name) + 1] if layer["kind"] in BACKWARD_STEPS]
    return [f"{BACKWARD_STEPS[layer['kind']]} ({layer['name']})" for layer in reversed(passed)]


def _count_layers_below(layers: Sequence[Layer], name: str) -> int:
    """Count the layers from which a layer is computed, itself included."""
    by_name = {layer["name"]: layer for layer in layers}
    pending, below = [name], set()
    while pending:
        current = pending.pop()
        if current in by_name and current not in below:
            below.add(current)
            pending += by_name[current].get("inputs") or []
    return len(below)


def describe_operations(passed: Sequence[Layer]) -> str:
    """Describe what the deconvnet does at layers, in its order, as "unpool, rectify"; "" for none.

    Args:
        passed: The layers that it passes.
    """
    if len(passed) > 3:
        return f"back through {len(passed)} layers"
    return ", ".join(BACKWARD_STEPS.get(layer["kind"], "pass back") for layer in passed)
