"""The glossary: the terms of the field that the pages mark, with their definitions and sources."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.glossary import read_terms

PATH = "glossary.html"


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the glossary.

    Args:
        context: The run that the site shows, which the glossary does not depend on.
    """
    yield SitePage(PATH, "glossary.html", "Glossary", {"terms": read_terms()}, "Help")
