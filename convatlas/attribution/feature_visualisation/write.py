"""Write the optimised images of a network's units and classes: feature_visualisation/."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.attribution.attribute import preserve_state
from convatlas.attribution.feature_visualisation import selection
from convatlas.attribution.feature_visualisation.adam import LEARNING_RATE
from convatlas.attribution.feature_visualisation.objectives import ClassObjective, LayerObjective, Objective
from convatlas.attribution.feature_visualisation.optimisation import OptimisedImages, Optimiser
from convatlas.attribution.feature_visualisation.similarity import compare_starts
from convatlas.attribution.image_maps import AttributedNetwork
from convatlas.attribution.method_plan import METHOD_ERRORS, describe_failure
from convatlas.files import atomic_write, to_json_number, write_json, write_npz
from convatlas.models import build
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config_types import CountOrAll, FeatureVisualisationViews
from convatlas.records import (
    FeatureVisualisation,
    OptimisedClass,
    OptimisedClasses,
    OptimisedImage,
    OptimisedLayer,
    OptimisedUnit,
    StartSimilarity,
)
from convatlas.results import Results

log = logging.getLogger(__name__)

NO_IMAGES = "images are optimised only for networks whose inputs are images, with two spatial axes"


class FeatureVisualisationSettings(FeatureVisualisationViews):
    """`views.feature_visualisation`, with the seed of the config."""

    seed: int


def write_feature_visualisation(
    folder: str | Path,
    settings: FeatureVisualisationSettings,
    device: torch.device,
    key: str = "views.feature_visualisation",
) -> None:
    """Write feature_visualisation/ of a network: images optimised for units and classes.

    Args:
        folder: The network's folder, results/<network>, with its projections, and its statistics where it has
            a data set.
        settings: `views.feature_visualisation` of the network, with the seed.
        device: Where the network runs.
        key: The place of the settings in the config, for messages.

    Raises:
        UserError: A layer, unit or class that the settings name does not exist.
    """
    results = Results(folder)
    network, preprocessing = build.load_network(folder)
    network.to(device)
    with atomic_write(results.folder / "feature_visualisation") as temporary:
        temporary.mkdir()
        visualiser = NetworkVisualiser(network, preprocessing, results, settings, key)
        analysis, arrays = visualiser.describe(), {}
        if preprocessing.is_image:
            with preserve_state(network, torch.zeros(1, device=device)):
                analysis["layers"] = visualiser.visualise_layers()
                analysis["logits"] = visualiser.visualise_classes()
            arrays = visualiser.arrays
        else:
            log.info("no optimised images: %s", NO_IMAGES)
        write_json(temporary / "feature_visualisation.json", analysis)
        write_npz(temporary / "feature_visualisation.npz", arrays)


@dataclass(frozen=True)
class Visualised:
    """The optimised images of a layer's units, or of classes.

    Attributes:
        optimiser: How they were optimised.
        images: From the first start.
        entries: What was measured of each.
    """

    optimiser: Optimiser
    images: OptimisedImages
    entries: list[OptimisedImage]


class NetworkVisualiser:
    """Optimises images for the units and classes of a network, and collects them.

    Args:
        network: The network.
        preprocessing: Its preprocessing.
        results: Its results so far.
        settings: `views.feature_visualisation`, with the seed.
        key: The place of the settings in the config, for messages.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        results: Results,
        settings: FeatureVisualisationSettings,
        key: str,
    ) -> None:
        self.network, self.preprocessing, self.results = network, preprocessing, results
        self.settings, self.key = settings, key
        self.arrays: dict[str, np.ndarray] = {}  # of feature_visualisation.npz

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        side = self.settings["size"]
        known = self.preprocessing if side is None else self.preprocessing.with_shorter_side(side)
        _, height, width = known.shape
        return height, width

    def describe(self) -> FeatureVisualisation:
        """Return feature_visualisation.json without images."""
        settings, is_image = self.settings, self.preprocessing.is_image
        return {
            "undefined": None if is_image else NO_IMAGES,
            "objective": settings["objective"],
            "steps": settings["steps"],
            "size": list(self.size) if is_image else [],
            "input_size": list(self.preprocessing.shape[1:]),
            "learning_rate": LEARNING_RATE,
            "robust": settings["robust"],
            "seed": settings["seed"],
            "layers": [],
            "logits": {"undefined": None, "classes": []},
        }

    def visualise_layers(self) -> list[OptimisedLayer]:
        """Optimise the images of the units of each selected layer, and return their entries.

        Raises:
            UserError: A layer or unit that the settings name does not exist.
        """
        layers: list[OptimisedLayer] = []
        for layer, units in self._select_units().items():
            objective = LayerObjective(self.network, layer, self.settings["objective"])
            visualised = self._visualise(objective, units, layer)
            if isinstance(visualised, str):
                log.info("no optimised images of %s: %s", layer, visualised)
                layers.append({"layer": layer, "undefined": visualised, "units": []})
                continue
            entries = self._describe_units(layer, units, visualised)
            layers.append({"layer": layer, "undefined": None, "units": entries})
        return layers

    def _select_units(self) -> dict[str, list[int]]:
        """Return the units of each layer, all before an image is optimised; none of layers without."""
        projected = selection.list_projected_units(self.results)
        names = selection.select_layers(self.results, self.settings["layers"], f"{self.key}.layers")
        units = {
            name: selection.select_units(
                self.results, name, self.settings["units"], f"{self.key}.units", projected.get(name, [])
            )
            for name in names
        }
        return {name: numbers for name, numbers in units.items() if numbers}

    def _describe_units(
        self, layer: str, units: Sequence[int], visualised: Visualised
    ) -> list[OptimisedUnit]:
        """Return the entries of units, with what they reach over the data set."""
        reached = visualised.optimiser.find_maxima(visualised.images.images, units)
        maxima = selection.read_dataset_maxima(self.results, layer)
        dead = selection.list_dead_units(self.results, layer)
        return [
            {
                **entry,
                "unit": unit,
                "maximum": to_json_number(maximum),
                "dataset_maximum": to_json_number(maxima[unit]) if maxima is not None else None,
                "dead": unit in dead,
            }
            for unit, maximum, entry in zip(units, reached, visualised.entries, strict=True)
        ]

    def visualise_classes(self) -> OptimisedClasses:
        """Optimise the images of the selected classes, and return their entries.

        Raises:
            UserError: A class that the settings name does not exist.
        """
        output = build.read_output(self.results.folder)
        names = self.results.network["classes"]
        if output.kind == "none":
            return {"undefined": f"the network has no class scores: {output.reason}", "classes": []}
        classes = selection.select_classes(self.results, self.settings["classes"], f"{self.key}.classes")
        if not classes:
            return {"undefined": f"{self.key}.classes is 0", "classes": []}
        network = AttributedNetwork(self.network, self.preprocessing, output, names)
        visualised = self._visualise(ClassObjective(network.scores), classes, "")
        if isinstance(visualised, str):
            log.info("no optimised images of classes: %s", visualised)
            return {"undefined": visualised, "classes": []}
        x = visualised.optimiser.preprocess(torch.from_numpy(visualised.images.images))
        probabilities = network.compute_probabilities(x.to(build.get_device(self.network))).cpu()
        if probabilities.ndim > 2:  # of pixels
            probabilities = probabilities.flatten(2).mean(2)
        return {"undefined": None, "classes": _describe_classes(names, classes, visualised, probabilities)}

    def _visualise(self, objective: Objective, units: Sequence[int], layer: str) -> Visualised | str:
        """Optimise images and collect their arrays; return why that is not possible where it is not."""
        started = time.process_time()
        optimiser = Optimiser(
            objective,
            self.preprocessing,
            build.get_device(self.network),
            self.size,
            self.settings["steps"],
            self.settings["robust"],
            self.settings["seed"],
        )
        again = units[: _count(self.settings["second_start"], len(units))]
        try:
            images = optimiser(units)
            second = replace(optimiser, start=1)(again) if again else None
        except METHOD_ERRORS as error:
            return self._explain(describe_failure(error))
        similarities = compare_starts(images, second, units) if second else []
        self._collect(layer, units, images, second)
        seconds = time.process_time() - started
        count = len(units) + len(again)
        log.info(
            "%s: %d images of %d steps took %.1f s of processor time, %.2f s each",
            layer or "classes", count, optimiser.steps, seconds, seconds / count,
        )  # fmt: skip
        return Visualised(optimiser, images, _describe_images(images, similarities))

    def _explain(self, failure: str) -> str:
        """Return why images cannot be optimised, with what to set where the size may be the reason."""
        if self.settings["size"] is None or self.size == self.preprocessing.shape[1:]:
            return failure
        return f"{failure}; {self.key}.size: null takes the size of the network's input"

    def _collect(
        self, layer: str, units: Sequence[int], images: OptimisedImages, second: OptimisedImages | None
    ) -> None:
        """Collect the arrays of a layer, or "" for classes."""
        self.arrays |= {
            f"{layer}@images": self._order_channels(images.images),
            f"{layer}@units": np.array(units, np.int32),
            f"{layer}@curves": images.curves,
        }
        if second:
            self.arrays[f"{layer}@second_images"] = self._order_channels(second.images)

    def _order_channels(self, images: np.ndarray) -> np.ndarray:
        """Return images in the order of the network's channels, as all arrays in the space of its input."""
        return np.ascontiguousarray(images[:, ::-1] if self.preprocessing.channels == "bgr" else images)


def _describe_images(
    images: OptimisedImages, similarities: Sequence[StartSimilarity]
) -> list[OptimisedImage]:
    """Return what was measured of each image."""
    return [
        {
            "start": float(curve[0]),
            "end": float(curve[-1]),
            "objective": float(objective),
            "control": float(control),
            "reached": bool(objective > control),
            "second_start": similarities[n] if n < len(similarities) else None,
        }
        for n, (curve, objective, control) in enumerate(
            zip(images.curves, images.objectives, images.control_objectives, strict=True)
        )
    ]


def _describe_classes(
    names: Sequence[str], classes: Sequence[int], visualised: Visualised, probabilities: Tensor
) -> list[OptimisedClass]:
    """Return the entries of classes, with what the network predicts for their images."""
    predicted = probabilities.argmax(1).tolist()
    return [
        {
            **entry,
            "class": number,
            "name": names[number],
            "probability": to_json_number(row[number]),
            "predicted": best,
            "predicted_name": names[best],
            "predicted_probability": to_json_number(row[best]),
        }
        for number, entry, row, best in zip(
            classes, visualised.entries, probabilities.numpy(), predicted, strict=True
        )
    ]


def _count(selection: CountOrAll, count: int) -> int:
    return count if selection == "all" else min(count, int(selection))
