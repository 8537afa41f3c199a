"""What a network predicts for each image, as it is or with a part ablated, and what it is measured by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from convatlas import UserError
from convatlas.models.outputs import Output, resize_scores
from convatlas.training.image_losses import compute_image_losses
from convatlas.training.losses import find_known

Measure = Literal["accuracy", "mean_iou", "loss"]


@dataclass(frozen=True)
class Outcomes:
    """What a network predicts for each image under each of several conditions, such as ablated units.

    Attributes:
        losses: The loss of each image, (conditions, N) float32; NaN where no pixel has a known class.
        hits: Whether each image is classified correctly, (conditions, N); None of a segmentation network.
        intersections: Pixels that are of a class and predicted as it, (conditions, N, classes) int32; None of
            a classifier.
        unions: Pixels that are of a class or predicted as it, likewise.
    """

    losses: np.ndarray
    hits: np.ndarray | None = None
    intersections: np.ndarray | None = None
    unions: np.ndarray | None = None

    def select_images(self, images: np.ndarray) -> "Outcomes":
        """Return the outcomes of some of the images.

        Args:
            images: Their indices.
        """
        return Outcomes(*(None if a is None else a[:, images] for a in self._arrays()))  # type: ignore[arg-type]

    def select(self, conditions: slice) -> "Outcomes":
        """Return the outcomes under some of the conditions.

        Args:
            conditions: Which.
        """
        return Outcomes(*(None if a is None else a[conditions] for a in self._arrays()))  # type: ignore[arg-type]

    def _arrays(self) -> tuple[np.ndarray | None, ...]:
        return self.losses, self.hits, self.intersections, self.unions


def choose_measure(output: Output) -> Measure:
    """Return what a network is measured by: accuracy, mean IoU of pixels, or the loss if it is multi-label.

    Args:
        output: What the network's output means.
    """
    if output.is_per_pixel:
        return "mean_iou"
    return "loss" if output.is_multi_label else "accuracy"


def measure_scores(scores: Tensor | None, labels: Tensor, output: Output, layer: str | None) -> Outcomes:
    """Measure what the scores of a batch of images predict: one condition.

    An image with a score that is NaN or +∞ is classified wrongly; its pixels are predicted as no class.

    Args:
        scores: Scores (N, classes), or (N, classes, h, w) of pixels; None where the output has none.
        labels: Classes (N,), or (N, H, W) of pixels, int64.
        output: What the network's output means.
        layer: The layer that is ablated, for the error.

    Raises:
        UserError: The output has no scores of each image.
    """
    if scores is None:
        occasion = f" with the layer {layer!r} ablated" if layer else ""
        raise UserError(f"the network's output on a batch{occasion} has no class scores of each image")
    scores = resize_scores(scores.float(), labels.shape[1:])
    losses = compute_image_losses(scores, labels, output.score_kind)
    is_valid = scores.amax(1).isfinite()
    predictions = scores.argmax(1).where(is_valid, -1)
    losses = losses.where(is_valid.flatten(1).all(1) if labels.ndim > 1 else is_valid, float("inf"))
    if labels.ndim == 1:
        return Outcomes(losses.cpu().numpy()[None], (predictions == labels).cpu().numpy()[None])
    intersections, unions = _count_overlaps(predictions, labels, scores.shape[1])
    return Outcomes(losses.cpu().numpy()[None], None, intersections[None], unions[None])


def _count_overlaps(predictions: Tensor, labels: Tensor, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the pixels of each image in the intersection and the union of each class: (N, classes) int32."""
    known = find_known(labels)
    parts = []
    for c in range(n_classes):
        is_label, is_prediction = (labels == c) & known, (predictions == c) & known
        pair = (is_label & is_prediction, is_label | is_prediction)
        parts.append([part.flatten(1).sum(1).int().cpu().numpy() for part in pair])
    intersections, unions = (np.stack(list(arrays), 1) for arrays in zip(*parts, strict=True))
    return intersections, unions


def join_images(batches: Sequence[Outcomes]) -> Outcomes:
    """Join the outcomes of consecutive batches of images under the same conditions.

    Args:
        batches: The outcomes of each batch.
    """
    return _concatenate(batches, 1)


def join_conditions(outcomes: Sequence[Outcomes]) -> Outcomes:
    """Join the outcomes of the same images under several conditions.

    Args:
        outcomes: The outcomes under each.
    """
    return _concatenate(outcomes, 0)


def _concatenate(parts: Sequence[Outcomes], axis: int) -> Outcomes:
    """Concatenate the arrays of outcomes."""
    columns = zip(*(part._arrays() for part in parts), strict=True)
    return Outcomes(*(None if c[0] is None else np.concatenate(c, axis) for c in columns))  # type: ignore[arg-type]


def compute_values(outcomes: Outcomes, measure: Measure) -> np.ndarray:
    """Return the value of a measure under each condition, (conditions,).

    Args:
        outcomes: What the network predicts.
        measure: Accuracy, the mean of the IoUs of the classes that are there or predicted, or the mean loss.
    """
    if measure == "accuracy":
        assert outcomes.hits is not None
        return np.asarray(outcomes.hits.mean(1))
    if measure == "loss":
        return average_finite(outcomes.losses)
    assert outcomes.intersections is not None and outcomes.unions is not None
    return mean_of_classes(divide(outcomes.intersections.sum(1), outcomes.unions.sum(1)))


def average_finite(losses: np.ndarray) -> np.ndarray:
    """Return the means of losses (conditions, N) over the images that have one, in double precision."""
    is_known = ~np.isnan(losses)
    return divide(np.where(is_known, losses, 0).sum(1, dtype=float), is_known.sum(1))


def mean_of_classes(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of the values that are not NaN; NaN without any."""
    is_known = ~np.isnan(values)
    return divide(np.where(is_known, values, 0).sum(-1), is_known.sum(-1))


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b in double precision; NaN where b is 0."""
    result = np.full(np.broadcast(a, b).shape, np.nan)
    np.divide(a, b, out=result, where=np.asarray(b) != 0)
    return result
