"""Shards of a pass over a data set: the batches of each, its file, and their merge.

The set is divided into batches of one fixed size, and a shard is a whole number of batches. A shard's file
holds partial sums as `units.PairwiseSum` keeps them, so that the merged sums are the same bits for any
number of shards. No torch here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

import convatlas
from convatlas import UserError
from convatlas.datasets import formats
from convatlas.files import Npz, read_json, sha256, write_npz
from convatlas.pipeline.config_types import LayerSelection, OnBadImage
from convatlas.records import ClassSource, SkippedImage, Split
from convatlas.statistics.units import LayerShape, PairwiseSum, TopActivations, UnitCounts, UnitSums

FORMAT_VERSION = 6  # of a shard's file
MISMATCH_REASONS = {  # what a shard must share with the run -> what it comes from if it differs
    "format": "another version of convatlas",
    "versions": "other versions",
    "weights": "another network's weights",
    "network": "another network",
    "dataset": "another data set",
    "split": "another split",
    "settings": "other settings",
}
SHARED_KEYS = ("layers", "batch", "images", "class_source", "classes", "device")  # the same in all shards
UNIT_SUM_KEYS = ("mean_sums", "square_sums", "squared_mean_sums")  # of a shard's file
COUNT_KEYS = ("class_counts", "zero_count", "max", "histogram")
HINT = "delete it and run again"


class PassSettings(TypedDict):
    """Settings of a pass over a data set: of `views.strongest`, and `on_bad_image` of the data set."""

    layers: LayerSelection
    k: int  # top activations of each unit
    split: Split
    batch: int | None  # images; chosen by the input's size if null
    on_bad_image: OnBadImage


class RunFingerprint(TypedDict):
    """What the numbers of a shard depend on."""

    format: int
    versions: dict[str, str]
    weights: str  # sha256
    network: str  # sha256 of architecture, arguments and preprocessing
    dataset: str  # sha256
    split: Split
    settings: dict[str, Any]


class ShardDescription(RunFingerprint):
    """What a shard's file says of itself."""

    shard: int
    batches: list[int]  # the first, and the one behind the last
    layers: list[LayerShape]
    batch: int  # images
    images: int  # of the split
    class_source: ClassSource
    classes: list[str]
    device: str
    skipped: list[SkippedImage]


@dataclass(frozen=True)
class PassResult:
    """Sums, counts and top activations of all tracked units: of a shard, or of the whole data set."""

    sums: PairwiseSum
    counts: UnitCounts
    top: TopActivations


def shard_batches(shard: int, shards: int, batches: int) -> range:
    """Return the indices of a shard's batches; the sizes of two shards differ by one at most.

    Args:
        shard: Number of the shard, from 0.
        shards: Number of shards.
        batches: Number of batches in the split.
    """
    return range(batches * shard // shards, batches * (shard + 1) // shards)


def fingerprint_run(folder: str | Path, data: str | Path, settings: PassSettings) -> RunFingerprint:
    """Return what the numbers of a shard depend on, to detect a shard of another run.

    Args:
        folder: The network's folder, results/<network>.
        data: The data set's folder, data/<dataset>.
        settings: Settings of the pass.
    """
    network = read_json(Path(folder) / "network.json")
    architecture = {key: network[key] for key in ("architecture", "arguments", "preprocessing")}
    return {
        "format": FORMAT_VERSION,
        "versions": {name: version(name) for name in ("torch", "numpy", "numba")}
        | {"convatlas": convatlas.__version__},
        "weights": sha256(Path(folder) / "weights.safetensors"),
        "network": hashlib.sha256(json.dumps(architecture, sort_keys=True).encode()).hexdigest(),
        "dataset": formats.describe(data)["sha256"],
        "split": settings["split"],
        "settings": {key: value for key, value in sorted(settings.items()) if key != "split"},
    }


def write_shard(path: str | Path, description: ShardDescription, result: PassResult) -> None:
    """Write the file of a shard.

    Args:
        path: The npz to write, results/<network>/shards/<shard>.npz.
        description: What the shard was computed from.
        result: What was computed.

    Raises:
        UserError: The file cannot be written.
    """
    units, nodes = len(result.counts.zero_count), result.sums.nodes
    class_rows = [
        (n, label, row) for n, (_, _, sums) in enumerate(nodes) for label, row in sums.class_sums.items()
    ]

    def stack_rows(rows: list[np.ndarray]) -> np.ndarray:
        return np.array(rows, np.float64).reshape(-1, units)

    write_npz(
        path,
        {
            "description": np.frombuffer(json.dumps(description).encode(), np.uint8),
            "nodes": np.array([node[:2] for node in nodes], np.int64).reshape(-1, 2),
            "mean_sums": stack_rows([sums.mean_sum for _, _, sums in nodes]),
            "square_sums": stack_rows([sums.square_sum for _, _, sums in nodes]),
            "squared_mean_sums": stack_rows([sums.squared_mean_sum for _, _, sums in nodes]),
            "class_nodes": np.array([row[:2] for row in class_rows], np.int64).reshape(-1, 2),
            "class_sums": stack_rows([row for _, _, row in class_rows]),
            "images": np.array(result.counts.image_count, np.int64),
            "class_counts": result.counts.class_counts,
            "zero_count": result.counts.zero_count,
            "max": result.counts.max,
            "histogram": result.counts.histogram,
            "top_values": result.top.values,
            "top_images": result.top.images,
            "top_positions": result.top.flat_positions,
        },
    )


def read_shard(path: str | Path) -> tuple[ShardDescription, PassResult]:
    """Read the file of a shard.

    Args:
        path: The .npz file.

    Returns:
        The shard's description, and the result of its part of the pass.

    Raises:
        UserError: The file is missing or damaged, or is not a shard's.
    """
    file = Npz(path)
    description = _parse_description(file)
    try:
        class_sums: list[dict[int, np.ndarray]] = [{} for _ in file["nodes"]]
        for (node, label), row in zip(file["class_nodes"].tolist(), file["class_sums"], strict=True):
            class_sums[node][label] = row
        nodes = [
            (level, index, UnitSums(*sums))
            for (level, index), *sums in zip(
                file["nodes"].tolist(), *(file[name] for name in UNIT_SUM_KEYS), class_sums, strict=True
            )
        ]
        counts = UnitCounts(int(file["images"]), *(file[name] for name in COUNT_KEYS))
        top = TopActivations(file["top_values"], file["top_images"], file["top_positions"])
        return description, PassResult(PairwiseSum(nodes), counts, top)
    except (IndexError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); {HINT}") from error


def _parse_description(file: Npz) -> ShardDescription:
    """Parse what a shard's file says of itself."""
    try:
        return cast(ShardDescription, json.loads(bytes(file["description"])))
    except (KeyError, ValueError) as error:
        raise UserError(f"{file.path} is no shard of a pass ({error}); {HINT}") from error


def merge_shards(
    paths: Sequence[str | Path], expected: RunFingerprint
) -> tuple[ShardDescription, PassResult]:
    """Merge all shards of a pass, reading one at a time.

    Args:
        paths: Files of the shards, in the order of their numbers.
        expected: Fingerprint of the run, which each shard must have.

    Returns:
        The description of the first shard, with the skipped images of all, and the merged result.

    Raises:
        UserError: A shard is missing or damaged, belongs to another run, or holds other batches than its
            number says; or no image could be read.
    """
    if not paths:
        raise UserError("there are no shards to merge; --shards must be at least 1")
    first, merged = read_shard(paths[0])
    _check_shard(paths[0], first, expected, first, 0, len(paths))
    skipped = list(first["skipped"])
    for number, path in enumerate(paths[1:], 1):
        description, result = read_shard(path)
        _check_shard(path, description, expected, first, number, len(paths))
        skipped += description["skipped"]
        for node in result.sums.nodes:
            merged.sums.push(*node)
        merged = PassResult(merged.sums, merged.counts + result.counts, merged.top.merge(result.top))
    if not merged.counts.image_count:
        raise UserError(f"none of the {first['images']} images of the split {first['split']} can be read")
    return first | {"skipped": skipped}, merged


def _check_shard(
    path: str | Path,
    description: ShardDescription,
    expected: RunFingerprint,
    first: ShardDescription,
    number: int,
    shards: int,
) -> None:
    """Raise UserError if a shard does not belong to the run, or not to the place of its number."""
    actual, required, common = (cast(Mapping[str, Any], each) for each in (description, expected, first))
    for key, reason in MISMATCH_REASONS.items():
        if actual.get(key) != required[key]:
            difference = _format_difference(actual.get(key), required[key])
            raise UserError(f"{path} was made of {reason} ({key}: {difference}); {HINT}")
    batches = shard_batches(number, shards, -(-first["images"] // first["batch"]))
    if description["batches"] != [batches.start, batches.stop]:
        raise UserError(
            f"{path} holds the batches {description['batches']} of the set, not those of shard {number} of "
            f"{shards}, {[batches.start, batches.stop]}; {HINT}"
        )
    for key in SHARED_KEYS:
        if actual[key] != common[key]:
            difference = _format_difference(actual[key], common[key])
            raise UserError(f"{path} does not go with the shards before it ({key}: {difference}); {HINT}")


def _format_difference(actual: Any, expected: Any) -> str:
    """Describe briefly how two values differ: of mappings the keys that differ, of hashes the start."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        keys = [key for key in {**expected, **actual} if actual.get(key) != expected.get(key)]
        return ", ".join(f"{key} {_format_difference(actual.get(key), expected.get(key))}" for key in keys)
    if isinstance(expected, str):
        return f"{str(actual)[:12]}, not {expected[:12]}"
    return f"{actual}, not {expected}"
