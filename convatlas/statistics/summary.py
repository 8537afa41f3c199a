"""statistics.npz and statistics.json of a network, from the shards of a pass over its data set."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from convatlas.files import npz_writer, read_json, write_json
from convatlas.records import DatasetStatistics, Layer, NonFiniteUnits
from convatlas.statistics import shards
from convatlas.statistics.shards import PassResult, PassSettings
from convatlas.statistics.units import (
    LayerShape,
    UnitSums,
    compute_statistics,
    find_dead_units,
    iter_unit_slices,
    unravel_positions,
)

log = logging.getLogger(__name__)


def write_statistics(
    folder: str | Path, data: str | Path, settings: PassSettings, shard_count: int = 1
) -> None:
    """Merge the shards of a network's pass and write its statistics.npz and statistics.json.

    Args:
        folder: The network's folder, results/<network>, with its shards.
        data: The data set's folder, data/<dataset>.
        settings: The settings that the shards were computed with.
        shard_count: Number of shards.

    Raises:
        UserError: A shard is missing, damaged or of another run, or no image could be read.
    """
    folder = Path(folder)
    paths = [folder / "shards" / f"{shard}.npz" for shard in range(shard_count)]
    description, result = shards.merge_shards(paths, shards.fingerprint_run(folder, data, settings))
    k = min(settings["k"], result.counts.image_count)
    if k < settings["k"]:
        log.warning("views.strongest.k is %d, and there are %d images", settings["k"], k)
    layers: list[Layer] = read_json(folder / "layers.json")
    types = {layer["name"]: layer["type"] for layer in layers}
    total = result.sums.total()
    with npz_writer(folder / "statistics.npz") as write:
        for name, array in _iter_arrays(description["layers"], result, total, k, types):
            write(name, array)
    statistics: DatasetStatistics = {
        "dataset": Path(data).name,
        "dataset_sha256": description["dataset"],
        "split": description["split"],
        "images": result.counts.image_count,
        "skipped": description["skipped"],
        "k": k,
        "class_source": description["class_source"],
        "classes": description["classes"],
        "class_images": result.counts.class_counts.tolist(),
        "layers": [
            {
                "name": layer["name"],
                "units": layer["shape"][0],
                "dead": np.flatnonzero(_find_dead_units(layer, units, result, total, types)).tolist(),
                **_list_non_finite_units(total.mean_sum[units]),
            }
            for layer, units in iter_unit_slices(description["layers"])
        ],
    }
    write_json(folder / "statistics.json", statistics)
    log.info("merged %d shards: %d images", shard_count, result.counts.image_count)
    for entry in statistics["layers"]:
        if "non_finite" in entry:
            count = len(entry["non_finite"])
            log.warning(
                "%s: %d of %d units have NaN or infinite values", entry["name"], count, entry["units"]
            )
    for image in description["skipped"]:
        log.warning("skipped image %d, %s (%s)", image["image"], image["name"], image["reason"])


def _iter_arrays(
    layers: Sequence[LayerShape], result: PassResult, total: UnitSums, k: int, types: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of statistics.npz, `<layer>@<statistic>` of all units of a layer, with their names."""
    for layer, units in iter_unit_slices(layers):
        name, area = layer["name"], math.prod(layer["shape"][1:])
        sums, counts = total.select_units(units), result.counts.select_units(units)
        for statistic, array in compute_statistics(sums, counts, area).items():
            yield f"{name}@{statistic}", array
        yield f"{name}@histogram", counts.histogram
        yield f"{name}@dead", _find_dead_units(layer, units, result, total, types)
        yield f"{name}@values", result.top.values[units, :k]
        yield f"{name}@images", result.top.images[units, :k]
        yield f"{name}@positions", unravel_positions(result.top.flat_positions[units, :k], layer["shape"])


def _find_dead_units(
    layer: LayerShape, units: slice, result: PassResult, total: UnitSums, types: dict[str, str]
) -> np.ndarray:
    """Return which units of a layer are dead; composite modules are not in layers.json and have no type."""
    maximum, mean = result.counts.max[units], total.mean_sum[units]
    return find_dead_units(maximum, mean, types.get(layer["name"], ""))


def _list_non_finite_units(mean_sum: np.ndarray) -> NonFiniteUnits:
    """Return the units with NaN or infinite values, as an entry of statistics.json; none without any."""
    units = np.flatnonzero(~np.isfinite(mean_sum)).tolist()
    return {"non_finite": units} if units else {}
