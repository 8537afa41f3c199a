"""Metrics against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from convatlas.training.metrics import iou_and_dice, mean_iou, segmentation_metrics

CLASSES = ["pet", "background", "border"]


def test_iou_and_dice_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 500))
    confusion = torch.from_numpy(confusion_matrix(truth, predicted))
    metrics = segmentation_metrics(confusion, CLASSES, images=5)
    iou, dice = jaccard_score(truth, predicted, average=None), f1_score(truth, predicted, average=None)
    assert metrics["iou"] == pytest.approx(dict(zip(CLASSES, iou, strict=True)))
    assert metrics["dice"] == pytest.approx(dict(zip(CLASSES, dice, strict=True)))
    assert metrics["mean_iou"] == pytest.approx(iou.mean())
    assert metrics["pixel_accuracy"] == pytest.approx((truth == predicted).mean())
    assert metrics["images"] == 5
    assert metrics["confusion"] == confusion.tolist()


def test_a_class_without_pixels_has_no_iou_and_dice() -> None:
    confusion = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert iou_and_dice(confusion) == ([3 / 4, 4 / 5, None], [6 / 7, 8 / 9, None])
    assert mean_iou(confusion) == pytest.approx((3 / 4 + 4 / 5) / 2)
