"""Backpropagate the scores of targets through a graph, in as few backward passes as memory allows."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from convatlas import UserError
from convatlas.attribution.class_scores import MAX_BATCH_VALUES, ClassScores, ScoreGraph, Targets
from convatlas.attribution.gradient_rules import attach_gradient_rules
from convatlas.attribution.methods.method import Explanation, allocate_maps

# From the numbers of images (M,) and positions (M,) to inputs (M, C, H, W).
MakeInputs = Callable[[Tensor, Tensor], Tensor]


def backpropagate(graph: ScoreGraph, targets: Targets, to: GradientEdge | Tensor | None = None) -> Tensor:
    """Return the gradient of each target's score, under the rules that are attached to the graph.

    Args:
        graph: The scores of N images; no other backward pass goes through it afterwards.
        targets: The target classes of these, T of each.
        to: Where to stop; by default at the input.

    Returns:
        (N, T, C, H, W), or with the shape of what `to` stands for.
    """
    signals = targets.make_signals(graph.scores.detach())
    end = graph.x if to is None else to
    parts = torch.split(signals, max(1, MAX_BATCH_VALUES // graph.x.numel()))
    passes = []
    for n, part in enumerate(parts):

        def backward(signal: Tensor, is_last: bool = n + 1 == len(parts)) -> Tensor:
            # Memory that is freed on the way is used again, which saves the time to obtain more.
            return torch.autograd.grad(graph.scores, end, signal, retain_graph=not is_last)[0]

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # vmap falls back to a loop
            passes.append(torch.func.vmap(backward)(part) if len(part) > 1 else backward(part[0])[None])
    return (torch.cat(passes) if len(passes) > 1 else passes[0]).transpose(0, 1)


def backpropagate_all(
    explanation: Explanation, attach: Callable[[ScoreGraph], AbstractContextManager[None]]
) -> Tensor:
    """Return the signals of all targets of all images at the input.

    Args:
        explanation: What is to be explained.
        attach: Attaches the rules of the backward pass to a graph.

    Returns:
        (N, T, C, H, W).

    Raises:
        UserError: As `attach`, with the names of layers.
    """
    values = allocate_maps(explanation, explanation.images.shape[1])
    for index, graph, targets in explanation.record_targets():
        try:
            with attach(graph):
                values[index] = backpropagate(graph, targets)
        except UserError:
            with attach(explanation.scores.record(graph.x, named=True)):
                raise
    return values


def sum_gradients(
    scores: ClassScores,
    targets: Targets,
    make_inputs: MakeInputs,
    positions: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Return weighted sums of gradients at several inputs for each image.

    Args:
        scores: The scores of the network.
        targets: The targets of N images.
        make_inputs: From numbers of images and positions to inputs.
        positions: The position of each input of an image, (P,), the same for all images.
        weights: The weight of each, (P,); by default 1.

    Returns:
        The sums, (N, T, C, H, W).
    """
    device, (count, target_count) = targets.classes.device, targets.classes.shape
    owners = torch.arange(count, device=device).repeat_interleave(len(positions))
    all_positions = positions.to(device).repeat(count)
    factors = torch.ones_like(all_positions) if weights is None else weights.to(device).repeat(count)
    sums: Tensor | None = None

    def make(index: slice) -> Tensor:
        return make_inputs(owners[index], all_positions[index])

    for index, graph in scores.record_batches(len(owners), make):
        with attach_gradient_rules(graph.top, graph.layers):
            gradients = backpropagate(graph, targets.take(owners[index]))
        if sums is None:
            sums = gradients.new_zeros(count, target_count, *gradients.shape[2:])
        factor = factors[index].to(gradients).reshape(-1, *[1] * (gradients.ndim - 1))
        sums.index_add_(0, owners[index], gradients * factor)
    assert sums is not None
    return sums
