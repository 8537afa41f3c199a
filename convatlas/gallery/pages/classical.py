"""The page on classical operators: Sobel and a learned filter worked out, and units that match features."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from convatlas.analysis.sobel import SOBEL_DIAGONAL_DOWN, SOBEL_DIAGONAL_UP, SOBEL_X
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.convolution_example import ConvolutionAxis, ConvolutionExample, format_number
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import denormalize
from convatlas.plotting.colormap import ColourScale
from convatlas.records import Layer
from convatlas.results import Results

SOBEL_KERNELS = {
    "Sobel x": (SOBEL_X, "responds to brightness increasing to the right (vertical edges)"),
    "Sobel y": (SOBEL_X.T, "responds to brightness increasing downwards (horizontal edges)"),
    "Sobel 45° down": (
        SOBEL_DIAGONAL_DOWN,
        "responds to brightness increasing towards the lower right",
    ),
    "Sobel 45° up": (SOBEL_DIAGONAL_UP, "responds to brightness increasing towards the upper right"),
}
LUMINANCE_WEIGHTS = np.array([0.2125, 0.7154, 0.0721])  # Rec. 709, as scikit-image's rgb2gray
MIN_MAP_SIDE = 12  # values; a smaller map is too coarse to be looked at
# The tolerance between recomputed and recorded values, relative to the largest, in half precision and TF32.
RELATIVE_TOLERANCE = 2e-3
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

    """

    network: NetworkData
    layer: Layer
    unit: int
    reason: str
    image: str
    example: ConvolutionExample


@dataclass(frozen=True)
class Candidate:
    """A unit of a first convolution that may be shown: candidates are tried in the order of their ranks."""

    rank: tuple[float, ...]
    network: NetworkData
    layer: Layer
    unit: int
    reason: str


@dataclass(frozen=True)
class BestMatch:
    """The unit of a network that matches a classical feature best.

    Attributes:
        network: Its network.
        layer: Name of its layer.
        unit: Its number.
        description: The feature, in words.
        r: Pearson's correlation, pooled over the sample images.
        baseline: 95th percentile of the correlation in the untrained network.
        is_fine: Whether its map is large enough to be looked at.

    """

    network: NetworkData
    layer: str
    unit: int
    description: str
    r: float
    baseline: float
    is_fine: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """Return what orders units: fine maps first, then the correlation.

        It is rounded, so that a layer that passes a map on does not rank above the layer that computed it.
        """
        return self.is_fine, round(abs(self.r), 6)


@dataclass(frozen=True)
class FeatureEntry:
    """A classical feature: the image shown, its best match, and the best match of each network."""

    name: str
    image: str
    best_match: BestMatch
    by_network: dict[str, BestMatch]


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page, with Sobel's operator at least."""
    learned_filter = next(find_learned_filters(context), None)
    network = learned_filter.network if learned_filter else context.networks[0]
    image = network.images[0]["name"]
    sobel = apply_sobel(network, image)
    pictures: dict[str, bytes] = {}
    for example in [sobel, learned_filter.example] if learned_filter else [sobel]:
        pictures[f"{example.name}-source"] = render_source(example)
        pictures[f"{example.name}-map"] = render_map(example.output)
    features = []
    for feature, matches in find_best_matches(context).items():
        best_match = max(matches, key=lambda match: match.rank)
        feature_image, match_pictures = render_match(feature, best_match)
        pictures |= {f"{feature}-{suffix}": picture for suffix, picture in match_pictures.items()}
        by_network = {match.network.name: match for match in matches}
        features.append(FeatureEntry(feature, feature_image, best_match, by_network))
    yield SitePage(
        "classical.html",
        "classical.html",
        "Classical operators",
        {
            "sobel_kernels": SOBEL_KERNELS,
            "sobel": sobel,
            "network": network,
            "image": image,
            "learned_filter": learned_filter,
            "features": features,
        },
        "Across networks",
        generated_files={f"classical/{name}.png": picture for name, picture in pictures.items()},
    )


# Convolutions, worked out


def apply_sobel(network: NetworkData, image: str) -> ConvolutionExample:
    """Apply Sobel's x operator to the brightness of an image, 0 to 255, at a strong vertical edge."""
    pixels = _read_pixels(network, image)
    brightness = np.tensordot(LUMINANCE_WEIGHTS, pixels, 1) if len(pixels) == 3 else pixels.mean(axis=0)
    source = np.round(255 * brightness.clip(0, 1))[None]
    vertical, horizontal = (ConvolutionAxis(0, 1, 1, 3, size - 2) for size in source.shape[1:])
    example = ConvolutionExample(
        name="sobel",
        source=source,
        kernel=SOBEL_X[None],
        bias=0.0,
        vertical=vertical,
        horizontal=horizontal,
        output=np.zeros((vertical.output_size, horizontal.output_size)),
        position=(0, 0),
        brightness_scale=[(1 / 255, 0.0)],
    )
    return _move_to_strongest(replace(example, output=example.compute_output()))


def find_learned_filters(context: GalleryContext) -> Iterator[LearnedFilter]:
    """Yield learned filters, worked out on the first image of their network, the best candidates first.

    Filters whose computed map differs from the recorded one are skipped, such as those of a convolution with
    other padding than zeros.
    """
    for candidate in sorted(find_candidates(context), key=lambda candidate: candidate.rank):
        network = candidate.network
        image = network.images[0]["name"]
        example = apply_filter(network.results, candidate.layer, candidate.unit, image)
        if example is not None:
            yield LearnedFilter(network, candidate.layer, candidate.unit, candidate.reason, image, example)


def find_candidates(context: GalleryContext) -> Iterator[Candidate]:
    """Yield units of the networks' first convolutions.

    The order of ranks: filters whose channels all match one of Sobel's kernels, above the baseline; units
    whose maps match a Sobel feature, those of few input channels first; filters that match any kernel; the
    first unit.
    """
    for number, network in enumerate(context.networks):
        matches = network.results.filter_matches
        if not matches:
            continue
        layer = next(layer for layer in network.layers if layer["ordinal"] == 1)
        n_channels = len(network.description["preprocessing"]["mean"])
        unit_matches = network.results.unit_matches["layers"].get(matches["layer"])
        for unit, match in enumerate(unit_matches["units"] if unit_matches else []):
            if match and match["feature"].startswith("sobel"):
                reason = (
                    f"its feature map correlates with the Sobel response: {match['description']}, "
                    f"r = {format_number(match['r'], 2)}"
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
            signed_r = format_number(np.sign(correlations[0]) * r, 2)
            reason = (
                f"best-matching classical kernel: {kernels[0]}{inverted}, r = {signed_r} "
                f"(95th percentile of random filters: {matches['baseline']:.2f})"
            )
            is_sobel = kernels[0].startswith("Sobel") and r > matches["baseline"]
            filter_rank = (0, len(correlations), -r, number, unit) if is_sobel else (2, -r, number, unit)
            yield Candidate(filter_rank, network, layer, unit, reason)


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
    filters, outputs = results.filters, results.activations(image)
    inputs, module, name = layer.get("inputs") or [], layer["module"], layer["name"]
    if len(inputs) != 1 or inputs[0] not in outputs or module not in filters or name not in outputs:
        return None
    source, weight, output = outputs[inputs[0]], filters[module], outputs[name][unit]
    if not weight.ndim == source.ndim + 1 == 4 or "Transpose" in layer["type"]:
        return None
    group = unit // (len(weight) // (layer["groups"] or 1))
    source = source[group * weight.shape[1] : (group + 1) * weight.shape[1]]
    vertical, horizontal = (
        _make_axis(layer, axis, weight.shape[2 + axis], output.shape[axis]) for axis in (0, 1)
    )
    example = ConvolutionExample(
        name="learned",
        source=source,
        kernel=weight[unit],
        bias=float(filters[f"{module}.bias"][unit]) if f"{module}.bias" in filters else 0.0,
        vertical=vertical,
        horizontal=horizontal,
        output=output,
        position=(0, 0),
        brightness_scale=_choose_brightness_scale(results, source, inputs[0]),
    )
    max_difference = np.abs(example.compute_output() - output).max()
    if max_difference > RELATIVE_TOLERANCE * max(float(np.abs(output).max()), 1e-6):
        return None
    return _move_to_strongest(example)


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
    return padding[axis] if isinstance(padding, list) else 0


def _choose_brightness_scale(
    results: Results, source: np.ndarray, source_name: str
) -> list[tuple[float, float]]:
    """Choose factor and offset of each channel: they undo the normalisation, or span the values."""
    if source_name == "input":
        preprocessing = results.network["preprocessing"]
        return list(zip(preprocessing["std"], preprocessing["mean"], strict=True))
    low, span = float(source.min()), float(np.ptp(source)) or 1.0
    return [(1 / span, -low / span)] * len(source)


def _move_to_strongest(example: ConvolutionExample) -> ConvolutionExample:
    """Move to a strong response inside the source, of several to the one nearest to the centre."""
    values = np.where(example.compute_valid_mask(), np.abs(example.output), -np.inf)
    if not np.isfinite(values).any():
        return example.crop()
    rows, columns = np.nonzero(values >= STRONG_RESPONSE * values.max())
    height, width = example.output.shape
    squared_distance = ((rows - (height - 1) / 2) / height) ** 2 + ((columns - (width - 1) / 2) / width) ** 2
    nearest = int(np.argmin(squared_distance))
    return replace(example, position=(int(rows[nearest]), int(columns[nearest]))).crop()


# Units that match a classical feature


def find_best_matches(context: GalleryContext) -> dict[str, list[BestMatch]]:
    """Find the best match of each classical feature in each network.

    Only layers with figures are searched; coarse maps count only where no fine one matches.

    Returns:
        The best match of each network that has one, by feature.

    """
    best: dict[str, dict[str, BestMatch]] = {}
    for network in context.networks:
        layer_matches = network.results.unit_matches["layers"]
        for layer in network.layers_with_figures:
            name = layer["name"]
            if name not in layer_matches:
                continue
            is_fine = min(layer["output_shape"][1:]) >= MIN_MAP_SIDE
            baseline = layer_matches[name]["baseline"]
            for unit, match in enumerate(layer_matches[name]["units"]):
                if not match:
                    continue
                candidate = BestMatch(
                    network, name, unit, match["description"], match["r"], baseline, is_fine
                )
                by_network = best.setdefault(match["feature"].rstrip("+-"), {})
                if network.name not in by_network or candidate.rank > by_network[network.name].rank:
                    by_network[network.name] = candidate
    first = context.networks[0]
    order = first.results.classical(first.images[0]["name"])
    return {feature: list(best[feature].values()) for feature in order if feature in best}


def render_match(feature: str, match: BestMatch) -> tuple[str, dict[str, bytes]]:
    """Render a match on the first image on which the unit's map is not constant.

    Returns:
        The image's name, and as PNG the "image", the classical "feature" and the map of the "unit".

    """
    network = match.network
    for image in network.images:
        values = network.results.activations(image["name"])[match.layer][match.unit]
        if np.ptp(values):
            break
    name = image["name"]
    return name, {
        "image": _encode_image(_read_pixels(network, name)),
        "feature": render_map(network.results.classical(name)[feature]),
        "unit": render_map(values),
    }


# Pictures


def render_source(example: ConvolutionExample) -> bytes:
    """Render the source of a convolution as PNG: three channels in colour, others in grey."""
    planes = [
        factor * plane + offset
        for plane, (factor, offset) in zip(
            example.source.astype(np.float64), example.brightness_scale, strict=True
        )
    ]
    return _encode_image(np.stack(planes))


def render_map(values: np.ndarray) -> bytes:
    """Render a map (H, W) as PNG in the colours of the figures, one pixel per value."""
    values = values.astype(np.float64)
    return _encode_png(ColourScale.from_values(values).to_rgb(values))


def _read_pixels(network: NetworkData, image: str) -> np.ndarray:
    """Return an image as the network saw it, (C, H, W) in 0..1, without its normalisation."""
    preprocessing: Any = network.description["preprocessing"]
    return denormalize(network.results.activations(image)["input"], preprocessing)


def _encode_image(pixels: np.ndarray) -> bytes:
    """Encode an image (C, H, W) in 0..1 as PNG: three channels in colour, the mean of others in grey."""
    pixels = pixels.clip(0, 1)
    if len(pixels) != 3:
        pixels = pixels.mean(axis=0, keepdims=True)
    return _encode_png(np.round(255 * pixels).astype(np.uint8).transpose(1, 2, 0).squeeze())


def _encode_png(pixels: np.ndarray) -> bytes:
    """Encode (H, W[, 3]) uint8 as PNG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png", optimize=True)
    return content.getvalue()
