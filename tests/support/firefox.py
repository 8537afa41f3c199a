"""Firefox, driven by WebDriver BiDi (W3C), which needs no tools of another browser."""

import base64
import itertools
import json
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websocket
from PIL import Image

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
needs_firefox = pytest.mark.skipif(FIREFOX is None, reason="Firefox tests: install firefox-esr or firefox")


class Firefox:
    """A headless Firefox with one page; `faults` lists the messages of its console and scripts."""

    def __init__(self, profile: Path) -> None:
        profile.mkdir()
        assert FIREFOX is not None
        command = [FIREFOX, "--headless", "--no-remote", "--profile", str(profile)]
        self.process = subprocess.Popen(
            [*command, "--remote-debugging-port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert self.process.stderr
        matches = (re.search(r"BiDi listening on (ws://\S+)", line) for line in self.process.stderr)
        address = next(match[1] for match in matches if match)
        self.socket = websocket.create_connection(f"{address}/session", timeout=120, suppress_origin=True)
        self.numbers = itertools.count(1)
        self.faults: list[str] = []
        self.call("session.new", capabilities={})
        self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]
        self.call("session.subscribe", events=["log.entryAdded"])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; log entries that arrive before are added to `faults`."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") == "log.entryAdded":
                self.faults.append(f"{message['params']['level']}: {message['params']['text']}")
            if message.get("id") == number:
                assert message["type"] == "success", message
                return message["result"]

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        """Load a page in a window of this size."""
        size = {"width": width, "height": height}
        self.call("browsingContext.setViewport", context=self.context, viewport=size)
        self.call("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, through JSON; a promise is awaited."""
        response = self.call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then(x => JSON.stringify(x ?? null))",
            target={"context": self.context},
            awaitPromise=True,
        )
        assert response["type"] == "success", response
        return json.loads(response["result"]["value"])

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true, for at most 30 seconds."""
        self.evaluate(
            "new Promise((resolve, reject) => { const end = Date.now() + 30000, check = () => "
            f"({condition}) ? resolve(true) : Date.now() > end ? reject(Error('timeout')) "
            ": setTimeout(check, 50); check() })"
        )

    def screen(self) -> np.ndarray:
        """Return a screenshot, (H, W, 3)."""
        shot = self.call("browsingContext.captureScreenshot", context=self.context)["data"]
        return np.array(Image.open(BytesIO(base64.b64decode(shot))).convert("RGB")).astype(int)

    def close(self) -> None:
        """End the session and the process."""
        self.socket.close()
        self.process.terminate()
        self.process.wait()
