"""Write what a network computes on its sample images: layers.json, filters.npz, activations/, images.json."""

import logging
from pathlib import Path
from typing import TypedDict

import torch

from convatlas.datasets import formats
from convatlas.datasets.sample_images import choose_images
from convatlas.files import atomic_write, write_json, write_npz
from convatlas.layer_selection import choose_layers
from convatlas.models import build
from convatlas.names import describe_non_finite, list_precisions
from convatlas.pipeline import size_estimate
from convatlas.pipeline.config_types import ImagesConfig, LayerSelection, RecordConfig
from convatlas.records import Layer, NonFiniteLayer
from convatlas.tracing import kernel_taps
from convatlas.tracing.calls import composite_modules
from convatlas.tracing.config_checks import choose_blocks
from convatlas.tracing.layers import trace_layers
from convatlas.tracing.record import collect_filters, compare_with_record, record_to_file

log = logging.getLogger(__name__)

DEFAULT_LEVELS = 64  # default of views.atlas.levels, of which the record does not depend


class RecordSettings(TypedDict):
    """What is recorded of a network."""

    images: ImagesConfig
    record: RecordConfig
    downsample_name: str
    layers: list[str | int]  # those that other stages will select, composite modules among them
    explored_layers: LayerSelection  # those in the explorer, for an estimate of its size


def record_results(
    folder: str | Path,
    settings: RecordSettings,
    device: torch.device,
    data: str | Path | None = None,
    key: str = "network",
) -> None:
    """Record the layers and filters of a network, and the outputs of all layers on its sample images.

    Args:
        folder: The network's folder, results/<network>, with its weights.
        settings: What is recorded.
        device: Where the network runs.
        data: The data set's folder, data/<dataset>, if the network has one.
        key: The place of the network in the config, for error messages.

    Raises:
        UserError: A layer or image that the settings name does not exist, or a file cannot be written; with
            `record: {verify: true}`, a layer does not give the same output again.
    """
    folder = Path(folder)
    network, preprocessing = build.load_network(folder)
    network.to(device)
    composite = composite_modules(network)
    traced = network, preprocessing.shape, settings["downsample_name"]
    layers, computed_filters = trace_layers(*traced)
    if blocks := choose_blocks(network, layers, settings["layers"]):
        layers, computed_filters = trace_layers(*traced, blocks)
    choose_layers(layers, settings["layers"], f"{key}.views.layers", extra_names=composite)
    explored = choose_layers(layers, settings["explored_layers"], f"{key}.views.atlas.layers")
    write_json(folder / "layers.json", layers)
    for line in kernel_taps.format_notes(layers):
        log.warning("%s", line)
    for line in list_precisions(layers):
        log.info("%s", line)
    filters = {
        name: weight.cpu().numpy() for name, weight in collect_filters(network, computed_filters).items()
    }
    write_npz(folder / "filters.npz", filters)

    test = formats.load(data, "test") if data else None
    dtype, compress, verify = (
        settings["record"]["dtype"],
        settings["record"]["compress"],
        settings["record"]["verify"],
    )
    output = build.read_output(folder)
    entries = []
    with atomic_write(folder / "activations") as activations:
        activations.mkdir()
        images = choose_images(
            settings["images"], network, preprocessing, test, device, f"{key}.images", output
        )
        for image in images:
            path = activations / f"{image.name}.npz"
            non_finite: list[NonFiniteLayer] = []
            result = record_to_file(network, image.x, path, blocks, dtype, compress, non_finite, verify)
            entry = image.to_dict(output.predict(result), output.is_multi_label)
            log.info("recorded %s: %.1f MB", image.name, path.stat().st_size / 1e6)
            if non_finite:
                entry["non_finite"] = non_finite
                log.warning("%s: %s", image.name, describe_non_finite(non_finite))
            entries.append(entry)
        if verify and images:
            first = images[0]
            compare_with_record(network, first.x, activations / f"{first.name}.npz", blocks, dtype)
            log.info("verified: each layer gives its recorded output, bit for bit, when it is applied again")
    write_json(folder / "images.json", entries)
    _log_explorer_size(layers, explored, len(entries))


def _log_explorer_size(layers: list[Layer], explored: list[str], image_count: int) -> None:
    """Log the expected size of the explorer, with the keys that limit it."""
    size = size_estimate.estimate_sprite_sheets(layers, explored, image_count, DEFAULT_LEVELS)
    log.info(
        "the explorer's %d layers on %s will take about %s of the gallery, in %d levels; "
        "views.atlas.layers and views.atlas.levels limit it",
        len(explored),
        size_estimate.format_image_count(image_count),
        size_estimate.format_megabytes(size),
        DEFAULT_LEVELS,
    )
