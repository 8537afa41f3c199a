"""The user's notes in Markdown: on the run, a network, its layers and its units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markupsafe import Markup, escape

from convatlas import UserError
from convatlas.names import suggest_nearest
from convatlas.records import Layer


@dataclass(frozen=True)
class Notes:
    """The notes on a network, as HTML.

    Attributes:
        text: The note on the network.
        layers: The notes on layers, by their names.
        units: The notes on units, by the layer's name and the unit's number.
    """

    text: Markup
    layers: Mapping[str, Markup]
    units: Mapping[str, Mapping[int, Markup]]

    @classmethod
    def from_config(cls, notes: str | Mapping[str, Any] | None, layers: Sequence[Layer], key: str) -> Self:
        """Render the notes on a network.

        Args:
            notes: The network's `notes` of the config: a text, or a section with texts by layers and units.
            layers: layers.json.
            key: The place of `notes` in the config, for errors.

        Raises:
            UserError: A layer or unit is not there.
        """
        if not isinstance(notes, Mapping):
            return cls(render_markdown(notes or "", "../"), {}, {})
        layers_by_name = {layer["name"]: layer for layer in layers}
        for name in notes.get("layers", {}):
            _get_layer(layers_by_name, name, f"{key}.layers")
        units: dict[str, dict[int, Markup]] = {}
        for unit_name, text in notes.get("units", {}).items():
            name, _, number = unit_name.rpartition(" ")
            layer = _get_layer(layers_by_name, name, f"{key}.units")
            count = layer["output_shape"][0] if layer["called"] else 0
            if int(number) >= count:
                reason = f"has units 0 to {count - 1}" if count else "is never called"
                raise UserError(f"{key}.units: no unit {unit_name!r}; {name} {reason}")
            units.setdefault(name, {})[int(number)] = render_markdown(text, "../")
        return cls(
            render_markdown(notes.get("text", ""), "../"),
            {name: render_markdown(text, "../") for name, text in notes.get("layers", {}).items()},
            {name: dict(sorted(texts.items())) for name, texts in units.items()},
        )


def _get_layer(layers: Mapping[str, Layer], name: str, key: str) -> Layer:
    """Return a layer by its name."""
    if name not in layers:
        raise UserError(f"{key}: no layer {name!r}; {suggest_nearest(name, list(layers))}")
    return layers[name]


def render_markdown(text: str, root: str) -> Markup:
    """Render Markdown (CommonMark) as HTML.

    HTML in the text is shown as text. A heading becomes a bold line, as the page has its own hierarchy of
    headings; an image becomes a link to it, as the gallery loads nothing from outside.

    Args:
        text: The Markdown.
        root: The relative path from the page's folder to the site's root, to which links without a scheme
            are relative.
    """
    return Markup(_make_parser().render(text, {"root": root}))


@cache
def _make_parser() -> MarkdownIt:
    """Make the parser, with the rule that adapts headings, links and images."""
    parser = MarkdownIt("commonmark", {"html": False})
    parser.core.ruler.push("adapt", _adapt_tokens)
    return parser


def _adapt_tokens(state: StateCore) -> None:
    """Turn headings into bold lines and images into links, and make links relative to the page."""
    root = state.env["root"]
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "p"
            token.attrs = {"class": "heading"} if token.nesting == 1 else {}
        link_depth = 0  # a link cannot contain another
        for inner in token.children or []:
            if inner.type.startswith("link"):
                link_depth += inner.nesting
            if inner.type == "link_open":
                inner.attrs["href"] = _make_relative(root, str(inner.attrs["href"]))
            elif inner.type == "image":
                source = str(inner.attrs["src"])
                words, link = inner.content or source, Markup('<a href="{}">{}</a>')
                inner.type = "html_inline"
                inner.content = (
                    escape(words) if link_depth else link.format(_make_relative(root, source), words)
                )


def _make_relative(root: str, link: str) -> str:
    """Make a link from the site's root relative to the page; leave absolute links and fragments."""
    return link if urlsplit(link).scheme or link.startswith(("#", "/")) else root + link
