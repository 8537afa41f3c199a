"""Runs of a network with units ablated: what it predicts for each image."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.analysis.ablation.outcomes import Outcomes, join_conditions, join_images, measure_scores
from convatlas.analysis.ablation.removal_curve import choose_counts, list_removals
from convatlas.models.build import get_device, to_device
from convatlas.models.memory_format import choose_input_format
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.tracing.changed_layer import ChangedLayerRuns
from convatlas.training.labelled_images import LabelledImages

log = logging.getLogger(__name__)

Replacement = Literal["zero", "mean"]
Condition = tuple[str, Replacement]  # a layer, and what replaces the maps of its units

REPLACEMENTS: tuple[Replacement, ...] = ("zero", "mean")
MAX_BATCH_VALUES = 2**23  # of the layers' outputs that are kept for a batch
MAX_BATCH_IMAGES = 500
LOG_INTERVAL = 30  # seconds between two lines of progress


class Images:
    """The images that a network is measured on, batch by batch.

    Args:
        network: The network.
        preprocessing: Its preprocessing.
        split: The images with their labels.
        output: What the network's output means.
    """

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, split: LabelledImages, output: Output
    ) -> None:
        self.preprocessing, self.split, self.output = preprocessing, split, output
        self.device = get_device(network)
        self.memory_format = choose_input_format(network, preprocessing.shape)
        self.batch_size = 2  # of the first batch, which shows how much memory an image takes

    def iterate(self, indices: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of inputs and labels of the images with these indices."""
        for start in range(0, len(indices), self.batch_size):
            batch = self.split[torch.from_numpy(indices[start : start + self.batch_size])]
            pixels = to_device(batch.images, self.device)
            x = self.preprocessing(pixels).to(memory_format=self.memory_format)
            yield x, to_device(batch.labels, self.device).long()

    def measure(self, result: object, labels: Tensor, layer: str | None = None) -> Outcomes:
        """Measure what the network returned for a batch."""
        with torch._C.DisableTorchFunction():
            scores = self.output.select_scores(result, len(labels))
            return measure_scores(scores, labels, self.output, layer)


class _LayerMeans:
    """The mean of each unit over images and the positions of its map, batch by batch."""

    def __init__(self) -> None:
        self.n_images = 0
        self.sums: dict[str, Tensor] = {}
        self.left_out: dict[str, str] = {}

    def add(self, layer: str, output: Tensor) -> None:
        """Add the output of a layer for a batch of `n_images` images, or note why it has no units."""
        shape = tuple(output.shape)
        if not output.is_floating_point():
            self.left_out[layer] = "its output holds no real numbers"
        elif len(shape) < 2 or shape[0] != self.n_images or not output.numel():
            self.left_out[layer] = f"its output {shape} for {self.n_images} images has no axis of units"
        else:
            sums = output.reshape(*shape[:2], -1).mean(2).double().sum(0)
            self.sums[layer] = self.sums[layer] + sums if layer in self.sums else sums


class Measurement:
    """Measures what a network predicts with units of its layers ablated.

    Args:
        images: The images.
        runs: Runs the network; within its `with` block.
        layers: Names of the layers.
    """

    def __init__(self, images: Images, runs: ChangedLayerRuns, layers: Sequence[str]) -> None:
        self.images, self.runs = images, runs
        self.means, self.left_out = self._measure_means(layers)
        self.last_log = time.monotonic()

    def _measure_means(self, layers: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Measure the means of the units of each layer, and say which layers have none."""
        images, everything = self.images, np.arange(len(self.images.split))
        images.batch_size = self._choose_batch_size()
        total = _LayerMeans()
        for x, _ in images.iterate(everything):
            total.n_images = len(x)
            self.runs.load(x, total.add)
        missing = {name: "it is not called" for name in layers if name not in total.sums}
        left_out = {**missing, **total.left_out}
        means = {
            name: (total.sums[name] / len(everything)).float()
            for name in layers
            if name in total.sums and name not in left_out
        }
        return means, left_out

    def _choose_batch_size(self) -> int:
        """Run a first batch; return how many images to run at once, 1 where the network takes no more.

        Raises:
            UserError: The network fails on a single image, too.
        """
        images = self.images
        x, labels = next(images.iterate(np.arange(len(images.split))))
        try:
            images.measure(self.runs.load(x), labels)
        except Exception as error:  # whatever a forward pass raises, or scores that are not of both images
            log.info("the network runs on one image at a time: %s", error)
            try:
                images.measure(self.runs.load(x[:1]), labels[:1])
            except UserError:
                raise
            except Exception as single:
                raise UserError(f"the network fails on a single test image: {single}") from single
            return 1
        values = max(1, self.runs.n_stored_values // len(x))
        return max(1, min(MAX_BATCH_IMAGES, MAX_BATCH_VALUES // values))

    def ablate(self, layer: str, units: np.ndarray, replacement: Replacement, labels: Tensor) -> Outcomes:
        """Measure the batch that is loaded with units of a layer ablated."""
        result = self.runs.run(layer, self._make_change(layer, units, replacement))
        return self.images.measure(result, labels, layer)

    def _make_change(
        self, layer: str, units: np.ndarray, replacement: Replacement
    ) -> Callable[[Tensor], Tensor]:
        """Return what ablates units in the output of a layer, (N, units, ...)."""
        index = torch.from_numpy(units).to(self.images.device)

        def change(output: Tensor) -> Tensor:
            changed = output.clone()
            if replacement == "zero":
                changed[:, index] = 0
            else:
                means = self.means[layer][index].to(changed.dtype)
                changed[:, index] = means.reshape(1, -1, *[1] * (changed.ndim - 2))
            return changed

        return change

    def log_progress(self, done: int, total: int, task: str) -> None:
        """Log how many images have been measured, from time to time."""
        if time.monotonic() > self.last_log + LOG_INTERVAL:
            self.last_log = time.monotonic()
            log.info("%s: %d of %d images", task, done, total)

    def ablate_units(self, units: Mapping[str, np.ndarray]) -> tuple[Outcomes, dict[Condition, Outcomes]]:
        """Measure each unit and each whole layer, with each replacement, on all images.

        Args:
            units: Which units of each layer.

        Returns:
            The outcomes without ablation, and for each layer and replacement those with each of its units
            ablated, and last with all units of the layer.
        """
        everything = np.arange(len(self.images.split))
        baseline: list[Outcomes] = []
        batches: dict[Condition, list[Outcomes]] = {}
        done = 0
        for x, labels in self.images.iterate(everything):
            baseline.append(self.images.measure(self.runs.load(x), labels))
            for layer, replacement in itertools.product(units, REPLACEMENTS):
                groups = [*units[layer][:, None], np.arange(len(self.means[layer]))]
                rows = [self.ablate(layer, group, replacement, labels) for group in groups]
                batches.setdefault((layer, replacement), []).append(join_conditions(rows))
                self.log_progress(done, len(everything), f"single units of {layer}")
            done += len(x)
        return join_images(baseline), {key: join_images(parts) for key, parts in batches.items()}

    def measure_curves(
        self, orders: Mapping[Condition, np.ndarray], units: Mapping[str, np.ndarray], indices: np.ndarray
    ) -> tuple[Outcomes, dict[Condition, dict[tuple[int, int], Outcomes]]]:
        """Measure curves on some of the images.

        Args:
            orders: The orders of the units of each layer, as positions in `units`.
            units: Which units of each layer.
            indices: Of the images.

        Returns:
            The outcomes without ablation; and for each layer and replacement the outcomes by order and point,
            as `list_removals` lists them.
        """
        baseline: list[Outcomes] = []
        batches: dict[Condition, dict[tuple[int, int], list[Outcomes]]] = {key: {} for key in orders}
        done = 0
        for x, labels in self.images.iterate(indices):
            baseline.append(self.images.measure(self.runs.load(x), labels))
            for condition, layer_orders in orders.items():
                layer, replacement = condition
                counts = choose_counts(layer_orders.shape[1])
                for order, point, positions in list_removals(layer_orders, counts):
                    outcomes = self.ablate(layer, units[layer][positions], replacement, labels)
                    batches[condition].setdefault((order, point), []).append(outcomes)
                self.log_progress(done, len(indices), f"curves of {layer}")
            done += len(x)
        curves = {
            condition: {key: join_images(parts) for key, parts in points.items()}
            for condition, points in batches.items()
        }
        return join_images(baseline), curves
