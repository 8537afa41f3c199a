"""Memory and run time that the jobs of a cluster request, estimated from the sizes in the config.

The constants were read from logs/<network>/<rule>.tsv of runs on two cores, where stages record memory
(max_rss) and seconds, and are rounded up twofold or more. They need not be exact: a job that ran out of
memory or time is tried again with twice as much. On one machine they have no effect.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from convatlas.image_io import as_size
from convatlas.pipeline.config_types import (
    Config,
    CountOrAll,
    DatasetConfig,
    ImagesConfig,
    InputConfig,
    NetworkConfig,
)

# MB of a job without torch; 540 measured, the figures of resnet18
BASE_MEMORY_MB = 2000
# MB of a job with torch; 600 to 970 measured, and at least as much again for CUDA's libraries
TORCH_MEMORY_MB = 4000
# MB per input value of a training batch; 0.0014 (resnet18) to 0.003 (simple_cnn) measured
TRAINING_MB_PER_VALUE = 2e-3
# MB per input value of a batch without gradients: its largest layer, and the next one
INFERENCE_MB_PER_VALUE = 3e-4
# MB of the histograms of a unit on an image, by part of the image
CONCEPT_MB_PER_UNIT_IMAGE = 5e-4
# seconds per unit, image and input value of naming units; 1e-8 measured on one core
CONCEPT_SECONDS_PER_VALUE = 1e-8
MERGE_MB_PER_IMAGE = 3e-3  # MB per image of the data set
# seconds per input value of a training image; 0.6e-6 to 0.8e-6 on one core, a tenth on a GPU
SECONDS_PER_VALUE = 1e-7
MIN_RUNTIME = 30  # minutes
MAX_RUNTIME = 24 * 60  # minutes: partitions seldom grant more than a day, and training resumes

ATTRIBUTION_PASSES = 1000  # forward and backward, of an image and target by all methods with their checks
ATTRIBUTION_TARGETS = 3  # classes of an image, at most where the config does not list them
ATTRIBUTION_BATCH_VALUES = 2**20  # input values of a pass
VISUALISED_LAYERS = 4  # where views.feature_visualisation.layers names none
ABLATION_LAYERS = 12  # where views.ablation.layers names none
ABLATION_CURVE_POINTS = 11  # of each order in which units are removed
ABLATION_MB = 1000  # of layers' outputs that are kept for a batch
OCCLUSION_POSITIONS = 100  # of the square, where the config gives neither side nor stride
TEST_BATCH_SIZE = 500  # images, as in convatlas.training.trainer
DATASET_PASS_BATCH_SIZE = 64  # images, where views.strongest.batch is null
SAMPLE_BATCH_SIZE = 64  # images, at most, that an analysis changes and runs together
DEFAULT_IMAGE_COUNT = 5  # sample images, where `images` gives no number
DEFAULT_LAYER_COUNT = 50  # projected layers, whose number the config does not give
DEFAULT_UNIT_COUNT = 512  # projected units of a layer, for `all`
# What the formats of convatlas.datasets.formats declare, which is not imported here: a test compares them.
# Images of a data set that is not prepared yet, by format
DATASET_IMAGE_COUNTS = {"mnist": 70_000, "oxford-iiit-pet": 7_349, "images": 100_000}
EMBEDDED_PHOTOGRAPH_COUNT = 430  # images of the format "images" whose source is "embedded"
INPUT_SIDES = {"mnist": 28}  # pixels of an input whose size the config leaves to the network, by format
DEFAULT_INPUT_SIDE = 224  # pixels, for other formats


class ResourceRequest(NamedTuple):
    """What a job requests: memory in MB and run time in minutes."""

    mem_mb: float
    runtime: float


@dataclass(frozen=True)
class Workload:
    """The size of the work on a network."""

    network: NetworkConfig
    input_values: int  # channels × height × width
    dataset_images: int  # of all splits
    sample_images: int
    shards: int


def measure_workload(config: Config, name: str) -> Workload:
    """Return the size of the work on a network of a checked config.

    The images of its data set are counted once the data set is prepared, and assumed before.

    Args:
        config: The checked config.
        name: The network's name.
    """
    network = config["networks"][name]
    dataset = network.get("dataset")
    dataset_format = config["datasets"][dataset]["format"] if dataset else "images"
    default_side = INPUT_SIDES.get(dataset_format, DEFAULT_INPUT_SIDE)
    size = as_size(network["input"].get("size") or default_side)
    channels = _count_channels(network["input"]) or (1 if dataset_format == "mnist" else 3)
    dataset_images = 0
    if dataset:
        dataset_images = _read_image_count(dataset) or _guess_image_count(config["datasets"][dataset])
    return Workload(
        network,
        input_values=math.prod(size) * channels,
        dataset_images=dataset_images,
        sample_images=_count_sample_images(network["images"]) or DEFAULT_IMAGE_COUNT,
        shards=network.get("shards") or config["shards"],
    )


def _count_channels(settings: InputConfig) -> int:
    """Return the number of channels that `input` of the config names; 0 where it names none."""
    channels = settings.get("channels", len(settings.get("mean", [])))
    return channels if isinstance(channels, int) else {"grey": 1}.get(channels, 3)


def _count_sample_images(images: ImagesConfig) -> int:
    """Count the sample images that `images` of the config selects, a folder as one."""
    lists = (images.get("digits"), images.get("indices"), images.get("photographs"), images.get("files"))
    return images.get("first", 0) + sum(len(entries) for entries in lists if entries)


def _guess_image_count(settings: DatasetConfig) -> int:
    """Return the typical number of images of a data set that is not prepared yet."""
    if (settings["format"], settings["source"]) == ("images", "embedded"):
        return EMBEDDED_PHOTOGRAPH_COUNT
    return DATASET_IMAGE_COUNTS[settings["format"]]


def _read_image_count(dataset: str) -> int:
    """Return the number of images of a prepared data set, of all splits; 0 before."""
    try:
        counts = json.loads(Path(f"data/{dataset}/dataset.json").read_text(encoding="utf-8"))["counts"]
        return sum(sum(classes) for classes in counts.values())
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def estimate_train(work: Workload) -> ResourceRequest:
    """Estimate training: every image once per epoch. A network with trained weights is only tested.

    Args:
        work: The size of the work on the network.
    """
    training = work.network["training"]
    batch, epochs = training["batch_size"], training["epochs"]
    if training["max_steps"]:
        epochs = min(epochs, math.ceil(training["max_steps"] * batch / max(1, work.dataset_images)))
    if work.network.get("weights"):
        batch, epochs = 0, 1
    memory = max(TRAINING_MB_PER_VALUE * batch, INFERENCE_MB_PER_VALUE * TEST_BATCH_SIZE) * work.input_values
    return ResourceRequest(
        TORCH_MEMORY_MB + memory,
        MIN_RUNTIME + SECONDS_PER_VALUE * epochs * work.dataset_images * work.input_values / 60,
    )


def estimate_dataset_pass(work: Workload) -> ResourceRequest:
    """Estimate a shard of the pass over a data set: each of its images once.

    Args:
        work: The size of the work on the network, in all shards.
    """
    images = work.dataset_images / work.shards
    strongest = work.network["views"]["strongest"]
    batch = (strongest and strongest["batch"]) or DATASET_PASS_BATCH_SIZE
    return ResourceRequest(
        TORCH_MEMORY_MB + INFERENCE_MB_PER_VALUE * batch * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * images * work.input_values / 60,
    )


def estimate_merge(work: Workload) -> ResourceRequest:
    """Estimate the merge of shards: sums of all units for each class; 6 GB for ResNet-152 on ImageNet.

    Args:
        work: The size of the work on the network.
    """
    return ResourceRequest(BASE_MEMORY_MB + MERGE_MB_PER_IMAGE * work.dataset_images, MIN_RUNTIME)


def estimate_record(work: Workload) -> ResourceRequest:
    """Estimate the recording of activations: one image at a time.

    Args:
        work: The size of the work on the network.
    """
    return ResourceRequest(TORCH_MEMORY_MB + TRAINING_MB_PER_VALUE * work.input_values, MIN_RUNTIME)


def estimate_masks(work: Workload) -> ResourceRequest:
    """Estimate the segmentation analysis: small batches of images.

    Args:
        work: The size of the work on the network.
    """
    memory = INFERENCE_MB_PER_VALUE * DATASET_PASS_BATCH_SIZE * work.input_values
    return ResourceRequest(TORCH_MEMORY_MB + memory, 2 * MIN_RUNTIME)


def estimate_concepts(work: Workload) -> ResourceRequest:
    """Estimate the naming of units: images one by one, with histograms of every unit and image.

    Args:
        work: The size of the work on the network.
    """
    settings = work.network["views"]["concepts"]
    images = settings["train"] + settings["test"] if settings else 0
    units = DEFAULT_LAYER_COUNT * DEFAULT_UNIT_COUNT
    memory = INFERENCE_MB_PER_VALUE * work.input_values + CONCEPT_MB_PER_UNIT_IMAGE * units * images
    return ResourceRequest(
        TORCH_MEMORY_MB + memory,
        MIN_RUNTIME + CONCEPT_SECONDS_PER_VALUE * images * units * work.input_values / 60,
    )


def estimate_sample_batches(work: Workload) -> ResourceRequest:
    """Estimate an analysis that runs a few images many times, in one batch.

    Args:
        work: The size of the work on the network.
    """
    memory = INFERENCE_MB_PER_VALUE * SAMPLE_BATCH_SIZE * work.input_values
    return ResourceRequest(TORCH_MEMORY_MB + memory, MIN_RUNTIME)


def estimate_deconv(work: Workload) -> ResourceRequest:
    """Estimate the projections of the sample images; all of a layer are in memory, of maps and of peaks.

    Args:
        work: The size of the work on the network.
    """
    units = _get_unit_count(work.network["views"]["deconv"]["units"])
    projections = units * DEFAULT_LAYER_COUNT * work.sample_images
    return ResourceRequest(
        TORCH_MEMORY_MB + (TRAINING_MB_PER_VALUE + 16e-6 * units) * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * projections * work.input_values / 60,
    )


def estimate_top_projections(work: Workload) -> ResourceRequest:
    """Estimate the projections of top activations; all of a layer are in memory, with their patches.

    A projection and a patch are as large as the input where the receptive field is.

    Args:
        work: The size of the work on the network.
    """
    strongest = work.network["views"]["strongest"]
    projections = _get_unit_count(strongest["units"]) * strongest["k"] if strongest else 0
    memory = INFERENCE_MB_PER_VALUE * DATASET_PASS_BATCH_SIZE + 8e-6 * projections
    return ResourceRequest(
        TORCH_MEMORY_MB + memory * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * projections * DEFAULT_LAYER_COUNT * work.input_values / 60,
    )


def estimate_attribution(work: Workload) -> ResourceRequest:
    """Estimate attribution maps with their checks; passes are batched, and the maps of all images in memory.

    Args:
        work: The size of the work on the network.
    """
    settings = work.network["views"]["attribution"]
    if settings is None:
        return ResourceRequest(TORCH_MEMORY_MB, MIN_RUNTIME)
    targets = len(settings["targets"]) if isinstance(settings["targets"], list) else ATTRIBUTION_TARGETS
    maps = len(settings["methods"]) * targets * work.sample_images
    batch_values = max(ATTRIBUTION_BATCH_VALUES, work.input_values)
    passes = ATTRIBUTION_PASSES * targets * work.sample_images
    return ResourceRequest(
        TORCH_MEMORY_MB + TRAINING_MB_PER_VALUE * batch_values + 8e-6 * maps * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * passes * work.input_values / 60,
    )


def estimate_similarity(work: Workload) -> ResourceRequest:
    """Estimate the similarity of a network's layers: a few images of each data set, forward.

    Args:
        work: The size of the work on the network.
    """
    memory = INFERENCE_MB_PER_VALUE * DATASET_PASS_BATCH_SIZE * work.input_values
    return ResourceRequest(TORCH_MEMORY_MB + memory, MIN_RUNTIME)


def estimate_feature_visualisation(work: Workload) -> ResourceRequest:
    """Estimate images that are optimised: forward and backward passes, in batches as of attribution.

    Args:
        work: The size of the work on the network.
    """
    settings = work.network["views"]["feature_visualisation"]
    if settings is None:
        return ResourceRequest(TORCH_MEMORY_MB, MIN_RUNTIME)
    layers = len(settings["layers"]) if isinstance(settings["layers"], list) else VISUALISED_LAYERS
    if settings["layers"] == "all":
        layers = DEFAULT_LAYER_COUNT
    counts = [
        len(selection) if isinstance(selection, list) else _get_unit_count(selection)
        for selection in (settings["units"], settings["classes"])
    ]
    images = 2 * (layers * counts[0] + counts[1])  # two starts at most
    batch_values = max(ATTRIBUTION_BATCH_VALUES, work.input_values)
    return ResourceRequest(
        TORCH_MEMORY_MB + TRAINING_MB_PER_VALUE * batch_values + 8e-6 * images * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * settings["steps"] * images * work.input_values / 60,
    )


def estimate_ablation(work: Workload) -> ResourceRequest:
    """Estimate ablation: a part of a forward pass of each image for each unit, and for each point of a curve.

    Args:
        work: The size of the work on the network.
    """
    settings = work.network["views"]["ablation"]
    if settings is None:
        return ResourceRequest(TORCH_MEMORY_MB, MIN_RUNTIME)
    images = work.dataset_images if settings["images"] == "all" else int(settings["images"])
    layers = len(settings["layers"]) if isinstance(settings["layers"], list) else ABLATION_LAYERS
    passes = 2 * _get_unit_count(settings["units"]) + 2 * ABLATION_CURVE_POINTS * (
        2 + settings["random_orders"]
    )
    return ResourceRequest(
        TORCH_MEMORY_MB + ABLATION_MB + INFERENCE_MB_PER_VALUE * DATASET_PASS_BATCH_SIZE * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE / 3 * passes * layers * images * work.input_values / 60,
    )


def estimate_evolution(work: Workload) -> ResourceRequest:
    """Estimate the evolution of units: a pass over the training images for each snapshot.

    Args:
        work: The size of the work on the network.
    """
    settings = work.network["views"]["evolution"]
    if settings is None:
        return ResourceRequest(TORCH_MEMORY_MB, MIN_RUNTIME)
    units = (
        len(settings["units"]) if isinstance(settings["units"], list) else _get_unit_count(settings["units"])
    )
    snapshots = len(settings["epochs"]) + 2  # before the first and after the last epoch
    images = min(settings["images"] or work.dataset_images, work.dataset_images)
    memory = max(INFERENCE_MB_PER_VALUE * 2**20, 16e-6 * units * snapshots * work.input_values)
    return ResourceRequest(
        TORCH_MEMORY_MB + memory + TRAINING_MB_PER_VALUE * work.input_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * snapshots * images * work.input_values / 60,
    )


def estimate_effective_fields(work: Workload) -> ResourceRequest:
    """Estimate effective receptive fields: a backward pass per layer, of a few images at a time.

    Args:
        work: The size of the work on the network.
    """
    settings = work.network["views"]["effective_receptive_field"]
    if settings is None:
        return ResourceRequest(TORCH_MEMORY_MB, MIN_RUNTIME)
    images = work.dataset_images if settings["images"] == "all" else int(settings["images"])
    memory = TRAINING_MB_PER_VALUE * max(ATTRIBUTION_BATCH_VALUES, work.input_values)
    return ResourceRequest(TORCH_MEMORY_MB + memory + 8e-6 * images * work.input_values, MIN_RUNTIME)


def estimate_occlusion(work: Workload) -> ResourceRequest:
    """Estimate the occlusion study: some hundred positions of the square on each sample image.

    Args:
        work: The size of the work on the network.
    """
    settings = work.network["views"]["occlusion"]
    stride = (settings and (settings["stride"] or (settings["size"] or 0) // 2)) or 0
    positions = work.input_values / stride**2 if stride else OCCLUSION_POSITIONS
    passes = positions * work.sample_images
    batch_values = max(ATTRIBUTION_BATCH_VALUES, work.input_values)
    return ResourceRequest(
        TORCH_MEMORY_MB + TRAINING_MB_PER_VALUE * batch_values,
        MIN_RUNTIME + SECONDS_PER_VALUE * passes * work.input_values / 60,
    )


def _get_unit_count(units: CountOrAll) -> int:
    """Return the number of projected units of a layer, assumed for "all"."""
    return DEFAULT_UNIT_COUNT if units == "all" else int(units)


def estimate_figures(work: Workload) -> ResourceRequest:
    """Estimate figures and sprites of the sample images, drawn one after the other.

    Args:
        work: The size of the work on the network.
    """
    return ResourceRequest(BASE_MEMORY_MB + TRAINING_MB_PER_VALUE * work.input_values, MIN_RUNTIME)


STAGE_ESTIMATORS: dict[str, Callable[[Workload], ResourceRequest]] = {
    "train": estimate_train,
    "record": estimate_record,
    "classical": estimate_record,
    "masks": estimate_masks,
    "concepts": estimate_concepts,
    "invariance": estimate_sample_batches,
    "correspondence": estimate_sample_batches,
    "deconv": estimate_deconv,
    "attribution": estimate_attribution,
    "ablation": estimate_ablation,
    "evolution": estimate_evolution,
    "feature_visualisation": estimate_feature_visualisation,
    "occlusion": estimate_occlusion,
    "dataset_pass": estimate_dataset_pass,
    "merge_shards": estimate_merge,
    "project_top_activations": estimate_top_projections,
    "figures": estimate_figures,
    "explorer": estimate_figures,
    "similarity": estimate_similarity,
    "effective_receptive_field": estimate_effective_fields,
}


def estimate_resources(stage: str, work: Workload, attempt: int = 1) -> ResourceRequest:
    """Return what a job of a stage requests.

    Args:
        stage: A key of STAGE_ESTIMATORS: the name of the rule.
        work: The size of the work.
        attempt: Number of the attempt, from 1; each further one requests twice as much.
    """
    memory, minutes = (2 ** (attempt - 1) * amount for amount in STAGE_ESTIMATORS[stage](work))
    return ResourceRequest(math.ceil(memory / 100) * 100, min(MAX_RUNTIME, math.ceil(minutes)))
