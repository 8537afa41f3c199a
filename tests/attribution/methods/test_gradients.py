"""Gradients, integrated gradients and SmoothGrad against Captum, loops, and what is exact about them."""

import captum.attr
import pytest
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.attribute import attribute
from convatlas.attribution.class_scores import ClassScores
from convatlas.attribution.methods import gradients
from convatlas.attribution.methods.registry import METHODS
from convatlas.models.preprocessing import Preprocessing
from tests.attribution.methods.networks import CLASSES, FunctionalChain, make_chain, make_images

TARGETS = [4, 0, 2]
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")


def explain_with_captum(method: object, x: Tensor, **arguments: object) -> Tensor:
    """Return Captum's maps of all targets, (N, T, C, H, W)."""
    return torch.stack(
        [method.attribute(x, target=target, **arguments).detach() for target in TARGETS],  # type: ignore[attr-defined]
        1,
    )


@pytest.mark.parametrize("ending", ["logits", "log-probabilities by other calls"])
def test_gradients_are_captums(ending: str) -> None:
    chain, x = make_chain(), make_images()
    network = chain if ending == "logits" else FunctionalChain(chain)
    expected = explain_with_captum(captum.attr.Saliency(chain), x, abs=False)
    maps = attribute(network, x, "gradient", TARGETS).maps
    torch.testing.assert_close(maps, expected.float())
    products = attribute(network, x, "gradient_x_input", TARGETS).maps
    torch.testing.assert_close(products, (expected * x[:, None]).float())


def test_gradient_x_input_sums_to_the_logit_without_biases() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *[nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
        nn.Linear(6 * 25, CLASSES, bias=False),
    ).double()
    x = make_images()
    maps = attribute(network, x, "gradient_x_input", TARGETS).maps
    torch.testing.assert_close(maps.sum((2, 3, 4)), network(x)[:, TARGETS].float())


def test_integrated_gradients_are_captums_and_complete() -> None:
    chain, x = make_chain(), make_images()
    preprocessing = Preprocessing((12, 12), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    black = torch.tensor([-2.0, -5 / 3, -1.5], dtype=x.dtype).reshape(3, 1, 1).expand(3, 12, 12)
    arguments = {"preprocessing": preprocessing, "steps": 4}
    attribution = attribute(FunctionalChain(chain), x, "integrated_gradients", TARGETS, **arguments)
    changes = (chain(x) - chain(black[None]))[:, TARGETS].detach()
    steps = set()
    for n in range(2):
        for k, target in enumerate(TARGETS):
            checks, values = attribution.checks[n][k], attribution.maps[n, k]
            assert checks["change"] == pytest.approx(float(changes[n, k]))
            assert checks["completeness_gap"] == pytest.approx(
                abs(float(values.sum()) / float(changes[n, k]) - 1), abs=1e-5
            )
            assert checks["completeness_gap"] < 0.05 or checks["steps"] == 256
            points = checks["steps"] + 1  # Captum weighs P points by 1 / P, not by 1 / (P - 1)
            expected = captum.attr.IntegratedGradients(chain).attribute(
                x[n : n + 1], black[None], target, n_steps=points, method="riemann_trapezoid"
            )
            torch.testing.assert_close(values, (expected[0] * points / checks["steps"]).float())
            steps.add(checks["steps"])
    assert len(steps) > 1  # some were refined, others not


def test_steps_end_at_the_limit_and_the_gap_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([(x.sum((1, 2, 3)) > 5).to(x) + 0 * x.sum((1, 2, 3))], 1)

    monkeypatch.setattr(gradients, "MAX_STEPS", 16)
    checks = attribute(Step(), torch.ones(1, 3, 4, 4), "integrated_gradients", [0], steps=4).checks
    assert checks == [[{"completeness_gap": 1.0, "steps": 16, "change": 1.0, "sum": 0.0}]]


@pytest.mark.parametrize("baseline", ["black", "mean", "blurred"])
def test_the_attribution_of_the_baseline_itself_is_zero(baseline: str) -> None:
    grey = {"black": 0.0, "mean": 0.5, "blurred": 0.3}[baseline]
    x = torch.full((1, 3, 12, 12), grey, dtype=torch.float64)
    attribution = attribute(make_chain(), x, "integrated_gradients", [1], baseline=baseline)
    assert attribution.maps.abs().max() < 1e-6
    with pytest.raises(UserError, match="no baseline 'blured'; did you mean 'blurred'"):
        attribute(make_chain(), x, "integrated_gradients", [1], baseline="blured")


def test_a_baseline_without_a_score_is_named() -> None:
    class Standardised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)).flatten(1)

    with pytest.raises(UserError, match=r"baseline .black. of an image is NaN.*: mean, blurred"):
        attribute(Standardised(), make_images(), "integrated_gradients", [0])


def test_smoothgrad_is_captums_noise_tunnel_with_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, x = make_chain(), make_images()
    deviations = 0.2 * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))
    noise = torch.stack([gradients.draw_noise(x[0], sample) for sample in range(5)])
    captum_noise = iter([deviations[n] * noise for n in range(2)])
    monkeypatch.setattr(torch, "normal", lambda *args: next(captum_noise).to(x))
    tunnel, target = captum.attr.NoiseTunnel(captum.attr.Saliency(chain)), TARGETS[0]
    expected = [
        tunnel.attribute(x[n : n + 1], "smoothgrad", 5, stdevs=1.0, target=target, abs=False)
        for n in range(2)
    ]
    attribution = attribute(chain, x, "smoothgrad", TARGETS, samples=5, noise=0.2)
    torch.testing.assert_close(attribution.maps[:, 0], torch.cat(expected).detach().float())
    assert all(-1 <= checks["agreement"] <= 1 for row in attribution.checks for checks in row)


def test_the_noise_averages_out_where_the_network_is_linear() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(200, 3)).double()
    x = make_images()
    smooth = attribute(network, x, "smoothgrad", [0, 1], samples=3)
    torch.testing.assert_close(smooth.maps, attribute(network, x, "gradient", [0, 1]).maps)
    assert smooth.checks[0][0]["agreement"] == pytest.approx(1)


@pytest.mark.parametrize(("axes", "convolution"), [(1, nn.Conv1d), (3, nn.Conv3d)])
def test_signals_and_volumes_are_explained(axes: int, convolution: type[nn.Module]) -> None:
    """By a linear network, of which the mean gradient is the gradient."""
    network = nn.Sequential(convolution(2, 3, 3), nn.Flatten(), nn.Linear(3 * 3**axes, 2)).double()
    x = torch.rand(4, 2, *[5] * axes, dtype=torch.float64)
    gradient = attribute(network, x, "gradient", [0, 1]).maps
    smooth = attribute(network, x, "smoothgrad", [0, 1], samples=3).maps
    torch.testing.assert_close(smooth, gradient)
    integrated = attribute(network, x, "integrated_gradients", [0, 1], steps=2).maps
    torch.testing.assert_close(integrated, (gradient * x[:, None]).float())


def test_smoothgrad_of_one_image_explains_each_sample_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With statistics of the batch, samples that share a pass change each other's scores."""
    network, x = make_network_of_batches(), make_images()[0]
    maps = attribute(network, x, "smoothgrad", [1], samples=4).maps
    monkeypatch.setattr("convatlas.attribution.class_scores.MAX_BATCH_VALUES", 1)
    torch.testing.assert_close(maps, attribute(network, x, "smoothgrad", [1], samples=4).maps)


def make_network_of_batches() -> nn.Module:
    """Return a network in which the scores of an image depend on the others of its batch."""
    return nn.Sequential(
        *[nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()],
        *[nn.Flatten(), nn.Linear(400, 3)],
    ).double()


def test_equal_inputs_do_not_show_whether_a_batch_is_possible() -> None:
    """As of SmoothGrad on an image of one colour, whose samples have no noise."""
    scores, images = ClassScores(make_network_of_batches()), make_images(2)
    equal = images[:1].expand_as(images)
    assert [index for index, _ in scores.record_batches(2, lambda index: equal[index])] == [slice(0, 2)]
    together = [graph.scores for _, graph in scores.record_batches(2, lambda index: images[index])]
    torch.testing.assert_close(torch.cat(together), torch.cat([scores(image[None]) for image in images]))
    assert scores.is_batchable is False


@pytest.mark.parametrize("method", sorted(METHODS))
def test_images_and_targets_in_one_call_are_those_of_single_calls(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fits into one pass: all at once, or one image at a time."""
    monkeypatch.setattr(gradients, "MAX_STEPS", 32)
    chain, x = make_chain(), make_images(3)
    together = attribute(chain, x, method, TARGETS).maps
    for limit in (1, 3 * x[0].numel()):
        monkeypatch.setattr("convatlas.attribution.class_scores.MAX_BATCH_VALUES", limit)
        monkeypatch.setattr("convatlas.attribution.methods.backward.MAX_BATCH_VALUES", limit)
        torch.testing.assert_close(attribute(chain, x, method, TARGETS).maps, together)
    single = attribute(chain, x[1], method, TARGETS[1:2]).maps
    if method != "integrated_gradients":  # whose steps depend on what shares a pass
        torch.testing.assert_close(together[1, 1:2], single)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_channels_last_and_a_segmentation_are_explained(method: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 3, 3, 1, 1), nn.Upsample(scale_factor=2)
    )
    x = torch.randn(2, 3, 12, 12)
    expected = attribute(network, x, method, [0, 2])
    channels_last = network.to(memory_format=torch.channels_last)
    maps = attribute(channels_last, x.to(memory_format=torch.channels_last), method, [0, 2]).maps
    torch.testing.assert_close(maps, expected.maps, rtol=1e-3, atol=1e-4)
    assert maps.isfinite().all() and maps.abs().amax((2, 3, 4)).min() > 0
