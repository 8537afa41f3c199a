"""The overview of a network's analyses: what each answers, its result, or what it lacks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from convatlas.analysis import registry
from convatlas.analysis.registry import Analysis
from convatlas.gallery import correspondence_data, effective_field_data, invariance_text
from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.occlusion_data import summarise_occlusion
from convatlas.gallery.pages import (
    ablation,
    concepts,
    evolution,
    feature_visualisation,
    similarity,
)
from convatlas.pipeline.config_types import Config

TAB = "Analyses"
# What the page of an analysis shows of a network, in one sentence, by the name of the analysis.
SUMMARIES: Mapping[str, Callable[[NetworkData], str]] = {
    "evolution": evolution.summarise,
    "ablation": ablation.summarise,
    "occlusion": summarise_occlusion,
    "feature_visualisation": feature_visualisation.summarise,
    "invariance": invariance_text.summarise,
    "correspondence": correspondence_data.summarise,
    "similarity": similarity.summarise,
    "effective_receptive_field": effective_field_data.summarise,
    "concepts": concepts.summarise,
}


@dataclass(frozen=True)
class AnalysisEntry:
    """An analysis in the overview.

    Attributes:
        analysis: Its description.
        path: Its page, from the site's root; None where it was not computed.
        text: Its result in one sentence, what it lacks, or how it is turned on.
    """

    analysis: Analysis
    path: str | None
    text: str


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the overview of each network of which the config asks for an analysis.

    Args:
        context: The run that the site shows.
    """
    config = cast(Config, context.config)
    for network in context.networks:
        if not any(registry.is_requested(config, network.name, analysis) for analysis in registry.ANALYSES):
            continue
        entries = [describe_analysis(config, network, analysis) for analysis in registry.ANALYSES]
        values = {
            "network": network,
            "computed": [entry for entry in entries if entry.path],
            "others": [entry for entry in entries if not entry.path],
        }
        path = f"networks/{network.name}-analyses.html"
        title = f"{network.name}: analyses"
        yield SitePage(path, "analyses.html", title, values, network=network.name, tab=TAB, subtab="Overview")


def describe_analysis(config: Config, network: NetworkData, analysis: Analysis) -> AnalysisEntry:
    """Describe an analysis for the overview of a network.

    Args:
        config: The resolved config.
        network: The network.
        analysis: An entry of the registry.
    """
    if registry.is_computed(config, network.name, analysis):
        path = f"networks/{network.name}-{analysis.slug}.html"
        return AnalysisEntry(analysis, path, SUMMARIES[analysis.name](network))
    obstacle = registry.find_obstacle(config, network.name, analysis)
    if registry.is_requested(config, network.name, analysis):
        return AnalysisEntry(analysis, None, f"Not computed: {obstacle}.")
    if obstacle:
        return AnalysisEntry(analysis, None, f"Off, and not possible: {obstacle}.")
    return AnalysisEntry(analysis, None, f"Off. views.{analysis.name}: {{}} turns it on.")
