"""The scores of the classes on a sample image, computed from the network's recorded output."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convatlas.gallery.network_data import NetworkData
from convatlas.names import is_multi_label, number_label
from convatlas.records import ImagePrediction, OutputDescription, SampleImage

MAX_SCORES = 5  # classes with a bar
TOLERANCE = 1e-3  # of the recorded probability: that of float16 layers


@dataclass(frozen=True)
class ScoreBar:
    """A class with its score as a bar.

    Attributes:
        name: The class.
        share: The length of the bar, in 0..1.
        text: The score.
        is_label: Whether it is the label of the image.
    """

    name: str
    share: float
    text: str
    is_label: bool = False


def list_class_scores(network: NetworkData, image: SampleImage) -> list[ScoreBar]:
    """List the most probable classes of an image, and its label.

    Args:
        network: The network.
        image: Its entry in images.json.

    Returns:
        At most MAX_SCORES classes in descending order, and the label where it is not among them. Only the
        prediction where the output is not recorded; nothing without class scores.
    """
    if image["prediction"] is None or image["probability"] is None:
        return []
    description = network.description
    classes = description["classes"]
    label = number_label(image, network.description)
    probabilities = read_probabilities(network, image)
    if probabilities is None:
        return [_make_bar(classes[image["prediction"]], image["probability"], image["prediction"] == label)]
    order = np.argsort(-probabilities, kind="stable").tolist()
    shown = order[:MAX_SCORES]
    if label is not None and label not in shown:
        shown.append(label)
    return [_make_bar(classes[number], float(probabilities[number]), number == label) for number in shown]


def read_probabilities(network: NetworkData, image: SampleImage) -> npt.NDArray[np.float64] | None:
    """Compute the probabilities of the classes from the recorded output.

    Args:
        network: The network.
        image: Its entry in images.json, with a prediction.

    Returns:
        (classes,); None where no recorded output of the last layers gives the probability in images.json.
    """
    description = network.description
    count = len(description["classes"])
    outputs = network.results.activations(image["name"])
    for layer in reversed(network.layers):
        shape = layer["output_shape"] or []
        if math.prod(shape) != math.prod(description["output"]["shape"]) or layer["name"] not in outputs:
            continue
        scores = outputs[layer["name"]].ravel().astype(np.float64)
        probabilities = _compute_probabilities(scores, description["output"], count)
        if probabilities is not None and _agrees(probabilities, image):
            return probabilities
    return None


def _compute_probabilities(
    scores: npt.NDArray[np.float64], output: OutputDescription, n_classes: int
) -> npt.NDArray[np.float64] | None:
    """Return the probabilities of scores (scores,), as images.json has them; None of another number."""
    kind = output["kind"]
    if len(scores) == 1 and n_classes == 2:  # one score tells the second class from the first
        second = scores if kind == "independent-probabilities" else _sigmoid(scores)
        return np.concatenate([1 - second, second])
    if len(scores) != n_classes:
        return None
    if kind in ("softmax", "log-softmax"):
        with np.errstate(invalid="ignore"):  # of infinite values, whose probabilities are not used
            exponentials = np.exp(scores - scores.max())
            return np.asarray(exponentials / exponentials.sum())
    return _sigmoid(scores) if kind in ("sigmoid", "multi-label") else scores


def _sigmoid(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the logistic function, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(scores / 2)))


def _agrees(probabilities: npt.NDArray[np.float64], image: SampleImage) -> bool:
    """Return whether probabilities are those of images.json: the output may be that of another layer."""
    prediction, probability = image["prediction"], image["probability"]
    assert prediction is not None and probability is not None
    return bool(
        np.isfinite(probabilities).all()
        and abs(probabilities[prediction] - probability) <= TOLERANCE
        and probabilities[prediction] >= probabilities.max() - TOLERANCE
    )


def list_iou_scores(network: NetworkData, image: SampleImage) -> list[ScoreBar]:
    """List the IoU of each class of the masks on a test image; nothing of other images.

    Args:
        network: A segmentation network.
        image: Its entry in images.json.
    """
    row = _find_prediction(network, image)
    if row is None or row.get("mean_iou") is None:
        return []
    bars = []
    areas = zip(network.metrics["iou"], row["intersections"], row["unions"], strict=True)
    for name, intersection, union in areas:
        share = intersection / union if union else 0.0
        bars.append(ScoreBar(name, share, f"{share:.2f}" if union else "–"))
    return bars


def _find_prediction(network: NetworkData, image: SampleImage) -> ImagePrediction | None:
    """Return the row of predictions.csv of a sample image; None of an image of no split."""
    rows = network.results.predictions
    same = (row for row in rows if image["split"] == row["split"] and image["index"] == row["index"])
    return next(same, None)


def title_scores(network: NetworkData) -> str:
    """Return what the bars of class scores show.

    Args:
        network: The network.
    """
    return "Probability of each class, independent" if is_multi_label(network.description) else "Probability"


def _make_bar(name: str, probability: float, is_label: bool) -> ScoreBar:
    """Return the bar of a probability."""
    return ScoreBar(name, probability, f"{100 * probability:.1f} %", is_label)
