"""The test split: what a network predicts for each image, and the metrics, from one pass over it."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from convatlas.datasets import formats
from convatlas.datasets.base import ImageDataset
from convatlas.models.prepare import PreparedNetwork
from convatlas.predictions import format_predictions
from convatlas.records import ClassificationMetrics, ImagePrediction, SegmentationMetrics
from convatlas.training.evaluation import (
    EVALUATION_BATCH_SIZE,
    ImageResults,
    NonFiniteScoresError,
    evaluate_images,
)
from convatlas.training.labelled_images import load_split
from convatlas.training.metrics import classification_metrics, segmentation_metrics

log = logging.getLogger(__name__)

SEGMENTATION_BATCH_SIZE = 16  # images at once in the evaluation of a segmentation network


@dataclass(frozen=True)
class SplitEvaluation:
    """The contents of metrics.json and of predictions.csv."""

    metrics: ClassificationMetrics | SegmentationMetrics
    predictions: bytes


def evaluate_test_split(
    prepared: PreparedNetwork, data: str | Path, device: torch.device
) -> SplitEvaluation | None:
    """Evaluate a network on the test images of a data set.

    Args:
        prepared: The network, trained.
        data: The data set's folder, data/<dataset>.
        device: Where the images are kept, if they are few.

    Returns:
        The metrics and predictions; None where the data set has no test images, its classes are not the
        network's, or scores are NaN or infinite.
    """
    dataset = formats.describe(data)
    names = formats.mask_classes(dataset) if prepared.is_segmentation else dataset["classes"]
    if not names or not sum(dataset["counts"]["test"]):
        return None
    if prepared.output.kind == "none":
        log.info("not evaluated on the test split: the network's output has no class scores")
        return None
    # The outputs of torchvision's weights are the classes of their names; others may have been named anew.
    has_torchvision_weights = prepared.weights_origin["name"] is not None
    if len(prepared.classes) != len(names) or (has_torchvision_weights and prepared.classes != names):
        log.info("not evaluated on the test split: the data set's classes are not the network's")
        return None
    images = load_split(data, "test", prepared.preprocessing, prepared.is_segmentation, device)
    batch_size = SEGMENTATION_BATCH_SIZE if prepared.is_segmentation else EVALUATION_BATCH_SIZE
    try:
        results = evaluate_images(
            *(prepared.network, prepared.preprocessing, images),
            batch_size=batch_size,
            output=prepared.output,
        )
    except NonFiniteScoresError as error:
        log.warning("not evaluated on the test split: %s", error)
        return None
    predictions = list_predictions(results, formats.load(data, "test"), Path(data))
    if prepared.is_segmentation:
        segmentation = segmentation_metrics(results.confusion, prepared.classes, len(images))
        log.info("test mean IoU %.4f", segmentation["mean_iou"])
        return SplitEvaluation(segmentation, format_predictions(predictions, prepared.classes))
    classification = classification_metrics(results.confusion, prepared.classes)
    log.info("test accuracy %.2f %%", 100 * classification["accuracy"])
    return SplitEvaluation(classification, format_predictions(predictions))


def list_predictions(results: ImageResults, dataset: ImageDataset, folder: Path) -> list[ImagePrediction]:
    """Return the rows of predictions.csv, in the order of the split.

    Args:
        results: What the network predicts for each image.
        dataset: The test split.
        folder: The data set's folder, data/<dataset>.
    """
    rows: list[ImagePrediction] = []
    for index, (path, label) in enumerate(zip(dataset.paths, dataset.labels.tolist(), strict=True)):
        loss = float(results.losses[index])
        row: ImagePrediction = {
            "split": "test",
            "index": index,
            "file": Path(path).relative_to(folder).as_posix() if path else None,
            "label": label if label >= 0 else None,
            "prediction": None,
            "probability": None,
            "loss": None if math.isnan(loss) else loss,
        }
        if results.predictions is not None and results.probabilities is not None:
            row["prediction"] = int(results.predictions[index])
            row["probability"] = float(results.probabilities[index])
        if results.intersections is not None and results.unions is not None:
            row["intersections"] = results.intersections[index].tolist()
            row["unions"] = results.unions[index].tolist()
            iou = [i / u for i, u in zip(row["intersections"], row["unions"], strict=True) if u]
            row["mean_iou"] = sum(iou) / len(iou) if iou else None
        rows.append(row)
    return rows
