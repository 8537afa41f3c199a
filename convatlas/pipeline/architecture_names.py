"""Where a network's code and weights are, found without running any code. No torch here."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from convatlas.names import nearest
from convatlas.pipeline.dependencies import INSTALLED, LIBRARY, _installed, follow_imports, home, is_file

BUNDLED = LIBRARY / "models/architectures"
ARCHITECTURES = sorted(path.stem for path in BUNDLED.glob("*.py") if path.stem != "__init__")
ZOO = "torchvision/"
FORMS = f"{ZOO}<name>, path/to/file.py:function or package.module:function"


def fault(architecture: str) -> str | None:
    """Say what is wrong with a network's `architecture`, as far as that shows without running code."""
    if architecture in ARCHITECTURES:
        return None
    if architecture.startswith(ZOO):
        name = architecture.removeprefix(ZOO)
        return f"torchvision has no network {name!r}; {nearest(name, list(zoo()))}" if _lacks(name) else None
    place, colon, function = architecture.rpartition(":")
    if not colon and (architecture.endswith(".py") or "/" in architecture):
        return f"{architecture!r} names no function; give {architecture}:<function that makes the network>"
    if not colon:
        return f"unknown {architecture!r}; {nearest(architecture, ARCHITECTURES)}; or give {FORMS}"
    if not function.isidentifier():
        return f"{architecture!r}: {function!r} is no function's name; give {FORMS}"
    if home(place) is None:
        what = f"no file {place!r}" if is_file(place) else f"no module {place!r}"
        return f"there is {what}, seen from {Path.cwd()}"
    try:
        files(architecture)
    except SyntaxError as error:
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    return None


def files(architecture: str) -> list[str]:
    """List the files of a network's code: its own and those that it imports, but none that are installed.

    They are read, not run. Of torchvision's networks there are none; of an installed package that is
    linked to where it is written, its own; of another only the module. Raises SyntaxError.
    """
    if architecture in ARCHITECTURES:
        return [f"convatlas/models/architectures/{architecture}.py"]
    place = architecture.rpartition(":")[0]
    found = home(place) if place else None
    if architecture.startswith(ZOO) or found is None:
        return []
    start, roots = found
    if str(start).startswith(INSTALLED):
        return [str(start)]
    return follow_imports(
        start, roots, "" if is_file(place) or roots == [Path.cwd()] else place.split(".")[0]
    )


# torchvision's networks and weights, read from its source: importing it takes seconds


def weights_fault(architecture: str, weights: str) -> str | None:
    """Say what is wrong with the name of a network's weights, as far as that shows without torchvision."""
    if not architecture.startswith(ZOO):
        return (
            f"{weights!r} would name weights of torchvision's, and {architecture!r} is none of its networks; "
            "give {path: <file>}"
        )
    name = architecture.removeprefix(ZOO)
    known = zoo().get(name)
    if known is None or weights.split(".")[-1] in known:
        return None
    there = nearest(weights, list(known))
    return f"{architecture} has no weights {weights!r}; {there}; or give {{path: <file>}}"


def weights_name(architecture: str, weights: str) -> str:
    """The full name of torchvision's weights, such as IMAGENET1K_V2 for DEFAULT."""
    short = weights.split(".")[-1]
    return zoo().get(architecture.removeprefix(ZOO), {}).get(short, short)


def _lacks(name: str) -> bool:
    return bool(zoo()) and name not in zoo()  # of a torchvision that cannot be read nothing is said


@cache
def zoo() -> dict[str, dict[str, str]]:
    """Name the networks of torchvision, each with its weights' names and what they stand for (DEFAULT)."""
    root = _installed("torchvision")
    builders: dict[str, str] = {}
    entries: dict[str, dict[str, str]] = {}
    for path in sorted((root / "torchvision/models").rglob("*.py")) if root else []:
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef):
                builders |= _builder(node)
            elif isinstance(node, ast.ClassDef) and "WeightsEnum" in map(ast.unparse, node.bases):
                entries[node.name] = dict(_entries(node))
    return {
        name: next((entries[word] for word in re.findall(r"\w+", annotation) if word in entries), {})
        for name, annotation in sorted(builders.items())
    }


def _builder(node: ast.FunctionDef) -> dict[str, str]:
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


def _entries(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            yield name, line.value.id if isinstance(line.value, ast.Name) else name
