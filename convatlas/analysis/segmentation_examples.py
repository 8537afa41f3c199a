"""Predicted masks of a segmentation network: the first test image, and the best, median and worst."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from convatlas import UserError
from convatlas.analysis.masked_images import MaskSplit
from convatlas.datasets.base import IGNORE_INDEX
from convatlas.datasets.trimaps import MASK_CLASSES
from convatlas.models import build
from convatlas.models.outputs import Output, resize_scores
from convatlas.models.preprocessing import Preprocessing
from convatlas.records import SegmentationExample
from convatlas.training import metrics
from convatlas.training.evaluation import check_scores_finite

log = logging.getLogger(__name__)

BACKGROUND = MASK_CLASSES.index("background")
BATCH_SIZE = 16  # images predicted at a time


def is_segmentation(output: Output, preprocessing: Preprocessing, classes: Sequence[str]) -> bool:
    """Return whether a network predicts the classes of a trimap for every pixel of its input.

    Args:
        output: What the network's output means.
        preprocessing: Its preprocessing.
        classes: The names of its classes.
    """
    return output.kind != "none" and output.covers(preprocessing.shape[1:]) and classes == MASK_CLASSES


@dataclass(frozen=True)
class PredictionScore:
    """How well the prediction for a test image agrees with its trimap.

    Attributes:
        index: Number of the image in the split.
        iou: IoU by class; None for a class in neither mask.
        mean_iou: Mean over the classes.
    """

    index: int
    iou: dict[str, float | None]
    mean_iou: float

    @classmethod
    def from_prediction(cls, index: int, prediction: np.ndarray, truth: np.ndarray) -> "PredictionScore":
        """Compare a prediction with the truth.

        Args:
            index: Number of the image in the split.
            prediction: Numbers of MASK_CLASSES, (H, W) uint8.
            truth: Numbers of MASK_CLASSES, (H, W) uint8; pixels with any other number are ignored.
        """
        count = len(MASK_CLASSES)
        is_known = truth < count
        pairs = np.bincount(count * truth[is_known].astype(int) + prediction[is_known], minlength=count**2)
        confusion = torch.from_numpy(pairs.reshape(count, count))
        iou, _ = metrics.iou_and_dice(confusion)
        return cls(index, dict(zip(MASK_CLASSES, iou, strict=True)), metrics.mean_iou(confusion))


def predict_examples(
    network: nn.Module, preprocessing: Preprocessing, output: Output, test: MaskSplit
) -> tuple[list[SegmentationExample], dict[str, np.ndarray]]:
    """Predict all test images, and choose the first, and the best, median and worst by the pet's IoU.

    Args:
        network: A segmentation network.
        preprocessing: How an image becomes its input.
        output: What its output means.
        test: The test split.

    Returns:
        The entries of masks.json, and the arrays of masks/examples.npz, uint8: `photograph` (4, H, W, 3),
        `truth` and `prediction` (4, H, W), numbers of MASK_CLASSES; ignored pixels of the truth are
        background.

    Raises:
        NonFiniteScoresError: Scores of an image are NaN or infinite, so that no class is the most probable.
    """

    def predict_batch(start: int) -> np.ndarray:
        pixels = test.pixels[start : start + BATCH_SIZE]
        return predict_classes(network, preprocessing, output, pixels, start)

    scores = [
        PredictionScore.from_prediction(index, prediction, test.classes[index])
        for start in range(0, len(test.pixels), BATCH_SIZE)
        for index, prediction in enumerate(predict_batch(start), start)
    ]
    log.info("predicted the masks of %d test images", len(scores))
    selected = {"first": scores[0], **rank_predictions(scores)}
    examples: list[SegmentationExample] = [
        {
            "rank": rank,
            "index": score.index,
            "name": test.examples.names[score.index],
            "iou": score.iou,
            "mean_iou": score.mean_iou,
        }
        for rank, score in selected.items()
    ]
    indices = [score.index for score in selected.values()]
    truth = test.classes[indices]
    # Predicted again in the same batches: in others the last digits of a logit may differ.
    predictions = [predict_batch(index - index % BATCH_SIZE)[index % BATCH_SIZE] for index in indices]
    return examples, {
        "photograph": to_rgb(test.pixels[indices]),
        "truth": np.where(truth == IGNORE_INDEX, BACKGROUND, truth).astype(np.uint8),
        "prediction": np.stack(predictions),
    }


def rank_predictions(scores: Sequence[PredictionScore]) -> dict[str, PredictionScore]:
    """Return the best, the median and the worst prediction by the pet's IoU.

    Args:
        scores: The scores of all images. Those without a pet in either mask do not count, unless there are no
            others.

    Returns:
        The scores by "best", "median" and "worst". Of equal IoUs the lower image number ranks higher.
    """
    with_pet = [score for score in scores if score.iou["pet"] is not None] or scores
    ranked = sorted(with_pet, key=lambda score: (-(score.iou["pet"] or 0), score.index))
    return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}


@torch.no_grad()
def predict_classes(
    network: nn.Module, preprocessing: Preprocessing, output: Output, pixels: np.ndarray, first: int = 0
) -> np.ndarray:
    """Predict the class of every pixel of images (N, C, H, W) uint8: (N, H, W) uint8.

    Args:
        network: A segmentation network.
        preprocessing: Its preprocessing.
        output: What its output means.
        pixels: Images at the size of its input.
        first: Number of the first image, for messages.

    Raises:
        UserError: The output has no scores of pixels, or scores that are NaN or infinite.
    """
    x = preprocessing(torch.from_numpy(pixels).to(build.get_device(network)))
    scores = output.select_scores(network(x), len(pixels))
    if scores is None:
        raise UserError(
            f"the network's output on a batch of {len(pixels)} images has no scores of their pixels"
        )
    check_scores_finite(scores, first)
    classes: np.ndarray = resize_scores(scores, pixels.shape[2:]).argmax(1).to(torch.uint8).cpu().numpy()
    return classes


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return images as RGB with the channels last, (N, H, W, 3).

    Args:
        pixels: Images of one or three channels, (N, C, H, W).
    """
    return np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])).transpose(0, 2, 3, 1)
