"""Effective receptive fields as a page shows them: pictures, chart and findings."""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convatlas.files import Npz
from convatlas.gallery.heat_map import make_palette
from convatlas.gallery.line_chart import Axis, LineChart, Series, draw_line_chart
from convatlas.gallery.network_data import NetworkData
from convatlas.names import format_number
from convatlas.plotting.png import encode_indexed_png
from convatlas.records import EffectiveFieldAnalysis, EffectiveFieldLayer, EffectiveFieldSize

MAX_PIXELS = 56  # of a side of a picture; of larger fields, each pixel is the mean of a block
COLOUR_STEP = 8  # of 255 colours: fewer colours make the pictures smaller
MIN_ERRORS = 4  # standard errors by which trained and untrained differ
MIN_SHARE = 0.05  # of the untrained side, the smallest difference that is worth a sentence
CHART_BAND = 2  # standard errors


@dataclass(frozen=True)
class FieldPicture:
    """A picture of a field, a part of the input: a PNG in base64, with the theoretical field as a rectangle.

    Attributes:
        title: "Trained" or "Untrained".
        picture: The PNG.
        size: Width and height of the part, in pixels of the input.
        box: Left, top, width and height of the theoretical field in the part; None where it is not known.
        alt: The picture in words.
    """

    title: str
    picture: str
    size: tuple[int, int]
    box: tuple[int, int, int, int] | None
    alt: str


@dataclass(frozen=True, eq=False)
class FieldLayer:
    """A layer of the page.

    Attributes:
        number: Its number in the chart, from 1.
        entry: Its entry in effective_receptive_field.json.
        pictures: Its fields, of the trained and the untrained network.
    """

    number: int
    entry: EffectiveFieldLayer
    pictures: Sequence[FieldPicture]

    @property
    def theoretical(self) -> str:
        """Return the size of the theoretical field."""
        size = self.entry["theoretical"]
        return " × ".join(map(str, size)) if size else "not known"

    @property
    def share(self) -> float | None:
        """Return the effective field's part of the theoretical one, as far as it lies in the input."""
        area, trained = self._visible_area, self.entry["trained"]
        return trained["side"] ** 2 / area if area and trained else None

    @property
    def theoretical_side(self) -> float | None:
        """Return the side of a square as large as the theoretical field."""
        size = self.entry["theoretical"]
        return math.sqrt(math.prod(size)) if size else None

    @cached_property
    def _visible_area(self) -> int:
        box = self.pictures[0].box if self.pictures else None
        return box[2] * box[3] if box else 0


@dataclass(frozen=True, eq=False)
class EffectiveFields:
    """The effective receptive fields of a network.

    Attributes:
        network: The network.
        analysis: Its effective_receptive_field.json.
        layers: The layers that have a field.
    """

    network: NetworkData
    analysis: EffectiveFieldAnalysis
    layers: Sequence[FieldLayer]

    @classmethod
    def read(cls, network: NetworkData) -> "EffectiveFields | None":
        """Read the analysis of a network; None where there is none.

        Args:
            network: The network.
        """
        analysis = network.results.effective_receptive_field
        if analysis is None:
            return None
        entries = [layer for layer in analysis["layers"] if layer["trained"]]
        arrays = network.results.effective_receptive_field_arrays
        layers = [
            FieldLayer(number, entry, _draw_pictures(entry, arrays))
            for number, entry in enumerate(entries, 1)
        ]
        return cls(network, analysis, layers)

    @property
    def undefined_layers(self) -> list[EffectiveFieldLayer]:
        """Return the layers without a field, which say why."""
        return [layer for layer in self.analysis["layers"] if layer["undefined"]]

    @property
    def chart(self) -> LineChart:
        """Return the chart of the sides over the layers."""
        numbers = [layer.number for layer in self.layers]
        theoretical = [layer.theoretical_side for layer in self.layers]
        series = [Series("theoretical", theoretical, 7)]
        for name, sizes in (
            ("effective, trained", self._sizes("trained")),
            ("untrained", self._sizes("untrained")),
        ):
            if not any(sizes):
                continue
            sides = [size["side"] if size else None for size in sizes]
            bands = [CHART_BAND * (size["side_error"] or 0) if size else 0.0 for size in sizes]
            is_control = name == "untrained"
            low = [None if side is None else side - band for side, band in zip(sides, bands, strict=True)]
            high = [None if side is None else side + band for side, band in zip(sides, bands, strict=True)]
            series.append(
                Series(name, sides, 0, () if is_control else low, () if is_control else high, is_control)
            )
        ticks = [(float(number), str(number)) for number in numbers]
        top = max([value for line in series for value in line.values if value is not None], default=1)
        x, y = Axis("layer, by its number below", ticks=ticks), Axis("side, pixels", (0, 1.05 * top))
        return draw_line_chart(series, numbers, x, y, f"{self.summary} Numbers are in the table.")

    def _sizes(self, key: str) -> list[EffectiveFieldSize | None]:
        return [
            layer.entry["trained"] if key == "trained" else layer.entry["untrained"] for layer in self.layers
        ]

    @property
    def summary(self) -> str:
        """Return the size of the last layer's field, in a sentence."""
        if self.analysis["undefined"] or not self.layers:
            return (
                f"Not computed: {self.analysis['undefined'] or 'no layer has an effective receptive field'}."
            )
        layer = self.layers[-1]
        trained, untrained = layer.entry["trained"], layer.entry["untrained"]
        assert trained is not None
        text = f"{layer.entry['name']}: {format_side(trained)} px in effect"
        if layer.entry["theoretical"]:
            text += f", of {layer.theoretical} in theory"
        return text + (f"; untrained {format_side(untrained)} px." if untrained else ".")

    def list_findings(self) -> Iterator[str]:
        """Yield what training changed, where it exceeds the errors."""
        changes = [(layer, change) for layer in self.layers if (change := _find_change(layer.entry))]
        for is_larger, word in ((True, "larger"), (False, "smaller")):
            same = [(layer, change) for layer, change in changes if (change > 0) == is_larger]
            if not same:
                continue
            layer, _ = max(same, key=lambda pair: abs(pair[1]))
            trained, untrained = layer.entry["trained"], layer.entry["untrained"]
            assert trained is not None
            assert untrained is not None
            yield (
                f"Training made the field {word} in {len(same)} of {len(self.layers)} layers, most in "
                f"{layer.entry['name']}: {format_side(trained)} px, untrained {format_side(untrained)} px."
            )


def summarise(network: NetworkData) -> str:
    """Say how large the effective receptive field of the last measured layer is, in one sentence.

    Args:
        network: The network.
    """
    fields = EffectiveFields.read(network)
    return fields.summary if fields else "Not computed."


def format_side(size: EffectiveFieldSize) -> str:
    """Write the side of a field with its standard error.

    Args:
        size: The size.
    """
    error = size["side_error"]
    return format_number(size["side"], ".1f") + (
        f" ± {error:.1f}" if error is not None and error >= 0.05 else ""
    )


def _find_change(entry: EffectiveFieldLayer) -> float | None:
    """Return the relative change of a field's side by training; None where errors may explain it."""
    trained, untrained = entry["trained"], entry["untrained"]
    if not trained or not untrained or trained["side_error"] is None or untrained["side_error"] is None:
        return None
    difference = trained["side"] - untrained["side"]
    error = math.hypot(trained["side_error"], untrained["side_error"])
    change = difference / untrained["side"]
    return change if abs(difference) >= MIN_ERRORS * error and abs(change) >= MIN_SHARE else None


def _draw_pictures(entry: EffectiveFieldLayer, arrays: Npz) -> list[FieldPicture]:
    """Draw the fields of a layer, cropped to a margin around the theoretical field."""
    pictures = []
    for key in ("trained", "untrained"):
        name = f"{entry['name']}@{key}"
        if name in arrays:
            pictures.append(_draw_picture(key.title(), entry, arrays[name]))
    return pictures


def _draw_picture(title: str, entry: EffectiveFieldLayer, field: np.ndarray) -> FieldPicture:
    height, width = field.shape
    top, left, bottom, right = entry["window"] or (0, 0, height, width)
    margin = max(1, (bottom - top) // 8)
    first = max(0, top - margin), max(0, left - margin)
    last = min(height, bottom + margin), min(width, right + margin)
    part = field[first[0] : last[0], first[1] : last[1]]
    shares = reduce_blocks(part, math.ceil(max(part.shape) / MAX_PIXELS))
    indices = np.round(shares / (shares.max() or 1) * (254 // COLOUR_STEP)).astype(np.uint8)
    png = encode_indexed_png(indices, make_palette()[:255:COLOUR_STEP], 72)
    box = None
    if entry["window"]:
        edges = max(0, left), max(0, top), min(width, right), min(height, bottom)
        box = (edges[0] - first[1], edges[1] - first[0], edges[2] - edges[0], edges[3] - edges[1])
    size = entry["trained"] if title == "Trained" else entry["untrained"]
    alt = f"{title}: field of {entry['name']}, side {format_side(size)} px" if size else title
    return FieldPicture(title, base64.b64encode(png).decode(), (part.shape[1], part.shape[0]), box, alt)


def reduce_blocks(values: np.ndarray, factor: int) -> np.ndarray:
    """Return the means of square blocks; those at the lower and right edge may be smaller.

    Args:
        values: (H, W).
        factor: Side of a block.

    Returns:
        (ceil(H / factor), ceil(W / factor)).
    """
    starts = [np.arange(0, side, factor) for side in values.shape]
    sums = np.add.reduceat(np.add.reduceat(values.astype(np.float64), starts[0], 0), starts[1], 1)
    counts = [np.diff([*edge, side]) for edge, side in zip(starts, values.shape, strict=True)]
    return np.asarray(sums / np.multiply.outer(*counts))
