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

Layer = dict[str, Any]


def main(given: argparse.Namespace) -> None:
    folder = Path(given.output)
    paths = [folder / "shards" / f"{shard}.npz" for shard in range(given.shards)]
    described, found = shards.merge(paths, shards.about(folder, given.data, given.settings))
    k = min(given.settings["k"], found.counts.images)
    if k < given.settings["k"]:
        cli.log.warning("views.strongest.k is %d, and there are %d images", given.settings["k"], k)
    types = {layer["name"]: layer["type"] for layer in read_json(folder / "layers.json")}
    with npz_writer(folder / "statistics.npz") as write:
        for name, array in arrays(described["layers"], found, k, types):
            write(name, array)
    write_json(
        folder / "statistics.json",
        {
            "dataset": Path(given.data).name,
            "dataset_sha256": described["dataset"],
            "split": described["split"],
            "images": found.counts.images,
            "skipped": described["skipped"],
            "k": k,
            "by": described["by"],
            "classes": described["classes"],
            "class_images": found.counts.classes.tolist(),
            "layers": [
                summary(layer, place, found, types)
                for layer, place in units_module.spans(described["layers"])
            ],
        },
    )
    cli.log.info("merged %d shards: %d images", given.shards, found.counts.images)
    for skipped in described["skipped"]:
        cli.log.warning("left out: image %d, %s (%s)", *(skipped[key] for key in ("image", "name", "reason")))


def arrays(
    layers: list[Layer], found: shards.Found, k: int, types: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """What statistics.npz holds: `<layer>@<what>`, of all units of a layer."""
    total = found.sums.total()
    for layer, units in units_module.spans(layers):
        name, area = layer["name"], math.prod(layer["shape"][1:])
        for what, array in units_module.described(total.of(units), found.counts.of(units), area).items():
            yield f"{name}@{what}", array
        yield f"{name}@dead", units_module.dead(found.counts.maximum[units], types.get(name, ""))
        yield f"{name}@values", found.top.values[units, :k]
        yield f"{name}@images", found.top.images[units, :k]
        yield f"{name}@positions", units_module.positions(found.top.places[units, :k], layer["shape"])


def summary(layer: Layer, units: slice, found: shards.Found, types: dict[str, str]) -> Layer:
    """A layer's entry in statistics.json."""
    dead = units_module.dead(found.counts.maximum[units], types.get(layer["name"], ""))
    return {"name": layer["name"], "units": layer["shape"][0], "dead": np.flatnonzero(dead).tolist()}


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    cli.add_section(
        parser,
        "network",
        "what its shards were made with, as scripts/strongest.py takes it",
        "its folder, results/<network>, where its shards are",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    parser.add_argument("--shards", type=int, default=1, help="how many shards there are")
    cli.run(main, parser)
