"""The order of the packages: a package imports those before it, and a few import little on purpose."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.workspace import ROOT

LIBRARY = ROOT / "convatlas"
# A package imports only packages before it, and the files at the top of the library.
ORDER = [
    "pipeline",
    "models",
    "datasets",
    "training",
    "tracing",
    "attribution",
    "statistics",
    "analysis",
    "plotting",
    "figures",
    "gallery",
]
SIBLINGS = {"attribution", "statistics", "analysis"}  # which do not import each other
SINKS = {"figures", "gallery"}  # which no other package imports
WITHOUT_TORCH = {"plotting", "figures", "gallery", "pipeline"}
PATHS = sorted(path.relative_to(ROOT) for path in LIBRARY.rglob("*.py"))


def list_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and dotted name of each import in a file, those inside functions too."""
    package = ".".join(path.parent.parts)
    for node in ast.walk(ast.parse((ROOT / path).read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def get_package(parts: tuple[str, ...]) -> str:
    """Return the package of a module of the library; "" for a file at its top."""
    return parts[1] if len(parts) > 1 and (LIBRARY / parts[1]).is_dir() else ""


def test_the_library_has_just_these_packages() -> None:
    folders = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert folders == set(ORDER)


def find_violations(path: Path) -> Iterator[str]:
    """Yield the imports of a file that break the order of the packages."""
    package = get_package(path.parts)
    for line, name in list_imports(path):
        imported = get_package(tuple(name.split("."))) if name.startswith("convatlas.") else ""
        if not imported or imported == package:
            continue
        is_later = bool(package) and ORDER.index(imported) > ORDER.index(package)
        is_sibling = {package, imported} <= SIBLINGS
        if is_later or is_sibling or imported in SINKS or not package:
            yield f"{path}:{line} imports {name}"


def test_a_package_imports_only_packages_before_it() -> None:
    """A file at the top imports no package, except for the public names, which are loaded lazily."""
    paths = [path for path in PATHS if path != Path("convatlas/__init__.py")]
    assert [violation for path in paths for violation in find_violations(path)] == []


def test_figures_and_pages_import_no_torch() -> None:
    paths = [path for path in PATHS if get_package(path.parts) in WITHOUT_TORCH]
    assert paths
    assert [
        f"{path}:{line} imports {name}"
        for path in paths
        for line, name in list_imports(path)
        if name.split(".")[0] in ("torch", "torchvision")
    ] == []


def test_only_rules_know_snakemake() -> None:
    scripts = [path.relative_to(ROOT) for path in ROOT.glob("scripts/*.py")]
    for path in [*PATHS, *scripts]:
        assert "snakemake" not in {name.split(".")[0] for _, name in list_imports(path)}, path


@pytest.mark.parametrize("path", [path for path in PATHS if path.name == "__init__.py"], ids=str)
def test_a_package_holds_only_a_docstring_of_one_sentence(path: Path) -> None:
    """So that the import of one module loads no other; convatlas itself loads its public names lazily."""
    tree = ast.parse((ROOT / path).read_text())
    docstring = ast.get_docstring(tree) or ""
    assert docstring.endswith(".")
    if path.parent != Path("convatlas"):
        assert len(tree.body) == 1
        assert ". " not in docstring
