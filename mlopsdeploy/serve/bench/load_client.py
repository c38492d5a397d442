"""The child of `serve.bench`: requests in, figures out. `python load_client.py < orders.json`.

Orders: `host`, `port`, `requests` (whole HTTP requests, a character for each byte, sent in turn),
`connections`, `seconds`, `warm_up` (seconds before that, not counted) and `rate`. Without a rate it
is a closed loop: each connection asks again as soon as it has its answer, which finds the most
requests a second. With one it is an open loop: requests fall due by a Poisson process of that rate,
whether or not earlier answers have come, and a latency counts from the moment its request was due;
a closed loop leaves out the very requests that would have waited ("coordinated omission").

One thread, no package but Python's own. `busy` says which share of a core it used: near 1 it is
the client that was measured.
"""

from __future__ import annotations

import gc
import json
import math
import random
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

SEED = 20
PATIENCE = 30.0  # seconds for an answer
LEAST = 10  # answers; a closed loop goes on for them, where each takes long
RECEIVE = 1 << 16


class Connection:
    """One request at a time on one socket that stays open."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def send(self, request: bytes, due: float) -> None:
        """Ask; `due` is when that should have been."""
        self.due, self._received = due, b""
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """The status when the whole answer is there; 0 if the server has gone."""
        data = self.socket.recv(RECEIVE)
        if not data:
            return 0
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended:
            return None
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return None
        return int(head[9:12])

    @property
    def answer(self) -> str:
        """The body of the last answer."""
        return self._received.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")


class Load:
    """What is measured, over all connections."""

    def __init__(self, orders: Mapping[str, Any]) -> None:
        self._requests = [request.encode("latin-1") for request in orders["requests"]]
        self._sent = 0
        self._seconds, self._warm = float(orders["seconds"]), float(orders.get("warm_up", 0))
        self._selector = selectors.DefaultSelector()
        address = (orders["host"], int(orders["port"]))
        self._idle: deque[Connection] = deque()
        for _ in range(int(orders["connections"])):
            connection = Connection(address)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._idle.append(connection)
        self._latencies: list[float] = []
        self._refused = 0
        self._refusal = ""
        self._unanswered = 0

    def closed(self) -> dict[str, Any]:
        """Each connection asks again when it has its answer."""
        clock = time.perf_counter
        counted = clock() + self._warm
        end = counted + self._seconds
        worked = 0.0
        open_ = len(self._idle)
        while self._idle:
            self._ask(self._idle.popleft(), clock())
        last = counted
        while open_:
            ready = self._selector.select(PATIENCE)
            if not ready:
                self._unanswered += open_
                break
            for key, _ in ready:
                status = key.data.receive()
                if status is None:
                    continue
                now = clock()
                if now > counted:
                    if not worked:
                        worked = time.process_time()
                    if now <= end or len(self._latencies) < LEAST:
                        self._note(status, key.data, now - key.data.due)
                        last = now
                more = now < end or (len(self._latencies) < LEAST and now < end + PATIENCE)
                if more and status:
                    self._ask(key.data, now)
                else:
                    self._selector.unregister(key.fileobj)
                    key.data.socket.close()
                    open_ -= 1
        return self._figures(max(last - counted, 1e-9), time.process_time() - (worked or 0.0))

    def open(self, rate: float) -> dict[str, Any]:
        """Requests fall due at random moments; those that find no idle connection wait."""
        draw, moment, moments = random.Random(SEED), 0.0, []  # noqa: S311  # no secret
        while (moment := moment + draw.expovariate(rate)) < self._seconds:
            moments.append(moment)
        moments = moments or [0.0]
        clock, worked = time.perf_counter, time.process_time()
        start, sent, done = clock(), 0, 0
        while done < len(moments) and clock() - start < self._seconds + PATIENCE:
            while self._idle and sent < len(moments) and moments[sent] <= clock() - start:
                self._ask(self._idle.popleft(), start + moments[sent])
                sent += 1
            wait = moments[sent] + start - clock() if self._idle and sent < len(moments) else 1.0
            for key, _ in self._selector.select(max(wait, 0)):
                status = key.data.receive()
                if status is None:
                    continue
                self._note(status, key.data, clock() - key.data.due)
                done += 1
                if status:
                    self._idle.append(key.data)
                else:
                    self._selector.unregister(key.fileobj)
        self._unanswered = len(moments) - done
        return self._figures(clock() - start, time.process_time() - worked)

    def _ask(self, connection: Connection, due: float) -> None:
        connection.send(self._requests[self._sent % len(self._requests)], due)
        self._sent += 1

    def _note(self, status: int, connection: Connection, seconds: float) -> None:
        self._latencies.append(seconds)
        if status != 200:
            self._refused += 1
            self._refusal = self._refusal or connection.answer[:500]

    def _figures(self, seconds: float, worked: float) -> dict[str, Any]:
        ordered = sorted(self._latencies)
        return {
            "requests": len(ordered),
            "asked": self._sent,
            "requests_per_second": len(ordered) / seconds,
            "p50_ms": 1000 * _nearest(ordered, 0.50),
            "p99_ms": 1000 * _nearest(ordered, 0.99),
            "max_ms": 1000 * _nearest(ordered, 1.0),
            "refused": self._refused,
            "refusal": self._refusal,
            "unanswered": self._unanswered,
            "busy": worked / seconds,
        }


def _nearest(ordered: list[float], share: float) -> float:
    """The percentile by nearest rank."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def main() -> None:
    """Read orders, do them, print figures."""
    orders = json.load(sys.stdin)
    gc.disable()
    load = Load(orders)
    rate = orders.get("rate")
    sys.stdout.write(json.dumps(load.open(rate) if rate else load.closed()))


if __name__ == "__main__":
    main()
