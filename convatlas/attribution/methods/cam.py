"""Class activation maps by gradients: Grad-CAM and Grad-CAM++."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from convatlas import UserError
from convatlas.attribution.class_scores import ScoreGraph, Targets
from convatlas.attribution.inplace_writes import all_nodes
from convatlas.attribution.layer_maps import MapsFilter, MapsOutput
from convatlas.attribution.methods.backward import backpropagate
from convatlas.attribution.methods.method import Explanation, Maps, Method, allocate_maps, empty_checks
from convatlas.names import suggest_nearest

# From the maps (N, 1, units, h, w) and the gradients by them (N, T, units, h, w) to the weight of each unit,
# (N, T, units).
WeighUnits = Callable[[Tensor, Tensor], Tensor]


def weigh_by_mean_gradient(maps: Tensor, gradients: Tensor) -> Tensor:
    """Return the weights of Grad-CAM, the spatial means of the gradients: (N, T, units).

    Args:
        maps: The maps, (N, 1, units, h, w).
        gradients: The gradients of the scores by them, (N, T, units, h, w).
    """
    return gradients.mean((3, 4))


def weigh_by_positive_gradients(maps: Tensor, gradients: Tensor) -> Tensor:
    """Return the weights of Grad-CAM++, Σ α relu(g) with α = g² / (2 g² + Σ A g³): (N, T, units).

    These are the paper's for the exponential of the score, without its value, which scales all of them.

    Args:
        maps: The maps A, (N, 1, units, h, w).
        gradients: The gradients g of the scores by them, (N, T, units, h, w).
    """
    squares = gradients**2
    denominators = 2 * squares + maps.sum((3, 4), keepdim=True) * squares * gradients
    alphas = torch.where(denominators == 0, 0, squares / denominators)
    return (alphas * gradients.relu()).sum((3, 4))


def compute_grad_cam(explanation: Explanation) -> Maps:
    """Return the positive part of a layer's maps, weighted by the mean gradients of each target's score.

    Args:
        explanation: What is to be explained.

    Raises:
        UserError: The layer does not exist, has no maps, or the scores do not depend on it.
    """
    return _compute_cam(explanation, weigh_by_mean_gradient)


def compute_grad_cam_plus_plus(explanation: Explanation) -> Maps:
    """Return the positive part of a layer's maps, weighted by the gradients where these are positive.

    Args:
        explanation: What is to be explained.

    Raises:
        UserError: As in `compute_grad_cam`.
    """
    return _compute_cam(explanation, weigh_by_positive_gradients)


def _compute_cam(explanation: Explanation, weigh: WeighUnits) -> Maps:
    """Return class activation maps, enlarged bilinearly to the input's size."""
    images = explanation.images
    if images.ndim != 4:
        raise UserError(f"class activation maps are of images, and x has the shape {tuple(images.shape)}")
    values, checks = allocate_maps(explanation, 1), empty_checks(explanation.classes)
    maps_filter = MapsFilter(explanation.layer, images.shape[2] / images.shape[3])
    for index, graph, targets in explanation.record_targets(maps_filter):
        graph, maps = _choose_maps(explanation, graph, maps_filter)
        cam = _weigh_maps(graph, targets, maps, weigh)
        values[index] = F.interpolate(cam, images.shape[2:], mode="bilinear", align_corners=False)[:, :, None]
        for row in checks[index]:
            for entry in row:
                entry["layer"] = maps.layer
    return Maps(values, checks)


def _weigh_maps(graph: ScoreGraph, targets: Targets, maps: MapsOutput, weigh: WeighUnits) -> Tensor:
    """Return the rectified sum of a layer's weighted maps for each target, (N, T, h, w)."""
    gradients = backpropagate(graph, targets, maps.edge)
    weights = weigh(maps.value[:, None], gradients)
    return torch.einsum("ntu,nuhw->nthw", weights, maps.value).relu()


def _choose_maps(
    explanation: Explanation, graph: ScoreGraph, maps_filter: MapsFilter
) -> tuple[ScoreGraph, MapsOutput]:
    """Return the maps of the chosen layer or the default one, with the graph of the run that they are of."""
    layer = explanation.layer
    nodes = set(all_nodes(graph.top))
    reachable = [maps for maps in graph.maps if maps.edge.node in nodes]
    if layer is not None:
        if not reachable or reachable[-1].value.shape[2:].numel() < 2:
            named = explanation.scores.record(graph.x, maps_filter, named=True)
            raise UserError(_explain_missing_maps(layer, named))
        return graph, reachable[-1]
    if not reachable:
        raise UserError(
            "class activation maps need a layer with maps, (N, units, H, W) with more than one position, on "
            "which the scores of classes depend; the network has none"
        )
    chosen = reachable[-1]
    if graph.scores.ndim == 4:  # of pixels: the bottleneck, the last one with the smallest maps
        smallest = min(maps.value.shape[2:].numel() for maps in reachable)
        chosen = [maps for maps in reachable if maps.value.shape[2:].numel() == smallest][-1]
    if chosen.is_intact:
        return graph, chosen
    again = explanation.scores.record(graph.x, MapsFilter(chosen.layer))
    return again, again.maps[-1]


def _explain_missing_maps(layer: str, graph: ScoreGraph) -> str:
    """Return why there are no maps of a layer to weigh."""
    if any(maps.layer == layer for maps in graph.maps):
        return f"the layer {layer!r} has maps of one position, or the scores of classes do not depend on it"
    names = list(dict.fromkeys(graph.layers.values()))
    if layer in names:
        return f"the layer {layer!r} has no maps, (N, units, H, W), to weigh; choose a layer before it"
    return f"no layer {layer!r} to explain by; {suggest_nearest(layer, names)}"


_CAVEAT = (
    "It says in which region, as coarse as the layer's maps; the fine outline comes from enlarging them."
)
GRAD_CAM = Method(
    name="grad_cam",
    title="Grad-CAM",
    returns="map",
    requires=frozenset({"class scores", "maps"}),
    citation="Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2016, arXiv 1610.02391",
    caveat=_CAVEAT,
    check="Before global average pooling and one linear layer it equals CAM, up to a factor.",
    compute=compute_grad_cam,
    is_contribution=True,
)
GRAD_CAM_PLUS_PLUS = Method(
    name="grad_cam_plus_plus",
    title="Grad-CAM++",
    returns="map",
    requires=frozenset({"class scores", "maps"}),
    citation="Chattopadhyay, Sarkar, Howlader, Balasubramanian 2017, arXiv 1710.11063",
    caveat=_CAVEAT,
    check="Where one position of a map has a gradient, its weight is that of the paper's formula.",
    compute=compute_grad_cam_plus_plus,
    is_contribution=True,
)
