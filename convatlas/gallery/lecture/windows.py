"""The slides whose window moves: a convolution and a max-pooling layer on an image, with their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convatlas.gallery.convolution_example import ConvolutionExample, format_decimals
from convatlas.gallery.learned_filter import make_filter_example, name_channels
from convatlas.gallery.lecture.path import find_peak
from convatlas.gallery.lecture.pictures import Picture, PictureFolder, format_box
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.value_grid import RDBU, VIRIDIS, choose_text_colour, interpolate_colour
from convatlas.records import Layer

# Values on a side of a larger source of 1 and of 3 channels of 8 bits: a window is to be seen from afar.
CROP_SIDES = {1: 48, 3: 40}
CROP_SIDE_OF_LISTS = 24  # of other sources, whose values take more bytes
MAX_CHANNELS = 3  # whose patch, kernel and products are shown
MAX_PRINTED_COLUMNS = 9  # of all channels side by side; more are too narrow for numbers
MAX_PRINTED_KERNEL = 5  # values on a side; those of a larger one are too low
MANY_COLUMNS = 7  # from which numbers have two significant digits
PATCH_SIDE = 7  # values on a side of the patch of a pooling layer at most


@dataclass(frozen=True)
class ConvolutionContent:
    """A convolution on an image.

    Attributes:
        layer: The convolution.
        unit: Its unit.
        example: The convolution, cropped where the image is large.
        channel_names: Names of the channels of its source; "" for a single one.
        n_shown: The number of channels whose numbers are shown.
        is_printed: Whether there is room for numbers in the cells.
        stops: Flat indices into the map, ascending, at which the window stops, and what is there.
        source: The source.
        map: The map.
        crop_box: CSS of the crop in the image; "" where all of it is shown.
        is_without_border: Whether the outputs that padding is part of are left out.
    """

    layer: Layer
    unit: int
    example: ConvolutionExample
    channel_names: list[str]
    n_shown: int
    is_printed: bool
    stops: list[tuple[int, str]]
    source: Picture
    map: Picture
    crop_box: str
    is_without_border: bool


def make_convolution(
    network: NetworkData, layer: Layer, unit: int, image: str, pictures: PictureFolder
) -> ConvolutionContent | None:
    """Work out a unit of a convolution on an image, at every position.

    Args:
        network: The network.
        layer: The convolution.
        unit: The unit.
        image: Name of the image.
        pictures: Where the pictures are added.

    Returns:
        The convolution, without the outputs at the border where padding is not zeros. None where the values
        that are computed here are not those that are recorded, as of a transposed convolution, and where an
        array is not recorded.
    """
    filter_example = make_filter_example(network.results, layer, unit, image)
    if filter_example is None or not np.isfinite(filter_example.source).all():
        return None
    example, crop_box = _crop(filter_example)
    is_without_border = not example.is_exact
    if is_without_border:
        example = _drop_border(example)
        if not example.output.size or not example.is_exact:
            return None
    n_channels, *kernel = example.kernel.shape
    n_shown = min(n_channels, MAX_CHANNELS)
    columns = n_shown * kernel[1]
    example = replace(example, name="lecture", significant_digits=2 if columns > MANY_COLUMNS else 3)
    factors, offsets = np.array(example.brightness_scale)[:, :, None, None].swapaxes(0, 1)
    source_name = "image" if layer["inputs"] == ["input"] else f"output of {layer['inputs'][0]}"
    return ConvolutionContent(
        layer=layer,
        unit=unit,
        example=example,
        channel_names=name_channels(network, layer, example)[:n_shown],
        n_shown=n_shown,
        is_printed=columns <= MAX_PRINTED_COLUMNS and max(kernel) <= MAX_PRINTED_KERNEL,
        stops=choose_stops(example.output),
        source=pictures.add_image(
            "convolution-source", factors * example.source + offsets, f"The {source_name}"
        ),
        map=pictures.add_map("convolution-map", example.output, f"Feature map of unit {unit}"),
        crop_box=crop_box,
        is_without_border=is_without_border,
    )


def _crop(filter_example: ConvolutionExample) -> tuple[ConvolutionExample, str]:
    """Crop an example around the maximum of its map; return it with the CSS of the crop in the source."""
    valid = filter_example.compute_valid_mask()
    inside = np.where(valid, filter_example.output, -np.inf) if valid.any() else filter_example.output
    filter_example = replace(filter_example, position=find_peak(inside))
    height, width = filter_example.source.shape[1:]
    has_levels = filter_example.compute_levels() is not None
    side = (
        CROP_SIDES.get(len(filter_example.source), CROP_SIDE_OF_LISTS) if has_levels else CROP_SIDE_OF_LISTS
    )
    if max(height, width) <= side:
        return filter_example, ""
    example = filter_example.crop_to(side)
    first_row, first_column = (
        max(0, axis.start + axis.stride * cropped.first_output)
        for axis, cropped in (
            (filter_example.vertical, example.vertical),
            (filter_example.horizontal, example.horizontal),
        )
    )
    return example, format_box((height, width), first_row, first_column, *example.source.shape[1:])


def _drop_border(example: ConvolutionExample) -> ConvolutionExample:
    """Return an example without the outputs that padding is part of, whose position is the maximum."""
    valid = example.compute_valid_mask()
    spans = [np.flatnonzero(valid.any(axis=axis)) for axis in (1, 0)]
    slices = [slice(int(span[0]), int(span[-1]) + 1) if span.size else slice(0, 0) for span in spans]
    axes = [
        replace(
            axis,
            start=axis.start + axis.stride * part.start,
            output_size=part.stop - part.start,
            first_output=axis.first_output + part.start,
        )
        for axis, part in zip((example.vertical, example.horizontal), slices, strict=True)
    ]
    output = example.output[slices[0], slices[1]]
    position = find_peak(output) if output.size else (0, 0)
    return replace(example, vertical=axes[0], horizontal=axes[1], output=output, position=position)


def choose_stops(output: np.ndarray) -> list[tuple[int, str]]:
    """Choose positions of a map at which a window stops: the first, the extreme values, the last.

    Args:
        output: The map (h, w).

    Returns:
        Flat indices, ascending, and what is there.
    """
    low, high = ("the minimum", "the maximum")
    stops = {int(output.argmin()): low, int(output.argmax()): high}
    stops = {0: "the first position", output.size - 1: "the last position", **stops}
    return sorted(stops.items())


# Pooling


@dataclass(frozen=True)
class PatchCell:
    """A value of the patch: its text and colours, and the windows, from 0, whose maximum it is."""

    text: str
    fill: str
    text_colour: str
    windows: list[int]


@dataclass(frozen=True)
class PoolingContent:
    """A max-pooling layer on an image.

    Attributes:
        layer: The layer.
        unit: Its unit.
        patch: The values of a part of the map, by row.
        pooled: The maximum of each of its windows, by row.
        windows: CSS of each window in the patch.
        switches: For each window the row and column of its maximum in the input, as recorded.
        before: The map.
        after: The pooled map.
        before_box: CSS of the patch in the map.
        after_box: CSS of its windows in the pooled map.
    """

    layer: Layer
    unit: int
    patch: list[list[PatchCell]]
    pooled: list[list[PatchCell]]
    windows: list[str]
    switches: list[tuple[int, int]]
    before: Picture
    after: Picture
    before_box: str
    after_box: str


def make_pooling(
    layer: Layer, unit: int, outputs: Mapping[str, np.ndarray], pictures: PictureFolder
) -> PoolingContent | None:
    """Show max pooling around the maximum of a map, with the recorded maxima and switches.

    Args:
        layer: The max-pooling layer.
        unit: The unit.
        outputs: The recorded outputs on the image.
        pictures: Where the pictures are added.

    Returns:
        None where the patch holds NaN or infinite values, or its maxima are not the recorded ones.
    """
    values, pooled = outputs[layer["inputs"][0]][unit], outputs[layer["name"]][unit]
    switches = outputs[f"{layer['name']}@switches"][unit]
    kernel, stride = layer["kernel"] or [1, 1], layer["stride"] or [1, 1]
    padding = _get_padding(layer)
    counts = [
        min((PATCH_SIDE - k) // s + 1, size) for k, s, size in zip(kernel, stride, pooled.shape, strict=True)
    ]
    sides = [(count - 1) * s + k for count, s, k in zip(counts, stride, kernel, strict=True)]
    choices = [
        _choose_first(peak, count, s, p, side, size, n)
        for peak, count, s, p, side, size, n in zip(
            find_peak(pooled), counts, stride, padding, sides, values.shape, pooled.shape, strict=True
        )
    ]
    firsts = [first for first in choices if first is not None]
    if len(firsts) < len(choices):
        return None
    rows, columns = (slice(first, first + count) for first, count in zip(firsts, counts, strict=True))
    top, left = (first * s - p for first, s, p in zip(firsts, stride, padding, strict=True))
    patch, maxima = values[top : top + sides[0], left : left + sides[1]], pooled[rows, columns]
    places = [divmod(int(index), values.shape[1]) for index in switches[rows, columns].ravel()]
    is_recorded = np.array_equal(maxima.ravel(), [values[place] for place in places])
    if not np.isfinite(patch).all() or not is_recorded:
        return None
    return PoolingContent(
        layer=layer,
        unit=unit,
        patch=_make_cells(patch, patch, [(row - top, column - left) for row, column in places]),
        pooled=_make_cells(maxima, patch, []),
        windows=[
            format_box(patch.shape, stride[0] * row, stride[1] * column, *kernel)
            for row in range(counts[0])
            for column in range(counts[1])
        ],
        switches=places,
        before=pictures.add_map("pooling-before", values, f"Map of unit {unit} before pooling"),
        after=pictures.add_map("pooling-after", pooled, f"Map of unit {unit} after pooling"),
        before_box=format_box(values.shape, top, left, *sides),
        after_box=format_box(pooled.shape, firsts[0], firsts[1], *counts),
    )


def _get_padding(layer: Layer) -> list[int]:
    """Return the padding on each axis of a pooling layer."""
    padding = layer["padding"]
    if not isinstance(padding, list):
        return [0, 0]
    return [axis[0] if isinstance(axis, list) else axis for axis in padding]


def _choose_first(
    peak: int, count: int, stride: int, padding: int, side: int, size: int, n_windows: int
) -> int | None:
    """Return the first window on an axis of a patch around a peak that lies inside the map."""
    starts = [
        first
        for first in range(n_windows - count + 1)
        if first * stride >= padding and first * stride - padding + side <= size
    ]
    return min(starts, key=lambda first: abs(first + count // 2 - peak), default=None)


def _make_cells(
    values: np.ndarray, patch: np.ndarray, places: Sequence[tuple[int, int]]
) -> list[list[PatchCell]]:
    """Make cells of values, in the colours of the patch's scale."""
    max_abs = float(np.abs(patch).max()) or 1.0
    is_signed = bool((patch < 0).any())
    decimals = 0 if max_abs >= 100 else 1 if max_abs >= 10 else 2
    cells: list[list[PatchCell]] = []
    for row, line in enumerate(values.tolist()):
        cells.append([])
        for column, value in enumerate(line):
            share = (value / max_abs + 1) / 2 if is_signed else value / max_abs
            fill = interpolate_colour(RDBU if is_signed else VIRIDIS, share)
            text = format_decimals(value, decimals) if value else "0"
            windows = [n for n, place in enumerate(places) if place == (row, column)]
            cells[-1].append(PatchCell(text, fill, choose_text_colour(fill), windows))
    return cells
