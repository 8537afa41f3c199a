"""HTML as a tree of elements: parsed, transformed and written again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from typing import TypeAlias, Union

VOID_TAGS = frozenset("area base br col embed hr img input link meta source track wbr".split())

Content: TypeAlias = Union["Element", str]  # an element, or text as HTML


@dataclass
class Element:
    """An element.

    Attributes:
        tag: Its tag.
        attributes: Its attributes; None for one without a value.
        children: The elements and text in it.
    """

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Content] = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        """Return its CSS classes."""
        return set((self.attributes.get("class") or "").split())

    def walk(self) -> Iterator["Element"]:
        """Yield this element and all elements in it, in document order."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def find(self, tag: str, **attributes: str) -> "Element | None":
        """Return the first element with a tag and these attributes; None where there is none.

        Args:
            tag: The tag.
            attributes: Attributes that it has, among others, with their values.
        """
        elements = (element for element in self.walk() if element.tag == tag)
        return next(
            (element for element in elements if attributes.items() <= element.attributes.items()), None
        )

    def get_text(self) -> str:
        """Return the text in the element, as HTML."""
        return "".join(child if isinstance(child, str) else child.get_text() for child in self.children)

    def transform(self, function: Callable[["Element"], list[Content]]) -> "Element":
        """Return a copy in which each element is replaced by what a function returns, the innermost first.

        Args:
            function: Returns what takes the place of an element in this one, whose own elements are replaced
                already; an empty list drops it.
        """
        children: list[Content] = []
        for child in self.children:
            children += [child] if isinstance(child, str) else function(child.transform(function))
        return Element(self.tag, dict(self.attributes), children)

    def to_html(self) -> str:
        """Return the element as HTML."""
        parts: list[str] = []
        self._write(parts)
        return "".join(parts)

    def _write(self, parts: list[str]) -> None:
        """Append the HTML of the element to a list."""
        attributes = [
            f" {name}" if value is None else f' {name}="{escape(value)}"'
            for name, value in self.attributes.items()
        ]
        parts.append(f"<{self.tag}{''.join(attributes)}>")
        for child in self.children:
            if isinstance(child, str):
                parts.append(child)
            else:
                child._write(parts)
        if self.tag not in VOID_TAGS:
            parts.append(f"</{self.tag}>")


def parse_html(text: str) -> Element:
    """Parse a page in which every element is closed, apart from void elements.

    Args:
        text: The HTML.

    Returns:
        An element "page" that holds the document.
    """
    builder = _TreeBuilder()
    builder.feed(text)
    builder.close()
    return builder.stack[0]


class _TreeBuilder(HTMLParser):
    """Parser that builds the tree; `stack` holds the open elements."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.stack = [Element("page")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.stack[-1].children.append(element)
        if tag not in VOID_TAGS:
            self.stack.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.stack[-1].children.append(Element(tag, dict(attrs)))

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
