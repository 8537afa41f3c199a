"""Attribution methods through the public function: shapes, scores, the state of the network, errors."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.attribute import attribute, check_method
from convatlas.attribution.methods.registry import METHODS
from convatlas.models.outputs import Output


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make_network(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(
        *[nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
        nn.Linear(6 * 16, classes),
    )


def derive(network: nn.Module, x: Tensor, target: int) -> Tensor:
    """Return the gradient of a class's output by each image, one at a time."""
    x = x.clone().requires_grad_()
    return torch.stack(
        [torch.autograd.grad(network.eval()(image[None])[0, target], x)[0][n] for n, image in enumerate(x)]
    )


def test_the_gradient_is_autograds_for_each_image_and_target() -> None:
    network, x = make_network().eval(), torch.rand(3, 3, 10, 10)
    targets = torch.tensor([[0, 1], [2, 3], [3, 3]])
    maps = attribute(network, x, "gradient", targets).maps
    assert maps.shape == (3, 2, 3, 10, 10) and maps.dtype == torch.float32
    for n in range(3):
        for k in range(2):
            torch.testing.assert_close(maps[n, k], derive(network, x, int(targets[n, k]))[n])
    one = attribute(network, x[0], "gradient", [0, 1])
    assert [len(checks) for checks in one.checks] == [2]
    torch.testing.assert_close(one.maps, maps[0])


class Functional(nn.Module):
    """Ends in a function of the logits."""

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        logits = self.network(x)
        if self.kind == "log of softmax":
            return torch.log(torch.softmax(logits, 1).clamp(min=1e-9))
        if self.kind == "sigmoid in place":
            return logits.clone().sigmoid_()
        if self.kind == "log_softmax, squeezed":
            return F.log_softmax(logits[..., None, None], 1).squeeze()
        return {"features": x, "logits": logits, "probabilities": logits.softmax(1)}


@pytest.mark.parametrize(
    "end",
    [
        "softmax",
        "log_softmax",
        "sigmoid",
        "log of softmax",
        "sigmoid in place",
        "log_softmax, squeezed",
        "dict",
    ],
)
def test_the_score_is_the_logit_whatever_the_network_ends_in(end: str) -> None:
    network, x = make_network().eval(), torch.rand(2, 3, 10, 10)
    modules = {"softmax": nn.Softmax(1), "log_softmax": nn.LogSoftmax(1), "sigmoid": nn.Sigmoid()}
    ended = nn.Sequential(network, modules[end]) if end in modules else Functional(network, end)
    output = Output("log-softmax", "", (4,), 4) if "squeezed" in end else Output()
    expected = attribute(network, x, "gradient", [1, 2]).maps
    torch.testing.assert_close(attribute(ended, x, "gradient", [1, 2], output=output).maps, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_script_that_ends_in_a_softmax_gives_the_gradient_of_the_logit() -> None:
    network, x = make_network().eval(), torch.rand(1, 3, 10, 10)
    script = torch.jit.trace(nn.Sequential(network, nn.Softmax(1)), x)
    torch.testing.assert_close(
        attribute(script, x, "gradient", [1]).maps, attribute(network, x, "gradient", [1]).maps
    )


def test_one_score_of_two_classes_is_read_as_minus_and_plus_its_logit() -> None:
    network, x = make_network(1).eval(), torch.rand(2, 3, 10, 10)
    output = Output("independent-probabilities", "", (1,), 2)
    maps = attribute(nn.Sequential(network, nn.Sigmoid()), x, "gradient", [0, 1], output=output).maps
    expected = attribute(network, x, "gradient", [0]).maps[:, 0]
    torch.testing.assert_close(maps[:, 1], expected)
    torch.testing.assert_close(maps[:, 0], -expected)


def test_the_score_of_a_segmentation_is_the_sum_over_the_pixels_of_the_class() -> None:
    network, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)), torch.randn(2, 3, 9, 9)
    maps = attribute(network, x, "gradient", [0, 2]).maps
    x.requires_grad_()
    scores = network(x)
    for k, target in enumerate([0, 2]):
        mask = scores.argmax(1) == target
        (expected,) = torch.autograd.grad((scores[:, target] * mask).sum(), x, retain_graph=True)
        torch.testing.assert_close(maps[:, k], expected)


class Counting(nn.Module):
    """Changes its buffers, draws random numbers and normalises by the statistics of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)
        self.conv, self.drop = nn.Conv2d(3, 2, 8), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        torch.rand(3)
        return self.drop(self.conv(self.norm(x)).flatten(1))


def test_a_network_is_left_as_it_was_and_each_image_is_explained_alone() -> None:
    network, x = Counting().train(), torch.rand(3, 3, 8, 8)
    network.conv.weight.requires_grad_(False)
    random_state, state = torch.get_rng_state(), {n: t.clone() for n, t in network.state_dict().items()}
    maps = attribute(network, x, "gradient", [1]).maps
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, True]
    assert all(parameter.grad is None for parameter in network.parameters())
    for n in range(3):
        torch.testing.assert_close(maps[n], attribute(network, x[n], "gradient", [1]).maps)


class Single(nn.Module):
    """Takes one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 2, 3), nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.conv(x).relu().view(1, -1))
        return output


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_network_of_one_image_at_a_time_is_explained(method: str) -> None:
    network, x = Single(), torch.rand(2, 3, 8, 8)
    maps = attribute(network, x, method, [1]).maps
    for n in range(2):
        torch.testing.assert_close(maps[n], attribute(network, x[n], method, [1]).maps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gradeint"}, "no attribution method 'gradeint'; did you mean 'gradient'"),
        ({"targets": [4]}, "no class 4: the network has scores of 4, counted from 0"),
        ({"targets": 2}, r"list of class numbers, such as \[2\]"),
        ({"targets": [0.5]}, "type torch.float32"),
        ({"targets": []}, "targets has the shape"),
        ({"targets": ["tabby"]}, r"list of class numbers, such as \[0, 3\], not \['tabby'\]"),
        ({"targets": [True, False]}, "type torch.bool"),
        ({"method": "smoothgrad", "samples": 0}, "samples is an integer of 1 or more, not 0"),
        ({"method": "integrated_gradients", "steps": 2.5}, "steps is an integer of 1 or more, not 2.5"),
        ({"x": [[0.0]]}, "x is of the type list"),
        ({"samples": 3}, "'gradient' has no setting 'samples'"),
        ({"x": torch.zeros(2, 3, 10, 10, dtype=torch.uint8)}, "type torch.uint8"),
        ({"x": torch.zeros(2, 5, 10, 10)}, "does not take an input of shape"),
        ({"output": Output("none", reason="its output is a vector")}, "no scores of classes: its output is"),
        ({"output": Output(path="out")}, "no scores of classes at 'out'"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(arguments: dict[str, object], message: str) -> None:
    chosen = {"x": torch.rand(2, 3, 10, 10), "method": "gradient", "targets": [0], **arguments}
    with pytest.raises(UserError, match=message):
        attribute(make_network(), **chosen)  # type: ignore[arg-type]


def test_values_that_are_not_finite_are_refused_with_their_cause() -> None:
    network, x = make_network(), torch.rand(2, 3, 10, 10)
    with pytest.raises(UserError, match="score of class 1 for image 1 is nan"):
        attribute(network, torch.stack([x[0], x[1] * torch.nan]), "gradient", [1])
    with torch.no_grad():
        network[0].weight[0] = torch.nan
    with pytest.raises(UserError, match=r"weights of the network are NaN or infinite: 0.weight"):
        attribute(network, x, "gradient", [1])


def test_a_network_without_scores_of_classes_is_named_before_any_job() -> None:
    x = torch.zeros(3, 10, 10)
    assert check_method(make_network(), x, "gradient") is None
    reason = check_method(make_network(), x, "gradient", Output("none", reason="its output is an image"))
    assert reason == "the network has no scores of classes: its output is an image"
