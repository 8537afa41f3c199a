"""The results of a small segmentation network of twelve convolutions, with its segmentation analysis."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from convatlas.figures.segmentation_examples import BACKGROUND, BORDER, PET
from convatlas.files import write_json, write_npz
from tests.support.fake_results import FakeResults, make_layer, make_mask_prediction, make_results

SIDE = 48  # pixels of the input
ROLES = ("attention", "main", "attention", "main", "down", "pyramid", "pyramid", "up", "attention", "main",
         "main", "head")  # fmt: skip
SIDES = (24, 48, 24, 48, 24, 6, 1, 24, 12, 24, 48, 48)
NAMES = (*(f"part.{n}.{role}" for n, role in enumerate(ROLES[:-1], 1)), "head")
SEGMENTATION_CLASSES = ["pet", "background", "border"]
TEST = {
    "permutations": 999,
    "resamples": 1000,
    "confidence": 0.95,
    "significance": 0.05,
    "min_iou_effect": 0.05,
    "min_auc_effect": 0.1,
    "min_head_ratio": 1.5,
}
RANKS = ("first", "best", "median", "worst")


def _make_trimap(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Return an elliptic pet with a border around it, (side, side) uint8."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    a, b = rng.uniform(0.2, 0.4, 2)
    distance = np.hypot((x - rng.uniform(-0.1, 0.1)) / a, (y - rng.uniform(-0.1, 0.1)) / b)
    return np.select([distance < 0.9, distance < 1.1], [PET, BORDER], BACKGROUND).astype(np.uint8)


def _make_photograph(rng: np.random.Generator, pet: np.ndarray) -> np.ndarray:
    colours = np.where(pet[..., None], rng.random(3), rng.random(3))
    return np.clip(colours + 0.1 * rng.normal(size=(*pet.shape, 3)), 0, 1).astype(np.float32)


def make_chance(mean: float, p: float = 0.001) -> dict[str, float]:
    """Return a chance level."""
    return {"mean": mean, "low": mean - 0.04, "high": mean + 0.04, "p": p}


def make_selective_unit(unit: int, auc: float) -> dict[str, Any]:
    """Return a unit that separates pet and background by chance if its AUC is near 0.5."""
    interval = [auc - 0.03, auc + 0.03]
    chance, above_chance = make_chance(0.5), abs(auc - 0.5) >= 0.1
    return {"unit": unit, "auc": auc, "interval": interval, "chance": chance, "above_chance": above_chance}


def _make_segmentation_layer(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Return the entry of convolution `n`, from 0, in masks.json: early ones have detail, late ones masks."""
    iou = min(0.82, 0.35 + 0.05 * n + 0.02 * float(rng.random()))
    head = {"unit": 2, "share": 0.1 + 0.03 * n, "area": 0.11, "pet": 0.3, "interval": [0.32, 0.5]}
    units = 3 if n == 11 else 8
    return {
        "name": NAMES[n],
        "ordinal": n + 1,
        "role": ROLES[n],
        "shape": [units, SIDES[n], SIDES[n]],
        "iou": iou,
        "train_iou": iou + 0.02,
        "chance_iou": 0.31,
        "interval": [iou - 0.05, iou + 0.05],
        "chance": make_chance(0.3),
        "above_chance": iou >= 0.37,
        "unit": n % units,
        "threshold": 0.1,
        "at_least": n % 2 == 0,
        "high_frequency_share": 0.0 if SIDES[n] <= 16 else max(0.02, 0.5 - 0.04 * abs(n - 1)),
        "edge_correlation": 0.6 - 0.03 * n,
        "edge_unit": 1,
        "selective_units": [make_selective_unit(u, 0.5 + 0.03 * n + 0.01 * u) for u in (2, 1, 0)],
        "head": None if n < 3 else head | {"chance": make_chance(0.2), "above_chance": n >= 8},
        "excluded": {"units": [], "train": 0, "test": 0},
    }


def make_analysis(is_segmentation: bool = True) -> dict[str, Any]:
    """Return masks.json."""
    rng = np.random.default_rng(5)
    layers = [_make_segmentation_layer(rng, n) for n in range(len(NAMES))]
    emergence = next(layer for layer in layers if layer["iou"] >= 0.9 * layers[-1]["iou"])
    iou = {"pet": 0.8123, "background": 0.91, "border": None}
    examples = [
        {"rank": rank, "index": n, "name": f"Bombay_{n}", "iou": iou, "mean_iou": 0.7}
        for n, rank in enumerate(RANKS)
    ]
    return {
        "size": [SIDE, SIDE],
        "images": {"train": 200, "test": 60},
        "pet_share": 0.29,
        "cutoff_frequency": 8,
        "final": {"layer": layers[-1]["name"], "ordinal": layers[-1]["ordinal"], "iou": layers[-1]["iou"]},
        "emergence": {
            "layer": emergence["name"],
            "ordinal": emergence["ordinal"],
            "iou": emergence["iou"],
            "interval": [8, 10],
        },
        "test": TEST,
        "detail_first": 1.0,
        "layers": layers,
        "unmeasured": [],
        "examples": examples if is_segmentation else [],
        "is_segmentation": is_segmentation,
    }


def make_segmentation_results(is_segmentation: bool = True) -> FakeResults:
    """Return the results of the network without its analysis; otherwise it classifies the images."""
    rng = np.random.default_rng(7)
    window = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    layers = []
    input_shape: tuple[int, ...] = (3, SIDE, SIDE)
    for n, name in enumerate(NAMES):
        output_shape = (3 if n == 11 else 8, SIDES[n], SIDES[n])
        layers.append(
            make_layer(name, "conv", input_shape, output_shape, ordinal=n + 1, role=ROLES[n], **window)
        )
        input_shape = output_shape
    activations = {}
    for image in ("first", "second"):
        pet = _make_trimap(rng) == PET
        outputs = {"input": _make_photograph(rng, pet).transpose(2, 0, 1)}
        for n, layer in enumerate(layers):
            units, side, _ = layer["output_shape"]
            small = pet[:: SIDE // side, :: SIDE // side] * 0.1 * n
            noise = 0.3 * rng.normal(size=(units, side, side))
            outputs[layer["name"]] = (small + noise).astype(np.float32)
        activations[image] = outputs
    results = make_results()
    nothing = dict.fromkeys(("label", "prediction", "probability"))
    metrics = {
        "mean_iou": 0.6712,
        "iou": {"pet": 0.81, "background": 0.88, "border": None},
        "dice": {"pet": 0.9, "background": 0.94, "border": None},
        "pixel_accuracy": 0.8733,
        "confusion": [[70000, 20000, 10000], [9000, 300000, 1000], [12000, 6000, 2000]],
        "images": 60,
    }
    return replace(
        results,
        layers=layers,
        images=[image | nothing for image in results.images],
        network=results.network
        | {
            "classes": SEGMENTATION_CLASSES if is_segmentation else results.network["classes"],
            "preprocessing": {"size": SIDE, "mean": [0.0] * 3, "std": [1.0] * 3},
        },
        metrics=metrics if is_segmentation else {"accuracy": 0.75, "images": 60},
        predictions=[make_mask_prediction(index, index, 0.6, classes=3) for index in range(2)]
        if is_segmentation
        else results.predictions,
        history="epoch,lr,train_loss,train_accuracy,validation_loss,validation_accuracy,validation_mean_iou\n"
        "1,0.1,2.0,0.5,2.1,0.4,0.3\n2,0.1,1.0,0.75,1.1,0.7,0.6\n3,0.1,0.9,0.8,1.0,0.75,0.65\n",
        filters={
            name: rng.normal(size=(3 if name == "head" else 8, 3, 3, 3)).astype(np.float32) for name in NAMES
        },
        activations=activations,
        projections={name: {} for name in activations},
        unit_matches={},
        classical={
            name: {feature: rng.random((SIDE, SIDE)) - 0.5 for feature in features}
            for name, features in results.classical.items()
        },
    )


def write_segmentation(folder: Path, is_segmentation: bool = True, **changes: Any) -> Path:
    """Write results/<network>/ with its analysis; `changes` are keys of masks.json."""
    folder = make_segmentation_results(is_segmentation).write(folder)
    write_json(folder / "masks/masks.json", make_analysis(is_segmentation) | changes)
    if is_segmentation:
        rng = np.random.default_rng(11)
        truth = np.stack([_make_trimap(rng) for _ in RANKS])
        prediction = np.stack([np.roll(trimap, 3 * n, axis=1) for n, trimap in enumerate(truth)])
        photographs = np.stack([255 * _make_photograph(rng, trimap == PET) for trimap in truth])
        arrays = {"photograph": photographs.astype(np.uint8), "truth": truth, "prediction": prediction}
        write_npz(folder / "masks/examples.npz", arrays)
    return folder
