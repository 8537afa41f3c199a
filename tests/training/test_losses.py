"""The loss of scores of each kind, against that of the probabilities that they mean."""

from typing import Any

import pytest
import torch
from torch import Tensor

from convatlas.datasets.base import IGNORE_INDEX
from convatlas.training.losses import compute_loss

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
LABELS = torch.tensor([0, 3, 1, IGNORE_INDEX, 2, 2])
IS_KNOWN = LABELS != IGNORE_INDEX


def negative_log_likelihood(probabilities: Tensor) -> Tensor:
    rows = torch.arange(6)[IS_KNOWN]
    return -probabilities[rows, LABELS[IS_KNOWN]].log().mean()


def binary_cross_entropy(probabilities: Tensor) -> Tensor:
    is_class = LABELS[IS_KNOWN, None] == torch.arange(4)
    known = probabilities[IS_KNOWN]
    return -torch.where(is_class, known, 1 - known).log().mean()


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
    torch.testing.assert_close(compute_loss(scores, LABELS, kind), expected)
    pixels = scores.T.reshape(1, 4, 2, 3)
    torch.testing.assert_close(compute_loss(pixels, LABELS.reshape(1, 2, 3), kind), expected)


def test_a_probability_of_zero_has_a_finite_loss() -> None:
    assert compute_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), "probabilities").isfinite()
