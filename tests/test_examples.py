"""The example configs: accepted, and the one that needs no download runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from convatlas.datasets.synthetic_pets.generate import draw_pets
from convatlas.pipeline.config import resolve_config
from tests.support.workspace import ROOT, Workspace

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.fixture
def workspace(new_workspace: Workspace) -> Workspace:
    """A workspace with the examples in it, and with what they ask for."""
    shutil.copytree(
        ROOT / "examples",
        new_workspace.folder / "examples",
        ignore=shutil.ignore_patterns("*.pth", "photographs"),
    )
    return new_workspace


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_plans_its_jobs(
    path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.folder)
    draw_pets(workspace.folder / "pets", count=4)
    for kind in ("cat", "dog"):
        folder = workspace.folder / "examples/photographs" / kind
        folder.mkdir(parents=True)
        for image in (workspace.folder / "pets").rglob("*.jpg"):
            shutil.copy(image, folder)
    (workspace.folder / "examples/own_network/checkpoint.pth").touch()
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, yaml.safe_load(path.read_text(encoding="utf-8")))
    (name,) = resolve_config(config)["networks"]
    command = ["snakemake", "--dry-run", "--configfile", str(path), "--quiet", "progress"]
    done = subprocess.run(
        command, cwd=workspace.folder, env=workspace.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"results/{name}/weights.safetensors" in done.stdout + done.stderr


def test_the_example_of_ones_own_network_runs(workspace: Workspace) -> None:
    subprocess.run([sys.executable, "examples/own_network/net.py"], cwd=workspace.folder, check=True)
    done = workspace.make("report", "CONFIG=examples/own_network.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workspace.folder / "reports/gallery/networks/own.html").is_file()
