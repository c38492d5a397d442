"""Load for an HTTP server: how much it can do, and how soon it answers.

*Closed loop* for capacity: so many connections, each with always one request on its way. *Open
loop* for latency: requests are due at random moments (a Poisson process, as of many independent
callers, the same for every server at one rate) whatever the server does, and a latency counts from
when its request was due. A closed loop leaves out the very requests that would have waited
("coordinated omission").

The client is a process of its own with one thread: answers are read as they come, requests sent as
they fall due. Connections stay open, and are made anew where the server closes them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import select
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from mlopsdeploy.errors import MlopsDeployError

SEED = 20
PATIENCE = 30.0  # seconds after the end, for answers that are due
LEAST = 10  # answers; a closed loop goes on for them, where each takes long
RECEIVE = 1 << 16


@dataclass(frozen=True)
class Load:
    """What a load found; percentiles are by nearest rank.

    Attributes:
        requests: answered.
        sent: requests, those that are not counted included.
        requests_per_second: answered.
        p50_ms, p99_ms, max_ms: latencies; a request without an answer counts as long as it waited.
        late_p99_ms: how late this client itself was with requests that it could have sent.
        unanswered: requests.
        busy: the share of a core that the client used; near 1 it is the client that was measured.
    """

    requests: int
    sent: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float
    unanswered: int
    busy: float


def load(
    url: str,
    bodies: Sequence[bytes],
    kind: str = "application/json",
    *,
    connections: int,
    seconds: float,
    warm_up: float = 0.0,
    rate: float | None = None,
    cores: Sequence[int] = (),
) -> Load:
    """Send POST requests with the given bodies in turn.

    Args:
        url: of the server.
        bodies: of the requests.
        kind: their Content-Type.
        connections: at most; requests that find none free wait, which counts.
        seconds: of load.
        warm_up: seconds before that, not counted; of a closed loop.
        rate: requests a second, of an open loop.
        cores: that the client keeps to.

    Raises:
        MlopsDeployError: an answer is not a 200, or none comes.
    """
    orders = {
        "url": url,
        "bodies": [body.decode("latin-1") for body in bodies],
        "kind": kind,
        "connections": connections,
        "seconds": seconds,
        "warm_up": 0.0 if rate else warm_up,
        "rate": rate,
        "cores": list(cores),
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise MlopsDeployError(f"the server under load {last}")
    return Load(**json.loads(done.stdout))


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
        with contextlib.suppress(ConnectionError):  # closed meanwhile, as reading will find
            self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """Status and body, when all of an answer has come."""
        assert self._socket is not None
        try:
            data = self._socket.recv(RECEIVE)
        except ConnectionError:
            data = b""
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        fields = bytes(head).lower()
        if not data:
            self.close()
            if not self.busy:
                return None
            if self._reused and not self._received:  # closed as the request left
                self.send(self._request, self.due)
                return None
            if b"content-length:" in fields:
                raise ConnectionResetError("the connection was closed within an answer")
        elif not ended or not _complete(fields, body):
            return None
        elif fields.startswith(b"http/1.0") or b"\r\nconnection: close" in fields:
            self.close()
        if not fields:
            raise ConnectionResetError("the connection was closed without an answer")
        self.busy = False
        return fields[9:12] + bytes(body)

    def close(self) -> None:
        """Until the next request."""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


def _complete(fields: bytes, body: bytes | bytearray) -> bool:
    """Whether an answer with this head, in lower case, has its whole body."""
    if (at := fields.find(b"\r\ncontent-length:")) >= 0:
        return len(body) >= int(fields[at + 17 :].split(b"\r\n", 1)[0])
    if b"\r\ntransfer-encoding: chunked" in fields:
        return body.endswith(b"0\r\n\r\n")
    return False  # it ends with the connection


class _Client:
    """The load, over all connections; moments are seconds from its start."""

    def __init__(self, orders: Mapping[str, Any], selector: selectors.BaseSelector) -> None:
        url = urlsplit(orders["url"])
        head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        head += f"Content-Type: {orders['kind']}\r\nContent-Length: "
        bodies = [body.encode("latin-1") for body in orders["bodies"]]
        self._requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._selector = selector
        address = (url.hostname or "", url.port or 80)
        self._all = [_Connection(address, selector) for _ in range(orders["connections"])]
        self._idle = deque(self._all)
        self._counted = float(orders["warm_up"])
        self._end = self._counted + orders["seconds"]
        rate = orders["rate"]
        self._moments = list(arrivals(rate, self._end)) or [0.0] if rate else []
        self._sent = 0
        self._latencies: list[float] = []
        self._late: list[float] = []
        self._freed = 0.0  # since when there is an idle connection
        self._last = 0.0  # answer
        self._start = time.perf_counter()

    def run(self) -> Load:
        """The whole load."""
        worked, self._start = time.process_time(), time.perf_counter()
        while self._next_due() < math.inf or len(self._idle) < len(self._all):
            self._send()
            for connection in self._ready():
                if (answer := connection.receive()) is not None:
                    self._note(answer, connection)
            if self._now() > self._end + PATIENCE:
                break
        if not self._latencies:
            raise TimeoutError(f"gave no answer in {PATIENCE:.0f} s")
        now, answered = self._now(), len(self._latencies)
        waiting = [c.due for c in self._all if c.busy] + self._moments[self._sent :]
        ordered = sorted([*self._latencies, *(now - due for due in waiting)])
        return Load(
            requests=answered,
            sent=self._sent,
            requests_per_second=answered / max(self._last - self._counted, 1e-9),
            p50_ms=1000 * nearest(ordered, 0.50),
            p99_ms=1000 * nearest(ordered, 0.99),
            max_ms=1000 * ordered[-1],
            late_p99_ms=1000 * nearest(sorted(self._late), 0.99) if self._late else 0.0,
            unanswered=len(waiting),
            busy=(time.process_time() - worked) / now,
        )

    def _now(self) -> float:
        return time.perf_counter() - self._start

    def _next_due(self) -> float:
        if self._moments:
            return self._moments[self._sent] if self._sent < len(self._moments) else math.inf
        now = self._now()
        return now if now < self._end or self._few() else math.inf

    def _send(self) -> None:
        while self._idle and (due := self._next_due()) <= (now := self._now()):
            if self._moments:
                self._late.append(now - max(due, self._freed))
            self._idle.popleft().send(self._requests[self._sent % len(self._requests)], due)
            self._sent += 1

    def _ready(self) -> Iterator[_Connection]:
        """Connections with something to read, until the next request is due."""
        wait = 1.0
        if self._idle and (due := self._next_due()) < math.inf:
            wait = min(max(due - self._now(), 0.0), 1.0)
            if not self._selector.get_map():
                time.sleep(wait)
                return
            # To the microsecond; a selector's own wait is in whole milliseconds.
            select.select((self._selector.fileno(),), (), (), wait)  # type: ignore[attr-defined]
            wait = 0.0
        for key, _ in self._selector.select(wait):
            yield key.data

    def _note(self, answer: bytes, connection: _Connection) -> None:
        if not answer.startswith(b"200"):
            text = answer[3:].decode("utf-8", "replace")[:300]
            raise ConnectionError(f"answered {answer[:3].decode()}: {' '.join(text.split())}")
        now = self._now()
        if now > self._counted and (now <= self._end or self._moments or self._few()):
            self._latencies.append(now - connection.due)
            self._last = now
        if not self._idle:
            self._freed = now
        self._idle.append(connection)

    def _few(self) -> bool:
        return len(self._latencies) < LEAST


def arrivals(rate: float, seconds: float) -> Iterator[float]:
    """When requests are due, a Poisson process of `rate` a second."""
    random, moment = Random(SEED), 0.0  # noqa: S311  # no secret
    while (moment := moment + random.expovariate(rate)) < seconds:
        yield moment


def nearest(ordered: Sequence[float], share: float) -> float:
    """A percentile by nearest rank, of values in ascending order."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def main() -> None:
    """The client's process: orders from standard input, figures as JSON."""
    orders = json.load(sys.stdin)
    if orders["cores"]:
        os.sched_setaffinity(0, orders["cores"])
    # A sleep may end 50 µs late by default, about as long as a fast server takes to answer.
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1", "ascii")
    gc.disable()
    try:
        with selectors.DefaultSelector() as selector:
            found = _Client(orders, selector).run()
    except OSError as error:
        sys.exit(f"broke off: {error}" if error.errno else str(error))
    sys.stdout.write(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
