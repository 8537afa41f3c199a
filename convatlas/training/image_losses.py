"""The loss of each image of a batch, which training does not need."""

import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas.records import OutputKind
from convatlas.training.losses import find_known


def compute_image_losses(scores: Tensor, labels: Tensor, kind: OutputKind) -> Tensor:
    """Return the loss of the scores of each image, as `compute_loss` of that image alone.

    Args:
        scores: Scores (N, classes), or (N, classes, H, W) of pixels, float32.
        labels: Classes (N,), or (N, H, W) of pixels, int64; pixels that are IGNORE_INDEX do not count.
        kind: How the scores are read.

    Returns:
        (N,); NaN where no pixel has a known class.
    """
    is_known = find_known(labels)
    known_labels = labels.where(is_known, 0)
    smallest = torch.finfo(scores.dtype).tiny
    if kind in ("softmax", "log-softmax"):
        losses = F.cross_entropy(scores, known_labels, reduction="none")
    elif kind == "probabilities":
        losses = F.nll_loss(scores.clamp_min(smallest).log(), known_labels, reduction="none")
    else:
        targets = F.one_hot(known_labels, scores.shape[1]).movedim(-1, 1).to(scores.dtype)
        if kind == "independent-probabilities":
            losses = -torch.where(targets > 0, scores, 1 - scores).clamp_min(smallest).log().mean(1)
        else:
            losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none").mean(1)
    if labels.ndim == 1:
        return losses
    return losses.where(is_known, 0).flatten(1).sum(1) / is_known.flatten(1).sum(1)
