"""Inputs that are no images, such as audio, series, volumes and video, from NumPy files; without torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convatlas import UserError


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
    values = _load(Path(path))
    if values.dtype.kind not in "buif":
        raise UserError(f"{path} holds values of the type {values.dtype}; an input has integers or floats")
    if _drop_unit_axes(values.shape) != _drop_unit_axes(shape):
        raise UserError(
            f"{path} holds an array of shape {values.shape}; the network's input is {tuple(shape)}: cut, pad "
            "or resample it, or change input.size"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite (NaN or infinity): replace them")
    return values.reshape(tuple(shape)).astype(np.float32)


def _load(path: Path) -> np.ndarray:
    """Return the array of a file; nothing that is pickled is loaded."""
    try:
        content = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is no NumPy file that can be read (.npy or .npz): {error}") from error
    if isinstance(content, np.ndarray):
        return content
    with content as arrays:
        if len(arrays.files) != 1:
            raise UserError(
                f"{path} must hold one array, an input, but holds {len(arrays.files)}; save each in a file "
                "of its own, with numpy.save"
            )
        try:
            values: np.ndarray = arrays[arrays.files[0]]
        except ValueError as error:
            raise UserError(f"{path} is no NumPy file that can be read (.npy or .npz): {error}") from error
        return values


def _drop_unit_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without its leading axes of length 1."""
    axes = tuple(shape)
    while len(axes) > 1 and axes[0] == 1:
        axes = axes[1:]
    return axes
