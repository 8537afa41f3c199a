"""Fixtures that all tests share: the real data, and the pipeline run once on a tiny config."""

import os
from pathlib import Path

import pytest

from tests.support.workspace import Workspace


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The pipeline, run end to end; tests that change it must put it back."""
    workspace = Workspace(tmp_path_factory.mktemp("run") / "convatlas")
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


@pytest.fixture
def broken(tmp_path: Path) -> Workspace:
    """A workspace where nothing has run."""
    return Workspace(tmp_path / "convatlas")


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder of the real MNIST, MNIST/raw/ in it."""
    given = os.environ.get("CONVATLAS_TEST_DATA")
    if not given:
        pytest.skip("CONVATLAS_TEST_DATA names no folder of real data")
    return Path(given) / "mnist"
