"""Test images on which named units are most active, with the masks of their thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from convatlas.analysis.accumulators import upsample_maps
from convatlas.analysis.concepts.images import INSIDE, ConceptImages
from convatlas.analysis.concepts.naming import Concepts, MeasuredConcepts, NamedUnits
from convatlas.analysis.segmentation import visit_feature_maps

UNITS_PER_CONCEPT = 2  # of which examples are shown
IMAGES_PER_UNIT = 4


@dataclass(frozen=True)
class UnitExamples:
    """The examples of a named unit.

    Attributes:
        layer: Its layer.
        unit: Its number.
        concept: Number of the concept, regions first.
        images: Numbers of the images in the sample, the most active first; of a unit that is low on its
            concept, the least active.
        active: Of a region, where the unit's map is on the region's side of its threshold, (images, h, w)
            bool; None of a kind of image.
        regions: The regions of these images, (images, h, w) bool.
    """

    layer: str
    unit: int
    concept: int
    images: list[int]
    active: npt.NDArray[np.bool_] | None = None
    regions: npt.NDArray[np.bool_] | None = None


def choose_examples(
    named: NamedUnits, concepts: Concepts, is_labelled: npt.NDArray[np.bool_]
) -> list[UnitExamples]:
    """Choose the units of each concept with the largest effects, and their most active images.

    Args:
        named: The named units.
        concepts: The concepts.
        is_labelled: Whether the kinds of a test image are known, (images,).
    """
    examples: list[UnitExamples] = []
    for concept in range(len(concepts.regions) + len(concepts.kinds)):
        is_region = concept < len(concepts.regions)
        number = concept if is_region else concept - len(concepts.regions)
        units: list[tuple[float, str, int]] = []
        for layer, result in named.layers.items():
            measured = result.regions if is_region else result.kinds
            if measured is not None:
                units += [
                    (-abs(float(measured.auc[unit]) - 0.5), layer, int(unit))
                    for unit in np.flatnonzero(measured.is_named & (measured.concept == number))
                ]
        order = {layer: n for n, layer in enumerate(named.layers)}
        units.sort(key=lambda entry: (entry[0], order[entry[1]], entry[2]))
        for _, layer, unit in units[:UNITS_PER_CONCEPT]:
            result = named.layers[layer]
            measured = result.regions if is_region else result.kinds
            assert measured is not None
            sign = -1 if measured.is_high[unit] else 1
            ranked = np.argsort(sign * result.values[unit], kind="stable").tolist()
            candidates = ranked if is_region else [n for n in ranked if is_labelled[n]]
            examples.append(UnitExamples(layer, unit, concept, candidates[:IMAGES_PER_UNIT]))
    return examples


def add_masks(
    network: nn.Module,
    examples: Sequence[UnitExamples],
    named: NamedUnits,
    concepts: Concepts,
    images: ConceptImages,
) -> list[UnitExamples]:
    """Add the masks of the examples of regions.

    Args:
        network: Any network.
        examples: The chosen examples.
        named: The named units.
        concepts: The concepts.
        images: The test images.
    """
    needed = sorted(
        {n for example in examples for n in example.images if example.concept < len(concepts.regions)}
    )
    layers = {example.layer for example in examples}
    maps: dict[tuple[str, int, int], Tensor] = {}

    for image in needed:

        def copy_maps(layer: str, output: Tensor, image: int = image) -> None:
            for example in examples:
                if example.layer == layer and image in example.images and output.ndim > 2:
                    maps[layer, example.unit, image] = output[example.unit].clone()

        visit_feature_maps(network, images.inputs[image], sorted(layers), copy_maps)
    return [
        _add_mask(example, maps, named.layers[example.layer].regions, concepts, images)
        if example.concept < len(concepts.regions)
        else example
        for example in examples
    ]


def _add_mask(
    example: UnitExamples,
    maps: dict[tuple[str, int, int], Tensor],
    measured: MeasuredConcepts | None,
    concepts: Concepts,
    images: ConceptImages,
) -> UnitExamples:
    """Add the masks of a unit at its threshold, and the regions of the same images."""
    assert measured is not None
    assert images.codes is not None
    threshold = float(measured.regions["threshold"][example.unit])
    active, regions = [], []
    for image in example.images:
        codes = images.codes[image]
        upsampled = upsample_maps(maps[example.layer, example.unit, image][None], codes.shape)[0]
        active.append(upsampled >= threshold if measured.is_high[example.unit] else upsampled < threshold)
        regions.append(concepts.regions[example.concept].select_parts(codes) == INSIDE)
    masks = [torch.stack(stack).cpu().numpy() for stack in (active, regions)]
    return UnitExamples(example.layer, example.unit, example.concept, example.images, *masks)
