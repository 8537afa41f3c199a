"""The maps of a batch of images by several methods, with what is measured of each map."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.attribution.baselines import make_baselines
from convatlas.attribution.class_scores import ClassScores
from convatlas.attribution.measures.perturbation_curves import perturbation_curves, pixel_relevance
from convatlas.attribution.method_plan import METHOD_ERRORS, PlannedMethod, describe_failure
from convatlas.attribution.methods.method import Maps
from convatlas.models import build
from convatlas.models.memory_format import choose_input_format
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.records import AttributionImage, AttributionMap, AttributionTarget, PerturbationCurves

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttributedNetwork:
    """A network whose class scores are attributed.

    Attributes:
        network: The network.
        preprocessing: Its preprocessing.
        output: What its output means.
        classes: Names of its classes.
    """

    network: nn.Module
    preprocessing: Preprocessing
    output: Output
    classes: Sequence[str]

    @cached_property
    def scores(self) -> ClassScores:
        """The scores of its classes."""
        return ClassScores(self.network, self.output)

    @cached_property
    def memory_format(self) -> torch.memory_format:
        """The memory format in which the network runs: channels last, which is faster, where it can."""
        return choose_input_format(self.network, self.preprocessing.shape)

    def find_obstacle(self) -> str | None:
        """Return why its class scores cannot be attributed; None where they can."""
        x = torch.zeros(1, *self.preprocessing.shape, device=build.get_device(self.network))
        try:
            self.scores(x)
        except METHOD_ERRORS as error:
            return describe_failure(error)
        return None

    @torch.no_grad()
    def compute_probabilities(self, x: Tensor) -> Tensor:
        """Return the probabilities of the classes, (N, classes) or (N, classes, h, w) of pixels.

        Args:
            x: Inputs, (N, C, H, W).
        """
        size = len(x) if len(x) == 1 or self.scores.check_batches(x) else 1
        scores = [
            self.output.select_scores(self.network(batch.clone(memory_format=self.memory_format)), len(batch))
            for batch in torch.split(x, size)
        ]
        return self.output.compute_probabilities(torch.cat([part for part in scores if part is not None]))


class ImageMaps(NamedTuple):
    """The maps of an image.

    Attributes:
        arrays: The maps by their names in attribution/<image>.npz.
        entry: Its entry in attribution.json.
        failures: Why a method fails for it, by the start of the names of its maps.
    """

    arrays: dict[str, np.ndarray]
    entry: AttributionImage
    failures: dict[str, str]


@dataclass(frozen=True)
class ImageTargets:
    """The target classes of one image.

    Attributes:
        network: The network.
        x: The image, (C, H, W).
        classes: Numbers of the classes, (T,).
        scores: Their scores, (T,).
        pixels: Of a segmentation, the pixels that are predicted as each, (T, h, w).
    """

    network: AttributedNetwork
    x: Tensor
    classes: list[int]
    scores: Tensor
    pixels: Tensor | None

    def has_score(self, target: int) -> bool:
        """Return whether a target has a score, which a class without predicted pixels has not.

        Args:
            target: Its index among the targets.
        """
        return self.pixels is None or bool(self.pixels[target].any())

    def compute_probabilities(self, x: Tensor) -> Tensor:
        """Return the probabilities of the targets, the mean over their pixels of a segmentation, (N, T).

        Args:
            x: The image with pixels replaced, (N, C, H, W).
        """
        probabilities = self.network.compute_probabilities(x)[:, self.classes]
        if self.pixels is None:
            return probabilities.flatten(1)
        counts = self.pixels.sum((1, 2)).clamp_min(1)
        return (probabilities * self.pixels).sum((2, 3)) / counts

    def describe(self) -> list[AttributionTarget]:
        """Return the entries of the targets in attribution.json."""
        probabilities = [
            number if math.isfinite(number) else None
            for number in self.compute_probabilities(self.x[None])[0].tolist()
        ]
        return [
            {
                "class": number,
                "name": self.network.classes[number],
                "score": float(self.scores[n]),
                "probability": probabilities[n] if self.has_score(n) else None,
                "pixels": None if self.pixels is None else int(self.pixels[n].sum()),
            }
            for n, number in enumerate(self.classes)
        ]


def attribute_batch(
    network: AttributedNetwork,
    names: Sequence[str],
    x: Tensor,
    classes: Tensor,
    plans: Sequence[PlannedMethod],
) -> tuple[list[ImageMaps], list[PlannedMethod]]:
    """Attribute class scores of a batch of images by several methods.

    Args:
        network: The network.
        names: Names of the images, for the log.
        x: The images, (N, C, H, W).
        classes: Numbers of their target classes, (N, T). There is no map of a class as which no pixel is
            predicted.
        plans: The methods.

    Returns:
        The maps of each image, without those by methods that fail for it; and the methods, with the reason
        where one fails for every image.
    """
    plans, computed = list(plans), []
    all_failures: list[dict[str, str]] = [{} for _ in names]
    for n, plan in enumerate(plans):
        if plan.undefined:
            continue
        log.info("%s (%d of %d) of %s", plan.title, n + 1, len(plans), ", ".join(names))
        maps, failures = _compute_maps(network, plan, x, classes)
        for row, reason in failures.items():
            all_failures[row][plan.member] = reason
        if len(failures) == len(names):
            plans[n] = replace(plan, undefined=failures[0])
            log.warning("%s is skipped for %s: %s", plan.title, ", ".join(names), failures[0])
            continue
        for row, reason in failures.items():
            log.warning("%s is skipped for %s: %s", plan.title, names[row], reason)
        computed.append((plan, maps))
    logits = network.scores(x)
    targets = network.scores.make_targets(logits, classes)
    scores = targets.select(logits)
    images = []
    for n, name in enumerate(names):
        pixels = None if targets.pixels is None else targets.pixels[n]
        image = ImageTargets(network, x[n], classes[n].tolist(), scores[n], pixels)
        own = [(plan, maps[n]) for plan, maps in computed if n in maps]
        images.append(ImageMaps(*_collect_maps(name, image, own), all_failures[n]))
        log.info("%s: %d maps, with deletion and insertion", name, len(images[-1].arrays))
    return images, plans


def _compute_maps(
    network: AttributedNetwork, plan: PlannedMethod, x: Tensor, classes: Tensor
) -> tuple[dict[int, Maps], dict[int, str]]:
    """Compute the maps of images by a method, together or, where this fails, each alone.

    Returns:
        The maps of each image, (1, T, C, H, W), and why the method fails for the others, by their index.
    """

    def compute(rows: slice) -> Maps:
        return plan.compute(network.scores, x[rows], classes[rows], network.preprocessing)

    slices = [slice(n, n + 1) for n in range(len(x))]
    if len(x) > 1:
        try:
            maps = compute(slice(None))
            return {n: Maps(maps.values[rows], maps.checks[rows]) for n, rows in enumerate(slices)}, {}
        except METHOD_ERRORS as error:
            describe_failure(error)  # or out of memory
    maps_by_row, failures = {}, {}
    for n, rows in enumerate(slices):
        try:
            maps_by_row[n] = compute(rows)
        except METHOD_ERRORS as error:
            failures[n] = describe_failure(error)
    return maps_by_row, failures


def _collect_maps(
    name: str, image: ImageTargets, computed: Sequence[tuple[PlannedMethod, Maps]]
) -> tuple[dict[str, np.ndarray], AttributionImage]:
    """Collect the maps of an image by several methods, and measure them.

    Args:
        name: Its name, for the log.
        image: The image and its targets.
        computed: What each method computed of it.

    Returns:
        Its maps and its entry, as in `ImageMaps`.
    """
    arrays: dict[str, np.ndarray] = {}
    entries: list[AttributionMap] = []
    relevance: list[Tensor] = []
    columns = [n for n in range(len(image.classes)) if image.has_score(n)]
    for plan, maps in computed:
        for column in columns:
            values = maps.values[0, column]
            member = f"{plan.member}@{image.classes[column]}"
            arrays[member] = values.cpu().numpy()
            relevance.append(pixel_relevance(values, plan.method.is_contribution))
            entries.append(
                {
                    "member": member,
                    "method": plan.method.name,
                    "layer": plan.layer,
                    "class": image.classes[column],
                    "min": float(values.min()),
                    "max": float(values.max()),
                    "checks": maps.checks[0][column],
                    "deletion": None,
                    "insertion": None,
                }
            )
    random_order: dict[str, PerturbationCurves] = {}
    if entries:
        baseline = make_baselines(image.x[None], "blurred", image.network.preprocessing)[0]
        targets = columns * len(computed)
        arguments = (image.x, baseline, torch.stack(relevance), targets)
        curves = perturbation_curves(image.compute_probabilities, *arguments)
        for entry, curve in zip(entries, curves.maps, strict=True):
            if _is_finite(curve):
                entry["deletion"], entry["insertion"] = curve["deletion"], curve["insertion"]
            else:
                log.warning(
                    "%s, %s: no deletion and insertion: a probability is not finite", name, entry["member"]
                )
        random_order = {
            str(image.classes[n]): curve for n in columns if _is_finite(curve := curves.random_order[n])
        }
    return arrays, {"targets": image.describe(), "maps": entries, "random_order": random_order}


def _is_finite(curves: PerturbationCurves) -> bool:
    """Return whether the probabilities of both curves are finite."""
    return all(math.isfinite(curves[key]["auc"]) for key in ("deletion", "insertion"))
