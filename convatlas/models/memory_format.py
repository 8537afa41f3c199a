"""The memory format that a network runs in: channels last where it can, as that is faster on every device."""

from collections.abc import Sequence

import torch
from torch import nn

from convatlas.models.build import get_device


def convert_memory_format(network: nn.Module, shape: Sequence[int]) -> torch.memory_format:
    """Convert a network to channels last, or to the contiguous format if it does not run in channels last.

    Args:
        network: The network. The memory format of its parameters and buffers is changed.
        shape: Shape (C, H, W) of one input.

    Returns:
        The memory format that its inputs must have.
    """
    if len(shape) == 3:
        network.to(memory_format=torch.channels_last)
    memory_format = choose_input_format(network, shape)
    if memory_format != torch.channels_last:
        network.to(memory_format=memory_format)
    return memory_format


@torch.no_grad()
def choose_input_format(network: nn.Module, shape: Sequence[int]) -> torch.memory_format:
    """Return channels last if a network runs on inputs in it, else the contiguous format.

    A `view()` of feature maps, for example, requires the contiguous format. The network runs once, in
    evaluation mode, on two inputs of zeros, and is left as it was.

    Args:
        network: The network.
        shape: Shape (C, H, W) of one input.
    """
    if len(shape) != 3:  # channels last is a format of images
        return torch.contiguous_format
    zeros = torch.zeros(2, *shape, device=get_device(network))
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        network(zeros.to(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    finally:
        for module in training:
            module.training = True
    return torch.channels_last
