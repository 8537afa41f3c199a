"""Functions that make networks, bundled or the user's own: imported, called, and their faults told."""

import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from convatlas import UserError
from convatlas.names import nearest
from convatlas.pipeline.architecture_names import ARCHITECTURES, BUNDLED
from convatlas.pipeline.dependencies import LIBRARY, home, is_file, package_root

COUNTS = ("classes", "num_classes")  # parameters that take the number of classes
INSTALLED = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})


@dataclass(frozen=True)
class Factory:
    """A function that makes a network, and what is known of it before it is called.

    `input` is the preprocessing that comes with it, `counts` the parameter that takes the number
    of classes, `source` where the network was published; None where there is none.
    """

    function: Callable[..., Any]
    architecture: str
    input: dict[str, Any] | None = None
    counts: str | None = None
    source: str | None = None

    def arguments(self, given: dict[str, Any], classes: Sequence[str] | None) -> dict[str, Any]:
        """Complete the arguments given by the number of classes, if it is known and has a place."""
        if classes is None or self.counts is None or any(name in given for name in COUNTS):
            return dict(given)
        return {**given, self.counts: len(classes)}

    def __call__(self, arguments: dict[str, Any], key: str) -> nn.Module:
        """Make the network. Raises UserError, which names the place in the config, `key`.arguments."""
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            signature = None
        try:
            if signature:
                signature.bind(**arguments)
        except TypeError as error:
            name = self.architecture.split(":")[-1]
            raise UserError(
                f"{key}.arguments: {self.architecture} cannot be called with {arguments}: {error}; "
                f"it is {name}{signature}"
            ) from error
        try:
            network = self.function(**arguments)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{key}.architecture: {self.architecture} failed, called with {arguments}: {told(error)}"
            ) from error
        if not isinstance(network, nn.Module):
            raise UserError(
                f"{key}.architecture: {self.architecture} returned {_shown(network)}, no torch.nn.Module"
            )
        return network


def told(error: BaseException) -> str:
    """Say where an error was raised, in the user's code if it came through there, and its kind and text."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {kind}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    library = str(LIBRARY)
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith((*INSTALLED, "<"))
        and (not frame.filename.startswith(library + os.sep) or frame.filename.startswith(str(BUNDLED)))
    ]
    where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    return f"{where}{kind}: {error}"


def _shown(value: object) -> str:
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"the class {kind}" if isinstance(value, type) else f"{value!r:.80} ({kind})"


def find(architecture: str, key: str) -> Factory:
    """Find the function that an `architecture` names, bundled or the user's own, and import it.

    Raises UserError, which names the place in the config, `key`.architecture.
    """
    if architecture in ARCHITECTURES:
        module = importlib.import_module(f"convatlas.models.architectures.{architecture}")
        name = architecture
    else:
        place, _, name = architecture.rpartition(":")
        module = _imported(place, f"{key}.architecture")
    function = getattr(module, name, None)
    if function is None or isinstance(function, nn.Module) or not callable(function):
        there = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        what = "not there" if function is None else f"no function, but {_shown(function)}"
        raise UserError(
            f"{key}.architecture: {name!r} is {what} in {module.__file__}; {nearest(name, there)}"
        )
    known = getattr(module, "INPUT", None)
    if known is not None and not isinstance(known, dict):
        raise UserError(f"{module.__file__}: INPUT must be a mapping of size, mean and std, not {known!r}")
    source = getattr(module, "SOURCE", None)
    return Factory(function, architecture, known, _takes_classes(function), source and str(source))


def _takes_classes(function: Callable[..., Any]) -> str | None:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in COUNTS if name in parameters), None)


def _imported(place: str, key: str) -> ModuleType:
    """Import a user's file or module, what lies beside it importable too."""
    found = home(place)
    if found is None:
        what = f"file {place!r}" if is_file(place) else f"module {place!r}"
        raise UserError(f"{key}: there is no {what}, seen from {Path.cwd()}")
    path, roots = found
    for root in reversed(roots):
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
    try:
        if is_file(place) and package_root(path) == path.parent:
            return _run(path)
        inside = path.relative_to(package_root(path)).with_suffix("")
        module = importlib.import_module(".".join(inside.parts) if is_file(place) else place)
        if Path(str(module.__file__)).resolve() != path.resolve():
            raise ImportError(f"another module is called so: {module.__file__}")
        return module
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}: {place} cannot be imported: {told(error)}") from error


def _run(path: Path) -> ModuleType:
    """Import a file by its path, under a name that no other module has."""
    spec = spec_from_file_location(f"{path.stem}_of_the_user", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
