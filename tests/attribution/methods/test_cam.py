"""Grad-CAM against CAM, Captum and autograd's derivatives."""

import captum.attr
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.attribute import attribute, check_method
from tests.attribution.methods.networks import FunctionalChain, make_chain, make_images

TARGETS = [4, 0, 2]


def enlarge(maps: Tensor) -> Tensor:
    return F.interpolate(maps, (12, 12), mode="bilinear", align_corners=False).float()


@pytest.mark.parametrize("inplace", [False, True])
def test_before_pooling_and_one_linear_layer_it_is_cam_over_the_number_of_positions(inplace: bool) -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(inplace)).double()
    linear, x = nn.Linear(6, 5).double(), make_images()
    network = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear, nn.Softmax(1))
    cam = torch.einsum("ku,nuhw->nkhw", linear.weight[TARGETS], features(x)).detach().relu()
    attribution = attribute(network, x, "grad_cam", TARGETS)
    torch.testing.assert_close(attribution.maps[:, :, 0], enlarge(cam / 25))
    assert attribution.checks[1][2] == {"layer": "0.1"}


def test_maps_of_a_chosen_layer_are_captums() -> None:
    chain, x = make_chain(), make_images()
    for layer in ("0", "3", "4"):
        explainer = captum.attr.LayerGradCam(chain, chain[int(layer)])
        expected = [
            explainer.attribute(x, target=target, relu_attributions=True).detach() for target in TARGETS
        ]
        maps = attribute(chain, x, "grad_cam", TARGETS, layer=layer).maps
        torch.testing.assert_close(maps[:, :, 0], enlarge(torch.cat(expected, 1)))


def test_a_layer_whose_output_is_changed_in_place_is_explained_by_its_own_output() -> None:
    chain, x = make_chain(), make_images()
    expected = attribute(chain, x, "grad_cam", TARGETS, layer="4").maps
    torch.testing.assert_close(
        attribute(FunctionalChain(chain), x, "grad_cam", TARGETS, layer="chain.4").maps, expected
    )


def test_grad_cam_plus_plus_weighs_by_derivatives_of_the_exponential_of_the_score() -> None:
    """The paper's α of the exponential's second and third derivatives, which autograd takes here."""
    torch.manual_seed(0)
    head, x = nn.Sequential(nn.Flatten(), nn.Linear(4 * 25, 2)).double(), make_images(1)
    features = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU()).double()
    maps = features(x).detach()
    position = torch.zeros_like(maps)

    def exponential(offset: Tensor, index: tuple[int, ...]) -> Tensor:
        position.zero_()[index] = 1
        return head(maps + offset * position)[0, 1].exp()

    weights = torch.zeros(4, dtype=maps.dtype)
    for unit, row, column in torch.cartesian_prod(torch.arange(4), torch.arange(5), torch.arange(5)).tolist():
        derivatives = [torch.zeros((), dtype=maps.dtype, requires_grad=True)]
        value = exponential(derivatives[0], (0, unit, row, column))
        for _ in range(3):
            (value,) = torch.autograd.grad(value, derivatives[0], create_graph=True)
            derivatives.append(value)
        _, first, second, third = (float(value.detach()) for value in derivatives)
        alpha = second / (2 * second + float(maps[0, unit].sum()) * third)
        weights[unit] += alpha * max(0.0, first)
    expected = (weights[:, None, None] * maps[0]).sum(0).relu()
    result = attribute(nn.Sequential(features, head), x, "grad_cam_plus_plus", [1]).maps[0, 0, 0]
    enlarged = enlarge(expected[None, None])[0, 0]
    torch.testing.assert_close(result / result.max(), enlarged / enlarged.max())


class Bottleneck(nn.Module):
    """A segmentation with two convolutions at its smallest maps, and an auxiliary branch."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.first, self.second = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.up, self.aside = nn.ConvTranspose2d(4, 3, 2, 2), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(self.down(x)))
        self.aside(hidden)
        return self.up(hidden)


def test_the_default_layer_is_the_bottleneck_of_a_segmentation() -> None:
    network, x = Bottleneck().double(), make_images()
    attribution = attribute(network, x, "grad_cam", [0, 1])
    assert attribution.checks[0][0]["layer"] == "second"
    assert attribution.maps.shape == (2, 2, 1, 12, 12)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("9", "the layer '9' has no maps"),
        ("conv5", "no layer 'conv5' to explain by; "),
    ],
)
def test_a_layer_without_maps_is_named(layer: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        attribute(make_chain(), make_images(), "grad_cam", [0], layer=layer)
    assert message in str(check_method(make_chain(), make_images(), "grad_cam", layer=layer))


def test_a_layer_aside_and_a_network_without_maps_are_named() -> None:
    with pytest.raises(UserError, match="'aside' has maps of one position, or the scores of classes do"):
        attribute(Bottleneck().double(), make_images(), "grad_cam", [0], layer="aside")
    network = nn.Sequential(nn.Flatten(), nn.Linear(432, 2)).double()
    with pytest.raises(UserError, match="need a layer with maps"):
        attribute(network, make_images(), "grad_cam", [0])
