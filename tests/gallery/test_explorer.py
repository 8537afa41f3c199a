"""The explorer and the comparison in a headless Chromium, on the sprites of small networks."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from convatlas.files import read_json, write_json
from convatlas.plotting.colormap import colour_table
from tests.support.browser import needs_chromium
from tests.support.explorer_site import (
    COLORMAPS,
    LEVELS,
    assert_colours,
    build_explorer_site,
    complete_layers,
    draw_sprites,
    get_part,
    open_address,
    read_colours,
    read_state,
    scale_limits,
    wait_until_drawn,
)
from tests.support.fake_results import TITLES, FakeResults, make_results
from tests.support.site import HOSTILE_TEXT, open_page, write_network
from tests.support.workspace import ROOT

pytestmark = needs_chromium

OWN = "networks/own.html"
STATIC = ROOT / "convatlas/gallery/static"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    for name, results in (("own", make_results()), ("grey", make_results(channels=1))):
        write_network(folder, name, complete_layers(results))
        draw_sprites(folder, name)
    return folder


@pytest.fixture(scope="module")
def small_peaks(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeResults, Path]:
    """A network whose peak projections are a tenth of the whole-map projections, and its site."""
    folder = tmp_path_factory.mktemp("faint")
    results = complete_layers(make_results(channels=1))
    for projected in results.projections.values():
        projected |= {key: array / 10 for key, array in projected.items() if key.endswith("@peak")}
    write_network(folder, "own", results)
    draw_sprites(folder, "own")
    return results, build_explorer_site(folder, "own")


@pytest.fixture(scope="module")
def site(folder: Path) -> Path:
    return build_explorer_site(folder, "own", "grey")


# Colours


def read_tile_boxes(page: Page) -> list[list[float]]:
    """Return the boxes of the tiles on the grid, from their hairlines: x, y, width, height."""
    line = page.get_attribute(".tiles .hairline", "d") or ""
    boxes = re.findall(r"M(\S+) (\S+)h(\S+)v(\S+)h", line)
    return [[float(x) + 0.5, float(y) + 0.5, float(w) - 1, float(h) - 1] for x, y, w, h in boxes]


@pytest.mark.parametrize("layer", ["conv1", "relu", "pool"])
@pytest.mark.parametrize("scale", ["unit", "layer", "network"])
def test_a_pixel_has_the_colour_of_its_value(
    browser: Browser,
    site: Path,
    layer: str,
    scale: str,
) -> None:
    """On the grid and enlarged, with every colour map, against the values and matplotlib."""
    outputs = make_results().activations
    all_values = np.concatenate([np.ravel(a) for o in outputs.values() for n, a in o.items() if n != "input"])
    page, errors = open_address(browser, site, f"{OWN}#layer={layer}&unit=1&image=second&scale={scale}")
    for colours in ("auto", "viridis", "diverging", "grey"):
        get_part(page, "colours").select_option(colours)
        wait_until_drawn(page)
        table = colours if colours != "auto" else "diverging" if layer == "conv1" else "viridis"
        maps = outputs["second"][layer]
        boxes = read_tile_boxes(page)
        assert len(boxes) == len(maps)
        for unit in (0, 1, 4):
            own = np.stack([o[layer][unit] for o in outputs.values()])
            all_units = np.stack([o[layer] for o in outputs.values()])
            limits = scale_limits({"unit": own, "layer": all_units, "network": all_values}[scale], table)
            step = float(np.ptp(maps[unit])) / (LEVELS - 1)
            colours_on_screen = read_colours(page, page.locator(".tiles canvas"), boxes[unit], maps.shape[1:])
            assert_colours(colours_on_screen, maps[unit], limits, table, step)
            if unit == 1:
                size = page.locator(".map").bounding_box()
                assert size and size["width"] / maps.shape[2] == round(size["width"] / maps.shape[2])
                box = [0, 0, size["width"], size["height"]]
                colours_on_screen = read_colours(page, page.locator(".map"), box, maps.shape[1:])
                assert_colours(colours_on_screen, maps[unit], limits, table, step)
                printed = page.locator(".map-view .scale").get_attribute("aria-label")
                words = [f"{end:.3g}".replace("-", "−") for end in limits]
                assert printed == f"Scale from {words[0]} to {words[1]}"
    assert errors == []
    page.context.close()


def test_filters_and_projections_have_zero_in_the_middle(browser: Browser, site: Path) -> None:
    results = make_results(channels=1)
    page, _ = open_address(browser, site, "networks/grey.html#layer=conv1&unit=1&image=first&show=filters")
    weight = results.filters["conv1"][:, 0]
    step = float(np.abs(weight[1]).max()) / 16
    colours_on_screen = read_colours(
        page, page.locator(".tiles canvas"), read_tile_boxes(page)[1], weight.shape[1:]
    )
    assert_colours(colours_on_screen, weight[1], scale_limits(weight, "diverging"), "diverging", step)
    for kind, key in (("Projections (whole map)", "conv1"), ("Projections (peak)", "conv1@peak")):
        get_part(page, "kinds").get_by_label(kind, exact=True).check()
        wait_until_drawn(page)
        assert read_state(page)["show"] == {"conv1": "projections"}.get(key, "peaks")
        projected = results.projections["first"][key][:, 0]
        all_values = np.concatenate([o[key] for o in results.projections.values()])
        step = float(np.abs(projected[1]).max()) / 16
        colours_on_screen = read_colours(
            page, page.locator(".tiles canvas"), read_tile_boxes(page)[1], projected.shape[1:]
        )
        assert_colours(
            colours_on_screen, projected[1], scale_limits(all_values, "diverging"), "diverging", step
        )
    page.context.close()


@pytest.mark.parametrize("scale", ["unit", "layer", "network"])
def test_peak_projections_have_their_own_scale(
    browser: Browser, small_peaks: tuple[FakeResults, Path], scale: str
) -> None:
    """On the grid, of the unit, and where two are linked: the colour bars show the values of the arrays."""
    results, site = small_peaks
    hash_ = f"layer=conv1&unit=3&image=first&show=peaks&scale={scale}"
    page, errors = open_address(browser, site, f"{OWN}#{hash_}")

    def most(ending: str) -> float:
        own = slice(3, 4) if scale == "unit" else slice(None)
        names = ("conv1", "pool") if scale == "network" else ("conv1",)
        arrays = [o[name + ending][own] for o in results.projections.values() for name in names]
        return max(float(np.abs(array).max()) for array in arrays)

    bars = {"(whole map)": f"{most(''):.3g}", "(peak)": f"{most('@peak'):.3g}"}
    if scale != "unit":  # which has no numbers on the sheet
        label = get_part(page, "colorbar").locator(".scale").get_attribute("aria-label")
        assert label == f"Scale from −{bars['(peak)']} to {bars['(peak)']}"
    compare = f"compare.html#a={quote('network=own&' + hash_)}&b={quote('network=own&' + hash_)}"
    linked, more = open_address(browser, site, compare)
    for each in (page, linked):
        for title, end in bars.items():
            for scale_ in each.locator(".side-figure", has_text=title).locator(".scale").all():
                assert scale_.get_attribute("aria-label") == f"Scale from −{end} to {end}"
    assert linked.locator(".side-figure .scale").count() == 6  # of the filter too, on both sides
    assert errors == more == []
    page.context.close()
    linked.context.close()


def test_the_colour_maps_are_matplotlibs() -> None:
    text = (STATIC / "colormaps.js").read_text()
    for name in ("viridis", "diverging"):
        digits = "".join(re.findall(r'"([0-9a-f]+)"', text.split(f"  {name}:")[1].split(",\n")[0]))
        assert digits == colour_table(COLORMAPS[name]).tobytes().hex()


def test_a_browser_without_filters_shows_grey_and_the_figure(browser: Browser, site: Path) -> None:
    page = browser.new_page()
    page.add_init_script("CSS.supports = () => false")
    page.goto((site / OWN).as_uri() + "#layer=conv1&unit=1&image=first")
    wait_until_drawn(page)
    assert get_part(page, "colours").is_disabled()
    assert "cannot apply the colour map" in get_part(page, "figure").inner_text()
    assert "maps" in (get_part(page, "figure").locator("img").get_attribute("src") or "")
    assert page.locator(".tiles canvas").evaluate("c => c.style.filter") == ""
    page.close()


# What a reader does


def test_it_opens_on_a_unit_that_matches_an_edge(browser: Browser, site: Path) -> None:
    """Of the two such units of the first convolution, the one with the widest range, on that image."""
    page, errors = open_address(browser, site, OWN)
    outputs = make_results().activations
    ranges = {(unit, name): np.ptp(o["conv1"][unit]) for unit in (0, 4) for name, o in outputs.items()}
    unit, image = max(ranges, key=lambda key: ranges[key])
    assert get_part(page, "status").inner_text().startswith(f"Unit {unit} of conv1 on {TITLES[image]}: ")
    assert "edge" in page.locator(".unit .description").inner_text()
    assert read_state(page) == {}
    assert errors == []
    page.context.close()


def test_the_numbers_of_a_unit(browser: Browser, site: Path) -> None:
    page, _ = open_address(browser, site, f"{OWN}#layer=relu&unit=2&image=first")
    values = make_results().activations["first"]["relu"]
    assert not values[2].any()
    assert "Inactive: zero on both sample images." in page.locator(".unit .description").inner_text()
    assert (
        len(re.findall("M", page.get_attribute(".tiles path:not(.hairline)", "d") or "")) == 1
    )  # crossed out
    page.fill("[data-part='unit-number']", "1")
    page.keyboard.press("Tab")
    wait_until_drawn(page)
    assert read_state(page)["unit"] == "1"
    cells = page.locator(".unit-details tbody tr").first.locator("td").all_inner_texts()
    expected = [values[1].min(), values[1].mean(), values[1].max()]
    assert cells[:3] == [f"{value:.3g}" for value in expected]
    assert cells[3] == f"{100 * (values[1] == 0).mean():.3g} %"
    page.context.close()


@pytest.mark.parametrize("kind", ["log_softmax", "LogSigmoid"])
def test_a_unit_is_not_dead_where_none_is_ever_positive(browser: Browser, tmp_path: Path, kind: str) -> None:
    results = complete_layers()
    last = next(layer for layer in results.layers if layer["name"] == "fc")
    results.layers.append(last | {"name": "last", "module": "last", "kind": "activation", "type": kind})
    for outputs in results.activations.values():
        outputs["last"] = -np.abs(outputs["fc"])
    write_network(tmp_path, "own", results)
    draw_sprites(tmp_path, "own")
    page, errors = open_address(
        browser, build_explorer_site(tmp_path, "own"), f"{OWN}#layer=last&unit=1&image=first"
    )
    words = page.locator(".unit .description").first
    assert "nactive" not in words.inner_text() and "Never positive" in words.inner_text()
    assert "inactive" not in get_part(page, "facts").inner_text()
    page.evaluate("location.hash = '#layer=conv1&unit=2&image=first'")
    wait_until_drawn(page)
    assert "No positive activation on both sample images." in words.inner_text()
    assert "1 unit inactive on the sample images" in get_part(page, "facts").inner_text()
    assert errors == []
    page.context.close()


def test_the_keyboard_reaches_everything(browser: Browser, site: Path) -> None:
    page, errors = open_address(browser, site, f"{OWN}#layer=block.conv2&unit=0&image=first")
    columns = sum(y == read_tile_boxes(page)[0][1] for _, y, _, _ in read_tile_boxes(page))
    page.focus(".grid-focus")
    for key, unit in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("ArrowUp", 0)):
        page.keyboard.press(key)
        wait_until_drawn(page)
        assert read_state(page)["unit"] == str(unit)
        assert get_part(page, "status").inner_text().startswith(f"Unit {unit} of block.conv2")
    page.keyboard.press("ArrowUp")  # there is none above
    assert read_state(page)["unit"] == "0"
    for key, layer in (
        ("]", "relu:2"),
        ("PageUp", "block.conv2"),
        ("[", "block/cat"),
        ("PageDown", "block.conv2"),
    ):
        page.keyboard.press(key)
        wait_until_drawn(page)
        assert read_state(page)["layer"] == layer
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .map")
    page.keyboard.press("ArrowRight")
    wait_until_drawn(page)
    assert read_state(page)["unit"] == "1"
    page.keyboard.press("PageDown")  # scrolls
    wait_until_drawn(page)
    assert read_state(page)["layer"] == "block.conv2"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.unit-dialog:not([open])", state="attached")
    assert page.evaluate("document.activeElement.className") == "grid-focus"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.dataset.part") == "search"
    page.keyboard.type("linear")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    wait_until_drawn(page)
    assert read_state(page)["layer"] == "fc"
    assert errors == []
    page.context.close()


def test_single_keys_can_be_switched_off(browser: Browser, site: Path) -> None:
    page, _ = open_address(browser, site, OWN)
    page.keyboard.press("]")
    wait_until_drawn(page)
    assert read_state(page)["layer"] == "relu"
    page.locator(".shortcuts summary").click()
    get_part(page, "shortcuts").uncheck()
    page.locator("h1").click()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("]")
    assert read_state(page)["layer"] == "relu"
    page.context.close()


def test_search_and_filter(browser: Browser, site: Path) -> None:
    page, _ = open_address(browser, site, OWN)
    names = page.locator(".option:visible .name")
    assert names.all_inner_texts() == [layer["name"] for layer in make_results().layers if layer["called"]]
    get_part(page, "search").fill("relu 2")
    assert names.all_inner_texts() == ["relu:2", "relu_2"]
    assert get_part(page, "match-count").inner_text() == "2 of 10 layers"
    get_part(page, "search").fill("2")  # the second convolution, besides names
    assert names.all_inner_texts() == ["block.conv2", "relu:2", "relu_2"]
    get_part(page, "search").press("Escape")
    get_part(page, "kind").select_option("linear")
    assert names.all_inner_texts() == ["neck", "fc"]
    get_part(page, "search").fill("fc")
    get_part(page, "search").press("Enter")
    wait_until_drawn(page)
    assert get_part(page, "name").inner_text() == "fc"
    assert page.locator(".option[aria-selected=true] .name").inner_text() == "fc"
    page.locator(".option:visible").first.click()
    page.context.close()


def test_every_state_is_in_the_address_and_can_be_undone(browser: Browser, site: Path) -> None:
    page, _ = open_address(browser, site, OWN)
    page.locator(".option", has_text="block.conv2").click()
    wait_until_drawn(page)
    page.locator(".tiles canvas").click(
        position={"x": read_tile_boxes(page)[7][0] + 5, "y": read_tile_boxes(page)[7][1] + 5}
    )
    wait_until_drawn(page)
    other = get_part(page, "images").locator("input:not(:checked)")
    image = other.get_attribute("value") or ""
    other.check()
    wait_until_drawn(page)
    get_part(page, "scale").select_option("unit")
    get_part(page, "colours").select_option("grey")
    wait_until_drawn(page)
    expected = {"layer": "block.conv2", "unit": "7", "image": image, "scale": "unit", "colours": "grey"}
    assert read_state(page) == expected
    page.locator("input[type=range]").fill("40")
    assert read_state(page) == expected | {"overlay": "40"}
    assert page.locator(".map").evaluate("c => c.style.opacity") == "0.4"
    assert (page.locator(".map-frame img").get_attribute("src") or "").endswith(f"inputs/{image}.png")
    link = page.url
    for _ in range(3):  # colours (and what was stepped since), scale, image
        page.go_back()
        wait_until_drawn(page)
    assert read_state(page)["unit"] == "7" and read_state(page)["image"] != image
    page.go_forward()
    wait_until_drawn(page)
    assert read_state(page)["image"] == image and "scale" not in read_state(page)
    again, errors = open_address(browser, site, link.removeprefix(site.as_uri() + "/"))
    assert read_state(again) == expected | {"overlay": "40"}
    assert get_part(again, "status").inner_text().startswith(f"Unit 7 of block.conv2 on {TITLES[image]}")
    assert (
        get_part(again, "scale").input_value() == "unit"
        and get_part(again, "colours").input_value() == "grey"
    )
    assert errors == []
    page.context.close()
    again.context.close()


@pytest.mark.parametrize(
    ("broken", "absent"),
    [("layer=nowhere&unit=1", "layer “nowhere”"),
     ("layer=conv1&unit=99&image=none", "unit 99 of conv1 and image “none”"),
     ("layer=conv1&unit=5", "unit 5 of conv1"),
     ("layer=conv1&unit=4&image=third", "image “third”"),
     ("layer=conv1&unit=-1&scale=x&overlay=999", "unit -1 of conv1"),
     ("layer=conv1&unit=4&image=second", ""),
     ("layer=%E0%A4%A&unit=1", ""), ("layer=conv1&show=peaks&colours=constructor", "")],
)  # fmt: skip
def test_an_outdated_link_still_opens(browser: Browser, site: Path, broken: str, absent: str) -> None:
    page, errors = open_address(browser, site, f"{OWN}#{broken}")
    assert re.match(r"Unit \d of conv1 on cat, test image [01]: ", get_part(page, "status").inner_text())
    message = f"Not found: {absent}. Showing the default." if absent else ""
    assert get_part(page, "error").inner_text() == message
    compare, more = open_address(browser, site, f"compare.html#a={quote('network=own&' + broken)}")
    message = f"Not found in own: {absent}. Showing the default." if absent else ""
    assert get_part(compare, "error").inner_text() == message
    assert errors == more == []
    page.context.close()
    compare.context.close()


def test_a_layer_of_fewer_units_can_be_chosen(browser: Browser, site: Path) -> None:
    """With a unit number that it does not have."""
    page, errors = open_address(
        browser, site, f"compare.html#a={quote('network=own&layer=block.conv2&unit=17')}"
    )
    left = page.locator(".side").first
    left.get_by_role("combobox", name="Layer", exact=True).select_option("conv1")
    wait_until_drawn(page)
    assert left.get_by_label("Unit", exact=True).input_value() == "0"
    assert not get_part(page, "error").is_visible()
    assert errors == []
    page.context.close()


def test_the_diagram_links_to_the_explorer(browser: Browser, site: Path) -> None:
    page, _ = open_address(browser, site, OWN)
    diagram = page.locator(".network-diagram")
    diagram.locator(".diagram.wide a[aria-label='Maps of conv1']").first.click()
    wait_until_drawn(page)
    state = read_state(page)
    maps = json.loads(diagram.locator(".diagram-data").inner_text())
    first, other = maps["images"]
    assert state["layer"] == "relu" and state["image"] == first
    assert int(state["unit"]) == maps["images"][first]["units"][maps["layers"].index("relu")]
    get_part(page, "images").get_by_role("radio", name=TITLES[other]).check()
    wait_until_drawn(page)
    assert diagram.locator(".diagram-maps image").get_attribute("href") == maps["images"][other]["file"]
    page.evaluate("location.hash = 'layer=conv1'")
    wait_until_drawn(page)
    page.locator("[data-part='source'] a").click()  # its figures
    assert page.evaluate("location.hash") == "#layer-conv1"
    page.go_back()
    wait_until_drawn(page)
    assert get_part(page, "name").inner_text() == "conv1"
    page.context.close()


def test_blocks_of_the_diagram_open_in_place_and_zoom(browser: Browser, site: Path) -> None:
    page, errors = open_page(browser, site, OWN)
    inside = page.locator(".network-diagram .levels")
    assert not inside.is_visible()
    page.get_by_role("link", name="Inside of conv1").click()
    assert page.evaluate("location.hash") == "#block-conv1"
    picture = inside.locator(".diagram.wide").filter(visible=True)
    assert picture.locator(".name").all_text_contents() == ["input", "conv1", "relu"]
    width = picture.evaluate("svg => svg.getBoundingClientRect().width")
    inside.get_by_role("button", name="Zoom in").click()
    assert picture.evaluate("svg => svg.getBoundingClientRect().width") > 1.3 * width
    inside.get_by_role("button", name="Fit to the page").click()
    assert picture.evaluate("svg => svg.getBoundingClientRect().width") == pytest.approx(width, abs=1)
    page.go_back()
    assert not inside.is_visible()
    page.context.close()
    page, _ = open_address(browser, site, f"{OWN}#block-conv1", width=360)
    assert page.locator(".network-diagram .diagram.narrow").filter(visible=True).count() == 1
    assert page.locator(".levels .diagram").filter(visible=True).count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.keyboard.press("Tab")
    page.locator(".levels .path button").first.press("Escape")
    assert not page.locator(".levels").is_visible()
    assert errors == []
    page.context.close()


def test_missing_scripts_are_named(browser: Browser, folder: Path, tmp_path: Path) -> None:
    site = build_explorer_site(folder, "own", "grey")
    script = site / "explorer/own/units/relu.js"
    content = script.read_bytes()
    script.unlink()
    page, _ = open_page(browser, site, OWN)
    wait_until_drawn(page)
    page.locator(".option", has_text="relu").first.click()
    page.wait_for_selector("[data-part='error']:not([hidden])")
    assert "explorer/own/units/relu.js is missing" in get_part(page, "error").inner_text()
    script.write_bytes(content)
    page.locator(".option", has_text="conv1").click()
    wait_until_drawn(page)
    assert get_part(page, "error").is_hidden()
    page.locator(".option", has_text="relu").first.click()
    wait_until_drawn(page)
    assert get_part(page, "name").inner_text() == "relu"
    page.context.close()


# A finger


@pytest.fixture
def phone(browser: Browser, site: Path) -> Iterator[Page]:
    size = {"width": 360, "height": 740}
    context = browser.new_context(viewport=size, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = context.new_page()
    page.goto((site / OWN).as_uri() + "#layer=block.conv2&unit=0&image=first")
    wait_until_drawn(page)
    yield page
    context.close()


def tap_unit(phone: Page, unit: int) -> None:
    x, y, width, height = read_tile_boxes(phone)[unit]
    phone.locator(".tiles canvas").tap(position={"x": x + width / 2, "y": y + height / 2})
    wait_until_drawn(phone)


def test_a_tap_chooses_and_a_swipe_goes_on(phone: Page) -> None:
    tap_unit(phone, 4)
    assert not phone.locator("dialog[open]").count()
    get_part(phone, "zoom").tap()
    phone.wait_for_selector("dialog[open] .map")
    wait_until_drawn(phone)
    assert read_state(phone)["unit"] == "4"
    box = phone.locator("dialog .map-frame").bounding_box()
    assert box and box["width"] > 200
    middle = box["y"] + box["height"] / 2
    touches = phone.context.new_cdp_session(phone)

    def swipe(*xs: float) -> None:
        for n, place in enumerate(xs):
            points = [{"x": place, "y": middle}]
            kind = "touchMove" if n else "touchStart"
            touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        touches.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        wait_until_drawn(phone)

    swipe(250, 200, 120)
    assert read_state(phone)["unit"] == "5"
    swipe(100, 180, 250)
    swipe(100, 180, 250)
    assert read_state(phone)["unit"] == "3"
    get_part(phone, "close").tap()
    phone.wait_for_selector("dialog.unit-dialog:not([open])", state="attached")
    assert phone.locator(".panes .unit").count() == 1


def test_back_closes_the_enlarged_unit_and_a_link_opens_it(phone: Page) -> None:
    tap_unit(phone, 4)
    get_part(phone, "zoom").tap()
    phone.wait_for_selector("dialog[open] .map")
    wait_until_drawn(phone)
    link = phone.url
    assert read_state(phone)["view"] == "unit"
    phone.go_back()
    phone.wait_for_selector("dialog.unit-dialog:not([open])", state="attached")
    wait_until_drawn(phone)
    assert (read_state(phone)["unit"], "view" in read_state(phone)) == ("4", False)
    phone.goto("about:blank")
    phone.goto(link)
    phone.wait_for_selector("dialog[open] .map")
    wait_until_drawn(phone)
    phone.keyboard.press("Escape")
    phone.wait_for_url(lambda url: "view=" not in url)
    assert phone.locator(".panes .unit").count() == 1
    assert read_state(phone)["unit"] == "4"


def test_targets_are_large_enough_for_a_finger(phone: Page) -> None:
    phone.locator(".layers summary").tap()
    assert min(min(w, h) for _, _, w, h in read_tile_boxes(phone)) >= 44
    for control in phone.locator(
        ".explorer :is(button, select, summary, .option, fieldset label, input:not([type=radio]))"
    ).all():
        box = control.bounding_box() if control.is_visible() else None
        name = control.evaluate("e => e.outerHTML.slice(0, 80)")
        if box and 'type="checkbox"' not in name and 'class="grid-focus"' not in name:
            assert box["height"] >= 44, name
    phone.locator(".option", has_text="relu").first.tap()
    wait_until_drawn(phone)
    assert not phone.locator(".list").is_visible()
    assert get_part(phone, "name").inner_text() == "relu"


# The comparison


def test_two_networks_are_compared_from_the_first_page(browser: Browser, site: Path) -> None:
    page, errors = open_page(browser, site, "index.html")
    page.get_by_label("Second network").select_option("grey")
    page.get_by_role("link", name="Compare units side by side").click()
    page.wait_for_url(re.compile("compare.html"))
    wait_until_drawn(page)
    sides = page.get_by_role("combobox", name="Network", exact=True)
    assert [side.input_value() for side in sides.all()] == ["own", "grey"]
    assert errors == []
    page.context.close()


def test_two_units_side_by_side_on_one_scale(browser: Browser, site: Path) -> None:
    page, errors = open_address(browser, site, f"{OWN}#layer=conv1&unit=3&image=first&scale=unit")
    get_part(page, "compare").click()
    page.wait_for_url(re.compile("compare.html"))
    wait_until_drawn(page)
    state = page.evaluate("convatlas.parseHash(location.hash)")
    assert state["a"] == "network=own&layer=conv1&unit=3&image=first&scale=unit"
    assert state["b"] == "network=own&layer=conv1&unit=3&image=second&scale=unit"
    right = page.locator(".side").nth(1)
    right.get_by_role("combobox", name="Network", exact=True).select_option("grey")
    wait_until_drawn(page)
    right.get_by_role("combobox", name="Layer", exact=True).select_option("relu")
    wait_until_drawn(page)
    right.get_by_label("Unit", exact=True).fill("1")
    right.get_by_label("Unit", exact=True).press("Enter")
    wait_until_drawn(page)
    maps = (
        make_results().activations["first"]["conv1"][3],
        make_results(channels=1).activations["first"]["relu"][1],
    )
    outputs, others = make_results().activations, make_results(channels=1).activations
    both = np.stack([*(o["conv1"][3] for o in outputs.values()), *(o["relu"][1] for o in others.values())])
    right.get_by_role("combobox", name="Image", exact=True).select_option("first")
    wait_until_drawn(page)
    for side, values in zip(page.locator(".side").all(), maps, strict=True):
        canvas = side.locator(".map")
        size = canvas.bounding_box()
        assert size
        colours_on_screen = read_colours(page, canvas, [0, 0, size["width"], size["height"]], values.shape)
        assert_colours(
            colours_on_screen,
            values,
            scale_limits(both, "diverging"),
            "diverging",
            np.ptp(values) / (LEVELS - 1),
        )
    bars = page.locator(".map-view .scale")
    assert bars.nth(0).get_attribute("aria-label") == bars.nth(1).get_attribute("aria-label")
    get_part(page, "linked").uncheck()
    wait_until_drawn(page)
    assert page.evaluate("convatlas.parseHash(location.hash)")["linked"] == "no"
    assert bars.nth(0).get_attribute("aria-label") != bars.nth(1).get_attribute("aria-label")
    link = page.url
    get_part(page, "swap").click()
    wait_until_drawn(page)
    assert (
        page.locator(".side").nth(0).get_by_role("combobox", name="Network", exact=True).input_value()
        == "grey"
    )
    page.go_back()
    wait_until_drawn(page)
    assert page.url == link
    page.locator(".side").nth(1).get_by_text("Open in network").click()
    page.wait_for_url(re.compile("grey.html"))
    wait_until_drawn(page)
    assert get_part(page, "status").inner_text().startswith("Unit 1 of relu on cat, test image 0")
    assert errors == []
    page.context.close()


# Every page


@pytest.mark.parametrize("width", [360, 1280, 2560])
@pytest.mark.parametrize(
    "name",
    [OWN, f"{OWN}#layer=fc&unit=2", f"{OWN}#layer=conv1&unit=2&show=filters&scale=unit", "compare.html",
     "networks/own-layers.html"],
)  # fmt: skip
def test_a_page_loads_completely_and_fits(browser: Browser, site: Path, name: str, width: int) -> None:
    page, errors = open_page(browser, site, name.partition("#")[0], width)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        if "layers" not in name:
            page.evaluate("hash => { location.hash = hash }", name.partition("#")[2])
            wait_until_drawn(page)
        assert errors == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        images = "[...document.images].filter(i => i.src && i.complete && !i.naturalWidth)"
        assert page.evaluate(f"{images}.length") == 0
    page.context.close()


@pytest.mark.parametrize("name", [OWN, "compare.html", "networks/own-layers.html"])
def test_a_page_is_accessible(browser: Browser, site: Path, name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in ("light", "dark"):
        page, errors = open_page(browser, site, name, scheme=scheme)
        if "layers" not in name:
            wait_until_drawn(page)
        assert errors == []
        for _ in range(2):
            violations = axe.run(page).response["violations"]
            assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []
            if name == OWN and page.locator("dialog[open]").count() == 0:
                get_part(page, "zoom").click()
                wait_until_drawn(page)
        page.context.close()


def test_without_javascript_the_layer_table_is_linked(browser: Browser, site: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((site / OWN).as_uri())
    assert not page.locator(".browser").is_visible()
    page.get_by_role("link", name="the layer table").click()
    link = page.locator("td a").first
    assert link.get_attribute("href") == "own.html#layer=conv1"
    assert link.get_attribute("aria-label") == "units of conv1"
    page.goto((site / "compare.html").as_uri())
    assert page.get_by_role("link", name="grey").count() >= 1
    page.context.close()


def test_names_are_text_and_never_markup(browser: Browser, tmp_path: Path) -> None:
    results = complete_layers()
    names = {"conv1": HOSTILE_TEXT, "relu": "../x y", "pool": "é " + "long" * 30, "block/cat": "constructor"}
    for one in results.layers:
        one["name"] = one["module"] = names.get(one["name"], one["name"])
    for arrays in (*results.activations.values(), *results.projections.values(), results.filters):
        for old, new in names.items():
            for suffix in ("", "@peak", ".bias"):
                if old + suffix in arrays:
                    arrays[new + suffix] = arrays.pop(old + suffix)
    results.unit_matches = {names.get(name, name): matches for name, matches in results.unit_matches.items()}
    results.network["classes"] = ["ant", HOSTILE_TEXT, "</script><script>alert(1)</script>", "dog"]
    results.filter_matches = None
    write_network(tmp_path, "own", results, subject=HOSTILE_TEXT)
    draw_sprites(tmp_path, "own")
    site = build_explorer_site(tmp_path, "own")
    for layer, unit in (
        (HOSTILE_TEXT, 1),
        ("../x y", 1),
        (names["pool"], 2),
        ("constructor", 3),
        ("fc", 1),
        ("fc", 2),
    ):
        hash_ = f"layer={layer}&unit={unit}".replace("&amp;", "%26amp;").replace("<img", "%3Cimg")
        page, errors = open_address(browser, site, OWN)
        page.locator(".option").filter(has=page.get_by_text(layer, exact=True)).first.click()
        wait_until_drawn(page)
        page.fill("[data-part='unit-number']", str(unit))
        page.keyboard.press("Tab")
        wait_until_drawn(page)
        assert hash_ and read_state(page)["layer"] == layer
        assert get_part(page, "name").inner_text() == layer
        assert get_part(page, "status").inner_text().startswith(f"Unit {unit}")
        assert page.locator("img[onerror]").count() == 0
        link = page.url
        page.goto("about:blank")
        page.goto(link)
        wait_until_drawn(page)
        assert get_part(page, "name").inner_text() == layer
        get_part(page, "compare").click()
        page.wait_for_url(re.compile("compare.html"))
        wait_until_drawn(page)
        assert (
            page.locator(".side").first.get_by_role("combobox", name="Layer", exact=True).input_value()
            == layer
        )
        assert errors == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        page.context.close()


# Figures, one at a time and in print


def test_figures_are_shown_one_at_a_time(browser: Browser, site: Path) -> None:
    page, errors = open_address(browser, site, OWN)
    page.locator("figure.figure a img").first.click()
    box = page.locator("dialog.lightbox")
    where = box.locator("[role=status]")
    assert where.inner_text() == "Figure 1 of 3"
    page.keyboard.press("ArrowRight")
    assert where.inner_text() == "Figure 2 of 3"
    assert "What maps shows of conv1" in box.locator("figcaption").inner_text()
    assert (box.locator("img").get_attribute("src") or "").endswith("figures/own/maps-2.png")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert where.inner_text() == "Figure 3 of 3"
    page.keyboard.press("Escape")
    assert not box.is_visible()
    page.wait_for_function("document.activeElement.href?.includes('deconv-3.png')")
    assert errors == []
    page.context.close()


def test_figures_are_not_broken_across_printed_pages(browser: Browser, site: Path) -> None:
    page, _ = open_address(browser, site, OWN)
    page.emulate_media(media="print")
    breaks = page.eval_on_selector_all(
        "figure.figure", "all => all.map(p => getComputedStyle(p).breakInside)"
    )
    assert breaks == ["avoid"] * 3
    page.context.close()


def test_the_print_button_waits_until_everything_is_drawn(browser: Browser, site: Path) -> None:
    page, _ = open_address(browser, site, f"{OWN}#layer=conv1&unit=3&image=first")
    page.evaluate(
        "window.print = () => { window.wasDrawn = [...document.querySelectorAll('.all-images canvas')]"
        ".map((canvas) => canvas.getContext('2d').getImageData(0, 0, 1, 1).data[3]) }"
    )
    page.get_by_role("button", name="Print").click()
    page.wait_for_function("window.wasDrawn")
    drawn = page.evaluate("window.wasDrawn")
    assert drawn and set(drawn) == {255}
    collapsed = page.locator("main details:not([open])")
    belongs_to_a_figure = (
        "all => all.every(d => d.matches('.how-to-read, .settings, .level, .level details'))"
    )
    assert collapsed.evaluate_all(belongs_to_a_figure)
    assert page.locator("img[loading=lazy]").count() == 0
    page.context.close()


@pytest.mark.parametrize("name", [OWN, "networks/own-layers.html"])
def test_nothing_is_cut_off_in_print(browser: Browser, site: Path, name: str) -> None:
    """On A4 without margins of a centimetre, 718 pixels; and no control is printed."""
    page, _ = open_page(browser, site, name, width=718)
    page.emulate_media(media="print")
    overflows = page.eval_on_selector_all("main .frame", "all => all.map(f => getComputedStyle(f).overflow)")
    assert overflows and set(overflows) == {"visible"}
    script = "all => all.map(e => e.getBoundingClientRect().right)"
    assert max(page.eval_on_selector_all(":is(.frame, .diagram-view) :is(table, svg, img)", script)) <= 718
    controls = page.locator(".explorer :is(select, input, summary, button:not(.all-images *))").all()
    assert not any(control.is_visible() for control in controls)
    breaks = page.eval_on_selector_all("div.figure", "all => all.map(p => getComputedStyle(p).breakBefore)")
    assert set(breaks) <= {"auto"}
    page.context.close()


# The data of pages


def test_the_initial_view_without_matches(tmp_path: Path) -> None:
    """The unit of the first convolution with the widest range."""
    results = complete_layers()
    for matches in results.unit_matches.values():
        matches["units"] = [None] * len(matches["units"])
    write_network(tmp_path, "own", results)
    draw_sprites(tmp_path, "own")
    index = read_json(tmp_path / "results/own/atlas/atlas.json")
    site = build_explorer_site(tmp_path, "own", scale="shared")
    data = json.loads((site / OWN).read_text().split('id="explorer-data">')[1].split("</script>")[0])
    ranges = np.stack([np.ptp(o["conv1"], axis=(1, 2)) for o in results.activations.values()])
    image, unit = np.unravel_index(ranges.argmax(), ranges.shape)
    expected = {"layer": "conv1", "unit": unit, "image": index["images"][image]["name"]}
    assert data["network"]["initial"] == expected
    assert data["scale"] == "network"
    all_values = [a for o in results.activations.values() for name, a in o.items() if name != "input"]
    span = [min(a.min() for a in all_values), max(a.max() for a in all_values)]
    np.testing.assert_allclose(data["network"]["value_ranges"]["maps"], span, rtol=1e-5)


@pytest.fixture(scope="module")
def large_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 520 layers, all with figures and sprites."""
    folder = tmp_path_factory.mktemp("large")
    results = complete_layers()
    for outputs in results.activations.values():
        outputs |= {f"stage{n // 100}.{n}.conv": outputs["relu"] for n in range(510)}
    one = next(layer for layer in results.layers if layer["name"] == "conv1")
    many = [
        one | {"name": f"stage{n // 100}.{n}.conv", "input_shape": [5, 8, 6], "ordinal": n + 3}
        for n in range(510)
    ]
    results.layers[3:3] = [layer | {"module": layer["name"], "kernel": [3, 3]} for layer in many]
    write_network(folder, "own", results)
    like = results.unit_matches["conv1"]
    units = {"threshold": 0.5, "layers": results.unit_matches | {layer["name"]: like for layer in many}}
    write_json(folder / "results/own/classical/units.json", units)
    figures = read_json(folder / "results/own/figures/figures.json")
    drawn = [figures[1] | {"subject": layer["name"], "number": 0} for layer in many]
    figures += [figure | {"kind": kind} for figure in drawn for kind in ("filters", "maps", "pairs")]
    write_json(folder / "results/own/figures/figures.json", figures)
    draw_sprites(folder, "own")
    return build_explorer_site(folder, "own")


def test_a_network_of_hundreds_of_layers(browser: Browser, large_site: Path) -> None:
    names = sorted(path.name for path in (large_site / "networks").glob("*.html"))
    assert {"own-layers-2.html", "own-layers-3.html", "own-layers.html", "own-figures-2.html"} < {*names}
    for name in names:
        page, errors = open_page(browser, large_site, f"networks/{name}")
        if name == "own.html":
            wait_until_drawn(page)
        assert page.evaluate("document.querySelectorAll('*').length") <= 5000, name
        assert errors == []
        script = "all => all.map(a => decodeURI(new URL(a.getAttribute('href'), document.baseURI)))"
        for link in page.eval_on_selector_all("main a[href]", script):
            file, _, hash_ = link.partition("#")
            target = Path(file.removeprefix("file://"))
            if target.parent == large_site:
                continue  # the pages of other tests
            assert target.is_file() and target.is_relative_to(large_site), link
            if hash_ and hash_.startswith("layer-"):
                assert f'id="{hash_}"' in target.read_text(encoding="utf-8"), link
        page.context.close()
    page, _ = open_address(browser, large_site, f"{OWN}#layer=stage4.420.conv&unit=1")
    assert get_part(page, "name").inner_text() == "stage4.420.conv"
    page.locator("[data-part='source'] a").click()
    page.wait_for_url(re.compile("own-figures"))
    page.context.close()


def test_the_first_view_is_small_and_fast(browser: Browser, large_site: Path) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto((large_site / OWN).as_uri())
    wait_until_drawn(page)
    took = page.evaluate("performance.now()")
    files = {
        large_site / url.removeprefix(large_site.as_uri() + "/") for url in asked if url.startswith("file:")
    }
    assert sum(path.stat().st_size for path in files) < 500_000
    assert took < 3000  # a second on a quiet machine
    page.close()
