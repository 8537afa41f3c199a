"""The page of a network's units, and the statistics over the data set in the explorer, in a browser."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from convatlas.files import read_json, write_json
from convatlas.gallery import build
from convatlas.gallery.explorer_sprites import draw_explorer
from convatlas.gallery.html_tree import parse_html
from convatlas.gallery.pages.units import compute_class_responses, format_ranges
from convatlas.gallery.selective_units import find_selective_units
from convatlas.statistics.histogram_bins import ZERO_BIN
from tests.support.browser import needs_chromium
from tests.support.explorer_site import (
    SETTINGS,
    build_explorer_site,
    get_part,
    open_address,
    read_state,
)
from tests.support.fake_results import VIEWS
from tests.support.fake_statistics import (
    CLASSES,
    DEAD_UNITS,
    FakeStatistics,
    K,
    write_network_with_statistics,
)
from tests.support.site import CONFIG, RUN, PageParser, open_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FakeStatistics:
    return write_network_with_statistics(tmp_path_factory.mktemp("own"))


# The tables


def test_ranges_name_every_number_once() -> None:
    assert format_ranges([]) == ""
    assert format_ranges([0, 2, 3, 7, 8, 9, 12]) == "0, 2, 3, 7–9, 12"


def make_statistics(**layers: list[list[float]]) -> dict[str, np.ndarray]:
    """Return statistics of layers by class means (units, classes), with little spread within a class."""
    statistics = {}
    for name, class_means in layers.items():
        means = np.array(class_means)
        has_two = np.isfinite(means).sum(1) > 1
        largest = np.nanmax(means, 1)
        others = (np.nansum(means, 1) - largest) / np.maximum(np.isfinite(means).sum(1) - 1, 1)
        statistics |= {
            f"{name}@classes": means,
            f"{name}@mean": np.nanmean(means, 1),
            f"{name}@image_std": np.nanstd(means, 1) + 0.01,
            f"{name}@selectivity": np.where(has_two, (largest - others) / (largest + others), np.nan),
            f"{name}@values": np.ones((len(means), K)),
        }
    return statistics


def make_summary(classes: list[str], counts: list[int]) -> Any:
    return {"classes": classes, "class_images": counts, "images": sum(counts)}


def test_the_most_selective_units_are_those_of_each_class_in_turn() -> None:
    rng = np.random.default_rng(0)
    of_ants = [[1, 0.001 * n, 0.001 * n] for n in range(30)]  # more selective than the others
    statistics = make_statistics(
        relu1=of_ants, relu2=[[0.1, 1, 0.1], [0.2, 1, 0.2], [0.3, 0.3, 1], [1, 1, 1]]
    )
    statistics["relu2@values"][1, -1] = 0  # active on few images
    units = find_selective_units(statistics, ["relu1", "relu2"], make_summary(CLASSES[:3], [40] * 3))
    assert [unit.class_name for unit in units].count("ant") == 18
    assert [(unit.layer, unit.unit) for unit in units[:18]] == [("relu1", n) for n in range(18)]
    assert [(unit.layer, unit.unit, unit.class_name) for unit in units[18:]] == [
        ("relu2", 0, "bee"),
        ("relu2", 2, "cat"),
    ]
    assert units[18].class_mean == 1 and units[18].other_classes_mean == pytest.approx(0.1)
    assert all(unit.effect_size > 0.8 for unit in units)
    alike = make_statistics(relu=(1 + 0.01 * rng.random((50, 3))).tolist())
    alike["relu@image_std"][:] = 1
    assert find_selective_units(alike, ["relu"], make_summary(CLASSES[:3], [40] * 3)) == []


def test_the_units_of_the_last_layer_have_a_response_for_each_class(network: FakeStatistics) -> None:
    statistics = {f"fc@{key}": array for key, array in network.layers["fc"].items()}
    rows = compute_class_responses(statistics, "fc", make_summary(CLASSES, [10, 10, 10, 0]), CLASSES)
    assert [row.name for row in rows] == CLASSES
    for row in rows:
        assert row.class_name == ""  # the values are noise
        assert [name for name, _ in row.responses] == CLASSES
        assert row.responses[3][1] is None  # no image of it
    names = [str(n) for n in range(20)]
    many = make_statistics(fc=np.arange(80.0).reshape(4, 20)[:, ::-1].tolist())
    (first, *_) = compute_class_responses(many, "fc", make_summary(names, [50] * 20), [])
    assert [name for name, _ in first.responses] == ["0", "1", "2"]
    assert first.class_name == "0"


def test_a_unit_with_nan_prefers_no_class() -> None:
    statistics = make_statistics(fc=[[1, np.nan, np.nan], [1, 2, np.nan]])
    summary = make_summary(["a", "b", "c"], [50, 50, 0])
    first, second = compute_class_responses(statistics, "fc", summary, ["a", "b", "c"])
    assert (first.class_name, second.class_name) == ("", "b")
    assert np.isnan(first.responses[1][1]) and first.responses[2][1] is None


# The page


def build_pages(folder: Path, strongest: dict[str, Any] | None) -> Path:
    """Build the gallery, with `views.strongest` of the config, and return the folder of networks."""
    config = CONFIG | {"networks": {"own": {"views": VIEWS | {"strongest": strongest}}}}
    build.build_gallery(folder / "site", folder / "results", folder / "data", ["own"], config, RUN)
    return folder / "site/networks"


def read_page_text(folder: Path) -> str:
    """Build the gallery, and return the text of the page of units."""
    return " ".join(PageParser(build_pages(folder, {"k": K}) / "own-units.html").text.split())


def test_the_page_lists_dead_units_by_layer_and_says_where_classes_come_from(network: FakeStatistics) -> None:
    text = read_page_text(network.folder)
    assert "over the 30 test images of animals" in text
    assert "fc42 dead units of fc in a table0, 3" in text  # layer, units, dead units, their numbers
    assert "predicted class" not in text
    path = network.network_folder / "statistics.json"
    summary = read_json(path)
    skipped = [{"image": 3, "name": "a.png", "reason": "cut"}]
    write_json(path, summary | {"class_source": "predicted class", "skipped": skipped})
    try:
        text = read_page_text(network.folder)
    finally:
        write_json(path, summary)
    assert "the data set has no labels" in text
    assert "over the images of each predicted class" in text
    assert "1 unreadable image skipped" in text


def test_there_is_no_page_where_the_config_asks_for_none(network: FakeStatistics) -> None:
    folder = build_pages(network.folder, None)
    assert not (folder / "own-units.html").exists()
    assert "own-units" not in (folder / "own.html").read_text()


# In a browser


@pytest.fixture(scope="module")
def site(network: FakeStatistics) -> Path:
    draw_explorer(network.network_folder, "own", SETTINGS | {"has_top_activations": True})
    return build_explorer_site(network.folder, "own", strongest={"k": K})


def read_units(page: "Page") -> list[int]:
    """Return the units on the grid, in its order."""
    return [int(text.split()[0]) for text in page.locator(".tiles text").all_text_contents()]


@needs_chromium
@pytest.mark.parametrize("key", ["zero_fraction", "selectivity"])
def test_units_are_sorted_by_the_statistics(
    browser: "Browser", site: Path, network: FakeStatistics, key: str
) -> None:
    page, errors = open_address(browser, site, "networks/own.html#layer=relu:2&unit=0")
    assert read_units(page) == list(range(18))
    get_part(page, "sort").select_option(key)
    page.wait_for_timeout(300)
    values = [float(f"{value:.4g}") for value in network.layers["relu:2"][key].tolist()]
    order = sorted(range(18), key=lambda unit: (-values[unit], unit))
    assert read_units(page) == order
    assert read_state(page)["sort"] == key
    assert get_part(page, "unit-number").input_value() == str(order[0])
    get_part(page, "next-unit").click()
    assert read_state(page)["unit"] == str(order[1])
    page.reload()
    page.wait_for_timeout(500)
    assert read_units(page) == order
    assert errors == []
    page.context.close()


@needs_chromium
def test_only_dead_or_active_units_are_shown(browser: "Browser", site: Path) -> None:
    page, errors = open_address(browser, site, "networks/own.html#layer=conv1&only=dead")
    assert read_units(page) == DEAD_UNITS["conv1"]
    assert read_state(page) == {"layer": "conv1", "only": "dead"}
    assert get_part(page, "unit-number").input_value() == "2"
    get_part(page, "only").select_option("alive")
    page.wait_for_timeout(300)
    assert read_units(page) == [0, 1, 3, 4]
    assert get_part(page, "unit-number").input_value() == "0"
    page.evaluate("location.hash = 'layer=pool&only=dead'")
    page.wait_for_timeout(400)
    assert not page.locator(".tiles").is_visible()
    assert get_part(page, "empty").text_content() == "No dead units in this layer."
    get_part(page, "only").select_option("all")
    page.wait_for_timeout(300)
    assert len(read_units(page)) == 18
    assert errors == []
    page.context.close()


@needs_chromium
def test_the_statistics_of_a_unit_are_shown(browser: "Browser", site: Path, network: FakeStatistics) -> None:
    page, errors = open_address(browser, site, "networks/own.html#layer=pool&unit=11")
    panel = page.locator(".dataset-statistics")
    arrays = network.layers["pool"]
    assert "30 test images of animals" in (panel.text_content() or "")
    assert "Responds most to" not in (panel.text_content() or "")  # the values are noise
    bars = panel.locator(".histogram rect")
    x, widths, heights = (
        np.array(
            [
                float(value)
                for value in bars.evaluate_all(f"all => all.map(bar => bar.getAttribute('{name}'))")
            ]
        )
        for name in ("x", "width", "height")
    )
    areas = widths * heights
    counts = arrays["histogram"][11]
    share = counts[:ZERO_BIN].sum() / (counts.sum() - counts[ZERO_BIN])
    assert areas[x < 50 - 1e-6].sum() / areas.sum() == pytest.approx(share, abs=0.05)  # of negative values
    panel.locator("canvas").scroll_into_view_if_needed()
    panel.locator(".top-images li").last.wait_for()
    assert panel.locator(".top-images li").count() == K
    assert (
        panel.locator("a").get_attribute("href")
        == f"{site.as_uri()}/networks/own-top-images.html#layer=pool&unit=11"
    )
    page.evaluate("location.hash = 'layer=pool&unit=1'")
    page.wait_for_timeout(400)
    assert page.locator(".dataset-statistics canvas").count() == 0  # not projected
    page.evaluate("location.hash = 'layer=conv1&unit=2'")
    page.wait_for_timeout(400)
    assert "Dead: not positive anywhere on all 30 test images." in (
        page.locator(".dataset-statistics").text_content() or ""
    )
    assert errors == []
    page.context.close()


@needs_chromium
def test_the_dead_units_of_a_layer_are_three_clicks_and_an_export_away(
    browser: "Browser", site: Path, network: FakeStatistics
) -> None:
    """As the network's page is a click away from the index, there are four clicks in all."""
    page, errors = open_page(browser, site, "networks/own.html")
    page.get_by_role("link", name="Units", exact=True).click()
    page.get_by_role("link", name="2 dead units of fc in a table").click()
    page.locator(".table-tools").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    assert download.value.suggested_filename == "own-units.csv"
    with Path(download.value.path()).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["layer"], int(row["unit"])) for row in rows] == [("fc", unit) for unit in DEAD_UNITS["fc"]]
    for row in rows:
        for title, key in {
            "mean": "mean",
            "std": "std",
            "max": "max",
            "zero fraction": "zero_fraction",
        }.items():
            assert np.float32(row[title]) == network.layers["fc"][key][int(row["unit"])]
    page.locator("tbody a").first.click()
    assert page.url.endswith("networks/own.html#layer=fc&unit=0")
    assert errors == []
    page.context.close()


def test_the_table_has_the_units_of_all_layers(network: FakeStatistics) -> None:
    path = build_pages(network.folder, {"k": K}) / "own-unit-table.html"
    numbers = parse_html(path.read_text(encoding="utf-8")).find("script", id="units-data")
    table = json.loads(numbers.get_text()) if numbers else {}
    names = [name for name in network.layers if name not in ("flatten", "dropout")]
    assert table["columns"][0]["choices"] == names
    assert table["length"] == sum(len(network.layers[name]["mean"]) for name in names)


@needs_chromium
@pytest.mark.parametrize(
    "name",
    [
        "networks/own-units.html",
        "networks/own-top-images.html",
        "networks/own-unit-table.html",
        "networks/own.html#layer=pool&unit=11",
    ],
)
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_and_are_accessible(browser: "Browser", site: Path, name: str, width: int) -> None:
    for scheme in ("light", "dark"):
        open_function = open_address if "#" in name else open_page
        page, errors = open_function(browser, site, name, width, scheme)
        page.wait_for_timeout(300)
        assert errors == []
        violations = Axe().run(page).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        rows = page.locator("th[scope=row]")
        if "table" in name:  # made by the script
            page.locator(".table-tools").first.wait_for()
        rows.evaluate_all("all => all.forEach(name => name.append('.of.a.block'.repeat(4)))")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.context.close()
