"""Guided backpropagation and the deconvnet from the class score, against Captum and `project`."""

import captum.attr
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.attribute import attribute, check_method
from convatlas.attribution.deconvnet import project
from tests.attribution.methods.networks import FunctionalChain, make_chain, make_images

TARGETS = [4, 0, 2]
METHODS = {"guided_backpropagation": captum.attr.GuidedBackprop, "deconvnet": captum.attr.Deconvolution}


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU", "ignore:Input Tensor 0 did not already")
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_captums(method: str) -> None:
    chain, x = make_chain(), make_images()
    explainer = METHODS[method](make_chain())
    expected = torch.stack([explainer.attribute(x, target=target).detach() for target in TARGETS], 1)
    for network in (chain, FunctionalChain(chain)):
        torch.testing.assert_close(attribute(network, x, method, TARGETS).maps, expected.float())


@pytest.mark.parametrize("method", METHODS)
def test_without_rectifiers_all_are_the_gradient(method: str) -> None:
    chain = nn.Sequential(*[layer for layer in make_chain() if not isinstance(layer, nn.ReLU)])
    x = make_images()
    expected = attribute(chain, x, "gradient", TARGETS).maps
    torch.testing.assert_close(attribute(chain, x, method, TARGETS).maps, expected)
    assert "no ReLU" in str(check_method(chain, x, method))


def test_relu6_passes_the_gradient_between_its_bounds() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 4, 3).double(), 8 * make_images(1)
    network = nn.Sequential(conv, nn.ReLU6(), nn.Flatten(), nn.Linear(400, 2).double())
    outputs = conv(x)
    signal = network[3].weight.detach()[1].reshape(outputs.shape)
    inside = (outputs > 0) & (outputs < 6)
    assert inside.any() and (outputs > 6).any()
    for method, rectified in {
        "gradient": signal * inside,
        "guided_backpropagation": signal.relu() * inside,
        "deconvnet": signal.relu(),
    }.items():
        expected = F.conv_transpose2d(rectified, conv.weight).detach()
        torch.testing.assert_close(attribute(network, x, method, [1]).maps[:, 0], expected.float())


def test_the_deconvnet_is_the_projection_of_the_logit_over_its_value() -> None:
    chain, x = make_chain(), make_images()
    scores = chain(x).detach()
    maps = attribute(chain, x, "deconvnet", range(5)).maps
    projections = project(chain, x, "9")
    assert (scores > 0).any()
    for n, target in (scores > 0).nonzero().tolist():
        torch.testing.assert_close(maps[n, target], (projections[n, target] / scores[n, target]).float())


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


@pytest.mark.parametrize("method", METHODS)
def test_other_activations_are_named_with_the_cure(method: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Gate(), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2)).double()
    x = make_images(1)
    assert check_method(network, x, "gradient") is None
    reason = check_method(network, x, method)
    assert reason and "none: 1 (Sigmoid); " in reason and "views.deconv.rectify: true" in reason
    with pytest.raises(UserError, match=r"views\.deconv\.rectify: true"):
        attribute(network, x, method, [0])
    maps = attribute(network, x, method, [0], rectify=True).maps
    assert maps.isfinite().all() and maps.abs().max() > 0
