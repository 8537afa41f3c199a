"""Merge the shards of a network's pass over a data set: its statistics, and the strongest of every unit."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convatlas import cli
from convatlas.files import npz_writer, read_json, write_json
from convatlas.statistics import shards
from convatlas.statistics import units as units_module

LayerEntry = dict[str, Any]


def main(given: argparse.Namespace) -> None:
    folder = Path(given.output)
    paths = [folder / "shards" / f"{shard}.npz" for shard in range(given.shards)]
    described, found = shards.merge_shards(paths, shards.fingerprint_run(folder, given.data, given.settings))
    k = min(given.settings["k"], found.counts.image_count)
    if k < given.settings["k"]:
        cli.log.warning("views.strongest.k is %d, and there are %d images", given.settings["k"], k)
    types = {layer["name"]: layer["type"] for layer in read_json(folder / "layers.json")}
    with npz_writer(folder / "statistics.npz") as write:
        for name, array in iter_statistics_arrays(described["layers"], found, k, types):
            write(name, array)
    write_json(
        folder / "statistics.json",
        {
            "dataset": Path(given.data).name,
            "dataset_sha256": described["dataset"],
            "split": described["split"],
            "images": found.counts.image_count,
            "skipped": described["skipped"],
            "k": k,
            "class_source": described["class_source"],
            "classes": described["classes"],
            "class_images": found.counts.class_counts.tolist(),
            "layers": [
                summarize_layer(layer, place, found, types)
                for layer, place in units_module.iter_unit_slices(described["layers"])
            ],
        },
    )
    cli.log.info("merged %d shards: %d images", given.shards, found.counts.image_count)
    for skipped in described["skipped"]:
        cli.log.warning("left out: image %d, %s (%s)", *(skipped[key] for key in ("image", "name", "reason")))


def iter_statistics_arrays(
    layers: list[LayerEntry], found: shards.PassResult, k: int, types: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """What statistics.npz holds: `<layer>@<what>`, of all units of a layer."""
    total = found.sums.total()
    for layer, units in units_module.iter_unit_slices(layers):
        name, area = layer["name"], math.prod(layer["shape"][1:])
        for what, array in units_module.compute_statistics(
            total.select_units(units), found.counts.select_units(units), area
        ).items():
            yield f"{name}@{what}", array
        yield f"{name}@dead", units_module.find_dead_units(found.counts.max[units], types.get(name, ""))
        yield f"{name}@values", found.top.values[units, :k]
        yield f"{name}@images", found.top.images[units, :k]
        yield (
            f"{name}@positions",
            units_module.unravel_positions(found.top.flat_positions[units, :k], layer["shape"]),
        )


def summarize_layer(
    layer: LayerEntry, units: slice, found: shards.PassResult, types: dict[str, str]
) -> LayerEntry:
    """A layer's entry in statistics.json."""
    dead = units_module.find_dead_units(found.counts.max[units], types.get(layer["name"], ""))
    return {"name": layer["name"], "units": layer["shape"][0], "dead": np.flatnonzero(dead).tolist()}


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        "what its shards were made with, as scripts/dataset_pass.py takes it",
        "its folder, results/<network>, where its shards are",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    parser.add_argument("--shards", type=int, default=1, help="how many shards there are")
    cli.run(main, parser)
