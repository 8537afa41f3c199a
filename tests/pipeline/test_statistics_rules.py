"""The statistics of units as part of a run: the same bytes from any number of shards, and reruns."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convatlas.files import read_json
from tests.support.workspace import Workspace

LENET = {
    "training": {"epochs": 1},
    "images": {"digits": None, "indices": [0]},
    "views": {"layers": ["pool1", "fc3"], "strongest": {"batch": 64, "k": 4}},
}
NAMES = ("statistics.npz", "statistics.json", "strongest.npz")
FILES = [f"results/lenet5/{name}" for name in NAMES]


def make_config(**network: object) -> dict[str, Any]:
    """Return a config of lenet5 alone, with these keys of its section."""
    removed = dict.fromkeys(("simple_cnn", "squeezenet", "sd_unet"))
    return {"networks": removed | {"lenet5": LENET | network}, "datasets": {"pets": None}}


def read_statistics(workspace: Workspace) -> dict[str, bytes]:
    """Return the content of the files of statistics."""
    return {name: (workspace.folder / "results/lenet5" / name).read_bytes() for name in NAMES}


def run_targets(workspace: Workspace, *targets: str) -> str:
    """Run Snakemake, and return its output."""
    done = workspace.snakemake("--", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of lenet5 in three shards."""
    workspace = Workspace(tmp_path_factory.mktemp("shards") / "convatlas", make_config(shards=3))
    run_targets(workspace)
    return workspace


def list_shards(text: str) -> list[str]:
    """Return the shards that a run computed, from its output."""
    return re.findall(r"shard (\d) of 3: .* images through", text)


def planned_rules(workspace: Workspace) -> set[str]:
    """Return the rules that a run would start now."""
    done = workspace.snakemake("--dry-run", "--quiet", "host")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    return {words[1].rstrip(":") for words in lines if words and words[0] in ("rule", "localrule")} - {"all"}


def test_the_gallery_has_the_statistics_of_the_set(shards: Workspace) -> None:
    site = shards.folder / "reports/gallery"
    page = (site / "networks/lenet5-units.html").read_text()
    assert "360 test images of digits" in page
    figures = read_json(shards.folder / "results/lenet5/figures/figures.json")
    drawn = [figure for figure in figures if figure["kind"] == "strongest"]
    assert [figure["subject"] for figure in drawn] == ["pool1", "pool2"]
    assert all((site / "figures/lenet5" / figure["file"]).is_file() and figure["alt"] for figure in drawn)
    assert (site / "explorer/lenet5/strongest/pool1.png").is_file()
    assert not (site / "explorer/lenet5/strongest/pool2.png").exists()  # not one of the explored layers
    description = read_json(shards.folder / "results/lenet5/statistics.json")
    assert (description["images"], description["class_source"], description["k"]) == (360, "label", 4)


def test_one_shard_gives_the_bytes_of_three(shards: Workspace, tmp_path: Path) -> None:
    statistics = np.load(shards.folder / "results/lenet5/statistics.npz")
    assert statistics["pool1@values"].shape == (6, 4)
    one = Workspace.copy_of(shards, tmp_path / "convatlas")
    one.overlay(make_config())
    assert "shard 0 of 1: 360 images through" in run_targets(one, *FILES)
    assert read_statistics(one) == read_statistics(shards)
    assert read_json(one.folder / "results/lenet5/statistics.json")["images"] == 360


def test_only_a_lost_shard_is_computed_again(shards: Workspace) -> None:
    """Where the merged file is also lost: while that exists, no shard is needed."""
    folder = shards.folder / "results/lenet5"
    before, content = read_statistics(shards), (folder / "shards/1.npz").read_bytes()
    (folder / "shards/1.npz").unlink()
    assert planned_rules(shards) == set()
    (folder / "statistics.npz").unlink()
    text = run_targets(shards, *FILES)
    assert list_shards(text) == ["1"]
    assert text.count("merged 3 shards") == 1
    assert "trained in" not in text
    assert (folder / "shards/1.npz").read_bytes() == content
    assert read_statistics(shards) == before


def test_only_a_damaged_shard_is_computed_again(shards: Workspace) -> None:
    """A truncated shard stops the merge, which names it; once it is deleted, the run continues."""
    path = shards.folder / "results/lenet5/shards/2.npz"
    content, before = path.read_bytes(), read_statistics(shards)
    path.write_bytes(content[: len(content) // 2])
    (shards.folder / "results/lenet5/statistics.npz").unlink()
    done = shards.snakemake("--", "results/lenet5/statistics.npz")
    assert done.returncode != 0
    assert "shards/2.npz" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    path.unlink()
    assert list_shards(run_targets(shards, *FILES)) == ["2"]
    assert path.read_bytes() == content
    assert read_statistics(shards) == before


def test_null_disables_the_pass(shards: Workspace) -> None:
    shards.overlay(make_config(shards=3, views=LENET["views"] | {"strongest": None}))
    try:
        run_targets(shards)
        assert planned_rules(shards) == set()
        site = shards.folder / "reports/gallery"
        assert not (site / "networks/lenet5-units.html").exists()
        assert not (site / "explorer/lenet5/strongest").exists()
        figures = read_json(shards.folder / "results/lenet5/figures/figures.json")
        assert "strongest" not in {figure["kind"] for figure in figures}
    finally:
        shards.overlay(make_config(shards=3))
