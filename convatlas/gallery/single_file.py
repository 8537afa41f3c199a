"""The gallery to send: its folder as a zip, and as one HTML file that needs nothing beside it."""

import base64
import io
import posixpath
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from convatlas import UserError
from convatlas.files import atomic_write, read_json
from convatlas.gallery import html_tree
from convatlas.gallery.html_tree import Element
from convatlas.layer_selection import choose_layers
from convatlas.names import suggest_nearest

ZIP_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # of every file in a zip, so that the same site gives the same bytes
COMPRESSED_SUFFIXES = {
    ".png",
    ".webp",
    ".jpg",
    ".npz",
    ".safetensors",
    ".pdf",
}  # no smaller for being compressed again
MEGABYTE = 1_000_000

EXCLUDED_PAGES = {"compare.html"}  # pages that need the explorer's sprites
EXCLUDED_CLASSES = {"explorer", "downloads"}  # classes of what a file alone has no use for
STANDALONE_SCRIPTS = ["convolution_example.js"]  # those that need no other file
LAYER_FIGURE_KINDS = (
    "filters",
    "maps",
    "values",
    "pairs",
    "strongest",
)  # kinds of plates that belong to one layer
IMAGE_FIGURE_KINDS = ("classical", "deconv", "steps")  # and to one image: large, and the first to be left out
HEADING_TAGS = ("h2", "h3", "h4")
ID_REFERENCE_ATTRIBUTES = (
    "for",
    "aria-labelledby",
    "aria-describedby",
    "aria-controls",
    "data-numbers",
    "data-made",
)
MIME_TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
MIN_REENCODE_BYTES = 10_000  # bytes of a PNG that is not worth encoding again
MAX_WEBP_SIDE = 16_383  # pixels that WebP holds at most
# A page at a time, without a script: the one that the address names, else the first.
PAGE_STYLE = """
.page { display: none; scroll-margin-top: 14rem; }
.page:target, .page:has(:target), main:not(:has(.page:target, .page :target)) > .page:first-child {
  display: block;
}
@supports not selector(:has(a)) { .page { display: block; } }
.drawn { position: absolute; }
"""
CURRENT_LINK_STYLE = (
    "{ color: inherit; text-decoration: underline 2px var(--accent); text-underline-offset: 0.4em; }"
)


def write_zip(site: Path, path: Path) -> None:
    """Write a zip of the site, under the folder's name; the same site gives the same bytes."""
    with atomic_write(path) as aside, zipfile.ZipFile(aside, "w") as packed:
        for file in sorted(file for file in site.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(f"{site.name}/{file.relative_to(site).as_posix()}", ZIP_TIMESTAMP)
            entry.external_attr = 0o644 << 16
            entry.compress_type = (
                zipfile.ZIP_STORED if file.suffix in COMPRESSED_SUFFIXES else zipfile.ZIP_DEFLATED
            )
            with file.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)


@dataclass(frozen=True)
class RankedFigure:
    """A plate that may be in the single file, and its place in the site."""

    path: str
    rank: tuple[int, int, int]  # what is left out first has the highest


def select_figures(
    results: Path, networks: dict[str, list[str | int]], layers: str | list[str | int]
) -> list[RankedFigure]:
    """The plates that are asked for, those first that are left out last.

    `networks` holds each network's highlighted layers (`views.highlight`); `layers` is `publish.single_file.layers` of the config.
    Raises UserError where that names a layer that no network has.
    """
    described = {name: read_json(results / name / "layers.json") for name in networks}
    if not isinstance(layers, str):
        _check_layer_names(described, layers)
    found = []
    for n, (name, highlight) in enumerate(networks.items()):
        asked = (highlight or "all") if layers == "highlight" else layers
        chosen = set(_select_layers(described[name], asked))
        for number, plate in enumerate(read_json(results / name / "figures/figures.json")):
            kind, place = plate["kind"], f"plates/{name}/{plate['file']}"
            if kind not in LAYER_FIGURE_KINDS or plate["subject"] in chosen:
                found.append(
                    RankedFigure(
                        place, ((kind in LAYER_FIGURE_KINDS) + 2 * (kind in IMAGE_FIGURE_KINDS), number, n)
                    )
                )
    return sorted(found, key=lambda plate: plate.rank)


def _select_layers(described: list[dict[str, Any]], asked: str | list[str | int]) -> list[str]:
    """The layers of one network that are asked for; what names none here is passed over."""
    if asked == "all":
        return choose_layers(described, asked, "")
    found = []
    for one in asked:
        try:
            found += choose_layers(described, [one], "")
        except UserError:
            continue
    return found


def _check_layer_names(described: dict[str, list[dict[str, Any]]], asked: Iterable[str | int]) -> None:
    names = [layer["name"] for layers in described.values() for layer in layers]
    for one in asked:
        if not any(_select_layers(layers, [one]) for layers in described.values()):
            raise UserError(
                f"publish.single_file.layers: no network has a layer {one!r}; "
                f"{suggest_nearest(one, sorted({*names}))}"
            )


@dataclass(frozen=True)
class SingleFile:
    """The single file: its HTML, and how many plates it has of how many there are."""

    html: str
    n_figures: int
    n_total: int


def build_single_file(site: Path, plates: list[RankedFigure], megabytes: float) -> SingleFile:
    """Put a site into one HTML file with these plates, or so many, from the first, as its size allows.

    Raises UserError where the pages alone are larger.
    """
    book = SingleFileBuilder(site)
    there = {
        PurePosixPath(place).with_suffix(""): place for place in book.figure_counts
    }  # of some a light picture
    stems = (PurePosixPath(plate.path).with_suffix("") for plate in plates)
    shown = [there[stem] for stem in stems if stem in there]
    with ThreadPoolExecutor() as pool:  # Pillow lets go of Python's lock while it encodes
        list(pool.map(book.encode_image, shown))
    while True:
        html = book.render(shown)
        size = len(html.encode())
        if size <= megabytes * MEGABYTE:
            return SingleFile(html, len(shown), len(book.figure_counts))
        if not shown:
            raise UserError(
                f"publish.single_file.megabytes: {megabytes:g} are too few; the pages take "
                f"{size / MEGABYTE:.1f} without a plate"
            )
        while size > megabytes * MEGABYTE and shown:
            place = shown.pop()
            size -= len(book.encode_image(place)) * book.figure_counts[place]


class SingleFileBuilder:
    """A site's pages, read once, to be bound into one file."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self.index = html_tree.parse_html((site / "index.html").read_text(encoding="utf-8"))
        links = [one.attributes.get("href") or "" for one in self.index.walk() if one.tag == "a"]
        order = {place: n for n, place in reversed([*enumerate(["index.html", *links])])}
        places = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
        places.sort(key=lambda place: order.get(place, len(order)))
        self.pages: dict[str, Element] = {}
        for place in places:
            if place not in EXCLUDED_PAGES:
                page = html_tree.parse_html((site / place).read_text(encoding="utf-8"))
                self.pages[place] = page.find("main") or page
        self.data_uris: dict[str, str] = {}
        self.svg_images: dict[
            tuple[str, ...], Element
        ] = {}  # pictures within drawings, each of which is there once

    @cached_property
    def figure_counts(self) -> Counter[str]:
        """The places of all plates, and how often each is shown."""
        return Counter(
            place
            for of, page in self.pages.items()
            for figure in page.walk()
            if (place := self._find_figure_path(figure, of))
        )

    def encode_image(self, place: str) -> str:
        """A picture of the site as a data: URI, encoded again without loss where that makes it smaller."""
        if place not in self.data_uris:
            path = self.site / place
            content, kind = path.read_bytes(), MIME_TYPES[path.suffix]
            if path.suffix == ".png" and len(content) > MIN_REENCODE_BYTES and (again := _encode_webp(path)):
                content, kind = min((content, kind), (again, "image/webp"), key=lambda pair: len(pair[0]))
            self.data_uris[place] = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        return self.data_uris[place]

    def render(self, shown: list[str]) -> str:
        """All pages as one, with these plates."""
        pruned = {place: self._prune_page(place, page, {*shown}) for place, page in self.pages.items()}
        ids = {
            place: {one.attributes["id"] or "" for one in page.walk() if "id" in one.attributes}
            for place, page in pruned.items()
        }

        def rewritten(element: Element, place: str) -> Element:
            return element.transform(lambda inner: self._rewrite_element(inner, place, ids))

        mains: list[Element | str] = [
            Element("div", {"class": "page", "id": _page_id(place)}, rewritten(page, place).children)
            for place, page in pruned.items()
        ]
        header, footer = (
            rewritten(self.index.find(tag) or Element(tag), "index.html") for tag in ("header", "footer")
        )
        footer.children.insert(0, _build_note(len(shown), len(self.figure_counts)))
        drawn = Element("svg", {"width": "0", "height": "0", "class": "drawn"}, [*self.svg_images.values()])
        main = Element("main", {"id": "main"}, mains)
        body = Element("body", {}, [drawn, header, main, footer, *self._build_scripts()])
        return f"<!doctype html>\n{Element('html', {'lang': 'en'}, [self._build_head(), body]).to_html()}\n"

    def _build_head(self) -> Element:
        given = self.index.find("head") or Element("head")
        kept: list[Element | str] = [
            one
            for one in given.children
            if isinstance(one, Element)
            and (one.tag == "title" or (one.tag == "meta" and "property" not in one.attributes))
        ]
        style = (self.site / "static/style.css").read_text(encoding="utf-8")
        icon = Element(
            "link", {"rel": "icon", "href": self.encode_image("static/icon.svg"), "type": "image/svg+xml"}
        )
        return Element(
            "head", {}, [*kept, icon, Element("style", {}, [style + PAGE_STYLE + self._build_link_style()])]
        )

    def _build_link_style(self) -> str:
        """The style of the link to the page that is shown."""
        keys = [_page_id(place) for place in self.pages]
        return "".join(
            f'body:has([id="{key}"]:target, [id="{key}"] :target) .masthead nav [href="#{key}"] {CURRENT_LINK_STYLE}\n'
            for key in keys
        )

    def _build_scripts(self) -> list[Element | str]:
        there = [self.site / "static" / name for name in STANDALONE_SCRIPTS]
        return [Element("script", {}, [path.read_text(encoding="utf-8")]) for path in there if path.is_file()]

    def _find_figure_path(self, element: Element, of: str) -> str | None:
        """Where the picture of a plate's figure lies in the site; None of what is none."""
        if element.tag != "figure" or "plate" not in element.classes:
            return None
        image = element.find("img")
        return image and _resolve_link(of, image.attributes.get("src") or "")[0]

    def _prune_page(self, place: str, page: Element, shown: set[str]) -> Element:
        """A page without the plates that are left out, what was there for them, and what needs files."""
        read = {one.attributes["data-numbers"] for one in page.walk() if "data-numbers" in one.attributes}

        def kept(element: Element) -> list[Element | str]:
            plate = self._find_figure_path(element, place)
            is_script = element.tag in ("script", "noscript") and element.attributes.get("id") not in read
            if EXCLUDED_CLASSES & element.classes or is_script:
                return []
            if plate and plate not in shown:
                return [REMOVED]
            if REMOVED in element.children:
                of_layer = (element.attributes.get("aria-labelledby") or "").startswith("layer-")
                left = any(one.tag == "figure" for one in element.walk())
                if not left and (of_layer or "stage" in element.classes):
                    return [REMOVED]
                element.children = _drop_removed(element.children)
            return [element]

        return page.transform(kept)

    def _rewrite_element(self, element: Element, place: str, ids: dict[str, set[str]]) -> list[Element | str]:
        """An element of a page with its names and links made those of the whole, its pictures within it."""
        given = element.attributes
        if element.tag == "nav":  # what led out of the file is but words by now
            element.children = [
                child for child in element.children if isinstance(child, Element) or not child.strip()
            ]
        for name, value in given.items():
            if value and name == "id":
                given[name] = f"{_page_id(place)}/{value}"
            elif value and name in ID_REFERENCE_ATTRIBUTES:
                given[name] = " ".join(f"{_page_id(place)}/{one}" for one in value.split())
            elif value and "url(#" in value:
                given[name] = value.replace("url(#", f"url(#{_page_id(place)}/")
        if element.tag in ("img", "image"):
            target, _ = _resolve_link(place, given.get("src") or given.get("href") or "")
            if not (self.site / target).is_file():
                return []
            if element.tag == "image":
                return [self._reuse_image(target, element)]
            given["src"] = self.encode_image(target)
        elif "href" in given:
            link = _rewrite_link(place, given["href"] or "", ids)
            if link is None:
                return element.children
            given["href"] = link
        return [element]

    def _reuse_image(self, target: str, image: Element) -> Element:
        """A use of a picture that a drawing shows, perhaps many times over."""
        key = target, *(image.attributes.get(name) or "" for name in ("x", "y", "width", "height"))
        if key not in self.svg_images:
            name = f"drawn/{len(self.svg_images)}"
            self.svg_images[key] = Element(
                "image", image.attributes | {"id": name, "href": self.encode_image(target)}
            )
        return Element("use", {"href": f"#{self.svg_images[key].attributes['id']}"})


REMOVED = Element("gone")  # where a plate was


def _drop_removed(children: list[Element | str]) -> list[Element | str]:
    """What is left of some children when plates are gone, headings that stood over nothing else with them."""
    kept: list[Element | str] = []
    after: Element | None = None  # what follows
    was_gone = False
    for child in reversed(children):
        if isinstance(child, Element):
            if child is REMOVED:
                was_gone = True
                continue
            over_nothing = (
                child.tag in HEADING_TAGS and was_gone and (after is None or after.tag in HEADING_TAGS)
            )
            was_gone = False
            if over_nothing:
                was_gone = True
                continue
            after = child
        kept.append(child)
    return kept[::-1]


def _resolve_link(of: str, link: str) -> tuple[str, str]:
    """Where a link of a page leads within the site: the place of the file, and what follows its #."""
    parts = urlsplit(link)
    path = unquote(parts.path)
    return (posixpath.normpath(posixpath.join(posixpath.dirname(of), path)) if path else of), parts.fragment


def _rewrite_link(of: str, link: str, ids: dict[str, set[str]]) -> str | None:
    """A page's link as one within the file; None where it leads to what is not in it."""
    if urlsplit(link).scheme:
        return link
    place, fragment = _resolve_link(of, link)
    if place not in ids:
        return None
    if unquote(fragment) in ids[place]:
        return f"#{_page_id(place)}/{fragment}"
    return f"#{_page_id(place)}" if urlsplit(link).path else None


def _page_id(place: str) -> str:
    """What a page is called within the file."""
    return place.removesuffix(".html").replace("/", ".")


def _build_note(shown: int, every: int) -> Element:
    plates = "All plates are" if shown == every else f"{shown} of {every} plates are"
    text = (
        f"This is the gallery in one file. {plates} in it; the explorer, the comparison of units, PDFs and "
        "numbers to download are in the whole gallery, a folder."
    )
    return Element("p", {"class": "note"}, [escape(text)])


def _encode_webp(path: Path) -> bytes | None:
    """A picture as WebP, every pixel the same; None where WebP cannot hold it."""
    with Image.open(path) as image:
        if max(image.size) > MAX_WEBP_SIDE or image.mode not in ("RGB", "L"):
            return None
        content = io.BytesIO()
        image.convert("RGB").save(content, "webp", lossless=True, quality=80, method=1)
        return content.getvalue()
