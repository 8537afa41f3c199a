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
from convatlas.files import read_json, whole
from convatlas.gallery import html_tree
from convatlas.gallery.html_tree import Element
from convatlas.names import choose_layers, nearest

DAY = (1980, 1, 1, 0, 0, 0)  # of every file in a zip, so that the same site gives the same bytes
PACKED = {".png", ".webp", ".jpg", ".npz", ".safetensors", ".pdf"}  # no smaller for being compressed again
MEGABYTE = 1_000_000

LEFT_OUT = {"compare.html"}  # pages that need the explorer's sprites
DROPPED = {"explorer", "downloads"}  # classes of what a file alone has no use for
SCRIPTS = ["classical.js"]  # those that need no other file
OF_LAYERS = ("filters", "maps", "values", "pairs", "strongest")  # kinds of plates that belong to one layer
OF_IMAGES = ("classical", "deconv", "steps")  # and to one image: large, and the first to be left out
HEADINGS = ("h2", "h3", "h4")
REFERENCES = ("for", "aria-labelledby", "aria-describedby", "aria-controls", "data-numbers", "data-made")
TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
SMALL = 10_000  # bytes of a PNG that is not worth encoding again
SIDE = 16_383  # pixels that WebP holds at most
# A page at a time, without a script: the one that the address names, else the first.
PAGES = """
.page { display: none; scroll-margin-top: 14rem; }
.page:target, .page:has(:target), main:not(:has(.page:target, .page :target)) > .page:first-child {
  display: block;
}
@supports not selector(:has(a)) { .page { display: block; } }
.drawn { position: absolute; }
"""
HERE = "{ color: inherit; text-decoration: underline 2px var(--accent); text-underline-offset: 0.4em; }"


def archive(site: Path, path: Path) -> None:
    """Write a zip of the site, under the folder's name; the same site gives the same bytes."""
    with whole(path) as aside, zipfile.ZipFile(aside, "w") as packed:
        for file in sorted(file for file in site.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(f"{site.name}/{file.relative_to(site).as_posix()}", DAY)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if file.suffix in PACKED else zipfile.ZIP_DEFLATED
            with file.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)


@dataclass(frozen=True)
class Plate:
    """A plate that may be in the single file, and its place in the site."""

    place: str
    rank: tuple[int, int, int]  # what is left out first has the highest


def wanted(results: Path, networks: dict[str, list[str | int]], layers: str | list[str | int]) -> list[Plate]:
    """The plates that are asked for, those first that are left out last.

    `networks` holds each network's main road; `layers` is `publish.single_file.layers` of the config.
    Raises UserError where that names a layer that no network has.
    """
    described = {name: read_json(results / name / "layers.json") for name in networks}
    if not isinstance(layers, str):
        _all_known(described, layers)
    found = []
    for n, (name, road) in enumerate(networks.items()):
        asked = (road or "all") if layers == "road" else layers
        chosen = set(_chosen(described[name], asked))
        for number, plate in enumerate(read_json(results / name / "figures/plates.json")):
            kind, place = plate["kind"], f"plates/{name}/{plate['file']}"
            if kind not in OF_LAYERS or plate["subject"] in chosen:
                found.append(Plate(place, ((kind in OF_LAYERS) + 2 * (kind in OF_IMAGES), number, n)))
    return sorted(found, key=lambda plate: plate.rank)


def _chosen(described: list[dict[str, Any]], asked: str | list[str | int]) -> list[str]:
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


def _all_known(described: dict[str, list[dict[str, Any]]], asked: Iterable[str | int]) -> None:
    names = [layer["name"] for layers in described.values() for layer in layers]
    for one in asked:
        if not any(_chosen(layers, [one]) for layers in described.values()):
            raise UserError(
                f"publish.single_file.layers: no network has a layer {one!r}; "
                f"{nearest(one, sorted({*names}))}"
            )


@dataclass(frozen=True)
class Single:
    """The single file: its HTML, and how many plates it has of how many there are."""

    html: str
    plates: int
    of: int


def single(site: Path, plates: list[Plate], megabytes: float) -> Single:
    """Put a site into one HTML file with these plates, or so many, from the first, as its size allows.

    Raises UserError where the pages alone are larger.
    """
    book = Book(site)
    there = {PurePosixPath(place).with_suffix(""): place for place in book.times}  # of some a light picture
    stems = (PurePosixPath(plate.place).with_suffix("") for plate in plates)
    shown = [there[stem] for stem in stems if stem in there]
    with ThreadPoolExecutor() as pool:  # Pillow lets go of Python's lock while it encodes
        list(pool.map(book.picture, shown))
    while True:
        html = book.bound(shown)
        size = len(html.encode())
        if size <= megabytes * MEGABYTE:
            return Single(html, len(shown), len(book.times))
        if not shown:
            raise UserError(
                f"publish.single_file.megabytes: {megabytes:g} are too few; the pages take "
                f"{size / MEGABYTE:.1f} without a plate"
            )
        while size > megabytes * MEGABYTE and shown:
            place = shown.pop()
            size -= len(book.picture(place)) * book.times[place]


class Book:
    """A site's pages, read once, to be bound into one file."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self.index = html_tree.read((site / "index.html").read_text(encoding="utf-8"))
        links = [one.attributes.get("href") or "" for one in self.index.walk() if one.tag == "a"]
        order = {place: n for n, place in reversed([*enumerate(["index.html", *links])])}
        places = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
        places.sort(key=lambda place: order.get(place, len(order)))
        self.pages: dict[str, Element] = {}
        for place in places:
            if place not in LEFT_OUT:
                page = html_tree.read((site / place).read_text(encoding="utf-8"))
                self.pages[place] = page.first("main") or page
        self.encoded: dict[str, str] = {}
        self.drawn: dict[
            tuple[str, ...], Element
        ] = {}  # pictures within drawings, each of which is there once

    @cached_property
    def times(self) -> Counter[str]:
        """The places of all plates, and how often each is shown."""
        return Counter(
            place
            for of, page in self.pages.items()
            for figure in page.walk()
            if (place := self._plate(figure, of))
        )

    def picture(self, place: str) -> str:
        """A picture of the site as a data: URI, encoded again without loss where that makes it smaller."""
        if place not in self.encoded:
            path = self.site / place
            content, kind = path.read_bytes(), TYPES[path.suffix]
            if path.suffix == ".png" and len(content) > SMALL and (again := _webp(path)):
                content, kind = min((content, kind), (again, "image/webp"), key=lambda pair: len(pair[0]))
            self.encoded[place] = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        return self.encoded[place]

    def bound(self, shown: list[str]) -> str:
        """All pages as one, with these plates."""
        pruned = {place: self._pruned(place, page, {*shown}) for place, page in self.pages.items()}
        ids = {
            place: {one.attributes["id"] or "" for one in page.walk() if "id" in one.attributes}
            for place, page in pruned.items()
        }

        def rewritten(element: Element, place: str) -> Element:
            return element.rebuilt(lambda inner: self._rewritten(inner, place, ids))

        mains: list[Element | str] = [
            Element("div", {"class": "page", "id": _key(place)}, rewritten(page, place).children)
            for place, page in pruned.items()
        ]
        header, footer = (
            rewritten(self.index.first(tag) or Element(tag), "index.html") for tag in ("header", "footer")
        )
        footer.children.insert(0, _note(len(shown), len(self.times)))
        drawn = Element("svg", {"width": "0", "height": "0", "class": "drawn"}, [*self.drawn.values()])
        main = Element("main", {"id": "main"}, mains)
        body = Element("body", {}, [drawn, header, main, footer, *self._scripts()])
        return f"<!doctype html>\n{Element('html', {'lang': 'en'}, [self._head(), body]).html()}\n"

    def _head(self) -> Element:
        given = self.index.first("head") or Element("head")
        kept: list[Element | str] = [
            one
            for one in given.children
            if isinstance(one, Element)
            and (one.tag == "title" or (one.tag == "meta" and "property" not in one.attributes))
        ]
        style = (self.site / "static/style.css").read_text(encoding="utf-8")
        icon = Element(
            "link", {"rel": "icon", "href": self.picture("static/icon.svg"), "type": "image/svg+xml"}
        )
        return Element("head", {}, [*kept, icon, Element("style", {}, [style + PAGES + self._marked()])])

    def _marked(self) -> str:
        """The style of the link to the page that is shown."""
        keys = [_key(place) for place in self.pages]
        return "".join(
            f'body:has([id="{key}"]:target, [id="{key}"] :target) .masthead nav [href="#{key}"] {HERE}\n'
            for key in keys
        )

    def _scripts(self) -> list[Element | str]:
        there = [self.site / "static" / name for name in SCRIPTS]
        return [Element("script", {}, [path.read_text(encoding="utf-8")]) for path in there if path.is_file()]

    def _plate(self, element: Element, of: str) -> str | None:
        """Where the picture of a plate's figure lies in the site; None of what is none."""
        if element.tag != "figure" or "plate" not in element.classes:
            return None
        image = element.first("img")
        return image and _place(of, image.attributes.get("src") or "")[0]

    def _pruned(self, place: str, page: Element, shown: set[str]) -> Element:
        """A page without the plates that are left out, what was there for them, and what needs files."""
        read = {one.attributes["data-numbers"] for one in page.walk() if "data-numbers" in one.attributes}

        def kept(element: Element) -> list[Element | str]:
            plate = self._plate(element, place)
            is_script = element.tag in ("script", "noscript") and element.attributes.get("id") not in read
            if DROPPED & element.classes or is_script:
                return []
            if plate and plate not in shown:
                return [GONE]
            if GONE in element.children:
                of_layer = (element.attributes.get("aria-labelledby") or "").startswith("layer-")
                left = any(one.tag == "figure" for one in element.walk())
                if not left and (of_layer or "stage" in element.classes):
                    return [GONE]
                element.children = _without_gone(element.children)
            return [element]

        return page.rebuilt(kept)

    def _rewritten(self, element: Element, place: str, ids: dict[str, set[str]]) -> list[Element | str]:
        """An element of a page with its names and links made those of the whole, its pictures within it."""
        given = element.attributes
        if element.tag == "nav":  # what led out of the file is but words by now
            element.children = [
                child for child in element.children if isinstance(child, Element) or not child.strip()
            ]
        for name, value in given.items():
            if value and name == "id":
                given[name] = f"{_key(place)}/{value}"
            elif value and name in REFERENCES:
                given[name] = " ".join(f"{_key(place)}/{one}" for one in value.split())
            elif value and "url(#" in value:
                given[name] = value.replace("url(#", f"url(#{_key(place)}/")
        if element.tag in ("img", "image"):
            target, _ = _place(place, given.get("src") or given.get("href") or "")
            if not (self.site / target).is_file():
                return []
            if element.tag == "image":
                return [self._drawn(target, element)]
            given["src"] = self.picture(target)
        elif "href" in given:
            link = _link(place, given["href"] or "", ids)
            if link is None:
                return element.children
            given["href"] = link
        return [element]

    def _drawn(self, target: str, image: Element) -> Element:
        """A use of a picture that a drawing shows, perhaps many times over."""
        key = target, *(image.attributes.get(name) or "" for name in ("x", "y", "width", "height"))
        if key not in self.drawn:
            name = f"drawn/{len(self.drawn)}"
            self.drawn[key] = Element("image", image.attributes | {"id": name, "href": self.picture(target)})
        return Element("use", {"href": f"#{self.drawn[key].attributes['id']}"})


GONE = Element("gone")  # where a plate was


def _without_gone(children: list[Element | str]) -> list[Element | str]:
    """What is left of some children when plates are gone, headings that stood over nothing else with them."""
    kept: list[Element | str] = []
    after: Element | None = None  # what follows
    was_gone = False
    for child in reversed(children):
        if isinstance(child, Element):
            if child is GONE:
                was_gone = True
                continue
            over_nothing = child.tag in HEADINGS and was_gone and (after is None or after.tag in HEADINGS)
            was_gone = False
            if over_nothing:
                was_gone = True
                continue
            after = child
        kept.append(child)
    return kept[::-1]


def _place(of: str, link: str) -> tuple[str, str]:
    """Where a link of a page leads within the site: the place of the file, and what follows its #."""
    parts = urlsplit(link)
    path = unquote(parts.path)
    return (posixpath.normpath(posixpath.join(posixpath.dirname(of), path)) if path else of), parts.fragment


def _link(of: str, link: str, ids: dict[str, set[str]]) -> str | None:
    """A page's link as one within the file; None where it leads to what is not in it."""
    if urlsplit(link).scheme:
        return link
    place, fragment = _place(of, link)
    if place not in ids:
        return None
    if unquote(fragment) in ids[place]:
        return f"#{_key(place)}/{fragment}"
    return f"#{_key(place)}" if urlsplit(link).path else None


def _key(place: str) -> str:
    """What a page is called within the file."""
    return place.removesuffix(".html").replace("/", ".")


def _note(shown: int, every: int) -> Element:
    plates = "All plates are" if shown == every else f"{shown} of {every} plates are"
    text = (
        f"This is the gallery in one file. {plates} in it; the explorer, the comparison of units, PDFs and "
        "numbers to download are in the whole gallery, a folder."
    )
    return Element("p", {"class": "note"}, [escape(text)])


def _webp(path: Path) -> bytes | None:
    """A picture as WebP, every pixel the same; None where WebP cannot hold it."""
    with Image.open(path) as image:
        if max(image.size) > SIDE or image.mode not in ("RGB", "L"):
            return None
        content = io.BytesIO()
        image.convert("RGB").save(content, "webp", lossless=True, quality=80, method=1)
        return content.getvalue()
