"""Figures drawn from synthetic results, with the tiles, labels and bars that they were drawn from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from convatlas.figures.context import CaptionedFigure
from convatlas.plotting.labelled_figure import (
    ColourBar,
)
from convatlas.plotting.montage import Tile
from tests.support.fake_results import (
    INPUT_TITLES,
    FakeResults,
    make_results,
)


@dataclass
class Drawing:
    """A figure, and what it was drawn from."""

    figure: CaptionedFigure
    rows: list[list[Tile | None]]
    labels: list[str]
    bars: list[ColourBar]
    chart: tuple[Any, ...]  # arguments of the function that plots it
    layout: dict[str, Any]  # arguments of assemble_montage

    @property
    def tiles(self) -> Iterator[tuple[str, int, Tile]]:
        """Each tile of a unit, with the label of its group of rows and the unit."""
        group_label = ""
        for row, label in zip(self.rows, self.labels, strict=True):
            group_label = label or group_label
            for tile in row:
                if tile is not None and tile.title not in INPUT_TITLES:
                    yield group_label, int(tile.title), tile

    @property
    def inputs(self) -> list[Tile]:
        return [tile for row in self.rows for tile in row if tile and tile.title in INPUT_TITLES]


Draw = Callable[..., dict[tuple[str, str], Drawing]]


def find_ends(values: np.ndarray, signed: bool = False) -> tuple[float, float]:
    """Return the ends of the scale that spans values, computed independently."""
    if signed or values.min() < 0 < values.max():
        return -abs(values).max(), abs(values).max()
    return min(values.min(), 0), max(values.max(), 0)


def get_ends(bar: ColourBar) -> tuple[float, float]:
    return bar.scale.low, bar.scale.high


def join_activations(results: FakeResults, *names: str) -> np.ndarray:
    return np.concatenate(
        [results.activations[image][name].ravel() for image in results.activations for name in names]
    )


def make_wide_results(units: int, side: int) -> FakeResults:
    """Return results whose block.conv2 has many units, 3 × 3 filters and maps of `side` pixels."""
    rng = np.random.default_rng(0)
    results = make_results()
    results.layers[3]["output_shape"] = [units, side, side]
    results.unit_matches.pop("block.conv2")
    results.filters["block.conv2"] = rng.normal(size=(units, 12, 3, 3)).astype(np.float32)
    for outputs in results.activations.values():
        outputs["block.conv2"] = rng.normal(size=(units, side, side)).astype(np.float32)
    return results
