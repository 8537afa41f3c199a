"""The loss of scores of each kind, against that of the probabilities that they mean."""

from typing import Any

import pytest
import torch
from torch import Tensor

from convatlas.datasets.base import IGNORE_INDEX
from convatlas.training.losses import compute_loss

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
LABELS = torch.tensor([0, 3, 1, 0, 2, 2])
IS_KNOWN = torch.arange(6) != 3  # of pixels


def negative_log_likelihood(probabilities: Tensor) -> Tensor:
    return -probabilities[torch.arange(6), LABELS].log()


def binary_cross_entropy(probabilities: Tensor) -> Tensor:
    is_class = LABELS[:, None] == torch.arange(4)
    return -torch.where(is_class, probabilities, 1 - probabilities).log().mean(1)


@pytest.mark.parametrize(
    ("kind", "scores", "expected"),
    [
        ("softmax", LOGITS, negative_log_likelihood(LOGITS.softmax(1))),
        ("log-softmax", LOGITS.log_softmax(1), negative_log_likelihood(LOGITS.softmax(1))),
        ("probabilities", LOGITS.softmax(1), negative_log_likelihood(LOGITS.softmax(1))),
        ("multi-label", LOGITS, binary_cross_entropy(LOGITS.sigmoid())),
        ("independent-probabilities", LOGITS.sigmoid(), binary_cross_entropy(LOGITS.sigmoid())),
    ],
)
def test_the_loss_of_each_kind(kind: Any, scores: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(compute_loss(scores, LABELS, kind), expected.mean())
    pixels, masks = scores.T.reshape(1, 4, 2, 3), LABELS.where(IS_KNOWN, IGNORE_INDEX).reshape(1, 2, 3)
    torch.testing.assert_close(compute_loss(pixels, masks, kind), expected[IS_KNOWN].mean())


@pytest.mark.parametrize("kind", ["softmax", "probabilities", "multi-label"])
def test_an_image_of_class_255_counts(kind: Any) -> None:
    """255 is an unknown class of a mask's pixels alone."""
    scores = torch.full((1, 300), 0.5)
    assert compute_loss(scores, torch.tensor([255]), kind) == compute_loss(scores, torch.tensor([254]), kind)


def test_a_probability_of_zero_has_a_finite_loss() -> None:
    assert compute_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), "probabilities").isfinite()
