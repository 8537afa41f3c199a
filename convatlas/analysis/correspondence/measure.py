"""Measure how similarly features change as a part is occluded in images: Zeiler and Fergus 2014, 4.3."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.analysis.chance_level import adjust_p_values
from convatlas.analysis.correspondence.boxes import Box, draw_offsets, list_offsets
from convatlas.analysis.responses import ResponseReader, copy
from convatlas.models.outputs import Output

ROUNDING = 1e-6  # of the largest magnitude of a layer, below which a change is rounding, and none
NOT_FINITE = 2  # in place of the sign of a change that is NaN or infinite
KINDS = ("part", "random", "moved")


@dataclass(frozen=True)
class Correspondence:
    """Sign distances of a layer, and the share of its values that the occlusion changes.

    Attributes:
        part: Of each set of images with the part occluded, (sets,).
        random: With boxes of the same sizes, each at a random place, (sets, draws).
        moved: With all boxes of a set moved by one random offset, (sets, draws); NaN where they cannot be.
        changed: The mean share of values that change, by kind: "part", "random" and "moved".
        p_value: Share of the draws in which random boxes are as alike as the part, adjusted for all layers.
        moved_p_value: The same of boxes that are moved together; 1 where they cannot be.
    """

    part: np.ndarray
    random: np.ndarray
    moved: np.ndarray
    changed: dict[str, float]
    p_value: float
    moved_p_value: float


def measure_correspondence(
    network: nn.Module,
    sets: Sequence[Tensor],
    boxes: Sequence[Sequence[Box]],
    layers: Sequence[str],
    fill: Tensor,
    draws: int,
    seed: int,
) -> dict[str, Correspondence]:
    """Measure the correspondence of a part across images, in each of several layers.

    Args:
        network: The network, in evaluation mode.
        sets: Sets of images as the network's inputs, (N, C, H, W) each.
        boxes: The box of the part in each image of each set, none of which fills the image.
        layers: Names of the layers.
        fill: The value of an occluded pixel in each channel, (C,).
        draws: The number of random occlusions of each set.
        seed: Of the places.

    Returns:
        The measurements by layer, of those that are called.
    """
    generator = np.random.default_rng(seed)
    distances: dict[str, dict[str, list[list[float]]]] = {kind: {} for kind in KINDS}
    changed: dict[str, dict[str, list[list[float]]]] = {kind: {} for kind in KINDS}
    for x, set_boxes in zip(sets, boxes, strict=True):
        reader = ResponseReader(network, layers, Output("none"), x)
        places = {"part": [list(set_boxes)], **draw_places(set_boxes, tuple(x.shape[-2:]), draws, generator)}
        for kind, rounds in places.items():
            occluded = (occlude(x, place, fill) for place in rounds)
            by_layer = measure_set(reader, x, occluded)
            for layer, pairs in by_layer.items():
                distances[kind].setdefault(layer, []).append([pair[0] for pair in pairs])
                changed[kind].setdefault(layer, []).append([pair[1] for pair in pairs])
    return summarise(distances, changed, draws)


def draw_places(
    boxes: Sequence[Box], size: tuple[int, ...], draws: int, generator: np.random.Generator
) -> dict[str, list[list[Box]]]:
    """Draw places of boxes elsewhere in their images.

    Args:
        boxes: The box of each image of a set.
        size: Height and width of the images.
        draws: The number of draws.
        generator: The generator.

    Returns:
        The boxes of each draw: "random", each at a place of its own, and "moved", all moved by one offset;
        none where no offset leaves all of them within their images.
    """
    offsets = [list_offsets(box, size) for box in boxes]
    own = [draw_offsets(image_offsets, draws, generator) for image_offsets in offsets]
    random = [[box.move(own[n][draw]) for n, box in enumerate(boxes)] for draw in range(draws)]
    common = np.logical_and.reduce(offsets)
    moved: list[list[Box]] = []
    if common.any():
        moved = [[box.move(offset) for box in boxes] for offset in draw_offsets(common, draws, generator)]
    return {"random": random, "moved": moved}


def occlude(x: Tensor, boxes: Sequence[Box], fill: Tensor) -> Tensor:
    """Return images with a box of each filled.

    Args:
        x: The images, (N, C, H, W).
        boxes: The box of each.
        fill: The value of a pixel in each channel, (C,), or the images that fill the boxes, (N, C, H, W).
    """
    filling = fill.to(x).reshape(-1, 1, 1).expand_as(x) if fill.ndim == 1 else fill
    occluded = x.clone()
    for image, source, (top, left, height, width) in zip(occluded, filling, boxes, strict=True):
        rows, columns = slice(top, top + height), slice(left, left + width)
        image[:, rows, columns] = source[:, rows, columns]
    return occluded


def measure_set(
    reader: ResponseReader, x: Tensor, occluded: Iterable[Tensor]
) -> dict[str, list[tuple[float, float]]]:
    """Measure sign distances of a set of images for several occlusions.

    Args:
        reader: Reads the layers' outputs.
        x: The images, (N, C, H, W), two at least.
        occluded: The images of each occlusion.

    Returns:
        By layer, of each occlusion: the sign distance, and the mean share of values that change; NaN where
        values are NaN or infinite.
    """
    unchanged = reader.read(x, copy).layers
    limits = {
        layer: ROUNDING * output.abs().flatten(1).amax(1).reshape(-1, *[1] * (output.ndim - 1))
        for layer, output in unchanged.items()
    }

    def compute_signs(layer: str, output: Tensor, rows: slice) -> Tensor:
        change = output - unchanged[layer][rows]
        signs = change.sign() * (change.abs() > limits[layer][rows])
        return signs.where(change.isfinite(), NOT_FINITE).to(torch.int8).flatten(1)

    results: dict[str, list[tuple[float, float]]] = {layer: [] for layer in unchanged}
    for images in occluded:
        for layer, signs in reader.read(images, compute_signs).layers.items():
            if bool((signs == NOT_FINITE).any()):
                results[layer].append((np.nan, np.nan))
                continue
            share = float((signs != 0).double().mean())
            results[layer].append((compute_sign_distance(signs), share))
    return results


def compute_sign_distance(signs: Tensor) -> float:
    """Return the share of values whose signs differ between two images, the mean over all pairs of images.

    Zeiler and Fergus (2014, section 4.3) sum the Hamming distances; this divides by values and pairs.

    Args:
        signs: -1, 0 and 1, (N, values), of two images at least.
    """
    pairs = [(first != second).float().mean(dtype=torch.float64) for first, second in combinations(signs, 2)]
    return float(torch.stack(pairs).mean())


def summarise(
    distances: Mapping[str, Mapping[str, list[list[float]]]],
    changed: Mapping[str, Mapping[str, list[list[float]]]],
    draws: int,
) -> dict[str, Correspondence]:
    """Collect the measurements of all sets by layer, with p-values.

    Args:
        distances: By kind and layer, of each set, the sign distance of each draw.
        changed: The share of values that change, likewise.
        draws: The number of draws of a set.
    """
    layers = list(distances["part"])
    part = {layer: np.array(distances["part"][layer])[:, 0] for layer in layers}
    controls = {
        kind: {
            layer: np.array([row or [np.nan] * draws for row in distances[kind][layer]]) for layer in layers
        }
        for kind in ("random", "moved")
    }
    p_values = {kind: compute_p_values(part, controls[kind]) for kind in controls}
    shares = {
        kind: {
            layer: _compute_finite_mean([value for row in changed[kind][layer] for value in row])
            for layer in layers
        }
        for kind in KINDS
    }
    return {
        layer: Correspondence(
            part[layer],
            controls["random"][layer],
            controls["moved"][layer],
            {kind: shares[kind][layer] for kind in KINDS},
            p_values["random"][layer],
            p_values["moved"][layer],
        )
        for layer in layers
    }


def _compute_finite_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are finite; NaN where there is none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def compute_p_values(part: Mapping[str, np.ndarray], control: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the share of the draws in which other places are as alike as the part, adjusted for all layers.

    The mean over the sets is compared, over the sets whose boxes can be placed elsewhere and whose values are
    finite. The part counts as one of the draws, as in any exact test.

    Args:
        part: The sign distance of each set, (sets,), by layer.
        control: Those of other places, (sets, draws), by layer.
    """
    rows = {}
    for layer, values in part.items():
        is_known = ~np.isnan(control[layer]).any(1) & ~np.isnan(values)
        if is_known.any():
            rows[layer] = np.append(values[is_known].mean(), control[layer][is_known].mean(0))
    p_values = adjust_p_values(-np.array(list(rows.values())))
    return dict.fromkeys(part, 1.0) | dict(zip(rows, p_values.tolist(), strict=True))
