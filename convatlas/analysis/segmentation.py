"""Where the mask appears: how well a layer's single maps agree with the masks of a data set.

Three passes over images, one image and one layer's maps at a time: `ranges` finds between which ends each
unit's values lie, `search` chooses units and levels on training images, `evaluate` tests the chosen ones
on others. Nothing that grows with the number of images is kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skimage.color import rgb2gray
from skimage.filters import sobel
from torch import Tensor, nn

from convatlas.analysis.accumulators import (
    Correlation,
    HeadShare,
    Histogram,
    Overlap,
    Range,
    Threshold,
    at_size,
    aucs,
    best_threshold,
    fine_share,
    upsampled,
)
from convatlas.tracing.calls import Call, watch

SEPARATING = 3  # units named, at most
REACHED = 0.9  # of the last layer's agreement


@dataclass(frozen=True)
class Seen:
    """One image: the network's input (1, C, H, W), and what its maps are compared with, each (H, W).

    `mask` is true on the pet, `other` is the mask of another image; `edges` is the magnitude of the
    image's gradient, float32, and `head` is true in the head's box, None where that is not known.
    """

    x: Tensor
    mask: Tensor
    other: Tensor
    edges: Tensor
    head: Tensor | None = None


def edges(image: np.ndarray) -> np.ndarray:
    """The Sobel magnitude of an image's brightness, (C, H, W) in 0..1 to (H, W) float32.

    Three channels count by their luminance (Rec. 709), others by their mean.
    """
    gray = rgb2gray(image, channel_axis=0) if len(image) == 3 else image.mean(axis=0)
    return sobel(gray).astype(np.float32)


@torch.no_grad()
def each(network: nn.Module, x: Tensor, layers: Sequence[str], see: Callable[[str, Tensor], None]) -> Tensor:
    """Run one image (1, C, H, W); show each layer's maps (units, h, w) float32 to `see`, and keep none.

    Values that are not finite count as 0. Gives the network's output.
    """
    wanted = set(layers)

    def shown(call: Call) -> None:
        if call.layer in wanted:
            see(call.layer, call.output[0].float().nan_to_num(0, 0, 0))

    with watch(network, shown):
        return network(x.clone())


# The first pass


def ranges(network: nn.Module, layers: Sequence[str], images: Iterable[Seen]) -> dict[str, Range]:
    """The range of each unit of each layer over all images."""
    found: dict[str, Range] = {}

    def see(layer: str, maps: Tensor) -> None:
        span = Range.of(maps)
        found[layer] = found[layer].joined(span) if layer in found else span

    for image in images:
        each(network, image.x, layers, see)
    return found


# The second pass


@dataclass(frozen=True)
class Chosen:
    """What the training images chose of a layer: thresholds for the masks and for those of other images, and
    the units that separate best, follow edges best and see most of the head (None without boxes).

    `magnitude` says that it is the unit's absolute value that follows edges, as that of a filter does that
    is positive on one side of an edge and negative on the other.
    """

    span: Range
    best: Threshold
    chance: Threshold
    separating: list[int]
    edge: int
    magnitude: bool
    head: int | None


class Search:
    """The sums over training images from which a layer's units and levels are chosen."""

    def __init__(self, span: Range) -> None:
        self.histogram, self.edges, self.head = Histogram(span), Correlation(), HeadShare()

    def add(self, maps: Tensor, image: Seen) -> None:
        """Take in a layer's maps (units, h, w) of an image."""
        self.histogram.add(maps, image.mask, image.other)
        self.edges.add(torch.cat([maps, maps.abs()]), at_size(image.edges, maps.shape[1:]))
        self.head.add(maps, image.head)

    def chosen(self) -> Chosen:
        """Choose."""
        inside, outside = self.histogram.split("mask")
        magnitude, edge = divmod(int(self.edges.r().abs().argmax()), len(inside))
        distance = (aucs(inside, outside) - 0.5).abs().nan_to_num(0)
        return Chosen(
            self.histogram.span,
            best_threshold(inside, outside),
            best_threshold(*self.histogram.split("other")),
            distance.sort(descending=True, stable=True).indices[:SEPARATING].tolist(),
            edge,
            bool(magnitude),
            int(self.head.shares.argmax()) if self.head.images else None,
        )


def search(
    network: nn.Module, layers: Sequence[str], images: Iterable[Seen], spans: Mapping[str, Range]
) -> dict[str, Chosen]:
    """Choose each layer's units and levels on training images, given the ranges of the same images."""
    sums = {layer: Search(spans[layer]) for layer in layers}
    for image in images:
        each(network, image.x, layers, lambda layer, maps, image=image: sums[layer].add(maps, image))
    return {layer: found.chosen() for layer, found in sums.items()}


# The third pass


class Evaluation:
    """The sums over test images that say how well a layer's choice does there."""

    def __init__(self, chosen: Chosen) -> None:
        self.chosen = chosen
        self.best, self.chance = Overlap(), Overlap()
        self.histogram = Histogram(chosen.span.only(chosen.separating))
        self.edges, self.head = Correlation(), HeadShare()
        self.fine, self.images = torch.zeros((), dtype=torch.float64), 0

    def add(self, maps: Tensor, image: Seen) -> None:
        """Take in a layer's maps (units, h, w) of an image."""
        chosen = self.chosen
        units = [chosen.best.unit, chosen.chance.unit]
        best, chance = upsampled(chosen.span.only(units).scaled(maps[units]), image.mask.shape)
        self.best.add(chosen.best.of(best), image.mask)
        self.chance.add(chosen.chance.of(chance), image.other)
        self.histogram.add(maps[chosen.separating], image.mask, image.other)
        edge = maps[[chosen.edge]]
        self.edges.add(edge.abs() if chosen.magnitude else edge, at_size(image.edges, maps.shape[1:]))
        if chosen.head is not None:
            self.head.add(maps[[chosen.head]], image.head)
        self.fine, self.images = self.fine + fine_share(maps).mean(), self.images + 1

    def described(self) -> dict[str, Any]:
        """The layer's entry in masks.json, less its name, ordinal, role and shape."""
        chosen = self.chosen
        found = aucs(*self.histogram.split("mask")).tolist()
        return {
            "iou": self.best.iou(),
            "train_iou": chosen.best.iou,
            "chance": self.chance.iou(),
            "unit": chosen.best.unit,
            "level": chosen.span.level(chosen.best.unit, chosen.best.edge),
            "above": chosen.best.above,
            "high_frequency": float(self.fine) / self.images,
            "edges": abs(float(self.edges.r()[0])),
            "edge_unit": chosen.edge,
            "edge_magnitude": chosen.magnitude,
            "separation": [
                {"unit": unit, "auc": auc}
                for unit, auc in zip(chosen.separating, found, strict=True)
                if auc == auc  # not NaN, as it is where no test image has a pet
            ],
            "head": self._head(),
        }

    def _head(self) -> dict[str, Any] | None:
        if not self.head.images:
            return None
        share, area = float(self.head.shares[0]) / self.head.images, float(self.head.areas) / self.head.images
        return {"unit": self.chosen.head, "share": share, "area": area}


def evaluate(
    network: nn.Module, chosen: Mapping[str, Chosen], images: Iterable[Seen]
) -> dict[str, dict[str, Any]]:
    """Evaluate each layer's choice on test images: the layer's entry in masks.json."""
    sums = {layer: Evaluation(choice) for layer, choice in chosen.items()}
    for image in images:
        each(network, image.x, list(chosen), lambda layer, maps, image=image: sums[layer].add(maps, image))
    return {layer: found.described() for layer, found in sums.items()}


# What the curve says


def convolutions(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of layers.json that are measured: the convolutions that are called and make maps."""
    return [
        layer
        for layer in layers
        if layer["ordinal"] is not None and layer["called"] and len(layer["output_shape"] or []) == 3
    ]


def milestones(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """The last layer's agreement, and the first layer that reaches REACHED of it; null without layers."""
    if not layers:
        return {"final": None, "reached": None}
    final = layers[-1]
    first = next(layer for layer in layers if layer["iou"] >= REACHED * final["iou"])
    return {
        name: {"layer": layer["name"], "ordinal": layer["ordinal"], "iou": layer["iou"]}
        for name, layer in (("final", final), ("reached", first))
    }
