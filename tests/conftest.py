"""Fixtures of all tests: the pipeline run once on a tiny config, a browser, real data; and the summary."""

import fcntl
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import launch_chromium
from tests.support.real_data import get_real_data
from tests.support.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

TESTS = Path(__file__).parent
FIRST_GROUPS = ("pipeline/test_slurm.py", "pipeline/test_workflow.py", "gallery/test_explorer.py")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The pipeline, run end to end once for all processes of the tests, which change only copies of it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all share
    workspace = Workspace.open(folder / "run/convatlas")
    with (folder / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first to come runs it, others wait
        if not (workspace.folder / "reports/gallery/index.html").exists():
            if not workspace.folder.exists():
                Workspace(workspace.folder)
            done = workspace.snakemake()
            assert done.returncode == 0, done.stdout + done.stderr
    return workspace


@pytest.fixture
def new_workspace(tmp_path: Path) -> Workspace:
    """A workspace where nothing has run."""
    return Workspace(tmp_path / "convatlas")


@pytest.fixture(scope="session")
def browser(playwright: "Playwright") -> "Iterator[Browser]":
    """A running Chromium or Chrome."""
    yield from launch_chromium(playwright)


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder of the real MNIST, which holds MNIST/raw/."""
    return get_real_data("mnist")


def pytest_configure() -> None:
    """Let children be interrupted, also where a shell started the tests in the background and ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `pytest -n`, those of each file.

    Groups that take long come first: SLURM's tests, which mostly wait; those that run the pipeline for all;
    then those that run it for themselves.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(TESTS))))
    items.sort(key=_get_turn)


def _get_turn(item: pytest.Item) -> int:
    """Return when the group of a test starts, as a rank."""
    group = next(item.iter_markers("xdist_group")).args[0]
    if group in FIRST_GROUPS:
        return FIRST_GROUPS.index(group)
    return len(FIRST_GROUPS) + (not (group.startswith("pipeline/") or "/" not in group))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print as the last line which tests were skipped, and how to run them: reasons are "<tests>: <how>"."""
    reports = terminalreporter.stats.get("skipped", [])
    counts = Counter(re.sub("^Skipped: ", "", str(report.longrepr[2])) for report in reports)
    if counts:
        parts = []
        for reason, count in counts.most_common():
            tests, _, instruction = reason.partition(": ")
            parts.append(f"{count} {tests} ({instruction})" if instruction else f"{count} tests ({reason})")
        terminalreporter.config.stash[SKIPPED_LINE] = "skipped: " + "; ".join(parts)


SKIPPED_LINE = pytest.StashKey[str]()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the line about skipped tests after pytest's own last line."""
    if line := config.stash.get(SKIPPED_LINE, ""):
        print(line)
