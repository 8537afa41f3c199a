"""Write the attribution maps of the sample images, each with its checks: attribution/."""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from convatlas import UserError
from convatlas.attribution.image_maps import AttributedNetwork, attribute_batch
from convatlas.attribution.measures.perturbation_curves import FRACTIONS
from convatlas.attribution.method_plan import AttributionSettings, PlannedMethod, plan_methods
from convatlas.attribution.sample_checks import measure_layers, measure_randomisation
from convatlas.attribution.targets import TOP_COUNT, number_classes, rank_classes
from convatlas.files import atomic_write, write_json, write_npz
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import number_label, suggest_nearest
from convatlas.pipeline.config_types import ImageSelection
from convatlas.records import AttributionAnalysis, AttributionImage, AttributionMethod
from convatlas.results import Results

log = logging.getLogger(__name__)

IMAGES_PER_BATCH = 16  # at most, whose maps by all methods are in memory
MAPS_PER_BATCH = 3 * IMAGES_PER_BATCH  # of a method


class TargetImage(NamedTuple):
    """A sample image with the classes whose scores are attributed.

    Attributes:
        name: Its name.
        x: The network's input, (C, H, W).
        classes: Numbers of the classes.
        missing: The classes whose scores are not finite, as text.
    """

    name: str
    x: Tensor
    classes: list[int]
    missing: list[str]


def attribute_sample_images(
    folder: str | Path,
    settings: AttributionSettings,
    device: torch.device,
    key: str = "views.attribution",
) -> None:
    """Write attribution/ of a network: the maps of its sample images by every method, with their checks.

    attribution/<image>.npz holds float32 arrays: <method>@<class number> -> (C, H, W), signed, or (1, H, W);
    of a method at a chosen layer <method>:<layer>@<class number>. attribution.json beside describes them.

    Args:
        folder: The network's folder, results/<network>, with its recorded activations and its projections.
        settings: `views.attribution` of the network, with `rectify` of `views.deconv`.
        device: Where the network runs.
        key: The place of the settings in the config, for messages.

    Raises:
        UserError: A class, image or layer that the settings name does not exist.
    """
    results = Results(folder)
    output = build.read_output(folder)
    network, preprocessing = build.load_network(folder)
    network.to(device)
    with atomic_write(results.folder / "attribution") as temporary:
        temporary.mkdir()
        attributed = AttributedNetwork(network, preprocessing, output, results.network["classes"])
        if reason := find_obstacle(preprocessing, output) or attributed.find_obstacle():
            log.info("no attribution maps: %s", reason)
            analysis = _describe_nothing(reason)
        else:
            analysis = SampleAttribution(attributed, results, settings, key).write(temporary)
        write_json(temporary / "attribution.json", analysis)


def find_obstacle(preprocessing: Preprocessing, output: Output) -> str | None:
    """Return why no method is defined for a network; None where some may be.

    Args:
        preprocessing: The network's preprocessing.
        output: What its output means.
    """
    if not preprocessing.is_image:
        return "the pages draw those of images only; convatlas.attribute computes them"
    if output.kind == "none":
        return f"the network has no class scores: {output.reason}"
    return None


def _describe_nothing(reason: str) -> AttributionAnalysis:
    """Return attribution.json of a network without maps."""
    return {"undefined": reason, "methods": [], "images": {}, "fractions": [], "specificity": []}


class SampleAttribution:
    """Attributes the class scores of a network's sample images.

    Args:
        network: The network.
        results: Its results so far.
        settings: `views.attribution` of the network.
        key: The place of the settings in the config, for messages.
    """

    def __init__(
        self, network: AttributedNetwork, results: Results, settings: AttributionSettings, key: str
    ) -> None:
        self.network, self.results, self.settings, self.key = network, results, settings, key
        self.left_out: dict[str, str] = {}  # why an image has no maps, by its name

    def write(self, folder: Path) -> AttributionAnalysis:
        """Write the maps of each image, and return what attribution.json holds.

        Args:
            folder: Where the files are written.
        """
        images = self._choose_targets()
        plans = self._plan_methods()
        attempts: list[list[PlannedMethod]] = []
        entries: dict[str, AttributionImage] = {}
        failures: dict[str, dict[str, str]] = {}
        targets = max((len(image.classes) for image in images), default=1)
        size = min(IMAGES_PER_BATCH, max(1, MAPS_PER_BATCH // targets))
        for batch in split_images(images, size):
            maps, attempted = attribute_batch(self.network, *stack_images(batch), plans)
            attempts.append(attempted)
            for image, image_maps in zip(batch, maps, strict=True):
                write_npz(folder / f"{image.name}.npz", image_maps.arrays)
                entries[image.name] = image_maps.entry
                failures[image.name] = image_maps.failures
        if attempts:  # a method is undefined where it fails for every image
            plans = [
                next((plan for plan in attempt if not plan.undefined), attempt[0])
                for attempt in zip(*attempts, strict=True)
            ]
        titles = {plan.member: plan.heading for plan in plans if not plan.undefined}
        for image in images:
            failed = {titles[member]: why for member, why in failures[image.name].items() if member in titles}
            if missing := [*image.missing, *(f"{title}: {why}" for title, why in failed.items())]:
                entries[image.name]["missing"] = missing
        analysis: AttributionAnalysis = {
            "undefined": None,
            "methods": self._randomise(plans, images),
            "images": entries,
            "fractions": list(FRACTIONS),
            "specificity": measure_layers(self.network.network, self.results, self.settings["rectify"]),
        }
        return analysis | {"left_out": self.left_out} if self.left_out else analysis

    def _plan_methods(self) -> list[PlannedMethod]:
        """Plan the methods, and log those that are not defined."""
        network = self.network
        x = torch.zeros(1, *network.preprocessing.shape, device=build.get_device(network.network))
        plans = plan_methods(network.network, x, network.output, self.results.layers, self.settings, self.key)
        for plan in plans:
            if plan.undefined:
                log.info("%s is skipped: %s", plan.title, plan.undefined)
        return plans

    def _choose_targets(self) -> list[TargetImage]:
        """Return the selected images that have targets, with these; log the others."""
        entries = {image["name"]: image for image in self.results.images}
        names = choose_image_names(list(entries), self.settings["images"], f"{self.key}.images")
        selection, device = self.settings["targets"], build.get_device(self.network.network)
        listed: list[int] | None = None
        if isinstance(selection, list):
            listed = number_classes(selection, self.network.classes, f"{self.key}.targets")
        images = []
        for name in names:
            x = torch.from_numpy(self.results.activations(name)["input"]).to(device)
            scores = self.network.scores(x[None])
            ranked = rank_classes(self.network.scores, scores)[0].tolist()
            label = number_label(entries[name], self.results.network)
            if ranked[0] < 0:
                self._leave_out(name, "its class scores are not finite", logging.WARNING)
                continue
            if listed:
                classes = listed
            elif selection != "label":
                classes = ranked[: TOP_COUNT if selection == "top3" else 1]
            elif label is not None:
                classes = [label]
            else:
                self._leave_out(name, "it has no label among the network's classes", logging.INFO)
                continue
            finite, missing = self._select_finite(scores[0], classes)
            for text in missing:
                log.warning("%s: no attribution maps of the %s", name, text)
            if finite:
                images.append(TargetImage(name, x, finite, missing))
            else:
                self.left_out[name] = "; ".join(missing)
        return images

    def _leave_out(self, name: str, reason: str, level: int) -> None:
        """Note why an image has no maps, and log it."""
        self.left_out[name] = reason
        log.log(level, "%s has no attribution maps: %s", name, reason)

    def _select_finite(self, scores: Tensor, classes: Sequence[int]) -> tuple[list[int], list[str]]:
        """Return the classes of an image whose scores are finite, and the others as text."""
        finite = [number for number in classes if scores.ndim > 1 or scores[number].isfinite()]
        missing = [
            f"class {self.network.classes[number]}, whose score is {float(scores[number])}"
            for number in classes
            if number not in finite
        ]
        return finite, missing

    def _randomise(
        self, plans: Sequence[PlannedMethod], images: Sequence[TargetImage]
    ) -> list[AttributionMethod]:
        """Return the entries of the methods, with the randomisation of the first images."""
        methods = [plan.to_dict() for plan in plans]
        count = self.settings["randomisation"]
        if images and count:
            first = next(split_images(images, count))
            curves = measure_randomisation(self.network, *stack_images(first), plans)
            for method, curve in zip(methods, curves, strict=True):
                method["randomisation"] = curve
        return methods


def split_images(images: Sequence[TargetImage], size: int) -> Iterator[Sequence[TargetImage]]:
    """Yield batches of images that follow each other and have the same number of classes.

    Args:
        images: The images.
        size: The number of images in a batch at most.
    """
    for _, group in groupby(images, lambda image: len(image.classes)):
        same = list(group)
        for start in range(0, len(same), size):
            yield same[start : start + size]


def stack_images(images: Sequence[TargetImage]) -> tuple[list[str], Tensor, Tensor]:
    """Return the names of images, the images (N, C, H, W), and their target classes (N, T).

    Args:
        images: The images, with the same number of classes.
    """
    classes = torch.tensor([image.classes for image in images], device=images[0].x.device)
    return [image.name for image in images], torch.stack([image.x for image in images]), classes


def choose_image_names(names: Sequence[str], selection: ImageSelection, key: str) -> list[str]:
    """Return the names of the selected sample images, in their order.

    Args:
        names: Names of the sample images.
        selection: `views.attribution.images`: "all", a number of first ones, or names.
        key: Place of the selection in the config, for the error.

    Raises:
        UserError: There is no image of a name.
    """
    if isinstance(selection, int):
        return list(names[:selection])
    if isinstance(selection, str):
        return list(names)
    for name in selection:
        if name not in names:
            raise UserError(f"{key}: no sample image {name!r}; {suggest_nearest(name, names)}")
    return [name for name in names if name in selection]
