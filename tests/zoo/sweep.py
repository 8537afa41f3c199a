"""Sweep the networks of the catalogue and write docs/zoo.md: `python -m tests.zoo.sweep`, or `make zoo`.

Each network runs in a process of its own, so that a crash is a row. A network that has a row of the same code
and packages is not run again.
"""

import argparse
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from tests.zoo.catalogue import PACKAGES, Entry, list_entries
from tests.zoo.checks import Row, check_network
from tests.zoo.reference import trace_operations
from tests.zoo.table import write_table

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "results" / "zoo.jsonl"
TABLE = ROOT / "docs" / "zoo.md"
GIB = 2**30
IMPORTS = ["torchvision", "timm", "segmentation_models_pytorch", "monai.networks.nets", "torch._dynamo",
           "tests.zoo.checks", "tests.zoo.reference"]  # fmt: skip


@dataclass
class Run:
    """A process that checks one network, the file for its row, and when it is ended."""

    entry: Entry
    process: Any
    path: Path
    deadline: float  # of time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="networks whose package/name contains this")
    parser.add_argument("--sample", type=int, default=0, help="every n-th network alone")
    parser.add_argument("--again", action="store_true", help="run those that are not ok again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--timeout", type=int, default=1800, help="seconds for one network, on a busy machine"
    )
    parser.add_argument("--memory", type=float, default=10, help="GiB for one network")
    arguments = parser.parse_args()
    os.nice(19)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the processes of networks too
    warnings.simplefilter("ignore")
    entries = list_entries(arguments.only)
    if arguments.sample:
        entries = entries[:: arguments.sample]
    version = _hash_code()
    rows = _read_rows(version)
    if arguments.again:
        rows = {key: row for key, row in rows.items() if row["result"] == "ok"}
    pending = [entry for entry in entries if entry.key not in rows]
    print(f"{len(entries)} networks, {len(entries) - len(pending)} of them done before", flush=True)
    for row in _run_all(pending, arguments.jobs, arguments.timeout, arguments.memory):
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "version": version}) + "\n")
    write_table(TABLE, _read_rows(version), list_entries())


def _hash_code() -> str:
    """Return a hash of the library, of the checks, and of the versions of the packages."""
    digest = hashlib.sha256()
    checks = [
        Path(__file__).with_name(f"{name}.py")
        for name in ("catalogue", "checks", "reference", "receptive_fields")
    ]
    library = [
        path for package in ("tracing", "attribution") for path in (ROOT / "convatlas" / package).glob("*.py")
    ]
    for path in sorted(checks + library):
        digest.update(path.read_bytes())
    for package in (*PACKAGES, "torch"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()[:12]


def _read_rows(version: str) -> dict[str, dict[str, Any]]:
    """Return the rows of earlier sweeps of this version by the network's key, the latest of each."""
    ROWS.parent.mkdir(exist_ok=True)
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    rows = [json.loads(line) for line in lines]
    return {f"{row['package']}/{row['name']}": row for row in rows if row["version"] == version}


def _run_all(entries: list[Entry], jobs: int, timeout: int, memory: float) -> Iterator[dict[str, Any]]:
    """Run networks, several at a time, and yield their rows; print progress.

    Their processes are forked from one that has only imported the packages: torch's pools of threads, once
    used, do not survive a fork.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    queue, running = list(entries), {}
    started, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory(dir=ROWS.parent) as folder:
        while queue or running:
            while queue and len(running) < jobs:
                entry = queue.pop(0)
                path = Path(folder) / f"{len(queue)}.json"
                process = context.Process(target=_run_one, args=(entry.key, path, memory), daemon=True)
                process.start()
                running[process.sentinel] = Run(entry, process, path, time.monotonic() + timeout)
            next_deadline = min(run.deadline for run in running.values())
            wait(list(running), timeout=max(0, next_deadline - time.monotonic()))
            for sentinel, run in list(running.items()):
                if run.process.is_alive() and time.monotonic() < run.deadline:
                    continue
                row = _finish(run, timeout)
                del running[sentinel]
                done += 1
                left = (time.monotonic() - started) / done * (len(entries) - done)
                print(f"{done}/{len(entries)}, {left / 60:.0f} min left: {run.entry.key}: {row['result']} "
                      f"({row['seconds']:.0f} s) {row['reason'][:300]}", flush=True)  # fmt: skip
                yield row


def _run_one(key: str, path: Path, memory: float) -> None:
    """Check one network in this process, and write its row."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    entry = next(entry for entry in list_entries(key) if entry.key == key)
    trace_operations(
        torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), torch.zeros(1, 1, 1, 1), ["0"]
    )  # imports what tracing needs, so that its time is not that of the network
    limit = int(memory * GIB) + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    row = Row(entry.package, entry.name)
    check_network(row, entry.network, entry.shape, entry.until)
    path.write_text(json.dumps(row.to_dict()), encoding="utf-8")


def _finish(run: Run, timeout: int) -> dict[str, Any]:
    """Return the row that a process wrote, or one that says how it ended without one."""
    is_late = run.process.is_alive()
    run.process.kill()
    run.process.join()
    if run.path.exists() and not is_late:
        row: dict[str, Any] = json.loads(run.path.read_text(encoding="utf-8"))
        return row
    reason = f"no result after {timeout} s" if is_late else f"the process ended with {run.process.exitcode}"
    return Row(run.entry.package, run.entry.name, "error", reason).to_dict()


if __name__ == "__main__":
    main()
