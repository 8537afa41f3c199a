"""The strongest activations of every unit over a data set, and its statistics, in one pass over the images.

Zeiler & Fergus, Visualizing and understanding convolutional networks (arXiv 1311.2901), figure 2, show of a
unit the nine strongest activations over a whole data set. What is kept here grows with the number of units
and of classes, and with the logarithm of the number of batches; nothing grows with the images.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.models.build import get_device, select_main_output
from convatlas.statistics.reduction import MapReduction
from convatlas.statistics.shards import PassResult
from convatlas.statistics.units import PairwiseSum, TopActivations, UnitCounts, UnitSums
from convatlas.tracing.calls import Call, trace

log = logging.getLogger(__name__)

BATCH_LIMITS = {
    "cpu": (2**21, 1024),
    "cuda": (2**25, 2048),
}  # values of the input in a batch, and images, at most


def choose_batch_size(shape: tuple[int, int, int], device: torch.device) -> int:
    """Images (C, H, W) that are run at a time, a power of two: few keep the maps in a CPU's cache."""
    values, images = BATCH_LIMITS.get(device.type, BATCH_LIMITS["cpu"])
    return 2 ** int(math.log2(min(max(values // math.prod(shape), 1), images)))


@dataclass(frozen=True)
class TrackedLayer:
    """A layer whose units are followed: the shape of its output (units, ...), and the place of its first
    unit among those of all layers.
    """

    name: str
    shape: tuple[int, ...]
    first_unit: int

    @property
    def area(self) -> int:
        """Values of a unit's map."""
        return math.prod(self.shape[1:])

    @property
    def unit_slice(self) -> slice:
        """The place of its units among those of all layers."""
        return slice(self.first_unit, self.first_unit + self.shape[0])


@torch.no_grad()
def find_tracked_layers(
    network: nn.Module, shape: tuple[int, int, int], names: Iterable[str]
) -> tuple[list[TrackedLayer], torch.memory_format]:
    """Find those of the layers, or composite modules, that have units, in execution order.

    A layer is left out whose output has no axis of images first, or no real numbers. The network is brought
    to the layout in memory that is faster on every device, channels last, where it runs so; gives that too.
    """
    wanted = list(names)
    found: list[TrackedLayer] = []

    def see(call: Call) -> None:
        made = call.output
        if call.layer not in wanted or any(layer.name == call.layer for layer in found):
            return
        if made.ndim < 2 or len(made) != 2 or not made[0].numel() or not made.is_floating_point():
            log.info("no units of %s, whose values are %s", call.layer, tuple(made.shape))
            return
        first = found[-1].unit_slice.stop if found else 0
        found.append(TrackedLayer(call.layer, tuple(made.shape[1:]), first))

    black = torch.zeros(2, *shape, device=get_device(network))
    for layout in (torch.channels_last, torch.contiguous_format):
        network.to(memory_format=layout)
        found.clear()
        try:
            with trace(network, see, wanted):
                network(black.to(memory_format=layout))
            return found, layout
        except RuntimeError:  # such as a view() of maps that are not stored one after the other
            if layout == torch.contiguous_format:
                raise
    raise AssertionError


class DatasetPass:
    """A pass over images, taken in batch by batch within a `with` block; `found` gives what it has found.

    `layers` and their `layout` are as `follow` gives them. `batch` is the size of a full batch: smaller ones
    are filled up, so that an image's values do not depend on how many others stand beside it. `classes` is
    the number of classes that images are told apart by, 0 for none.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: list[TrackedLayer],
        layout: torch.memory_format,
        k: int,
        batch: int,
        classes: int,
    ) -> None:
        self.network, self.layers, self.layout, self.k, self.batch_size = network, layers, layout, k, batch
        self.device = get_device(network)
        self.layers_by_name = {layer.name: layer for layer in layers}
        areas = [layer.area for layer in layers for _ in range(layer.shape[0])]
        self.areas = torch.tensor(areas, dtype=torch.float64, device=self.device)

        self.sums = PairwiseSum()
        self.image_count, self.class_counts = 0, self._zeros(classes, dtype=torch.int64)
        self.zero_count = self._zeros(len(areas), dtype=torch.int64)
        self.max = self._zeros(len(areas)).fill_(-math.inf)
        self.top_values = self._zeros(len(areas), k).fill_(-math.inf)
        self.top_images = self._zeros(len(areas), k, dtype=torch.int32).fill_(-1)
        self.top_positions = self._zeros(len(areas), k, dtype=torch.int32)

        self.batch_images = self.layers_reduced = 0  # of the batch under way: images, and layers so far
        self.reduction = MapReduction(batch, len(areas), self.device)

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    def __enter__(self) -> "DatasetPass":
        self.tracer = trace(self.network, self._reduce_layer, self.layers_by_name)
        self.reset_tracer = self.tracer.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.tracer.__exit__(*raised)

    @torch.no_grad()
    def update(self, index: int, x: Tensor, numbers: np.ndarray, labels: np.ndarray | None) -> None:
        """Take in the batch at a place in the grid, later than all before it.

        `x` (n, C, H, W) is preprocessed, `numbers` (n,) are those of the images in the split, and `labels`
        int64 the classes of all images there; None takes the classes that the network predicts.
        """
        self.batch_images, self.layers_reduced = len(x), 0
        if not self.batch_images:
            nothing = torch.zeros_like(self.areas)
            self.sums.push(0, index, UnitSums(nothing, nothing, {}))
            return
        self.reset_tracer()
        made = self.network(self._pad_batch(x))
        if self.layers_reduced != len(self.layers):
            raise UserError(
                "views.strongest.layers: the network calls other layers on some images than on others; name "
                "such as it always calls"
            )
        with torch._C.DisableTorchFunction():  # none of this is a layer
            if labels is not None:
                self._accumulate(index, torch.as_tensor(labels[numbers], device=self.device))
            else:
                self._accumulate(
                    index,
                    select_main_output(made)[: self.batch_images].argmax(1)
                    if len(self.class_counts)
                    else None,
                )
            self._update_top(torch.as_tensor(numbers, device=self.device).int())

    def _pad_batch(self, x: Tensor) -> Tensor:
        """A full batch, with black behind the last image."""
        with torch._C.DisableTorchFunction():
            if len(x) < self.batch_size:
                x = torch.cat([x, x.new_zeros(self.batch_size - len(x), *x.shape[1:])])
            return x.to(memory_format=self.layout)

    def _reduce_layer(self, call: Call) -> None:
        layer = self.layers_by_name.get(call.layer)
        if layer is None:
            return
        self.layers_reduced += 1
        self.reduction.update(call.output[: self.batch_images], layer.unit_slice)

    def _accumulate(self, index: int, labels: Tensor | None) -> None:
        """Add up the batch that was seen."""
        means = self.reduction.mean[: self.batch_images]
        classes: dict[int, Tensor] = {}
        if labels is not None:
            there, rows = labels.unique(return_inverse=True)
            sums = means.new_zeros(len(there), len(self.areas)).index_add_(0, rows, means)
            classes = dict(zip(there.tolist(), sums, strict=True))
            self.class_counts += labels.bincount(minlength=len(self.class_counts))
        total = means.sum(0)
        squares = self.reduction.sum_squared_deviation.sum(0) / self.areas + means.square_().sum(
            0
        )  # they are done with
        self.sums.push(0, index, UnitSums(total, squares, classes))
        self.image_count += self.batch_images
        self.zero_count += self.reduction.zero_count.sum(0)

    def _update_top(self, numbers: Tensor) -> None:
        """Put the batch's strongest among the strongest of their units."""
        most, greatest = (
            self.reduction.max[: self.batch_images],
            self.reduction.max[: self.batch_images].amax(0),
        )
        self.max = self.max.maximum(greatest)
        images, units = self._top_candidates(most, greatest)
        if not len(images):
            return
        order = units.argsort(stable=True)  # of a unit the earlier images first, or the stronger
        images, units = images[order], units[order]
        values, places = most[images, units], self.reduction.argmax[images, units]
        units, rows, counts = units.unique_consecutive(return_inverse=True, return_counts=True)
        columns = self.k + torch.arange(len(rows), device=self.device) - (counts.cumsum(0) - counts)[rows]
        width = int(counts.max())

        def beside(kept: Tensor, new: Tensor, nothing: float) -> Tensor:
            """What is kept of the units, with what is new behind it: (units, k + width)."""
            both = torch.cat([kept[units], kept.new_full((len(units), width), nothing)], 1)
            both[rows, columns] = new.to(kept.dtype)
            return both

        values = beside(self.top_values, values, -math.inf)
        order = values.sort(dim=1, descending=True, stable=True).indices[:, : self.k]  # of equals the earlier
        self.top_values[units] = values.gather(1, order)
        self.top_images[units] = beside(self.top_images, numbers[images], -1).gather(1, order)
        self.top_positions[units] = beside(self.top_positions, places, 0).gather(1, order)

    def _top_candidates(self, most: Tensor, greatest: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the maxima (n, units) that may be among the strongest: their images and units."""
        least = self.top_values[:, -1]
        (rising,) = (greatest > least).nonzero(as_tuple=True)
        most, least = most[:, rising], least[rising]
        images, which = (most > least).nonzero(as_tuple=True)
        if len(images) > self.k * len(rising):  # at the start; of a unit no more than k can stay
            images = most.sort(dim=0, descending=True, stable=True).indices[: self.k].flatten()
            which = torch.arange(len(rising), device=self.device).repeat(len(images) // len(rising))
        return images, rising[which]

    def result(self) -> PassResult:
        """What all batches so far have given."""
        nodes = []
        for level, at, sums in self.sums.nodes:
            classes = {label: of_class.cpu().numpy() for label, of_class in sums.class_sums.items()}
            nodes.append(
                (level, at, UnitSums(sums.mean_sum.cpu().numpy(), sums.square_sum.cpu().numpy(), classes))
            )
        counts = UnitCounts(
            self.image_count, *(t.cpu().numpy() for t in (self.class_counts, self.zero_count, self.max))
        )
        top = TopActivations(
            *(t.cpu().numpy() for t in (self.top_values, self.top_images, self.top_positions))
        )
        return PassResult(PairwiseSum(nodes), counts, top)
