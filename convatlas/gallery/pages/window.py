"""One window's sum, worked: what a kernel makes of the values beneath it, at any place of an image."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from convatlas.gallery.pages.browser import embedded

NUMBERS = 16_000  # values of a source that a page is given; of a larger one the part about the place
DIGITS = 3  # of the largest value, that are printed; one fewer of kernels larger than
LARGE = 25  # numbers a channel


@dataclass(frozen=True)
class Axis:
    """One axis of a window: cell n of the map is made from the source at start + step · n + dilation · i."""

    start: int
    step: int
    dilation: int
    size: int  # of the kernel
    cells: int  # of the map
    first: int = 0  # the number of the first cell, where the map is a part of a larger one

    def places(self) -> np.ndarray:
        """What of the source lies under the kernel at each cell, (cells, size); some may lie beyond it."""
        starts = self.start + self.step * np.arange(self.cells)
        return starts[:, None] + self.dilation * np.arange(self.size)

    @property
    def reach(self) -> int:
        """From the first to the last place under the kernel, both counted."""
        return self.dilation * (self.size - 1) + 1

    def part(self, cell: int, width: int) -> tuple["Axis", slice, slice]:
        """The cells about one that need no more than `width` of the source: these, their source and map."""
        count = min(self.cells, max(1, (width - self.reach) // self.step + 1))
        begin = min(max(cell - count // 2, 0), self.cells - count)
        start = self.start + self.step * begin
        low = max(0, start)
        axis = Axis(start - low, self.step, self.dilation, self.size, count, self.first + begin)
        return axis, slice(low, start + self.step * (count - 1) + self.reach), slice(begin, begin + count)


@dataclass(frozen=True)
class Window:
    """A kernel (C, k, k) at work on a source (C, H, W): what it makes, (h, w), with `place` worked first.

    Beyond the source there is zero. `shade` holds a factor and an offset for each channel, which bring
    the source's values to brightness, 0..1.
    """

    name: str
    source: np.ndarray
    kernel: np.ndarray
    bias: float
    down: Axis
    across: Axis
    made: np.ndarray
    place: tuple[int, int]
    shade: list[tuple[float, float]]

    def under(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The source (float64) at rows and columns that broadcast, a channel each; NaN beyond it."""
        bordered = np.pad(self.source.astype(np.float64), [(0, 0), (1, 1), (1, 1)], constant_values=np.nan)
        height, width = self.source.shape[1:]
        return bordered[:, rows.clip(-1, height) + 1, columns.clip(-1, width) + 1]

    def at(self, y: int, x: int) -> np.ndarray:
        """What lies under the kernel at a cell of the map, (C, k, k); NaN beyond the source."""
        return self.under(self.down.places()[y][:, None], self.across.places()[x])

    def total(self, y: int, x: int) -> float:
        """The sum at a cell of the map."""
        return float((np.nan_to_num(self.at(y, x)) * self.kernel).sum() + self.bias)

    def map(self) -> np.ndarray:
        """The sum at every cell, (h, w) float64."""
        rows, columns = self.down.places()[:, :, None, None], self.across.places()
        found = np.nan_to_num(self.under(rows, columns))
        return np.einsum("cyixj,cij->yx", found, self.kernel.astype(np.float64)) + self.bias

    def inside(self) -> np.ndarray:
        """Where in the map the window lies wholly within the source, (h, w) bool."""
        lines = [
            ((places >= 0) & (places < size)).all(axis=1)
            for places, size in zip(
                (self.down.places(), self.across.places()), self.source.shape[1:], strict=True
            )
        ]
        return np.outer(*lines)

    def part(self) -> "Window":
        """The same; of a source that is too large for a page, only the part about the place."""
        if self.source.size <= NUMBERS:
            return self
        side = math.isqrt(NUMBERS // len(self.source))
        down, rows, lines = self.down.part(self.place[0], side)
        across, columns, cells = self.across.part(self.place[1], side)
        place = self.place[0] - lines.start, self.place[1] - cells.start
        return Window(
            self.name, self.source[:, rows, columns], self.kernel, self.bias, down, across,
            self.made[lines, cells], place, self.shade,
        )  # fmt: skip

    # What is shown

    @property
    def decimals(self) -> dict[str, int]:
        """How many decimals are printed of each kind of number."""
        most = {"source": np.abs(self.source).max(), "kernel": np.abs(self.kernel).max()}
        whole = all(float(value).is_integer() for value in [*self.kernel.flat, *self.source.flat, self.bias])
        if whole:
            return dict.fromkeys(("source", "kernel", "product", "total"), 0)
        digits = DIGITS - (self.kernel[0].size > LARGE)
        found = {key: _decimals(float(value), digits) for key, value in most.items()}
        return found | dict.fromkeys(("product", "total"), max(found.values()))

    @property
    def numbers(self) -> Markup:
        """All that the page needs to work the sum at any place, as JSON."""
        axes = {
            name: {"start": a.start, "step": a.step, "dilation": a.dilation, "first": a.first}
            for name, a in (("down", self.down), ("across", self.across))
        }
        arrays = {"source": self.source, "kernel": self.kernel, "made": self.made}
        return embedded(
            {name: _short(array) for name, array in arrays.items()}
            | axes
            | {"bias": _short(np.array(self.bias)), "place": self.place, "shade": self.shade}
            | {"decimals": self.decimals}
        )

    @property
    def worked(self) -> dict[str, Any]:
        """The sum at the place, as the page shows it without a script."""
        under, decimals = self.at(*self.place), self.decimals
        products = np.nan_to_num(under) * self.kernel
        most = max(float(np.abs(array).max()) or 1.0 for array in (products,))
        weight = float(np.abs(self.kernel).max()) or 1.0
        channels = [
            {
                "window": [
                    [_pixel(v, decimals["source"], self.shade[c]) for v in row] for row in under[c].tolist()
                ],
                "kernel": [
                    [_signed(v, decimals["kernel"], weight) for v in row] for row in self.kernel[c].tolist()
                ],
                "products": [
                    [_signed(v, decimals["product"], most) for v in row] for row in products[c].tolist()
                ],
                "sum": written(float(products[c].sum()), decimals["total"]),
            }
            for c in range(len(products))
        ]
        return {
            "channels": channels,
            "bias": written(self.bias, decimals["total"]),
            "total": written(self.total(*self.place), decimals["total"]),
            "made": written(float(self.made[self.place]), decimals["total"]),
            "at": f"row {self.down.first + self.place[0]}, column {self.across.first + self.place[1]}",
        }

    def frame(self, of: str) -> str:
        """Where the window lies on the source's picture, or its cell on the map's, as a style."""
        ends = []
        sizes = self.source.shape[1:] if of == "source" else self.made.shape
        for axis, cell, size in zip((self.down, self.across), self.place, sizes, strict=True):
            begin, reach = (axis.start + axis.step * cell, axis.reach) if of == "source" else (cell, 1)
            ends.append((100 * begin / size, 100 * reach / size))
        (top, height), (left, width) = ends
        return f"top: {top:.3f}%; left: {left:.3f}%; height: {height:.3f}%; width: {width:.3f}%"


def written(value: float, decimals: int) -> str:
    """A number as it is printed, its minus a minus sign, and no minus before zero."""
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _decimals(most: float, digits: int) -> int:
    """The decimals that give a value so many digits."""
    return min(6, max(0, digits - 1 - math.floor(math.log10(most)))) if most else 0


def _short(array: np.ndarray) -> Any:
    """An array as lists, its values to six digits."""
    if array.ndim == 0:
        value = float(f"{float(array):.6g}")
        return int(value) if value.is_integer() else value
    return [_short(part) for part in array]


def _pixel(value: float, decimals: int, shade: tuple[float, float]) -> dict[str, Any]:
    """A cell of the window: its text, and its brightness, None beyond the source."""
    if math.isnan(value):
        return {"text": "0", "grey": None}
    share = min(max(shade[0] * value + shade[1], 0), 1)
    return {"text": written(value, decimals), "grey": round(255 * share)}


def _signed(value: float, decimals: int, most: float) -> dict[str, Any]:
    """A cell of signed numbers: its text, and how strong it is."""
    return {"text": written(value, decimals), "sign": "minus" if value < 0 else "plus",
            "share": round(abs(value) / most, 3)}  # fmt: skip
