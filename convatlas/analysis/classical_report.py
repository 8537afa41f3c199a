"""classical/ of a network: features of its sample images, and the units and filters that resemble them."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convatlas.analysis import classical, kernels
from convatlas.analysis.classical import MapGrid
from convatlas.files import Npz, atomic_write, write_json, write_npz
from convatlas.image_io import denormalize, is_image_input, order_as_rgb, takes_rgb
from convatlas.models import build
from convatlas.records import FilterMatches, Layer, LayerMatches, Preprocessing, UnitMatches
from convatlas.results import Results
from convatlas.tracing.record import for_each_layer

log = logging.getLogger(__name__)


def write_classical_matches(folder: str | Path, threshold: float, device: torch.device) -> None:
    """Compare a network's feature maps and filters with classical operators and write classical/.

    The baseline of each layer is what an untrained network of the same architecture reaches.

    Args:
        folder: The network's folder, results/<network>, with layers, filters and activations.
        threshold: Smallest `|r|` of a match.
        device: Where the untrained network runs.
    """
    results = Results(folder)
    preprocessing = results.network["preprocessing"]
    is_image = is_image_input(preprocessing)  # other inputs have no classical features
    layers = {layer["name"]: layer for layer in results.layers if is_image and is_comparable(layer)}
    images = [image["name"] for image in results.images] if is_image else []
    inputs = {name: results.activations(name)["input"] for name in images}
    features = {
        name: classical.compute_features(order_as_rgb(denormalize(x, preprocessing), preprocessing))
        for name, x in inputs.items()
    }
    untrained, _ = build.build_from_description(results.network, seed=results.network["seed"] + 1)
    untrained.to(device)

    # The correlations (units, columns) of each layer, one array per image.
    trained_correlations: dict[str, list[np.ndarray]] = defaultdict(list)
    untrained_correlations: dict[str, list[np.ndarray]] = defaultdict(list)

    def add_untrained(comparison: "ImageComparison", layer: str, output: Tensor) -> None:
        untrained_correlations[layer].append(comparison.correlate(layer, output[0].cpu().numpy()))

    for name in images:
        comparison = ImageComparison(features[name], layers)
        activations = results.activations(name)
        for layer in layers:
            trained_correlations[layer].append(comparison.correlate(layer, activations[layer]))
        x = torch.from_numpy(inputs[name])[None].to(device)
        for_each_layer(untrained, x, layers, partial(add_untrained, comparison))
        log.info("compared %d layers on %s", len(layers), name)

    matches: UnitMatches = {
        "threshold": threshold,
        "layers": {
            layer: match_layer(trained_correlations[layer], untrained_correlations[layer], threshold)
            for layer in layers
        },
    }
    with atomic_write(Path(folder) / "classical") as output:
        output.mkdir()
        for name in images:
            write_npz(output / f"{name}.npz", features[name])
        write_json(output / "units.json", matches)
        write_json(
            output / "filters.json", match_first_filters(results.layers, results.filters, preprocessing)
        )


def is_comparable(layer: Layer) -> bool:
    """Return whether a layer's outputs are maps that are large enough to resemble something.

    Args:
        layer: The layer's entry in layers.json.
    """
    shape = layer["output_shape"] or []
    return layer["called"] and len(shape) == 3 and min(shape[1:]) >= classical.MIN_MAP_SIZE


class ImageComparison:
    """Comparison of feature maps with the features of one image, which are resampled once per map size.

    Args:
        features: The image's features, as `classical.compute_features` returns them.
        layers: Entries of layers.json by name.
    """

    def __init__(self, features: Mapping[str, np.ndarray], layers: Mapping[str, Layer]) -> None:
        self.features, self.layers = features, layers
        self.resampled: dict[tuple[tuple[int, ...], MapGrid | None], dict[str, np.ndarray]] = {}

    def correlate(self, layer: str, maps: np.ndarray) -> np.ndarray:
        """Return the correlations of a layer's maps with the image's features.

        Args:
            layer: Name of the layer.
            maps: The layer's maps for the image, (units, h, w).

        Returns:
            (units, columns), as `classical.correlate_maps` returns them.
        """
        size, grid = maps.shape[1:], grid_from_layer(self.layers[layer])
        if (size, grid) not in self.resampled:
            self.resampled[size, grid] = classical.resample_columns(self.features, size, grid)
        return classical.correlate_maps(maps, self.resampled[size, grid])


def grid_from_layer(layer: Layer) -> MapGrid | None:
    """Return where a layer's cells lie in the input: at the centres of their receptive fields.

    Args:
        layer: The layer's entry in layers.json.

    Returns:
        The grid, in pixels of the input; None if the receptive field is not known.
    """
    first, field, step = layer["receptive_start"], layer["receptive_field"], layer["receptive_step"]
    if first is None or field is None or step is None:
        return None
    y, x = (start + (size - 1) / 2 for start, size in zip(first, field, strict=True))
    return MapGrid((y, x), (step[0], step[1]))


def match_layer(
    trained: Sequence[np.ndarray], untrained: Sequence[np.ndarray], threshold: float
) -> LayerMatches:
    """Return the classical features that the units of a layer match.

    Args:
        trained: Correlations (units, columns) of the network, one array per image.
        untrained: Correlations of the untrained network.
        threshold: Smallest `|r|` of a match.
    """
    baseline = classical.untrained_baseline(classical.mean_correlations(untrained))
    units = classical.match_units(classical.mean_correlations(trained), baseline, threshold)
    return {"baseline": baseline, "units": units}


def match_first_filters(
    layers: Sequence[Layer], filters: Npz, preprocessing: Preprocessing
) -> FilterMatches | None:
    """Return the classical kernels that the filters of the first convolution match.

    Args:
        layers: layers.json.
        filters: filters.npz.
        preprocessing: Of network.json; filters of BGR images are compared in the order red, green, blue.

    Returns:
        None if there is no two-dimensional convolution that is called.
    """
    layer = next((layer for layer in layers if layer["ordinal"] == 1), None)
    if layer is None or layer["module"] not in filters or filters[layer["module"]].ndim != 4:
        return None
    weight = order_as_rgb(filters[layer["module"]], preprocessing)
    matches = kernels.match_kernels(weight)
    correlations = kernels.channel_correlations(weight) if takes_rgb(weight, preprocessing) else None
    return {
        "layer": layer["name"],
        "baseline": kernels.random_baseline(weight.shape[-1]),
        "r": None if matches is None else matches[0].tolist(),
        "kernels": None if matches is None else matches[1],
        "channel_correlations": None if correlations is None else correlations.tolist(),
        "colour_classes": None
        if correlations is None
        else [kernels.classify_channels(row) for row in correlations],
    }
