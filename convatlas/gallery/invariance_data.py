"""What the page of a network's invariance shows: charts, sheets of changed images, and tables."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from convatlas.files import to_json_numbers
from convatlas.gallery.invariance_text import compute_mean, format_step, read_scores
from convatlas.gallery.line_chart import SERIES_COLOURS, Axis, LineChart, Series, draw_line_chart
from convatlas.gallery.network_data import NetworkData
from convatlas.layer_selection import space_evenly
from convatlas.names import format_number, join_names, title_images
from convatlas.plotting.sprites import encode_webp
from convatlas.records import InvarianceAnalysis, InvarianceTransform

MEAN_COLOUR = SERIES_COLOURS - 1  # of the mean and of the control
OTHER_COLOUR = SERIES_COLOURS - 2  # of every image, where there are more than colours
MIN_DISTANCE_LIMIT = 1.5  # of the axis of distances, in units of the control
STRIP_STEPS = 5  # changed images of a row
LOSSLESS_SIDE = 32  # pixels up to which the changed images are encoded without loss
WEBP_QUALITY = 60
QUANTITIES = {"probability": "probability of the class", "iou": "IoU of the prediction"}

TITLES = {
    "vertical": "Vertical translation",
    "horizontal": "Horizontal translation",
    "scale": "Scale",
    "rotation": "Rotation",
}
AXIS_TITLES = {
    "vertical": "translation in pixels, down",
    "horizontal": "translation in pixels, to the right",
    "scale": "factor",
    "rotation": "rotation in degrees, counterclockwise",
}


@dataclass(frozen=True)
class Sheet:
    """The changed images of a transform in one picture: a row per image, a column per step.

    Attributes:
        file: Its place in the site.
        content: The content of the file.
        rows: The number of images.
        columns: The number of steps.
        size: Width and height of one image in pixels.
    """

    file: str
    content: bytes
    rows: int
    columns: int
    size: tuple[int, int]


@dataclass(frozen=True)
class QuantityView:
    """A layer's distances, or the prediction.

    Attributes:
        title: Its name.
        chart: Its curves.
        means: The mean over the images at each step.
    """

    title: str
    chart: LineChart
    means: Sequence[float | None]

    @property
    def rounded_means(self) -> list[float | None]:
        """The means as the script shows them."""
        return [None if mean is None else round(mean, 3) for mean in self.means]


@dataclass(frozen=True)
class TransformView:
    """A transform on the page.

    Attributes:
        name: Its name.
        title: Its title.
        positions: Its steps.
        steps: Its steps as text.
        identity: Index of the step that changes nothing.
        strip: Indices of the steps of the row of changed images.
        sheet: The changed images.
        quantities: The layers, then the prediction.
    """

    name: str
    title: str
    positions: Sequence[float]
    steps: Sequence[str]
    identity: int
    strip: Sequence[int]
    sheet: Sheet
    quantities: Sequence[QuantityView]


@dataclass(frozen=True)
class InvarianceData:
    """The invariance of a network.

    Attributes:
        network: The network.
        analysis: invariance.json.
    """

    network: NetworkData
    analysis: InvarianceAnalysis

    @cached_property
    def image_titles(self) -> list[str]:
        """Titles of the images, in order."""
        images = self.analysis["images"]
        titles = title_images(images, self.network.description)
        return [titles[image["name"]] for image in images]

    @cached_property
    def class_titles(self) -> list[str]:
        """What the probability of each image is of, as text; empty without probabilities."""
        names = self.network.description["classes"]
        pairs = zip(self.analysis["classes"], self.analysis["class_sources"], strict=False)
        return [
            f"{names[number]} ({source})" if number is not None else "no class: the scores are not finite"
            for number, source in pairs
        ]

    def get_colour(self, image: int) -> int:
        """Return the number of the colour of an image's curves.

        Args:
            image: Its index.
        """
        return image if len(self.image_titles) <= OTHER_COLOUR else OTHER_COLOUR

    @cached_property
    def max_distance(self) -> float:
        """The largest distance in units of the control, of all layers that have one."""
        values = [
            float(np.nanmax(self.read_distances(layer["name"], transform), initial=0.0))
            for layer in self.analysis["layers"]
            if layer["different_images"] is not None
            for transform in self.analysis["transforms"]
        ]
        return max(values, default=0.0)

    def read_distances(self, layer: str, transform: InvarianceTransform) -> np.ndarray:
        """Return the distances of a layer's features, in units of the control if there is one.

        Args:
            layer: Name of the layer.
            transform: The transform.

        Returns:
            (images, steps).
        """
        entry = next(entry for entry in self.analysis["layers"] if entry["name"] == layer)
        values = self.network.results.invariance_arrays[f"{layer}@{transform['name']}"]
        return values / (entry["different_images"] or 1.0)

    def read_scores(self, transform: InvarianceTransform) -> np.ndarray | None:
        """Return the probabilities or IoUs, (images, steps); None without any.

        Args:
            transform: The transform.
        """
        return read_scores(self.network, self.analysis, transform)

    @property
    def score_control(self) -> float | None:
        """The IoU of different images, or the probability of a guess among exclusive classes."""
        if self.analysis["quantity"] == "iou":
            return self.analysis["different_predictions"]
        is_exclusive = self.network.description["output"]["kind"] in (
            "softmax",
            "log-softmax",
            "probabilities",
        )
        count = len(self.network.description["classes"])
        return 1 / count if is_exclusive and count else None

    @property
    def controls(self) -> list[str]:
        """What the controls of the charts are."""
        has_reference = any(layer["different_images"] is not None for layer in self.analysis["layers"])
        controls = ["the distance of different images"] if has_reference else []
        if self.score_control is not None:
            is_iou = self.analysis["quantity"] == "iou"
            controls.append("the IoU of their predictions" if is_iou else "the probability of a guess")
        return controls

    def describe_lines(self) -> str:
        """Return what the lines of the charts are, as sentences."""
        lines = ["Thin: an image; thick: the mean."] if len(self.image_titles) > 1 else []
        return " ".join(
            [*lines, f"Dashed: the control, {join_names(self.controls)}." if self.controls else ""]
        )

    def make_views(self, distance_limit: float) -> list[TransformView]:
        """Return the transforms as the page shows them.

        Args:
            distance_limit: The end of the axis of distances, in units of the control.
        """
        return [self._make_view(transform, distance_limit) for transform in self.analysis["transforms"]]

    def _make_view(self, transform: InvarianceTransform, distance_limit: float) -> TransformView:
        """Return a transform as the page shows it."""
        steps = transform["steps"]
        texts = [format_step(transform, step) for step in steps]
        quantities: list[tuple[str, np.ndarray, Axis, float | None]] = []
        for layer in self.analysis["layers"]:
            has_control = layer["different_images"] is not None
            axis = Axis(
                "distance / that of different images" if has_control else "Euclidean distance",
                (0.0, distance_limit) if has_control else None,
            )
            values = self.read_distances(layer["name"], transform)
            quantities.append((layer["name"], values, axis, 1.0 if has_control else None))
        scores = self.read_scores(transform)
        if scores is not None:
            title = QUANTITIES[str(self.analysis["quantity"])]
            quantities.append((title, scores, Axis(title, (0.0, 1.0)), self.score_control))
        identity = steps.index(1.0 if transform["name"] == "scale" else 0.0)
        return TransformView(
            transform["name"],
            TITLES[transform["name"]],
            steps,
            texts,
            identity,
            _choose_strip_steps(steps),
            self._make_sheet(transform),
            [
                QuantityView(title, self._draw(values, axis, control, transform), compute_mean(values))
                for title, values, axis, control in quantities
            ],
        )

    def _draw(
        self, values: np.ndarray, axis: Axis, control: float | None, transform: InvarianceTransform
    ) -> LineChart:
        """Draw a line for each image, their mean, and the control."""
        steps, mean = transform["steps"], compute_mean(values)
        series = [
            Series("", to_json_numbers(row), self.get_colour(n), thin=True) for n, row in enumerate(values)
        ]
        if len(values) > 1:
            series.append(Series("", mean, MEAN_COLOUR, thin=True))
        if control is not None:
            series.append(Series("", [control] * len(steps), MEAN_COLOUR, dashed=True, thin=True))
        alt_parts = [
            f"{format_step(transform, steps[n])}: {format_number(value, '.2f')}"
            for n in _choose_strip_steps(steps)
            if (value := mean[n]) is not None
        ]
        ticks = choose_step_ticks(transform)
        alt = (
            f"{axis.title}, mean over the images, at {AXIS_TITLES[transform['name']]} {'; '.join(alt_parts)}"
        )
        return draw_line_chart(series, steps, Axis(AXIS_TITLES[transform["name"]], ticks=ticks), axis, alt)

    def _make_sheet(self, transform: InvarianceTransform) -> Sheet:
        """Return the changed images in one picture."""
        images = self.network.results.invariance_arrays[f"images@{transform['name']}"]
        rows, columns, channels, height, width = images.shape
        pixels = images.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
        pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        file = f"invariance/{self.network.name}/{transform['name']}.webp"
        if max(height, width) <= LOSSLESS_SIDE:
            content = encode_webp(pixels)
        else:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "webp", quality=WEBP_QUALITY, method=6)
            content = buffer.getvalue()
        return Sheet(file, content, rows, columns, (width, height))


def choose_distance_limit(networks: Sequence[InvarianceData]) -> float:
    """Return the end of the axis of distances that the pages of all networks share, in units of the control.

    Args:
        networks: The networks.
    """
    largest = max((data.max_distance for data in networks), default=0.0)
    return max(MIN_DISTANCE_LIMIT, math.ceil(2 * largest) / 2)


def choose_step_ticks(transform: InvarianceTransform) -> list[tuple[float, str]] | None:
    """Return the ticks of an axis of steps: quarter turns of a rotation; None for round numbers.

    Args:
        transform: The transform.
    """
    first, last = transform["steps"][0], transform["steps"][-1]
    if transform["name"] != "rotation" or not 180 <= last - first <= 720:
        return None
    quarters = range(math.ceil(first / 90), math.floor(last / 90) + 1)
    return [(90.0 * n, f"{90 * n}°".replace("-", "−")) for n in quarters]


def _choose_strip_steps(steps: Sequence[float]) -> list[int]:
    """Return the indices of the steps at which the page shows images and the chart's text has values."""
    return space_evenly(range(len(steps)), STRIP_STEPS)
