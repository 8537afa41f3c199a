"""The statistics of a small random network over a data set, computed by plain loops."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas.datasets.base import write_splits
from convatlas.files import write_json, write_npz
from convatlas.statistics.histogram_bins import list_bin_edges
from tests.support.explorer_site import complete_layers
from tests.support.fake_results import FakeResults, make_results
from tests.support.site import DATASET, write_network

K = 4  # top activations per unit
N_IMAGES = 30
IMAGE_SIZE = (6, 12)  # width, height
MISSING_IMAGE = 7  # whose file is gone
CLASSES = ["ant", "bee", "cat", "dog"]
N_CLASSES_WITH_IMAGES = 3  # there is no image of a dog
LABELS = np.arange(N_IMAGES) % N_CLASSES_WITH_IMAGES
FIELD = (5, 4)  # height and width of the patches of conv1 and pool
DEAD_UNITS = {"conv1": [2], "relu": [2], "fc": [0, 3]}
PROJECTED_UNITS = {"conv1": [0, 1, 2, 3, 4], "pool": [7, 2, 11]}

LayerArrays = dict[str, np.ndarray]  # what statistics.npz and strongest.npz have of a layer


@dataclass
class FakeStatistics:
    """A network with statistics: the folder of results/ and data/, its results, and its arrays by layer."""

    folder: Path
    results: FakeResults
    layers: dict[str, LayerArrays]

    @property
    def network_folder(self) -> Path:
        """Return results/own/."""
        return self.folder / "results/own"


def make_outputs(results: FakeResults) -> LayerArrays:
    """Return the outputs of each layer on every image of the data set, (N, units, ...)."""
    rng = np.random.default_rng(5)
    outputs = {}
    for layer in results.layers:
        if not layer["called"]:
            continue
        values = rng.normal(size=(N_IMAGES, *layer["output_shape"])).astype(np.float32)
        if layer["kind"] == "activation":  # as behind a ReLU, with a gain for each class
            gain = 1 + 2 * rng.random((N_CLASSES_WITH_IMAGES, layer["output_shape"][0]))[LABELS]
            values = np.clip(values, 0, None) * gain[..., None, None].astype(np.float32)
        units = DEAD_UNITS.get(layer["name"], [])
        values[:, units] = -np.abs(values[:, units]) if layer["kind"] != "activation" else 0
        outputs[layer["name"]] = values
    return outputs


def compute_selectivity(class_means: np.ndarray) -> np.ndarray:
    """Return the class selectivity of units, (units,), from their mean responses (units, classes)."""
    selectivity = np.full(len(class_means), np.nan)
    for unit, means in enumerate(class_means[:, :N_CLASSES_WITH_IMAGES]):
        if (means >= 0).all():
            top = means.max()
            others = (means.sum() - top) / (N_CLASSES_WITH_IMAGES - 1)
            selectivity[unit] = (top - others) / (top + others) if top + others else 0
    return selectivity


def count_bins(values: np.ndarray) -> np.ndarray:
    """Count all values (N, units, area) in the bins of histograms, (units, bins) int32."""
    edges = [0, np.nextafter(0, 1), *list_bin_edges()[1:]]  # zero is apart

    def count(unit: np.ndarray) -> np.ndarray:
        positive, negative = (np.histogram(sign * unit[sign * unit > 0], edges)[0][1:] for sign in (1, -1))
        return np.array([*negative[::-1], (unit == 0).sum(), *positive])

    return np.stack([count(unit) for unit in values.swapaxes(0, 1)]).astype(np.int32)


def compute_statistics(values: np.ndarray) -> LayerArrays:
    """Return the arrays of statistics.npz of a layer, from its outputs (N, units, ...)."""
    flat = values.reshape(N_IMAGES, values.shape[1], -1).astype(np.float64)
    class_means = np.full((values.shape[1], len(CLASSES)), np.nan)
    for label in range(N_CLASSES_WITH_IMAGES):
        class_means[:, label] = flat[label == LABELS].mean((0, 2))
    maxima = flat.max(2).T
    order = np.argsort(-maxima, 1, kind="stable")[:, :K]
    width = values.shape[-1] if values.ndim > 3 else 1
    index = np.take_along_axis(flat.argmax(2).T, order, 1)
    statistics = {
        "mean": flat.mean((0, 2)),
        "std": flat.std((0, 2)),
        "image_std": flat.mean(2).std(0),
        "max": flat.max((0, 2)),
        "zero_fraction": (flat == 0).mean((0, 2)),
        "classes": class_means,
        "selectivity": compute_selectivity(class_means),
        "values": np.take_along_axis(maxima, order, 1),
    }
    return {key: array.astype(np.float32) for key, array in statistics.items()} | {
        "dead": flat.max((0, 2)) <= 0,
        "histogram": count_bins(flat),
        "images": order.astype(np.int32),
        "positions": np.stack(np.divmod(index, width), -1).astype(np.int32),
    }


def write_statistics(folder: Path, results: FakeResults) -> dict[str, LayerArrays]:
    """Write statistics.npz, statistics.json and strongest.npz, and return their arrays by layer."""
    rng = np.random.default_rng(6)
    layers = {name: compute_statistics(values) for name, values in make_outputs(results).items()}
    statistics = {f"{name}@{key}": array for name, arrays in layers.items() for key, array in arrays.items()}
    write_npz(folder / "statistics.npz", statistics)
    keys = ("values", "images", "positions")
    top_activations = {f"{name}@{key}": layers[name][key] for name in layers for key in keys}
    channels = results.layers[0]["input_shape"][0]
    for name, units in PROJECTED_UNITS.items():
        for key in ("projections", "patches"):
            array = rng.normal(size=(len(units), K, channels, *FIELD)).astype(np.float32)
            array[:, 1, :, :2] = np.nan  # beyond the upper border of the image
            layers[name][key] = top_activations[f"{name}@{key}"] = array
        layers[name]["units"] = np.array(units, np.int32)
        if name == "pool":  # of conv1 all units are projected
            top_activations[f"{name}@units"] = layers[name]["units"]
    write_npz(folder / "strongest.npz", top_activations)
    rows = [
        {"name": name, "units": len(arrays["mean"]), "dead": np.flatnonzero(arrays["dead"]).tolist()}
        for name, arrays in layers.items()
    ]
    summary = {
        "dataset": "animals",
        "dataset_sha256": DATASET["sha256"],
        "split": "test",
        "images": N_IMAGES,
        "skipped": [],
        "k": K,
        "class_source": "label",
        "classes": CLASSES,
        "class_images": [10, 10, 10, 0],
        "layers": rows,
    }
    write_json(folder / "statistics.json", summary)
    return layers


def write_images(folder: Path) -> None:
    """Write the images of the data set, but MISSING_IMAGE, each as bright as its number, and splits.csv."""
    (folder / "images").mkdir()
    for index in {*range(N_IMAGES)} - {MISSING_IMAGE}:
        Image.new("RGB", IMAGE_SIZE, (8 * index,) * 3).save(folder / f"images/{index}.png")
    write_splits(folder, [("test", label, f"images/{n}.png") for n, label in enumerate(LABELS.tolist())])


def write_network_with_statistics(folder: Path, channels: int = 3) -> FakeStatistics:
    """Write the results of a network with statistics to results/own/ under a folder."""
    results = complete_layers(make_results(channels))
    results.layers[0] |= {"receptive_field": list(FIELD), "receptive_start": [0, 0], "receptive_step": [1, 1]}
    write_network(folder, "own", results)
    write_images(folder / "data/animals")
    return FakeStatistics(folder, results, write_statistics(folder / "results/own", results))
