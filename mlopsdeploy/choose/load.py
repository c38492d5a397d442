"""Load for a server, from this machine: how much it can do, and how soon it answers.

*Closed loop* for capacity: so many connections, each with always one request on its way. *Open
loop* for latency: requests are due at random moments (Poisson) whatever the server does, and a
latency counts from when its request was due, so that a stall is seen in all who wait meanwhile.
The client takes its share of this machine's cores, so what it finds is rather too little.
"""

from __future__ import annotations

import contextlib
import math
import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from urllib.parse import urlsplit

from mlopsdeploy.errors import MlopsDeployError

JSON = "application/json"
PATIENCE = 30.0  # seconds without any answer
RECEIVE = 1 << 16
OPEN = 64  # connections at most; requests that find none free wait, which counts


@dataclass
class Answered:
    """`latencies` in seconds, ascending, of `seconds` of load."""

    seconds: float
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Nearest rank."""
        return self.latencies[max(0, math.ceil(share * len(self.latencies)) - 1)]


def closed_loop(
    url: str, bodies: Sequence[bytes], kind: str = JSON, *, connections: int, seconds: float
) -> Answered:
    """As many requests as the server takes.

    Raises:
        MlopsDeployError: an answer is not a 200, or none comes.
    """
    return _Client(url, bodies, kind, [], seconds).run(connections)


def open_loop(
    url: str, bodies: Sequence[bytes], kind: str = JSON, *, rate: float, seconds: float
) -> Answered:
    """Requests at random moments, `rate` a second on average.

    Raises:
        MlopsDeployError: an answer is not a 200, or none comes.
    """
    random, moment, due = Random(20), 0.0, []  # noqa: S311  # nothing to hide
    while (moment := moment + random.expovariate(rate)) < seconds:
        due.append(moment)
    return _Client(url, bodies, kind, due or [0.0], seconds).run(OPEN)


class _Connection:
    """One connection, opened when first needed, with at most one request on its way."""

    def __init__(self, address: tuple[str, int], selector: selectors.BaseSelector) -> None:
        self._address = address
        self._selector = selector
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._request = b""
        self._reused = False
        self.busy = False
        self.due = 0.0

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at some moment."""
        self._request, self.due, self.busy = request, due, True
        self._received.clear()
        self._reused = self._socket is not None
        if self._socket is None:
            self._socket = socket.create_connection(self._address, PATIENCE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(self._socket, selectors.EVENT_READ, self)
        with contextlib.suppress(ConnectionError):  # closed meanwhile: reading will tell
            self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """Status and body of an answer, when all of it has come."""
        assert self._socket is not None
        try:
            data = self._socket.recv(RECEIVE)
        except ConnectionError:
            data = b""
        if not data:  # servers close connections that were idle for long
            self.close()
            if self.busy:
                if self._received or not self._reused:
                    raise ConnectionResetError("closed while an answer was due")
                self.send(self._request, self.due)
            return None
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if not found or at < 0 or len(body) < int(head[at + 15 :].split(b"\r\n", 1)[0]):
            return None
        self.busy = False
        return bytes(head[9:12] + body)

    def close(self) -> None:
        """Until the next request."""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


class _Client:
    """Sends at the moments that are `due`; where there are none, always, for `seconds`."""

    def __init__(
        self, url: str, bodies: Sequence[bytes], kind: str, due: Sequence[float], seconds: float
    ) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        head += f"Content-Type: {kind}\r\nContent-Length: "
        self._requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._due = due
        self._seconds = seconds
        self._sent = 0
        self._latencies: list[float] = []
        self._start = self._last = 0.0

    def run(self, connections: int) -> Answered:
        """The whole load."""
        with selectors.DefaultSelector() as selector:
            members = [_Connection(self._address, selector) for _ in range(connections)]
            self._idle = deque(members)
            self._start = self._last = time.perf_counter()
            try:
                while self._next_due() < math.inf or len(self._latencies) < self._sent:
                    self._send()
                    self._wait(selector)
                    for key, _ in selector.select(0):
                        self._take(key.data)
            except OSError as error:
                raise MlopsDeployError(f"the server measured broke off: {error}") from error
            finally:
                for connection in members:
                    connection.close()
        return Answered(self._last - self._start, sorted(self._latencies))

    def _now(self) -> float:
        return time.perf_counter() - self._start

    def _next_due(self) -> float:
        if not self._due:
            return now if (now := self._now()) < self._seconds else math.inf
        return self._due[self._sent] if self._sent < len(self._due) else math.inf

    def _send(self) -> None:
        while self._idle and (moment := self._next_due()) <= self._now():
            self._idle.popleft().send(self._requests[self._sent % len(self._requests)], moment)
            self._sent += 1

    def _wait(self, selector: selectors.BaseSelector) -> None:
        """For an answer, or for the next request to be due."""
        wait = min(max(self._next_due() - self._now(), 0), 1.0) if self._idle else 1.0
        if selector.get_map():  # to the microsecond; a selector's own wait is in whole ms
            select.select((selector.fileno(),), (), (), wait)  # type: ignore[attr-defined]
        else:
            time.sleep(wait)
        if self._sent > len(self._latencies) and time.perf_counter() - self._last > PATIENCE:
            raise MlopsDeployError(f"the server measured gave no answer in {PATIENCE:.0f} s")

    def _take(self, connection: _Connection) -> None:
        answer = connection.receive()
        if answer is None:
            return
        if not answer.startswith(b"200"):
            status, said = answer[:3].decode(), answer[3:300].decode(errors="replace")
            raise MlopsDeployError(f"the server measured answered {status}: {said}")
        self._last = time.perf_counter()
        self._latencies.append(self._last - self._start - connection.due)
        self._idle.append(connection)
