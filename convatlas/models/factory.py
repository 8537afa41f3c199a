"""Import and call the functions that build networks, bundled or the user's own, and explain their errors."""

import importlib
import inspect
import logging
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from convatlas import UserError
from convatlas.names import suggest_nearest
from convatlas.pipeline.architecture_names import (
    BUNDLED_ARCHITECTURES,
    BUNDLED_FOLDER,
    describe_missing_code,
)
from convatlas.pipeline.dependencies import LIBRARY, find_package_root, is_file_path, locate_code

log = logging.getLogger(__name__)

# Parameters of a factory that take the number of classes.
CLASS_COUNT_PARAMETERS = ("classes", "num_classes")
QUANTIZED_MODULES = re.compile(r"torch\.ao\.nn\.(\w+\.)*quantized\b")
# What torch says where tensors should be on a device that is missing, or are on several.
DEVICE_ERROR = re.compile(
    r"NVIDIA|compiled with CUDA|CUDA (error|GPUs|driver)|same device|torch\.cuda|cuda:\d|\b(mps|xpu):\d"
)
LIBRARY_FOLDERS = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})


@dataclass(frozen=True)
class Factory:
    """A function that builds a network, and what is known of the network before it is built.

    Attributes:
        function: The function, or a class of modules.
        architecture: The network's `architecture` in the config.
        input: Settings of the preprocessing that belongs to the architecture, if it has any.
        class_count_parameter: The function's parameter that takes the number of classes, if it has one.
        source: Where the architecture was published, if that is known.
    """

    function: Callable[..., Any]
    architecture: str
    input: Mapping[str, Any] | None = None
    class_count_parameter: str | None = None
    source: str | None = None

    def complete_arguments(
        self, arguments: Mapping[str, Any], classes: Sequence[str] | None
    ) -> dict[str, Any]:
        """Return the arguments, with the number of classes where it is known, not given, and has a parameter.

        Args:
            arguments: The network's `arguments` in the config.
            classes: Class names, where known.
        """
        if (
            classes is None
            or self.class_count_parameter is None
            or any(name in arguments for name in CLASS_COUNT_PARAMETERS)
        ):
            return dict(arguments)
        return {**arguments, self.class_count_parameter: len(classes)}

    def __call__(self, arguments: Mapping[str, Any], key: str) -> nn.Module:
        """Build the network.

        Args:
            arguments: Keyword arguments of the function.
            key: Place of the network in the config, for messages.

        Raises:
            UserError: The arguments do not fit the function, or it fails, or returns something other than a
                torch.nn.Module.
        """
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
                f"its signature is {name}{signature}"
            ) from error
        try:
            network = self.function(**arguments)
        except (Exception, SystemExit) as error:
            reason = explain_device_error(self.architecture, error) or (
                f"{self.architecture} failed, called with {arguments}: {format_error(error)}"
            )
            raise UserError(f"{key}.architecture: {reason}") from error
        if program := describe_program(network):
            raise UserError(
                f"{key}.architecture: {self.architecture} returned {program}, whose layers cannot be "
                "observed; return the Python module (torch.nn.Module) that it was made from, with its weights"
            )
        if not isinstance(network, nn.Module):
            raise UserError(
                f"{key}.architecture: {self.architecture} returned {_describe_value(network)}, "
                "not a torch.nn.Module"
            )
        return unwrap_network(network)


def describe_program(network: object) -> str | None:
    """Return what a network is if it was traced, scripted, exported or quantised; else None.

    The layers of such programs run without Python's hooks, so that nothing could be recorded. Those of a
    quantised network have integers as weights and outputs.

    Args:
        network: What a factory returned. Modules within it count as well, if they hold parameters.
    """
    if type(network).__module__.startswith("torch.export"):
        return "an exported program (torch.export)"
    for name, module in network.named_modules() if isinstance(network, nn.Module) else ():
        program = None
        has_parameters = next(module.parameters(), None) is not None
        if isinstance(module, torch.jit.ScriptModule) and (has_parameters or not name):
            is_traced = "Traced" in type(module).__name__
            program = (
                "a traced network (torch.jit.trace)" if is_traced else "a TorchScript program (torch.jit)"
            )
        elif any(QUANTIZED_MODULES.match(kind.__module__) for kind in type(module).__mro__):
            program = "a quantised network (torch.ao)"
        elif any(kind.__module__.startswith("torch.export") for kind in type(module).__mro__):
            program = "an exported program (torch.export)"
        if program:
            return program + (f" as its module {name!r}" if name else "")
    return None


def unwrap_network(network: nn.Module) -> nn.Module:
    """Return a network without torch.compile and DataParallel, also distributed, around it or its parts.

    The wrappers compute the same as the modules in them, but hide their layers or copy them to devices.

    Args:
        network: The network. Wrapped modules within it are replaced, in place, by those that they wrap.
    """
    network = _unwrap_module(network)
    for parent in network.modules():  # goes on into what takes the place of a wrapper
        for name, child in parent._modules.items():
            if child is not None and (inner := _unwrap_module(child)) is not child:
                parent._modules[name] = inner
        if parent._compiled_call_impl is not None:
            parent._compiled_call_impl = None  # as before module.compile()
    return network


def _unwrap_module(module: nn.Module) -> nn.Module:
    """Return the module within a module that only wraps it, or else the module itself."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        elif type(module).__module__.startswith("torch._dynamo"):
            inner = getattr(module, "_orig_mod", module)
        else:
            return module
        log.info("%s is left out: the network within it is used", type(module).__name__)
        module = inner


def format_error(error: BaseException) -> str:
    """Return an error's kind and text, with the file and line in the user's code where it was raised.

    Args:
        error: The error, as caught.
    """
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {kind}: {error.msg}"
    user_frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if _is_user_code(frame.filename)
    ]
    place = f"{user_frames[-1].filename}:{user_frames[-1].lineno}: " if user_frames else ""
    return f"{place}{kind}: {error}"


def explain_device_error(architecture: str, error: BaseException) -> str | None:
    """Say that a network chooses a device itself, where that is what an error on the CPU means.

    Args:
        architecture: The network's `architecture` in the config.
        error: What it raised when it was built or run on the CPU.

    Returns:
        The text of a message; None for other errors.
    """
    if not DEVICE_ERROR.search(str(error)):
        return None
    return (
        f"{architecture} moves tensors to a device of its own choice: {format_error(error)}; the config's "
        "`device` decides where a network runs, and it is checked on the CPU first: remove .cuda(), "
        '.to("cuda") and device="cuda" from its code, or write .to(x.device)'
    )


def _is_user_code(filename: str) -> bool:
    """Return whether a file is of a network's code: not installed, and not of this library's other parts."""
    if filename.startswith((*LIBRARY_FOLDERS, "<")):
        return False
    return not filename.startswith(str(LIBRARY) + os.sep) or filename.startswith(str(BUNDLED_FOLDER))


def _describe_value(value: object) -> str:
    """Return a value and its type as text for a message."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"{value!r:.80} ({type(value).__name__})"


def import_factory(architecture: str, key: str) -> Factory:
    """Import the function that an `architecture` names, bundled or the user's own.

    Args:
        architecture: The name of a bundled one, "path/to/file.py:function" or "package.module:function",
            where the function may be a method of a class, "Class.method".
            Constants INPUT and SOURCE beside the function give its preprocessing and where it was published.
        key: Place of the network in the config, for messages.

    Raises:
        UserError: There is no such file, module or function, or it cannot be imported.
    """
    if architecture in BUNDLED_ARCHITECTURES:
        module = importlib.import_module(f"convatlas.models.architectures.{architecture}")
        name = architecture
    else:
        place, _, name = architecture.rpartition(":")
        module = _import_user_module(place, f"{key}.architecture")
    owner: Any = module
    *owners, last = name.split(".")
    for part in owners:
        owner = getattr(owner, part, None)
    function = getattr(owner, last, None)
    if function is None or isinstance(function, nn.Module) or not callable(function):
        functions = [
            n
            for n, value in vars(module).items()
            if callable(value) and not isinstance(value, nn.Module) and not n.startswith("_")
        ]
        problem = (
            "is missing from" if function is None else f"is {_describe_value(function)}, not a function, in"
        )
        raise UserError(
            f"{key}.architecture: {name!r} {problem} {module.__file__}; {suggest_nearest(name, functions)}"
        )
    known_input = getattr(module, "INPUT", None)
    if known_input is not None and not isinstance(known_input, dict):
        raise UserError(
            f"{module.__file__}: INPUT must be a mapping of size, mean and std, not {known_input!r}"
        )
    source = getattr(module, "SOURCE", None)
    return Factory(
        function,
        architecture,
        known_input,
        _find_class_count_parameter(function),
        str(source) if source else None,
    )


def _find_class_count_parameter(function: Callable[..., Any]) -> str | None:
    """Return the name of a function's parameter that takes the number of classes, if it has one."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in CLASS_COUNT_PARAMETERS if name in parameters), None)


def _import_user_module(place: str, key: str) -> ModuleType:
    """Import a user's file or module, with the folders of its own imports on sys.path."""
    location = locate_code(place)
    if location is None:
        raise UserError(f"{key}: {describe_missing_code(place)}")
    path, roots = location
    for root in reversed(roots):
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
    try:
        if is_file_path(place) and find_package_root(path) == path.parent:
            return _import_file(path)
        module_path = path.relative_to(find_package_root(path)).with_suffix("")
        module = importlib.import_module(".".join(module_path.parts) if is_file_path(place) else place)
        if Path(str(module.__file__)).resolve() != path.resolve():
            raise ImportError(f"another module has this name: {module.__file__}")
        return module
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}: {place} cannot be imported: {format_error(error)}") from error


def _import_file(path: Path) -> ModuleType:
    """Import a file by its path, under a name that no other module has."""
    spec = spec_from_file_location(f"{path.stem}_user_module", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their own module
    spec.loader.exec_module(module)
    return module
