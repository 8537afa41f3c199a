"""A learned filter to work out beside Sobel's: which unit is chosen, and its convolution on an image."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from convatlas.gallery.context import GalleryContext
from convatlas.gallery.convolution_example import ConvolutionAxis, ConvolutionExample, format_decimals
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import get_display, takes_rgb
from convatlas.records import Layer
from convatlas.results import Results

STRONG_RESPONSE = 0.9  # of the largest response, from which a position may be shown first


@dataclass(frozen=True)
class LearnedFilter:
    """A learned filter, worked out on an image.

    Attributes:
        network: Its network.
        layer: Its layer.
        unit: Its unit.
        reason: Why it was chosen, in words.
        image: Name of the image.
        example: The convolution.
        channel_names: Names of its input channels; "" for a single one.
    """

    network: NetworkData
    layer: Layer
    unit: int
    reason: str
    image: str
    example: ConvolutionExample
    channel_names: list[str]


@dataclass(frozen=True)
class Candidate:
    """A unit of a first convolution that may be shown: candidates are tried in the order of their ranks."""

    rank: tuple[float, ...]
    network: NetworkData
    layer: Layer
    unit: int
    reason: str


def find_learned_filters(context: GalleryContext) -> Iterator[LearnedFilter]:
    """Yield learned filters, worked out on the first image of their network, the best candidates first.

    Filters of untrained networks come last.

    Filters whose computed map differs from the recorded one are skipped, such as those of a convolution with
    other padding than zeros.

    Args:
        context: The run that the site shows.
    """
    for candidate in sorted(find_candidates(context), key=_get_rank):
        network = candidate.network
        image = network.images[0]["name"]
        example = apply_filter(network.results, candidate.layer, candidate.unit, image)
        if example is not None:
            names = name_channels(network, candidate.layer, example)
            yield LearnedFilter(
                network, candidate.layer, candidate.unit, candidate.reason, image, example, names
            )


def _get_rank(candidate: Candidate) -> tuple[float, ...]:
    """Return what orders candidates: those of untrained networks, which learned nothing, come last."""
    return candidate.network.is_untrained, *candidate.rank


def find_candidates(context: GalleryContext) -> Iterator[Candidate]:
    """Yield units of the networks' first convolutions.

    The order of ranks: filters whose channels all match one of Sobel's kernels, above the baseline; units
    whose maps match a Sobel feature, those of few input channels first; filters that match any kernel; the
    first unit.

    Args:
        context: The run that the site shows.
    """
    for number, network in enumerate(context.networks):
        matches = network.results.filter_matches
        if not matches or not network.takes_images:
            continue
        layer = next(layer for layer in network.layers if layer["ordinal"] == 1)
        n_channels = len(network.description["preprocessing"]["mean"])
        unit_matches = network.results.unit_matches["layers"].get(matches["layer"])
        for unit, match in enumerate(unit_matches["units"] if unit_matches else []):
            if match and match["feature"].startswith("sobel"):
                reason = (
                    f"its feature map correlates with the Sobel response: {match['description']}, "
                    f"r = {format_decimals(match['r'], 2)}"
                )
                rank = (1, n_channels, -abs(match["r"]), number, unit)
                yield Candidate(rank, network, layer, unit, reason)
        reason = "the first unit of its layer; no filter matched a classical kernel"
        yield Candidate((3, number), network, layer, 0, reason)
        rows = zip(matches["r"] or [], matches["kernels"] or [], strict=True)
        for unit, (correlations, kernels) in enumerate(rows):
            if len({*zip(kernels, np.sign(correlations), strict=True)}) > 1:
                continue  # its channels match different kernels
            r = float(np.mean(np.abs(correlations)))
            inverted = ", with inverted sign" if correlations[0] < 0 else ""
            signed_r = format_decimals(np.sign(correlations[0]) * r, 2)
            reason = (
                f"best-matching classical kernel: {kernels[0]}{inverted}, r = {signed_r} "
                f"(95th percentile of random filters: {matches['baseline']:.2f})"
            )
            is_sobel = kernels[0].startswith("Sobel") and r > matches["baseline"]
            filter_rank = (0, len(correlations), -r, number, unit) if is_sobel else (2, -r, number, unit)
            yield Candidate(filter_rank, network, layer, unit, reason)


def name_channels(network: NetworkData, layer: Layer, example: ConvolutionExample) -> list[str]:
    """Return names of the channels that a filter is applied to: colours, or their numbers.

    Args:
        network: The network.
        layer: Its convolution.
        example: A filter of the convolution, applied to an image.

    Returns:
        A name per channel of the example; "" for a single one.
    """
    if len(example.kernel) == 1:
        return [""]
    if layer["inputs"] == ["input"] and takes_rgb(example.kernel, network.description["preprocessing"]):
        return ["red", "green", "blue"]
    return [str(channel) for channel in range(len(example.kernel))]


def apply_filter(results: Results, layer: Layer, unit: int, image: str) -> ConvolutionExample | None:
    """Work out a unit of a convolution at its strongest position on an image.

    Args:
        results: The network's results.
        layer: The convolution, with weights (units, channels, k, k).
        unit: The unit.
        image: Name of the image.

    Returns:
        None where the computed map differs from the recorded one, as for a transposed convolution or one with
        other padding than zeros, or where an array is not recorded.
    """
    example = make_filter_example(results, layer, unit, image)
    return move_to_strongest(example) if example is not None and example.is_exact else None


def make_filter_example(results: Results, layer: Layer, unit: int, image: str) -> ConvolutionExample | None:
    """Make the example of a unit of a convolution on an image, with its whole map, which is not checked.

    Args:
        results: The network's results.
        layer: The convolution.
        unit: The unit.
        image: Name of the image.

    Returns:
        The example at position (0, 0); None for a transposed convolution, for one that is not
        two-dimensional, and where an array is not recorded.
    """
    filters, outputs = results.filters, results.activations(image)
    inputs, module, name = layer.get("inputs") or [], layer["module"], layer["name"]
    if len(inputs) != 1 or inputs[0] not in outputs or module not in filters or name not in outputs:
        return None
    source, weight, output = outputs[inputs[0]], filters[module], outputs[name][unit]
    if not weight.ndim == source.ndim + 1 == 4 or "Transpose" in layer["type"]:
        return None
    group = unit // (len(weight) // (layer["groups"] or 1))
    channels = np.arange(len(source))[group * weight.shape[1] : (group + 1) * weight.shape[1]]
    kernel, scale = weight[unit], _choose_brightness_scale(results, source, inputs[0])
    if inputs[0] == "input" and takes_rgb(kernel, results.network["preprocessing"]):
        order = get_display(results.network["preprocessing"])
        channels, kernel = channels[order], kernel[order]
    source = source[channels]
    vertical, horizontal = (
        _make_axis(layer, axis, weight.shape[2 + axis], output.shape[axis]) for axis in (0, 1)
    )
    return ConvolutionExample(
        name="learned",
        source=source,
        kernel=kernel,
        bias=float(filters[f"{module}.bias"][unit]) if f"{module}.bias" in filters else 0.0,
        vertical=vertical,
        horizontal=horizontal,
        output=output,
        position=(0, 0),
        brightness_scale=[scale[channel] for channel in channels],
    )


def _make_axis(layer: Layer, axis: int, kernel_size: int, output_size: int) -> ConvolutionAxis:
    """Describe an axis (0: vertical, 1: horizontal) of a convolution."""
    stride, dilation = layer["stride"], layer["dilation"]
    assert stride is not None  # as the layer is a convolution
    assert dilation is not None
    return ConvolutionAxis(-_get_padding(layer, axis), stride[axis], dilation[axis], kernel_size, output_size)


def _get_padding(layer: Layer, axis: int) -> int:
    """Return the zeros before the source on an axis; "same" puts the odd one behind it."""
    padding, kernel, dilation = layer["padding"], layer["kernel"], layer["dilation"]
    if padding == "same":
        assert kernel is not None  # as the layer is a convolution
        assert dilation is not None
        return dilation[axis] * (kernel[axis] - 1) // 2
    near = padding[axis] if isinstance(padding, list) else 0
    return near[0] if isinstance(near, list) else near


def _choose_brightness_scale(
    results: Results, source: np.ndarray, source_name: str
) -> list[tuple[float, float]]:
    """Choose factor and offset of each channel: they undo the normalisation, or span the values."""
    if source_name == "input":
        preprocessing = results.network["preprocessing"]
        return list(zip(preprocessing["std"], preprocessing["mean"], strict=True))
    low, span = float(source.min()), float(np.ptp(source)) or 1.0
    return [(1 / span, -low / span)] * len(source)


def move_to_strongest(example: ConvolutionExample) -> ConvolutionExample:
    """Move an example to a strong response inside the source, of several to the one nearest to the centre.

    A response is strong from STRONG_RESPONSE of the largest absolute value on.

    Args:
        example: The example, with its whole map.

    Returns:
        The example, cropped around the new position; around its own where no output is computed from inside
        the source alone.
    """
    values = np.where(example.compute_valid_mask(), np.abs(example.output), -np.inf)
    if not np.isfinite(values).any():
        return example.crop()
    rows, columns = np.nonzero(values >= STRONG_RESPONSE * values.max())
    height, width = example.output.shape
    squared_distance = ((rows - (height - 1) / 2) / height) ** 2 + ((columns - (width - 1) / 2) / width) ** 2
    nearest = int(np.argmin(squared_distance))
    return replace(example, position=(int(rows[nearest]), int(columns[nearest]))).crop()
