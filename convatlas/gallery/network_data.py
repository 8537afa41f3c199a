"""What the pages show of one network, read from results/<network>/."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

from convatlas.datasets import formats
from convatlas.files import read_json
from convatlas.gallery.diagrams.network_diagram import NetworkDiagram, draw_network
from convatlas.gallery.diagrams.stages import split_stages
from convatlas.gallery.findings import list_emergence_findings, list_findings
from convatlas.gallery.input_text import describe_channels, describe_input
from convatlas.gallery.local_paths import hide_local_paths
from convatlas.gallery.notes import Notes
from convatlas.gallery.selective_units import (
    ClassSelectiveUnit,
    find_selective_units,
    list_activation_statistics,
)
from convatlas.image_io import is_image_input
from convatlas.layer_selection import choose_layers
from convatlas.names import describe_non_finite, join_names, list_precisions, title_images
from convatlas.records import (
    DatasetDescription,
    FeatureMatch,
    Figure,
    Layer,
    LayerStatistics,
    NetworkDescription,
    SampleImage,
    SegmentationAnalysis,
    Timing,
    UnitMatches,
)
from convatlas.results import Results

MAX_LISTED_IMAGES = 5  # with NaN or infinite values
MAX_COVER_BYTES = 200_000  # of a PNG; the first screen of a page may take half a megabyte
FIRST_SCREEN_KINDS = ("cover", "strongest")
TOP_MATCHES = 3  # units of a layer that a table lists
LAYER_FIGURE_KINDS = ("filters", "maps", "values", "pairs")  # in the section of a layer
UNIT_FIGURE_KINDS = ("strongest", "relevance")  # on the page of the units


class NetworkLayer(Layer):
    """An entry of layers.json, with the formula of its output size."""

    arithmetic: str | None


class PublishedFigure(Figure):
    """An entry of figures.json, with the file that a page shows."""

    display_file: str


@dataclass(frozen=True)
class LayerMatchRow:
    """A row of the table of classical features: how many units of a layer match one.

    Attributes:
        layer: Name of the layer.
        units: Number of its units.
        n_matched: Number of its units that match a feature.
        baseline: 95th percentile of the correlation in the untrained network.
        top_matches: The units with the largest absolute correlation, and their matches.
    """

    layer: str
    units: int
    n_matched: int
    baseline: float
    top_matches: list[tuple[int, FeatureMatch]]


@dataclass(frozen=True)
class ClassicalMatches:
    """The threshold of the correlation, and the rows of the table of classical features."""

    threshold: float
    rows: list[LayerMatchRow]


@dataclass(frozen=True)
class NetworkData:
    """What the pages show of one network.

    Attributes:
        name: Its key under `networks` of the config.
        results: Its results.
        description: network.json, without absolute paths of this machine, as are images and data set.
        metrics: metrics.json; empty where nothing was measured.
        layers: layers.json.
        images: images.json.
        figures: figures.json.
        timing: timing.json.
        dataset: dataset.json of its data set, if it has one.
        matches: The units that match a classical feature.
        rectified: Whether projections are rectified at activations that are not ReLUs.
        diagram: The diagrams of its blocks.
        findings: What stands out, as sentences.
        masks: masks.json, of a data set with masks.
        emergence_findings: Where segmentation emerges, as sentences.
        highlighted_layers: The layers that `views.highlight` of the config names.
        notes: The user's notes.
    """

    name: str
    results: Results
    description: NetworkDescription
    metrics: Mapping[str, Any]
    layers: Sequence[NetworkLayer]
    images: Sequence[SampleImage]
    figures: Sequence[PublishedFigure]
    timing: Timing
    dataset: DatasetDescription | None
    matches: ClassicalMatches
    rectified: bool
    diagram: NetworkDiagram
    findings: Sequence[str]
    masks: SegmentationAnalysis | None
    emergence_findings: Sequence[str]
    highlighted_layers: Sequence[str]
    notes: Notes

    @classmethod
    def read(
        cls,
        results_folder: Path,
        data_folder: Path,
        name: str,
        rectified: bool = False,
        highlight: Sequence[str | int] | None = None,
        notes: str | Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a network's results.

        Args:
            results_folder: The folder of the networks' folders.
            data_folder: The folder of the data sets.
            name: The network's name.
            rectified: Whether projections are rectified at activations that are not ReLUs.
            highlight: `views.highlight` of the config.
            notes: The network's `notes` of the config.

        Raises:
            UserError: A file is missing or damaged, or the config names a layer that is not there.
        """
        results = Results(results_folder / name)
        description = cast(NetworkDescription, hide_local_paths(results.network))
        layers = results.layers
        dataset = None
        if description["dataset"]:
            dataset = cast(
                DatasetDescription,
                hide_local_paths(read_json(data_folder / description["dataset"] / "dataset.json")),
            )
        masks = results.segmentation if dataset and formats.has_masks(dataset) else None
        highlighted: list[str] = []
        if highlight:
            highlighted = choose_layers(layers, highlight, f"networks.{name}.views.highlight")
        return cls(
            name=name,
            results=results,
            description=description,
            metrics=cast(Mapping[str, Any], results.metrics or {}),
            layers=[
                cast(NetworkLayer, {**layer, "arithmetic": format_output_size(layer)}) for layer in layers
            ],
            images=hide_local_paths(results.images),
            figures=[
                cast(PublishedFigure, {**figure, "display_file": _choose_display_file(results, figure)})
                for figure in results.figures
            ],
            timing=results.timing,
            dataset=dataset,
            matches=summarize_matches(results.unit_matches),
            rectified=rectified,
            diagram=draw_network(layers),
            findings=list_findings(results),
            masks=masks,
            emergence_findings=list_emergence_findings(masks) if masks else [],
            highlighted_layers=highlighted,
            notes=Notes.from_config(notes, layers, f"networks.{name}.notes"),
        )

    @property
    def is_untrained(self) -> bool:
        """Whether its weights are those of a random initialisation."""
        origin = self.description["weights"]["origin"]
        return not self.description["training"] and origin.startswith("random")

    @property
    def takes_images(self) -> bool:
        """Whether its inputs are images, not audio, series, volumes or video."""
        return is_image_input(self.description["preprocessing"])

    @property
    def input_description(self) -> list[str]:
        """Sentences on how image files became the network's input."""
        return describe_input(self.description["preprocessing"], self.images, self.dataset)

    @property
    def channels_description(self) -> str:
        """A sentence on the channels of the input that the pages show, or ""."""
        return describe_channels(self.description["preprocessing"])

    @cached_property
    def image_titles(self) -> dict[str, str]:
        """Return what each sample image is called, such as "dog, test image 47", by its name."""
        return title_images(self.images, self.description)

    @cached_property
    def activation_statistics(self) -> list[LayerStatistics]:
        """Return the activation layers with statistics, whose dead units stand for those of the network."""
        return list_activation_statistics(self.layers, self.results.dataset_statistics)

    @cached_property
    def selective_units(self) -> list[ClassSelectiveUnit]:
        """Return the most class-selective units of the activation layers."""
        names = [layer["name"] for layer in self.activation_statistics]
        return find_selective_units(self.results.statistics, names, self.results.dataset_statistics)

    def count_layer_figures(self, layers: Sequence[NetworkLayer]) -> int:
        """Return how many figures the sections of layers have.

        Args:
            layers: The layers.
        """
        names = {layer["name"] for layer in layers}
        return sum(
            figure["kind"] in LAYER_FIGURE_KINDS and figure["subject"] in names for figure in self.figures
        )

    def get_figures(self, kind: str, subject: str | None = None) -> list[PublishedFigure]:
        """Return the figures of a kind, in their order in the list of figures.

        Args:
            kind: The kind, such as "cover" or "digits".
            subject: Name of a layer or image; None for those of all.
        """
        return [
            figure
            for figure in self.figures
            if figure["kind"] == kind and subject in (None, figure["subject"])
        ]

    @property
    def precisions(self) -> list[str]:
        """Return how many layers compute in a precision other than float32."""
        return list_precisions(self.layers)

    @property
    def non_finite_values(self) -> list[str]:
        """Return where the network has NaN or infinite values: weights, and layers on the sample images."""
        weights = self.description.get("non_finite_weights", [])
        lines = [f"Weights: {join_names(weights)}"] if weights else []
        images = [image for image in self.images if "non_finite" in image]
        lines += [
            f"{self.image_titles[image['name']]}: {describe_non_finite(image['non_finite'])}"
            for image in images[:MAX_LISTED_IMAGES]
        ]
        more = len(images) - MAX_LISTED_IMAGES
        return [*lines, f"{more} more sample image{'s' if more > 1 else ''}"] if more > 0 else lines

    @property
    def layers_with_figures(self) -> list[NetworkLayer]:
        """Return the layers that have figures of their own on the network's pages."""
        subjects = {figure["subject"] for figure in self.figures if figure["kind"] not in UNIT_FIGURE_KINDS}
        return [layer for layer in self.layers if layer["name"] in subjects]

    @property
    def other_layers_by_stage(self) -> list[tuple[str, list[NetworkLayer]]]:
        """Return the layers that have figures and are not highlighted, by the stages of the network.

        Returns:
            The name of each stage, and its layers.
        """
        remaining = {
            layer["name"]: layer
            for layer in self.layers_with_figures
            if layer["name"] not in self.highlighted_layers
        }
        groups = []
        for stage in split_stages([layer for layer in self.results.layers if layer["called"]]):
            names = [layer["name"] for layer in stage]
            groups.append([remaining.pop(name) for name in names if name in remaining])
        groups.append(list(remaining.values()))
        return [
            (_format_layer_range([layer["name"] for layer in layers]), layers) for layers in groups if layers
        ]


def format_output_size(layer: Layer) -> str | None:
    """Write the output size of a convolution or pooling layer as a formula with its numbers.

    O = floor((I + 2P - D(K-1) - 1) / S) + 1 (Dumoulin & Visin, arXiv 1603.07285, relationship 15).

    Args:
        layer: The layer.

    Returns:
        The formula along the last axis; None for a layer whose output size is not this.
    """
    kernel, stride, padding = layer["kernel"], layer["stride"], layer["padding"]
    if not (isinstance(kernel, list) and isinstance(stride, list) and isinstance(padding, list)):
        return None
    if not layer["called"] or len(layer["output_shape"]) != 3 or isinstance(padding[-1], list):
        return None
    size = layer["input_shape"][-1]
    dilation = (layer["dilation"] or [1])[-1]
    output_size = (size + 2 * padding[-1] - dilation * (kernel[-1] - 1) - 1) // stride[-1] + 1
    if output_size != layer["output_shape"][-1]:
        return None  # transposed, or rounded up
    return (
        f"⌊({size} + 2·{padding[-1]} − {dilation}·({kernel[-1]} − 1) − 1) / {stride[-1]}⌋ + 1 = {output_size}"
    )


def summarize_matches(unit_matches: UnitMatches) -> ClassicalMatches:
    """Count the units of each layer that match a classical feature, and find the best matches.

    Args:
        unit_matches: classical/units.json.
    """
    rows = []
    for layer, layer_matches in unit_matches["layers"].items():
        matches = [(unit, match) for unit, match in enumerate(layer_matches["units"]) if match]
        matches.sort(key=lambda pair: -abs(pair[1]["r"]))
        rows.append(
            LayerMatchRow(
                layer,
                len(layer_matches["units"]),
                len(matches),
                layer_matches["baseline"],
                matches[:TOP_MATCHES],
            )
        )
    return ClassicalMatches(unit_matches["threshold"], rows)


def _choose_display_file(results: Results, figure: Figure) -> str:
    """Choose the PNG, or a compressed WebP of a large figure that is on the first screen of its page."""
    path = results.folder / "figures" / figure["file"]
    is_large = figure["kind"] in FIRST_SCREEN_KINDS and path.stat().st_size > MAX_COVER_BYTES
    return path.with_suffix(".webp").name if is_large else path.name


def _format_layer_range(names: Sequence[str]) -> str:
    """Name consecutive layers by the first and the last."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
