"""A real SLURM on this machine: one node, configured with more cores and GPUs than the machine has."""

import getpass
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
CPUS, GPUS = 8, 2
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=1,sched_interval=1
ReturnToService=2
MinJobAge=600
EnforcePartLimits=ALL
SlurmdParameters=config_overrides
KillWait=5
TaskProlog={folder}/bin/prolog
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={megabytes} Gres=gpu:fake:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def can_start_slurm() -> bool:
    """Return whether SLURM is installed, and its daemons may be started: they must be root."""
    return all(map(shutil.which, PROGRAMS)) and os.geteuid() == 0


needs_slurm = pytest.mark.skipif(
    not can_start_slurm(), reason="SLURM tests: as root, `apt-get install slurm-wlm munge`"
)


class Job(NamedTuple):
    """A job that has not ended, or one task of an array: its number, state and Snakemake's rule."""

    id: str
    state: str
    rule: str


class Slurm:
    """The daemons of SLURM, with all their files in one folder; `environment` is that of clients.

    The GPUs are null devices: SLURM assigns them to jobs, but CUDA does not see them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.daemons = folder, []
        for name in ("controller", "node"):
            (folder / name).mkdir(parents=True)
        for number in range(GPUS):
            os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        host = socket.gethostname().split(".")[0]
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 * 9 // 10
        config = CONFIG.format(
            host=host, folder=folder, ports=free_ports(2), cpus=CPUS, gpus=GPUS, megabytes=memory
        )
        (folder / "slurm.conf").write_text(config)
        (folder / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName={host} Name=gpu Type=fake File={folder}/gpu[0-{GPUS - 1}]\n"
        )
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")} | self._scripts()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _scripts(self) -> dict[str, str]:
        """Write the scripts of clients, and return their environment.

        An srun sets SLURM_CONF, which the executor removes from its jobs. The prolog runs before each task,
        in the task's environment, and notes its GPUs.
        """
        (self.folder / "bin").mkdir()
        prolog = f'echo "$CUDA_VISIBLE_DEVICES" >> {self.folder}/visible'
        srun = f'SLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"'
        for name, line in {"prolog": prolog, "srun": srun}.items():
            (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (self.folder / "bin" / name).chmod(0o755)
        folders = [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        return {"PATH": os.pathsep.join(folders)}

    def _start(self) -> None:
        """Start the daemons, each when the one before answers."""
        files = [f"--{kind}-file={self.folder}/munge.{kind}" for kind in ("key", "seed", "log", "pid")]
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D")
        self._until(lambda: "UP" in self.ask("scontrol", "ping"), "slurmctld")
        self._daemon("slurmd", "-D")
        self._until(lambda: self.ask("sinfo", "--noheader", "--format=%t").startswith("idle"), "slurmd")

    def _daemon(self, *command: str) -> None:
        """Start a daemon, with its output in a file of its name."""
        with (self.folder / f"{command[0]}.out").open("wb") as output:
            self.daemons.append(
                subprocess.Popen(command, env=os.environ | self.environment, stdout=output, stderr=output)
            )

    def _until(self, ready: Callable[[], bool], name: str) -> None:
        """Wait until the last started daemon is ready, for at most 30 seconds."""
        end = time.monotonic() + 30
        while not ready():
            if time.monotonic() > end or self.daemons[-1].poll() is not None:
                raise RuntimeError(f"{name} does not come up:\n{(self.folder / f'{name}.out').read_text()}")
            time.sleep(0.1)

    def ask(self, *command: str) -> str:
        """Return what a client program prints."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def jobs(self) -> list[Job]:
        """Return the jobs that have not ended, each task of an array as one."""
        table = self.ask("squeue", "--noheader", "--array", "--format=%i|%T|%k")
        rows = [line.split("|") for line in table.splitlines()]
        return [
            Job(id, state, comment.removeprefix("rule_").split("_wildcards_")[0])
            for id, state, comment in rows
        ]

    def requeue(self, id: str) -> None:
        """Requeue a job as a preemption does, but let it start again at once, not after two minutes."""
        self.ask("scontrol", "requeue", id)
        end = time.monotonic() + 180
        while not has_restarted(description := self.ask("scontrol", "show", "job", id)):
            if time.monotonic() > end:
                raise TimeoutError(f"job {id} does not start again:\n{description}")
            self.ask("scontrol", "update", f"JobId={id}", "StartTime=now")
            time.sleep(2)  # SLURM schedules a second after the last change of its queue

    def gpus(self) -> list[str]:
        """Return the CUDA_VISIBLE_DEVICES of each task so far; "" where it was not set."""
        return (self.folder / "visible").read_text().splitlines()

    def stop(self) -> None:
        """Cancel all jobs, then stop the daemons, the last started first."""
        if len(self.daemons) == 3:
            self.ask("scancel", f"--user={getpass.getuser()}")
            end = time.monotonic() + 15
            while self.jobs() and time.monotonic() < end:
                time.sleep(0.2)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()


def free_ports(count: int) -> list[int]:
    """Return ports of this machine on which no process listens."""
    sockets = [socket.socket() for _ in range(count)]
    for listener in sockets:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def has_restarted(description: str) -> bool:
    """Return whether a requeued job runs, or has run, from the output of `scontrol show job`.

    A job that is still ending its first run also counts as restarted, but its state is COMPLETING.
    """
    words = set(description.split())
    return "Restarts=1" in words and not words.isdisjoint({"JobState=RUNNING", "JobState=COMPLETED"})
