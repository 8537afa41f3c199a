"""Line charts with axes, ticks, bands and a legend, for a macro of charts.html.j2 to draw as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from convatlas.names import format_number

SIZE = 100.0  # units of the SVG a side, which is stretched over the chart's frame
MAX_TICKS = 6  # of an axis whose ticks are not set
SERIES_COLOURS = 8  # in the style sheet, .series-0 to .series-7


@dataclass(frozen=True)
class Series:
    """A line to draw.

    Attributes:
        label: Its name in the legend; "" for none.
        values: Its values at the positions of the chart; None or NaN where there is none.
        colour: Number of its colour, from 0; a line and its control share one.
        low: The lower edge of its band, such as that of an interval; empty without a band.
        high: The upper edge.
        dashed: Whether it is a control.
        thin: Whether it is one of many, drawn behind the others without points.
    """

    label: str
    values: Sequence[float | None]
    colour: int = 0
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    dashed: bool = False
    thin: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        title: What it shows, with its unit.
        limits: Its ends; None fits them to the values.
        ticks: Position and label of each tick; None chooses round numbers.
    """

    title: str
    limits: tuple[float, float] | None = None
    ticks: Sequence[tuple[float, str]] | None = None


@dataclass(frozen=True)
class Point:
    """A value of a line: its place in percent of the frame, from the left and from the top, and its text."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class DrawnSeries:
    """A line as SVG writes it: its stretches without gaps, the polygons of its band, and its points."""

    series: Series
    polylines: Sequence[str]
    bands: Sequence[str]
    points: Sequence[Point]


@dataclass(frozen=True)
class LineChart:
    """A chart to draw.

    Attributes:
        x: The horizontal axis.
        y: The vertical axis.
        positions: On the horizontal axis, ascending.
        series: The lines, thin ones and controls first.
        x_ticks: Place in percent from the left, and label.
        y_ticks: Place in percent from the top, and label.
        alt: The chart in words.
    """

    x: Axis
    y: Axis
    positions: Sequence[float]
    series: Sequence[DrawnSeries]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    alt: str
    legend: Sequence[Series] = field(default_factory=list)


def draw_line_chart(
    series: Sequence[Series], positions: Sequence[float], x: Axis, y: Axis, alt: str
) -> LineChart:
    """Draw lines on one pair of axes.

    Args:
        series: The lines, with as many values as there are positions.
        positions: Ascending positions on the horizontal axis.
        x: The horizontal axis.
        y: The vertical axis; values beyond its limits are clipped.
        alt: The chart in words, with the main numbers.
    """
    left, right = x.limits or (positions[0], positions[-1])
    rows = [row for line in series for row in (line.values, line.low, line.high)]
    values = [value for row in rows for value in row if value is not None and math.isfinite(value)]
    bottom, top = y.limits or _fit_limits(values)

    def place_x(position: float) -> float:
        return SIZE * (position - left) / ((right - left) or 1)

    def place_y(value: float) -> float:
        return SIZE * (1 - (min(max(value, bottom), top) - bottom) / ((top - bottom) or 1))

    def draw(line: Series) -> DrawnSeries:
        known = _split_at_gaps(positions, line.values)
        polylines = [_join_points([(place_x(p), place_y(v)) for p, v in stretch]) for stretch in known]
        lows, highs = (_split_at_gaps(positions, edge) if edge else [] for edge in (line.low, line.high))
        bands = [
            _join_points([(place_x(p), place_y(v)) for p, v in [*low, *reversed(high)]])
            for low, high in zip(lows, highs, strict=True)
        ]
        points = [
            Point(place_x(p), place_y(v), _describe_point(line, x, p, v))
            for stretch in known
            for p, v in stretch
        ]
        return DrawnSeries(line, polylines, bands, [] if line.thin else points)

    ordered = sorted(series, key=lambda line: (not line.thin, not line.dashed))
    x_ticks = _list_ticks(left, right) if x.ticks is None else x.ticks
    y_ticks = _list_ticks(bottom, top) if y.ticks is None else y.ticks
    return LineChart(
        x,
        y,
        positions,
        [draw(line) for line in ordered],
        [(place_x(position), label) for position, label in x_ticks],
        [(place_y(value), label) for value, label in y_ticks],
        alt,
        [line for line in series if line.label],
    )


def choose_ticks(low: float, high: float, count: int = MAX_TICKS) -> list[float]:
    """Return round numbers within an axis, 1, 2 or 5 times a power of ten apart.

    Args:
        low: The lower end of the axis.
        high: The upper end.
        count: The largest number of ticks.
    """
    span = high - low
    if not 0 < span < math.inf:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / (count - 1)))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= count - 1 + 1e-9)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _list_ticks(low: float, high: float) -> list[tuple[float, str]]:
    return [(tick, format_number(tick, ".6g")) for tick in choose_ticks(low, high)]


def _fit_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis: those of the values, and zero where the values are near it."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if 0 < low < (high - low):
        low = 0.0
    if (high - low) > -high > 0:
        high = 0.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _split_at_gaps(
    positions: Sequence[float], values: Sequence[float | None]
) -> list[list[tuple[float, float]]]:
    """Return the stretches of a line between its gaps, as positions and values."""
    pairs = zip(positions, values, strict=True)
    return [
        [(position, value) for position, value in stretch if value is not None]
        for is_known, stretch in groupby(pairs, lambda pair: pair[1] is not None and math.isfinite(pair[1]))
        if is_known
    ]


def _join_points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _describe_point(line: Series, x: Axis, position: float, value: float) -> str:
    label = next((label for tick, label in x.ticks or [] if tick == position), format_number(position, ".4g"))
    return f"{line.label + ', ' if line.label else ''}{x.title} {label}: {format_number(value, '.3g')}"
