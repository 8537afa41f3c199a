"""Lecture mode: its slides against torch and the arrays of a run, and its page in a browser."""

import base64
import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from torch.nn import functional as F

from convatlas.gallery.context import GalleryContext
from convatlas.gallery.lecture.slides import Slide
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pages import lecture
from convatlas.gallery.single_file import build_single_file
from tests.support.browser import needs_chromium
from tests.support.fake_results import CLASSES, FakeResults, make_layer, make_results
from tests.support.site import CONFIG, HOSTILE_TEXT, build_page, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGE = "networks/own-lecture.html"
OWN: dict[str, Any] = CONFIG | {"networks": {"own": CONFIG["networks"]["own"]}}
SIZE = (12, 10)
CONV = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
POOL = CONV | {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0]}
ALL_KINDS = ["image", "convolution", "activation", "pooling", "deeper", "output", "deconvnet", "summary"]


def make_network(
    channels: int = 3, conv: dict[str, Any] | None = None, pool: dict[str, Any] | None = None
) -> FakeResults:
    """Return results of convolution, ReLU, max pooling and a linear layer, computed by torch."""
    results, conv, pool = make_results(3), CONV | (conv or {}), POOL | (pool or {})
    rng = np.random.default_rng(7)
    weight, bias = rng.normal(size=(5, channels, *conv["kernel"])), rng.normal(size=5)
    mean, std = [0.5] * channels, [0.25] * channels
    results.network["preprocessing"] = {"size": list(SIZE), "mean": mean, "std": std}
    results.projections = {}
    for image in results.images:
        name = image["name"]
        pixels = rng.integers(0, 256, (channels, *SIZE)).astype(np.float32) / 255
        results.inputs[name] = pixels
        x = torch.from_numpy((pixels - 0.5) / 0.25)[None]
        parameters = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
        y = F.conv2d(x, *parameters, conv["stride"], conv["padding"], conv["dilation"])
        pooled, switches = F.max_pool2d(
            y.relu(), pool["kernel"], pool["stride"], pool["padding"], return_indices=True
        )
        fc = torch.from_numpy(rng.normal(size=(4, pooled.numel())) / 50).float()
        scores = fc @ pooled.flatten()
        outputs = {"input": x[0], "conv1": y[0], "relu": y[0].relu(), "pool": pooled[0], "fc": scores}
        results.activations[name] = {key: value.numpy() for key, value in outputs.items()}
        results.activations[name]["pool@switches"] = switches[0].int().numpy()
        probabilities = scores.softmax(0)
        image |= {"prediction": int(scores.argmax()), "probability": float(probabilities.max())}
        projections = rng.normal(size=(5, channels, *SIZE)).astype(np.float32)
        results.projections[name] = {"pool": projections, "pool@peak": projections[::-1].copy()}
    results.filters = {"conv1": weight.astype(np.float32), "conv1.bias": bias.astype(np.float32)}
    shapes = {key: value.shape for key, value in results.activations["first"].items()}
    pool |= {"receptive_field": [4, 4], "receptive_start": [-1, -1], "receptive_step": [2, 2]}
    results.layers = [
        make_layer("conv1", "conv", shapes["input"], shapes["conv1"], inputs=["input"], ordinal=1, **conv),
        make_layer("relu", "activation", shapes["conv1"], shapes["relu"], inputs=["conv1"], type="ReLU"),
        make_layer("pool", "pool", shapes["relu"], shapes["pool"], inputs=["relu"], type="MaxPool2d", **pool),
        make_layer("fc", "linear", shapes["pool"], shapes["fc"], inputs=["pool"]),
    ]
    results.unit_matches = {}
    return results


def read_context(folder: Path, results: FakeResults) -> GalleryContext:
    """Write a network, and read it as the gallery does."""
    write_network(folder, "own", results)
    network = NetworkData.read(folder / "results", folder / "data", "own")
    return GalleryContext(folder / "results", folder / "data", OWN, [network], {})


def read_slides(folder: Path, results: FakeResults, image: int = 0) -> dict[str, Slide]:
    """Write a network, and return the slides on one of its images, by their kind."""
    pages = list(lecture.make_pages(read_context(folder, results)))
    return {slide.kind: slide for slide in pages[image].context["lecture"].slides}


@pytest.mark.parametrize(
    ("channels", "change"),
    [
        (1, {}),
        (3, {"stride": [2, 2]}),
        (5, {"kernel": [5, 3], "padding": [2, 0]}),
        (3, {"dilation": [2, 2], "padding": [0, 0]}),
    ],
)
def test_the_convolution_is_the_recorded_one_at_every_position(
    tmp_path: Path, channels: int, change: dict[str, Any]
) -> None:
    results = make_network(channels, change)
    content = read_slides(tmp_path, results)["convolution"].content
    maps = results.activations["first"]["conv1"]
    assert content.unit == maps.reshape(5, -1).max(1).argmax()  # the most active unit
    np.testing.assert_array_equal(content.example.output, maps[content.unit])
    np.testing.assert_allclose(content.example.compute_output(), maps[content.unit], rtol=1e-4, atol=1e-4)
    flat = maps[content.unit].ravel()
    assert {stop for stop, _ in content.stops} == {0, flat.argmin(), flat.argmax(), flat.size - 1}
    assert len(content.channel_names) == content.n_shown == min(channels, 3)


def test_a_border_with_other_padding_is_left_out(tmp_path: Path) -> None:
    results = make_network(1)
    for outputs in results.activations.values():  # as if the padding were not zeros
        for edge in (np.s_[:, [0, -1]], np.s_[:, :, [0, -1]]):
            outputs["conv1"][edge] -= 1
    content = read_slides(tmp_path, results)["convolution"].content
    values = results.activations["first"]["conv1"][content.unit]
    np.testing.assert_array_equal(content.example.output, values[1:-1, 1:-1])
    assert content.is_without_border and content.example.vertical.first_output == 1


def test_a_large_image_is_cropped_around_the_maximum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convatlas.gallery.lecture.windows.CROP_SIDES", {3: 6})
    results = make_network()
    content = read_slides(tmp_path, results)["convolution"].content
    values = results.activations["first"]["conv1"][content.unit]
    inside = values[1:-1, 1:-1]  # without padding
    row, column = (int(n) + 1 for n in np.unravel_index(inside.argmax(), inside.shape))
    example = content.example
    assert example.output[example.position] == values[row, column]
    assert max(example.source.shape) <= 6 and example.is_exact and content.crop_box
    first = example.vertical.first_output, example.horizontal.first_output
    assert (first[0] + example.position[0], first[1] + example.position[1]) == (row, column)


@pytest.mark.parametrize(
    "change", [{}, {"kernel": [3, 3], "padding": [1, 1]}, {"kernel": [3, 2], "stride": [1, 2]}]
)
def test_pooling_shows_recorded_maxima_and_switches(tmp_path: Path, change: dict[str, Any]) -> None:
    results = make_network(pool=change)
    slides = read_slides(tmp_path, results)
    content, outputs = slides["pooling"].content, results.activations["first"]
    assert content.unit == slides["convolution"].content.unit  # as ReLU and pooling keep the units
    pooled = [cell.text for row in content.pooled for cell in row]
    expected = [outputs["relu"][content.unit][place] for place in content.switches]
    np.testing.assert_allclose([float(text) for text in pooled], expected, atol=0.051)
    marked = {n: cell.text for row in content.patch for cell in row for n in cell.windows}
    assert [marked[n] for n in range(len(pooled))] == pooled
    assert len(content.windows) == len(pooled)


def test_the_scores_are_those_of_the_record(tmp_path: Path) -> None:
    results = make_network()
    slides = read_slides(tmp_path, results, image=1)
    content, image = slides["output"].content, results.images[1]
    scores = torch.from_numpy(results.activations["second"]["fc"]).softmax(0)
    assert [bar.text for bar in content.bars] == [f"{100 * float(score):.1f} %" for score in scores]
    assert [bar.is_predicted for bar in content.bars] == [n == image["prediction"] for n in range(4)]
    results.activations["second"]["fc"] *= 2  # not what the record says
    assert len(read_slides(tmp_path, results, image=1)["output"].content.bars) == 1


def test_the_activation_and_the_deconvnet_are_those_of_the_unit(tmp_path: Path) -> None:
    results = make_network()
    slides = read_slides(tmp_path, results)
    content, outputs = slides["activation"].content, results.activations["first"]
    assert content.n_negative == ((outputs["conv1"][content.unit] < 0).sum(), 0)
    deconvnet = slides["deconvnet"].content
    assert (deconvnet.layer, deconvnet.is_peak) == ("pool", True)
    assert deconvnet.unit == outputs["pool"].reshape(5, -1).max(1).argmax()
    assert deconvnet.operations == ["unpool (pool)", "rectify (relu)", "transposed filter (conv1)"]
    assert [slide.kind for slide in slides["summary"].content] == ALL_KINDS[1:-1]


def remove_layers(results: FakeResults, *names: str) -> None:
    for outputs in results.activations.values():
        for name in names:
            outputs.pop(name, None)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (
            lambda results: results.layers[0].update(kind="other"),
            {"convolution", "activation", "pooling", "deeper"},
        ),
        (lambda results: remove_layers(results, "pool@switches"), {"pooling"}),
        (lambda results: results.layers[1].update(kind="other"), {"activation"}),
        (lambda results: results.layers[0].update(stride=[2, 1]), {"convolution"}),
        (lambda results: results.activations["first"]["relu"].fill(np.nan), {"activation", "pooling"}),
        (lambda results: results.activations["first"]["conv1"].fill(np.nan), {"convolution", "activation"}),
        (lambda results: results.projections["first"].clear(), {"deconvnet"}),
        (lambda results: results.network["output"].update(kind="none", shape=[4]), set()),
        (lambda results: results.images[0].update(label=None), set()),
    ],
)
def test_what_is_not_recorded_is_left_out(tmp_path: Path, change: Any, missing: set[str]) -> None:
    results = make_network()
    change(results)
    context = read_context(tmp_path, results)
    page, _ = lecture.make_pages(context)
    shown = re.findall(r'data-kind="(\w+)"', build_page(context, page))
    assert shown == [kind for kind in ALL_KINDS if kind not in missing]


def test_a_segmentation_network_shows_its_mask(tmp_path: Path) -> None:
    results = make_network()
    head = np.random.default_rng(1).normal(size=(4, *SIZE)).astype(np.float32)
    for image in results.images:
        image |= {"prediction": None, "probability": None}
        results.activations[image["name"]]["head"] = head
    results.layers.append(make_layer("head", "conv", (5, 6, 5), head.shape, inputs=["pool"]))
    results.network["output"] |= {"shape": list(head.shape)}
    content = read_slides(tmp_path, results)["output"].content
    shares = np.bincount(head.argmax(0).ravel(), minlength=4) / head[0].size
    assert [bar.text for bar in content.bars] == [f"{100 * share:.1f} %" for share in shares]
    assert content.mask


def test_a_network_of_signals_has_no_lecture(tmp_path: Path) -> None:
    results = make_results()
    results.network["preprocessing"]["size"] = [8]
    assert list(lecture.make_pages(read_context(tmp_path, results))) == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of one network, one of whose classes is hostile text."""
    folder = tmp_path_factory.mktemp("lecture")
    results = make_network()
    names = [*CLASSES[:-1], HOSTILE_TEXT]
    results.network |= {"classes": names, "dataset_classes": names}
    write_network(folder, "own", results)
    return build_site(folder, "own", config=OWN)


def test_the_other_images_are_scripts_and_the_single_file_has_no_lecture(site: Path) -> None:
    script = (site / "lecture/own/second.js").read_text()
    packed = re.fullmatch(r'registerSlides\("second", "([\w+/=]+)"\);\n*', script)
    assert packed
    html = gzip.decompress(base64.b64decode(packed[1])).decode()
    assert html.count("<section") == len(ALL_KINDS)
    page = (site / PAGE).read_text()
    assert HOSTILE_TEXT not in page + html
    for path in re.findall(r'src="\.\./([^"]+)"', page + html):
        assert (site / path).is_file(), path
    assert "own-lecture.html" in (site / "networks/own.html").read_text()
    assert "own-lecture.html" in (site / "primer.html").read_text()
    assert 'class="lecture' not in build_single_file(site, [], 5).html


# In a browser


def read_state(page: "Page") -> tuple[str, str, str]:
    """Return the hash, the counter and the heading of the slide that is shown."""
    heading = page.locator(".slide:visible h2")
    return page.evaluate("location.hash"), page.locator(".counter").inner_text(), heading.inner_text()


@needs_chromium
def test_keys_move_through_the_slides_and_the_address_follows(browser: "Browser", site: Path) -> None:
    page, errors = open_page(browser, site, PAGE)
    page.emulate_media(reduced_motion="reduce")
    assert read_state(page)[:2] == ("#step=1&image=first", "1 / 8")
    page.keyboard.press("PageDown")
    assert read_state(page)[:2] == ("#step=2&image=first", "2 / 8")
    parts = int(page.locator(".slide-convolution").get_attribute("data-parts") or 0)
    for part in range(2, parts + 1):
        page.keyboard.press("ArrowRight")
        assert read_state(page)[0] == f"#step=2&part={part}&image=first"
        total = page.locator('[data-part="sum"] strong').inner_text()
        assert total == page.locator("[data-recorded]").inner_text()
    page.keyboard.press(" ")
    assert read_state(page)[2].startswith("ReLU")
    page.keyboard.press("ArrowLeft")
    assert read_state(page)[0] == f"#step=2&part={parts}&image=first"
    page.keyboard.press("End")
    assert read_state(page)[1] == "8 / 8"
    page.keyboard.press("Home")
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    page.evaluate("location.hash = 'step=6&image=second'")
    page.wait_for_function("document.querySelector('.counter').textContent === '6 / 8'")
    assert read_state(page)[2].startswith("Class scores")
    page.get_by_label("Image", exact=True).select_option("first")
    page.wait_for_function("location.hash === '#step=6&image=first'")
    page.keyboard.press("o")
    page.wait_for_url("**/networks/own.html")
    assert errors == []
    page.context.close()


@needs_chromium
def test_the_window_fills_in_the_map_while_it_plays(browser: "Browser", site: Path) -> None:
    page, errors = open_page(browser, site, PAGE)
    page.evaluate("location.hash = 'step=2&image=second'")
    page.wait_for_function("document.querySelector('.counter').textContent === '2 / 8'")
    page.evaluate(
        """() => {
          window.wrong = 0;
          new MutationObserver(() => {
            const total = document.querySelector('[data-part="sum"] strong').textContent;
            if (total !== document.querySelector("[data-recorded]").textContent) window.wrong += 1;
          }).observe(document.querySelector('[data-part="status"]'), { childList: true });
        }"""
    )
    page.keyboard.press("p")
    page.get_by_text("At row 2").wait_for()
    page.keyboard.press("p")
    assert page.get_by_role("button", name="Play").is_visible()
    assert "polygon" in page.locator('[data-part="map"] img').evaluate("image => image.style.clipPath")
    assert page.evaluate("window.wrong") == 0
    assert errors == []
    page.context.close()


@needs_chromium
def test_every_slide_fits_and_is_accessible(browser: "Browser", site: Path) -> None:
    for width, height, scheme in ((1280, 720, "dark"), (1920, 1080, "light"), (360, 740, "light")):
        page, errors = open_page(browser, site, PAGE, width, scheme)
        page.set_viewport_size({"width": width, "height": height})
        for number in range(1, len(ALL_KINDS) + 1):
            page.keyboard.press(str(number))
            slide = page.locator(".slide:visible")
            assert slide.evaluate("slide => slide.scrollWidth <= slide.clientWidth")
            if width > 360:
                assert slide.evaluate("slide => slide.scrollHeight <= slide.clientHeight + 1")
                size = slide.evaluate("slide => parseFloat(getComputedStyle(slide).fontSize)")
                assert size >= 0.026 * height  # read at ten metres
        assert errors == []
        for number in range(1, len(ALL_KINDS) + 1) if width != 1920 else ():
            page.keyboard.press(str(number))
            violations = Axe().run(page).response["violations"]
            assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []
        page.context.close()


@needs_chromium
def test_without_a_script_and_in_print_all_slides_are_there(browser: "Browser", site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / PAGE).as_uri())
    assert page.locator(".slide:visible").count() == len(ALL_KINDS)
    assert page.locator(".lecture-bar").is_hidden()
    context.close()
    page, _ = open_page(browser, site, PAGE)
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == len(ALL_KINDS)
    page.context.close()
