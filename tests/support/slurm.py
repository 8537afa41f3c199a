"""A real SLURM on this machine: one node, which has more cores and GPUs in its books than in its case."""

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


def missing() -> str:
    """Why no SLURM can be started here; "" where it can."""
    lacking = [program for program in PROGRAMS if not shutil.which(program)]
    if lacking:
        return f"no SLURM here ({', '.join(lacking)}): apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons want to be root"


class Job(NamedTuple):
    """A job that has not ended, or one task of an array: its number, state and Snakemake's rule."""

    id: str
    state: str
    rule: str


class Slurm:
    """The daemons, with all that is theirs in one folder, and what clients must have in their environment.

    The GPUs are null devices: SLURM hands them out, but there is no CUDA in them.
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
        """Where clients are: an srun that needs no SLURM_CONF, which the executor's jobs take away.

        Beside it, what SLURM runs before each task, in the task's own environment.
        """
        (self.folder / "bin").mkdir()
        seen = f'echo "$CUDA_VISIBLE_DEVICES" >> {self.folder}/visible'
        srun = f'SLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"'
        for name, line in {"prolog": seen, "srun": srun}.items():
            (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (self.folder / "bin" / name).chmod(0o755)
        folders = [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        return {"PATH": os.pathsep.join(folders)}

    def _start(self) -> None:
        own = [f"--{what}-file={self.folder}/munge.{what}" for what in ("key", "seed", "log", "pid")]
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *own)
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D")
        self._until(lambda: "UP" in self.ask("scontrol", "ping"), "slurmctld")
        self._daemon("slurmd", "-D")
        self._until(lambda: self.ask("sinfo", "--noheader", "--format=%t").startswith("idle"), "slurmd")

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as output:
            self.daemons.append(
                subprocess.Popen(command, env=os.environ | self.environment, stdout=output, stderr=output)
            )

    def _until(self, ready: Callable[[], bool], name: str) -> None:
        end = time.monotonic() + 30
        while not ready():
            if time.monotonic() > end or self.daemons[-1].poll() is not None:
                raise RuntimeError(f"{name} does not come up:\n{(self.folder / f'{name}.out').read_text()}")
            time.sleep(0.1)

    def ask(self, *command: str) -> str:
        """What a client program prints."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def jobs(self) -> list[Job]:
        """The jobs that have not ended, tasks of arrays one by one."""
        table = self.ask("squeue", "--noheader", "--array", "--format=%i|%T|%k")
        rows = [line.split("|") for line in table.splitlines()]
        return [
            Job(id, state, comment.removeprefix("rule_").split("_wildcards_")[0])
            for id, state, comment in rows
        ]

    def requeue(self, id: str) -> None:
        """Do with a job what a preemption does; it may start again at once, not in two minutes."""
        self.ask("scontrol", "requeue", id)
        end = time.monotonic() + 180
        while not started_again(told := self.ask("scontrol", "show", "job", id)):
            if time.monotonic() > end:
                raise TimeoutError(f"job {id} does not start again:\n{told}")
            self.ask("scontrol", "update", f"JobId={id}", "StartTime=now")
            time.sleep(2)  # SLURM looks at its queue a second after the last change of it

    def gpus(self) -> list[str]:
        """The CUDA_VISIBLE_DEVICES that each task has seen so far; "" where there was none."""
        return (self.folder / "visible").read_text().splitlines()

    def stop(self) -> None:
        """End all jobs, then the daemons, the last started first."""
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
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def started_again(told: str) -> bool:
    """Whether a job that was queued again runs, or has done so, by what `scontrol show job` tells of it.

    One that is still leaving its first run is COMPLETING, too, and counted as restarted.
    """
    words = set(told.split())
    return "Restarts=1" in words and not words.isdisjoint({"JobState=RUNNING", "JobState=COMPLETED"})
