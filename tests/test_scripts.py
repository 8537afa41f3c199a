"""The scripts as command lines: help, and a user's mistake ends in one message, never in a traceback."""

import argparse
import errno
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from convatlas import UserError, cli
from tests.support.workspace import ROOT

SCRIPTS = ROOT / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))


def start(name: str, *arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, from an unrelated folder."""
    command = [sys.executable, *python, str(SCRIPTS / f"{name}.py"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True)


@pytest.fixture
def last_words(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Run a script in this process, where torch is imported once, and give its exit status or last words."""

    def last_words(name: str, *arguments: str) -> object:
        import torch  # noqa: PLC0415  seconds to import

        monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
        monkeypatch.setattr(torch, "set_deterministic_debug_mode", lambda mode: None)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return end.value.code

    return last_words


def test_there_is_a_script_for_each_stage() -> None:
    rules = "".join(path.read_text() for path in (SCRIPTS.parent / "workflow/rules").glob("*.smk"))
    assert sorted(set(re.findall(r"scripts/(\w+)\.py", rules))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_help(last_words: Callable[..., object], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert last_words(name, "--help") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: {name}.py")
    assert "--output" in told or "--zip" in told


@pytest.mark.parametrize("name", ["data", "previews", "figures", "explorer", "gallery", "publish"])
def test_no_torch_is_imported(name: str) -> None:
    """Importing it costs seconds; a process of its own says what it imports until it has answered --help."""
    answer = start(name, "--help", python=("-X", "importtime"))
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"usage: {name}.py")
    imported = re.findall(r"\| +([\w.]+)$", answer.stderr, re.MULTILINE)
    assert "convatlas.cli" in imported
    assert not {module for module in imported if module.split(".")[0] in ("torch", "torchvision")}


@pytest.mark.parametrize(("text", "fault"), [("{'a': 1}", "JSON"), ("", "JSON"), ("[1]", "JSON object")])
def test_bad_json_ends_with_status_2(text: str, fault: str) -> None:
    ended = start("data", "--name", "d", "--output", "/nowhere", "--settings", text)
    assert ended.returncode == 2
    assert re.search(f"error: argument --settings: .*{fault}", ended.stderr)
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", [name for name in NAMES if name != "previews"])
def test_every_script_checks_its_settings(
    last_words: Callable[..., object], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert last_words(name, "--settings", '{"a": ') == 2
    assert re.search("error: argument --settings: .*JSON", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "settings", "lacking"),
    [
        ("data", {"format": "mnist", "mirrors": []}, "source"),
        ("data", {"format": "mnist", "source": "embedded"}, "mirrors"),
        ("gallery", {"datasets": {}}, "networks"),
        ("gallery", {"networks": {}}, "datasets"),
    ],
)
def test_a_missing_setting_ends_with_one_message(
    tmp_path: Path, name: str, settings: dict[str, object], lacking: str
) -> None:
    named = () if name == "gallery" else ("--name", "some")
    output = tmp_path / "made"
    ended = start(name, *named, "--output", str(output), "--settings", json.dumps(settings))
    assert ended.returncode == 1
    assert [line for line in ended.stderr.splitlines() if line] == [ended.stderr.strip()]
    assert ended.stderr.startswith("error: ")
    assert f"{lacking!r}" in ended.stderr
    for there in settings:
        assert there in ended.stderr
    assert not output.exists()


def test_a_missing_setting_of_a_network_is_named(last_words: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"classes": ["0", "1"]}')
    arguments = ("--name", "n", "--data", str(tmp_path), "--output", str(tmp_path / "made"))
    assert "'architecture'" in str(last_words("train", *arguments, "--settings", '{"dataset": "d"}'))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["record", "deconv", "figures"])
def test_results_that_are_not_there_are_named(
    last_words: Callable[..., object], tmp_path: Path, name: str
) -> None:
    data = ("--data", str(tmp_path)) if name == "record" else ()
    settings = json.dumps({"first": 1, "n_images": 1, "layers": "all", "show": "both", "scale": "per_layer"})
    message = last_words(
        name, "--name", "n", *data, "--output", str(tmp_path / "made"), "--settings", settings
    )
    assert str(message).startswith("error: ")
    assert f"{tmp_path}/made/network.json is missing" in str(message)


def test_a_missing_directory_of_digits_names_the_place_in_the_config(tmp_path: Path) -> None:
    settings = json.dumps({"format": "mnist", "source": str(tmp_path / "nowhere"), "mirrors": []})
    ended = start("data", "--name", "mine", "--output", str(tmp_path / "made"), "--settings", settings)
    assert ended.returncode == 1
    assert "datasets.mine.source" in ended.stderr
    assert str(tmp_path / "nowhere") in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list((tmp_path / "made").rglob("*")) == []


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = json.dumps({"format": "mnist", "source": "embedded", "mirrors": []})
    ended = start("data", "--name", "mine", "--output", str(tmp_path / "file/made"), "--settings", settings)
    assert ended.returncode == 1
    assert f"cannot write {tmp_path}/file/made" in ended.stderr
    assert "Traceback" not in ended.stderr


# What the scripts share


def test_a_nested_setting_that_is_missing_is_the_users_fault() -> None:
    given = cli.parse_settings('{"training": {"epochs": 3}, "list": [{"a": 1}]}')
    assert given["training"]["epochs"] == 3
    with pytest.raises(UserError, match=r"'lr'.*epochs"):
        given["training"]["lr"]
    with pytest.raises(UserError, match="'b'"):
        given["list"][0]["b"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("mend this"), ["mend this"]),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "some/file"), ["No such", "some/file"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["No space left on device"]),
    ],
)
def test_faults_end_in_words(monkeypatch: pytest.MonkeyPatch, error: Exception, words: list[str]) -> None:
    def main(given: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["some.py"])
    with pytest.raises(SystemExit) as end:
        cli.run(main, cli.create_parser("Some script."))
    assert str(end.value).startswith("error: ")
    assert "None" not in str(end.value)
    for word in words:
        assert word in str(end.value)


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(given: argparse.Namespace) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["some.py"])
    with pytest.raises(ZeroDivisionError):
        cli.run(main, cli.create_parser("Some script."))
