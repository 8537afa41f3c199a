"""The stage: feature_visualisation/ of a network, from its results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convatlas import UserError
from convatlas.attribution.feature_visualisation.write import write_feature_visualisation
from convatlas.attribution.projections import project_sample_images
from convatlas.models import build
from convatlas.pipeline.config import resolve_config
from convatlas.records import FeatureVisualisation
from convatlas.results import Results
from convatlas.tracing.record_results import record_results
from convatlas.training.run import train_network

CPU = torch.device("cpu")
NET = """
import torch
from torch import nn

INPUT = {"size": 24, "mean": [0.5] * 3, "std": [0.25] * 3}

def classify():
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU())
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(1))

def segment():
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))

def embed():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6 * 22 * 22, 4), nn.Tanh())

def hear():
    return nn.Sequential(nn.Conv1d(1, 4, 5), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 4))
"""
CLASSES = ["ant", "bee", "cat", "dog"]
IMAGES = {"photographs": ["cat", "coffee"]}


def prepare(folder: Path, function: str, **settings: Any) -> Path:
    """Run the stages up to the projections of an untrained network; return its folder."""
    (folder / "net.py").write_text(NET)
    section = {"architecture": f"{folder}/net.py:{function}", "images": IMAGES, **settings}
    network = resolve_config({"networks": {"own": section}})["networks"]["own"]
    results = folder / "results/own"
    train_network("own", network, results, device="cpu", threads=1)
    record = {key: network[key] for key in ("images", "record", "downsample_name")}  # type: ignore[literal-required]
    record_results(results, record | {"layers": [], "explored_layers": "all"}, CPU)  # type: ignore[arg-type]
    project_sample_images(results, network["views"]["deconv"], CPU)
    return results


def visualise(folder: Path, **settings: Any) -> tuple[FeatureVisualisation, Results]:
    """Run the stage with a few steps; return its JSON file, and the results."""
    views = {"views": {"feature_visualisation": {"steps": 4, **settings}}}
    config = resolve_config({"networks": {"own": {"architecture": "lenet5", **views}}})
    resolved: Any = config["networks"]["own"]["views"]["feature_visualisation"]
    write_feature_visualisation(folder, resolved | {"seed": 0}, CPU)
    results = Results(folder)
    assert results.feature_visualisation
    return results.feature_visualisation, results


def test_the_images_of_units_and_classes_are_written(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "classify")
    analysis, results = visualise(folder, units=2, classes=[3, 1], second_start=1)
    arrays = results.feature_visualisation_arrays
    assert analysis["undefined"] is None
    assert [entry["layer"] for entry in analysis["layers"]] == ["0.0", "0.2", "0.3", "1"]
    network, preprocessing = build.load_network(folder)
    for entry in analysis["layers"]:
        name = entry["layer"]
        assert arrays[f"{name}@images"].shape == (2, 3, 24, 24)
        assert arrays[f"{name}@curves"].shape == (2, 4)
        assert arrays[f"{name}@second_images"].shape == (1, 3, 24, 24)
        assert arrays[f"{name}@units"].tolist() == [unit["unit"] for unit in entry["units"]]
        for unit in entry["units"]:
            assert unit["reached"] == (unit["objective"] > unit["control"])
            assert (unit["dataset_maximum"], unit["dead"]) == (None, False)
    (first, second) = analysis["logits"]["classes"]
    assert (first["class"], second["class"]) == (3, 1)
    assert first["second_start"] and not second["second_start"]
    pixels = torch.from_numpy(arrays["@images"])
    probabilities = network(preprocessing(255 * pixels))
    assert first["probability"] == pytest.approx(float(probabilities[0, 3]), rel=1e-4)
    assert second["predicted"] == int(probabilities[1].argmax())
    before = (folder / "feature_visualisation/feature_visualisation.npz").read_bytes()
    visualise(folder, units=2, classes=[3, 1], second_start=1)
    assert (folder / "feature_visualisation/feature_visualisation.npz").read_bytes() == before
    _check_selections(folder)


def _check_selections(folder: Path) -> None:
    """Layers, units, classes and sizes that are chosen, and those that are not there."""
    analysis, results = visualise(folder, layers=["0.0", 2], units=[5, 0], classes=0, second_start=0, size=16)
    assert [entry["layer"] for entry in analysis["layers"]] == ["0.0", "0.3"]
    assert results.feature_visualisation_arrays["0.3@units"].tolist() == [5, 0]
    assert results.feature_visualisation_arrays["0.3@images"].shape == (2, 3, 16, 16)
    assert (analysis["size"], analysis["input_size"]) == ([16, 16], [24, 24])
    assert analysis["logits"]["undefined"] == "views.feature_visualisation.classes is 0"
    with pytest.raises(UserError, match=r"units: 0\.0 has no unit 6; it has 6"):
        visualise(folder, units=[6], layers=["0.0", "0.3"])
    with pytest.raises(UserError, match="layers: no layer 'conv'"):
        visualise(folder, layers=["conv"])
    with pytest.raises(UserError, match="classes: no class 4"):
        visualise(folder, units=0, classes=[4])


def test_the_logits_of_a_segmentation_are_means_over_pixels(tmp_path: Path) -> None:
    analysis, results = visualise(prepare(tmp_path, "segment", classes=CLASSES), units=1, classes=1)
    network, preprocessing = build.load_network(results.folder)
    (entry,) = analysis["logits"]["classes"]
    scores = network(preprocessing(255 * torch.from_numpy(results.feature_visualisation_arrays["@images"])))
    assert entry["objective"] == pytest.approx(float(scores[0, entry["class"]].mean()), rel=1e-4)
    assert entry["probability"] == pytest.approx(float(scores.softmax(1)[0, entry["class"]].mean()), rel=1e-4)


def test_what_a_network_lacks_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "embed")
    analysis, _ = visualise(folder, layers=["0"], units=1)
    assert "no class scores" in (analysis["logits"]["undefined"] or "")
    assert analysis["layers"][0]["units"]
    analysis, _ = visualise(folder, layers=["0", "2"], units=1, size=12)
    assert analysis["layers"][0]["undefined"] is None
    assert "size: null" in (analysis["layers"][1]["undefined"] or "")


def test_inputs_that_are_no_images_have_no_optimised_images(tmp_path: Path) -> None:
    np.save(tmp_path / "sound.npy", np.zeros(64, np.float32))
    settings = {"input": {"size": [64], "channels": 1}, "images": {"files": [f"{tmp_path}/sound.npy"]}}
    analysis, results = visualise(prepare(tmp_path, "hear", **settings))
    assert "inputs are images" in (analysis["undefined"] or "")
    assert not list(results.feature_visualisation_arrays)
