"""Deletion and insertion: how the probability of a class changes as pixels are replaced, most relevant first.

Petsiuk et al., RISE (arXiv 1806.07421). Deletion replaces pixels of the image by those of a baseline,
insertion pixels of the baseline by those of the image. Pixels in random order are the control: a map says
something about the network's decision where its deletion curve lies below the control's, or its insertion
curve above it. Images with replaced pixels are unlike those that the network was trained on: only curves of
one image, one target and one baseline can be compared.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convatlas.records import PerturbationCurve, PerturbationCurves

FRACTIONS = tuple(n / 10 for n in range(11))  # of the pixels that are replaced
RANDOM_ORDERS = 3  # they differ little: each replaces thousands of pixels
MAX_BATCH_VALUES = 2**20  # of the inputs in one forward pass

# From inputs (N, C, H, W) to the probabilities of the target classes, (N, targets).
Score = Callable[[Tensor], Tensor]


class ImageCurves(NamedTuple):
    """The curves of one image.

    Attributes:
        maps: Those of each map.
        random_order: Those of pixels in random order for each target, the mean of several orders.
    """

    maps: list[PerturbationCurves]
    random_order: list[PerturbationCurves]


def pixel_relevance(maps: Tensor, signed: bool) -> Tensor:
    """Return one relevance for each pixel, by which `perturbation_curves` orders them.

    Args:
        maps: Maps (..., C or 1, H, W).
        signed: Sum over channels with their signs, for methods whose values are contributions to the score,
            such as integrated gradients; otherwise sum the magnitudes, as of the gradient.

    Returns:
        (..., H, W).
    """
    return (maps if signed else maps.abs()).sum(-3)


@torch.no_grad()
def perturbation_curves(
    score: Score,
    image: Tensor,
    baseline: Tensor,
    relevance: Tensor,
    targets: Sequence[int],
    fractions: Sequence[float] = FRACTIONS,
    random_orders: int = RANDOM_ORDERS,
    seed: int = 0,
) -> ImageCurves:
    """Measure deletion and insertion of one image for several maps at once.

    Args:
        score: The probabilities of the target classes of inputs (N, C, H, W): (N, targets).
        image: The input as the network sees it, (C, H, W).
        baseline: What replaces its pixels, (C, H, W): the image blurred, or its mean.
        relevance: Of each pixel for each map, (maps, H, W), from `pixel_relevance`. Equal pixels are in
            random order.
        targets: The target of each map, a column of what `score` returns.
        fractions: Of the pixels, ascending from 0 to 1; 1 - f is among them for each f.
        random_orders: How many orders of the control. Inserting pixels in one order gives the images that
            deleting them in the reverse order gives, so that both curves need each image once.
        seed: Of the random orders.

    Returns:
        The curves, with their areas by the trapezoidal rule.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = image[0].numel()
    random = torch.stack([torch.randperm(pixels, generator=generator) for _ in range(random_orders)])
    flat = relevance.reshape(-1, pixels).cpu()
    shuffled = flat[:, random[0]]
    orders = random[0][shuffled.argsort(dim=1, descending=True, stable=True)]

    counts = [round(fraction * pixels) for fraction in fractions]
    evaluate = _Evaluation(score, image, baseline, counts)
    deleted = evaluate.curves(orders)  # (maps, fractions, targets)
    inserted = evaluate.curves(orders.flip(1)).flip(1)
    control = evaluate.curves(random).mean(0)  # (fractions, targets)

    columns = torch.as_tensor(list(targets))
    rows = torch.arange(len(orders))

    def describe(deletion: Tensor, insertion: Tensor) -> PerturbationCurves:
        return {"deletion": _describe(deletion, fractions), "insertion": _describe(insertion, fractions)}

    return ImageCurves(
        [describe(d, i) for d, i in zip(deleted[rows, :, columns], inserted[rows, :, columns], strict=True)],
        [describe(values, values.flip(0)) for values in control.T],
    )


class _Evaluation:
    """Evaluates the score of an image with pixels replaced.

    Args:
        score: As in `perturbation_curves`.
        image: As in `perturbation_curves`.
        baseline: As in `perturbation_curves`.
        counts: Numbers of pixels that are replaced, from 0 to all.
    """

    def __init__(self, score: Score, image: Tensor, baseline: Tensor, counts: Sequence[int]) -> None:
        self.score, self.image, self.baseline, self.counts = score, image, baseline, counts
        self.ends = score(torch.stack([image, baseline])).float().cpu()

    def curves(self, orders: Tensor) -> Tensor:
        """Return the scores with the first pixels of each order replaced.

        Args:
            orders: Pixels in the order in which they are replaced, (orders, H * W).

        Returns:
            (orders, counts, targets).
        """
        ranks = torch.empty_like(orders).scatter_(1, orders, torch.arange(orders.shape[1]).expand_as(orders))
        inner = [(rank, count) for rank in ranks for count in self.counts[1:-1]]
        batch_size = max(1, MAX_BATCH_VALUES // self.image.numel())
        scores = [self._score(inner[n : n + batch_size]) for n in range(0, len(inner), batch_size)]
        values = torch.cat(scores).reshape(len(orders), len(self.counts) - 2, -1)
        first, last = (end.expand(len(orders), 1, -1) for end in self.ends)
        return torch.cat([first, values, last], 1)

    def _score(self, points: list[tuple[Tensor, int]]) -> Tensor:
        """Return the scores of points, each the ranks of the pixels and how many are replaced."""
        shape = self.image.shape[1:]
        replaced = torch.stack([rank < count for rank, count in points]).reshape(-1, 1, *shape)
        inputs = torch.where(replaced.to(self.image.device), self.baseline, self.image)
        return self.score(inputs).float().cpu()


def _describe(values: Tensor, fractions: Sequence[float]) -> PerturbationCurve:
    """Return a curve with its area."""
    numbers = values.double().numpy()
    return {"auc": float(np.trapezoid(numbers, fractions)), "values": numbers.tolist()}
