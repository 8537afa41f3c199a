"""SD-UNet: a U-Net of squeeze-and-attention blocks with dense atrous spatial pyramid pooling.

After SD-UNet: A Novel Segmentation Framework for CT Images of Lung Infections, Electronics 2022, 11(1),
130. It has 51 convolutions.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUT = {
    "size": 160,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "resize": "stretch",  # a mask covers the whole image: nothing is cut off
}
SOURCE = "SD-UNet, Electronics 2022, 11(1), 130"
NORM_GROUPS = 32  # groups of a normalisation, as published for a width of 32


def sd_unet(width: int = 32, classes: int = 3) -> nn.Module:
    """Return SD-UNet, which maps (N, 3, H, W) to logits (N, classes, H, W).

    Args:
        width: Channels of the outermost level; 32 as published, with 21,507,171 parameters.
        classes: Number of the pixels' classes.

    Raises:
        ValueError: On a forward pass, H or W is not a multiple of 32.
    """
    return SDUNet(width, classes)


class SDUNet(nn.Module):
    """An encoder of four levels, a pyramid at a sixteenth of the size, a decoder with skip connections."""

    # Roles of the convolutions, by patterns of their modules' paths.
    roles: ClassVar[dict[str, str]] = {
        "*.attention.*": "attention",
        "*.main.*": "main",
        "downs.*": "down",
        "pyramid.*": "pyramid",
        "ups.*": "up",
        "head": "head",
    }

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        w = [width, 2 * width, 4 * width, 8 * width, 16 * width]
        groups = min(NORM_GROUPS, width)  # as many channels per group at any width as at 32
        self.encoder = nn.ModuleList(SqueezeAttention(i, o, groups) for i, o in pairwise([3, *w]))
        self.downs = nn.ModuleList(Down(2 * channels, channels, groups) for channels in w[:4])
        self.pyramid = Pyramid(w[4], w[3], groups)
        upward = [w[3], w[2], w[1], w[0]]
        self.ups = nn.ModuleList(Up(i, o, groups) for i, o in pairwise([w[3], *upward]))
        self.decoder = nn.ModuleList(SqueezeAttention(2 * channels, channels, groups) for channels in upward)
        self.head = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes, H, W) of each pixel.

        Args:
            x: Images (N, 3, H, W); H and W are multiples of 32.

        Raises:
            ValueError: H or W is not a multiple of 32.
        """
        _check_size(x)
        levels = []
        for encoder, down in zip(self.encoder, self.downs, strict=False):
            levels.append(encoder(x))
            x = down(levels[-1])
        x = self.pyramid(self.encoder[-1](x))
        for up, decoder in zip(self.ups, self.decoder, strict=True):
            x = decoder(torch.cat([up(x), levels.pop()], 1))
        logits: Tensor = self.head(x)
        return logits


class ConvBlock(nn.Sequential):
    """A convolution that preserves the size, group normalisation, and leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, groups: int, dilation: int = 1
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation),
                norm=nn.GroupNorm(groups, out_channels, eps=1e-3),
                act=nn.LeakyReLU(0.3),
            )
        )


class SqueezeAttention(nn.Module):
    """Two convolutions m(x), and two others at half the size, a(x): a(x) m(x) + a(x)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        channels = (in_channels, out_channels)
        self.squeeze = nn.AvgPool2d(2)
        self.attention = nn.ModuleList([ConvBlock(n, out_channels, 3, groups) for n in channels])
        self.main = nn.ModuleList([ConvBlock(n, out_channels, 3, groups) for n in channels])
        self.expand = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return a(x) m(x) + a(x), (N, out_channels, H, W).

        Args:
            x: (N, in_channels, H, W); H and W are even.
        """
        attention, main = self.squeeze(x), x
        # In the published order of the convolutions.
        for attention_block, main_block in zip(self.attention, self.main, strict=True):
            attention, main = attention_block(attention), main_block(main)
        attention = self.expand(attention)
        combined: Tensor = attention * main + attention
        return combined


class Down(nn.Module):
    """Max and average pooling to half the size, and a 1 × 1 convolution of both."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.strongest, self.mean = nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.mix = ConvBlock(in_channels, out_channels, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed poolings, (N, out_channels, H / 2, W / 2).

        Args:
            x: (N, in_channels / 2, H, W), since both poolings of it enter the convolution.
        """
        mixed: Tensor = self.mix(torch.cat([self.strongest(x), self.mean(x)], 1))
        return mixed


class Up(nn.Module):
    """Bilinear upsampling to twice the size, and a 1 × 1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.expand = nn.Upsample(scale_factor=2, mode="bilinear")
        self.mix = ConvBlock(in_channels, out_channels, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return the upsampled maps, (N, out_channels, 2 H, 2 W).

        Args:
            x: (N, in_channels, H, W).
        """
        mixed: Tensor = self.mix(self.expand(x))
        return mixed


class Pyramid(nn.Module):
    """Dense atrous spatial pyramid pooling of five branches; larger dilations see smaller ones' output."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        i, o = in_channels, out_channels
        self.atrous6 = ConvBlock(i, o, 3, groups, dilation=6)
        self.atrous12 = ConvBlock(i + o, o, 3, groups, dilation=12)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.scene = ConvBlock(i, o, 1, groups)
        self.point = ConvBlock(i, o, 1, groups)
        self.atrous18 = ConvBlock(2 * i + 2 * o, o, 3, groups, dilation=18)
        self.fuse = ConvBlock(5 * o, o, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fused branches, (N, out_channels, H, W).

        Args:
            x: (N, in_channels, H, W).
        """
        near = self.atrous6(x)
        dense = torch.cat([x, near], 1)
        middle = self.atrous12(dense)
        scene = F.interpolate(self.scene(self.pool(x)), x.shape[2:])
        point = self.point(x)
        far = self.atrous18(torch.cat([x, dense, middle], 1))  # x twice, as published
        fused: Tensor = self.fuse(torch.cat([scene, point, near, middle, far], 1))
        return fused


def _check_size(x: Tensor) -> None:
    """Raise ValueError where images cannot be halved five times: by four levels, and in the last block."""
    if any(side % 32 for side in x.shape[2:]):
        raise ValueError(f"{tuple(x.shape[2:])} pixels cannot be halved five times; take multiples of 32")
