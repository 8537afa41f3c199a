"""The environment of a run: texts and file names in UTF-8, and a folder for caches."""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from convatlas import UserError
from convatlas.paths import expand_home


def require_utf8(environment: MutableMapping[str, str]) -> None:
    """Let this process and those that it starts read and write UTF-8, whatever the locale.

    Python decides on the encoding of file names when it starts, so that Snakemake is started again where the
    locale has another one.

    Args:
        environment: The environment variables, changed in place.

    Raises:
        UserError: File names have another encoding, and the process is not the command `snakemake`.
    """
    environment["PYTHONUTF8"] = "1"
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8":
        return
    command = Path(sys.argv[0])
    if command.stem != "snakemake" and command.parent.name != "snakemake":
        raise UserError(
            f"file names are encoded in {sys.getfilesystemencoding()} here, by the locale; "
            "set the environment variable PYTHONUTF8=1"
        )
    sys.stdout.flush()
    os.execve(sys.executable, sys.orig_argv, dict(environment))


def provide_cache_folder(environment: MutableMapping[str, str], folder: Path) -> None:
    """Let libraries keep caches in a folder of the project, where the user's home folder cannot be written.

    Matplotlib, fontconfig, numba and torch would else warn, or do their work again in every process.

    Args:
        environment: The environment variables, changed in place.
        folder: The folder to use then.
    """
    home = environment.get("HOME") or expand_home("~")
    for variable, default in (("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config")):
        path = Path(environment.get(variable) or Path(home, default))
        if not (path.is_absolute() and _is_writable(path)):
            environment[variable] = str(folder.resolve())
            folder.mkdir(parents=True, exist_ok=True)


def _is_writable(folder: Path) -> bool:
    """Return whether a folder can be written; it is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
