"""The page of a network's effective receptive fields."""

from collections.abc import Iterator

from convatlas.analysis import registry
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.effective_field_data import CHART_BAND, EffectiveFields
from convatlas.gallery.value_grid import VIRIDIS

ANALYSIS = registry.BY_NAME["effective_receptive_field"]


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network whose effective receptive fields were measured.

    Args:
        context: The run that the site shows.
    """
    for network in context.list_analysed(ANALYSIS.name):
        fields = EffectiveFields.read(network)
        if fields is None:
            continue
        yield SitePage(
            f"networks/{network.name}-{ANALYSIS.slug}.html",
            "effective_receptive_field.html",
            f"{network.name}: effective receptive field",
            {
                "network": network,
                "fields": fields,
                "findings": list(fields.list_findings()),
                "colours": VIRIDIS,
                "band": CHART_BAND,
            },
            network=network.name,
            tab="Analyses",
            subtab=ANALYSIS.title,
        )
