"""A page in headless Chromium by its DevTools protocol: widths, media, console, pictures."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tornado.websocket

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
WAIT_S = 60.0


@dataclass
class Tab:
    """One tab; what its page complains of is in `complaints`."""

    loop: asyncio.AbstractEventLoop
    socket: tornado.websocket.WebSocketClientConnection
    complaints: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _events: list[str] = field(default_factory=list)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer of the browser to a command."""
        return self.loop.run_until_complete(
            asyncio.wait_for(self._asked(next(self._numbers), method, params), WAIT_S)
        )

    async def _asked(self, number: int, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        await self.socket.write_message(
            json.dumps({"id": number, "method": method, "params": params})
        )
        while True:
            message = await self._message()
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    async def _message(self) -> dict[str, Any]:
        text = await self.socket.read_message()
        assert text is not None, "the browser went away"
        message: dict[str, Any] = json.loads(text)
        method, params = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["args"]))
        if method == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        return message

    def show(self, url: str, width: int, scheme: str = "light", media: str = "screen") -> None:
        """Load a page, and wait until its scripts have run."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900,
                 deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self._events.clear()
        self.ask("Page.navigate", url=url)
        deadline = time.monotonic() + WAIT_S
        while "Page.loadEventFired" not in self._events and time.monotonic() < deadline:
            self.value("0")
        assert "Page.loadEventFired" in self._events, f"{url} was not loaded"

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True,
                         awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """Write the whole page as PNG."""
        high = int(self.value("document.documentElement.scrollHeight"))
        wide = int(self.value("document.documentElement.clientWidth"))
        clip = {"x": 0, "y": 0, "width": wide, "height": high, "scale": 1}
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def tab(profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
               f"--user-data-dir={profile}", "--remote-debugging-port=0",
               "about:blank"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        port = _port(profile / "DevToolsActivePort", process)
        found = loop.run_until_complete(_connected(loop, port))
        for domain in ("Page", "Runtime", "Log"):
            found.ask(f"{domain}.enable")
        yield found
    finally:
        process.kill()
        process.wait()
        loop.close()  # nothing is sent first: tornado looks for a running loop, and none runs here


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if file.is_file() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        assert process.poll() is None, "the browser did not start"
        time.sleep(0.05)
    raise AssertionError("the browser opened no port")


async def _connected(loop: asyncio.AbstractEventLoop, port: int) -> Tab:
    from tornado.httpclient import AsyncHTTPClient

    answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json/list")
    url = next(
        one["webSocketDebuggerUrl"] for one in json.loads(answer.body) if one["type"] == "page"
    )
    socket = await tornado.websocket.websocket_connect(url, max_message_size=1 << 28)
    return Tab(loop, socket)
