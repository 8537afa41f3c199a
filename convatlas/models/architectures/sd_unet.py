"""SD-UNet: a U-Net of squeeze-and-attention blocks with a dense atrous spatial pyramid pooling.

After SD-UNet: A Novel Segmentation Framework for CT Images of Lung Infections, Electronics 2022, 11(1),
130. Its convolutions number 51, in the order in which they run.
"""

from collections import OrderedDict
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
NORM_GROUPS = 32  # of a normalisation, as published for a width of 32


def sd_unet(width: int = 32, classes: int = 3) -> nn.Module:
    """Map (N, 3, H, W), H and W multiples of 32, to logits (N, classes, H, W); 21,507,171 parameters."""
    return SDUNet(width, classes)


class SDUNet(nn.Module):
    """Four levels down, a pyramid at a sixteenth of the size, four levels up, each beside its encoder's."""

    roles: ClassVar = {  # of the convolutions, by the paths of their modules
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
        groups = min(NORM_GROUPS, width)  # at every width as many channels a group as at 32
        sizes = zip([3, *w], w, strict=False)
        self.encoder = nn.ModuleList(SqueezeAttention(given, made, groups) for given, made in sizes)
        self.downs = nn.ModuleList(Down(2 * made, made, groups) for made in w[:4])
        self.pyramid = Pyramid(w[4], w[3], groups)
        upward = [w[3], w[2], w[1], w[0]]
        self.ups = nn.ModuleList(
            Up(given, made, groups) for given, made in zip([w[3], *upward], upward, strict=False)
        )
        self.decoder = nn.ModuleList(SqueezeAttention(2 * made, made, groups) for made in upward)
        self.head = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        _check_size(x)
        levels = []
        for encoder, down in zip(self.encoder, self.downs, strict=False):
            levels.append(encoder(x))
            x = down(levels[-1])
        x = self.pyramid(self.encoder[-1](x))
        for up, decoder in zip(self.ups, self.decoder, strict=True):
            x = decoder(torch.cat([up(x), levels.pop()], 1))
        return self.head(x)


class ConvBlock(nn.Sequential):
    """A convolution that keeps the size, group normalisation, leaky ReLU."""

    def __init__(self, given: int, made: int, kernel: int, groups: int, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(given, made, kernel, padding=padding, dilation=dilation),
                norm=nn.GroupNorm(groups, made, eps=1e-3),
                act=nn.LeakyReLU(0.3),
            )
        )


class SqueezeAttention(nn.Module):
    """Two convolutions, weighed and completed by two others that see the image at half the size."""

    def __init__(self, given: int, made: int, groups: int) -> None:
        super().__init__()
        self.squeeze = nn.AvgPool2d(2)
        self.attention = nn.ModuleList([ConvBlock(n, made, 3, groups) for n in (given, made)])
        self.main = nn.ModuleList([ConvBlock(n, made, 3, groups) for n in (given, made)])
        self.expand = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        attention, main = self.squeeze(x), x
        for narrow, wide in zip(self.attention, self.main, strict=True):  # the published order
            attention, main = narrow(attention), wide(main)
        attention = self.expand(attention)
        return attention * main + attention


class Down(nn.Module):
    """Half the size, by the strongest and by the mean of each four, then mixed."""

    def __init__(self, given: int, made: int, groups: int) -> None:
        super().__init__()
        self.strongest, self.mean = nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.mix = ConvBlock(given, made, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([self.strongest(x), self.mean(x)], 1))


class Up(nn.Module):
    """Twice the size, then mixed."""

    def __init__(self, given: int, made: int, groups: int) -> None:
        super().__init__()
        self.expand = nn.Upsample(scale_factor=2, mode="bilinear")
        self.mix = ConvBlock(given, made, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.expand(x))


class Pyramid(nn.Module):
    """Dense atrous spatial pyramid pooling: five views of the scene, the wider given the narrower."""

    def __init__(self, given: int, made: int, groups: int) -> None:
        super().__init__()
        self.atrous6 = ConvBlock(given, made, 3, groups, dilation=6)
        self.atrous12 = ConvBlock(given + made, made, 3, groups, dilation=12)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.scene = ConvBlock(given, made, 1, groups)
        self.point = ConvBlock(given, made, 1, groups)
        self.atrous18 = ConvBlock(2 * given + 2 * made, made, 3, groups, dilation=18)
        self.fuse = ConvBlock(5 * made, made, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        near = self.atrous6(x)
        dense = torch.cat([x, near], 1)
        middle = self.atrous12(dense)
        scene = F.interpolate(self.scene(self.pool(x)), x.shape[2:])
        point = self.point(x)
        far = self.atrous18(torch.cat([x, dense, middle], 1))  # x twice, as published
        return self.fuse(torch.cat([scene, point, near, middle, far], 1))


def _check_size(x: Tensor) -> None:
    if any(side % 32 for side in x.shape[2:]):  # four times down, and once more within the last block
        raise ValueError(f"{tuple(x.shape[2:])} pixels cannot be halved five times; take multiples of 32")
