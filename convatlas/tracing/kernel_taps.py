"""Which taps of a convolution ever meet the image: those of a wide dilation may all fall on padding.

A tap t of a kernel reads, for the output at i, the pixel i S - P + t D of an axis of N pixels: Dumoulin &
Visin, A guide to convolution arithmetic for deep learning (arXiv 1603.07285).
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import nn


def find_active_taps(
    kernel: int, stride: int, padding: tuple[int, int], dilation: int, pixels: int
) -> list[int]:
    """The taps (from 0) of one axis that meet a pixel at one of the outputs at least; `padding` a side."""
    outputs = (pixels + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1
    starts = range(-padding[0], -padding[0] + outputs * stride, stride)
    return [tap for tap in range(kernel) if any(0 <= start + tap * dilation < pixels for start in starts)]


def minimum_input_size(kernel: int, stride: int, padding: tuple[int, int], dilation: int, pixels: int) -> int:
    """The least number of pixels, `pixels` or more, with which every tap of one axis meets one."""
    while len(find_active_taps(kernel, stride, padding, dilation, pixels)) < kernel:
        pixels += 1
    return pixels


def describe_inactive_taps(
    conv: nn.Module, input_size: Sequence[int], network_input_size: Sequence[int] | None = None
) -> str | None:
    """Say where taps of a convolution never meet its input, of the spatial sides `side`; else None.

    `whole` has the sides of the network's own input, where those of `side` grow with it; the network's
    input that would show every tap is then given too, if its sides are multiples of `side`. Transposed
    convolutions, and padding that repeats pixels, have no such taps.
    """
    if getattr(conv, "transposed", True) or conv.padding_mode != "zeros":
        return None
    axes = _axis_geometry(conv)
    met = [find_active_taps(*axis, pixels) for axis, pixels in zip(axes, input_size, strict=True)]
    kernel = [axis[0] for axis in axes]
    if all(len(taps) == size for taps, size in zip(met, kernel, strict=True)):
        return None
    enough = [minimum_input_size(*axis, pixels) for axis, pixels in zip(axes, input_size, strict=True)]
    dilated = max(conv.dilation) > 1
    what = f"dilation {_format_equal(conv.dilation)}" if dilated else f"a kernel of {_format_size(kernel)}"
    text = f"{what} on a {_format_size(input_size)} input: {_describe_active_taps(met, kernel)} the image; "
    text += f"it needs an input of at least {_format_size(enough)} to show all"
    if network_input_size and not any(w % s for w, s in zip(network_input_size, input_size, strict=True)):
        at_network = [n * w // s for n, w, s in zip(enough, network_input_size, input_size, strict=True)]
        text += f" ({_format_size(at_network)} at the network's input)" if at_network != enough else ""
    return text


def format_notes(layers: Sequence[dict[str, Any]]) -> list[str]:
    """The notes of layers.json, a line each, with the layer's name; to be logged as warnings."""
    return [f"{layer['name']}: {text}" for layer in layers for text in layer["notes"]]


def _axis_geometry(conv: nn.Module) -> list[tuple[int, int, tuple[int, int], int]]:
    """Kernel, stride, padding at the near and far side, and dilation of each axis."""
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    if conv.padding == "same":  # the odd one of an even total goes to the far side
        padding = [(r // 2, r - r // 2) for r in reach]
    else:
        numbers = [0] * len(reach) if conv.padding == "valid" else conv.padding
        padding = [(n, n) for n in numbers]
    return list(zip(conv.kernel_size, conv.stride, padding, conv.dilation, strict=True))


def _describe_active_taps(met: list[list[int]], kernel: list[int]) -> str:
    if all(taps == [size // 2] and size % 2 for taps, size in zip(met, kernel, strict=True)):
        return "only the centre tap ever meets"
    count = prod(map(len, met))
    return f"only {count} of {prod(kernel)} taps ever meet{'s' if count == 1 else ''}"


def _format_size(numbers: Sequence[int]) -> str:
    return " × ".join(map(str, numbers))


def _format_equal(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else _format_size(numbers)
