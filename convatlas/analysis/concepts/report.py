"""Name the units of a network by concepts of its data set and write results/<network>/concepts/."""

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import cast

import numpy as np
import torch

from convatlas import image_io
from convatlas.analysis import chance_level
from convatlas.analysis.concepts import examples as concept_examples
from convatlas.analysis.concepts.examples import UnitExamples
from convatlas.analysis.concepts.images import IGNORED, INSIDE, ConceptImages
from convatlas.analysis.concepts.naming import (
    MIN_EXAMPLES,
    Concepts,
    LayerConcepts,
    MeasuredConcepts,
    NamedUnits,
    name_units,
)
from convatlas.analysis.concepts.samples import ConceptSample, list_groups, load_samples
from convatlas.analysis.concepts.selection import NO_CONCEPT
from convatlas.datasets import formats
from convatlas.files import atomic_write, read_json, write_json, write_npz
from convatlas.layer_selection import COMPLEX_OUTPUT_NOTE, choose_layers, has_weighted_units
from convatlas.models import build
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config_types import ConceptViews
from convatlas.records import (
    ConceptAnalysis,
    ConceptEntry,
    ConceptExample,
    ConceptLayer,
    ConceptTestSettings,
    Layer,
)

log = logging.getLogger(__name__)


def write_concepts(
    folder: str | Path, data: str | Path, settings: ConceptViews, device: torch.device
) -> None:
    """Name the units of a network by concepts of its data set and write its folder concepts/.

    Concepts and thresholds are chosen on images of the training split, and tested on images of the test
    split.

    Args:
        folder: The network's folder, results/<network>, with weights, network.json and layers.json.
        data: The data set's folder, data/<dataset>.
        settings: `views.concepts` of the network.
        device: Where the network runs.

    Raises:
        UserError: There is no such layer, or an image cannot be read.
    """
    folder = Path(folder)
    network, preprocessing = build.load_network(folder)
    network.to(device)
    layers = choose_named_layers(read_json(folder / "layers.json"), settings, folder.name)
    reason = find_missing_data(data, preprocessing)
    if reason is None:
        counts = {"train": settings["train"], "test": settings["test"]}
        concepts, samples = load_samples(data, counts, preprocessing, device)
        images = {split: sample.images for split, sample in samples.items()}
        pooling = settings["image_value"]
        named = name_units(network, layers, concepts, images["train"], images["test"], pooling)
        if not named.layers:
            reason = "none of the chosen layers has units: set other layers as `views.concepts.layers`"
        elif not named.tested.any():
            reason = describe_missing_concepts(concepts)
    with atomic_write(folder / "concepts") as target:
        target.mkdir()
        if reason is not None:
            log.warning("no units are named: %s", reason)
            write_json(target / "concepts.json", describe_undefined(settings, reason))
            return
        chosen = concept_examples.choose_examples(named, concepts, images["test"].is_labelled)
        examples = concept_examples.add_masks(network, chosen, named, concepts, images["test"])
        classes = formats.describe(data)["classes"]
        analysis = describe_analysis(settings, named, concepts, samples)
        analysis["examples"] = describe_examples(examples, named, concepts, samples["test"], classes)
        write_json(target / "concepts.json", analysis)
        write_npz(target / "concepts.npz", collect_arrays(named, len(concepts.regions)))
        write_npz(target / "examples.npz", collect_examples(examples, images["test"], preprocessing))
        _log_analysis(analysis)


def choose_named_layers(layers: Sequence[Layer], settings: ConceptViews, network: str) -> list[str]:
    """Return the layers whose units are named: those selected, or convolutions and linear layers.

    Linear layers of tokens, whose units come last, are left out by default.

    Args:
        layers: layers.json.
        settings: `views.concepts` of the network.
        network: Its name.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if settings["layers"] is not None:
        return choose_layers(layers, settings["layers"], f"networks.{network}.views.concepts.layers")
    return [
        layer["name"]
        for layer in layers
        if layer["called"] and has_weighted_units(layer) and COMPLEX_OUTPUT_NOTE not in layer["notes"]
    ]


def find_missing_data(data: str | Path, preprocessing: Preprocessing) -> str | None:
    """Return why a data set's concepts cannot be compared with units, None if they can.

    Args:
        data: The data set's folder, data/<dataset>.
        preprocessing: How an image becomes the network's input.
    """
    if not preprocessing.is_image:
        return "the network's input is no image"
    for split in ("train", "test"):
        if (count := len(formats.load(data, split))) < 2 * MIN_EXAMPLES:
            return (
                f"the {split} split of its data set has {count} images, and at least {2 * MIN_EXAMPLES} are "
                "needed: set another `dataset`, or one of folders for each class"
            )
    return None


def describe_missing_concepts(concepts: Concepts) -> str:
    """Return why no concept was tested, and what to set.

    Args:
        concepts: The concepts of the data set.
    """
    if not concepts.regions and not concepts.kinds:
        return "its data set has neither masks nor several classes: set another `dataset`"
    return (
        f"no concept is shown by at least {MIN_EXAMPLES} of the images of each split: set more images as "
        "`views.concepts.train` and `test`"
    )


def describe_undefined(settings: ConceptViews, reason: str) -> ConceptAnalysis:
    """Return concepts.json where no units could be named.

    Args:
        settings: `views.concepts` of the network.
        reason: Why.
    """
    return {
        "undefined": reason,
        "images": {},
        "grid": [],
        "image_value": settings["image_value"],
        "test": describe_test(1),
        "concepts": [],
        "layers": [],
        "examples": [],
    }


def describe_test(families: int) -> ConceptTestSettings:
    """Return how units are named.

    Args:
        families: Number of families of tests.
    """
    return {
        "significance": chance_level.SIGNIFICANCE,
        "min_auc_effect": chance_level.MIN_AUC_EFFECT,
        "confidence": chance_level.CONFIDENCE,
        "permutations": chance_level.PERMUTATIONS,
        "resamples": chance_level.RESAMPLES,
        "families": families,
        "min_examples": MIN_EXAMPLES,
    }


def describe_analysis(
    settings: ConceptViews, named: NamedUnits, concepts: Concepts, samples: dict[str, ConceptSample]
) -> ConceptAnalysis:
    """Return concepts.json, without examples.

    Args:
        settings: `views.concepts` of the network.
        named: The named units.
        concepts: The concepts of the data set.
        samples: The sample of each split.
    """
    codes = samples["test"].images.codes
    layers: list[ConceptLayer] = [
        {
            "name": layer,
            "units": len(result.values),
            "regions": int(result.regions.is_named.sum()) if result.regions else 0,
            "kinds": int(result.kinds.is_named.sum()) if result.kinds else 0,
            "excluded": result.excluded,
        }
        for layer, result in named.layers.items()
    ]
    return {
        "undefined": None,
        "images": {split: len(sample.indices) for split, sample in samples.items()},
        "grid": list(codes[0].shape) if codes else [],
        "image_value": settings["image_value"],
        "test": describe_test(named.families),
        "concepts": describe_concepts(named, concepts, samples),
        "layers": layers,
        "examples": [],
    }


def describe_concepts(
    named: NamedUnits, concepts: Concepts, samples: dict[str, ConceptSample]
) -> list[ConceptEntry]:
    """Return the concepts, regions first, with how many images show each and how many units it names.

    Args:
        named: The named units.
        concepts: The concepts of the data set.
        samples: The sample of each split.
    """
    images = {split: sample.images for split, sample in samples.items()}
    entries: list[ConceptEntry] = []
    for number, region in enumerate(concepts.regions):
        parts = {split: [region.select_parts(code) for code in images[split].codes or ()] for split in images}
        counts = {split: sum(bool((part == INSIDE).any()) for part in parts[split]) for split in images}
        inside = sum(int((part == INSIDE).sum()) for part in parts["test"])
        known = sum(int((part != IGNORED).sum()) for part in parts["test"])
        entries.append(
            {
                "name": region.name,
                "type": "region",
                "group": "head" if region.rival else "mask",
                "train": counts["train"],
                "test": counts["test"],
                "share": inside / known if known else None,
                "tested": bool(named.tested[number]),
                "units": _count_units([result.regions for result in named.layers.values()], number),
            }
        )
    for number, kind in enumerate(concepts.kinds):
        counts = {split: int(part.shows[number, part.is_labelled].sum()) for split, part in images.items()}
        n_labelled = int(images["test"].is_labelled.sum())
        entries.append(
            {
                "name": kind.name,
                "type": "image",
                "group": kind.group,
                "train": counts["train"],
                "test": counts["test"],
                "share": counts["test"] / n_labelled if n_labelled else None,
                "tested": bool(named.tested[len(concepts.regions) + number]),
                "units": _count_units([result.kinds for result in named.layers.values()], number),
            }
        )
    return entries


def _count_units(layers: Sequence[MeasuredConcepts | None], concept: int) -> int:
    """Count the units that a concept names in all layers."""
    return sum(int((layer.is_named & (layer.concept == concept)).sum()) for layer in layers if layer)


def collect_arrays(named: NamedUnits, n_regions: int) -> dict[str, np.ndarray]:
    """Return concepts.npz: of each layer its quantities by unit, float32, for both types of concepts.

    Args:
        named: The named units.
        n_regions: Number of regions, after which the kinds of image are numbered.
    """
    arrays: dict[str, np.ndarray] = {}
    for layer, result in named.layers.items():
        for prefix, measured, offset in (("region", result.regions, 0), ("image", result.kinds, n_regions)):
            if measured is None:
                continue
            values = {field.name: getattr(measured, field.name) for field in fields(measured)}
            quantities = values | cast("dict[str, np.ndarray]", values.pop("regions"))
            has_concept = measured.concept != NO_CONCEPT
            quantities["concept"] = np.where(has_concept, measured.concept + offset, NO_CONCEPT)
            for name, quantity in quantities.items():
                arrays[f"{layer}@{prefix}_{name}"] = quantity.astype(np.float32)
    return arrays


def describe_examples(
    examples: Sequence[UnitExamples],
    named: NamedUnits,
    concepts: Concepts,
    sample: ConceptSample,
    classes: Sequence[str],
) -> list[ConceptExample]:
    """Return the examples of concepts.json.

    Args:
        examples: The examples.
        named: The named units.
        concepts: The concepts of the data set.
        sample: The sample of the test split.
        classes: The names of the classes of the data set.
    """
    groups = list_groups(sample.dataset, classes)
    entries: list[ConceptExample] = []
    for example in examples:
        kind = example.concept - len(concepts.regions)
        group = "class" if kind < 0 else concepts.kinds[kind].group
        result: LayerConcepts = named.layers[example.layer]
        entries.append(
            {
                "layer": example.layer,
                "unit": example.unit,
                "concept": example.concept,
                "images": [
                    {
                        "index": sample.indices[n],
                        "name": sample.dataset.names[sample.indices[n]],
                        "label": groups[group][sample.indices[n]],
                        "value": float(result.values[example.unit, n]),
                        "shows": bool(sample.images.shows[kind, n])
                        if kind >= 0
                        else bool(example.regions is not None and example.regions[m].any()),
                    }
                    for m, n in enumerate(example.images)
                ],
            }
        )
    return entries


def collect_examples(
    examples: Sequence[UnitExamples], images: ConceptImages, preprocessing: Preprocessing
) -> dict[str, np.ndarray]:
    """Return examples.npz, uint8, by the number of the example.

    Args:
        examples: The examples.
        images: The test images.
        preprocessing: How an image becomes the network's input.

    Returns:
        `<n>@photographs` (images, H, W, 3), and of regions `<n>@active` and `<n>@regions` (images, h, w).
    """
    description = preprocessing.to_dict()
    arrays: dict[str, np.ndarray] = {}
    for number, example in enumerate(examples):
        pixels = [
            image_io.to_displayed_pixels(images.inputs[n][0].cpu().numpy(), description)
            for n in example.images
        ]
        rgb = [np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0) for image in pixels]
        arrays[f"{number}@photographs"] = np.round(255 * np.clip(np.stack(rgb), 0, 1)).astype(np.uint8)
        if example.active is not None and example.regions is not None:
            arrays[f"{number}@active"] = example.active.astype(np.uint8)
            arrays[f"{number}@regions"] = example.regions.astype(np.uint8)
    return arrays


def _log_analysis(analysis: ConceptAnalysis) -> None:
    """Log how many units are named, and which are left out."""
    for layer in analysis["layers"]:
        if layer["excluded"]:
            log.warning(
                "%s: %d of %d units have NaN or infinite values and are not named",
                *(layer["name"], len(layer["excluded"]), layer["units"]),
            )
    log.info(
        "of %d units, %d are named by a region and %d by a kind of image",
        *(sum(layer[key] for layer in analysis["layers"]) for key in ("units", "regions", "kinds")),
    )
