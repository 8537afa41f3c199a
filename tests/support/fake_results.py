"""The results of a small network that was never trained: every array is random and at hand in the tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convatlas.analysis.classical import COLUMN_CAPTIONS, FEATURES
from convatlas.analysis.kernels import channel_correlations, classify_channels, match_kernels, random_baseline
from convatlas.analysis.registry import ANALYSES
from convatlas.files import write_json, write_npz
from convatlas.predictions import format_predictions
from convatlas.records import ImagePrediction

PLANE = (8, 6)  # height and width of the input: not square, so that a transposed map is noticed
CLASSES = ["ant", "bee", "cat", "dog"]
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
VIEWS = {
    "n_images": "all",
    "n_filters": "all",
    "layers": "all",
    "show": "both",
    "scale": "per_layer",
    "match": 0.5,
    "formats": ["png"],
    "deconv": {"layers": "all", "units": 16, "select": ["map", "peak"], "rectify": False},
    **{analysis.name: None for analysis in ANALYSES},
}
SPATIAL = ["conv1", "relu", "block/cat", "block.conv2", "relu:2", "relu_2", "pool"]
FLAT = ["flatten", "neck", "fc"]
TITLES = {"first": "cat, test image 0", "second": "cat, test image 1"}  # of the images
INPUT_TITLES = ("input", "image 0", "image 1", *TITLES.values())  # of the tiles that show an input


@dataclass
class FakeResults:
    """What results/<network>/ holds; a test changes it before it writes it to a folder."""

    layers: list[dict[str, Any]]
    images: list[dict[str, Any]]
    network: dict[str, Any]
    metrics: dict[str, Any]
    predictions: list[ImagePrediction]
    history: str
    inputs: dict[str, np.ndarray]  # by image, in 0..1
    filters: dict[str, np.ndarray]
    activations: dict[str, dict[str, np.ndarray]]
    projections: dict[str, dict[str, np.ndarray]]
    unit_matches: dict[str, Any]
    filter_matches: dict[str, Any] | None
    classical: dict[str, dict[str, np.ndarray]]

    def write(self, folder: Path) -> Path:
        for name in ("network", "metrics", "layers", "images"):
            write_json(folder / f"{name}.json", getattr(self, name))
        (folder / "history.csv").write_text(self.history)
        (folder / "predictions.csv").write_bytes(
            format_predictions(self.predictions, list(self.metrics.get("iou", ())))
        )
        write_npz(folder / "filters.npz", self.filters)
        for name in self.activations:
            write_npz(folder / f"activations/{name}.npz", self.activations[name])
            write_npz(folder / f"deconv/{name}.npz", self.projections[name])
            write_npz(folder / f"classical/{name}.npz", self.classical[name])
        write_json(folder / "classical/units.json", {"threshold": 0.5, "layers": self.unit_matches})
        write_json(folder / "classical/filters.json", self.filter_matches)
        return folder


def make_layer(name: str, kind: str, *shapes: tuple[int, ...], **fields: Any) -> dict[str, Any]:
    """Return an entry of layers.json; `shapes` are those of its input and its output."""
    window = dict.fromkeys(("kernel", "stride", "padding", "dilation", "groups"))
    window |= dict.fromkeys(("receptive_field", "receptive_start", "receptive_step"))
    defaults = {
        "module": name.split(":")[0],
        "type": kind.title(),
        "parameters": 0,
        "ordinal": None,
        "role": None,
    }
    shape = {"input_shape": list(shapes[0]), "output_shape": list(shapes[1])}
    return {"name": name, "kind": kind} | window | defaults | shape | {"called": True, "notes": []} | fields


def make_prediction(
    index: int, label: int, prediction: int, probability: float = 0.75, loss: float = 0.25
) -> ImagePrediction:
    """Return a row of predictions.csv, of an image without a file of its own."""
    return {
        "split": "test",
        "index": index,
        "file": None,
        "label": label,
        "prediction": prediction,
        "probability": probability,
        "loss": loss,
    }


def make_mask_prediction(index: int, label: int, mean_iou: float | None, classes: int = 2) -> ImagePrediction:
    """Return a row of predictions.csv of a segmentation network; all classes but the first have no pixels."""
    rest: list[int] = [0] * (classes - 1)
    return make_prediction(index, label, label) | {
        "prediction": None,
        "probability": None,
        "mean_iou": mean_iou,
        "intersections": [1, *rest],
        "unions": [2, *rest],
    }


def make_match(feature: str, r: float) -> dict[str, Any]:
    """Return the entry of classical/units.json of a unit that matches a classical feature."""
    return {"feature": feature, "description": COLUMN_CAPTIONS[feature], "r": r}


def match_first_filters(weight: np.ndarray) -> dict[str, Any]:
    """Return classical/filters.json for the filters of conv1, (units, 3, 3, 3)."""
    r, names = match_kernels(weight)
    channels = channel_correlations(weight)
    matches = {"layer": "conv1", "baseline": random_baseline(3), "r": r.tolist(), "kernels": names}
    colours = [classify_channels(row) for row in channels]
    return matches | {"channel_correlations": channels.tolist(), "colour_classes": colours}


def make_results(channels: int = 3) -> FakeResults:
    """Return results of a network on the images "first" and "second".

    Unit 2 of conv1 is inactive on both images, unit 3 of block.conv2 on the first; on the second image
    unit 1 of conv1 is active, but its projections are zero. Units 0 and 4 of conv1 and unit 0 of relu
    match an edge.
    """
    rng = np.random.default_rng(channels)

    def random_array(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    conv = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    pool = conv | {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "groups": None}
    small, wide, deep = (5, *PLANE), (12, *PLANE), (18, *PLANE)
    not_called = {"input_shape": None, "output_shape": None, "called": False, "ordinal": 3}
    layers = [
        make_layer("conv1", "conv", (channels, *PLANE), small, ordinal=1, role="main", **conv),
        make_layer("relu", "activation", small, small),
        make_layer("block/cat", "merge", small, wide),
        make_layer("block.conv2", "conv", wide, deep, ordinal=2, role="main", **conv),
        make_layer("relu:2", "activation", deep, deep),
        make_layer("relu_2", "activation", deep, deep),
        make_layer("pool", "pool", deep, (18, 4, 3), **pool),
        make_layer("flatten", "reshape", (18, 4, 3), (216,)),
        make_layer("neck", "linear", (216,), (7,)),
        make_layer("fc", "linear", (7,), (4,)),
        make_layer("aux", "conv", (), (), **conv | not_called),
    ]
    inputs, activations, projections = {}, {}, {}
    for n, name in enumerate(("first", "second")):
        inputs[name] = rng.random((channels, *PLANE)).astype(np.float32)
        mean, std = (np.array(values[:channels], np.float32)[:, None, None] for values in (MEAN, STD))
        outputs = {"input": (inputs[name] - mean) / std, "conv1": random_array(*small)}
        outputs["conv1"][2] = -abs(outputs["conv1"][2])
        outputs |= {"relu": outputs["conv1"].clip(0)}
        outputs |= {"block/cat": random_array(*wide), "block.conv2": random_array(*deep)}
        if n == 0:
            outputs["block.conv2"][3] = -abs(outputs["block.conv2"][3])
        outputs["relu:2"] = outputs["block.conv2"].clip(0)
        outputs["relu_2"] = 2 * outputs["relu:2"]
        outputs["pool"] = outputs["relu_2"].reshape(18, 4, 2, 3, 2).max((2, 4))
        outputs |= {"flatten": outputs["pool"].ravel(), "neck": random_array(7), "fc": random_array(4)}
        activations[name] = outputs
        projected = {}
        for key, units in (("conv1", 5), ("conv1@peak", 5), ("pool", 18), ("pool@peak", 18)):
            projected[key] = random_array(units, channels, *PLANE)
            inactive = outputs[key.split("@")[0]].reshape(units, -1).max(1) <= 0
            projected[key][inactive] = 0
            if n == 1 and key.startswith("conv1"):
                projected[key][1] = 0
        projections[name] = projected
    image = {"split": "test", "path": None, "label": 2, "prediction": 2, "probability": 0.75}
    return FakeResults(
        layers=layers,
        images=[
            image | {"name": "first", "index": 0},
            image | {"name": "second", "index": 1, "prediction": 3},
        ],
        network={
            "architecture": "own",
            "parameters": 1234,
            "weights": {"origin": "trained here", "sha256": "ab" * 32},
            "dataset": "animals",
            "dataset_sha256": "cd" * 32,
            "classes": CLASSES,
            "output": {
                "kind": "softmax",
                "path": "",
                "shape": [len(CLASSES)],
                "reason": "as many as classes",
            },
            "dataset_classes": CLASSES,
            "preprocessing": {
                "size": 8,
                "mean": MEAN[:channels],
                "std": STD[:channels],
                "resize": "stretch",
                "interpolation": "bilinear",
            },
            "training": {
                "epochs": 2,
                "batch_size": 8,
                "lr": 0.01,
                "optimizer": "adamw",
                "validation": 0.1,
                "schedule": "one_cycle",
                "shift": 1,
                "flip": False,
                "precision": "float32",
                "best_epoch": 2,
                "images": 40,
            },
            "seed": 0,
            "device": "cpu",
            "versions": {"convatlas": "0.1.0", "numpy": "2.0"},
        },
        metrics={"accuracy": 1.0, "images": 8, "confusion": np.diag([2, 2, 2, 2]).tolist()},
        predictions=[make_prediction(index, index // 2, index // 2) for index in range(8)],
        history="epoch,lr,train_loss,train_accuracy,validation_loss,validation_accuracy\n"
        "1,0.1,2.0,0.5,2.1,0.4\n2,0.1,1.0,0.75,1.1,0.7\n",
        inputs=inputs,
        filters={
            "conv1": random_array(5, channels, 3, 3),
            "block.conv2": random_array(18, 12, 3, 3),
            "fc": random_array(4, 7),
            "aux": random_array(2, 18, 3, 3),
        },
        activations=activations,
        projections=projections,
        unit_matches={
            "conv1": {
                "baseline": 0.41,
                "units": [make_match("sobel_x", -0.83), *[None] * 3, make_match("sobel_y", 0.6)],
            },
            "relu": {"baseline": 0.37, "units": [make_match("sobel_x-", 0.75), *[None] * 4]},
            "block.conv2": {"baseline": 0.52, "units": [None] * 18},
        },
        filter_matches=None,
        classical={
            name: {feature: rng.random(PLANE).astype(np.float32) - 0.5 for feature in FEATURES}
            for name in activations
        },
    )


def make_digit_results(channels: int = 1) -> FakeResults:
    """Return results whose images were chosen by class, named digit-2 and digit-3."""
    results = make_results(channels)
    names = {"first": "digit-2", "second": "digit-3"}
    for attribute in ("inputs", "activations", "projections", "classical"):
        arrays = getattr(results, attribute)
        setattr(results, attribute, {names[name]: value for name, value in arrays.items()})
    for label, image in enumerate(results.images, 2):
        image |= {"name": names[image["name"]], "label": label, "prediction": label}
    return results


def make_minimal_results() -> FakeResults:
    """Return results of a network without data set, training, class names or matched filters."""
    results = make_results()
    results.predictions = []
    results.metrics, results.history = {}, results.history.splitlines(keepends=True)[0]
    nothing = dict.fromkeys(("split", "index", "label", "prediction", "probability"))
    results.images = [image | nothing | {"path": "a/cat.png"} for image in results.images]
    results.network |= dict.fromkeys(("dataset", "dataset_sha256", "training"))
    results.network["output"] |= {"kind": "none", "shape": [], "reason": "it returns detections"}
    results.network |= {"classes": [], "weights": {"origin": "IMAGENET1K_V1", "sha256": "ab" * 32}}
    return results
