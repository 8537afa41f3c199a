"""The columns of tables that name units by concepts."""

from collections.abc import Sequence

import numpy as np

from convatlas.gallery.concept_data import TYPES, NamedUnits
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.table_data import TableColumn

NO_CONCEPT = "none"


def make_name_columns(named: NamedUnits, layers: Sequence[str], n_units: Sequence[int]) -> list[TableColumn]:
    """Make the columns of the unit table: the concept that a unit separates best, and its AUC.

    Args:
        named: The named units.
        layers: The layers of the table.
        n_units: Number of units of each.
    """
    best = [
        named[layer][unit][0] if unit in named.get(layer, {}) else None
        for layer, n in zip(layers, n_units, strict=True)
        for unit in range(n)
    ]
    names = sorted({entry.name for entry in best if entry})
    indices = [names.index(entry.name) if entry else -1 for entry in best]
    aucs = [entry.values["auc"] if entry else np.nan for entry in best]
    return [
        TableColumn("separates", "separates", np.array(indices), names),
        TableColumn("auc", "AUC", np.array(aucs)),
    ]


def make_concept_columns(network: NetworkData, explorer_layers: Sequence[str]) -> list[TableColumn]:
    """Make the columns of the table of all units of the analysis.

    Args:
        network: A network with concepts.
        explorer_layers: The layers in the explorer, to which the units link.
    """
    analysis, arrays = network.results.concepts, network.results.concepts_arrays
    assert analysis is not None
    layers = [layer["name"] for layer in analysis["layers"]]
    n_units = [layer["units"] for layer in analysis["layers"]]
    unlinked = [n for n, layer in enumerate(layers) if layer not in explorer_layers]
    columns = [
        TableColumn("layer", "layer", np.repeat(np.arange(len(layers)), n_units), layers, unlinked=unlinked),
        TableColumn(
            "unit", "unit", np.concatenate([np.arange(n) for n in n_units]), is_header=True, is_link=True
        ),
    ]
    for prefix, title in TYPES.items():
        if not any(f"{layer}@{prefix}_auc" in arrays for layer in layers):
            continue

        def join(quantity: str, prefix: str = prefix) -> np.ndarray:
            return np.concatenate(
                [
                    arrays[key] if (key := f"{layer}@{prefix}_{quantity}") in arrays else np.full(n, np.nan)
                    for layer, n in zip(layers, n_units, strict=True)
                ]
            )

        is_named = np.nan_to_num(join("is_named")) > 0
        names = [NO_CONCEPT, *(concept["name"] for concept in analysis["concepts"])]
        concept = np.where(is_named, np.nan_to_num(join("concept")) + 1, 0).astype(int)
        direction = np.where(is_named, join("is_high") > 0, -1).astype(int)
        columns += [
            _make_choice_column(prefix, title, concept, names),
            TableColumn(f"{prefix}-direction", f"{prefix} direction", direction, ["lower", "higher"]),
        ]
        numbers = {"auc": "AUC", "low": "AUC, low end", "high": "AUC, high end", "chance_mean": "chance AUC"}
        if prefix == "region":
            numbers |= {"iou": "IoU", "iou_ceiling": "largest IoU"}
        columns += [
            TableColumn(f"{prefix}-{key}", f"{prefix} {text}", np.where(is_named, join(key), np.nan))
            for key, text in numbers.items()
        ]
        columns.append(TableColumn(f"{prefix}-p", f"{prefix} p", join("p")))
    return columns


def _make_choice_column(key: str, title: str, indices: np.ndarray, names: Sequence[str]) -> TableColumn:
    """Make a column of those names that occur."""
    used = np.unique(indices)
    return TableColumn(key, title, np.searchsorted(used, indices), [names[index] for index in used])
