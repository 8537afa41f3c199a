"""The page on classical operators: Sobel and a learned filter worked out, and units that match features."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from convatlas.analysis.sobel import SOBEL_DIAGONAL_DOWN, SOBEL_DIAGONAL_UP, SOBEL_X
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.convolution_example import ConvolutionAxis, ConvolutionExample
from convatlas.gallery.learned_filter import find_learned_filters, move_to_strongest
from convatlas.gallery.network_data import NetworkData
from convatlas.image_io import denormalize, order_as_rgb
from convatlas.plotting.colormap import ColourScale

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
    """Yield the page, with Sobel's operator at least; none where no network takes images.

    Args:
        context: The run that the site shows.
    """
    networks = [network for network in context.networks if network.takes_images]
    if not networks:
        return
    learned_filter = next(find_learned_filters(context), None)
    network = learned_filter.network if learned_filter else networks[0]
    image = network.images[0]["name"]
    image_title = network.image_titles[image]
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
            "image_title": image_title,
            "learned_filter": learned_filter,
            "features": features,
        },
        "Analyses",
        generated_files={f"classical/{name}.png": picture for name, picture in pictures.items()},
    )


# Convolutions, worked out


def apply_sobel(network: NetworkData, image: str) -> ConvolutionExample:
    """Apply Sobel's x operator to the brightness of an image, 0 to 255, at a strong vertical edge.

    Args:
        network: The network whose recorded input is filtered.
        image: Name of the image.

    Returns:
        The example, cropped around the edge.
    """
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
    return move_to_strongest(replace(example, output=example.compute_output()))


# Units that match a classical feature


def find_best_matches(context: GalleryContext) -> dict[str, list[BestMatch]]:
    """Find the best match of each classical feature in each network.

    Only layers with figures are searched; coarse maps count only where no fine one matches.

    Args:
        context: The run that the site shows.

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
    if not best:
        return {}
    first = next(network for network in context.networks if network.takes_images)
    order = first.results.classical(first.images[0]["name"])
    return {feature: list(best[feature].values()) for feature in order if feature in best}


def render_match(feature: str, match: BestMatch) -> tuple[str, dict[str, bytes]]:
    """Render a match on the first image on which the unit's map is not constant.

    Args:
        feature: Name of the classical feature.
        match: The match.

    Returns:
        The image's title, and as PNG the "image", the classical "feature" and the map of the "unit".
    """
    network = match.network
    for image in network.images:
        values = network.results.activations(image["name"])[match.layer][match.unit]
        if np.ptp(values):
            break
    name = image["name"]
    return network.image_titles[name], {
        "image": _encode_image(_read_pixels(network, name)),
        "feature": render_map(network.results.classical(name)[feature]),
        "unit": render_map(values),
    }


# Pictures


def render_source(example: ConvolutionExample) -> bytes:
    """Render the source of a convolution as PNG: three channels in colour, others in grey.

    Args:
        example: The convolution, whose brightness scale is applied.
    """
    planes = [
        factor * plane + offset
        for plane, (factor, offset) in zip(
            example.source.astype(np.float64), example.brightness_scale, strict=True
        )
    ]
    return _encode_image(np.stack(planes))


def render_map(values: np.ndarray) -> bytes:
    """Render a map as PNG in the colours of the figures, one pixel per value.

    Args:
        values: The map (H, W).
    """
    values = values.astype(np.float64)
    return _encode_png(ColourScale.from_values(values).to_rgb(values))


def _read_pixels(network: NetworkData, image: str) -> np.ndarray:
    """Return the network's input without its normalisation, (C, H, W) in 0..1."""
    preprocessing: Any = network.description["preprocessing"]
    return order_as_rgb(
        denormalize(network.results.activations(image)["input"], preprocessing), preprocessing
    )


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
