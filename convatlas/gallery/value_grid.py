"""Small arrays as grids of coloured squares with their values, for a template to draw as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convatlas.names import format_number

CELL_SIZE = 46.0  # pixels of the SVG
# Above this relative luminance black text has more contrast than white (WCAG 2.2).
BLACK_TEXT_LUMINANCE = 0.179

# matplotlib's RdBu_r and viridis at 21 even steps, between which interpolated colours differ by at most 4 of
# 255: the gallery is built without matplotlib.
RDBU = (
    "#053061", "#134c87", "#2267ac", "#327cb7", "#4393c3", "#6bacd1", "#90c4dd",
    "#b1d5e7", "#d1e5f0", "#e4eef4", "#f7f6f6", "#fae9df", "#fddbc7", "#f8bfa4",
    "#f4a683", "#e58368", "#d6604d", "#c43b3c", "#b1182b", "#8d0c25", "#67001f",
)  # fmt: skip
VIRIDIS = (
    "#440154", "#481467", "#482576", "#463480", "#414487", "#3b528b", "#355f8d",
    "#2f6c8e", "#2a788e", "#25848e", "#21918c", "#1e9c89", "#22a884", "#2fb47c",
    "#42be71", "#5cc863", "#7ad151", "#9bd93c", "#bddf26", "#dde318", "#fde725",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A square: its position, text and colours, and whether it is the maximum of a pooling window."""

    x: float
    y: float
    text: str
    fill: str
    text_colour: str
    is_maximum: bool = False


@dataclass(frozen=True)
class Grid:
    """The squares of an array, the size of the canvas, and the values as text."""

    width: float
    height: float
    cells: list[Cell]
    alt: str


def draw_grid(
    values: np.ndarray,
    max_abs: float,
    colormap: Sequence[str] = RDBU,
    maxima: np.ndarray | None = None,
) -> Grid:
    """Draw an array as a grid.

    Args:
        values: The values (H, W).
        max_abs: The end of the colour scale, which begins at its negative, or at 0 with VIRIDIS.
        colormap: RDBU for signed values, VIRIDIS for others.
        maxima: The flat indices of values to mark.
    """
    low = 0.0 if colormap is VIRIDIS else -max_abs
    cells = []
    for index, value in enumerate(values.ravel().tolist()):
        row, column = divmod(index, values.shape[1])
        share = (value - low) / (max_abs - low) if max_abs > low else 0.5
        fill = interpolate_colour(colormap, share)
        is_maximum = maxima is not None and index in maxima
        cells.append(
            Cell(
                column * CELL_SIZE,
                row * CELL_SIZE,
                format_value(value),
                fill,
                choose_text_colour(fill),
                is_maximum,
            )
        )
    alt = "; ".join(", ".join(format_value(value) for value in row) for row in values.tolist())
    return Grid(values.shape[1] * CELL_SIZE, values.shape[0] * CELL_SIZE, cells, alt)


def format_value(value: float) -> str:
    """Write a value with two decimals, and zero as 0.

    Args:
        value: The value.
    """
    return "0" if value == 0 else format_number(value, ".2f")


def interpolate_colour(colormap: Sequence[str], share: float) -> str:
    """Return the colour at a position of a colour map.

    Args:
        colormap: Colours at even steps, as #rrggbb.
        share: The position, clipped to 0..1.
    """
    position = min(max(share, 0.0), 1.0) * (len(colormap) - 1)
    step = min(int(position), len(colormap) - 2)
    start, end = _parse_colour(colormap[step]), _parse_colour(colormap[step + 1])
    rgb = np.round(start + (position - step) * (end - start)).astype(int).tolist()
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def choose_text_colour(fill: str) -> str:
    """Choose black or white text, by the contrast on a fill (WCAG 2.2, relative luminance).

    Args:
        fill: The colour of the fill, as #rrggbb.

    Returns:
        The colour, "#fff" or "#000".
    """
    channels = _parse_colour(fill) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#fff" if luminance < BLACK_TEXT_LUMINANCE else "#000"


def _parse_colour(colour: str) -> np.ndarray:
    """Return the channels of #rrggbb, (3,) in 0..255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
