"""The page of the evolution of units: its numbers, its pictures, and the slider in a browser."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from convatlas.files import write_json, write_npz
from convatlas.gallery import evolution_pictures as pictures
from convatlas.gallery.pages import evolution
from tests.support.browser import needs_chromium
from tests.support.fake_results import VIEWS
from tests.support.site import CONFIG, HOSTILE_TEXT, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EPOCHS = [0, 1, 5]
UNITS = [4, 0]
IMAGES = np.array([[7, 3, 1, 2, 9], [7, 3, 1, 2, 9], [-1, 3, 1, 2, 8]], np.int32)  # (epochs, units)
ANALYSIS: dict[str, Any] = {
    "undefined": None,
    "epochs": EPOCHS,
    "missing_epochs": [64],
    "best_epoch": 4,
    "averaged": False,
    "images": 20,
    "split_images": 40,
    "samples": ["first", "second"],
    "image_classes": {"7": "ant", "8": HOSTILE_TEXT, "9": None},
    "rectified": False,
    "layers": [
        {
            "name": "conv1",
            "n_units": 5,
            "units": UNITS,
            "filters": "conv1",
            "correlation": [0.1, 0.95, 1.0],
            "correlated_units": [2, 2, 1],
            "between_units": 0.3,
            "changed": [None, 0.0, 0.4],
            "inactive": [0, 0, 1],
        }
    ],
    "skipped": [{"name": "relu", "reason": "no rule"}],
}
EVOLVED: dict[str, Any] = CONFIG | {
    "datasets": {"animals": {"format": "images", "source": "a folder"}},
    "networks": {
        name: {"views": VIEWS | {"evolution": {"epochs": EPOCHS}}, "dataset": "animals", "input": {}}
        for name in ("own", "other")
    },
}


def make_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    projections, patches = rng.normal(size=(2, 3, 2, 3, 4, 5)).astype(np.float32)
    projections[2, 1] = patches[2, 1] = np.nan
    return {
        "conv1@values": np.arange(15, dtype=np.float32).reshape(3, 5),
        "conv1@images": IMAGES,
        "conv1@units": np.array(UNITS, np.int32),
        "conv1@projections": projections,
        "conv1@patches": patches,
        "conv1@filters": rng.normal(size=(3, 2, 3, 3, 3)).astype(np.float32),
        "conv1@maps": rng.normal(size=(3, 2, 2, 8, 6)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for name in ("own", "other"):
        write_network(folder, name)
        undefined = ANALYSIS | {"undefined": "it is so", "layers": [], "skipped": []}
        write_json(
            folder / f"results/{name}/evolution/evolution.json", ANALYSIS if name == "own" else undefined
        )
        write_npz(folder / f"results/{name}/evolution/evolution.npz", make_arrays())
    return build_site(folder, "own", "other", config=EVOLVED)


def list_cells(site: Path) -> list[tuple[bool, str]]:
    """Return whether each cell of the figure is marked as changed, and its text."""
    html = (site / "networks/own-evolution.html").read_text()
    cells = re.findall(
        r'<td data-column="\d" style="--column: \d"( class="changed")?>(.*?)</td>', html, re.DOTALL
    )
    texts = (re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", cell)).strip() for _, cell in cells)
    return list(zip((bool(changed) for changed, _ in cells), texts, strict=True))


def test_each_cell_says_image_and_activation_and_marks_another_image(site: Path) -> None:
    assert list_cells(site) == [
        (False, "train image 9 4"),
        (False, "train image 9 9"),
        (True, "▸ another image: train image 8 (&lt;img onerror=1 src=&#34;x&#34;&gt;&amp;amp;) 14"),
        (False, "train image 7 (ant) 0"),
        (False, "train image 7 (ant) 5"),
        (True, "inactive"),
    ]


def test_a_sheet_shows_each_tile_where_the_style_sheet_looks_for_it(site: Path) -> None:
    with Image.open(site / "evolution/own/conv1/map-1.webp") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    tiles = pictures.render_map_tiles(make_arrays()["conv1@maps"][:, 1])
    assert tiles.shape == (2, 3, 8, 6, 3)
    for row, column in np.ndindex(2, 3):
        top, left = row * 9, column * 7
        np.testing.assert_array_equal(pixels[top : top + 8, left : left + 6], tiles[row, column])
    sheet = pictures.Sheet.from_tiles("x", tiles)
    assert sheet.geometry == {"dx": "-116.7%", "dy": "-112.5%", "width": "350%", "aspect": "6 / 8"}


def test_a_large_tile_is_reduced_to_the_means_of_its_squares() -> None:
    values = np.random.default_rng(0).normal(size=(2, 1, 150, 97)).astype(np.float32)
    values[0, 0, :2, :2] = np.nan
    values[1, 0, 0, 0] = np.nan
    reduced = pictures.reduce_tiles(values)
    assert reduced.shape == (2, 1, 75, 49)
    assert np.isnan(reduced[0, 0, 0, 0])
    assert reduced[1, 0, 0, 0] == pytest.approx(np.nanmean(values[1, 0, :2, :2]), abs=1e-6)
    assert reduced[0, 0, 5, 48] == pytest.approx(values[0, 0, 10:12, 96].mean(), rel=1e-6)


def test_the_channels_of_a_filter_are_the_same_in_all_epochs() -> None:
    filters = np.ones((2, 1, 12, 2, 2), np.float32)
    filters[-1, 0, 3] = 5  # strongest after the last epoch
    filters[0, 0, 11] = 9  # and before
    tiles = pictures.render_filter_tiles(filters, as_rgb=False)
    assert tiles is not None and tiles.shape == (1, 2, 8, 8, 3)
    assert len(np.unique(tiles[0, 0].reshape(-1, 3), axis=0)) == 2  # channel 11 is in neither
    assert pictures.render_filter_tiles(np.ones((2, 1, 12, 1, 1), np.float32), as_rgb=False) is None


@pytest.mark.parametrize(
    ("correlation", "epoch"),
    [([0.1, 0.95, 1.0], 1), ([0.95, 0.1, 1.0], None), ([0.9, 0.9, 1.0], 0), ([0.99, None, 1.0], None)],
)
def test_convergence_begins_where_the_correlation_stays_high(
    correlation: list[float | None], epoch: int | None
) -> None:
    assert evolution.find_convergence(EPOCHS, correlation) == epoch


def test_the_overview_and_the_page_say_the_result_and_what_is_missing(site: Path) -> None:
    overview = (site / "networks/own-analyses.html").read_text()
    assert "from epoch 1 on in conv1 (untrained 0.10)" in overview
    page = re.sub("<[^>]+>", "", (site / "networks/own-evolution.html").read_text())
    for text in ("has no epoch 64", "20 of 40 training images", "relu: no rule", "epoch 4, the best one"):
        assert text in page
    assert "it is so" in (site / "networks/other-evolution.html").read_text()


@needs_chromium
@pytest.mark.parametrize("width", [1280, 360])
def test_the_slider_moves_all_tiles_and_without_it_all_epochs_are_shown(
    site: Path, browser: "Browser", width: int
) -> None:
    page, errors = open_page(browser, site, "networks/own-evolution.html", width)
    cells = page.locator("td[data-column]:visible")
    slider = page.get_by_role("slider", name="Epoch")
    if width == 360:
        assert cells.count() == 2
    else:
        assert cells.count() == 6
        slider.focus()
    slider.press("Home")
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "epoch 1"
    assert cells.count() == 2
    assert page.locator("td[data-column]:visible .tile:visible").count() == 2 * 5  # with both maps
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.emulate_media(media="print")
    assert cells.count() == 6
    page.emulate_media(media="screen")
    page.get_by_label("All epochs").check()
    assert cells.count() == 6
    assert errors == []
    violations = Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []
    page.context.close()


@needs_chromium
def test_without_a_script_the_full_grid_is_there(site: Path, browser: "Browser") -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "networks/own-evolution.html").as_uri())
    assert page.locator("td[data-column]:visible").count() == 6
    assert not page.locator(".evolution-control").is_visible()
    context.close()
