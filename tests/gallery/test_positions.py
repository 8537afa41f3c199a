"""Positions of maps and pixels of images in the explorer, in Chromium, against loops over all windows."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import needs_chromium
from tests.support.explorer_site import (
    LEVELS,
    build_explorer_site,
    complete_layers,
    draw_sprites,
    get_part,
    open_address,
    read_state,
    wait_until_drawn,
)
from tests.support.fake_results import make_results
from tests.support.site import write_network

pytestmark = needs_chromium

OWN = "networks/own.html"
START, STEP, FIELD = [-1, -2], [1, 1], [3, 4]  # of conv1, whose maps are 8 x 6 as the input


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("positions")
    results = complete_layers(make_results())
    results.layers[0] |= {"receptive_field": FIELD, "receptive_start": START, "receptive_step": STEP}
    write_network(folder, "own", results)
    draw_sprites(folder, "own")
    return build_explorer_site(folder, "own")


@pytest.fixture(scope="module")
def page(browser: Browser, site: Path) -> Iterator[Page]:
    page, errors = open_address(browser, site, f"{OWN}#layer=conv1&unit=1&image=second")
    yield page
    assert errors == []
    page.context.close()


def follow_windows(size: int, windows: list[tuple[int, int, int]]) -> list[set[int]]:
    """Return the pixels that each value depends on, window by window of (kernel, stride, padding)."""
    pixels = [{n} for n in range(size)]
    for kernel, stride, padding in windows:
        starts = range(-padding, len(pixels) + padding - kernel + 1, stride)
        taps = [[start + n for n in range(kernel) if 0 <= start + n < len(pixels)] for start in starts]
        pixels = [set().union(*(pixels[n] for n in inside)) for inside in taps]
    return pixels


@pytest.mark.parametrize(
    ("height", "windows"),
    [
        (29, [(3, 1, 1)]),
        (28, [(5, 1, 2), (2, 2, 0), (5, 1, 0)]),
        (31, [(3, 2, 0), (3, 2, 0), (3, 1, 1), (3, 2, 1)]),
        (29, [(7, 2, 3)]),
    ],
)
def test_boxes_and_positions_equal_a_loop_over_windows(
    page: Page, height: int, windows: list[tuple[int, int, int]]
) -> None:
    """Rows are followed through the windows in turn, columns through the first window alone.

    No pixel is left over at the end of a map: beyond it, layers.json extrapolates the fields.
    """
    size = (height, 22)
    rows, columns = follow_windows(size[0], windows), follow_windows(size[1], windows[:1])
    field, start, step = 1, 0, 1
    geometry = []
    for kernel, stride, padding in windows:
        start -= padding * step
        field += (kernel - 1) * step
        step *= stride
        geometry.append((field, start, step))
    axes = list(zip(geometry[-1], geometry[0], strict=True))
    layer: dict[str, Any] = {"shape": [2, len(rows), len(columns)]}
    layer |= dict(zip(("receptive_field", "receptive_start", "receptive_step"), map(list, axes), strict=True))
    script = """([layer, size]) => {
      const grid = (h, w, f) => [...Array(h * w).keys()].map((n) => f([Math.floor(n / w), n % w]));
      return [grid(layer.shape[1], layer.shape[2], (at) => convatlas.getFieldBox(layer, at, size)),
        grid(size[0], size[1], (pixel) => convatlas.findPositions(layer, pixel, size))];
    }"""
    boxes, positions = page.evaluate(script, [layer, size])
    for n, box in enumerate(boxes):
        pixels = rows[n // len(columns)], columns[n % len(columns)]
        assert box["start"] == [min(axis) for axis in pixels]
        assert box["end"] == [max(axis) + 1 for axis in pixels]
        assert box["isClipped"] == (len(pixels[0]) < axes[0][0] or len(pixels[1]) < axes[0][1])
    for n, box in enumerate(positions):
        pixel = divmod(n, size[1])
        covering = [
            [index for index, pixels in enumerate(axis) if at in pixels]
            for axis, at in zip((rows, columns), pixel, strict=True)
        ]
        if not all(covering):
            assert box is None
            continue
        assert box["start"] == [indices[0] for indices in covering]
        assert box["end"] == [indices[-1] + 1 for indices in covering]


def test_layers_without_located_fields(page: Page) -> None:
    get_box = "layer => convatlas.getFieldBox(layer, [1, 1], [8, 6])"
    layer: dict[str, Any] = {"shape": [2, 4, 3], "receptive_field": [8, 6]}
    assert page.evaluate(get_box, layer) == {
        "start": [0, 0], "end": [8, 6], "isGlobal": True, "isClipped": False,
    }  # fmt: skip
    assert page.evaluate("layer => convatlas.findPositions(layer, [0, 0], [8, 6])", layer)["end"] == [4, 3]
    for unknown in ({"shape": [2, 4, 3], "receptive_field": [3, 3]}, {"shape": [2, 4, 3]}):
        assert page.evaluate(get_box, unknown) is None


def point_at(page: Page, name: str, at: tuple[int, int], size: tuple[int, int]) -> None:
    """Move the pointer to a position of the map or the image."""
    page.locator(f".{name}-frame").scroll_into_view_if_needed()
    box = page.locator(f".{name}-frame").bounding_box()
    assert box
    x, y = ((index + 0.5) / length for index, length in zip(at[::-1], size[::-1], strict=True))
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def read_box(page: Page, name: str) -> list[float]:
    """Return the outlined box of the map or the image: x, y, width, height."""
    outline = page.locator(f".{name}-frame .outline")
    return [float(outline.get_attribute(key) or "nan") for key in ("x", "y", "width", "height")]


def test_pointing_at_the_map_and_at_the_image(page: Page) -> None:
    maps = make_results().activations["second"]["conv1"]
    readout = page.locator(".readout")
    for row, column in ((0, 0), (3, 2), (7, 5)):
        point_at(page, "map", (row, column), (8, 6))
        words = re.match(rf"Row {row}, column {column}: (\S+) ± (\S+)\. Receptive", readout.inner_text())
        assert words
        value, precision = (float(word.replace("−", "-")) for word in words.groups())
        step = np.ptp(maps[1]) / (LEVELS - 1)
        assert abs(value - maps[1, row, column]) <= step / 2 + 0.006
        assert precision == float(f"{step / 2:.1g}")
        assert read_box(page, "map") == [column, row, 1, 1]
        top, bottom = max(0, row - 1), min(8, row + 2)
        left, right = max(0, column - 2), min(6, column + 2)
        assert read_box(page, "image") == [left, top, right - left, bottom - top]
        assert ("with padding" in readout.inner_text()) == ((row, column) != (3, 2))
    for row, column in ((0, 0), (4, 3), (7, 5)):
        point_at(page, "image", (row, column), (8, 6))
        rows, columns = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 3)
        maxima = maps[:, rows, columns].max((1, 2))
        texts = page.locator(".responding-units li").all_inner_texts()
        shown = [int(re.findall(r"unit (\d+)", text)[0]) for text in texts]
        assert len(shown) == min(8, len(maps))
        steps = np.ptp(maps, axis=(1, 2)) / (LEVELS - 1)
        for better, worse in pairwise(shown):
            assert maxima[better] + steps[better] >= maxima[worse] - steps[worse]
    page.mouse.down()
    page.mouse.up()
    chosen = page.locator(".responding-units button").first
    unit = re.findall(r"\d+", chosen.inner_text())[0]
    chosen.click()
    wait_until_drawn(page)
    assert read_state(page)["unit"] == unit
    assert "Pixel in row 7, column 5" in readout.inner_text()  # it stays chosen
    page.locator(".image-frame").focus()
    page.keyboard.press("ArrowUp")
    assert "Pixel in row 6, column 5" in readout.inner_text()
    page.locator(".map-frame").focus()
    page.keyboard.press("ArrowLeft")
    assert readout.inner_text().startswith("Row 4, column 2: ")
    assert read_state(page)["unit"] == unit  # arrow keys there do not step through units
    page.locator(".option", has_text="fc").first.click()
    wait_until_drawn(page)
    assert "no positions" in readout.inner_text()
    assert not page.locator(".image-frame").is_visible()


def test_links_and_filters_in_the_same_tab(browser: Browser, site: Path) -> None:
    """A link scrolls to the explorer, whose image is that of the first screen."""
    page, errors = open_address(browser, site, OWN)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.evaluate("location.hash = '#layer=relu&unit=2&image=second'")
    wait_until_drawn(page)
    page.wait_for_function("Math.abs(document.querySelector('.explorer').getBoundingClientRect().top) < 60")
    assert get_part(page, "name").inner_text() == "relu"
    page.evaluate("scrollTo(0, 0)")
    assert page.locator(".result .images :checked").get_attribute("value") == "second"
    page.locator(".result .images").locator("[value=first]").check()
    wait_until_drawn(page)
    assert read_state(page)["image"] == "first"
    assert page.locator(".result .view:visible .result-figure, .result .result-figure:visible").count() == 2
    assert errors == []
    page.context.close()


def test_a_phone_shows_the_unit_below_its_grid(browser: Browser, site: Path) -> None:
    size = {"width": 360, "height": 740}
    context = browser.new_context(viewport=size, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto((site / OWN).as_uri())
    wait_until_drawn(page)
    page.get_by_role("link", name="Explore the layers").tap()
    page.wait_for_function("Math.abs(document.querySelector('.explorer').getBoundingClientRect().top) < 60")
    page.locator(".tiles canvas").tap(position={"x": 20, "y": 30})
    wait_until_drawn(page)
    grid, unit = (page.locator(selector).bounding_box() for selector in (".unit-grid", ".map-frame"))
    assert grid and unit
    assert -1 <= grid["y"] < grid["y"] + grid["height"] <= unit["y"]
    assert unit["y"] + 100 < 740
    page.locator(".image-frame").tap()
    assert page.locator(".responding-units button").first.is_visible()
    heights = [button.bounding_box() for button in page.locator(".responding-units button").all()]
    assert min(box["height"] for box in heights if box) >= 44
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()
