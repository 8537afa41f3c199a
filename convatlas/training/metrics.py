"""What a confusion matrix says: of classes of images, or of classes of pixels."""

from typing import Any

from torch import Tensor


def accuracy(confusion: Tensor) -> float:
    """The share of what is on the diagonal of a confusion matrix (classes, classes), a row a true class."""
    return float(confusion.trace()) / float(confusion.sum())


def iou_and_dice(confusion: Tensor) -> tuple[list[float | None], list[float | None]]:
    """Each class's intersection over union and its Dice coefficient; None where it is nowhere."""
    hits = confusion.diagonal().double()
    true, predicted = confusion.sum(1).double(), confusion.sum(0).double()
    pairs = zip(hits.tolist(), true.tolist(), predicted.tolist(), strict=True)
    found = [(hit / (t + p - hit), 2 * hit / (t + p)) if t + p else (None, None) for hit, t, p in pairs]
    return [iou for iou, _ in found], [dice for _, dice in found]


def mean_iou(confusion: Tensor) -> float:
    """The mean of the classes' intersections over unions, of those classes that are somewhere."""
    there = [iou for iou in iou_and_dice(confusion)[0] if iou is not None]
    return sum(there) / len(there)


def classification_metrics(confusion: Tensor, classes: list[str]) -> dict[str, Any]:
    """Sum up the classes of images: accuracy, accuracy of each class (null where it has no image)."""
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


def segmentation_metrics(confusion: Tensor, classes: list[str], images: int) -> dict[str, Any]:
    """Sum up the classes of all pixels of some images: IoU and Dice a class, mean IoU, accuracy."""
    iou, dice = iou_and_dice(confusion)
    return {
        "mean_iou": mean_iou(confusion),
        "iou": dict(zip(classes, iou, strict=True)),
        "dice": dict(zip(classes, dice, strict=True)),
        "pixel_accuracy": accuracy(confusion),
        "confusion": confusion.tolist(),
        "images": images,
    }
