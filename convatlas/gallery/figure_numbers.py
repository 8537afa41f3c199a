"""The numbers of the figures of a page, which run from 1 in the order of the page."""

import re
from collections.abc import Iterator

from markupsafe import Markup

from convatlas.gallery.html_tree import Element

FIGURE_START = '<figure class="figure"'
NUMBER_MARK = Markup("\ue000")  # what a template writes for the number of the figure around it
MARKS = re.compile(f"{FIGURE_START}|{NUMBER_MARK}|\ue001(\\d+)\ue001")


def mark_figure_range(count: int) -> str:
    """Return what a template writes for the numbers of the next figures, such as "figures 3–8".

    Args:
        count: How many figures.
    """
    return f"\ue001{count}\ue001"


def number_figures(html: str) -> str:
    """Replace the marks of a page by the numbers of its figures.

    Args:
        html: The page, as its template was rendered.
    """
    number = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal number
        if match[0] == FIGURE_START:
            number += 1
            return match[0]
        return str(number) if match[1] is None else format_range(number + 1, int(match[1]))

    return MARKS.sub(replace, html)


def renumber_figures(page: Element) -> None:
    """Number the figures of a page from 1 again, after some were removed.

    Args:
        page: The page, changed in place: the elements of the classes figure-number and figure-range.
    """
    number = 0
    for element in page.walk():
        if element.tag == "figure" and "figure" in element.classes:
            number += 1
        elif "figure-number" in element.classes:
            element.children = [str(number)]
        elif element.tag == "details":
            figures = sum(1 for inner in element.walk() if _is_figure(inner))
            for label in _find_labels(element):
                label.children = [format_range(number + 1, figures)]


def format_range(first: int, count: int) -> str:
    """Return the numbers of consecutive figures as text.

    Args:
        first: The number of the first.
        count: How many figures, at least one.
    """
    return f"figure {first}" if count == 1 else f"figures {first}–{first + count - 1}"


def _is_figure(element: Element) -> bool:
    return element.tag == "figure" and "figure" in element.classes


def _find_labels(element: Element) -> Iterator[Element]:
    return (inner for inner in element.walk() if "figure-range" in inner.classes)
