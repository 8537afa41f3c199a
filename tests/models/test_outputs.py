"""The tensors in a network's output, and the scores and probabilities in its main one."""

import types
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from convatlas.models.outputs import LOGITS, Output, list_tensors, resize_scores

SCORES = torch.tensor([[1.0, 3.0, -2.0]])
PROBABILITIES = SCORES[0].softmax(0)
Named = namedtuple("Named", ["loss", "scores"])


@dataclass
class Prediction:
    """As networks return that compute a loss where there are labels."""

    loss: Tensor | None
    logits: Tensor


@pytest.mark.parametrize(
    ("outputs", "path"),
    [
        (SCORES, ""),
        ((None, SCORES), "1"),
        ([torch.tensor(0.5), (1, SCORES)], "1.1"),
        (Named(None, SCORES), "scores"),
        (Prediction(None, SCORES), "logits"),
        (OrderedDict(loss=None, out={"scores": SCORES}), "out.scores"),
        (types.SimpleNamespace(text="text", head=(SCORES,)), "head.0"),
        ({0: SCORES}, "0"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_tensors_are_listed_by_their_paths(outputs: Any, path: str) -> None:
    assert list_tensors(outputs)[path] is SCORES
    assert torch.equal(Output("softmax", path, (3,), 3).predict(outputs), PROBABILITIES)


@pytest.mark.parametrize("outputs", [None, "text", [], {}, 3.0, {"a": None}])
def test_outputs_without_tensors(outputs: Any) -> None:
    assert list_tensors(outputs) == {}
    assert LOGITS.predict(outputs) is None


def test_an_output_that_contains_itself_has_an_end() -> None:
    outputs: dict[str, Any] = {"scores": SCORES}
    outputs["self"] = outputs
    assert list_tensors(outputs)["scores"] is SCORES


@pytest.mark.parametrize(
    ("shape", "images", "expected"),
    [
        ((1, 7), 1, (1, 7)),
        ((7,), 1, (1, 7)),  # of squeeze()
        ((5, 7), 5, (5, 7)),
        ((5, 7, 1, 1), 5, (5, 7)),
        ((7,), 5, None),
        ((1, 7), 5, None),
    ],
)
def test_the_shape_of_scores(shape: tuple[int, ...], images: int, expected: Any) -> None:
    output = torch.rand(shape)
    scores = Output("softmax", "", (7,), 7).select_scores(output, images)
    assert (scores is None) if expected is None else (scores.shape == expected)
    if scores is not None:
        assert torch.equal(scores.flatten(), output.flatten())


@pytest.mark.parametrize("shape", [(5, 1), (5,), (5, 1, 1, 1)])
def test_the_shape_of_single_scores(shape: tuple[int, ...]) -> None:
    assert Output("sigmoid", "", (1,), 1).select_scores(torch.rand(shape), 5).shape == (5, 1)


@pytest.mark.parametrize("shape", [(2, 1, 4, 6), (2, 4, 6)])
def test_the_shape_of_scores_of_pixels(shape: tuple[int, ...]) -> None:
    output = Output("sigmoid", "", (1, 4, 6), 1)
    assert output.select_scores(torch.rand(shape), 2).shape == (2, 1, 4, 6)
    assert output.predict(torch.rand(shape)[:1]) is None


def test_integers_and_outputs_of_another_kind_have_no_scores() -> None:
    assert LOGITS.select_scores(torch.ones(1, 3).int(), 1) is None
    assert Output("none", "", (3,)).select_scores(SCORES, 1) is None
    assert LOGITS.select_scores(torch.ones(1, 0), 1) is None


SIGMOIDS = torch.tensor([[0.9, 0.8, 0.1]])


@pytest.mark.parametrize(
    ("kind", "scores", "expected"),
    [
        ("softmax", SCORES, PROBABILITIES),
        ("log-softmax", SCORES.log_softmax(1), PROBABILITIES),
        ("probabilities", PROBABILITIES[None], PROBABILITIES),
        ("multi-label", SCORES, 1 / (1 + (-SCORES[0]).exp())),
        ("independent-probabilities", SIGMOIDS, SIGMOIDS[0]),
    ],
)
def test_probabilities_of_each_kind(kind: Any, scores: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(Output(kind, "", (3,), 3).predict(scores), expected)


@pytest.mark.parametrize("logit", [-3.0, 0.2, 1.0, 40.0])
@pytest.mark.parametrize("shape", [(1, 1), (1,), ()])
def test_the_probability_of_a_single_logit_is_its_sigmoid(logit: float, shape: tuple[int, ...]) -> None:
    expected = 1 / (1 + torch.tensor([-logit]).exp())
    output = torch.full(shape, logit)
    torch.testing.assert_close(Output("sigmoid", "", (1,), 1).predict(output), expected)
    both = torch.cat([1 - expected, expected])
    torch.testing.assert_close(Output("sigmoid", "", (1,), 2).predict(output), both)


def test_a_single_probability_tells_two_classes_apart() -> None:
    output = torch.tensor([[0.25], [0.75]])
    binary = Output("independent-probabilities", "", (1,), 2)
    assert torch.equal(binary.select_scores(output, 2), torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    assert binary.score_kind == "probabilities"


def test_scores_at_a_fraction_of_the_inputs_resolution_are_interpolated() -> None:
    output = Output("softmax", "", (2, 4, 6), 2)
    assert output.covers((16, 24))
    assert output.covers((4, 6))
    for size in ((8, 24), (3, 4), (6, 9)):  # at another ratio, smaller, and not a whole fraction
        assert not output.covers(size)
    assert not LOGITS.covers((4, 6))
    scores = torch.arange(8.0).reshape(1, 2, 2, 2)
    resized = resize_scores(scores, (4, 4))
    assert resized.shape == (1, 2, 4, 4)
    assert torch.equal(resized[..., 0, 0], scores[..., 0, 0])
    torch.testing.assert_close(resized.mean((2, 3)), scores.mean((2, 3)))
    assert resize_scores(scores, (2, 2)) is scores
