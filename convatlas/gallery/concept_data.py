"""The concepts that name units, as the pages show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convatlas.gallery.network_data import NetworkData
from convatlas.records import ConceptAnalysis, ConceptEntry

MAX_LISTED = 10  # concepts that are not tested
TYPES = {"region": "region", "image": "kind of image"}
QUANTITIES = (
    "concept",
    "is_high",
    "is_named",
    "auc",
    "low",
    "high",
    "chance_mean",
    "chance_low",
    "chance_high",
    "p",
)
REGION_QUANTITIES = ("iou", "iou_ceiling")


@dataclass(frozen=True)
class NamedUnit:
    """A concept that a unit separates better than chance.

    Attributes:
        layer: The unit's layer.
        unit: Its number.
        concept: The concept.
        is_high: Whether the unit is higher on the concept, or lower.
        values: The quantities of concepts.npz, by name.
    """

    layer: str
    unit: int
    concept: ConceptEntry
    is_high: bool
    values: Mapping[str, float]

    @property
    def effect(self) -> float:
        """Return the distance of the AUC from 0.5."""
        return abs(self.values["auc"] - 0.5)

    @property
    def name(self) -> str:
        """Return the concept, with its direction."""
        return self.concept["name"] if self.is_high else f"low on {self.concept['name']}"

    @property
    def interval(self) -> str:
        """Return the AUC with its interval."""
        auc, low, high = (self.values[key] for key in ("auc", "low", "high"))
        return f"AUC {auc:.2f} [{low:.2f}, {high:.2f}]"

    @property
    def text(self) -> str:
        """Return the concept with its AUC."""
        what = "" if self.concept["type"] == "region" else "images: "
        return f"{what}{self.name}, {self.interval}"


NamedUnits = Mapping[str, Mapping[int, Sequence[NamedUnit]]]  # by layer and unit


def has_concepts(network: NetworkData, views: Mapping[str, Any]) -> bool:
    """Return whether the config asks for the concepts of a network's units, and they are there.

    Args:
        network: The network.
        views: `views` of its config.
    """
    analysis = network.results.concepts if views.get("concepts") is not None else None
    return analysis is not None and not analysis["undefined"]


def read_named_units(network: NetworkData, views: Mapping[str, Any]) -> dict[str, dict[int, list[NamedUnit]]]:
    """Read the concepts of the named units of each layer, of a unit the one that it separates best first.

    Args:
        network: The network.
        views: `views` of its config.

    Returns:
        By layer and unit; empty where the analysis is off, or undefined.
    """
    if not has_concepts(network, views):
        return {}
    analysis, arrays = network.results.concepts, network.results.concepts_arrays
    assert analysis is not None
    layers: dict[str, dict[int, list[NamedUnit]]] = {}
    for layer in analysis["layers"]:
        name, units = layer["name"], layers.setdefault(layer["name"], {})
        for prefix in TYPES:
            if f"{name}@{prefix}_auc" not in arrays:
                continue
            keys = QUANTITIES + (REGION_QUANTITIES if prefix == "region" else ())
            values = {key: arrays[f"{name}@{prefix}_{key}"] for key in keys}
            for unit in np.flatnonzero(values["is_named"]).tolist():
                quantities = {key: float(values[key][unit]) for key in keys}
                concept = analysis["concepts"][int(quantities["concept"])]
                units.setdefault(unit, []).append(
                    NamedUnit(name, unit, concept, bool(quantities["is_high"]), quantities)
                )
        for named in units.values():
            named.sort(key=lambda entry: -entry.effect)
    return layers


def describe_missing(analysis: ConceptAnalysis) -> list[str]:
    """Return a clause for each group of concepts that are not tested.

    Args:
        analysis: concepts.json.
    """
    least = analysis["test"]["min_examples"]
    clauses = []
    groups: dict[str, list[str]] = {}
    for concept in analysis["concepts"]:
        if concept["tested"]:
            continue
        if concept["group"] == "head" and not concept["test"]:
            clauses.append("head, as no test image has a head box")
        else:
            groups.setdefault(TYPES[concept["type"]], []).append(concept["name"])
    for title, names in groups.items():
        listed = ", ".join(names[:MAX_LISTED]) + (
            f" and {n} more" if (n := len(names) - MAX_LISTED) > 0 else ""
        )
        clauses.append(f"{title} {listed}, as fewer than {least} images of a split show it, or do not")
    return clauses
