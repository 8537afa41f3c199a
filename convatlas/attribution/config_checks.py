"""Check attribution in the config against a network before it is trained: classes, layers, methods."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from convatlas import UserError
from convatlas.attribution.method_plan import AttributionSettings, plan_methods
from convatlas.attribution.sample_images import choose_image_names, find_obstacle
from convatlas.attribution.targets import find_class_errors
from convatlas.datasets import formats
from convatlas.layer_selection import MissingLayerError
from convatlas.models import class_names
from convatlas.models.output_choice import ClassCounts
from convatlas.models.output_kinds import decide_output
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.names import name_images
from convatlas.pipeline.config_types import DatasetConfig, NetworkConfig
from convatlas.tracing.config_checks import list_selected_layers

log = logging.getLogger(__name__)


def find_attribution_errors(
    network: nn.Module,
    preprocessing: Preprocessing,
    settings: NetworkConfig,
    key: str,
    datasets: Mapping[str, DatasetConfig],
) -> Iterator[str]:
    """Yield what is wrong with `views.attribution` of a network; log the methods that will be skipped.

    Args:
        network: The network, untrained, for two classes where their number comes from a data set.
        preprocessing: Its preprocessing.
        settings: Its section of the config; `images.files` without folders.
        key: Place of the section in the config.
        datasets: The data sets' sections of the config by name.
    """
    views = settings["views"]["attribution"]
    if views is None:
        return
    section = f"{key}.views.attribution"
    try:
        choose_image_names(name_images(settings["images"]), views["images"], f"{section}.images")
    except UserError as error:
        yield str(error)
    try:
        known = find_known_classes(network, preprocessing, settings, datasets, key)
    except UserError:  # which its own job reports
        return
    if obstacle := find_obstacle(preprocessing, known.output):
        log.info("%s: no attribution maps: %s", key, obstacle)
        return
    yield from find_class_errors(views["targets"], known.names, f"{section}.targets")
    attribution: AttributionSettings = {**views, "rectify": settings["views"]["deconv"]["rectify"]}
    entries = views["layers"] or []
    layers = list_selected_layers(network, preprocessing.shape, settings["downsample_name"], entries)
    try:
        plans = plan_methods(
            network, torch.zeros(1, *preprocessing.shape), known.output, layers, attribution, section
        )
    except MissingLayerError:  # reported with the other selections of layers
        return
    except UserError as error:
        yield str(error)
        return
    for plan in plans:
        if plan.undefined:
            log.info("%s: %s will be skipped: %s", section, plan.title, plan.undefined)


def find_relevance_errors(
    network: nn.Module,
    preprocessing: Preprocessing,
    settings: NetworkConfig,
    key: str,
    datasets: Mapping[str, DatasetConfig],
) -> Iterator[str]:
    """Yield what is wrong with `views.strongest.relevance` of a network: classes that it does not have.

    Args:
        network: As in `find_attribution_errors`.
        preprocessing: As in `find_attribution_errors`.
        settings: As in `find_attribution_errors`.
        key: As in `find_attribution_errors`.
        datasets: As in `find_attribution_errors`.
    """
    strongest = settings["views"]["strongest"] if settings.get("dataset") else None
    if not strongest or not strongest["relevance"]:
        return
    section = f"{key}.views.strongest.relevance"
    try:
        known = find_known_classes(network, preprocessing, settings, datasets, key)
    except UserError:  # which its own job reports
        return
    if known.output.kind == "none":
        yield f"{section}: the network has no class scores: {known.output.reason}; set it to null"
    else:
        yield from find_class_errors(strongest["relevance"], known.names, section)


def find_feature_visualisation_errors(
    network: nn.Module,
    preprocessing: Preprocessing,
    settings: NetworkConfig,
    key: str,
    datasets: Mapping[str, DatasetConfig],
) -> Iterator[str]:
    """Yield what is wrong with `views.feature_visualisation.classes` of a network: classes it does not have.

    Args:
        network: As in `find_attribution_errors`.
        preprocessing: As in `find_attribution_errors`.
        settings: As in `find_attribution_errors`.
        key: As in `find_attribution_errors`.
        datasets: As in `find_attribution_errors`.
    """
    views = settings["views"]["feature_visualisation"]
    if views is None or not isinstance(views["classes"], list):
        return
    try:
        known = find_known_classes(network, preprocessing, settings, datasets, key)
    except UserError:  # which its own job reports
        return
    if known.output.kind != "none":
        yield from find_class_errors(
            views["classes"], known.names, f"{key}.views.feature_visualisation.classes"
        )


@dataclass(frozen=True)
class KnownClasses:
    """What is known of a network's classes before its data set is prepared.

    Attributes:
        output: What the network's output means.
        names: Names of the classes; empty where they are not known.
    """

    output: Output
    names: list[str]


def find_known_classes(
    network: nn.Module,
    preprocessing: Preprocessing,
    settings: NetworkConfig,
    datasets: Mapping[str, DatasetConfig],
    key: str,
) -> KnownClasses:
    """Return what is known of a network's classes, as `prepare_network` will name them.

    Args:
        network: The network, untrained, for two classes where their number comes from a data set.
        preprocessing: Its preprocessing.
        settings: Its section of the config.
        datasets: The data sets' sections of the config by name.
        key: Place of the section in the config.

    Raises:
        UserError: The names cannot be read, or the output is not what the config says.
    """
    dataset, weights = settings.get("dataset"), settings.get("weights")
    is_built_for_two = bool(dataset) and not weights
    names = class_names.read_class_names(settings.get("classes"), f"{key}.classes") or []
    if isinstance(weights, str):
        names = names or class_names.list_weights_classes(settings["architecture"], weights, key)
    image_names, pixel_names = names, names
    if dataset and not names:
        pixel_names = list(formats.FORMATS[datasets[dataset]["format"]].MASK_CLASSES)
        image_names = formats.list_known_classes(f"data/{dataset}", datasets[dataset]) or []
    counts = [ClassCounts(len(image_names) or None, len(pixel_names) or None)]
    if is_built_for_two:  # unless its arguments set the number
        counts.insert(0, ClassCounts(2, 2))
    outputs = [
        decide_output(network, preprocessing, settings.get("output") or {}, count, key) for count in counts
    ]
    output = next((output for output in outputs if output.kind != "none"), outputs[-1])
    known = pixel_names if output.covers(preprocessing.shape[1:]) else image_names
    count = output.shape[0] if output.shape else 0
    if not is_built_for_two and not output.fits(len(known)):
        known = [str(number) for number in range(count)]
    if output.fits(len(known)):
        count = len(known)
    elif is_built_for_two and output.fits(2):
        count = 2
    return KnownClasses(replace(output, class_count=count), known)
