"""One pass over a data set: the top activations of every unit, and what its statistics are computed from.

Zeiler & Fergus, Visualizing and understanding convolutional networks (arXiv 1311.2901), figure 2, show the
nine strongest activations of a unit over a whole data set. Memory grows with the number of units and of
classes, and with the logarithm of the number of batches, but not with the number of images.
"""

import logging
import math
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.datasets.loader import BatchLoader
from convatlas.files import read_json
from convatlas.layer_selection import choose_layers
from convatlas.models import build
from convatlas.models.outputs import LOGITS, Output, predict_classes
from convatlas.models.preprocessing import Preprocessing
from convatlas.statistics import shards
from convatlas.statistics.histogram import ActivationHistogram
from convatlas.statistics.reduction import MapReduction
from convatlas.statistics.shards import PassResult, PassSettings, ShardDescription
from convatlas.statistics.tracked_layers import TrackedLayer, find_tracked_layers
from convatlas.statistics.units import PairwiseSum, TopActivations, UnitCounts, UnitSums
from convatlas.tracing.calls import Call, trace
from convatlas.tracing.record import to_real

log = logging.getLogger(__name__)

LOG_INTERVAL = 30  # seconds between two lines of progress
BATCH_LIMITS = {"cpu": (2**21, 1024), "cuda": (2**25, 2048)}  # most values of the input, and most images


def run_shard(
    folder: str | Path,
    data: str | Path,
    settings: PassSettings,
    shard: int,
    shard_count: int,
    device: torch.device,
    workers: int = 2,
) -> None:
    """Pass the images of one shard through a network and write results/<network>/shards/<shard>.npz.

    Args:
        folder: The network's folder, results/<network>, with weights, network.json and layers.json.
        data: The data set's folder, data/<dataset>.
        settings: Layers to track, number of top activations, split, batch size, what to do with an image
            that cannot be read.
        shard: Number of the shard, from 0.
        shard_count: Number of shards that the split is divided into.
        device: Where the network runs.
        workers: Threads that decode images.

    Raises:
        UserError: There is no such shard, no such layer, or an image cannot be read.
    """
    folder = Path(folder)
    if not 0 <= shard < shard_count:
        raise UserError(f"--shard {shard}: there are {shard_count} shards, counted from 0")
    fingerprint = shards.fingerprint_run(folder, data, settings)
    network, preprocessing = build.load_network(folder)
    network.to(device)
    key = f"networks.{folder.name}.views.strongest.layers"
    composite = [path for path, _ in network.named_modules() if path]
    names = choose_layers(read_json(folder / "layers.json"), settings["layers"], key, extra_names=composite)
    layers, memory_format = find_tracked_layers(network, preprocessing.shape, names)
    batch_size = settings["batch"] or choose_batch_size(preprocessing.shape, device)
    loader = BatchLoader(
        data, settings["split"], preprocessing, batch_size, settings["on_bad_image"], workers
    )
    output = build.read_output(folder)
    has_labels, classes = _resolve_classes(data, folder, output)
    labels = loader.dataset.labels if has_labels else None

    batches = shards.shard_batches(shard, shard_count, len(loader))
    dataset_pass = DatasetPass(
        network, layers, memory_format, settings["k"], loader.batch_size, len(classes), output
    )
    start = time.monotonic()
    with dataset_pass:
        _run_batches(dataset_pass, loader, batches, preprocessing, labels)
    result = dataset_pass.result()
    seconds = max(time.monotonic() - start, 1e-9)
    description: ShardDescription = {
        **fingerprint,
        "shard": shard,
        "batches": [batches.start, batches.stop],
        "layers": [{"name": layer.name, "shape": list(layer.shape)} for layer in layers],
        "batch": loader.batch_size,
        "images": len(loader.dataset),
        "class_source": "label" if has_labels else "predicted class",
        "classes": classes,
        "device": device.type,
        "skipped": cast(Any, loader.skipped),
    }
    shards.write_shard(folder / "shards" / f"{shard}.npz", description, result)
    log.info(
        "shard %d of %d: %d images through %d layers, %d units, in %.1f s, %.0f images/s",
        *(shard, shard_count, dataset_pass.image_count, len(layers), len(dataset_pass.areas)),
        *(seconds, dataset_pass.image_count / seconds),
    )
    if loader.skipped:
        log.warning("skipped %d images that cannot be read", len(loader.skipped))


def _run_batches(
    dataset_pass: "DatasetPass",
    loader: BatchLoader,
    batches: range,
    preprocessing: Preprocessing,
    labels: np.ndarray | None,
) -> None:
    """Add the batches of a shard to a pass, and log the progress."""
    start = last_log = time.monotonic()
    for batch in loader.read_batches(batches):
        x = preprocessing(build.to_device(torch.from_numpy(batch.pixels), dataset_pass.device))
        dataset_pass.update(batch.index, x, batch.indices, labels)
        if time.monotonic() > last_log + LOG_INTERVAL:
            last_log = time.monotonic()
            rate = dataset_pass.image_count / (last_log - start)
            done = batch.index + 1 - batches.start
            log.info("%d of %d batches, %.0f images/s", done, len(batches), rate)


def choose_batch_size(shape: tuple[int, ...], device: torch.device) -> int:
    """Return the number of images of a shape (C, H, W) in a batch: a power of two.

    On a CPU the maps of a small batch stay in the cache.

    Args:
        shape: Shape (C, H, W) of one input.
        device: Where the network runs.
    """
    values, images = BATCH_LIMITS.get(device.type, BATCH_LIMITS["cpu"])
    limit = min(max(values // math.prod(shape), 1), images)
    return 1 << int(math.log2(limit))


def _resolve_classes(data: str | Path, folder: Path, output: Output) -> tuple[bool, list[str]]:
    """Return whether the images have labels, and their classes; without labels the network's classes."""
    classes = formats.describe(data)["classes"]
    if classes:
        return True, classes
    return False, [] if output.is_per_pixel else read_json(folder / "network.json")["classes"]


class DatasetPass:
    """A pass of images through a network, batch by batch, within a `with` block.

    Args:
        network: The network, in evaluation mode.
        layers: The tracked layers, as `find_tracked_layers` returns them.
        memory_format: The memory format that the network runs in, likewise.
        k: Number of top activations of each unit.
        batch_size: Images in a full batch. Smaller batches are padded, so that the values of an image do
            not depend on how many others are in its batch.
        class_count: Number of classes; 0 if images have none.
        output: What the network's output means.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: list[TrackedLayer],
        memory_format: torch.memory_format,
        k: int,
        batch_size: int,
        class_count: int,
        output: Output = LOGITS,
    ) -> None:
        self.network_output = output
        self.network, self.layers, self.memory_format = network, layers, memory_format
        self.k, self.batch_size = k, batch_size
        self.device = build.get_device(network)
        self.layers_by_name = {layer.name: layer for layer in layers}
        areas = [layer.area for layer in layers for _ in range(layer.shape[0])]
        self.areas = torch.tensor(areas, dtype=torch.float64, device=self.device)

        self.sums = PairwiseSum()
        self.image_count, self.class_counts = 0, self._zeros(class_count, dtype=torch.int64)
        self.zero_count = self._zeros(len(areas), dtype=torch.int64)
        self.max = self._zeros(len(areas)).fill_(-math.inf)
        self.top_values = self._zeros(len(areas), k).fill_(-math.inf)
        self.top_images = self._zeros(len(areas), k, dtype=torch.int32).fill_(-1)
        self.top_positions = self._zeros(len(areas), k, dtype=torch.int32)

        self.batch_images = self.layers_reduced = 0  # images of the current batch, and its layers so far
        self.batch_numbers = self._zeros(0, dtype=torch.int64)  # of its images in the split
        self.reduction = MapReduction(batch_size, len(areas), self.device)
        self.histogram = ActivationHistogram(len(areas), self.device)

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return zeros on the device of the network."""
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    def __enter__(self) -> "DatasetPass":
        self.tracer = trace(self.network, self._reduce_layer, self.layers_by_name)
        self.reset_tracer = self.tracer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.tracer.__exit__(*error)

    @torch.no_grad()
    def update(self, index: int, x: Tensor, numbers: np.ndarray, labels: np.ndarray | None) -> None:
        """Run the network on a batch and add its values.

        Args:
            index: Number of the batch in the split; batches must come in ascending order.
            x: Preprocessed images, (n, C, H, W).
            numbers: Numbers of the images in the split, (n,).
            labels: Classes of all images of the split, int64; None for the classes that the network
                predicts.

        Raises:
            UserError: The network did not call all tracked layers.
        """
        self.batch_images, self.layers_reduced = len(x), 0
        if not self.batch_images:
            zeros = torch.zeros_like(self.areas)
            self.sums.push(0, index, UnitSums(zeros, zeros, zeros, {}))
            return
        self.batch_numbers = torch.as_tensor(numbers, dtype=torch.int64, device=self.device)
        self.reset_tracer()
        output = self.network(self._pad_batch(x))
        if self.layers_reduced != len(self.layers):
            raise UserError(
                "views.strongest.layers: the network does not call the same layers for all images; name "
                "layers that it always calls"
            )
        with torch._C.DisableTorchFunction():  # these operations are no layers
            if labels is not None:
                self._add_batch(index, torch.as_tensor(labels[numbers], device=self.device))
            elif len(self.class_counts):
                self._add_batch(index, self._predict_classes(output))
            else:
                self._add_batch(index, None)
            self._update_top(self.batch_numbers.int())

    def _predict_classes(self, output: Any) -> Tensor:
        """Return the class of the highest score of each image in the current batch, (n,); −1 without one."""
        scores = self.network_output.select_scores(output, self.batch_size)
        if scores is None:
            raise UserError(
                f"the network classifies one image, but its output on a batch of {self.batch_size} images is "
                "no scores (images, classes); let its forward() keep the batch axis"
            )
        return predict_classes(scores[: self.batch_images])

    def _pad_batch(self, x: Tensor) -> Tensor:
        """Fill a batch up to its full size with zeros."""
        with torch._C.DisableTorchFunction():
            if len(x) < self.batch_size:
                x = torch.cat([x, x.new_zeros(self.batch_size - len(x), *x.shape[1:])])
            return x.to(memory_format=self.memory_format)

    def _reduce_layer(self, call: Call) -> None:
        """Reduce the maps of a tracked layer."""
        layer = self.layers_by_name.get(call.layer)
        if layer is not None:
            self.layers_reduced += 1
            output = to_real(call.output[: self.batch_images])
            self.reduction.update(output, layer.unit_slice)
            self.histogram.update(output, layer.unit_slice, self.batch_numbers)

    def _add_batch(self, index: int, labels: Tensor | None) -> None:
        """Add the sums and counts of the current batch; `labels` (n,) are the classes, or −1."""
        means = self.reduction.mean[: self.batch_images]
        class_sums: dict[int, Tensor] = {}
        if labels is not None:
            classes, rows = torch.unique(labels, return_inverse=True)
            sums = means.new_zeros(len(classes), len(self.areas)).index_add_(0, rows, means)
            class_sums = dict(zip(classes.tolist(), sums, strict=True))
            class_sums.pop(-1, None)  # images without a predicted class
            self.class_counts += labels[labels >= 0].bincount(minlength=len(self.class_counts))
        mean_sum = means.sum(0)
        # The mean of the squares is the variance and the square of the mean; the means are not needed again.
        variances = self.reduction.sum_squared_deviation.sum(0) / self.areas
        squared_mean_sum = means.square_().sum(0)
        square_sum = variances + squared_mean_sum
        self.sums.push(0, index, UnitSums(mean_sum, square_sum, squared_mean_sum, class_sums))
        self.image_count += self.batch_images
        self.zero_count += self.reduction.zero_count.sum(0)

    def _update_top(self, numbers: Tensor) -> None:
        """Merge the maxima of the current batch into the top activations; `numbers` (n,) of its images."""
        maxima = self.reduction.max[: self.batch_images]
        unit_max = maxima.amax(0)
        self.max = self.max.maximum(unit_max)
        images, units = self._top_candidates(maxima, unit_max)
        if not len(images):
            return
        order = units.argsort(stable=True)  # within a unit in ascending order of images, or descending values
        images, units = images[order], units[order]
        values, positions = maxima[images, units], self.reduction.argmax[images, units]
        units, rows, counts = torch.unique_consecutive(units, return_inverse=True, return_counts=True)
        columns = self.k + torch.arange(len(rows), device=self.device) - (counts.cumsum(0) - counts)[rows]
        width = int(counts.max())

        def append(top: Tensor, new: Tensor, fill: float) -> Tensor:
            """Append the candidates of the units to their top activations: (units, k + width)."""
            both = torch.cat([top[units], top.new_full((len(units), width), fill)], 1)
            both[rows, columns] = new.to(top.dtype)
            return both

        values = append(self.top_values, values, -math.inf)
        # A stable sort: of equal values the one of the earlier image comes first.
        order = values.sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        self.top_values[units] = values.gather(1, order)
        self.top_images[units] = append(self.top_images, numbers[images], -1).gather(1, order)
        self.top_positions[units] = append(self.top_positions, positions, 0).gather(1, order)

    def _top_candidates(self, maxima: Tensor, unit_max: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and units of the maxima (n, units) that may be among the top activations."""
        threshold = self.top_values[:, -1]
        (rising,) = (unit_max > threshold).nonzero(as_tuple=True)
        maxima, threshold = maxima[:, rising], threshold[rising]
        images, columns = (maxima > threshold).nonzero(as_tuple=True)
        if len(images) > self.k * len(rising):  # in the first batches: the k strongest of each unit suffice
            images = maxima.sort(dim=0, descending=True, stable=True).indices[: self.k].flatten()
            columns = torch.arange(len(rising), device=self.device).repeat(len(images) // len(rising))
        return images, rising[columns]

    def result(self) -> PassResult:
        """Return the sums, counts and top activations of all batches so far, as NumPy arrays."""
        nodes = []
        for level, index, sums in self.sums.nodes:
            class_sums = {label: class_sum.cpu().numpy() for label, class_sum in sums.class_sums.items()}
            mean_sum, square_sum = sums.mean_sum.cpu().numpy(), sums.square_sum.cpu().numpy()
            squared_mean_sum = sums.squared_mean_sum.cpu().numpy()
            nodes.append((level, index, UnitSums(mean_sum, square_sum, squared_mean_sum, class_sums)))
        unit_counts = (self.class_counts, self.zero_count, self.max, self.histogram.counts)
        counts = UnitCounts(self.image_count, *(array.cpu().numpy() for array in unit_counts))
        top_values, top_images = self.top_values.cpu().numpy(), self.top_images.cpu().numpy()
        top = TopActivations(top_values, top_images, self.top_positions.cpu().numpy())
        return PassResult(PairwiseSum(nodes), counts, top)
