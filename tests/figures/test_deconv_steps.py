"""The figure of one projection step by step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas import UserError
from convatlas.figures import deconv_steps
from convatlas.figures.context import CaptionedFigure, FigureContext
from convatlas.files import write_json, write_npz
from convatlas.pipeline.config import resolve_config
from convatlas.plotting.labelled_figure import figure_style, save_figure
from convatlas.results import Results
from tests.support.fake_results import VIEWS, make_results

Step = tuple[str, list[str], np.ndarray]  # layer, passed layers, signal


def test_the_config_may_omit_the_steps() -> None:
    config = {"networks": {"steps": None, "own": {"architecture": "torchvision/resnet18"}}}
    deconv = resolve_config(config)["networks"]["own"]["views"]["deconv"]
    assert deconv["steps"] == {}
    config["networks"]["own"] |= {"views": {"deconv": {"steps": None}}}
    assert resolve_config(config)["networks"]["own"]["views"]["deconv"]["steps"] is None
    config["networks"]["own"] |= {"views": {"deconv": {"steps": {"unit": -1}}}}
    with pytest.raises(UserError, match=r"networks\.own\.views\.deconv\.steps\.unit"):
        resolve_config(config)


def draw(folder: Path, steps: list[Step], layer: str, unit: int) -> list[CaptionedFigure]:
    """Write synthetic results with these steps, and draw them."""
    make_results().write(folder)
    entries = [
        {"layer": name, "passed_layers": passed_layers, "shape": list(signal.shape)}
        | {"min": float(signal.min()), "max": float(signal.max())}
        | {"nonzero_count": int(np.count_nonzero(signal)), "value_count": signal.size}
        for name, passed_layers, signal in steps
    ]
    projection = {"image": "first", "layer": layer, "unit": unit, "steps": entries}
    write_json(folder / "steps/steps.json", projection)
    write_npz(folder / "steps/signals.npz", {name: signal for name, _, signal in steps})
    views = VIEWS | {"deconv": VIEWS["deconv"] | {"steps": {}}}
    return list(deconv_steps.draw_deconv_steps(FigureContext(Results(folder), views)))


def make_steps(unit: int = 3) -> list[Step]:
    rng = np.random.default_rng(7)
    top = np.zeros((5, 8, 6), np.float32)
    top[unit] = rng.random((8, 6))
    return [
        ("relu", [], top),
        ("conv1", ["relu"], rng.normal(size=(5, 8, 6)).astype(np.float32)),
        ("input", ["conv1"], rng.normal(size=(3, 8, 6)).astype(np.float32)),
    ]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The rows of tiles, the labels and the colour bars of the figure, once it is drawn."""
    drawn_parts: dict[str, Any] = {}
    make_montage = FigureContext.make_montage

    def record(context: FigureContext, kind: str, subject: str, *args: Any) -> CaptionedFigure:
        drawn_parts.update(zip(("rows", "labels", "bars"), args, strict=False))
        return make_montage(context, kind, subject, *args)

    monkeypatch.setattr(FigureContext, "make_montage", record)
    return drawn_parts


def test_the_figure_shows_each_step_with_its_numbers(tmp_path: Path, parts: dict[str, Any]) -> None:
    steps = make_steps()
    with figure_style():
        (figure,) = draw(tmp_path / "own", steps, "relu", 3)
        save_figure(figure.figure, tmp_path / figure.file, [])
    assert (figure.kind, figure.file) == ("steps", "steps.png")
    assert "relu: deconvnet projection of unit 3 on cat, test image 0, step by step" in figure.caption
    outputs = make_results().activations["first"]["relu"]
    rows = [[tile for tile in row if tile] for row in parts["rows"]]
    assert len(rows) == len(parts["labels"]) == len(parts["bars"]) == 4
    assert [tile.title for tile in rows[0]] == ["input", "0", "1", "2", "3", "4"]
    for row, values in ((rows[0][1:], outputs), (rows[1], steps[0][2]), (rows[2], steps[1][2])):
        assert all(np.array_equal(tile.values, value) for tile, value in zip(row, values, strict=True))
    scale = parts["bars"][3].scale
    assert np.allclose(rows[3][1].values, 0.5 + steps[2][2].transpose(1, 2, 0) / (2 * scale.high))
    assert "all units but 3 set to zero" in parts["labels"][1]
    assert "rectify (relu)\nat conv1: 5 × 8 × 6" in parts["labels"][2]
    assert "filter (conv1)\nat input: 3 × 8 × 6" in parts["labels"][3]
    for label, (_, _, signal) in zip(parts["labels"][1:], steps, strict=True):
        assert f"{np.count_nonzero(signal):,} of {signal.size:,} nonzero" in label
        assert f"{signal.min():.3g} to {signal.max():.3g}".replace("-", "−") in label


def test_units_that_are_zero_everywhere_have_no_tile_after_the_first_step(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    steps = make_steps()
    steps[1][2][[0, 2]] = 0
    with figure_style():
        draw(tmp_path / "own", steps, "relu", 3)
    assert [tile is None for tile in parts["rows"][2][1:]] == [True, False, True, False, False]
    assert None not in parts["rows"][1][1:]


def test_the_caption_says_that_a_unit_is_inactive(tmp_path: Path) -> None:
    steps = [(name, passed_layers, 0 * signal) for name, passed_layers, signal in make_steps()]
    with figure_style():
        (figure,) = draw(tmp_path / "own", steps, "relu", 2)
    assert figure.explanation.endswith("The unit is inactive on this image, so the signal is zero.")


def test_there_is_no_figure_without_steps(tmp_path: Path) -> None:
    folder = make_results().write(tmp_path / "own")
    write_json(folder / "steps/steps.json", None)
    assert list(deconv_steps.draw_deconv_steps(FigureContext(Results(folder), VIEWS))) == []


@pytest.mark.parametrize("size", [1, 7, 84, 120, 400])
def test_a_vector_is_one_tile_with_every_value_in_its_order(size: int) -> None:
    plane = deconv_steps._to_plane(np.arange(size))
    assert plane.ravel().tolist() == list(range(size))
    assert plane.shape[0] <= plane.shape[1]
