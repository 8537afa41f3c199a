"""The evolution of units through training: their strongest activation after some epochs, projected.

Zeiler & Fergus, Visualizing and understanding convolutional networks (arXiv 1311.2901), figure 4.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.evolution.selection import OwnFilters, choose_units, find_own_filters
from convatlas.attribution.evolution.strongest import StrongestActivations, find_strongest, record_maps
from convatlas.attribution.top_activations import LayerTopActivations, PatchProjector
from convatlas.datasets.loader import BatchLoader
from convatlas.models.build import get_device
from convatlas.models.state import load_tensor_state
from convatlas.pipeline.config_types import UnitSelection
from convatlas.records import Layer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshots:
    """The weights of a network after some epochs.

    Attributes:
        epochs: The epochs, ascending.
        load: Returns the weights after one of them, by name.
    """

    epochs: Sequence[int]
    load: Callable[[int], Mapping[str, Tensor]]

    def iterate(self, network: nn.Module) -> Iterator[int]:
        """Yield the index of each snapshot, when the network has its weights.

        Args:
            network: The network, changed in place.
        """
        for index, epoch in enumerate(self.epochs):
            load_tensor_state(network, self.load(epoch))
            yield index


@dataclass(frozen=True)
class LayerEvolution:
    """The evolution of a layer's units.

    Attributes:
        values: The strongest activation of each unit at each snapshot, (epochs, units) float32.
        images: Number of its image in the split, (epochs, units) int32; -1 of an inactive unit.
        positions: Row and column of it in the map, (epochs, units, 2) int32.
        chosen: Numbers of the units that the further arrays hold, (chosen,) int32.
        projections: That activation, projected, (epochs, chosen, C, h, w) float32, signed; NaN where it does
            not depend on a pixel, and of an inactive unit.
        patches: The input that it depends on, (epochs, chosen, C, h, w) float32; NaN beyond the border.
        corners: Row and column in the input of its upper left pixel, (epochs, chosen, 2) int32.
        maps: The outputs on the sample images, (epochs, images, chosen, ...) float32.
        filters: The filters of the units, (epochs, chosen, channels, ...) float32; None where they have none.
        module: Name of the convolution that has them.
    """

    values: np.ndarray
    images: np.ndarray
    positions: np.ndarray
    chosen: np.ndarray
    projections: np.ndarray
    patches: np.ndarray
    corners: np.ndarray
    maps: np.ndarray
    filters: np.ndarray | None
    module: str | None


class EvolutionComputer:
    """Computes the evolution of the units of a network, layer by layer.

    Args:
        network: The network; its weights are replaced.
        layers: Its layers, as in layers.json.
        snapshots: Its weights after some epochs.
        images: The images of the training split, in batches.
        samples: Preprocessed sample images, (N, C, H, W).
        rectify: Rectify the projections at activations that are not ReLUs too.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[Layer],
        snapshots: Snapshots,
        images: BatchLoader,
        samples: Tensor,
        rectify: bool,
    ) -> None:
        self.network, self.layers, self.snapshots = network, layers, snapshots
        self.images, self.samples = images, samples
        single = replace(images, batch_size=1, skipped=[])
        self.projector = PatchProjector(network, layers, single, rectify, get_device(network))

    def find_strongest(
        self, names: Sequence[str], limit: int | None = None
    ) -> list[dict[str, StrongestActivations]]:
        """Find the strongest activations at each snapshot, in one pass over the images each.

        Args:
            names: Names of layers.
            limit: How many images, evenly spaced in the split; None means all.

        Returns:
            The activations by layer, for each snapshot.
        """
        loader, indices = self.images, None
        if limit is not None and limit < len(self.images.dataset):
            loader = self.projector.images
            indices = list(map(int, np.linspace(0, len(loader) - 1, limit).round()))
        strongest = []
        for index in self.snapshots.iterate(self.network):
            strongest.append(find_strongest(self.network, names, loader, indices))
            log.info("found the strongest activations after epoch %d", self.snapshots.epochs[index])
        return strongest

    def project_layer(
        self, layer: str, strongest: Sequence[StrongestActivations], selection: UnitSelection
    ) -> LayerEvolution:
        """Project the strongest activations of a layer's units, with filters and maps, at each snapshot.

        Args:
            layer: Name of the layer.
            strongest: The strongest activations of its units at each snapshot.
            selection: The units; a number selects those that are strongest at the last snapshot.

        Raises:
            UserError: The deconvnet is not defined for the layer, or its activations depend on the other
                images of a batch.
        """
        chosen = choose_units(strongest[-1].values, selection)
        own = find_own_filters(self.layers, layer)
        parts, maps, filters = [], [], []
        for index in self.snapshots.iterate(self.network):
            top = LayerTopActivations(*(array[chosen][:, None] for array in strongest[index]))
            parts.append(self.projector.project_layer(layer, chosen, top))
            outputs = record_maps(self.network, [layer], self.samples)[layer]
            maps.append(outputs[:, torch.from_numpy(chosen).long()].float().cpu().numpy())
            if own:
                filters.append(_read_filters(self.network, own, chosen))
        projections, patches, corners = (
            np.stack([getattr(part, name)[:, 0] for part in parts])
            for name in ("projections", "patches", "corners")
        )
        values, images, positions = (np.stack(arrays) for arrays in zip(*strongest, strict=True))
        return LayerEvolution(
            values,
            images,
            positions,
            chosen=chosen,
            projections=projections,
            patches=patches,
            corners=corners,
            maps=np.stack(maps),
            filters=np.stack(filters) if own else None,
            module=own.module if own else None,
        )


def _read_filters(network: nn.Module, own: OwnFilters, units: np.ndarray) -> np.ndarray:
    """Return the filters of units, (units, channels, ...) float32."""
    weight = network.get_submodule(own.module).weight
    assert isinstance(weight, Tensor)
    selected = weight.detach().movedim(own.axis, 0)[torch.from_numpy(units).long()]
    filters: np.ndarray = selected.float().cpu().numpy()
    return filters


def check_layers(
    names: Sequence[str], strongest: Sequence[Mapping[str, StrongestActivations]]
) -> dict[str, str]:
    """Return why layers have no strongest activations, by name.

    Args:
        names: Names of layers.
        strongest: What `EvolutionComputer.find_strongest` returned.
    """
    return {
        name: "its output is not one entry per image, with units; views.evolution.layers names others"
        for name in names
        if not all(name in activations for activations in strongest)
    }


def project_layers(
    computer: EvolutionComputer,
    strongest: Sequence[Mapping[str, StrongestActivations]],
    selection: UnitSelection,
    skipped: dict[str, str],
    names: Sequence[str],
) -> Iterator[tuple[str, LayerEvolution]]:
    """Yield the evolution of each layer that has one, with its name.

    Args:
        computer: Of the network.
        strongest: What its `find_strongest` returned.
        selection: The units.
        skipped: Why layers are left out, by name; those whose projection is not defined are added.
        names: Names of layers, in execution order.
    """
    for name in names:
        if name in skipped:
            continue
        try:
            yield (
                name,
                computer.project_layer(name, [activations[name] for activations in strongest], selection),
            )
        except UserError as error:
            log.warning("no evolution of %s: %s", name, error)
            skipped[name] = str(error)
