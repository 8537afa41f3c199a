"""The gallery of small random networks: written, built, and its pages parsed or opened in a browser."""

from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from convatlas.files import write_json
from convatlas.gallery import build
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.run_info import RunInfo
from tests.support.fake_results import VIEWS, FakeResults, make_results

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

DATASET = {
    "format": "images",
    "source": "embedded",
    "title": "Animals",
    "description": "Made up.",
    "licence": "none",
    "image_shape": [3, 8, 6],
    "classes": ["ant", "bee", "cat", "dog"],
    "counts": {"train": [10] * 4, "test": [2] * 4},
    "sha256": "cd" * 32,
}
CONFIG = {
    "title": "An atlas",
    "seed": 0,
    "datasets": {"animals": {"format": "images", "source": "a folder"}},
    "networks": {name: {"input": {}, "views": VIEWS} for name in ("own", "other")},
}
RUN: RunInfo = {"date": "2001-02-03", "commit": "abc", "machine": "a machine", "durations": []}
TIMING = {
    "started": "2001",
    "finished": "2001-02-03T04:05:06+00:00",
    "training_seconds": 1.5,
    "images_per_second": 1234,
}
HOSTILE_TEXT = '<img onerror=1 src="x">&amp;'  # that a page has to escape


def write_network(
    folder: Path, name: str, results: FakeResults | None = None, subject: str = "conv1"
) -> None:
    """Write a network with three figures, and its data set, under a folder.

    Args:
        folder: The folder of results/ and data/.
        name: The network's name.
        results: Its results; those of `make_results` by default.
        subject: The layer of the figure of feature maps.
    """
    network_folder = (results or make_results()).write(folder / "results" / name)
    write_json(network_folder / "timing.json", TIMING)
    figures = []
    for n, (kind, figure_subject) in enumerate((("cover", ""), ("maps", subject), ("deconv", "first")), 1):
        text = f"Figure {n}. {name}. What {kind} shows of {figure_subject}."
        figures.append(
            {
                "file": f"{kind}-{n}.png",
                "formats": ["png"],
                "kind": kind,
                "subject": figure_subject,
                "caption": f"{name}. What {kind} shows of {figure_subject}.",
                "explanation": f"How to read {kind}.",
                "alt": text,
                "width": 60,
                "height": 40,
                "caption_height": 10,
            }
        )
        (network_folder / "figures").mkdir(exist_ok=True)
        Image.new("RGB", (60, 40)).save(network_folder / "figures" / f"{kind}-{n}.png")
    write_json(network_folder / "figures/figures.json", figures)
    write_json(folder / "data/animals/dataset.json", DATASET)


def build_site(folder: Path, *names: str, config: dict[str, Any] = CONFIG) -> Path:
    """Build the gallery of the networks under a folder, and return its folder."""
    build.build_gallery(folder / "gallery", folder / "results", folder / "data", list(names), config, RUN)
    return folder / "gallery"


class PageParser(HTMLParser):
    """The images, links and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
        self.links += [link for key in ("href", "src") if (link := attributes.get(key))]

    def handle_data(self, data: str) -> None:
        self.text += data


def open_page(
    browser: "Browser", site: Path, name: str, width: int = 1280, scheme: str = "light"
) -> "tuple[Page, list[str]]":
    """Open a page of the site, with every image loaded.

    Returns:
        The page, and its errors so far and later: messages, failed requests, and requests out of the site.
    """
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    errors: list[str] = []

    def check_failure(request: "Request") -> None:
        if request.failure != "net::ERR_ABORTED":  # as those of a page that has been left
            errors.append(f"failed: {request.url}")

    def check_request(request: "Request") -> None:
        if not request.url.startswith((site.as_uri() + "/", "data:")):
            errors.append(f"outside: {request.url}")

    page.on("console", lambda message: errors.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", check_failure)
    page.on("request", check_request)
    page.goto((site / name).as_uri())
    page.evaluate(
        "Promise.all([...document.images].map(i => {"
        "  i.loading = 'eager'; return i.decode().catch(() => 0) }))"
    )
    return page, errors


def build_page(context: GalleryContext, page: SitePage) -> str:
    """Build a site of one page in the folder `site` beside results/, and return the page's HTML."""
    site = context.results.parent / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "PAGE_MAKERS", [lambda _: iter([page])])
        names = [network.name for network in context.networks]
        build.build_gallery(site, context.results, context.data, names, context.config, RUN)
    return (site / page.path).read_text(encoding="utf-8")
