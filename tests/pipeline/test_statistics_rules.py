"""What excites each unit, as part of a run: the same bytes from any number of shards, and reruns."""

import re
from pathlib import Path

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


def config(**given: object) -> dict:
    others = dict.fromkeys(("simple_cnn", "resnet18", "sd_unet"))
    return {"networks": others | {"lenet5": LENET | given}, "datasets": {"pets": None}}


def written(workspace: Workspace) -> dict[str, bytes]:
    return {name: (workspace.folder / "results/lenet5" / name).read_bytes() for name in NAMES}


def made(workspace: Workspace, *targets: str) -> str:
    """Run; gives what Snakemake said."""
    done = workspace.snakemake("--", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of lenet5 in three shards."""
    workspace = Workspace(tmp_path_factory.mktemp("shards") / "convatlas", config(shards=3))
    made(workspace)
    return workspace


def followed(text: str) -> list[str]:
    """The shards that a run made, by what they said."""
    return re.findall(r"shard (\d) of 3: .* images through", text)


def planned(workspace: Workspace) -> set[str]:
    """The rules that a run would start now."""
    done = workspace.snakemake("--dry-run", "--quiet", "host")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    return {words[1].rstrip(":") for words in lines if words and words[0] in ("rule", "localrule")} - {"all"}


def test_the_gallery_has_the_statistics_of_the_set(shards: Workspace) -> None:
    site = shards.folder / "reports/gallery"
    page = (site / "networks/lenet5-units.html").read_text()
    assert "360 test images of digits" in page
    plates = read_json(shards.folder / "results/lenet5/figures/figures.json")
    drawn = [plate for plate in plates if plate["kind"] == "strongest"]
    assert [plate["subject"] for plate in drawn] == ["pool1", "pool2"]
    assert all((site / "plates/lenet5" / plate["file"]).is_file() and plate["alt"] for plate in drawn)
    assert (site / "atlas/lenet5/strongest/pool1.png").is_file()
    assert not (site / "atlas/lenet5/strongest/pool2.png").exists()  # not among the layers explored
    about = read_json(shards.folder / "results/lenet5/statistics.json")
    assert (about["images"], about["class_source"], about["k"]) == (360, "label", 4)


def test_one_shard_gives_the_bytes_of_three(shards: Workspace) -> None:
    three = written(shards)
    found = np.load(shards.folder / "results/lenet5/statistics.npz")
    assert found["pool1@values"].shape == (6, 4)
    shards.overlay(config())
    try:
        made(shards, *FILES)
        assert written(shards) == three
        assert read_json(shards.folder / "results/lenet5/statistics.json")["images"] == 360
    finally:
        shards.overlay(config(shards=3))
        made(shards)


def test_a_lost_shard_is_made_again_alone(shards: Workspace) -> None:
    """Where the merged file is wanted again: while that is there no shard is needed."""
    folder = shards.folder / "results/lenet5"
    before, kept = written(shards), (folder / "shards/1.npz").read_bytes()
    (folder / "shards/1.npz").unlink()
    assert planned(shards) == set()
    (folder / "statistics.npz").unlink()
    text = made(shards, *FILES)
    assert followed(text) == ["1"]
    assert text.count("merged 3 shards") == 1
    assert "trained in" not in text
    assert (folder / "shards/1.npz").read_bytes() == kept
    assert written(shards) == before


def test_a_failed_shard_runs_again_alone(shards: Workspace) -> None:
    """A shard that is cut off stops the merge, which says which; once it is deleted the rest goes on."""
    path = shards.folder / "results/lenet5/shards/2.npz"
    kept, before = path.read_bytes(), written(shards)
    path.write_bytes(kept[: len(kept) // 2])
    (shards.folder / "results/lenet5/statistics.npz").unlink()
    done = shards.snakemake("--", "results/lenet5/statistics.npz")
    assert done.returncode != 0
    assert "shards/2.npz" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    path.unlink()
    assert followed(made(shards, *FILES)) == ["2"]
    assert path.read_bytes() == kept
    assert written(shards) == before


def test_null_turns_it_off(shards: Workspace, tmp_path: Path) -> None:
    shards.overlay(config(shards=3, views=LENET["views"] | {"strongest": None}))
    try:
        made(shards)
        assert planned(shards) == set()
        site = shards.folder / "reports/gallery"
        assert not (site / "networks/lenet5-units.html").exists()
        assert not (site / "atlas/lenet5/strongest").exists()
        plates = read_json(shards.folder / "results/lenet5/figures/figures.json")
        assert "strongest" not in {plate["kind"] for plate in plates}
    finally:
        shards.overlay(config(shards=3))
