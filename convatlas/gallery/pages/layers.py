"""The pages of a network's layers: tables of all layers, and figures of those without room elsewhere."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.layer_pages import find_figure_pages, select_matches, split_figures, split_tables


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the pages with tables, and those with figures, of each network.

    Args:
        context: The run that the site shows.
    """
    for network in context.networks:
        # Links to the figures, as seen from networks/; "" leads to the network's page.
        figure_pages = {
            name: file or f"{network.name}.html" for name, file in find_figure_pages(network).items()
        }
        for template, pages in (
            ("layers.html", split_tables(network)),
            ("figures.html", split_figures(network)),
        ):
            for page in pages:
                values = {
                    "network": network,
                    "layer_page": page,
                    "layer_pages": pages,
                    "figure_pages": figure_pages,
                    "match_rows": select_matches(network, page.layers),
                    "explorer_data": context.explorers.get(network.name),
                }
                yield SitePage(
                    f"networks/{page.file}",
                    template,
                    page.title,
                    values,
                    network=network.name,
                    tab="Layers",
                )
