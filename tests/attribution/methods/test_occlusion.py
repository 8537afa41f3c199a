"""Occlusion against Captum, a loop over pixels, and what is exact about it."""

import captum.attr
import pytest
import torch
from torch import nn

from convatlas import UserError
from convatlas.attribution.attribute import attribute
from convatlas.models.preprocessing import Preprocessing
from tests.attribution.methods.networks import FunctionalChain, make_chain, make_images

TARGETS = [4, 0, 2]
PREPROCESSING = Preprocessing((12, 12), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
GREY = torch.tensor([0.5, 0.0, -0.25], dtype=torch.float64).reshape(1, 3, 1, 1)


def test_squares_side_by_side_are_captums() -> None:
    chain, x = make_chain(), make_images()
    explainer = captum.attr.Occlusion(chain)
    expected = [
        explainer.attribute(x, (3, 4, 4), strides=(3, 4, 4), baselines=GREY.expand_as(x), target=target)
        for target in TARGETS
    ]
    attribution = attribute(
        FunctionalChain(chain), x, "occlusion", TARGETS, preprocessing=PREPROCESSING, size=4, stride=4
    )
    torch.testing.assert_close(attribution.maps[:, :, 0], torch.stack(expected, 1)[:, :, 0].float())
    assert attribution.checks[0][0] == {"size": 4, "stride": 4, "positions": 9}


@pytest.mark.parametrize(("size", "stride"), [(5, 2), (3, 3), (None, None), (7, 5)])
def test_a_pixel_has_the_mean_drop_over_the_squares_that_hide_it(
    size: int | None, stride: int | None
) -> None:
    chain, x = make_chain(), make_images(1)[:, :, :, :10]
    chain[7] = nn.Linear(8 * 30, 9).double()
    attribution = attribute(chain, x, "occlusion", [3], preprocessing=PREPROCESSING, size=size, stride=stride)
    side, step = attribution.checks[0][0]["size"], attribution.checks[0][0]["stride"]
    drops, counts = torch.zeros(2, 12, 10, dtype=torch.float64)
    for top in range(step - side, 12, step):
        for left in range(step - side, 10, step):
            hidden = torch.zeros(12, 10, dtype=torch.bool)
            hidden[max(0, top) : top + side, max(0, left) : left + side] = True
            score = chain(torch.where(hidden, GREY, x))[0, 3]
            drops += hidden * (chain(x)[0, 3] - score).detach()
            counts += hidden
    assert counts.min() > 0
    torch.testing.assert_close(attribution.maps[0, 0, 0], (drops / counts).float())


def test_a_square_over_all_pixels_drops_the_score_to_that_of_grey() -> None:
    chain, x = make_chain(), make_images()
    maps = attribute(chain, x, "occlusion", TARGETS, preprocessing=PREPROCESSING, size=12, stride=12).maps
    drops = (chain(x) - chain(GREY.expand_as(x)))[:, TARGETS].detach()
    torch.testing.assert_close(maps[:, :, 0], drops[:, :, None, None].expand(2, 3, 12, 12).float())


def test_only_what_the_network_reads_matters() -> None:
    """A score that is the sum of one pixel's channels drops where the square hides it, and nowhere else."""
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 2)).double(), make_images(1).abs() + 1
    nn.init.zeros_(network[1].weight)
    with torch.no_grad():
        network[1].weight[1].reshape(3, 12, 12)[:, 5, 7] = 1
    (values,) = attribute(network, x, "occlusion", [1], size=3, stride=1).maps[0, 0]
    assert values.argmax() == 5 * 12 + 7
    assert (values > 0).nonzero().amin(0).tolist() == [3, 5]
    assert (values > 0).nonzero().amax(0).tolist() == [7, 9]


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [(2, 3, "a stride of 3 leaves pixels"), (0, None, "not 0"), (4, -1, "not -1"), (2.5, None, "not 2.5")],
)
def test_impossible_squares_are_refused(size: float, stride: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        attribute(make_chain(), make_images(), "occlusion", [0], size=size, stride=stride)
