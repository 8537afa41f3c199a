"""What an attribution method is: a name, a function, and what is to be said beside its pictures."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from convatlas import UserError
from convatlas.attribution.class_scores import ClassScores, ScoreGraph, Targets
from convatlas.attribution.layer_maps import MapsFilter
from convatlas.models.preprocessing import Preprocessing

Returns = Literal["pixels", "map"]
Checks = dict[str, Any]  # what was measured of one map, by name


@dataclass(frozen=True)
class Explanation:
    """What is to be explained: the scores of classes of some images.

    Attributes:
        scores: The scores of the network.
        images: The images, (N, C, H, W).
        classes: The target classes of each image, (N, T) int64.
        layer: The layer of methods that explain by its maps; None chooses one.
        preprocessing: That of the images; None of images in 0..1.
    """

    scores: ClassScores
    images: Tensor
    classes: Tensor
    layer: str | None = None
    preprocessing: Preprocessing | None = None

    def record_targets(self, maps: MapsFilter | None = None) -> Iterator[tuple[slice, ScoreGraph, Targets]]:
        """Run the network with its graph on a few images at a time.

        Args:
            maps: Which outputs of layers to keep.

        Yields:
            Which images, and their scores and targets.
        """
        images = self.images
        for index, graph in self.scores.record_batches(len(images), lambda index: images[index], maps):
            targets = self.scores.make_targets(graph.scores.detach(), self.classes[index], index.start)
            yield index, graph, targets


class Maps(NamedTuple):
    """What a method computes.

    Attributes:
        values: The maps, (N, T, C, H, W) of pixels, or (N, T, 1, H, W).
        checks: What was measured of each, per image and target.
    """

    values: Tensor
    checks: list[list[Checks]]


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
        name: Its name in the config, in files and in code.
        title: Its name on pages.
        returns: "pixels", signed values (C, H, W) in the input's space, or "map", (1, H, W).
        requires: What a network must have: "class scores", "rectifiers", "maps".
        citation: Where it was published.
        caveat: What its pictures do not say.
        check: What is exact about it, or measured of each picture.
        compute: From an explanation and settings to the maps.
        settings: The names and defaults of its settings.
        is_contribution: Whether its values are shares of the score, whose sign counts; otherwise a pixel is
            as relevant as their magnitudes.
        probe: A shorter computation with the same arguments, which fails where `compute` is not defined; None
            where there is none.
    """

    name: str
    title: str
    returns: Returns
    requires: frozenset[str]
    citation: str
    caveat: str
    check: str
    compute: Callable[..., Maps]
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_contribution: bool = False
    probe: Callable[..., Maps] | None = None


def check_count(method: str, name: str, count: Any) -> None:
    """Raise UserError where a setting is no positive integer.

    Args:
        method: Name of the method.
        name: Name of the setting.
        count: Its value.

    Raises:
        UserError: Says what is allowed.
    """
    if not isinstance(count, Integral) or count < 1:
        raise UserError(f"{method}: {name} is an integer of 1 or more, not {count!r}")


def empty_checks(classes: Tensor) -> list[list[Checks]]:
    """Return a dictionary for each image and target.

    Args:
        classes: The target classes, (N, T).
    """
    return [[{} for _ in range(classes.shape[1])] for _ in range(classes.shape[0])]


def allocate_maps(explanation: Explanation, channels: int) -> Tensor:
    """Return room for maps, (N, T, channels, H, W) float32, all NaN.

    Args:
        explanation: What is to be explained.
        channels: Number of channels of a map.
    """
    images = explanation.images
    shape = (*explanation.classes.shape, channels, *images.shape[2:])
    return torch.full(shape, torch.nan, device=images.device, dtype=torch.float32)
