"""Which Python files a piece of code depends on: its imports, followed without running anything.

One mechanism serves the stages of the pipeline and the networks that users bring. No torch here.
"""

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import PathFinder
from itertools import takewhile
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent.parent
INSTALLED_FOLDERS = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})


@cache
def stage_files(script: str) -> tuple[str, ...]:
    """Return the script of a stage and the library files that it imports, directly or not.

    Only imports at the top of a file count: what a function imports when it is called is needed by some
    networks and data sets only, and their rules name it.

    Args:
        script: Path of the script, relative to the working directory.

    Returns:
        Paths relative to the working directory where they lie below it, sorted.

    """
    return tuple(follow_imports(Path(script).resolve(), [LIBRARY.parent], LIBRARY.name, nested=False))


def follow_imports(start: Path, roots: Sequence[Path], package: str = "", nested: bool = True) -> list[str]:
    """Return a file and all files that it imports, directly or not, without running them.

    Args:
        start: The file to begin with.
        roots: Folders in which imported modules are searched.
        package: Follow imports of this top-level package alone; of any where empty.
        nested: Whether imports inside functions and classes count too.

    Raises:
        SyntaxError: A file cannot be parsed.

    """
    visited, pending = set(), [start]
    while pending:
        path = pending.pop()
        if path not in visited:
            visited.add(path)
            pending += _list_package_inits(path)
            pending += [
                other
                for other in _find_imported_files(path, tuple(roots), package, nested)
                if other.suffix == ".py"
            ]
    return sorted(_shorten_path(path) for path in visited)


def is_file_path(place: str) -> bool:
    """Whether what stands before the colon of an `architecture` is a file's path, not a module's name."""
    return place.endswith(".py") or "/" in place


def locate_code(place: str) -> tuple[Path, list[Path]] | None:
    """Find a user's file or module, and the folders from which its imports are found; None if there is none.

    A file's imports are found beside it, and beside the package it lies in, if it lies in one; a
    module's where its package was found: in the working directory, or installed.
    """
    if is_file_path(place):
        path = Path(place).expanduser().resolve()
        return (path, list(dict.fromkeys([path.parent, find_package_root(path)]))) if path.is_file() else None
    top = place.split(".")[0]
    for root in (Path.cwd(), _find_install_folder(top)):
        found = _find_modules(place, (root,)) if root else {}
        if place in found:
            return found[place], [root]
    return None


def find_package_root(path: Path) -> Path:
    """The folder that holds the whole package in which a file lies; its own folder if it lies in none."""
    return path.parents[len(_list_package_inits(path))]


def _list_package_inits(path: Path) -> list[Path]:
    """The __init__.py of each package in which a file lies, the innermost first."""
    found = (folder / "__init__.py" for folder in path.parents)
    return list(takewhile(Path.is_file, found))


def _shorten_path(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _find_imported_files(path: Path, roots: tuple[Path, ...], package: str, nested: bool) -> Iterator[Path]:
    """Files that a file imports, found in `roots`; of `package` alone, if one is named."""
    tree = ast.parse(path.read_bytes(), str(path))
    for node in ast.walk(tree) if nested else tree.body:
        base: tuple[Path, ...]
        if isinstance(node, ast.Import):
            base, names = roots, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (path.parents[node.level - 1],) if node.level else roots
            names = [".".join(filter(None, [node.module, alias.name])) for alias in node.names]
        else:
            continue
        for name in names:
            if base is not roots or not package or name.split(".")[0] == package:
                yield from _find_modules(name, base).values()


@cache
def _find_modules(name: str, roots: tuple[Path, ...]) -> dict[str, Path]:
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


def _find_install_folder(top: str) -> Path | None:
    """The folder in which a package or module is installed."""
    try:
        spec = importlib.util.find_spec(top)  # of a name without dots, which imports nothing
    except (ValueError, ImportError):
        return None
    if spec is None or not spec.origin or spec.origin in ("built-in", "frozen"):
        return None
    path = Path(spec.origin)
    return path.parent.parent if path.name == "__init__.py" else path.parent
