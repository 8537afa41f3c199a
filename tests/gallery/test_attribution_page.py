"""The pages of attribution maps: pictures, scales, numbers and charts, and the comparison in a browser."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib import colormaps
from PIL import Image

from convatlas.files import read_json, write_json
from convatlas.gallery.attribution_charts import (
    describe_weak_baseline,
    draw_perturbation,
    draw_randomisation,
)
from convatlas.gallery.attribution_pictures import MapScale, render_map, sum_channels
from convatlas.gallery.attribution_text import describe_checks, describe_values, link_papers
from convatlas.gallery.diagrams.small_chart import Curve, draw_chart, round_up
from convatlas.gallery.figure_selection import select_figures
from convatlas.gallery.pages import attribution
from convatlas.gallery.single_file import build_single_file
from convatlas.results import Results
from tests.support.browser import needs_chromium
from tests.support.fake_attribution import METHODS, write_attribution
from tests.support.fake_results import CLASSES, VIEWS
from tests.support.site import CONFIG, HOSTILE_TEXT, PageParser, build_site, open_page, write_network

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ATTRIBUTED: dict[str, Any] = CONFIG | {
    "networks": {name: {"views": VIEWS | {"attribution": {}}} for name in ("own", "other")}
}
PIXELS = {name for name, _, returns, _ in METHODS if returns == "pixels"}


def write_networks(folder: Path) -> Path:
    """Write two networks with attribution maps, and return the folder of results/ and data/."""
    for name in ("own", "other"):
        write_network(folder, name)
        write_attribution(folder / "results" / name)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(write_networks(tmp_path_factory.mktemp("run")), "own", "other", config=ATTRIBUTED)


def read_maps(site: Path) -> dict[str, Any]:
    """Return what the comparison knows of every map, by network, image, class and method."""
    html = (site / "attribution.html").read_text()
    data = json.loads(re.search(r'id="attribution-data">(.*?)</script>', html)[1])
    return {
        (network["name"], image["name"], target["number"], key): one
        for network in data["networks"]
        for image in network["images"]
        for target in image["targets"]
        for key, one in target["maps"].items()
    }


# Pictures


def test_the_colours_of_a_picture_are_the_values_on_the_printed_scale(site: Path) -> None:
    """Each is read back from matplotlib's colours, to half a step of 64; values beyond the ends clipped."""
    results = Results(site.parent / "results/own")
    maps = read_maps(site)
    assert len(maps) == 2 * 2 * 2 * 6  # networks, images, classes, methods with a map
    for (network, image, number, key), entry in maps.items():
        if network != "own":
            continue
        values = results.attribution_maps(image)[f"{key}@{number}"].astype(float).sum(0)
        signed = entry["ramp"] == "diverging"
        assert signed == (key.partition(":")[0] != "grad_cam")
        table = np.round(255 * colormaps["RdBu_r" if signed else "viridis"](np.arange(256))[:, :3])
        pixels = np.asarray(Image.open(site / entry["file"]).convert("RGB")).astype(float)
        grey = np.abs(pixels[:, :, None] - table).sum(-1).argmin(-1)
        end = entry["end"]
        low = -end if signed else 0
        shown = low + (end - low) * grey / 255
        assert np.abs(shown - values.clip(low, end)).max() <= (end - low) * (0.5 / 64 + 0.5 / 255) + 1e-9


def test_the_scale_of_a_method_is_shared_by_the_classes_of_an_image(site: Path) -> None:
    maps = read_maps(site)
    results = Results(site.parent / "results/own")
    for image in ("first", "second"):
        arrays = results.attribution_maps(image)
        for key in ("gradient", "grad_cam", "occlusion"):
            first, second = (maps["own", image, number, key]["end"] for number in (2, 3))
            values = np.abs([arrays[f"{key}@{number}"].astype(float).sum(0) for number in (2, 3)])
            expected = np.quantile(values, 0.99) if key in PIXELS else values.max()
            assert first == second == pytest.approx(expected)


def test_a_scale_says_where_it_is_clipped() -> None:
    values = np.linspace(-1, 3, 400).reshape(20, 20)
    clipped = MapScale.from_maps([values], signed=True, quantile=0.5)
    assert clipped.ticks[0].startswith("≤ −") and clipped.ticks[2].startswith("≥ ")
    assert MapScale.from_maps([values], signed=True, quantile=1).ticks == ["−3", "0", "3"]
    assert MapScale.from_maps([values.clip(0)], signed=False, quantile=1).ticks == ["0", "3"]
    assert MapScale.from_maps([np.zeros((2, 2))], signed=False, quantile=1).ticks == ["0", "1"]


def test_nan_and_infinity_have_colours_and_are_named(tmp_path: Path) -> None:
    values = np.array([[[np.nan, np.inf, 1.0, -2.0]]])
    plane = sum_channels(values)
    scale = MapScale.from_maps([plane], signed=True, quantile=1)
    assert scale.colours.high == 2
    (tmp_path / "map.webp").write_bytes(render_map(plane, scale.colours))
    pixels = np.asarray(Image.open(tmp_path / "map.webp"))
    assert pixels[0, 0].tolist() == [224, 0, 190] and pixels[0, 1].tolist() == [255, 145, 0]
    assert describe_values(plane) == "values −2 to 1, some NaN and ±∞"
    assert describe_values(np.full((1, 2), np.nan)) == "all values are NaN"
    assert describe_values(np.zeros((1, 2))) == "all values are 0"


# Charts


def test_a_chart_has_its_values_at_their_heights_and_gaps_where_there_are_none() -> None:
    curve = Curve("a", "similarity", [1.0, None, -0.5, 0.5])
    control = Curve("b", "similarity", [2.0, 0.0, 0.0, 0.0], is_control=True)
    chart = draw_chart([curve, control], [0, 1, 2, 4], "correlation", (-0.5, 1), ("left", "right"), "words")
    assert [(line.is_control, line.points) for line in chart.polylines] == [
        (True, "0.0,0.0 25.0,66.7 50.0,66.7 100.0,66.7"),  # 2 is clipped
        (False, "0.0,0.0"),
        (False, "50.0,100.0 100.0,33.3"),
    ]
    assert chart.zero == pytest.approx(200 / 3) and chart.axis == "correlation, −0.5 to 1"
    assert [round_up(value) for value in (0, 0.387, 0.4, 1.0, 12)] == pytest.approx([1, 0.4, 0.4, 1, 20])


def test_charts_are_drawn_of_what_was_measured(site: Path) -> None:
    analysis = Results(site.parent / "results/own").attribution
    assert analysis
    image = analysis["images"]["first"]
    chart = draw_perturbation(image["maps"][0], image, analysis["fractions"])
    assert chart and [line.is_control for line in chart.polylines] == [True, True, False, False]
    unmeasured = image | {"random_order": {}}
    chart = draw_perturbation(image["maps"][0], unmeasured, analysis["fractions"])
    assert chart and len(chart.polylines) == 2
    nothing = image["maps"][0] | {"deletion": None, "insertion": None}
    assert draw_perturbation(nothing, image, analysis["fractions"]) is None
    chart = draw_randomisation(analysis["methods"][0])
    assert chart and chart.alt.endswith("from fc to conv1: 0.90, 0.60, 0.30, 0.10")
    assert chart.end == "4 layers redrawn"
    assert draw_randomisation(analysis["methods"][0] | {"randomisation": None}) is None


def test_a_baseline_that_keeps_the_class_is_named(site: Path) -> None:
    analysis = Results(site.parent / "results/own").attribution
    assert analysis
    image = analysis["images"]["first"]
    assert describe_weak_baseline(image, 2) == ""  # the curves fall from 0.8 to 0.1
    for entry in image["maps"]:
        entry["deletion"] = {"auc": 0.9, "values": [1.0, 0.9, 0.875]}
    assert "probability of 87.5 % for this class" in describe_weak_baseline(image, 2)
    assert describe_weak_baseline(image | {"maps": []}, 2) == ""


# Texts


def test_checks_are_numbers_in_words() -> None:
    assert describe_checks({"completeness_gap": 0.0123, "steps": 64}) == ["completeness gap 1.2 % (64 steps)"]
    assert describe_checks({"completeness_gap": None, "samples": 8}) == [
        "completeness gap undefined",
        "samples 8",
    ]
    assert link_papers("A & B, arXiv 1312.6034.") == (
        'A &amp; B, <a href="https://arxiv.org/abs/1312.6034">arXiv 1312.6034</a>.'
    )


def test_the_page_has_every_map_with_its_numbers(site: Path) -> None:
    html = (site / "networks/own-attribution.html").read_text()
    text = " ".join(PageParser(site / "networks/own-attribution.html").text.split())
    analysis = read_json(site.parent / "results/own/attribution/attribution.json")
    assert html.count('class="map-figure"') == 2 * 2 * (1 + 6)
    for image in analysis["images"].values():
        for entry in image["maps"]:
            assert entry["member"] in text
            assert f"deletion AUC {entry['deletion']['auc']:.3f}" in text
    assert text.count("completeness gap 1.2 % (64 steps)") == 4
    assert "Deconvnet: neck is no ReLU: set views.deconv.rectify" in text
    sentence = "In pool, projections of different units hardly differ."
    assert f"{sentence} Specificity: Deconvnet 0.03 and Gradient 0.03." in text
    assert "In conv1, projections" not in text
    for method in analysis["methods"]:
        assert (method["caveat"] in text) == (method["undefined"] is None)
    assert "results/own/attribution/first.npz" in text


def test_the_network_and_the_first_page_lead_to_it(site: Path) -> None:
    assert "networks/own-attribution.html" in PageParser(site / "index.html").links
    page = PageParser(site / "networks/own.html")
    assert any(link.endswith("own-attribution.html") for link in page.links)
    assert any(link.endswith("own-attribution.html#specificity") for link in page.links)
    assert "In pool, projections of different units hardly differ" in page.text


def test_there_is_no_page_where_the_config_asks_for_none(tmp_path: Path) -> None:
    write_networks(tmp_path)
    config = ATTRIBUTED | {"networks": {"own": {"views": VIEWS | {"attribution": None}}}}
    site = build_site(tmp_path, "own", config=config)
    assert not list(site.rglob("*attribution*.html"))
    assert "attribution.html" not in (site / "networks/own.html").read_text()


def test_a_network_without_any_method_says_why(tmp_path: Path) -> None:
    write_network(tmp_path, "own")
    reason = f"no class scores {HOSTILE_TEXT}"
    write_attribution(tmp_path / "results/own", methods=[], images={}, specificity=[], undefined=reason)
    site = build_site(tmp_path, "own", config=ATTRIBUTED)
    html = (site / "networks/own-attribution.html").read_text()
    assert "No map of this network: no class scores &lt;img" in html
    assert not (site / "attribution.html").exists()


def test_images_without_maps_say_why(tmp_path: Path) -> None:
    """As with `targets: label` of an image that has no label."""
    write_network(tmp_path, "own")
    folder = write_attribution(tmp_path / "results/own")
    path = folder / "attribution/attribution.json"
    analysis = read_json(path)
    analysis["images"]["first"] |= {"targets": [], "maps": [], "random_order": {}}
    reason = f"Gradient: it fails here: {HOSTILE_TEXT}"
    analysis["images"]["second"]["missing"] = [reason]
    left_out = next(iter(read_json(tmp_path / "results/own/images.json")))["name"]
    analysis["left_out"] = {left_out: "its class scores are not finite"}
    write_json(path, analysis)
    site = build_site(tmp_path, "own", config=ATTRIBUTED)
    page = PageParser(site / "networks/own-attribution.html")
    assert page.text.count("the image has no class that views.attribution.targets") == 1
    assert page.text.count(f"Without a map of this image: {reason}.") == 1
    assert ": its class scores are not finite" in page.text
    assert {image for _, image, *_ in read_maps(site)} == {"second"}


def test_links_lead_to_files_and_anchors(site: Path) -> None:
    for name in ("attribution.html", "networks/own-attribution.html"):
        for link in PageParser(site / name).links:
            path, _, anchor = link.partition("#")
            if path.startswith("https:"):
                assert path.startswith("https://arxiv.org/abs/")
                continue
            target = (site / name).parent / path if path else site / name
            assert target.is_file(), link
            assert not anchor or f'id="{anchor}"' in target.read_text(), link


def test_many_maps_are_divided_between_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "MAX_TILES_PER_PAGE", 20)
    site = build_site(write_networks(tmp_path), "own", "other", config=ATTRIBUTED)
    first, second = (PageParser(site / f"networks/own-attribution{suffix}.html") for suffix in ("", "-2"))
    assert "own-attribution-2.html" in first.links and "own-attribution.html#method-gradient" in second.links
    assert "first.npz" in first.text and "first.npz" not in second.text
    assert "second.npz" in second.text and "The caveat of gradient" not in second.text
    monkeypatch.setattr(attribution, "MAX_TILES_PER_PAGE", 6)  # those of one class
    site = build_site(tmp_path, "own", "other", config=ATTRIBUTED)
    last = PageParser(site / "networks/own-attribution-4.html")
    assert "first, cat" in last.text and "gradient@3" in last.text and "gradient@2" not in last.text
    assert len(read_maps(site)) == 2 * 2 * 2 * 6


def test_the_single_file_has_the_maps_and_no_comparison(site: Path) -> None:
    figures = select_figures(site.parent / "results", {"own": [], "other": []}, "all")
    file = build_single_file(site, figures, 15)
    assert file.n_figures == file.n_total == 2 * (3 + 2 + 24)  # figures, inputs, maps
    assert "attribution-data" not in file.html and "Swap sides" not in file.html
    assert file.html.count('class="map-figure"') == 2 * (28 + 6)
    assert 'fill="url(#networks.own-attribution/ramp-diverging)"' in file.html
    small = build_single_file(site, figures, len(file.html.encode()) / 1e6 - 0.005)
    assert 0 < small.n_figures < small.n_total


# In a browser


@needs_chromium
@pytest.mark.parametrize("name", ["networks/own-attribution.html", "attribution.html"])
def test_a_page_fits_and_is_accessible(browser: "Browser", site: Path, name: str) -> None:
    for width, scheme in ((360, "dark"), (1280, "light"), (2560, "light")):
        page, errors = open_page(browser, site, name, width, scheme)
        assert errors == []
        assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)") == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width < 2560:
            violations = Axe().run(page).response["violations"]
            assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []
        page.context.close()


@needs_chromium
def test_maps_lie_over_their_image_or_alone_without_a_script(browser: "Browser", site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "networks/own-attribution.html").as_uri())
    picture = page.locator(".stack .map").first
    get_opacity = "element => getComputedStyle(element).opacity"
    assert picture.evaluate(get_opacity) == "0.6"
    page.get_by_label("Overlay").focus()
    page.keyboard.press("ArrowRight")
    assert picture.evaluate(get_opacity) == "1"
    context.close()


@needs_chromium
def test_the_address_holds_what_is_compared(browser: "Browser", site: Path) -> None:
    page, errors = open_page(browser, site, "attribution.html")
    maps = read_maps(site)
    pictures = page.locator(".comparison .stack .map")

    def get_files() -> list[str]:
        return [str(pictures.nth(n).get_attribute("src")).split("gallery/")[1] for n in (0, 1)]

    assert get_files() == [maps["own", "first", number, "grad_cam"]["file"] for number in (2, 3)]
    page.get_by_label("Method").select_option("grad_cam:conv1")
    right = page.get_by_role("region", name="Second")
    right.get_by_label("Network").select_option("other")
    right.get_by_label("Image").select_option("second")
    right.get_by_label("Class").select_option(CLASSES[2])
    expected = [maps["own", "first", 2, "grad_cam:conv1"], maps["other", "second", 2, "grad_cam:conv1"]]
    assert get_files() == [one["file"] for one in expected]
    ratio = float(f"{expected[1]['end'] / expected[0]['end']:.2g}")
    assert f"{ratio:g} times the value of the first" in page.locator("[data-part=scales]").inner_text()
    page.reload()
    assert get_files() == [one["file"] for one in expected]
    page.get_by_role("button", name="Swap sides").click()
    assert get_files() == [one["file"] for one in expected[::-1]]
    page.go_back()
    assert get_files() == [one["file"] for one in expected]
    assert page.locator("[data-part=error]").is_hidden()
    page.goto((site / "attribution.html").as_uri() + "#method=no&a=network%3Dnone%26image%3Dsecond")
    assert page.locator("[data-part=error]").inner_text().startswith("Not found: network “none”")
    assert get_files()[0] == maps["own", "second", 2, "grad_cam"]["file"]
    assert errors == []
    page.context.close()
