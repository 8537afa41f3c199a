"""The steps of one unit's projection on its way down, and the files of the stage that writes them."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convatlas import UserError
from convatlas.attribution.deconv_steps import thin_steps, write_step
from convatlas.attribution.deconvnet import (
    ProjectionStep,
    Select,
    make_seed_signal,
    project,
    project_stepwise,
)
from convatlas.attribution.graph import topological_order
from convatlas.attribution.projections import project_sample_images
from convatlas.attribution.sequential_deconvnet import Deconvnet
from convatlas.attribution.unit_selection import select_top_units
from convatlas.files import write_json
from convatlas.models.architectures.lenet5 import lenet5
from convatlas.records import DeconvSteps
from convatlas.results import Results
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import record, record_to_file

SETTINGS: dict[str, Any] = {
    "layers": ["pool1", "pool2"],
    "units": 16,
    "select": ["map"],
    "rectify": False,
    "steps": {},
}


def make_image(seed: int = 0) -> Tensor:
    return torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def lenet() -> nn.Sequential:
    torch.manual_seed(0)
    return lenet5().eval()


class Branching(nn.Module):
    """Two convolutions, then a block with a shortcut, then a concatenation with the block's input."""

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
        steps = project_stepwise(lenet, make_image(), layer, unit, select)
        assert torch.equal(steps[-1].signal, project(lenet, make_image(), layer, [unit], select)[0])


@pytest.mark.parametrize("select", ["map", "peak"])
def test_the_steps_of_a_chain_are_those_of_the_sequential_deconvnet(
    lenet: nn.Sequential, select: Select
) -> None:
    """Unpool, rectify, filter, each by the step that Deconvnet has for it."""
    steps = project_stepwise(lenet, make_image(), "pool2", 2, select)
    assert [step.layer for step in steps] == ["pool2", "relu2", "conv2", "pool1", "relu1", "conv1", "input"]
    assert [step.passed_layers for step in steps] == [[], *([step.layer] for step in steps[:-1])]
    activations = record(lenet, make_image()[None])
    signal = torch.zeros_like(activations.outputs["pool2"])
    signal[:, 2] = make_seed_signal(activations.outputs["pool2"], select)[:, 2]
    assert torch.equal(steps[0].signal, signal[0])
    inputs = [*(activations.outputs[step.layer] for step in steps[1:-1]), activations.input]
    layers = Deconvnet(lenet, "pool2").reversed_layers
    for step, (name, module), x in zip(steps[1:], layers, inputs, strict=True):
        switches = activations.switches.get(name)
        signal = Deconvnet.backward_step(name, module, signal, x.shape[1:], switches)
        torch.testing.assert_close(step.signal, signal[0], rtol=1e-5, atol=1e-6)


def test_where_branches_part_the_steps_are_those_on_every_path() -> None:
    torch.manual_seed(1)
    network, x = Branching().eval(), torch.randn(3, 12, 12)
    steps = project_stepwise(network, x, "relu:3", 1)
    assert [step.layer for step in steps] == ["relu:3", "last", "cat", "pool", "relu", "first", "input"]
    assert torch.equal(steps[-1].signal, project(network, x, "relu:3", [1])[0])
    assert steps[3].passed_layers == ["cat", "relu:2", "add", "norm", "inner"]
    # At the pooling's output two paths meet: past the block and through it. The same by hand:
    at_cat = steps[2].signal[None]
    rectified = at_cat[:, 6:].relu()
    factor = network.norm.weight / (network.norm.running_var + network.norm.eps).sqrt()
    scaled = rectified * factor[:, None, None]
    through_block = nn.functional.conv_transpose2d(scaled, network.inner.weight, padding=1)
    torch.testing.assert_close(steps[3].signal, (at_cat[:, :6] + rectified + through_block)[0])


def test_an_inactive_unit_goes_down_as_zeros_and_an_unknown_one_is_refused(lenet: nn.Sequential) -> None:
    torch.manual_seed(0)
    network = lenet5().eval()
    network.conv2.bias.data[4] = -1e6
    assert not any(step.signal.any() for step in project_stepwise(network, make_image(), "pool2", 4))
    with pytest.raises(UserError, match="no units"):
        project_stepwise(lenet, make_image(), "pool2", 16)


def test_the_network_is_left_as_it_was(lenet: nn.Sequential) -> None:
    before = {name: value.clone() for name, value in lenet.state_dict().items()}
    first, second = (project_stepwise(lenet, make_image(), "pool2", 1) for _ in range(2))
    assert all(torch.equal(a.signal, b.signal) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in lenet.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in lenet.parameters())


class FakeNode:
    """A node of autograd's graph, as far as its order is concerned."""

    def __init__(self, children: list["FakeNode"]) -> None:
        self.next_functions = [(node, 0) for node in children]

    def name(self) -> str:
        return "AddBackward0"


@pytest.mark.parametrize("seed", range(40))
def test_nodes_on_every_path_are_found_and_the_order_is_topological(seed: int) -> None:
    """Against all paths of a random graph, one by one."""
    rng = random.Random(seed)
    nodes = [FakeNode([])]
    for _ in range(rng.randint(1, 8)):
        nodes.append(FakeNode(rng.choices(nodes[-4:], k=rng.randint(1, 3))))
    order, on_every_path = topological_order(nodes[-1])

    def list_paths(node: FakeNode) -> list[list[FakeNode]]:
        children = [child for child, _ in node.next_functions]
        return [[node, *path] for child in children for path in list_paths(child)] or [[node]]

    paths = list_paths(nodes[-1])
    assert set(on_every_path) == set.intersection(*(set(path) for path in paths))
    rank = {node: n for n, node in enumerate(order)}
    assert all(rank[a] < rank[b] for path in paths for a, b in itertools.pairwise(path))


# The files of the stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, lenet: nn.Sequential) -> Path:
    """results/lenet5/ as far as the stage reads it, of an untrained network."""
    folder = tmp_path_factory.mktemp("results") / "lenet5"
    folder.mkdir()
    save_file(lenet.state_dict(), folder / "weights.safetensors")
    preprocessing = {"size": 28, "mean": [0.1307], "std": [0.3081], "resize": 28, "interpolation": "bilinear"}
    network = {"architecture": "lenet5", "arguments": {"classes": 10}, "weights": {"name": None}}
    write_json(folder / "network.json", network | {"preprocessing": preprocessing})
    write_json(folder / "layers.json", list_layers(lenet, (1, 28, 28)))
    names = ["digit-0", "steps"]  # an image may have the name of a file of the stage
    write_json(folder / "images.json", [{"name": name} for name in names])
    for n, name in enumerate(names):
        record_to_file(lenet, make_image(n)[None], folder / f"activations/{name}.npz")
    return folder


Stage = Callable[..., DeconvSteps | None]


@pytest.fixture
def run_stage(folder: Path) -> Stage:
    """Return a function that runs the stage with some of its settings, and returns steps.json."""

    def run(**settings: Any) -> DeconvSteps | None:
        key = "networks.lenet5.views.deconv"
        project_sample_images(folder, SETTINGS | settings, torch.device("cpu"), key)  # type: ignore[arg-type]
        return Results(folder).steps

    return run


def test_by_default_the_most_active_unit_of_the_last_layer_is_followed_on_the_first_image(
    folder: Path, run_stage: Stage, lenet: nn.Sequential
) -> None:
    description = run_stage()
    results = Results(folder)
    output = results.activations("digit-0")["pool2"]
    unit = int(output.reshape(16, -1).max(1).argmax())
    assert description
    assert (description["image"], description["layer"], description["unit"]) == ("digit-0", "pool2", unit)
    signals = results.step_signals
    assert list(signals) == [step["layer"] for step in description["steps"]]
    assert np.array_equal(signals["input"], project(lenet, make_image(), "pool2", [unit])[0].numpy())
    assert np.array_equal(signals["input"], results.projections("digit-0")["pool2"][unit])
    for step in description["steps"]:
        signal = signals[step["layer"]]
        assert step["shape"] == list(signal.shape)
        assert (step["min"], step["max"]) == (signal.min(), signal.max())
        assert (step["nonzero_count"], step["value_count"]) == (np.count_nonzero(signal), signal.size)
    assert sorted(path.name for path in (folder / "deconv").iterdir()) == ["digit-0.npz", "steps.npz"]


def test_the_settings_choose_another_unit_of_another_image(folder: Path, run_stage: Stage) -> None:
    run_stage()
    before = (folder / "steps/signals.npz").read_bytes()
    description = run_stage(steps={"layer": 1, "unit": 2, "image": "steps"})
    assert description
    assert (description["image"], description["layer"], description["unit"]) == ("steps", "conv1", 2)
    assert (folder / "steps/signals.npz").read_bytes() != before
    assert [step["layer"] for step in description["steps"]] == ["conv1", "input"]


def test_no_unit_is_followed_without_the_setting_or_without_a_projected_layer(
    folder: Path, run_stage: Stage
) -> None:
    assert run_stage(steps=None) is None
    assert run_stage(layers=[]) is None
    assert list(Results(folder).step_signals) == []


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"image": "digit-1"}, ["steps.image", "'digit-1'", "digit-0"]),
        ({"layer": "pool9"}, ["steps.layer", "'pool9'", "pool1"]),
        ({"unit": 16}, ["steps.unit", "16", "pool2 has 16"]),
    ],
)
def test_an_unknown_image_layer_or_unit_is_named_with_those_that_exist(
    run_stage: Stage, steps: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        run_stage(steps=steps)
    for word in ["networks.lenet5.views.deconv", *words]:
        assert word in str(error.value)


def test_all_convolutions_and_pooling_layers_are_projected_by_default(
    folder: Path, run_stage: Stage, lenet: nn.Sequential
) -> None:
    run_stage(layers="all", units=3, select=["map", "peak"])
    results = Results(folder)
    projections = results.projections("steps")
    layers = ["conv1", "pool1", "conv2", "pool2"]
    assert list(projections) == [f"{layer}{end}" for layer in layers for end in ("", "@peak", "@units")]
    for layer in layers:
        output = results.activations("steps")[layer]
        units = projections[f"{layer}@units"]
        assert units.dtype == np.int32
        assert np.array_equal(units, np.argsort(-output.max((1, 2)), kind="stable")[:3])
        expected = project(lenet, make_image(1), layer, units.tolist(), "peak")
        assert np.array_equal(projections[f"{layer}@peak"], expected.numpy())


def test_of_many_steps_one_of_each_size_is_kept() -> None:
    sizes = [4, 4, 4, 8, 8, 8, 8, 8, 16, 16, 16, 16, 28]
    names = [*(f"l{n}" for n in range(len(sizes) - 1)), "input"]
    steps = [
        ProjectionStep(name, torch.full((2, size, size), float(n)), names[:n][-1:])
        for n, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    selected = thin_steps(steps)
    assert [step.layer for step in selected] == ["l0", "l3", "l8", "input"]
    assert [step.passed_layers for step in selected] == [[], names[:3], names[3:8], names[8:12]]
    assert all(torch.equal(step.signal, steps[names.index(step.layer)].signal) for step in selected)
    assert thin_steps(steps[:12]) == steps[:12]


def test_of_many_units_those_with_the_largest_values_are_kept_and_of_vectors_all() -> None:
    arrays: dict[str, np.ndarray] = {}
    maps = torch.zeros(40, 3, 3)
    maps[torch.arange(10, 40), 0, 0] = -torch.arange(30.0)
    entry = write_step(ProjectionStep("deep", maps, []), arrays.__setitem__)
    assert arrays["deep@units"].tolist() == list(range(39, 23, -1))
    assert np.array_equal(arrays["deep"], maps.numpy()[arrays["deep@units"]])
    assert entry["shape"] == [40, 3, 3]
    assert (entry["nonzero_count"], entry["min"], entry["max"]) == (29, -29, 0)
    write_step(ProjectionStep("fc", torch.arange(40.0), []), arrays.__setitem__)
    write_step(ProjectionStep("input", maps, []), arrays.__setitem__)
    assert arrays["fc"].shape == (40,) and arrays["input"].shape == (40, 3, 3)
    assert "fc@units" not in arrays and "input@units" not in arrays


def test_top_units_are_sorted_by_score_only_where_some_are_skipped() -> None:
    scores = np.array([1.0, 3.0, 3.0, -1.0, 2.0], np.float32)
    assert select_top_units(scores, 3).tolist() == [1, 2, 4]
    assert select_top_units(scores, 4).tolist() == [1, 2, 4, 0]
    for limit in (5, 6, "all"):
        assert select_top_units(scores, limit).tolist() == [0, 1, 2, 3, 4]
    assert select_top_units(scores, 2).dtype == select_top_units(scores, "all").dtype == np.int32
