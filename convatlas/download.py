"""Downloads from mirrors: verified by their hash, and resumed where an earlier attempt was interrupted."""

import contextlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path

from convatlas import UserError, __version__
from convatlas.files import md5, sha256

log = logging.getLogger(__name__)

ATTEMPTS = 3  # rounds over all mirrors
TIMEOUT = 30  # seconds without a byte
MIN_RATE = 1000  # bytes a second on average over the first RATE_SECONDS and after
RATE_SECONDS = 60
MAX_BYTES = 20_000_000_000  # of one file
CHUNK = 1 << 18  # bytes read at once
MD5_LENGTH = 32  # digits
PROGRESS_BYTES = 8 << 20  # smallest number of bytes between two progress messages


def fetch(
    folder: Path, files: Mapping[str, str], mirrors: Sequence[str], key: str, alternative: str
) -> list[Path]:
    """Download files into `folder`/.partial/.

    What has been downloaded stays there when the rest fails or the process is killed, and the next call
    resumes it: with a Range request if the server supports it, otherwise from the file's start. The caller
    removes .partial/ when it no longer needs it.

    Args:
        folder: Where .partial/ is.
        files: The MD5, or the start of the SHA-256, of each file by its name; "" is not verified.
        mirrors: Addresses of folders, tried in this order.
        key: The place in the config, for error messages.
        alternative: What else the user can do, for error messages.

    Returns:
        The paths of the files, in the order of `files`.

    Raises:
        UserError: No mirror has a file with the expected hash, or the folder cannot be written.
    """
    partial = folder / ".partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {partial}: {error.strerror}") from error
    mirrors = list(dict.fromkeys(mirror.rstrip("/") + "/" for mirror in mirrors))
    try:
        for name, expected in files.items():
            faults = _fetch_file(partial / name, expected, [mirror + name for mirror in mirrors])
            if faults is not None:
                attempts = "".join(f"\n  {address}: {fault}" for address, fault in faults.items())
                raise UserError(
                    f"{key}: could not download {name}, tried {ATTEMPTS} times:{attempts}\n"
                    f"  Try again later (what has been downloaded is kept in {partial} and resumed), name "
                    f"another address under mirrors, or {alternative}."
                )
    finally:
        with contextlib.suppress(OSError):
            partial.rmdir()  # where nothing has been downloaded
    return [partial / name for name in files]


def _fetch_file(target: Path, expected: str, addresses: list[str]) -> dict[str, str] | None:
    """Download one file; return None where it is complete, otherwise the last fault of each address."""
    faults: dict[str, str] = {}
    if expected and target.exists() and _hash_file(target, expected) == expected:
        log.info("%s is already downloaded", target.name)
        return None
    for attempt in range(ATTEMPTS):
        for address in addresses:
            try:
                log.info("downloading %s", address)
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
    """Append to `target` what it lacks, or download all of it where the server cannot resume."""
    start = target.stat().st_size if target.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": f"convatlas/{__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                start = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise urllib.error.HTTPError(address, 416, "resumes at another byte", response.headers, None)
            total = None if response.length is None else start + response.length
            size = _copy(response, target, start, total)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            target.unlink()  # it is not the beginning of this file
        raise
    if total is not None and size < total:
        raise ConnectionError(f"broke off after {size:,} of {total:,} bytes")


def _copy(response: http.client.HTTPResponse, target: Path, start: int, total: int | None) -> int:
    """Write what follows the first `start` bytes of a file, and return its size after that."""
    size = logged_size = start
    began = time.monotonic()
    if start:
        log.info("  resumed at %.1f MB", start / 1e6)
    with _open(target, "ab" if start else "wb") as file:
        while chunk := response.read1(CHUNK):  # what has come, to see how fast it comes
            _write(file, chunk, target)
            size += len(chunk)
            _check_progress(target, size, size - start, time.monotonic() - began)
            if size - logged_size >= max(PROGRESS_BYTES, (total or 0) / 20):
                logged_size = size
                log.info("  %s: %s", target.name, _format_progress(size, total))
    return size


def _check_progress(target: Path, size: int, received: int, seconds: float) -> None:
    """Raise ConnectionError where a file is too large, or a server sends too slowly to ever end."""
    if size > MAX_BYTES:
        target.unlink()
        raise ConnectionError(f"more than {MAX_BYTES / 1e9:g} GB, which no file here has")
    if seconds > RATE_SECONDS and received < MIN_RATE * seconds:
        raise ConnectionError(f"too slow: {received:,} bytes in {seconds:.0f} s")


def _format_progress(size: int, total: int | None) -> str:
    """Format the number of bytes downloaded, as a share where the total is known."""
    return f"{size / total:.0%} of {total / 1e6:,.0f} MB" if total else f"{size / 1e6:,.0f} MB"


def _open(target: Path, mode: str) -> FileIO:
    """Open a file without a buffer, so that closing it writes nothing more."""
    try:
        return FileIO(target, mode)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error


def _write(file: FileIO, chunk: bytes, target: Path) -> None:
    """Write all of a chunk; a full disk is not a fault of the mirror."""
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error


def _verify(target: Path, expected: str) -> None:
    """Delete a file whose hash is not the expected one, and raise ValueError."""
    actual = _hash_file(target, expected)
    if actual != expected:
        target.unlink()
        kind = "MD5 is" if len(expected) == MD5_LENGTH else "SHA-256 begins with"
        raise ValueError(f"corrupted: its {kind} {actual}, not {expected}")


def _hash_file(path: Path, expected: str) -> str:
    """Return a file's MD5, or as many digits of its SHA-256 as are expected."""
    return md5(path) if len(expected) == MD5_LENGTH else sha256(path)[: len(expected)]
