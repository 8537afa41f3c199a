"""Import torch once for all jobs that a Snakemake run starts on this machine: see fork_server.py."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby
from pathlib import Path

from convatlas.pipeline.fork_client import name_socket

SWITCH = "CONVATLAS_SHARED_IMPORTS"  # the environment variable; "off" lets each job import for itself
TORCH = "torch"
MODULES = (TORCH, "torchvision", "scipy.signal", "numba")  # that take 0.4 s of CPU time or more to import
# The variables that Snakemake sets to the threads of a job (snakemake.shell).
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
SERVER = Path(__file__).absolute().with_name("fork_server.py")
CLIENT = Path(__file__).absolute().with_name("fork_client.py")


@dataclass(frozen=True)
class Command:
    """A command of the run, `python SCRIPT --name NAME ...`.

    Attributes:
        script: Path of the script, as the command has it.
        name: The network or data set; "" without `--name`.
        threads: As the rule has it.
        modules: Which of MODULES it imports.
    """

    script: str
    name: str
    threads: int
    modules: tuple[str, ...]


def find_modules(paths: Iterable[str]) -> tuple[str, ...]:
    """Return which of MODULES are imported at the top of Python files, in their order there.

    Args:
        paths: The files.
    """
    imported = set().union(*map(_find_modules, paths))
    return tuple(module for module in MODULES if module in imported)


@cache
def _find_modules(path: str) -> frozenset[str]:
    source = Path(path).read_text(encoding="utf-8", errors="replace")
    return frozenset(
        name for name in MODULES if re.search(rf"^(?:import|from) {name}\b", source, re.MULTILINE)
    )


def set_threads(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return an environment with the variables that Snakemake sets to the threads of a job.

    Args:
        environment: Environment variables.
        threads: The threads.
    """
    return {**environment, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


def choose_imports(commands: Sequence[Command]) -> dict[Command, tuple[str, ...]]:
    """Choose what is imported in advance for each command: no more than it imports itself.

    Args:
        commands: Commands of the same number of threads.

    Returns:
        The modules of each command that imports torch; none for a single one, which has nothing to share.
    """
    commands = [command for command in commands if TORCH in command.modules]
    if len(commands) < 2:
        return {}
    counts = Counter(command.modules for command in commands)
    choices = [(TORCH,), *(modules for modules, count in counts.items() if count > 1)]
    return {
        command: max((choice for choice in choices if set(choice) <= set(command.modules)), key=len)
        for command in commands
    }


def is_supported(environment: Mapping[str, str]) -> bool:
    """Return whether a process that has imported torch may be copied: on Linux, unless it is switched off.

    Args:
        environment: Environment variables.
    """
    return sys.platform == "linux" and environment.get(SWITCH) != "off"


class SharedImports:
    """The servers of a run: one for each number of threads, as libraries read it when they are imported.

    Attributes:
        folder: A private folder with the servers' sockets, and a link to one for each command.
        scripts: The scripts with such links.
        servers: The processes, which end when this one does.
    """

    def __init__(self, commands: Iterable[Command], environment: Mapping[str, str]) -> None:
        """Start the servers; they begin to import at once, and commands that come earlier wait for them.

        Args:
            commands: The commands that the run will start.
            environment: The environment variables of all of them, but for the threads.
        """
        self.scripts: set[str] = set()
        self.servers: list[subprocess.Popen[bytes]] = []
        self._directory = tempfile.TemporaryDirectory(prefix="convatlas-", ignore_cleanup_errors=True)
        self.folder = self._directory.name
        distinct = {(command.script, command.name): command for command in commands}
        by_threads = sorted(distinct.values(), key=lambda command: command.threads)
        for threads, group in groupby(by_threads, key=lambda command: command.threads):
            if choices := choose_imports(list(group)):
                self._start(choices, set_threads(environment, threads))

    def _start(self, choices: dict[Command, tuple[str, ...]], environment: dict[str, str]) -> None:
        """Start a server, with a socket for each choice of imports."""
        sockets = {
            modules: self._listen(f"{len(self.servers)}-{number}")
            for number, modules in enumerate(sorted({(TORCH,), *choices.values()}, key=len))
        }
        for command, modules in choices.items():
            link = Path(self.folder, name_socket([command.script, "--name", command.name]))
            link.symlink_to(f"{len(self.servers)}-{list(sockets).index(modules)}")
            self.scripts.add(command.script)
        arguments = [[str(listener.fileno()), ",".join(modules)] for modules, listener in sockets.items()]
        python = shutil.which("python", path=environment["PATH"]) or sys.executable
        server = subprocess.Popen(
            [python, SERVER, self.folder, *chain(*arguments)],
            stdin=subprocess.PIPE,  # never written: its end tells the server that this process has ended
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=[listener.fileno() for listener in sockets.values()],
            process_group=0,  # Ctrl-C ends the jobs through their clients
        )
        self.servers.append(server)
        for listener in sockets.values():
            listener.close()

    def _listen(self, name: str) -> socket.socket:
        """Return a socket of the folder, by a short path: that of a socket may have 107 bytes."""
        listener = socket.socket(socket.AF_UNIX)
        directory = os.open(self.folder, os.O_PATH)
        try:
            listener.bind(f"/proc/self/fd/{directory}/{name}")
        finally:
            os.close(directory)
        listener.listen(128)
        return listener

    def get_shell_function(self) -> dict[str, str]:
        """Return the environment variable with a function of bash, by which `python` runs in a server."""
        if not self.scripts:
            return {}
        patterns = "|".join(sorted(map(shlex.quote, self.scripts)))
        client = shlex.join(["command", "python", "-IS", str(CLIENT), self.folder])
        body = f'case "${{1-}}" in {patterns}) {client} "$@";; *) command python "$@";; esac'
        return {"BASH_FUNC_python%%": f"() {{ {body}\n}}"}
