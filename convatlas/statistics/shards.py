"""A pass over a data set in parts: which batches are whose, the file of a part, and the merge. No torch here.

The set is divided into batches of one fixed size, and a shard is a whole number of them. A shard's file
holds sums as `statistics.Pairwise` keeps them, so that the merged ones are the same, bit for bit, however
many shards there are.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import convatlas
from convatlas import UserError
from convatlas.datasets import formats
from convatlas.files import Npz, read_json, sha256, write_npz
from convatlas.statistics.units import PairwiseSum, TopActivations, UnitCounts, UnitSums

FORMAT_VERSION = 5
MISMATCH_REASONS = {  # what a shard must share with the run, and what one is of that does not
    "format": "another version of convatlas",
    "versions": "other versions",
    "weights": "another network's weights",
    "network": "another network",
    "dataset": "another data set",
    "split": "another split",
    "settings": "other settings",
}
SHARED_KEYS = (
    "layers",
    "batch",
    "images",
    "class_source",
    "classes",
    "device",
)  # what shards must share with each other


def shard_batches(shard: int, shards: int, batches: int) -> range:
    """The batches of a shard: as many as of any other, or one more or less, perhaps none."""
    return range(batches * shard // shards, batches * (shard + 1) // shards)


def fingerprint_run(folder: str | Path, data: str | Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What decides a shard's numbers, by which one of another run is told.

    `folder` is results/<network>, `data` the data set's folder, and `settings` has `split` and what else
    is asked for.
    """
    network = read_json(Path(folder) / "network.json")
    built = {key: network[key] for key in ("architecture", "arguments", "preprocessing")}
    return {
        "format": FORMAT_VERSION,
        "versions": {name: version(name) for name in ("torch", "numpy", "numba")}
        | {"convatlas": convatlas.__version__},
        "weights": sha256(Path(folder) / "weights.safetensors"),
        "network": hashlib.sha256(json.dumps(built, sort_keys=True).encode()).hexdigest(),
        "dataset": formats.describe(data)["sha256"],
        "split": settings["split"],
        "settings": {key: settings[key] for key in sorted(settings) if key != "split"},
    }


@dataclass(frozen=True)
class PassResult:
    """What a pass found: of a shard, or of the whole set."""

    sums: PairwiseSum
    counts: UnitCounts
    top: TopActivations


def write_shard(path: str | Path, described: dict[str, Any], found: PassResult) -> None:
    """Write a shard's file; `described` is `about` with what is told of the shard itself."""
    units, nodes = len(found.counts.zero_count), found.sums.nodes
    by_class = [
        (n, label, row) for n, (_, _, sums) in enumerate(nodes) for label, row in sums.class_sums.items()
    ]

    def rows(arrays: list[np.ndarray]) -> np.ndarray:
        return np.array(arrays, np.float64).reshape(-1, units)

    write_npz(
        path,
        {
            "description": np.frombuffer(json.dumps(described).encode(), np.uint8),
            "nodes": np.array([node[:2] for node in nodes], np.int64).reshape(-1, 2),
            "mean_sums": rows([sums.mean_sum for _, _, sums in nodes]),
            "square_sums": rows([sums.square_sum for _, _, sums in nodes]),
            "class_nodes": np.array([row[:2] for row in by_class], np.int64).reshape(-1, 2),
            "class_sums": rows([row for _, _, row in by_class]),
            "images": np.array(found.counts.image_count, np.int64),
            "class_counts": found.counts.class_counts,
            "zero_count": found.counts.zero_count,
            "max": found.counts.max,
            "top_values": found.top.values,
            "top_images": found.top.images,
            "top_positions": found.top.flat_positions,
        },
    )


def read_about(path: str | Path) -> dict[str, Any]:
    """What a shard's file says of itself. Raises UserError where it is missing or damaged."""
    return _parse_description(Npz(path))


def read_shard(path: str | Path) -> tuple[dict[str, Any], PassResult]:
    """Read a shard's file. Raises UserError, which names it, where it is missing or damaged."""
    file = Npz(path)
    described = _parse_description(file)
    try:
        classes: list[dict[int, np.ndarray]] = [{} for _ in file["nodes"]]
        for (node, label), row in zip(file["class_nodes"].tolist(), file["class_sums"], strict=True):
            classes[node][label] = row
        nodes = [
            (level, index, UnitSums(*sums))
            for (level, index), *sums in zip(
                file["nodes"].tolist(), file["mean_sums"], file["square_sums"], classes, strict=True
            )
        ]
        counts = UnitCounts(int(file["images"]), file["class_counts"], file["zero_count"], file["max"])
        return described, PassResult(
            PairwiseSum(nodes),
            counts,
            TopActivations(file["top_values"], file["top_images"], file["top_positions"]),
        )
    except (IndexError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run again") from error


def _parse_description(file: Npz) -> dict[str, Any]:
    try:
        return json.loads(bytes(file["description"]))
    except (KeyError, ValueError) as error:
        raise UserError(f"{file.path} is no shard of a pass ({error}); delete it and run again") from error


def merge_shards(paths: Iterable[str | Path], expected: dict[str, Any]) -> tuple[dict[str, Any], PassResult]:
    """Merge shards, given in their order, one at a time; gives what the first says of itself, and all found.

    `skipped` there is what was skipped in all of them. Raises UserError, which names the file, for a shard
    of another run than `expected` (as `about` has it), of other batches than its place says, or damaged.
    """
    paths = list(paths)
    first: dict[str, Any] = {}
    skipped: list[dict[str, Any]] = []
    whole: PassResult | None = None
    for number, path in enumerate(paths):
        described, found = read_shard(path)
        _check_shard(path, described, expected, first or described, number, len(paths))
        first = first or described
        skipped += described["skipped"]
        if whole is None:
            whole = found
            continue
        for node in found.sums.nodes:
            whole.sums.push(*node)
        whole = PassResult(whole.sums, whole.counts + found.counts, whole.top.merge(found.top))
    if whole is None:
        raise UserError("no shard is given to merge")
    if not whole.counts.image_count:
        raise UserError(f"none of the {first['images']} images of the split {first['split']} can be read")
    return first | {"skipped": skipped}, whole


def _check_shard(
    path: str | Path,
    described: dict[str, Any],
    expected: dict[str, Any],
    first: dict[str, Any],
    number: int,
    shards: int,
) -> None:
    again = "delete it and run again"
    for key, words in MISMATCH_REASONS.items():
        if described.get(key) != expected[key]:
            raise UserError(
                f"{path} was made of {words} ({key}: {_format_difference(described.get(key), expected[key])}); {again}"
            )
    batches = shard_batches(number, shards, -(-first["images"] // first["batch"]))
    if described["batches"] != [batches.start, batches.stop]:
        raise UserError(
            f"{path} holds the batches {described['batches']} of the set, not those of shard {number} of "
            f"{shards}, {[batches.start, batches.stop]}; {again}"
        )
    for key in SHARED_KEYS:
        if described[key] != first[key]:
            differ = _format_difference(described[key], first[key])
            raise UserError(f"{path} does not go with the shards before it ({key}: {differ}); {again}")


def _format_difference(theirs: Any, ours: Any) -> str:
    """Two values that differ, in few words: of mappings what differs in them, of hashes the start."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
        return ", ".join(f"{key} {_format_difference(theirs.get(key), ours.get(key))}" for key in keys)
    return f"{str(theirs)[:12]}, not {str(ours)[:12]}" if isinstance(ours, str) else f"{theirs}, not {ours}"
