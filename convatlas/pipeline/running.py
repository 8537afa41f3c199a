"""Which run is at work in a folder: its process, user and machine, in a file beside Snakemake's locks."""

import getpass
import os
import socket
from pathlib import Path

import psutil

from convatlas import UserError
from convatlas.files import read_json, write_json

RUN_FILE = Path(".snakemake/run.json")


def mark_run() -> None:
    """Write that this process runs in the working directory."""
    process = psutil.Process()
    RUN_FILE.parent.mkdir(exist_ok=True)
    description = {
        "host": socket.gethostname(),
        "process": process.pid,
        "started": process.create_time(),
        "user": _get_user(),
    }
    write_json(RUN_FILE, description)


def unmark_run() -> None:
    """Write that no process runs in the working directory any more."""
    RUN_FILE.unlink(missing_ok=True)


def describe_running() -> str | None:
    """Describe the run that is at work in the working directory; None without one.

    A process that does not run Snakemake any more is none, nor is one that took over its number. Whether a
    process on another machine still runs cannot be seen from here.
    """
    try:
        run = read_json(RUN_FILE) if RUN_FILE.is_file() else None
    except UserError:  # half-written by a killed process
        run = None
    if isinstance(run, dict) and {"host", "process", "started", "user"} <= run.keys():
        text = f"process {run['process']} of {run['user']} on {run['host']}"
        if run["host"] != socket.gethostname():
            return f"{text}; if it has ended, remove {RUN_FILE}"
        return text if _is_alive(run["process"], run["started"]) else None
    pid = _find_snakemake()
    return None if pid is None else f"process {pid}"


def _is_alive(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except psutil.Error:
        return False


def _find_snakemake() -> int | None:
    """Return the number of a process that runs Snakemake in the working directory; None without one.

    It is the command `snakemake`, `python .../snakemake` or `python -m snakemake`.
    """
    for process in psutil.process_iter(["cmdline"]):
        try:
            words = (process.info["cmdline"] or [])[:3]
            is_module = words[1:3] == ["-m", "snakemake"]
            is_command = any(Path(word).name == "snakemake" for word in words[:2])
            if (is_module or is_command) and Path(process.cwd()) == Path.cwd() and process.pid != os.getpid():
                return int(process.pid)
        except (psutil.Error, OSError):
            continue
    return None


def _get_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user number without a name, as in containers
        return str(os.getuid())
