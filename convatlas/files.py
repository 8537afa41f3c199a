"""Files between stages: JSON and npz, written atomically, hashed, never pickled."""

import errno
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from convatlas import UserError

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota exceeded, file too large
LOCK_FILE = ".lock"  # in a temporary folder: holds its writer's host, and is locked while the writer lives
NEW_LOCK_FILE = ".lock-new"  # a lock file that is not locked yet
REPLACED_FOLDER = ".replaced"  # in a temporary folder: the old folder, until it is removed
HOSTNAME = socket.gethostname().encode()
DAY = 24 * 60 * 60  # seconds
HASH_BLOCK_SIZE = 1 << 20  # bytes
SMALL_ARRAY_SIZE = 1 << 20  # bytes of an array of an npz up to which it is read at once


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file or folder completely or not at all.

    The block writes to a temporary path, which replaces `path` when the block succeeds. A folder replaces an
    old one with all its content. Temporary files of killed writers of `path` are removed.

    Args:
        path: The file or folder to write. Its parents are created.

    Yields:
        The temporary path, where the block creates a file or a folder.

    Raises:
        UserError: The path cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        folder = Path(tempfile.mkdtemp(prefix=_temporary_prefix(path), dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    temporary = folder / path.name
    try:
        with _hold_lock(folder):
            yield temporary
            if path.is_dir() and not path.is_symlink() and temporary.is_dir():
                os.replace(path, folder / REPLACED_FOLDER)
            os.replace(temporary, path)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS or str(error.filename).startswith(str(folder)):
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale(path: str | Path) -> None:
    """Remove the temporary files of killed writers of a path.

    Args:
        path: The file or folder that they wrote.
    """
    for lock in Path(path).parent.glob(f"{_temporary_prefix(path)}*/{LOCK_FILE}"):
        if not _is_writer_alive(lock):
            shutil.rmtree(lock.parent, ignore_errors=True)


def _temporary_prefix(path: str | Path) -> str:
    """Return the prefix of a path's temporary folders: a hash, since its name may have the maximal length."""
    return f".{hashlib.sha256(os.fsencode(Path(path).name)).hexdigest()[:8]}-"


def _is_writer_alive(lock: Path) -> bool:
    """Return whether the writer that locked this file may be alive.

    On some file systems, only the host that holds a lock sees it: files of another host are kept for a day.
    """
    try:
        with open(lock, "rb+") as file:
            is_other_host = file.read() != HOSTNAME
            age = time.time() - os.fstat(file.fileno()).st_mtime
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return is_other_host and age < DAY
    except OSError:
        return True


@contextmanager
def _hold_lock(folder: Path) -> Iterator[None]:
    """Hold a lock in a temporary folder, by which `remove_stale` knows that the writer is alive."""
    with open(folder / NEW_LOCK_FILE, "wb", buffering=0) as file:
        file.write(HOSTNAME)
        with suppress(OSError):  # where files cannot be locked, stale files stay
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(file.name, folder / LOCK_FILE)  # only once it is locked
        yield


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file completely or not at all.

    Args:
        path: The file; its parents are created.
        content: Its content.
    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON, keys in their order.

    Args:
        path: The file; its parents are created.
        value: A value that JSON can hold.

    Raises:
        ValueError: The value holds NaN or infinity, which JSON does not have.
    """
    write_bytes(path, format_json(value).encode())


def format_json(value: Any) -> str:
    """Return a value as the text of a JSON file, keys in their order.

    Args:
        value: A value that JSON can hold.

    Raises:
        ValueError: The value holds NaN or infinity, which JSON does not have.
    """
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_json_number(value: float) -> float | None:
    """Return a number for JSON, which has no NaN and no infinity: None instead of those.

    Args:
        value: The number, of Python, NumPy or torch.
    """
    return float(value) if math.isfinite(value) else None


def to_json_numbers(values: Iterable[float]) -> list[float | None]:
    """Return numbers for JSON: None instead of NaN and infinity.

    Args:
        values: The numbers.
    """
    return [to_json_number(value) for value in values]


def missing_file_error(path: str | Path) -> UserError:
    """Return the error to raise for a file of an earlier stage that is missing.

    Args:
        path: The missing file.
    """
    return UserError(f"{path} is missing; run the stage that writes it")


def damaged_file_error(path: str | Path, error: Exception) -> UserError:
    """Return the error to raise for a file of an earlier stage that cannot be parsed.

    Args:
        path: The damaged file.
        error: What the parser raised.
    """
    return UserError(f"{path} is damaged ({error}); delete it and run again")


def read_json(path: str | Path) -> Any:
    """Read a JSON file that an earlier stage wrote.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise missing_file_error(path) from error
    except ValueError as error:
        raise damaged_file_error(path, error) from error


@contextmanager
def npz_writer(path: str | Path, compress: bool = False) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Write an npz array by array, completely or not at all.

    One array is in memory at a time, and the same arrays in the same order give the same bytes. `np.savez`
    would need all at once, and does not allow the name "file", which a layer may have.

    Args:
        path: The npz to write; it is replaced when the block succeeds.
        compress: Whether to compress the arrays.

    Yields:
        A function that adds an array: `write(name, array)`.
    """
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:

        def write(name: str, array: np.ndarray) -> None:
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = method
            array = np.ascontiguousarray(array) if array.ndim else array
            with archive.open(entry, "w", force_zip64=True) as member:
                header = np.lib.format.header_data_from_array_1_0(array)
                np.lib.format.write_array_header_1_0(member, header)
                member.write(array.reshape(-1).view(np.uint8).data)  # write_array would copy

        yield write


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray], compress: bool = False) -> None:
    """Write named arrays to an npz, in their order, uncompressed by default.

    Args:
        path: The npz to write.
        arrays: The arrays by name.
        compress: Whether to compress them.
    """
    with npz_writer(path, compress) as write:
        for name, array in arrays.items():
            write(name, np.asarray(array))


def write_analysis(
    folder: str | Path, name: str, description: Any, arrays: Mapping[str, np.ndarray], compress: bool = False
) -> None:
    """Write the folder of an analysis, <name>.json and <name>.npz, completely or not at all.

    Args:
        folder: The folder; an older one is replaced.
        name: Of both files.
        description: A value that JSON can hold.
        arrays: The arrays by name.
        compress: Whether to compress them.
    """
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        write_json(temporary / f"{name}.json", description)
        write_npz(temporary / f"{name}.npz", arrays, compress)


class Npz(Mapping[str, np.ndarray]):
    """The arrays of an npz by name, in their order, each read on access.

    Raises:
        UserError: The file is missing, or it or an array in it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        with self._raise_user_errors():
            self._archive = np.load(path, allow_pickle=False)
            self._names = dict.fromkeys(self._archive.files)

    @contextmanager
    def _raise_user_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise missing_file_error(self.path) from error
        except Exception as error:  # numpy and zipfile raise many types
            raise damaged_file_error(self.path, error) from error

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        with self._raise_user_errors():
            # By the file's name in the archive, since an array may itself be named `a.npy`.
            member = self._archive.zip.getinfo(f"{name}.npy")
            if member.file_size > SMALL_ARRAY_SIZE:
                array: np.ndarray = self._archive[member.filename]
                return array
            return _decode_npy(self._archive.zip.read(member))

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the array
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _decode_npy(content: bytes) -> np.ndarray:
    """Return the array of a small npy file, five times as fast as numpy, whose reader works in blocks."""
    if content[6:7] != b"\x01":  # of a later version, whose header's length has four bytes
        array: np.ndarray = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        return array
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, is_fortran, dtype = _parse_npy_header(content[:start])
    return np.ndarray(shape, dtype, bytearray(content), start, order="F" if is_fortran else "C")


@lru_cache
def _parse_npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, whether the first axis varies fastest, and the data type of an npy file."""
    file = io.BytesIO(header)
    np.lib.format.read_magic(file)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded")
    return shape, is_fortran, dtype


def sha256(*paths: str | Path) -> str:
    """Return the SHA-256 of the concatenated contents of files, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(HASH_BLOCK_SIZE):
                digest.update(block)
    return digest.hexdigest()


def md5(path: str | Path) -> str:
    """Return the MD5 of a file, in hexadecimal digits; only for comparison with published checksums.

    Args:
        path: The file.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
