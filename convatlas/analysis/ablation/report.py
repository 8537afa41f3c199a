"""ablation/ of a network: what it loses without units and layers, on the test split."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convatlas import UserError
from convatlas.analysis.ablation.ablate import Ablation, LayerAblation, ablate
from convatlas.analysis.ablation.effects import SIGNIFICANCE, Effects
from convatlas.analysis.ablation.layer_choice import choose_ablated_layers
from convatlas.analysis.ablation.measurement import REPLACEMENTS
from convatlas.datasets import formats
from convatlas.files import (
    read_json,
    to_json_number,
    to_json_numbers,
    write_analysis,
)
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.pipeline.config_types import CountOrAll
from convatlas.records import (
    AblationAnalysis,
    AblationCost,
    DatasetDescription,
    NetworkDescription,
)
from convatlas.records import LayerAblation as LayerEntry
from convatlas.training.labelled_images import load_split

log = logging.getLogger(__name__)


def write_ablation(
    folder: str | Path, data: str | Path | None, settings: dict[str, Any], device: torch.device
) -> None:
    """Ablate units and layers of a network on test images and write its folder ablation/.

    Args:
        folder: The network's folder, results/<network>, with weights, network.json and layers.json.
        data: The data set's folder, data/<dataset>, with labels or masks; None without a data set.
        settings: `views.ablation` of the config, and its `seed`.
        device: Where the network runs.

    Raises:
        UserError: A layer of the settings does not exist.
    """
    folder = Path(folder)
    description: NetworkDescription = read_json(folder / "network.json")
    names, left_out = choose_ablated_layers(
        read_json(folder / "layers.json"), settings["layers"], f"networks.{folder.name}.views.ablation.layers"
    )
    analysis: AblationAnalysis = {"undefined": _explain_undefined(description, data, names)}
    arrays: dict[str, np.ndarray] = {}
    if analysis["undefined"] is None and data is not None:
        try:
            ablation, split_images = _ablate_network(folder, description, data, settings, names, device)
        except UserError as error:
            analysis["undefined"] = str(error)
        else:
            analysis = describe_ablation(ablation, description, split_images, settings, left_out)
            arrays = dict(_list_arrays(ablation))
            _log_ablation(analysis)
    if analysis["undefined"]:
        log.warning("not computed: %s", analysis["undefined"])
    write_analysis(folder / "ablation", "ablation", analysis, arrays, compress=True)


def _explain_undefined(
    description: NetworkDescription, data: str | Path | None, layers: Sequence[str]
) -> str | None:
    """Return why a network cannot be measured on its data set, and what to set; None if it can."""
    if data is None:
        return "the network has no data set: set `dataset` to one with labels of its classes, or with masks"
    if description["output"]["kind"] == "none":
        return (
            f"the network's output has no class scores ({description['output']['reason']}), so that there is "
            "nothing to compare with labels; if it has, set `output`"
        )
    dataset = formats.describe(data)
    labels, noun = _list_labels(description, dataset)
    if not labels:
        return f"the data set has no {noun}: set `dataset` to one that has"
    if not sum(dataset["counts"]["test"]):
        return "the data set has no test images"
    is_named_anew = description["weights"]["name"] is None  # by others than torchvision
    if len(labels) != len(description["classes"]) or (not is_named_anew and labels != description["classes"]):
        return (
            f"the data set's {len(labels)} classes are not the network's {len(description['classes'])}: set "
            "`dataset` to one of the classes that the network was trained on"
        )
    if not layers:
        return "there is no hidden convolution or linear layer: name layers in `views.ablation.layers`"
    return None


def _list_labels(description: NetworkDescription, dataset: DatasetDescription) -> tuple[Sequence[str], str]:
    """Return the names of the classes that a data set labels for a network, and what they are of."""
    if _is_per_pixel(description):
        return formats.mask_classes(dataset), "masks"
    return dataset["classes"], "labels"


def _is_per_pixel(description: NetworkDescription) -> bool:
    """Return whether a network has scores for each pixel."""
    return len(description["output"]["shape"]) == 3


def _ablate_network(
    folder: Path,
    description: NetworkDescription,
    data: str | Path,
    settings: dict[str, Any],
    layers: Sequence[str],
    device: torch.device,
) -> tuple[Ablation, int]:
    """Ablate the layers of a network on the test split, and return how many images that has."""
    network, preprocessing = build.load_network(folder)
    network.to(device)
    split = load_split(data, "test", preprocessing, _is_per_pixel(description), device)
    ablation = ablate(
        network,
        preprocessing,
        split,
        layers,
        len(description["classes"]),
        Output.from_description(description),
        max_images=_read_count(settings["images"]),
        max_units=_read_count(settings["units"]),
        n_random=settings["random_orders"],
        seed=settings["seed"],
    )
    return ablation, len(split)


def _read_count(value: CountOrAll) -> int | None:
    """Return a number of the config; None for "all"."""
    return None if isinstance(value, str) else value


def describe_ablation(
    ablation: Ablation,
    description: NetworkDescription,
    split_images: int,
    settings: dict[str, Any],
    left_out: dict[str, str],
) -> AblationAnalysis:
    """Return the content of ablation.json.

    Args:
        ablation: What was measured.
        description: network.json.
        split_images: Number of images of the test split.
        settings: `views.ablation` of the config, and its `seed`.
        left_out: Layers of the settings that were not ablated, and why.
    """
    return {
        "undefined": None,
        "measure": ablation.measure,
        "dataset": description["dataset"],
        "split": "test",
        "split_images": split_images,
        "images": len(ablation.images),
        "half_images": [len(ablation.importance_images), len(ablation.curve_images)],
        "classes": description["classes"],
        "class_images": ablation.class_images.tolist(),
        "value": to_json_number(ablation.value),
        "interval": to_json_numbers(ablation.interval),
        "class_values": to_json_numbers(ablation.class_values),
        "curve_value": to_json_number(ablation.curve_value),
        "significance": SIGNIFICANCE,
        "random_orders": settings["random_orders"],
        "seed": settings["seed"],
        "layers": [_describe_layer(layer) for layer in ablation.layers],
        "left_out": {**left_out, **ablation.left_out},
    }


def _describe_layer(layer: LayerAblation) -> LayerEntry:
    """Return the entry of a layer in ablation.json."""
    return {
        "layer": layer.layer,
        "units": layer.n_units,
        "measured": len(layer.units),
        "significant": {kind: int(count_significant(layer.effects[kind]).sum()) for kind in REPLACEMENTS},
        "costs": {kind: _describe_cost(layer.layer_effects[kind]) for kind in REPLACEMENTS},
        "curves": {
            kind: {
                "counts": curve.counts.tolist(),
                "important_first": to_json_numbers(curve.important_first),
                "important_last": to_json_numbers(curve.important_last),
                "random": [to_json_numbers(values) for values in curve.random],
            }
            for kind, curve in layer.curves.items()
        },
    }


def count_significant(effects: Effects) -> np.ndarray:
    """Return which ablations raise the loss by more than noise, (K,) booleans.

    The loss alone decides, whatever the measure: it changes before a prediction does, and either of two
    tests, both at the same false discovery rate, would be significant by chance up to twice as often.

    Args:
        effects: Of the units of a layer, with adjusted p values.
    """
    return np.asarray((effects.loss_p <= SIGNIFICANCE) & (effects.loss_changes > 0))


def _describe_cost(effects: Effects) -> AblationCost:
    """Return what the ablation of all units of a layer costs."""
    return {
        "value": to_json_number(effects.values[0]),
        "effect": to_json_number(effects.effects[0]),
        "interval": to_json_numbers(effects.intervals[0]),
        "p": to_json_number(effects.p[0]),
        "class_effects": to_json_numbers(effects.class_effects[0]),
        "class_p": to_json_numbers(effects.class_p[0]),
        "loss_change": to_json_number(effects.loss_changes[0]),
    }


def _list_arrays(ablation: Ablation) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of ablation.npz."""
    yield "images@importance", ablation.importance_images.astype(np.int32)
    yield "images@curve", ablation.curve_images.astype(np.int32)
    for layer in ablation.layers:
        yield f"{layer.layer}@units", layer.units.astype(np.int32)
        yield f"{layer.layer}@means", layer.means.astype(np.float32)
        for kind in REPLACEMENTS:
            for name, array in vars(layer.effects[kind]).items():
                yield f"{layer.layer}@{kind}_{name}", array.astype(np.float32)


def _log_ablation(analysis: AblationAnalysis) -> None:
    """Log how many units matter, and which layers were left out."""
    for layer, reason in analysis["left_out"].items():
        log.warning("%s is left out: %s", layer, reason)
    layers = analysis["layers"]
    log.info(
        "ablation raises the loss by more than noise for %d of %d units of %d layers on %d test images",
        *(sum(layer["significant"]["zero"] for layer in layers), sum(layer["measured"] for layer in layers)),
        *(len(layers), analysis["images"]),
    )
