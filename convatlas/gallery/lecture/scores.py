"""The output of a network on an image as a lecture shows it: class scores, a mask, or numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from convatlas.gallery.lecture.pictures import Picture, PictureFolder
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import to_displayed_pixels
from convatlas.names import format_number, is_multi_label
from convatlas.records import Layer, OutputKind, SampleImage

MAX_ORDERED_CLASSES = 10  # all in their order; of more classes the most probable ones
TOP_CLASSES = 5
MAX_VALUES = 8  # of an output without classes
PROBABILITY_TOLERANCE = 1e-3  # between the probability of images.json and that of the recorded output
MASK_OPACITY = 0.6
# Okabe and Ito, Color universal design, 2008: colours that readers with colour blindness tell apart.
CLASS_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: its name, its value as text, its length in 0..1, and whether it is highlighted."""

    name: str
    text: str
    length: float
    is_predicted: bool = False
    is_label: bool = False
    colour: str = ""


@dataclass(frozen=True)
class Output:
    """The output of a network on an image.

    Attributes:
        layer: The layer whose recorded output is shown; "" where the record of the image is.
        bars: Probabilities, shares of the pixels, or values.
        others: What is not shown, as a sentence; "" where all is.
        mask: The image with its pixels coloured by class, of a segmentation network.
        picture: The output as a map, of a network without classes.
    """

    layer: str
    bars: list[Bar]
    others: str = ""
    mask: Picture | None = None
    picture: Picture | None = None


def read_output(
    network: NetworkData, image: SampleImage, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> Output | None:
    """Read the output of a network on an image.

    Args:
        network: The network.
        image: The image.
        outputs: The recorded outputs on it.
        pictures: Where the picture of a mask or of a map is added.

    Returns:
        None where no layer with the output is recorded, and the record of the image has no prediction.
    """
    description = network.description
    if description["output"]["kind"] == "none":
        return _read_values(network, outputs, pictures)
    if len(description["output"]["shape"]) == 3:
        return _read_mask(network, outputs, pictures)
    scores = find_probabilities(network, image, outputs)
    if scores:
        return _draw_probabilities(network, image, *scores)
    if image["prediction"] is None or image["probability"] is None:
        return None
    name = description["classes"][image["prediction"]]
    bar = Bar(name, _format_percent(image["probability"]), image["probability"], is_predicted=True)
    return Output("", [bar], "The scores of the other classes are not recorded.")


def find_probabilities(
    network: NetworkData, image: SampleImage, outputs: Mapping[str, np.ndarray]
) -> tuple[str, np.ndarray] | None:
    """Find the layer whose recorded output gives the prediction and probability of the image's record.

    Args:
        network: The network.
        image: The image.
        outputs: The recorded outputs on it.

    Returns:
        The name of the layer, the last of several, and the probability of each class, (classes,).
    """
    prediction, probability = image["prediction"], image["probability"]
    if prediction is None or probability is None:
        return None
    convert = PROBABILITY_FUNCTIONS.get(network.description["output"]["kind"])
    n_scores = int(np.prod(network.description["output"]["shape"]))
    for layer in reversed(network.layers):
        if convert is None or not layer["called"] or int(np.prod(layer["output_shape"])) != n_scores:
            continue
        if layer["name"] not in outputs:
            continue
        values = convert(outputs[layer["name"]].ravel().astype(np.float64))
        is_recorded = (
            prediction < len(values) and abs(values[prediction] - probability) < PROBABILITY_TOLERANCE
        )
        if is_recorded and np.isfinite(values).all():
            return layer["name"], values
    return None


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    result: np.ndarray = powers / powers.sum()
    return result


def _sigmoid(values: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return result


PROBABILITY_FUNCTIONS: dict[OutputKind, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": _softmax,
    "log-softmax": np.exp,
    "probabilities": np.asarray,
    "independent-probabilities": np.asarray,
    "sigmoid": _sigmoid,
    "multi-label": _sigmoid,
}


def _draw_probabilities(network: NetworkData, image: SampleImage, layer: str, values: np.ndarray) -> Output:
    """Draw the probabilities of all of a few classes, or of the most probable of many."""
    classes = network.description["classes"]
    order = np.argsort(-values, kind="stable").tolist()
    is_cut = len(values) > MAX_ORDERED_CLASSES
    shown = order[:TOP_CLASSES] if is_cut else range(len(values))
    # The label is the number of a class of the data set, which need not be the network's.
    label = image["label"] if network.description["dataset_classes"] == classes else None
    bars = [
        Bar(classes[n], _format_percent(values[n]), float(values[n]), n == image["prediction"], n == label)
        for n in shown
    ]
    if not is_cut:
        return Output(layer, bars)
    rest = len(values) - TOP_CLASSES
    total = (
        ""
        if is_multi_label(network.description)
        else f": together {_format_percent(values[order[TOP_CLASSES:]].sum())}"
    )
    return Output(layer, bars, f"{rest:,} other classes{total}.")


def _read_mask(
    network: NetworkData, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> Output | None:
    """Colour the pixels of the image by the class with the highest score."""
    description = network.description
    layer = _find_last_layer(network, outputs, description["output"]["shape"])
    convert = PROBABILITY_FUNCTIONS.get(description["output"]["kind"])
    if layer is None or convert is None:
        return None
    scores, classes = outputs[layer["name"]].astype(np.float64), description["classes"]
    numbers = scores.argmax(0)
    if len(scores) == 1:  # the probability of the one class, against the background
        numbers = np.where(convert(scores.ravel()).reshape(scores.shape[1:]) > 0.5, 0, 1)
        classes = [*classes[:1], "background"]
    counts = np.bincount(numbers.ravel(), minlength=len(classes))
    top = np.argsort(-counts, kind="stable")[: len(CLASS_COLOURS) - 1].tolist()
    shown = [number for number in top if counts[number]]
    colours = np.array([_parse_colour(CLASS_COLOURS[-1])] * len(classes))
    for position, number in enumerate(sorted(shown)):
        colours[number] = _parse_colour(CLASS_COLOURS[position])
    pixels = _blend(to_displayed_pixels(outputs["input"], description["preprocessing"]), colours[numbers])
    mask = pictures.add_classes("mask", pixels, "The image, its pixels coloured by predicted class")
    shares = counts / counts.sum()
    bars = [
        Bar(classes[n], _format_percent(shares[n]), float(shares[n]), colour=_format_colour(colours[n]))
        for n in sorted(shown)
    ]
    rest = int((counts > 0).sum()) - len(shown)
    return Output(layer["name"], bars, f"{rest} other classes, in grey." if rest else "", mask=mask)


def _read_values(
    network: NetworkData, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> Output | None:
    """Show the last recorded output of a network without classes, as a map or as numbers."""
    layer = _find_last_layer(network, outputs, network.description["output"]["shape"] or None)
    if layer is None:
        return None
    values, name = outputs[layer["name"]], layer["name"]
    if values.ndim == 3 and min(values.shape[1:]) > 1:
        others = f"Channel 0 of {len(values)}." if len(values) > 1 else ""
        return Output(name, [], others, picture=pictures.add_map("output", values[0], f"Output of {name}"))
    flat = values.ravel()
    max_abs = float(np.abs(flat[np.isfinite(flat)]).max(initial=0)) or 1.0
    bars = [
        Bar(f"output {n}", format_number(value, ".4g"), abs(value) / max_abs if np.isfinite(value) else 0.0)
        for n, value in enumerate(flat[:MAX_VALUES].tolist())
    ]
    rest = flat.size - len(bars)
    return Output(name, bars, f"{rest:,} more values." if rest else "")


def _find_last_layer(
    network: NetworkData, outputs: Mapping[str, np.ndarray], shape: list[int] | None
) -> Layer | None:
    """Find the last recorded layer, of an output shape."""
    for layer in reversed(network.layers):
        is_output = layer["called"] and shape in (None, layer["output_shape"])
        if is_output and layer["name"] in outputs and outputs[layer["name"]].size:
            return layer
    return None


def _blend(planes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Lay colours (h, w, 3), enlarged to the image, over the grey image of planes (C, H, W) in 0..1."""
    grey = 255 * np.nan_to_num(planes).clip(0, 1).mean(0)[..., None]
    rows, columns = (
        np.arange(size) * count // size for size, count in zip(grey.shape[:2], colours.shape[:2], strict=True)
    )
    pixels = (1 - MASK_OPACITY) * grey + MASK_OPACITY * colours[rows][:, columns]
    result: np.ndarray = np.round(pixels).astype(np.uint8)
    return result


def _parse_colour(colour: str) -> list[int]:
    return [int(colour[n : n + 2], 16) for n in (1, 3, 5)]


def _format_colour(rgb: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb.tolist())


def _format_percent(share: float) -> str:
    return f"{100 * share:.1f} %"
