"""Networks of audio and of volumes: recorded and listed like those of images, and not projected."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas.analysis.classical_report import write_classical_matches
from convatlas.attribution.projections import project_sample_images
from convatlas.files import read_json
from convatlas.gallery.explorer_sprites import draw_explorer
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.results import Results
from convatlas.tracing.record_results import record_results
from tests.support.dataset_pass import write_network

NETWORKS = """
from torch import nn


def audio():
    return nn.Sequential(
        nn.Conv1d(2, 4, 9, stride=2, padding=4), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(4, 3, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2))


def volume():
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(4, 3, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 2))
"""
CPU = torch.device("cpu")
VIEWS: dict[str, Any] = {"layers": "all", "atlas": {"layers": None, "levels": 16}}
DECONV: Any = {"layers": "all", "units": "all", "select": ["map"], "rectify": False, "steps": None}


@pytest.fixture(scope="module", params=["audio", "volume"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a recorded network of one or three axes, with one sample input."""
    tmp_path = tmp_path_factory.mktemp(request.param)
    size = {"audio": [64], "volume": [8, 16, 20]}[request.param]
    (tmp_path / "networks.py").write_text(NETWORKS)
    settings = {
        "architecture": f"{tmp_path / 'networks.py'}:{request.param}",
        "arguments": {},
        "weights": None,
    }
    network, preprocessing = build.build_network({**settings, "input": {"size": size}}, None, seed=1)
    description = {**settings, "weights": {"name": None}, "preprocessing": preprocessing.to_dict(), "seed": 0}
    description |= {"classes": ["a", "b"], "dataset_classes": None}
    description["output"] = Output("softmax", "", (2,)).to_dict()
    folder = write_network(tmp_path / "results/own", network, description, preprocessing.shape)
    np.save(tmp_path / "one.npy", np.random.default_rng(0).normal(size=preprocessing.shape))
    images = {"files": [str(tmp_path / "one.npy")]}
    record = {"dtype": "float32", "compress": False, "verify": True}
    record_results(
        folder,
        {"images": images, "record": record, "downsample_name": "", "layers": [], "explored_layers": "all"},  # type: ignore[typeddict-item]
        CPU,
    )
    return folder


def test_they_are_recorded_as_hooks_see_them(folder: Path) -> None:
    network, _ = build.load_network(folder)
    results, outputs = Results(folder), {}

    def copy_output(name: str) -> Any:
        return lambda module, inputs, output: outputs.update({name: output[0].numpy().copy()})

    for name, module in network.named_children():
        module.register_forward_hook(copy_output(name))
    activations = results.activations("one")
    stored = np.load(results.images[0]["path"] or "")
    np.testing.assert_array_equal(activations["input"], stored.astype(np.float32))
    network(torch.from_numpy(activations["input"])[None])
    assert {*outputs} == {*activations} - {"input"}
    for name, output in outputs.items():
        np.testing.assert_array_equal(activations[name], output)


def test_receptive_fields_are_those_of_the_gradient(folder: Path) -> None:
    """The pixels on which the central value of each layer depends."""
    network, preprocessing = build.load_network(folder)
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv3d):
            nn.init.constant_(module.weight, 0.1)
    layers = {layer["name"]: layer for layer in Results(folder).layers}
    for name in ("0", "2", "4", "5"):
        x: Tensor = torch.rand(1, *preprocessing.shape).add(1).requires_grad_()
        below = nn.Sequential(
            *[
                nn.AvgPool3d((1, 2, 2))
                if isinstance(m, nn.MaxPool3d)
                else nn.AvgPool1d(2)
                if isinstance(m, nn.MaxPool1d)
                else m
                for m in network[: int(name) + 1]
            ]  # type: ignore[index]
        )
        values = below(x)[0, 0]
        values[tuple(side // 2 for side in values.shape)].backward()
        assert x.grad is not None
        reached = x.grad[0].abs().sum(0).nonzero()
        extent = (reached.max(0).values - reached.min(0).values + 1).tolist()
        field = layers[name]["receptive_field"]
        assert field is not None
        assert extent == [min(*sides) for sides in zip(field, preprocessing.size, strict=True)], name
        assert layers[name]["kind"] in ("conv", "activation", "pool")


def test_the_stages_of_images_leave_them_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "convatlas"):
        project_sample_images(folder, DECONV, CPU)
    assert "no projections: the pages draw those of images only" in caplog.text
    write_classical_matches(folder, 0.5, CPU)
    results = Results(folder)
    assert not len(results.projections("one"))
    assert results.unit_matches["layers"] == {} and not list((folder / "classical").glob("*.npz"))


def test_the_explorer_has_the_numbers_of_their_units(folder: Path) -> None:
    project_sample_images(folder, DECONV, CPU)
    write_classical_matches(folder, 0.5, CPU)
    index = draw_explorer(folder, "own", VIEWS)
    activations = Results(folder).activations("one")
    assert [layer["name"] for layer in index["layers"]] == [*activations][1:]
    for layer in index["layers"]:
        ranges = read_json(folder / f"atlas/units/{layer['slug']}.json")["maps"]["one"]
        maps = activations[layer["name"]].reshape(layer["units"], -1)
        np.testing.assert_allclose(ranges["max"], maps.max(1), rtol=1e-5)
        np.testing.assert_allclose(ranges["mean"], maps.mean(1), rtol=1e-2, atol=1e-3)
