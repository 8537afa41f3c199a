"""The evolution of a trained network: its files, against projections and maps of each snapshot's network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convatlas import UserError
from convatlas.attribution.deconvnet import project
from convatlas.attribution.evolution.evolution import EvolutionComputer, LayerEvolution
from convatlas.attribution.evolution.report import write_evolution
from convatlas.attribution.evolution.selection import choose_layers, find_evolution_errors, find_own_filters
from convatlas.attribution.patches import PatchGeometry, extract_patch
from convatlas.datasets import formats
from convatlas.models import build
from convatlas.pipeline.config import resolve_config
from convatlas.results import Results
from convatlas.tracing.layers import list_layers
from convatlas.tracing.record_results import record_results
from convatlas.training.run import train_network
from convatlas.training.snapshots import read_snapshot
from tests.support.dataset_pass import write_digits

SETTINGS: dict[str, Any] = {
    "epochs": [1, 7],
    "layers": ["pool1", "conv2"],
    "units": 3,
    "images": None,
    "rectify": False,
}
CPU = torch.device("cpu")


def resolve_network(**views: Any) -> Any:
    network = {
        "architecture": "lenet5",
        "dataset": "digits",
        "training": {"epochs": 3, "batch_size": 8},
        "images": {"first": 2},
        "views": views,
    }
    return resolve_config({"networks": {"own": network}, "datasets": {"digits": {"format": "mnist"}}})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The results of a LeNet-5 that was trained on noise with snapshots, and its data set."""
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("evolution")
    data, network = write_digits(folder, 24), resolve_network()["networks"]["own"]
    results = folder / "results/own"
    train_network("own", network, results, data, device="cpu", threads=1, snapshots=[1, 7])
    record = {key: network[key] for key in ("images", "record", "downsample_name")}
    record_results(results, record | {"layers": [], "explored_layers": "all"}, CPU, data)  # type: ignore[arg-type]
    yield results, data
    torch.set_num_threads(threads)


def run_until(network: Any, name: str, x: torch.Tensor) -> torch.Tensor:
    """Return the output of pool1 or conv2 of a LeNet-5."""
    with torch.no_grad():
        pooled = network.pool1(network.conv1(x).relu())
        return pooled if name == "pool1" else network.conv2(pooled)


def evolve(run: tuple[Path, Path], **settings: Any) -> Results:
    write_evolution(*run, SETTINGS | settings, CPU)  # type: ignore[arg-type]
    return Results(run[0])


def test_the_files_hold_what_each_snapshot_computes(run: tuple[Path, Path]) -> None:
    results = evolve(run)
    analysis, arrays = results.evolution, results.evolution_arrays
    assert analysis is not None
    assert (analysis["epochs"], analysis["missing_epochs"]) == ([0, 1, 3], [7])
    assert [layer["name"] for layer in analysis["layers"]] == ["pool1", "conv2"]
    assert (analysis["images"], analysis["split_images"], analysis["skipped"]) == (24, 24, [])
    network, preprocessing = build.load_network(run[0])
    dataset = formats.load(run[1], "train")
    x = preprocessing(torch.from_numpy(dataset.read_images(preprocessing.pixel_format, (28, 28), "cover")))
    samples = np.stack([results.activations(image["name"])["input"] for image in results.images])
    for layer in analysis["layers"]:
        name, last = layer["name"], arrays[f"{layer['name']}@values"][-1]
        assert (
            layer["units"]
            == np.argsort(-last, kind="stable")[:3].tolist()
            == arrays[f"{name}@units"].tolist()
        )
        geometry = PatchGeometry.from_layer(results.layer(name), (28, 28))
        for n, epoch in enumerate(analysis["epochs"]):
            network.load_state_dict(read_snapshot(run[0] / "snapshots", epoch))
            for row, unit in enumerate(layer["units"]):
                number, position = arrays[f"{name}@images"][n, unit], arrays[f"{name}@positions"][n, unit]
                image = x[number]
                peak = project(network, image, name, [unit], "peak")[0]
                expected = extract_patch(peak.numpy(), geometry, position)
                np.testing.assert_allclose(
                    arrays[f"{name}@projections"][n, row], expected, rtol=1e-3, atol=1e-5
                )
                patch = extract_patch(image.numpy(), geometry, position)
                np.testing.assert_array_equal(arrays[f"{name}@patches"][n, row], patch)
                assert analysis["image_classes"][str(number)] == str(dataset.labels[number])
            weight = network.get_submodule(layer["filters"] or "").weight.detach()
            np.testing.assert_array_equal(arrays[f"{name}@filters"][n], weight[layer["units"]])
            expected = run_until(network, name, torch.from_numpy(samples))[:, layer["units"]]
            np.testing.assert_allclose(arrays[f"{name}@maps"][n], expected, rtol=1e-4, atol=1e-5)
        assert layer["correlation"][-1] == 1


def test_the_last_snapshot_of_the_best_epoch_is_the_trained_network(run: tuple[Path, Path]) -> None:
    results = evolve(run)
    analysis = results.evolution
    assert analysis is not None
    network, _ = build.load_network(run[0])
    saved = read_snapshot(run[0] / "snapshots", 3)
    is_same = all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())
    assert is_same == (analysis["best_epoch"] == 3)


def test_two_runs_give_the_same_bytes_and_units_and_images_can_be_chosen(run: tuple[Path, Path]) -> None:
    folder = run[0] / "evolution"
    files = []
    for _ in range(2):
        results = evolve(run, units=[4, 0], images=5, epochs=[2], layers=["pool1"])
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1]
    analysis = results.evolution
    assert analysis is not None
    assert analysis["epochs"] == [0, 3]  # epoch 2 was not saved
    assert (analysis["images"], analysis["layers"][0]["units"]) == (5, [4, 0])
    numbers = results.evolution_arrays["pool1@images"]
    assert set(numbers.ravel().tolist()) <= {0, 6, 12, 17, 18, 23}


def test_snapshots_of_another_training_are_refused(run: tuple[Path, Path], tmp_path: Path) -> None:
    path = run[0] / "network.json"
    text = path.read_text()
    sha256 = Results(run[0]).network["weights"]["sha256"]
    path.write_text(text.replace(sha256, "0" * 64))
    try:
        with pytest.raises(UserError, match="holds snapshots of another training"):
            evolve(run)
    finally:
        path.write_text(text)


def test_layers_without_a_projection_are_left_out_with_the_reason(
    run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project_layer = EvolutionComputer.project_layer

    def refuse_conv2(self: EvolutionComputer, layer: str, *arguments: Any) -> LayerEvolution:
        if layer == "conv2":
            raise UserError("no rule for the operation below conv2")
        return project_layer(self, layer, *arguments)

    monkeypatch.setattr(EvolutionComputer, "project_layer", refuse_conv2)
    analysis = evolve(run).evolution
    assert analysis is not None
    assert [layer["name"] for layer in analysis["layers"]] == ["pool1"]
    assert analysis["skipped"] == [{"name": "conv2", "reason": "no rule for the operation below conv2"}]
    assert analysis["undefined"] is None
    analysis = evolve(run, layers=["conv2"]).evolution
    assert analysis is not None
    assert analysis["undefined"] == "conv2: no rule for the operation below conv2"


def test_a_layer_whose_units_are_inactive_has_no_images(run: tuple[Path, Path]) -> None:
    results = evolve(run, layers=["log_softmax"])
    analysis = results.evolution
    assert analysis is not None
    (layer,) = analysis["layers"]
    assert (layer["inactive"], layer["correlation"], layer["changed"]) == ([10] * 3, [None] * 3, [None] * 3)
    assert (results.evolution_arrays["log_softmax@images"] == -1).all()
    assert np.isnan(results.evolution_arrays["log_softmax@projections"]).all()


def test_the_default_layers_are_four_and_their_filters_are_found() -> None:
    network, preprocessing = build.build_network({"architecture": "lenet5"}, ["0", "1"], seed=0)
    layers = list_layers(network, preprocessing.shape, "downsample")
    assert choose_layers(layers, None, "views.evolution") == ["conv1", "pool1", "conv2", "pool2"]
    assert [find_own_filters(layers, name) for name in ("conv2", "pool2", "relu2")] == [("conv2", 0)] * 3
    assert find_own_filters(layers, "flatten") is None and find_own_filters(layers, "fc1") is None
    network, preprocessing = build.build_network({"architecture": "torchvision/resnet18"}, None, seed=0)
    layers = list_layers(network, preprocessing.shape, "downsample")
    chosen = choose_layers(layers, None, "views.evolution")
    assert len(chosen) == 4 and chosen[-1] == "avgpool"
    assert find_own_filters(layers, "layer1.0.bn1") == ("layer1.0.conv1", 0)
    assert find_own_filters(layers, "layer1.0/add") is None  # of two branches


def test_units_that_a_layer_lacks_are_an_error_before_training() -> None:
    config = resolve_network(evolution={"units": [2, 6], "layers": ["pool1", "pool2"]})["networks"]["own"]
    network, preprocessing = build.build_network(config, ["0", "1"], seed=0)
    errors = list(find_evolution_errors(network, preprocessing, config, "networks.own"))
    assert errors == [
        "networks.own.views.evolution.units: pool1 has no units [6]; it has 6, counted from 0. Give other "
        "numbers, how many units to choose, or other layers"
    ]
