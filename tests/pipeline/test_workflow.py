"""The pipeline as a user runs it: end to end, nothing to do, each kind of rerun, errors, interruption."""

import csv
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from markupsafe import escape
from PIL import Image
from snakemake.utils import update_config

from convatlas.analysis.registry import list_computed
from convatlas.pipeline.config import resolve_config
from convatlas.pipeline.config_types import Config
from convatlas.pipeline.shared_imports import SWITCH
from tests.support.workspace import HOSTILE_TEXT, ROOT, TINY, Workspace, read_files

DRAWING = ("figures", "explorer")
RECORDING = ("record", "classical", "deconv", "attribution", *DRAWING)  # with all that follows it
DATASET_PASS = ("dataset_pass", "merge_shards", "project_top_activations")
TRAINING = ("train", *RECORDING, *DATASET_PASS)
MAY_DIFFER = ("timing.json", "provenance.html")  # between two clean runs


def jobs_of(network: str, *rules: str) -> set[str]:
    """Return a network's jobs, as `planned` names them, with the analyses that follow, and the gallery.

    The pass has one shard, 0; an analysis of all networks has no wildcards.
    """
    jobs = {f"{rule} {network} 0" if rule == "dataset_pass" else f"{rule} {network}" for rule in rules}
    for analysis in list_computed(resolve_tiny(), network):
        files = {*analysis.files, *(["merge_shards"] if analysis.reads_statistics else [])}
        if files & {*rules} or {"train", "record"} & {*rules}:
            jobs.add(analysis.name if analysis.is_shared else f"{analysis.name} {network}")
    return jobs | {"gallery"}


@cache
def resolve_tiny() -> Config:
    """Return the config of the finished run."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, TINY)
    return resolve_config(config)


def all_jobs(*rules: str) -> set[str]:
    """Return the jobs of both networks, and the gallery."""
    return jobs_of("lenet5", *rules) | jobs_of("simple_cnn", *rules)


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """Replace a text in a file, whose time is then old, and restore the file afterwards."""
    before = path.read_text(encoding="utf-8")
    assert old in before
    path.write_text(before.replace(old, new, 1), encoding="utf-8")
    os.utime(path, (1e9, 1e9))  # as of a file that is copied here with its time
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")


@pytest.fixture(scope="module")
def run(finished_run: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the finished run; tests that change it must restore it."""
    return Workspace.copy_of(finished_run, tmp_path_factory.mktemp("workflow") / "convatlas")


# End to end


def test_every_file_of_the_contract_exists(run: Workspace) -> None:
    results = run.folder / "results"
    images = {
        "lenet5": ["digit-0", "digit-1", "digit-5", "digit-8"],
        "simple_cnn": ["test-00000", "test-00001", "test-00007"],
    }
    for network, names in images.items():
        folder = results / network
        files = ["weights.safetensors", "network.json", "timing.json", "metrics.json", "predictions.csv"]
        for name in [
            *files,
            "history.csv",
            "layers.json",
            "filters.npz",
            "images.json",
            "figures/figures.json",
        ]:
            assert (folder / name).is_file(), name
        for name in ("statistics.npz", "statistics.json", "strongest.npz", "shards/0.npz"):
            assert (folder / name).is_file(), name
        for stage in ("activations", "classical", "deconv", "attribution"):
            assert sorted(path.stem for path in (folder / stage).glob("*.npz")) == sorted(names)
        assert [image["name"] for image in json.loads((folder / "images.json").read_text())] == names
        with (folder / "history.csv").open() as file:
            assert len(list(csv.DictReader(file))) == {"lenet5": 30, "simple_cnn": 2}[network]
    gallery = run.folder / "reports/gallery"
    for page in ("index.html", "provenance.html", "networks/lenet5.html", "networks/simple_cnn.html"):
        assert (gallery / page).is_file()
    assert [path.name for path in gallery.rglob(".*")] == [".nojekyll"]


def test_digits_are_classified_correctly_and_all_units_are_projected(run: Workspace) -> None:
    folder = run.folder / "results/lenet5"
    for image in json.loads((folder / "images.json").read_text()):
        assert image["prediction"] == image["label"] == int(image["name"].removeprefix("digit-"))
        with np.load(folder / f"deconv/{image['name']}.npz", allow_pickle=False) as projections:
            shapes = {key: (projections[key].shape, projections[key].dtype) for key in projections.files}
        expected = {"pool1": 6, "pool1@peak": 6, "pool2": 16, "pool2@peak": 16}
        assert shapes == {key: ((units, 1, 28, 28), np.float32) for key, units in expected.items()}


def test_lenet5_learns_the_embedded_digits(run: Workspace) -> None:
    assert json.loads((run.folder / "results/lenet5/metrics.json").read_text())["accuracy"] >= 0.97


def test_switches_point_at_the_maxima_of_a_trained_network(run: Workspace) -> None:
    """The value at each switch is the pool's output, and the largest of its window."""
    for path in (run.folder / "results/lenet5/activations").glob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            for pool, relu in (("pool1", "relu1"), ("pool2", "relu2")):
                planes, switches = arrays[relu], arrays[f"{pool}@switches"]
                for unit, y, x in np.ndindex(*arrays[pool].shape):
                    row, column = divmod(switches[unit, y, x], planes.shape[2])
                    assert (row // 2, column // 2) == (y, x)
                    window = planes[unit, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                    assert planes[unit, row, column] == window.max() == arrays[pool][unit, y, x]


def test_each_stage_has_a_log_and_writes_what_it_took(run: Workspace) -> None:
    for network in ("lenet5", "simple_cnn"):
        for stage in {*TRAINING, "dataset_pass-0"} - {"dataset_pass"}:
            assert (run.folder / f"logs/{network}/{stage}.log").read_text()
            header, row = (run.folder / f"logs/{network}/{stage}.tsv").read_text().splitlines()
            assert header == "s\tmax_rss\tcpu_time"
            assert all(0 < float(value) < 2000 for value in row.split("\t"))
    assert "epoch 2/2" in (run.folder / "logs/simple_cnn/train.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="imports are shared on Linux alone")
def test_jobs_share_the_import_of_torch(run: Workspace) -> None:
    """It takes more than two seconds of CPU time, and this analysis of so small a network a fourth of one."""
    header, row = (run.folder / "logs/lenet5/classical.tsv").read_text().splitlines()
    assert float(dict(zip(header.split("\t"), row.split("\t"), strict=True))["cpu_time"]) < 1


def test_no_published_file_holds_a_path_of_this_machine(finished_run: Workspace) -> None:
    for path, content in read_files(finished_run.folder / "reports/gallery").items():
        assert str(finished_run.folder).encode() not in content, path
        assert f"{Path.home()}/".encode() not in content, path


# Reruns


def test_nothing_to_do(run: Workspace) -> None:
    assert run.planned() == set()


def test_touching_code_and_config_reruns_nothing(run: Workspace) -> None:
    for pattern in ("*.yaml", "convatlas/**/*.py", "scripts/*.py", "workflow/**/*"):
        for path in run.folder.glob(pattern):
            path.touch()
    assert run.planned() == set()


def test_an_edit_of_the_training_code_retrains(run: Workspace) -> None:
    with edited(run.folder / "convatlas/training/trainer.py", "import math", "import math  # edited"):
        assert run.planned() == all_jobs(*TRAINING)


def test_an_edit_of_an_architecture_reruns_its_network_only(run: Workspace) -> None:
    with edited(run.folder / "convatlas/models/architectures/lenet5.py", "# 400", "# four hundred"):
        assert run.planned() == jobs_of("lenet5", *TRAINING)


def test_an_edit_of_a_template_rebuilds_the_gallery_only(run: Workspace) -> None:
    with edited(run.folder / "convatlas/gallery/templates/index.html.j2", "The networks", "Networks"):
        assert run.planned() == {"gallery"}


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        ({"views": {"scale": "shared"}}, all_jobs("figures")),
        ({"views": {"formats": ["pdf", "svg"]}}, all_jobs("figures")),
        ({"views": {"match": 0.6}}, all_jobs("classical", *DRAWING)),
        ({"views": {"deconv": {"select": ["map"]}}}, all_jobs("deconv", "attribution", *DRAWING)),
        ({"views": {"attribution": {"targets": "top3"}}}, all_jobs("attribution")),
        (
            {"networks": {"lenet5": {"images": {"digits": [3]}}}},
            jobs_of("lenet5", *RECORDING),
        ),
        ({"views": {"strongest": {"k": 5}}}, all_jobs(*DATASET_PASS, *DRAWING)),
        ({"views": {"strongest": {"units": 2}}}, all_jobs("project_top_activations", *DRAWING)),
        (
            {"networks": {"lenet5": {"training": {"lr": 0.002}}}},
            jobs_of("lenet5", *TRAINING),
        ),
        ({"title": "Another title", "networks": {"lenet5": {"citation": "Me, 2020"}}}, {"gallery"}),
        ({"seed": 1}, all_jobs(*TRAINING)),
    ],
    ids=[
        "scale",
        "formats",
        "match",
        "select",
        "targets",
        "images",
        "k",
        "units",
        "training",
        "title",
        "seed",
    ],
)
def test_a_setting_reruns_what_uses_it(run: Workspace, change: dict, jobs: set[str]) -> None:
    more = run.folder / "more.yaml"
    more.write_text(json.dumps(change))
    try:
        assert run.planned("--configfile", "tiny.yaml", "more.yaml") == jobs
    finally:
        more.unlink()


def test_lost_files_are_written_again(run: Workspace) -> None:
    jobs = {
        "results/lenet5/layers.json": "record lenet5",
        "data/digits/MNIST/raw/t10k-labels-idx1-ubyte": "mnist digits",
        "results/simple_cnn/metrics.json": "train simple_cnn",
    }
    backups = {path: (run.folder / path).rename(run.folder / f"{path}.backup") for path in jobs}
    try:
        assert run.planned() >= set(jobs.values())
    finally:
        for path, backup in backups.items():
            backup.rename(run.folder / path)


# Reproducibility and interruption


def test_an_interrupted_run_continues_to_the_same_bytes(
    run: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network's second run, killed during training and started again, has the same bytes as the first.

    Also where it goes on without shared imports.
    """
    second = Workspace.copy_of(run, tmp_path / "convatlas")
    for folder in ("results/lenet5", "logs/lenet5", "reports/gallery"):
        shutil.rmtree(second.folder / folder)
    process = subprocess.Popen(
        second.command(), cwd=second.folder, env=second.environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log = second.folder / "logs/lenet5/train.log"
    for _ in range(600):
        time.sleep(0.1)
        if log.exists() and "epoch" in log.read_text():
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert any((second.folder / ".snakemake/locks").iterdir()), "the killed run left no lock to clean up"

    monkeypatch.setenv(SWITCH, "off")
    done = second.make("report", "CONFIG=tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unlocking" in done.stderr
    for folder in ("data", "results", "reports/gallery"):
        first, again = (read_files(w.folder / folder, MAY_DIFFER) for w in (run, second))
        assert [name for name in first | again if first.get(name) != again.get(name)] == []


# Errors


def assert_one_clear_message(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert that a command failed with a message that holds these words, and no traceback."""
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"networks": {"lenet5": {"trainig": {}}}},
            ["networks.lenet5", "'trainig'", "did you mean 'training'"],
        ),
        ({"device": 3}, ["device: got 3", "allowed: auto, cpu, cuda"]),
        ({"networks": {"lenet5": {"architecture": "lenet"}}}, ["architecture", "did you mean 'lenet5'"]),
        (
            {"networks": {"lenet5": {"dataset": "digit"}}},
            ["networks.lenet5.dataset", "did you mean 'digits'"],
        ),
    ],
)
def test_a_wrong_config_stops_before_any_job(
    new_workspace: Workspace, config: dict, words: list[str]
) -> None:
    new_workspace.overlay(config)
    assert_one_clear_message(new_workspace.snakemake(), *words)
    assert not (new_workspace.folder / "data").exists()


def test_damaged_data_is_named_and_the_run_continues_once_it_is_fixed(new_workspace: Workspace) -> None:
    raw = new_workspace.folder / "mine/MNIST/raw"
    new_workspace.overlay(TINY | {"datasets": {"digits": {"source": "mine"}}})
    assert_one_clear_message(
        new_workspace.snakemake("--", "download"), "datasets.digits.source", "no directory 'mine'"
    )

    raw.mkdir(parents=True)
    assert_one_clear_message(
        new_workspace.snakemake("--", "download"), "datasets.digits.source", "train-images-idx3-ubyte"
    )

    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">HBBIII", 0, 8, 3, 2, 1, 1) + b"\0\1")
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + b"\0\1")
    content = (raw / "t10k-images-idx3-ubyte").read_bytes()
    (raw / "t10k-images-idx3-ubyte").write_bytes(content[:-1])
    assert_one_clear_message(
        new_workspace.snakemake("--", "download"), "t10k-images-idx3-ubyte", "truncated or altered"
    )
    assert not list(new_workspace.folder.glob("data/digits/**/*ubyte"))

    (raw / "t10k-images-idx3-ubyte").write_bytes(content)
    done = new_workspace.snakemake("--", "download")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (new_workspace.folder / "data/digits/MNIST/raw/t10k-images-idx3-ubyte").is_symlink()
    assert "[0 of 1 steps done" in done.stderr and "running: mnist digits" in done.stderr
    assert "jobs to execute" not in done.stderr


def test_errors_after_training_are_one_message_each_and_keep_what_was_finished(
    run: Workspace, tmp_path: Path
) -> None:
    """In a copy of the finished run, so that only the failing stage and those after it run again."""
    workspace = Workspace.copy_of(run, tmp_path / "convatlas")
    overlays = ("--configfile", "tiny.yaml", "more.yaml")
    for change, words in [
        ({"views": {"layers": ["conv9"]}}, ["networks.lenet5.views.layers", "no layer 'conv9'", "conv1"]),
        (
            {"images": {"digits": None, "files": ["no.png"]}},
            ["networks.lenet5.images.files", "there is no file or folder 'no.png'"],
        ),
        (
            {"images": {"digits": None, "files": ["tiny.yaml"]}},
            ["networks.lenet5.images.files", "tiny.yaml is no image"],
        ),
        (
            {"images": {"digits": None, "indices": [360]}},
            ["networks.lenet5.images", "no test image 360", "there are 360"],
        ),
    ]:
        (workspace.folder / "more.yaml").write_text(json.dumps({"networks": {"lenet5": change}}))
        done = workspace.snakemake(*overlays, "--", "results/lenet5/figures")
        assert_one_clear_message(done, *words)
    assert "train lenet5" not in workspace.planned()
    # Without a mistake, the next run continues from what was finished.
    done = workspace.snakemake("--", "results/lenet5/figures")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_path_that_cannot_be_written_is_named(new_workspace: Workspace) -> None:
    (new_workspace.folder / "results").write_text("a file where a folder belongs")
    assert_one_clear_message(new_workspace.snakemake(), "cannot write in results")


def test_device_cuda_without_cuda_stops(run: Workspace, tmp_path: Path) -> None:
    settings = json.dumps({"architecture": "lenet5", "dataset": "digits", "input": {}, "training": {}})
    done = subprocess.run(
        [sys.executable, "scripts/train.py", "--name", "lenet5", "--settings", settings, "--device", "cuda",
         "--data", str(run.folder / "data/digits"), "--output", str(tmp_path / "out")],
        cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert_one_clear_message(done, "device: cuda was requested")
    assert not (tmp_path / "out").exists()


# The command lines


def test_make_report_takes_a_config_and_sets_up_nothing_twice(run: Workspace) -> None:
    done = run.make("report", "CONFIG=tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr
    assert "Open reports/gallery/index.html" in done.stdout
    assert "venv" not in done.stdout


def test_make_download_fetches_only(new_workspace: Workspace) -> None:
    done = new_workspace.make("download", "CONFIG=tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (new_workspace.folder / "data/digits/MNIST/raw/train-labels-idx1-ubyte").is_file()
    assert not list(new_workspace.folder.glob("results/*/*"))


def test_a_typo_after_an_interruption_is_reported_as_such(new_workspace: Workspace) -> None:
    locks = new_workspace.folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("data/digits/dataset.json")
    new_workspace.overlay({"sed": 1})
    assert_one_clear_message(new_workspace.make("report", "CONFIG=tiny.yaml"), "unknown key 'sed'")


def test_text_of_the_config_is_data(run: Workspace) -> None:
    assert not list(run.folder.rglob("expanded"))
    page = (run.folder / "reports/gallery/index.html").read_text(encoding="utf-8")
    assert f"By {escape(HOSTILE_TEXT)}" in page


def test_paths_with_braces_and_spaces_are_data(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "a {folder}; $(touch expanded)")
    names, weights = (tmp_path / name for name in ("names {n}.txt", "{w} 1.pth"))
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in (
        b"photo {1}.png",
        b"line\n.png",
        b"not utf-8 \xff.png",
        b"<script>.png",
        150 * b"n" + b".png",
    ):
        Image.new("L", (28, 28)).save(photos / os.fsdecode(name))
    names.write_text("\n".join("abcdefghij"))
    weights.touch()
    (tmp_path / "data {2}").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "data {2}/{3}.png")
    network = {"weights": {"path": str(weights)}, "classes": str(names), "images": {"files": [str(photos)]}}
    datasets = {"mine": {"format": "images", "source": str(tmp_path / "data {2}")}}
    config = {"networks": {"lenet5": network | {"dataset": "mine"}}, "datasets": datasets, "only": ["lenet5"]}
    (workspace.folder / "a; touch expanded {c}.yaml").write_text(json.dumps(config))
    done = workspace.make("report", "CONFIG=a; touch expanded {c}.yaml", "SNAKEMAKE=snakemake -n --cores 1")
    assert "train" in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("expanded"))


def test_make_help_lists_the_targets() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("report", "test", "full", "download", "cluster"):
        assert f"make {target}" in done.stdout


def test_what_stands_in_the_place_of_an_output_is_named_before_any_job(new_workspace: Workspace) -> None:
    folder = new_workspace.folder
    (folder / "elsewhere").mkdir()
    (folder / "reports").mkdir()
    (folder / "reports/gallery").symlink_to("../elsewhere")
    (folder / "results/lenet5/metrics.json").mkdir(parents=True)
    (folder / "results/lenet5/figures").write_text("")
    (folder / "results/lenet5/deconv").symlink_to("../../elsewhere")
    done = new_workspace.make("report", "CONFIG=tiny.yaml")
    output = done.stdout + done.stderr
    assert done.returncode != 0
    for fault in (
        "reports/gallery is a link, which the run would replace",
        "results/lenet5/metrics.json is a folder, where a file is to be",
        "results/lenet5/figures is a file, where a folder is to be",
        "results/lenet5/deconv is a link, which the run would replace",
    ):
        assert output.count(fault) == 1
    assert "Traceback" not in output
    assert not (folder / "data").exists()
    assert not list((folder / "elsewhere").iterdir())
    assert not (folder / ".snakemake/run.json").exists()


def test_unlock_does_not_touch_a_running_run(new_workspace: Workspace) -> None:
    locks = new_workspace.folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").touch()
    (new_workspace.folder / "snakemake").write_text("import time; time.sleep(60)")
    running = subprocess.Popen([sys.executable, "snakemake"], cwd=new_workspace.folder)
    try:
        done = subprocess.run(
            [sys.executable, "workflow/prepare.py"],
            cwd=new_workspace.folder,
            env=new_workspace.environment(),
            capture_output=True,
            text=True,
        )
    finally:
        running.kill()
        running.wait()
    assert_one_clear_message(done, "another run is at work")
    assert list(locks.iterdir())
