"""What stands out in the similarity of layers, against that of the untrained networks."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from convatlas.names import format_number
from convatlas.records import MeanSimilarity

MIN_ERRORS = (
    4  # standard errors by which a value differs from its control, as thousands of values are compared
)
MIN_EFFECT = 0.05  # of CKA, the smallest difference that is worth a sentence
BLOCK_CKA = 0.9  # of every pair of layers of a block
MIN_BLOCK = 3  # layers
MAX_FINDINGS = 3


def describe_mean(mean: MeanSimilarity) -> str:
    """Return a mean with its error and that of the untrained network, as a clause.

    Args:
        mean: The means over pairs of layers.
    """
    if mean["trained"] is None:
        return "undefined"
    text = format_with_error(mean["trained"], mean["trained_error"])
    if mean["untrained"] is None:
        return text
    return f"{text} (untrained {format_with_error(mean['untrained'], mean['untrained_error'])})"


def format_with_error(value: float, error: float | None) -> str:
    """Write a value with two decimals, and its standard error where it is known.

    Args:
        value: The value.
        error: Its standard error.
    """
    known = error is not None and np.isfinite(error)
    return format_number(value, ".2f") + (f" ± {error:.2f}" if known else "")


def find_above_control(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which pairs of layers are more similar than in the untrained networks, (rows, columns) bool.

    Args:
        arrays: The arrays of a comparison, by the part of their names after the @.
    """
    return _find_differences(arrays) > 0


def _find_differences(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the difference of each pair to its control; 0 where there is none, or one that means nothing."""
    if "untrained" not in arrays:
        return np.zeros_like(arrays["trained"])
    difference, error = arrays["trained"] - arrays["untrained"], arrays["difference_error"]
    return np.where(abs(difference) >= np.maximum(MIN_ERRORS * error, MIN_EFFECT), difference, 0)


def list_network_findings(
    layers: Sequence[str], arrays: Mapping[str, np.ndarray], mean: MeanSimilarity
) -> list[str]:
    """Say what training changed in the similarity of a network's layers, as far as it exceeds the control.

    Args:
        layers: Names of the layers.
        arrays: Its arrays, by the part of their names after the @.
        mean: The means over pairs of its layers.
    """
    findings = [
        *_describe_mean_change(mean),
        *_describe_block(layers, arrays),
        *_describe_break(layers, arrays),
    ]
    return findings[:MAX_FINDINGS]


def _describe_mean_change(mean: MeanSimilarity) -> Iterator[str]:
    trained, untrained, error = mean["trained"], mean["untrained"], mean["difference_error"]
    if trained is None or untrained is None or not error:
        return
    if abs(trained - untrained) >= max(MIN_ERRORS * error, MIN_EFFECT):
        change = "more" if trained > untrained else "less"
        yield f"Training made the layers {change} similar: mean CKA {describe_mean(mean)}."


def _describe_block(layers: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Name the longest stretch of layers that are all similar, and were not before training."""
    values = arrays["trained"]
    is_similar = np.nan_to_num(values) >= BLOCK_CKA
    above = find_above_control(arrays)
    best = (0, 0)
    for start in range(len(layers)):
        stop = start + 1
        while stop < len(layers) and is_similar[start : stop + 1, stop].all():
            stop += 1
        if stop - start > best[1] - best[0] and above[start, stop - 1]:
            best = start, stop
    start, stop = best
    if stop - start >= MIN_BLOCK:
        ends = (
            f"of the first and the last {format_value(values[start, stop - 1])}, "
            f"untrained {format_value(arrays['untrained'][start, stop - 1])}"
        )
        yield (
            f"The {stop - start} layers from {layers[start]} to {layers[stop - 1]} form a block: every pair "
            f"has a CKA of at least {BLOCK_CKA} ({ends})."
        )


def _describe_break(layers: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Name the neighbours between which training made the largest change."""
    if len(layers) < MIN_BLOCK:
        return
    n = np.arange(len(layers) - 1)
    differences = _find_differences(arrays)[n, n + 1]
    drops = np.where(differences < 0, arrays["trained"][n, n + 1], np.inf)
    place = int(drops.argmin())
    if np.isfinite(drops[place]):
        untrained = format_value(arrays["untrained"][place, place + 1])
        yield (
            f"Of neighbours that are less similar than before training, {layers[place]} and "
            f"{layers[place + 1]} differ most: CKA {format_value(drops[place])}, untrained {untrained}."
        )


def list_most_similar(arrays: Mapping[str, np.ndarray]) -> list[tuple[int, int]]:
    """Return each layer with the most similar one of the other network, where that exceeds the control.

    Args:
        arrays: The arrays of two networks, by the part of their names after the @.

    Returns:
        Row and column of each pair.
    """
    values = np.where(np.isfinite(arrays["trained"]), arrays["trained"], -np.inf)
    is_best = (values == values.max(1, keepdims=True)) | (values == values.max(0, keepdims=True))
    return [(int(row), int(column)) for row, column in np.argwhere(is_best & find_above_control(arrays))]


def describe_most_similar(layers: Sequence[Sequence[str]], arrays: Mapping[str, np.ndarray]) -> str:
    """Say which layers of two networks are most similar, as far as that exceeds the control.

    Args:
        layers: Names of the layers of both.
        arrays: Their arrays, by the part of their names after the @.
    """
    if "untrained" not in arrays:
        return "Without an untrained network there is no control, and no pair is pointed out."
    above = find_above_control(arrays)
    if not above.any():
        return (
            "No pair of layers is clearly more similar than in the untrained networks: what is similar is "
            "so without training."
        )
    values = np.where(above, arrays["trained"], -np.inf)
    row, column = divmod(int(values.argmax()), values.shape[1])
    cka = format_with_error(values[row, column], arrays["trained_error"][row, column])
    return (
        f"The most similar layers that exceed the untrained networks are {layers[0][row]} and "
        f"{layers[1][column]}: CKA {cka}, untrained "
        f"{format_value(arrays['untrained'][row, column])}. {above.sum()} of {above.size} pairs exceed them."
    )


def format_value(value: float) -> str:
    """Write a value with two decimals.

    Args:
        value: The value.
    """
    return format_number(float(value), ".2f")
