"""The maker's own words, in Markdown: of the run, of a network, of its layers and units."""

from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markupsafe import Markup, escape

from convatlas import UserError
from convatlas.names import suggest_nearest


@dataclass(frozen=True)
class Notes:
    """What is noted of a network, as HTML: of the whole, of layers by name, of units by layer and number."""

    text: Markup
    layers: dict[str, Markup]
    units: dict[str, dict[int, Markup]]

    @classmethod
    def from_config(
        cls, given: str | dict[str, Any] | None, layers: list[dict[str, Any]], key: str
    ) -> "Notes":
        """Render a network's `notes` of the config, which stand at `key` there; `layers` is layers.json.

        Raises UserError for a layer or a unit that is not there.
        """
        if not isinstance(given, dict):
            return cls(render_markdown(given or "", "../"), {}, {})
        there = {layer["name"]: layer for layer in layers}
        for name in given.get("layers", {}):
            _get_layer(there, name, f"{key}.layers")
        units: dict[str, dict[int, Markup]] = {}
        for place, text in given.get("units", {}).items():
            name, _, number = place.rpartition(" ")
            layer = _get_layer(there, name, f"{key}.units")
            count = layer["output_shape"][0] if layer["called"] else 0
            if int(number) >= count:
                has = f"has units 0 to {count - 1}" if count else "is never called"
                raise UserError(f"{key}.units: no unit {place!r}; {name} {has}")
            units.setdefault(name, {})[int(number)] = render_markdown(text, "../")
        return cls(
            render_markdown(given.get("text", ""), "../"),
            {name: render_markdown(text, "../") for name, text in given.get("layers", {}).items()},
            {name: dict(sorted(noted.items())) for name, noted in units.items()},
        )


def _get_layer(there: dict[str, dict[str, Any]], name: str, key: str) -> dict[str, Any]:
    if name not in there:
        raise UserError(f"{key}: no layer {name!r}; {suggest_nearest(name, list(there))}")
    return there[name]


def render_markdown(text: str, root: str) -> Markup:
    """Render Markdown (CommonMark) as HTML for a page from which `root` leads to the gallery's top.

    Links without a scheme lead from there. HTML in the text is shown as text. A heading becomes a bold
    line, for the page has an order of headings of its own, and a picture becomes a link to it, for the
    gallery loads nothing from elsewhere.
    """
    return Markup(_make_parser().render(text, {"root": root}))


@cache
def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False})
    parser.core.ruler.push("place", _adapt_tokens)
    return parser


def _adapt_tokens(state: StateCore) -> None:
    """Fit the parsed text to its page, as `rendered` says."""
    root = state.env["root"]
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "p"
            token.attrs = {"class": "heading"} if token.nesting == 1 else {}
        depth = 0  # of links: one holds no other
        for inner in token.children or []:
            depth += inner.nesting * inner.type.startswith("link")
            if inner.type == "link_open":
                inner.attrs["href"] = _make_relative(root, str(inner.attrs["href"]))
            elif inner.type == "image":
                source = str(inner.attrs["src"])
                words, link = inner.content or source, Markup('<a href="{}">{}</a>')
                inner.type = "html_inline"
                inner.content = escape(words) if depth else link.format(_make_relative(root, source), words)


def _make_relative(root: str, link: str) -> str:
    """A link from the gallery's top, as seen from the page; one to elsewhere or within the page as it is."""
    return link if urlsplit(link).scheme or link.startswith(("#", "/")) else root + link
