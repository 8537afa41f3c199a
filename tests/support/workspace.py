"""A copy of the project in a folder of its own, and Snakemake run there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "networks": {
        "simple_cnn": {"training": {"epochs": 2}, "images": {"first": 2, "indices": [7]}},
        "lenet5": {},  # as shipped
        "resnet18": None,  # tests/test_any_network.py and test_segmentation.py have smaller ones
        "sd_unet": None,
    }
}


class Workspace:
    """A copy of the project in a folder of its own, with a tiny config, and Snakemake run there."""

    def __init__(self, folder: Path, config: dict | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name in ("Snakefile", "config.yaml", "Makefile"):
            shutil.copy(ROOT / name, folder)
        for name in ("convatlas", "scripts", "workflow"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.overlay(config or TINY)
        for name in ("requirements.lock", "pyproject.toml"):
            shutil.copy2(ROOT / name, folder)
        (folder / ".venv").mkdir()  # this environment, ready
        for path in Path(sys.prefix).iterdir():
            if path.name != "ready":
                (folder / ".venv" / path.name).symlink_to(path)
        (folder / ".venv/ready").touch()

    def overlay(self, config: dict) -> None:
        (self.folder / "tiny.yaml").write_text(json.dumps(config))

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return os.environ | {"PATH": path, "PYTHONPATH": str(self.folder)}

    def command(self, *arguments: str) -> list[str]:
        profile = "workflow/profiles/local"
        shared = ["snakemake", "--cores", "2", "--workflow-profile", profile, "--configfile", "tiny.yaml"]
        return [*shared, *arguments]

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments], cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )

    def planned(self, *arguments: str) -> set[str]:
        """The jobs that a run would start now: `rule`, or `rule network` with the values of its wildcards."""
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


def files_of(folder: Path, without: Sequence[str] = ()) -> dict[str, bytes]:
    """Every file under a folder, by its relative path, with its bytes."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in without)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
