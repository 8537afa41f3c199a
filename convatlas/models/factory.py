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
from convatlas.names import suggest_nearest
from convatlas.pipeline.architecture_names import BUNDLED_ARCHITECTURES, BUNDLED_FOLDER
from convatlas.pipeline.dependencies import LIBRARY, find_package_root, is_file_path, locate_code

CLASS_COUNT_PARAMETERS = ("classes", "num_classes")  # parameters that take the number of classes
LIBRARY_FOLDERS = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})


@dataclass(frozen=True)
class Factory:
    """A function that makes a network, and what is known of it before it is called.

    `input` is the preprocessing that comes with it, `counts` the parameter that takes the number
    of classes, `source` where the network was published; None where there is none.
    """

    function: Callable[..., Any]
    architecture: str
    input: dict[str, Any] | None = None
    class_count_parameter: str | None = None
    source: str | None = None

    def complete_arguments(self, given: dict[str, Any], classes: Sequence[str] | None) -> dict[str, Any]:
        """Complete the arguments given by the number of classes, if it is known and has a place."""
        if (
            classes is None
            or self.class_count_parameter is None
            or any(name in given for name in CLASS_COUNT_PARAMETERS)
        ):
            return dict(given)
        return {**given, self.class_count_parameter: len(classes)}

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
                f"{key}.architecture: {self.architecture} failed, called with {arguments}: {format_error(error)}"
            ) from error
        if not isinstance(network, nn.Module):
            raise UserError(
                f"{key}.architecture: {self.architecture} returned {_describe_value(network)}, no torch.nn.Module"
            )
        return network


def format_error(error: BaseException) -> str:
    """Say where an error was raised, in the user's code if it came through there, and its kind and text."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {kind}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    library = str(LIBRARY)
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith((*LIBRARY_FOLDERS, "<"))
        and (
            not frame.filename.startswith(library + os.sep) or frame.filename.startswith(str(BUNDLED_FOLDER))
        )
    ]
    where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    return f"{where}{kind}: {error}"


def _describe_value(value: object) -> str:
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"the class {kind}" if isinstance(value, type) else f"{value!r:.80} ({kind})"


def import_factory(architecture: str, key: str) -> Factory:
    """Find the function that an `architecture` names, bundled or the user's own, and import it.

    Raises UserError, which names the place in the config, `key`.architecture.
    """
    if architecture in BUNDLED_ARCHITECTURES:
        module = importlib.import_module(f"convatlas.models.architectures.{architecture}")
        name = architecture
    else:
        place, _, name = architecture.rpartition(":")
        module = _import_user_module(place, f"{key}.architecture")
    function = getattr(module, name, None)
    if function is None or isinstance(function, nn.Module) or not callable(function):
        there = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        what = "not there" if function is None else f"no function, but {_describe_value(function)}"
        raise UserError(
            f"{key}.architecture: {name!r} is {what} in {module.__file__}; {suggest_nearest(name, there)}"
        )
    known = getattr(module, "INPUT", None)
    if known is not None and not isinstance(known, dict):
        raise UserError(f"{module.__file__}: INPUT must be a mapping of size, mean and std, not {known!r}")
    source = getattr(module, "SOURCE", None)
    return Factory(
        function, architecture, known, _find_class_count_parameter(function), source and str(source)
    )


def _find_class_count_parameter(function: Callable[..., Any]) -> str | None:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in CLASS_COUNT_PARAMETERS if name in parameters), None)


def _import_user_module(place: str, key: str) -> ModuleType:
    """Import a user's file or module, what lies beside it importable too."""
    found = locate_code(place)
    if found is None:
        what = f"file {place!r}" if is_file_path(place) else f"module {place!r}"
        raise UserError(f"{key}: there is no {what}, seen from {Path.cwd()}")
    path, roots = found
    for root in reversed(roots):
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
    try:
        if is_file_path(place) and find_package_root(path) == path.parent:
            return _import_file(path)
        inside = path.relative_to(find_package_root(path)).with_suffix("")
        module = importlib.import_module(".".join(inside.parts) if is_file_path(place) else place)
        if Path(str(module.__file__)).resolve() != path.resolve():
            raise ImportError(f"another module is called so: {module.__file__}")
        return module
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}: {place} cannot be imported: {format_error(error)}") from error


def _import_file(path: Path) -> ModuleType:
    """Import a file by its path, under a name that no other module has."""
    spec = spec_from_file_location(f"{path.stem}_of_the_user", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
