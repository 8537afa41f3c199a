"""What the output of a network means: decided from what it computed, or set in the config."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.models.output_choice import ClassCounts, find_training_output
from convatlas.models.output_kinds import decide_output
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing

CLASSES = 5
UNKNOWN, KNOWN = ClassCounts(), ClassCounts(CLASSES, CLASSES)


class Net(nn.Module):
    """A network with the layers that the cases below build their outputs from.

    Args:
        compute_outputs: From the network, the maps of two convolutions and the mean maps of the second.
    """

    def __init__(self, compute_outputs: Callable[..., Any]) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.scores, self.other, self.one = nn.Linear(8, CLASSES), nn.Linear(8, 4), nn.Linear(8, 1)
        self.pixels, self.pixel = nn.Conv2d(8, CLASSES, 1), nn.Conv2d(8, 1, 1)
        self.compute_outputs = compute_outputs

    def forward(self, x: Tensor) -> Any:
        early = self.conv1(x).relu()
        late = self.conv2(early).relu()
        return self.compute_outputs(self, early, late, late.mean((2, 3)))


def decide(
    compute_outputs: Callable[..., Any], counts: ClassCounts = UNKNOWN, **settings: Any
) -> tuple[str, str]:
    """Return the kind and path of a network's output."""
    output = decide_with_reason(compute_outputs, counts, **settings)
    return output.kind, output.path


def decide_with_reason(
    compute_outputs: Callable[..., Any], counts: ClassCounts = UNKNOWN, **settings: Any
) -> Output:
    torch.manual_seed(0)
    preprocessing = Preprocessing(16, (0.5,) * 3, (0.25,) * 3)
    settings_of_network: Any = settings
    return decide_output(
        Net(compute_outputs).eval(), preprocessing, settings_of_network, counts, "networks.own"
    )


def attend(net: Net, early: Tensor, late: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores of a weighted mean of positions, and the weights."""
    weights = late.mean(1).flatten(1).softmax(1)
    return net.scores((late.flatten(2) * weights[:, None]).sum(2)), weights


@pytest.mark.parametrize(
    ("compute_outputs", "kind"),
    [
        (lambda net, early, late, mean: net.scores(mean), "softmax"),
        (lambda net, early, late, mean: net.scores(mean).squeeze(), "softmax"),
        (lambda net, early, late, mean: net.pixels(mean[:, :, None, None]), "softmax"),
        (lambda net, early, late, mean: net.scores(mean).softmax(1), "probabilities"),
        (lambda net, early, late, mean: net.scores(mean).detach().softmax(1), "probabilities"),
        (lambda net, early, late, mean: net.scores(mean).log_softmax(1), "log-softmax"),
        (lambda net, early, late, mean: net.scores(mean).sigmoid(), "independent-probabilities"),
        (
            lambda net, early, late, mean: torch.cat([net.one(mean).sigmoid()] * 3, 1).clone().flatten(),
            "independent-probabilities",
        ),
        (lambda net, early, late, mean: net.one(mean), "sigmoid"),
        (lambda net, early, late, mean: net.one(mean)[0, 0], "sigmoid"),
        (lambda net, early, late, mean: net.one(mean).sigmoid(), "independent-probabilities"),
        (lambda net, early, late, mean: net.other(mean).softmax(1)[:, 1], "independent-probabilities"),
        (lambda net, early, late, mean: net.pixels(late).softmax(1), "probabilities"),
        (lambda net, early, late, mean: {"out": net.pixels(late)}, "softmax"),
        # Not scores of classes, as far as can be known
        (lambda net, early, late, mean: net.one(mean).softmax(1), "none"),
        (lambda net, early, late, mean: net.scores(mean).detach().sigmoid(), "none"),
        (lambda net, early, late, mean: F.normalize(net.scores(mean)), "none"),
        (lambda net, early, late, mean: net.scores(mean).tanh(), "none"),
        (lambda net, early, late, mean: net.scores(mean).argmax(1), "none"),
        (lambda net, early, late, mean: net.pixel(late).sigmoid(), "none"),
        (lambda net, early, late, mean: late.flatten(2), "none"),
        (lambda net, early, late, mean: "text", "none"),
    ],
)
def test_the_kind_of_a_networks_output(compute_outputs: Callable[..., Any], kind: str) -> None:
    assert decide(compute_outputs)[0] == kind


@pytest.mark.parametrize(
    ("compute_outputs", "kind", "shape"),
    [
        (lambda net, early, late, mean: net.pixels(late), "softmax", (CLASSES, 16, 16)),
        (
            lambda net, early, late, mean: net.pixels(late[:, :, ::4, ::4]).sigmoid(),
            "independent-probabilities",
            (CLASSES, 4, 4),
        ),
        (lambda net, early, late, mean: net.scores(mean).relu(), "softmax", (CLASSES,)),
    ],
)
def test_scores_that_are_as_many_as_the_classes(
    compute_outputs: Callable[..., Any], kind: str, shape: tuple[int, ...]
) -> None:
    output = decide_with_reason(compute_outputs, KNOWN)
    assert (output.kind, output.shape) == (kind, shape)
    assert decide(compute_outputs)[0] == "none"


def test_one_score_for_two_classes_and_squeezed_scores_of_pixels() -> None:
    one = decide_with_reason(lambda net, early, late, mean: net.one(mean), ClassCounts(2))
    assert (one.kind, one.reason) == ("sigmoid", "one score")
    mask = decide_with_reason(lambda net, early, late, mean: net.pixel(late).squeeze(), ClassCounts(None, 2))
    assert (mask.kind, mask.shape) == ("sigmoid", (1, 16, 16))


BOXES = {"boxes": torch.rand(2, 4), "scores": torch.rand(2), "labels": torch.ones(2).int()}


@pytest.mark.parametrize(
    ("compute_outputs", "kind", "path"),
    [
        # Named
        (
            lambda net, early, late, mean: {"hidden": late, "logits": net.scores(mean)},
            "softmax",
            "logits",
        ),
        (lambda net, early, late, mean: {"aux": early, "out": net.pixels(late)}, "softmax", "out"),
        # The only one
        (lambda net, early, late, mean: (None, [net.scores(mean)], mean.mean()), "softmax", "1.0"),
        # Features and attention, from which the scores were computed
        (lambda net, early, late, mean: (mean, net.scores(mean)), "softmax", "1"),
        (lambda net, early, late, mean: (net.scores(mean), late), "softmax", "0"),
        (attend, "softmax", "0"),
        # Probabilities, beside boxes (MTCNN) or the logits themselves
        (
            lambda net, early, late, mean: (net.other(mean), net.scores(mean).softmax(1)),
            "probabilities",
            "1",
        ),
        (lambda net, early, late, mean: (x := net.scores(mean), x.softmax(1)), "probabilities", "1"),
        # Auxiliary outputs of earlier layers
        (
            lambda net, early, late, mean: (net.scores(mean), net.scores(early.mean((2, 3)))),
            "softmax",
            "0",
        ),
        (
            lambda net, early, late, mean: [net.scores(early.mean((2, 3))), net.scores(mean)],
            "softmax",
            "1",
        ),
        # Several that may be meant
        (lambda net, early, late, mean: (net.other(mean), net.scores(mean)), "none", ""),
        (lambda net, early, late, mean: (net.scores(mean), net.scores(mean)), "none", ""),
        (lambda net, early, late, mean: net.other(mean).chunk(2, 1), "none", ""),
        (lambda net, early, late, mean: (x := net.scores(mean), x.amax(1, True)), "none", ""),
        # Detections and features
        (lambda net, early, late, mean: [BOXES], "none", ""),
        (lambda net, early, late, mean: ([BOXES], {}), "none", ""),
        (lambda net, early, late, mean: BOXES, "none", ""),
        (lambda net, early, late, mean: {name: x[:1] for name, x in BOXES.items()}, "none", ""),
        (
            lambda net, early, late, mean: {"boxes": torch.rand(5, 4), "logits": net.scores(mean)[0]},
            "none",
            "",
        ),
        # One box of the image, beside its scores
        (
            lambda net, early, late, mean: {"boxes": net.other(mean), "logits": net.scores(mean)},
            "softmax",
            "logits",
        ),
        (
            lambda net, early, late, mean: {"boxes": net.other(mean), "scores": net.scores(mean)},
            "softmax",
            "scores",
        ),
        (lambda net, early, late, mean: {"last_hidden_state": late, "pooler_output": mean}, "none", ""),
    ],
)
def test_the_main_tensor_of_several(compute_outputs: Callable[..., Any], kind: str, path: str) -> None:
    assert decide(compute_outputs) == (kind, path)


def test_the_only_tensor_with_as_many_scores_as_classes_is_the_main_one() -> None:
    def compute_outputs(net: Net, early: Tensor, late: Tensor, mean: Tensor) -> Any:
        return net.other(mean).softmax(1), net.scores(mean), late

    assert decide(compute_outputs, KNOWN) == ("softmax", "1")
    assert decide(compute_outputs, ClassCounts(4)) == ("probabilities", "0")


def test_where_several_tensors_may_be_meant_the_reason_names_them() -> None:
    output = decide_with_reason(lambda net, early, late, mean: (net.other(mean), net.scores(mean)))
    assert "2 of the tensors" in output.reason
    assert "0 (1, 4), 1 (1, 5)" in output.reason
    assert "output: {path: 0}" in output.reason


# Settings


@pytest.mark.parametrize("path", [1, "1"])
def test_the_config_names_the_main_tensor_and_its_kind(path: Any) -> None:
    def compute_outputs(net: Net, early: Tensor, late: Tensor, mean: Tensor) -> Any:
        return net.other(mean), (net.scores(mean), late)

    assert decide(compute_outputs, path="0") == ("softmax", "0")
    assert decide(compute_outputs, path=1.0, kind="multi-label") == ("multi-label", "1.0")
    assert decide(compute_outputs, kind="none") == ("none", "")
    assert decide(lambda net, early, late, mean: (early, net.pixels(late)), path=path)[0] == "softmax"


@pytest.mark.parametrize(
    ("compute_outputs", "settings", "message"),
    [
        (
            lambda net, early, late, mean: {"logits": net.scores(mean), "maps": (late, early)},
            {"path": "logit"},
            r"networks\.own\.output\.path: .*no tensor 'logit'; did you mean 'logits'\? there are: "
            r"logits \(1, 5\), maps\.0 \(1, 8, 16, 16\), maps\.1 \(1, 8, 16, 16\)",
        ),
        (lambda net, early, late, mean: net.scores(mean), {"path": "0"}, r"a single tensor .*\(1, 5\)"),
        (lambda net, early, late, mean: late.flatten(2), {"kind": "softmax"}, r"the shape \(1, 8, 256\)"),
        (
            lambda net, early, late, mean: (net.scores(mean), net.scores(mean)),
            {"kind": "softmax"},
            r"networks\.own\.output: 2 of the tensors.*path: 0",
        ),
        (lambda net, early, late, mean: net.one(mean), {"kind": "softmax"}, "always 1.* sigmoid"),
        (lambda net, early, late, mean: net.scores(mean), {"kind": "sigmoid"}, "5 scores.* multi-label"),
        (lambda net, early, late, mean: net.scores(mean), {"kind": "probabilities"}, "not in 0..1 with"),
        (lambda net, early, late, mean: net.scores(mean), {"kind": "log-softmax"}, "do not sum to 1"),
        (
            lambda net, early, late, mean: net.scores(mean),
            {"kind": "independent-probabilities"},
            "not in 0..1; give multi-label",
        ),
        (lambda net, early, late, mean: net.scores(mean).softmax(1), {"kind": "softmax"}, "already"),
        (lambda net, early, late, mean: net.scores(mean).sigmoid(), {"kind": "multi-label"}, "already"),
    ],
)
def test_settings_that_the_output_contradicts_are_errors(
    compute_outputs: Callable[..., Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        decide(compute_outputs, **settings)


# Training mode


def test_in_training_mode_the_scores_are_those_behind_most_layers() -> None:
    class Auxiliary(Net):
        def forward(self, x: Tensor) -> Any:
            outputs = super().forward(x)
            return outputs if self.training else outputs[1]

    network = Auxiliary(
        lambda net, early, late, mean: (net.scores(early.mean((2, 3))), net.scores(mean), late)
    )
    outputs = network(torch.rand(2, 3, 16, 16))
    assert find_training_output(Output("softmax", "", (CLASSES,), CLASSES), outputs, 2).path == "1"
    named = {"aux": outputs[0], "logits": outputs[1]}
    assert find_training_output(Output("softmax", "", (CLASSES,), CLASSES), named, 2).path == "logits"
    same = Output("softmax", "logits", (CLASSES,), CLASSES)
    assert find_training_output(same, named, 2) is same
