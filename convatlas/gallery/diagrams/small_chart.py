"""Small line charts beside the pictures that they judge, for a template to draw as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from convatlas.names import format_number

Role = Literal["falling", "rising", "control", "similarity"]  # of a curve: its colour in the style sheet

SIZE = 100.0  # units of the SVG a side, which is stretched to the width of its column


@dataclass(frozen=True)
class Curve:
    """A curve to draw.

    Attributes:
        label: Its name.
        role: What it stands for.
        values: Its values at the positions of the chart; None where there is none.
        is_control: Whether it is the control of the curve of the same role, which is dashed.
    """

    label: str
    role: Role
    values: Sequence[float | None]
    is_control: bool = False


@dataclass(frozen=True)
class Polyline:
    """A stretch of a curve without gaps: its points as SVG writes them."""

    role: Role
    is_control: bool
    points: str


@dataclass(frozen=True)
class SmallChart:
    """A chart: its lines and the text at its axes.

    Attributes:
        polylines: The curves, controls first.
        zero: The height of zero, in units of the SVG.
        axis: What the vertical axis shows, with its ends.
        start: The label at the left end of the horizontal axis.
        end: The label at the right end.
        alt: The chart in words.
    """

    polylines: list[Polyline]
    zero: float
    axis: str
    start: str
    end: str
    alt: str


def draw_chart(
    curves: Sequence[Curve],
    positions: Sequence[float],
    quantity: str,
    limits: tuple[float, float],
    ends: tuple[str, str],
    alt: str,
) -> SmallChart:
    """Draw curves on one pair of axes.

    Args:
        curves: The curves, with as many values as there are positions.
        positions: Ascending positions on the horizontal axis.
        quantity: What the vertical axis shows.
        limits: The ends of the vertical axis; values beyond are clipped.
        ends: The labels at the left and the right end of the horizontal axis.
        alt: The chart in words.
    """
    low, high = limits
    first, last = positions[0], positions[-1]

    def to_x(position: float) -> float:
        return SIZE * (position - first) / ((last - first) or 1)

    def to_y(value: float) -> float:
        return SIZE * (1 - (min(max(value, low), high) - low) / (high - low))

    polylines = []
    for curve in sorted(curves, key=lambda curve: not curve.is_control):
        pairs = list(zip(positions, curve.values, strict=True))
        for is_known, stretch in groupby(pairs, lambda pair: pair[1] is not None and math.isfinite(pair[1])):
            if is_known:
                points = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in stretch if y is not None)
                polylines.append(Polyline(curve.role, curve.is_control, points))
    axis = f"{quantity}, {format_number(low, '.2g')} to {format_number(high, '.2g')}"
    return SmallChart(polylines, to_y(0), axis, *ends, alt)


def round_up(value: float) -> float:
    """Return a limit for an axis that a value fits below: the value, rounded up to one significant digit.

    Args:
        value: The value, not negative.
    """
    if not 0 < value < math.inf:
        return 1.0
    step = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / step - 1e-9) * step
