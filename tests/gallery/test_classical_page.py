"""The page of classical operators: its sums against torch and the run's numbers, and the window moved."""

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page
from scipy.ndimage import correlate

from convatlas.analysis.sobel import SOBEL_X
from convatlas.files import write_json, write_npz
from convatlas.gallery.convolution_example import (
    MAX_SOURCE_VALUES,
    ConvolutionAxis,
    ConvolutionExample,
    format_decimals,
)
from convatlas.gallery.learned_filter import apply_filter
from convatlas.results import Results
from tests.support.fake_results import PLANE, FakeResults, make_layer, make_match, make_results
from tests.support.site import CONFIG, HOSTILE_TEXT, PageParser, build_site, write_network

FRAMES = "all => all.map(e => [e.offsetLeft, e.offsetTop, e.offsetWidth, e.offsetHeight])"
RNG = np.random.default_rng(5)


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def convolve(source: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, **settings: Any) -> np.ndarray:
    """Return torch's convolution of a source (C, H, W)."""
    tensors = [None if array is None else torch.from_numpy(array) for array in (source[None], weight, bias)]
    return torch.nn.functional.conv2d(*tensors, **settings)[0].numpy()


def write_convolution(
    folder: Path, source: np.ndarray, weight: np.ndarray, bias: np.ndarray, output: np.ndarray
) -> Results:
    """Write the results of a network with one convolution on one image."""
    preprocessing = {"std": [1.0] * len(source), "mean": [0.0] * len(source)}
    write_json(folder / "network.json", {"preprocessing": preprocessing})
    write_json(folder / "images.json", [{"name": "first"}])
    write_npz(folder / "filters.npz", {"own": weight, "own.bias": bias})
    write_npz(folder / "activations/first.npz", {"input": source, "own:2": output})
    return Results(folder)


def make_convolution(**fields: Any) -> Any:
    """Return the entry of layers.json of the second call of a convolution."""
    defaults = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, "kernel": [3, 3]}
    names = {"module": "own", "inputs": ["input"], "type": "Conv2d"}
    return make_layer("own:2", "conv", (3, 9, 9), (4, 7, 7), ordinal=1, **defaults | names | fields)


# Sums


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [*itertools.product([(3, 3), (2, 5)], [(1, 1), (2, 3)], [(0, 0), (2, 1)], [(1, 1), (2, 2)], [1, 2]),
     ((3, 3), (1, 1), "same", (2, 1), 1), ((4, 4), (1, 1), "same", (2, 2), 1),
     ((3, 3), (2, 2), "valid", (1, 1), 2)],
)  # fmt: skip
def test_every_value_is_torchs_and_the_recorded_one(
    tmp_path: Path, kernel: tuple[int, int], stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    source, weight, bias = noise(4, 13, 17), noise(6, 4 // groups, *kernel), noise(6)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = convolve(source, weight, bias, **settings)
    results = write_convolution(tmp_path, source, weight, bias, expected)
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    layer = make_convolution(kernel=list(kernel), **fields)
    for unit in (0, 5):
        example = apply_filter(results, layer, unit, "first")
        assert example is not None
        np.testing.assert_allclose(example.compute_output(), expected[unit], atol=1e-5)
        for y, x in np.ndindex(*expected[unit].shape):
            assert example.compute_value(y, x) == pytest.approx(expected[unit, y, x], abs=1e-5)
        worked_example = example.worked_example
        assert worked_example["total"] == worked_example["recorded"]
        assert example.compute_valid_mask()[example.position]  # wholly on the image
        assert not np.isnan(example.get_patch(*example.position)).any()


def test_a_map_that_is_not_the_convolution_is_skipped(tmp_path: Path) -> None:
    source, weight, bias = noise(3, 9, 9), noise(4, 3, 3, 3), noise(4)
    padded = torch.nn.functional.pad(torch.from_numpy(source[None]), (1, 1, 1, 1), mode="reflect")[0].numpy()
    results = write_convolution(tmp_path, source, weight, bias, convolve(padded, weight, bias))
    assert apply_filter(results, make_convolution(padding=[1, 1]), 0, "first") is None
    output = convolve(source, weight, bias)
    results = write_convolution(tmp_path, source, weight, bias, output)
    assert apply_filter(results, make_convolution(), 0, "first") is not None
    for change in ({"type": "ConvTranspose2d"}, {"inputs": ["input", "own"]}, {"inputs": ["lost"]}):
        assert apply_filter(results, make_convolution(**change), 0, "first") is None
    half = output.astype(np.float16)  # as `record: {dtype: float16}` keeps it
    write_npz(tmp_path / "activations/first.npz", {"input": source.astype(np.float16), "own:2": half})
    assert apply_filter(Results(tmp_path), make_convolution(), 0, "first") is not None


@pytest.mark.parametrize("position", [(0, 0), (60, 3), (111, 111)])
def test_a_large_source_is_cropped_around_the_position(position: tuple[int, int]) -> None:
    source, weight = noise(3, 224, 224), noise(1, 3, 7, 7)
    expected = convolve(source, weight, None, stride=2, padding=3)[0]
    axes = [ConvolutionAxis(-3, 2, 1, 7, 112)] * 2
    window = ConvolutionExample(
        "learned", source, weight[0], 0.0, *axes, expected, position, [(1.0, 0.0)] * 3
    )
    part = window.crop()
    assert part.source.size <= MAX_SOURCE_VALUES < window.source.size
    assert (
        part.vertical.first_output + part.position[0],
        part.horizontal.first_output + part.position[1],
    ) == position
    np.testing.assert_allclose(part.compute_output(), part.output, atol=1e-4)
    assert part.compute_value(*part.position) == pytest.approx(float(expected[position]), abs=1e-4)
    assert len(part.page_json) < 200_000
    small = ConvolutionExample(
        "s", source[:, :9, :9], weight[0], 0.0, *axes, expected, position, [(1.0, 0.0)] * 3
    )
    assert small.crop() is small


def test_numbers_are_printed_with_significant_digits() -> None:
    assert [format_decimals(value, 2) for value in (1.005, -1.5, -0.001, 0.0)] == [
        "1.00",
        "−1.50",
        "0.00",
        "0.00",
    ]
    axes = [ConvolutionAxis(0, 1, 1, 3, 1)] * 2
    whole = ConvolutionExample(
        "s", np.full((1, 3, 3), 7.0), SOBEL_X[None], 0.0, *axes, np.zeros((1, 1)), (0, 0), [(1.0, 0.0)]
    )
    assert set(whole.decimals.values()) == {0}
    fine = ConvolutionExample(
        "s", noise(1, 3, 3), 0.01 * SOBEL_X[None], 0.0, *axes, np.zeros((1, 1)), (0, 0), [(1.0, 0.0)]
    )
    assert fine.decimals["kernel"] == fine.decimals["product"] == 4 and fine.decimals["source"] == 2


# The page


def make_results_with_convolution(channels: int = 1) -> FakeResults:
    """Return results whose first convolution is recorded exactly; its unit 3 is an inverted Sobel kernel."""
    results = make_results(channels)
    weight = results.filters["conv1"]
    weight[3] = -0.3 * SOBEL_X + 0.001 * noise(channels, 3, 3)
    results.filters["conv1.bias"] = np.arange(5, dtype=np.float32) - 1.5
    results.layers[0] |= {"inputs": ["input"], "groups": 1}
    for outputs in results.activations.values():
        bias = results.filters["conv1.bias"]
        outputs["conv1"] = convolve(outputs["input"], weight, bias, padding=1)
    from tests.support.fake_results import match_first_filters  # noqa: PLC0415

    results.filter_matches = (
        match_first_filters(weight) if channels == 3 else match_first_filters(weight.repeat(3, 1))
    )
    if channels == 1:
        matches = results.filter_matches
        matches |= {
            "r": [row[:1] for row in matches["r"]],
            "kernels": [row[:1] for row in matches["kernels"]],
        }
    return results


def build_classical_page(folder: Path, results: FakeResults, **more: Any) -> Path:
    write_network(folder, "own", results)
    return build_site(folder, "own", config=CONFIG | {"networks": {"own": CONFIG["networks"]["own"]}} | more)


def decode_array(encoded: Any) -> np.ndarray:
    """Decode an array of a page's JSON: lists, or the bytes of integers in base 64."""
    if isinstance(encoded, list):
        return np.array(encoded)
    integers = np.frombuffer(base64.b64decode(encoded["base64"]), encoded["type"]).reshape(encoded["shape"])
    return integers / 10 ** encoded.get("decimals", 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_works_out_both_convolutions(tmp_path: Path, channels: int) -> None:
    results = make_results_with_convolution(channels)
    site = build_classical_page(tmp_path, results)
    text = " ".join(PageParser(site / "classical.html").text.split())
    assert (
        "Unit 3 of conv1 of own: best-matching classical kernel: Sobel x, with inverted sign, r = −1.00"
        in text
    )
    page = (site / "classical.html").read_text()
    examples = [json.loads(text) for text in re.findall(r'-data">(\{.*?\})</script>', page)]
    assert len(examples) == 2
    sobel, learned = examples
    pixels = results.inputs["first"]
    grey = np.round(255 * (np.tensordot([0.2125, 0.7154, 0.0721], pixels, 1) if channels == 3 else pixels[0]))
    np.testing.assert_array_equal(decode_array(sobel["source"])[0], grey)
    np.testing.assert_array_equal(decode_array(sobel["output"]), correlate(grey, SOBEL_X)[1:-1, 1:-1])
    output, step = results.activations["first"]["conv1"][3], 0.1 ** learned["decimals"]["total"]
    np.testing.assert_allclose(decode_array(learned["output"]), output, atol=0.501 * step)
    y, x = learned["position"]
    recorded = results.activations["first"]["conv1"][3, y, x]
    printed = f"{recorded:.{learned['decimals']['total']}f}".replace("-", "−")
    assert f"(bias) = {printed} At row {y}, column {x}." in text
    assert f"Recorded activation at this position: {printed}." in text
    for path in re.findall(r'src="(classical/[^"]+)"', page):
        assert (site / path).is_file()


def test_matching_units_are_shown_with_the_feature(tmp_path: Path) -> None:
    results = make_results_with_convolution()
    results.unit_matches["conv1"]["units"][1] = make_match("harris", 0.91)
    site = build_classical_page(tmp_path, results)
    page = PageParser(site / "classical.html")
    text = " ".join(page.text.split())
    for expected in (
        "vertical edge of cat, test image 0 (computed), and the feature map of conv1 0 of own: vertical "
        "edge, r = −0.83 (95th percentile, untrained: 0.41)",
        "corner of cat, test image 0 (computed), and the feature map of conv1 1 of own: corner, r = 0.91",
    ):
        assert expected in text
    assert "networks/own.html#layer=conv1&unit=1" in page.links
    assert {f"classical/harris-{what}.png" for what in ("image", "feature", "unit")} <= {
        image["src"] for image in page.images
    }


def test_without_a_learned_filter_or_a_match_there_is_sobel(tmp_path: Path) -> None:
    results = make_results()
    results.unit_matches = {
        name: one | {"units": [None] * len(one["units"])} for name, one in results.unit_matches.items()
    }
    site = build_classical_page(tmp_path, results)  # whose conv1 is not recorded as a convolution
    text = (site / "classical.html").read_text()
    assert 'id="sobel"' in text and 'id="learned"' not in text and 'id="features"' not in text


def test_the_page_says_where_the_weights_of_the_filter_come_from(tmp_path: Path) -> None:
    """A network that learned is preferred to one with random weights."""
    write_network(tmp_path, "own", make_results_with_convolution())
    untrained = make_results_with_convolution()
    untrained.network |= {"training": None, "weights": {"origin": "random, seed 0", "sha256": ""}}
    write_network(tmp_path, "other", untrained)
    for names, text in ((("other", "own"), "of own: best-matching"), (("other",), "of other: best-matching")):
        page = PageParser(build_site(tmp_path, *names) / "classical.html")
        assert text in " ".join(page.text.split())
        assert ("learned by gradient descent" in page.text) == (len(names) == 2)
        assert ("are random: the network is untrained" in page.text) == (len(names) == 1)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    results = make_results_with_convolution()
    for outputs in results.activations.values():
        outputs[HOSTILE_TEXT] = outputs.pop("conv1")
    results.filters = {key.replace("conv1", HOSTILE_TEXT): value for key, value in results.filters.items()}
    results.layers[0] |= {"name": HOSTILE_TEXT, "module": HOSTILE_TEXT}
    results.unit_matches[HOSTILE_TEXT] = results.unit_matches.pop("conv1")
    results.filter_matches |= {"layer": HOSTILE_TEXT}
    write_network(tmp_path, "own", results, subject=HOSTILE_TEXT)
    site = build_site(tmp_path, "own")
    page = PageParser(site / "classical.html")
    assert f"Unit 3 of {HOSTILE_TEXT} of own" in " ".join(page.text.split())
    assert "<img onerror" not in (site / "classical.html").read_text()


# In a browser


def open_example(browser: Browser, site: Path, **context: Any) -> tuple[Page, list[str]]:
    page = browser.new_context(viewport={"width": 1280, "height": 900}, **context).new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((site / "classical.html").as_uri())
    return page, errors


@pytest.mark.parametrize("channels", [1, 3])
def test_keys_clicks_and_buttons_move_the_window(tmp_path: Path, browser: Browser, channels: int) -> None:
    results = make_results_with_convolution(channels)
    recorded = results.activations["first"]["conv1"][3]
    page, errors = open_example(browser, build_classical_page(tmp_path, results))
    box = page.locator(".convolution-example").nth(1)
    example = json.loads(page.locator("#learned-data").inner_text())
    decimals = example["decimals"]["total"]

    def read_example() -> tuple[tuple[int, int], float, float]:
        status = box.locator("[data-part=status]").inner_text()
        y, x = map(int, re.findall(r"\d+", status)[:2])
        numbers = [box.locator("[data-part=sum] strong"), page.locator("[data-recorded=learned-data]")]
        total, recorded_value = (float(one.inner_text().replace("−", "-")) for one in numbers)
        terms = (
            box.locator("[data-part=sum]").inner_text().split("=")[0].replace("−", "-").replace("(bias)", "")
        )
        summed = sum(float(term.strip(" ()")) for term in terms.split(" + "))
        assert summed == pytest.approx(total, abs=10 * 10**-decimals)  # of what is printed
        return (y, x), total, recorded_value

    source, picture = (box.locator(f"[data-part={name}]") for name in ("source", "map"))
    source.focus()
    y, x = example["position"]
    for key, step in {
        "ArrowRight": (0, 1),
        "ArrowDown": (1, 0),
        "ArrowLeft": (0, -1),
        "ArrowUp": (-1, 0),
    }.items():
        page.keyboard.press(key)
        y, x = min(max(y + step[0], 0), PLANE[0] - 1), min(max(x + step[1], 0), PLANE[1] - 1)
        position, total, made_there = read_example()
        assert position == (y, x)
        assert total == made_there == pytest.approx(float(recorded[y, x]), abs=10**-decimals)
    for _ in range(12):  # to the corner and no further; there the window sees the padding's zeros
        box.get_by_role("button", name="left").click()
        box.get_by_role("button", name="up").click()
    position, total, _ = read_example()
    assert position == (0, 0) and total == pytest.approx(float(recorded[0, 0]), abs=10**-decimals)
    assert box.locator("td.outside").count() == 5 * channels
    size = picture.locator("img").bounding_box()
    picture.click(position={"x": size["width"] * 4.5 / 6, "y": size["height"] * 2.5 / 8})
    position, total, _ = read_example()
    assert position == (2, 4) and total == pytest.approx(float(recorded[2, 4]), abs=10**-decimals)
    source.click(position={"x": size["width"] * 1.5 / 6, "y": size["height"] * 6.5 / 8})
    assert read_example()[0] == (6, 1)
    sobel = page.locator(".convolution-example").first
    sobel.get_by_role("button", name="right").click()
    assert re.search(r"= −?\d+$", sobel.locator("[data-part=sum]").inner_text())
    assert errors == []


def test_without_a_script_the_example_is_text(tmp_path: Path, browser: Browser) -> None:
    page, errors = open_example(
        browser, build_classical_page(tmp_path, make_results_with_convolution()), java_script_enabled=False
    )
    assert page.locator(".controls").first.is_hidden()
    for box in page.locator(".convolution-example").all():
        assert "=" in box.locator("[data-part=sum]").inner_text()
    assert errors == []


def test_the_script_repeats_the_first_example(tmp_path: Path, browser: Browser) -> None:
    """A step away and back shows what the page has without the script."""
    page, _ = open_example(browser, build_classical_page(tmp_path, make_results_with_convolution()))
    for box in page.locator(".convolution-example").all():
        before = box.locator(".product").inner_text(), box.locator("[data-part=sum]").inner_text()
        frames = box.locator(".window").evaluate_all(FRAMES)
        moves = [("right", "left"), ("left", "right")]
        for there, back in moves:
            box.get_by_role("button", name=there).click()
            if box.locator("[data-part=sum]").inner_text() != before[1]:
                box.get_by_role("button", name=back).click()
                break
        assert (box.locator(".product").inner_text(), box.locator("[data-part=sum]").inner_text()) == before
        again = box.locator(".window").evaluate_all(FRAMES)
        assert np.abs(np.subtract(again, frames)).max() <= 1  # pixel of the screen
