"""The fixture that draws synthetic results."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from convatlas.figures import build, context
from convatlas.plotting import charts
from convatlas.plotting.labelled_figure import (
    ColourBar,
)
from convatlas.plotting.montage import Tile
from convatlas.results import Results
from tests.support.drawings import Draw, Drawing
from tests.support.fake_results import (
    VIEWS,
    FakeResults,
    make_results,
)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Draw:
    """Return a function that draws FakeResults: the drawings by kind and subject, without pixels."""
    last: dict[str, Any] = {}

    def assemble_montage(rows: list[list[Tile | None]], **layout: Any) -> None:
        last.update(rows=rows, layout=layout)

    def make_montage_figure(montage: None, labels: list[str], bars: list[ColourBar], caption: str) -> Figure:
        last.update(labels=labels, bars=bars)
        return Figure()

    def plot(*args: Any) -> Figure:
        last["chart"] = args
        return Figure()

    monkeypatch.setattr(context, "assemble_montage", assemble_montage)
    monkeypatch.setattr(context, "make_montage_figure", make_montage_figure)
    for name in ("plot_unit_bars", "plot_unit_heatmaps", "plot_training_curves", "plot_confusion_matrix"):
        monkeypatch.setattr(charts, name, plot)

    def draw_all(results: FakeResults | None = None, **views: Any) -> dict[tuple[str, str], Drawing]:
        folder = (results or make_results()).write(tmp_path / "own")
        drawings = {}
        for figure in build.draw_figures(Results(folder), VIEWS | views):
            parts = (last.pop(name, []) for name in ("rows", "labels", "bars", "chart", "layout"))
            drawings[figure.kind, figure.subject] = Drawing(figure, *parts)
            assert not last
        return drawings

    return draw_all
