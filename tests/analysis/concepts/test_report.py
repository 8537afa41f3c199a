"""The concepts of a data set on disk, and results/<network>/concepts/."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convatlas as ca
from convatlas.analysis.concepts import report
from convatlas.analysis.concepts.images import INSIDE, PixelCodes
from convatlas.analysis.concepts.report import choose_named_layers, write_concepts
from convatlas.analysis.concepts.samples import list_groups, load_samples, shrink
from convatlas.datasets import formats
from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.files import Npz, read_json, write_json
from convatlas.models import build
from convatlas.models.preprocessing import Preprocessing
from convatlas.results import Results

CPU = torch.device("cpu")
SIZE = 24
PREPROCESSING = Preprocessing((SIZE, SIZE), (0.0,) * 3, (1.0,) * 3, resize="stretch")
SETTINGS: Any = {"layers": None, "train": 12, "test": 10, "image_value": "mean"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve or more drawn pets of each split, with breeds as classes."""
    folder = tmp_path_factory.mktemp("pets")
    draw_pets(folder / "source", count=40)
    settings: Any = {
        "format": "oxford-iiit-pet", "source": str(folder / "source"), "mirrors": [], "target": "breed",
        "on_bad_image": "error",
    }  # fmt: skip
    formats.prepare(folder / "data", settings, "datasets.data")
    return folder / "data"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small network."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 2)).eval()
    monkeypatch.setattr(build, "load_network", lambda path: (network, PREPROCESSING))
    layers = [("0", "conv"), ("1", "activation"), ("2", "other"), ("3", "linear")]
    entries = [
        {"name": name, "kind": kind, "called": True, "notes": [], "module": name, "output_shape": [2]}
        for name, kind in layers
    ]
    write_json(tmp_path / "network/layers.json", entries)
    return tmp_path / "network"


def test_pets_are_grouped_by_species_and_breed(data: Path) -> None:
    dataset = formats.load(data, "test")
    groups = list_groups(dataset, formats.describe(data)["classes"])
    assert list(groups) == ["species", "breed", "class"]
    assert groups["breed"] == groups["class"]
    for name, species in zip(dataset.names, groups["species"], strict=True):
        assert species == ("cat" if name[0].isupper() else "dog")  # as in the official names


def test_samples_have_the_masks_and_head_boxes_of_their_images(data: Path) -> None:
    concepts, samples = load_samples(data, {"train": 12, "test": 10}, PREPROCESSING, CPU)
    assert [region.name for region in concepts.regions] == ["pet", "background", "border", "head"]
    assert {kind.group for kind in concepts.kinds} == {"species", "breed"}
    sample = samples["test"]
    assert len(sample.images) == len(sample.indices) == 10
    dataset: Any = sample.dataset
    for n, index in enumerate(sample.indices):
        assert sample.images.codes is not None
        mask = dataset.read_mask(index, (SIZE, SIZE), "stretch")
        inside = concepts.regions[0].select_parts(sample.images.codes[n]) == INSIDE
        np.testing.assert_array_equal(inside, mask == 0)
        shown = [
            kind.name for kind, shows in zip(concepts.kinds, sample.images.shows[:, n], strict=True) if shows
        ]
        assert set(shown) == {dataset.species[index], dataset.subclasses[index]}


def test_large_masks_are_made_smaller_by_nearest_neighbour() -> None:
    codes = PixelCodes(["pet", "background"]).encode(torch.zeros(448, 224, dtype=torch.uint8), None)
    codes[:, 112:] = 1
    small = shrink(codes)
    assert small.shape == (112, 56)
    assert (small[:, :28] == 0).all()
    assert (small[:, 28:] == 1).all()


def test_convolutions_and_linear_layers_are_named_by_default(folder: Path) -> None:
    layers = read_json(folder / "layers.json")
    assert choose_named_layers(layers, SETTINGS, "network") == ["0", "3"]
    assert choose_named_layers(layers, SETTINGS | {"layers": ["1"]}, "network") == ["1"]


def test_linear_layers_of_tokens_are_not_named_by_default() -> None:
    """Their output is (tokens, features): its first axis is no axis of units."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Linear(16, 6), nn.Flatten(), nn.Linear(24, 2)
    )
    layers = ca.layers(network, (3, 6, 6))
    assert choose_named_layers(layers, SETTINGS, "network") == ["0", "4"]


def test_the_files_are_the_same_at_each_run(folder: Path, data: Path) -> None:
    write_concepts(folder, data, SETTINGS, CPU)
    first = {path.name: path.read_bytes() for path in (folder / "concepts").iterdir()}
    write_concepts(folder, data, SETTINGS, CPU)
    assert first == {path.name: path.read_bytes() for path in (folder / "concepts").iterdir()}
    results = Results(folder)
    analysis, arrays = results.concepts, results.concepts_arrays
    assert analysis is not None
    assert analysis["images"] == {"train": 12, "test": 10}
    assert [layer["name"] for layer in analysis["layers"]] == ["0", "3"]
    assert arrays["0@region_auc"].shape == (4,)
    assert "3@region_auc" not in arrays
    for layer in analysis["layers"]:
        assert layer["regions"] == arrays.get(f"{layer['name']}@region_is_named", np.zeros(1)).sum()
    assert isinstance(results.concept_examples, Npz)


def test_a_data_set_without_concepts_is_undefined(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_missing_data", lambda data, preprocessing: "it is empty: fill it")
    write_concepts(folder, data, SETTINGS, CPU)
    analysis = Results(folder).concepts
    assert analysis is not None
    assert analysis["undefined"] == "it is empty: fill it"
    assert analysis["layers"] == []
    assert [path.name for path in (folder / "concepts").iterdir()] == ["concepts.json"]


def test_layers_without_units_are_undefined(folder: Path, data: Path) -> None:
    write_json(folder / "layers.json", [])
    write_concepts(folder, data, SETTINGS, CPU)
    analysis = Results(folder).concepts
    assert analysis is not None
    assert "set other layers" in str(analysis["undefined"])
