"""The gallery as one HTML file that needs no other file."""

import base64
import io
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from PIL import Image

from convatlas import UserError
from convatlas.gallery.figure_numbers import renumber_figures
from convatlas.gallery.figure_selection import RankedFigure
from convatlas.gallery.html_tree import Content, Element, parse_html

MEGABYTE = 1_000_000
# Pages that need the explorer's sprites, or many images, or show one part at a time by a script.
EXCLUDED_PAGES = ("compare.html", "*-top-images.html", "*-lecture.html", "*-feature-visualisation.html")
EXCLUDED_CLASSES = {"explorer", "comparison", "downloads", "lecture-link"}  # that need other files
FIGURE_CLASSES = {"figure", "map-figure"}
EXCLUDED_ATTRIBUTES = (
    "data-address",
    "data-row-link",
)  # of tables: filters in the address, links to the explorer
STANDALONE_SCRIPTS = [
    "glossary.js",
    "dom.js",
    "copy.js",
    "masthead.js",
    "convolution_example.js",
    "heat_map.js",
    "table.js",
]  # that need no other file
HEADING_TAGS = ("h2", "h3", "h4")
ID_REFERENCE_ATTRIBUTES = (
    "for",
    "aria-labelledby",
    "aria-describedby",
    "aria-controls",
    "data-source",
    "data-recorded",
)
MIME_TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
MIN_REENCODE_BYTES = 10_000  # of a PNG; a smaller one is not encoded as WebP
MAX_WEBP_SIDE = 16_383  # pixels
# One page at a time, without a script: the one in the address, or else the first.
PAGE_STYLE = """
.page { display: none; scroll-margin-top: 14rem; }
.page:target, .page:has(:target), main:not(:has(.page:target, .page :target)) > .page:first-child {
  display: block;
}
@supports not selector(:has(a)) { .page { display: block; } }
.shared-images { position: absolute; }
"""
CURRENT_LINK_STYLE = (
    "{ color: inherit; text-decoration: underline 2px var(--accent); text-underline-offset: 0.4em; }"
)
REMOVED = Element("removed")  # in the place of a figure that is skipped


@dataclass(frozen=True)
class SingleFile:
    """The HTML, the number of figures in it, and the number of figures of the site."""

    html: str
    n_figures: int
    n_total: int


def build_single_file(site: Path, figures: Sequence[RankedFigure], megabytes: float) -> SingleFile:
    """Build one HTML file of a site, with as many of the selected figures as its size allows.

    Args:
        site: The folder of the site.
        figures: The selected figures, the most important first.
        megabytes: The largest size of the file.

    Raises:
        UserError: The pages are larger without any figure.
    """
    builder = SingleFileBuilder(site)
    # A cover may be shown as a WebP beside its PNG.
    paths_by_stem = {PurePosixPath(path).with_suffix(""): path for path in builder.figure_counts}
    stems = [PurePosixPath(figure.path).with_suffix("") for figure in figures]
    selected = [paths_by_stem[stem] for stem in stems if stem in paths_by_stem]
    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock while it encodes
        list(pool.map(builder.encode_image, selected))
    max_bytes = megabytes * MEGABYTE
    while True:
        html = builder.render(selected)
        size = len(html.encode())
        if size <= max_bytes:
            return SingleFile(html, len(selected), len(builder.figure_counts))
        if not selected:
            raise UserError(
                f"publish.single_file.megabytes: {megabytes:g} MB is too small; the pages take "
                f"{size / MEGABYTE:.1f} MB without a figure"
            )
        while size > max_bytes and selected:
            path = selected.pop()
            size -= len(builder.encode_image(path)) * builder.figure_counts[path]


class SingleFileBuilder:
    """The pages of a site, parsed, from which a single file is rendered.

    Args:
        site: The folder of the site.
    """

    def __init__(self, site: Path) -> None:
        self.site = site
        self.index = parse_html((site / "index.html").read_text(encoding="utf-8"))
        self.pages: dict[str, Element] = {}
        for path in self._list_pages():
            page = parse_html((site / path).read_text(encoding="utf-8"))
            self.pages[path] = page.find("main") or page
        self.data_uris: dict[str, str] = {}
        # Images within SVG, by place and size: a figure may be used many times over.
        self.svg_images: dict[tuple[str, ...], Element] = {}

    def _list_pages(self) -> list[str]:
        """List the paths of the pages, those of the navigation first."""
        links = [element.attributes.get("href") or "" for element in self.index.walk() if element.tag == "a"]
        rank = {path: n for n, path in reversed([*enumerate(["index.html", *links])])}
        paths = sorted(path.relative_to(self.site).as_posix() for path in self.site.rglob("*.html"))
        paths.sort(key=lambda path: rank.get(path, len(rank)))
        return [
            path
            for path in paths
            if not any(PurePosixPath(path).match(pattern) for pattern in EXCLUDED_PAGES)
        ]

    @cached_property
    def figure_counts(self) -> Counter[str]:
        """Return the paths of all figures, and how often each is shown."""
        return Counter(
            path
            for page_path, page in self.pages.items()
            for element in page.walk()
            if (path := _find_figure_path(element, page_path))
        )

    def encode_image(self, path: str) -> str:
        """Return an image as a data: URI, a PNG as lossless WebP where that is smaller.

        Args:
            path: Its place in the site.
        """
        if path not in self.data_uris:
            file = self.site / path
            content, mime_type = file.read_bytes(), MIME_TYPES[file.suffix]
            if file.suffix == ".png" and len(content) > MIN_REENCODE_BYTES:
                webp = _encode_webp(file)
                if webp is not None and len(webp) < len(content):
                    content, mime_type = webp, "image/webp"
            self.data_uris[path] = f"data:{mime_type};base64,{base64.b64encode(content).decode()}"
        return self.data_uris[path]

    def render(self, figures: Sequence[str]) -> str:
        """Render all pages as one HTML file.

        Args:
            figures: The paths of the figures to include.
        """
        pruned = {path: _prune_page(path, page, {*figures}) for path, page in self.pages.items()}
        for page in pruned.values():
            renumber_figures(page)
        ids = {
            path: {element.attributes["id"] or "" for element in page.walk() if "id" in element.attributes}
            for path, page in pruned.items()
        }

        def rewrite(element: Element, path: str) -> Element:
            return element.transform(lambda inner: self._rewrite_element(inner, path, ids))

        page_elements: list[Content] = [
            Element("div", {"class": "page", "id": _page_id(path)}, rewrite(page, path).children)
            for path, page in pruned.items()
        ]
        header, footer = (
            rewrite(self.index.find(tag) or Element(tag), "index.html") for tag in ("header", "footer")
        )
        footer.children.insert(0, _build_note(len(figures), len(self.figure_counts)))
        shared_images = Element(
            "svg",
            {"width": "0", "height": "0", "class": "shared-images"},
            [*self.svg_images.values()],
        )
        main = Element("main", {"id": "main"}, page_elements)
        body = Element("body", {}, [shared_images, header, main, footer, *self._build_scripts()])
        document = Element("html", {"lang": "en"}, [self._build_head(), body])
        return f"<!doctype html>\n{document.to_html()}\n"

    def _build_head(self) -> Element:
        """Build the head: the first page's title and meta elements, the icon and the style."""
        head = self.index.find("head") or Element("head")
        elements: list[Content] = [
            element
            for element in head.children
            if isinstance(element, Element)
            and (element.tag == "title" or (element.tag == "meta" and "property" not in element.attributes))
        ]
        icon = {"rel": "icon", "href": self.encode_image("static/icon.svg"), "type": "image/svg+xml"}
        sheets = ("style.css", "analyses.css")
        style = "".join((self.site / "static" / name).read_text(encoding="utf-8") for name in sheets)
        style += PAGE_STYLE + self._build_link_style()
        return Element("head", {}, [*elements, Element("link", {**icon}), Element("style", {}, [style])])

    def _build_link_style(self) -> str:
        """Build the style of the link to the page that is shown."""
        selector = 'body:has([id="{0}"]:target, [id="{0}"] :target) .masthead nav [href="#{0}"]'
        ids = [_page_id(path) for path in self.pages]
        return "".join(f"{selector.format(page_id)} {CURRENT_LINK_STYLE}\n" for page_id in ids)

    def _build_scripts(self) -> list[Content]:
        """Build the scripts that need no other file."""
        paths = [self.site / "static" / name for name in STANDALONE_SCRIPTS]
        return [Element("script", {}, [path.read_text(encoding="utf-8")]) for path in paths if path.is_file()]

    def _rewrite_element(self, element: Element, path: str, ids: Mapping[str, Set[str]]) -> list[Content]:
        """Make ids unique within the file, links point into it, and images part of it."""
        attributes = element.attributes
        if "menu" in element.classes:
            _drop_dead_links(element)
        for name in EXCLUDED_ATTRIBUTES:
            attributes.pop(name, None)
        for name, value in attributes.items():
            if value:
                attributes[name] = _rewrite_ids(path, name, value)
        if element.tag in ("img", "image"):
            source = attributes.get("src") or attributes.get("href") or ""
            if source.startswith("data:"):
                return [element]
            target, _ = _resolve_link(path, source)
            if not (self.site / target).is_file():
                return []
            if element.tag == "image":
                return [self._reuse_image(target, element)]
            attributes["src"] = self.encode_image(target)
        elif "href" in attributes:
            link = _rewrite_link(path, attributes["href"] or "", ids)
            if link is None:
                return element.children
            attributes["href"] = link
        return [element]

    def _reuse_image(self, target: str, image: Element) -> Element:
        """Replace an image within an SVG by a use of one that is in the file once."""
        key = target, *(image.attributes.get(name) or "" for name in ("x", "y", "width", "height"))
        if key not in self.svg_images:
            attributes = {"id": f"shared-image/{len(self.svg_images)}", "href": self.encode_image(target)}
            self.svg_images[key] = Element("image", {**image.attributes, **attributes})
        href = f"#{self.svg_images[key].attributes['id']}"
        ids = {"id": image.attributes["id"]} if "id" in image.attributes else {}
        return Element("use", {**ids, "href": href})


# Pages without some figures


def _find_figure_path(element: Element, page_path: str) -> str | None:
    """Return the path of the image of a figure; None for other elements."""
    if element.tag != "figure" or not FIGURE_CLASSES & element.classes:
        return None
    image = element.find("img")
    return _resolve_link(page_path, image.attributes.get("src") or "")[0] if image else None


def _prune_page(path: str, page: Element, figures: Set[str]) -> Element:
    """Remove the other figures with their sections, and what needs other files."""
    data_ids = {
        element.attributes["data-source"] for element in page.walk() if "data-source" in element.attributes
    }

    def prune(element: Element) -> list[Content]:
        figure = _find_figure_path(element, path)
        is_script = element.tag in ("script", "noscript") and element.attributes.get("id") not in data_ids
        if EXCLUDED_CLASSES & element.classes or is_script:
            return []
        if figure and figure not in figures:
            return [REMOVED]
        if REMOVED in element.children:
            is_layer = (element.attributes.get("aria-labelledby") or "").startswith("layer-")
            has_figure = any(inner.tag == "figure" for inner in element.walk())
            if not has_figure and (is_layer or {"stage", "maps"} & element.classes):
                return [REMOVED]
            element.children = _drop_removed(element.children)
        return [element]

    return page.transform(prune)


def _drop_removed(children: Sequence[Content]) -> list[Content]:
    """Drop removed figures, and headings with nothing else below them."""
    remaining: list[Content] = []
    next_element: Element | None = None
    follows_removed = False  # whether the next element in the page was removed
    for child in reversed(children):
        if isinstance(child, Element):
            ends_section = next_element is None or next_element.tag in HEADING_TAGS
            is_empty_heading = child.tag in HEADING_TAGS and follows_removed and ends_section
            if child is REMOVED or is_empty_heading:
                follows_removed = True
                continue
            follows_removed = False
            next_element = child
        remaining.append(child)
    return remaining[::-1]


# Links and ids


def _resolve_link(page_path: str, link: str) -> tuple[str, str]:
    """Resolve a link of a page: the path in the site, and the fragment."""
    parts = urlsplit(link)
    path = unquote(parts.path)
    if not path:
        return page_path, parts.fragment
    return posixpath.normpath(posixpath.join(posixpath.dirname(page_path), path)), parts.fragment


def _rewrite_link(page_path: str, link: str, ids: Mapping[str, Set[str]]) -> str | None:
    """Rewrite a link of a page as one within the file; None where its target is not in the file."""
    parts = urlsplit(link)
    if parts.scheme:
        return link
    path, fragment = _resolve_link(page_path, link)
    if path not in ids:
        return None
    if unquote(fragment) in ids[path]:
        return f"#{_page_id(path)}/{fragment}"
    return f"#{_page_id(path)}" if parts.path else None


def _rewrite_ids(page_path: str, name: str, value: str) -> str:
    """Prefix the ids in an attribute with that of their page."""
    prefix = _page_id(page_path)
    if name == "id":
        return f"{prefix}/{value}"
    if name in ID_REFERENCE_ATTRIBUTES:
        return " ".join(f"{prefix}/{reference}" for reference in value.split())
    return value.replace("url(#", f"url(#{prefix}/")


def _drop_dead_links(menu: Element) -> None:
    """Drop the items of a menu whose links lead out of the file, and have become text."""
    for items in menu.walk():
        if items.tag == "ul":
            items.children = [item for item in items.children if isinstance(item, Element) and item.find("a")]


def _page_id(path: str) -> str:
    """Return the id of a page within the file."""
    return path.removesuffix(".html").replace("/", ".")


def _build_note(n_figures: int, n_total: int) -> Element:
    """Build the note that says what the file does not hold."""
    figures = "All figures are" if n_figures == n_total else f"{n_figures} of {n_total} figures are"
    text = (
        f"This is the gallery as a single file. {figures} included. The explorer, the comparison pages, "
        "lectures, optimised images, PDFs and downloads are in the full gallery (a folder)."
    )
    return Element("p", {"class": "note"}, [escape(text)])


def _encode_webp(path: Path) -> bytes | None:
    """Encode an image as lossless WebP; None where WebP cannot hold it."""
    with Image.open(path) as image:
        if max(image.size) > MAX_WEBP_SIDE or image.mode not in ("RGB", "L"):
            return None
        content = io.BytesIO()
        image.convert("RGB").save(content, "webp", lossless=True, quality=80, method=1)
        return content.getvalue()
