"""The gallery in a real headless Chromium, from file:// and from a server."""

import html
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

import convatlas
from tests.support.browser import needs_chromium
from tests.support.site import open_page
from tests.support.workspace import Workspace

PAGES = (
    *(
        "index.html",
        "classical.html",
        "compare.html",
        "primer.html",
        "glossary.html",
        "cite.html",
        "provenance.html",
    ),
    *(
        "datasets/digits.html",
        "networks/lenet5.html",
        "networks/lenet5-layers.html",
        "networks/lenet5-units.html",
        "networks/simple_cnn.html",
    ),
)

# Of publications and of the documentation of libraries: pages link to nothing else outside the site.
SOURCE_HOSTS = {
    "arxiv.org",
    "distill.pub",
    "docs.pytorch.org",
    "docs.scipy.org",
    "doi.org",
    "github.com",
    "jmlr.org",
    "numpy.org",
    "proceedings.mlr.press",
    "scikit-image.org",
    "scikit-learn.org",
    "www.deeplearningbook.org",
    "www.robots.ox.ac.uk",
}

pytestmark = needs_chromium


@pytest.fixture(scope="session")
def site(finished_run: Workspace) -> Path:
    return finished_run.folder / "reports/gallery"


def test_the_code_beside_each_figure_runs(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.parents[1])
    pages = [html.unescape(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")]
    lines = {line for page in pages for line in re.findall(r"^convatlas\.Results.*$", page, re.MULTILINE)}
    assert len(lines) > 20
    for line in sorted(lines):
        eval(line, {"convatlas": convatlas})


@pytest.mark.parametrize("width", [360, 1280, 2560])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_completely_and_fits(browser: Browser, site: Path, name: str, width: int) -> None:
    page, errors = open_page(browser, site, name, width)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate("Promise.all([...document.images].map(i => i.decode().catch(() => 0)))")
        broken = page.evaluate("[...document.images].filter(i => i.src && !i.naturalWidth).map(i => i.src)")
        assert broken == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible(browser: Browser, site: Path, name: str, scheme: str) -> None:
    """By the rules of WCAG 2.2 and axe's best practices that a program can check."""
    page, errors = open_page(browser, site, name, scheme=scheme)
    assert errors == []
    page.wait_for_timeout(300)
    violations = Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []
    assert page.evaluate("document.querySelectorAll('*').length") <= 5000
    page.context.close()


def test_the_navigation_marks_the_page_and_takes_one_row_on_a_phone(browser: Browser, site: Path) -> None:
    page, _ = open_page(browser, site, "primer.html", 360)
    pages = page.get_by_role("navigation", name="Pages")
    menus = pages.locator("summary")
    assert len({menu.bounding_box()["y"] for menu in menus.all()}) == 1
    assert all(menu.bounding_box()["height"] >= 44 for menu in menus.all())
    assert menus.last.bounding_box()["x"] + menus.last.bounding_box()["width"] <= 360
    menus.last.click()
    current = pages.locator("[aria-current=page]")
    assert current.all_text_contents() == ["Primer"]
    assert pages.locator("a:visible").last.bounding_box()["width"] <= 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.context.close()


def test_a_figure_can_be_shown_in_full_size(browser: Browser, site: Path) -> None:
    page, _ = open_page(browser, site, "networks/lenet5.html", 360)
    figure, shown = page.locator("figure.figure a img").first, page.locator("dialog.lightbox img")
    figure.click()
    assert shown.bounding_box()["width"] <= 360
    page.get_by_role("button", name="Full size").click()
    assert shown.bounding_box()["width"] == int(figure.get_attribute("width")) > 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.context.close()


def test_the_page_of_a_network_is_a_handout_of_few_pages(browser: Browser, site: Path) -> None:
    page, _ = open_page(browser, site, "networks/lenet5.html")
    content = page.pdf(format="A4", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", content)) < 15
    page.context.close()


@pytest.fixture(scope="module")
def server_url(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the site from a path of a server on this machine, and return its address."""
    root = tmp_path_factory.mktemp("served")
    (root / "path/to").mkdir(parents=True)
    (root / "path/to/site").symlink_to(site)
    handler = partial(_Silent, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/path/to/site/"
        server.shutdown()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("name", PAGES)
def test_it_works_from_a_path_of_a_server(browser: Browser, server_url: str, name: str) -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: response.ok or errors.append(f"{response.status}: {response.url}"))
    page.on(
        "request", lambda request: request.url.startswith((server_url, "data:")) or errors.append(request.url)
    )
    page.goto(server_url + name)
    page.wait_for_timeout(200)
    assert errors == []
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_pages_and_anchors_of_the_site(site: Path, name: str) -> None:
    links, ids = _read_links_and_ids(site / name)
    assert len(ids) == len(set(ids))
    for link in links:
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https"
            assert parts.hostname in SOURCE_HOSTS
            continue
        target = (site / name).parent / unquote(parts.path) if parts.path else site / name
        assert target.resolve().is_file(), link
        assert target.resolve().is_relative_to(site.resolve()), link
        if parts.fragment and not parts.fragment.startswith("layer="):  # a state of the explorer
            assert parts.fragment in _read_links_and_ids(target)[1], link


@pytest.mark.parametrize("name", PAGES)
def test_figures_are_never_stretched_and_have_a_caption(browser: Browser, site: Path, name: str) -> None:
    """Each keeps its aspect ratio, without the caption in the image, which the page sets as text."""
    page, _ = open_page(browser, site, name)
    figures = page.locator("figure.figure").all()
    assert figures or not name.startswith(("networks/lenet5.", "networks/simple_cnn."))
    for figure in figures:
        image = figure.locator("img")
        sizes = image.evaluate("i => [i.clientWidth, i.clientHeight, i.naturalWidth, i.naturalHeight]")
        crop = image.evaluate("i => getComputedStyle(i).objectFit + ' ' + getComputedStyle(i).objectPosition")
        assert crop == "cover 50% 0%"  # the full width, without the foot
        assert 0.4 < (sizes[1] / sizes[0]) / (sizes[3] / sizes[2]) < 1
        assert image.get_attribute("alt")
        assert re.match(r"Figure \d+\. ", figure.locator("figcaption").inner_text())
    page.context.close()


def test_each_layer_has_its_figures(browser: Browser, site: Path) -> None:
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


def test_only_the_provenance_has_dates(site: Path) -> None:
    for name in PAGES:
        date = re.search(r"20\d\d-\d\d-\d\d", (site / name).read_text())
        assert bool(date) == (name == "provenance.html")


class _Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.links += [value for key in ("href", "src") if (value := attributes.get(key))]
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))


def _read_links_and_ids(path: Path) -> tuple[list[str], list[str]]:
    collector = _Collector()
    collector.feed(path.read_text(encoding="utf-8"))
    return collector.links, collector.ids
