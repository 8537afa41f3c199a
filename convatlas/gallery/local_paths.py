"""Paths of the machine that ran the pipeline, which a published gallery does not show."""

from pathlib import Path
from typing import Any


def hide_local_paths(value: Any) -> Any:
    """Return a value of JSON in which no text holds an absolute path of this machine.

    Args:
        value: Any value of JSON. A text that is an absolute path, or an `architecture` that begins with one,
            becomes relative to the working directory where it lies below it, else the name of the file.
            Elsewhere in texts the working directory and the home folder are left out.
    """
    if isinstance(value, dict):
        return {key: hide_local_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide_local_paths(item) for item in value]
    return _shorten(value) if isinstance(value, str) else value


def _shorten(text: str) -> str:
    """Return a text without the local paths in it."""
    is_path = text.startswith(("/", "~/")) and "\n" not in text
    if is_path and Path(text).is_relative_to(Path.cwd()):
        return str(Path(text).relative_to(Path.cwd()))
    if is_path:
        return Path(text).name or text
    for folder, short in ((Path.cwd(), ""), (_find_home(), "~/")):
        if folder is not None and folder.parts[1:]:
            text = text.replace(f"{folder}/", short)
    return text


def _find_home() -> Path | None:
    """Return the home folder; None where it is not known."""
    try:
        return Path.home()
    except RuntimeError:
        return None
