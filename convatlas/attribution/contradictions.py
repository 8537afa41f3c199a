"""Stop where top activations and their patches contradict each other by more than rounding explains."""

from collections.abc import Callable, Sequence

import numpy as np

from convatlas import UserError
from convatlas.attribution.patches import PatchGeometry

# By how much an activation may differ when it is computed again, as a share of the layer's largest.
ACTIVATION_TOLERANCE = 1e-3
# A change of the pixels as large as the rounding of bfloat16, to which the effect of rounding is compared.
PIXEL_NOISE = 2.0**-8
ROUNDING_FACTOR = 10  # how much more than that noise a contradiction changes an activation

# Computes the activations (N,) of units at positions, one of each of N images (C, H, W).
Recompute = Callable[[Sequence[np.ndarray]], np.ndarray]


def is_reproduced(activations: np.ndarray, values: np.ndarray) -> bool:
    """Return whether activations that were computed again are those of the statistics; NaN passes.

    Args:
        activations: The activations, (N,).
        values: Those of the statistics, (N,).
    """
    return not np.abs(activations - values).max() > ACTIVATION_TOLERANCE * np.abs(values).max()


def check_top_activations(
    layer: str,
    images: Sequence[np.ndarray],
    values: np.ndarray,
    activations: np.ndarray,
    recompute: Recompute,
) -> None:
    """Stop where the top activations of the statistics are not those of their images alone.

    Args:
        layer: Name of the layer.
        images: The N images, preprocessed, (C, H, W).
        values: Their top activations in the statistics, (N,).
        activations: The same, computed again, (N,).
        recompute: Computes them.

    Raises:
        UserError: They differ by more than rounding can explain.
    """
    if is_reproduced(activations, values):
        return
    difference = np.abs(activations - values)
    if difference.max() > measure_rounding(images, activations, recompute):
        worst = int(difference.argmax())
        raise UserError(
            f"layer {layer!r}: a top activation over the data set is {values[worst]:.6g}, and "
            f"{activations[worst]:.6g} when its image is computed alone. The network lets images of a batch "
            "affect each other (a batch norm with track_running_stats=False, for example), keeps something "
            "from call to call, or draws random numbers in evaluation mode; let it compute each image alone, "
            "or set `views: {strongest: null, evolution: null}`"
        )


def check_patches(
    layer: str,
    images: Sequence[np.ndarray],
    geometry: PatchGeometry,
    positions: np.ndarray,
    activations: np.ndarray,
    recompute: Recompute,
) -> None:
    """Stop where a patch does not contain all pixels on which its top activation depends.

    All other pixels are replaced by noise: the activations must stay the same.

    Args:
        layer: Name of the layer.
        images: The N images, preprocessed, (C, H, W).
        geometry: The geometry of the layer.
        positions: Row and column of each activation in its map, (N, 2).
        activations: The activations, (N,).
        recompute: Computes them.

    Raises:
        UserError: An activation changes by more than rounding can explain.
    """
    if geometry.is_global:
        return
    random = np.random.default_rng(0)
    altered = []
    for image, position in zip(images, positions, strict=True):
        noise = random.normal(image.mean(), max(image.std(), 1e-3), image.shape).astype(image.dtype)
        pixels = (slice(None), *geometry.pixel_slices(position))
        noise[pixels] = image[pixels]
        altered.append(noise)
    change = np.abs(recompute(altered) - activations)
    if not change.max() > ACTIVATION_TOLERANCE * np.abs(activations).max():
        return
    if change.max() > measure_rounding(images, activations, recompute):
        worst = int(change.argmax())
        height, width = geometry.field_size
        raise UserError(
            f"layer {layer!r}: a top activation changes by {change[worst]:.3g}, of {activations[worst]:.3g}, "
            f"when only pixels outside its receptive field of {height} × {width} pixels change, so that its "
            "patch does not show what caused it. The receptive field in layers.json is wrong for this layer, "
            "which is an error of convatlas: please report it with the network. Until then, leave the layer "
            "out of views.strongest.project and views.evolution.layers, and do not trust its receptive field"
        )


def measure_rounding(images: Sequence[np.ndarray], activations: np.ndarray, recompute: Recompute) -> float:
    """Return the largest difference of an activation that rounding may explain, even of an unstable network.

    A network that compares with a threshold, such as one with binary activations, turns the smallest
    difference into a large one; bfloat16 within a network rounds by up to 0.4 %.

    Args:
        images: The N images, preprocessed, (C, H, W).
        activations: Their activations, (N,).
        recompute: Computes them.
    """
    random = np.random.default_rng(0)
    noisy = [
        image * (1 + PIXEL_NOISE * random.standard_normal(image.shape)).astype(image.dtype)
        for image in images
    ]
    return float(ROUNDING_FACTOR * np.abs(recompute(noisy) - activations).max())
