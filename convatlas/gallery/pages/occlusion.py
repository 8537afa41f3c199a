"""The page of what a grey square over each part of a network's sample images changes."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from convatlas.analysis.registry import BY_NAME, is_computed
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.occlusion_data import OcclusionReader, summarise_occlusion
from convatlas.pipeline.config_types import Config


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network whose sample images were occluded.

    Args:
        context: The run that the site shows.
    """
    config = cast(Config, context.config)
    for network in context.networks:
        analysis = network.results.occlusion
        if analysis is None or not is_computed(config, network.name, BY_NAME["occlusion"]):
            continue
        values: dict[str, Any] = {"network": network, "analysis": analysis, "summary": summarise(network)}
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


def summarise(network: NetworkData) -> str:
    """Return what occlusion shows of a network, in one sentence.

    Args:
        network: A network of which occlusion.json is there.
    """
    return summarise_occlusion(network)
