"""correspondence/ of a network: how similarly its features change as the head is occluded in images."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from convatlas.analysis.chance_level import SIGNIFICANCE
from convatlas.analysis.correspondence.boxes import Box, compute_share
from convatlas.analysis.correspondence.images import (
    BoxedImage,
    draw_sets,
    load_boxed_splits,
    number_dataset_classes,
    read_inputs,
)
from convatlas.analysis.correspondence.measure import (
    Correspondence,
    draw_places,
    measure_correspondence,
    occlude,
)
from convatlas.files import to_json_number, write_analysis
from convatlas.image_io import denormalize, select_display
from convatlas.layer_selection import choose_layers, space_evenly
from convatlas.models import build
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config_types import CorrespondenceViews
from convatlas.records import CorrespondenceAnalysis, CorrespondenceImage, Layer, SampleImage, Split
from convatlas.results import Results

log = logging.getLogger(__name__)

PART = "head"
GREY = 0.5  # of an occluded pixel, before the normalisation
DEFAULT_LAYERS = 8  # that are measured where the config names none, evenly spaced
COMPARED_KINDS = ("conv", "pool", "linear")
THUMBNAIL_SIDE = 96  # pixels of the longer side of the images that the page shows


class ImageSets(NamedTuple):
    """Sets of images of a split.

    Attributes:
        split: The split.
        images: The images of each set.
        x: They as the network's inputs, (N, C, H, W) each.
    """

    split: Split
    images: list[list[BoxedImage]]
    x: list[Tensor]


class SeededViews(CorrespondenceViews):
    """`views.correspondence`, with the seed of the config."""

    seed: int


def write_correspondence(
    folder: str | Path,
    data: str | Path,
    settings: SeededViews,
    device: torch.device,
    key: str = "views.correspondence",
) -> None:
    """Write correspondence/ of a network: sign distances as the head is occluded, and as other places are.

    correspondence.npz holds <layer>@part (sets,), <layer>@random and <layer>@moved (sets, draws), float32,
    and images, the first set unchanged and with the head and a random place occluded,
    (3, images, 1 or 3, h, w) uint8.

    Args:
        folder: The network's folder, results/<network>.
        data: The folder of its data set.
        settings: `views.correspondence` of the network, with the seed.
        device: Where the network runs.
        key: The place of the settings in the config, for messages.

    Raises:
        UserError: A layer or class that the settings name does not exist.
    """
    results = Results(folder)
    network, preprocessing = build.load_network(folder)
    classes = results.network["dataset_classes"] or []
    labels = number_dataset_classes(settings["classes"], classes, f"{key}.classes")
    layers = choose_spaced_layers(results.layers, settings["layers"], f"{key}.layers")
    analysis, arrays = describe_nothing(settings), dict[str, np.ndarray]()
    sets = choose_sets(data, preprocessing, labels, settings) if preprocessing.is_image else None
    if not preprocessing.is_image:
        shape = " × ".join(map(str, preprocessing.shape))
        analysis["undefined"] = f"boxes are occluded in images, and the network's input, {shape}, is no image"
    elif sets is None:
        analysis["undefined"] = (
            f"fewer than {settings['images']} images of a split have the box of a head that the network sees "
            "and that leaves room elsewhere: set images or classes"
        )
    else:
        boxes = [[image.box for image in images] for images in sets.images]
        fill, names = preprocessing.normalize_grey(GREY), [layer["name"] for layer in layers]
        measured = measure_correspondence(
            network.to(device),
            [x.to(device) for x in sets.x],
            boxes,
            names,
            fill.to(device),
            settings["draws"],
            settings["seed"],
        )
        generator = np.random.default_rng(settings["seed"])
        places = draw_places(boxes[0], preprocessing.size, settings["draws"], generator)["random"][0]
        analysis.update(describe(measured, sets, layers, settings, classes, places, preprocessing))
        arrays = list_arrays(measured) | {
            "images": show_set(sets.x[0], boxes[0], places, fill, preprocessing)
        }
    if analysis["undefined"]:
        log.info("no correspondence: %s", analysis["undefined"])
    write_analysis(results.folder / "correspondence", "correspondence", analysis, arrays)


def choose_sets(
    data: str | Path, preprocessing: Preprocessing, labels: Sequence[int], settings: SeededViews
) -> ImageSets | None:
    """Return the sets of the test split, or of the training split where that has too few boxes for all.

    Args:
        data: The folder of the data set.
        preprocessing: The network's preprocessing.
        labels: The classes of the images.
        settings: `views.correspondence`.

    Returns:
        None where no split has enough images for one set.
    """
    sets_by_split: dict[Split, list[list[BoxedImage]]] = {}
    splits = load_boxed_splits(data)
    for split, dataset in splits.items():
        sets_by_split[split] = draw_sets(
            dataset, preprocessing, labels, settings["sets"], settings["images"], settings["seed"]
        )
        if len(sets_by_split[split]) == settings["sets"]:
            break
    if not any(sets_by_split.values()):
        return None
    split = max(sets_by_split, key=lambda name: len(sets_by_split[name]))
    inputs = [read_inputs(splits[split], images, preprocessing) for images in sets_by_split[split]]
    return ImageSets(split, sets_by_split[split], inputs)


def choose_spaced_layers(
    layers: Sequence[Layer], selection: Sequence[str | int] | None, key: str
) -> list[Layer]:
    """Return the layers that are measured, from early to late.

    Args:
        layers: layers.json.
        selection: Names, globs and ordinals of convolutions; None stands for DEFAULT_LAYERS convolutions,
            pooling and linear layers at most, evenly spaced.
        key: Place of the selection in the config, for the error.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if selection is not None:
        names = choose_layers(layers, selection, key)
        return [layer for layer in layers if layer["name"] in names]
    called = [layer for layer in layers if layer["called"]]
    compared = [layer for layer in called if layer["kind"] in COMPARED_KINDS] or called
    return space_evenly(compared, DEFAULT_LAYERS)


def list_arrays(measured: Mapping[str, Correspondence]) -> dict[str, np.ndarray]:
    """Return the arrays of correspondence.npz, without the images.

    Args:
        measured: What was measured, by layer.
    """
    return {
        f"{layer}@{kind}": values.astype(np.float32)
        for layer, measurement in measured.items()
        for kind, values in (
            ("part", measurement.part),
            ("random", measurement.random),
            ("moved", measurement.moved),
        )
    }


def describe(
    measured: Mapping[str, Correspondence],
    sets: ImageSets,
    layers: Sequence[Layer],
    settings: SeededViews,
    classes: Sequence[str],
    places: Sequence[Box],
    preprocessing: Preprocessing,
) -> CorrespondenceAnalysis:
    """Return what correspondence.json holds.

    Args:
        measured: What was measured, by layer.
        sets: The images.
        layers: The layers.
        settings: `views.correspondence`.
        classes: Names of the data set's classes.
        places: The first random place in each image of the first set.
        preprocessing: The network's preprocessing.
    """
    shapes = {layer["name"]: layer["output_shape"] for layer in layers}
    moved = next(iter(measured.values())).moved if measured else np.zeros((0, 1))
    selected = number_dataset_classes(settings["classes"], classes, "classes")
    return {
        "undefined": None if measured else "the network calls none of the layers",
        "part": PART,
        "split": sets.split,
        "classes": [classes[number] for number in selected] if settings["classes"] else [],
        "sets": [
            [
                _describe_image(image, sets.split, places[n] if number == 0 else None)
                for n, image in enumerate(images)
            ]
            for number, images in enumerate(sets.images)
        ],
        "draws": settings["draws"],
        "area": compute_share([image.box for images in sets.images for image in images], preprocessing.size),
        "moved_sets": int((~np.isnan(moved).all(1)).sum()),
        "layers": [
            {
                "name": layer,
                "shape": shapes[layer],
                "changed": {kind: to_json_number(share) for kind, share in result.changed.items()},
                "p_value": result.p_value,
                "moved_p_value": result.moved_p_value,
            }
            for layer, result in measured.items()
        ],
        "significance": SIGNIFICANCE,
        "non_finite": [layer for layer, result in measured.items() if np.isnan(result.part).any()],
    }


def _describe_image(image: BoxedImage, split: Split, place: Box | None) -> CorrespondenceImage:
    """Return the entry of an image in correspondence.json."""
    entry: SampleImage = {
        "name": f"{split}-{image.index:05d}",
        "split": split,
        "index": image.index,
        "path": None,
        "label": image.label,
        "prediction": None,
        "probability": None,
    }
    return {"image": entry, "box": list(image.box), "random": list(place) if place else None}


def describe_nothing(settings: SeededViews) -> CorrespondenceAnalysis:
    """Return correspondence.json of a network for which the analysis is not defined, without the reason.

    Args:
        settings: `views.correspondence`.
    """
    return {
        "undefined": None,
        "part": PART,
        "split": None,
        "classes": [],
        "sets": [],
        "draws": settings["draws"],
        "area": 0.0,
        "moved_sets": 0,
        "layers": [],
        "significance": SIGNIFICANCE,
        "non_finite": [],
    }


def show_set(
    x: Tensor, boxes: Sequence[Box], places: Sequence[Box], fill: Tensor, preprocessing: Preprocessing
) -> np.ndarray:
    """Return images as a page shows them: unchanged, with the part, and with a random place occluded.

    Args:
        x: The images, (N, C, H, W).
        boxes: The box of the part in each.
        places: The random place in each.
        fill: The value of an occluded pixel in each channel, (C,).
        preprocessing: The network's preprocessing.

    Returns:
        (3, N, 1 or 3, h, w) uint8.
    """
    scale = min(1.0, THUMBNAIL_SIDE / max(preprocessing.size))
    size = [max(1, round(scale * side)) for side in preprocessing.size]
    rows = []
    for images in (x, occlude(x, boxes, fill), occlude(x, places, fill)):
        small = functional.interpolate(images, size, mode="bilinear", antialias=True) if scale < 1 else images
        record = preprocessing.to_dict()
        pixels = select_display(denormalize(small.cpu().numpy(), record), record)
        rows.append(np.round(255 * pixels.clip(0, 1)).astype(np.uint8))
    return np.stack(rows)
