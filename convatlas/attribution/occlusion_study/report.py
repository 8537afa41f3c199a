"""occlusion/ of a network: what a grey square over each part of its sample images changes."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.deconvnet import project
from convatlas.attribution.occlusion_study.study import OcclusionStudy, study_occlusion
from convatlas.datasets import formats
from convatlas.datasets.base import SegmentationDataset
from convatlas.files import to_json_numbers, write_analysis
from convatlas.layer_selection import choose_layers
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import number_label
from convatlas.output_layers import find_output_layers
from convatlas.records import Layer, OcclusionAnalysis, OcclusionImage, SampleImage
from convatlas.results import Results

log = logging.getLogger(__name__)

MAX_OTHERS = 4  # other sample images whose projections are beside an image's


def write_occlusion(
    folder: str | Path, data: str | Path | None, settings: dict[str, Any], device: torch.device
) -> None:
    """Move a grey square over the sample images of a network and write its folder occlusion/.

    Args:
        folder: The network's folder, results/<network>, with weights, layers.json, images.json, activations/.
        data: The data set's folder, data/<dataset>, for trimaps; None without a data set.
        settings: `views.occlusion` of the config, and `rectify` of its `views.deconv`.
        device: Where the network runs.

    Raises:
        UserError: The layer of the settings does not exist.
    """
    results = Results(folder)
    key = f"networks.{results.name}.views.occlusion.layer"
    layer = choose_layer(results.layers, settings["layer"], key)
    arrays: dict[str, np.ndarray] = {}
    analysis: OcclusionAnalysis = {"undefined": _explain_undefined(results, layer)}
    if layer is not None and analysis["undefined"] is None:
        network, preprocessing = build.load_network(results.folder)
        network.to(device)
        study = _SampleStudy(results, data, network, preprocessing, layer, settings, device)
        try:
            analysis = study.describe(arrays)
        except UserError as error:
            analysis = {"undefined": str(error)}
            arrays = {}
    if analysis["undefined"]:
        log.warning("not computed: %s", analysis["undefined"])
    write_analysis(results.folder / "occlusion", "occlusion", analysis, arrays, compress=True)


def choose_layer(layers: list[Layer], selection: str | int | None, key: str) -> str | None:
    """Return the layer whose strongest map is followed: by default the last hidden convolution.

    Args:
        layers: layers.json.
        selection: Name or ordinal of a layer; None for the default, which is the last convolution with maps
            that does not compute the scores, and the activation right after it, where there is one.
        key: The key of the selection in the config, for the error.

    Returns:
        None where there is no hidden convolution.

    Raises:
        UserError: There is no such layer.
    """
    if selection is not None:
        return choose_layers(layers, [selection], key)[0]
    outputs = find_output_layers(layers)
    hidden = [
        layer["name"]
        for layer in layers
        if layer["called"]
        and layer["kind"] == "conv"
        and len(layer["output_shape"]) == 3
        and layer["name"] not in outputs
    ]
    if not hidden:
        return None
    following = [layer for layer in layers if layer["called"] and layer["inputs"] == [hidden[-1]]]
    activation = next((layer["name"] for layer in following if layer["kind"] == "activation"), None)
    return activation or hidden[-1]


def _explain_undefined(results: Results, layer: str | None) -> str | None:
    """Return why nothing is measured for a network, and what to set; None if it can be."""
    reason = results.network["output"]["reason"]
    if results.network["output"]["kind"] == "none":
        return f"the network's output has no class scores ({reason}); if it has, set `output`"
    if not results.images:
        return "there are no sample images: set `images`"
    shape = list(results.activations(results.images[0]["name"])["input"].shape)
    if len(shape) != 3:
        return f"a square is moved over images, and the network's input has the shape {shape}"
    return (
        None if layer else "there is no hidden convolution with maps: name a layer in `views.occlusion.layer`"
    )


class _SampleStudy:
    """The study of a network's sample images.

    Args:
        results: The network's results.
        data: The data set's folder; None without a data set.
        network: The network.
        preprocessing: Its preprocessing.
        layer: The layer whose strongest map is followed.
        settings: As in `write_occlusion`.
        device: Where the network runs.
    """

    def __init__(
        self,
        results: Results,
        data: str | Path | None,
        network: nn.Module,
        preprocessing: Preprocessing,
        layer: str,
        settings: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.results, self.data, self.network, self.layer = results, data, network, layer
        self.preprocessing, self.settings = preprocessing, settings
        count = None if settings["images"] == "all" else settings["images"]
        self.images = results.images[:count]
        self.inputs = {
            image["name"]: torch.from_numpy(results.activations(image["name"])["input"]).to(device)
            for image in results.images
        }

    def describe(self, arrays: dict[str, np.ndarray]) -> OcclusionAnalysis:
        """Study each image; return the content of occlusion.json, and add the arrays of occlusion.npz."""
        description = self.results.network
        output = Output.from_description(description)
        images: list[OcclusionImage] = []
        studies: list[OcclusionStudy] = []
        left_out: dict[str, str] = {}
        for image in self.images:
            label = number_label(image, description)
            reference = self._read_mask(image) if output.is_per_pixel else None
            try:
                study = self._study(image["name"], output, label, reference)
            except UserError as error:
                log.warning("%s is left out: %s", image["name"], error)
                left_out[image["name"]] = str(error)
                continue
            entry = _describe_image(image, study, label is not None or reference is not None)
            entry["others"], entry["no_projection"] = self._project(image["name"], study.unit, arrays)
            images.append(entry)
            studies.append(study)
            arrays.update(_list_arrays(image["name"], study))
        if not studies:
            return {"undefined": next(iter(left_out.values()))}
        positions = studies[0].activations.size
        log.info("moved a grey square over %d images, %d positions each", len(images), positions)
        return {
            "undefined": None,
            "layer": self.layer,
            "size": studies[0].size,
            "stride": studies[0].stride,
            "classes": description["classes"],
            "is_segmentation": output.is_per_pixel,
            "images": images,
            "left_out": left_out,
        }

    def _study(
        self, name: str, output: Output, label: int | None, reference: np.ndarray | None
    ) -> OcclusionStudy:
        """Move the square over an image."""
        return study_occlusion(
            self.network,
            self.inputs[name],
            self.layer,
            self.preprocessing,
            output,
            label,
            reference,
            self.settings["size"],
            self.settings["stride"],
        )

    def _read_mask(self, image: SampleImage) -> np.ndarray | None:
        """Return the class of each pixel of an image; None without a trimap of the network's classes."""
        if self.data is None or image["split"] is None or image["index"] is None:
            return None
        classes = self.results.network["classes"]
        if list(formats.mask_classes(formats.describe(self.data))) != classes:
            return None
        dataset = formats.load(self.data, image["split"])
        assert isinstance(dataset, SegmentationDataset)
        return dataset.read_mask(image["index"], self.preprocessing.size, self.preprocessing.resize)

    def _project(self, name: str, unit: int, arrays: dict[str, np.ndarray]) -> tuple[list[str], str | None]:
        """Add the projections of a unit's map for an image and for others; return these, or why none."""
        finite = [image["name"] for image in self.results.images if "non_finite" not in image]
        others = [other for other in finite if other != name][:MAX_OTHERS]
        try:
            rows = [self._project_map(self.inputs[item], unit) for item in (name, *others)]
        except UserError as error:
            return [], str(error)
        arrays[f"{name}@projection"] = rows[0]
        if others:
            arrays[f"{name}@other_projections"] = np.stack(rows[1:])
        return others, None

    def _project_map(self, x: Tensor, unit: int) -> np.ndarray:
        """Project the map of a unit for an image: (C, H, W)."""
        projection = project(self.network, x, self.layer, [unit], rectify=self.settings["rectify"])
        return np.asarray(projection[0].cpu().numpy())


def _describe_image(image: SampleImage, study: OcclusionStudy, has_truth: bool) -> OcclusionImage:
    """Return the entry of an image in occlusion.json."""
    return {
        "name": image["name"],
        "rows": study.rows.tolist(),
        "columns": study.columns.tolist(),
        "unit": study.unit,
        "activation": study.activation,
        "has_truth": has_truth,
        "target": study.target,
        "probability": study.probability,
        "prediction": study.prediction,
        "iou": None if study.iou is None else to_json_numbers(study.iou),
        "others": [],
        "no_projection": None,
    }


def _list_arrays(name: str, study: OcclusionStudy) -> dict[str, np.ndarray]:
    """Return the arrays of an image in occlusion.npz."""
    arrays = {
        "activations": study.activations,
        "probabilities": study.probabilities,
        "predictions": study.predictions,
        "ious": study.ious,
    }
    return {
        f"{name}@{key}": array if key == "predictions" else array.astype(np.float32)
        for key, array in arrays.items()
        if array is not None
    }
