"""The page of what a grey square over each part of a network's sample images changes."""

from collections.abc import Iterator, Mapping
from typing import Any

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.occlusion_data import OcclusionReader, summarise_occlusion


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network whose sample images were occluded.

    Args:
        context: The run that the site shows.
    """
    for network in context.list_analysed("occlusion"):
        analysis = network.results.occlusion
        if analysis is None:
            continue
        summary = summarise_occlusion(network)
        values: dict[str, Any] = {"network": network, "analysis": analysis, "summary": summary}
        pictures: Mapping[str, bytes] = {}
        if analysis["undefined"] is None:
            reader = OcclusionReader(network, analysis)
            values["images"] = reader.read_images()
            pictures = reader.pictures
        yield SitePage(
            f"networks/{network.name}-occlusion.html",
            "occlusion.html",
            f"{network.name}: occlusion",
            values,
            generated_files=pictures,
            network=network.name,
            tab="Analyses",
            subtab="Occlusion",
        )
