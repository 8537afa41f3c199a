"""The geometry of sliding windows: kernel, stride, padding and dilation of convolutions and pooling.

Dumoulin & Visin, A guide to convolution arithmetic for deep learning (arXiv 1603.07285).
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn


class AxisWindow(NamedTuple):
    """A sliding window along one axis, with the padding at the near and at the far side."""

    kernel: int
    stride: int
    padding: tuple[int, int]
    dilation: int


def window_extent(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Return the distance from the first to the last value of a window along each axis, D (K - 1).

    Args:
        kernel: Size of the window along each axis.
        dilation: Its dilation along each axis.
    """
    return tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))


def split_same_padding(extent: Sequence[int]) -> list[tuple[int, int]]:
    """Return the padding at the near and far side of each axis that `padding="same"` stands for.

    Args:
        extent: Total padding along each axis, D (K - 1), from `window_extent`.

    Returns:
        Near and far side per axis. Of an odd total, as of an even kernel, the larger half is at the far side.
    """
    return [(total // 2, total - total // 2) for total in extent]


def get_axis_windows(conv: nn.modules.conv._ConvNd) -> list[AxisWindow]:
    """Return the window of a convolution along each axis.

    Args:
        conv: A convolution. Its padding may be "same" or "valid".
    """
    if conv.padding == "same":
        padding = split_same_padding(window_extent(conv.kernel_size, conv.dilation))
    else:
        numbers = [0] * len(conv.kernel_size) if isinstance(conv.padding, str) else conv.padding
        padding = [(n, n) for n in numbers]
    axes = zip(conv.kernel_size, conv.stride, padding, conv.dilation, strict=True)
    return [AxisWindow(*axis) for axis in axes]
