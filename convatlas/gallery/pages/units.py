"""The page of a network's units over its data set: dead units, class selectivity, top activations."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from convatlas.gallery.ablation_data import AblationReader, read_ablation
from convatlas.gallery.concept_data import NamedUnit, NamedUnits, read_named_units
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.explorer_statistics import PASS_THROUGH_KINDS
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.selective_units import ClassSelectiveUnit
from convatlas.gallery.table_data import dump_table
from convatlas.gallery.top_images import TopImages
from convatlas.gallery.unit_table import list_table_layers, make_unit_columns
from convatlas.records import DatasetStatistics
from convatlas.statistics.class_preference import (
    MIN_CLASS_IMAGES,
    MIN_EFFECT_SIZE,
    MIN_STANDARD_ERRORS,
    find_preferred_classes,
)
from convatlas.statistics.shortcuts import SIGNIFICANCE

MAX_NAMED_UNITS = 20  # that are listed
N_FIRST_MARKED_UNITS = 10  # possible shortcuts that are listed at first; the others are collapsed
MAX_MARKED_UNITS = 60  # that are listed in all
MAX_CLASS_COLUMNS = 12  # classes with a column each; of more, the three with the largest response are listed
TOP_CLASSES = 3
MAX_LAST_LAYER_UNITS = 200  # that are listed
MAX_FIRST_ROWS = 100  # of the table of all units that the page has without its script


@dataclass(frozen=True)
class DeadUnits:
    """The dead units of a layer: how many of how many, and their numbers as text."""

    layer: str
    units: int
    n_dead: int
    unit_ranges: str


@dataclass(frozen=True)
class ClassResponses:
    """The mean responses of a unit to the classes.

    Attributes:
        unit: Its number.
        name: The class that it stands for, "" where it stands for none.
        class_name: The class that it prefers, "" where none stands out.
        responses: Classes with their mean responses, None without an image: all, or the largest of many.
        selectivity: Its class selectivity, in 0..1.
    """

    unit: int
    name: str
    class_name: str
    responses: list[tuple[str, float | None]]
    selectivity: float


@dataclass(frozen=True)
class UnitPageData:
    """What the page of a network's units shows.

    Attributes:
        summary: statistics.json.
        n_layers: Number of tracked layers.
        non_finite_units: The layers with units that are NaN or infinite on an image, and these units as text.
        dead_units: The layers with dead units.
        selective_units: The most class-selective units.
        last_layer: The last layer with weights, "" without any.
        class_responses: The responses of its units.
        n_last_layer_units: Number of its units.
    """

    summary: DatasetStatistics
    n_layers: int
    non_finite_units: list[tuple[str, str]]
    dead_units: list[DeadUnits]
    selective_units: list[ClassSelectiveUnit]
    last_layer: str
    class_responses: list[ClassResponses]
    n_last_layer_units: int

    @property
    def has_labels(self) -> bool:
        """Return whether classes are the labels of the images, and not the network's predictions."""
        return self.summary["class_source"] == "label"


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network whose units are tracked over its data set.

    Args:
        context: The run that the site shows.
    """
    for network in context.networks:
        if not has_statistics(context, network):
            continue
        explorer = context.explorers.get(network.name)
        explorer_layers = list(explorer.slugs) if explorer else []
        ablation = read_ablation(context.config, network)
        named = read_named_units(network, context.config["networks"][network.name]["views"])
        values = {
            "network": network,
            "units": read_unit_data(network),
            "explorer_layers": explorer_layers,
            "top_images": context.top_images[network.name],
            "ablation": ablation,
            "named": list_best_named_units(named),
            "n_named": sum(map(len, named.values())),
            "n_first_marked_units": N_FIRST_MARKED_UNITS,
            "max_marked_units": MAX_MARKED_UNITS,
            "significance": SIGNIFICANCE,
            "min_effect_size": MIN_EFFECT_SIZE,
            "min_standard_errors": MIN_STANDARD_ERRORS,
            "min_class_images": MIN_CLASS_IMAGES,
        }
        path = f"networks/{network.name}-units.html"
        yield SitePage(
            path, "units.html", f"{network.name}: unit statistics", values, network=network.name, tab="Units"
        )
        yield make_table_page(network, context.top_images[network.name], explorer_layers, named, ablation)


def make_table_page(
    network: NetworkData,
    top_images: TopImages,
    explorer_layers: Sequence[str],
    named: NamedUnits = MappingProxyType({}),
    ablation: AblationReader | None = None,
) -> SitePage:
    """Return the page with the table of the units of all layers.

    Args:
        network: A network with statistics.
        top_images: Its top-activating images.
        explorer_layers: The layers in the explorer.
        named: The concepts of named units, by layer and unit.
        ablation: What the ablation of its units costs, where it was measured.
    """
    columns = make_unit_columns(network, top_images, explorer_layers, named, ablation)
    n_rows = len(columns[0].values)
    values = {
        "network": network,
        "summary": network.results.dataset_statistics,
        "layers": list_table_layers(network),
        "columns": columns,
        "table_json": dump_table(columns),
        "n_rows": n_rows,
        "n_first_rows": min(n_rows, MAX_FIRST_ROWS),
        "min_effect_size": MIN_EFFECT_SIZE,
        "min_standard_errors": MIN_STANDARD_ERRORS,
        "min_class_images": MIN_CLASS_IMAGES,
    }
    path = f"networks/{network.name}-unit-table.html"
    title = f"{network.name}: unit table"
    return SitePage(path, "unit_table.html", title, values, network=network.name, tab="Unit table")


def list_best_named_units(named: NamedUnits) -> list[NamedUnit]:
    """List the named units of the largest effects, each concept in turn, at most MAX_NAMED_UNITS.

    Args:
        named: The concepts of named units, by layer and unit.
    """
    best = [concepts[0] for units in named.values() for concepts in units.values()]
    best.sort(key=lambda unit: -unit.effect)
    ranks: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []
    for n, unit in enumerate(best):
        turns.append((ranks[unit.name], n))
        ranks[unit.name] += 1
    return [best[n] for _, n in sorted(turns)[:MAX_NAMED_UNITS]]


def has_statistics(context: GalleryContext, network: NetworkData) -> bool:
    """Return whether the config asks for statistics of a network's units over its data set.

    Args:
        context: The run that the site shows.
        network: A network of the run.
    """
    return network.name in context.top_images


def read_unit_data(network: NetworkData) -> UnitPageData:
    """Read the statistics of a network's units.

    Args:
        network: A network with statistics.

    Returns:
        What the page shows. Layers that pass their input on are not listed among those with dead units.
    """
    summary, statistics = network.results.dataset_statistics, network.results.statistics
    kinds = {layer["name"]: layer["kind"] for layer in network.layers}
    tracked = [layer["name"] for layer in summary["layers"]]
    dead_units = [
        DeadUnits(layer["name"], layer["units"], len(layer["dead"]), format_ranges(layer["dead"]))
        for layer in summary["layers"]
        if layer["dead"] and kinds.get(layer["name"]) not in PASS_THROUGH_KINDS
    ]
    weighted = [name for name in tracked if kinds.get(name) in ("conv", "linear")]
    last_layer = weighted[-1] if weighted else ""
    responses: list[ClassResponses] = []
    if last_layer:
        responses = compute_class_responses(statistics, last_layer, summary, network.description["classes"])
    return UnitPageData(
        summary=summary,
        n_layers=len(summary["layers"]),
        non_finite_units=[
            (layer["name"], format_ranges(layer["non_finite"]))
            for layer in summary["layers"]
            if "non_finite" in layer
        ],
        dead_units=dead_units,
        selective_units=network.selective_units,
        last_layer=last_layer,
        class_responses=responses[:MAX_LAST_LAYER_UNITS],
        n_last_layer_units=len(responses),
    )


def compute_class_responses(
    statistics: Mapping[str, np.ndarray],
    layer: str,
    summary: DatasetStatistics,
    names: Sequence[str],
) -> list[ClassResponses]:
    """List the mean responses of a layer's units to the classes.

    Args:
        statistics: statistics.npz.
        layer: Name of the layer.
        summary: statistics.json.
        names: The names of the network's classes, which name the units where there are as many.
    """
    class_means, classes = statistics[f"{layer}@classes"], summary["classes"]
    if not class_means.shape[1]:
        return []
    class_images = np.array(summary["class_images"])
    has_images = class_images > 0
    preference = find_preferred_classes(statistics, layer, class_images, summary["images"])
    selectivity = statistics[f"{layer}@selectivity"]
    rows = []
    for unit, means in enumerate(class_means):
        order = np.argsort(-np.nan_to_num(means, nan=-np.inf), kind="stable").tolist()
        shown = list(range(len(means))) if len(classes) <= MAX_CLASS_COLUMNS else order[:TOP_CLASSES]
        preferred = int(preference.preferred[unit])
        rows.append(
            ClassResponses(
                unit=unit,
                name=names[unit] if len(names) == len(class_means) else "",
                class_name=classes[preferred] if preferred >= 0 else "",
                responses=[(classes[c], float(means[c]) if has_images[c] else None) for c in shown],
                selectivity=float(selectivity[unit]),
            )
        )
    return rows


def format_ranges(numbers: Sequence[int]) -> str:
    """Write ascending whole numbers with ranges: 3, 7–9.

    Args:
        numbers: The numbers, each once.
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(_format_run(first, last) for first, last in runs)


def _format_run(first: int, last: int) -> str:
    """Write a run of whole numbers; two are listed."""
    if first == last:
        return str(first)
    return f"{first}, {last}" if last == first + 1 else f"{first}–{last}"
