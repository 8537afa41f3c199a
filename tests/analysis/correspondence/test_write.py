"""correspondence/ of a network: its files, the choice of images and layers, and what is not defined."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convatlas import UserError
from convatlas.analysis.correspondence.write import write_correspondence
from convatlas.analysis.registry import find_missing_boxes
from convatlas.files import read_json, write_json
from convatlas.results import Results
from convatlas.tracing.layers import list_layers
from tests.support.dataset_pass import write_lenet5
from tests.support.pets_source import TEST, TRAINVAL, prepare_pets, write_pets_source

CPU = torch.device("cpu")
SETTINGS: Any = {"images": 2, "sets": 1, "draws": 4, "layers": None, "classes": None, "seed": 0}
BOX = """<annotation><size><width>{w}</width><height>{h}</height></size><object><bndbox>
<xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>10</ymax></bndbox></object></annotation>"""
NET = """
from torch import nn
INPUT = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(196, 2))
"""


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Path]:
    """Return results/own of an untrained network, and data/pets, whose training images have boxes."""
    source = write_pets_source(tmp_path / "source")
    for name, *_ in TRAINVAL:
        (source / f"annotations/xmls/{name}.xml").write_text(BOX.format(w=0, h=0))
    prepare_pets(tmp_path / "pets", source, target="species")
    (tmp_path / "net.py").write_text(NET)
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    network = namespace["build"]()
    folder = write_lenet5(tmp_path / "results/own")
    preprocessing = {
        "size": 16,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "resize": "stretch",
        "interpolation": "bilinear",
    }
    changes = {"architecture": f"{tmp_path / 'net.py'}:build", "preprocessing": preprocessing}
    description = read_json(folder / "network.json") | changes | {"dataset_classes": ["cat", "dog"]}
    write_json(folder / "network.json", description)
    write_json(folder / "layers.json", list_layers(network, (3, 16, 16)))
    save_file(network.state_dict(), folder / "weights.safetensors")
    return folder, tmp_path / "pets"


def test_the_files_hold_what_the_results_read_and_are_the_same_twice(run: tuple[Path, Path]) -> None:
    folder, data = run
    write_correspondence(folder, data, SETTINGS, CPU)
    first = {path.name: path.read_bytes() for path in (folder / "correspondence").iterdir()}
    write_correspondence(folder, data, SETTINGS, CPU)
    assert first == {path.name: path.read_bytes() for path in (folder / "correspondence").iterdir()}
    results = Results(folder)
    analysis, arrays = results.correspondence, results.correspondence_arrays
    assert analysis is not None
    assert analysis["undefined"] is None
    assert analysis["split"] == "train"  # the test images have no boxes
    assert [len(images) for images in analysis["sets"]] == [2]
    assert [layer["name"] for layer in analysis["layers"]] == ["0", "2", "4"]
    assert arrays["0@part"].shape == (1,)
    assert arrays["0@random"].shape == (1, 4)
    assert arrays["0@random"].dtype == np.float32
    images = arrays["images"]
    assert images.shape == (3, 2, 3, 16, 16)
    for n, entry in enumerate(analysis["sets"][0]):
        for row, (top, left, height, width) in ((1, entry["box"]), (2, entry["random"] or [])):
            expected = images[0, n].copy()
            expected[:, top : top + height, left : left + width] = 128
            np.testing.assert_array_equal(images[row, n], expected)


def test_layers_and_classes_are_as_configured_and_others_are_errors(run: tuple[Path, Path]) -> None:
    folder, data = run
    write_correspondence(folder, data, SETTINGS | {"layers": [1], "classes": ["dog"]}, CPU)
    analysis = Results(folder).correspondence
    assert analysis is not None
    if analysis["undefined"] is None:
        assert {entry["image"]["label"] for entry in analysis["sets"][0]} == {1}
        assert [layer["name"] for layer in analysis["layers"]] == ["0"]
    with pytest.raises(UserError, match=r"views.correspondence.classes: no class 'dgo'; did you mean 'dog'"):
        write_correspondence(folder, data, SETTINGS | {"classes": ["dgo"]}, CPU)
    with pytest.raises(UserError, match=r"views.correspondence.layers: no layer 'conv9'"):
        write_correspondence(folder, data, SETTINGS | {"layers": ["conv9"]}, CPU)


def test_too_few_boxes_are_said(run: tuple[Path, Path]) -> None:
    folder, data = run
    write_correspondence(folder, data, SETTINGS | {"images": 40}, CPU)
    analysis = Results(folder).correspondence
    assert analysis is not None
    assert analysis["undefined"] is not None
    assert analysis["undefined"].startswith("fewer than 40 images of a split have the box of a head")
    assert len(TEST) < 40


def test_what_the_config_lacks_is_said_before_any_job() -> None:
    network: Any = {"input": {}}
    assert find_missing_boxes(network, {"format": "oxford-iiit-pet"}) is None  # type: ignore[typeddict-item]
    for dataset in (None, {"format": "mnist"}):
        assert "set `dataset` to one of the format oxford-iiit-pet" in str(
            find_missing_boxes(network, dataset)
        )  # type: ignore[arg-type]
