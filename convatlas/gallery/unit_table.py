"""The units of all layers of a network in one table, by their statistics over the data set."""

from collections.abc import Collection, Sequence
from types import MappingProxyType

import numpy as np

from convatlas.gallery.ablation_data import AblationReader, make_effect_columns
from convatlas.gallery.concept_columns import make_name_columns
from convatlas.gallery.concept_data import NamedUnits
from convatlas.gallery.explorer_statistics import PASS_THROUGH_KINDS
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.table_data import TableColumn
from convatlas.gallery.top_images import TopImages
from convatlas.records import FeatureMatch, UnitMatches
from convatlas.statistics.class_preference import find_preferred_classes

SHORTCUT_KINDS = ("position", "subclass")


def list_table_layers(network: NetworkData) -> list[str]:
    """List the layers of the table: those with statistics, without layers that only pass on values.

    Args:
        network: A network with statistics.
    """
    kinds = {layer["name"]: layer["kind"] for layer in network.layers}
    names = [layer["name"] for layer in network.results.dataset_statistics["layers"]]
    return [name for name in names if kinds.get(name) not in PASS_THROUGH_KINDS]


def make_unit_columns(
    network: NetworkData,
    top_images: TopImages,
    explorer_layers: Collection[str],
    named: NamedUnits = MappingProxyType({}),
    ablation: AblationReader | None = None,
) -> list[TableColumn]:
    """Make the columns of the table, without those that are empty.

    Args:
        network: A network with statistics.
        top_images: Its top-activating images, by which units are possible shortcuts.
        explorer_layers: The layers in the explorer, to which the units link.
        named: The concepts of named units, by layer and unit.
        ablation: What the ablation of its units costs, where it was measured.
    """
    layers = list_table_layers(network)
    statistics, summary = network.results.statistics, network.results.dataset_statistics
    preferences = [
        find_preferred_classes(statistics, layer, np.array(summary["class_images"]), summary["images"])
        for layer in layers
    ]
    preferred = np.concatenate([preference.preferred for preference in preferences])
    effect_size = np.concatenate([preference.effect_size for preference in preferences])
    n_units = [len(statistics[f"{layer}@mean"]) for layer in layers]

    def join(statistic: str) -> np.ndarray:
        return np.concatenate([statistics[f"{layer}@{statistic}"] for layer in layers])

    columns = [
        TableColumn(
            "layer",
            "layer",
            np.repeat(np.arange(len(layers)), n_units),
            layers,
            unlinked=[n for n, layer in enumerate(layers) if layer not in explorer_layers],
        ),
        TableColumn(
            "unit", "unit", np.concatenate([np.arange(n) for n in n_units]), is_header=True, is_link=True
        ),
        TableColumn("mean", "mean", join("mean")),
        TableColumn("std", "std", join("std")),
        TableColumn("max", "max", join("max")),
        TableColumn("zero", "zero fraction", join("zero_fraction")),
        TableColumn("dead", "dead", join("dead").astype(int), ["no", "yes"]),
        TableColumn("class", "preferred class", preferred, summary["classes"]),
        TableColumn("d", "effect size d", effect_size),
        TableColumn("selectivity", "class selectivity", join("selectivity")),
        _make_shortcut_column(top_images, layers, n_units),
        *make_name_columns(named, layers, n_units),
        *(make_effect_columns(ablation, layers, n_units) if ablation else []),
        *_make_match_columns(network.results.unit_matches, layers, n_units),
    ]
    return [column for column in columns if not column.is_empty]


def _make_shortcut_column(
    top_images: TopImages, layers: Sequence[str], n_units: Sequence[int]
) -> TableColumn:
    """Make the column of what the top activations of a possible shortcut have in common."""
    indices = {layer: np.full(n, -1) for layer, n in zip(layers, n_units, strict=True)}
    for row in top_images.marked_units:
        for layer, unit in [(row.layer, row.unit), *row.later]:
            indices[layer][unit] = SHORTCUT_KINDS.index(row.kind)
    texts = [f"one {kind}" for kind in SHORTCUT_KINDS]
    return TableColumn("shortcut", "possible shortcut", np.concatenate([*indices.values()]), texts)


def _make_match_columns(
    matches: UnitMatches, layers: Sequence[str], n_units: Sequence[int]
) -> list[TableColumn]:
    """Make the columns of the classical feature that a unit matches, and of its correlation."""
    units: list[FeatureMatch | None] = []
    for layer, n in zip(layers, n_units, strict=True):
        units += matches["layers"][layer]["units"] if layer in matches["layers"] else [None] * n
    features = sorted({unit["description"] for unit in units if unit})
    indices = [features.index(unit["description"]) if unit else -1 for unit in units]
    correlations = [unit["r"] if unit else np.nan for unit in units]
    return [
        TableColumn("match", "classical feature", np.array(indices), features),
        TableColumn("r", "correlation r", np.array(correlations)),
    ]
