"""SD-UNet against the published table of its convolutions, and its blocks against their formulas."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.deconvnet import project
from convatlas.models.architectures.sd_unet import ConvBlock, Down, Pyramid, SqueezeAttention, sd_unet
from convatlas.models.build import build_network
from convatlas.tracing.layers import list_layers

# Channels in and out and the side of the output of the 51 convolutions, at 160 pixels and a width of 32.
PUBLISHED = """
3-32@80 3-32@160 32-32@80 32-32@160 64-32@80   32-64@40 32-64@80 64-64@40 64-64@80 128-64@40
64-128@20 64-128@40 128-128@20 128-128@40 256-128@20
128-256@10 128-256@20 256-256@10 256-256@20 512-256@10   256-512@5 256-512@10 512-512@5 512-512@10
512-256@10 768-256@10 512-256@1 512-256@10 1536-256@10 1280-256@10
256-256@20 512-256@10 512-256@20 256-256@10 256-256@20   256-128@40 256-128@20 256-128@40
128-128@20 128-128@40
128-64@80 128-64@40 128-64@80 64-64@40 64-64@80   64-32@160 64-32@80 64-32@160 32-32@80 32-32@160   32-3@160
""".split()


def test_the_51_convolutions_are_numbered_as_published() -> None:
    network = sd_unet().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_507_171
    convs = [layer for layer in list_layers(network, (3, 160, 160)) if layer["ordinal"]]
    assert [layer["ordinal"] for layer in convs] == list(range(1, 52))
    shapes = [f"{c['input_shape'][0]}-{c['output_shape'][0]}@{c['output_shape'][1]}" for c in convs]
    assert shapes == PUBLISHED
    assert {c["ordinal"]: c["dilation"][0] for c in convs if c["dilation"] != [1, 1]} == {
        25: 6,
        26: 12,
        29: 18,
    }
    names = {layer["ordinal"]: layer["name"] for layer in convs}
    assert names[1] == "encoder.0.attention.0.conv"
    assert names[43] == "decoder.2.main.0.conv"
    assert names[51] == "head"


def test_every_convolution_but_the_head_is_normalised_with_the_published_channels_per_group() -> None:
    for width in (8, 32):
        norms = [m for m in sd_unet(width).modules() if isinstance(m, nn.GroupNorm)]
        assert len(norms) == 50
        assert {norm.eps for norm in norms} == {1e-3}
        assert [norm.num_channels // norm.num_groups for norm in norms][:3] == [1, 1, 1]
        assert norms[-1].num_groups == min(32, width)
    assert {m.negative_slope for m in sd_unet(8).modules() if isinstance(m, nn.LeakyReLU)} == {0.3}


def test_squeeze_and_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    block, x = SqueezeAttention(3, 4, 2).double(), torch.randn(2, 3, 8, 6, dtype=torch.float64)
    small = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    a = nn.Sequential(*block.attention)(small).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(block(x), a * nn.Sequential(*block.main)(x) + a)


def test_down_is_its_formula() -> None:
    torch.manual_seed(0)
    block, x = Down(6, 4, 2).double(), torch.randn(2, 3, 8, 6, dtype=torch.float64)
    four = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    torch.testing.assert_close(block(x), block.mix(torch.cat([four.amax(-1), four.mean(-1)], 1)))


def test_the_pyramid_is_its_formula() -> None:
    torch.manual_seed(0)
    p, x = Pyramid(8, 4, 2).double(), torch.randn(1, 8, 9, 9, dtype=torch.float64)
    c6 = p.atrous6(x)
    x12 = torch.cat([x, c6], 1)
    c12 = p.atrous12(x12)
    c18 = p.atrous18(torch.cat([x, x12, c12], 1))
    scene = p.scene(x.mean((2, 3), keepdim=True)).expand(1, 4, 9, 9)
    torch.testing.assert_close(p(x), p.fuse(torch.cat([scene, p.point(x), c6, c12, c18], 1)))


def test_a_block_is_convolution_normalisation_and_leaky_relu() -> None:
    block, x = ConvBlock(3, 4, 3, 2, dilation=2), torch.randn(1, 3, 8, 8)
    convolved = F.conv2d(x, block.conv.weight, block.conv.bias, padding=2, dilation=2)
    groups = convolved.reshape(1, 2, -1)
    scaled = (groups - groups.mean(2, True)) / (groups.var(2, correction=0, keepdim=True) + 1e-3).sqrt()
    expected = F.leaky_relu(scaled.reshape(convolved.shape), 0.3)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_a_size_that_cannot_be_halved_five_times_is_refused() -> None:
    settings = {"architecture": "sd_unet", "arguments": {"width": 2}, "input": {"size": 80}}
    with pytest.raises(UserError, match=r"networks.own.input: .*multiples of 32.*input.size"):
        build_network(settings, None, 0, "networks.own")


def test_projections_need_rectify_for_its_leaky_relus() -> None:
    network = sd_unet(2).eval()
    with pytest.raises(UserError, match=r"encoder.0.attention.0.act.*rectify: true"):
        project(network, torch.randn(3, 32, 32), "head")
    assert project(network, torch.randn(3, 32, 32), "head", rectify=True).shape == (3, 3, 32, 32)
