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

PLAIN = 2000  # MB of a job without torch: 540 measured, the plates of resnet18
TORCH = 4000  # MB of a job with torch: 600 to 970 measured, and as much again and more for CUDA's libraries
TRAINED = 2e-3  # MB a value of a batch that is trained on: 0.0014 (resnet18) to 0.003 (simple_cnn)
SEEN = 3e-4  # MB a value of a batch that is only looked at: its largest layer, and what follows that
MERGED = 3e-3  # MB an image of the set
STEP = 1e-7  # seconds a value of an image that is trained on: 0.6e-6 to 0.8e-6 on one core, a tenth on a GPU
LEAST, MOST = 30, 24 * 60  # minutes; partitions seldom grant more than a day, and training resumes

TESTED = 500  # images at a time, in training.evaluate
LAYERS = 50  # projected, where the config does not say how many
UNITS = 512  # of a layer, where it says `all`
COUNTS = {"mnist": 70_000, "oxford-iiit-pet": 7_349}  # images of a data set that is not made yet
UNKNOWN = 100_000  # of a folder
SIDE = {"mnist": 28}  # pixels of an input whose size the config leaves to the network; else 224


class Request(NamedTuple):
    """Memory in MB and run time in minutes."""

    mem_mb: float
    runtime: float


@dataclass(frozen=True)
class Sizes:
    """How large the work on a network is: values an input, images of its data set and of those looked at."""

    network: dict[str, Any]
    values: int
    images: int
    looked_at: int
    shards: int


def sizes(config: dict[str, Any], name: str) -> Sizes:
    """Give the sizes of a network of a checked config; its data set's images as counted once it is made."""
    network = config["networks"][name]
    dataset = network.get("dataset")
    form = config["datasets"][dataset]["format"] if dataset else "images"
    side = (network.get("input") or {}).get("size") or SIDE.get(form, 224)
    looked_at = sum(_how_many(images) for images in (network.get("images") or {}).values())
    return Sizes(
        network,
        values=side * side * (1 if form == "mnist" else 3),
        images=_counted(dataset) or COUNTS.get(form, UNKNOWN) if dataset else 0,
        looked_at=looked_at or 5,
        shards=network.get("shards") or config["shards"],
    )


def _how_many(images: Any) -> int:
    if isinstance(images, list):
        return len(images)
    return images if isinstance(images, int) else 0


def _counted(dataset: str) -> int:
    try:
        counts = json.loads(Path(f"data/{dataset}/dataset.json").read_text())["counts"]
        return sum(sum(classes) for classes in counts.values())
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def train(work: Sizes) -> Request:
    """Every image once an epoch; a network that is only tested asks for no less than the least."""
    training = work.network["training"]
    batch, epochs = training["batch_size"], training["epochs"]
    if training["max_steps"]:
        epochs = min(epochs, math.ceil(training["max_steps"] * batch / max(1, work.images)))
    memory = max(TRAINED * batch, SEEN * TESTED) * work.values
    return Request(TORCH + memory, LEAST + STEP * epochs * work.images * work.values / 60)


def strongest(work: Sizes) -> Request:
    """A shard's images, once each, with the statistics of all units."""
    shard = work.images / work.shards
    batch = (work.network["views"]["strongest"] or {}).get("batch") or 64
    return Request(TORCH + SEEN * batch * work.values, LEAST + STEP * shard * work.values / 60)


def merge(work: Sizes) -> Request:
    """The sums of all units for each class, of which larger sets have more: 6 GB, ResNet-152 on ImageNet."""
    return Request(PLAIN + MERGED * work.images, LEAST)


def record(work: Sizes) -> Request:
    """One image at a time."""
    return Request(TORCH + TRAINED * work.values, LEAST)


def masks(work: Sizes) -> Request:
    """Some images, a few at a time, and sums of each unit."""
    return Request(TORCH + SEEN * 64 * work.values, 2 * LEAST)


def deconv(work: Sizes) -> Request:
    """Each unit's projection of each image; those of a layer are in memory together, whole maps and peaks."""
    units = _units(work.network["views"]["deconv"])
    projections = units * LAYERS * work.looked_at
    return Request(
        TORCH + (TRAINED + 16e-6 * units) * work.values, LEAST + STEP * projections * work.values / 60
    )


def project(work: Sizes) -> Request:
    """Each unit's strongest activations, on crops of the images; those of a layer are in memory together.

    With them are the pixels of the images, and both are as large as the input where a field is.
    """
    views = work.network["views"]["strongest"] or {"units": 0, "k": 0}
    of_a_layer = _units(views) * views["k"]
    return Request(
        TORCH + (SEEN * 64 + 8e-6 * of_a_layer) * work.values,
        LEAST + STEP * of_a_layer * LAYERS * work.values / 60,
    )


def _units(views: dict[str, Any]) -> int:
    return UNITS if views["units"] == "all" else views["units"]


def plates(work: Sizes) -> Request:
    """Pictures of the images looked at, drawn one after the other."""
    return Request(PLAIN + TRAINED * work.values, LEAST)


STAGES: dict[str, Callable[[Sizes], Request]] = {
    "train": train,
    "record": record,
    "classical": record,
    "masks": masks,
    "deconv": deconv,
    "strongest": strongest,
    "merge": merge,
    "project": project,
    "figures": plates,
    "atlas": plates,
}


def request(stage: str, work: Sizes, attempt: int = 1) -> Request:
    """What a job of a stage asks for: twice as much at each further attempt."""
    memory, minutes = (2 ** (attempt - 1) * amount for amount in STAGES[stage](work))
    return Request(math.ceil(memory / 100) * 100, min(MOST, math.ceil(minutes)))
