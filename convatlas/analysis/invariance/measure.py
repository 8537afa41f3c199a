"""Measure how far features and predictions move as images are changed (Zeiler and Fergus 2014, figure 5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.analysis.invariance.transforms import Padding, Transform, warp, warp_labels
from convatlas.analysis.responses import ResponseReader, copy
from convatlas.models.outputs import Output, predict_classes, resize_scores

OUTSIDE = -1  # label of pixels from outside the image


@dataclass(frozen=True)
class Invariance:
    """How features and predictions change.

    Attributes:
        distances: By layer and name of the transform, the Euclidean distance between the features of the
            changed and of the unchanged image, (images, steps) float32; NaN where features are not finite.
        different_images: By layer, the mean distance between two different unchanged images; None with one
            image, or where it is not finite or zero.
        scores: By name of the transform, (images, steps) float32: the probability of a class, or of a
            segmentation the mean IoU of the prediction with the changed prediction of the unchanged image.
            Empty of a network without class scores.
        different_predictions: Of a segmentation, the mean IoU of the predictions for two different unchanged
            images; None of others, and with one image.
        classes: The class of each image whose probability is measured; -1 where the prediction for the
            unchanged image is not finite. Empty of a segmentation, and without class scores.
    """

    distances: dict[str, dict[str, np.ndarray]]
    different_images: dict[str, float | None]
    scores: dict[str, np.ndarray]
    different_predictions: float | None
    classes: list[int]


def measure_invariance(
    network: nn.Module,
    x: Tensor,
    layers: Sequence[str],
    transforms: Sequence[Transform],
    padding: Padding,
    black: Tensor,
    output: Output,
    labels: Sequence[int | None],
    observe: Callable[[str, Tensor], None] = lambda name, images: None,
) -> Invariance:
    """Measure how the features of layers and the prediction change as images are changed.

    Args:
        network: The network, in evaluation mode.
        x: The images as its inputs, (N, C, H, W).
        layers: Names of the layers.
        transforms: The changes.
        padding: What lies outside the images.
        black: The value of a black pixel in each channel, (C,).
        output: What the network's output means.
        labels: The class of each image whose probability is measured; None stands for the predicted class of
            the unchanged image.
        observe: Called with the name of the transform and the changed images of each step.
    """
    x = x.contiguous()
    reader = ResponseReader(network, layers, output, x)
    unchanged = reader.read(x, copy)
    classes = choose_classes(unchanged.scores, labels)

    def compare(layer: str, features: Tensor, rows: slice) -> Tensor:
        return compute_distances(features, unchanged.layers[layer][rows])

    distances: dict[str, dict[str, np.ndarray]] = {layer: {} for layer in unchanged.layers}
    scores: dict[str, np.ndarray] = {}
    for transform in transforms:
        columns: dict[str, list[Tensor]] = {layer: [] for layer in distances}
        score_columns: list[Tensor] = []
        for step in transform.steps:
            matrix = transform.compute_matrix(step)
            images = warp(x, matrix, padding, black)
            observe(transform.name, images)
            changed = reader.read(images, compare)
            for layer, values in changed.layers.items():
                columns[layer].append(values)
            if changed.scores is not None and unchanged.scores is not None:
                pair = (changed.scores, unchanged.scores)
                score_columns.append(_score(output, *pair, classes, matrix, (x.shape[-2], x.shape[-1])))
        for layer, values_by_step in columns.items():
            distances[layer][transform.name] = _to_array(values_by_step)
        if len(score_columns) == len(transform.steps):
            scores[transform.name] = _to_array(score_columns)
    references = {layer: compare_images(features) for layer, features in unchanged.layers.items()}
    different_predictions = compare_predictions(unchanged.scores)
    return Invariance(distances, references, scores, different_predictions, classes)


def choose_classes(scores: Tensor | None, labels: Sequence[int | None]) -> list[int]:
    """Return the class of each image whose probability is measured, as `Invariance.classes`.

    Args:
        scores: The scores of the unchanged images.
        labels: Their labels; None where there is none.
    """
    if scores is None or scores.ndim > 2:
        return []
    predicted = predict_classes(scores).tolist()
    return [number if label is None else label for number, label in zip(predicted, labels, strict=True)]


def compute_distances(features: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distance of each image's features to others, (N,); NaN where not finite.

    Args:
        features: (N, ...).
        others: (N, ...).
    """
    axes = tuple(range(1, features.ndim))
    distances: Tensor = torch.linalg.vector_norm(features - others, dim=axes)
    return distances.where(distances.isfinite(), torch.nan)


def compare_images(features: Tensor) -> float | None:
    """Return the mean Euclidean distance between two different images; None where it is no measure.

    Args:
        features: (N, ...).
    """
    pairs = [float(torch.dist(first, second)) for first, second in combinations(features, 2)]
    mean = float(np.mean(pairs)) if pairs else 0.0
    return mean if np.isfinite(mean) and mean > 0 else None


def compare_predictions(scores: Tensor | None) -> float | None:
    """Return the mean IoU of the predicted classes of pixels of two different images; None without pairs.

    Args:
        scores: The scores of images, (N, classes, h, w); others than those of pixels have none.
    """
    if scores is None or scores.ndim < 4 or len(scores) < 2:
        return None
    labels = scores.argmax(1)
    pairs = torch.tensor(list(combinations(range(len(labels)), 2)), device=labels.device)
    return float(compute_mean_iou(labels[pairs[:, 0]], labels[pairs[:, 1]]).mean())


def _score(
    output: Output,
    changed: Tensor,
    unchanged: Tensor,
    classes: Sequence[int],
    matrix: np.ndarray,
    size: tuple[int, int],
) -> Tensor:
    """Return the probability of the class of each image, or of a segmentation the IoU, (N,)."""
    if changed.ndim == 2:
        numbers = torch.tensor(classes, device=changed.device)
        rows = torch.arange(len(numbers), device=changed.device)
        probabilities = output.compute_probabilities(changed)[rows, numbers.clamp_min(0)]
        return probabilities.where(probabilities.isfinite() & (numbers >= 0), torch.nan)
    predicted, expected = (resize_scores(scores, size).argmax(1) for scores in (changed, unchanged))
    return compute_mean_iou(predicted, warp_labels(expected, matrix, OUTSIDE))


def compute_mean_iou(predicted: Tensor, expected: Tensor) -> Tensor:
    """Return the IoU of the classes of pixels, the mean over those that are in either map, (N,).

    Args:
        predicted: The predicted class of each pixel, (N, H, W).
        expected: The class that it is compared with; OUTSIDE where it does not count.
    """
    counts = expected != OUTSIDE
    ious = []
    for number in range(int(max(predicted.max(), expected.max())) + 1):
        first, second = (predicted == number) & counts, expected == number
        union = (first | second).sum((1, 2)).float()
        ious.append((first & second).sum((1, 2)) / union)  # 0 / 0 is NaN: the class is in neither
    return torch.stack(ious).nanmean(0)


def _to_array(columns: Sequence[Tensor]) -> np.ndarray:
    """Return columns (N,) as float32 (N, steps)."""
    array: np.ndarray = torch.stack(list(columns), 1).float().cpu().numpy()
    return array
