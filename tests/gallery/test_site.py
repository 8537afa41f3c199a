"""The gallery in a real headless Chromium, from file:// and from a server."""

import re
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.support.browser import needs_chromium
from tests.support.site import open_page
from tests.support.workspace import Workspace

PAGES = (
    *("index.html", "classical.html", "compare.html", "primer.html", "provenance.html"),
    *(
        "datasets/digits.html",
        "networks/lenet5.html",
        "networks/lenet5-layers.html",
        "networks/lenet5-units.html",
        "networks/simple_cnn.html",
    ),
)

pytestmark = needs_chromium


@pytest.fixture(scope="session")
def site(run: Workspace) -> Path:
    return run.folder / "reports/gallery"


@pytest.mark.parametrize("width", [360, 1280, 2560])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_fits(browser: Browser, site: Path, name: str, width: int) -> None:
    for scheme in ("light", "dark"):
        page, faults = open_page(browser, site, name, width, scheme)
        assert faults == []
        broken = page.evaluate("[...document.images].filter(i => i.src && !i.naturalWidth).map(i => i.src)")
        assert broken == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(browser: Browser, site: Path, name: str) -> None:
    """No fault of accessibility that a program can find, by WCAG 2.2 and axe's best practices."""
    for scheme in ("light", "dark"):
        page, _ = open_page(browser, site, name, scheme=scheme)
        page.wait_for_timeout(300)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
        assert page.evaluate("document.querySelectorAll('*').length") <= 5000
        page.context.close()


def test_the_page_is_marked_among_all_and_the_list_takes_one_row_of_a_phone(
    browser: Browser, site: Path
) -> None:
    page, _ = open_page(browser, site, "primer.html", 360)
    pages = page.get_by_role("navigation", name="Pages")
    marked = pages.locator("[aria-current=page]")
    assert marked.all_text_contents() == ["Primer"]
    assert marked.bounding_box()["x"] + marked.bounding_box()["width"] <= 360
    styles = [one.evaluate("a => getComputedStyle(a).textDecorationLine") for one in pages.locator("a").all()]
    assert styles.count("underline") == 1
    assert len({one.bounding_box()["y"] for one in pages.locator("a").all()}) == 1
    last = pages.locator("a").last
    last.focus()
    assert last.bounding_box()["x"] + last.bounding_box()["width"] <= 360
    page.context.close()


def test_a_plate_is_as_large_as_printed_where_one_asks_for_it(browser: Browser, site: Path) -> None:
    page, _ = open_page(browser, site, "networks/lenet5.html", 360)
    plate, shown = page.locator("figure.figure a img").first, page.locator("dialog.lightbox img")
    plate.click()
    assert shown.bounding_box()["width"] <= 360
    page.get_by_role("button", name="Full size").click()
    assert shown.bounding_box()["width"] == int(plate.get_attribute("width")) > 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.context.close()


@pytest.fixture(scope="module")
def served(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site below a path of a server on this machine."""
    root = tmp_path_factory.mktemp("served")
    (root / "below").mkdir()
    (root / "below/here").symlink_to(site)
    handler = partial(_Silent, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/below/here/"
        server.shutdown()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("name", PAGES)
def test_it_works_below_a_path_of_a_server(browser: Browser, served: str, name: str) -> None:
    page = browser.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda answer: answer.ok or faults.append(f"{answer.status}: {answer.url}"))
    page.on(
        "request", lambda request: request.url.startswith((served, "data:")) or faults.append(request.url)
    )
    page.goto(served + name)
    page.wait_for_timeout(200)
    assert faults == []
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere_inside(site: Path, name: str) -> None:
    links, ids = _links(site / name)
    assert len(ids) == len(set(ids))
    for link in links:
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https"
            assert parts.hostname == "arxiv.org"
            continue
        target = (site / name).parent / unquote(parts.path) if parts.path else site / name
        assert target.resolve().is_file(), link
        assert target.resolve().is_relative_to(site.resolve()), link
        if parts.fragment and not parts.fragment.startswith("layer="):  # a state of the explorer's
            assert parts.fragment in _links(target)[1], link


@pytest.mark.parametrize("name", PAGES)
def test_tiles_are_never_stretched_and_text_is_there(browser: Browser, site: Path, name: str) -> None:
    """Each plate is shown at its own aspect, less the caption printed at its foot, which is set as text."""
    page, _ = open_page(browser, site, name)
    plates = page.locator("figure.figure").all()
    assert plates or not name.startswith(("index", "networks/lenet5.", "networks/simple_cnn."))
    for plate in plates:
        image = plate.locator("img")
        shown = image.evaluate("i => [i.clientWidth, i.clientHeight, i.naturalWidth, i.naturalHeight]")
        cut = image.evaluate("i => getComputedStyle(i).objectFit + ' ' + getComputedStyle(i).objectPosition")
        assert cut == "cover 50% 0%"  # whole in its width, the foot cut off
        assert 0.4 < (shown[1] / shown[0]) / (shown[3] / shown[2]) < 1
        assert image.get_attribute("alt")
        assert re.match(r"Plate \d+\. ", plate.locator("figcaption").inner_text())
    page.context.close()


def test_each_layer_has_its_plates(browser: Browser, site: Path) -> None:
    page, _ = open_page(browser, site, "networks/lenet5.html")
    for layer in (
        "conv1",
        "relu1",
        "pool1",
        "conv2",
        "relu2",
        "pool2",
        "flatten",
        "fc1",
        "fc3",
        "log_softmax",
    ):
        section = page.locator(f"section[aria-labelledby='layer-{layer}']")
        assert section.locator("figure.figure").count() == (3 if layer.startswith("conv") else 1)
    assert page.locator("section[aria-labelledby='deconv'] figure.figure").count() == 5
    assert (
        "⌊(28 + 2·2 − 1·(5 − 1) − 1) / 1⌋ + 1 = 28"
        in page.locator("section[aria-labelledby='architecture'] table").inner_text()
    )
    page.context.close()


def test_the_page_says_what_the_embedded_digits_are(browser: Browser, site: Path) -> None:
    for name in ("index.html", "networks/lenet5.html"):
        page, _ = open_page(browser, site, name)
        assert "A stand-in for MNIST" in page.inner_text("main")
        page.context.close()


def test_only_provenance_tells_dates(site: Path) -> None:
    for name in PAGES:
        dated = re.search(r"20\d\d-\d\d-\d\d", (site / name).read_text())
        assert bool(dated) == (name == "provenance.html")


class _Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.links += [value for key in ("href", "src") if (value := given.get(key))]
        if given.get("id"):
            self.ids.append(str(given["id"]))


def _links(path: Path) -> tuple[list[str], list[str]]:
    collector = _Collector()
    collector.feed(path.read_text())
    return collector.links, collector.ids
