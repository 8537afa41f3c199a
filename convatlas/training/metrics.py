"""Metrics of a confusion matrix, of the classes of images or of pixels."""

from collections.abc import Sequence

from torch import Tensor

from convatlas.records import ClassificationMetrics, SegmentationMetrics


def accuracy(confusion: Tensor) -> float:
    """Return the fraction of images or pixels that are classified correctly.

    Args:
        confusion: Counts (classes, classes); rows are true classes, columns predicted ones.
    """
    return float(confusion.trace()) / float(confusion.sum())


def iou_and_dice(confusion: Tensor) -> tuple[list[float | None], list[float | None]]:
    """Return each class's intersection over union, TP / (TP + FP + FN), and Dice, 2 TP / (2 TP + FP + FN).

    Args:
        confusion: Counts (classes, classes); rows are true classes, columns predicted ones.

    Returns:
        Both as lists of a value per class, None for a class that is neither there nor predicted.
    """
    hits = confusion.diagonal().double()
    true, predicted = confusion.sum(1).double(), confusion.sum(0).double()
    iou: list[float | None] = []
    dice: list[float | None] = []
    for hit, t, p in zip(hits.tolist(), true.tolist(), predicted.tolist(), strict=True):
        iou.append(hit / (t + p - hit) if t + p else None)
        dice.append(2 * hit / (t + p) if t + p else None)
    return iou, dice


def mean_iou(confusion: Tensor) -> float:
    """Return the mean intersection over union of the classes that are there or predicted.

    Args:
        confusion: Counts (classes, classes); rows are true classes, columns predicted ones.
    """
    values = [iou for iou in iou_and_dice(confusion)[0] if iou is not None]
    return sum(values) / len(values)


def classification_metrics(confusion: Tensor, classes: Sequence[str]) -> ClassificationMetrics:
    """Return the metrics of a classifier, as in metrics.json.

    Args:
        confusion: Counts of images (classes, classes); rows are true classes, columns predicted ones.
        classes: Their names. The accuracy of a class without images is None.
    """
    counts = confusion.sum(1).tolist()
    hits = confusion.diagonal().tolist()
    return {
        "accuracy": accuracy(confusion),
        "class_accuracy": {
            name: hit / count if count else None
            for name, hit, count in zip(classes, hits, counts, strict=True)
        },
        "confusion": confusion.tolist(),
        "images": int(confusion.sum()),
    }


def segmentation_metrics(confusion: Tensor, classes: Sequence[str], images: int) -> SegmentationMetrics:
    """Return the metrics of a segmentation network, of all pixels together, as in metrics.json.

    Args:
        confusion: Counts of pixels (classes, classes); rows are true classes, columns predicted ones.
        classes: Their names.
        images: Number of the images.
    """
    iou, dice = iou_and_dice(confusion)
    return {
        "mean_iou": mean_iou(confusion),
        "iou": dict(zip(classes, iou, strict=True)),
        "dice": dict(zip(classes, dice, strict=True)),
        "pixel_accuracy": accuracy(confusion),
        "confusion": confusion.tolist(),
        "images": images,
    }
