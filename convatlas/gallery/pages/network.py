"""The page of a network."""

from collections.abc import Iterator

from convatlas.gallery.attribution_specificity import (
    SpecificityRow,
    describe_low_specificity,
    list_specificity,
)
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.layer_pages import (
    MAX_INLINE_ROWS,
    find_figure_pages,
    select_matches,
    split_figures,
)
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.network_result import read_result
from convatlas.gallery.pages.attribution import RAMPS, format_page_name, has_attribution
from convatlas.gallery.pages.errors import has_errors, list_confusions
from convatlas.gallery.pages.units import has_statistics
from convatlas.gallery.preview import compress_cover
from convatlas.gallery.published_files import hide_paths_in_json, list_published_files

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
        result = read_result(context, network)
        values = {
            "network": network,
            "result": result,
            "ramps": RAMPS,
            "published_files": {path: source.stat().st_size for path, source in published.items()},
            "layer_pages": split_figures(network),
            "figure_pages": find_figure_pages(network),
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
        }
        if explorer:
            files |= explorer.files
            generated_files |= explorer.generated_files
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


def _compress_covers(network: NetworkData) -> dict[str, bytes]:
    """Compress the covers whose PNG is too large for the first screen, by their places in the site."""
    return {
        f"figures/{network.name}/{figure['display_file']}": compress_cover(
            network.results.folder / "figures" / figure["file"]
        )
        for figure in network.figures
        if figure["display_file"] != figure["file"]
    }
