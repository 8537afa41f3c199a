"""Downloads from a server that misbehaves: what arrives is whole and right, and what has arrived is kept."""

import hashlib
import http.server
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convatlas import UserError
from convatlas.datasets import download
from tests.datasets.test_formats import KEY

CONTENT = bytes(range(256)) * 4000  # a megabyte
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path, from the middle if `ranges`, and breaks off after `cut` bytes of an answer."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = False
        self.cut: dict[str, int] = {}
        self.wait = threading.Event()  # before it breaks off
        self.wait.set()
        self.asked: list[str] = []
        self.starts: list[int] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a GET from the server's files."""

    server: Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.server.asked.append(self.path)
        self.server.starts.append(start)
        if content is None:
            return self.send_error(404)
        if not self.server.ranges:
            start = 0
        elif start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut.get(self.path)])
        return self.server.wait.wait(60)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server that has nothing yet."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.wait.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves nothing yet; downloads wait for nothing."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with serving() as server:
        yield server


def fetched(server: Server, folder: Path, *places: str) -> bytes:
    """Fetch big.bin from folders of the server."""
    mirrors = [f"{server.address}/{place}" for place in places or ["good"]]
    paths = download.fetch(folder, {"big.bin": MD5}, mirrors, KEY, "give a directory")
    assert paths == [folder / ".partial/big.bin"]
    return paths[0].read_bytes()


# Any file


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_is_continued(server: Server, tmp_path: Path, ranges: bool) -> None:
    """Each answer ends after 300,000 bytes: three of them do not suffice; the next call continues."""
    server.files["/good/big.bin"], server.ranges = CONTENT, ranges
    server.cut["/good/big.bin"] = 300_000
    with pytest.raises(UserError) as error:
        fetched(server, tmp_path)
    assert "broke off" in str(error.value)
    assert f"kept in {tmp_path}/.partial" in str(error.value)
    kept = (tmp_path / ".partial/big.bin").read_bytes()
    assert kept == CONTENT[: 900_000 if ranges else 300_000]
    server.cut.clear()
    assert fetched(server, tmp_path) == CONTENT
    assert server.starts == [0, *([300_000, 600_000, 900_000] if ranges else [300_000] * 3)]
    assert fetched(server, tmp_path) == CONTENT
    assert len(server.asked) == 4, "what is whole is not asked for again"


def test_a_download_that_was_killed_is_continued(server: Server, tmp_path: Path) -> None:
    server.files["/good/big.bin"], server.ranges = CONTENT, True
    server.cut["/good/big.bin"] = 600_000
    server.wait.clear()
    program = (
        "import sys; from pathlib import Path; from convatlas.datasets import download; "
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
    there = partial.stat().st_size
    assert 500_000 <= there <= 600_000
    server.wait.set()
    server.cut.clear()
    assert fetched(server, tmp_path) == CONTENT
    assert server.starts == [0, there]


@pytest.mark.parametrize(
    "there",
    [CONTENT[:1000][::-1], CONTENT[::-1], CONTENT + b"more", b""],
    ids=["other", "whole", "long", "empty"],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_beginning_is_thrown_away(server: Server, tmp_path: Path, there: bytes, ranges: bool) -> None:
    server.files["/good/big.bin"], server.ranges = CONTENT, ranges
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial/big.bin").write_bytes(there)
    assert fetched(server, tmp_path) == CONTENT
    assert len(server.asked) <= 2


def test_a_second_mirror_continues_what_the_first_began(server: Server, tmp_path: Path) -> None:
    server.files = {"/first/big.bin": CONTENT, "/second/big.bin": CONTENT}
    server.ranges, server.cut["/first/big.bin"] = True, 400_000
    assert fetched(server, tmp_path, "first", "second/") == CONTENT
    assert server.starts == [0, 400_000]


def test_progress_is_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(download, "PROGRESS_BYTES", 0)
    monkeypatch.setattr(download, "CHUNK", 10_000)
    server.files["/good/big.bin"] = CONTENT
    with caplog.at_level(logging.INFO, "convatlas"):
        fetched(server, tmp_path)
    shares = [int(share) for share in re.findall(r"big\.bin: (\d+)% of 1 MB", caplog.text)]
    assert shares == sorted(shares)
    assert 15 <= len(shares) <= 20


def test_a_place_that_cannot_be_written_is_reported(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not taken for a fault of the mirror."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file"):
        fetched(server, tmp_path / "file")
    server.files["/good/big.bin"] = CONTENT
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(download, "_open", lambda target, mode: full)
        with pytest.raises(UserError, match=r"cannot write .*No space left"):
            fetched(server, tmp_path)
    assert len(server.asked) == 1
