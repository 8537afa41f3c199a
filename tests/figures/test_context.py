"""What the figures of a network share: the names of their files."""

import re
from pathlib import Path

from matplotlib.figure import Figure

from convatlas.figures.context import Caption, FigureContext
from convatlas.results import Results
from tests.support.fake_results import VIEWS, make_digit_results


def test_the_files_of_figures_are_distinct_and_allowed_on_every_system(tmp_path: Path) -> None:
    make_digit_results().write(tmp_path / "own")
    context = FigureContext(Results(tmp_path / "own"), VIEWS)
    layers = ["Conv1", "conv1", "a/relu:2", "a+relu~2", "猫", "Mao", "x?", "x*", "a.png"]
    figures = [context.make_figure("maps", layer, Caption("A caption"), Figure()) for layer in layers]
    assert [figure.file for figure in figures][:4] == [
        "maps-Conv1.png",
        "maps-conv1-2.png",
        "maps-a+relu~2.png",
        "maps-a+relu~2-2.png",
    ]
    assert len({figure.file.lower() for figure in figures}) == len(layers)
    assert all(re.fullmatch(r"[A-Za-z0-9_.+~-]+", figure.file) for figure in figures)
    assert [figure.subject for figure in figures] == layers
    assert figures[-1].to_dict(["svg"])["formats"] == ["png", "svg"]
