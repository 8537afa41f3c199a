"""The page of a network's correspondence: features as the head is occluded in several images."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.correspondence_data import ROWS, CorrespondenceData, summarise


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network with the analysis.

    Args:
        context: The run that the site shows.
    """
    for network in context.list_analysed("correspondence"):
        analysis = network.results.correspondence
        if analysis is None:
            continue
        data = CorrespondenceData(network, analysis)
        values = {
            "network": network,
            "data": data,
            "summary": summarise(network),
            "kinds": ROWS,
        }
        yield SitePage(
            f"networks/{network.name}-correspondence.html",
            "correspondence.html",
            f"{network.name}: correspondence",
            values,
            network=network.name,
            tab="Analyses",
            subtab="Correspondence",
            generated_files={} if analysis["undefined"] else {data.sheet_file: data.sheet[0]},
        )
