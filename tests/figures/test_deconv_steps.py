"""The way down of one unit's projection: its steps, what is kept of them, and the plate of them."""

import itertools
import json
import random
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.deconvnet import (
    ProjectionStep,
    Select,
    make_seed_signal,
    project,
    project_stepwise,
)
from convatlas.attribution.graph import topological_order
from convatlas.attribution.sequential_deconvnet import Deconvnet
from convatlas.figures import deconv_steps
from convatlas.figures.context import FigureContext
from convatlas.files import Npz, read_json, write_json, write_npz
from convatlas.models.architectures.lenet5 import lenet5
from convatlas.pipeline.config import resolve_config
from convatlas.plotting.labelled_figure import figure_style, save_figure
from convatlas.tracing import layers, record
from tests.support.fake_results import VIEWS, make_results
from tests.support.workspace import ROOT

DECONV = {"layers": ["pool1", "pool2"], "units": 16, "select": ["map"], "rectify": False, "steps": {}}


def digit(n: int = 0) -> Tensor:
    return torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(n))


@pytest.fixture(scope="module")
def lenet() -> nn.Sequential:
    torch.manual_seed(0)
    return lenet5().eval()


class Branching(nn.Module):
    """Two convolutions, then a block with a shortcut, then a concatenation with what came before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(6), nn.Conv2d(12, 5, 3, padding=1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first(x).relu())
        y = (x + self.norm(self.inner(x))).relu()
        return self.last(torch.cat([x, y], 1)).relu()


# The steps


@pytest.mark.parametrize("select", ["map", "peak"])
@pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2", "relu2", "pool2", "fc2"])
def test_the_last_step_is_the_projection_bit_for_bit(
    lenet: nn.Sequential, layer: str, select: Select
) -> None:
    for unit in (0, 3):
        steps = project_stepwise(lenet, digit(), layer, unit, select)
        assert torch.equal(steps[-1].signal, project(lenet, digit(), layer, [unit], select)[0])


@pytest.mark.parametrize("select", ["map", "peak"])
def test_the_steps_of_a_chain_are_those_of_the_explicit_deconvnet(
    lenet: nn.Sequential, select: Select
) -> None:
    """Unpool, rectify, filter, each by the module that Deconvnet has for it."""
    steps = project_stepwise(lenet, digit(), "pool2", 2, select)
    assert [step.layer for step in steps] == ["pool2", "relu2", "conv2", "pool1", "relu1", "conv1", "input"]
    assert [step.passed_layers for step in steps] == [[], *([step.layer] for step in steps[:-1])]
    found = record.record(lenet, digit()[None])
    signal = torch.zeros_like(found.activations["pool2"])
    signal[:, 2] = make_seed_signal(found.activations["pool2"], select)[:, 2]
    assert torch.equal(steps[0].signal, signal[0])
    below = [*(found.activations[step.layer] for step in steps[1:-1]), found.input]
    for step, (name, module), given in zip(
        steps[1:], Deconvnet(lenet, "pool2").reversed_layers, below, strict=True
    ):
        signal = Deconvnet.backward_step(name, module, signal, given.shape[1:], found.switches.get(name))
        torch.testing.assert_close(step.signal, signal[0], rtol=1e-5, atol=1e-6)


def test_where_ways_part_the_steps_are_what_all_of_them_meet() -> None:
    torch.manual_seed(1)
    net, x = Branching().eval(), torch.randn(3, 12, 12)
    steps = project_stepwise(net, x, "relu:3", 1)
    assert [step.layer for step in steps] == ["relu:3", "last", "cat", "pool", "relu", "first", "input"]
    assert torch.equal(steps[-1].signal, project(net, x, "relu:3", [1])[0])
    assert steps[3].passed_layers == ["cat", "relu:2", "add", "norm", "inner"]
    # At the pooling's output two ways meet: past the block, and through it, by hand.
    at_cat = steps[2].signal[None]
    rectified = at_cat[:, 6:].relu()
    factor = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
    back = nn.functional.conv_transpose2d(rectified * factor[:, None, None], net.inner.weight, padding=1)
    torch.testing.assert_close(steps[3].signal, (at_cat[:, :6] + rectified + back)[0])


def test_a_dead_unit_goes_down_as_zeros_and_an_unknown_one_is_refused(lenet: nn.Sequential) -> None:
    torch.manual_seed(0)
    net = lenet5().eval()
    net.conv2.bias.data[4] = -1e6
    assert not any(step.signal.any() for step in project_stepwise(net, digit(), "pool2", 4))
    with pytest.raises(UserError, match="no units"):
        project_stepwise(lenet, digit(), "pool2", 16)


def test_the_network_is_left_as_it_was(lenet: nn.Sequential) -> None:
    before = {name: value.clone() for name, value in lenet.state_dict().items()}
    first, again = (project_stepwise(lenet, digit(), "pool2", 1) for _ in range(2))
    assert all(torch.equal(a.signal, b.signal) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in lenet.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in lenet.parameters())


class Fake:
    """A step of autograd's graph, as far as its order is concerned."""

    def __init__(self, lower: list["Fake"]) -> None:
        self.next_functions = [(node, 0) for node in lower]

    def name(self) -> str:
        return "AddBackward0"


@pytest.mark.parametrize("case", range(40))
def test_what_every_way_meets_is_on_every_path(case: int) -> None:
    """Against all paths of a random graph, one by one."""
    chance = random.Random(case)
    nodes = [Fake([])]
    for _ in range(chance.randint(1, 8)):
        nodes.append(Fake(chance.choices(nodes[-4:], k=chance.randint(1, 3))))
    order, met = topological_order(nodes[-1])

    def paths(node: Fake) -> list[list[Fake]]:
        lower = [below for below, _ in node.next_functions]
        return [[node, *path] for below in lower for path in paths(below)] if lower else [[node]]

    every = paths(nodes[-1])
    assert set(met) == set.intersection(*(set(path) for path in every))
    place = {node: n for n, node in enumerate(order)}
    assert all(place[a] < place[b] for path in every for a, b in itertools.pairwise(path))


# What is kept


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, lenet: nn.Sequential) -> Path:
    """results/lenet5/ as far as the stage reads it, of an untrained network."""
    folder = tmp_path_factory.mktemp("results") / "lenet5"
    folder.mkdir()
    save_file(lenet.state_dict(), folder / "weights.safetensors")
    preprocessing = {"size": 28, "mean": [0.1307], "std": [0.3081], "resize": 28, "interpolation": "bilinear"}
    network = {"architecture": "lenet5", "arguments": {"classes": 10}, "weights": {"name": None}}
    write_json(folder / "network.json", network | {"preprocessing": preprocessing})
    write_json(folder / "layers.json", layers.list_layers(lenet, (1, 28, 28)))
    names = ["digit-0", "steps"]  # an image may be called as a file of the stage
    write_json(folder / "images.json", [{"name": name} for name in names])
    for n, name in enumerate(names):
        record.record_to_file(lenet, digit(n)[None], folder / f"activations/{name}.npz")
    return folder


Stage = Callable[..., dict[str, Any] | None]


@pytest.fixture
def stage(results: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Run scripts/deconv.py in this process with some of its settings, and give steps.json."""

    def run(**settings: Any) -> dict[str, Any] | None:
        arguments = ["--name", "lenet5", "--settings", json.dumps(DECONV | settings), "--threads", "1"]
        monkeypatch.setattr(sys, "argv", ["deconv.py", *arguments, "--output", str(results)])
        monkeypatch.setattr(torch, "set_deterministic_debug_mode", lambda mode: None)
        runpy.run_path(str(ROOT / "scripts/deconv.py"), run_name="__main__")
        return read_json(results / "steps/steps.json")

    return run


def test_the_stage_follows_the_strongest_unit_of_the_last_layer_on_the_first_image(
    results: Path, stage: Stage, lenet: nn.Sequential
) -> None:
    told = stage()
    output = Npz(results / "activations/digit-0.npz")["pool2"]
    unit = int(output.reshape(16, -1).max(1).argmax())
    assert told and (told["image"], told["layer"], told["unit"]) == ("digit-0", "pool2", unit)
    signals = Npz(results / "steps/signals.npz")
    assert list(signals) == [step["layer"] for step in told["steps"]]
    assert np.array_equal(signals["input"], project(lenet, digit(), "pool2", [unit])[0].numpy())
    assert np.array_equal(signals["input"], Npz(results / "deconv/digit-0.npz")["pool2"][unit])
    for step in told["steps"]:
        signal = signals[step["layer"]]
        assert step["shape"] == list(signal.shape) and step["size"] == signal.size
        assert (step["low"], step["high"]) == (signal.min(), signal.max())
        assert step["nonzero"] == np.count_nonzero(signal)
    assert sorted(path.name for path in (results / "deconv").iterdir()) == ["digit-0.npz", "steps.npz"]


def test_another_unit_of_another_image_may_be_asked_for(results: Path, stage: Stage) -> None:
    before = (results / "steps/signals.npz").read_bytes() if (results / "steps").exists() else b""
    told = stage(steps={"layer": 1, "unit": 2, "image": "steps"})
    assert told and (told["image"], told["layer"], told["unit"]) == ("steps", "conv1", 2)
    assert (results / "steps/signals.npz").read_bytes() != before
    assert [step["layer"] for step in told["steps"]] == ["conv1", "input"]


def test_none_is_followed_where_none_is_asked_for_or_projected(results: Path, stage: Stage) -> None:
    assert stage(steps=None) is None
    assert stage(layers=[]) is None
    assert list(Npz(results / "steps/signals.npz")) == []


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"image": "digit-1"}, ["steps.image", "'digit-1'", "digit-0"]),
        ({"layer": "pool9"}, ["steps.layer", "'pool9'", "pool1"]),
        ({"unit": 16}, ["steps.unit", "16", "pool2 has 16"]),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    results: Path, stage: Stage, steps: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        stage(steps=steps)
    for word in ["networks.lenet5.views.deconv", *words]:
        assert word in str(end.value)


def test_of_many_steps_one_of_each_size_is_kept() -> None:
    script = runpy.run_path(str(ROOT / "scripts/deconv.py"))
    sizes = [4, 4, 4, 8, 8, 8, 8, 8, 16, 16, 16, 16, 28]
    names = [*(f"l{n}" for n in range(len(sizes) - 1)), "input"]
    steps = [
        ProjectionStep(name, torch.full((2, size, size), float(n)), names[:n][-1:])
        for n, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    kept = script["_thin_steps"](steps)
    assert [step.layer for step in kept] == ["l0", "l3", "l8", "input"]
    assert [step.passed_layers for step in kept] == [[], names[:3], names[3:8], names[8:12]]
    assert all(torch.equal(step.signal, steps[names.index(step.layer)].signal) for step in kept)
    assert script["_thin_steps"](steps[:12]) == steps[:12]


def test_of_many_units_the_strongest_are_kept_and_of_vectors_all() -> None:
    script, written = runpy.run_path(str(ROOT / "scripts/deconv.py")), {}
    maps = torch.zeros(40, 3, 3)
    maps[torch.arange(10, 40), 0, 0] = -torch.arange(30.0)
    told = script["_write_step"](ProjectionStep("deep", maps, []), written.__setitem__)
    assert written["deep@units"].tolist() == list(range(39, 23, -1))
    assert np.array_equal(written["deep"], maps.numpy()[written["deep@units"]])
    assert (told["shape"], told["nonzero"], told["low"], told["high"]) == ([40, 3, 3], 29, -29, 0)
    script["_write_step"](ProjectionStep("fc", torch.arange(40.0), []), written.__setitem__)
    script["_write_step"](ProjectionStep("input", maps, []), written.__setitem__)
    assert written["fc"].shape == (40,) and written["input"].shape == (40, 3, 3)
    assert "fc@units" not in written and "input@units" not in written


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
        {"layer": name, "through": through, "shape": list(signal.shape), "size": signal.size}
        | {"low": float(signal.min()), "high": float(signal.max())}
        | {"nonzero": int(np.count_nonzero(signal))}
        for name, through, signal in down
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
