"""The main findings of a network, each with the page that shows more of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from convatlas.gallery.attribution_data import choose_method
from convatlas.gallery.attribution_specificity import describe_low_specificity, list_specificity
from convatlas.gallery.context import GalleryContext
from convatlas.gallery.findings import describe_confusion
from convatlas.gallery.network_data import NetworkData
from convatlas.gallery.pages.attribution import format_page_name, has_attribution
from convatlas.gallery.pages.errors import has_errors, list_confusions
from convatlas.gallery.pages.units import has_statistics
from convatlas.records import AttributionAnalysis, AttributionMethod

MAX_MAIN_FINDINGS = 5
MIN_SELECTIVITY = 0.5  # of a unit that is named: its class has three times the mean of the others


@dataclass(frozen=True)
class Finding:
    """A finding.

    Attributes:
        text: One sentence or two.
        link_text: What the link leads to, "" without one.
        link: Its address, relative to the root of the site.
    """

    text: str
    link_text: str = ""
    link: str = ""


def list_main_findings(context: GalleryContext, network: NetworkData) -> list[Finding]:
    """List at most MAX_MAIN_FINDINGS findings, the most important first.

    Args:
        context: The run that the site shows.
        network: One of its networks.
    """
    findings = [
        *_describe_metrics(network),
        *_describe_confusion(network),
        *_describe_dead_units(context, network),
        *_describe_map(context, network),
        *_describe_emergence(network),
        *_describe_selective_unit(context, network),
        *_describe_specificity(context, network),
        *_describe_skipped_files(network),
        *_list_other_findings(context, network),
    ]
    return findings[:MAX_MAIN_FINDINGS]


def _describe_metrics(network: NetworkData) -> Iterator[Finding]:
    """State what was measured on the test split."""
    metrics = network.metrics
    page = f"networks/{network.name}-errors.html" if has_errors(network) else ""
    if "mean_iou" in metrics:
        classes = ", ".join(f"{name} {iou:.2f}" for name, iou in metrics["iou"].items() if iou is not None)
        text = f"Test mean IoU {metrics['mean_iou']:.2f} on {metrics['images']:,} images: {classes}."
        yield Finding(text, "Images with the lowest IoU" if page else "", page)
    elif "accuracy" in metrics:
        text = f"Test accuracy {100 * metrics['accuracy']:.2f} % on {metrics['images']:,} images."
        yield Finding(text, "Most confident errors" if page else "", page)


def _describe_confusion(network: NetworkData) -> Iterator[Finding]:
    """State the most frequent confusion."""
    text = describe_confusion(network.metrics, network.description["classes"])
    if text:
        cells = list_confusions(network) if has_errors(network) else []
        link = f"networks/{network.name}-errors.html#{cells[0].anchor}" if cells else ""
        yield Finding(text, "Its images" if link else "", link)


def _describe_dead_units(context: GalleryContext, network: NetworkData) -> Iterator[Finding]:
    """Count the units of activation layers that are dead over the data set, and name the layer with most."""
    if not has_statistics(context, network):
        return
    summary = network.results.dataset_statistics
    layers = network.activation_statistics
    n_dead = sum(len(layer["dead"]) for layer in layers)
    n_units = sum(layer["units"] for layer in layers)
    if not n_dead:
        return
    worst = max(layers, key=lambda layer: len(layer["dead"]))
    images = f"{summary['images']:,} {'training' if summary['split'] == 'train' else 'test'} images"
    n_worst, verb = len(worst["dead"]), "is" if n_dead == 1 else "are"
    if n_dead == 1:
        where = f"unit {worst['dead'][0]} of {worst['name']}"
    else:
        share = "all" if n_worst == n_dead else "most"
        where = f"{share} in {worst['name']} ({n_worst} of {worst['units']})"
    text = (
        f"{n_dead:,} of the {n_units:,} units of activation layers {verb} dead, never positive on {images}: "
        f"{where}."
    )
    link = _link_layer(context, network, worst["name"], "&only=dead")
    yield Finding(text, f"Dead units of {worst['name']}", link)


def _describe_map(context: GalleryContext, network: NetworkData) -> Iterator[Finding]:
    """State whether the map that the page shows ranks pixels better than a random order."""
    analysis = network.results.attribution
    if analysis is None or not has_attribution(context, network):
        return
    method = choose_method(analysis)
    text = _measure_map(analysis, method) if method else ""
    if text:
        yield Finding(text, "All measurements", f"networks/{format_page_name(network.name)}#methods")


def _measure_map(analysis: AttributionAnalysis, method: AttributionMethod) -> str:
    """Compare the curves of a method with those of random orders; "" where none was measured."""
    better = {"deletion": 0, "insertion": 0}
    n_maps = 0
    for image in analysis["images"].values():
        for entry in image["maps"]:
            random_order = image["random_order"].get(str(entry["class"]))
            is_method = (entry["method"], entry["layer"]) == (method["name"], method["layer"])
            if not is_method or entry["deletion"] is None or entry["insertion"] is None or not random_order:
                continue
            n_maps += 1
            better["deletion"] += entry["deletion"]["auc"] < random_order["deletion"]["auc"]
            better["insertion"] += entry["insertion"]["auc"] > random_order["insertion"]["auc"]
    if not n_maps:
        return ""
    layer = f" at {method['layer']}" if method["layer"] else ""
    return (
        f"{method['title']}{layer} ranks pixels better than a random order on {better['deletion']} of "
        f"{n_maps} maps by deletion, and on {better['insertion']} by insertion."
    )


def _describe_emergence(network: NetworkData) -> Iterator[Finding]:
    """State where segmentation emerges."""
    for text in network.emergence_findings[:1]:
        first_sentence = text.partition(". ")[0].removesuffix(".")
        yield Finding(
            f"{first_sentence}.",
            "Where segmentation emerges",
            f"networks/{network.name}.html#segmentation-emergence",
        )


def _describe_selective_unit(context: GalleryContext, network: NetworkData) -> Iterator[Finding]:
    """Name the most class-selective unit, where its selectivity is at least MIN_SELECTIVITY."""
    if not has_statistics(context, network):
        return
    summary = network.results.dataset_statistics
    units = network.selective_units
    if summary["class_source"] != "label" or not units or units[0].selectivity < MIN_SELECTIVITY:
        return
    unit = units[0]
    text = (
        f"Most class-selective unit: {unit.unit} of {unit.layer}, mean {unit.class_mean:.2g} on "
        f"{unit.class_name} and {unit.other_classes_mean:.2g} on the other classes "
        f"(selectivity {unit.selectivity:.2f})."
    )
    link = _link_layer(context, network, unit.layer, f"&unit={unit.unit}&sort=selectivity")
    yield Finding(text, f"Unit {unit.unit}", link)


def _describe_specificity(context: GalleryContext, network: NetworkData) -> Iterator[Finding]:
    """Name a layer whose projections hardly differ from unit to unit."""
    analysis = network.results.attribution
    if analysis is None or not has_attribution(context, network):
        return
    rows = list_specificity([row for row in analysis["specificity"] if row["method"] == "deconvnet"], {})
    for sentence in describe_low_specificity(rows)[:1]:
        yield Finding(sentence, "Specificity", f"networks/{format_page_name(network.name)}#specificity")


def _describe_skipped_files(network: NetworkData) -> Iterator[Finding]:
    """State how many files of the data set were skipped."""
    skipped = network.dataset.get("skipped", []) if network.dataset else []
    if skipped:
        text = f"{len(skipped):,} file{'s' if len(skipped) > 1 else ''} of the data set could not be used."
        yield Finding(text, "Which and why", f"datasets/{network.description['dataset']}.html")


def _list_other_findings(context: GalleryContext, network: NetworkData) -> Iterator[Finding]:
    """List what stands out on the sample images, where units are not tracked over a data set."""
    if has_statistics(context, network):
        return
    confusion = describe_confusion(network.metrics, network.description["classes"])
    for sentence in network.findings:
        if sentence != confusion:
            yield Finding(sentence)


def _link_layer(context: GalleryContext, network: NetworkData, layer: str, fields: str) -> str:
    """Return the address of a layer in the explorer, or else of the page of the units."""
    explorer = context.explorers.get(network.name)
    if explorer and layer in explorer.slugs:
        return f"networks/{network.name}.html#layer={quote(layer, safe='/:')}{fields}"
    return f"networks/{network.name}-units.html"
