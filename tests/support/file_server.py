"""A web server that serves files, in part or interrupted, as a download asks for them."""

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files` by path, from any byte if `ranges`; breaks off after `cut[path]` bytes of a response."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = False
        self.cut: dict[str, int] = {}
        self.pause = 0.0  # seconds before each byte of a response, if not 0
        self.may_finish = threading.Event()  # what the end of a response waits for
        self.may_finish.set()
        self.requested_paths: list[str] = []
        self.starts: list[int] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Responds to GET from the server's files."""

    server: FileServer

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(requested[1]) if requested else 0
        self.server.requested_paths.append(self.path)
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
        sent = content[start:][: self.server.cut.get(self.path)]
        if self.server.pause:
            self._send_slowly(sent)
        else:
            self.wfile.write(sent)
        return self.server.may_finish.wait(60)

    def _send_slowly(self, content: bytes) -> None:
        """Send byte by byte, until the client closes the connection."""
        with suppress(ConnectionError):
            for byte in content:
                self.wfile.write(bytes([byte]))
                threading.Event().wait(self.server.pause)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def serve_files() -> Iterator[FileServer]:
    """Run a server without files."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.may_finish.set()
        server.shutdown()
        thread.join()
