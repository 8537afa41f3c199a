"""invariance/ of a network: how its features and its prediction change as images are changed."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from convatlas.analysis.invariance.images import ChosenImages, choose_images
from convatlas.analysis.invariance.layers import choose_compared_layers
from convatlas.analysis.invariance.measure import Invariance, measure_invariance
from convatlas.analysis.invariance.transforms import Transform, TransformName, make_transform
from convatlas.files import write_analysis
from convatlas.image_io import denormalize, select_display
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import number_label
from convatlas.pipeline.config_types import InvarianceViews
from convatlas.records import InvarianceAnalysis, Layer
from convatlas.results import Results

log = logging.getLogger(__name__)

NAMES: Sequence[TransformName] = ("vertical", "horizontal", "scale", "rotation")
UNITS: Mapping[TransformName, str] = {
    "vertical": "pixels",
    "horizontal": "pixels",
    "scale": "factor",
    "rotation": "degrees",
}
THUMBNAIL_SIDE = 64  # pixels of the longer side of the changed images that the page shows


def write_invariance(
    folder: str | Path,
    data: str | Path | None,
    settings: InvarianceViews,
    device: torch.device,
    key: str = "views.invariance",
) -> None:
    """Write invariance/ of a network: distances of features and probabilities under changes of the image.

    invariance.npz holds <layer>@<transform> -> distances (images, steps), probability@<transform> or
    iou@<transform> -> (images, steps), all float32, and images@<transform> -> the changed images as the page
    shows them, (images, steps, 1 or 3, h, w) uint8.

    Args:
        folder: The network's folder, results/<network>, with its recorded activations.
        data: The folder of its data set; None without one.
        settings: `views.invariance` of the network.
        device: Where the network runs.
        key: The place of the settings in the config, for messages.

    Raises:
        UserError: A layer that the settings name does not exist.
    """
    results = Results(folder)
    layers = choose_compared_layers(results.layers, settings["layers"], f"{key}.layers")
    network, preprocessing = build.load_network(folder)
    reason, arrays = find_obstacle(preprocessing, settings, layers), dict[str, np.ndarray]()
    images = choose_images(results, data, preprocessing, settings["images"])
    if reason is None and not images.entries:
        reason = "the network has no sample images and no data set: set images"
    if reason is not None:
        log.info("no invariance: %s", reason)
        analysis = describe_nothing(reason, settings)
    else:
        transforms = make_transforms(settings, preprocessing)
        thumbnails = Thumbnails(preprocessing)
        output = build.read_output(folder)
        measured = measure_invariance(
            network.to(device),
            images.x.to(device),
            [layer["name"] for layer in layers],
            transforms,
            settings["padding"],
            preprocessing.normalize_grey(0.0),
            output,
            [number_label(entry, results.network) for entry in images.entries],
            thumbnails.add,
        )
        analysis = describe(measured, images, layers, transforms, settings, output, results)
        arrays = {**list_arrays(measured, analysis["quantity"]), **thumbnails.to_arrays()}
    write_analysis(results.folder / "invariance", "invariance", analysis, arrays)


def find_obstacle(
    preprocessing: Preprocessing, settings: InvarianceViews, layers: Sequence[Layer]
) -> str | None:
    """Return why the analysis is not defined for a network; None where it is.

    Args:
        preprocessing: The network's preprocessing.
        settings: `views.invariance`.
        layers: The layers whose features are compared.
    """
    if not preprocessing.is_image:
        shape = " × ".join(map(str, preprocessing.shape))
        return f"images are moved, scaled and rotated, and the network's input, {shape}, is no image"
    if all(settings[name] is None for name in NAMES):
        return f"views.invariance names no change: set {', '.join(NAMES)}"
    return None if layers else "the network calls no layer"


def make_transforms(settings: InvarianceViews, preprocessing: Preprocessing) -> list[Transform]:
    """Return the changes that the settings name.

    Args:
        settings: `views.invariance`.
        preprocessing: The network's preprocessing, for the size of its input.
    """
    height, width = preprocessing.size
    return [
        make_transform(name, (change["range"][0], change["range"][1]), change["steps"], (height, width))
        for name in NAMES
        if (change := settings[name]) is not None
    ]


class Thumbnails:
    """The changed images as a page shows them.

    Args:
        preprocessing: The network's preprocessing.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing.to_dict()
        scale = min(1.0, THUMBNAIL_SIDE / max(preprocessing.size))
        self.size = [max(1, round(scale * side)) for side in preprocessing.size]
        self.images: dict[str, list[np.ndarray]] = {}

    def add(self, name: str, x: Tensor) -> None:
        """Add the images of the next step of a transform.

        Args:
            name: The transform.
            x: The changed images, (N, C, H, W).
        """
        if list(x.shape[-2:]) != self.size:
            x = functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        pixels = select_display(denormalize(x.cpu().numpy(), self.preprocessing), self.preprocessing)
        self.images.setdefault(name, []).append(np.round(255 * pixels.clip(0, 1)).astype(np.uint8))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return images@<transform> -> (images, steps, 1 or 3, h, w) uint8."""
        return {f"images@{name}": np.stack(steps, 1) for name, steps in self.images.items()}


def list_arrays(measured: Invariance, quantity: str | None) -> dict[str, np.ndarray]:
    """Return the arrays of invariance.npz, without the images.

    Args:
        measured: What was measured.
        quantity: "probability" or "iou".
    """
    arrays = {
        f"{layer}@{name}": values
        for layer, by_transform in measured.distances.items()
        for name, values in by_transform.items()
    }
    return arrays | {f"{quantity}@{name}": values for name, values in measured.scores.items()}


def describe(
    measured: Invariance,
    images: ChosenImages,
    layers: Sequence[Layer],
    transforms: Sequence[Transform],
    settings: InvarianceViews,
    output: Output,
    results: Results,
) -> InvarianceAnalysis:
    """Return what invariance.json holds.

    Args:
        measured: What was measured.
        images: The images.
        layers: The compared layers.
        transforms: The changes.
        settings: `views.invariance`.
        output: What the network's output means.
        results: The network's results.
    """
    quantity: Literal["probability", "iou"] | None = None
    if measured.scores:
        quantity = "probability" if measured.classes else "iou"
    is_labelled = [number_label(entry, results.network) is not None for entry in images.entries]
    reason = output.reason if output.kind == "none" else "its scores are not those of all images of a batch"
    arrays = list_arrays(measured, quantity)
    return {
        "undefined": None,
        "images": images.entries,
        "layers": [
            {
                "name": layer["name"],
                "shape": layer["output_shape"],
                "different_images": measured.different_images[layer["name"]],
            }
            for layer in layers
            if layer["name"] in measured.distances
        ],
        "transforms": [
            {"name": transform.name, "unit": UNITS[transform.name], "steps": list(transform.steps)}
            for transform in transforms
        ],
        "padding": settings["padding"],
        "quantity": quantity,
        "no_quantity": None if quantity else f"the network has no class scores: {reason}",
        "different_predictions": measured.different_predictions,
        "classes": [number if number >= 0 else None for number in measured.classes],
        "class_sources": ["label" if known else "predicted class" for known in is_labelled],
        "non_finite": [name for name, values in arrays.items() if not np.isfinite(values).all()],
    }


def describe_nothing(reason: str, settings: InvarianceViews) -> InvarianceAnalysis:
    """Return invariance.json of a network for which the analysis is not defined.

    Args:
        reason: Why it is not.
        settings: `views.invariance`.
    """
    return {
        "undefined": reason,
        "images": [],
        "layers": [],
        "transforms": [],
        "padding": settings["padding"],
        "quantity": None,
        "no_quantity": None,
        "different_predictions": None,
        "classes": [],
        "class_sources": [],
        "non_finite": [],
    }
