"""The page of a network."""

from collections.abc import Iterator

from convatlas.gallery.attribution_specificity import (
    SpecificityRow,
    describe_low_specificity,
    list_specificity,
)
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.diagram_maps import DiagramLinks
from convatlas.gallery.layer_pages import (
    MAX_INLINE_ROWS,
    find_figure_pages,
    select_matches,
    split_figures,
)
from convatlas.gallery.model_cards import format_model_card, name_card
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.network_result import read_result
from convatlas.gallery.pages.attribution import RAMPS, format_page_name, has_attribution
from convatlas.gallery.pages.errors import has_errors, list_confusions
from convatlas.gallery.pages.units import has_statistics
from convatlas.gallery.preview import compress_cover
from convatlas.gallery.published_files import hide_paths_in_json, list_published_files
from convatlas.gallery.references import cite_run, find_network_reference
from convatlas.gallery.run_info import compute_run_id

MAX_PREDICTIONS = 20  # classes of an image that the table names, of a multi-label network


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network, with its figures, result files and explorer.

    Args:
        context: The run that the site shows.
    """
    for network in context.networks:
        explorer = context.explorers.get(network.name)
        is_attributed = has_attribution(context, network)
        specificity = select_deconvnet_specificity(network) if is_attributed else []
        published = list_published_files(context, network.name)
        maps = context.diagram_maps.get(network.name)
        figure_pages = find_figure_pages(network)
        result = read_result(context, network)
        values = {
            "network": network,
            "result": result,
            "ramps": RAMPS,
            "model_card": name_card(network.name),
            "published_files": {path: source.stat().st_size for path, source in published.items()},
            "layer_pages": split_figures(network),
            "figure_pages": figure_pages,
            "diagram_maps": maps,
            "diagram_image": result.first_image,
            "diagram_links": DiagramLinks(maps, figure_pages, explorer.slugs if explorer else ()),
            "match_rows": select_matches(network),
            "max_inline_rows": MAX_INLINE_ROWS,
            "max_predictions": MAX_PREDICTIONS,
            "has_statistics": has_statistics(context, network),
            "has_errors": has_errors(network),
            "confusions": list_confusions(network),
            "explorer_data": explorer,
            "attribution_file": format_page_name(network.name) if is_attributed else None,
            "specificity": specificity,
            "low_specificity": describe_low_specificity(specificity),
        }
        files = {f"figures/{network.name}": network.results.folder / "figures", **published}
        generated_files: dict[str, str | bytes] = {
            **_compress_covers(network),
            **hide_paths_in_json(published),
            **result.pictures,
            name_card(network.name): _write_model_card(context, network),
        }
        if explorer:
            files |= explorer.files
            generated_files |= explorer.generated_files
        if maps:
            generated_files |= maps.generated_files
        path = f"networks/{network.name}.html"
        yield SitePage(
            path,
            "network.html",
            network.name,
            values,
            "Networks",
            files,
            explorer.sheets if explorer else {},
            generated_files,
            network.name,
            "Overview",
        )


def select_deconvnet_specificity(network: NetworkData) -> list[SpecificityRow]:
    """Select how specific the deconvnet projections of each layer are.

    Args:
        network: A network with attribution maps.
    """
    analysis = network.results.attribution
    rows = analysis["specificity"] if analysis else []
    return list_specificity([row for row in rows if row["method"] == "deconvnet"], {})


def _write_model_card(context: GalleryContext, network: NetworkData) -> str:
    """Write the model card of a network, with its publication and the reference of the run."""
    citation = context.config["networks"].get(network.name, {}).get("citation")
    reference = find_network_reference(network.description, network.name, citation)
    run_id = compute_run_id(context.config, [network.description for network in context.networks])
    return format_model_card(network, reference, cite_run(context.config, run_id))


def _compress_covers(network: NetworkData) -> dict[str, bytes]:
    """Compress the covers whose PNG is too large for the first screen, by their places in the site."""
    return {
        f"figures/{network.name}/{figure['display_file']}": compress_cover(
            network.results.folder / "figures" / figure["file"]
        )
        for figure in network.figures
        if figure["display_file"] != figure["file"]
    }
