"""Measure the effective receptive fields of a network's layers and write effective_receptive_field/."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from convatlas import UserError
from convatlas.analysis.drawn_images import SPLIT, draw_images
from convatlas.analysis.effective_receptive_field.fields import (
    THRESHOLD,
    LayerField,
    measure_fields,
    measure_size,
)
from convatlas.analysis.untrained import NO_CONTROL, build_untrained
from convatlas.files import to_json_number, write_analysis
from convatlas.layer_selection import choose_layers, space_evenly
from convatlas.models import build
from convatlas.pipeline.config_types import EffectiveFieldSettings, LayerSelection
from convatlas.records import EffectiveFieldAnalysis, EffectiveFieldLayer, EffectiveFieldSize, Layer
from convatlas.results import Results

log = logging.getLogger(__name__)

NAME = "effective_receptive_field"
MEASURED_KINDS = ("conv", "pool", "merge")  # of the layers that are measured by default
MAX_LAYERS = 12  # that are measured by default
TRAINED, UNTRAINED = "trained", "untrained"
OUTSIDE = (
    "its gradient reaches pixels outside its receptive field in layers.json, so that one of them is wrong; "
    "please report this network"
)


def write_effective_receptive_fields(
    folder: str | Path, data: str | Path, settings: EffectiveFieldSettings, device: torch.device
) -> None:
    """Measure the effective receptive fields of a network's layers and write their folder.

    Args:
        folder: The network's folder, results/<network>, with weights, network.json and layers.json.
        data: The data set's folder, data/<dataset>.
        settings: The number of images, the layers, and the seed.
        device: Where the network runs.

    Raises:
        UserError: The config names a layer that is not there, or too few images can be read.
    """
    folder = Path(folder)
    results = Results(folder)
    names = choose_measured_layers(results.layers, settings["layers"], folder.name)
    network, preprocessing = build.load_network(folder)
    count = None if settings["images"] == "all" else int(settings["images"])
    images = draw_images(data, preprocessing, count, settings["seed"])
    x = images.preprocess()
    untrained = build_untrained(folder, network)
    analysis: EffectiveFieldAnalysis = {
        "undefined": None,
        "control_undefined": None if untrained else NO_CONTROL,
        "dataset": Path(data).name,
        "split": SPLIT,
        "images": len(images.indices),
        "input": list(preprocessing.shape[1:]),
        "threshold": THRESHOLD,
        "layers": [],
    }
    arrays: dict[str, np.ndarray] = {}
    try:
        versions: dict[str, nn.Module] = {TRAINED: network} | ({UNTRAINED: untrained} if untrained else {})
        fields = {
            key: measure_fields(version.to(device), x, names, settings["seed"])
            for key, version in versions.items()
        }
        by_name = {layer["name"]: layer for layer in results.layers}
        analysis["layers"] = [
            describe_layer(by_name[name], {key: measured[name] for key, measured in fields.items()}, arrays)
            for name in names
        ]
    except (UserError, RuntimeError) as error:
        analysis["undefined"] = f"the gradient at its input cannot be computed: {error}"
        log.warning("%s", analysis["undefined"])
    if not names:
        analysis["undefined"] = "none of its layers has maps with two axes and more than one value"
    for layer in analysis["layers"]:
        if layer["undefined"]:
            log.warning("%s is left out: %s", layer["name"], layer["undefined"])
    log.info("measured %d layers on %d images", len(analysis["layers"]), len(images.indices))
    write_analysis(folder / NAME, NAME, analysis, arrays)


def choose_measured_layers(
    layers: Sequence[Layer], selection: LayerSelection | None, network: str
) -> list[str]:
    """Return the names of the layers to measure, in execution order.

    Args:
        layers: layers.json.
        selection: As in `layer_selection.choose_layers`; None chooses layers of MEASURED_KINDS with maps of
            more than one value, evenly spaced where there are more than MAX_LAYERS.
        network: Name of the network, for the error.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if selection is not None:
        return choose_layers(layers, selection, f"networks.{network}.views.{NAME}.layers")
    names = [
        layer["name"]
        for layer in layers
        if layer["called"]
        and layer["kind"] in MEASURED_KINDS
        and len(layer["output_shape"]) == 3
        and max(layer["output_shape"][1:]) > 1
    ]
    return space_evenly(names, MAX_LAYERS)


def describe_layer(
    layer: Layer, fields: Mapping[str, LayerField | str], arrays: dict[str, np.ndarray]
) -> EffectiveFieldLayer:
    """Describe the effective receptive field of a layer, and add its fields to the arrays.

    Args:
        layer: Its entry in layers.json.
        fields: Its field by TRAINED and UNTRAINED, or why there is none.
        arrays: The arrays of the npz file, to which <layer>@trained and <layer>@untrained are added.

    Returns:
        Its entry in effective_receptive_field.json. A layer whose gradient reaches beyond its theoretical
        receptive field is undefined: one of the two is wrong.
    """
    entry: EffectiveFieldLayer = {
        "name": layer["name"],
        "undefined": None,
        "position": None,
        "theoretical": layer["receptive_field"],
        "window": None,
        "clipped": False,
        "trained": None,
        "untrained": None,
    }
    sizes: dict[str, EffectiveFieldSize] = {}
    for key, measured in fields.items():
        if isinstance(measured, str):
            return {**entry, "undefined": measured}
        size = measure_size(measured)
        if size is None and key == TRAINED:
            return {**entry, "undefined": "the gradient at its centre is zero or not finite for all images"}
        if size is None:
            continue
        entry["position"] = list(measured.position)
        window = find_window(layer, measured.position, measured.field.shape)
        if window is not None:
            if exceeds(measured.field, window):
                return {**entry, "undefined": OUTSIDE}
            top, left, bottom, right = entry["window"] = list(window)
            entry["clipped"] = (
                min(top, left) < 0 or bottom > measured.field.shape[0] or right > measured.field.shape[1]
            )
        sizes[key] = {
            "side": size.side,
            "side_error": to_json_number(size.side_error),
            "spread": list(size.spread),
        }
        arrays[f"{layer['name']}@{key}"] = measured.field.astype(np.float32)
    return {**entry, "trained": sizes[TRAINED], "untrained": sizes.get(UNTRAINED)}


def exceeds(field: np.ndarray, window: Sequence[int]) -> bool:
    """Return whether an effective receptive field has values outside of the theoretical one.

    Args:
        field: The field, (H, W).
        window: As `find_window` returns it.
    """
    top, left, bottom, right = (max(0, edge) for edge in window)
    outside = field.copy()
    outside[top:bottom, left:right] = 0
    return bool(outside.any())


def find_window(
    layer: Layer, position: tuple[int, int], shape: Sequence[int]
) -> tuple[int, int, int, int] | None:
    """Return the theoretical receptive field of a position of a layer's output, which may exceed the input.

    Args:
        layer: Its entry in layers.json.
        position: Row and column of the output.
        shape: Height and width of the input.

    Returns:
        Top, left, bottom and right in pixels, the last two beyond it; the input where a value depends on all
        of it, None where the field is not known.
    """
    size, start, step = layer["receptive_field"], layer["receptive_start"], layer["receptive_step"]
    if size is None:
        return None
    if start is None or step is None:
        is_global = all(field >= pixels for field, pixels in zip(size, shape, strict=True))
        return (0, 0, shape[0], shape[1]) if is_global else None
    top, left = (first + index * by for first, index, by in zip(start, position, step, strict=True))
    return top, left, top + size[0], left + size[1]
