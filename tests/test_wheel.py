"""The wheel holds all that the library reads, and builds a gallery where the repository is not."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest
import yaml
from snakemake.utils import update_config

from convatlas import __version__
from convatlas.pipeline.config import resolve_config
from tests.support.workspace import ROOT, Workspace, read_files

MAY_DIFFER = ("provenance.html",)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        copy(ROOT / name, source)
    copytree(ROOT / "convatlas", source / "convatlas", ignore=ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(output), str(source)], check=True, capture_output=True)
    (path,) = output.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "convatlas"
    files = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == files
    assert f"-{__version__}-" in wheel.name


def test_an_installed_wheel_builds_the_same_gallery(
    wheel: Path, finished_run: Workspace, tmp_path: Path
) -> None:
    """In an environment that holds the wheel, and beside it only the locked packages."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin/python"
    (site,) = environment.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True, capture_output=True)
    # A plain path: the .pth files of that folder, by which this repository is installed in place, do not run.
    (site / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")

    program = "import convatlas, importlib.util as u; print(convatlas.__file__, u.find_spec('jinja2').origin)"
    places = subprocess.run([python, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert places.stdout.startswith(str(site))

    run = finished_run.folder
    config = yaml.safe_load((run / "config.yaml").read_text())
    update_config(config, json.loads((run / "tiny.yaml").read_text()))
    config = resolve_config(config)
    command = [python, ROOT / "scripts/gallery.py", "--settings", json.dumps(config)]
    command += ["--results", run / "results", "--data", run / "data"]
    command += ["--logs", run / "logs", "--output", tmp_path / "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_files(tmp_path / "site", MAY_DIFFER) == read_files(run / "reports/gallery", MAY_DIFFER)
