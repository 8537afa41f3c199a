"""What lies over a sample image on the first screen: an attribution map, a mask or a feature map."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from PIL import Image

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.datasets.base import SegmentationDataset
from convatlas.datasets.trimaps import MASK_CLASSES
from convatlas.gallery.attribution_data import AttributionReader, choose_method
from convatlas.gallery.attribution_pictures import MapScale, render_map
from convatlas.gallery.attribution_text import format_quantity
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import as_size
from convatlas.names import format_shape
from convatlas.records import Layer, SampleImage

MAP_OPACITY = 0.6
MIN_MASK_SIDE = 320  # pixels of a mask's picture, so that its outline is thin
MASK_COLOURS = {"pet": "#1f6a9a", "border": "#e3a72f"}  # as in the figures
OTHER_COLOURS = ("#b4613f", "#1f6a9a", "#e3a72f", "#5f8a4c", "#8a4c86", "#4c8a86", "#c2577a", "#7a6a3d")
BACKGROUNDS = {"background", "__background__"}  # classes without a colour
MAX_LEGEND = 6
OUTLINE_COLOURS = ((255, 255, 255, 255), (20, 18, 14, 255))  # the outer and the inner line


@dataclass(frozen=True)
class Overlay:
    """What lies over a sample image.

    Attributes:
        picture: The content of its picture, WebP.
        file: The path of the picture in the site.
        box: Where it lies over the image: left, top, width and height in percent.
        opacity: Its opacity; 1 of a picture with transparency of its own.
        title: What it shows.
        layer: The layer that it is computed from, with the size of its maps; "" without one.
        caption: How it lies over the image, and how to read it.
        alt: The picture in words.
        scale: Its colour scale; None of a mask.
        legend: Classes with their colours, of a mask.
        has_outline: Whether the outline of the ground truth is drawn.
    """

    picture: bytes
    file: str
    box: tuple[float, float, float, float]
    opacity: float
    title: str
    layer: str
    caption: str
    alt: str
    scale: MapScale | None = None
    legend: Sequence[tuple[str, str]] = ()
    has_outline: bool = False


WHOLE_IMAGE = (0.0, 0.0, 100.0, 100.0)


# Attribution maps


def make_attribution_overlay(reader: AttributionReader, image: SampleImage) -> Overlay | None:
    """Return the map of the method that is shown first, for the predicted class.

    Args:
        reader: The reader of the network's attribution maps.
        image: Its entry in images.json.

    Returns:
        None where the image has no map of the method.
    """
    method = choose_method(reader.analysis)
    if method is None or image["name"] not in reader.analysis["images"]:
        return None
    maps = reader.read_image(image, method)
    targets = sorted(
        (target for target in maps.targets if target.tiles),
        key=lambda target: target.number != image["prediction"],
    )
    if not targets:
        return None
    tile = targets[0].tiles[0]
    return Overlay(
        picture=reader.pictures[tile.file],
        file=tile.file,
        box=WHOLE_IMAGE,
        opacity=MAP_OPACITY,
        title=f"{tile.method['title']} for {targets[0].name}",
        layer=tile.layer,
        caption="over the image at 60\u00a0%",
        alt=tile.alt,
        scale=tile.scale,
    )


# Predicted masks


def make_mask_overlay(network: NetworkData, image: SampleImage, data: Path) -> Overlay | None:
    """Return the predicted class of each pixel, with the outline of the trimap where there is one.

    Args:
        network: The network.
        image: Its entry in images.json.
        data: The folder of the data sets.

    Returns:
        None of a network whose output is not one class per pixel, or is not recorded.
    """
    layer_and_classes = read_predicted_classes(network, image)
    if layer_and_classes is None:
        return None
    layer, predicted = layer_and_classes
    classes = network.description["classes"]
    colours = {number: colour for number, colour in enumerate(choose_class_colours(classes)) if colour}
    truth = _read_trimap(network, image, data)
    shares = {number: float((predicted == number).mean()) for number in colours}
    shown = sorted((number for number in colours if shares[number]), key=lambda number: -shares[number])
    listed = ", ".join(f"{classes[number]} {100 * shares[number]:.0f} %" for number in shown[:MAX_LEGEND])
    return Overlay(
        picture=_render_mask(predicted, colours, truth),
        file=f"result/{network.name}/{image['name']}-mask.webp",
        box=WHOLE_IMAGE,
        opacity=1,
        title="Predicted mask",
        layer=f"{layer['name']}, {format_shape(predicted.shape)}",
        caption="over the image at 60\u00a0%",
        alt=f"Predicted mask of {network.image_titles[image['name']]}: "
        f"{listed or 'background only'} of the pixels",
        legend=[(classes[number], colours[number]) for number in shown[:MAX_LEGEND]],
        has_outline=truth is not None,
    )


def read_predicted_classes(
    network: NetworkData, image: SampleImage
) -> tuple[Layer, npt.NDArray[np.int64]] | None:
    """Read the class of each pixel from the last recorded output with a score per class and pixel.

    Args:
        network: The network.
        image: Its entry in images.json.

    Returns:
        The layer and the predicted classes (H, W); None of a network whose output is not one class per pixel,
        or is not recorded.
    """
    output, classes = network.description["output"], network.description["classes"]
    if len(output["shape"]) != 3 or output["kind"] not in (
        "softmax",
        "log-softmax",
        "probabilities",
        "sigmoid",
        "independent-probabilities",
    ):
        return None
    outputs = network.results.activations(image["name"])
    for layer in reversed(network.layers):
        if layer["output_shape"] != output["shape"] or layer["name"] not in outputs:
            continue
        scores = outputs[layer["name"]]
        if not np.isfinite(scores).all():
            return None
        if len(scores) == len(classes) and len(scores) > 1:
            return layer, scores.argmax(0)
        if len(scores) == 1 and len(classes) == 2:
            threshold = 0.5 if output["kind"] == "independent-probabilities" else 0
            return layer, (scores[0] > threshold).astype(np.int64)
        return None
    return None


def choose_class_colours(classes: Sequence[str]) -> list[str]:
    """Choose the colour of each class, "" of a background.

    Args:
        classes: The names of the classes.
    """
    known = list(classes) == list(MASK_CLASSES)
    return [
        ""
        if name.lower() in BACKGROUNDS
        else MASK_COLOURS[name]
        if known
        else OTHER_COLOURS[number % len(OTHER_COLOURS)]
        for number, name in enumerate(classes)
    ]


def _read_trimap(network: NetworkData, image: SampleImage, data: Path) -> npt.NDArray[np.bool_] | None:
    """Read where the pet is in the trimap of a test image (H, W); None without a trimap."""
    name, preprocessing = network.description["dataset"], network.description["preprocessing"]
    if name is None or network.dataset is None or image["split"] is None or image["index"] is None:
        return None
    if not formats.has_masks(network.dataset):
        return None
    height, width = as_size(preprocessing["size"])
    try:
        split = cast(SegmentationDataset, formats.load(data / name, image["split"]))
        mask = split.read_mask(image["index"], (height, width), preprocessing["resize"])
    except (UserError, LookupError):  # the files of the data set are gone, or have changed
        return None
    return np.asarray(mask == MASK_CLASSES.index("pet"))


def _render_mask(
    predicted: npt.NDArray[np.int64], colours: dict[int, str], truth: npt.NDArray[np.bool_] | None
) -> bytes:
    """Render a mask as WebP with transparency, and with the outline of the truth."""
    pixels = np.zeros((*predicted.shape, 4), np.uint8)
    for number, colour in colours.items():
        rgb = [round(255 * channel) for channel in to_rgb(colour)]
        pixels[predicted == number] = [*rgb, round(255 * MAP_OPACITY)]
    shape = predicted.shape if truth is None else truth.shape
    factor = max(1, round(MIN_MASK_SIDE / max(shape)))
    size = shape[1] * factor, shape[0] * factor
    picture = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
    if truth is not None:
        region = truth.repeat(factor, 0).repeat(factor, 1)
        for rgba, line in zip(OUTLINE_COLOURS, trace_outline(region), strict=True):
            picture[line] = rgba
    content = BytesIO()
    Image.fromarray(picture).save(content, "webp", lossless=True, exact=True)
    return content.getvalue()


def trace_outline(region: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return the pixels just outside and just inside the edge of a region.

    Args:
        region: (H, W).

    Returns:
        Two lines, (H, W) each. The border of the picture is no edge.
    """
    padded = np.pad(region, 1, mode="edge")
    neighbours = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    any_inside = np.logical_or.reduce(neighbours)
    all_inside = np.logical_and.reduce(neighbours)
    return ~region & any_inside, region & ~all_inside


# Feature maps


def make_feature_map_overlay(network: NetworkData, image: SampleImage) -> Overlay | None:
    """Return the map of the most active unit of a middle layer.

    Each value covers its cell of the grid of receptive fields: a step wide and high, about the centre of its
    field.

    Args:
        network: The network.
        image: Its entry in images.json.

    Returns:
        None where no layer has recorded maps with two axes and a finite value.
    """
    outputs = network.results.activations(image["name"])
    layer = choose_middle_layer([layer for layer in network.layers if layer["name"] in outputs])
    if layer is None:
        return None
    maps = outputs[layer["name"]]
    maxima = np.where(np.isfinite(maps), maps, -np.inf).max((1, 2))
    unit = int(maxima.argmax())
    if not np.isfinite(maxima[unit]):
        return None
    plane = maps[unit].astype(np.float64)
    scale = MapScale.from_maps([plane], bool((plane < 0).any()), 1)
    box = find_map_box(layer, as_size(network.description["preprocessing"]["size"]))
    how = "over the image at 60\u00a0%, on the grid of its receptive fields"
    return Overlay(
        picture=render_map(plane, scale.colours),
        file=f"result/{network.name}/{image['name']}-map.webp",
        box=box or WHOLE_IMAGE,
        opacity=MAP_OPACITY,
        title=f"Feature map of unit {unit}, the most active",
        layer=f"{layer['name']}, {format_shape(plane.shape)}",
        caption=how if box else "over the image at 60\u00a0%, stretched to it",
        alt=f"Feature map of unit {unit} of {layer['name']} on {network.image_titles[image['name']]}, "
        f"maximum {format_quantity(float(maxima[unit]))}",
        scale=scale,
    )


def choose_middle_layer(layers: Sequence[Layer]) -> Layer | None:
    """Choose the middle one of the layers with maps, of activation layers where there are any.

    Args:
        layers: Layers with a recorded output.

    Returns:
        None where no layer has maps of more than one row and column.
    """
    with_maps = [
        layer
        for layer in layers
        if layer["output_shape"] and len(layer["output_shape"]) == 3 and min(layer["output_shape"][1:]) > 1
    ]
    located = [layer for layer in with_maps if layer["receptive_step"]] or with_maps
    activations = [layer for layer in located if layer["kind"] == "activation"] or located
    return activations[len(activations) // 2] if activations else None


def find_map_box(layer: Layer, size: Sequence[int]) -> tuple[float, float, float, float] | None:
    """Return where a map lies over its input, if each value is drawn about the centre of its receptive field.

    Args:
        layer: Its entry in layers.json, with maps (units, H, W).
        size: Height and width of the input.

    Returns:
        Left, top, width and height in percent of the input's; None where the fields are not known.
    """
    field, start, step = layer["receptive_field"], layer["receptive_start"], layer["receptive_step"]
    shape = (layer["output_shape"] or [])[1:]
    if not field or not start or not step or not len(field) == len(start) == len(step) == len(size) == 2:
        return None
    firsts = [s + (f - d) / 2 for s, f, d in zip(start, field, step, strict=True)]
    extents = [n * d for n, d in zip(shape, step, strict=True)]
    (top, left), (height, width) = (
        [100 * value / side for value, side in zip(values, size, strict=True)] for values in (firsts, extents)
    )
    return left, top, width, height
