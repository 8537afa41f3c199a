"""The explorer of small random networks: drawn, built, opened in a browser, and its pixels compared."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from convatlas.files import read_json
from convatlas.gallery import build
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.explorer_sprites import draw_explorer, write_compact_json, write_layer_sprites
from convatlas.gallery.pages import compare, errors, index, layers, lecture, network, top_images, units
from convatlas.plotting.colormap import colour_table
from tests.support.fake_results import VIEWS, FakeResults, make_results
from tests.support.site import CONFIG, RUN, open_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator, Page

LEVELS = 64
SETTINGS = VIEWS | {"atlas": {"layers": None, "levels": LEVELS}}
COLORMAPS = {"viridis": "viridis", "diverging": "RdBu_r", "grey": "gray"}  # the page's name -> matplotlib's


def complete_layers(results: FakeResults | None = None) -> FakeResults:
    """Return results whose layers have all keys of layers.json that sprites need."""
    results = results or make_results()
    source = "input"
    for layer in results.layers:
        layer |= {"within": [], "inputs": [source]}
        source = layer["name"]
    return results


def draw_layers(
    folder: Path,
    results: FakeResults | None = None,
    layers: Any = "all",
    explored: Any = None,
    levels: int = LEVELS,
) -> tuple[Path, dict[str, Any]]:
    """Draw the sprites of a network's layers.

    Args:
        folder: Where to write its results and sprites.
        results: The network's results.
        layers: `views.layers` of the config.
        explored: `views.atlas.layers` of the config.
        levels: `views.atlas.levels` of the config.

    Returns:
        The folder of the sprites, and the content of atlas.json.
    """
    source = (results or complete_layers()).write(folder / "own")
    views = VIEWS | {"layers": layers, "atlas": {"levels": levels, "layers": explored}}
    (folder / "atlas").mkdir()
    index = write_layer_sprites(source, folder / "atlas", "own", views)
    write_compact_json(folder / "atlas/atlas.json", index)
    assert read_json(folder / "atlas/atlas.json") == index
    return folder / "atlas", index


def draw_sprites(folder: Path, name: str) -> None:
    """Draw the sprites of a network under a folder."""
    draw_explorer(folder / "results" / name, name, SETTINGS)


def build_explorer_site(folder: Path, *names: str, scale: str = "per_layer", **views: Any) -> Path:
    """Build the pages of networks and the comparison, and return their folder.

    Args:
        folder: The folder of results/ and data/.
        names: The networks.
        scale: `views.scale` of the config.
        views: Further `views`.
    """

    def make_stub_pages(context: GalleryContext) -> "Iterator[SitePage]":
        for path in ("primer.html", "provenance.html"):
            yield SitePage(path, "compare.html", "Contents", {"page_json": '{"networks":[]}'})

    pages = (index, network, lecture, errors, layers, units, top_images, compare)
    makers = [make_stub_pages, *(page.make_pages for page in pages)]
    config = CONFIG | {"networks": {name: {"views": VIEWS | {"scale": scale} | views} for name in names}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "PAGE_MAKERS", makers)
        build.build_gallery(folder / "gallery", folder / "results", folder / "data", list(names), config, RUN)
    return folder / "gallery"


def wait_until_drawn(page: "Page") -> None:
    """Wait until the explorer or the comparison has drawn what it shows."""
    page.wait_for_function(
        "!document.querySelector('[aria-busy]') && document.querySelector('.map[aria-label]')"
    )
    page.wait_for_timeout(60)


def open_address(
    browser: "Browser", site: Path, address: str, width: int = 1280, scheme: str = "light"
) -> "tuple[Page, list[str]]":
    """Open a page at an address with a fragment, wait until it is drawn, and return it and its errors."""
    name, _, fragment = address.partition("#")
    page, errors = open_page(browser, site, name, width, scheme)
    if fragment:
        page.evaluate("hash => { location.hash = hash }", fragment)
        page.wait_for_timeout(60)
    wait_until_drawn(page)
    return page, errors


def get_part(page: "Page", name: str) -> "Locator":
    """Return the element with a data-part."""
    return page.locator(f"[data-part='{name}']")


def read_state(page: "Page") -> dict[str, str]:
    """Return the state in the address, parsed as a browser parses a query."""
    page.wait_for_timeout(260)  # steps are written when they end
    state: dict[str, str] = page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
    return state


def scale_limits(values: np.ndarray, colours: str) -> tuple[float, float]:
    """Return the ends of a scale of values: symmetrical for diverging colours, else including zero."""
    max_abs = float(np.abs(values).max())
    if colours == "diverging":
        return -max_abs, max_abs
    return min(0, values.min()), max(0, values.max())


def read_colours(page: "Page", canvas: "Locator", box: list[float], shape: tuple[int, ...]) -> np.ndarray:
    """Return the colours at the centres of a tile's values on the screen, (H, W, 3)."""
    canvas.scroll_into_view_if_needed()
    page.evaluate("document.querySelectorAll('.grid-focus').forEach(p => p.style.visibility = 'hidden')")
    screen = np.array(Image.open(BytesIO(page.screenshot())).convert("RGB")).astype(int)
    bounds = canvas.bounding_box()
    assert bounds
    x, y, width, height = box
    rows = np.round(bounds["y"] + y + (np.arange(shape[0]) + 0.5) * height / shape[0] - 0.5).astype(int)
    columns = np.round(bounds["x"] + x + (np.arange(shape[1]) + 0.5) * width / shape[1] - 0.5).astype(int)
    return screen[np.ix_(rows, columns)]


def assert_colours(
    colours: np.ndarray, values: np.ndarray, scale: tuple[float, float], colormap: str, step: float
) -> None:
    """Check that colours are those of values.

    Args:
        colours: The colours (H, W, 3).
        values: The values (H, W).
        scale: The ends of the scale.
        colormap: The page's name of the colour map.
        step: The quantisation step of the values; half of it, and the rounding to 8 bits, is allowed.
    """
    position = 255 * (values - scale[0]) / (scale[1] - scale[0])
    tolerance = 255 * step / (scale[1] - scale[0]) / 2 + 2
    table = colour_table(COLORMAPS[colormap]).astype(int)
    differences = np.abs(colours[..., None, :] - table).max(-1)  # of each pixel from each of the 256 colours
    is_near = np.abs(np.arange(256) - position[..., None]) <= tolerance
    assert (np.where(is_near, differences, 999).min(-1) <= 1).all()
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 1
