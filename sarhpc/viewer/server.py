"""The server of the pages of one run: loopback only, behind its token, for reading only."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import tornado.httpserver
import tornado.netutil
import tornado.web

from hpc.errors import HpcError
from sarhpc.viewer.access import LOOPBACK, Address, is_loopback_name, is_token
from sarhpc.viewer.run_pages import RunPages

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SHELL_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the page that this module makes: its own script and style, nothing written inside the page."""
DOCUMENT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""Of the pages that lie in the run, or show its captions: no script, no request, no navigation."""
HTML, PLAIN, PNG = "text/html; charset=utf-8", "text/plain; charset=utf-8", "image/png"


def listen(port: int = 0) -> list[socket.socket]:
    """Sockets on the loopback interface; port 0 is any free one.

    Raises:
        OSError: the port is taken.
    """
    return tornado.netutil.bind_sockets(port, LOOPBACK, family=socket.AF_INET)


async def serve(
    pages: RunPages, address: Address, sockets: list[socket.socket], ended: asyncio.Event
) -> None:
    """Serve the pages until `ended`."""
    server = tornado.httpserver.HTTPServer(
        application(pages, address), max_header_size=1 << 14, max_body_size=1 << 10
    )
    server.add_sockets(sockets)
    await ended.wait()
    server.stop()


def serve_until_interrupted(
    pages: RunPages, address: Address, sockets: list[socket.socket]
) -> None:
    """Serve the pages until Ctrl-C, SIGTERM or the end of the terminal."""

    async def run() -> None:
        """Serve until a signal arrives."""
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, ended.set)
        await serve(pages, address, sockets, ended)

    # Its messages hold the address, and with it the token.
    logging.getLogger("tornado").setLevel(logging.CRITICAL)
    asyncio.run(run())


def application(pages: RunPages, address: Address) -> tornado.web.Application:
    """The handlers of all addresses; anything else is refused."""
    parts: dict[str, _Content] = {
        "": (HTML, SHELL_POLICY, lambda _: pages.shell()),
        "status": (HTML, SHELL_POLICY, lambda _: pages.status()),
        "grids": (HTML, SHELL_POLICY, lambda _: pages.grid_rows()),
        "report": (HTML, DOCUMENT_POLICY, lambda _: pages.report()),
        "inspection": (HTML, DOCUMENT_POLICY, lambda _: pages.inspection()),
        "page.css": ("text/css; charset=utf-8", SHELL_POLICY, lambda _: pages.style()),
        "page.js": ("text/javascript; charset=utf-8", SHELL_POLICY, lambda _: pages.script()),
        "grids/": (PNG, DOCUMENT_POLICY, pages.picture),
    }
    return tornado.web.Application(
        [(r"/([^/]*)/(grids/)(.*)", _Pages), (r"/([^/]*)/([^/]*)", _Pages)],
        default_handler_class=_Pages,
        log_function=lambda handler: None,
        parts=parts,
        token=address.token,
    )


_Content = tuple[str, str, Callable[[str], str | bytes]]
"""Media type, content security policy, and what makes the content from the rest of the path."""


class _Pages(tornado.web.RequestHandler):
    """Answers GET and HEAD of holders of the token."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def set_default_headers(self) -> None:
        """Send the security headers with every answer, errors included."""
        for name, value in _HEADERS.items():
            self.set_header(name, value)
        self.set_header("Content-Security-Policy", DOCUMENT_POLICY)
        self.clear_header("Server")

    def prepare(self) -> None:
        """Refuse who names another host, or no token."""
        if not is_loopback_name(self.request.host or ""):
            raise tornado.web.HTTPError(403)
        given = self.path_args[0] if self.path_args else ""
        if not is_token(given or "", self.settings["token"]):
            raise tornado.web.HTTPError(404)

    async def get(self, token: str = "", part: str = "", rest: str = "") -> None:
        """Send a part of the run."""
        content = self.settings["parts"].get(part)
        if content is None:
            raise tornado.web.HTTPError(404)
        media_type, policy, make = content
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(None, make, rest)
        except (OSError, HpcError) as error:
            # What is not there yet; only messages of this project are shown.
            self._refuse(404, str(error) if isinstance(error, HpcError) else "not there yet")
            return
        self.set_header("Content-Type", media_type)
        self.set_header("Content-Security-Policy", policy)
        self.write(made if isinstance(made, bytes) else made.encode(errors="replace"))

    head = get

    def write_error(self, status_code: int, **_: Any) -> None:
        """A line of text that repeats nothing of the request."""
        self._refuse(status_code, "use the address that `sarhpc view RUN` printed")

    def _refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", PLAIN)
        self.finish(f"{status}: {message}\n".encode(errors="replace"))
