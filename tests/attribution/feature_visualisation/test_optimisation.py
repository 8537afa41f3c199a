"""The ascent on images: its optimum, its independence of the batch, dead starts, and what noise reaches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.class_scores import ClassScores
from convatlas.attribution.feature_visualisation import optimisation
from convatlas.attribution.feature_visualisation.adam import LEARNING_RATE, Adam
from convatlas.attribution.feature_visualisation.dead_starts import open_rectifiers
from convatlas.attribution.feature_visualisation.objectives import ClassObjective, LayerObjective, Objective
from convatlas.attribution.feature_visualisation.optimisation import Optimiser
from convatlas.models.preprocessing import Preprocessing

CPU = torch.device("cpu")
GREY = Preprocessing((8, 8), (0.0,), (1.0,))
RGB = Preprocessing((16, 16), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def seeded(*layers: nn.Module) -> nn.Sequential:
    """Return a network with reproducible weights."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(*layers)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return network.eval().requires_grad_(False)


def make_rgb_network() -> nn.Sequential:
    return seeded(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.ReLU(inplace=True))


def make_optimiser(
    objective: Objective, preprocessing: Preprocessing, steps: int, **changes: object
) -> Optimiser:
    optimiser = Optimiser(objective, preprocessing, CPU, preprocessing.shape[1:], steps)  # type: ignore[arg-type]
    return replace(optimiser, **changes)  # type: ignore[arg-type]


def test_a_linear_unit_reaches_its_known_optimum() -> None:
    network = seeded(nn.Conv2d(1, 2, 8, bias=False))
    images = make_optimiser(LayerObjective(network, "0"), GREY, 200, robust=False)([0, 1])
    weights = network[0].weight.numpy()[:, 0]
    best = np.maximum(weights, 0).sum((1, 2))  # of pixels in 0..1: 1 where the weight is positive, else 0
    assert images.objectives == pytest.approx(best, rel=0.08)
    agreeing = np.abs(weights)[(images.images[:, 0] > 0.5) == (weights > 0)]
    assert agreeing.sum() > 0.97 * np.abs(weights).sum()
    assert np.all(images.control_objectives < images.objectives)
    assert np.all(images.curves[:, -1] > images.curves[:, 0])


@pytest.mark.parametrize("layer", ["3", "4"])
def test_a_unit_gives_the_same_image_in_a_batch_as_alone_and_again(layer: str) -> None:
    optimiser = make_optimiser(LayerObjective(make_rgb_network(), layer), RGB, 12)
    together, alone = optimiser([0, 3, 4]), optimiser([3])
    np.testing.assert_allclose(together.images[1], alone.images[0], atol=1e-4)
    np.testing.assert_allclose(together.curves[1], alone.curves[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(optimiser([0, 3, 4]).images, together.images)
    assert np.abs(replace(optimiser, seed=1)([3]).images - alone.images).max() > 0.01
    assert np.abs(replace(optimiser, start=1)([3]).images - alone.images).max() > 0.01


def test_memory_bounds_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def record(objective: LayerObjective, x: Tensor) -> object:
        sizes.append(len(x))
        return original(objective, x)

    original = LayerObjective.record
    monkeypatch.setattr(LayerObjective, "record", record)
    monkeypatch.setattr(optimisation, "MAX_BATCH_VALUES", 2 * 3 * 16 * 16)
    images = make_optimiser(LayerObjective(make_rgb_network(), "3"), RGB, 2)([0, 1, 2])
    assert max(sizes) == 2
    assert len(images.images) == len(images.curves) == 3


def test_images_that_depend_on_the_batch_run_alone() -> None:
    class Whitened(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0, keepdim=True) / 2

    optimiser = make_optimiser(LayerObjective(nn.Sequential(Whitened()), "0"), RGB, 3)
    together, alone = optimiser([0, 2]), optimiser([2])
    np.testing.assert_allclose(together.images[1], alone.images[0], atol=1e-5)


def test_the_neuron_is_the_centre_of_the_map() -> None:
    values = torch.rand(2, 3, 5, 4)
    signal = LayerObjective(nn.Identity(), "", "neuron").make_signal(values, [2, 0])
    assert (values * signal).flatten(1).sum(1).tolist() == [values[0, 2, 2, 2], values[1, 0, 2, 2]]
    signal = LayerObjective(nn.Identity(), "").make_signal(values, [2, 0])
    torch.testing.assert_close(
        (values * signal).flatten(1).sum(1), torch.stack([values[0, 2].mean(), values[1, 0].mean()])
    )


def test_a_class_is_optimised_by_its_logit() -> None:
    body = seeded(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    logits = make_optimiser(ClassObjective(ClassScores(body)), RGB, 8)([2])
    softmax = make_optimiser(ClassObjective(ClassScores(nn.Sequential(*body, nn.Softmax(1)))), RGB, 8)([2])
    np.testing.assert_allclose(softmax.images, logits.images, atol=1e-6)
    assert logits.objectives[0] > logits.control_objectives[0]


def test_a_unit_that_is_off_at_the_start_rises() -> None:
    network = seeded(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU())
    nn.init.constant_(network[0].bias, -0.6)
    nn.init.constant_(network[2].weight, 1)
    nn.init.constant_(network[2].bias, 0)
    images = make_optimiser(LayerObjective(network, "3"), RGB, 60)([0])
    assert images.curves[0, 0] == 0
    assert images.objectives[0] > 0


def test_a_unit_that_cannot_rise_is_left_below_noise() -> None:
    network = seeded(nn.Conv2d(3, 2, 3), nn.ReLU())
    nn.init.constant_(network[0].bias, -1e3)
    images = make_optimiser(LayerObjective(network, "1"), RGB, 4)([0])
    assert images.objectives.tolist() == images.control_objectives.tolist() == [0]


def test_rectifiers_are_open_only_where_all_is_blocked() -> None:
    x = torch.tensor([[-1.0, -2, -3], [-1, 2, -3]], requires_grad=True)
    signal = torch.tensor([[1.0, -1, 2], [1, 1, 1]])
    y = x.relu()
    with open_rectifiers(y.grad_fn):  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(y, x, signal, retain_graph=True)
    assert gradient.tolist() == [[1, 0, 2], [0, 1, 0]]
    (gradient,) = torch.autograd.grad(y, x, signal)
    assert gradient.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_rectifiers_are_open_only_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    original = optimisation.open_rectifiers
    monkeypatch.setattr(optimisation, "open_rectifiers", lambda top: steps.append(1) or original(top))  # type: ignore[func-returns-value]
    make_optimiser(LayerObjective(make_rgb_network(), "4"), RGB, 10)([0])
    assert len(steps) == 5


def test_adam_takes_the_steps_of_torch() -> None:
    gradients = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    parameters = torch.zeros(4, requires_grad=True)
    oracle, adam, total = (
        torch.optim.Adam([parameters], lr=LEARNING_RATE),
        Adam(parameters.shape),
        torch.zeros(4),
    )
    for gradient in gradients:
        parameters.grad = -gradient
        oracle.step()
        total += adam.compute_step(gradient)
    torch.testing.assert_close(total, parameters.detach())


def test_other_sizes_are_measured_at_the_size_of_the_input() -> None:
    network = seeded(nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"))
    optimiser = make_optimiser(LayerObjective(network, "0"), RGB, 3, size=(8, 8))
    images = optimiser([1])
    assert images.images.shape == (1, 3, 8, 8)
    torus = network(RGB(255 * torch.from_numpy(np.tile(images.images, (1, 1, 2, 2)))))
    assert optimiser.find_maxima(images.images, [1])[0] == pytest.approx(float(torus[0, 1].max()), rel=1e-4)


def test_values_that_are_not_finite_are_an_error() -> None:
    network = seeded(nn.Conv2d(3, 2, 3))
    nn.init.constant_(network[0].bias, float("nan"))
    with pytest.raises(UserError, match="NaN or infinite"):
        make_optimiser(LayerObjective(network, "0"), RGB, 2)([0])


def test_layers_without_modules_of_their_own_run_too() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return torch.cat([y.relu(), self.conv(-x).relu()], 1)

    network = seeded(Block())
    for layer in ("0/cat", "0.conv:2", "0"):
        images = make_optimiser(LayerObjective(network, layer), RGB, 3)([3])
        assert images.maxima.shape == (1, 4 if layer == "0.conv:2" else 8)
