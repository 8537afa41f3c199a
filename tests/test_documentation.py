"""Every documented command runs: shell, Python and YAML blocks of README.md and docs/, and the benchmarks.

A block that cannot run here says so, with the reason, in a comment before it:
`<!-- not run: needs a cluster -->`.
YAML blocks are configs: one whose first line names a file is written there for the commands that follow.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from snakemake.utils import update_config

import convatlas as ca
from convatlas.layer_selection import choose_layers
from convatlas.models.build import build_network
from convatlas.pipeline.config import resolve_config
from tests.support.workspace import ROOT, Workspace

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.S | re.M
)
# Networks that the documentation names and nobody trains here.
MULTISPECTRAL_NET = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(5, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
NET = """
from torch import nn


def build(depth, num_classes=3):
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 8 * 8, num_classes))
"""
SAVE_CHECKPOINT = """
import sys
import torch
sys.path.insert(0, "models")
from net import build
state = {f"module.{name}": value for name, value in build(20).state_dict().items()}
torch.save({"state_dict": state}, "checkpoint.pth")
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the line at which it begins."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None  # why it is not run

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match["language"], match["text"], match["reason"])
        for match in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in read_blocks(page)]


@pytest.fixture(scope="module")
def workspace(finished_run: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the finished run whose config.yaml is its tiny config, with the files that the pages name."""
    folder = tmp_path_factory.mktemp("documentation") / "convatlas"
    workspace = Workspace.copy_of(finished_run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    update_config(config, json.loads((folder / "tiny.yaml").read_text()))
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "models").mkdir()
    (folder / "models/net.py").write_text(NET)
    (folder / "models/multispectral.py").write_text(MULTISPECTRAL_NET)
    subprocess.run([sys.executable, "-c", SAVE_CHECKPOINT], cwd=folder, check=True)
    (folder / "names.txt").write_text("ant\nbee\ncat\n")
    rng = np.random.default_rng(0)
    for name in ("photographs/one.png", "my-seven.png", "scans/three.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / name)
    return workspace


def test_every_block_names_its_language() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(\S*)$", page.read_text(), re.M)
        assert all(fences[::2]), page
    assert {block.language for block in BLOCKS} <= {"sh", "python", "yaml"}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml" and not b.reason], ids=str)
def test_each_documented_config_is_accepted_over_the_default(
    block: Block, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys and types are right, and the layers that it names are layers of its networks."""
    monkeypatch.chdir(workspace.folder)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    documented = yaml.safe_load(block.text)
    update_config(config, documented)
    for name, network in resolve_config(config)["networks"].items():
        check_layers(name, network)


def check_layers(name: str, network: dict) -> None:
    """Raise UserError where the views of a network name a layer that it does not have."""
    if isinstance(network.get("weights"), str):
        network = network | {"weights": None}
    model, preprocessing = build_network(network, None, seed=0)
    views = network["views"]
    selections = {"views.layers": views["layers"], "views.deconv.layers": views["deconv"]["layers"]}
    if views["strongest"] and network.get("dataset"):
        project = views["strongest"]["project"]
        selections["views.strongest.project"] = "all" if project is None else project
    blocks = [item for selection in selections.values() if selection != "all" for item in selection]
    names = {module for module, _ in model.named_modules()}
    layers = ca.layers(model, preprocessing.shape, blocks=[b for b in blocks if b in names])
    for key, selection in selections.items():
        choose_layers(layers, selection, f"networks.{name}.{key}")


def write_config(block: Block, folder: Path) -> None:
    """Write a YAML block to the file that its first line names, if it names one."""
    name = re.match(r"# (\S+\.yaml)$", block.text.split("\n")[0])
    if block.language == "yaml" and name and "/path/to" not in block.text:
        (folder / name[1]).write_text(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_their_order(page: Path, workspace: Workspace) -> None:
    """Shell blocks, each with the latest configs before it or else the first after it; then Python blocks."""
    program = ""
    for block in reversed(read_blocks(page)):
        write_config(block, workspace.folder)
    environment = workspace.environment() | {"MPLBACKEND": "agg"}
    for block in read_blocks(page):
        if block.reason:
            continue
        write_config(block, workspace.folder)
        if block.language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=workspace.folder, env=environment, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        elif block.language == "python":
            program += block.text
    if program:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=workspace.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{page}\n{done.stderr[-3000:]}"


def test_commands_for_a_cluster_expand_their_braces(workspace: Workspace) -> None:
    """`--set-resources {train,record}:...` reaches Snakemake as one option per rule, whatever /bin/sh is."""
    text = (ROOT / "docs/cluster.md").read_text()
    (rules,) = re.findall(r"--set-resources \{([\w,]+)\}:slurm_partition=gpu", text)
    arguments = f"--dry-run --executor local --set-resources {{{rules}}}:slurm_partition=gpu"
    done = workspace.make("cluster", f"ARGS={arguments}", "--dry-run")
    assert done.returncode == 0, done.stderr
    command = next(line for line in done.stdout.splitlines() if "--set-resources" in line)
    shell = re.search(r"^SHELL\s*:?=\s*(\S+)", (ROOT / "Makefile").read_text(), re.M)
    echoed = subprocess.run(
        [shell[1] if shell else "/bin/sh", "-c", "echo " + command.partition("--set-resources")[2]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert echoed.stdout.split() == [f"{rule}:slurm_partition=gpu" for rule in rules.split(",")]


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_each_benchmark_runs_at_its_smallest_size(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, script, "--smallest"], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
