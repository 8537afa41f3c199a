"""Files between stages: written whole or not at all, hashed, never pickled."""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from convatlas import UserError


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Give a path aside of `path`, and rename it to `path` only when the block succeeds.

    The block creates a file or a folder there. A folder replaces an older one whole.
    Raises UserError where the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield aside / path.name
        if path.is_dir() and not path.is_symlink() and (aside / path.name).is_dir():
            os.replace(path, aside / ".replaced")
        os.replace(aside / path.name, path)
    except OSError as error:
        if error.filename and str(error.filename).startswith(str(aside)):
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole(path) as aside:
        aside.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, its keys in the order given; NaN is refused, for it is no JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: str | Path) -> Any:
    """Read JSON. Raises UserError where the file is missing or damaged."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the stage that writes it") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run again") from error


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays, uncompressed, in the order given; the same arrays give the same bytes.

    Not np.savez: an array there may not be called "file", which a layer may.
    """
    with whole(path) as aside, zipfile.ZipFile(aside, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read every array of an npz, in the order in which they were written."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the stage that writes it") from error
    except Exception as error:  # numpy and zipfile raise many kinds for one fault
        raise UserError(f"{path} is damaged ({error}); delete it and run again") from error


def sha256(*paths: str | Path) -> str:
    """Hash the contents of files, one after the other, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
