"""Arrays of NumPy files: images, and inputs such as audio, series, volumes and video; without torch."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convatlas import UserError

MAX_BYTES = 2**30  # of the values of one file
MAX_NAMED_ARRAYS = 5


def read_array(path: str | Path, shape: Sequence[int]) -> np.ndarray:
    """Read the array of a .npy file, or of a .npz file that holds one, as it is stored.

    Args:
        path: The file.
        shape: The shape of the network's input: (C, L), or (C, D, H, W). In the file, leading axes of length
            1 may be there or not.

    Returns:
        The values, float32, of this shape.

    Raises:
        UserError: The file cannot be read, holds more than one array, no numbers, values that are not finite,
            or an array of another shape.
    """
    values = load_array(path, "input")
    if _drop_unit_axes(values.shape) != _drop_unit_axes(shape):
        raise UserError(
            f"{path} holds an array of shape {values.shape}; the network's input is {tuple(shape)}: cut, pad "
            "or resample it, or change input.size"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite (NaN or infinity): replace them")
    return values.reshape(tuple(shape)).astype(np.float32)


def load_array(path: str | Path, content: str) -> np.ndarray:
    """Return the array of a .npy file, or of a .npz file that holds one; nothing that is pickled is loaded.

    The header of a .npy file, and the directory of a .npz file, are checked before values are read.

    Args:
        path: The file.
        content: What the array is, "input" or "image", for messages.

    Raises:
        UserError: The file cannot be read, or holds more than one array, too large an array, or no numbers.
    """
    try:
        values = _load_npz(Path(path), content) if zipfile.is_zipfile(path) else _map_npy(path)
    except UserError:
        raise
    except Exception as error:  # NumPy and zipfile raise many types for damaged files
        raise UserError(f"{path} is no NumPy file that can be read (.npy or .npz): {error}") from error
    check_bytes(values.nbytes, path)
    if values.dtype.kind not in "buif":
        raise UserError(
            f"{path} holds values of the type {values.dtype}; an {content} has integers or floats"
        )
    return values


def _map_npy(path: str | Path) -> np.ndarray:
    """Return the array of a .npy file, memory-mapped."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _load_npz(path: Path, content: str) -> np.ndarray:
    """Return the only array of a .npz file."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename.removesuffix(".npy") for entry in entries]
        if len(entries) != 1:
            raise UserError(
                f"{path} must hold one array, an {content}, but holds {len(names)} "
                f"({', '.join(names[:MAX_NAMED_ARRAYS]) or 'none'}); save each in a file of its own, with "
                "numpy.save"
            )
        check_bytes(entries[0].file_size, path)
    with np.load(path, allow_pickle=False) as arrays:
        values: np.ndarray = arrays[names[0]]
        return values


def check_bytes(count: int, path: str | Path) -> None:
    """Raise UserError where the values of a file are too many to be read at once.

    Args:
        count: Their bytes.
        path: The file.
    """
    if count > MAX_BYTES:
        raise UserError(
            f"{path} holds {count / 2**20:.0f} MiB of values; at most {MAX_BYTES / 2**20:.0f} are read at "
            "once: cut or reduce it"
        )


def _drop_unit_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without its leading axes of length 1."""
    axes = tuple(shape)
    while len(axes) > 1 and axes[0] == 1:
        axes = axes[1:]
    return axes
