"""What the page on occlusion shows of each sample image: the square, and what it changes at each position."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from convatlas.gallery.attribution_pictures import render_input
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.value_grid import RDBU, VIRIDIS
from convatlas.image_io import select_display, to_displayed_pixels
from convatlas.names import format_number
from convatlas.plotting.sprites import encode_webp, make_unique_slugs
from convatlas.plotting.top_activation_tiles import fit_projection_scale, render_projections
from convatlas.records import OcclusionAnalysis, OcclusionImage

MAX_IMAGES = 8  # that the page shows
MAX_LEGEND = 8  # classes with a colour of their own
OTHER = "another class"
NO_PREDICTION = "no prediction"  # where a score is NaN or infinite
NO_VALUE = "no value"  # where a number is NaN or infinite, or a class is in neither of two masks
NO_VALUE_COLOUR = "#808080"


@dataclass(frozen=True)
class GridCell:
    """A position of the square: its place in the image in pixels, its fill or colour's number, its text."""

    x: float
    y: float
    fill: str
    colour: int | None
    text: str


@dataclass(frozen=True)
class PositionMap:
    """A quantity as a function of the square's position.

    Attributes:
        title: What it is.
        note: Its value for the image as it is, and the ends of its colours.
        cells: One for each position.
        legend: The classes of its colours with their number of positions; empty of numbers.
        alt: The map in words.
    """

    title: str
    note: str
    cells: Sequence[GridCell]
    legend: Sequence[tuple[int, str]]
    alt: str


@dataclass(frozen=True)
class OccludedImage:
    """A sample image in the five columns.

    Attributes:
        title: Its title.
        height: Height in pixels.
        width: Width.
        picture: Its file in the site.
        square: Column, row, width and height of the square where it hides most, clipped to the image.
        square_text: What it does there.
        maps: The maps, in the order of the columns.
        projections: Files of the projections of the strongest map, and whose they are; its own first.
        entry: What occlusion.json says of it.
    """

    title: str
    height: int
    width: int
    picture: str
    square: tuple[int, int, int, int]
    square_text: str
    maps: Sequence[PositionMap]
    projections: Sequence[tuple[str, str]]
    entry: OcclusionImage
    cell_size: tuple[int, int] = field(default=(1, 1))


def format_total(value: float) -> str:
    """Write a total activation with three significant digits at least, without an exponent if it is large.

    Args:
        value: The total.
    """
    return f"{value:,.0f}".replace("-", "−") if abs(value) >= 1000 else format_number(value, ".3g")


class OcclusionReader:
    """Reads the occlusion of a network's sample images for its page.

    Args:
        network: The network.
        analysis: Its occlusion.json, of a study that is defined.
    """

    def __init__(self, network: NetworkData, analysis: OcclusionAnalysis) -> None:
        self.network, self.analysis = network, analysis
        self.arrays = network.results.occlusion_arrays
        self.preprocessing = network.description["preprocessing"]
        self.pictures: dict[str, bytes] = {}

    def read_images(self) -> list[OccludedImage]:
        """Read the first images, and render their pictures."""
        entries = self.analysis["images"][:MAX_IMAGES]
        slugs = make_unique_slugs([entry["name"] for entry in entries])
        return [self._read_image(entry, slug) for entry, slug in zip(entries, slugs, strict=True)]

    def _read_image(self, entry: OcclusionImage, slug: str) -> OccludedImage:
        x = self.network.results.activations(entry["name"])["input"]
        height, width = x.shape[1:]
        folder = f"occlusion/{self.network.name}"
        picture = f"{folder}/{slug}.webp"
        self.pictures[picture] = render_input(to_displayed_pixels(x, self.preprocessing))
        row, column, text = self.find_strongest_effect(entry)
        size = self.analysis["size"]
        y, x0 = entry["rows"][row], entry["columns"][column]
        top, left = max(0, y), max(0, x0)
        square = (left, top, min(width, x0 + size) - left, min(height, y + size) - top)
        return OccludedImage(
            title=self.network.image_titles[entry["name"]],
            height=height,
            width=width,
            picture=picture,
            square=square,
            square_text=text,
            maps=list(self._list_maps(entry)),
            projections=list(self._render_projections(entry, f"{folder}/{slug}")),
            entry=entry,
            cell_size=(self.analysis["stride"], self.analysis["stride"]),
        )

    def measure_drop(self, entry: OcclusionImage) -> np.ndarray:
        """Return the drop of the probability, or of the mean IoU, (R, K); NaN without a prediction."""
        if entry["probability"] is not None:
            return np.asarray(entry["probability"] - self.arrays[f"{entry['name']}@probabilities"])
        iou = np.array([np.nan if value is None else value for value in entry["iou"] or []])
        present = ~np.isnan(iou)
        ious = self.arrays[f"{entry['name']}@ious"]
        drop = (iou[present] - np.nan_to_num(ious[..., present])).mean(-1)
        return np.where(np.isnan(ious).all(-1), np.nan, drop)

    def find_strongest_effect(self, entry: OcclusionImage) -> tuple[int, int, str]:
        """Return the row and column of the square's position with the largest drop, and that drop."""
        drop = self.measure_drop(entry)
        row, column = divmod(int(np.nanargmax(drop)), drop.shape[1])
        value = float(drop[row, column])
        if entry["probability"] is None:
            return row, column, f"mean IoU drops by {value:.3f}"
        probability = entry["probability"]
        return row, column, f"probability {100 * probability:.1f} % → {100 * (probability - value):.1f} %"

    def _list_maps(self, entry: OcclusionImage) -> Iterator[PositionMap]:
        """Yield the maps of an image."""
        name, classes = entry["name"], self.analysis["classes"]
        yield self._draw_map(
            entry,
            f"Activation of unit {entry['unit']} of {self.analysis['layer']}",
            self.arrays[f"{name}@activations"],
            entry["activation"],
            format_total,
        )
        if entry["target"] is not None and entry["probability"] is not None:
            yield self._draw_map(
                entry,
                f"Probability of {classes[entry['target']]}",
                self.arrays[f"{name}@probabilities"],
                entry["probability"],
                lambda value: f"{100 * value:.1f} %",
                (0.0, 1.0),
            )
            yield self._draw_classes(entry, self.arrays[f"{name}@predictions"])
            return
        for c, iou in enumerate(entry["iou"] or []):
            if iou is not None:
                change = self.arrays[f"{name}@ious"][..., c] - iou
                end = float(np.nanmax(np.abs(change), initial=0)) or 1.0
                yield self._draw_map(
                    entry, f"Change of the IoU of {classes[c]}", change, None,
                    lambda value: format_number(value, "+.3f"), (-end, end), f"as it is: {iou:.3f}",
                )  # fmt: skip

    def _draw_map(
        self,
        entry: OcclusionImage,
        title: str,
        values: np.ndarray,
        unchanged: float | None,
        format_value: Callable[[float], str],
        limits: tuple[float, float] | None = None,
        note: str = "",
    ) -> PositionMap:
        """Draw numbers as a function of the square's position."""
        is_finite = np.isfinite(values)
        finite = values[is_finite].astype(float)
        lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        low, high = limits or (lowest, highest)
        ramp = RDBU if low < 0 and low == -high else VIRIDIS
        scaled = (np.where(is_finite, values, low).astype(float) - low) / ((high - low) or 1.0)
        steps = np.rint(scaled.ravel().clip(0, 1) * (len(ramp) - 1)).astype(int)
        fills, texts = [], []
        for value, step in zip(values.ravel().tolist(), steps, strict=True):
            has_value = np.isfinite(value)
            fills.append(ramp[step] if has_value else NO_VALUE_COLOUR)
            texts.append(format_value(value) if has_value else NO_VALUE)
        note = note or f"as it is: {format_value(unchanged if unchanged is not None else 0.0)}"
        if missing := values.size - finite.size:
            note += f"; grey: {NO_VALUE} at {missing} of {values.size} positions"
        ends = f"{format_value(low)} to {format_value(high)}"
        cells = self._place_cells(entry, fills, [None] * len(fills), texts)
        extremes = f"{format_value(lowest)} to {format_value(highest)}"
        alt = f"{title} with the square at each position: {extremes}; {note}"
        return PositionMap(title, f"{note}; colours {ends}", cells, [], alt)

    def _draw_classes(self, entry: OcclusionImage, predictions: np.ndarray) -> PositionMap:
        """Draw the most probable class as a function of the square's position."""
        classes = dict(enumerate(self.analysis["classes"])) | {-1: NO_PREDICTION}
        counts = Counter(predictions.ravel().tolist())
        first = entry["prediction"]
        order = sorted(counts, key=lambda c: (c != first, -counts[c], c))
        colours = {c: min(n, MAX_LEGEND - 1) for n, c in enumerate(order)}
        has_others = len(order) > MAX_LEGEND
        legend = [(n, f"{classes[c]} ({counts[c]})") for n, c in enumerate(order[: MAX_LEGEND - has_others])]
        if has_others:
            rest = sum(counts[c] for c in order[MAX_LEGEND - 1 :])
            legend.append((MAX_LEGEND - 1, f"{OTHER} ({rest})"))
        flat = predictions.ravel().tolist()
        cells = self._place_cells(
            entry, [""] * len(flat), [colours[c] for c in flat], [classes[c] for c in flat]
        )
        names = ", ".join(text for _, text in legend)
        note = f"as it is: {classes[first] if first is not None else ''}"
        alt = f"Most probable class with the square at each position, with the number of positions: {names}"
        return PositionMap("Most probable class", note, cells, legend, alt)

    def _place_cells(
        self, entry: OcclusionImage, fills: Sequence[str], colours: Sequence[int | None], texts: Sequence[str]
    ) -> list[GridCell]:
        """Place the value of each position around the centre of the square."""
        size, stride = self.analysis["size"], self.analysis["stride"]
        offset = (size - stride) / 2
        places = [(row, column) for row in entry["rows"] for column in entry["columns"]]
        return [
            GridCell(
                column + offset,
                row + offset,
                fill,
                colour,
                f"rows {row} to {row + size - 1}, columns {column} to {column + size - 1}: {text}",
            )
            for (row, column), fill, colour, text in zip(places, fills, colours, texts, strict=True)
        ]

    def _render_projections(self, entry: OcclusionImage, path: str) -> Iterator[tuple[str, str]]:
        """Render the projections of the strongest map; yield their files and whose they are."""
        if entry["no_projection"]:
            return
        name = entry["name"]
        rows: list[tuple[str, np.ndarray]] = [(name, self.arrays[f"{name}@projection"])]
        if entry["others"]:
            rows += zip(entry["others"], self.arrays[f"{name}@other_projections"], strict=True)
        for number, (owner, projection) in enumerate(rows):
            shown = select_display(projection, self.preprocessing)
            file = f"{path}-projection-{number}.webp"
            self.pictures[file] = encode_webp(render_projections(fit_projection_scale(shown), shown))
            yield file, self.network.image_titles[owner]


def summarise_occlusion(network: NetworkData) -> str:
    """Say in a sentence what the square changes most, over the images.

    Args:
        network: A network of which occlusion.json is there.
    """
    analysis = network.results.occlusion
    assert analysis is not None
    if analysis["undefined"] is not None:
        return f"Not computed: {analysis['undefined']}."
    reader = OcclusionReader(network, analysis)
    drops = {entry["name"]: float(np.nanmax(reader.measure_drop(entry))) for entry in analysis["images"]}
    name = max(drops, key=lambda key: drops[key])
    entry = next(entry for entry in analysis["images"] if entry["name"] == name)
    effect = reader.find_strongest_effect(entry)[2]
    changes: Mapping[str, bool] = {
        item["name"]: bool(
            np.setdiff1d(reader.arrays[f"{item['name']}@predictions"], [item["prediction"], -1]).size
        )
        for item in analysis["images"]
        if item["prediction"] is not None
    }
    text = (
        f"A square of {analysis['size']} pixels lowers the score most on {network.image_titles[name]}: "
        + effect
        + ("" if analysis["is_segmentation"] else " for its class")
    )
    if changes:
        text += f"; it changes the most probable class of {sum(changes.values())} of {len(changes)} images"
    return f"{text}."
