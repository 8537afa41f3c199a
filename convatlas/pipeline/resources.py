"""What the jobs of a cluster ask for: memory and run time, reckoned from the sizes in the config.

The figures were read off logs/<network>/<rule>.tsv, runs on two cores of which Snakemake notes the memory
(max_rss) and the seconds, and are rounded up twofold or more. They need not be right: a job that ran out
of memory or time is tried again with twice as much. On one machine nothing comes of them.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

BASE_MEMORY_MB = 2000  # MB of a job without torch: 540 measured, the plates of resnet18
TORCH_MEMORY_MB = (
    4000  # MB of a job with torch: 600 to 970 measured, and as much again and more for CUDA's libraries
)
TRAINING_MB_PER_VALUE = (
    2e-3  # MB a value of a batch that is trained on: 0.0014 (resnet18) to 0.003 (simple_cnn)
)
INFERENCE_MB_PER_VALUE = (
    3e-4  # MB a value of a batch that is only looked at: its largest layer, and what follows that
)
MERGE_MB_PER_IMAGE = 3e-3  # MB an image of the set
SECONDS_PER_VALUE = (
    1e-7  # seconds a value of an image that is trained on: 0.6e-6 to 0.8e-6 on one core, a tenth on a GPU
)
MIN_RUNTIME, MAX_RUNTIME = (
    30,
    24 * 60,
)  # minutes; partitions seldom grant more than a day, and training resumes

TEST_BATCH_SIZE = 500  # images at a time, in training.evaluate
DEFAULT_LAYER_COUNT = 50  # projected, where the config does not say how many
DEFAULT_UNIT_COUNT = 512  # of a layer, where it says `all`
DATASET_IMAGE_COUNTS = {
    "mnist": 70_000,
    "oxford-iiit-pet": 7_349,
}  # images of a data set that is not made yet
DEFAULT_IMAGE_COUNT = 100_000  # of a folder
INPUT_SIDES = {"mnist": 28}  # pixels of an input whose size the config leaves to the network; else 224


class ResourceRequest(NamedTuple):
    """Memory in MB and run time in minutes."""

    mem_mb: float
    runtime: float


@dataclass(frozen=True)
class Workload:
    """How large the work on a network is: values an input, images of its data set and of those looked at."""

    network_config: dict[str, Any]
    input_values: int
    dataset_images: int
    sample_images: int
    shards: int


def measure_workload(config: dict[str, Any], name: str) -> Workload:
    """Give the sizes of a network of a checked config; its data set's images as counted once it is made."""
    network = config["networks"][name]
    dataset = network.get("dataset")
    form = config["datasets"][dataset]["format"] if dataset else "images"
    side = (network.get("input") or {}).get("size") or INPUT_SIDES.get(form, 224)
    looked_at = sum(_count_sample_images(images) for images in (network.get("images") or {}).values())
    return Workload(
        network,
        input_values=side * side * (1 if form == "mnist" else 3),
        dataset_images=_read_image_count(dataset) or DATASET_IMAGE_COUNTS.get(form, DEFAULT_IMAGE_COUNT)
        if dataset
        else 0,
        sample_images=looked_at or 5,
        shards=network.get("shards") or config["shards"],
    )


def _count_sample_images(images: Any) -> int:
    if isinstance(images, list):
        return len(images)
    return images if isinstance(images, int) else 0


def _read_image_count(dataset: str) -> int:
    try:
        counts = json.loads(Path(f"data/{dataset}/dataset.json").read_text())["counts"]
        return sum(sum(classes) for classes in counts.values())
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def estimate_train(work: Workload) -> ResourceRequest:
    """Every image once an epoch; a network that is only tested asks for no less than the least."""
    training = work.network_config["training"]
    batch, epochs = training["batch_size"], training["epochs"]
    if training["max_steps"]:
        epochs = min(epochs, math.ceil(training["max_steps"] * batch / max(1, work.dataset_images)))
    memory = max(TRAINING_MB_PER_VALUE * batch, INFERENCE_MB_PER_VALUE * TEST_BATCH_SIZE) * work.input_values
    return ResourceRequest(
        TORCH_MEMORY_MB + memory,
        MIN_RUNTIME + SECONDS_PER_VALUE * epochs * work.dataset_images * work.input_values / 60,
    )


def estimate_dataset_pass(work: Workload) -> ResourceRequest:
    """A shard's images, once each, with the statistics of all units."""
    shard = work.dataset_images / work.shards
    batch = (work.network_config["views"]["strongest"] or {}).get("batch") or 64
    return ResourceRequest(
        TORCH_MEMORY_MB + INFERENCE_MB_PER_VALUE * batch * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * shard * work.input_values / 60,
    )


def estimate_merge(work: Workload) -> ResourceRequest:
    """The sums of all units for each class, of which larger sets have more: 6 GB, ResNet-152 on ImageNet."""
    return ResourceRequest(BASE_MEMORY_MB + MERGE_MB_PER_IMAGE * work.dataset_images, MIN_RUNTIME)


def estimate_record(work: Workload) -> ResourceRequest:
    """One image at a time."""
    return ResourceRequest(TORCH_MEMORY_MB + TRAINING_MB_PER_VALUE * work.input_values, MIN_RUNTIME)


def estimate_masks(work: Workload) -> ResourceRequest:
    """Some images, a few at a time, and sums of each unit."""
    return ResourceRequest(TORCH_MEMORY_MB + INFERENCE_MB_PER_VALUE * 64 * work.input_values, 2 * MIN_RUNTIME)


def estimate_deconv(work: Workload) -> ResourceRequest:
    """Each unit's projection of each image; those of a layer are in memory together, whole maps and peaks."""
    units = _count_units(work.network_config["views"]["deconv"])
    projections = units * DEFAULT_LAYER_COUNT * work.sample_images
    return ResourceRequest(
        TORCH_MEMORY_MB + (TRAINING_MB_PER_VALUE + 16e-6 * units) * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * projections * work.input_values / 60,
    )


def estimate_top_projections(work: Workload) -> ResourceRequest:
    """Each unit's strongest activations, on crops of the images; those of a layer are in memory together.

    With them are the pixels of the images, and both are as large as the input where a field is.
    """
    views = work.network_config["views"]["strongest"] or {"units": 0, "k": 0}
    of_a_layer = _count_units(views) * views["k"]
    return ResourceRequest(
        TORCH_MEMORY_MB + (INFERENCE_MB_PER_VALUE * 64 + 8e-6 * of_a_layer) * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * of_a_layer * DEFAULT_LAYER_COUNT * work.input_values / 60,
    )


def _count_units(views: dict[str, Any]) -> int:
    return DEFAULT_UNIT_COUNT if views["units"] == "all" else views["units"]


def estimate_figures(work: Workload) -> ResourceRequest:
    """Pictures of the images looked at, drawn one after the other."""
    return ResourceRequest(BASE_MEMORY_MB + TRAINING_MB_PER_VALUE * work.input_values, MIN_RUNTIME)


STAGE_ESTIMATORS: dict[str, Callable[[Workload], ResourceRequest]] = {
    "train": estimate_train,
    "record": estimate_record,
    "classical": estimate_record,
    "masks": estimate_masks,
    "deconv": estimate_deconv,
    "dataset_pass": estimate_dataset_pass,
    "merge_shards": estimate_merge,
    "project_top_activations": estimate_top_projections,
    "figures": estimate_figures,
    "explorer": estimate_figures,
}


def estimate_resources(stage: str, work: Workload, attempt: int = 1) -> ResourceRequest:
    """What a job of a stage asks for: twice as much at each further attempt."""
    memory, minutes = (2 ** (attempt - 1) * amount for amount in STAGE_ESTIMATORS[stage](work))
    return ResourceRequest(math.ceil(memory / 100) * 100, min(MAX_RUNTIME, math.ceil(minutes)))
