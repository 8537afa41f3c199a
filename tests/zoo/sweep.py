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
import time
import warnings
from multiprocessing.connection import Connection, wait
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="networks whose package/name contains this")
    parser.add_argument("--sample", type=int, default=0, help="every n-th network alone")
    parser.add_argument("--again", action="store_true", help="run those that are not ok again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--timeout", type=int, default=3600, help="seconds for one network, on a busy machine"
    )
    parser.add_argument("--memory", type=float, default=10, help="GiB for one network")
    arguments = parser.parse_args()
    os.nice(19)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the processes of networks too
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
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


def _run_all(entries: list[Entry], jobs: int, timeout: int, memory: float) -> Any:
    """Run networks, several at a time, and yield their rows; print progress."""
    context = multiprocessing.get_context("fork")  # the packages are imported once
    queue, running = list(entries), {}
    trace_operations(
        torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), torch.zeros(1, 1, 1, 1), ["0"]
    )  # imports what tracing needs, once
    started, done = time.monotonic(), 0
    while queue or running:
        while queue and len(running) < jobs:
            entry = queue.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run_one, args=(entry, sender, memory), daemon=True)
            process.start()
            sender.close()
            running[receiver] = (entry, process, time.monotonic())
        for receiver in [*wait(list(running), timeout=1), *running]:
            entry, process, began = running.get(receiver, (None, None, 0))
            if entry is None:
                continue
            expired = time.monotonic() - began > timeout
            if not expired and not receiver.poll():
                continue
            row = _finish(receiver, process, entry, timeout)
            del running[receiver]
            done += 1
            left = (time.monotonic() - started) / done * (len(entries) - done)
            print(f"{done}/{len(entries)}, {left / 60:.0f} min left: {entry.key}: {row['result']} "
                  f"({row['seconds']:.0f} s) {row['reason'][:300]}", flush=True)  # fmt: skip
            yield row


def _run_one(entry: Entry, sender: Connection, memory: float) -> None:
    """Check one network in this process, and send its row."""
    limit = int(memory * GIB) + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    row = Row(entry.package, entry.name)
    check_network(row, entry.network, entry.shape, entry.until)
    sender.send(row.to_dict())
    sender.close()


def _finish(receiver: Connection, process: Any, entry: Entry, timeout: int) -> dict[str, Any]:
    """Return the row that a process sent, or one that says how it ended without one."""
    try:
        row: dict[str, Any] = receiver.recv() if receiver.poll() else {}
    except EOFError:
        row = {}
    if not row:
        alive = process.is_alive()
        process.kill()
        process.join()
        reason = f"no result after {timeout} s" if alive else f"the process ended with {process.exitcode}"
        row = Row(entry.package, entry.name, "error", reason).to_dict()
    process.join()
    receiver.close()
    return row


if __name__ == "__main__":
    main()
