"""What jobs request of a cluster, and that profile and rules agree; on a real SLURM: test_slurm.py."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from convatlas.analysis.registry import ANALYSES
from convatlas.datasets.formats import FORMATS
from convatlas.pipeline import resources
from convatlas.pipeline.config import resolve_config
from convatlas.pipeline.config_types import Config
from tests.support.workspace import MAKE_VARIABLES, ROOT, Workspace

CONFIGS = [ROOT / "config.yaml", ROOT / "config.full.yaml"]
RULES = {
    name: body
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", path.read_text(), re.MULTILINE)
}
ANALYSIS_RULES = {analysis.name for analysis in ANALYSES}  # made in a loop, alike
LOCAL = re.findall(r"^    (\w+),", (ROOT / "Snakefile").read_text().split("localrules:")[1], re.MULTILINE)
PROFILE = yaml.safe_load((ROOT / "workflow/profiles/slurm/profile.yaml").read_text())


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Image counts are read from data/ in the working directory."""
    monkeypatch.chdir(tmp_path)


def config_of(**network: Any) -> Config:
    """Return the config of a ResNet-50 on a folder of images, with these keys of its section."""
    network = {"architecture": "torchvision/resnet50", "dataset": "birds"} | network
    datasets = {"birds": {"format": "images", "source": "birds"}}
    return resolve_config({"datasets": datasets, "networks": {"own": network}})


def estimate(stage: str, attempt: int = 1, **network: Any) -> resources.ResourceRequest:
    """Return what a job of a stage requests, for the network of `config_of`."""
    return resources.estimate_resources(
        stage, resources.measure_workload(config_of(**network), "own"), attempt
    )


@pytest.mark.parametrize("stage", resources.STAGE_ESTIMATORS)
def test_each_further_attempt_requests_twice_as_much(stage: str) -> None:
    first, second, third = (estimate(stage, attempt, training={"epochs": 1}) for attempt in (1, 2, 3))
    assert second.mem_mb == pytest.approx(2 * first.mem_mb, abs=100)
    assert third.mem_mb == pytest.approx(4 * first.mem_mb, abs=400)
    assert second.runtime == pytest.approx(min(2 * first.runtime, 24 * 60), abs=1)
    assert third.runtime <= 24 * 60


def test_training_requests_depend_on_batch_input_images_and_epochs() -> None:
    plain = {"batch_size": 64, "epochs": 2}
    small = estimate("train", training=plain, input={"size": 64})
    assert estimate("train", training=plain, input={"size": 224}).mem_mb > 2 * small.mem_mb
    assert estimate("train", training=plain | {"batch_size": 512}, input={"size": 64}).mem_mb > small.mem_mb
    longer = estimate("train", training=plain | {"epochs": 20}, input={"size": 64})
    extra = [request.runtime - resources.MIN_RUNTIME for request in (longer, small)]
    assert extra[0] == pytest.approx(10 * extra[1], rel=0.25)  # rounded up to minutes
    limited = estimate("train", training=plain | {"epochs": 20, "max_steps": 3200}, input={"size": 64})
    assert limited.runtime == pytest.approx(small.runtime, abs=5)


def test_a_shard_requests_the_time_of_its_part() -> None:
    all_images, tenth = estimate("dataset_pass"), estimate("dataset_pass", shards=10)
    assert tenth.runtime - resources.MIN_RUNTIME == pytest.approx(
        (all_images.runtime - resources.MIN_RUNTIME) / 10, abs=1
    )


def test_projections_of_all_units_request_the_memory_they_hold() -> None:
    """Projections and patches of nine activations of 512 units, whose receptive field is the input."""
    views = {"layers": "all", "k": 9, "units": "all", "batch": None}
    few, every = (
        estimate("project_top_activations", views={"strongest": views | {"units": units}})
        for units in (16, "all")
    )
    assert every.mem_mb - few.mem_mb == pytest.approx(2 * 496 * 9 * 3 * 224**2 * 4 / 1e6, rel=0.05)
    larger = estimate("dataset_pass", views={"strongest": views | {"batch": 1024}})
    assert larger.mem_mb > estimate("dataset_pass", views={"strongest": views}).mem_mb


def test_images_are_counted_once_the_data_set_is_prepared(tmp_path: Path) -> None:
    unknown = resources.measure_workload(config_of(), "own").dataset_images
    description = tmp_path / "data/birds/dataset.json"
    description.parent.mkdir(parents=True)
    description.write_text(json.dumps({"counts": {"train": [500_000, 500_000], "test": [7]}}))
    assert resources.measure_workload(config_of(), "own").dataset_images == 1_000_007 != unknown


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_shipped_configs_request_what_a_common_node_has(path: Path) -> None:
    merged: dict[str, Any] = yaml.safe_load(CONFIGS[0].read_text())
    for name, network in (yaml.safe_load(path.read_text(encoding="utf-8"))["networks"]).items():
        merged["networks"][name] = merged["networks"].get(name, {}) | network
    config = resolve_config(merged)
    for name in config["networks"]:
        for stage in resources.STAGE_ESTIMATORS:
            request = resources.estimate_resources(stage, resources.measure_workload(config, name))
            assert 2000 <= request.mem_mb <= 64_000, (name, stage, request)
            assert 30 <= request.runtime <= 240, (name, stage, request)


def test_the_sizes_of_data_sets_are_those_that_formats_declare() -> None:
    assert {
        name: data_format.IMAGE_COUNT for name, data_format in FORMATS.items()
    } == resources.DATASET_IMAGE_COUNTS
    assert {
        name: data_format.INPUT_SIZE for name, data_format in FORMATS.items() if data_format.INPUT_SIZE
    } == resources.INPUT_SIDES
    assert {name: data_format.CHANNELS for name, data_format in FORMATS.items()} == {
        name: 1 if name == "mnist" else 3 for name in FORMATS
    }


def test_each_rule_is_local_or_requests_resources() -> None:
    requesting = {name for name, body in RULES.items() if f'get_resource_functions("{name}")' in body}
    assert requesting | ANALYSIS_RULES == set(resources.STAGE_ESTIMATORS)
    assert requesting | set(LOCAL) == RULES.keys() | {"all", "download"}
    assert not requesting & set(LOCAL)


def test_the_profile_has_every_rule_that_uses_a_gpu() -> None:
    rules = {name for name, body in RULES.items() if "gpu=1" in body} | ANALYSIS_RULES
    assert PROFILE["set-resources"].keys() == rules
    assert all(request == {"gpu": 1} for request in PROFILE["set-resources"].values())


def test_make_expands_braces_as_in_the_documented_commands() -> None:
    """`make cluster ARGS="--set-resources {train,record}:slurm_partition=gpu"` needs bash."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--eval", "show:\n\t@echo {train,record}:gpu", "show"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["train:gpu", "record:gpu"], done.stderr


def test_make_cluster_waits_for_the_jobs_of_a_killed_run(new_workspace: Workspace, tmp_path: Path) -> None:
    locks = new_workspace.folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "squeue").write_text(f"#!/bin/sh\necho '17_3 {new_workspace.folder}'; echo '18 /elsewhere'\n")
    (programs / "squeue").chmod(0o755)
    environment = new_workspace.environment()
    done = subprocess.run(
        [sys.executable, "workflow/prepare.py"], cwd=new_workspace.folder, capture_output=True, text=True,
        env=environment | {"PATH": f"{programs}{os.pathsep}{environment['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().endswith("wait for them to end, or `scancel 17_3`")
    assert list(locks.iterdir())
