"""The pipeline on a real SLURM: as one machine makes it to the byte, and what becomes of jobs that fail.

One folder lives through it all, each fixture going on where the one before it ended.
"""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.slurm import Slurm, needs_slurm
from tests.support.workspace import Workspace, read_files

pytestmark = needs_slurm

CONFIG = {
    "device": "cpu",  # the GPUs are no CUDA devices
    "shards": 3,
    "networks": {
        "lenet5": {"training": {"epochs": 5, "max_steps": None}, "images": {"digits": None, "first": 2}},
        "simple_cnn": None,
        "resnet18": None,
        "sd_unet": None,
    },
    "datasets": {"pets": None},
}
TARGET = "results/lenet5/strongest.npz"


class Cluster(Workspace):
    """A workspace whose jobs are SLURM's."""

    def __init__(self, folder: Path, slurm: Slurm) -> None:
        super().__init__(folder, CONFIG)
        self.slurm, self.drivers = slurm, []

    def environment(self) -> dict[str, str]:
        return super().environment() | self.slurm.environment

    def command(self, *arguments: str) -> list[str]:
        profile = ["snakemake", "--workflow-profile", "workflow/profiles/slurm", "--configfile", "tiny.yaml"]
        here = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"]
        site = ["--default-resources", "slurm_account=none", "slurm_partition=cpu", "runtime=10"]
        return [*profile, *here, *site, "--retries", "0", *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        driver = subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.drivers.append(driver)
        return driver

    def wait_for(self, rule: str, state: str) -> str:
        """The number of a job of a rule, once it is in a state."""
        return until(lambda: [job.id for job in self.slurm.jobs() if job[1:] == (state, rule)])[0]


def until(found: Callable[[], Any], seconds: float = 300) -> Any:
    """What `found` gives as soon as it gives anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if there := found():
            return there
        time.sleep(0.1)
    raise TimeoutError


def ended(driver: subprocess.Popen[str]) -> str:
    """What a driver has printed, once it has ended without success."""
    text, _ = driver.communicate(timeout=400)
    assert driver.returncode == 1, text
    return text


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    here = Slurm(tmp_path_factory.mktemp("slurm") / "state")
    yield here
    here.stop()


@pytest.fixture(scope="module")
def cluster(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    workspace = Cluster(tmp_path_factory.mktemp("cluster") / "atlas", slurm)
    yield workspace
    for driver in workspace.drivers:
        driver.kill()


@pytest.fixture(scope="module")
def refused(cluster: Cluster) -> str:
    return ended(cluster.start("--set-resources", "train:gpu=5", "--", TARGET))


@pytest.fixture(scope="module")
def without_cuda(cluster: Cluster, refused: str) -> str:
    return ended(cluster.start("--config", "device=auto", "--", TARGET))


@pytest.fixture(scope="module")
def interrupted(cluster: Cluster, without_cuda: str) -> str:
    driver = cluster.start("--", TARGET)
    log = cluster.folder / "logs/lenet5/train.log"
    until(lambda: log.exists() and "to validate" in log.read_text())  # the job is at work, the driver waits
    driver.send_signal(signal.SIGINT)
    return ended(driver)


@pytest.fixture(scope="module")
def cancelled(cluster: Cluster, interrupted: str) -> str:
    """A run whose training is preempted after an epoch, and of whose shards one is killed."""
    (cluster.slurm.folder / "visible").unlink()  # what the jobs before have seen
    driver = cluster.start("--", TARGET)
    training = cluster.wait_for("train", "RUNNING")
    until(lambda: list((cluster.folder / "results/lenet5/checkpoint").glob("*.safetensors")))
    cluster.slurm.requeue(training)
    cluster.slurm.ask("scancel", cluster.wait_for("dataset_pass", "RUNNING"))
    return ended(driver)


@pytest.fixture(scope="module")
def finished(cluster: Cluster, cancelled: str) -> set[str]:
    """What is left to do after that, which is then done."""
    left = cluster.planned("--", TARGET)
    done = cluster.snakemake("--", TARGET)
    assert done.returncode == 0, done.stdout + done.stderr
    return left


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same, made by one machine, in one part."""
    workspace = Workspace(tmp_path_factory.mktemp("local") / "atlas", CONFIG | {"shards": 1})
    done = workspace.snakemake("--", TARGET)
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def test_an_impossible_request_is_refused_in_slurms_own_words(refused: str) -> None:
    assert "Requested node configuration is not available" in refused
    assert "Error in rule train" in refused


def test_a_job_that_finds_no_cuda_on_its_gpu_stops_and_says_where(without_cuda: str) -> None:
    assert "this job requested a GPU, but torch" in without_cuda
    assert "CUDA_VISIBLE_DEVICES: '0'" in without_cuda
    assert "torch is built for CUDA" in without_cuda
    assert "driver: no NVIDIA driver is loaded" in without_cuda


def test_an_interrupted_driver_takes_its_jobs_along(cluster: Cluster, interrupted: str) -> None:
    assert "Terminating processes on user request" in interrupted
    until(lambda: not cluster.slurm.jobs())
    assert not list((cluster.folder / ".snakemake").glob("locks/*"))
    assert not (cluster.folder / "results/lenet5/weights.safetensors").exists()


def test_a_killed_shard_is_named_with_its_state(cancelled: str) -> None:
    assert "SLURM status is: 'CANCELLED'" in cancelled
    assert cancelled.count("Error in rule dataset_pass") == 1


def test_a_rerun_makes_only_what_is_left(finished: set[str]) -> None:
    assert len(finished) == 3
    assert {"merge_shards lenet5", "project_top_activations lenet5"} < finished
    assert any(job.startswith("dataset_pass lenet5") for job in finished)


@pytest.mark.usefixtures("finished")
def test_preempted_training_went_on_after_its_last_epoch(cluster: Cluster) -> None:
    timing = json.loads((cluster.folder / "results/lenet5/timing.json").read_text())
    assert timing["resumed_after_epoch"] >= 1


@pytest.mark.usefixtures("finished")
def test_each_job_that_asks_for_a_gpu_has_one_of_its_own(slurm: Slurm) -> None:
    """The merge of shards asks for none."""
    assert set(slurm.gpus()) == {"0", "1", ""}


@pytest.mark.usefixtures("finished")
def test_slurm_and_one_machine_make_the_same_bytes(cluster: Cluster, local: Workspace) -> None:
    """Though training was preempted there, a shard killed, and the pass done in three parts."""
    theirs, own = (read_files(place.folder / "results", ["timing.json"]) for place in (cluster, local))
    shards = {f"lenet5/shards/{shard}.npz" for shard in range(3)}
    assert theirs.keys() - shards == own.keys() - shards
    assert [name for name in own.keys() - shards if theirs[name] != own[name]] == []
