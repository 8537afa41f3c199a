"""Prepare a network of the config: its architecture, its trained weights if any, and its class names."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor, nn

from convatlas import UserError
from convatlas.files import read_json, sha256
from convatlas.models import build, class_names, weights
from convatlas.models.checkpoint_files import read_checkpoint
from convatlas.models.factory import Factory
from convatlas.models.output_choice import ClassCounts
from convatlas.models.output_kinds import decide_output
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import format_shape
from convatlas.pipeline.architecture_names import TORCHVISION_PREFIX, locate_weights_file
from convatlas.pipeline.config_types import NetworkConfig, WeightsConfig
from convatlas.records import DownloadedWeights

log = logging.getLogger(__name__)


class LoadedWeightsOrigin(TypedDict):
    """Where a network's weights come from, before they are written to weights.safetensors."""

    origin: str
    name: str | None  # of torchvision's weights
    url: str | None
    source_sha256: str | None  # of the file that was loaded
    metrics: dict[str, Any] | None  # as published


@dataclass(frozen=True)
class DatasetClasses:
    """The classes of a network's data set.

    Attributes:
        images: Names of the images' classes; empty where images have no classes.
        pixels: Names of the classes of the masks' pixels; empty where there are no masks.
    """

    images: list[str]
    pixels: list[str]


@dataclass(frozen=True)
class PreparedNetwork:
    """A network with its trained weights, or as it is before training.

    Attributes:
        network: The network, on the CPU, in evaluation mode.
        preprocessing: From an image to its input.
        arguments: The arguments with which its factory was called.
        classes: Names of its classes.
        output: What its output means.
        weights_origin: Where its weights come from.
        source: Where its architecture was published, if that is known.
        converted_from: The precision in which its function returned it, if that is not float32.
    """

    network: nn.Module
    preprocessing: Preprocessing
    arguments: dict[str, Any]
    classes: list[str]
    output: Output
    weights_origin: LoadedWeightsOrigin
    source: str | None
    converted_from: str | None = None

    @property
    def is_segmentation(self) -> bool:
        """Whether it predicts a class for each pixel, not for each image."""
        return self.output.covers(self.preprocessing.shape[1:])


def prepare_network(
    settings: NetworkConfig,
    dataset: DatasetClasses | None,
    weights_file: str | Path | None,
    seed: int,
    key: str,
) -> PreparedNetwork:
    """Build the network of a section of the config, with its trained weights if it has any.

    Args:
        settings: The network's section of the config.
        dataset: The classes of its data set; None without a data set.
        weights_file: The downloaded file of torchvision's weights, where `settings` names such weights.
        seed: Seed of the weights that are not loaded.
        key: Place of `settings` in the config, for messages.

    Raises:
        UserError: The network cannot be built, its weights do not fit, or it cannot be trained on the data
            set.
    """
    configured_weights = settings.get("weights")
    configured_names = class_names.read_class_names(settings.get("classes"), f"{key}.classes")
    downloaded, state = None, None
    if isinstance(configured_weights, str):
        downloaded, state = _read_downloaded_weights(weights_file, key)
    factory = build.get_factory(settings, key, state)
    pixel_names, image_names = (dataset.pixels, dataset.images) if dataset else ([], [])
    if configured_weights and settings["architecture"].startswith(TORCHVISION_PREFIX):
        image_names = []  # the classes are those of the weights
    known_names = configured_names or (downloaded["categories"] if downloaded else [])
    counts = ClassCounts(len(known_names or image_names) or None, len(known_names or pixel_names) or None)
    network, preprocessing, arguments, output, converted_from = _build_for_classes(
        *(settings, factory, configured_names or pixel_names, configured_names or image_names),
        *(counts, seed, key, state),
    )
    if dataset and not preprocessing.is_image:
        raise UserError(
            f"{key}.dataset: the network's input, {preprocessing.shape}, is no image, and data sets hold "
            "images; train it elsewhere, give its weights, and remove dataset"
        )
    if isinstance(configured_weights, dict):
        weights.load_weights(network, configured_weights, f"{key}.weights")

    is_segmentation = output.covers(preprocessing.shape[1:])
    dataset_names = (dataset.pixels if is_segmentation else dataset.images) if dataset else []
    if dataset and not configured_weights:
        _check_trainable(output, dataset_names, is_segmentation, configured_names, key)
    if not known_names and (not configured_weights or output.fits(len(dataset_names))):
        known_names = dataset_names
    classes = class_names.check_class_names(known_names, output, f"{key}.classes")
    output = replace(output, class_count=len(classes))
    if output.kind == "none" and "kind" not in (settings.get("output") or {}):
        log.warning("%s: no class scores: %s", key, output.reason)
    return PreparedNetwork(
        network,
        preprocessing,
        arguments,
        classes,
        output,
        _describe_origin(configured_weights, downloaded, dataset is not None, seed),
        factory.source,
        converted_from,
    )


def _read_downloaded_weights(
    path: str | Path | None, key: str
) -> tuple[DownloadedWeights, dict[str, Tensor]]:
    """Read torchvision's weights from the file of scripts/weights.py, and their description beside it."""
    if not path:
        raise UserError(f"{key}.weights: --weights must name the file that scripts/weights.py downloaded")
    description: DownloadedWeights = read_json(Path(path).with_suffix(".json"))
    return description, read_checkpoint(path, f"{key}.weights")


def _build_for_classes(
    settings: NetworkConfig,
    factory: Factory,
    pixel_names: Sequence[str],
    image_names: Sequence[str],
    counts: ClassCounts,
    seed: int,
    key: str,
    state: dict[str, Tensor] | None,
) -> tuple[nn.Module, Preprocessing, dict[str, Any], Output, str | None]:
    """Build a network for the number of pixels' classes if it is a segmentation network, else of images'.

    Which of both it is shows when it runs: where there are classes of pixels it is built for these, and once
    more, from the same seed, if it is not a segmentation network and the number of images' classes differs.
    """

    def build_for(
        names: Sequence[str],
    ) -> tuple[nn.Module, Preprocessing, dict[str, Any], Output, str | None]:
        arguments = factory.complete_arguments(settings.get("arguments") or {}, names or None)
        network, preprocessing, converted_from = build.build_in_float32(
            {**settings, "arguments": arguments}, None, seed, key, state
        )
        output = decide_output(network, preprocessing, settings.get("output") or {}, counts, key)
        return network, preprocessing, arguments, output, converted_from

    built = build_for(pixel_names or image_names)
    _, preprocessing, _, output, _ = built
    is_segmentation = output.covers(preprocessing.shape[1:])
    if pixel_names and not is_segmentation and len(pixel_names) != len(image_names):
        return build_for(image_names)
    return built


def _describe_origin(
    configured_weights: str | WeightsConfig | None,
    downloaded: DownloadedWeights | None,
    is_trained: bool,
    seed: int,
) -> LoadedWeightsOrigin:
    """Return where a network's weights come from."""
    origin: LoadedWeightsOrigin = {
        "origin": "trained here" if is_trained else f"random, seed {seed}",
        "name": None,
        "url": None,
        "source_sha256": None,
        "metrics": None,
    }
    if downloaded:
        origin["origin"] = f"torchvision {downloaded['weights']}"
        if "licence" in downloaded:
            origin["origin"] = f"embedded: ImageNet, from the package ndf ({downloaded['licence']})"
        origin["name"] = downloaded["weights"]
        origin["url"] = downloaded["url"]
        origin["source_sha256"] = downloaded["sha256"]
        origin["metrics"] = downloaded["metrics"]
    elif isinstance(configured_weights, dict):
        origin["origin"] = configured_weights["path"]
        origin["source_sha256"] = sha256(locate_weights_file(configured_weights["path"]))
    return origin


def _check_trainable(
    output: Output,
    dataset_names: Sequence[str],
    is_segmentation: bool,
    configured_names: Sequence[str] | None,
    key: str,
) -> None:
    """Raise UserError where a network cannot be trained on a data set with these classes."""
    if not output.shape or (output.is_per_pixel and not is_segmentation):
        size = f"the output's size, {format_shape(output.shape[1:])}, is no whole fraction of the input's"
        raise UserError(
            f"{key}.dataset: only classifiers, with an output (N, classes), and segmentation networks, with "
            "an output (N, classes, height, width), are trained here; of this network "
            f"{size if output.shape else output.reason}; give weights, or remove dataset"
        )
    if not dataset_names:
        lack = "masks to train a segmentation network on" if is_segmentation else "classes to train on"
        raise UserError(f"{key}.dataset: the data set has no {lack}; give weights, or remove dataset")
    if len(configured_names or dataset_names) != len(dataset_names) or not output.fits(len(dataset_names)):
        kind = "classes of pixels" if is_segmentation else "classes"
        names = f", and there are {len(configured_names)} names" if configured_names else ""
        raise UserError(
            f"{key}.dataset: the data set has {len(dataset_names)} {kind}, the network has {output.shape[0]} "
            f"outputs{names}; fix {key}.arguments or classes"
        )
    if output.kind == "none":
        raise UserError(f"{key}.dataset: the network has no class scores to train: {output.reason}")
