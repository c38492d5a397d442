"""The two loads on an HTTP server: `saturate` tells its most requests a second, `open_loop` its
latencies at a given rate. Both send the given bodies in turn over 16 connections.

`saturate` is wrk. A closed loop like wrk waits for a slow server before it asks again, and so
leaves out the very requests that would have waited ("coordinated omission"). So latencies come from
an open loop of our own, which can be run by hand as well:

    python benchmarks/load.py --url http://127.0.0.1:8080/detect_fraud --bodies bodies.json \
        --rate 1000 --seconds 10

Requests leave on a schedule, whether or not earlier answers have come. Arrivals are drawn
beforehand, a Poisson process as of many independent callers, the same for every server at the same
rate. Each latency counts from the moment the request was due, so time spent waiting for a free
connection is in it.

Connections are kept alive, and made anew where the server closes them. One thread does all:
answers are read as they come, requests sent as they fall due. `late_p99_ms` says how late this
program itself was with requests that it could have sent, and `busy` which share of its core's time
it used: near 1 it is the load that waits and not the server.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import process

SEED = 20
CONNECTIONS = 16
PATIENCE = 60.0
RECEIVE_BYTES = 65536

Json = dict[str, Any]

# Requests are formatted once, so that wrk spends its time on the load.
WRK_SCRIPT = """\
local requests, turn = {}, 0

function init()
  wrk.headers["Content-Type"] = "application/json"
  for i, body in ipairs({
%s
  }) do
    requests[i] = wrk.format("POST", nil, nil, body)
  end
end

function request()
  turn = turn %% #requests + 1
  return requests[turn]
end

function done(summary)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %%d, "seconds": %%f, "not_ok": %%d, "broken": %%d, "timeouts": %%d}\\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write, errors.timeout))
end
"""


def pinned(cores: Sequence[int], command: Sequence[str | Path]) -> list[str]:
    """The command with its whole process tree kept to those cores."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *map(str, command)]


def saturate(url: str, bodies: Sequence[str], seconds: float, core: int, folder: Path) -> Json:
    """As many requests as 16 connections get answered, each waiting for its answer."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "load.lua"
    lines = ",\n".join(f"    [==[{body}]==]" for body in bodies)
    script.write_text(WRK_SCRIPT % lines, encoding="utf-8")
    options = ("--threads", "1", "--connections", str(CONNECTIONS), "--script", script)
    times = ("--duration", f"{seconds:.0f}s", "--timeout", f"{PATIENCE:.0f}s")
    return _figures(("wrk", *options, *times, url), seconds, core, folder)


def open_loop(
    url: str, bodies: Sequence[str], rate: float, seconds: float, core: int, folder: Path
) -> Json:
    """The fields of `Latencies`, measured by a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "bodies.json"
    file.write_text(json.dumps(bodies), encoding="utf-8")
    options = ("--rate", str(rate), "--seconds", str(seconds))
    command = (sys.executable, Path(__file__), "--url", url, "--bodies", file, *options)
    return _figures(command, seconds, core, folder)


def _figures(command: Sequence[str | Path], seconds: float, core: int, folder: Path) -> Json:
    """Run a load and read the JSON line that it closes with."""
    done = process.check(pinned((core,), command), folder, seconds + 2 * PATIENCE)
    found: Json = json.loads(done.stdout.splitlines()[-1])
    if not found["requests"] or found["not_ok"]:
        raise process.CommandError(f"{found['not_ok']} of {found['requests']} answers were not 200")
    return found


@dataclass
class Latencies:
    """Latencies in milliseconds, nearest rank. Requests without an answer count as the time they
    have waited, so they can only make the percentiles too small."""

    rate: float
    requests: int
    unanswered: int
    not_ok: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float
    busy: float


def schedule(rate: float, seconds: float) -> list[float]:
    """When requests are due, in seconds from the start: Poisson arrivals at `rate` a second."""
    random, moment, times = Random(SEED), 0.0, []
    while (moment := moment + random.expovariate(rate)) < seconds:
        times.append(moment)
    return times or [0.0]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank, of values in ascending order."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def message(url: str, body: str) -> bytes:
    parts = urlsplit(url)
    content = body.encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class Connection:
    """One connection, opened when first needed, with at most one request on its way. While it is
    open, `watched` has it by its number, and `poll` tells when there is something to read."""

    def __init__(
        self, address: tuple[str, int], poll: select.epoll, watched: dict[int, Connection]
    ) -> None:
        self._address, self._poll, self._watched = address, poll, watched
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._request = b""
        self._reused = False
        self.due = 0.0
        self.busy = False

    def _open(self) -> socket.socket:
        opened = socket.create_connection(self._address, PATIENCE)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(opened, select.EPOLLIN)
        self._watched[opened.fileno()] = self
        return opened

    def _close(self, opened: socket.socket) -> None:
        del self._watched[opened.fileno()]
        opened.close()
        self._socket = None

    def send(self, request: bytes, due: float) -> None:
        self._request, self.due, self.busy = request, due, True
        self._received.clear()
        self._reused = self._socket is not None
        if self._socket is None:
            self._socket = self._open()
        try:
            self._socket.sendall(request)
        except ConnectionError:
            return  # the server has closed it meanwhile: reading will tell

    def receive(self) -> bool | None:
        """Read what has come: None while the answer is incomplete, else whether it was a 200."""
        opened = self._socket
        assert opened is not None
        try:
            data = opened.recv(RECEIVE_BYTES)
        except ConnectionError:
            data = b""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        fields = bytes(head).lower()
        if not data:
            self._close(opened)
            if self.busy and self._reused and not self._received:  # closed as the request left
                self.send(self._request, self.due)
                return None
        elif not found or not complete(fields, body):
            return None
        elif fields.startswith(b"http/1.0") or b"\r\nconnection: close" in fields:
            self._close(opened)
        return fields.startswith((b"http/1.1 200", b"http/1.0 200"))


def complete(head: bytes, body: bytes | bytearray) -> bool:
    """Whether an answer with this head, in lower case, has its whole body."""
    if (at := head.find(b"\r\ncontent-length:")) >= 0:
        return len(body) >= int(head[at + 17 :].split(b"\r\n", 1)[0])
    if b"\r\ntransfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return False  # it ends with the connection


def run(url: str, bodies: Sequence[str], rate: float, seconds: float) -> Latencies:
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    requests = [message(url, body) for body in bodies]
    due = schedule(rate, seconds)
    poll, watched = select.epoll(), dict[int, Connection]()
    connections = [Connection(address, poll, watched) for _ in range(CONNECTIONS)]
    idle = deque(connections)
    latencies: list[float] = []
    late: list[float] = []
    not_ok = sent = 0
    clock = time.perf_counter
    worked = time.process_time()
    start = freed = clock()  # freed: since when there is an idle connection
    while len(latencies) < len(due) and clock() - start < seconds + PATIENCE:
        while idle and sent < len(due) and due[sent] <= (now := clock() - start):
            late.append(now - max(due[sent], freed - start))
            idle.popleft().send(requests[sent % len(requests)], due[sent])
            sent += 1
        wait = due[sent] - (clock() - start) if idle and sent < len(due) else PATIENCE
        if wait > 0:
            select.select((poll,), (), (), wait)  # to the microsecond; a poll sleeps whole ms
        for number, _ in poll.poll(0):
            connection = watched[number]
            ok = connection.receive()
            if connection.busy and ok is not None:
                latencies.append(clock() - start - connection.due)
                not_ok += not ok
                connection.busy = False
                if not idle:
                    freed = clock()
                idle.append(connection)
    end = clock() - start
    unanswered = len(due) - len(latencies)
    latencies += [end - connection.due for connection in connections if connection.busy]
    latencies += [end - moment for moment in due[sent:]]
    latencies.sort()
    late.sort()
    return Latencies(
        rate=len(due) / seconds,
        requests=len(due),
        unanswered=unanswered,
        not_ok=not_ok,
        p50_ms=1000 * percentile(latencies, 0.50),
        p99_ms=1000 * percentile(latencies, 0.99),
        max_ms=1000 * latencies[-1],
        late_p99_ms=1000 * percentile(late, 0.99),
        busy=(time.process_time() - worked) / end,
    )


if __name__ == "__main__":
    command = argparse.ArgumentParser(description="Open-loop HTTP load; one JSON line.")
    command.add_argument("--url", required=True)
    command.add_argument("--bodies", type=Path, required=True, help="JSON list of request bodies")
    command.add_argument("--rate", type=float, required=True, help="requests a second")
    command.add_argument("--seconds", type=float, required=True)
    given = command.parse_args()
    # A sleep may end 50 µs late by default, about as long as a fast server takes to answer.
    if (slack := Path("/proc/self/timerslack_ns")).exists():
        slack.write_text("1", encoding="ascii")
    gc.disable()
    texts: list[str] = json.loads(given.bodies.read_text(encoding="utf-8"))
    result = run(given.url, texts, given.rate, given.seconds)
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
