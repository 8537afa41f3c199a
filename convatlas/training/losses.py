"""The loss of a network's scores of classes, by what they mean."""

import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas.datasets.base import IGNORE_INDEX
from convatlas.records import OutputKind


def compute_loss(scores: Tensor, labels: Tensor, kind: OutputKind) -> Tensor:
    """Return the mean loss of scores: the cross-entropy, or a binary one of each of independent classes.

    Args:
        scores: Scores (N, classes), or (N, classes, H, W) of pixels, float32.
        labels: Classes (N,), or (N, H, W) of pixels, int64; pixels that are IGNORE_INDEX do not count.
        kind: How the scores are read.
    """
    ignored = IGNORE_INDEX if labels.ndim > 1 else -100  # no label of an image
    if kind in ("softmax", "log-softmax"):
        return F.cross_entropy(scores, labels, ignore_index=ignored)
    smallest = torch.finfo(scores.dtype).tiny  # the logarithm of 0 is infinite
    if kind == "probabilities":
        return F.nll_loss(scores.clamp_min(smallest).log(), labels, ignore_index=ignored)
    is_known = find_known(labels)
    known_scores = scores.movedim(1, -1)[is_known]
    targets = F.one_hot(labels[is_known], scores.shape[1]).to(scores.dtype)
    if kind == "independent-probabilities":
        return -torch.where(targets > 0, known_scores, 1 - known_scores).clamp_min(smallest).log().mean()
    return F.binary_cross_entropy_with_logits(known_scores, targets)


def find_known(labels: Tensor) -> Tensor:
    """Return where a class is known: of every image, and of pixels that are not IGNORE_INDEX.

    Args:
        labels: Classes (N,), or (N, H, W) of pixels, int64.

    Returns:
        Booleans of the same shape.
    """
    return labels != IGNORE_INDEX if labels.ndim > 1 else torch.ones_like(labels, dtype=torch.bool)
