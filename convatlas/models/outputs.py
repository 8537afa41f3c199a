"""What the output of a network means: its main tensor, the scores of classes, and their probabilities."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def select_main_output(outputs: Any) -> Any:
    """Return the main output of a network that gives several: `out`, `logits`, or the first tensor.

    None and single numbers, such as a loss, are not considered. Detections have no main output: lists of
    dicts, or boxes.

    Args:
        outputs: What the network's forward pass returned: a tensor, or mappings, dataclasses, tuples or lists
            of outputs.

    Returns:
        A tensor; or, where there is none, an output that is not a tensor.
    """
    while parts := _get_parts(outputs):
        is_list = isinstance(outputs, tuple | list)
        if "boxes" in parts or (is_list and all(isinstance(part, dict) for part in parts.values())):
            return outputs
        outputs = next(
            (parts[name] for name in ("out", "logits") if name in parts), next(iter(parts.values()))
        )
    return outputs


def _get_parts(outputs: Any) -> dict[str, Any]:
    """Return the parts of an output by name, or by number; none of a tensor."""
    parts: dict[str, Any] = {}
    if isinstance(outputs, Mapping):
        parts = {str(name): part for name, part in outputs.items()}
    elif isinstance(outputs, tuple | list):
        names = getattr(outputs, "_fields", range(len(outputs)))  # of a named tuple
        parts = {str(name): part for name, part in zip(names, outputs, strict=True)}
    elif is_dataclass(outputs):
        parts = {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    return {
        name: part
        for name, part in parts.items()
        if part is not None and not (isinstance(part, Tensor) and part.ndim == 0)
    }


def select_class_scores(outputs: Any, images: int) -> Tensor | None:
    """Return the scores of classes in a network's output.

    Args:
        outputs: What the network's forward pass returned. Its main output is (N, classes); (N,) of a single
            class; or without axes of size 1, which `squeeze()` removes.
        images: Number N of the images in the batch.

    Returns:
        The scores (N, classes); None where the output is not a classifier's.
    """
    scores = select_main_output(outputs)
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        return None
    if scores.ndim < 2 and images == 1:
        scores = scores.reshape(1, -1)
    elif scores.ndim == 1:
        scores = scores[:, None]
    return scores if scores.ndim == 2 and len(scores) == images else None


def predict_classes(scores: Tensor) -> Tensor:
    """Return the class of the highest score of each image.

    Args:
        scores: The scores of classes, (N, classes).

    Returns:
        Numbers of classes, (N,) int64; −1 where the scores give no prediction, since one is NaN or +∞, or all
        are −∞. Some may be −∞, as the logarithm of zero is.
    """
    largest = scores.amax(1)  # NaN where any is
    return scores.argmax(1).where(largest.isfinite(), -1)


def compute_probabilities(outputs: Any, ends_in_sigmoid: bool = False) -> Tensor | None:
    """Return the probabilities of the classes from a network's output for one image.

    Logits and log-probabilities go through the softmax, a single logit through the sigmoid. Probabilities are
    returned as they are: those with the sum 1, and sigmoids, each of which is independent of the others.

    Args:
        outputs: What the network returned: (1, classes), or a container with it.
        ends_in_sigmoid: Whether the network's last layer is a sigmoid.

    Returns:
        Probabilities (classes,) float32; None where the output is not a classifier's, or does not give
        probabilities because a score is NaN or +∞. A score of −∞ is the logarithm of zero.
    """
    batch_scores = select_class_scores(outputs, images=1)
    if batch_scores is None or not batch_scores.numel():
        return None
    scores = batch_scores[0].float()
    if predict_classes(batch_scores) < 0:
        return None
    if ends_in_sigmoid:
        return scores
    if len(scores) == 1:
        return scores.sigmoid()
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < 1e-4:
        return scores
    return scores.softmax(0)
