"""masks/ of a network: at which layer segmentation emerges, and examples of what the network predicts."""

import logging
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import nn

from convatlas.analysis import chance_level, emergence, segmentation
from convatlas.analysis.accumulators import CUTOFF_FREQUENCY
from convatlas.analysis.masked_images import MaskSample, MaskSplit, sample_indices
from convatlas.analysis.segmentation_evaluation import evaluate_selection
from convatlas.analysis.segmentation_examples import is_segmentation, predict_examples
from convatlas.files import atomic_write, read_json, write_json, write_npz
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.pipeline.config_types import MaskViews
from convatlas.records import (
    ChanceTest,
    EmergenceLayer,
    FinalLayer,
    Layer,
    SegmentationAnalysis,
    SegmentationExample,
    SegmentationLayer,
    UnmeasuredLayer,
)
from convatlas.training.evaluation import NonFiniteScoresError

log = logging.getLogger(__name__)

TEST: ChanceTest = {
    "permutations": chance_level.PERMUTATIONS,
    "resamples": chance_level.RESAMPLES,
    "confidence": chance_level.CONFIDENCE,
    "significance": chance_level.SIGNIFICANCE,
    "min_iou_effect": chance_level.MIN_IOU_EFFECT,
    "min_auc_effect": chance_level.MIN_AUC_EFFECT,
    "min_head_ratio": chance_level.MIN_HEAD_RATIO,
}


class LayerAnalysis(TypedDict):
    """What masks.json says of the layers."""

    final: FinalLayer | None
    emergence: EmergenceLayer | None
    detail_first: float
    layers: list[SegmentationLayer]
    unmeasured: list[UnmeasuredLayer]


def write_segmentation_analysis(
    folder: str | Path, data: str | Path, settings: MaskViews, device: torch.device
) -> None:
    """Measure at which layer of a network segmentation emerges and write its folder masks/.

    Units and thresholds are chosen on images of the training split, and measured on images of the test
    split.

    Args:
        folder: The network's folder, results/<network>, with weights, network.json and layers.json.
        data: The data set's folder, data/<dataset>, of the format oxford-iiit-pet.
        settings: Number of images of each split.
        device: Where the network runs.

    Raises:
        UserError: The data set has no masks, or fewer than two images are to be used.
    """
    folder = Path(folder)
    description = read_json(folder / "network.json")
    layers = segmentation.select_convolutions(read_json(folder / "layers.json"))
    network, preprocessing = build.load_network(folder)
    network.to(device)

    train_split = MaskSplit.load(data, "train", preprocessing)
    test_split = MaskSplit.load(data, "test", preprocessing)
    train_indices = sample_indices(len(train_split.pixels), settings["train"], f"{data}: the train split")
    test_indices = sample_indices(len(test_split.pixels), settings["test"], f"{data}: the test split")
    train = MaskSample(train_split, train_indices, device)
    test = MaskSample(test_split, test_indices, device)
    output = Output.from_description(description)
    segments = is_segmentation(output, preprocessing, description["classes"])
    examples, arrays = _predict_examples(network, preprocessing, output, test_split) if segments else ([], {})

    analysis: SegmentationAnalysis = {
        "size": list(preprocessing.shape[1:]),
        "images": {"train": len(train), "test": len(test)},
        "pet_share": test.pet_share(),
        "cutoff_frequency": CUTOFF_FREQUENCY,
        "test": TEST,
        **measure_layers(network, layers, train, test),
        "examples": examples,
        "is_segmentation": segments,
    }
    with atomic_write(folder / "masks") as masks:
        masks.mkdir()
        write_json(masks / "masks.json", analysis)
        if examples:
            write_npz(masks / "examples.npz", arrays)


def _predict_examples(
    network: nn.Module, preprocessing: Preprocessing, output: Output, test: MaskSplit
) -> tuple[list[SegmentationExample], dict[str, np.ndarray]]:
    """Return what `predict_examples` does; nothing where scores are NaN or infinite, which the log says."""
    try:
        return predict_examples(network, preprocessing, output, test)
    except NonFiniteScoresError as error:
        log.warning("no examples of predictions: %s", error)
        return [], {}


def measure_layers(
    network: nn.Module, layers: list[Layer], train: MaskSample, test: MaskSample
) -> LayerAnalysis:
    """Choose units and thresholds of each layer on training images and measure them on test images.

    Args:
        network: Any network.
        layers: The layers to measure, from layers.json.
        train: Images that units and thresholds are chosen on.
        test: Images that they are measured on.
    """
    names = [layer["name"] for layer in layers]
    ranges = segmentation.measure_ranges(network, names, train)
    log.info("measured the ranges of %d layers' units on %d training images", len(names), len(train))
    selections = segmentation.select_layer_units(network, ranges, train)
    log.info("chose units and thresholds by the IoU with the masks")
    evaluation = evaluate_selection(network, selections, test)
    rows: list[SegmentationLayer] = [
        {
            "name": layer["name"],
            "ordinal": layer["ordinal"] or 0,
            "role": layer["role"],
            "shape": layer["output_shape"],
            **evaluation.layers[layer["name"]],
        }
        for layer in layers
        if layer["name"] in evaluation.layers
    ]
    is_complete = bool(rows) and rows[-1]["name"] == names[-1]
    analysis: LayerAnalysis = {
        "final": emergence.describe_final(rows[-1]) if is_complete else None,
        "emergence": emergence.find_emergence(rows, evaluation.resampled_ious) if is_complete else None,
        "detail_first": emergence.compute_detail_first(
            evaluation.resampled_details, evaluation.resampled_ious
        ),
        "layers": rows,
        "unmeasured": [
            {"name": layer["name"], "ordinal": layer["ordinal"] or 0}
            for layer in layers
            if layer["name"] not in evaluation.layers
        ],
    }
    _log_analysis(analysis, len(test))
    return analysis


def _log_analysis(analysis: LayerAnalysis, image_count: int) -> None:
    """Log where segmentation emerges, and which values are left out."""
    for row in analysis["layers"]:
        if any(row["excluded"].values()):
            log.warning(
                "%s: left out, as NaN or infinite: %d of %d units, %d training and %d test images",
                *(row["name"], len(row["excluded"]["units"]), row["shape"][0]),
                *(row["excluded"]["train"], row["excluded"]["test"]),
            )
    for layer in analysis["unmeasured"]:
        log.warning("%s is not measured: its values are NaN or infinite on too many images", layer["name"])
    above = sum(row["above_chance"] for row in analysis["layers"])
    log.info(
        "%d of %d layers segment the pet better than chance on %d test images",
        *(above, len(analysis["layers"]), image_count),
    )
    if first := analysis["emergence"]:
        log.info("%s is the first to reach 90 %% of the last layer's IoU", first["layer"])
