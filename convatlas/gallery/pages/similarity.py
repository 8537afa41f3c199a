"""The pages of the similarity of layers: of each network, and between networks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from convatlas.analysis import registry
from convatlas.files import Npz
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.heat_map import HeatMap, draw_heat_map
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.published_files import list_shared_files
from convatlas.gallery.similarity_findings import (
    MIN_EFFECT,
    MIN_ERRORS,
    describe_mean,
    describe_most_similar,
    list_most_similar,
    list_network_findings,
)
from convatlas.gallery.value_grid import VIRIDIS
from convatlas.records import NetworkSimilarity, PairSimilarity

PAIRS_PER_PAGE = 12
ANALYSIS = registry.BY_NAME["similarity"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two networks as a page shows them, or one with itself.

    Attributes:
        entry: Their entry of similarity.json.
        arrays: Their arrays, by the part of their names after the @.
    """

    entry: PairSimilarity
    arrays: Mapping[str, np.ndarray]

    @property
    def anchor(self) -> str:
        """Return the id of its section."""
        return self.entry["key"]

    @cached_property
    def finding(self) -> str:
        """Return which layers are most similar."""
        return describe_most_similar(self.entry["layers"], self.arrays)

    @property
    def mean(self) -> str:
        """Return the mean over all pairs of layers."""
        return describe_mean(self.entry["mean"]) if self.entry["mean"] else ""

    @cached_property
    def maps(self) -> list[HeatMap]:
        """Return the maps of the trained networks and of the untrained ones."""
        rows, columns = self.entry["layers"]
        first, second = self.entry["networks"]
        marks = list_most_similar(self.arrays)
        trained = draw_map("Trained", self.arrays, "trained", rows, columns, f"{first}, {second}", marks)
        if "untrained" not in self.arrays:
            return [trained]
        name = f"{first}, {second}, both untrained"
        return [trained, draw_map("Untrained: the control", self.arrays, "untrained", rows, columns, name)]


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network whose layers were compared, and those of pairs of networks.

    Args:
        context: The run that the site shows.
    """
    networks = [network for network in context.list_analysed(ANALYSIS.name) if network.results.similarity]
    names = [network.name for network in networks]
    pairs = [
        pair for pair in (_get_pairs(networks[0]) if networks else []) if set(pair["networks"]) <= set(names)
    ]
    defined = [Comparison(pair, _select(networks[0], pair["key"])) for pair in pairs if not pair["undefined"]]
    groups = [defined[n : n + PAIRS_PER_PAGE] for n in range(0, len(defined), PAIRS_PER_PAGE)]
    places = {
        pair.entry["key"]: f"similarity{f'-{number}' if number > 1 else ''}.html"
        for number, group in enumerate(groups, 1)
        for pair in group
    }
    for network in networks:
        files = list_shared_files(context, ANALYSIS) if network is networks[0] else {}
        yield SitePage(
            f"networks/{network.name}-{ANALYSIS.slug}.html",
            "similarity.html",
            f"{network.name}: similarity of layers",
            {
                **describe_network(network),
                "pairs": [pair for pair in defined if network.name in pair.entry["networks"]],
                "undefined_pairs": [
                    pair for pair in pairs if pair["undefined"] and network.name in pair["networks"]
                ],
                "places": places,
            },
            files=files,
            network=network.name,
            tab="Analyses",
            subtab=ANALYSIS.title,
        )
    for number, group in enumerate(groups):
        values = {
            "pairs": group,
            "undefined_pairs": [pair for pair in pairs if pair["undefined"]],
            "page_places": list(dict.fromkeys(places.values())),
            "colours": VIRIDIS,
            "limits": (MIN_EFFECT, MIN_ERRORS),
        }
        path = places[group[0].entry["key"]]
        title = "Similarity" if not number else f"Similarity, page {number + 1}"
        yield SitePage(path, "similar_networks.html", title, values, None if number else "Analyses")


def summarise(network: NetworkData) -> str:
    """Say how similar the layers of a network are, in one sentence.

    Args:
        network: The network.
    """
    entry = _get_entry(network)
    if entry is None:
        return "Not computed."
    if entry["undefined"] or entry["mean"] is None:
        return f"Not computed: {entry['undefined']}."
    layers = entry["layers"]
    return f"Mean CKA between two of {len(layers)} layers: {describe_mean(entry['mean'])}."


def describe_network(network: NetworkData) -> dict[str, Any]:
    """Return what the template needs of the similarity of a network's layers.

    Args:
        network: The network.
    """
    entry, analysis = _get_entry(network), network.results.similarity
    assert entry is not None
    assert analysis is not None
    values: dict[str, Any] = {
        "network": network,
        "entry": entry,
        "split": analysis["split"],
        "batch": analysis["batch"],
        "maps": [],
        "findings": [],
        "colours": VIRIDIS,
        "limits": (MIN_EFFECT, MIN_ERRORS),
    }
    if entry["undefined"] or entry["mean"] is None:
        return values
    arrays, layers = _select(network, network.name), entry["layers"]
    maps = [draw_map("Trained", arrays, "trained", layers, layers, network.name)]
    if "untrained" in arrays:
        maps.append(
            draw_map("Untrained: the control", arrays, "untrained", layers, layers, "the untrained network")
        )
        title = "Trained (rows) and untrained (columns)"
        maps.append(draw_map(title, arrays, "trained_untrained", layers, layers, "both"))
    findings = list_network_findings(layers, arrays, entry["mean"])
    return {**values, "maps": maps, "findings": findings, "mean": describe_mean(entry["mean"])}


def draw_map(
    title: str,
    arrays: Mapping[str, np.ndarray],
    key: str,
    rows: Sequence[str],
    columns: Sequence[str],
    subject: str,
    marks: Sequence[tuple[int, int]] = (),
) -> HeatMap:
    """Draw the CKA of layers.

    Args:
        title: What it shows.
        arrays: The arrays of the comparison.
        key: The array to draw; its errors are under <key>_error.
        rows: Names of the layers.
        columns: Names of the other layers.
        subject: The networks, for the text in words.
        marks: Row and column of the cells to point out.
    """
    values = arrays[key]
    known = values[np.isfinite(values)]
    extent = f"from {known.min():.2f} to {known.max():.2f}".replace("-", "−") if known.size else "undefined"
    alt = f"CKA of layers of {subject}, {len(rows)} rows and {len(columns)} columns, {extent}"
    return draw_heat_map(title, values, arrays[f"{key}_error"], rows, columns, alt, marks)


def _get_entry(network: NetworkData) -> NetworkSimilarity | None:
    """Return the entry of a network in similarity.json."""
    analysis = network.results.similarity
    return analysis["networks"][network.name] if analysis else None


def _get_pairs(network: NetworkData) -> list[PairSimilarity]:
    """Return the pairs of similarity.json, which is the same for every network."""
    analysis = network.results.similarity
    return analysis["pairs"] if analysis else []


def _select(network: NetworkData, key: str) -> dict[str, np.ndarray]:
    """Return the arrays of a comparison, by the part of their names after the @."""
    arrays: Npz = network.results.similarity_arrays
    return {name.rpartition("@")[2]: arrays[name] for name in arrays if name.rpartition("@")[0] == key}
