"""Arrays that tests read from files."""

from pathlib import Path

import numpy as np

from convatlas.files import Npz


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of an npz, in their order."""
    return dict(Npz(path))
