"""The page on the ablation of a network's units and layers."""

from collections.abc import Iterator
from typing import Any

from convatlas.gallery.ablation_data import EFFECTS, KINDS, MEASURES, AblationReader, read_ablation
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.table_data import dump_table

MAX_FIRST_ROWS = 30  # of the table of all units that the page has without its script
N_OPEN_LAYERS = 4  # whose curves are unfolded


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network of which units are ablated.

    Args:
        context: The run that the site shows.
    """
    for network in context.list_analysed("ablation"):
        analysis = network.results.ablation
        if analysis is None:
            continue
        values: dict[str, Any] = {"network": network, "analysis": analysis}
        if reader := read_ablation(context.config, network):
            explorer = context.explorers.get(network.name)
            values |= _describe(reader, list(explorer.slugs) if explorer else [])
            values["has_top_images"] = network.name in context.top_images
        yield SitePage(
            f"networks/{network.name}-ablation.html",
            "ablation.html",
            f"{network.name}: ablation",
            values,
            network=network.name,
            tab="Analyses",
            subtab="Ablation",
        )


def _describe(reader: AblationReader, explorer_layers: list[str]) -> dict[str, Any]:
    """Return the values of the template for an ablation that is defined."""
    columns = reader.make_columns(explorer_layers)
    n_rows = len(columns[0].values)
    return {
        "reader": reader,
        "curves": list(reader.list_curves()),
        "n_open": N_OPEN_LAYERS,
        "units": reader.list_units(),
        "columns": columns,
        "table_json": dump_table(columns),
        "n_rows": n_rows,
        "n_first_rows": min(n_rows, MAX_FIRST_ROWS),
        "explorer_layers": explorer_layers,
        "kinds": KINDS,
        "measure": MEASURES[reader.analysis["measure"]],
        "effect_title": EFFECTS[reader.analysis["measure"]],
    }


def summarise(network: NetworkData) -> str:
    """Return what the ablation of a network shows, in one sentence.

    Args:
        network: A network of which ablation.json is there.
    """
    analysis = network.results.ablation
    assert analysis is not None
    if analysis["undefined"] is not None:
        return f"Not computed: {analysis['undefined']}."
    return AblationReader(network, analysis).list_findings()[0]
