"""Downloads from a faulty server: the files are complete and correct, and partial files are kept."""

import hashlib
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convatlas import UserError, download
from tests.support.file_server import FileServer, serve_files
from tests.support.mnist_source import KEY

CONTENT = bytes(range(256)) * 4000  # a megabyte
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Yield a server without files; downloads do not wait between rounds."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with serve_files() as server:
        yield server


def download_file(server: FileServer, folder: Path, *mirrors: str) -> bytes:
    """Fetch big.bin from folders of the server."""
    addresses = [f"{server.address}/{mirror}" for mirror in mirrors or ["good"]]
    paths = download.fetch(folder, {"big.bin": MD5}, addresses, KEY, "give a directory")
    assert paths == [folder / ".partial/big.bin"]
    return paths[0].read_bytes()


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_resumed(server: FileServer, tmp_path: Path, ranges: bool) -> None:
    """Each response ends after 300,000 bytes: three do not suffice, and the next call resumes."""
    server.files["/good/big.bin"], server.ranges = CONTENT, ranges
    server.cut["/good/big.bin"] = 300_000
    with pytest.raises(UserError) as error:
        download_file(server, tmp_path)
    assert "broke off" in str(error.value)
    assert f"kept in {tmp_path}/.partial" in str(error.value)
    partial = (tmp_path / ".partial/big.bin").read_bytes()
    assert partial == CONTENT[: 900_000 if ranges else 300_000]
    server.cut.clear()
    assert download_file(server, tmp_path) == CONTENT
    assert server.starts == [0, *([300_000, 600_000, 900_000] if ranges else [300_000] * 3)]
    assert download_file(server, tmp_path) == CONTENT
    assert len(server.requested_paths) == 4, "a complete file is not requested again"


def test_a_killed_download_is_resumed(server: FileServer, tmp_path: Path) -> None:
    server.files["/good/big.bin"], server.ranges = CONTENT, True
    server.cut["/good/big.bin"] = 600_000
    server.may_finish.clear()
    program = (
        "import sys; from pathlib import Path; from convatlas import download; "
        "download.fetch(Path(sys.argv[1]), {'big.bin': sys.argv[2]}, [sys.argv[3]], '', '')"
    )
    arguments = [str(tmp_path), MD5, f"{server.address}/good"]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments])
    partial = tmp_path / ".partial/big.bin"
    end = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size >= 500_000) and time.monotonic() < end:
        threading.Event().wait(0.01)
    process.kill()
    process.wait()
    size = partial.stat().st_size
    assert 500_000 <= size <= 600_000
    server.may_finish.set()
    server.cut.clear()
    assert download_file(server, tmp_path) == CONTENT
    assert server.starts == [0, size]


@pytest.mark.parametrize(
    "beginning",
    [CONTENT[:1000][::-1], CONTENT[::-1], CONTENT + b"more", b""],
    ids=["short", "same length", "long", "empty"],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_beginning_is_deleted(
    server: FileServer, tmp_path: Path, beginning: bytes, ranges: bool
) -> None:
    server.files["/good/big.bin"], server.ranges = CONTENT, ranges
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial/big.bin").write_bytes(beginning)
    assert download_file(server, tmp_path) == CONTENT
    assert len(server.requested_paths) <= 2


def test_a_second_mirror_resumes_what_the_first_began(server: FileServer, tmp_path: Path) -> None:
    server.files = {"/first/big.bin": CONTENT, "/second/big.bin": CONTENT}
    server.ranges, server.cut["/first/big.bin"] = True, 400_000
    assert download_file(server, tmp_path, "first", "second/") == CONTENT
    assert server.starts == [0, 400_000]


def test_progress_is_logged(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(download, "PROGRESS_BYTES", 0)
    monkeypatch.setattr(download, "CHUNK", 10_000)
    server.files["/good/big.bin"] = CONTENT
    with caplog.at_level(logging.INFO, "convatlas"):
        download_file(server, tmp_path)
    shares = [int(share) for share in re.findall(r"big\.bin: (\d+)% of 1 MB", caplog.text)]
    assert shares == sorted(shares)
    assert 15 <= len(shares) <= 20


def test_a_folder_that_cannot_be_written_is_reported(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not a fault of the mirror."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file"):
        download_file(server, tmp_path / "file")
    server.files["/good/big.bin"] = CONTENT
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(download, "_open", lambda target, mode: full)
        with pytest.raises(UserError, match=r"cannot write .*No space left"):
            download_file(server, tmp_path)
    assert len(server.requested_paths) == 1


def test_a_server_that_drips_is_given_up(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/slow/big.bin"], server.pause = CONTENT, 0.01
    monkeypatch.setattr(download, "RATE_SECONDS", 0.1)
    with pytest.raises(UserError, match=r"too slow: \d+ bytes in 0 s"):
        download_file(server, tmp_path, "slow")


def test_a_file_without_end_is_given_up(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/good/big.bin"] = CONTENT
    monkeypatch.setattr(download, "MAX_BYTES", 500_000)
    with pytest.raises(UserError, match=r"more than 0\.0005 GB, which no file here has"):
        download_file(server, tmp_path)
    assert not (tmp_path / ".partial/big.bin").exists()
