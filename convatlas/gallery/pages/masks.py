"""The page on where segmentation emerges, across networks."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page, if a network was analysed on a data set with masks.

    Args:
        context: The run that the site shows.
    """
    if context.networks_with_masks:
        yield SitePage("masks.html", "masks.html", "Where segmentation emerges", group="Analyses")
