"""The Python files on which a piece of code depends, and the content of what a stage reads.

Imports are followed without running anything. One mechanism serves the stages of the pipeline and the
networks of users.
"""

import ast
import hashlib
import importlib.util
import os
import sysconfig
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.machinery import PathFinder
from itertools import takewhile
from pathlib import Path

from convatlas.paths import expand_home

LIBRARY = Path(__file__).resolve().parent.parent
INSTALLED_FOLDERS = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})


@cache
def list_stage_files(script: str) -> tuple[str, ...]:
    """Return the script of a stage and the library files that it imports, directly or not.

    Only imports at the top of a file count: what a function imports on a call is needed for some networks and
    data sets only, and their rules name it. Modules that only declare types are skipped.

    Args:
        script: Path of the script, relative to the working directory.

    Returns:
        Paths relative to the working directory where they lie below it, sorted.
    """
    files = follow_imports(Path(script).resolve(), [LIBRARY.parent], LIBRARY.name, nested=False)
    return tuple(file for file in files if not _declares_only_types(Path(file).read_bytes()))


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
    visited: set[Path] = set()
    pending = [start]
    while pending:
        path = pending.pop()
        if path in visited:
            continue
        visited.add(path)
        pending += _list_package_inits(path)
        imported = _list_imported_files(path, path.read_bytes(), tuple(roots), package, nested)
        pending += [file for file in imported if file.suffix == ".py"]
    return sorted(_shorten_path(path) for path in visited)


@cache
def _declares_only_types(source: bytes) -> bool:
    """Return whether a module holds nothing but a docstring, imports, TypedDicts and aliases of types."""

    def is_declaration(node: ast.stmt) -> bool:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                return True
            case ast.Assign(value=ast.Subscript() | ast.BinOp()):  # Split = Literal["train", "test"]
                return True
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypedDict"))):
                return True
            case ast.ClassDef(bases=[ast.Name(id=base), *_]):
                return base == "TypedDict" or base.endswith("Dict") or base in declared
        return False

    if b"Dict" not in source:  # which spares parsing most files
        return False
    body = ast.parse(source).body
    declared = {node.name for node in body if isinstance(node, ast.ClassDef)}
    return bool(declared) and all(map(is_declaration, body))


def is_file_path(location: str) -> bool:
    """Return whether the part before the colon of an `architecture` is a file's path, not a module's name.

    Args:
        location: That part, such as "networks/my_network.py" or "my_package.networks".
    """
    return location.endswith(".py") or "/" in location


def locate_code(location: str) -> tuple[Path, list[Path]] | None:
    """Find a user's file or module, and the folders in which its imports are searched.

    Args:
        location: Path of a file, or dotted name of a module in the working directory or installed.

    Returns:
        The file, and the folders: for a file its own folder and the one that holds its package, for a module
        the one that holds its package. None if there is no such file or module.
    """
    if is_file_path(location):
        path = expand_home(location).resolve()
        roots = list(dict.fromkeys([path.parent, find_package_root(path)]))
        return (path, roots) if path.is_file() else None
    for root in (Path.cwd(), find_install_folder(location.split(".")[0])):
        if root is None:
            continue
        modules = _find_modules(location, (root,))
        if location in modules:
            return modules[location], [root]
    return None


def find_package_root(path: Path) -> Path:
    """Return the folder that holds the top-level package of a file; its own folder if it is in no package.

    Args:
        path: A Python file.
    """
    return path.parents[len(_list_package_inits(path))]


def _list_package_inits(path: Path) -> list[Path]:
    """Return the __init__.py of each package that holds a file, the innermost first."""
    candidates = (folder / "__init__.py" for folder in path.parents)
    return list(takewhile(Path.is_file, candidates))


def _shorten_path(path: Path) -> str:
    """Return a path relative to the working directory, if it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@cache
def _list_imported_files(
    path: Path, source: bytes, roots: tuple[Path, ...], package: str, nested: bool
) -> list[Path]:
    """Return the files that a file imports, found in `roots`; only those of `package`, if one is named.

    The source is an argument so that a file that all stages import is parsed once, and again after an edit.
    """
    tree = ast.parse(source, str(path))
    files: list[Path] = []
    for node in ast.walk(tree) if nested else tree.body:
        folders: tuple[Path, ...]
        if isinstance(node, ast.Import):
            folders, names = roots, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folders = (path.parents[node.level - 1],) if node.level else roots
            names = [".".join(filter(None, [node.module, alias.name])) for alias in node.names]
        else:
            continue
        for name in names:
            if folders is not roots or not package or name.split(".")[0] == package:
                files += _find_modules(name, folders).values()
    return list(dict.fromkeys(files))


@cache
def _find_modules(name: str, roots: tuple[Path, ...]) -> dict[str, Path]:
    """Return the files of a dotted name's modules by name, the outermost first, as found in `roots`."""
    files: dict[str, Path] = {}
    path = [str(root) for root in roots]
    parts = name.split(".")
    for depth, part in enumerate(parts, start=1):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            break
        if spec.origin:
            files[".".join(parts[:depth])] = Path(spec.origin)
        path = list(spec.submodule_search_locations or [])
    return files


def find_install_folder(name: str) -> Path | None:
    """Return the folder in which a top-level package or module is installed; None if it is not.

    Args:
        name: The name to import, without dots; it is not imported.
    """
    try:
        spec = importlib.util.find_spec(name)  # imports nothing, since the name has no dots
    except (ValueError, ImportError):
        return None
    if spec is None or not spec.origin or spec.origin in ("built-in", "frozen"):
        return None
    path = Path(spec.origin)
    return path.parent.parent if path.name == "__init__.py" else path.parent


def fingerprint_files(paths: Iterable[str | Path]) -> str:
    """Return a hash of files, by which a change is found whatever their times are.

    Args:
        paths: Files, whose content counts, and folders, of whose files the names, sizes and times count: a
            data set may have a million of them.

    Returns:
        The first 16 hexadecimal digits of a SHA-256.
    """
    parts = sorted(f"{path} {_fingerprint_path(Path(path))}" for path in paths)
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


@cache
def _fingerprint_path(path: Path) -> str:
    """Return the hash of a file's content, or of the list of a folder's files; "" for what does not exist."""
    if path.is_dir():
        with os.scandir(path) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
        lines = sorted(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files)
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
