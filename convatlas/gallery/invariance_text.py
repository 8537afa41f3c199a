"""The result of a network's invariance in words: over which changes the prediction holds."""

import numpy as np

from convatlas.gallery.network_data import NetworkData
from convatlas.names import format_number, join_names
from convatlas.records import InvarianceAnalysis, InvarianceTransform

NOUNS = {
    "vertical": "vertical translation",
    "horizontal": "horizontal translation",
    "scale": "other scale",
    "rotation": "rotation",
}


def format_step(transform: InvarianceTransform, step: float) -> str:
    """Return a step as text, with its unit.

    Args:
        transform: The transform.
        step: The step.
    """
    text = format_number(step, ".4g")
    if transform["name"] == "scale":
        return f"× {text}"
    return f"{text}°" if transform["name"] == "rotation" else f"{text} px"


def compute_mean(values: np.ndarray) -> list[float | None]:
    """Return the mean over the images whose value is finite, of each step; None where there is none.

    Args:
        values: (images, steps).
    """
    columns = [column[np.isfinite(column)] for column in values.T]
    return [float(column.mean(dtype=np.float64)) if len(column) else None for column in columns]


def read_scores(
    network: NetworkData, analysis: InvarianceAnalysis, transform: InvarianceTransform
) -> np.ndarray | None:
    """Return the probabilities or IoUs, (images, steps); None without any.

    Args:
        network: The network.
        analysis: Its invariance.json.
        transform: The transform.
    """
    return network.results.invariance_arrays.get(f"{analysis['quantity']}@{transform['name']}")


def find_half_range(transform: InvarianceTransform, scores: np.ndarray) -> tuple[float, float]:
    """Return the steps around the unchanged image over which the mean score stays above half of its.

    Args:
        transform: The transform.
        scores: Probabilities or IoUs, (images, steps).

    Returns:
        The first and the last such step without interruption. A rotation from 0 to 360 degrees goes on from
        its end: a first step below 0 stands for that many degrees less than 360.
    """
    steps, means = transform["steps"], compute_mean(scores)
    identity = steps.index(1.0 if transform["name"] == "scale" else 0.0)
    limit = (means[identity] or 0.0) / 2
    is_above = [mean is not None and mean >= limit for mean in means]
    first = last = identity
    while first > 0 and is_above[first - 1]:
        first -= 1
    while last < len(steps) - 1 and is_above[last + 1]:
        last += 1
    if transform["name"] == "rotation" and steps[0] == 0 and steps[-1] == 360 and last < len(steps) - 1:
        start = len(steps) - 1
        while is_above[start - 1]:
            start -= 1
        return steps[start] - 360, steps[last]
    return steps[first], steps[last]


def describe_half_range(transform: InvarianceTransform, scores: np.ndarray) -> str:
    """Say over which steps the mean score stays above half of the unchanged images'.

    Args:
        transform: The transform.
        scores: Probabilities or IoUs, (images, steps).
    """
    first, last = find_half_range(transform, scores)
    if first == last:
        return f"no {NOUNS[transform['name']]}"
    start = format_number(first, ".4g")
    if transform["name"] == "rotation" and first < transform["steps"][0]:
        start = f"{format_number(first + 360, '.4g')}° ({start}°)"  # as the axis has it
    ends = f"{start} to {format_number(last, '.4g')}"
    return {
        "vertical": f"vertical translations of {ends} pixels",
        "horizontal": f"horizontal translations of {ends} pixels",
        "scale": f"scales of {ends}",
        "rotation": f"rotations of {ends}°",
    }[transform["name"]]


def summarise(network: NetworkData) -> str:
    """Return the result of a network's analysis in one sentence.

    Args:
        network: A network with the analysis.
    """
    analysis = network.results.invariance
    if analysis is None:
        return "Not computed."
    if analysis["undefined"]:
        return f"Not defined for this network: {analysis['undefined']}."
    ranges = [
        describe_half_range(transform, scores)
        for transform in analysis["transforms"]
        if (scores := read_scores(network, analysis, transform)) is not None
    ]
    if not ranges:
        names = join_names([layer["name"] for layer in analysis["layers"]])
        return (
            f"Distances of the features of {names} under {len(analysis['transforms'])} changes of the image."
        )
    subject = "probability" if analysis["quantity"] == "probability" else "IoU of the prediction"
    return (
        f"The mean {subject} stays above half of that for the unchanged images over {join_names(ranges)}, "
        "of the steps that were tried."
    )
