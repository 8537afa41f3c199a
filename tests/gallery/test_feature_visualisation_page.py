"""The page of a network's optimised images: the four views of a unit, marks, links, and its reader."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from convatlas.files import write_json, write_npz
from convatlas.gallery import build
from convatlas.gallery.explorer_sprites import draw_explorer
from convatlas.gallery.feature_pictures import MAX_LAYER_UNITS, find_field, list_shown_units
from convatlas.gallery.feature_views import describe_class, describe_maximum, list_marks
from convatlas.gallery.pages import analyses, feature_visualisation, network
from tests.support.browser import needs_chromium
from tests.support.fake_results import CLASSES, VIEWS, make_layer
from tests.support.fake_statistics import write_network_with_statistics
from tests.support.site import CONFIG, PageParser, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIMILARITY = {"responses": 0.9, "responses_control": 0.2, "pixels": 0.3, "pixels_control": 0.25}
UNITS = {"conv1": [1, 2], "neck": [0]}
VISUALISED: dict[str, Any] = CONFIG | {
    "networks": {
        name: {
            "views": VIEWS | {"feature_visualisation": {}, "strongest": {"k": 4} if name == "own" else None},
            "input": {},
        }
        for name in ("own", "other")
    }
}


def make_entry(n: int, **fields: Any) -> dict[str, Any]:
    """Return the entry of an optimised image, the first of which has a second start."""
    entry = {"start": 0.1, "end": 2.0 + n, "objective": 2.5 + n, "control": 1.0, "reached": True}
    return entry | {"second_start": None if n else SIMILARITY} | fields


def write_features(folder: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Write feature_visualisation/ of a network, and return its arrays."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for layer, units in [*UNITS.items(), ("", [1, 2])]:
        arrays[f"{layer}@images"] = random.random((len(units), 3, 8, 8)).astype(np.float32)
        arrays[f"{layer}@units"] = np.array(units, np.int32)
        arrays[f"{layer}@curves"] = random.random((len(units), 30)).astype(np.float32)
        arrays[f"{layer}@second_images"] = random.random((1, 3, 8, 8)).astype(np.float32)
    unit = {"maximum": 3.0, "dataset_maximum": 2.0, "dead": False}
    layers = [
        {
            "layer": layer,
            "undefined": None,
            "units": [make_entry(n, unit=number, **unit) for n, number in enumerate(units)],
        }
        for layer, units in UNITS.items()
    ]
    layers[0]["units"][1] |= {"reached": False, "objective": 0.5, "dead": True}  # type: ignore[index]
    layers.append({"layer": "fc", "undefined": "it fails here", "units": []})
    prediction = {"probability": 0.3, "predicted": 3, "predicted_name": "dog", "predicted_probability": 0.6}
    classes = [make_entry(n, name=CLASSES[c], **{"class": c}, **prediction) for n, c in enumerate([1, 2])]
    analysis = {
        "undefined": None,
        "objective": "channel",
        "steps": 30,
        "size": [8, 8],
        "input_size": [8, 6],
        "learning_rate": 0.05,
        "robust": True,
        "seed": 0,
        "layers": layers,
        "logits": {"undefined": None, "classes": classes},
    }
    write_json(folder / "feature_visualisation/feature_visualisation.json", analysis | changes)
    write_npz(folder / "feature_visualisation/feature_visualisation.npz", arrays)
    return arrays


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    statistics = write_network_with_statistics(tmp_path_factory.mktemp("run"))
    write_network(statistics.folder, "other")
    write_features(statistics.network_folder)
    nothing = {"layers": [], "logits": {"undefined": None, "classes": []}}
    write_features(statistics.folder / "results/other", undefined="the inputs are no images", **nothing)
    settings = VIEWS | {"atlas": {"layers": ["conv1"], "levels": 64}, "has_top_activations": False}
    draw_explorer(statistics.network_folder, "own", settings)
    makers = [network.make_pages, analyses.make_pages, feature_visualisation.make_pages]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "PAGE_MAKERS", makers)
        return build_site(statistics.folder, "own", "other", config=VISUALISED)


def test_the_page_shows_the_four_views_of_each_unit(site: Path) -> None:
    page = PageParser(site / "networks/own-feature-visualisation.html")
    arrays = write_features(site.parent / "results/own")
    pixels = np.asarray(Image.open(site / "features/own/conv1-1.webp").convert("RGB"))
    np.testing.assert_array_equal(
        pixels, np.round(255 * arrays["conv1@images"][0]).astype(np.uint8).transpose(1, 2, 0)
    )
    alts = [str(image["alt"]) for image in page.images]
    for start in (
        "Image optimised for unit 1",
        "Map of unit 1 of conv1 on",
        "Deconvnet projection of unit 1",
    ):
        assert any(alt.startswith(start) for alt in alts), start
    assert sum(", activation " in alt for alt in alts) >= 4
    assert "reaches 3, 150 % of the data set’s maximum 2" in page.text
    assert "not above noise: objective 0.5, of noise 1" in page.text
    assert "dead: never above zero" in page.text
    assert "No image: it fails here" in page.text
    assert "Value on" in page.text  # of neck, which has no maps
    assert "r = 0.90 (0.20 with those of other units)" in page.text
    assert "bee: logit 2.5, probability 30.0 %: predicted as dog (60.0 %)" in page.text


def test_a_network_without_images_says_why(site: Path) -> None:
    for page in ("other-feature-visualisation", "other-analyses"):
        text = PageParser(site / f"networks/{page}.html").text
        assert "Not computed: the inputs are no images." in text
    text = PageParser(site / "networks/own-analyses.html").text
    assert "2 of 3 units" in text
    assert "0 of 2 images of classes are predicted as their class" in text


def test_marks_and_maxima() -> None:
    unit: Any = make_entry(0, unit=3, maximum=5.0, dataset_maximum=None, dead=False)
    assert describe_maximum(unit) == "reaches 5"
    assert describe_maximum(unit | {"dataset_maximum": -1.5}) == "reaches 5; data set’s maximum −1.5"
    assert list_marks(unit, False) == []
    view: Any = make_entry(0, name="bee", probability=None, **{"class": 1})
    assert describe_class(view) == "logit 2.5"


def test_a_page_shows_the_first_of_many_units() -> None:
    layer: Any = {"layer": "conv", "undefined": None, "units": list(range(500))}
    one: Any = {"layers": [layer]}
    assert list_shown_units(layer, one) == list(range(MAX_LAYER_UNITS))
    assert list_shown_units(layer, {"layers": [layer] * 300}) == [0]  # type: ignore[typeddict-item]


def test_the_receptive_field_is_clipped_to_the_input() -> None:
    layer: Any = make_layer("conv", "conv", (3, 8, 8), (2, 4, 4), kernel=[3, 3])
    layer |= {"receptive_field": [3, 3], "receptive_start": [-1, -1], "receptive_step": [2, 2]}
    assert find_field(layer, (0, 3), (8, 8)) == (0, 5, 2, 8)
    assert find_field(layer | {"receptive_start": None}, (0, 3), (8, 8)) is None
    assert find_field(layer | {"receptive_field": [20, 9], "receptive_step": None}, (0, 0), (8, 8)) == (
        0, 0, 8, 8,
    )  # fmt: skip


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_accessible_and_enlarges_images(browser: "Browser", site: Path, width: int) -> None:
    page, errors = open_page(browser, site, "networks/own-feature-visualisation.html", width)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("figure.optimised > a").nth(1).click()
    assert page.locator("dialog.lightbox img").get_attribute("alt") == "Image optimised for the class cat"
    page.keyboard.press("Escape")
    assert errors == []
    assert Axe().run(page).violations_count == 0


@needs_chromium
def test_the_explorer_links_a_unit_to_its_views(browser: "Browser", site: Path) -> None:
    page, _ = open_page(browser, site, "networks/own-feature-visualisation.html", 1280)
    page.goto(page.url.replace("-feature-visualisation.html", ".html#layer=conv1&unit=1"))
    link = page.locator(".side-figure.optimised a")
    link.wait_for()
    assert link.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
    link.click()
    page.wait_for_url("**/own-feature-visualisation.html#conv1-1")
    assert page.locator("#conv1-1:target").count() == 1
    page.goto(page.url.replace("-feature-visualisation.html#conv1-1", ".html#layer=conv1&unit=0"))
    page.locator(".unit-details .side-figure").first.wait_for()
    assert page.locator(".side-figure.optimised").count() == 0
