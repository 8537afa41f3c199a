"""Shards of a pass: those of another run, of other batches, damaged or without space are refused."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from convatlas import UserError
from convatlas.files import write_json
from convatlas.statistics import shards
from convatlas.statistics.dataset_pass import run_shard
from convatlas.statistics.summary import write_statistics
from tests.support.dataset_pass import CPU, SETTINGS, run_pass, write_lenet5


def merge_error(folder: Path, data: Path, settings: dict[str, Any] = SETTINGS, shard_count: int = 3) -> str:
    """Merge the shards and return the text of the error, "" if there is none."""
    try:
        write_statistics(folder, data, settings, shard_count)
    except UserError as error:
        return str(error)
    return ""


def test_a_shard_of_another_run_is_refused(lenet5_on_digits: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = lenet5_on_digits
    run_pass(folder, data, 3)
    first = folder / "shards/0.npz"
    assert not merge_error(folder, data)

    error = merge_error(folder, data, SETTINGS | {"k": 5})
    assert f"{first} was made of other settings (settings: k 9, not 5); delete it" in error
    assert "another split" in merge_error(folder, data, SETTINGS | {"split": "train"})
    error = merge_error(folder, data, shard_count=2)
    assert "holds the batches [0, 2] of the set, not those of shard 0 of 2" in error
    assert "not those of shard 0 of 4" in merge_error(folder, data, shard_count=4)

    with (folder / "weights.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x07")
    assert "was made of another network's weights (weights: " in merge_error(folder, data)
    other = write_lenet5(tmp_path / "results/other")
    (folder / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    assert not merge_error(folder, data)
    network = json.loads((folder / "network.json").read_text())
    changed = network | {"preprocessing": network["preprocessing"] | {"size": 30}}
    write_json(folder / "network.json", changed)
    assert "was made of another network (" in merge_error(folder, data)
    write_json(folder / "network.json", network)
    dataset = json.loads((data / "dataset.json").read_text())
    write_json(data / "dataset.json", dataset | {"sha256": "0" * 64})
    assert "was made of another data set (dataset: " in merge_error(folder, data)
    write_json(data / "dataset.json", dataset)
    assert not merge_error(folder, data)


def test_shards_of_different_devices_do_not_merge(lenet5_on_digits: tuple[Path, Path]) -> None:
    folder, data = lenet5_on_digits
    run_pass(folder, data, 2)
    description, result = shards.read_shard(folder / "shards/1.npz")
    shards.write_shard(folder / "shards/1.npz", description | {"device": "cuda"}, result)
    error = merge_error(folder, data, shard_count=2)
    assert "1.npz does not go with the shards before it (device: cuda, not cpu)" in error


def test_a_shard_without_space_on_the_disk_is_an_error_and_not_written(
    lenet5_on_digits: tuple[Path, Path],
) -> None:
    folder, data = lenet5_on_digits
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError) as error:
            run_shard(folder, data, SETTINGS, 0, 1, CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(error.value) == f"cannot write {folder / 'shards/0.npz'}: File too large"
    assert not list(folder.glob("shards/*"))


@pytest.mark.parametrize("length", [0, 100, -1, -20_000])
def test_a_truncated_shard_is_named(lenet5_on_digits: tuple[Path, Path], length: int) -> None:
    folder, data = lenet5_on_digits
    before = run_pass(folder, data, 3)["statistics.npz"]
    path = folder / "shards/1.npz"
    path.write_bytes(path.read_bytes()[:length])
    error = merge_error(folder, data)
    assert error.startswith(f"{path} is damaged")
    assert error.endswith("delete it and run again")
    assert (folder / "statistics.npz").read_bytes() == before


def test_a_file_that_is_no_shard_is_named(lenet5_on_digits: tuple[Path, Path]) -> None:
    folder, data = lenet5_on_digits
    run_pass(folder, data)
    path = folder / "shards/0.npz"
    path.write_bytes((folder / "statistics.npz").read_bytes())
    assert f"{path} is no shard of a pass" in merge_error(folder, data, shard_count=1)


def test_a_merge_needs_shards(lenet5_on_digits: tuple[Path, Path]) -> None:
    assert "--shards must be at least 1" in merge_error(*lenet5_on_digits, shard_count=0)
