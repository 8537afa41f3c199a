"""One value of a convolution worked out, at any position: patch, kernel, products and sum."""

import base64
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

import numpy as np
from markupsafe import Markup

from convatlas.gallery.explorer_data import dump_script_json

MAX_SOURCE_VALUES = 16_000  # of a source on a page; a larger one is cropped around the position
SIGNIFICANT_DIGITS = 3  # of the largest value; one fewer with a large kernel
LARGE_KERNEL_SIZE = 25  # values per channel
MAX_DECIMALS = 6
# The tolerance between computed and recorded values, relative to the largest, in half precision and TF32.
RELATIVE_TOLERANCE = 2e-3
LEVELS_TOLERANCE = 1e-6  # between an image and its levels of 8 bits, relative to its largest value


class ValueCell(TypedDict, total=False):
    """A value as text, with a pixel's brightness (None outside) or a number's sign and magnitude."""

    text: str
    grey: int | None  # 0..255
    sign: Literal["minus", "plus"]
    magnitude: float  # 0..1


class ChannelExample(TypedDict):
    """One channel of the example."""

    window: list[list[ValueCell]]
    kernel: list[list[ValueCell]]
    products: list[list[ValueCell]]
    sum: str


class WorkedExample(TypedDict):
    """The example at one position, as text."""

    channels: list[ChannelExample]
    bias: str
    total: str
    recorded: str  # the value in the recorded map
    position_text: str


@dataclass(frozen=True)
class ConvolutionAxis:
    """One axis of a convolution: output n is computed from the source at start + stride · n + dilation · i.

    Attributes:
        start: The index in the source of the first output's first value; negative in the padding.
        stride: The stride.
        dilation: The dilation.
        kernel_size: The size of the kernel.
        output_size: The number of outputs.
        first_output: The number of the first output, where the map is a part of a larger one.
    """

    start: int
    stride: int
    dilation: int
    kernel_size: int
    output_size: int
    first_output: int = 0

    def source_indices(self) -> np.ndarray:
        """Return the indices in the source for each output, (outputs, kernel size); some may be outside."""
        starts = self.start + self.stride * np.arange(self.output_size)
        return starts[:, None] + self.dilation * np.arange(self.kernel_size)

    @property
    def extent(self) -> int:
        """Return the number of values from the first to the last under the kernel."""
        return self.dilation * (self.kernel_size - 1) + 1

    def crop(self, output: int, width: int) -> tuple["ConvolutionAxis", slice, slice]:
        """Crop the axis to the outputs around one.

        Args:
            output: The output to keep.
            width: The largest number of values of the source.

        Returns:
            The cropped axis, and the slices of the source and of the map.
        """
        count = min(self.output_size, max(1, (width - self.extent) // self.stride + 1))
        begin = min(max(output - count // 2, 0), self.output_size - count)
        start = self.start + self.stride * begin
        low = max(0, start)
        axis = ConvolutionAxis(
            start - low, self.stride, self.dilation, self.kernel_size, count, self.first_output + begin
        )
        return axis, slice(low, start + self.stride * (count - 1) + self.extent), slice(begin, begin + count)


@dataclass(frozen=True)
class ConvolutionExample:
    """A convolution with one kernel.

    Attributes:
        name: What its files and elements are named after.
        source: The source (C, H, W); zero beyond its border.
        kernel: The kernel (C, k, k).
        bias: The bias.
        vertical: The vertical axis.
        horizontal: The horizontal axis.
        output: The map (h, w).
        position: Row and column of the output that is shown first.
        brightness_scale: For each channel the factor and offset that turn values into brightness, 0..1.
        significant_digits: Of the largest value of the source, the kernel and the products.
    """

    name: str
    source: np.ndarray
    kernel: np.ndarray
    bias: float
    vertical: ConvolutionAxis
    horizontal: ConvolutionAxis
    output: np.ndarray
    position: tuple[int, int]
    brightness_scale: list[tuple[float, float]]
    significant_digits: int = SIGNIFICANT_DIGITS

    def gather_source(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the values of the source at some positions, of all channels.

        Args:
            rows: Row indices in the source; negative and too large ones are outside.
            columns: Column indices, of a shape that broadcasts with `rows` to (...).

        Returns:
            The values (C, ...) float64; NaN outside the source.
        """
        padded = np.pad(self.source.astype(np.float64), [(0, 0), (1, 1), (1, 1)], constant_values=np.nan)
        height, width = self.source.shape[1:]
        return padded[:, rows.clip(-1, height) + 1, columns.clip(-1, width) + 1]

    def get_patch(self, y: int, x: int) -> np.ndarray:
        """Return the patch of the source from which one output is computed.

        Args:
            y: Row of the output in the map.
            x: Column of the output in the map.

        Returns:
            The patch (C, k, k) float64; NaN outside the source.
        """
        return self.gather_source(
            self.vertical.source_indices()[y][:, None], self.horizontal.source_indices()[x]
        )

    def compute_value(self, y: int, x: int) -> float:
        """Compute one output: the sum of patch times kernel, plus the bias, with zeros outside the source.

        Args:
            y: Row of the output in the map.
            x: Column of the output in the map.
        """
        return float((np.nan_to_num(self.get_patch(y, x)) * self.kernel).sum() + self.bias)

    def compute_output(self) -> np.ndarray:
        """Compute every output, (h, w) float64."""
        rows, columns = self.vertical.source_indices()[:, :, None, None], self.horizontal.source_indices()
        patches = np.nan_to_num(self.gather_source(rows, columns))
        output: np.ndarray = np.einsum("cyixj,cij->yx", patches, self.kernel.astype(np.float64))
        return output + self.bias

    @property
    def is_exact(self) -> bool:
        """Return whether the computed map is the recorded one, which holds no NaN or infinite values."""
        difference = np.abs(self.compute_output() - self.output).max()
        return bool(difference <= RELATIVE_TOLERANCE * max(float(np.abs(self.output).max()), 1e-6))

    def compute_valid_mask(self) -> np.ndarray:
        """Return which outputs are computed from inside the source alone, (h, w) bool."""
        masks = [
            ((indices >= 0) & (indices < size)).all(axis=1)
            for indices, size in zip(
                (self.vertical.source_indices(), self.horizontal.source_indices()),
                self.source.shape[1:],
                strict=True,
            )
        ]
        return np.outer(masks[0], masks[1])

    def crop(self) -> "ConvolutionExample":
        """Return the example, cropped around the position where the source is too large for a page."""
        if self.source.size <= MAX_SOURCE_VALUES:
            return self
        return self.crop_to(math.isqrt(MAX_SOURCE_VALUES // len(self.source)))

    def crop_to(self, side: int) -> "ConvolutionExample":
        """Return the example, cropped around the position.

        Args:
            side: The largest number of rows and columns of the source; more where the kernel is larger.
        """
        vertical, source_rows, output_rows = self.vertical.crop(self.position[0], side)
        horizontal, source_columns, output_columns = self.horizontal.crop(self.position[1], side)
        return replace(
            self,
            source=self.source[:, source_rows, source_columns],
            vertical=vertical,
            horizontal=horizontal,
            output=self.output[output_rows, output_columns],
            position=(self.position[0] - output_rows.start, self.position[1] - output_columns.start),
        )

    # What a page shows

    @property
    def decimals(self) -> dict[str, int]:
        """Return the number of decimals of source, kernel, product and total."""
        values = [*self.kernel.flat, *self.source.flat, self.bias]
        if all(float(value).is_integer() for value in values):
            return dict.fromkeys(("source", "kernel", "product", "total"), 0)
        digits = self.significant_digits
        if self.kernel[0].size > LARGE_KERNEL_SIZE:
            digits -= 1
        max_source, max_weight = float(np.abs(self.source).max()), float(np.abs(self.kernel).max())
        source, kernel = _count_decimals(max_source, digits), _count_decimals(max_weight, digits)
        product = min(max(source, kernel), _count_decimals(max_source * max_weight, digits + 1))
        return {"source": source, "kernel": kernel, "product": product, "total": product}

    @property
    def page_json(self) -> Markup:
        """Return the JSON with which a page computes the example at any position."""
        return dump_script_json(
            {
                "source": self._encode_source(),
                "kernel": _round_to_lists(self.kernel),
                "output": _encode_decimals(self.output, self.decimals["total"]),
                "vertical": _describe_axis(self.vertical),
                "horizontal": _describe_axis(self.horizontal),
                "bias": _round_to_lists(np.array(self.bias)),
                "position": self.position,
                "brightness_scale": self.brightness_scale,
                "decimals": self.decimals,
            }
        )

    def compute_levels(self) -> np.ndarray | None:
        """Return the source as brightness of 8 bits, (C, H, W) uint8; None where it is no image of 8 bits."""
        factors, offsets = np.array(self.brightness_scale)[:, :, None, None].swapaxes(0, 1)
        levels = np.round(255 * (factors * self.source + offsets)).clip(0, 255)
        difference = np.abs((levels / 255 - offsets) / factors - self.source).max()
        if difference > LEVELS_TOLERANCE * max(float(np.abs(self.source).max()), 1e-6):
            return None
        result: np.ndarray = levels.astype(np.uint8)
        return result

    def _encode_source(self) -> Any:
        """Return the source for JSON: its levels where it is an image of 8 bits, or lists."""
        levels = self.compute_levels()
        return _round_to_lists(self.source) if levels is None else _encode_integers(levels)

    @property
    def worked_example(self) -> WorkedExample:
        """Return the example at the position, as a page shows it without a script."""
        patch, decimals = self.get_patch(*self.position), self.decimals
        products = np.nan_to_num(patch) * self.kernel
        max_product = float(np.abs(products).max()) or 1.0
        max_weight = float(np.abs(self.kernel).max()) or 1.0
        channels = [
            ChannelExample(
                window=[
                    [_make_pixel_cell(v, decimals["source"], self.brightness_scale[c]) for v in row]
                    for row in patch[c].tolist()
                ],
                kernel=_make_signed_cells(self.kernel[c], decimals["kernel"], max_weight),
                products=_make_signed_cells(products[c], decimals["product"], max_product),
                sum=format_decimals(float(products[c].sum()), decimals["total"]),
            )
            for c in range(len(products))
        ]
        row = self.vertical.first_output + self.position[0]
        column = self.horizontal.first_output + self.position[1]
        return WorkedExample(
            channels=channels,
            bias=format_decimals(self.bias, decimals["total"]),
            total=format_decimals(self.compute_value(*self.position), decimals["total"]),
            recorded=format_decimals(float(self.output[self.position]), decimals["total"]),
            position_text=f"row {row}, column {column}",
        )

    def format_frame_style(self, picture: Literal["source", "map"]) -> str:
        """Return the CSS of a frame around the window in the source, or around its output in the map.

        Args:
            picture: The picture that the frame is drawn over: the "source", or the "map".

        Returns:
            Position and size in percent of the picture.
        """
        sizes = self.source.shape[1:] if picture == "source" else self.output.shape
        spans = []
        for axis, output, size in zip((self.vertical, self.horizontal), self.position, sizes, strict=True):
            begin, extent = output, 1
            if picture == "source":
                begin, extent = axis.start + axis.stride * output, axis.extent
            spans.append((100 * begin / size, 100 * extent / size))
        (top, height), (left, width) = spans
        return f"top: {top:.3f}%; left: {left:.3f}%; height: {height:.3f}%; width: {width:.3f}%"


def format_decimals(value: float, decimals: int) -> str:
    """Write a number with a minus sign (U+2212), and without a sign where it is rounded to zero.

    Args:
        value: The number.
        decimals: Number of digits after the point.
    """
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _describe_axis(axis: ConvolutionAxis) -> dict[str, int]:
    """Describe an axis for the page's script."""
    return {
        "start": axis.start,
        "stride": axis.stride,
        "dilation": axis.dilation,
        "first_output": axis.first_output,
    }


def _count_decimals(value: float, digits: int) -> int:
    """Return the number of decimals with which a value has so many significant digits."""
    return min(MAX_DECIMALS, max(0, digits - 1 - math.floor(math.log10(value)))) if value else 0


def _round_to_lists(array: np.ndarray) -> Any:
    """Return an array as nested lists, with six significant digits."""
    if array.ndim == 0:
        value = float(f"{float(array):.6g}")
        return int(value) if value.is_integer() else value
    return [_round_to_lists(part) for part in array]


def _encode_integers(values: np.ndarray, **fields: int) -> dict[str, Any]:
    """Encode integers of 8 or 16 bits for JSON: their bytes (little-endian), type and shape."""
    content = base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()
    return {"base64": content, "type": values.dtype.name, "shape": list(values.shape), **fields}


def _encode_decimals(values: np.ndarray, decimals: int) -> Any:
    """Encode values, rounded to decimals, for JSON: as integers of 16 bits, or as lists of larger values."""
    integers = np.round(values.astype(np.float64) * 10**decimals)
    if np.abs(integers).max() > np.iinfo(np.int16).max:
        return _round_to_lists(values)
    return _encode_integers(integers.astype(np.int16), decimals=decimals)


def _make_pixel_cell(value: float, decimals: int, brightness_scale: tuple[float, float]) -> ValueCell:
    """Make a cell of the window: its text and brightness, None outside the source."""
    if math.isnan(value):
        return {"text": "0", "grey": None}
    factor, offset = brightness_scale
    brightness = min(max(factor * value + offset, 0), 1)
    return {"text": format_decimals(value, decimals), "grey": round(255 * brightness)}


def _make_signed_cells(values: np.ndarray, decimals: int, max_abs: float) -> list[list[ValueCell]]:
    """Make the cells of signed values (k, k): text, sign, and magnitude relative to the largest."""
    return [
        [
            {
                "text": format_decimals(value, decimals),
                "sign": "minus" if value < 0 else "plus",
                "magnitude": round(abs(value) / max_abs, 3),
            }
            for value in row
        ]
        for row in values.tolist()
    ]
