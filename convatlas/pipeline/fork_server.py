"""Run the jobs of one Snakemake run as copies of a process that has imported torch already.

A job spends more than two seconds of CPU time on importing torch and on taking it down again. This program
imports what the jobs share once, and forks a copy of itself for each. It is started by
convatlas.pipeline.shared_imports, and asked for jobs by fork_client.py, which runs in place of the script. It
imports nothing of the library, so that a job has the library's code as it is when the job starts.

    Snakemake  --stdin: end of file when it ends, however it does-->  server
    client     --argv, folder, environment, standard streams------->  copy of the server: the job
    server     --status of the job--------------------------------->  client
    client     --hang-up when it ends------------------------------>  server, which kills the job
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import marshal
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import types
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ENVIRONMENT = dict(os.environb)  # as the jobs must have it, since libraries read it when they are imported
# Variables that Snakemake or the shell set for each job, and that no library reads then.
VOLATILE = (b"TMPDIR", b"TMP", b"TEMP", b"TEMPDIR", b"PWD", b"OLDPWD", b"SHLVL", b"_", b"BASH_FUNC_python%%")
STANDARD_STREAMS = (0, 1, 2)
NUMBER_BYTES = 8  # of each number that is sent
DECLINED = 0  # in place of the number of the process, to a client that then runs the script itself
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Server:
    """Accept jobs, fork a process for each, and tell its client how it ended.

    Attributes:
        listener: Socket of the jobs that need what is imported here.
        others: Sockets of jobs that need more, with the names of those modules. The first job forks another
            server for them.
    """

    def __init__(self, folder: str, listener: socket.socket, others: dict[socket.socket, list[str]]) -> None:
        """Wait for jobs at the sockets, and for the end of Snakemake at the standard input.

        Args:
            folder: That of the sockets, removed in the end.
            listener: As above.
            others: As above.
        """
        self.folder = folder
        self.others = others
        self.jobs: dict[int, socket.socket] = {}  # number of the process: connection to its client
        self._listen(listener)

    def _listen(self, listener: socket.socket) -> None:
        self.listener = listener
        self.wake_up, notifier = socket.socketpair()
        self.wake_up.setblocking(False)
        notifier.setblocking(False)
        self.notifier = notifier
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(notifier.fileno())
        self.poll = select.poll()
        self.poll.register(0, 0)  # reports a hang-up, whatever is asked for
        for readable in (self.wake_up, listener, *self.others):
            self.poll.register(readable, select.POLLIN)

    def serve(self) -> socket.socket:
        """Serve until Snakemake ends.

        Returns:
            In the process of a job: the connection to its client. The server itself never returns.
        """
        while True:
            number, _ = self.poll.poll()[0]  # one at a time: a new socket may get the number of a closed one
            if number == 0:
                self._stop()
            elif number == self.wake_up.fileno():
                self._report_ended_jobs()
            elif number == self.listener.fileno():
                connection = self._start_job()
                if connection:
                    return connection
            else:
                self._handle_other(number)

    def _stop(self) -> NoReturn:
        """Kill all jobs, each with the processes that it started."""
        for process in self.jobs:
            kill_group(process)
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)

    def _start_job(self) -> socket.socket | None:
        """Fork a job; return its connection in the process of the job alone."""
        connection, _ = self.listener.accept()
        try:
            process = fork_dependent()
        except OSError:  # too many processes: the client runs the script itself
            connection.close()
            return None
        if process == 0:
            self._leave()
            return connection
        with contextlib.suppress(OSError):  # the job has done so itself, and may have ended
            os.setpgid(process, process)
        self.jobs[process] = connection
        self.poll.register(connection, 0)
        return None

    def _leave(self) -> None:
        """Close what belongs to the server, in a process that it has forked."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for opened in (self.wake_up, self.notifier, self.listener, *self.jobs.values()):
            opened.close()
        self.jobs = {}

    def _report_ended_jobs(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.wake_up.recv(4096):
                pass
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                process, status = ended
                connection = self.jobs.pop(process, None)
                if connection:
                    self.poll.unregister(connection)
                    with contextlib.suppress(OSError):
                        connection.sendall(status.to_bytes(NUMBER_BYTES))
                    connection.close()

    def _handle_other(self, number: int) -> None:
        """Start the server of jobs that need more modules, or kill a job whose client has ended."""
        for listener, modules in self.others.items():
            if number == listener.fileno():
                del self.others[listener]
                self._start_server(listener, modules)
                return
        for process, connection in self.jobs.items():
            if number == connection.fileno():
                kill_group(process)
                del self.jobs[process]
                self.poll.unregister(connection)
                connection.close()
                return

    def _start_server(self, listener: socket.socket, modules: Sequence[str]) -> None:
        """Fork a server that imports more, and becomes this object in its process."""
        process = -1
        with contextlib.suppress(OSError):
            process = fork_dependent()
        if process:
            self.poll.unregister(listener)
            listener.close()
            return
        self._leave()
        for other in self.others:
            other.close()
        self.others = {}
        import_modules(modules)
        self._listen(listener)


def kill_group(process: int) -> None:
    """Kill a job and the processes that it started.

    Args:
        process: The number of its process, and of its group once that exists.
    """
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(process, signal.SIGKILL)


def fork_dependent() -> int:
    """Fork a process that Linux kills when this one ends, however it does; return as os.fork."""
    parent = os.getpid()
    process = os.fork()
    if process == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    return process


def import_modules(modules: Sequence[str]) -> None:
    """Import modules, and exempt their objects from garbage collection, which would copy their memory.

    What they write to the standard error is kept there for each job to write, as if it imported them itself.

    Args:
        modules: Their dotted names.
    """
    for name in modules:
        importlib.import_module(name)
    sys.stderr.flush()
    gc.collect()
    gc.freeze()


def receive_job(connection: socket.socket) -> tuple[bytes, list[bytes], dict[bytes, bytes]]:
    """Read what a client sends, and take over its standard streams.

    Args:
        connection: To the client.

    Returns:
        The folder, the script's path with its arguments, and the environment.

    Raises:
        EOFError: The client has ended.
    """
    header, streams, *_ = socket.recv_fds(connection, NUMBER_BYTES, len(STANDARD_STREAMS))
    content = b""
    while len(content) < int.from_bytes(header):
        received = connection.recv(1 << 20)
        if not received:
            raise EOFError
        content += received
    for stream, number in zip(streams, STANDARD_STREAMS, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    folder, arguments, environment = marshal.loads(content)
    return folder, arguments, environment


def become_job(connection: socket.socket) -> list[str]:
    """Take the place of a Python process that a client would have started.

    Args:
        connection: To the client; closed, as the server alone reports the job's end.

    Returns:
        The script's path and its arguments.
    """
    os.setpgid(0, 0)
    messages = os.pread(2, 1 << 20, 0)  # what the imports wrote
    try:
        folder, arguments, environment = receive_job(connection)
    except (OSError, ValueError, EOFError):  # the client has ended, or runs the script itself
        os._exit(DECLINED)
    changed = {name for name, _ in environment.items() ^ ENVIRONMENT.items()}
    if not changed.issubset(VOLATILE):
        connection.sendall(DECLINED.to_bytes(NUMBER_BYTES))
        os._exit(0)
    connection.sendall(os.getpid().to_bytes(NUMBER_BYTES))
    connection.close()
    os.write(2, messages)
    for name in changed:
        os.environb.pop(name, None)
        os.environb.update({name: environment[name]} if name in environment else {})
    tempfile.tempdir = None  # where an import has looked it up
    os.chdir(folder)
    return [os.fsdecode(argument) for argument in arguments]


def run_script(arguments: list[str]) -> NoReturn:
    """Run a script as `python` would, and end the process.

    Args:
        arguments: The script's path and its arguments.
    """
    path = str(Path(arguments[0]).absolute())
    sys.argv = arguments
    sys.orig_argv = [sys.orig_argv[0], *arguments]
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path(path).resolve().parent))
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    status = 0
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec")
        exec(code, module.__dict__)
    except SystemExit as error:
        status = _get_exit_status(error)
    except BaseException as error:
        traceback = error.__traceback__ and error.__traceback__.tb_next  # without this function
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        status = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    end_process(status)


def _get_exit_status(error: SystemExit) -> int:
    """Return the exit status of an exception, and write its message if it has one, as Python does."""
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def end_process(status: int) -> NoReturn:
    """End this process in Python's order, but leave its memory to the system, which saves half a second.

    Args:
        status: The exit status.
    """
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as multiprocessing does
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = 120
    ctypes.CDLL(None).fflush(None)
    os._exit(status)


def main() -> NoReturn:
    """Serve as the command line says: the folder, then each socket's descriptor and modules with commas."""
    if not sys.flags.safe_path:
        del sys.path[0]  # this file's folder, whose modules must not hide others
    folder, *pairs = sys.argv[1:]
    sockets = {
        socket.socket(fileno=int(number)): modules.split(",")
        for number, modules in zip(pairs[::2], pairs[1::2], strict=True)
    }
    os.dup2(os.memfd_create("stderr"), 2)
    listener = next(iter(sockets))
    import_modules(sockets.pop(listener))
    run_script(become_job(Server(folder, listener, sockets).serve()))


if __name__ == "__main__":
    main()
