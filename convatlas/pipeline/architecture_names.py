"""The names of architectures and weights in the config: checked, and located, without running code."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from convatlas.names import describe_missing_file, suggest_nearest
from convatlas.paths import expand_home
from convatlas.pipeline.dependencies import (
    INSTALLED_FOLDERS,
    LIBRARY,
    find_install_folder,
    follow_imports,
    is_file_path,
    locate_code,
)

BUNDLED_FOLDER = LIBRARY / "models/architectures"
BUNDLED_ARCHITECTURES = sorted(path.stem for path in BUNDLED_FOLDER.glob("*.py") if path.stem != "__init__")
TORCHVISION_PREFIX = "torchvision/"
EMBEDDED = "embedded"  # the name of weights that a package ships
EMBEDDED_ARCHITECTURE = f"{TORCHVISION_PREFIX}squeezenet1_1"  # the network that has them
IMAGENET_CLASSES = "imagenet"  # the value of `classes` that stands for ImageNet's 1,000 class names
ALLOWED_FORMS = f"{TORCHVISION_PREFIX}<name>, path/to/file.py:function or package.module:function"

PACKAGE_NAME = re.compile(r"[A-Za-z_][\w-]+")  # of two letters at least: one is a drive of Windows
INSTALL_ADVICE = "to install a package, name it in requirements.local.txt and run make"


def is_own_architecture(architecture: object) -> bool:
    """Return whether an `architecture` is code of the user or of a package, not built in or torchvision's.

    Args:
        architecture: The value in the config, of whatever type.
    """
    return isinstance(architecture, str) and ":" in architecture


def find_architecture_error(architecture: str) -> str | None:
    """Return what is wrong with a network's `architecture`, as far as can be told without running code.

    Args:
        architecture: A bundled name, `torchvision/<name>`, `file.py:function` or `package.module:function`.
            The function may be a method of a class, `Class.method`.

    Returns:
        The error's text, or None.
    """
    if architecture in BUNDLED_ARCHITECTURES:
        return None
    if architecture.startswith(TORCHVISION_PREFIX):
        return _find_torchvision_error(architecture.removeprefix(TORCHVISION_PREFIX))
    location, colon, function = architecture.rpartition(":")
    if not colon and is_file_path(architecture):
        return f"{architecture!r} names no function; give {architecture}:<function that builds the network>"
    if not colon:
        nearest = suggest_nearest(architecture, BUNDLED_ARCHITECTURES)
        return f"unknown {architecture!r}; {nearest}; or give {ALLOWED_FORMS}"
    if not all(part.isidentifier() for part in function.split(".")):
        return f"{architecture!r}: {function!r} is no function's name; give {ALLOWED_FORMS}"
    if locate_code(location) is None:
        return describe_missing_code(location)
    try:
        list_code_files(architecture)
    except SyntaxError as error:
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    return None


def describe_missing_code(location: str) -> str:
    """Return the error's text for a file or module that does not exist.

    Args:
        location: The part of an `architecture` before the colon.
    """
    if is_file_path(location):
        return describe_missing_file(location)
    package = location.partition(".")[0]
    text = f"there is no module {location!r}, in {Path.cwd()} or installed"
    if location != package and locate_code(package):
        return f"{text}; the package {package!r} is there"
    return f"{text}; {INSTALL_ADVICE}"


def list_code_files(architecture: str) -> list[str]:
    """List the files of a network's code: its own file and those that it imports, without installed ones.

    The files are parsed, not run.

    Args:
        architecture: As in `find_architecture_error`.

    Returns:
        Paths, relative to the working directory where they lie below it. None for torchvision's networks;
        only the module for an installed package, unless it is an editable install.

    Raises:
        SyntaxError: A file cannot be parsed.
    """
    if architecture in BUNDLED_ARCHITECTURES:
        return [f"convatlas/models/architectures/{architecture}.py"]
    location = architecture.rpartition(":")[0]
    code = locate_code(location) if location else None
    if architecture.startswith(TORCHVISION_PREFIX) or code is None:
        return []
    path, roots = code
    if str(path).startswith(INSTALLED_FOLDERS):
        return [str(path)]
    is_local = is_file_path(location) or roots == [Path.cwd()]
    return follow_imports(path, roots, "" if is_local else location.split(".")[0])


# Files of weights


def locate_weights_file(path: str) -> Path:
    """Return the file that a network's `weights.path` names.

    Args:
        path: A path, or `package:file`, the path of a file within an installed package.
    """
    package, file = _split_package_file(path)
    root = find_install_folder(package) if package else None
    return root / package / file if root else expand_home(path)


def find_weights_file_error(path: str) -> str | None:
    """Return what is wrong with a network's `weights.path`, or None.

    Args:
        path: As in `locate_weights_file`.
    """
    package, file = _split_package_file(path)
    if not package or Path(path).is_file():
        return None if expand_home(path).is_file() else describe_missing_file(path)
    if find_install_folder(package) is None:
        advice = "give the name that `import` takes" if "-" in package else INSTALL_ADVICE
        return f"no package {package!r} is installed; {advice}"
    if locate_weights_file(path).is_file():
        return None
    return f"the package {package!r} has no file {file!r}"


def _split_package_file(path: str) -> tuple[str, str]:
    """Split `package:file`; the package is empty for any other path."""
    package, _, file = path.partition(":")
    is_package = file and not file.startswith(("/", "\\")) and PACKAGE_NAME.fullmatch(package)
    return (package, file) if is_package else ("", path)


# torchvision's networks and weights, read from its source, since an import takes seconds.


def find_weights_error(architecture: str, weights: str) -> str | None:
    """Return what is wrong with the name of a network's torchvision weights, or None.

    Args:
        architecture: The network's `architecture` in the config.
        weights: Its `weights`, a name.
    """
    if not architecture.startswith(TORCHVISION_PREFIX):
        return (
            f"{weights!r} is a name of torchvision weights, and {architecture!r} is none of its networks; "
            "give {path: <file>}"
        )
    if weights == EMBEDDED and architecture != EMBEDDED_ARCHITECTURE:
        return f"{architecture} has no embedded weights, only {EMBEDDED_ARCHITECTURE} has"
    name = architecture.removeprefix(TORCHVISION_PREFIX)
    known = list_torchvision_models().get(name)
    if known is None or weights == EMBEDDED or weights.split(".")[-1] in known:
        return None
    nearest = suggest_nearest(weights, list(known))
    return f"{architecture} has no weights {weights!r}; {nearest}; or give {{path: <file>}}"


def resolve_weights_name(architecture: str, weights: str) -> str:
    """Return the full name of torchvision weights, such as IMAGENET1K_V2 for DEFAULT.

    Args:
        architecture: "torchvision/<name>".
        weights: The name of an entry, such as "DEFAULT" or "ResNet50_Weights.DEFAULT".
    """
    short = weights.split(".")[-1]
    return list_torchvision_models().get(architecture.removeprefix(TORCHVISION_PREFIX), {}).get(short, short)


def _find_torchvision_error(name: str) -> str | None:
    """Return the error for a name that torchvision lacks; None where its source cannot be read."""
    names = list(list_torchvision_models())
    if not names or name in names:
        return None
    return f"torchvision has no network {name!r}; {suggest_nearest(name, names)}"


@cache
def list_torchvision_models() -> dict[str, dict[str, str]]:
    """Return the networks of torchvision by name: for each, its weights' names, and the full name of each."""
    root = find_install_folder("torchvision")
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
    """Return a builder's registered name and the annotation of its weights; nothing for other functions."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "register_model":
            names = [word.value.value for word in decorator.keywords if isinstance(word.value, ast.Constant)]
            parameters = node.args.args + node.args.kwonlyargs
            annotations = [
                ast.unparse(parameter.annotation)
                for parameter in parameters
                if parameter.arg == "weights" and parameter.annotation
            ]
            return {str(names[0] if names else node.name): annotations[0] if annotations else ""}
    return {}


def _parse_weights_entries(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield the names of an enum of weights, each with the full name that it stands for."""
    for line in node.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            yield name, line.value.id if isinstance(line.value, ast.Name) else name
