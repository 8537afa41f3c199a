"""Heat maps of matrices between layers, for a macro of heat_maps.html.j2 to draw as SVG."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from convatlas.gallery.value_grid import VIRIDIS, interpolate_colour
from convatlas.names import format_number
from convatlas.plotting.png import encode_indexed_png

MAP_SIZE = 380.0  # units of the SVG, of a side of a map whose cells fit
CELL_SIZES = (3.0, 30.0)  # units, smallest and largest of a side
LABEL_SIZE = 11  # units, height of a label
CHARACTER_WIDTH = 6.2  # units, of a label
MAX_LABEL = 24  # characters
COLOURS = 255  # of the scale
MAX_CELLS_WITH_ERRORS = 2_000  # of a map, in its numbers
MAX_CELLS = 10_000  # of a map with numbers: some fifty kilobytes of its page
UNDEFINED_COLOUR = (176, 170, 158)


@dataclass(frozen=True)
class Label:
    """The name of a row or column, at its place along the axis, in units of the SVG."""

    place: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A circle in a cell, in units of the SVG, with its text and a colour that contrasts with the cell."""

    x: float
    y: float
    text: str
    is_dark: bool


@dataclass(frozen=True)
class HeatMap:
    """A heat map to draw.

    Attributes:
        title: What it shows.
        alt: The map in words.
        picture: A PNG with a pixel for each cell, in base64.
        cell: Width and height of a cell, in units of the SVG.
        left: Width of the labels of the rows.
        bottom: Height of the labels of the columns.
        size: Width and height of the map.
        rows: Labels of rows; of many rows, some.
        columns: Labels of columns.
        marks: Cells that are pointed out.
        numbers: The values, with their errors in a map that is not large, as text with tabs, column names
            first; "" of a map that is too large.
    """

    title: str
    alt: str
    picture: str
    cell: tuple[float, float]
    left: float
    bottom: float
    size: tuple[float, float]
    rows: Sequence[Label]
    columns: Sequence[Label]
    marks: Sequence[Mark]
    numbers: str

    @property
    def view_box(self) -> str:
        """Return the view box of the SVG."""
        width, height = self.size
        return f"{-self.left:g} -2 {self.left + width + 4:g} {height + self.bottom + 2:g}"

    @property
    def width(self) -> float:
        """Return the width of the SVG."""
        return self.left + self.size[0] + 4

    @property
    def height(self) -> float:
        """Return the height of the SVG."""
        return self.size[1] + self.bottom + 2


def draw_heat_map(
    title: str,
    values: np.ndarray,
    errors: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    alt: str,
    marks: Sequence[tuple[int, int]] = (),
) -> HeatMap:
    """Draw a matrix of values from 0 to 1 with viridis; values beyond have the colours of the ends.

    Args:
        title: What it shows.
        values: The values, (rows, columns); NaN where undefined.
        errors: Their standard errors; NaN where not known.
        rows: Names of the rows.
        columns: Names of the columns.
        alt: The map in words.
        marks: Row and column of the cells to point out.
    """
    width, height = (
        min(max(MAP_SIZE / len(names), CELL_SIZES[0]), CELL_SIZES[1]) for names in (columns, rows)
    )
    shares = np.where(np.isfinite(values), values, 0).clip(0, 1)
    indices = np.where(np.isfinite(values), np.round(shares * (COLOURS - 1)), COLOURS).astype(np.uint8)
    picture = base64.b64encode(encode_indexed_png(indices, make_palette(), 72)).decode()
    return HeatMap(
        title=title,
        alt=alt,
        picture=picture,
        cell=(width, height),
        left=_measure_labels(rows),
        bottom=_measure_labels(columns),
        size=(width * len(columns), height * len(rows)),
        rows=_place_labels(rows, height),
        columns=_place_labels(columns, width),
        marks=[
            Mark(
                (column + 0.5) * width,
                (row + 0.5) * height,
                f"{rows[row]}, {columns[column]}: {format_value(values[row, column])}",
                values[row, column] > 0.5,
            )
            for row, column in marks
        ],
        numbers=format_matrix(values, errors, rows, columns) if values.size <= MAX_CELLS else "",
    )


def format_matrix(values: np.ndarray, errors: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Return values as text with tabs, the names of the columns first, with errors if the map is not large.

    Args:
        values: The values, (rows, columns).
        errors: Their standard errors.
        rows: Names of the rows.
        columns: Names of the columns.
    """
    lines = ["\t".join(["", *columns])]
    has_errors = values.size <= MAX_CELLS_WITH_ERRORS
    for name, row, row_errors in zip(rows, values, errors, strict=True):
        cells = [
            format_value(value) + (f" ±{error:.2f}" if has_errors and error >= 0.005 else "")
            for value, error in zip(row.tolist(), row_errors.tolist(), strict=True)
        ]
        lines.append("\t".join([name, *cells]))
    return "\n".join(lines)


def format_value(value: float) -> str:
    """Write a value with two decimals, and a dash where it is undefined.

    Args:
        value: The value.
    """
    return format_number(value, ".2f") if math.isfinite(value) else "–"


def _measure_labels(names: Sequence[str]) -> float:
    """Return the length of the longest label, with a gap."""
    return CHARACTER_WIDTH * max(len(_shorten(name)) for name in names) + 10


def _place_labels(names: Sequence[str], cell: float) -> list[Label]:
    """Return the labels of an axis that do not overlap: every one, or every second, ..."""
    step = math.ceil((LABEL_SIZE + 1) / cell)
    return [Label((n + 0.5) * cell, _shorten(name)) for n, name in enumerate(names) if n % step == 0]


def _shorten(name: str) -> str:
    """Return the end of a long name, which tells layers of one block apart."""
    return name if len(name) <= MAX_LABEL else f"…{name[1 - MAX_LABEL :]}"


@cache
def make_palette() -> np.ndarray:
    """Return the colours of the scale, viridis, and that of an undefined value: (COLOURS + 1, 3) uint8."""
    colours = [interpolate_colour(VIRIDIS, n / (COLOURS - 1)) for n in range(COLOURS)]
    scale = [[int(colour[n : n + 2], 16) for n in (1, 3, 5)] for colour in colours]
    return np.array([*scale, UNDEFINED_COLOUR], np.uint8)
