"""Train a network of the config, or load its trained weights, evaluate it once, and write its files."""

import csv
import io
import logging
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

import convatlas
from convatlas import UserError
from convatlas.datasets import formats
from convatlas.datasets.image_selection import check_selection
from convatlas.datasets.image_values import check_dataset_values
from convatlas.files import sha256, write_bytes, write_json
from convatlas.models import build
from convatlas.models.factory import format_error
from convatlas.models.prepare import DatasetClasses, PreparedNetwork, prepare_network
from convatlas.models.state import get_tensor_state, list_non_finite
from convatlas.names import format_shape
from convatlas.pipeline.config_types import ImagesConfig, NetworkConfig, TrainingConfig
from convatlas.predictions import format_predictions
from convatlas.records import DatasetDescription, HistoryRow, NetworkDescription, Timing
from convatlas.training.checkpoint import Checkpoint
from convatlas.training.labelled_images import load_training_splits
from convatlas.training.snapshots import Snapshots
from convatlas.training.testing import evaluate_test_split
from convatlas.training.trainer import (
    HISTORY_COLUMNS,
    DivergedError,
    TrainingResult,
    fit,
)

log = logging.getLogger(__name__)


def train_network(
    name: str,
    settings: NetworkConfig,
    output: str | Path,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int = 2,
    images: ImagesConfig | None = None,
    snapshots: Sequence[int] = (),
) -> None:
    """Train a network on its data set, or load its trained weights, and evaluate it once on the test images.

    Training that was interrupted continues after its last epoch, with the same result. Writes
    weights.safetensors, network.json, metrics.json, predictions.csv, history.csv and timing.json, and
    snapshots/, with weights of some epochs.

    Args:
        name: The network's name in the config.
        settings: Its section of the config.
        output: Its folder, results/<network>.
        data: The folder of its data set, data/<dataset>, if it has one.
        weights: The downloaded file of torchvision's weights, if `settings` names such weights.
        seed: Seed of the weights, the order of the images and the validation set.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads of torch.
        images: Its sample images, which must be in the data set, though they are read later.
        snapshots: Epochs, from 1, whose weights are saved, with the first and the last; none by default.

    Raises:
        UserError: The network cannot be built or trained as configured, the data set lacks a sample image, or
            the files cannot be written.
    """
    torch.set_num_threads(threads)
    started = datetime.now(UTC)
    output, key, torch_device = Path(output), f"networks.{name}", build.choose_device(device)
    dataset = formats.describe(data) if data else None
    if dataset:
        check_selection(images or {}, dataset, f"{key}.images")
    prepared = prepare_network(settings, _get_classes(dataset), weights, seed, key)
    if data and dataset:
        check_dataset_values(dataset, prepared.preprocessing.pixel_format, Path(data).name, f"{key}.input")
    prepared.network.to(torch_device)

    training, checkpoint, saved = None, None, Snapshots(output / "snapshots", snapshots)
    if data and not settings.get("weights"):
        description = describe_training(settings, prepared, dataset, seed, torch_device, threads)
        checkpoint = Checkpoint(output / "checkpoint", description)
        training = _train(prepared, data, settings["training"], seed, torch_device, checkpoint, saved, key)
    test = evaluate_test_split(prepared, data, torch_device) if data else None

    state = get_tensor_state(prepared.network)
    write_bytes(
        output / "weights.safetensors",
        save({name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}),
    )
    write_bytes(output / "history.csv", _format_history(training.result.history if training else []))
    write_json(output / "metrics.json", test.metrics if test else {})
    write_bytes(output / "predictions.csv", test.predictions if test else format_predictions([]))
    weights_sha256 = sha256(output / "weights.safetensors")
    write_json(
        output / "network.json",
        _describe_network(
            settings, prepared, dataset, training, weights_sha256, seed, torch_device, snapshots
        ),
    )
    saved.finish(len(training.result.history) if training else 0, weights_sha256)
    write_json(output / "timing.json", _describe_timing(started, training, threads))
    if checkpoint:
        checkpoint.remove()  # not before all results are written


@dataclass(frozen=True)
class _Training:
    """A finished training: its result, the number of training images, and its duration in seconds."""

    result: TrainingResult
    images: int
    seconds: float


def _get_classes(dataset: DatasetDescription | None) -> DatasetClasses | None:
    """Return the classes of a data set's images, and of its masks' pixels."""
    if dataset is None:
        return None
    return DatasetClasses(dataset["classes"], formats.mask_classes(dataset))


def _train(
    prepared: PreparedNetwork,
    data: str | Path,
    settings: TrainingConfig,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint,
    snapshots: Snapshots,
    key: str,
) -> _Training:
    """Train a network in place."""
    if settings["progressive_resize"]:
        size = settings["progressive_resize"]["size"]
        _check_input_size(prepared, size, f"{key}.training.progressive_resize.size")
    train, validation = load_training_splits(
        data,
        prepared.preprocessing,
        prepared.is_segmentation,
        settings["validation"],
        settings["crop"],
        seed,
        device,
    )
    start = time.perf_counter()
    try:
        result = fit(
            *(prepared.network, prepared.preprocessing, train, validation, settings, seed, checkpoint),
            output=prepared.output,
            snapshots=snapshots,
        )
    except DivergedError as error:
        raise UserError(f"{key}.training: {error}") from error
    seconds = time.perf_counter() - start
    log.info("trained in %.1f s", seconds)
    return _Training(result, len(train), seconds)


def _check_input_size(prepared: PreparedNetwork, size: int, key: str) -> None:
    """Raise UserError where a network does not take images with a shorter side of `size` pixels."""
    preprocessing = prepared.preprocessing.with_shorter_side(size)
    try:
        build.run_on_zeros(prepared.network, preprocessing)
    except build.INPUT_ERRORS as error:
        raise UserError(
            f"{key}: the network does not take images of {format_shape(preprocessing.size)} pixels: "
            f"{format_error(error)}; give a size that it takes, or null to train at the input's size "
            "throughout"
        ) from error


def describe_training(
    settings: NetworkConfig,
    prepared: PreparedNetwork,
    dataset: DatasetDescription | None,
    seed: int,
    device: torch.device,
    threads: int,
) -> dict[str, Any]:
    """Return all that determines the result of a training, by which its checkpoint is recognised.

    Args:
        settings: The network's section of the config.
        prepared: The network, before training.
        dataset: dataset.json of its data set.
        seed: Seed of the training.
        device: Where the network is trained.
        threads: CPU threads of torch.
    """
    return {
        "architecture": settings["architecture"],
        "arguments": prepared.arguments,
        "preprocessing": prepared.preprocessing.to_dict(),
        "output": prepared.output.to_dict(),
        "training": settings["training"],
        "dataset_sha256": dataset["sha256"] if dataset else None,
        "seed": seed,
        "device": device.type,
        "threads": threads,
        "versions": collect_versions(prepared.network),
    }


def _describe_network(
    settings: NetworkConfig,
    prepared: PreparedNetwork,
    dataset: DatasetDescription | None,
    training: _Training | None,
    weights_sha256: str,
    seed: int,
    device: torch.device,
    snapshots: Sequence[int],
) -> NetworkDescription:
    """Return the contents of network.json."""
    training_description: dict[str, Any] | None = None
    if training:
        training_description = {
            **settings["training"],
            "best_epoch": training.result.best_epoch,
            "precision": training.result.precision,
            "images": training.images,
        }
    network: NetworkDescription = {
        "architecture": settings["architecture"],
        "arguments": prepared.arguments,
        "source": prepared.source,
        "parameters": sum(parameter.numel() for parameter in prepared.network.parameters()),
        "weights": {**prepared.weights_origin, "sha256": weights_sha256},
        "dataset": settings.get("dataset"),
        "dataset_sha256": dataset["sha256"] if dataset else None,
        "dataset_classes": dataset["classes"] if dataset else None,
        "classes": prepared.classes,
        "output": prepared.output.to_dict(),
        "preprocessing": prepared.preprocessing.to_dict(),
        "training": training_description,
        "seed": seed,
        "device": device.type,
        "versions": collect_versions(prepared.network),
    }
    if snapshots:
        network["snapshots"] = list(snapshots)
    if prepared.converted_from:
        network["converted_from"] = prepared.converted_from
    if non_finite := list_non_finite(prepared.network):
        network["non_finite_weights"] = non_finite
        log.warning("%d weights have NaN or infinite values, first %s", len(non_finite), non_finite[0])
    return network


def _describe_timing(started: datetime, training: _Training | None, threads: int) -> Timing:
    """Return the contents of timing.json."""
    timing: Timing = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "training_seconds": None,
        "images_per_second": None,
        "resumed_after_epoch": None,
        "threads": threads,
    }
    if training:
        epochs = len(training.result.history) - training.result.resumed_epochs
        timing["training_seconds"] = round(training.seconds, 2)
        timing["images_per_second"] = round(training.images * epochs / training.seconds)
        timing["resumed_after_epoch"] = training.result.resumed_epochs or None
    return timing


def collect_versions(network: nn.Module) -> dict[str, str]:
    """Return the versions of Python and of the packages that compute the weights.

    Args:
        network: The network; the installed packages that its modules come from count, such as timm.
    """
    versions = {
        "convatlas": convatlas.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    if "torchvision" in sys.modules:  # imported only for its own networks
        versions["torchvision"] = sys.modules["torchvision"].__version__
    packages = {type(module).__module__.partition(".")[0] for module in network.modules()} - versions.keys()
    distributions = metadata.packages_distributions() if packages else {}
    for distribution in sorted({name for package in packages for name in distributions.get(package, [])}):
        versions[distribution] = metadata.version(distribution)
    return versions


def _format_history(rows: Sequence[HistoryRow]) -> bytes:
    """Return history.csv: one row per epoch."""
    text = io.StringIO()
    columns = list(rows[0]) if rows else HISTORY_COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
