"""The provenance of a gallery: the hash of its run, date, commit, machine and durations."""

import csv
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from convatlas.records import NetworkDescription


class StageDuration(TypedDict):
    """Duration and memory of one stage, as it wrote them (convatlas.usage)."""

    name: str  # of the network or data set, or of a stage of the whole run
    stage: str
    seconds: str
    peak_memory_mb: str


class RunInfo(TypedDict):
    """What may differ between two clean runs of one config; shown on provenance.html alone."""

    date: str
    commit: str
    machine: str
    durations: list[StageDuration]


def compute_run_id(config: Mapping[str, Any], networks: Sequence[NetworkDescription]) -> str:
    """Hash what determines the results: the config, the weights and the versions.

    Args:
        config: The resolved config.
        networks: network.json of each network.

    Returns:
        The first 12 hexadecimal digits of a SHA-256.
    """
    weights = [[network["weights"]["sha256"], network["versions"]] for network in networks]
    settings = {key: value for key, value in config.items() if key != "published"}
    text = json.dumps([settings, *weights], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def collect_run_info(logs: Path, names: Sequence[str]) -> RunInfo:
    """Describe the present run.

    Args:
        logs: The folder with what the stages took, logs/<name>/<stage>.tsv.
        names: The data sets and networks of the config, and stages of the whole run.
    """
    return RunInfo(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=describe_commit(Path(__file__).parent),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        durations=read_durations(logs, names),
    )


def describe_commit(folder: Path) -> str:
    """Describe the commit of the git checkout that holds a folder, and whether it has uncommitted changes.

    Args:
        folder: The folder.

    Returns:
        Twelve digits or more of the hash, with a remark on changes; "not in a git checkout" where git finds
        none.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not in a git checkout"
    return result.stdout.strip().replace("-dirty", ", with uncommitted changes")


def read_durations(logs: Path, names: Sequence[str]) -> list[StageDuration]:
    """Read what the stages took.

    Args:
        logs: The folder, with logs/<name>/<stage>.tsv, and logs/<stage>.tsv of stages of the whole run.
        names: The data sets, networks and stages of the whole run to read, in this order.

    Returns:
        One row per stage, in the order in which the stages ended.
    """
    rows = []
    for name in names:
        paths = [*(logs / name).glob("*.tsv"), *logs.glob(f"{name}.tsv")]
        for path in sorted(paths, key=lambda path: path.stat().st_mtime):
            with path.open(encoding="utf-8") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    rows.append(
                        StageDuration(
                            name=name, stage=path.stem, seconds=row["s"], peak_memory_mb=row["max_rss"]
                        )
                    )
    return rows
