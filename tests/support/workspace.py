"""Runs of the pipeline in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MAKE_VARIABLES = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")  # which `make test` passes on
# Text of the user that Snakemake or a shell would expand.
HOSTILE_TEXT = "$R^{n}$ {network} {0} $(touch expanded) `touch expanded` '\"; touch expanded; #"
TINY: dict[str, Any] = {
    "author": HOSTILE_TEXT,
    "notes": f"On {HOSTILE_TEXT}",
    "networks": {
        "simple_cnn": {"training": {"epochs": 2}, "images": {"first": 2, "indices": [7]}},
        "lenet5": {},  # as in config.yaml
        "squeezenet": None,  # test_any_network.py and test_segmentation.py have smaller ones
        "sd_unet": None,
    },
}


class Workspace:
    """A copy of the project in a folder of its own, in which Snakemake runs on a tiny config.

    Attributes:
        folder: The copy, which is the working directory of all runs.
    """

    def __init__(self, folder: Path, config: dict[str, Any] | None = None) -> None:
        """Copy the project.

        Args:
            folder: A folder that does not exist yet.
            config: What is merged over config.yaml; TINY by default.
        """
        self.folder = folder
        folder.mkdir(parents=True)
        for name in ("Snakefile", "config.yaml", "Makefile"):
            shutil.copy(ROOT / name, folder)
        for name in ("convatlas", "scripts", "workflow"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
        self.overlay(TINY if config is None else config)
        for name in ("requirements.lock", "pyproject.toml"):
            shutil.copy2(ROOT / name, folder)
        self._link_environment()

    def _link_environment(self) -> None:
        """Make `.venv` from this environment, so that `make` takes it as set up."""
        (self.folder / ".venv").mkdir()
        for path in Path(sys.prefix).iterdir():
            if path.name != "ready":
                (self.folder / ".venv" / path.name).symlink_to(path)
        (self.folder / ".venv/ready").touch()

    @classmethod
    def copy_of(cls, other: "Workspace", folder: Path) -> "Workspace":
        """Return a copy of a workspace with all that has run there."""
        subprocess.run(["cp", "-a", str(other.folder), str(folder)], check=True)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "Workspace":
        """Return the workspace of a folder that has been made, or will be."""
        workspace = cls.__new__(cls)
        workspace.folder = folder
        return workspace

    def overlay(self, config: dict[str, Any]) -> None:
        """Set the config that is merged over config.yaml."""
        (self.folder / "tiny.yaml").write_text(json.dumps(config))

    def environment(self) -> dict[str, str]:
        """Return the environment of all runs, in which the copy is imported."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        inherited = {name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES}
        return inherited | {"PATH": path, "PYTHONPATH": str(self.folder)}

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs Snakemake with these further arguments."""
        profile = "workflow/profiles/local"
        common = ["snakemake", "--cores", "2", "--workflow-profile", profile, "--configfile", "tiny.yaml"]
        return [*common, *arguments]

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with these further arguments, and return its exit status and output."""
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `make` with these arguments, and return its exit status and output."""
        return subprocess.run(
            ["make", *arguments], cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )

    def planned(self, *arguments: str) -> set[str]:
        """Return the jobs that a run would start now: `rule`, or `rule network` with all wildcards."""
        done = self.snakemake("--dry-run", "--quiet", "host", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        jobs, rule = set(), ""
        for line in (done.stdout + done.stderr).splitlines():
            if line.startswith(("rule ", "localrule ")):
                rule = line.split()[1].rstrip(":")
                jobs.add(rule)
            elif line.strip().startswith("wildcards:"):
                jobs.discard(rule)
                jobs.add(" ".join([rule, *re.findall(r"=([^,\s]+)", line)]))
        return jobs - {"all"}


def read_files(folder: Path, excluded: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the content of every file under a folder by its relative path, without files of some names."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in excluded)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
