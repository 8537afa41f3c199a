"""The output of a network on an image as a lecture shows it: class scores, a mask, or numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb

from convatlas.gallery.class_scores import read_probabilities
from convatlas.gallery.lecture.pictures import Picture, PictureFolder
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.result_overlay import MAP_OPACITY, choose_class_colours, read_predicted_classes
from convatlas.image_io import to_displayed_pixels
from convatlas.names import format_number, is_multi_label, number_label
from convatlas.records import SampleImage

MAX_ORDERED_CLASSES = 10  # all in their order; of more classes the most probable ones
TOP_CLASSES = 5
MAX_VALUES = 8  # of an output without classes


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: its name, its value as text, its length in 0..1, and what it stands for."""

    name: str
    text: str
    length: float
    is_predicted: bool = False
    is_label: bool = False
    colour: str = ""


@dataclass(frozen=True)
class OutputContent:
    """The output of a network on an image.

    Attributes:
        subtitle: What the bars show, or the layer.
        bars: Probabilities, shares of the pixels, or values.
        others: What is not shown, as a sentence; "" where all is.
        mask: The image with its pixels coloured by class, of a segmentation network.
        picture: The output as a map, of a network without classes.
    """

    subtitle: str
    bars: list[Bar]
    others: str = ""
    mask: Picture | None = None
    picture: Picture | None = None


def read_output(
    network: NetworkData, image: SampleImage, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> OutputContent | None:
    """Read the output of a network on an image.

    Args:
        network: The network.
        image: The image.
        outputs: The recorded outputs on it.
        pictures: Where the picture of a mask or of a map is added.

    Returns:
        None where neither a layer with the output nor a prediction is recorded.
    """
    if image["prediction"] is not None and image["probability"] is not None:
        return _list_probabilities(network, image, image["prediction"], image["probability"])
    predicted = read_predicted_classes(network, image)
    if predicted is not None:
        return _colour_classes(network, predicted[0]["name"], predicted[1], outputs["input"], pictures)
    if network.description["output"]["kind"] == "none":
        return _list_values(network, outputs, pictures)
    return None


def _list_probabilities(
    network: NetworkData, image: SampleImage, prediction: int, probability: float
) -> OutputContent:
    """List the probabilities of all of a few classes, or of the most probable of many."""
    classes, label = network.description["classes"], number_label(image, network.description)
    values = read_probabilities(network, image)
    if values is None:
        bar = Bar(classes[prediction], _format_percent(probability), probability, True, prediction == label)
        return OutputContent("probability", [bar], "The scores of the other classes are not recorded.")
    order = np.argsort(-values, kind="stable").tolist()
    is_cut = len(values) > MAX_ORDERED_CLASSES
    shown = order[:TOP_CLASSES] if is_cut else range(len(values))
    bars = [
        Bar(classes[n], _format_percent(values[n]), float(values[n]), n == prediction, n == label)
        for n in shown
    ]
    is_independent = is_multi_label(network.description)
    subtitle = "probability of each class, independent" if is_independent else "probability"
    if not is_cut:
        return OutputContent(subtitle, bars)
    total = "" if is_independent else f": together {_format_percent(values[order[TOP_CLASSES:]].sum())}"
    return OutputContent(subtitle, bars, f"{len(values) - TOP_CLASSES:,} other classes{total}.")


def _colour_classes(
    network: NetworkData,
    layer: str,
    predicted: npt.NDArray[np.int64],
    image: np.ndarray,
    pictures: PictureFolder,
) -> OutputContent:
    """Colour the pixels of the image by their predicted class, (H, W); a background stays grey."""
    classes = network.description["classes"]
    colours = choose_class_colours(classes)
    grey = np.nan_to_num(to_displayed_pixels(image, network.description["preprocessing"])).clip(0, 1).mean(0)
    rows, columns = (
        np.arange(size) * count // size for size, count in zip(grey.shape, predicted.shape, strict=True)
    )
    numbers = predicted[rows][:, columns]
    planes = np.repeat(grey[None], 3, 0)
    for number, colour in enumerate(colours):
        if colour:
            mixed = (1 - MAP_OPACITY) * grey + MAP_OPACITY * np.array(to_rgb(colour))[:, None, None]
            planes = np.where(numbers == number, mixed, planes)
    shares = np.bincount(predicted.ravel(), minlength=len(classes)) / predicted.size
    shown = [n for n in np.argsort(-shares, kind="stable").tolist()[:MAX_VALUES] if shares[n]]
    bars = [
        Bar(classes[n], _format_percent(shares[n]), float(shares[n]), colour=colours[n])
        for n in sorted(shown)
    ]
    n_others = int((shares > 0).sum()) - len(shown)
    mask = pictures.add_image("mask", planes, "The image, its pixels coloured by predicted class")
    return OutputContent(layer, bars, f"{n_others} other classes." if n_others else "", mask=mask)


def _list_values(
    network: NetworkData, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> OutputContent | None:
    """Show the last recorded output of a network without classes, as a map or as numbers."""
    shape = network.description["output"]["shape"]
    names = [
        layer["name"]
        for layer in network.layers
        if layer["called"] and layer["name"] in outputs and shape in ([], layer["output_shape"])
    ]
    if not names or not outputs[names[-1]].size:
        return None
    values, name = outputs[names[-1]], names[-1]
    if values.ndim == 3 and min(values.shape[1:]) > 1:
        others = f"Channel 0 of {len(values)}." if len(values) > 1 else ""
        picture = pictures.add_map("output", values[0], f"Output of {name}")
        return OutputContent(name, [], others, picture=picture)
    flat = values.ravel()
    max_abs = float(np.abs(flat[np.isfinite(flat)]).max(initial=0)) or 1.0
    bars = [
        Bar(f"output {n}", format_number(value, ".4g"), abs(value) / max_abs if np.isfinite(value) else 0.0)
        for n, value in enumerate(flat[:MAX_VALUES].tolist())
    ]
    n_others = flat.size - len(bars)
    return OutputContent(name, bars, f"{n_others:,} more values." if n_others else "")


def _format_percent(share: float) -> str:
    return f"{100 * share:.1f} %"
