"""The first page: the networks and data sets of the run."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.notes import render_markdown
from convatlas.gallery.pages.attribution import format_page_name, has_attribution
from convatlas.names import join_names


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the first page.

    Args:
        context: The run that the site shows.
    """
    notes = render_markdown(context.config.get("notes", ""), "")
    segmented = [network.name for network in context.networks_with_masks]
    values = {
        "notes": notes,
        "networks_with_masks": join_names(segmented) if segmented else "",
        "attribution_files": {
            network.name: format_page_name(network.name)
            for network in context.networks
            if has_attribution(context, network)
        },
    }
    yield SitePage("index.html", "index.html", "Contents", values)
