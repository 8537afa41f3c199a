"""The page of a network's invariance: features and prediction as images are moved, scaled and rotated."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.invariance_data import InvarianceData, choose_distance_limit
from convatlas.gallery.invariance_text import summarise
from convatlas.gallery.pages.analyses import TAB


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network with the analysis.

    Args:
        context: The run that the site shows.
    """
    entries = [
        InvarianceData(network, analysis)
        for network in context.list_analysed("invariance")
        if (analysis := network.results.invariance) is not None
    ]
    limit = choose_distance_limit(entries)
    for data in entries:
        name, views = data.network.name, data.make_views(limit)
        values = {
            "network": data.network,
            "data": data,
            "views": views,
            "summary": summarise(data.network),
            "distance_limit": limit,
            "others": [other.network.name for other in entries if other is not data],
        }
        yield SitePage(
            f"networks/{name}-invariance.html",
            "invariance.html",
            f"{name}: invariance",
            values,
            network=name,
            tab=TAB,
            subtab="Invariance",
            generated_files={view.sheet.file: view.sheet.content for view in views},
        )
