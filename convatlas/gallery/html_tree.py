"""HTML as a tree: read from a page, pruned and rewritten, and written again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from typing import Union

VOID_TAGS = frozenset("area base br col embed hr img input link meta source track wbr".split())


@dataclass
class Element:
    """A tag with its attributes (None: without a value), and what is within: elements and text, as HTML."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Union["Element", str]] = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        return set((self.attributes.get("class") or "").split())

    def walk(self) -> Iterator["Element"]:
        """This element and all within, in the order of the page."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def find(self, tag: str, **attributes: str) -> "Element | None":
        """The first element of a tag that has these attributes."""
        found = (one for one in self.walk() if one.tag == tag)
        return next((one for one in found if attributes.items() <= one.attributes.items()), None)

    def get_text(self) -> str:
        """The text within, as written."""
        return "".join(child if isinstance(child, str) else child.get_text() for child in self.children)

    def transform(self, change: Callable[["Element"], list[Union["Element", str]]]) -> "Element":
        """A copy with what `change` gives in the place of every element within, the innermost first."""
        children: list[Element | str] = []
        for child in self.children:
            children += [child] if isinstance(child, str) else change(child.transform(change))
        return Element(self.tag, dict(self.attributes), children)

    def to_html(self) -> str:
        """The element as HTML."""
        parts: list[str] = []
        self._write(parts)
        return "".join(parts)

    def _write(self, parts: list[str]) -> None:
        given = [
            f" {name}" if value is None else f' {name}="{escape(value)}"'
            for name, value in self.attributes.items()
        ]
        parts.append(f"<{self.tag}{''.join(given)}>")
        for child in self.children:
            if isinstance(child, str):
                parts.append(child)
            else:
                child._write(parts)
        if self.tag not in VOID_TAGS:
            parts.append(f"</{self.tag}>")


def parse_html(text: str) -> Element:
    """Read a page whose elements are all closed, but for those that have no end."""
    reader = _TreeBuilder()
    reader.feed(text)
    reader.close()
    return reader.stack[0]


class _TreeBuilder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.stack = [Element("page")]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attributes))
        self.stack[-1].children.append(element)
        if tag not in VOID_TAGS:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.stack[-1].children.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID_TAGS:
            return
        while len(self.stack) > 1 and self.stack.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.stack[-1].children.append(data)

    def handle_entityref(self, name: str) -> None:
        self.stack[-1].children.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.stack[-1].children.append(f"&#{name};")
