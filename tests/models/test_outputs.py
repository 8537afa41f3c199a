"""What the output of a network means."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from convatlas.models.outputs import compute_probabilities, select_class_scores, select_main_output

LOGITS = torch.tensor([[1.0, 3.0, -2.0]])
PROBABILITIES = LOGITS[0].softmax(0)
Optional = namedtuple("Optional", ["loss", "auxiliary", "scores"])


@dataclass
class Prediction:
    """As networks return that compute a loss where there are labels."""

    loss: Tensor | None
    hidden: Tensor
    logits: Tensor


@pytest.mark.parametrize(
    "outputs",
    [
        Prediction(None, torch.rand(1, 4), LOGITS),
        Prediction(torch.tensor(0.5), torch.rand(1, 4), LOGITS),
        Optional(None, None, LOGITS),
        OrderedDict(loss=torch.tensor(0.5), logits=LOGITS),
        {"features": torch.rand(1, 4), "logits": LOGITS},
        {"scores": LOGITS, "auxiliary": None},
        {"auxiliary": None, "scores": (LOGITS, None)},
        [None, Prediction(None, LOGITS, LOGITS)],
        (torch.tensor(0.5), LOGITS),
    ],
    ids=lambda outputs: type(outputs).__name__,
)
def test_the_logits_are_the_main_output(outputs: Any) -> None:
    assert select_main_output(outputs) is LOGITS


BOXES = {"boxes": torch.rand(2, 4), "labels": torch.ones(2), "scores": torch.rand(2)}


@pytest.mark.parametrize(
    "outputs",
    [
        [BOXES],
        [BOXES, BOXES],
        ([BOXES], {}),
        BOXES,
        [],
        {},
        None,
        "text",
        {"logits": None},
        torch.ones(1, 3).int(),
    ],
    ids=["list", "two", "tuple", "dict", "empty list", "empty dict", "none", "text", "only none", "integers"],
)
def test_detections_and_other_outputs_have_no_class_scores(outputs: Any) -> None:
    assert select_class_scores(outputs, images=1) is None
    assert compute_probabilities(outputs) is None


@pytest.mark.parametrize(
    ("shape", "images", "expected"),
    [
        ((1, 7), 1, (1, 7)),
        ((7,), 1, (1, 7)),  # of squeeze()
        ((), 1, (1, 1)),
        ((1,), 1, (1, 1)),
        ((5, 7), 5, (5, 7)),
        ((5,), 5, (5, 1)),
        ((7,), 5, None),
        ((), 5, None),
        ((1, 7, 4, 4), 1, None),
        ((4, 7), 1, None),
    ],
)
def test_the_shape_of_class_scores(shape: tuple[int, ...], images: int, expected: Any) -> None:
    output = torch.rand(shape)
    scores = select_class_scores(output, images)
    assert (scores is None) if expected is None else (scores.shape == expected)
    if scores is not None:
        assert torch.equal(scores.flatten(), output.flatten())


def test_probabilities_of_different_outputs() -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0]])
    expected = logits[0].softmax(0)
    for output in (logits, logits.log_softmax(1), expected[None], {"out": logits, "aux": 0}, (logits, 0)):
        torch.testing.assert_close(compute_probabilities(output), expected)
    assert compute_probabilities(torch.zeros(1, 3, 8, 8)) is None


def test_a_squeezed_output_has_the_probabilities_of_all_classes() -> None:
    torch.testing.assert_close(compute_probabilities(LOGITS.squeeze()), PROBABILITIES)


@pytest.mark.parametrize("logit", [-3.0, 0.2, 1.0, 40.0])
@pytest.mark.parametrize("shape", [(1, 1), (1,), ()])
def test_the_probability_of_a_single_logit_is_its_sigmoid(logit: float, shape: tuple[int, ...]) -> None:
    probabilities = compute_probabilities(torch.full(shape, logit))
    torch.testing.assert_close(probabilities, torch.tensor([logit]).sigmoid())


def test_the_output_of_a_sigmoid_is_a_probability_itself() -> None:
    for output in (torch.tensor([[0.3]]), torch.tensor([[0.9, 0.8, 0.1]])):
        assert torch.equal(compute_probabilities(output, ends_in_sigmoid=True), output[0])
