"""The figure of one projection step by step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas import UserError
from convatlas.figures import deconv_steps
from convatlas.figures.context import FigureContext
from convatlas.files import write_json, write_npz
from convatlas.pipeline.config import resolve_config
from convatlas.plotting.labelled_figure import figure_style, save_figure
from tests.support.fake_results import VIEWS, make_results


def test_the_config_may_leave_the_steps_out() -> None:
    given = {"networks": {"steps": None, "own": {"architecture": "torchvision/resnet18"}}}
    deconv = resolve_config(given)["networks"]["own"]["views"]["deconv"]
    assert deconv["steps"] == {}
    given["networks"]["own"] |= {"views": {"deconv": {"steps": None}}}
    assert resolve_config(given)["networks"]["own"]["views"]["deconv"]["steps"] is None
    given["networks"]["own"] |= {"views": {"deconv": {"steps": {"unit": -1}}}}
    with pytest.raises(UserError, match=r"networks\.own\.views\.deconv\.steps\.unit"):
        resolve_config(given)


# The plate


def drawn(folder: Path, down: list[tuple[str, list[str], np.ndarray]], layer: str, unit: int) -> list[Any]:
    """The plate of made-up results, and what it is made of."""
    make_results().write(folder)
    steps = [
        {"layer": name, "passed_layers": passed_layers, "shape": list(signal.shape)}
        | {"min": float(signal.min()), "max": float(signal.max())}
        | {"nonzero_count": int(np.count_nonzero(signal)), "value_count": signal.size}
        for name, passed_layers, signal in down
    ]
    write_json(folder / "steps/steps.json", {"image": "first", "layer": layer, "unit": unit, "steps": steps})
    write_npz(folder / "steps/signals.npz", {name: signal for name, _, signal in down})
    views = VIEWS | {"deconv": VIEWS["deconv"] | {"steps": {}}}
    return list(deconv_steps.draw_deconv_steps(FigureContext(folder, "own", views)))


def way(unit: int = 3) -> list[tuple[str, list[str], np.ndarray]]:
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
    """What a plate is made of, once it is drawn: its lines of tiles, labels, bars and text."""
    seen: dict[str, Any] = {}
    montage = FigureContext.make_montage

    def watched(desk: FigureContext, kind: str, subject: str, *given: Any, **layout: Any) -> Any:
        seen.update(zip(("lines", "labels", "bars", "text"), given, strict=True))
        return montage(desk, kind, subject, *given, **layout)

    monkeypatch.setattr(FigureContext, "make_montage", watched)
    return seen


def test_the_plate_shows_each_step_with_its_numbers(tmp_path: Path, parts: dict[str, Any]) -> None:
    down = way()
    with figure_style():
        (plate,) = drawn(tmp_path / "own", down, "relu", 3)
        save_figure(plate.figure, tmp_path / plate.file, pdf=False)
    assert (plate.kind, plate.file) == ("steps", "steps.png")
    assert "unit 3 of relu down to the pixels of first" in plate.caption
    outputs = make_results().activations["first"]["relu"]
    rows = [[tile for tile in line if tile] for line in parts["lines"]]
    assert len(rows) == len(parts["labels"]) == len(parts["bars"]) == 4
    assert [tile.title for tile in rows[0]] == ["input", "0", "1", "2", "3", "4"]
    for row, values in ((rows[0][1:], outputs), (rows[1], down[0][2]), (rows[2], down[1][2])):
        assert all(np.array_equal(tile.values, value) for tile, value in zip(row, values, strict=True))
    scale = parts["bars"][3].scale
    assert np.allclose(rows[3][1].values, 0.5 + down[2][2].transpose(1, 2, 0) / (2 * scale.high))
    assert "all but unit 3 set to zero" in parts["labels"][1]
    assert "rectify (relu)\nat conv1: 5 × 8 × 6" in parts["labels"][2]
    assert "filter (conv1)\nat the pixels: 3 × 8 × 6" in parts["labels"][3]
    for label, (_, _, signal) in zip(parts["labels"][1:], down, strict=True):
        assert f"{np.count_nonzero(signal):,} of {signal.size:,} not zero" in label
        assert f"{signal.min():.3g} to {signal.max():.3g}".replace("-", "−") in label


def test_units_that_are_all_zero_leave_their_places_free_after_the_first_step(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    down = way()
    down[1][2][[0, 2]] = 0
    with figure_style():
        drawn(tmp_path / "own", down, "relu", 3)
    assert [tile is None for tile in parts["lines"][2][1:]] == [True, False, True, False, False]
    assert None not in parts["lines"][1][1:]


def test_no_plate_without_steps_and_a_dead_unit_is_said_to_be(tmp_path: Path) -> None:
    with figure_style():
        (plate,) = drawn(tmp_path / "own", [(name, how, 0 * s) for name, how, s in way()], "relu", 2)
    assert plate.caption.endswith("nothing goes down from it.")
    write_json(tmp_path / "own/steps/steps.json", None)
    assert list(deconv_steps.draw_deconv_steps(FigureContext(tmp_path / "own", "own", VIEWS))) == []


@pytest.mark.parametrize("size", [1, 7, 84, 120, 400])
def test_a_vector_is_one_tile_with_every_value_in_its_order(size: int) -> None:
    plane = deconv_steps._to_plane(np.arange(size))
    assert plane.ravel().tolist() == list(range(size))
    assert plane.shape[0] <= plane.shape[1]
