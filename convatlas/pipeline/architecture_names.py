"""Where a network's code and weights are, found without running any code. No torch here."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from convatlas.names import suggest_nearest
from convatlas.pipeline.dependencies import (
    INSTALLED_FOLDERS,
    LIBRARY,
    _find_install_folder,
    follow_imports,
    is_file_path,
    locate_code,
)

BUNDLED_FOLDER = LIBRARY / "models/architectures"
BUNDLED_ARCHITECTURES = sorted(path.stem for path in BUNDLED_FOLDER.glob("*.py") if path.stem != "__init__")
TORCHVISION_PREFIX = "torchvision/"
ALLOWED_FORMS = f"{TORCHVISION_PREFIX}<name>, path/to/file.py:function or package.module:function"


def find_architecture_error(architecture: str) -> str | None:
    """Say what is wrong with a network's `architecture`, as far as that shows without running code."""
    if architecture in BUNDLED_ARCHITECTURES:
        return None
    if architecture.startswith(TORCHVISION_PREFIX):
        name = architecture.removeprefix(TORCHVISION_PREFIX)
        return (
            f"torchvision has no network {name!r}; {suggest_nearest(name, list(list_torchvision_models()))}"
            if _is_missing_from_torchvision(name)
            else None
        )
    place, colon, function = architecture.rpartition(":")
    if not colon and (architecture.endswith(".py") or "/" in architecture):
        return f"{architecture!r} names no function; give {architecture}:<function that makes the network>"
    if not colon:
        return f"unknown {architecture!r}; {suggest_nearest(architecture, BUNDLED_ARCHITECTURES)}; or give {ALLOWED_FORMS}"
    if not function.isidentifier():
        return f"{architecture!r}: {function!r} is no function's name; give {ALLOWED_FORMS}"
    if locate_code(place) is None:
        what = f"no file {place!r}" if is_file_path(place) else f"no module {place!r}"
        return f"there is {what}, seen from {Path.cwd()}"
    try:
        list_code_files(architecture)
    except SyntaxError as error:
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    return None


def list_code_files(architecture: str) -> list[str]:
    """List the files of a network's code: its own and those that it imports, but none that are installed.

    They are read, not run. Of torchvision's networks there are none; of an installed package that is
    linked to where it is written, its own; of another only the module. Raises SyntaxError.
    """
    if architecture in BUNDLED_ARCHITECTURES:
        return [f"convatlas/models/architectures/{architecture}.py"]
    place = architecture.rpartition(":")[0]
    found = locate_code(place) if place else None
    if architecture.startswith(TORCHVISION_PREFIX) or found is None:
        return []
    start, roots = found
    if str(start).startswith(INSTALLED_FOLDERS):
        return [str(start)]
    return follow_imports(
        start, roots, "" if is_file_path(place) or roots == [Path.cwd()] else place.split(".")[0]
    )


# torchvision's networks and weights, read from its source: importing it takes seconds


def find_weights_error(architecture: str, weights: str) -> str | None:
    """Say what is wrong with the name of a network's weights, as far as that shows without torchvision."""
    if not architecture.startswith(TORCHVISION_PREFIX):
        return (
            f"{weights!r} would name weights of torchvision's, and {architecture!r} is none of its networks; "
            "give {path: <file>}"
        )
    name = architecture.removeprefix(TORCHVISION_PREFIX)
    known = list_torchvision_models().get(name)
    if known is None or weights.split(".")[-1] in known:
        return None
    there = suggest_nearest(weights, list(known))
    return f"{architecture} has no weights {weights!r}; {there}; or give {{path: <file>}}"


def resolve_weights_name(architecture: str, weights: str) -> str:
    """The full name of torchvision's weights, such as IMAGENET1K_V2 for DEFAULT."""
    short = weights.split(".")[-1]
    return list_torchvision_models().get(architecture.removeprefix(TORCHVISION_PREFIX), {}).get(short, short)


def _is_missing_from_torchvision(name: str) -> bool:
    return (
        bool(list_torchvision_models()) and name not in list_torchvision_models()
    )  # of a torchvision that cannot be read nothing is said


@cache
def list_torchvision_models() -> dict[str, dict[str, str]]:
    """Name the networks of torchvision, each with its weights' names and what they stand for (DEFAULT)."""
    root = _find_install_folder("torchvision")
    builders: dict[str, str] = {}
    entries: dict[str, dict[str, str]] = {}
    for path in sorted((root / "torchvision/models").rglob("*.py")) if root else []:
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef):
                builders |= _parse_builder(node)
            elif isinstance(node, ast.ClassDef) and "WeightsEnum" in map(ast.unparse, node.bases):
                entries[node.name] = dict(_parse_weights_entries(node))
    return {
        name: next((entries[word] for word in re.findall(r"\w+", annotation) if word in entries), {})
        for name, annotation in sorted(builders.items())
    }


def _parse_builder(node: ast.FunctionDef) -> dict[str, str]:
    """A builder's registered name, with the annotation of its weights; nothing for other functions."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "register_model":
            given = [word.value.value for word in decorator.keywords if isinstance(word.value, ast.Constant)]
            parameters = node.args.args + node.args.kwonlyargs
            annotation = [
                ast.unparse(p.annotation) for p in parameters if p.arg == "weights" and p.annotation
            ]
            return {str(given[0] if given else node.name): (annotation or [""])[0]}
    return {}


def _parse_weights_entries(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            yield name, line.value.id if isinstance(line.value, ast.Name) else name
