"""The environment of a run: UTF-8, and folders for caches."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from convatlas.pipeline.environment import provide_cache_folder
from tests.support.workspace import ROOT

CACHES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def test_a_home_folder_that_can_be_written_is_used(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    provide_cache_folder(environment, tmp_path / "cache")
    assert environment == {"HOME": str(tmp_path)}
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null", "relative"])
def test_caches_are_kept_in_the_project_where_the_home_folder_cannot_be_written(
    tmp_path: Path, home: str
) -> None:
    environment = {"HOME": home}
    provide_cache_folder(environment, tmp_path / "cache")
    assert [environment[name] for name in CACHES] == [str(tmp_path / "cache")] * 2
    assert (tmp_path / "cache").is_dir()


def run_snakemake(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a Snakefile that includes the project's environment, in the encoding of an old locale."""
    (folder / "größe.txt").touch()
    (folder / "base.yaml").write_text("lr: 1", encoding="utf-8")
    (folder / "mine.yaml").write_text("file: größe.txt\nlr: 1e-3\n", encoding="utf-8")
    (folder / "Snakefile").write_text(
        "from snakemake.exceptions import WorkflowError\n"
        f'include: "{ROOT}/workflow/rules/environment.smk"\n'
        'configfile: "base.yaml"\n'
        "rule all:\n    input: config['file']\n    shell: 'true'\n"
        "print(type(config['lr']).__name__, Path(config['file']).exists(), os.environ['XDG_CACHE_HOME'])\n",
        encoding="utf-8",
    )
    inherited = {name: value for name, value in os.environ.items() if name not in CACHES}
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    return subprocess.run(
        ["snakemake", "-n", "--configfile", "mine.yaml"],
        cwd=folder,
        env=inherited
        | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        | environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )


def test_plain_snakemake_keeps_out_of_the_home_folder_as_make_does() -> None:
    paths = ("profiles/default/profile.yaml", "workflow/profiles/local/profile.yaml")
    plain, local = (yaml.safe_load((ROOT / path).read_text(encoding="utf-8")) for path in paths)
    assert plain.items() <= local.items()


def test_a_run_reads_utf8_in_any_locale_and_needs_no_home_folder(tmp_path: Path) -> None:
    """ASCII is the encoding of the locale C where Python's UTF-8 mode is off."""
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HOME": "/proc/none"}
    done = run_snakemake(tmp_path, old)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ExponentNumber True {tmp_path / '.snakemake/cache'}" in done.stdout
