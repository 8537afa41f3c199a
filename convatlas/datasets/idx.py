"""The idx file format of MNIST (http://yann.lecun.com/exdb/mnist/), arrays of unsigned bytes.

A file consists of two zero bytes, a type (8: unsigned bytes), the number of axes, the length of each axis as
a big-endian 32-bit integer, and the values in C order.
"""

import math
import struct
from pathlib import Path

import numpy as np

from convatlas import UserError
from convatlas.files import write_bytes


def write_idx(path: str | Path, array: np.ndarray) -> None:
    """Write an array of up to four axes as an idx file of unsigned bytes.

    Args:
        path: The file.
        array: Whole numbers from 0 to 255.
    """
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    write_bytes(path, header + array.astype(np.uint8).tobytes())


def read_idx(path: str | Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, the format of the files of MNIST.

    Args:
        path: The file, not compressed.

    Returns:
        Values uint8, of 1 to 4 axes as the header declares; read-only.

    Raises:
        UserError: The file cannot be read, is not such a file, or is truncated.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not 1 <= content[3] <= 4:
        raise UserError(
            f"{path} is not an idx file of unsigned bytes: it starts with {content[:4].hex(' ') or 'nothing'}"
        )
    axes = content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise UserError(f"{path} is truncated: it ends within its header")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path} is truncated or altered: its header declares {math.prod(shape):,} values "
            f"{shape}, it holds {len(content) - start:,}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
