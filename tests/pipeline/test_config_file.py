"""Config files that are no plain data, or too much of it, are refused before anything interprets them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from convatlas import UserError
from convatlas.pipeline.config_file import MAX_VALUES, _EventCheck, check_config_file
from tests.support.workspace import ROOT

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdef", "bcdefg", strict=True)
)


def write(folder: Path, content: str | bytes) -> Path:
    """Write a config file."""
    path = folder / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "title: !!python/object/apply:os.system [touch made]",
            "line 1: the tag !!python/object/apply:os.sys",
        ),
        ("a: 1\nb: !!python/name:os.system", "line 2: the tag !!python/name:os.system is not allowed"),
        ("title: !mine x", "the tag !mine is not allowed"),
        ("__use_yte__: true\ntitle: ?1", "line 1: __use_yte__ would run code"),
        ('{"__use_yte__": true, "title": "?1"}', "line 1: __use_yte__ would run code"),
        ("<<: {__use_yte__: true}\na: ?1+1", "line 1: __use_yte__ would run code"),
        ("x: [&k __use_yte__]\n*k : true\na: ?1+1", "line 1: __use_yte__ would run code"),
        ("title: " + 20_000 * "[" + 20_000 * "]", "line 1: more than 50 levels of nesting"),
        (BOMB, "line 6: more than 100,000 values"),
        ("a: &x [*x]", "line 1: the alias *x stands within its own anchor"),
        ('title: "\\udcff"', "line 1: a lone surrogate"),
        ("a: *x", "line 1: the alias *x has no anchor before it"),
        ("a: [1\nb: 2", "mine.yaml, line 2: not YAML: expected ',' or ']'"),
        ("a:\n\t- 1", "mine.yaml, line 2: not YAML"),
        (b'a: "\xff"', "byte 4 is not UTF-8"),
        ("a: \x07", "is not YAML"),
        (b"a: " + 1_000_001 * b"x", "has more than 1,000,000 bytes, which no config has"),
    ],
)
def test_it_is_refused_in_one_message(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_config_file(write(tmp_path, content))
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(UserError, match="there is no such file"):
            check_config_file(path)


@pytest.mark.parametrize("path", [*ROOT.glob("*.yaml"), *ROOT.glob("examples/*.yaml")], ids=lambda p: p.name)
def test_the_configs_of_the_project_pass(path: Path) -> None:
    check_config_file(path)


def test_anchors_merges_dates_and_explicit_plain_tags_pass(tmp_path: Path) -> None:
    content = "a: &a {lr: 1e-3}\nb: {<<: *a, n: !!str 1}\npublished: 2026-01-31\nc: [*a, *a]\n"
    check_config_file(write(tmp_path, content))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


@settings(max_examples=100, deadline=None)
@given(JSON_VALUES)
def test_any_plain_data_passes_as_yaml(value: object) -> None:
    """Values are counted as the parser composes them: one each, and one for each collection."""

    def count(part: object) -> int:
        if isinstance(part, dict):
            return 1 + sum(1 + count(inner) for inner in part.values())
        return 1 + sum(map(count, part)) if isinstance(part, list) else 1

    check = _EventCheck("mine.yaml")
    check.check(yaml.safe_dump(value))
    assert sum(check.open_values) == count(value) <= MAX_VALUES


@settings(max_examples=100, deadline=None)
@given(st.text() | st.binary())
def test_any_text_passes_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    try:
        check_config_file(path)
    except UserError as error:
        assert "any.yaml" in str(error)


def test_the_commands_refuse_it_before_snakemake_starts(tmp_path: Path) -> None:
    path = write(tmp_path, "__use_yte__: true\ntitle: ?open('made', 'w')")
    command = [sys.executable, str(ROOT / "workflow/prepare.py"), "--configfile", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}, line 1: __use_yte__ would run code")
    assert not (tmp_path / "made").exists()
