"""`views.attribution` of the config, against networks that are built and run once, before any job."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from convatlas import UserError
from convatlas.attribution.config_checks import find_attribution_errors, find_relevance_errors
from convatlas.pipeline.config import resolve_config
from convatlas.tracing.config_checks import check_networks

NET = """
from torch import nn

INPUT = {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}

def classify(classes, activation="ReLU"):
    return nn.Sequential(nn.Conv2d(3, 4, 3), getattr(nn, activation)(), nn.Flatten(), nn.Linear(784, classes))

def segment(classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 1))

def embed():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 5), nn.Tanh())
"""


def check(
    folder: Path,
    attribution: dict[str, Any],
    function: str = "classify",
    relevance: list[int | str] | None = None,
    **settings: Any,
) -> None:
    (folder / "net.py").write_text(NET)
    network = {"architecture": f"{folder}/net.py:{function}", "dataset": "data"} | settings
    network["views"] = {"attribution": attribution, "strongest": {"relevance": relevance}}
    dataset = network["dataset"]
    datasets = {
        "data": {"format": "mnist"},
        "pets": {"format": "oxford-iiit-pet", "target": "species"},
        "breeds": {"format": "oxford-iiit-pet"},
        "folder": {"format": "images", "source": str(folder / "images")},
    }
    if dataset is None:
        del network["dataset"]
    config = resolve_config({"datasets": datasets, "networks": {"own": network}})
    checks = [
        partial(f, datasets=config["datasets"]) for f in (find_attribution_errors, find_relevance_errors)
    ]
    check_networks(config["networks"], seed=0, further_checks=checks)


def test_names_that_exist_pass(tmp_path: Path) -> None:
    settings = {"targets": ["9", 0], "images": ["test-00001"], "layers": ["0", 1], "methods": ["grad_cam"]}
    check(tmp_path, settings)


@pytest.mark.parametrize(
    ("function", "settings", "known", "unknown"),
    [
        ("classify", {"dataset": "data"}, "9", "10"),
        ("classify", {"dataset": "pets"}, "dog", "pet"),
        ("classify", {"dataset": "breeds"}, "Ginger Tabby", "Siamese"),
        ("segment", {"dataset": "pets"}, "pet", "dog"),
        ("segment", {"dataset": "pets", "arguments": {"classes": 3}}, "pet", "dog"),
        ("classify", {"dataset": "folder"}, "owl", "fox"),
        ("classify", {"dataset": None, "classes": ["x", "y"], "arguments": {"classes": 2}}, "y", "z"),
        ("classify", {"dataset": None, "arguments": {"classes": 3}}, "2", "3"),
    ],
)
def test_classes_are_known_before_the_data_set_is_prepared(
    tmp_path: Path, function: str, settings: dict[str, Any], known: str, unknown: str
) -> None:
    (tmp_path / "images/owl").mkdir(parents=True)
    (tmp_path / "images/owl/1.png").touch()
    check(tmp_path, {"targets": [known]}, function, **settings)
    with pytest.raises(UserError, match=rf"own\.views\.attribution\.targets: no class '{unknown}'"):
        check(tmp_path, {"targets": [unknown]}, function, **settings)


def test_all_errors_are_listed_with_the_nearest_names(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        check(tmp_path, {"targets": [12, "for"], "images": ["test-1"], "layers": ["3"]})
    message = str(error.value)
    key = "  - networks.own.views.attribution"
    for line in (
        f"{key}.targets: no class 12; there are 10, counted from 0",
        f"{key}.targets: no class 'for'; there are: 0, 1",
        f"{key}.images: no sample image 'test-1'; did you mean 'test-0000",
        f"{key}.layers: '3' has no maps (units, height, width), its output has the shape [2]; "
        "there are: 0, 1",
    ):
        assert line in message
    with pytest.raises(UserError) as error:
        check(tmp_path, {"layers": ["4"]})
    assert len(str(error.value).splitlines()) == 2


def test_classes_of_relevance_are_those_of_the_network(tmp_path: Path) -> None:
    check(tmp_path, {}, relevance=["9", 0])
    with pytest.raises(
        UserError, match=r"own\.views\.strongest\.relevance: no class 10; there are 10, counted"
    ):
        check(tmp_path, {}, relevance=["9", 10])
    check(tmp_path, {}, "embed", dataset=None, relevance=[0])  # there is no pass over a data set
    with pytest.raises(UserError, match=r"own\.views\.strongest\.relevance: the network has no class scores"):
        check(tmp_path, {}, "embed", relevance=[0], output={"kind": "none"})


def test_what_is_not_defined_is_one_line_with_the_layer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    check(tmp_path, {}, arguments={"activation": "SiLU"})
    lines = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert [line.split(" will be")[0] for line in lines] == [
        "networks.own.views.attribution: guided_backpropagation",
        "networks.own.views.attribution: deconvnet",
    ]
    assert all("1 (Silu)" in line and "\n" not in line for line in lines)
    caplog.clear()
    check(tmp_path, {}, "embed", dataset=None)
    assert "networks.own: no attribution maps: the network has no class scores" in caplog.text
    caplog.clear()
    check(tmp_path, {})
    assert "attribution" not in caplog.text
