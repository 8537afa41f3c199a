"""Scripts run in copies of a process that has imported torch: as with `python`, and end when they must."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convatlas.pipeline import shared_imports
from convatlas.pipeline.shared_imports import (
    Command,
    SharedImports,
    choose_imports,
    find_modules,
    set_threads,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux alone")
SCRIPTS = {
    "surroundings": """
        import json, sys, os, logging, light_torch
        logging.getLogger("light").warning("a warning")
        print(sys.argv, sys.path[0], __name__, __file__, __spec__, os.getcwd())
        changed = ("SHLVL", "BASH_FUNC_python%%")
        environment = {name: value for name, value in os.environ.items() if name not in changed}
        print(json.dumps(environment, sort_keys=True), sys.stdin.read(), sys.flags, sys.stdout.line_buffering)
    """,
    "message": "import sys; print('before'); sys.exit('error: no such layer')",
    "status": "import sys, light_torch; sys.exit(7)",
    "large_status": "raise SystemExit(257)",
    "failure": "def divide(): return 1 / 0\ndivide()",
    "syntax": "x = (",
    "interrupt": "raise KeyboardInterrupt",
    "end": """
        import atexit, threading, time
        atexit.register(print, "at exit")
        threading.Thread(target=lambda: (time.sleep(0.1), print("from a thread"))).start()
    """,
    "abort": "import os; os.abort()",
    "native": "import ctypes; ctypes.CDLL(None).puts(b'from C')",
    "waiting": """
        import subprocess, sys, light_torch
        child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(child.pid, flush=True)
        child.wait()
    """,
}


class Run:
    """A folder with a light module in place of torch, and scripts that import it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "scripts").mkdir(parents=True)
        (folder / "modules").mkdir()
        (folder / "modules/light_torch.py").write_text(
            "import sys, logging; print('importing', file=sys.stderr); logging.basicConfig()\n"
            f"open({str(folder / 'imports')!r}, 'a').write('x')"
        )
        for name, text in SCRIPTS.items():
            (folder / f"scripts/{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.setattr(shared_imports, "TORCH", "light_torch")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "modules")}

    def start(self, *names: str, modules: tuple[str, ...] = ("light_torch",)) -> SharedImports:
        """Start servers for scripts and another one, and let bash use them."""
        commands = [Command(f"scripts/{name}.py", "", 1, modules) for name in [*names, "other"]]
        self.servers = SharedImports(commands, self.environment)  # which end with this object
        self.environment |= self.servers.get_shell_function()
        return self.servers

    def popen(self, name: str, *arguments: str, threads: int = 1, **variables: str) -> subprocess.Popen[str]:
        """Start a script as Snakemake does."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["bash", "-c", f'set -euo pipefail; python scripts/{name}.py "$@" | cat', "bash", *arguments],
            cwd=self.folder,
            env=set_threads(self.environment, threads) | variables,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def run(self, name: str, *arguments: str, threads: int = 1, **variables: str) -> tuple[int, str, str]:
        """Run a script, and return its exit status and what it wrote."""
        process = self.popen(name, *arguments, threads=threads, **variables)
        output, errors = process.communicate("input", timeout=20)
        return process.returncode, output, errors

    @property
    def import_count(self) -> int:
        path = self.folder / "imports"
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    yield Run(tmp_path / "a folder", monkeypatch)


def await_true(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for some seconds at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Return whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def list_children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_bytes().split()]


def test_a_script_runs_as_with_python(run: Run) -> None:
    """Streams, folder, arguments, environment, exit status, tracebacks, threads and signals are the same."""
    names = [name for name in SCRIPTS if name != "waiting"]
    arguments = ("--x", 'a "b" *', "ü\udcff")
    direct = {name: run.run(name, *arguments) for name in names}
    count = run.import_count
    servers = run.start(*names)
    for name, (expected_status, expected_output, expected_errors) in direct.items():
        status, output, errors = run.run(name, *arguments)
        assert (status, output) == (expected_status, expected_output), name
        if name == "abort":
            assert errors.endswith("Aborted: python scripts/abort.py --x\n")
        else:
            assert errors.removeprefix("importing\n") == expected_errors.removeprefix("importing\n"), name
    assert run.import_count == count + 1
    assert servers.servers[0].poll() is None


def test_what_an_import_writes_is_in_each_log(run: Run) -> None:
    run.start("status")
    assert [run.run("status") for _ in range(2)] == [(7, "", "importing\n")] * 2
    assert run.import_count == 1


def test_more_modules_are_imported_only_where_a_script_does(run: Run) -> None:
    (run.folder / "modules/more.py").touch()
    for name in ("plain", "both"):
        (run.folder / f"scripts/{name}.py").write_text("import sys; print('more' in sys.modules)")
    names = [("plain", "a"), ("both", "a"), ("both", "b")]
    commands = [
        Command(f"scripts/{script}.py", name, 1, ("light_torch", "more")[: 1 + (script == "both")])
        for script, name in names
    ]
    servers = SharedImports(commands, run.environment)
    run.environment |= servers.get_shell_function()
    results = [run.run(script, "--name", name)[1] for script, name in names]
    assert results == ["False\n", "True\n", "True\n"]
    assert run.import_count == 1


def test_an_environment_that_libraries_would_read_runs_the_script_directly(run: Run) -> None:
    """Other threads, or a variable that the server lacks; but a folder for temporary files is taken over."""
    run.start("status")
    run.run("status", TMPDIR="/elsewhere")
    assert run.import_count == 1
    run.run("status", threads=2)
    run.run("status", NUMBA_DISABLE_JIT="1")
    assert run.import_count == 3


def test_a_long_path_of_the_folder(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket's path may have 107 bytes."""
    folder = tmp_path / ("ü" * 100) / ("x y" * 50)
    folder.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    run.start("status")
    assert run.run("status")[0] == run.run("status")[0] == 7
    assert run.import_count == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_job_ends_with_its_client(run: Run, number: signal.Signals) -> None:
    servers = run.start("waiting", "status")
    shell = run.popen("waiting")
    assert shell.stdout
    started = int(shell.stdout.readline())
    (job,) = list_children(servers.servers[0].pid)
    (client,) = list_children(list_children(shell.pid)[0])
    os.kill(client, number)
    assert shell.wait(timeout=20)
    await_true(lambda: not is_running(job))
    if number == signal.SIGKILL:
        await_true(lambda: not is_running(started))
    else:
        os.kill(started, signal.SIGKILL)
    assert run.run("status")[0] == 7  # the server goes on


@pytest.mark.parametrize("kill", [True, False])
def test_everything_ends_with_snakemake(run: Run, kill: bool) -> None:
    """And with the server, after which scripts run directly."""
    servers = run.start("waiting", "status")
    shell = run.popen("waiting")
    assert shell.stdout
    started = int(shell.stdout.readline())
    (server,) = servers.servers
    (job,) = list_children(server.pid)
    if kill:
        server.kill()
    else:
        assert server.stdin
        server.stdin.close()  # as when Snakemake ends
    _, errors = shell.communicate(timeout=20)
    assert shell.returncode == 1
    assert "the process that imports torch for all jobs ended" in errors
    await_true(lambda: not is_running(job))
    server.wait(timeout=20)
    if kill:
        os.kill(started, signal.SIGKILL)
    else:
        await_true(lambda: not is_running(started))
        assert not Path(servers.folder).exists()
    assert run.run("status")[0] == 7
    assert run.import_count == 2


def test_a_module_that_cannot_be_imported_fails_in_the_script(run: Run) -> None:
    (run.folder / "modules/light_torch.py").write_text("raise ImportError('no libcuda')")
    servers = run.start("status")
    status, _, errors = run.run("status")
    assert status == 1
    assert errors.endswith("ImportError: no libcuda\n")
    assert servers.servers[0].wait(timeout=20)


def test_imports_are_chosen_that_two_commands_share() -> None:
    def command(name: str, *modules: str) -> Command:
        return Command("scripts/x.py", name, 1, modules)

    plain, alone, first, second, other = (
        command("plain", "torch"),
        command("alone", "torch", "numba", "torchvision"),
        command("first", "torch", "torchvision"),
        command("second", "torch", "torchvision"),
        command("other"),
    )
    assert choose_imports([plain, other]) == {}
    assert choose_imports([plain, alone, other]) == {plain: ("torch",), alone: ("torch",)}
    both = ("torch", "torchvision")
    chosen = {plain: ("torch",), alone: both, first: both, second: both}
    assert choose_imports([plain, alone, first, second, other]) == chosen


def test_modules_are_found_at_the_top_of_files(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text("import torchvisual\nfrom scipy.signal import fft\ndef f():\n    import numba\n")
    assert find_modules([str(path)]) == ("scipy.signal",)
    path.with_name("more.py").write_text("from torch.nn import ReLU\n")
    assert find_modules([str(path), str(path.with_name("more.py"))]) == ("torch", "scipy.signal")


def test_it_is_off_where_processes_cannot_be_copied_and_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_imports.is_supported({})
    assert not shared_imports.is_supported({shared_imports.SWITCH: "off"})
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not shared_imports.is_supported({})
