"""`--preview`: a page with the live picture, what is on it, and what takes how long.

The page is for this machine: it listens on loopback by default, and answers only to
requests that name the machine itself, so that no page on the web can look through the camera by
pointing a name of its own at this address (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib import resources
from socketserver import ThreadingTCPServer
from typing import Any, Self
from urllib.parse import urlsplit

import cv2

from mlopsdeploy.core.machine import is_loopback
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.frames import Image
from mlopsdeploy.edge.outputs import About, Sink
from mlopsdeploy.edge.results import Result, encode_jpeg
from mlopsdeploy.errors import ConfigError

WIDTH = 960  # pixels of the picture on the page, at most
SECONDS = 1 / 15  # between two pictures, at least
SNAPSHOT = 5.0  # seconds that a snapshot waits for a picture
STILL = 15.0  # seconds without a picture after which a stream ends; the page asks again
PATIENCE = 10.0  # seconds that a browser may take for a picture
FILES = {
    "/": ("preview.html", "text/html; charset=utf-8"),
    "/preview.css": ("preview.css", "text/css; charset=utf-8"),
    "/preview.js": ("preview.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Preview(Sink):
    """A web server that shows the newest result to whoever watches; idle while nobody does.

    Args:
        address: `8081` or `:8081` for this machine only, or `HOST:PORT`.
        state: what the page shows next to the picture, ready for JSON.
        names: that it answers to beside this machine's own.

    Attributes:
        url: where the page is.
        exposed: other machines can reach it.

    Raises:
        ConfigError: the address makes no sense or is taken.
    """

    name = "preview"
    always_newest = True

    def __init__(
        self, address: str, state: Callable[[], dict[str, Any]], *, names: Sequence[str] = ()
    ) -> None:
        self.names = frozenset(name.lower() for name in names)
        host, port = parse_address(address)
        self.state = state
        self.watchers = 0
        self.happened = ""
        self.detections: list[dict[str, Any]] = []
        self.found: list[tuple[str, str]] = []
        self._jpeg, self._number = b"", 0
        self._changed = threading.Condition()
        self._closed = False
        self._last = 0.0
        try:
            self._server = _Server((host, port), self)
        except OSError as error:
            raise ConfigError(f"--preview {address}: {error.strerror or error}") from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/"
        self.exposed = not is_loopback(host)
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="preview-server", daemon=True
        ).start()

    @classmethod
    def opened(cls, value: str, about: About) -> Self:
        """See `Sink`."""
        made = cls(value, about.state, names=about.settings.preview_host)
        about.log(f"preview: {made.url}")
        if made.exposed:
            about.log(
                "preview: whoever reaches this machine can see the picture; it has no password"
            )
        return made

    def pick(self, result: Result) -> Result | None:
        """The frame, if somebody watches and the last one is long enough ago."""
        height, width = result.frame.image.shape[:2]
        shown = result.detections[:50]
        self.detections = [found.as_dict(width, height) for found in shown if not found.values]
        self.found = [pair for found in shown for pair in found.pairs]
        self.happened = ""
        now = time.monotonic()
        if not self.watchers or now - self._last < SECONDS:
            return None
        self._last = now
        return result

    def pick_event(self, event: Event) -> None:
        """Shown on the page until the next frame."""
        if event.of_source and event.kind != "ended":  # the page finds out by itself
            self.happened = event.text

    def write(self, item: Result) -> None:
        """Encode it once for all who watch."""
        jpeg = encode_jpeg(_small(item.drawn()), 80)
        with self._changed:
            self._jpeg, self._number = jpeg, self._number + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let all who watch go, and stop listening."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def jpegs(self, patience: float | None = None) -> Generator[bytes]:
        """The newest picture, again and again until the end, for one who watches.

        One who has gone shows only when something is written; where no picture comes for so many
        seconds as `patience`, or at all, nothing is waited for any longer.
        """
        with self._changed:
            self.watchers += 1
            seen = self._number
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._number > seen, patience)  # noqa: B023
                    if self._closed or self._number == seen:
                        return
                    jpeg, seen = self._jpeg, self._number
                yield jpeg
        finally:
            with self._changed:
                self.watchers -= 1


class _Server(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], preview: Preview) -> None:
        self.preview = preview
        self.bound = address[0]
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE

    def do_GET(self) -> None:
        """A page, its parts, the state as JSON, or the stream of pictures."""
        path = urlsplit(self.path).path
        if not self._names_us():
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this host name is not served\n")
        elif path in FILES:
            file, kind = FILES[path]
            pages = resources.files("mlopsdeploy.edge") / "pages"
            self._send(HTTPStatus.OK, kind, (pages / file).read_bytes())
        elif path == "/state":
            preview = self.server.preview
            shown = {
                "detections": preview.detections,
                "found": preview.found,
                "happened": preview.happened,
            }
            state = json.dumps({**preview.state(), **shown})
            self._send(HTTPStatus.OK, "application/json", state.encode())
        elif path == "/stream":
            self._stream()
        elif path == "/snapshot.jpg":
            self._snapshot()
        elif path == "/favicon.ico":
            self._send(HTTPStatus.NO_CONTENT, "image/x-icon", b"")
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"no such page\n")

    def log_message(self, *_: Any) -> None:
        """Requests are not news."""

    def version_string(self) -> str:
        """Says no more than it must."""
        return "mlopsdeploy"

    def _names_us(self) -> bool:
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            name = socket.gethostname().lower()
            own = {"localhost", self.server.bound, name, f"{name}.local"}
            return host in own | self.server.preview.names
        return True  # a number can't be pointed elsewhere

    def _send(self, status: HTTPStatus, kind: str, body: bytes | None) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or b"")

    def _snapshot(self) -> None:
        """The next picture, for a home automation or a script."""
        with closing(self.server.preview.jpegs(SNAPSHOT)) as jpegs:
            jpeg = next(jpegs, None)
        if jpeg is None:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"there is no picture now\n")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", jpeg)

    def _stream(self) -> None:
        """JPEG after JPEG, as browsers show them in an `img` (multipart/x-mixed-replace)."""
        self._send(HTTPStatus.OK, "multipart/x-mixed-replace; boundary=frame", None)
        with (
            suppress(OSError),
            closing(self.server.preview.jpegs(STILL)) as jpegs,
        ):  # gone, or too slow
            for jpeg in jpegs:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")


def parse_address(address: str) -> tuple[str, int]:
    """`8081`, `:8081`, `0.0.0.0:8081`, `[::1]:8081` -> host and port; loopback by default.

    Raises:
        ConfigError: it is none of these.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--preview {address!r}: expected a port, such as 8081, or host:port")
    return host, int(port)


def _small(image: Image) -> Image:
    height, width = image.shape[:2]
    if width <= WIDTH:
        return image
    size = WIDTH, max(round(height * WIDTH / width), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
