"""Write the evolution of a network's units: evolution/evolution.json and evolution.npz."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convatlas.attribution.evolution.convergence import (
    correlate_units,
    correlate_with_last,
    mean_known,
    measure_changes,
)
from convatlas.attribution.evolution.evolution import (
    EvolutionComputer,
    LayerEvolution,
    Snapshots,
    check_layers,
    project_layers,
)
from convatlas.attribution.evolution.selection import choose_layers
from convatlas.datasets import formats
from convatlas.datasets.loader import BatchLoader
from convatlas.files import atomic_write, npz_writer, write_json
from convatlas.models import build
from convatlas.pipeline.config_types import EvolutionViews
from convatlas.records import EvolutionAnalysis, EvolutionLayer
from convatlas.results import UNITS_SUFFIX, Results
from convatlas.training.snapshots import read_epochs, read_snapshot

log = logging.getLogger(__name__)

MAX_BATCH_VALUES = 2**20  # values of a batch of inputs
MAX_SAMPLES = 4  # sample images whose maps are recorded


class EvolutionSettings(EvolutionViews):
    """`views.evolution`, with `rectify` of `views.deconv`."""

    rectify: bool


def write_evolution(
    folder: str | Path,
    data: str | Path,
    settings: EvolutionSettings,
    device: torch.device,
    key: str = "views.evolution",
) -> None:
    """Write the folder evolution/ of a network that was trained with snapshots.

    evolution.npz holds, by layer, the strongest activations: <layer>@values, @images (epochs, units) and
    @positions (epochs, units, 2); of the units in @units @projections, @patches (epochs, units, C, h, w) and
    @corners, too, @maps (epochs, images, units, ...) and @filters (epochs, units, channels, ...).

    Args:
        folder: The network's folder, results/<network>, with its snapshots.
        data: The folder of its data set, data/<dataset>.
        settings: What is computed.
        device: Where the network runs.
        key: The place of the settings in the config, for error messages.

    Raises:
        UserError: A layer does not exist, or the snapshots are missing or of another training.
    """
    network, preprocessing = build.load_network(folder)
    network.to(device)
    results = Results(folder)
    names = choose_layers(results.layers, settings["layers"], key)
    snapshot_folder = results.folder / "snapshots"
    saved = read_epochs(snapshot_folder, results.network["weights"]["sha256"])
    epochs = [epoch for epoch in saved if epoch in (0, *settings["epochs"], saved[-1])]
    batch_size = max(1, MAX_BATCH_VALUES // math.prod(preprocessing.shape))
    images = BatchLoader(data, "train", preprocessing, batch_size, on_bad_image="skip")
    samples = [image["name"] for image in results.images[:MAX_SAMPLES]]
    computer = EvolutionComputer(
        network,
        results.layers,
        Snapshots(epochs, lambda epoch: read_snapshot(snapshot_folder, epoch)),
        images,
        _read_samples(results, samples, device),
        settings["rectify"],
    )
    strongest = computer.find_strongest(names, settings["images"])
    skipped = check_layers(names, strongest)
    layers: list[EvolutionLayer] = []
    used: set[int] = set()
    with atomic_write(results.folder / "evolution") as output:
        output.mkdir()
        with npz_writer(output / "evolution.npz") as write:
            write("epochs", np.array(epochs, np.int32))
            for name, evolution in project_layers(computer, strongest, settings["units"], skipped, names):
                for suffix, array in _list_arrays(evolution):
                    write(f"{name}{suffix}", array)
                layers.append(_describe_layer(name, evolution))
                used |= set(evolution.images[:, evolution.chosen].ravel().tolist()) - {-1}
                log.info("projected %d units of %s at %d epochs", len(evolution.chosen), name, len(epochs))
        training = results.network["training"] or {}
        total = len(images.dataset)
        analysis: EvolutionAnalysis = {
            "undefined": _describe_undefined(layers, skipped),
            "epochs": epochs,
            "missing_epochs": [epoch for epoch in settings["epochs"] if epoch > epochs[-1]],
            "best_epoch": training["best_epoch"],
            "averaged": training["ema_decay"] > 0,
            "images": min(settings["images"] or total, total),
            "split_images": total,
            "samples": samples,
            "image_classes": _list_classes(data, images, sorted(used)),
            "rectified": settings["rectify"],
            "layers": layers,
            "skipped": [{"name": name, "reason": reason} for name, reason in skipped.items()],
        }
        write_json(output / "evolution.json", analysis)


def _read_samples(results: Results, names: Sequence[str], device: torch.device) -> Tensor:
    """Return the inputs of sample images, (N, C, H, W) float32."""
    inputs = np.stack([results.activations(name)["input"] for name in names]).astype(np.float32)
    return torch.from_numpy(inputs).to(device)


def _list_arrays(evolution: LayerEvolution) -> list[tuple[str, np.ndarray]]:
    """Return the arrays of a layer with the ends of their names in evolution.npz."""
    names = ("values", "images", "positions", "projections", "patches", "corners", "maps", "filters")
    arrays = [(f"@{name}", getattr(evolution, name)) for name in names]
    arrays.append((UNITS_SUFFIX, evolution.chosen))
    return [(suffix, array) for suffix, array in arrays if array is not None]


def _describe_layer(name: str, evolution: LayerEvolution) -> EvolutionLayer:
    """Return what evolution.json says of a layer."""
    correlations = correlate_with_last(evolution.projections)
    return {
        "name": name,
        "n_units": evolution.values.shape[1],
        "units": evolution.chosen.tolist(),
        "filters": evolution.module,
        "correlation": [_to_json(mean_known(row)) for row in correlations],
        "correlated_units": np.isfinite(correlations).sum(1).tolist(),
        "between_units": _to_json(correlate_units(evolution.projections[-1])),
        "changed": [_to_json(share) for share in measure_changes(evolution.images).tolist()],
        "inactive": (evolution.images < 0).sum(1).tolist(),
    }


def _to_json(value: float) -> float | None:
    """Return a number rounded for JSON; None for NaN."""
    return None if math.isnan(value) else round(value, 6)


def _describe_undefined(layers: Sequence[EvolutionLayer], skipped: dict[str, str]) -> str | None:
    """Return why there is no layer at all; None where there is one."""
    if layers:
        return None
    if not skipped:
        return "no layer is selected; name layers in views.evolution.layers"
    name, reason = next(iter(skipped.items()))
    return f"{name}: {reason}"


def _list_classes(data: str | Path, images: BatchLoader, numbers: Sequence[int]) -> dict[str, str | None]:
    """Return the class of each of some training images by its number; None without a label."""
    classes = formats.describe(data)["classes"]
    labels = images.dataset.labels
    return {
        str(number): str(classes[labels[number]]) if 0 <= labels[number] < len(classes) else None
        for number in numbers
    }
