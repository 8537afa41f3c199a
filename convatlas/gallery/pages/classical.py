"""Classical operators beside learned units: one sum of each worked, and which unit resembles what."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convatlas.analysis.sobel import SOBEL_DIAGONAL_DOWN, SOBEL_DIAGONAL_UP, SOBEL_X
from convatlas.files import Npz, read_json
from convatlas.gallery.pages.network import NetworkData
from convatlas.gallery.pages.site import GalleryContext, SitePage
from convatlas.gallery.pages.window import ConvolutionAxis, ConvolutionExample, format_number
from convatlas.image_io import denormalize
from convatlas.plotting.colormap import ColourScale

SOBEL_KERNELS = {
    "Sobel x": (SOBEL_X, "answers where it is brighter to the right"),
    "Sobel y": (SOBEL_X.T, "where it is brighter below"),
    "Sobel 45° down": (SOBEL_DIAGONAL_DOWN, "where it is brighter to the lower right"),
    "Sobel 45° up": (SOBEL_DIAGONAL_UP, "where it is brighter to the upper right"),
}
LUMINANCE_WEIGHTS = np.array([0.2125, 0.7154, 0.0721])  # of red, green and blue, Rec. 709, as in the plates
MIN_MAP_SIDE = 12  # of a map's sides, from which a picture of it tells something
RELATIVE_TOLERANCE = (
    2e-3  # of a map's largest value: what the recorded sums may differ by, in half precision and TF32
)


@dataclass(frozen=True)
class LearnedFilter:
    """A learned filter, worked on an image of its network: which, why this one, and the sum."""

    network: NetworkData
    layer: dict[str, Any]
    unit: int
    reason: str
    image: str
    example: ConvolutionExample


@dataclass(frozen=True)
class BestMatch:
    """The unit of a network whose map most resembles a classical feature, by the pooled correlation r."""

    network: NetworkData
    layer: str
    unit: int
    description: str
    r: float
    baseline: float
    is_fine: bool  # whether its map has cells enough to be looked at

    @property
    def rank(self) -> tuple[bool, float]:
        """What orders the units: fine maps first; rounded, for a layer that passes a map on is no better."""
        return self.is_fine, round(abs(self.r), 6)


def make_pages(atlas: GalleryContext) -> Iterator[SitePage]:
    """Yield the page; it has Sobel's sum at least."""
    learned, rows = next(find_learned_filters(atlas), None), find_best_matches(atlas)
    page = learned.network if learned else atlas.networks[0]
    sobel = apply_sobel(atlas.results, page, page.images[0]["name"])
    windows = [sobel, learned.example] if learned else [sobel]
    pictures = {f"{window.name}-source": render_source(window) for window in windows}
    pictures |= {f"{window.name}-map": render_map(window.output) for window in windows}
    features = []
    for feature, found in rows.items():
        best = max(found, key=lambda one: one.rank)
        image, three = render_match(atlas.results, feature, best)
        pictures |= {f"{feature}-{what}": picture for what, picture in three.items()}
        of = {one.network.name: one for one in found}
        features.append({"name": feature, "image": image, "best": best, "of": of})
    values = {
        "kernels": SOBEL_KERNELS,
        "sobel": sobel,
        "of": page,
        "image": page.images[0]["name"],
        "learned": learned,
        "features": features,
    }
    places: dict[str, str | bytes] = {f"classical/{name}.png": picture for name, picture in pictures.items()}
    title = "Classical operators"
    yield SitePage(
        "classical.html", "classical.html", title, values, "Across networks", generated_files=places
    )


# Sums, worked


def apply_sobel(results: Path, page: NetworkData, image: str) -> ConvolutionExample:
    """Sobel's sum over the brightness of an image, 0 to 255, at a strong vertical edge."""
    seen = denormalize(
        Npz(results / page.name / f"activations/{image}.npz")["input"], page.network["preprocessing"]
    )
    grey = np.tensordot(LUMINANCE_WEIGHTS, seen, 1) if len(seen) == 3 else seen.mean(axis=0)
    source = np.round(255 * grey.clip(0, 1))[None]
    down, across = (ConvolutionAxis(0, 1, 1, 3, size - 2) for size in source.shape[1:])
    nothing = np.zeros((down.output_size, across.output_size))
    window = ConvolutionExample(
        "sobel", source, SOBEL_X[None], 0.0, down, across, nothing, (0, 0), [(1 / 255, 0.0)]
    )
    return _move_to_strongest(replace(window, output=window.compute_output()))


def find_learned_filters(atlas: GalleryContext) -> Iterator[LearnedFilter]:
    """Learned filters worked on the first image of their network, the most like a Sobel kernel first.

    Only those whose sums are the recorded map: a convolution that pads by anything but zero is passed over.
    """
    for _, page, unit, why in sorted(find_candidates(atlas), key=lambda found: found[0]):
        layer = next(layer for layer in page.layers if layer["ordinal"] == 1)
        image = page.images[0]["name"]
        window = apply_filter(atlas.results / page.name, page.network["preprocessing"], layer, unit, image)
        if window is not None:
            yield LearnedFilter(page, layer, unit, why, image, window)


Candidate = tuple[tuple[Any, ...], NetworkData, int, str]


def find_candidates(atlas: GalleryContext) -> Iterator[Candidate]:
    """Units of the networks' first convolutions: how late each is tried, and why it was chosen, in words.

    First filters whose every channel is nearest to the same kernel of Sobel's, more so than chance has it,
    then units whose maps are like Sobel's, of few channels before many, then filters nearest to any kernel.
    """
    for n, page in enumerate(atlas.networks):
        folder = atlas.results / page.name / "classical"
        found = read_json(folder / "filters.json")
        if not found:
            continue
        like = read_json(folder / "units.json")["layers"].get(found["layer"], {"units": []})
        for unit, match in enumerate(like["units"]):
            if match and match["feature"].startswith("sobel"):
                why = f"its map resembles Sobel’s: {match['words']}, r = {format_number(match['r'], 2)}"
                yield (
                    (1, len(page.network["preprocessing"]["mean"]), -abs(match["r"]), n, unit),
                    page,
                    unit,
                    why,
                )
        yield (3, n), page, 0, "the first of its layer, for none resembles a classical kernel"
        for unit, (values, names) in enumerate(zip(found["r"] or [], found["kernels"] or [], strict=True)):
            if len({*zip(names, np.sign(values), strict=True)}) > 1:
                continue  # its channels do not agree
            r, turned = float(np.mean(np.abs(values))), ", turned to its negative" if values[0] < 0 else ""
            signed = format_number(np.sign(values[0]) * r, 2)
            told = (
                f"the likest classical kernel is {names[0]}{turned}, r = {signed}, where 95 % of filters of "
                f"random numbers stay below {found['baseline']:.2f}"
            )
            is_sobel = names[0].startswith("Sobel") and r > found["baseline"]
            yield (0, len(values), -r, n, unit) if is_sobel else (2, -r, n, unit), page, unit, told


def apply_filter(
    folder: Path, preprocessing: dict[str, Any], layer: dict[str, Any], unit: int, image: str
) -> ConvolutionExample | None:
    """The sum of a unit of a convolution, (units, channels, k, k), at its strongest place on an image.

    None where the recorded map is not that sum: of a transposed convolution, or one that pads otherwise.
    """
    filters, outputs = Npz(folder / "filters.npz"), Npz(folder / f"activations/{image}.npz")
    below, module = layer.get("inputs") or [], layer["module"]
    if len(below) != 1 or below[0] not in outputs or module not in filters or layer["name"] not in outputs:
        return None
    source, weight, made = outputs[below[0]], filters[module], outputs[layer["name"]][unit]
    if not weight.ndim == source.ndim + 1 == 4 or "Transpose" in layer["type"]:
        return None
    bias = float(filters[f"{module}.bias"][unit]) if f"{module}.bias" in filters else 0.0
    group = unit // (len(weight) // layer["groups"])
    source = source[group * weight.shape[1] : (group + 1) * weight.shape[1]]
    axes = [
        ConvolutionAxis(
            -_get_padding(layer, axis), layer["stride"][axis], layer["dilation"][axis], size, cells
        )
        for axis, (size, cells) in enumerate(zip(weight.shape[2:], made.shape, strict=True))
    ]
    if below[0] == "input":
        shade = list(zip(preprocessing["std"], preprocessing["mean"], strict=True))
    else:
        low, span = float(source.min()), float(np.ptp(source)) or 1.0
        shade = [(1 / span, -low / span)] * len(source)
    window = ConvolutionExample("learned", source, weight[unit], bias, *axes, made, (0, 0), shade)
    if np.abs(window.compute_output() - made).max() > RELATIVE_TOLERANCE * max(
        float(np.abs(made).max()), 1e-6
    ):
        return None
    return _move_to_strongest(window)


def _get_padding(layer: dict[str, Any], axis: int) -> int:
    """Zeros before the source on an axis; "same" puts the odd one behind."""
    given = layer["padding"]
    if given == "same":
        return layer["dilation"][axis] * (layer["kernel"][axis] - 1) // 2
    return 0 if given == "valid" else given[axis]


def _move_to_strongest(window: ConvolutionExample) -> ConvolutionExample:
    """Put a window where its map is strong, wholly inside, and of such places nearest to the middle."""
    values = np.where(window.compute_valid_mask(), np.abs(window.output), -np.inf)
    if not np.isfinite(values).any():
        return window.crop()
    strong = values >= 0.9 * values.max()
    rows, columns = np.nonzero(strong)
    far = sum(((n - (size - 1) / 2) / size) ** 2 for n, size in
              zip((rows, columns), window.output.shape, strict=True))  # fmt: skip
    nearest = int(np.argmin(far))
    return replace(window, position=(int(rows[nearest]), int(columns[nearest]))).crop()


# Features and the units that resemble them


def find_best_matches(atlas: GalleryContext) -> dict[str, list[BestMatch]]:
    """For each classical feature that a unit resembles, the likest unit of each network that has one.

    Of layers that have plates, and of coarse maps only where no fine one resembles it.
    """
    found: dict[str, dict[str, BestMatch]] = {}
    for page in atlas.networks:
        given = read_json(atlas.results / page.name / "classical/units.json")["layers"]
        shown = {
            layer["name"]: layer["output_shape"]
            for layer in page.layers_with_figures
            if layer["name"] in given
        }
        for layer, shape in shown.items():
            like, is_fine = given[layer], min(shape[1:]) >= MIN_MAP_SIDE
            for unit, match in enumerate(like["units"]):
                if not match:
                    continue
                one = BestMatch(page, layer, unit, match["words"], match["r"], like["baseline"], is_fine)
                best = found.setdefault(match["feature"].rstrip("+-"), {})
                if page.name not in best or one.rank > best[page.name].rank:
                    best[page.name] = one
    first = atlas.networks[0]
    order = Npz(atlas.results / first.name / f"classical/{first.images[0]['name']}.npz")
    return {feature: list(found[feature].values()) for feature in order if feature in found}


def render_match(results: Path, feature: str, one: BestMatch) -> tuple[str, dict[str, bytes]]:
    """The first image on which a unit is alive: its name, and it, a classical feature of it, and the map."""
    folder = results / one.network.name
    for image in one.network.images:
        made = Npz(folder / f"activations/{image['name']}.npz")[one.layer][one.unit]
        if np.ptp(made):
            break
    seen = Npz(folder / f"activations/{image['name']}.npz")["input"]
    return image["name"], {
        "image": _encode_image(denormalize(seen, one.network.network["preprocessing"])),
        "feature": render_map(Npz(folder / f"classical/{image['name']}.npz")[feature]),
        "unit": render_map(made),
    }


# Pictures


def render_source(window: ConvolutionExample) -> bytes:
    """What a window slides over, as it looks: colours of three channels, else grey; PNG."""
    bright = np.stack([factor * plane + offset for plane, (factor, offset) in
                       zip(window.source.astype(np.float64), window.brightness_scale, strict=True)])  # fmt: skip
    return _encode_image(bright)


def _encode_image(bright: np.ndarray) -> bytes:
    """An image (C, H, W) in 0..1: colours of three channels, else the channels' mean; PNG."""
    shown = bright.clip(0, 1) if len(bright) == 3 else bright.clip(0, 1).mean(axis=0, keepdims=True)
    return _encode_png(np.round(255 * shown).astype(np.uint8).transpose(1, 2, 0).squeeze())


def render_map(values: np.ndarray) -> bytes:
    """A map in the plates' colours, a pixel a value; PNG."""
    values = values.astype(np.float64)
    return _encode_png(ColourScale.from_values(values).to_rgb(values))


def _encode_png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png", optimize=True)
    return content.getvalue()
