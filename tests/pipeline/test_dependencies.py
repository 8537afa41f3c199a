"""The files on which a stage depends: those that its script imports, so that an edit reruns what uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convatlas.analysis.registry import ANALYSES
from convatlas.pipeline import dependencies
from convatlas.pipeline.dependencies import fingerprint_files
from tests.support.workspace import ROOT

STAGES = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
SITE_STAGES = {"explorer", "gallery", "publish"}
TYPES = {  # which change no result
    "convatlas/records.py",
    "convatlas/pipeline/config_types.py",
    "convatlas/gallery/explorer_types.py",
}
STAGES_WITHOUT_TORCH = {"data", "previews", "merge_shards", "figures", *SITE_STAGES}


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of scripts are relative to the working directory."""
    monkeypatch.chdir(ROOT)


def stages_with(path: str) -> set[str]:
    """Return the stages that depend on a file of the library; a folder stands for all of its files."""
    return {
        stage
        for stage in STAGES
        if any(file.startswith(path) for file in dependencies.list_stage_files(f"scripts/{stage}.py"))
    }


PROGRAM = """
import importlib.util, os, sys

def print_imported(stage):
    spec = importlib.util.spec_from_file_location("script", f"scripts/{stage}.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    library = (module for name, module in sys.modules.items() if name.split(".")[0] == "convatlas")
    files = sorted(os.path.relpath(module.__file__) for module in library)
    print(stage, "torch" in sys.modules, *files, flush=True)

if with_torch := sys.argv[1] == "torch":
    import torch, torchvision  # seconds to import, so once for all stages
for stage in sys.argv[2:]:
    if (child := os.fork()) == 0:
        print_imported(stage)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, stage
"""


@pytest.mark.parametrize("with_torch", [False, True])
def test_the_derived_files_are_those_that_a_script_imports(with_torch: bool) -> None:
    """Import each script, and compare the library's files in sys.modules with the derived ones."""
    stages = [stage for stage in STAGES if (stage not in STAGES_WITHOUT_TORCH) == with_torch]
    command = [sys.executable, "-c", PROGRAM, "torch" if with_torch else "no torch", *stages]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == stages
    for stage, has_torch, *files in lines:
        script = f"scripts/{stage}.py"
        assert sorted({*files, script} - TYPES) == list(dependencies.list_stage_files(script)), stage
        assert has_torch == str(with_torch), stage


def test_declarations_of_types_are_no_dependency_and_all_else_is() -> None:
    for path in TYPES:
        assert stages_with(path) == set()
    for path in ("convatlas/__init__.py", "convatlas/files.py", "convatlas/cli.py"):
        assert stages_with(path) == set(STAGES)


def test_only_the_site_depends_on_the_gallery() -> None:
    assert stages_with("convatlas/gallery/") == SITE_STAGES
    assert stages_with("convatlas/gallery/pages/") == {"gallery"}


def test_only_figures_depend_on_the_modules_of_figures() -> None:
    assert stages_with("convatlas/figures/") == {"figures"}


def test_training_depends_on_the_trainer_and_no_figure_or_page_does() -> None:
    stages = stages_with("convatlas/training/trainer.py")
    assert "train" in stages
    assert not stages & {"figures", *SITE_STAGES}


def test_each_method_is_a_dependency_of_its_stages_only() -> None:
    projecting = {"deconv", "project_top_activations"} | {item.name for item in ANALYSES if item.projects}
    assert stages_with("convatlas/attribution/deconvnet.py") == {*projecting, "attribution", "check"}
    explaining = {"attribution", "check", "occlusion", "feature_visualisation"}
    assert stages_with("convatlas/attribution/methods/occlusion.py") == explaining
    assert stages_with("convatlas/statistics/reduction.py") <= {"dataset_pass", "merge_shards"}
    assert stages_with("convatlas/datasets/synthetic_pets/") <= {"data"}  # imported by its format alone


def test_a_fingerprint_is_of_the_content_whatever_the_time(tmp_path: Path) -> None:
    """Snakemake itself looks only at files that are newer than what was made of them."""
    new, copy, old = (tmp_path / name / "weights.pth" for name in ("new", "copy", "old"))
    for path, content in ((new, b"new"), (copy, b"new"), (old, b"old")):
        path.parent.mkdir()
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))
    os.utime(new, (2e9, 2e9))
    fingerprint_path = dependencies._fingerprint_path
    assert fingerprint_path(new) == fingerprint_path(copy) != fingerprint_path(old)
    assert fingerprint_path(new.parent) != fingerprint_path(copy.parent)  # a folder's files are not read
    assert fingerprint_files([old, new]) == fingerprint_files([new, str(old)])
    assert fingerprint_files([tmp_path / "missing"]) != fingerprint_files([])
