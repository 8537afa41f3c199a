"""The first screen of a network: what lies over a sample image, the scores, and the main findings."""

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from convatlas.gallery.build import read_context
from convatlas.gallery.class_scores import read_probabilities
from convatlas.gallery.main_findings import _describe_dead_units, list_main_findings
from convatlas.gallery.network_result import NetworkResult, read_result
from convatlas.gallery.result_overlay import choose_middle_layer, find_map_box, trace_outline
from convatlas.records import Layer
from tests.support.fake_results import FakeResults, make_results
from tests.support.site import CONFIG, HOSTILE_TEXT, RUN, PageParser, build_site, write_network


def read(folder: Path, results: FakeResults) -> NetworkResult:
    write_network(folder, "own", results)
    context = read_context(folder / "results", folder / "data", ["own"], CONFIG, RUN)
    return read_result(context, context.networks[0])


def locate(results: FakeResults, start: int = -2, step: int = 2, field: int = 5) -> None:
    """Add receptive fields to the layers with maps."""
    for layer in results.layers:
        if layer["called"] and len(layer["output_shape"]) == 3:
            layer |= {"receptive_field": [field] * 2, "receptive_start": [start] * 2}
            layer |= {"receptive_step": [step] * 2}


def test_a_map_lies_on_the_grid_of_its_receptive_fields() -> None:
    """The middle of each cell is the middle of the field, counted pixel by pixel."""
    entry: dict[str, Any] = {"output_shape": [2, 3, 4], "receptive_field": [5, 8]}
    entry |= {"receptive_start": [-1, 2], "receptive_step": [3, 2]}
    box = find_map_box(cast(Layer, entry), (20, 16))
    assert box is not None
    left, top, width, height = (value / 100 for value in box)
    for row in range(3):
        for column in range(4):
            pixels = [-1 + 3 * row + n for n in range(5)], [2 + 2 * column + n for n in range(8)]
            centre = [np.mean([pixel + 0.5 for pixel in axis]) for axis in pixels]
            drawn = 20 * (top + height * (row + 0.5) / 3), 16 * (left + width * (column + 0.5) / 4)
            np.testing.assert_allclose(drawn, centre)
    assert find_map_box(cast(Layer, entry | {"receptive_step": None}), (20, 16)) is None
    assert find_map_box(cast(Layer, entry), (20,)) is None


def test_without_attribution_the_strongest_unit_of_the_middle_layer_is_shown(tmp_path: Path) -> None:
    results = make_results()
    locate(results)
    result = read(tmp_path, results)
    overlay = result.images[0].overlay
    outputs = results.activations["first"]
    layer = choose_middle_layer([cast(Layer, one) for one in results.layers if one["called"]])
    assert overlay is not None and layer is not None and layer["kind"] == "activation"
    unit = int(outputs[layer["name"]].max((1, 2)).argmax())
    assert overlay.title.startswith(f"Feature map of unit {unit},")
    assert overlay.layer.startswith(layer["name"])
    assert "grid of its receptive fields" in overlay.caption
    assert Image.open(BytesIO(result.pictures[overlay.file])).size == (6, 8)
    for layer_without_grid in results.layers:
        layer_without_grid["receptive_step"] = None
    overlay = read(tmp_path, results).images[0].overlay
    assert overlay is not None and overlay.caption.endswith("stretched to it")
    assert overlay.box == (0, 0, 100, 100)


def test_the_bars_are_the_probabilities_of_the_recorded_output(tmp_path: Path) -> None:
    results = make_results()
    scores = results.activations["first"]["fc"].astype(float)
    expected = np.exp(scores) / np.exp(scores).sum()
    image = results.images[0]
    image |= {"prediction": int(scores.argmax()), "probability": float(expected.max())}
    result = read(tmp_path, results)
    bars = result.images[0].scores
    assert [bar.share for bar in bars] == pytest.approx(sorted(expected, reverse=True), abs=1e-6)
    classes = results.network["classes"]
    assert [bar.name for bar in bars] == [classes[n] for n in np.argsort(-expected)]
    label = [bar.name for bar in bars if bar.is_label]
    assert label == ([classes[image["label"]]] if image["label"] is not None else [])
    image["probability"] = 0.123  # the output is recorded elsewhere: the prediction alone
    (bar,) = read(tmp_path, results).images[0].scores
    assert (bar.name, bar.text) == (classes[int(scores.argmax())], "12.3 %")


@pytest.mark.parametrize("kind", ["log-softmax", "multi-label", "independent-probabilities", "sigmoid"])
def test_probabilities_of_each_kind_of_output(tmp_path: Path, kind: str) -> None:
    results = make_results()
    count = 1 if kind == "sigmoid" else 4
    scores = {"sigmoid": [0.75], "independent-probabilities": [0.2, 0.9, 0.4, 0.6]}.get(kind, [-3, 1, 0.5, 2])
    expected = np.array(scores)
    if kind == "log-softmax":
        expected = np.exp(expected) / np.exp(expected).sum()
    elif kind != "independent-probabilities":
        expected = 1 / (1 + np.exp(-expected))
    if count == 1:
        expected = np.array([1 - expected[0], expected[0]])
        results.network["classes"] = ["no", "yes"]
        results.images[1] |= {"prediction": None, "probability": None}
    results.network["output"] = {"kind": kind, "path": "", "shape": [count], "reason": "said"}
    results.layers[-2]["output_shape"] = [count]
    for outputs in results.activations.values():
        outputs[results.layers[-2]["name"]] = np.array(scores, np.float32)
    image = results.images[0]
    image |= {"prediction": int(expected.argmax()), "probability": float(expected.max()), "label": None}
    write_network(tmp_path, "own", results)
    context = read_context(tmp_path / "results", tmp_path / "data", ["own"], CONFIG, RUN)
    probabilities = read_probabilities(context.networks[0], cast(Any, image))
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_the_outline_is_the_edge_between_pixels() -> None:
    region = np.random.default_rng(0).random((9, 7)) < 0.5
    outer, inner = trace_outline(region)
    for row, column in np.ndindex(region.shape):
        steps = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
        near = [region[r, c] for r, c in steps if 0 <= r < 9 and 0 <= c < 7]
        assert inner[row, column] == (region[row, column] and not all(near))
        assert outer[row, column] == (not region[row, column] and any(near))


def test_a_mask_lies_over_the_image_of_a_segmentation_network(tmp_path: Path) -> None:
    results = make_results()
    scores = np.random.default_rng(1).normal(size=(5, 8, 6)).astype(np.float32)
    results.network |= {"classes": ["background", "a", "b", "c", "d"]}
    results.network["output"] = {"kind": "softmax", "path": "", "shape": [5, 8, 6], "reason": "said"}
    for image in results.images:
        image |= {"prediction": None, "probability": None}
    for outputs in results.activations.values():
        outputs["relu"] = scores
        outputs["conv1"] = -scores
    result = read(tmp_path, results)
    overlay = result.images[0].overlay
    assert overlay is not None
    assert (overlay.title, overlay.layer) == ("Predicted mask", "relu, 8 × 6")
    picture = np.array(Image.open(BytesIO(overlay.picture)))
    factor = picture.shape[0] // 8
    classes = scores.argmax(0)
    colours = dict(overlay.legend)
    for row, column in np.ndindex(8, 6):
        red, green, blue, alpha = picture[row * factor + 1, column * factor + 1].tolist()
        name = results.network["classes"][classes[row, column]]
        assert alpha == (0 if name == "background" else 153)
        assert name == "background" or colours[name] == f"#{red:02x}{green:02x}{blue:02x}"


def test_findings_link_to_what_they_are_about(tmp_path: Path) -> None:
    results = make_results()
    write_network(tmp_path, "own", results)
    context = read_context(tmp_path / "results", tmp_path / "data", ["own"], CONFIG, RUN)
    findings = list_main_findings(context, context.networks[0])
    assert 1 <= len(findings) <= 5
    assert all(bool(finding.link) == bool(finding.link_text) for finding in findings)


def test_an_input_that_is_no_image_and_names_of_a_user(tmp_path: Path) -> None:
    results = make_results()
    results.network["classes"] = [HOSTILE_TEXT, *results.network["classes"][1:]]
    results.images[0] |= {"prediction": 0, "probability": 0.5}
    write_network(tmp_path, "own", results)
    site = build_site(tmp_path, "own")
    for name in ("index.html", "networks/own.html"):
        page = PageParser(site / name)
        assert HOSTILE_TEXT in page.text
        assert not any("onerror" in image for image in page.images)
        for image in page.images:
            assert ((site / name).parent / str(image["src"])).is_file()


def test_dead_units_are_located() -> None:
    def describe(*dead: list[int]) -> str:
        layers = [{"name": f"relu{n}", "units": 8, "dead": units} for n, units in enumerate(dead)]
        results = SimpleNamespace(dataset_statistics={"images": 20, "split": "test"})
        network: Any = SimpleNamespace(name="own", results=results, activation_statistics=layers)
        context: Any = SimpleNamespace(top_images={"own": None}, explorers={})
        return "".join(finding.text for finding in _describe_dead_units(context, network))

    assert describe([], []) == ""
    assert describe([], [3]).endswith("is dead, never positive on 20 test images: unit 3 of relu1.")
    assert describe([], [3, 5]).endswith("are dead, never positive on 20 test images: all in relu1 (2 of 8).")
    assert describe([1], [3, 5]).endswith(": most in relu1 (2 of 8).")
