"""The first page: the networks and data sets of the run."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.notes import render_markdown


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the first page."""
    notes = render_markdown(context.config.get("notes", ""), "")
    yield SitePage("index.html", "index.html", "Contents", {"notes": notes})
