"""Evaluation of classifiers and segmentation networks: over a split, and image by image."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.models.build import get_device, to_device
from convatlas.models.memory_format import choose_input_format
from convatlas.models.output_choice import find_training_output, format_tensors
from convatlas.models.outputs import LOGITS, Output, list_tensors, resize_scores
from convatlas.models.preprocessing import Preprocessing
from convatlas.training.labelled_images import LabelledImages
from convatlas.training.losses import compute_loss, find_known

EVALUATION_BATCH_SIZE = 500  # images at once in the evaluation of a classifier


class NonFiniteScoresError(UserError):
    """A network gives scores of classes that are NaN or infinite."""


@dataclass(frozen=True)
class ImageResults:
    """What a network predicts for each image of a split, on the CPU.

    Attributes:
        confusion: Counts of all images or pixels (classes, classes); rows are true classes, columns
            predicted ones.
        losses: The loss of each image, (N,) float32; NaN where no pixel has a known class.
        predictions: The predicted class of each image, (N,) int64; None of a segmentation network.
        probabilities: Its probability, (N,) float32; None of a segmentation network.
        intersections: Pixels of each image that are of a class and predicted as it, (N, classes) int64;
            None of a classifier.
        unions: Pixels that are of a class or predicted as it, (N, classes) int64; None of a classifier.
    """

    confusion: Tensor
    losses: Tensor
    predictions: Tensor | None = None
    probabilities: Tensor | None = None
    intersections: Tensor | None = None
    unions: Tensor | None = None


@torch.no_grad()
def evaluate(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: LabelledImages,
    precision: str = "float32",
    batch_size: int = EVALUATION_BATCH_SIZE,
    memory_format: torch.memory_format | None = None,
    output: Output = LOGITS,
) -> tuple[float, Tensor]:
    """Evaluate a network on labelled images.

    Args:
        network: The network, which is left in evaluation mode.
        preprocessing: Its preprocessing.
        split: The images.
        precision: "float32" or "bfloat16", in which the forward pass is computed.
        batch_size: Images at once.
        memory_format: The memory format of the network's inputs; by default channels last, if it runs on
            them.
        output: What the network's output means.

    Returns:
        The mean loss per image, and the counts (classes, classes) of images or pixels with a known
        class; rows are true classes, columns predicted ones.

    Raises:
        NonFiniteScoresError: The scores of an image are NaN or +∞, and predict no class.
    """
    network.eval()
    memory_format = memory_format or choose_input_format(network, preprocessing.shape)
    loss, confusion, image_count = 0.0, torch.zeros(0), 0
    order = torch.arange(len(split))
    for images, targets in iterate_batches(split, batch_size, order, get_device(network)):
        labels = targets.long()
        scores = compute_scores(network, preprocessing, images, precision, memory_format, output)
        scores = resize_scores(scores, labels.shape[1:])
        mean = float(compute_loss(scores, labels, output.score_kind))
        if not math.isfinite(mean):
            check_scores_finite(scores, image_count)
        image_count += len(images)
        loss += mean * len(images)
        counts = _count_confusion(scores, labels)
        confusion = confusion + counts if confusion.numel() else counts
    return loss / len(split), confusion


@torch.no_grad()
def evaluate_images(
    network: nn.Module,
    preprocessing: Preprocessing,
    split: LabelledImages,
    batch_size: int = EVALUATION_BATCH_SIZE,
    output: Output = LOGITS,
) -> ImageResults:
    """Evaluate a network on each of the labelled images, in one pass and in float32.

    Args:
        network: The network, which is left in evaluation mode.
        preprocessing: Its preprocessing.
        split: The images.
        batch_size: Images at once.
        output: What the network's output means.

    Returns:
        What it predicts, in the order of the images.

    Raises:
        NonFiniteScoresError: The scores of an image are NaN or +∞, and predict no class.
    """
    network.eval()
    memory_format = choose_input_format(network, preprocessing.shape)
    batches: list[ImageResults] = []
    order = torch.arange(len(split))
    for images, targets in iterate_batches(split, batch_size, order, get_device(network)):
        labels = targets.long()
        scores = compute_scores(network, preprocessing, images, "float32", memory_format, output)
        scores = resize_scores(scores, labels.shape[1:])
        check_scores_finite(scores, batch_size * len(batches))
        batches.append(_measure_batch(scores, labels, output))
    return _join_batches(batches)


def _measure_batch(scores: Tensor, labels: Tensor, output: Output) -> ImageResults:
    """Measure what the scores of a batch of images predict.

    Args:
        scores: Scores (n, classes), or (n, classes, H, W) of pixels.
        labels: Classes (n,), or (n, H, W) of pixels, int64.
        output: What the network's output means.
    """
    pairs = list(zip(scores[:, None], labels[:, None], strict=True))
    losses = torch.stack([compute_loss(*pair, output.score_kind) for pair in pairs]).cpu()
    if labels.ndim == 1:
        predictions = scores.argmax(1)
        probabilities = output.compute_probabilities(scores).gather(1, predictions[:, None])[:, 0]
        return ImageResults(_count_confusion(scores, labels), losses, predictions.cpu(), probabilities.cpu())
    confusions = torch.stack([_count_confusion(*pair) for pair in pairs])
    intersections = confusions.diagonal(dim1=1, dim2=2)
    unions = confusions.sum(1) + confusions.sum(2) - intersections
    return ImageResults(confusions.sum(0), losses, intersections=intersections, unions=unions)


def _join_batches(batches: Sequence[ImageResults]) -> ImageResults:
    """Join the results of consecutive batches."""

    def join(name: str) -> Tensor | None:
        parts = [part for batch in batches if (part := getattr(batch, name)) is not None]
        return torch.cat(parts) if parts else None

    confusion = torch.stack([batch.confusion for batch in batches]).sum(0)
    losses = torch.cat([batch.losses for batch in batches])
    names = ("predictions", "probabilities", "intersections", "unions")
    return ImageResults(confusion, losses, *map(join, names))


def _count_confusion(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the counts (classes, classes) of images or pixels with a known class, on the CPU.

    Args:
        scores: Scores (n, classes), or (n, classes, H, W) of pixels.
        labels: Classes (n,), or (n, H, W) of pixels, int64.
    """
    classes = scores.shape[1]
    cells = (labels * classes + scores.argmax(1))[find_known(labels)].flatten()
    return torch.bincount(cells, minlength=classes * classes).cpu().reshape(classes, classes)


def check_scores_finite(scores: Tensor, first: int) -> None:
    """Raise NonFiniteScoresError where the largest score of an image or a pixel is NaN or infinite.

    Args:
        scores: Scores (n, classes, ...).
        first: Number of the first image.

    Raises:
        NonFiniteScoresError: With the number of the image.
    """
    is_valid = scores.amax(1).isfinite().reshape(len(scores), -1).all(1)
    if not is_valid.all():
        image = first + int(is_valid.int().argmin())
        raise NonFiniteScoresError(f"the scores of image {image} are NaN or infinite")


def compute_scores(
    network: nn.Module,
    preprocessing: Preprocessing,
    images: Tensor,
    precision: str,
    memory_format: torch.memory_format,
    output: Output,
) -> Tensor:
    """Compute a network's scores of a batch of images.

    In training mode the network may return auxiliary outputs too (GoogLeNet, Inception).

    Args:
        network: The network.
        preprocessing: Its preprocessing.
        images: Pixels (N, C, H, W), uint8 or float32 in 0..255.
        precision: "float32" or "bfloat16", in which the forward pass is computed.
        memory_format: The memory format of the network's inputs.
        output: What the network's output means.

    Returns:
        Scores (N, classes), or (N, classes, h, w) of pixels, float32.

    Raises:
        UserError: The output has no scores of each image.
    """
    x = preprocessing(images).to(memory_format=memory_format)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = network(x)
    if network.training:
        output = find_training_output(output, outputs, len(images))
    scores = output.select_scores(outputs, len(images))
    if scores is None:
        raise UserError(
            f"the network's output on a batch of {len(images)} images has no class scores of each image: it "
            f"returns {format_tensors(list_tensors(outputs))}; let its forward() keep the batch axis"
        )
    return scores.float()


def iterate_batches(
    split: LabelledImages, size: int, order: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of images and labels.

    Args:
        split: The images.
        size: Images of a batch; the last one may have fewer.
        order: Indices of the images in their order, (N,) int64.
        device: Where the batches are needed.
    """
    for start in range(0, len(order), size):
        batch = split[order[start : start + size].to(split.indices.device)]
        yield to_device(batch.images, device), to_device(batch.labels, device)
