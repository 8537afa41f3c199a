"""The weights of units that have one weight per input: fully connected layers, and 1 × 1 convolutions.

Their order in a tensor is no place, so that an image of them says nothing. Those of a layer after a
flattening have the places of the feature maps; of others the largest weights and a histogram are listed.
"""

import math
from collections.abc import Mapping

import numpy as np

from convatlas.gallery.explorer_types import WeightSummary
from convatlas.plotting.sprites import round_significant
from convatlas.records import Layer

N_BINS = 24  # of the histogram, between ± the largest magnitude
N_LARGEST = 5  # weights of a unit that are listed
DIGITS = 3  # significant digits


def arrange_on_maps(weight: np.ndarray, layer: Layer, layers: Mapping[str, Layer]) -> np.ndarray:
    """Return the weights of a layer that reads flattened feature maps on the grid of these maps.

    Args:
        weight: (units, inputs) of a fully connected layer; any other weights are returned as they are.
        layer: The layer.
        layers: Every layer, by its name.

    Returns:
        (units, channels, h, w) where the layer's inputs are flattened maps of more than one pixel.
    """
    source = layer
    while len(source["inputs"]) == 1 and source["inputs"][0] in layers:
        source = layers[source["inputs"][0]]
        if source["kind"] != "dropout":
            break
    shape = source["input_shape"]
    is_flattened = source["kind"] == "reshape" and len(source["output_shape"]) == 1 and len(shape) == 3
    if (
        weight.ndim != 2
        or not is_flattened
        or math.prod(shape[1:]) == 1
        or weight.shape[1] != math.prod(shape)
    ):
        return weight
    return weight.reshape(len(weight), *shape)


def summarize_weights(weight: np.ndarray) -> WeightSummary | None:
    """Return the histogram of a layer's weights, and the largest weights of each unit.

    Args:
        weight: (units, inputs), or (units, inputs, 1, 1) of a 1 × 1 convolution.

    Returns:
        None for other weights, and where none is finite.
    """
    if weight.ndim not in (2, 4) or math.prod(weight.shape[2:]) != 1 or not np.isfinite(weight).any():
        return None
    values = weight.reshape(len(weight), -1)
    finite = np.where(np.isfinite(values), values, 0)
    max_abs = float(np.abs(finite).max()) or 1.0
    counts, _ = np.histogram(values[np.isfinite(values)], N_BINS, (-max_abs, max_abs))
    inputs = np.argsort(-np.abs(finite), axis=1, kind="stable")[:, :N_LARGEST]
    largest = np.take_along_axis(finite, inputs, 1)
    return WeightSummary(
        inputs=values.shape[1],
        max_abs=round_significant(np.array([max_abs]), DIGITS)[0] or 1.0,
        histogram=counts.tolist(),
        largest_inputs=inputs.tolist(),
        largest=[round_significant(row, DIGITS) for row in largest],
    )
