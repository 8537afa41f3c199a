"""The page of the images chosen by class: projections of every unit on each, and the most active units."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.network_data import NetworkData, PublishedFigure
from convatlas.names import describe_classes
from convatlas.records import SampleImage

TILES_PER_LINE = 4  # where the figure is shown one image at a time, on a phone
LABEL_HEIGHT = 40  # pixels of the figure over each tile there, for its number


class Position(TypedDict):
    """A position in a figure, in pixels."""

    x: int
    y: int


class TileLine(Position):
    """The tiles of some units side by side, and the position of the first."""

    units: list[int]


class TileLines(TypedDict):
    """The tiles of a layer, and the box of its colour bar: x, y, width, height."""

    layer: str
    lines: list[TileLine]
    colour_bar: list[int]


class ImagePart(TypedDict):
    """The parts of a figure that show one image."""

    image: str
    input: Position
    groups: list[TileLines]


class ActivityRow(TypedDict):
    """The most active unit of each layer on an image, with its maximum, and the number of inactive units."""

    image: SampleImage
    most_active: list[tuple[int, float]]
    inactive: int


@dataclass(frozen=True)
class UnitActivity:
    """The most active units of a network.

    Attributes:
        layers: The projected layers.
        rows: The most active unit of each layer, by image.
        same_for_all: The most active unit of each layer in which it is the same on all images.
    """

    layers: list[str]
    rows: list[ActivityRow]
    same_for_all: dict[str, int]


@dataclass(frozen=True)
class DigitsEntry:
    """What the page shows of one network.

    Attributes:
        network: The network.
        class_names: The classes of its images, as in a sentence.
        figures: Its figures, each with its parts by image.
        activity: Its most active units.
    """

    network: NetworkData
    class_names: str
    figures: list[tuple[PublishedFigure, list[ImagePart]]]
    activity: UnitActivity


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page, if the units of a network are projected on images that are chosen by class.

    Args:
        context: The run that the site shows.
    """
    entries = [
        DigitsEntry(
            network,
            describe_classes(select_images(network), network.description),
            [(figure, split_figure(figure)) for figure in figures],
            find_most_active_units(network),
        )
        for network in context.networks
        if (figures := network.get_figures("digits"))
    ]
    if entries:
        class_names = {entry.class_names for entry in entries}
        title = "Deconvnet projections by class"
        if len(class_names) == 1:
            names = class_names.pop()
            title = names[0].upper() + names[1:]
        values = {
            "entries": entries,
            "heading_text": title,
            "tiles_per_line": TILES_PER_LINE,
            "label_height": LABEL_HEIGHT,
        }
        yield SitePage("digits.html", "digits.html", title, values, "Analyses")


def select_images(network: NetworkData) -> list[SampleImage]:
    """Select the sample images that a network's figure of digits shows.

    Args:
        network: A network with a figure of digits.
    """
    names = network.get_figures("digits")[0]["tile_layout"]["images"]
    return [image for image in network.images if image["name"] in names]


def find_most_active_units(network: NetworkData) -> UnitActivity:
    """Find the unit of each projected layer with the largest value on each image.

    Args:
        network: A network with a figure of digits.

    Returns:
        The units by image, with the number of units whose largest value is not above zero; and the units that
        are the same on all of two or more images.
    """
    groups = network.get_figures("digits")[0]["tile_layout"]["groups"]
    layers = list(dict.fromkeys(group["layer"] for group in groups))
    rows = []
    for image in select_images(network):
        outputs = network.results.activations(image["name"])
        maxima = {layer: outputs[layer].reshape(len(outputs[layer]), -1).max(1) for layer in layers}
        rows.append(
            ActivityRow(
                image=image,
                most_active=[(int(values.argmax()), float(values.max())) for values in maxima.values()],
                inactive=sum(int((values <= 0).sum()) for values in maxima.values()),
            )
        )
    return UnitActivity(layers, rows, _find_same_units(layers, rows) if len(rows) > 1 else {})


def split_figure(figure: PublishedFigure) -> list[ImagePart]:
    """Divide a figure into what a phone shows of each image: lines of a few tiles, and the colour bars.

    Args:
        figure: A figure of digits, with its `tile_layout` in pixels.

    Returns:
        A part per image, with lines of at most TILES_PER_LINE tiles.
    """
    layout = figure["tile_layout"]
    parts = []
    for row, image in enumerate(layout["images"]):
        groups = []
        for group in layout["groups"]:
            lines = [
                TileLine(
                    x=group["left"] + start * layout["pitch"],
                    y=group["tops"][row],
                    units=group["units"][start : start + TILES_PER_LINE],
                )
                for start in range(0, len(group["units"]), TILES_PER_LINE)
            ]
            groups.append(TileLines(layer=group["layer"], lines=lines, colour_bar=group["colour_bar"]))
        position = Position(x=layout["input"], y=layout["groups"][0]["tops"][row])
        parts.append(ImagePart(image=image, input=position, groups=groups))
    return parts


def _find_same_units(layers: Sequence[str], rows: Sequence[ActivityRow]) -> dict[str, int]:
    """Find the layers in which one unit is the most active on all images."""
    same_units = {}
    for n, layer in enumerate(layers):
        units = {row["most_active"][n][0] for row in rows}
        if len(units) == 1:
            same_units[layer] = units.pop()
    return same_units
