"""One window's sum, worked: what a kernel makes of the values beneath it, at any place of an image."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from convatlas.gallery.pages.browser import dump_script_json

MAX_SOURCE_VALUES = (
    16_000  # values of a source that a page is given; of a larger one the part about the place
)
SIGNIFICANT_DIGITS = 3  # of the largest value, that are printed; one fewer of kernels larger than
LARGE_KERNEL_SIZE = 25  # numbers a channel


@dataclass(frozen=True)
class ConvolutionAxis:
    """One axis of a window: cell n of the map is made from the source at start + step · n + dilation · i."""

    start: int
    stride: int
    dilation: int
    kernel_size: int  # of the kernel
    output_size: int  # of the map
    first_output: int = 0  # the number of the first cell, where the map is a part of a larger one

    def source_indices(self) -> np.ndarray:
        """What of the source lies under the kernel at each cell, (cells, size); some may lie beyond it."""
        starts = self.start + self.stride * np.arange(self.output_size)
        return starts[:, None] + self.dilation * np.arange(self.kernel_size)

    @property
    def extent(self) -> int:
        """From the first to the last place under the kernel, both counted."""
        return self.dilation * (self.kernel_size - 1) + 1

    def crop(self, cell: int, width: int) -> tuple["ConvolutionAxis", slice, slice]:
        """The cells about one that need no more than `width` of the source: these, their source and map."""
        count = min(self.output_size, max(1, (width - self.extent) // self.stride + 1))
        begin = min(max(cell - count // 2, 0), self.output_size - count)
        start = self.start + self.stride * begin
        low = max(0, start)
        axis = ConvolutionAxis(
            start - low, self.stride, self.dilation, self.kernel_size, count, self.first_output + begin
        )
        return axis, slice(low, start + self.stride * (count - 1) + self.extent), slice(begin, begin + count)


@dataclass(frozen=True)
class ConvolutionExample:
    """A kernel (C, k, k) at work on a source (C, H, W): what it makes, (h, w), with `place` worked first.

    Beyond the source there is zero. `shade` holds a factor and an offset for each channel, which bring
    the source's values to brightness, 0..1.
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

    def gather_source(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The source (float64) at rows and columns that broadcast, a channel each; NaN beyond it."""
        bordered = np.pad(self.source.astype(np.float64), [(0, 0), (1, 1), (1, 1)], constant_values=np.nan)
        height, width = self.source.shape[1:]
        return bordered[:, rows.clip(-1, height) + 1, columns.clip(-1, width) + 1]

    def get_patch(self, y: int, x: int) -> np.ndarray:
        """What lies under the kernel at a cell of the map, (C, k, k); NaN beyond the source."""
        return self.gather_source(
            self.vertical.source_indices()[y][:, None], self.horizontal.source_indices()[x]
        )

    def compute_value(self, y: int, x: int) -> float:
        """The sum at a cell of the map."""
        return float((np.nan_to_num(self.get_patch(y, x)) * self.kernel).sum() + self.bias)

    def compute_output(self) -> np.ndarray:
        """The sum at every cell, (h, w) float64."""
        rows, columns = self.vertical.source_indices()[:, :, None, None], self.horizontal.source_indices()
        found = np.nan_to_num(self.gather_source(rows, columns))
        return np.einsum("cyixj,cij->yx", found, self.kernel.astype(np.float64)) + self.bias

    def compute_valid_mask(self) -> np.ndarray:
        """Where in the map the window lies wholly within the source, (h, w) bool."""
        lines = [
            ((places >= 0) & (places < size)).all(axis=1)
            for places, size in zip(
                (self.vertical.source_indices(), self.horizontal.source_indices()),
                self.source.shape[1:],
                strict=True,
            )
        ]
        return np.outer(*lines)

    def crop(self) -> "ConvolutionExample":
        """The same; of a source that is too large for a page, only the part about the place."""
        if self.source.size <= MAX_SOURCE_VALUES:
            return self
        side = math.isqrt(MAX_SOURCE_VALUES // len(self.source))
        down, rows, lines = self.vertical.crop(self.position[0], side)
        across, columns, cells = self.horizontal.crop(self.position[1], side)
        place = self.position[0] - lines.start, self.position[1] - cells.start
        return ConvolutionExample(
            self.name, self.source[:, rows, columns], self.kernel, self.bias, down, across,
            self.output[lines, cells], place, self.brightness_scale,
        )  # fmt: skip

    # What is shown

    @property
    def decimals(self) -> dict[str, int]:
        """How many decimals are printed of each kind of number."""
        most = {"source": np.abs(self.source).max(), "kernel": np.abs(self.kernel).max()}
        whole = all(float(value).is_integer() for value in [*self.kernel.flat, *self.source.flat, self.bias])
        if whole:
            return dict.fromkeys(("source", "kernel", "product", "total"), 0)
        digits = SIGNIFICANT_DIGITS - (self.kernel[0].size > LARGE_KERNEL_SIZE)
        found = {key: _count_decimals(float(value), digits) for key, value in most.items()}
        return found | dict.fromkeys(("product", "total"), max(found.values()))

    @property
    def page_json(self) -> Markup:
        """All that the page needs to work the sum at any place, as JSON."""
        axes = {
            name: {"start": a.start, "step": a.stride, "dilation": a.dilation, "first": a.first_output}
            for name, a in (("down", self.vertical), ("across", self.horizontal))
        }
        arrays = {"source": self.source, "kernel": self.kernel, "made": self.output}
        return dump_script_json(
            {name: _round_to_lists(array) for name, array in arrays.items()}
            | axes
            | {
                "bias": _round_to_lists(np.array(self.bias)),
                "place": self.position,
                "shade": self.brightness_scale,
            }
            | {"decimals": self.decimals}
        )

    @property
    def worked_example(self) -> dict[str, Any]:
        """The sum at the place, as the page shows it without a script."""
        under, decimals = self.get_patch(*self.position), self.decimals
        products = np.nan_to_num(under) * self.kernel
        most = max(float(np.abs(array).max()) or 1.0 for array in (products,))
        weight = float(np.abs(self.kernel).max()) or 1.0
        channels = [
            {
                "window": [
                    [_make_pixel_cell(v, decimals["source"], self.brightness_scale[c]) for v in row]
                    for row in under[c].tolist()
                ],
                "kernel": [
                    [_make_signed_cell(v, decimals["kernel"], weight) for v in row]
                    for row in self.kernel[c].tolist()
                ],
                "products": [
                    [_make_signed_cell(v, decimals["product"], most) for v in row]
                    for row in products[c].tolist()
                ],
                "sum": format_number(float(products[c].sum()), decimals["total"]),
            }
            for c in range(len(products))
        ]
        return {
            "channels": channels,
            "bias": format_number(self.bias, decimals["total"]),
            "total": format_number(self.compute_value(*self.position), decimals["total"]),
            "made": format_number(float(self.output[self.position]), decimals["total"]),
            "at": f"row {self.vertical.first_output + self.position[0]}, column {self.horizontal.first_output + self.position[1]}",
        }

    def format_frame_style(self, of: str) -> str:
        """Where the window lies on the source's picture, or its cell on the map's, as a style."""
        ends = []
        sizes = self.source.shape[1:] if of == "source" else self.output.shape
        for axis, cell, size in zip((self.vertical, self.horizontal), self.position, sizes, strict=True):
            begin, reach = (axis.start + axis.stride * cell, axis.extent) if of == "source" else (cell, 1)
            ends.append((100 * begin / size, 100 * reach / size))
        (top, height), (left, width) = ends
        return f"top: {top:.3f}%; left: {left:.3f}%; height: {height:.3f}%; width: {width:.3f}%"


def format_number(value: float, decimals: int) -> str:
    """A number as it is printed, its minus a minus sign, and no minus before zero."""
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _count_decimals(most: float, digits: int) -> int:
    """The decimals that give a value so many digits."""
    return min(6, max(0, digits - 1 - math.floor(math.log10(most)))) if most else 0


def _round_to_lists(array: np.ndarray) -> Any:
    """An array as lists, its values to six digits."""
    if array.ndim == 0:
        value = float(f"{float(array):.6g}")
        return int(value) if value.is_integer() else value
    return [_round_to_lists(part) for part in array]


def _make_pixel_cell(value: float, decimals: int, shade: tuple[float, float]) -> dict[str, Any]:
    """A cell of the window: its text, and its brightness, None beyond the source."""
    if math.isnan(value):
        return {"text": "0", "grey": None}
    share = min(max(shade[0] * value + shade[1], 0), 1)
    return {"text": format_number(value, decimals), "grey": round(255 * share)}


def _make_signed_cell(value: float, decimals: int, most: float) -> dict[str, Any]:
    """A cell of signed numbers: its text, and how strong it is."""
    return {"text": format_number(value, decimals), "sign": "minus" if value < 0 else "plus",
            "share": round(abs(value) / most, 3)}  # fmt: skip
