"""The page of a network's optimised images: the four views of each unit in one place."""

from collections.abc import Iterator

from convatlas.gallery.context import GalleryContext, SitePage
from convatlas.gallery.dataset_thumbnails import DatasetThumbnails
from convatlas.gallery.feature_views import FeatureReader
from convatlas.gallery.network_data import NetworkData
from convatlas.records import FeatureVisualisation


def make_pages(context: GalleryContext) -> Iterator[SitePage]:
    """Yield the page of each network with optimised images.

    Args:
        context: The run that the site shows.
    """
    for network in context.list_analysed("feature_visualisation"):
        analysis = network.results.feature_visualisation
        if analysis is None:
            continue
        reader = FeatureReader(network, analysis, find_thumbnails(context, network))
        explorer = context.explorers.get(network.name)
        values = {
            "network": network,
            "analysis": analysis,
            "reader": reader,
            "summary": summarise(network),
            "explorer_layers": list(explorer.slugs) if explorer else [],
            "has_top_images": network.name in context.top_images,
        }
        yield SitePage(
            f"networks/{network.name}-feature-visualisation.html",
            "feature_visualisation.html",
            f"{network.name}: feature visualisation",
            values,
            generated_files={} if analysis["undefined"] else reader.list_files(),
            network=network.name,
            tab="Analyses",
            subtab="Feature visualisation",
        )


def find_thumbnails(context: GalleryContext, network: NetworkData) -> DatasetThumbnails | None:
    """Return the source of thumbnails of a network's top-activating images; None without a data set.

    Args:
        context: The run that the site shows.
        network: The network.
    """
    top_images = context.top_images.get(network.name)
    if top_images is None or top_images.dataset is None:
        return None
    name, split = top_images.summary["dataset"], top_images.summary["split"]
    return DatasetThumbnails(
        name, context.data / name, context.get_previews_folder(name), context.datasets[name], split
    )


def summarise(network: NetworkData) -> str:
    """Return what the optimised images of a network show, in one sentence.

    Args:
        network: A network of which feature_visualisation.json is there.
    """
    analysis = network.results.feature_visualisation
    assert analysis is not None
    if analysis["undefined"] is not None:
        return f"Not computed: {analysis['undefined']}."
    parts = [text for text in (_summarise_units(analysis), _summarise_classes(analysis)) if text]
    return "; ".join(parts) + "." if parts else "No image could be optimised."


def _summarise_units(analysis: FeatureVisualisation) -> str:
    """Return how many units are reached, and how many exceed the data set's maximum."""
    units = [unit for layer in analysis["layers"] for unit in layer["units"]]
    if not units:
        return ""
    reached = [unit for unit in units if unit["reached"]]
    text = f"Images of {len(reached)} of {len(units)} units activate them more than noise does"
    compared = [
        unit for unit in reached if unit["dataset_maximum"] is not None and unit["maximum"] is not None
    ]
    if not compared:
        return text
    above = sum((unit["maximum"] or 0) > (unit["dataset_maximum"] or 0) for unit in compared)
    return f"{text}, {above} of them more than any image of the data set"


def _summarise_classes(analysis: FeatureVisualisation) -> str:
    """Return how many images of classes are predicted as their class."""
    classes = analysis["logits"]["classes"]
    if not classes:
        return ""
    own = sum(entry["predicted"] == entry["class"] for entry in classes)
    return f"{own} of {len(classes)} images of classes are predicted as their class"
