"""Compare a network's maps and filters with classical operators, beside those of an untrained network."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convatlas import cli
from convatlas.analysis import classical, kernels
from convatlas.analysis.classical import COLUMN_CAPTIONS, MapGrid
from convatlas.files import Npz, atomic_write, read_json, write_json, write_npz
from convatlas.image_io import denormalize
from convatlas.models import build
from convatlas.tracing import record

LayerCorrelations = dict[
    str, list[np.ndarray]
]  # a layer's correlations with COLUMNS, (units, columns), an image each


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    device = build.choose_device(given.device)
    output = Path(given.output)
    description = read_json(output / "network.json")
    layers = {layer["name"]: layer for layer in read_json(output / "layers.json") if is_comparable(layer)}
    images = [image["name"] for image in read_json(output / "images.json")]
    records = {name: Npz(output / f"activations/{name}.npz") for name in images}
    undo = description["preprocessing"]
    seen = {name: classical.compute_features(denormalize(records[name]["input"], undo)) for name in images}
    untrained, _ = build.build_from_description(description, seed=description["seed"] + 1)
    untrained.to(device)

    learned: LayerCorrelations = {layer: [] for layer in layers}
    chance: LayerCorrelations = {layer: [] for layer in layers}
    for name in images:
        compared = ImageComparison(seen[name], layers)
        for layer in layers:
            learned[layer].append(compared.correlate(layer, records[name][layer]))

        def see(layer: str, output: torch.Tensor, compared: ImageComparison = compared) -> None:
            chance[layer].append(compared.correlate(layer, output[0].cpu().numpy()))

        x = torch.from_numpy(records[name]["input"])[None].to(device)
        record.for_each_layer(untrained, x, layers, see)
        cli.log.info("compared %d layers on %s", len(layers), name)

    with atomic_write(output / "classical") as folder:
        folder.mkdir()
        for name in images:
            write_npz(folder / f"{name}.npz", seen[name])
        found = {
            layer: _match_layer(learned[layer], chance[layer], given.settings["match"]) for layer in layers
        }
        write_json(folder / "units.json", {"threshold": given.settings["match"], "layers": found})
        write_json(folder / "filters.json", match_first_filters(output))


def is_comparable(layer: dict[str, Any]) -> bool:
    """Whether a layer makes maps that are large enough to resemble something."""
    shape = layer["output_shape"] or []
    return layer["called"] and len(shape) == 3 and min(shape[1:]) >= classical.MIN_MAP_SIZE


class ImageComparison:
    """One image's classical features at the sizes of a network's maps, each brought there once."""

    def __init__(self, features: dict[str, np.ndarray], layers: dict[str, dict[str, Any]]) -> None:
        self.features, self.layers = features, layers
        self.resampled: dict[Any, dict[str, np.ndarray]] = {}

    def correlate(self, layer: str, maps: np.ndarray) -> np.ndarray:
        """The correlations of a layer's maps (units, h, w): (units, columns)."""
        size, grid = maps.shape[1:], grid_from_layer(self.layers[layer])
        if (size, grid) not in self.resampled:
            self.resampled[size, grid] = classical.resample_columns(self.features, size, grid)
        return classical.correlate_maps(maps, self.resampled[size, grid])


def grid_from_layer(layer: dict[str, Any]) -> MapGrid | None:
    """Where a layer's cells lie: at the middles of their receptive fields; None where these are not known."""
    if layer["receptive_start"] is None:
        return None
    start = [s + (f - 1) / 2 for s, f in zip(layer["receptive_start"], layer["receptive_field"], strict=True)]
    return MapGrid(tuple(start), tuple(layer["receptive_step"]))


def _match_layer(learned: list[np.ndarray], chance: list[np.ndarray], threshold: float) -> dict[str, Any]:
    """A layer's entry in units.json: its baseline, and each unit's match, null where none is claimed."""
    baseline = classical.untrained_baseline(classical.mean_correlations(chance))
    found = classical.match_units(classical.mean_correlations(learned), baseline, threshold)
    return {
        "baseline": baseline,
        "units": [
            match
            and {"feature": match.feature, "description": COLUMN_CAPTIONS[match.feature], "r": match.correlation}
            for match in found
        ],
    }


def match_first_filters(output: Path) -> dict[str, Any] | None:
    """The first convolution's filters: each channel's nearest kernel, and how alike its channels are."""
    layer = next((each for each in read_json(output / "layers.json") if each["ordinal"] == 1), None)
    weights = Npz(output / "filters.npz")
    if layer is None or layer["module"] not in weights or weights[layer["module"]].ndim != 4:
        return None
    weight = weights[layer["module"]]
    found = kernels.match_kernels(weight)
    channels = kernels.channel_correlations(weight).tolist() if weight.shape[1] == 3 else None
    return {
        "layer": layer["name"],
        "baseline": kernels.random_baseline(weight.shape[-1]),
        "r": None if found is None else found[0].tolist(),
        "kernels": None if found is None else found[1],
        "channel_correlations": channels,  # of red with green, red with blue, green with blue
        "colour_classes": channels and [kernels.classify_channels(np.array(row)) for row in channels],
    }


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        'the least correlation that is claimed, {"match": 0.5}',
        "its folder, results/<network>, where its records are",
    )
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
