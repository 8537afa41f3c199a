"""Patches, against what the network itself depends on: pixel by pixel, and on the whole image."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from convatlas.attribution.deconvnet import project, project_positions
from convatlas.attribution.patches import PatchGeometry, extract_patch, is_croppable
from convatlas.attribution.patches import project_patches as project_patches
from convatlas.datasets import formats
from convatlas.files import Npz
from convatlas.models import build
from convatlas.tracing.layers import list_layers
from tests.support.arrays import read_npz
from tests.support.dataset_pass import (
    SETTINGS,
    run_pass,
    write_digits,
    write_lenet5,
    write_photographs,
    write_resnet18,
)
from tests.support.workspace import ROOT


class Branched(nn.Module):
    """Strides, dilation, paddings, uneven windows and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 5, stride=2, padding=2), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.way = nn.Sequential(
            nn.Conv2d(6, 6, (3, 5), padding=(1, 2)), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        )
        self.last = nn.Conv2d(6, 8, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        return torch.relu(self.last(self.way(x) + x))


def built(name: str) -> tuple[nn.Module, int, list[str]]:
    """A network with running statistics of its own, the side of its input, and layers to look from."""
    torch.manual_seed(0)
    match name:
        case "branched":
            network, side, layers = Branched(), 61, ["stem.0", "pool", "way.2", "add", "last", "relu"]
        case "resnet18":
            network, side = torchvision.models.resnet18(), 97
            layers = ["conv1", "maxpool", "layer1.0.conv2", "layer1.1", "layer2.0.downsample.0", "layer2.1"]
        case "sequential":
            network = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3, padding="same")
            )
            side, layers = 23, ["0", "1", "2", "3"]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False), side, layers


def channels_of(network: nn.Module) -> int:
    return next(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))


CASES = [(name, layer) for name in ("branched", "resnet18", "sequential") for layer in built(name)[2]]


@pytest.mark.parametrize(("name", "layer"), CASES)
def test_a_patch_is_what_the_network_gives_on_the_whole_image(name: str, layer: str) -> None:
    """In the corners, at the edges and within: the activation and its projection, bit by bit but rounding."""
    network, side, _ = built(name)
    shape = (channels_of(network), side, side)
    layers = list_layers(network, shape, blocks=[layer] if layer in dict(network.named_modules()) else [])
    described = next(one for one in layers if one["name"] == layer)
    window = PatchGeometry.from_layer(described, shape[1:])
    assert is_croppable(network, layers, layer)
    units, rows, columns = described["output_shape"]
    places = [
        (0, 0),
        (0, columns - 1),
        (rows - 1, 0),
        (rows - 1, columns - 1),
        (rows // 2, columns // 2),
        (1, rows // 3),
    ]
    positions = np.array(places)
    images = torch.randn(len(places), *shape, generator=torch.Generator().manual_seed(1)).numpy()
    of = np.arange(len(places)) % units
    found, values = project_patches(network, layer, images, window, of, positions)
    whole, expected = project_positions(
        network, torch.from_numpy(images), layer, torch.from_numpy(of), torch.from_numpy(positions)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (len(places), shape[0], *window.patch_size)
    for n, position in enumerate(positions):
        alone = extract_patch(whole[n].numpy(), window, position)
        np.testing.assert_allclose(found[n], alone, rtol=1e-3, atol=1e-6)
        assert np.nansum(np.abs(alone)) == pytest.approx(
            float(whole[n].abs().sum()), rel=1e-5
        )  # none is cut off
    again, _ = project_patches(network, layer, images, window, of, positions, crop=False)
    np.testing.assert_allclose(found, again, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer"), [("branched", "last"), ("branched", "way.2"), ("sequential", "3")]
)
def test_what_lies_outside_of_a_patch_changes_nothing_and_what_lies_inside_does(
    name: str, layer: str
) -> None:
    network, side, _ = built(name)
    for module in network.modules():  # nothing is rectified away, and nothing cancels
        if isinstance(module, nn.Conv2d):
            module.weight.abs_()
            module.bias.abs_()
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
    shape = (channels_of(network), side, side)
    described = next(one for one in list_layers(network, shape) if one["name"] == layer)
    window = PatchGeometry.from_layer(described, shape[1:])
    x = torch.rand(1, *shape)
    _, rows, columns = described["output_shape"]

    def value(image: Tensor, position: tuple[int, int]) -> float:
        made = project_positions(network, image, layer, torch.tensor([2]), torch.tensor([position]))[1]
        return float(made[0])

    for position in [(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2), (rows // 2, 0)]:
        before = value(x, position)
        top, left = window.pixel_slices(np.array(position))
        outside, inside = x.clone(), x.clone()
        kept = outside[..., top, left].clone()
        outside[:] = 50
        outside[..., top, left] = kept
        assert value(outside, position) == pytest.approx(before, rel=1e-5)
        inside[..., top, left] += 50
        assert value(inside, position) > before + 1
        for edge in (top.start, top.stop - 1) if name == "sequential" and 0 < position[0] < rows - 1 else ():
            row = x.clone()
            row[..., edge, left] += 1000
            assert value(row, position) != before


def test_a_window_beyond_the_border_is_nan_there() -> None:
    layer = {
        "output_shape": [1, 5, 5],
        "receptive_start": [-2, -1],
        "receptive_step": [2, 1],
        "receptive_field": [5, 3],
    }
    window = PatchGeometry.from_layer(layer, (9, 6))
    image = np.arange(54, dtype=np.float32).reshape(1, 9, 6)
    patch = extract_patch(image, window, np.array([0, 4]))
    assert window.corner(np.array([0, 4])) == (-2, 3)
    assert np.isnan(patch[0, :2]).all()
    np.testing.assert_array_equal(patch[0, 2:], image[0, :3, 3:6])
    patch = extract_patch(image, window, np.array([4, 0]))
    assert window.corner(np.array([4, 0])) == (6, -1)
    np.testing.assert_array_equal(patch[0, :3, 1:], image[0, 6:, :2])
    assert np.isnan(patch[0, 3:]).all()
    assert np.isnan(patch[0, :, 0]).all()


def test_a_window_larger_than_the_input_shows_all_of_it() -> None:
    layer = {
        "output_shape": [1, 5, 5],
        "receptive_start": [-7, 0],
        "receptive_step": [2, 1],
        "receptive_field": [11, 2],
    }
    window = PatchGeometry.from_layer(layer, (9, 6))
    assert window.patch_size == (9, 2)
    patch = extract_patch(np.ones((3, 9, 6), np.float32), window, np.array([0, 3]))
    assert window.corner(np.array([0, 3])) == (0, 3)
    assert np.isnan(patch).sum() == 3 * 2 * 5  # rows 4 to 8, which the place does not see
    assert PatchGeometry.from_layer(layer | {"receptive_start": None}, (9, 6)).patch_size == (9, 6)
    assert PatchGeometry.from_layer(layer | {"output_shape": [45]}, (9, 6)).is_global


def test_no_crop_behind_adaptive_pooling_or_borders_that_are_not_zero() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d(4), nn.ReLU())
    layers = list_layers(network, (1, 10, 10))
    assert [is_croppable(network, layers, layer["name"]) for layer in layers] == [True, False, False]
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"))
    layers = list_layers(network, (1, 10, 10))
    assert [is_croppable(network, layers, layer["name"]) for layer in layers] == [True, False]


# The script, end to end



@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a script in this process; return its error message, "" if it succeeds."""

    def script(name: str, folder: Path, data: Path, settings: dict[str, Any], *more: object) -> str:
        monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
        arguments = ["--name", folder.name, "--settings", json.dumps(settings), "--output", folder]
        argv = [f"{name}.py", *arguments, "--data", data, *more]
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        try:
            runpy.run_path(str(ROOT / f"scripts/{name}.py"), run_name="__main__")
        except SystemExit as end:
            return str(end.code)
        return ""

    return script


PROJECTED = {"project": "all", "units": "all", "rectify": False}


@pytest.mark.parametrize("kind", ["lenet5", "resnet18"])
def test_the_file_holds_projections_of_the_strongest_and_their_patches(
    kind: str,
    tmp_path: Path,
    script: Callable[..., str],
) -> None:
    if kind == "lenet5":
        folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 21)
        settings, some = PROJECTED, ["conv1", "pool1", "pool2"]
    else:
        folder, data = write_resnet18(tmp_path / "results/resnet18"), write_photographs(tmp_path)
        some = ["maxpool", "layer1.0.conv2", "layer3.0.conv1"]
        settings = PROJECTED | {"project": some, "units": 3}
    run_pass(folder, data, settings=SETTINGS | {"k": 4})
    assert not script("project_top_activations", folder, data, settings)
    strongest, statistics = Npz(folder / "strongest.npz"), read_npz(folder / "statistics.npz")
    for name, array in statistics.items():
        if name.endswith(("@values", "@images", "@positions")):
            np.testing.assert_array_equal(strongest[name], array)

    network, preprocessing = build.load_network(folder)
    pixels = formats.load(data, "test").read_images(
        preprocessing.mode, preprocessing.size, preprocessing.resize
    )
    x = preprocessing(torch.from_numpy(pixels))
    layers = {layer["name"]: layer for layer in json.loads((folder / "layers.json").read_text())}
    assert {name.split("@")[0] for name in strongest if name.endswith("@projections")} >= set(some)
    for name in some:
        values = strongest[f"{name}@values"]
        units = strongest[f"{name}@units"] if f"{name}@units" in strongest else np.arange(len(values))
        if kind == "resnet18":
            assert values[units, 0].tolist() == sorted(values[:, 0], reverse=True)[:3]
        window = PatchGeometry.from_layer(layers[name], preprocessing.shape[1:])
        projections, patches, corners = (
            strongest[f"{name}@{what}"] for what in ("projections", "patches", "corners")
        )
        assert projections.shape == patches.shape == (len(units), 4, x.shape[1], *window.patch_size)
        for at, unit in enumerate(units):
            for rank in range(4):
                n, position = (
                    strongest[f"{name}@images"][unit, rank],
                    strongest[f"{name}@positions"][unit, rank],
                )
                np.testing.assert_array_equal(
                    patches[at, rank], extract_patch(x[n].numpy(), window, position)
                )
                peak = project(network, x[n], name, [int(unit)], "peak")[0]
                np.testing.assert_allclose(
                    projections[at, rank], extract_patch(peak.numpy(), window, position), rtol=1e-3, atol=1e-5
                )
                top, left = corners[at, rank]
                row, column = (int(size) // 2 for size in window.patch_size)
                if not np.isnan(patches[at, rank, 0, row, column]):
                    assert patches[at, rank, 0, row, column] == x[n, 0, top + row, left + column]


def test_a_layer_that_was_not_followed_is_refused(tmp_path: Path, script: Callable[..., str]) -> None:
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 9)
    run_pass(folder, data, settings=SETTINGS | {"layers": ["conv*"]})
    assert not script("project_top_activations", folder, data, PROJECTED)  # all of those that were
    assert "conv1@patches" in Npz(folder / "strongest.npz")
    assert "pool1@values" not in Npz(folder / "strongest.npz")
    ended = script("project_top_activations", folder, data, PROJECTED | {"project": ["pool1"]})
    assert (
        "networks.lenet5.views.strongest.project: 'pool1' is not among those of views.strongest.layers"
        in ended
    )
    assert "no layer 'conv9'" in script("project_top_activations", folder, data, PROJECTED | {"project": ["conv9"]})


def test_nothing_is_projected_of_units_without_images(tmp_path: Path, script: Callable[..., str]) -> None:
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 9)
    run_pass(folder, data)
    statistics = read_npz(folder / "statistics.npz")
    statistics["conv1@images"][2, 1:] = -1
    with (folder / "statistics.npz").open("wb") as file:
        np.savez(file, **statistics)
    assert not script("project_top_activations", folder, data, PROJECTED | {"project": ["conv1"]})
    found = Npz(folder / "strongest.npz")
    assert np.isnan(found["conv1@projections"][2, 1:]).all()
    assert not np.isnan(found["conv1@projections"][2, 0]).all()
