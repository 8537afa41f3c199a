"""The page on what to cite, and the file of BibTeX."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.references import join_bibtex, list_references
from convatlas.gallery.run_info import compute_run_id

BIBTEX_FILE = "references.bib"


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page.

    Args:
        context: The run that the site shows.
    """
    run_id = compute_run_id(context.config, [network.description for network in context.networks])
    groups = list_references(context.config, run_id, context.networks, context.datasets)
    values = {"groups": groups, "bibtex_file": BIBTEX_FILE}
    files: dict[str, str | bytes] = {BIBTEX_FILE: join_bibtex(groups)}
    yield SitePage("cite.html", "cite.html", "Cite", values, "Help", generated_files=files)
