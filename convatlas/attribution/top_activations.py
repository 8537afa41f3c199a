"""Write the projections and patches of the top activations over a data set: strongest.npz."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import nn

from convatlas import UserError
from convatlas.attribution import contradictions, patches
from convatlas.attribution.patches import PatchGeometry
from convatlas.attribution.relevance import choose_batch_size, find_relevant_images
from convatlas.attribution.targets import number_classes
from convatlas.attribution.unit_selection import select_top_units
from convatlas.datasets.loader import BatchLoader
from convatlas.files import npz_writer
from convatlas.layer_selection import choose_projected_layers
from convatlas.models import build
from convatlas.names import suggest_nearest
from convatlas.pipeline.config_types import CountOrAll, LayerSelection
from convatlas.records import Layer
from convatlas.results import UNITS_SUFFIX, Results

log = logging.getLogger(__name__)

PATCHES_PER_BATCH = 512  # patches whose images are in memory
TINY_PATCH_SIZE = 9  # pixels of the longer side of a patch that says little without the image around it
CONTEXT_SIZE = 24  # pixels of a side of what is kept of the image around it
CHECKED_PATCHES = 16  # of each batch of those that are not computed on crops


class TopProjectionSettings(TypedDict):
    """What is projected: of `views.strongest`, and `rectify` of `views.deconv`."""

    project: LayerSelection
    units: CountOrAll
    rectify: bool
    relevance: list[int | str] | None


class LayerTopActivations(NamedTuple):
    """The k top activations of each unit, the largest first, as in statistics.npz.

    Attributes:
        values: The activations, (units, k) float32.
        images: The image of each in the split, (units, k); -1 where there are fewer.
        positions: Row and column of each in its map, (units, k, 2).
    """

    values: np.ndarray
    images: np.ndarray
    positions: np.ndarray


class LayerPatches(NamedTuple):
    """What strongest.npz holds of the top activations of a layer's units, besides the activations.

    Attributes:
        projections: (units, k, C, h, w) float32, signed; NaN where an activation does not depend on a pixel.
        patches: The input as the network sees it, (units, k, C, h, w) float32; NaN beyond the border.
        corners: Row and column in the input of the upper left pixel of each, (units, k, 2) int32.
        contexts: The input around patches of at most TINY_PATCH_SIZE pixels, (units, k, C, H, W) float32; NaN
            for a top activation that does not exist. None of larger patches.
        context_corners: Row and column in the input of the upper left pixel of each, (units, k, 2) int32.
    """

    projections: np.ndarray
    patches: np.ndarray
    corners: np.ndarray
    contexts: np.ndarray | None = None
    context_corners: np.ndarray | None = None


def project_top_activations(
    folder: str | Path,
    data: str | Path,
    settings: TopProjectionSettings,
    device: torch.device,
    threads: int = 2,
    key: str = "views.strongest.project",
) -> None:
    """Write strongest.npz: the top activations of each tracked layer, with projections of the selected ones.

    Args:
        folder: The network's folder, results/<network>, with statistics.npz.
        data: The data set's folder, data/<dataset>.
        settings: What is projected.
        device: Where the network runs.
        threads: Threads that decode images.
        key: The place of `settings["project"]` in the config, for error messages.

    Raises:
        UserError: A selected layer does not exist or is not tracked, the deconvnet is not defined for the
            network, or the results contradict each other.
    """
    network, preprocessing = build.load_network(folder)
    network.to(device)
    results = Results(folder)
    tracked = [layer["name"] for layer in results.dataset_statistics["layers"]]
    selected = choose_tracked_layers(results.layers, tracked, settings["project"], key)
    split = results.dataset_statistics["split"]
    images = BatchLoader(data, split, preprocessing, batch_size=1, workers=threads)
    projector = PatchProjector(network, results.layers, images, settings["rectify"], device)
    units_by_layer: dict[str, np.ndarray] = {}
    with npz_writer(results.folder / "strongest.npz") as write:
        for layer in tracked:
            top = LayerTopActivations(
                *(results.statistics[f"{layer}@{name}"] for name in LayerTopActivations._fields)
            )
            for name, array in top._asdict().items():
                write(f"{layer}@{name}", array)
            if layer not in selected:
                continue
            units = select_top_units(top.values[:, 0], settings["units"])
            if len(units) < len(top.values):
                write(f"{layer}{UNITS_SUFFIX}", units)
            layer_patches = projector.project_layer(
                layer, units, LayerTopActivations(*(a[units] for a in top))
            )
            for name, array in layer_patches._asdict().items():
                if array is not None:
                    write(f"{layer}@{name}", array)
            log.info("projected the top activations of %d units of %s", len(units), layer)
            units_by_layer[layer] = units
        if settings["relevance"] and units_by_layer:
            _write_relevance(write, results, projector, units_by_layer, settings["relevance"], key)


def _write_relevance(
    write: Callable[[str, np.ndarray], None],
    results: Results,
    projector: "PatchProjector",
    units: Mapping[str, np.ndarray],
    selection: Sequence[int | str],
    key: str,
) -> None:
    """Write the images on which units are most relevant to classes, with patches of the largest values.

    <layer>@relevance (classes, units, k) float32, @relevance_images, @relevance_positions,
    @relevance_patches (classes, units, k, C, h, w) and @relevance_classes, the numbers of the classes.

    Args:
        write: A function that writes an array under a name.
        results: The network's results.
        projector: That of the data set's images.
        units: Numbers of the units of each layer.
        selection: `views.strongest.relevance`.
        key: The place of `project` in the config, for error messages.

    Raises:
        UserError: A class does not exist, or the network has no scores of classes.
    """
    network_classes = results.network["classes"]
    classes = number_classes(selection, network_classes, f"{key.removesuffix('project')}relevance")
    images, statistics = projector.images, results.dataset_statistics
    batch_size = choose_batch_size(images.preprocessing.shape)
    loader = replace(images, batch_size=batch_size, on_bad_image="skip", skipped=[])
    output = build.read_output(results.folder)
    relevance = find_relevant_images(projector.network, output, loader, units, classes, statistics["k"])
    for layer, top in relevance.items():
        write(f"{layer}@relevance_classes", np.array(classes, np.int32))
        write(f"{layer}@relevance", top.values)
        write(f"{layer}@relevance_images", top.images)
        write(f"{layer}@relevance_positions", top.positions)
        write(f"{layer}@relevance_patches", projector.cut_patches(layer, top.images, top.positions))


def choose_tracked_layers(
    layers: Sequence[Layer], tracked: Sequence[str], selection: LayerSelection, key: str
) -> list[str]:
    """Return the selected layers, of those whose units are tracked over the data set.

    Args:
        layers: layers.json.
        tracked: The tracked layers.
        selection: The layers to project; "all" means the tracked convolutions and pooling layers.
        key: The place of the selection in the config, for error messages.

    Raises:
        UserError: A selected layer does not exist or is not tracked.
    """
    selected = choose_projected_layers(layers, selection, key)
    if selection == "all":
        return [name for name in tracked if name in selected]
    if missing := [name for name in selected if name not in tracked]:
        hint = suggest_nearest(missing[0], tracked)
        raise UserError(f"{key}: {missing[0]!r} is not among those of views.strongest.layers; {hint}")
    return selected


class PatchProjector:
    """Projects activations of a network on images of a split, and cuts out the pixels that they depend on.

    Args:
        network: The network.
        layers: Its layers, as in layers.json.
        images: The images of the split, in batches of one.
        rectify: Rectify the signal at activations that are not ReLUs too.
        device: Where the network runs.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[Layer],
        images: BatchLoader,
        rectify: bool,
        device: torch.device,
    ) -> None:
        self.network, self.layers, self.images = network, layers, images
        self.rectify, self.device = rectify, device

    def project_layer(self, layer: str, units: np.ndarray, top: LayerTopActivations) -> LayerPatches:
        """Project the top activations of a layer's units.

        Args:
            layer: Name of the layer.
            units: Numbers of the units, (units,).
            top: Their top activations.

        Returns:
            Projections and patches as large as the receptive field, or as the input where that is smaller or
            the field is not known. All is NaN for a top activation that does not exist.
        """
        geometry = self._get_geometry(layer)
        channels = self.images.preprocessing.shape[0]
        shape = (*top.images.shape, channels, *geometry.patch_size)
        projections, cutouts = np.full((2, *shape), np.nan, np.float32)
        corners = np.zeros((*top.images.shape, 2), np.int32)
        present = np.argwhere(top.images >= 0)
        # In the order of images, so that each is read once.
        present = present[np.argsort(top.images[tuple(present.T)], kind="stable")]
        context_sides = [min(CONTEXT_SIZE, side) for side in self.images.preprocessing.shape[1:]]
        contexts = np.full((*top.images.shape, channels, *context_sides), np.nan, np.float32)
        context_corners = np.zeros_like(corners)
        crop = patches.is_croppable(self.network, self.layers, layer)
        for start in range(0, len(present), PATCHES_PER_BATCH):
            index = tuple(present[start : start + PATCHES_PER_BATCH].T)
            inputs = self.read_images(top.images[index])
            positions = top.positions[index]
            batch = self._project_batch(
                layer, inputs, geometry, units[index[0]], positions, top.values[index], crop
            )
            for row, rank, image, position, projection in zip(*index, inputs, positions, batch, strict=True):
                projections[row, rank] = projection
                cutouts[row, rank] = patches.extract_patch(image, geometry, position)
                corners[row, rank] = geometry.corner(position)
                contexts[row, rank], context_corners[row, rank] = patches.extract_context(
                    image, geometry, position, CONTEXT_SIZE
                )
        if max(geometry.patch_size) > TINY_PATCH_SIZE:
            return LayerPatches(projections, cutouts, corners)
        return LayerPatches(projections, cutouts, corners, contexts, context_corners)

    def cut_patches(self, layer: str, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Cut the pixels that values of a layer depend on out of the images.

        Args:
            layer: Name of the layer.
            images: Number of the image of each value, (...); -1 for no image.
            positions: Row and column of each value in its map, (..., 2).

        Returns:
            (..., C, h, w) float32; NaN beyond the border and where there is no image.
        """
        geometry = self._get_geometry(layer)
        channels = self.images.preprocessing.shape[0]
        cutouts = np.full((*images.shape, channels, *geometry.patch_size), np.nan, np.float32)
        for number in np.unique(images[images >= 0]).tolist():
            image = self.read_images(np.array([number]))[0]
            for index in map(tuple, np.argwhere(images == number)):
                cutouts[index] = patches.extract_patch(image, geometry, positions[index])
        return cutouts

    def _get_geometry(self, layer: str) -> PatchGeometry:
        """Return which pixels the values of a layer depend on."""
        entry = next(entry for entry in self.layers if entry["name"] == layer)
        _, height, width = self.images.preprocessing.shape
        return PatchGeometry.from_layer(entry, (height, width))

    def read_images(self, indices: np.ndarray) -> list[np.ndarray]:
        """Read and preprocess images of the split, each once.

        Args:
            indices: Their numbers in the split, (N,).

        Returns:
            N images, (C, H, W) float32.
        """
        unique = np.unique(indices).tolist()
        inputs = {}
        for index, batch in zip(unique, self.images.read_batches(unique), strict=True):
            pixels = build.to_device(torch.from_numpy(batch.pixels), self.device)
            inputs[index] = self.images.preprocessing(pixels)[0].cpu().numpy()
        return [inputs[index] for index in indices.tolist()]

    def _project_batch(
        self,
        layer: str,
        inputs: list[np.ndarray],
        geometry: PatchGeometry,
        units: np.ndarray,
        positions: np.ndarray,
        values: np.ndarray,
        crop: bool,
    ) -> np.ndarray:
        """Project on crops if they give the activations that the whole images gave: (N, C, h, w).

        Raises:
            UserError: The activations are not those of the statistics, or depend on pixels beyond a patch.
        """

        def run(images: list[np.ndarray], crop: bool) -> tuple[np.ndarray, np.ndarray]:
            count = len(images)  # the first ones of the batch
            arguments = (self.network, layer, images, geometry, units[:count], positions[:count])
            return patches.project_patches(*arguments, self.rectify, crop)

        if crop:
            try:
                projections, activations = run(inputs, crop)
                if contradictions.is_reproduced(activations, values):
                    return projections
                reason = "activations on crops differ from those on whole images"
            except UserError as error:  # such as a crop that is smaller than a kernel
                reason = f"on crops {error}"
            log.info("%s: %s; using whole images", layer, reason)
        projections, activations = run(inputs, crop=False)

        def recompute(images: Sequence[np.ndarray]) -> np.ndarray:
            return run(list(images), crop=False)[1]

        contradictions.check_top_activations(layer, inputs, values, activations, recompute)
        checked = slice(CHECKED_PATCHES)
        contradictions.check_patches(
            layer, inputs[checked], geometry, positions[checked], activations[checked], recompute
        )
        return projections
