"""The one reader of a network's results, results/<network>/: typed, and lazy. No torch here."""

import csv
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from convatlas import UserError
from convatlas.files import Npz, read_json
from convatlas.image_io import select_display
from convatlas.names import suggest_nearest
from convatlas.predictions import read_predictions
from convatlas.records import (
    AblationAnalysis,
    AttributionAnalysis,
    ClassificationMetrics,
    ConceptAnalysis,
    CorrespondenceAnalysis,
    DatasetStatistics,
    DeconvSteps,
    EffectiveFieldAnalysis,
    EvolutionAnalysis,
    FeatureVisualisation,
    Figure,
    FilterMatches,
    HistoryRow,
    ImagePrediction,
    InvarianceAnalysis,
    Layer,
    NetworkDescription,
    OcclusionAnalysis,
    Preprocessing,
    SampleImage,
    SegmentationAnalysis,
    SegmentationMetrics,
    SimilarityAnalysis,
    Timing,
    UnitMatches,
)

UNITS_SUFFIX = "@units"  # of the array that says which units an array of projections holds

Entry = TypeVar("Entry", Layer, SampleImage)


class Results:
    """What the pipeline computed of one network: results/<network>/.

    Files are opened when they are asked for, and an array of an npz is read when it is indexed.

    Args:
        folder: The network's folder, such as results/lenet5.

    Raises:
        UserError: The folder is not there, or, on access, a file is missing or damaged.

    Examples:
        >>> results = Results("results/lenet5")
        >>> results.activations("digit-8")["conv1"].shape
        (6, 28, 28)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name
        if not self.folder.is_dir():
            networks = sorted(path.parent.name for path in self.folder.parent.glob("*/network.json"))
            raise UserError(f"there is no folder {self.folder}; {suggest_nearest(self.name, networks)}")

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r})"

    # The network

    @cached_property
    def network(self) -> NetworkDescription:
        """network.json: architecture, weights, preprocessing, classes, versions."""
        return cast(NetworkDescription, read_json(self.folder / "network.json"))

    @cached_property
    def metrics(self) -> ClassificationMetrics | SegmentationMetrics | None:
        """metrics.json: measured once on the test split; None where there is nothing to measure."""
        return cast(
            ClassificationMetrics | SegmentationMetrics | None,
            read_json(self.folder / "metrics.json") or None,
        )

    @cached_property
    def predictions(self) -> list[ImagePrediction]:
        """predictions.csv: one row per test image; empty where there is nothing to measure."""
        return read_predictions(self.folder / "predictions.csv")

    @cached_property
    def history(self) -> list[HistoryRow]:
        """history.csv: one row per epoch; empty where the network was not trained here."""
        with self._open("history.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        numbers = [{key: float(value) if value else None for key, value in row.items()} for row in rows]
        return [cast(HistoryRow, row | {"epoch": int(cast(float, row["epoch"]))}) for row in numbers]

    @cached_property
    def timing(self) -> Timing:
        """timing.json: when the network was trained, and how long it took."""
        return cast(Timing, read_json(self.folder / "timing.json"))

    @cached_property
    def layers(self) -> list[Layer]:
        """layers.json: every layer call, in execution order."""
        return cast(list[Layer], read_json(self.folder / "layers.json"))

    def layer(self, name: str) -> Layer:
        """Return the entry of one layer.

        Args:
            name: Its name, as in `layers`.

        Raises:
            UserError: There is no such layer; the message names the nearest.
        """
        return self._find_entry("layer", self.layers, name)

    @cached_property
    def filters(self) -> Npz:
        """filters.npz: <module> -> weight (units, channels, ...), <module>.bias -> (units,), float32."""
        return Npz(self.folder / "filters.npz")

    # The sample images

    @cached_property
    def images(self) -> list[SampleImage]:
        """images.json: the sample images, with label, prediction and probability."""
        return cast(list[SampleImage], read_json(self.folder / "images.json"))

    def image(self, name: str) -> SampleImage:
        """Return the entry of one sample image.

        Args:
            name: Its name, as in `images`.

        Raises:
            UserError: There is no such image; the message names the nearest.
        """
        return self._find_entry("sample image", self.images, name)

    def activations(self, image: str) -> Npz:
        """Open the recorded outputs of every layer on a sample image.

        Args:
            image: Its name, as in `images`.

        Returns:
            "input" -> (C, H, W), the network's input; <layer> -> its output without the batch axis;
            <pooling layer>@switches -> int32, flat index into the pool's input plane; -1 in padding.
        """
        return self._of_image("activations", image)

    def projections(self, image: str) -> Npz:
        """Open the deconvnet projections of a sample image.

        Args:
            image: Its name, as in `images`.

        Returns:
            <layer> -> (units, C, H, W) float32, signed, of the whole feature map; <layer>@peak -> of its
            single strongest location; <layer>@units -> unit numbers, where not all units are present.
        """
        return self._of_image("deconv", image)

    def displayed_projections(self, image: str) -> "DisplayedProjections":
        """Open the deconvnet projections of a sample image in the channels that are shown.

        Args:
            image: Its name, as in `images`.

        Returns:
            As `projections`, with one channel, to be shown in grey, or three: red, green, blue.
        """
        return DisplayedProjections(self.projections(image), self.network["preprocessing"])

    def attribution_maps(self, image: str) -> Npz:
        """Open the attribution maps of a sample image; `attribution` describes them.

        Args:
            image: Its name, as in `images`.

        Returns:
            <method>@<class number> -> float32 in the input's space, signed (C, H, W) or a map (1, H, W);
            of Grad-CAM and Grad-CAM++ at other layers than the default <method>:<layer>@<class number>.

        Raises:
            UserError: There is no such image, or its file is missing: `views.attribution` leaves it out.
        """
        return self._of_image("attribution", image)

    def classical(self, image: str) -> Npz:
        """Open the classical features of a sample image; `unit_matches` has the units that resemble them.

        Args:
            image: Its name, as in `images`.

        Returns:
            <feature> -> (H, W) float32, at the network's input size.

        Raises:
            UserError: There is no such image, or its file is missing or damaged.
        """
        return self._of_image("classical", image)

    # Over the data set

    @property
    def has_statistics(self) -> bool:
        """Whether there are statistics over a data set."""
        return (self.folder / "statistics.json").is_file()

    @cached_property
    def statistics(self) -> Npz:
        """statistics.npz: <layer>@mean, @std, @max, @zero_fraction, @classes, @selectivity, @dead by unit,
        and of its top activations @values, @images and @positions.
        """
        return Npz(self.folder / "statistics.npz")

    @cached_property
    def dataset_statistics(self) -> DatasetStatistics:
        """statistics.json: the data set, split and layers of `statistics`."""
        return cast(DatasetStatistics, read_json(self.folder / "statistics.json"))

    @cached_property
    def top_activations(self) -> Npz:
        """strongest.npz: <layer>@projections, @patches (units, k, C, h, w) and @corners (units, k, 2); where
        `views.strongest.relevance` names classes @relevance (classes, units, k) and what belongs to it.
        """
        return Npz(self.folder / "strongest.npz")

    # Analyses

    @cached_property
    def feature_visualisation(self) -> FeatureVisualisation | None:
        """feature_visualisation/feature_visualisation.json: images optimised for units and classes.

        None where `views.feature_visualisation` is null.
        """
        path = self.folder / "feature_visualisation/feature_visualisation.json"
        return cast(FeatureVisualisation, read_json(path)) if path.is_file() else None

    @cached_property
    def feature_visualisation_arrays(self) -> Npz:
        """feature_visualisation/feature_visualisation.npz: images optimised for units and classes.

        <layer>@images -> (units, C, h, w) float32, pixels in 0..1 in the order of the network's channels;
        <layer>@units -> their numbers; <layer>@curves -> the objective, (units, steps); <layer>@second_images
        of the first units, from a second start. Of classes @images and so on, without the name of a layer.
        """
        return Npz(self.folder / "feature_visualisation/feature_visualisation.npz")

    @cached_property
    def attribution(self) -> AttributionAnalysis | None:
        """attribution/attribution.json: the maps of each method, with their checks; None where
        `views.attribution` is null.
        """
        path = self.folder / "attribution/attribution.json"
        return cast(AttributionAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def similarity(self) -> SimilarityAnalysis | None:
        """../_similarity/similarity.json: the similarity of layers, of this and of other networks; None where
        `views.similarity` is null.
        """
        path = self.folder.parent / "_similarity/similarity.json"
        analysis = cast(SimilarityAnalysis, read_json(path)) if path.is_file() else None
        return analysis if analysis and self.name in analysis["networks"] else None

    @cached_property
    def similarity_arrays(self) -> Npz:
        """../_similarity/similarity.npz: <network>@trained and further arrays (layers, layers), which
        `NetworkSimilarity` and `PairSimilarity` of convatlas.records describe.
        """
        return Npz(self.folder.parent / "_similarity/similarity.npz")

    @cached_property
    def ablation(self) -> AblationAnalysis | None:
        """ablation/ablation.json: what the network loses without units or layers; None where
        `views.ablation` is null.
        """
        path = self.folder / "ablation/ablation.json"
        return cast(AblationAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def ablation_arrays(self) -> Npz:
        """ablation/ablation.npz: <layer>@units; and by unit <layer>@zero_effects, @mean_effects and further
        costs, as docs/analyses.md describes.
        """
        return Npz(self.folder / "ablation/ablation.npz")

    @cached_property
    def invariance(self) -> InvarianceAnalysis | None:
        """invariance/invariance.json: changes of the images, layers and classes; None where it is off."""
        path = self.folder / "invariance/invariance.json"
        return cast(InvarianceAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def invariance_arrays(self) -> Npz:
        """invariance/invariance.npz: <layer>@<transform> distances, probability@<transform> or
        iou@<transform>, (images, steps) float32; images@<transform> the changed images, uint8.
        """
        return Npz(self.folder / "invariance/invariance.npz")

    @cached_property
    def evolution(self) -> EvolutionAnalysis | None:
        """evolution/evolution.json: units through training; None where `views.evolution` is null."""
        path = self.folder / "evolution/evolution.json"
        return cast(EvolutionAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def evolution_arrays(self) -> Npz:
        """evolution/evolution.npz: <layer>@values, @images (epochs, units) of the strongest activations over
        the training images; of the units in @units also @projections, @patches (epochs, units, C, h, w),
        @maps (epochs, images, units, ...) and @filters (epochs, units, channels, ...).
        """
        return Npz(self.folder / "evolution/evolution.npz")

    @cached_property
    def effective_receptive_field(self) -> EffectiveFieldAnalysis | None:
        """effective_receptive_field/effective_receptive_field.json: the sizes of the effective receptive
        fields; None where `views.effective_receptive_field` is null.
        """
        path = self.folder / "effective_receptive_field/effective_receptive_field.json"
        return cast(EffectiveFieldAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def effective_receptive_field_arrays(self) -> Npz:
        """effective_receptive_field/effective_receptive_field.npz: <layer>@trained and <layer>@untrained, the
        mean absolute gradient of the layer's centre, (H, W) of the input.
        """
        return Npz(self.folder / "effective_receptive_field/effective_receptive_field.npz")

    @cached_property
    def correspondence(self) -> CorrespondenceAnalysis | None:
        """correspondence/correspondence.json: the images, layers and p-values; None where it is off."""
        path = self.folder / "correspondence/correspondence.json"
        return cast(CorrespondenceAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def correspondence_arrays(self) -> Npz:
        """correspondence/correspondence.npz: sign distances <layer>@part (sets,), <layer>@random and @moved
        (sets, draws), float32; images, the first set as the page shows it, uint8.
        """
        return Npz(self.folder / "correspondence/correspondence.npz")

    @cached_property
    def occlusion(self) -> OcclusionAnalysis | None:
        """occlusion/occlusion.json: what a grey square over each part of a sample image changes; None where
        `views.occlusion` is null.
        """
        path = self.folder / "occlusion/occlusion.json"
        return cast(OcclusionAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def occlusion_arrays(self) -> Npz:
        """occlusion/occlusion.npz: <image>@activations, @probabilities, @predictions (rows, columns) or @ious
        (rows, columns, classes); @projection (C, H, W), @other_projections (images, C, H, W).
        """
        return Npz(self.folder / "occlusion/occlusion.npz")

    @cached_property
    def unit_matches(self) -> UnitMatches:
        """classical/units.json: the classical feature that each unit matches."""
        return cast(UnitMatches, read_json(self.folder / "classical/units.json"))

    @cached_property
    def filter_matches(self) -> FilterMatches | None:
        """classical/filters.json: the classical kernels that the first filters match."""
        return cast(FilterMatches | None, read_json(self.folder / "classical/filters.json"))

    @cached_property
    def segmentation(self) -> SegmentationAnalysis | None:
        """masks/masks.json: where segmentation emerges; None without a data set that has masks."""
        path = self.folder / "masks/masks.json"
        return cast(SegmentationAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def segmentation_examples(self) -> Npz:
        """masks/examples.npz: photographs with their truth and prediction."""
        return Npz(self.folder / "masks/examples.npz")

    @cached_property
    def concepts(self) -> ConceptAnalysis | None:
        """concepts/concepts.json: the concepts that name units; None where `views.concepts` is off."""
        path = self.folder / "concepts/concepts.json"
        return cast(ConceptAnalysis, read_json(path)) if path.is_file() else None

    @cached_property
    def concepts_arrays(self) -> Npz:
        """concepts/concepts.npz: <layer>@region_auc, @image_auc and others by unit, float32."""
        return Npz(self.folder / "concepts/concepts.npz")

    @cached_property
    def concept_examples(self) -> Npz:
        """concepts/examples.npz: test images on which named units are most active."""
        return Npz(self.folder / "concepts/examples.npz")

    @cached_property
    def steps(self) -> DeconvSteps | None:
        """steps/steps.json: one projection step by step; None where no layer is projected."""
        path = self.folder / "steps/steps.json"
        return cast(DeconvSteps | None, read_json(path)) if path.is_file() else None

    @cached_property
    def step_signals(self) -> Npz:
        """steps/signals.npz: <layer> -> the signal of that step."""
        return Npz(self.folder / "steps/signals.npz")

    @cached_property
    def figures(self) -> list[Figure]:
        """figures/figures.json: every figure, in the order of the network's page."""
        return cast(list[Figure], read_json(self.folder / "figures/figures.json"))

    def _find_entry(self, kind: str, entries: list[Entry], name: str) -> Entry:
        """Return the entry of a name; raise UserError, which names the nearest, if there is none."""
        for entry in entries:
            if entry["name"] == name:
                return entry
        names = [entry["name"] for entry in entries]
        raise UserError(f"{self.folder}: no {kind} {name!r}; {suggest_nearest(name, names)}")

    def _of_image(self, folder: str, name: str) -> Npz:
        return Npz(self.folder / folder / f"{self.image(name)['name']}.npz")

    def _open(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; run the stage that writes it")
        return path


class DisplayedProjections(Mapping[str, np.ndarray]):
    """The projections of a sample image in the channels that are shown, one or three.

    Args:
        arrays: `Results.projections(image)`.
        preprocessing: Of network.json.
    """

    def __init__(self, arrays: Npz, preprocessing: Preprocessing) -> None:
        self._arrays, self._preprocessing = arrays, preprocessing

    def __getitem__(self, key: str) -> np.ndarray:
        values = self._arrays[key]
        return values if key.endswith(UNITS_SUFFIX) else select_display(values, self._preprocessing)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, key: object) -> bool:
        return key in self._arrays


def list_projection_keys(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the keys of an image's projections, <layer> and <layer>@peak, in the order of the file.

    Args:
        arrays: `Results.projections(image)`.
    """
    return [key for key in arrays if not key.endswith(UNITS_SUFFIX)]


def projected_units(arrays: Mapping[str, np.ndarray], layer: str) -> list[int]:
    """Return the numbers of the units whose projections are present, in the order of the array.

    Args:
        arrays: `Results.projections(image)` or `Results.top_activations`.
        layer: Name of a layer in it.
    """
    if f"{layer}{UNITS_SUFFIX}" in arrays:
        return [int(unit) for unit in arrays[f"{layer}{UNITS_SUFFIX}"]]
    key = next(key for key in arrays if key.partition("@")[0] == layer)
    return list(range(len(arrays[key])))
