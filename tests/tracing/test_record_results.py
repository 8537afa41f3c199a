"""The files of the stage that records a network, against the network itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convatlas import UserError
from convatlas.datasets import formats
from convatlas.models import build
from convatlas.models.outputs import Output
from convatlas.results import Results
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record import collect_filters, record
from convatlas.tracing.record_results import record_results
from tests.support.dataset_pass import write_digits, write_lenet5, write_network

SETTINGS: dict[str, Any] = {
    "images": {"first": 2},
    "record": {"dtype": "float32", "compress": False, "verify": True},
    "downsample_name": "downsample",
    "layers": ["conv1", 2],
    "explored_layers": "all",
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return the folder of an untrained LeNet-5 without layers.json, and that of a data set."""
    folder, data = write_lenet5(tmp_path / "results/lenet5"), write_digits(tmp_path, 5)
    (folder / "layers.json").unlink()
    return folder, data


def run_stage(folder: Path, data: Path | None, **settings: Any) -> Results:
    key = f"networks.{folder.name}"
    record_results(folder, SETTINGS | settings, torch.device("cpu"), data, key)  # type: ignore[arg-type]
    return Results(folder)


def test_the_files_hold_layers_filters_images_and_activations(folders: tuple[Path, Path]) -> None:
    folder, data = folders
    results = run_stage(folder, data)
    network, preprocessing = build.load_network(folder)
    assert results.layers == list_layers(network, preprocessing.shape)
    for name, weight in collect_filters(network).items():
        assert np.array_equal(results.filters[name], weight.numpy())
    assert [image["name"] for image in results.images] == ["test-00000", "test-00001"]
    dataset = formats.load(data, "test")
    pixels = dataset.read_images(preprocessing.pixel_format, preprocessing.size, preprocessing.resize, [0, 1])
    for image, x in zip(results.images, preprocessing(torch.from_numpy(pixels)), strict=True):
        expected, activations = record(network, x), results.activations(image["name"])
        probabilities = expected.outputs["log_softmax"].exp()
        assert (image["split"], image["label"]) == ("test", dataset.labels[image["index"]])
        assert image["prediction"] == probabilities.argmax()
        assert image["probability"] == pytest.approx(float(probabilities.max()), rel=1e-6)
        assert np.array_equal(activations["input"], x.numpy())
        for layer, output in expected.outputs.items():
            assert np.array_equal(activations[layer], output.numpy()), layer


def test_a_layer_that_does_not_exist_is_named_with_its_key(folders: tuple[Path, Path]) -> None:
    folder, data = folders
    with pytest.raises(UserError, match=r"networks\.lenet5\.views\.layers: no layer 'conv9'; did you mean"):
        run_stage(folder, data, layers=["conv9"])
    with pytest.raises(UserError, match=r"networks\.lenet5\.views\.atlas\.layers: no layer 'pool9'"):
        run_stage(folder, data, explored_layers=["pool9"])


def test_test_images_need_a_data_set(folders: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"networks\.lenet5\.images: .*no data set"):
        run_stage(folders[0], None)


SIGMOID = """
from torch import nn
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.Sigmoid(), nn.Flatten(0))
"""


def test_the_probability_of_a_sigmoid_network_is_its_output(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "single.py").write_text(SIGMOID)
    settings = {"architecture": f"{tmp_path / 'single.py'}:build", "arguments": {}, "weights": None}
    input_settings = {"size": 28, "mean": [0.5], "std": [0.5]}
    network, preprocessing = build.build_network({**settings, "input": input_settings}, None, seed=1)
    preprocessing_settings = preprocessing.to_dict()
    description = {
        **settings,
        "weights": {"name": None},
        "preprocessing": preprocessing_settings,
        "classes": ["pet"],
        "output": Output("independent-probabilities", "", (1,)).to_dict(),
    }
    folder = write_network(tmp_path / "results/single", network, description, preprocessing.shape)
    results = run_stage(folder, folders[1], layers=[])
    for image in results.images:
        (value,) = results.activations(image["name"])["2"]
        assert (image["prediction"], image["probability"]) == (0, pytest.approx(value))
