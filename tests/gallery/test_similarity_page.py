"""The pages of the similarity of layers: maps, numbers and findings against made-up matrices."""

import base64
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib import colormaps
from PIL import Image

from convatlas.files import write_json, write_npz
from convatlas.gallery import similarity_findings as findings
from convatlas.gallery.figure_selection import select_figures
from convatlas.gallery.heat_map import draw_heat_map
from convatlas.gallery.single_file import build_single_file
from convatlas.records import MeanSimilarity
from tests.support.browser import needs_chromium
from tests.support.fake_results import VIEWS
from tests.support.site import CONFIG, PageParser, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LAYERS = ["conv1", "conv2", "conv3", "fc"]
TRAINED = np.array([[1, 0.95, 0.93, 0.2], [0.95, 1, 0.96, 0.3], [0.93, 0.96, 1, 0.4], [0.2, 0.3, 0.4, 1]])
UNTRAINED = np.array([[1, 0.94, 0.6, 0.5], [0.94, 1, 0.7, 0.6], [0.6, 0.7, 1, 0.9], [0.5, 0.6, 0.9, 1]])
MEAN: MeanSimilarity = {
    "trained": 0.62,
    "trained_error": 0.02,
    "untrained": 0.71,
    "untrained_error": 0.01,
    "difference_error": 0.01,
}


def make_arrays(trained: np.ndarray = TRAINED, error: float = 0.01) -> dict[str, np.ndarray]:
    """Return the arrays of a comparison, with one error for all."""
    values = {"trained": trained, "untrained": UNTRAINED, "trained_untrained": UNTRAINED}
    errors = {f"{key}_error": np.full_like(trained, error) for key in (*values, "difference")}
    return {key: array.astype(np.float32) for key, array in (values | errors).items()}


def write_similarity(results: Path) -> None:
    """Write the similarity of the networks own and other, and of one that is left out."""
    network = {
        "undefined": None,
        "control_undefined": None,
        "dataset": "animals",
        "images": 64,
        "layers": LAYERS,
        "left_out": ["norm"],
        "mean": MEAN,
    }
    pair = {
        "networks": ["own", "other"],
        "key": "own--other",
        "undefined": None,
        "dataset": "animals",
        "images": 64,
        "layers": [LAYERS, LAYERS],
        "mean": MEAN,
    }
    broken = {**network, "undefined": "its weights are damaged", "mean": None, "layers": []}
    missing = {**pair, "networks": ["own", "broken"], "key": "own--broken", "undefined": "broken is left out"}
    analysis = {
        "split": "test",
        "batch": 64,
        "networks": {"own": network, "other": network, "broken": broken},
        "pairs": [pair, missing],
    }
    write_json(results / "_similarity/similarity.json", analysis)
    keys = ("own", "other", "own--other")
    arrays = {f"{key}@{name}": array for key in keys for name, array in make_arrays().items()}
    write_npz(results / "_similarity/similarity.npz", arrays)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    names = ["own", "other", "broken"]
    for name in names:
        write_network(folder, name)
    write_similarity(folder / "results")
    settings = {"dataset": "animals", "input": {}, "views": VIEWS | {"similarity": {}}}
    config: dict[str, Any] = CONFIG | {"networks": dict.fromkeys(names, settings)}
    return build_site(folder, *names, config=config | {"publish": {"tensors": True}})


def test_the_picture_has_the_colours_of_the_values() -> None:
    values = np.array([[0.0, 0.5, np.nan], [1.0, -0.1, 1.0]])
    heat_map = draw_heat_map("T", values, np.full((2, 3), 0.02), ["a", "b"], ["x", "y", "z"], "alt", [(1, 0)])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(heat_map.picture))).convert("RGB")) / 255
    viridis = np.array(colormaps["viridis"](values.clip(0, 1)))[..., :3]
    known = np.isfinite(values)
    assert pixels[known] == pytest.approx(viridis[known], abs=0.02)
    assert np.ptp(pixels[0, 2]) < 0.1  # grey
    rows = [line.split("\t") for line in heat_map.numbers.splitlines()]
    assert rows == [["", "x", "y", "z"], ["a", "0.00 ±0.02", "0.50 ±0.02", "– ±0.02"], rows[2]]
    assert rows[2][2] == "−0.10 ±0.02"
    assert heat_map.marks[0].text == "b, x: 1.00"


def test_labels_of_many_rows_do_not_overlap() -> None:
    names = [f"a.very.long.name.of.a.block.conv{n}" for n in range(300)]
    heat_map = draw_heat_map("T", np.eye(300), np.zeros((300, 300)), names, names, "alt")
    places = [label.place for label in heat_map.rows]
    assert np.diff(places).min() >= 11
    assert heat_map.rows[0].text == "…g.name.of.a.block.conv0"
    assert max(heat_map.size) < 1000
    assert heat_map.numbers == ""
    medium = draw_heat_map("T", np.eye(60), np.ones((60, 60)), names[:60], names[:60], "alt")
    assert len(medium.numbers) < 25_000
    assert "±" not in medium.numbers


def test_findings_exceed_the_control() -> None:
    lines = findings.list_network_findings(LAYERS, make_arrays(), MEAN)
    assert lines == [
        "Training made the layers less similar: mean CKA 0.62 ± 0.02 (untrained 0.71 ± 0.01).",
        "The 3 layers from conv1 to conv3 form a block: every pair has a CKA of at least 0.9 (of the first "
        "and the last 0.93, untrained 0.60).",
        "Of neighbours that are less similar than before training, conv3 and fc differ most: CKA 0.40, "
        "untrained 0.90.",
    ]
    quiet: MeanSimilarity = {**MEAN, "untrained": 0.63, "difference_error": 0.001}
    assert findings.list_network_findings(LAYERS, make_arrays(UNTRAINED), quiet) == []
    assert (
        findings.list_network_findings(LAYERS, make_arrays(error=0.2), {**MEAN, "difference_error": 0.2})
        == []
    )


def test_most_similar_layers_exceed_the_control() -> None:
    arrays = make_arrays()
    above = findings.find_above_control(arrays)
    assert np.argwhere(np.triu(above)).tolist() == [[0, 2], [1, 2]]  # 0.95 is too near 0.94
    assert findings.list_most_similar(arrays) == []  # a diagonal of ones is that of the control
    arrays["untrained"] = np.zeros_like(arrays["trained"])
    assert findings.list_most_similar(arrays) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert (
        "conv1 and conv1: CKA 1.00 ± 0.01, untrained 0.00. 16 of 16 pairs"
        in findings.describe_most_similar([LAYERS, LAYERS], arrays)
    )
    assert "no control" in findings.describe_most_similar([LAYERS, LAYERS], {"trained": arrays["trained"]})


def test_pages(site: Path) -> None:
    own, pairs = PageParser(site / "networks/own-similarity.html"), PageParser(site / "similarity.html")
    text = re.sub(r"\s+", " ", own.text)
    assert "4 layers on 64 test images of animals" in text
    assert "Left out, as their outputs have no row for each image: norm." in text
    assert "own and broken: not compared: broken is left out" in text
    assert "conv2\t0.95 ±0.01\t1.00 ±0.01" in own.text
    assert "../similarity.html#own--other" in own.links
    assert "Rows: layers of own; columns: layers of other." in pairs.text
    assert "../arrays/_similarity/similarity.npz" in own.links
    assert (site / "arrays/_similarity/similarity.npz").is_file()
    assert "its weights are damaged" in PageParser(site / "networks/broken-similarity.html").text
    overview = PageParser(site / "networks/own-analyses.html").text
    assert "Mean CKA between two of 4 layers: 0.62 ± 0.02 (untrained 0.71 ± 0.01)." in overview


def test_the_single_file_has_the_maps(site: Path) -> None:
    figures = select_figures(site.parent / "results", {"own": [], "other": [], "broken": []}, "all")
    html = build_single_file(site, figures, 15).html
    assert html.count('class="heat-map"') == 2 * 3 + 2
    assert html.count('<image href="data:image/png;base64,') == 2 * 3 + 2
    assert 'href="#similarity/own--other"' in html


@needs_chromium
def test_cells_are_named_under_the_pointer_and_by_keys(site: Path, browser: "Browser") -> None:
    page, errors = open_page(browser, site, "networks/own-similarity.html", width=360, scheme="dark")
    figure = page.locator(".heat-map").first
    svg, output = figure.locator("svg"), figure.locator("output")
    box = figure.locator("image").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.4)
    assert output.text_content() == "conv2 · fc: 0.30 ±0.01"
    page.mouse.move(0, 0)
    assert output.text_content() == ""
    svg.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    assert output.text_content() == "conv2 · conv3: 0.96 ±0.01"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert errors == []
    assert [rule["id"] for rule in Axe().run(page).response["violations"]] == []
