"""The pipeline on a real SLURM: the same bytes as on one machine, and what happens to jobs that fail.

All fixtures share one folder: each continues where the one before it ended.
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
    "device": "cpu",  # the GPUs are not CUDA devices
    "shards": 3,
    "networks": {
        "lenet5": {"training": {"epochs": 5, "max_steps": None}, "images": {"digits": None, "first": 2}},
        "simple_cnn": None,
        "squeezenet": None,
        "sd_unet": None,
    },
    "datasets": {"pets": None},
}
TARGET = "results/lenet5/strongest.npz"


class Cluster(Workspace):
    """A workspace whose jobs run on SLURM."""

    def __init__(self, folder: Path, slurm: Slurm) -> None:
        super().__init__(folder, CONFIG)
        self.slurm, self.drivers = slurm, []

    def environment(self) -> dict[str, str]:
        return super().environment() | self.slurm.environment

    def command(self, *arguments: str) -> list[str]:
        profile = ["snakemake", "--workflow-profile", "workflow/profiles/slurm", "--configfile", "tiny.yaml"]
        polling = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"]
        site = ["--default-resources", "slurm_account=none", "slurm_partition=cpu", "runtime=10"]
        return [*profile, *polling, *site, "--retries", "0", *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake with these further arguments, and return its process."""
        driver = subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.drivers.append(driver)
        return driver

    def wait_for(self, rule: str, state: str) -> str:
        """Return the number of a rule's job, once it is in a state."""
        return wait_until(lambda: [job.id for job in self.slurm.jobs() if job[1:] == (state, rule)])[0]


def wait_until(poll: Callable[[], Any], seconds: float = 300) -> Any:
    """Return the first true value of a function that is called again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := poll():
            return value
        time.sleep(0.1)
    raise TimeoutError


def wait_for_failure(driver: subprocess.Popen[str]) -> str:
    """Return the output of a driver, once it has failed."""
    text, _ = driver.communicate(timeout=400)
    assert driver.returncode == 1, text
    return text


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    daemons = Slurm(tmp_path_factory.mktemp("slurm") / "state")
    yield daemons
    daemons.stop()


@pytest.fixture(scope="module")
def cluster(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    workspace = Cluster(tmp_path_factory.mktemp("cluster") / "atlas", slurm)
    yield workspace
    for driver in workspace.drivers:
        driver.kill()


@pytest.fixture(scope="module")
def refused(cluster: Cluster) -> str:
    return wait_for_failure(cluster.start("--set-resources", "train:gpu=5", "--", TARGET))


@pytest.fixture(scope="module")
def without_cuda(cluster: Cluster, refused: str) -> str:
    return wait_for_failure(cluster.start("--config", "device=auto", "--", TARGET))


@pytest.fixture(scope="module")
def interrupted(cluster: Cluster, without_cuda: str) -> str:
    driver = cluster.start("--", TARGET)
    log = cluster.folder / "logs/lenet5/train.log"
    # The job runs, and the driver waits.
    wait_until(lambda: log.exists() and "validation images" in log.read_text())
    driver.send_signal(signal.SIGINT)
    return wait_for_failure(driver)


@pytest.fixture(scope="module")
def cancelled(cluster: Cluster, interrupted: str) -> str:
    """The output of a run whose training is preempted after an epoch, and one of whose shards is killed."""
    (cluster.slurm.folder / "visible").unlink()  # the GPUs of the jobs before
    driver = cluster.start("--", TARGET)
    training = cluster.wait_for("train", "RUNNING")
    wait_until(lambda: list((cluster.folder / "results/lenet5/checkpoint").glob("*.safetensors")))
    cluster.slurm.requeue(training)
    cluster.slurm.ask("scancel", cluster.wait_for("dataset_pass", "RUNNING"))
    return wait_for_failure(driver)


@pytest.fixture(scope="module")
def finished(cluster: Cluster, cancelled: str) -> set[str]:
    """The jobs that are left after that, which are then run."""
    left = cluster.planned("--", TARGET)
    done = cluster.snakemake("--", TARGET)
    assert done.returncode == 0, done.stdout + done.stderr
    return left


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of the same config on one machine, in one shard."""
    workspace = Workspace(tmp_path_factory.mktemp("local") / "atlas", CONFIG | {"shards": 1})
    done = workspace.snakemake("--", TARGET)
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def test_an_impossible_request_is_reported_with_slurms_message(refused: str) -> None:
    assert "Requested node configuration is not available" in refused
    assert "Error in rule train" in refused


def test_a_job_that_finds_no_cuda_on_its_gpu_fails_with_the_reason(without_cuda: str) -> None:
    assert "this job requested a GPU, but torch" in without_cuda
    assert "CUDA_VISIBLE_DEVICES: '0'" in without_cuda
    assert "torch is built for CUDA" in without_cuda
    assert "driver: no NVIDIA driver is loaded" in without_cuda


def test_an_interrupted_driver_cancels_its_jobs(cluster: Cluster, interrupted: str) -> None:
    assert "Terminating processes on user request" in interrupted
    wait_until(lambda: not cluster.slurm.jobs())
    assert not list((cluster.folder / ".snakemake").glob("locks/*"))
    assert not (cluster.folder / "results/lenet5/weights.safetensors").exists()


def test_a_killed_shard_is_named_with_its_state(cancelled: str) -> None:
    assert "SLURM status is: 'CANCELLED'" in cancelled
    assert cancelled.count("Error in rule dataset_pass") == 1


def test_a_rerun_runs_only_the_jobs_that_are_left(finished: set[str]) -> None:
    assert len(finished) == 3
    assert {"merge_shards lenet5", "project_top_activations lenet5"} < finished
    assert any(job.startswith("dataset_pass lenet5") for job in finished)


@pytest.mark.usefixtures("finished")
def test_preempted_training_resumed_after_its_last_epoch(cluster: Cluster) -> None:
    timing = json.loads((cluster.folder / "results/lenet5/timing.json").read_text())
    assert timing["resumed_after_epoch"] >= 1


@pytest.mark.usefixtures("finished")
def test_each_job_that_requests_a_gpu_gets_one(slurm: Slurm) -> None:
    """The merge of shards requests none."""
    assert set(slurm.gpus()) == {"0", "1", ""}


@pytest.mark.usefixtures("finished")
def test_slurm_and_one_machine_write_the_same_bytes(cluster: Cluster, local: Workspace) -> None:
    """Although training was preempted, a shard killed, and the pass split into three shards on SLURM."""
    on_slurm, on_one_machine = (
        read_files(workspace.folder / "results", ["timing.json"]) for workspace in (cluster, local)
    )
    shards = {f"lenet5/shards/{shard}.npz" for shard in range(3)}
    names = on_one_machine.keys() - shards
    assert on_slurm.keys() - shards == names
    assert [name for name in names if on_slurm[name] != on_one_machine[name]] == []
