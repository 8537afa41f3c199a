"""What the page of feature visualisation shows: the four views of each unit, and the images of classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convatlas.gallery.attribution_text import format_quantity
from convatlas.gallery.dataset_thumbnails import DatasetThumbnails, PageThumbnail
from convatlas.gallery.feature_pictures import (
    Picture,
    SampleReader,
    SampleView,
    draw_optimised,
    find_field,
    list_shown_units,
    name_layers,
)
from convatlas.gallery.line_chart import Axis, LineChart, Series, draw_line_chart
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import as_size, compute_visible_box
from convatlas.records import (
    FeatureVisualisation,
    Layer,
    OptimisedClass,
    OptimisedImage,
    OptimisedLayer,
    OptimisedUnit,
    StartSimilarity,
)

N_TOP_IMAGES = 4  # of a unit
MAX_CLASSES = 100  # on a page
MAX_CURVE_POINTS = 20  # of a line in a chart
MAX_LABELLED_CURVES = 8  # of more, the lines have one colour
RESPONSES = {"unit": "responses in the layer", "class": "logits"}  # by what the images are of


@dataclass(frozen=True)
class TopImage:
    """A top-activating image of a unit.

    Attributes:
        thumbnail: Its thumbnail.
        value: The activation, as text.
        box: The receptive field of the maximum: left, top, width and height in percent; None if not known.
        title: What it is.
    """

    thumbnail: PageThumbnail
    value: str
    box: tuple[float, float, float, float] | None
    title: str


@dataclass(frozen=True)
class UnitViews:
    """The four views of a unit.

    Attributes:
        unit: Its number.
        anchor: Its place on the page.
        image: The optimised image.
        second: That of a second start; None without.
        reached: What the image reaches, as text.
        marks: Why it is no finding, as texts.
        top_images: The top-activating images of the data set.
        sample: The unit on a sample image.
    """

    unit: int
    anchor: str
    image: Picture
    second: Picture | None
    reached: str
    marks: list[str]
    top_images: Sequence[TopImage]
    sample: SampleView | None


@dataclass(frozen=True)
class LayerViews:
    """The units of a layer.

    Attributes:
        name: Name of the layer.
        slug: Its place on the page.
        undefined: Why there is no image.
        units: The units that the page shows.
        n_units: Number of units with an image.
        chart: The objective by step; None without units.
        similarity: How much the images depend on the start, as a sentence; "" where it was not measured.
    """

    name: str
    slug: str
    undefined: str | None
    units: Sequence[UnitViews]
    n_units: int
    chart: LineChart | None
    similarity: str


@dataclass(frozen=True)
class ClassView:
    """The image of a class, what it reaches, and why it is no finding."""

    name: str
    anchor: str
    image: Picture
    second: Picture | None
    reached: str
    marks: list[str]


class FeatureReader:
    """Reads the optimised images of a network, with the other views of its units.

    Args:
        network: The network.
        analysis: feature_visualisation.json.
        thumbnails: Those of the split over which top-activating images were found; None without.
    """

    def __init__(
        self, network: NetworkData, analysis: FeatureVisualisation, thumbnails: DatasetThumbnails | None
    ) -> None:
        self.network, self.analysis, self.thumbnails = network, analysis, thumbnails
        self.arrays = network.results.feature_visualisation_arrays
        self.folder = f"features/{network.name}"
        self.samples = SampleReader(network, self.folder)
        self.slugs = name_layers(analysis)

    @cached_property
    def inputs(self) -> dict[str, Picture]:
        """The pictures of the sample images, by name."""
        return self.samples.draw_inputs()

    @cached_property
    def layers(self) -> list[LayerViews]:
        """The layers with the views of their units."""
        return [self._read_layer(entry) for entry in self.analysis["layers"]]

    @cached_property
    def classes(self) -> list[ClassView]:
        """The images of classes."""
        entries = self.analysis["logits"]["classes"][:MAX_CLASSES]
        if not entries:
            return []
        images = self.arrays["@images"]
        second = self.arrays.get("@second_images", images[:0])
        return [self._read_class(entry, images[n], second[n : n + 1]) for n, entry in enumerate(entries)]

    @cached_property
    def class_chart(self) -> LineChart | None:
        """The logit of each class by step."""
        names = [entry["name"] for entry in self.analysis["logits"]["classes"][:MAX_CLASSES]]
        return self._draw_chart("", names, "logit") if names else None

    @property
    def class_similarity(self) -> str:
        """How much the images of classes depend on the start, as a sentence."""
        return describe_similarity(self.analysis["logits"]["classes"], "class")

    def list_files(self) -> Mapping[str, bytes]:
        """Return the files of the page, by their places in the site."""
        pictures: list[Picture | None] = [*self.inputs.values()]
        thumbnails: list[PageThumbnail] = []
        for unit in (unit for layer in self.layers for unit in layer.units):
            pictures += [unit.image, unit.second]
            pictures += [unit.sample.map, unit.sample.projection, unit.sample.patch] if unit.sample else []
            thumbnails += [top.thumbnail for top in unit.top_images]
        for view in self.classes:
            pictures += [view.image, view.second]
        files = {picture.path: picture.content for picture in pictures if picture}
        return files | {thumbnail.path: thumbnail.content for thumbnail in thumbnails}

    def _read_layer(self, entry: OptimisedLayer) -> LayerViews:
        name = entry["layer"]
        slug = self.slugs[name]
        if not entry["units"]:
            return LayerViews(name, slug, entry["undefined"], [], 0, None, "")
        shown = list_shown_units(entry, self.analysis)
        labels = [str(unit["unit"]) for unit in shown]
        title = "activation at the centre" if self.analysis["objective"] == "neuron" else "mean activation"
        chart = self._draw_chart(name, labels, title)
        images, layer = self.arrays[f"{name}@images"], self.network.results.layer(name)
        second = self.arrays.get(f"{name}@second_images", images[:0])
        units = [self._read_unit(layer, unit, images[n], second[n : n + 1]) for n, unit in enumerate(shown)]
        similarity = describe_similarity(entry["units"], "unit")
        return LayerViews(name, slug, None, units, len(entry["units"]), chart, similarity)

    def _read_unit(
        self, layer: Layer, entry: OptimisedUnit, image: np.ndarray, second: np.ndarray
    ) -> UnitViews:
        number, name = entry["unit"], layer["name"]
        anchor = f"{self.slugs[name]}-{number}"
        path = f"{self.folder}/{anchor}"
        alt = f"Image optimised for unit {number} of {name}"
        return UnitViews(
            number,
            anchor,
            draw_optimised(self.network, image, path, alt),
            self._draw_second(second, path, alt),
            describe_maximum(entry),
            list_marks(entry, entry["dead"]),
            self._list_top_images(layer, number),
            self.samples.view(layer, number, path),
        )

    def _read_class(self, entry: OptimisedClass, image: np.ndarray, second: np.ndarray) -> ClassView:
        anchor = f"class-{entry['class']}"
        path, alt = f"{self.folder}/{anchor}", f"Image optimised for the class {entry['name']}"
        return ClassView(
            entry["name"],
            anchor,
            draw_optimised(self.network, image, path, alt),
            self._draw_second(second, path, alt),
            describe_class(entry),
            list_marks(entry, False),
        )

    def _draw_second(self, second: np.ndarray, path: str, alt: str) -> Picture | None:
        if not len(second):
            return None
        return draw_optimised(self.network, second[0], f"{path}-second", f"{alt}, from a second start")

    def _draw_chart(self, layer: str, labels: Sequence[str], title: str) -> LineChart:
        """Draw the objective by step."""
        curves = self.arrays[f"{layer}@curves"][: len(labels)]
        steps = curves.shape[1]
        shown = np.unique(np.linspace(0, steps - 1, min(steps, MAX_CURVE_POINTS)).round().astype(int))
        series = [
            Series(label, [float(v) for v in curve[shown]], n % 8, thin=len(labels) > MAX_LABELLED_CURVES)
            for n, (label, curve) in enumerate(zip(labels, curves, strict=True))
        ]
        alt = ", ".join(
            f"{label} from {format_quantity(curve[0])} to {format_quantity(curve[-1])}"
            for label, curve in zip(labels, curves, strict=True)
        )
        return draw_line_chart(series, [int(n) + 1 for n in shown], Axis("step"), Axis(title), alt)

    def _list_top_images(self, layer: Layer, unit: int) -> list[TopImage]:
        """Return the top-activating images of a unit whose thumbnails can be made."""
        name, statistics = layer["name"], self.network.results.statistics
        if self.thumbnails is None or f"{name}@images" not in statistics:
            return []
        preprocessing = self.network.description["preprocessing"]
        height, width = as_size(preprocessing["size"])
        top_images = []
        for rank in range(min(N_TOP_IMAGES, statistics[f"{name}@images"].shape[1])):
            number = int(statistics[f"{name}@images"][unit, rank])
            thumbnail = self.thumbnails.make(number) if number >= 0 else None
            if thumbnail is None:
                continue
            row, column = statistics[f"{name}@positions"][unit, rank].tolist()
            field = find_field(layer, (row, column), (height, width))
            box = None
            if field and (field[2] - field[0] < height or field[3] - field[1] < width):
                left, top, right, bottom = compute_visible_box(
                    thumbnail.image_size, (height, width), preprocessing["resize"]
                )
                shares = field[1] / width, field[0] / height, field[3] / width, field[2] / height
                x, y = (
                    (left + shares[n] * (right - left) for n in (0, 2)),
                    (top + shares[n] * (bottom - top) for n in (1, 3)),
                )
                (x0, x1), (y0, y1) = x, y
                box = 100 * x0, 100 * y0, 100 * (x1 - x0), 100 * (y1 - y0)
            value = format_quantity(float(statistics[f"{name}@values"][unit, rank]))
            top_images.append(TopImage(thumbnail, value, box, f"{self.thumbnails.split} image {number}"))
        return top_images


def describe_maximum(entry: OptimisedUnit) -> str:
    """Return what the image of a unit reaches, beside the data set's maximum.

    Args:
        entry: Its entry in feature_visualisation.json.
    """
    if entry["maximum"] is None:
        return "maximum NaN or infinite"
    text = f"reaches {format_quantity(entry['maximum'])}"
    maximum = entry["dataset_maximum"]
    if maximum is None:
        return text
    if maximum <= 0:
        return f"{text}; data set’s maximum {format_quantity(maximum)}"
    share = 100 * entry["maximum"] / maximum
    return f"{text}, {share:.0f} % of the data set’s maximum {format_quantity(maximum)}"


def describe_class(entry: OptimisedClass) -> str:
    """Return what the image of a class reaches, and what the network takes it for.

    Args:
        entry: Its entry in feature_visualisation.json.
    """
    text = f"logit {format_quantity(entry['objective'])}"
    if entry["probability"] is None:
        return text
    text += f", probability {100 * entry['probability']:.1f} %"
    if entry["predicted"] == entry["class"]:
        return f"{text}: predicted as this class"
    predicted = entry["predicted_probability"]
    share = "" if predicted is None else f" ({100 * predicted:.1f} %)"
    return f"{text}: predicted as {entry['predicted_name']}{share}"


def list_marks(entry: OptimisedImage | OptimisedUnit | OptimisedClass, dead: bool) -> list[str]:
    """Return why an image is no finding, as texts; none where it is one.

    Args:
        entry: Its entry in feature_visualisation.json.
        dead: Whether the unit is never above zero over the data set.
    """
    marks = ["dead: never above zero over the data set"] if dead else []
    if not entry["reached"]:
        values = format_quantity(entry["objective"]), format_quantity(entry["control"])
        marks.append(f"not above noise: objective {values[0]}, of noise {values[1]}")
    return marks


def describe_similarity(entries: Sequence[OptimisedUnit] | Sequence[OptimisedClass], noun: str) -> str:
    """Return how much images depend on their start, as a sentence; "" where it was not measured.

    Args:
        entries: The entries of a layer's units, or of classes.
        noun: What the images are of.
    """
    measured = [entry["second_start"] for entry in entries if entry["second_start"]]
    if not measured:
        return ""
    others = "classes" if noun == "class" else "units"
    texts = [
        f"{title} correlate with r = {_median(measured, key)} ({_median(measured, f'{key}_control')} with "
        f"those of other {others})"
        for key, title in (("responses", RESPONSES[noun]), ("pixels", "pixels"))
    ]
    count = f"1 {noun}" if len(measured) == 1 else f"{len(measured)} {others}, medians"
    return f"Images from two starts, of {count}: their {' and their '.join(texts)}."


def _median(measured: Sequence[StartSimilarity], key: str) -> str:
    known = [value for entry in measured if (value := entry[key]) is not None]  # type: ignore[literal-required]
    return f"{np.median(known):.2f}".replace("-", "−") if known else "–"
