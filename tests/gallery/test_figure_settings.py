"""Each figure's settings and code: the part of the config that it depends on, and lines that run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import convatlas
from convatlas.figure_kinds import FIGURE_KINDS
from convatlas.gallery.figure_settings import FigureSettings, format_loading_code
from convatlas.gallery.network_data import NetworkData
from tests.support.fake_results import make_results
from tests.support.site import CONFIG, HOSTILE_TEXT, PageParser, build_site, write_network


@pytest.fixture
def network(tmp_path: Path) -> NetworkData:
    write_network(tmp_path, "own")
    return NetworkData.read(tmp_path / "results", tmp_path / "data", "own")


def test_the_settings_are_those_that_the_figure_depends_on() -> None:
    views = CONFIG["networks"]["own"]["views"] | {"strongest": {"k": 9}}
    section = {
        "architecture": "/home/me/net.py:build",
        "images": {"first": 2},
        "training": {"lr": 0.1},
        "views": views,
    }
    settings = FigureSettings({"seed": 3, "networks": {"own": section}})

    def describe(kind: str) -> dict[str, Any]:
        figure: Any = {"kind": kind, "subject": ""}
        return yaml.safe_load(settings.describe("own", figure))["networks"]["own"]

    assert describe("curves") == {"architecture": "net.py:build", "training": {"lr": 0.1}}
    assert describe("strongest")["views"] == {"strongest": {"k": 9}}
    maps = describe("maps")
    assert maps["images"] == {"first": 2}
    assert maps["views"]["scale"] == "per_layer"
    assert "deconv" not in maps["views"]
    assert all(describe(kind) for kind in FIGURE_KINDS)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [("cover", ""), ("filters", "conv1"), ("maps", "conv1"), ("values", "fc"), ("pairs", "block.conv2"),
     ("classical", "second"), ("digits", ""), ("deconv", "second"), ("curves", ""), ("confusion", "")],
)  # fmt: skip
def test_the_code_runs(
    network: NetworkData, monkeypatch: pytest.MonkeyPatch, kind: str, subject: str
) -> None:
    monkeypatch.chdir(network.results.folder.parents[1])
    figure: Any = {"kind": kind, "subject": subject}
    lines = format_loading_code(network, figure)
    values = [eval(line, {"convatlas": convatlas}) for line in lines]
    assert values
    if kind == "maps":
        np.testing.assert_array_equal(values[0], make_results().activations["first"]["conv1"])


def test_each_kind_has_code(network: NetworkData) -> None:
    for kind in (*FIGURE_KINDS, "attribution"):
        figure: Any = {"kind": kind, "subject": 'a"\\layer', "member": "grad_cam@3"}
        for line in format_loading_code(network, figure):
            compile(line, "figure", "eval")


def test_a_page_shows_them_as_text(tmp_path: Path) -> None:
    write_network(tmp_path, "own", subject=HOSTILE_TEXT)
    site = build_site(tmp_path, "own")
    text = PageParser(site / "networks/own.html").text
    assert 'convatlas.Results("results/own").projections("first")' in text
    assert "<img onerror" not in (site / "networks/own.html").read_text()
