"""The page of effective receptive fields: pictures, sizes and findings against made-up fields."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas.files import write_json, write_npz
from convatlas.gallery.effective_field_data import EffectiveFields, reduce_blocks
from convatlas.gallery.network_data import NetworkData
from tests.support.fake_results import VIEWS
from tests.support.site import CONFIG, PageParser, build_site, write_network

NAME = "effective_receptive_field"


def make_size(side: float, error: float | None = 0.1) -> dict[str, Any]:
    return {"side": side, "side_error": error, "spread": [1.0, 2.0]}


def make_layer(name: str, trained: float, untrained: float) -> dict[str, Any]:
    """Return the entry of a layer whose theoretical field is 8 × 6 pixels."""
    sizes = {"trained": make_size(trained), "untrained": make_size(untrained)}
    place = {"position": [2, 2], "theoretical": [8, 6], "window": [-2, 1, 6, 7], "clipped": True}
    return {"name": name, "undefined": None, **place, **sizes}


def write_fields(folder: Path) -> None:
    """Write the analysis of a network with an input of 8 × 7 pixels."""
    nothing = {"position": None, "theoretical": None, "window": None, "clipped": False}
    analysis = {
        "undefined": None,
        "control_undefined": None,
        "dataset": "animals",
        "split": "test",
        "images": 16,
        "input": [8, 7],
        "threshold": 0.0455,
        "layers": [
            make_layer("conv1", 2.0, 4.0),
            make_layer("conv2", 4.0, 4.2),
            {"name": "fc", "undefined": "it has no maps", **nothing, "trained": None, "untrained": None},
        ],
    }
    field = np.zeros((8, 7), np.float32)
    field[2, 3], field[3, 3] = 2, 1
    write_json(folder / NAME / f"{NAME}.json", analysis)
    names = [f"{layer}@{key}" for layer in ("conv1", "conv2") for key in ("trained", "untrained")]
    write_npz(folder / NAME / f"{NAME}.npz", dict.fromkeys(names, field))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_network(folder, "own")
    write_fields(folder / "results/own")
    return folder


def test_pictures_and_findings(folder: Path) -> None:
    fields = EffectiveFields.read(NetworkData.read(folder / "results", folder / "data", "own"))
    assert fields is not None
    assert fields.summary == "conv2: 4.0 ± 0.1 px in effect, of 8 × 6 in theory; untrained 4.2 ± 0.1 px."
    assert list(fields.list_findings()) == [
        "Training made the field smaller in 1 of 2 layers, most in conv1: 2.0 ± 0.1 px, untrained 4.0 ± 0.1 "
        "px."
    ]
    picture = fields.layers[0].pictures[0]
    assert (picture.size, picture.box) == ((7, 7), (1, 0, 6, 6))  # a margin of one pixel, within the input
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.picture))).convert("RGB")).astype(int)
    assert np.argwhere((pixels != pixels[0, 0]).any(2)).tolist() == [[2, 3], [3, 3]]
    assert pixels[2, 3].sum() > pixels[3, 3].sum()
    assert fields.layers[0].share == pytest.approx(4 / 36)
    assert [line.series.label for line in fields.chart.series] == [
        "untrained",
        "theoretical",
        "effective, trained",
    ]


def test_blocks_are_means() -> None:
    values = np.arange(20.0).reshape(4, 5)
    assert reduce_blocks(values, 1) == pytest.approx(values)
    assert reduce_blocks(values, 2) == pytest.approx(np.array([[3, 5, 6.5], [13, 15, 16.5]]))
    assert reduce_blocks(values, 9) == pytest.approx(values.mean())


def test_page(folder: Path) -> None:
    settings = {"dataset": "animals", "input": {}, "views": VIEWS | {NAME: {}}}
    config: dict[str, Any] = CONFIG | {"networks": {"own": settings}}
    site = build_site(folder, "own", config=config)
    text = re.sub(r"\s+", " ", PageParser(site / "networks/own-effective-receptive-field.html").text)
    assert "on 16 test images of animals" in text
    assert "fc: it has no maps." in text
    html = (site / "networks/own-effective-receptive-field.html").read_text()
    assert '2.0 ± 0.1</td><td class="number" data-value="4.0">4.0 ± 0.1</td>' in html
    assert ">11 %</td>" in html
    assert html.count("<td>cut off</td>") == 2
    overview = PageParser(site / "networks/own-analyses.html").text
    assert "conv2: 4.0 ± 0.1 px in effect" in overview
