"""The pictures of feature visualisation: optimised images, maps and projections of units on sample images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convatlas.gallery.attribution_pictures import MapScale, render_map
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import as_size, select_display, to_displayed_pixels
from convatlas.plotting.sprites import encode_lossy_webp, encode_webp, make_unique_slugs
from convatlas.plotting.top_activation_tiles import fit_projection_scale, render_projections
from convatlas.records import FeatureVisualisation, Layer, OptimisedLayer, OptimisedUnit

LOSSLESS_SIDE = 64  # pixels of the longer side up to which pictures are stored exactly
MIN_CROP_SIDE = 2  # pixels of a receptive field whose projection is drawn
MAX_UNITS = 240  # on a page, of all layers together
MAX_LAYER_UNITS = 48  # of a layer
SHOWN_SIDE = 448  # pixels at which an optimised image is enlarged

Box = tuple[int, int, int, int]  # first row, first column, end row, end column


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        path: Its place in the site.
        content: The content of its file.
        size: Its height and width in pixels.
        alt: What it shows, in words.
    """

    path: str
    content: bytes
    size: tuple[int, int]
    alt: str

    @property
    def shown_size(self) -> tuple[int, int]:
        """Return the height and width at which it is enlarged."""
        factor = max(1, SHOWN_SIDE // max(self.size))
        return self.size[0] * factor, self.size[1] * factor


def make_picture(path: str, pixels: npt.NDArray[np.uint8], alt: str) -> Picture:
    """Encode pixels, exactly where they are few.

    Args:
        path: Its place in the site, without a suffix.
        pixels: (H, W, 3) uint8.
        alt: What it shows, in words.
    """
    height, width = pixels.shape[:2]
    encode = encode_webp if max(height, width) <= LOSSLESS_SIDE else encode_lossy_webp
    return Picture(f"{path}.webp", encode(np.ascontiguousarray(pixels)), (height, width), alt)


def to_rgb(pixels: np.ndarray) -> npt.NDArray[np.uint8]:
    """Return displayed pixels as colours, (H, W, 3) uint8.

    Args:
        pixels: (1, H, W) or (3, H, W) in 0..1.
    """
    values = np.round(255 * pixels.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return np.broadcast_to(values, (*values.shape[:2], 3))


def find_field(layer: Layer, position: tuple[int, int], size: tuple[int, int]) -> Box | None:
    """Return the pixels on which a position of a layer's map depends, clipped to the input.

    Args:
        layer: Its entry in layers.json.
        position: Row and column.
        size: Height and width of the input.

    Returns:
        The box; None where the place of the receptive field is not known.
    """
    field, start, step = layer["receptive_field"], layer["receptive_start"], layer["receptive_step"]
    if field and len(field) == 2 and all(f >= s for f, s in zip(field, size, strict=True)):
        return 0, 0, *size
    if not (field and start and step and len(field) == len(start) == len(step) == 2):
        return None
    first = [start[axis] + position[axis] * step[axis] for axis in (0, 1)]
    ends = [min(size[axis], first[axis] + field[axis]) for axis in (0, 1)]
    return max(0, first[0]), max(0, first[1]), ends[0], ends[1]


def name_layers(analysis: FeatureVisualisation) -> dict[str, str]:
    """Return the slug of each layer in the names of pictures and the anchors of the page, by its name.

    Args:
        analysis: feature_visualisation.json.
    """
    names = [layer["layer"] for layer in analysis["layers"]]
    return dict(zip(names, make_unique_slugs(names), strict=True))


def list_shown_units(layer: OptimisedLayer, analysis: FeatureVisualisation) -> list[OptimisedUnit]:
    """Return the units of a layer that the page shows: the first ones, of many.

    Args:
        layer: An entry of `layers` of the analysis.
        analysis: feature_visualisation.json.
    """
    layers = sum(bool(entry["units"]) for entry in analysis["layers"])
    return layer["units"][: max(1, min(MAX_LAYER_UNITS, MAX_UNITS // max(1, layers)))]


@dataclass(frozen=True)
class SampleView:
    """A unit on a sample image.

    Attributes:
        image: Name of the image.
        title: Its title.
        value: The maximum of the unit's map.
        map: The map; None of a unit without one.
        ends: The ends of the map's scale.
        projection: The deconvnet projection of the maximum, within its receptive field; None where the unit
            is not projected on the image.
        patch: The image there.
    """

    image: str
    title: str
    value: float
    map: Picture | None
    ends: tuple[float, float]
    projection: Picture | None
    patch: Picture | None


class SampleReader:
    """Reads maps and projections of units on the sample images.

    Args:
        network: The network.
        folder: The folder of the pictures in the site.
    """

    def __init__(self, network: NetworkData, folder: str) -> None:
        self.network, self.folder = network, folder
        self.preprocessing = network.description["preprocessing"]
        height, width = as_size(self.preprocessing["size"])
        self.size = height, width
        results = network.results
        self.activations = {image["name"]: results.activations(image["name"]) for image in network.images}
        self.projections = {
            image["name"]: results.displayed_projections(image["name"]) for image in network.images
        }
        self.outputs: dict[tuple[str, str], np.ndarray] = {}  # by image and layer

    def read_output(self, image: str, layer: str) -> np.ndarray:
        """Return the output of a layer on an image, (units, ...).

        Args:
            image: Name of the image.
            layer: Name of the layer.
        """
        if (image, layer) not in self.outputs:
            self.outputs[image, layer] = self.activations[image][layer]
        return self.outputs[image, layer]

    def draw_inputs(self) -> dict[str, Picture]:
        """Return the pictures of the sample images."""
        return {
            image["name"]: make_picture(
                f"{self.folder}/input-{image['name']}",
                to_rgb(to_displayed_pixels(self.activations[image["name"]]["input"], self.preprocessing)),
                self.network.image_titles[image["name"]],
            )
            for image in self.network.images
        }

    def view(self, layer: Layer, unit: int, path: str) -> SampleView | None:
        """Return a unit on the sample image on which it is most active, of those on which it is projected.

        Args:
            layer: Its layer's entry in layers.json.
            unit: Its number.
            path: Place of its pictures in the site, without a suffix.
        """
        name = layer["name"]
        candidates = [image for image in self.activations if name in self.activations[image]]
        rows = {image: self._find_row(image, name, unit) for image in candidates}
        shown = [image for image in candidates if rows[image] is not None] or candidates
        maxima = {
            image: float(np.nan_to_num(self.read_output(image, name)[unit], nan=-np.inf).max())
            for image in shown
        }
        if not maxima:
            return None
        image = max(maxima, key=lambda name: maxima[name])
        output = self.read_output(image, name)[unit]
        title = self.network.image_titles[image]
        view = SampleView(image, title, maxima[image], None, (0, 0), None, None)
        if output.ndim != 2 or not np.isfinite(output).all():
            return view
        scale = MapScale.from_maps([output], bool(output.min() < 0), 1)
        alt = f"Map of unit {unit} of {name} on {title}"
        picture = Picture(
            f"{path}-map.webp",
            render_map(output, scale.colours),
            (output.shape[0], output.shape[1]),
            alt,
        )
        ends = scale.colours.low, scale.colours.high
        row, column = np.unravel_index(output.argmax(), output.shape)
        box = find_field(layer, (int(row), int(column)), self.size)
        projection = patch = None
        if rows[image] is not None and box and min(box[2] - box[0], box[3] - box[1]) >= MIN_CROP_SIDE:
            projection, patch = self._draw_projection(image, name, rows[image], box, unit, path)
        return SampleView(image, title, maxima[image], picture, ends, projection, patch)

    def _find_row(self, image: str, layer: str, unit: int) -> int | None:
        """Return the row of a unit among the projections of its maximum on an image; None without."""
        arrays = self.projections[image]
        if f"{layer}@peak" not in arrays:
            return None
        units = (
            arrays[f"{layer}@units"].tolist()
            if f"{layer}@units" in arrays
            else range(len(arrays[f"{layer}@peak"]))
        )
        return list(units).index(unit) if unit in units else None

    def _draw_projection(
        self, image: str, layer: str, row: int | None, box: Box, unit: int, path: str
    ) -> tuple[Picture, Picture]:
        """Draw the projection of a unit's maximum on an image, and the image, within a box."""
        assert row is not None
        rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
        values = self.projections[image][f"{layer}@peak"][row][:, rows, columns]
        where = f"of unit {unit} of {layer} on {self.network.image_titles[image]}"
        projected = render_projections(fit_projection_scale(values), values)
        pixels = to_displayed_pixels(self.activations[image]["input"], self.preprocessing)
        return (
            make_picture(f"{path}-projection", projected, f"Deconvnet projection {where}"),
            make_picture(
                f"{path}-patch", to_rgb(pixels[:, rows, columns]), f"Receptive field of the maximum {where}"
            ),
        )


def draw_optimised(network: NetworkData, images: np.ndarray, path: str, alt: str) -> Picture:
    """Return the picture of an optimised image.

    Args:
        network: The network.
        images: Its pixels in 0..1, (C, h, w).
        path: Its place in the site, without a suffix.
        alt: What it shows, in words.
    """
    return make_picture(path, to_rgb(select_display(images, network.description["preprocessing"])), alt)
