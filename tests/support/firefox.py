"""Debian's Firefox, driven by WebDriver BiDi (W3C) without another browser's tools."""

import base64
import itertools
import json
import re
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import websocket
from PIL import Image

FIREFOX = Path("/usr/bin/firefox-esr")


class Firefox:
    """A headless Firefox with one page; `faults` has what its console and scripts complained of."""

    def __init__(self, profile: Path) -> None:
        profile.mkdir()
        command = [FIREFOX, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        assert self.process.stderr
        found = (re.search(r"BiDi listening on (ws://\S+)", line) for line in self.process.stderr)
        address = next(match[1] for match in found if match)
        self.socket = websocket.create_connection(f"{address}/session", timeout=120, suppress_origin=True)
        self.numbers = itertools.count(1)
        self.faults: list[str] = []
        self.call("session.new", capabilities={})
        self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]
        self.call("session.subscribe", events=["log.entryAdded"])

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Send a command and give its result; what is logged until then is kept."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("method") == "log.entryAdded":
                self.faults.append(f"{answer['params']['level']}: {answer['params']['text']}")
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        size = {"width": width, "height": height}
        self.call("browsingContext.setViewport", context=self.context, viewport=size)
        self.call("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Give what an expression gives, through JSON; a promise is awaited."""
        found = self.call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then(x => JSON.stringify(x ?? null))",
            target={"context": self.context},
            awaitPromise=True,
        )
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    def wait_for(self, condition: str) -> None:
        self.evaluate(
            "new Promise((done, fail) => { const end = Date.now() + 30000, look = () => "
            f"({condition}) ? done(true) : Date.now() > end ? fail(Error('never')) : setTimeout(look, 50); "
            "look() })"
        )

    def screen(self) -> np.ndarray:
        """What is seen, (H, W, 3)."""
        shot = self.call("browsingContext.captureScreenshot", context=self.context)["data"]
        return np.array(Image.open(BytesIO(base64.b64decode(shot))).convert("RGB")).astype(int)

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()
