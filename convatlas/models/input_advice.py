"""What to change where a network does not take its input: size, axes or channels, or the network itself."""

import torch
from torch import nn

from convatlas.models.preprocessing import Preprocessing

COMMON_SIDES = (28, 32, 64, 96, 128, 224, 256, 299, 384, 512)  # pixels of square images
SIZES = {1: "[length]", 2: "[height, width]", 3: "[depth, height, width]"}  # by number of axes
SIZE_WORDS = ("size", "shape", "multipl", "must match", "too small")  # in errors that a size causes


def advise_on_input(network: nn.Module, preprocessing: Preprocessing, message: str, key: str) -> str:
    """Return what to change in the config where a network raises an error on its input.

    Args:
        network: The network.
        preprocessing: The preprocessing of the input that it does not take.
        message: What it raised.
        key: Place of its `input` in the config.
    """
    convolution = next(iter(list_convolutions(network)), None)
    axes = len(convolution.kernel_size) if convolution else 2
    if axes != len(preprocessing.size):
        advice = f"its first convolution is a {type(convolution).__name__}: set {key}.size to {SIZES[axes]}"
        return advice if axes == 2 else f"{advice}, and choose NumPy files of that size by images.files"
    if "channels" in message:
        return f"set {key}.channels to the number of channels that the network takes"
    if preprocessing.is_image and (side := _find_working_side(network, preprocessing)):
        return f"set {key}.size to the size that it was designed for (at {side} it runs)"
    if "more than 1 value per channel" in message:
        return (
            "a batch norm with track_running_stats=False normalises by the batch, and one image is none; "
            "let it keep running statistics, or use a GroupNorm"
        )
    if any(word in message for word in SIZE_WORDS):
        return f"set {key}.size to the size that it was designed for"
    return "fix the network's forward, which is called with one batch of float32 inputs"


def list_convolutions(network: nn.Module) -> list[nn.modules.conv._ConvNd]:
    """Return the convolutions of a network, in the order of its modules.

    Args:
        network: The network.
    """
    return [module for module in network.modules() if isinstance(module, nn.modules.conv._ConvNd)]


@torch.no_grad()
def _find_working_side(network: nn.Module, preprocessing: Preprocessing) -> int | None:
    """Return the first of some common sizes of square images that a network takes; None if it takes none."""
    for side in COMMON_SIDES:
        try:
            network(torch.zeros(1, preprocessing.shape[0], side, side))
        except Exception:  # whatever a network of the user's may raise
            continue
        return side
    return None
