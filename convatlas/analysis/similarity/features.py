"""The Gram matrices of a network's layers, trained and untrained, on the images of data sets."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from convatlas import UserError
from convatlas.analysis.drawn_images import DrawnImages, draw_images
from convatlas.analysis.similarity.cka import MIN_IMAGES, CenteredLayers, center_layers
from convatlas.analysis.similarity.layer_grams import compute_layer_grams
from convatlas.analysis.untrained import NO_CONTROL, build_untrained
from convatlas.layer_selection import choose_layers, space_evenly
from convatlas.models import build
from convatlas.models.factory import format_error
from convatlas.pipeline.config_types import LayerSelection, SimilaritySettings
from convatlas.records import Layer
from convatlas.results import Results

log = logging.getLogger(__name__)

COMPARED_KINDS = ("conv", "linear", "pool", "merge")  # of the layers that are compared by default
MAX_LAYERS = 40  # that are compared by default
BATCH_SIZE = 64  # images, of which each layer's features are in memory at once
BATCH_VALUES = 2**26  # of the largest layer for a batch
TRAINED, UNTRAINED = "trained", "untrained"


@dataclass(frozen=True, eq=False)
class Features:
    """What the layers of a network compute for the images of a data set.

    Attributes:
        layers: Names of the layers.
        indices: Numbers of the images in the test split.
        grams: By TRAINED and UNTRAINED, of each batch the Gram matrices of the layers (layers, n, n);
            without UNTRAINED where there is no control.
    """

    layers: list[str]
    indices: list[int]
    grams: Mapping[str, list[np.ndarray]]

    def center(self) -> dict[str, CenteredLayers]:
        """Return the centred matrices by the same keys, which take ten times as much memory."""
        return {key: center_layers(batches) for key, batches in self.grams.items()}

    def select_first(self, count: int) -> "Features":
        """Return the features of the first images alone.

        Args:
            count: The number of images.
        """
        if count >= len(self.indices):
            return self
        starts = np.cumsum([0, *(batch.shape[-1] for batch in self.grams[TRAINED])])
        sizes = [size for start in starts if (size := count - int(start)) >= MIN_IMAGES]
        grams = {
            key: [batch[:, :size, :size] for batch, size in zip(batches, sizes, strict=False)]
            for key, batches in self.grams.items()
        }
        used = sum(batch.shape[-1] for batch in grams[TRAINED])
        return Features(self.layers, self.indices[:used], grams)


@dataclass(eq=False)
class ComparedNetwork:
    """A network whose layers are compared.

    Attributes:
        name: Its name.
        dataset: Name of its data set.
        undefined: Why its layers cannot be compared; None if they can.
        control_undefined: Why there is no untrained network to compare with; None if there is one.
        features: Its features on the images of data sets, by name, or why there are none.
        left_out: Selected layers that have no features of each image.
    """

    name: str
    dataset: str
    undefined: str | None = None
    control_undefined: str | None = None
    features: dict[str, Features | str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def choose_compared_layers(
    layers: Sequence[Layer], selection: LayerSelection | None, network: str
) -> list[str]:
    """Return the names of the layers to compare, in execution order.

    Args:
        layers: layers.json.
        selection: As in `layer_selection.choose_layers`; None chooses layers of COMPARED_KINDS, evenly
            spaced where there are more than MAX_LAYERS.
        network: Name of the network, for the error.

    Raises:
        UserError: An entry of the selection matches no layer.
    """
    if selection is not None:
        return choose_layers(layers, selection, f"networks.{network}.views.similarity.layers")
    called = [layer for layer in layers if layer["called"]]
    names = [layer["name"] for layer in called if layer["kind"] in COMPARED_KINDS]
    names = names or [layer["name"] for layer in called]
    return space_evenly(names, MAX_LAYERS)


def choose_common_batch(results: Path, settings: SimilaritySettings) -> int:
    """Return the images of a batch, the same for all networks: a power of two that fits every layer.

    Args:
        results: The folder of the networks' folders.
        settings: The networks, with the layers of each.
    """
    size = BATCH_SIZE
    for name, network in settings["networks"].items():
        try:
            layers = Results(results / name).layers
            names = choose_compared_layers(layers, network["layers"], name)
        except UserError:
            continue  # the network is left out, with this reason
        values = [math.prod(layer["output_shape"]) for layer in layers if layer["name"] in names]
        while size > 2 * MIN_IMAGES and size * max(values, default=0) > BATCH_VALUES:
            size //= 2
    return size


def compute_network_features(
    results: Path,
    data: Path,
    name: str,
    settings: SimilaritySettings,
    datasets: Iterable[str],
    batch_size: int,
    device: torch.device,
) -> ComparedNetwork:
    """Compute the Gram matrices of a network on the images of some data sets.

    Args:
        results: The folder of the networks' folders.
        data: The folder of the data sets.
        name: Name of the network.
        settings: The settings of all networks.
        datasets: Names of the data sets, its own first.
        batch_size: Images of a batch.
        device: Where the network runs.

    Returns:
        The network. What goes wrong is stated in it, and does not stop the others.
    """
    own = settings["networks"][name]
    compared = ComparedNetwork(name, own["dataset"])
    folder = results / name
    try:
        names = choose_compared_layers(Results(folder).layers, own["layers"], name)
        network, preprocessing = build.load_network(folder)
        untrained = build_untrained(folder, network)
    except UserError as error:
        compared.undefined = str(error)
        return compared
    versions = {TRAINED: network} | ({UNTRAINED: untrained} if untrained else {})
    compared.control_undefined = None if untrained else NO_CONTROL
    for version in versions.values():
        version.to(device)
    for dataset in datasets:
        skip = settings["skip_unreadable"].get(dataset, False)
        try:
            images = draw_images(
                data / dataset, preprocessing, own["images"], settings["seed"], skip, at_least=MIN_IMAGES
            )
            compared.features[dataset] = features = _compute_features(versions, images, names, batch_size)
        except (UserError, RuntimeError) as error:
            compared.features[dataset] = str(error) if isinstance(error, UserError) else format_error(error)
            log.warning("%s on %s: %s", name, dataset, error)
            continue
        compared.left_out = [layer for layer in names if layer not in features.layers]
        log.info(
            "%s: %d layers on %d images of %s", name, len(features.layers), len(features.indices), dataset
        )
    own_features = compared.features[own["dataset"]]
    if isinstance(own_features, str):
        compared.undefined = own_features
    return compared


def _compute_features(
    versions: Mapping[str, nn.Module], images: DrawnImages, names: Sequence[str], batch_size: int
) -> Features:
    """Compute the features of the versions of a network on some images; raise UserError if there are none."""
    count = len(images.indices)
    starts = [n for n in range(0, count, batch_size) if count - n >= MIN_IMAGES]
    grams = {
        key: compute_layer_grams(version, (images.preprocess(n, n + batch_size) for n in starts), names)
        for key, version in versions.items()
    }
    layers = [layer for layer in grams[TRAINED] if all(layer in named for named in grams.values())]
    if not layers:
        raise UserError("no layer has features of each image; name others in views.similarity.layers")
    stacked = {
        key: [np.stack([named[layer][n] for layer in layers]) for n in range(len(starts))]
        for key, named in grams.items()
    }
    return Features(layers, images.indices[: starts[-1] + batch_size], stacked)
