"""Paths in the config."""

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Return a path with a leading ~ replaced by the user's home folder, where there is one.

    `Path.expanduser` raises RuntimeError where the user has no home folder, as in some containers.

    Args:
        path: The path.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111
