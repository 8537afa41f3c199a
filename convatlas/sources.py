"""Where a network's code and weights are, found without running any code. No torch here."""

import ast
import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from itertools import takewhile
from pathlib import Path

from convatlas.names import nearest

BUNDLED = Path(__file__).resolve().parent / "architectures"
ARCHITECTURES = sorted(path.stem for path in BUNDLED.glob("*.py") if path.stem != "__init__")
ZOO = "torchvision/"
INSTALLED = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})
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


def is_file(place: str) -> bool:
    """Whether what stands before the colon of an `architecture` is a file's path, not a module's name."""
    return place.endswith(".py") or "/" in place


# The user's own code


def home(place: str) -> tuple[Path, list[Path]] | None:
    """Find a user's file or module, and the folders from which its imports are found; None if there is none.

    A file's imports are found beside it, and beside the package it lies in, if it lies in one; a
    module's where its package was found: in the working directory, or installed.
    """
    if is_file(place):
        path = Path(place).expanduser().resolve()
        return (path, list(dict.fromkeys([path.parent, package_root(path)]))) if path.is_file() else None
    top = place.split(".")[0]
    for root in (Path.cwd(), _installed(top)):
        found = _modules(place, [root]) if root else {}
        if place in found:
            return found[place], [root]
    return None


def package_root(path: Path) -> Path:
    """The folder that holds the whole package in which a file lies; its own folder if it lies in none."""
    return path.parents[len(_packages(path))]


def _packages(path: Path) -> list[Path]:
    """The __init__.py of each package in which a file lies, the innermost first."""
    found = (folder / "__init__.py" for folder in path.parents)
    return list(takewhile(Path.is_file, found))


def files(architecture: str) -> list[str]:
    """List the files of a network's code: its own and those that it imports, but none that are installed.

    They are read, not run. Of torchvision's networks there are none; of an installed package that is
    linked to where it is written, its own; of another only the module. Raises SyntaxError.
    """
    if architecture in ARCHITECTURES:
        return [f"convatlas/architectures/{architecture}.py"]
    place = architecture.rpartition(":")[0]
    found = home(place) if place else None
    if architecture.startswith(ZOO) or found is None:
        return []
    start, roots = found
    if str(start).startswith(INSTALLED):
        return [str(start)]
    package = "" if is_file(place) or roots == [Path.cwd()] else place.split(".")[0]
    seen, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += _packages(path)
            waiting += [other for other in _imported(path, roots, package) if other.suffix == ".py"]
    return sorted(_shortened(path) for path in seen)


def _shortened(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _imported(path: Path, roots: list[Path], package: str) -> Iterator[Path]:
    """Files that a file imports, anywhere in it, found in `roots`; of `package` alone, if one is named."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            base, names = roots, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [path.parents[node.level - 1]] if node.level else roots
            names = [".".join(filter(None, [node.module, alias.name])) for alias in node.names]
        else:
            continue
        for name in names:
            if base is not roots or not package or name.split(".")[0] == package:
                yield from _modules(name, base).values()


def _modules(name: str, roots: list[Path]) -> dict[str, Path]:
    """The files of a dotted name's modules, the outermost first, as far as they are found in `roots`."""
    found, path = {}, [str(root) for root in roots]
    parts = name.split(".")
    for depth, part in enumerate(parts, start=1):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            break
        if spec.origin:
            found[".".join(parts[:depth])] = Path(spec.origin)
        path = list(spec.submodule_search_locations or [])
    return found


def _installed(top: str) -> Path | None:
    """The folder in which a package or module is installed."""
    try:
        spec = importlib.util.find_spec(top)  # of a name without dots, which imports nothing
    except (ValueError, ImportError):
        return None
    if spec is None or not spec.origin or spec.origin in ("built-in", "frozen"):
        return None
    path = Path(spec.origin)
    return path.parent.parent if path.name == "__init__.py" else path.parent


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
