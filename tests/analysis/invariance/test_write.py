"""invariance/ of a network: its files, the choice of images and layers, and what is not defined."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from convatlas import UserError
from convatlas.analysis.invariance.images import list_other_images, read_input
from convatlas.analysis.invariance.layers import choose_compared_layers
from convatlas.analysis.invariance.write import write_invariance
from convatlas.datasets import formats
from convatlas.files import read_json, write_json, write_npz
from convatlas.models import build
from convatlas.results import Results
from convatlas.tracing.layers import list_layers
from tests.support.dataset_pass import write_digits, write_lenet5

CPU = torch.device("cpu")
SETTINGS: Any = {
    "images": 5,
    "layers": None,
    "padding": "edge",
    "vertical": {"range": [-0.25, 0.25], "steps": 5},
    "horizontal": None,
    "scale": {"range": [0.6, 1.8], "steps": 7},
    "rotation": {"range": [0, 360], "steps": 5},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return results/lenet5 of an untrained network with two sample images, and data/digits."""
    folder = tmp_path_factory.mktemp("run")
    data, network = write_digits(folder / "data"), write_lenet5(folder / "results/lenet5")
    write_json(
        network / "network.json",
        read_json(network / "network.json") | {"dataset_classes": list("0123456789")},
    )
    test, preprocessing = formats.load(data, "test"), build.load_network(network)[1]
    images = []
    for index, label in ((0, 0), (23, 3)):
        x = read_input(test, index, preprocessing)
        name = f"test-{index:05d}"
        write_npz(network / f"activations/{name}.npz", {"input": x.numpy()})
        entry = {"name": name, "split": "test", "index": index, "path": None, "label": label}
        images.append(entry | {"prediction": 1, "probability": 0.2})
    write_json(network / "images.json", images)
    return network, data


def test_the_files_hold_what_the_results_read_and_are_the_same_twice(run: tuple[Path, Path]) -> None:
    folder, data = run
    write_invariance(folder, data, SETTINGS, CPU)
    first = {path.name: path.read_bytes() for path in (folder / "invariance").iterdir()}
    write_invariance(folder, data, SETTINGS, CPU)
    assert first == {path.name: path.read_bytes() for path in (folder / "invariance").iterdir()}
    results = Results(folder)
    analysis, arrays = results.invariance, results.invariance_arrays
    assert analysis is not None
    assert analysis["undefined"] is None
    assert [layer["name"] for layer in analysis["layers"]] == ["conv1", "relu4"]
    assert [image["label"] for image in analysis["images"]] == [0, 3, 1, 2, 4]  # of other classes
    assert analysis["classes"] == [0, 3, 1, 2, 4]
    assert analysis["class_sources"] == ["label"] * 5
    assert [transform["name"] for transform in analysis["transforms"]] == ["vertical", "scale", "rotation"]
    assert analysis["transforms"][0]["steps"] == [-4, 0, 4]
    for transform in analysis["transforms"]:
        name, identity = (
            transform["name"],
            transform["steps"].index(1.0 if transform["name"] == "scale" else 0.0),
        )
        for member in (f"conv1@{name}", f"relu4@{name}", f"probability@{name}"):
            assert arrays[member].shape == (5, len(transform["steps"]))
            assert arrays[member].dtype == np.float32
        assert (arrays[f"conv1@{name}"][:, identity] == 0).all()
        assert arrays[f"images@{name}"].shape == (5, len(transform["steps"]), 1, 28, 28)
    assert (arrays["relu4@rotation"][:, -1] == 0).all()


def test_images_and_layers_are_as_configured_and_others_are_errors(run: tuple[Path, Path]) -> None:
    folder, _ = run
    changed = SETTINGS | {"layers": ["pool?", 1], "scale": None, "rotation": None, "images": 1}
    write_invariance(folder, None, changed, CPU)
    analysis = Results(folder).invariance
    assert analysis is not None
    assert [layer["name"] for layer in analysis["layers"]] == ["conv1", "pool1", "pool2"]
    assert [layer["different_images"] for layer in analysis["layers"]] == [None] * 3  # of one image
    with pytest.raises(UserError, match=r"views.invariance.layers: no layer 'conv9'; did you mean"):
        write_invariance(folder, None, SETTINGS | {"layers": ["conv9"]}, CPU)


def test_an_input_that_is_no_image_is_undefined(tmp_path: Path) -> None:
    folder = write_lenet5(tmp_path / "audio")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nINPUT = {'size': [16], 'mean': [0.0], 'std': [1.0]}\n"
        "def build():\n    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, 3))\n"
    )
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, 3))
    preprocessing = {
        "size": [16],
        "mean": [0.0],
        "std": [1.0],
        "resize": "cover",
        "interpolation": "bilinear",
    }
    changes = {"architecture": f"{tmp_path / 'net.py'}:build", "preprocessing": preprocessing}
    write_json(folder / "network.json", read_json(folder / "network.json") | changes)
    write_json(folder / "layers.json", list_layers(network, (1, 16)))
    save_file(network.state_dict(), folder / "weights.safetensors")
    write_json(folder / "images.json", [])
    write_invariance(folder, None, SETTINGS, CPU)
    analysis = Results(folder).invariance
    assert analysis is not None
    assert analysis["undefined"] is not None
    assert analysis["undefined"].endswith("the network's input, 1 × 16, is no image")
    assert analysis["layers"] == []


def test_the_last_hidden_layer_is_that_before_the_last_weights_whatever_reshapes_it() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, 2),
        nn.Softmax(1),
    )
    layers = list_layers(network, (3, 8, 8))
    assert [layer["name"] for layer in choose_compared_layers(layers, None, "layers")] == ["0", "2"]
    single = list_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 8, 8))
    assert [layer["name"] for layer in choose_compared_layers(single, None, "layers")] == ["0"]
    without = list_layers(nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), (3, 8, 8))
    assert [layer["name"] for layer in choose_compared_layers(without, None, "layers")] == ["1"]


def test_images_without_labels_are_spread_over_the_split() -> None:
    indices = list(list_other_images(np.full(100, -1), {0}, set()))
    assert sorted(indices) == list(range(1, 100))
    assert np.diff(sorted([0, *indices[:4]])).min() > 10
    labelled = list_other_images(np.array([1, 0, 1, 2, 2]), {3}, {1})
    assert list(labelled)[:2] == [1, 4]
