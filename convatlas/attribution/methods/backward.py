"""Send the scores of targets down a graph, all in as few backward passes as memory allows."""

import warnings

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from convatlas.attribution.class_scores import MAX_BATCH_VALUES, ScoreGraph, Targets


def send_down(graph: ScoreGraph, targets: Targets, to: GradientEdge | Tensor | None = None) -> Tensor:
    """Return the gradient of each target's score, under the rules that are attached to the graph.

    Args:
        graph: The scores of N images.
        targets: The target classes of these, T of each.
        to: Where to stop; by default at the input.

    Returns:
        (N, T, C, H, W), or with the shape of what `to` stands for.
    """
    signals = targets.make_signals(graph.scores.detach())
    end = graph.x if to is None else to

    def backward(signal: Tensor) -> Tensor:
        return torch.autograd.grad(graph.scores, end, signal, retain_graph=True)[0]

    size = max(1, MAX_BATCH_VALUES // graph.x.numel())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # vmap falls back to a loop
        passes = [
            torch.func.vmap(backward)(part) if len(part) > 1 else backward(part[0])[None]
            for part in torch.split(signals, size)
        ]
    return torch.cat(passes).transpose(0, 1)


def count_images(images: Tensor) -> int:
    """Return how many images run at once with their graph.

    Args:
        images: The images, (N, C, H, W).
    """
    return max(1, MAX_BATCH_VALUES // images[0].numel())
