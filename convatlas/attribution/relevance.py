"""The images of a data set on which units are most relevant to a class, beside those of the top activations.

Achtibat et al., From attribution maps to human-understandable explanations through concept relevance
propagation (Nature Machine Intelligence 2023, arXiv 2206.03208), choose a unit's reference images by its
relevance to a class (RelMax) and not by its activation (ActMax). The relevance of a unit is its activation
times the gradient of the class's logit, summed over its map. In a network of ReLUs, linear layers and max
pooling this is what layer-wise relevance propagation (LRP-0) gives; with other operations it is the
first-order change of the logit as the unit is switched off.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from convatlas import UserError
from convatlas.attribution.backward_rules import simplify_batch_norms
from convatlas.attribution.class_scores import MAX_BATCH_VALUES, ClassScores
from convatlas.attribution.gradient_rules import attach_gradient_rules
from convatlas.datasets.loader import BatchLoader
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.tracing.calls import Call, trace

log = logging.getLogger(__name__)

LOG_INTERVAL = 30  # seconds between two lines of progress


class TopRelevance(NamedTuple):
    """The k images on which units are most relevant to classes, the most relevant first.

    Attributes:
        values: The relevance, (classes, units, k) float32; 0 where fewer images have a positive one.
        images: Number of each image in the split, (classes, units, k) int32; -1 where there are fewer.
        positions: Row and column of the largest contribution in the map, (classes, units, k, 2) int32.
    """

    values: np.ndarray
    images: np.ndarray
    positions: np.ndarray


class _LayerState(NamedTuple):
    """The output of a layer in a forward pass, and where it stands in autograd's graph."""

    output: Tensor
    edge: GradientEdge


def find_relevant_images(
    network: nn.Module,
    output: Output,
    images: BatchLoader,
    units: Mapping[str, np.ndarray],
    classes: Sequence[int],
    k: int,
) -> dict[str, TopRelevance]:
    """Find the images of a split on which units are most relevant to classes.

    Args:
        network: The network.
        output: What its output means.
        images: The images of the split.
        units: Numbers of the units of each layer.
        classes: Numbers of the classes.
        k: How many images to find for each unit and class.

    Returns:
        The images by layer. In a segmentation the logit of a class is the sum over the pixels that are
        predicted as the class. Images whose scores are NaN or infinite are left out, with a warning.

    Raises:
        UserError: The network has no scores of classes, or they do not depend on a layer.
    """
    device = build.get_device(network)
    scores = ClassScores(network, output)
    top = {layer: _make_empty(len(classes), len(numbers), k) for layer, numbers in units.items()}
    last_log = time.monotonic()
    left_out, n_images = list[int](), 0
    for batch in images.read_batches(range(len(images))):
        if not len(batch.indices):  # none could be read
            continue
        n_images += len(batch.indices)
        x = images.preprocessing(build.to_device(torch.from_numpy(batch.pixels), device))
        step = len(x) if len(x) < 2 or scores.check_batches(x) else 1
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            by_layer, is_finite = _compute_relevance(scores, x[part], units, classes)
            left_out += batch.indices[part][~is_finite].tolist()
            for layer, new in by_layer.items():
                top[layer] = _merge(top[layer], *new, batch.indices[part])
        if time.monotonic() > last_log + LOG_INTERVAL:
            last_log = time.monotonic()
            log.info("relevance of units on %d of %d batches of images", batch.index + 1, len(images))
    if left_out:
        text = "relevance of units: %d of %d images are left out, the first %d: a score is NaN or infinite"
        log.warning(text, len(left_out), n_images, left_out[0])
    return top


def choose_batch_size(shape: Sequence[int]) -> int:
    """Return how many images run at once with their graph.

    Args:
        shape: Shape (C, H, W) of one input.
    """
    return max(1, MAX_BATCH_VALUES // math.prod(shape))


def _make_empty(classes: int, units: int, k: int) -> TopRelevance:
    """Return the most relevant images of no images."""
    shape = (classes, units, k)
    return TopRelevance(
        np.zeros(shape, np.float32), np.full(shape, -1, np.int32), np.zeros((*shape, 2), np.int32)
    )


def _merge(top: TopRelevance, values: np.ndarray, positions: np.ndarray, numbers: np.ndarray) -> TopRelevance:
    """Merge the relevance of later images into the most relevant ones; of equal ones the earlier come first.

    Args:
        top: The most relevant images so far.
        values: Relevance, (classes, units, n).
        positions: Row and column of the largest contribution, (classes, units, n, 2).
        numbers: Numbers of the images, (n,).
    """
    is_positive = values > 0  # not NaN
    images = np.where(is_positive, numbers, -1).astype(np.int32)
    new = TopRelevance(
        np.where(is_positive, values, 0), images, np.where(is_positive[..., None], positions, 0)
    )
    both = TopRelevance(*(np.concatenate(arrays, 2) for arrays in zip(top, new, strict=True)))
    order = np.argsort(-both.values, axis=2, kind="stable")[:, :, : top.values.shape[2]]
    return TopRelevance(
        np.take_along_axis(both.values, order, 2),
        np.take_along_axis(both.images, order, 2),
        np.take_along_axis(both.positions, order[..., None], 2),
    )


def _compute_relevance(
    scores: ClassScores, x: Tensor, units: Mapping[str, np.ndarray], classes: Sequence[int]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Return the relevance of units of layers to classes, and where the largest contribution is.

    Args:
        scores: The scores of the network.
        x: The images, (n, C, H, W).
        units: Numbers of the units of each layer.
        classes: Numbers of the classes.

    Returns:
        By layer, relevance (classes, units, n) float32 and row and column (classes, units, n, 2); and which
        images have finite scores, (n,) bool: the relevance on others is not positive.
    """
    with _record_outputs(scores.network, units) as outputs:
        graph = scores.record(x)
    if missing := [layer for layer in units if layer not in outputs]:
        raise _independent_layer_error(missing[0])
    values = graph.scores.detach()
    is_finite = values.flatten(1).isfinite().all(1)
    mask = is_finite.view(-1, *[1] * (values.ndim - 1))
    targets = scores.make_targets(
        values.where(mask, 0), torch.tensor([list(classes)] * len(x), device=x.device)
    )
    edges = [outputs[layer].edge for layer in units]
    index = {layer: torch.as_tensor(numbers, device=x.device).long() for layer, numbers in units.items()}
    reduced: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {layer: [] for layer in units}
    with attach_gradient_rules(graph.top, graph.layers):
        for signal in targets.make_signals(values):
            gradients = torch.autograd.grad(
                graph.scores, edges, signal * mask, retain_graph=True, allow_unused=True
            )
            # One class at a time, since the gradients of all layers take as much memory as the graph.
            for layer, gradient in zip(units, gradients, strict=True):
                if gradient is None:
                    raise _independent_layer_error(layer)
                reduced[layer].append(_reduce_maps((outputs[layer].output * gradient)[:, index[layer]]))
    relevance = {
        layer: (np.stack([sums for sums, _ in rows]), np.stack([positions for _, positions in rows]))
        for layer, rows in reduced.items()
    }
    return relevance, is_finite.cpu().numpy()


def _independent_layer_error(layer: str) -> UserError:
    """Return the error where the class scores do not depend on a layer."""
    return UserError(
        f"views.strongest.relevance: the class scores do not depend on {layer!r}; "
        "leave it out of views.strongest.project"
    )


def _reduce_maps(products: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of maps (n, units, ...) and the position of the largest value of each.

    Returns:
        (units, n), and rows and columns (units, n, 2).
    """
    width = products.shape[-1] if products.ndim > 2 else 1
    flat = products.flatten(2) if products.ndim > 2 else products[..., None]
    values, index = flat.sum(2).T, flat.argmax(2).T
    positions = torch.stack([index // width, index % width], -1)
    return values.float().cpu().numpy(), positions.int().cpu().numpy()


@contextmanager
def _record_outputs(network: nn.Module, layers: Mapping[str, np.ndarray]) -> Iterator[dict[str, _LayerState]]:
    """Record the outputs of layers in the last forward pass of the block that computes a graph.

    Outputs are copied, since a later operation may change them in place.
    """
    outputs: dict[str, _LayerState] = {}

    def record(call: Call) -> None:
        if call.layer in layers and call.output.grad_fn is not None:
            outputs[call.layer] = _LayerState(call.output.detach().clone(), get_gradient_edge(call.output))

    # First the batch norms' outputs are replaced by those of the graph, and then traced.
    with simplify_batch_norms(network), trace(network, record, layers):
        yield outputs
