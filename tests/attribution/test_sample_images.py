"""Attribution of the sample images: the files of the stage, and their reader."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from convatlas import UserError
from convatlas.attribution import image_maps, sample_images
from convatlas.attribution.attribute import attribute
from convatlas.attribution.methods.registry import METHODS
from convatlas.attribution.projections import project_sample_images
from convatlas.attribution.sample_images import attribute_sample_images
from convatlas.models import build
from convatlas.pipeline.config import resolve_config
from convatlas.pipeline.config_types import NetworkConfig
from convatlas.records import AttributionAnalysis
from convatlas.results import Results
from convatlas.tracing.record_results import record_results
from convatlas.training.run import train_network
from tests.support.fake_attribution import write_attribution
from tests.support.fake_results import make_results

CPU = torch.device("cpu")
CLASSES = ["ant", "bee", "cat", "dog"]
NET = """
import torch
from torch import nn

INPUT = {"size": 24, "mean": [0.5] * 3, "std": [0.25] * 3}

def make_convolutions(activation):
    return nn.Sequential(nn.Conv2d(3, 6, 3), activation, nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU())

def classify(activation="ReLU"):
    layers = make_convolutions(getattr(nn, activation)())
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(1))

def segment():
    layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    nn.init.constant_(layers[-1].bias, 0)
    layers[-1].bias.data[2] = -100  # no pixel is a cat
    return layers

def embed():
    return nn.Sequential(make_convolutions(nn.ReLU()), nn.Flatten(), nn.Linear(648, 4), nn.Tanh())
"""


def resolve_network(folder: Path, function: str, **settings: Any) -> NetworkConfig:
    """Write the networks' file, and return the config of one on two photographs."""
    (folder / "net.py").write_text(NET)
    network = {"architecture": f"{folder}/net.py:{function}", "images": {"photographs": ["cat", "coffee"]}}
    return resolve_config({"networks": {"own": network | settings}})["networks"]["own"]


def attribute_network(folder: Path, network: NetworkConfig, **settings: Any) -> Results:
    """Run the stages up to the attribution of an untrained network."""
    results = folder / "results/own"
    if not results.exists():
        train_network("own", network, results, device="cpu", threads=1)
        record = {key: network[key] for key in ("images", "record", "downsample_name")}  # type: ignore[literal-required]
        record |= {"layers": [], "explored_layers": "all"}
        record_results(results, record, CPU)  # type: ignore[arg-type]
        project_sample_images(results, network["views"]["deconv"] | {"rectify": True}, CPU)
    views = network["views"]["attribution"]
    assert views is not None
    attribute_sample_images(results, {"rectify": False, **views, **settings}, CPU)  # type: ignore[typeddict-item]
    return Results(results)


def get_analysis(results: Results) -> AttributionAnalysis:
    """Return attribution.json."""
    assert results.attribution is not None
    return results.attribution


def test_results_read_the_maps_and_their_description(tmp_path: Path) -> None:
    folder = make_results().write(tmp_path / "own")
    assert Results(folder).attribution is None  # views.attribution: null
    with pytest.raises(UserError, match="missing"):
        Results(folder).attribution_maps("first")["gradient@3"]
    results = Results(write_attribution(folder))
    for entry in get_analysis(results)["images"]["first"]["maps"]:
        values = results.attribution_maps("first")[entry["member"]]
        assert (values.min(), values.max()) == pytest.approx((entry["min"], entry["max"]))
        assert values.dtype == np.float32


def test_the_files_hold_the_maps_of_each_method_and_target_with_their_measures(tmp_path: Path) -> None:
    network = resolve_network(tmp_path, "classify", classes=CLASSES)
    results = attribute_network(tmp_path, network, targets="top3")
    analysis = get_analysis(results)
    names = [method["name"] for method in analysis["methods"]]
    assert names == [
        "gradient",
        "guided_backpropagation",
        "integrated_gradients",
        "grad_cam",
        "occlusion",
        "deconvnet",
    ]
    assert not any(method["undefined"] for method in analysis["methods"])
    module, preprocessing = build.load_network(results.folder)
    output = build.read_output(results.folder)
    for image in results.images:
        entry, maps = analysis["images"][image["name"]], results.attribution_maps(image["name"])
        x = torch.from_numpy(results.activations(image["name"])["input"])
        probabilities = module(x[None])[0]
        order = probabilities.argsort(descending=True)[:3].tolist()
        assert [target["class"] for target in entry["targets"]] == order
        assert [target["name"] for target in entry["targets"]] == [CLASSES[n] for n in order]
        for target in entry["targets"]:
            assert target["probability"] == pytest.approx(float(probabilities[target["class"]]))
        assert list(maps) == [f"{name}@{number}" for name in names for number in order]
        assert [m["member"] for m in entry["maps"]] == list(maps)
        for name, channels in (("gradient", 3), ("integrated_gradients", 3), ("grad_cam", 1)):
            settings = {"steps": 16} if name == "integrated_gradients" else {}
            options = {"output": output, "preprocessing": preprocessing, **settings}
            expected = attribute(module, x, name, order, **options).maps
            for n, number in enumerate(order):
                assert maps[f"{name}@{number}"].shape == (channels, 24, 24)
                np.testing.assert_allclose(maps[f"{name}@{number}"], expected[n].numpy(), atol=1e-5)
        for m in entry["maps"]:
            assert m["deletion"] and m["insertion"]
            assert len(m["deletion"]["values"]) == len(analysis["fractions"])
            start = next(t["probability"] for t in entry["targets"] if t["class"] == m["class"])
            assert m["deletion"]["values"][0] == pytest.approx(start, abs=1e-6)
            assert m["insertion"]["values"][-1] == pytest.approx(start, abs=1e-6)
        gaps = [
            m["checks"]["completeness_gap"] for m in entry["maps"] if m["method"] == "integrated_gradients"
        ]
        assert max(gaps) < 0.05
        assert list(entry["random_order"]) == [str(number) for number in order]
    for method in analysis["methods"]:
        assert method["randomisation"] is not None and method["randomisation"]["image"] == "cat"
        assert method["randomisation"]["layers"] == [["3"], ["0.3"], ["0.0"]]
    assert next(m for m in analysis["methods"] if m["name"] == "grad_cam")["layer"] == "0.4"
    assert {entry["layer"] for entry in analysis["specificity"]} == {"0.0", "0.2", "0.3", "1"}


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    network = resolve_network(tmp_path, "classify")
    folder = attribute_network(tmp_path, network).folder / "attribution"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"attribution.json", "cat.npz", "coffee.npz"}
    attribute_network(tmp_path, network)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_method_that_is_not_defined_is_recorded_and_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    network = resolve_network(tmp_path, "classify", arguments={"activation": "GELU"})
    methods = ["deconvnet", "gradient"]
    results = attribute_network(tmp_path, network, methods=methods, targets=["2"], images=1)
    entries = {method["name"]: method for method in get_analysis(results)["methods"]}
    assert entries["gradient"]["undefined"] is None
    assert "0.1 (Gelu)" in (entries["deconvnet"]["undefined"] or "")
    assert "deconvnet is skipped: " in caplog.text
    assert list(get_analysis(results)["images"]) == ["cat"]
    assert list(results.attribution_maps("cat")) == ["gradient@2"]
    attribute_network(tmp_path, network, methods=methods, rectify=True, randomisation=0)
    assert get_analysis(Results(results.folder))["methods"][0]["undefined"] is None


def test_a_method_that_torch_cannot_compute_is_recorded_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(METHODS, "gradient", replace(METHODS["gradient"], compute=fail))
    network = resolve_network(tmp_path, "classify")
    results = attribute_network(tmp_path, network, methods=["gradient", "grad_cam"], images=1)
    failed, other = get_analysis(results)["methods"]
    assert "RuntimeError: no such kernel" in (failed["undefined"] or "") and other["undefined"] is None
    assert [name.split("@")[0] for name in results.attribution_maps("cat")] == ["grad_cam"]


def test_a_class_without_predicted_pixels_has_no_map(tmp_path: Path) -> None:
    network = resolve_network(tmp_path, "segment", classes=CLASSES)
    results = attribute_network(
        tmp_path, network, methods=["gradient", "occlusion"], targets=["cat", 0, 1, 3]
    )
    module, _ = build.load_network(results.folder)
    for image in ("cat", "coffee"):
        entry = get_analysis(results)["images"][image]
        predicted = module(torch.from_numpy(results.activations(image)["input"])[None]).argmax(1)
        pixels = {target["class"]: target["pixels"] for target in entry["targets"]}
        assert pixels == {number: int((predicted == number).sum()) for number in (2, 0, 1, 3)}
        present = [number for number in (2, 0, 1, 3) if pixels[number]]
        assert {m["class"] for m in entry["maps"]} == set(present) and 2 not in present
        assert [m["deletion"] is not None for m in entry["maps"]] == [True] * len(entry["maps"])


def test_images_without_a_label_have_no_maps_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    results = attribute_network(tmp_path, resolve_network(tmp_path, "classify"), targets="label")
    analysis = get_analysis(results)
    assert analysis["images"] == {}
    assert "cat has no attribution maps: it has no label" in caplog.text
    assert analysis["left_out"]["cat"] == "it has no label among the network's classes"


def test_a_network_without_class_scores_is_skipped_with_the_reason(tmp_path: Path) -> None:
    results = attribute_network(tmp_path, resolve_network(tmp_path, "embed"))
    assert "no class scores: its output ends in a tanh" in (get_analysis(results)["undefined"] or "")
    assert get_analysis(results)["methods"] == [] and get_analysis(results)["images"] == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": ["cat", "cofee"]}, "attribution.images: no sample image 'cofee'; did you mean 'coffee'"),
        ({"targets": ["elephant"]}, "attribution.targets: no class 'elephant'; there are: ant, bee"),
        ({"targets": [4]}, "attribution.targets: no class 4; there are 4"),
        ({"layers": ["0.5"]}, "attribution.layers: no layer '0.5'"),
        ({"layers": ["3"]}, "attribution.layers: '3' has no maps"),
    ],
)
def test_names_that_do_not_exist_are_errors_and_leave_the_old_files(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    network = resolve_network(tmp_path, "classify", classes=CLASSES)
    results = attribute_network(tmp_path, network, methods=["gradient"], randomisation=0)
    before = (results.folder / "attribution/attribution.json").read_bytes()
    with pytest.raises(UserError) as error:
        attribute_network(tmp_path, network, **settings)
    assert message in str(error.value)
    assert (results.folder / "attribution/attribution.json").read_bytes() == before


def test_an_interrupted_run_leaves_the_old_files_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = resolve_network(tmp_path, "classify")
    folder = attribute_network(tmp_path, network, methods=["gradient"], images=1, randomisation=0).folder

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_images, "measure_layers", interrupt)
    before = sorted(folder.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        attribute_network(tmp_path, network)
    assert sorted(folder.rglob("*")) == before
    assert json.loads((folder / "attribution/attribution.json").read_text())["images"].keys() == {"cat"}


def test_one_image_that_fails_a_method_loses_its_maps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = resolve_network(tmp_path, "classify", classes=CLASSES)
    results = attribute_network(tmp_path, network, methods=["gradient", "occlusion"])
    gradient, second = METHODS["gradient"], torch.from_numpy(results.activations("coffee")["input"])

    def fail_for_coffee(explanation: Any, **settings: Any) -> Any:
        if any(torch.equal(image, second) for image in explanation.images):
            raise RuntimeError("it overflows")
        return gradient.compute(explanation, **settings)

    monkeypatch.setitem(METHODS, "gradient", replace(gradient, compute=fail_for_coffee))
    for size in (16, 1):  # images in a batch
        monkeypatch.setattr(sample_images, "IMAGES_PER_BATCH", size)
        caplog.clear()
        analysis = get_analysis(attribute_network(tmp_path, network, methods=["gradient", "occlusion"]))
        methods = {name: [m["method"] for m in image["maps"]] for name, image in analysis["images"].items()}
        assert methods == {"cat": ["gradient", "occlusion"], "coffee": ["occlusion"]}
        assert [method["undefined"] for method in analysis["methods"]] == [None, None]
        assert "gradient is skipped for coffee: it fails here: " in caplog.text
        (missing,) = analysis["images"]["coffee"]["missing"]
        assert missing.startswith(f"{gradient.title}: it fails here: ")
        assert missing.endswith("RuntimeError: it overflows")
        assert "missing" not in analysis["images"]["cat"] and "left_out" not in analysis


def test_a_class_whose_score_is_not_finite_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = resolve_network(tmp_path, "classify", classes=CLASSES)
    results = attribute_network(tmp_path, network, methods=["gradient"])
    weights = load_file(results.folder / "weights.safetensors")
    bias = next(name for name in weights if weights[name].shape == (4,))
    weights[bias][2] = -torch.inf
    save_file(weights, results.folder / "weights.safetensors")
    analysis = get_analysis(
        attribute_network(tmp_path, network, methods=["gradient"], targets=["cat", "dog"])
    )
    for name, image in analysis["images"].items():
        assert [target["class"] for target in image["targets"]] == [3]
        assert f"{name}: no attribution maps of the class cat, whose score is -inf" in caplog.text
        assert image["missing"] == ["class cat, whose score is -inf"]


def test_probabilities_that_are_not_finite_leave_out_their_curves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = resolve_network(tmp_path, "classify", classes=CLASSES)
    compute = image_maps.AttributedNetwork.compute_probabilities

    def compute_with_nan(self: Any, x: torch.Tensor) -> torch.Tensor:
        return compute(self, x) * (torch.nan if len(x) > 2 else 1)  # not at both ends

    monkeypatch.setattr(image_maps.AttributedNetwork, "compute_probabilities", compute_with_nan)
    analysis = get_analysis(attribute_network(tmp_path, network, methods=["gradient"]))
    (entry,) = analysis["images"]["cat"]["maps"]
    assert entry["deletion"] is None and entry["insertion"] is None
    assert analysis["images"]["cat"]["random_order"] == {}
    assert f"cat, {entry['member']}: no deletion and insertion: a probability is not finite" in caplog.text
