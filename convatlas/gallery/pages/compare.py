"""The page that shows any two units side by side, of any networks, layers and images."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.explorer_data import dump_script_json


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page, if any network has an explorer.

    Args:
        context: The run that the site shows.
    """
    names = [network.name for network in context.networks if network.name in context.explorers]
    if names:
        values = {"page_json": dump_script_json({"networks": names})}
        yield SitePage("compare.html", "compare.html", "Compare units", values, "Analyses")
