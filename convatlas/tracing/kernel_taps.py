"""Find the taps of a convolution's kernel that never meet its input: a wide dilation reads only padding.

A tap t of a kernel reads, for the output at i, the pixel i S - P + t D of an axis of N pixels: Dumoulin &
Visin, A guide to convolution arithmetic for deep learning (arXiv 1603.07285).
"""

from collections.abc import Sequence
from math import prod

from convatlas.names import format_shape
from convatlas.records import Layer
from convatlas.tracing.window_geometry import AxisWindow


def find_active_taps(window: AxisWindow, pixels: int) -> list[int]:
    """Return the taps along one axis, from 0, that meet a pixel at one or more outputs.

    Args:
        window: The window along the axis.
        pixels: The size of the input along the axis.
    """
    kernel, stride, padding, dilation = window
    outputs = (pixels + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1
    starts = range(-padding[0], -padding[0] + outputs * stride, stride)
    return [tap for tap in range(kernel) if any(0 <= start + tap * dilation < pixels for start in starts)]


def minimum_input_size(window: AxisWindow, pixels: int) -> int:
    """Return the smallest number of pixels, `pixels` or more, with which every tap of an axis meets one.

    Args:
        window: The window along the axis.
        pixels: The smallest size to try.
    """
    while len(find_active_taps(window, pixels)) < window.kernel:
        pixels += 1
    return pixels


def describe_inactive_taps(
    windows: Sequence[AxisWindow], input_size: Sequence[int], network_input_size: Sequence[int] | None = None
) -> str | None:
    """Describe the taps of a convolution that never meet its input.

    Args:
        windows: The window of the convolution along each axis. Its padding is zeros.
        input_size: Size of its input along each spatial axis.
        network_input_size: Size of the network's input, if `input_size` grows with it. Where it is a
            multiple of `input_size`, the size of the network's input that all taps would need is stated.

    Returns:
        A sentence; None where every tap meets the input.
    """
    axes = list(zip(windows, input_size, strict=True))
    active = [find_active_taps(window, pixels) for window, pixels in axes]
    kernel = [window.kernel for window in windows]
    dilation = [window.dilation for window in windows]
    if all(len(taps) == size for taps, size in zip(active, kernel, strict=True)):
        return None
    needed = [minimum_input_size(window, pixels) for window, pixels in axes]
    dilated = max(dilation) > 1
    name = f"dilation {_format_equal(dilation)}" if dilated else f"a kernel of {format_shape(kernel)}"
    text = (
        f"{name} on a {format_shape(input_size)} input: {_describe_active_taps(active, kernel)} the input, "
        f"the others only padding; all taps read an input of at least {format_shape(needed)}"
    )
    if network_input_size and not any(w % s for w, s in zip(network_input_size, input_size, strict=True)):
        at_network = [n * w // s for n, w, s in zip(needed, network_input_size, input_size, strict=True)]
        text += f" ({format_shape(at_network)} at the network's input)" if at_network != needed else ""
    return text


def format_notes(layers: Sequence[Layer]) -> list[str]:
    """Return the notes on layers as warnings, one line each with the layer's name.

    Args:
        layers: layers.json.
    """
    return [f"{layer['name']}: {note}" for layer in layers for note in layer["notes"]]


def _describe_active_taps(active: list[list[int]], kernel: Sequence[int]) -> str:
    """Return the subject and verb of the sentence: how many taps read."""
    if all(taps == [size // 2] and size % 2 for taps, size in zip(active, kernel, strict=True)):
        return "only the centre tap reads"
    count = prod(map(len, active))
    return f"only {count} of {prod(kernel)} taps read{'s' if count == 1 else ''}"


def _format_equal(numbers: Sequence[int]) -> str:
    """Return one number where all are equal, else all of them."""
    return str(numbers[0]) if len(set(numbers)) == 1 else format_shape(numbers)
