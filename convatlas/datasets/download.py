"""Files fetched from mirrors: verified by their hash, and continued where an earlier attempt broke off."""

import contextlib
import hashlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from io import RawIOBase
from pathlib import Path

from convatlas import UserError, __version__
from convatlas.files import sha256

log = logging.getLogger(__name__)

ATTEMPTS = 3  # rounds over all mirrors
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 18  # bytes read at once
MD5_LENGTH = 32
PROGRESS_BYTES = 8 << 20  # bytes, at least, between two lines of progress


def fetch(folder: Path, files: dict[str, str], mirrors: list[str], key: str, instead: str) -> list[Path]:
    """Fetch files, given as name -> MD5 or the start of a SHA-256, into `folder`/.partial/; give their paths.

    What has arrived stays there when the rest fails or the process is killed, and the next call
    continues it: with a Range request if the server answers that, else from the file's start.
    The caller removes .partial/ when it is done with it. Raises UserError, which names `key`, the
    place in the config, and what to do `instead`.
    """
    partial = folder / ".partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {partial}: {error.strerror}") from error
    mirrors = list(dict.fromkeys(mirror.rstrip("/") + "/" for mirror in mirrors))
    try:
        for name, expected in files.items():
            faults = _fetch(partial / name, expected, [mirror + name for mirror in mirrors])
            if faults is not None:
                tried = "".join(f"\n  {address}: {fault}" for address, fault in faults.items())
                raise UserError(
                    f"{key}: could not download {name}, tried {ATTEMPTS} times:{tried}\n"
                    f"  Try again later (what has arrived is kept in {partial} and continued), name another "
                    f"address under mirrors, or {instead}."
                )
    finally:
        with contextlib.suppress(OSError):
            partial.rmdir()  # where nothing has arrived
    return [partial / name for name in files]


def _fetch(target: Path, expected: str, addresses: list[str]) -> dict[str, str] | None:
    """Fetch one file; None where it is there whole, else the last fault of each address."""
    faults: dict[str, str] = {}
    if expected and target.exists() and _hash_file(target, expected) == expected:
        log.info("%s has arrived already", target.name)
        return None
    for attempt in range(ATTEMPTS):
        for address in addresses:
            try:
                log.info("fetching %s", address)
                _receive(address, target)
                _verify(target, expected)
                return None
            except (OSError, ValueError, http.client.HTTPException) as error:
                faults[address] = str(error)
                log.info("  failed: %s", error)
        if attempt < ATTEMPTS - 1:
            time.sleep(2**attempt)
    return faults


def _receive(address: str, target: Path) -> None:
    """Add to `target` what it lacks, or fetch all of it where the server cannot continue."""
    there = target.stat().st_size if target.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": f"convatlas/{__version__}"})
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if answer.status != 206:
                there = 0
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
                raise urllib.error.HTTPError(address, 416, "continues elsewhere", answer.headers, None)
            total = None if answer.length is None else there + answer.length
            came = _copy(answer, target, there, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # Range Not Satisfiable: what is there is not the beginning of this file
            target.unlink()
        raise
    if total is not None and came < total:
        raise ConnectionError(f"broke off after {came:,} of {total:,} bytes")


def _copy(answer: http.client.HTTPResponse, target: Path, there: int, total: int | None) -> int:
    """Write what comes after the first `there` bytes of a file; give its size then."""
    came = told = there
    if there:
        log.info("  continued after %.1f MB", there / 1e6)
    with _open(target, "ab" if there else "wb") as file:
        while chunk := answer.read(CHUNK):
            _write(file, chunk, target)
            came += len(chunk)
            if came - told >= max(PROGRESS_BYTES, (total or 0) / 20):
                told = came
                share = f"{came / total:.0%} of {total / 1e6:,.0f} MB" if total else f"{came / 1e6:,.0f} MB"
                log.info("  %s: %s", target.name, share)
    return came


def _open(target: Path, mode: str) -> RawIOBase:
    try:
        return target.open(mode, buffering=0)  # closing writes nothing more
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error


def _write(file: RawIOBase, chunk: bytes, target: Path) -> None:
    """Write all of a chunk; a full disk is no fault of the mirror's."""
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error


def _verify(target: Path, expected: str) -> None:
    """Delete a file whose hash is not the one expected, and raise ValueError."""
    found = _hash_file(target, expected)
    if found != expected:
        target.unlink()
        kind = "MD5 is" if len(expected) == MD5_LENGTH else "SHA-256 begins with"
        raise ValueError(f"corrupted: its {kind} {found}, not {expected}")


def _hash_file(path: Path, expected: str) -> str:
    """A file's MD5, or as much of its SHA-256 as is expected."""
    return _md5(path) if len(expected) == MD5_LENGTH else sha256(path)[: len(expected)]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
