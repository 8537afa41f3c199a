"""Compare the layers of networks, each with itself, with its untrained version, and with other networks."""

import logging
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from convatlas.analysis.drawn_images import SPLIT
from convatlas.analysis.jackknife import jackknife_error
from convatlas.analysis.similarity.cka import CenteredLayers, LayerSimilarity, compute_cka
from convatlas.analysis.similarity.features import (
    TRAINED,
    UNTRAINED,
    ComparedNetwork,
    Features,
    choose_common_batch,
    compute_network_features,
)
from convatlas.files import to_json_number, write_analysis
from convatlas.pipeline.config_types import SimilaritySettings
from convatlas.records import MeanSimilarity, NetworkSimilarity, PairSimilarity, SimilarityAnalysis

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]


def write_similarity(
    output: str | Path,
    results: str | Path,
    data: str | Path,
    settings: SimilaritySettings,
    device: torch.device,
) -> None:
    """Compare the layers of all networks and write similarity.json and similarity.npz.

    Two networks are compared on images that both see, each by its own preprocessing: those of the data set of
    the network that comes first.

    Args:
        output: The folder to write, results/_similarity; it is replaced.
        results: The folder of the networks' folders, with weights.safetensors, network.json and layers.json.
        data: The folder of the data sets.
        settings: The networks with their settings, in the order of the config, and the seed.
        device: Where the networks run.
    """
    results, data = Path(results), Path(data)
    batch_size = choose_common_batch(results, settings)
    networks: dict[str, ComparedNetwork] = {}
    earlier: list[str] = []
    for name, network in settings["networks"].items():
        datasets = dict.fromkeys([network["dataset"], *earlier])
        networks[name] = compute_network_features(results, data, name, settings, datasets, batch_size, device)
        earlier.append(network["dataset"])
    arrays: Arrays = {}
    analysis: SimilarityAnalysis = {
        "split": SPLIT,
        "batch": batch_size,
        "networks": {name: _describe_network(network, arrays) for name, network in networks.items()},
        "pairs": [_describe_pair(a, b, arrays) for a, b in combinations(networks.values(), 2)],
    }
    write_analysis(output, "similarity", analysis, arrays)


def _describe_network(network: ComparedNetwork, arrays: Arrays) -> NetworkSimilarity:
    """Compare the layers of a network with each other, and with those of its untrained version."""
    features = network.features.get(network.dataset)
    entry: NetworkSimilarity = {
        "undefined": network.undefined,
        "control_undefined": network.control_undefined,
        "dataset": network.dataset,
        "images": 0,
        "layers": [],
        "left_out": network.left_out,
        "mean": None,
    }
    if network.undefined or not isinstance(features, Features):
        log.warning("%s is left out: %s", network.name, network.undefined)
        return entry
    pairs = np.triu_indices(len(features.layers), 1)
    centered = features.center()
    mean = _compare(centered, centered, network.name, arrays, pairs)
    if UNTRAINED in centered:
        cross = compute_cka(centered[TRAINED], centered[UNTRAINED])
        _add_arrays(arrays, f"{network.name}@trained_untrained", cross)
    return {**entry, "images": len(features.indices), "layers": features.layers, "mean": mean}


def _describe_pair(a: ComparedNetwork, b: ComparedNetwork, arrays: Arrays) -> PairSimilarity:
    """Compare the layers of two networks on the images of the first one's data set."""
    key = f"{a.name}--{b.name}"
    entry: PairSimilarity = {
        "networks": [a.name, b.name],
        "undefined": None,
        "key": key,
        "dataset": a.dataset,
        "images": 0,
        "layers": [[], []],
        "mean": None,
    }
    features, others = a.features.get(a.dataset), b.features.get(a.dataset)
    if not isinstance(features, Features):
        return {**entry, "undefined": f"{a.name} is left out: {a.undefined}"}
    if not isinstance(others, Features):
        return {**entry, "undefined": f"{b.name} on the images of {a.dataset}: {others or b.undefined}"}
    count = min(len(features.indices), len(others.indices))
    features, others = features.select_first(count), others.select_first(count)
    if features.indices != others.indices:
        return {**entry, "undefined": f"the networks can read different images of {a.dataset}"}
    shape = len(features.layers), len(others.layers)
    pairs = np.unravel_index(np.arange(shape[0] * shape[1]), shape)
    mean = _compare(features.center(), others.center(), key, arrays, pairs)
    return {
        **entry,
        "images": len(features.indices),
        "layers": [features.layers, others.layers],
        "mean": mean,
    }


def _compare(
    layers: Mapping[str, CenteredLayers],
    others: Mapping[str, CenteredLayers],
    key: str,
    arrays: Arrays,
    pairs: tuple[np.ndarray, ...],
) -> MeanSimilarity:
    """Add the arrays of a comparison, and return the means over some pairs of layers."""
    trained = compute_cka(layers[TRAINED], others[TRAINED])
    _add_arrays(arrays, f"{key}@trained", trained)
    value, error = _average(trained.values, trained.replicates, pairs)
    mean: MeanSimilarity = {
        "trained": value,
        "trained_error": error,
        "untrained": None,
        "untrained_error": None,
        "difference_error": None,
    }
    if UNTRAINED not in layers.keys() & others.keys():
        return mean
    untrained = compute_cka(layers[UNTRAINED], others[UNTRAINED])
    _add_arrays(arrays, f"{key}@untrained", untrained)
    difference = trained.replicates - untrained.replicates
    arrays[f"{key}@difference_error"] = jackknife_error(difference).astype(np.float32)
    mean["untrained"], mean["untrained_error"] = _average(untrained.values, untrained.replicates, pairs)
    mean["difference_error"] = _average(trained.values - untrained.values, difference, pairs)[1]
    return mean


def _add_arrays(arrays: Arrays, key: str, similarity: LayerSimilarity) -> None:
    """Add the values of a comparison and their errors, as float32."""
    arrays[key] = similarity.values.astype(np.float32)
    arrays[f"{key}_error"] = similarity.errors.astype(np.float32)


def _average(
    values: np.ndarray, replicates: np.ndarray, pairs: tuple[np.ndarray, ...]
) -> tuple[float | None, float | None]:
    """Return the mean over those pairs of layers that are defined, and its error; None where not known."""
    known = np.isfinite(values[pairs])
    if not known.any():
        return None, None
    rows, columns = (indices[known] for indices in pairs)
    error = float(jackknife_error(replicates[:, rows, columns].mean(1)))
    return float(values[rows, columns].mean()), to_json_number(error)
