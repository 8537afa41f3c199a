"""A run that is at work in a folder is seen, however it was started and whoever started it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from convatlas.files import read_json, write_json
from convatlas.pipeline.running import RUN_FILE, describe_running, mark_run, unmark_run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_marked_run_is_seen_until_it_ends() -> None:
    assert describe_running() is None
    mark_run()
    running = describe_running()
    assert running is not None
    assert running.startswith(f"process {os.getpid()} of ")
    unmark_run()
    unmark_run()
    assert describe_running() is None


def test_a_killed_run_is_none() -> None:
    """Nor is a process that has taken over its number."""
    mark_run()
    write_json(RUN_FILE, read_json(RUN_FILE) | {"started": psutil.Process().create_time() - 100})
    assert describe_running() is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_json(RUN_FILE, read_json(RUN_FILE) | {"process": ended.pid})
    assert describe_running() is None
    RUN_FILE.write_text('{"host": ')
    assert describe_running() is None


def test_a_run_on_another_machine_may_be_at_work() -> None:
    mark_run()
    write_json(RUN_FILE, read_json(RUN_FILE) | {"host": f"not-{socket.gethostname()}"})
    running = describe_running()
    assert running is not None
    assert running.endswith(f"; if it has ended, remove {RUN_FILE}")


@pytest.mark.parametrize("arguments", [["-m", "snakemake"], ["snakemake"]])
def test_a_run_that_is_not_marked_yet_is_seen_by_its_command(folder: Path, arguments: list[str]) -> None:
    source = "import time; print(flush=True); time.sleep(60)"
    for name in ("snakemake", "snakemake.py"):
        (folder / name).write_text(source)
    running = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE)
    try:
        assert running.stdout
        running.stdout.readline()
        assert describe_running() == f"process {running.pid}"
    finally:
        running.kill()
        running.wait()
    deadline = time.monotonic() + 10
    while describe_running() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert describe_running() is None
