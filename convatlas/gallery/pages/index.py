"""The first page: the networks and data sets of the run."""

from collections.abc import Iterator
from dataclasses import dataclass

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.network_result import read_result
from convatlas.gallery.notes import render_markdown
from convatlas.gallery.pages.attribution import RAMPS, format_page_name, has_attribution
from convatlas.gallery.pages.errors import has_errors
from convatlas.gallery.pages.units import has_statistics
from convatlas.names import join_names

MAX_CARDS = 8  # networks; of more the page is a table


@dataclass(frozen=True)
class NetworkRow:
    """A network in the table of all networks.

    Attributes:
        network: The network.
        dead: Units of its activation layers that are dead; None without statistics over a data set.
        activation_units: Units of its activation layers.
        has_errors: Whether it has a page of its errors.
    """

    network: NetworkData
    dead: int | None
    activation_units: int
    has_errors: bool


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the first page.

    Args:
        context: The run that the site shows.
    """
    notes = render_markdown(context.config.get("notes", ""), "")
    segmented = [network.name for network in context.networks_with_masks]
    rows = []
    for network in context.networks:
        layers = network.activation_statistics if has_statistics(context, network) else []
        dead = sum(len(layer["dead"]) for layer in layers) if layers else None
        units = sum(layer["units"] for layer in layers)
        rows.append(NetworkRow(network, dead, units, has_errors(network)))
    carded = context.networks if len(context.networks) <= MAX_CARDS else []
    values = {
        "notes": notes,
        "network_rows": rows,
        "max_cards": MAX_CARDS,
        "explored_networks": [row.network.name for row in rows if row.network.name in context.explorers],
        "results": {network.name: read_result(context, network, is_card=True) for network in carded},
        "ramps": RAMPS,
        "networks_with_masks": join_names(segmented) if segmented else "",
        "diagram_maps": context.diagram_maps,
        "attribution_files": {
            network.name: format_page_name(network.name)
            for network in context.networks
            if has_attribution(context, network)
        },
    }
    yield SitePage("index.html", "index.html", "Contents", values)
