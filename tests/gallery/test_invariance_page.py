"""The page of a network's invariance: changed images, curves, their control, and the chosen step."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from convatlas.files import write_json, write_npz
from convatlas.gallery import build
from convatlas.gallery.invariance_text import describe_half_range, find_half_range
from convatlas.gallery.pages import analyses, invariance
from tests.support.browser import needs_chromium
from tests.support.fake_results import VIEWS, make_results
from tests.support.site import CONFIG, PageParser, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

STEPS = {"vertical": [-2.0, 0.0, 1.0], "rotation": [0.0, 90.0, 180.0, 270.0, 360.0]}
UNITS = {"vertical": "pixels", "rotation": "degrees"}
SETTINGS = {"vertical": {}, "horizontal": None, "scale": None, "rotation": {}}
ANALYSED: dict[str, Any] = CONFIG | {
    "networks": {name: {"views": VIEWS | {"invariance": SETTINGS}, "input": {}} for name in ("own", "other")}
}


def write_invariance(folder: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Write invariance/ of a network, and return its arrays."""
    random, images = np.random.default_rng(0), make_results().images
    arrays = {}
    for name, steps in STEPS.items():
        shape = (len(images), len(steps))
        arrays[f"conv1@{name}"] = random.uniform(0, 30, shape).astype(np.float32)
        arrays[f"fc@{name}"] = random.uniform(0, 4, shape).astype(np.float32)
        arrays[f"probability@{name}"] = random.uniform(0, 1, shape).astype(np.float32)
        arrays[f"images@{name}"] = random.integers(0, 256, (*shape, 3, 8, 6)).astype(np.uint8)
    analysis = {
        "undefined": None,
        "images": images,
        "layers": [
            {"name": "conv1", "shape": [4, 6, 4], "different_images": 20.0},
            {"name": "fc", "shape": [4], "different_images": None},
        ],
        "transforms": [{"name": name, "unit": UNITS[name], "steps": steps} for name, steps in STEPS.items()],
        "padding": "edge",
        "quantity": "probability",
        "no_quantity": None,
        "different_predictions": None,
        "classes": [1] * len(images),
        "class_sources": ["label"] * len(images),
        "non_finite": [],
    }
    write_json(folder / "invariance/invariance.json", analysis | changes)
    write_npz(folder / "invariance/invariance.npz", arrays)
    return arrays


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for name in ("own", "other"):
        write_network(folder, name)
    write_invariance(folder / "results/own")
    write_invariance(
        folder / "results/other", undefined="the input is no image", layers=[], transforms=[], images=[]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "PAGE_MAKERS", [analyses.make_pages, invariance.make_pages])
        return build_site(folder, "own", "other", config=ANALYSED)


def test_the_page_shows_every_changed_image_and_the_mean_of_the_curves(site: Path) -> None:
    arrays = write_invariance(site.parent / "results/own")
    sheet = Image.open(site / "invariance/own/vertical.webp")
    pixels = np.asarray(sheet.convert("RGB"))
    images = arrays["images@vertical"]
    assert pixels.shape == (len(images) * 8, 3 * 6, 3)
    np.testing.assert_array_equal(pixels[8:16, 12:18], images[1, 2].transpose(1, 2, 0))
    html = (site / "networks/own-invariance.html").read_text()
    tiles = re.findall(r'viewBox="(\d+) (\d+) 6 8" role="img" aria-label="[^"]*, ([^",]+)"', html)
    assert ("0", "8", "−2 px") in tiles
    assert ("24", "0", "360°") in tiles
    for member, factor in (("conv1", 20), ("fc", 1), ("probability", 1)):
        mean = float((arrays[f"{member}@rotation"][:, 1] / factor).mean(dtype=np.float64))
        assert f"{mean:.3g}</td>" in html
    assert "Thin: an image; thick: the mean. Dashed: the control, the distance of different images" in html
    assert "Euclidean distance" in html  # of fc, which has no control
    assert "distance / that of different images" in html


def test_a_network_without_the_analysis_says_why(site: Path) -> None:
    for page in ("other-invariance", "other-analyses"):
        assert (
            "Not defined for this network: the input is no image."
            in PageParser(site / f"networks/{page}.html").text
        )


@pytest.mark.parametrize(
    ("name", "steps", "means", "text"),
    [
        ("vertical", [-2, -1, 0, 1, 2], [0.1, 0.6, 1, 0.4, 0.9], "vertical translations of −1 to 0 pixels"),
        ("scale", [0.5, 1, 2], [0.5, 1, 0.5], "scales of 0.5 to 2"),
        ("horizontal", [-2, 0, 2], [0.4, 1, 0.4], "no horizontal translation"),
        ("rotation", [0, 90, 180, 270, 360], [1, 0.2, 0.9, 0.8, 1], "rotations of 180° (−180°) to 0°"),
        ("rotation", [-90, -45, 0, 45], [0.1, 0.9, 1, 0.1], "rotations of −45 to 0°"),
        ("rotation", [0, 90, 180, 270, 360], [1, 0.9, 0.9, 0.8, 1], "rotations of 0 to 360°"),
        ("rotation", [0, 90, 180, 270, 360], [1, 0.9, 0.1, 0.3, 1], "rotations of 0 to 90°"),
    ],
)
def test_the_range_in_which_half_of_the_score_is_left(
    name: Any, steps: list[float], means: list[float], text: str
) -> None:
    transform: Any = {"name": name, "unit": "", "steps": [float(step) for step in steps]}
    scores = np.array([means, means], np.float32)
    assert find_half_range(transform, scores)[1] >= (1 if name == "scale" else 0)
    assert describe_half_range(transform, scores) == text


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_the_slider_and_the_pointer_choose_the_step(browser: "Browser", site: Path, width: int) -> None:
    page, errors = open_page(browser, site, "networks/own-invariance.html", width)
    section = page.locator("[data-part=invariance]").nth(1)
    slider, output = section.locator("input"), section.locator("label output")
    assert output.inner_text() == "0°"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert output.inner_text() == "90°"
    assert section.locator("td.chosen svg").first.get_attribute("aria-label").endswith(", 90°")
    box = section.locator(".line-chart svg").first.bounding_box()
    page.mouse.move(box["x"] + 0.74 * box["width"], box["y"] + 0.5 * box["height"])
    assert output.inner_text() == "270°"
    assert section.locator("td.chosen svg").first.get_attribute("viewBox") == "18 0 6 8"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []
    assert Axe().run(page).violations_count == 0
