"""When, where and from which commit a gallery is built, and how long its stages took."""

import csv
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict


class StageDuration(TypedDict):
    """Duration and memory of one stage, as Snakemake's benchmark file states them."""

    name: str  # of the network or data set
    stage: str
    seconds: str
    peak_memory_mb: str


class RunInfo(TypedDict):
    """What may differ between two clean runs of one config; shown on provenance.html alone."""

    date: str
    commit: str
    machine: str
    durations: list[StageDuration]


def collect_run_info(logs: Path, names: Sequence[str]) -> RunInfo:
    """Describe the present run.

    Args:
        logs: The folder of the stages' benchmark files, logs/<name>/<stage>.tsv.
        names: The data sets and networks of the config.
    """
    return RunInfo(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=describe_commit(Path(__file__).parent),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        durations=read_durations(logs, names),
    )


def describe_commit(folder: Path) -> str:
    """Return the commit of the git checkout that holds a folder, and whether it has uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not in a git checkout"
    return result.stdout.strip().replace("-dirty", ", with uncommitted changes")


def read_durations(logs: Path, names: Sequence[str]) -> list[StageDuration]:
    """Read the stages' benchmark files.

    Args:
        logs: The folder of the benchmark files, logs/<name>/<stage>.tsv.
        names: The data sets and networks to read, in this order.

    Returns:
        One row per stage, in the order in which the stages ended.
    """
    rows = []
    for name in names:
        for path in sorted((logs / name).glob("*.tsv"), key=lambda path: path.stat().st_mtime):
            with path.open() as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    rows.append(
                        StageDuration(
                            name=name, stage=path.stem, seconds=row["s"], peak_memory_mb=row["max_rss"]
                        )
                    )
    return rows
