"""The small maps in the diagrams of a network: a picture of each sample image with a tile for each node."""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from convatlas.files import Npz
from convatlas.gallery.diagrams.block_text import wrap_text
from convatlas.gallery.diagrams.nodes import RESULT_CHARS, NodeContent
from convatlas.gallery.explorer_data import dump_script_json
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import take_central_slice, to_displayed_pixels
from convatlas.plotting.colormap import ColourScale, colour_table
from convatlas.plotting.sprites import to_planes
from convatlas.records import SampleImage

MAX_SIDE, MAX_INNER_SIDE = 56, 36  # pixels of a tile of the network's own diagram, and of others
GAP = 4  # pixels between tiles
SHEET_WIDTH = 720
VECTOR_WIDTH = 8  # pixels of the tile of a vector, whose units are its rows
QUALITY = 60  # of the WebP
INPUT, OUTPUT = "input", "output mask"  # keys of tiles beside the names of layers
NO_UNIT = -1  # of a tile that is not the map of one unit
VOLUME_AXES = 4  # of an output (units, D, H, W)
MAX_RESULT_LINES = 2

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MapTile:
    """The number of a tile, and its place in the pictures."""

    number: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class DiagramMaps:
    """The maps in the diagrams of a network.

    Attributes:
        width: Pixels of each picture.
        height: Pixels of each picture.
        tiles: The places of the tiles, by the name of the layer, INPUT or OUTPUT.
        files: The place in the site of the picture of each sample image.
        generated_files: The pictures, by their places in the site.
        units: The number of the unit of each tile, by image; NO_UNIT where there is none.
        results: What the network predicts for each image, in lines.
    """

    width: int
    height: int
    tiles: Mapping[str, MapTile]
    files: Mapping[str, str]
    generated_files: Mapping[str, bytes]
    units: Mapping[str, Sequence[int]]
    results: Mapping[str, Sequence[str]]

    def find_key(self, content: NodeContent) -> str:
        """Return the key of the tile of a node, "" where it has none.

        Args:
            content: The node.
        """
        if content.kind == "output" and OUTPUT in self.tiles:
            return OUTPUT
        return next((name for name in content.layers if name in self.tiles), "")

    def select_keys(self, contents: Sequence[NodeContent]) -> list[str]:
        """Return the keys of the tiles of nodes, each once.

        Args:
            contents: The nodes.
        """
        return [key for key in dict.fromkeys(map(self.find_key, contents)) if key]

    def page_json(self, root: str, explored: Collection[str]) -> Markup:
        """Return what the script of the diagrams reads.

        Args:
            root: The path from the page to the root of the site.
            explored: The layers that the explorer shows.
        """
        images = {
            name: {"file": root + quote(file), "units": self.units[name], "result": self.results[name]}
            for name, file in self.files.items()
        }
        return dump_script_json(
            {"images": images, "layers": [name if name in explored else "" for name in self.tiles]}
        )


@dataclass(frozen=True)
class DiagramLinks:
    """The addresses to which the maps of a network's diagrams lead.

    Attributes:
        maps: The maps, if there are any.
        figure_pages: The page of each layer that has figures, "" for the page of the diagram.
        explored: The layers that the explorer shows.
    """

    maps: DiagramMaps | None
    figure_pages: Mapping[str, str]
    explored: Collection[str]

    def find_layer(self, content: NodeContent) -> str:
        """Return the layer of a node that the explorer shows: that of its map, or else the last; "" for none.

        Args:
            content: The node.
        """
        key = self.maps.find_key(content) if self.maps else ""
        return next((name for name in (key, *content.layers) if name in self.explored), "")

    def find_address(self, content: NodeContent) -> str:
        """Return the address of a node's layer: its figures, or else its place in the explorer; "" for none.

        Args:
            content: The node.
        """
        layer = self.find_layer(content) or next(
            (name for name in content.layers if name in self.figure_pages), ""
        )
        if layer in self.figure_pages:
            return f"{self.figure_pages[layer]}#layer-{layer}"
        return f"#layer={quote(layer)}" if layer else ""


def draw_diagram_maps(network: NetworkData) -> DiagramMaps | None:
    """Draw the maps in the diagrams of a network.

    A node shows, of its last recorded layer, the unit whose map has the largest standard deviation.

    Args:
        network: The network.

    Returns:
        None where nothing is recorded.
    """
    activations = {image["name"]: network.results.activations(image["name"]) for image in network.images}
    recorded = list(activations.values())
    keys = _choose_keys(network.diagram.nodes, recorded)
    if not keys:
        return None
    top = set(_choose_keys(network.diagram.top_nodes, recorded))
    sides = {key: MAX_SIDE if key in top else MAX_INNER_SIDE for key in keys}
    sheets = {name: _TileSheet(outputs, network, sides) for name, outputs in activations.items()}
    files = {name: f"diagrams/{network.name}/{name}.webp" for name in sheets}
    first = next(iter(sheets.values()))
    return DiagramMaps(
        width=first.size[0],
        height=first.size[1],
        tiles=first.tiles,
        files=files,
        generated_files={files[name]: sheet.encode() for name, sheet in sheets.items()},
        units={name: sheet.units for name, sheet in sheets.items()},
        results={
            image["name"]: _list_results(image, network, sheets[image["name"]].shares)
            for image in network.images
        },
    )


def _choose_keys(contents: Sequence[NodeContent], activations: Sequence[Npz]) -> list[str]:
    """Choose the layer whose map each node shows: its last one that is recorded on all images."""
    if not activations:
        return []
    recorded = set(activations[0]).intersection(*activations)
    keys = [next((name for name in content.layers if name in recorded), "") for content in contents]
    return [key for key in dict.fromkeys(keys) if key]


class _TileSheet:
    """The tiles of one sample image.

    Args:
        outputs: The recorded outputs.
        network: The network.
        sides: The greatest side of the tile of each layer to draw, or of INPUT, in pixels.

    Attributes:
        tiles: The place of each tile.
        units: The unit of each tile.
        shares: The share of the pixels of each class in the mask, of a network that segments.
        size: The width and the height of the picture in pixels.
    """

    def __init__(self, outputs: Npz, network: NetworkData, sides: Mapping[str, int]) -> None:
        self.preprocessing: Any = network.description["preprocessing"]
        self.n_axes = len(outputs[INPUT].shape) if INPUT in outputs else 3
        self.units: list[int] = []
        self.tiles: dict[str, MapTile] = {}
        self.shares: npt.NDArray[np.float64] | None = None
        pictures: dict[str, Pixels] = {}
        for key, side in sides.items():
            pictures[key], unit = self._draw(key, outputs[key], side)
            self.units.append(unit)
        scores = _find_mask_scores(network, outputs)
        if scores is not None:
            n_classes, labels = len(scores), scores.argmax(0)
            self.shares = np.bincount(labels.ravel(), minlength=n_classes) / labels.size
            pictures[OUTPUT] = _fit(colour_table("viridis")[255 * labels // (n_classes - 1)], MAX_SIDE)
            self.units.append(NO_UNIT)
        self.size = self._place(pictures)
        self.picture = Image.new("RGB", self.size)
        for key, pixels in pictures.items():
            self.picture.paste(Image.fromarray(pixels), (self.tiles[key].x, self.tiles[key].y))

    def _place(self, pictures: Mapping[str, Pixels]) -> tuple[int, int]:
        """Place pictures in rows, and return the size of the sheet."""
        x = y = row_height = 0
        for number, (key, pixels) in enumerate(pictures.items()):
            height, width = pixels.shape[:2]
            if x + width > SHEET_WIDTH:
                x, y, row_height = 0, y + row_height + GAP, 0
            self.tiles[key] = MapTile(number, x, y, width, height)
            x += width + GAP
            row_height = max(row_height, height)
        return SHEET_WIDTH, y + row_height

    def encode(self) -> bytes:
        """Encode the picture as WebP."""
        content = io.BytesIO()
        self.picture.save(content, "webp", quality=QUALITY, method=6)
        return content.getvalue()

    def _draw(self, key: str, values: np.ndarray, side: int) -> tuple[Pixels, int]:
        """Draw the input, a vector, or the map that varies most; return the picture and the unit."""
        if key == INPUT:
            pixels = np.clip(to_displayed_pixels(values, self.preprocessing), 0, 1)
            grey_or_rgb = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
            return _fit(np.round(255 * grey_or_rgb).astype(np.uint8).transpose(1, 2, 0), side), NO_UNIT
        if not values.size:
            return np.zeros((side, side, 3), np.uint8), NO_UNIT
        if values.ndim < 2 or values.ndim != self.n_axes or values[0].size == 1:
            column = values.reshape(len(values) if values.ndim else 1, -1)
            width = VECTOR_WIDTH if column.shape[1] == 1 else side
            return _resize(ColourScale.from_values(column).to_rgb(column), width, side), NO_UNIT
        planes = to_planes(values)
        flat = planes.reshape(len(planes), -1).astype(np.float64)
        spread = np.where(np.isfinite(flat).all(1), flat.std(1), -1)
        unit = int(spread.argmax())
        chosen = planes[unit : unit + 1]
        plane = take_central_slice(chosen)[0] if planes.ndim == VOLUME_AXES else chosen[0]
        return _fit(ColourScale.from_values(plane).to_rgb(plane), side), unit


def _find_mask_scores(network: NetworkData, outputs: Npz) -> np.ndarray | None:
    """Return the recorded class scores of each pixel, of a network that segments; None of others."""
    shape = network.description["output"]["shape"]
    names = [content.layers[0] for content in network.diagram.nodes if content.kind == "output"]
    is_segmentation = len(shape) == 3 and shape[0] == len(network.description["classes"]) > 1
    if not is_segmentation or len(names) != 1 or names[0] not in outputs:
        return None
    scores = outputs[names[0]]
    return scores if list(scores.shape) == list(shape) else None


def _list_results(
    image: SampleImage, network: NetworkData, shares: npt.NDArray[np.float64] | None
) -> list[str]:
    """Return the lines of the result on an image: the class and its probability, or the shares of a mask."""
    classes = network.description["classes"]
    if shares is not None:
        names = [wrap_text(name, RESULT_CHARS - 4, 1)[0] for name in classes]
        order = np.argsort(-shares, kind="stable")[:MAX_RESULT_LINES]
        return [f"{names[number]} {100 * shares[number]:.0f} %" for number in order]
    if image["prediction"] is None or image["probability"] is None:
        return []
    name = wrap_text(classes[image["prediction"]], RESULT_CHARS, 1)[0]
    return [name, f"{100 * image['probability']:.1f} %"]


def _fit(pixels: Pixels, side: int) -> Pixels:
    """Resize a picture so that its longer side is at most `side`, a small one by a whole factor."""
    height, width = pixels.shape[:2]
    factor = side // max(height, width)
    if factor:
        return pixels.repeat(factor, 0).repeat(factor, 1)
    scale = side / max(height, width)
    return _resize(pixels, max(1, round(width * scale)), max(1, round(height * scale)))


def _resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize a picture, by means where it becomes smaller and without smoothing where it becomes larger."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    reduced = image.resize((min(width, image.width), min(height, image.height)), Image.Resampling.BOX)
    return np.asarray(reduced.resize((width, height), Image.Resampling.NEAREST))
