"""The scripts as command lines: help, and errors of the user end in one message, never in a traceback."""

import argparse
import errno
import json
import os
import re
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from convatlas import UserError, cli, usage
from convatlas.analysis.registry import ANALYSES
from tests.support.workspace import ROOT

SCRIPTS = ROOT / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))


def run_script(
    name: str, *arguments: str, python_options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script in its own process, from an unrelated folder."""
    command = [sys.executable, *python_options, str(SCRIPTS / f"{name}.py"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True)


@pytest.fixture
def exit_message(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """A function that runs a script in this process, which has torch, and returns its exit code."""

    def exit_message(name: str, *arguments: str) -> object:
        import torch  # noqa: PLC0415  seconds to import

        monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
        monkeypatch.setattr(torch, "set_deterministic_debug_mode", lambda mode: None)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return end.value.code

    return exit_message


def test_there_is_a_script_for_each_stage() -> None:
    rules = "".join(path.read_text() for path in (SCRIPTS.parent / "workflow/rules").glob("*.smk"))
    analyses = {analysis.name for analysis in ANALYSES}
    assert sorted(analyses | set(re.findall(r"scripts/(\w+)\.py", rules))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_help(exit_message: Callable[..., object], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_message(name, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {name}.py")
    assert "--output" in text or "--zip" in text or name == "check"


@pytest.mark.parametrize("name", ["data", "previews", "figures", "explorer", "gallery", "publish"])
def test_no_torch_is_imported(name: str) -> None:
    """The import of torch takes seconds; a new process lists what it imports for --help."""
    done = run_script(name, "--help", python_options=("-X", "importtime"))
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {name}.py")
    imported = re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert "convatlas.cli" in imported
    assert not {module for module in imported if module.split(".")[0] in ("torch", "torchvision")}


@pytest.mark.parametrize(("text", "message"), [("{'a': 1}", "JSON"), ("", "JSON"), ("[1]", "JSON object")])
def test_bad_json_ends_with_status_2(text: str, message: str) -> None:
    done = run_script("data", "--name", "d", "--output", "/nowhere", "--settings", text)
    assert done.returncode == 2
    assert re.search(f"error: argument --settings: .*{message}", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("check", "embedded_weights", "previews")]
)
def test_every_script_checks_its_settings(
    exit_message: Callable[..., object], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_message(name, "--settings", '{"a": ') == 2
    assert re.search("error: argument --settings: .*JSON", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "settings", "missing_key"),
    [
        ("data", {"format": "mnist", "mirrors": []}, "source"),
        ("data", {"format": "mnist", "source": "embedded"}, "mirrors"),
        ("gallery", {"datasets": {}}, "networks"),
        ("gallery", {"networks": {}}, "datasets"),
    ],
)
def test_a_missing_setting_ends_with_one_message(
    tmp_path: Path, name: str, settings: dict[str, object], missing_key: str
) -> None:
    name_arguments = () if name == "gallery" else ("--name", "some")
    output = tmp_path / "output"
    done = run_script(name, *name_arguments, "--output", str(output), "--settings", json.dumps(settings))
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line] == [done.stderr.strip()]
    assert done.stderr.startswith("error: ")
    assert f"{missing_key!r}" in done.stderr
    for key in settings:
        assert key in done.stderr
    assert not output.exists()


def test_a_missing_setting_of_a_network_is_named(exit_message: Callable[..., object], tmp_path: Path) -> None:
    dataset = '{"format": "mnist", "classes": ["0", "1"], "counts": {"train": [1, 1], "test": [1, 1]}}'
    (tmp_path / "dataset.json").write_text(dataset)
    arguments = ("--name", "n", "--data", str(tmp_path), "--output", str(tmp_path / "output"))
    assert "'architecture'" in str(exit_message("train", *arguments, "--settings", '{"dataset": "d"}'))
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", ["record", "deconv", "attribution", "figures"])
def test_missing_results_are_named(exit_message: Callable[..., object], tmp_path: Path, name: str) -> None:
    (tmp_path / "output").mkdir()
    data = ("--data", str(tmp_path)) if name == "record" else ()
    settings = json.dumps({"first": 1, "n_images": 1, "layers": "all", "show": "both", "scale": "per_layer"})
    message = exit_message(
        name, "--name", "n", *data, "--output", str(tmp_path / "output"), "--settings", settings
    )
    assert str(message).startswith("error: ")
    assert re.search(rf"{tmp_path}/output/\w+\.json is missing", str(message))


def test_a_missing_source_directory_is_reported_with_its_config_key(tmp_path: Path) -> None:
    settings = json.dumps({"format": "mnist", "source": str(tmp_path / "nowhere"), "mirrors": []})
    done = run_script("data", "--name", "mine", "--output", str(tmp_path / "output"), "--settings", settings)
    assert done.returncode == 1
    assert "datasets.mine.source" in done.stderr
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "output").rglob("*")) == []


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = json.dumps({"format": "mnist", "source": "embedded", "mirrors": []})
    done = run_script(
        "data", "--name", "mine", "--output", str(tmp_path / "file/output"), "--settings", settings
    )
    assert done.returncode == 1
    assert f"cannot write {tmp_path}/file/output" in done.stderr
    assert "Traceback" not in done.stderr


# convatlas.cli


def test_a_missing_nested_setting_is_a_user_error() -> None:
    settings = cli.parse_settings('{"training": {"epochs": 3}, "list": [{"a": 1}]}')
    assert settings["training"]["epochs"] == 3
    with pytest.raises(UserError, match=r"'lr'.*epochs"):
        settings["training"]["lr"]
    with pytest.raises(UserError, match="'b'"):
        settings["list"][0]["b"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("fix this"), ["fix this"]),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "some/file"), ["No such", "some/file"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["No space left on device"]),
    ],
)
def test_errors_end_in_a_message(monkeypatch: pytest.MonkeyPatch, error: Exception, words: list[str]) -> None:
    def main(args: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["some.py"])
    with pytest.raises(SystemExit) as end:
        cli.run(main, cli.create_parser("Some script."))
    assert str(end.value).startswith("error: ")
    assert "None" not in str(end.value)
    for word in words:
        assert word in str(end.value)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("no deconvnet", "error: own: no deconvnet"),
        ("networks.own.output: none", "error: networks.own.output: none"),
    ],
)
def test_errors_state_the_network(monkeypatch: pytest.MonkeyPatch, message: str, expected: str) -> None:
    def main(args: argparse.Namespace) -> None:
        raise UserError(message)

    parser = cli.create_parser("Some script.")
    parser.add_argument("--name")
    monkeypatch.setattr(sys, "argv", ["some.py", "--name", "own"])
    with pytest.raises(SystemExit) as end:
        cli.run(main, parser)
    assert str(end.value) == expected


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(args: argparse.Namespace) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["some.py"])
    with pytest.raises(ZeroDivisionError):
        cli.run(main, cli.create_parser("Some script."))


def test_a_script_writes_what_it_took_where_snakemake_asks_for_it(tmp_path: Path) -> None:
    """Of a stage of a network, with its shard; never of a script that failed, or that runs by itself."""
    script = tmp_path / "dataset_pass.py"
    script.write_text(
        "import argparse\nfrom convatlas import UserError, cli\n"
        "def main(args):\n"
        "    if args.shard < 0: raise UserError('no')\n"
        "    sum(bytes(10 << 20)); bytes(50 << 20)\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--name')\nparser.add_argument('--shard', type=int)\n"
        "cli.run(main, parser)\n"
    )
    for shard, variables in (("3", {}), ("-1", {usage.LOGS: "logs"}), ("3", {usage.LOGS: "logs"})):
        assert not (tmp_path / "logs").exists()
        command = [sys.executable, str(script), "--name", "lenet5", "--shard", shard]
        environment = os.environ | variables | {"PYTHONPATH": str(ROOT)}
        start, usage_before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    elapsed, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - usage_before.ru_utime - usage_before.ru_stime
    header, row = (tmp_path / "logs/lenet5/dataset_pass-3.tsv").read_text().splitlines()
    assert header.split("\t") == ["s", "max_rss", "cpu_time"]
    seconds, memory, cpu_time = map(float, row.split("\t"))
    assert 0.1 < seconds < elapsed
    assert 50 < memory < 10_000  # with that of the process which started it
    assert cpu_time == pytest.approx(cpu_seconds, rel=0.3)
