"""Files between stages: written whole or not at all, hashed, never pickled."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from convatlas import UserError

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, or what a file may hold
LOCK_FILE = ".held"  # a file in a folder aside, locked as long as its writer lives, which names its host
HOSTNAME = socket.gethostname().encode()
DAY = 24 * 60 * 60  # seconds


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a path aside of `path`, and rename it to `path` only when the block succeeds.

    The block creates a file or a folder there. A folder replaces an older one whole. What writers of
    `path` left aside that were killed is removed. Raises UserError where the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        aside = Path(tempfile.mkdtemp(prefix=_temporary_prefix(path), dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    try:
        with _hold_lock(aside):
            yield aside / path.name
            if path.is_dir() and not path.is_symlink() and (aside / path.name).is_dir():
                os.replace(path, aside / ".replaced")
            os.replace(aside / path.name, path)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS or str(error.filename).startswith(str(aside)):
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_stale(path: str | Path) -> None:
    """Remove what writers of `path` left aside that were killed."""
    for held in Path(path).parent.glob(f"{_temporary_prefix(path)}*/{LOCK_FILE}"):
        if not _is_writer_alive(held):
            shutil.rmtree(held.parent, ignore_errors=True)


def _temporary_prefix(path: str | Path) -> str:
    """How the folders aside of a path are called: by a hash, for its name may be as long as a name can be."""
    return f".{hashlib.sha256(os.fsencode(Path(path).name)).hexdigest()[:8]}-"


def _is_writer_alive(held: Path) -> bool:
    """Whether the writer that locked this file may still live.

    Some file systems tell of locks on the host alone that has them: of another's a day must have passed.
    """
    try:
        with open(held, "rb+") as file:
            elsewhere, age = file.read() != HOSTNAME, time.time() - os.fstat(file.fileno()).st_mtime
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return elsewhere and age < DAY
    except OSError:
        return True


@contextmanager
def _hold_lock(aside: Path) -> Iterator[None]:
    """Hold a lock by which `sweep` knows that the writer of this folder lives."""
    with open(aside / ".hold", "wb", buffering=0) as file:
        file.write(HOSTNAME)
        with suppress(OSError):  # where files cannot be locked nothing is swept
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(file.name, aside / LOCK_FILE)  # no sooner than it is locked
        yield


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_write(path) as aside:
        aside.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, its keys in the order given; NaN is refused, for it is no JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def missing_file_error(path: str | Path) -> UserError:
    """Return the error to raise for a file of an earlier stage that is missing."""
    return UserError(f"{path} is missing; run the stage that writes it")


def damaged_file_error(path: str | Path, error: Exception) -> UserError:
    """Return the error to raise for a file of an earlier stage that cannot be parsed."""
    return UserError(f"{path} is damaged ({error}); delete it and run again")


def read_json(path: str | Path) -> Any:
    """Read JSON. Raises UserError where the file is missing or damaged."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise missing_file_error(path) from error
    except ValueError as error:
        raise damaged_file_error(path, error) from error


@contextmanager
def npz_writer(path: str | Path, compress: bool = False) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Give a function that adds a named array to an npz, which takes its place when the block succeeds.

    One array is in memory at a time; the same arrays in the same order give the same bytes. Not np.savez:
    an array there may not be called "file", which a layer may.
    """
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with atomic_write(path) as aside, zipfile.ZipFile(aside, "w") as archive:

        def write(name: str, array: np.ndarray) -> None:
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = method
            array = np.ascontiguousarray(array) if array.ndim else array
            with archive.open(entry, "w", force_zip64=True) as member:
                header = np.lib.format.header_data_from_array_1_0(array)
                np.lib.format.write_array_header_1_0(member, header)
                member.write(array.reshape(-1).view(np.uint8).data)  # no copy, as write_array makes

        yield write


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray], compress: bool = False) -> None:
    """Write named arrays, uncompressed by default, in the order given."""
    with npz_writer(path, compress) as write:
        for name, array in arrays.items():
            write(name, np.asarray(array))


class Npz(Mapping[str, np.ndarray]):
    """The arrays of an npz, in the order in which they were written, each read when it is asked for.

    Raises UserError where the file, or an array in it, is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        with self._raise_user_errors():
            self._archive = np.load(path, allow_pickle=False)
            self._names = list(self._archive.files)

    @contextmanager
    def _raise_user_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise missing_file_error(self.path) from error
        except Exception as error:  # numpy and zipfile raise many kinds for one fault
            raise damaged_file_error(self.path, error) from error

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        with self._raise_user_errors():
            return self._archive[f"{name}.npy"]  # the member's name: a layer may be called `a.npy` itself

    def __contains__(self, name: object) -> bool:  # a Mapping's own would read the array
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read every array of an npz, in the order in which they were written."""
    return dict(Npz(path))


def sha256(*paths: str | Path) -> str:
    """Hash the contents of files, one after the other, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def md5(path: str | Path) -> str:
    """Hash the contents of a file; for comparison with published checksums only."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
