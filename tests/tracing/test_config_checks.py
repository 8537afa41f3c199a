"""Names in the config, against the layers of networks that are built and run once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas import UserError
from convatlas.layer_selection import choose_layers
from convatlas.models import build
from convatlas.pipeline.config import resolve_config
from convatlas.tracing.config_checks import check_networks, list_selected_layers

NET = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x)) + x

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem, self.stage1, self.stage2 = nn.Conv2d(3, 4, 3), Block(), Block()
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.stage2(self.stage1(self.stem(x))).mean((2, 3)))

def build(classes):
    return Net(classes)
"""


@pytest.fixture
def architecture(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py:build"


def check(architecture: str, **settings: Any) -> None:
    network = {"architecture": architecture, "input": {"size": 16}, "dataset": "photos"} | settings
    config = resolve_config(
        {
            "datasets": {"photos": {"format": "images", "source": "embedded"}},
            "networks": {"first": network, "second": network},
        }
    )
    check_networks(config["networks"], seed=0)


@pytest.mark.parametrize(
    "views",
    [
        {"layers": ["stem", "stage?.conv", "stage1/add", 2], "highlight": [1, "head"]},
        {"layers": ["stage?"], "deconv": {"layers": ["stage1"]}, "strongest": {"layers": ["stage*"]}},
        {"deconv": {"steps": {"layer": "stage2.conv", "unit": 3, "image": "test-00001"}}},
    ],
)
def test_names_that_exist_pass(architecture: str, views: dict[str, Any]) -> None:
    check(architecture, views=views)


def test_all_errors_of_all_networks_are_listed_with_the_nearest_names(architecture: str) -> None:
    views = {
        "layers": ["steam", "stage1"],
        "highlight": [7],
        "atlas": {"layers": ["block*"]},
        "deconv": {"layers": ["stage3"], "steps": {"layer": "stem", "unit": 4, "image": "cat"}},
        "strongest": {"layers": ["stem"], "project": ["head"]},
        "remark": {"ordinal": 9, "text": "x"},
    }
    notes = {"layers": {"stage1.bn": "x"}, "units": {"stem 4": "x"}}
    with pytest.raises(UserError) as error:
        check(architecture, views=views, notes=notes)
    message = str(error.value)
    for name in ("first", "second"):
        for line in (
            "views.layers: no layer 'steam'; did you mean 'stem'?",
            "views.highlight: no layer 7; there are 3 convolutions",
            "views.atlas.layers: no layer 'block*'",
            "views.deconv.layers: no layer 'stage3'; did you mean 'stage2'?",
            "views.deconv.steps.unit: no unit 4; stem has 4",
            "views.deconv.steps.image: no image 'cat'; there are: test-00000",
            "views.strongest.project: 'head' is not among views.strongest.layers",
            "views.remark.ordinal: no layer 9",
            "notes.layers: no layer 'stage1.bn'",
            "notes.units: no unit 'stem 4'; stem has 4",
        ):
            assert f"  - networks.{name}.{line}" in message
    assert len(message.splitlines()) == 21


def test_a_composite_module_is_highlighted_only_where_it_is_recorded(architecture: str) -> None:
    check(architecture, views={"layers": ["stage1"], "highlight": ["stage1"]})
    with pytest.raises(UserError, match=r"views\.highlight: no layer 'stage2'"):
        check(architecture, views={"layers": ["stage1"], "highlight": ["stage2"]})


def test_globs_match_layers_and_composite_modules_only_where_there_are_none(
    architecture: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = {"architecture": architecture, "input": {"size": 16}}
    network, preprocessing = build.build_network(settings, ["0", "1"], seed=0)
    entries = ["stage?", "stage1*"]
    layers = list_selected_layers(network, preprocessing.shape, "downsample", entries)
    assert choose_layers(layers, ["stage?"], "") == ["stage1", "stage2"]
    assert choose_layers(layers, ["stage1*"], "") == ["stage1.conv", "stage1.relu", "stage1/add"]
    assert "stage1" in choose_layers(layers, "all", "")
    check(architecture, views={"layers": entries})
    assert "views.layers: 'stage?' matches 2 composite modules: stage1, stage2" in caplog.text
    assert "'stage1*' matches 3 layers: stage1.conv, stage1.relu, stage1/add" in caplog.text


def test_a_network_that_cannot_be_built_yet_is_left_to_its_own_job(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def build(classes):\n    raise ValueError('only 37 classes')\n")
    check(f"{tmp_path}/net.py:build", views={"layers": ["nothing"]})


def test_files_that_a_network_does_not_take_are_named(architecture: str, tmp_path: Path) -> None:
    np.save(tmp_path / "five.npy", np.zeros((5, 20, 20), np.float32))
    files = [str(tmp_path / "five.npy")]
    with pytest.raises(UserError) as error:
        check(architecture, images={"files": files})
    for name in ("first", "second"):
        start = f"networks.{name}.images.files: {tmp_path}/five.npy has 5 channels, and the network takes 3"
        assert start in str(error.value)
    check(architecture, images={"files": files, "on_bad_image": "skip"})
