"""One connection of a caller: HTTP/1.1 from bytes to requests, and from answers to bytes.

The parsing is httptools' (Node's llhttp), on the event loop's own transport. What is decided here
is what servers of applications leave open, and what a server that is never to fall over needs:
how long heads and bodies may take and how large they may be, when a request arrived, whether its
caller is still there. A connection holds no thread, however slow it is.
"""

from __future__ import annotations

import asyncio
import math
import urllib.parse
from collections import deque
from enum import Enum
from functools import partial
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import httptools

from mlopsdeploy.serve.messages import (
    DISCARDED,
    Answer,
    Problem,
    Request,
    expect_length,
    too_long,
)
from mlopsdeploy.serve.writing import same_again, written

if TYPE_CHECKING:
    from mlopsdeploy.serve.endpoint import Endpoint
    from mlopsdeploy.serve.worker import Worker
    from mlopsdeploy.settings import ServeSettings

MAX_URL = 8 << 10
MAX_HEAD = 64 << 10
MAX_HEADERS = 100
RATE_FROM = 5.0  # seconds of a body after which it must come at the least rate
LINGER = 2.0  # seconds without a byte after which the connection of a refused body is closed
MOST_HEADS = 256  # that are remembered
_OF_ONE_REQUEST = {
    "connection", "expect", "traceparent", "transfer-encoding", "upgrade", "x-request-id",
}  # fmt: skip
READ_AHEAD = 16  # requests sent ahead, before no more are read
AHEAD_BYTES = 64 << 10  # of their bodies, likewise
SMALL = 16 << 10  # bytes of an answer that may wait for others
WRITE_SECONDS = 30.0  # in which a caller must read an answer at the least rate, too
_KEYS = {
    spelled.encode(): name
    for name in (
        *("host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"),
        *("connection", "x-request-id", "traceparent", "priority"),
    )
    for spelled in (name, name.title())
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Phase(Enum):
    """What is read of a connection next."""

    NEW = "its first bytes"
    IDLE = "another request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    REFUSED = "the rest of what was refused"


class Head(NamedTuple):
    """The head of requests to an endpoint, parsed and checked."""

    path: str
    headers: dict[str, str]
    length: int
    endpoint: Endpoint


class Connection(asyncio.Protocol):
    """A connection, from its first byte to its last.

    Args:
        worker: what answers.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.limits = worker.settings
        self.parser: Any = httptools.HttpRequestParser(self)
        self.transport: Any = None
        self.remote = ""
        self.phase = Phase.NEW
        self.since = perf_counter()  # in this phase, or without a request in work
        self.read = 0  # bytes of a head or body that is not all there, or of what was refused
        self.request: Request | None = None  # that is in work
        self.keep = True  # whether the connection lives on after it
        self.ahead: deque[tuple[Request, bool, Answer | None]] = deque()  # refused ones with theirs
        self.paused = False
        self.going_on = False
        self.unsent: list[bytes] = []  # answers that wait for others, see `Worker.write_later`
        self.stuck: float | None = None  # since when the caller reads too little
        self.unread = 0  # bytes of answers then
        self.ends = math.inf  # when what was refused is read no longer
        # Of the request that is read.
        self.method = self.path = ""
        self.version = "1.1"
        self.url = b""
        self.headers: dict[str, str] = {}
        self.size = 0  # of the headers
        self.body: bytes | bytearray = b""
        self.length = self.limit = 0
        self.arrived = 0.0

    # -- from the event loop

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol."""
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if isinstance(peer, tuple) else ""
        self.worker.opened(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        fresh = self.phase is Phase.IDLE or self.phase is Phase.NEW
        if fresh and self._seen_before(data):
            return
        self.read += len(data)
        if fresh:
            self._enter(Phase.HEAD)
        if self.phase is not Phase.REFUSED:
            self._feed(data)
            if fresh and self.phase is Phase.IDLE:
                self._remember(data)
        else:
            self.since = self.worker.now()
            if self.read > DISCARDED:
                self._close()
        if self.phase is Phase.HEAD and self.read > MAX_HEAD:
            self._refuse(_large_head())
        elif self.phase is Phase.BODY and self.read > 2 * self.limit + MAX_HEAD:
            self._refuse(too_long(self.limit))  # of sizes of chunks, or of headers behind them

    def _seen_before(self, data: bytes) -> bool:
        """Start a request whose head is one that was parsed before, byte for byte.

        Callers that keep connections send the same head over and over again, and to parse it
        costs more than all else that a connection does.
        """
        worker = self.worker
        end = data.find(b"\r\n\r\n") + 4
        known = worker.heads.get(data[:end])
        if known is None or len(data) != end + known.length:
            return False
        busy = self.request is not None or self.ahead or self.stuck is not None
        if busy or worker.held + known.length > worker.most_held:
            return False
        self.phase, self.version = Phase.IDLE, "1.1"
        arrived = worker.now()
        if self._refused_at_once(known, arrived):
            return True
        worker.held += known.length
        request = Request(
            "POST", known.path, known.headers, data[end:], worker.ids.of(None), arrived,
            self.remote,
        )  # fmt: skip
        self._start(request, keep=True)
        return True

    def _refused_at_once(self, known: Head, arrived: float) -> bool:
        """Refuse a request that could be answered too late only, and as cheaply as can be.

        What refusals cost decides how much more than it can take a server survives.
        """
        worker, endpoint = self.worker, known.endpoint
        if worker.draining or worker.app.log_requests:
            return False
        problem = endpoint.at_once(known.headers, known.length, arrived)
        if problem is None:
            return False
        self.since = arrived
        request_id = worker.ids.of(None)
        self.unsent.append(same_again(problem, request_id, worker.date, error=endpoint.error))
        worker.write_later(self)
        return True

    def _remember(self, data: bytes) -> None:
        """Note the head of the one request that came, if nothing of it is but for this time."""
        headers, worker = self.headers, self.worker
        length = headers.get("content-length", "")
        end = data.find(b"\r\n\r\n") + 4
        alone = length.isdigit() and len(data) == end + int(length)
        ordinary = self.version == "1.1" and self.method == "POST" and self.url in worker.routes
        if alone and ordinary and _OF_ONE_REQUEST.isdisjoint(headers):
            if len(worker.heads) >= MOST_HEADS:
                worker.heads.clear()
            endpoint = worker.app.endpoints[self.path]
            worker.heads[data[:end]] = Head(self.path, headers, int(length), endpoint)

    def _feed(self, data: bytes) -> None:
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Problem):
                raise
            self._refuse(cause)
        except httptools.HttpParserError:
            self._refuse(_not_http())

    def _parse(self, data: bytes | memoryview) -> None:
        while (end := self._parse_on(data)) is not None:
            # It asks for what we don't speak. The parser takes the body for the other protocol's,
            # so the request is parsed again as one that asks for none.
            data = memoryview(data)[end:]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(self._head())

    def _parse_on(self, data: bytes | memoryview) -> int | None:
        """Where a head ends that asks for another protocol; None if there is none."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            end: int = upgrade.args[0]
            return end
        return None

    def connection_lost(self, _error: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self.request is not None:
            self.request.gone = True
        if self.phase is Phase.BODY:
            cut = Problem(400, "cut-off", "the body ended before its Content-Length")
            self.worker.refuse(cut, self._request())
        self._release_body()
        self.worker.held -= sum(len(request.body) for request, _, _ in self.ahead)
        self.ahead.clear()
        self.worker.closed(self)

    def pause_writing(self) -> None:
        """See asyncio.Protocol: the caller doesn't read, so it gets no further answers."""
        self.stuck = perf_counter()
        self.unread = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.stuck = None
        self._go_on()

    # -- from the parser

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = {}
        self.body = b""
        self.size = self.length = 0
        self.method = self.path = ""
        self.arrived = self.worker.now()
        if self.phase is not Phase.HEAD:
            self.phase = Phase.HEAD
        self.since = self.arrived
        self.read = 0

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        self.url += url
        if len(self.url) > MAX_URL:
            raise Problem(414, "long-url", f"the URL may have at most {MAX_URL:,} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        if self.phase is Phase.BODY:
            return  # behind it: nobody has asked for any, and they must not pass for the head's
        headers = self.headers
        key = _KEYS.get(name) or name.decode("latin-1").lower()
        if key in headers:
            self._again(key, value)
            return
        headers[key] = value.decode("latin-1")
        self.size += len(name) + len(value)
        if self.size > MAX_HEAD or len(headers) > MAX_HEADERS:
            raise _large_head()

    def _again(self, key: str, value: bytes) -> None:
        """A header that has been before."""
        if key == "host":
            raise Problem(400, "two-hosts", "there are two headers Host")
        joined = f"{self.headers[key]}, {value.decode('latin-1')}"
        self.headers[key] = joined
        self.size += len(joined)  # joining over and over again is work
        if self.size > MAX_HEAD:
            raise _large_head()

    def on_headers_complete(self) -> None:
        """The head is there: what can be refused now is."""
        worker, parser, headers = self.worker, self.parser, self.headers
        self.method = parser.get_method().decode("ascii")
        self.version = parser.get_http_version()
        if self.version not in ("1.1", "1.0"):
            raise _not_http()
        if self.method == "CONNECT":
            raise Problem(405, "method-not-allowed", "this is no proxy")
        if parser.should_upgrade():
            return  # it comes again, see _parse
        known = worker.routes.get(self.url)
        self.path, self.limit = (_path(self.url), worker.app.max_body) if known is None else known
        host = headers.get("host") if self.url.startswith(b"/") else self._host()
        if host not in worker.good_hosts:
            worker.check_host(host, self.version)
        if known is None and (endpoint := worker.app.endpoints.get(self.path)) is not None:
            self.limit = endpoint.max_body  # with a query, or written in another way
        if expect_length(headers, self.limit) != 0:
            self.phase = Phase.BODY
            self.read = 0
            asks = "expect" in headers and headers["expect"].lower() == "100-continue"
            if asks and self.version != "1.0":  # which knows no such answer
                self.flush()
                self.transport.write(_CONTINUE)

    def _host(self) -> str | None:
        """Whom an absolute URL names, which counts for more than the header."""
        if self.url == b"*":
            return self.headers.get("host")
        return urllib.parse.urlsplit(self.url.decode("latin-1")).netloc

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self.length:
            self.body = body
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += body
        self.length += len(body)
        self.worker.held += len(body)
        if self.length > self.limit:
            raise too_long(self.limit)
        if self.worker.held > self.worker.most_held:
            detail = "the server holds as many bodies as it has memory for"
            raise Problem(503, "busy", detail, headers=(("Retry-After", "1"),))

    def on_message_complete(self) -> None:
        """A request is there."""
        if self.parser.should_upgrade():
            return  # it comes again, see _parse
        keep = self.parser.should_keep_alive()
        self.arrived = self.worker.now()  # how long its caller took to send it is the caller's
        request = self._request(bytes(self.body))
        self.body = b""
        self.length = 0  # held until it is answered
        self.read = 0
        self.phase = Phase.IDLE
        if self.request is None and not self.ahead and self.stuck is None:
            self._start(request, keep=keep)
            return
        self.ahead.append((request, keep, None))
        if not self.paused and not self._has_room():
            self.paused = True
            self.transport.pause_reading()

    def _has_room(self) -> bool:
        """Whether more may be read ahead."""
        few = len(self.ahead) < READ_AHEAD
        return few and sum(len(request.body) for request, _, _ in self.ahead) < AHEAD_BYTES

    def _head(self) -> bytes:
        """This head, of a request that asks for no other protocol."""
        asked = self.headers.get("connection", "").lower().split(",")
        options = [one.strip() for one in asked if one.strip() != "upgrade"]
        kept = {**self.headers, "connection": ", ".join(options)}
        kept.pop("upgrade", None)
        lines = [f"{self.method} ".encode() + self.url + f" HTTP/{self.version}".encode()]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in kept.items()]
        return b"\r\n".join([*lines, b"", b""])

    def _request(self, body: bytes = b"") -> Request:
        headers = self.headers
        request_id = self.worker.ids.of(headers.get("x-request-id"))
        query = self.url.partition(b"?")[2].decode("latin-1") if b"?" in self.url else ""
        return Request(
            self.method, self.path, headers, body, request_id, self.arrived, self.remote, query
        )

    # -- answers

    def _start(self, request: Request, *, keep: bool) -> None:
        self.request = request
        self.keep = keep
        self.worker.handle(request, partial(self._done, request))

    def _done(self, request: Request, answer: Answer) -> None:
        """Takes the answer to a request, in whichever thread it was made."""
        if get_ident() == self.worker.thread:
            self._finish(request, answer)
        else:
            self.worker.loop.call_soon_threadsafe(self._finish, request, answer)

    def _finish(self, request: Request, answer: Answer) -> None:
        worker = self.worker
        worker.held -= len(request.body)
        if worker.app.log_requests:
            worker.app.log(request, answer.status)
        if request.gone:
            return
        self.request = None
        self.since = worker.now()
        keep = self.keep and not worker.draining
        self._write(answer, request.id, keep=keep, head=request.method == "HEAD")
        if not keep:
            self._close()
        elif self.ahead:
            self._go_on()

    def _go_on(self) -> None:
        """Go on with what was sent ahead, as long as it is answered at once."""
        if self.going_on:
            return
        self.going_on = True
        while self.ahead and self.request is None and self.stuck is None:
            if self.transport.is_closing():
                break
            self._next()
        self.going_on = False

    def _next(self) -> None:
        request, keep, refusal = self.ahead.popleft()
        if self.paused and self._has_room():
            self.paused = False
            self.transport.resume_reading()
        if refusal is None:
            self._start(request, keep=keep)
        else:
            self._end(request, refusal)

    def _refuse(self, problem: Problem) -> None:
        """Say what is wrong, once what came before is answered; nothing behind it is read."""
        self._release_body()
        request = self._request()
        answer = self.worker.refuse(problem, request)
        self._enter(Phase.REFUSED)
        self.read = 0
        self.ahead.append((request, False, answer))
        if self.request is None:
            self._go_on()

    def _end(self, request: Request, answer: Answer) -> None:
        """The last answer. Many callers read none before all of theirs is sent, so it lingers."""
        self._write(answer, request.id, keep=False, head=request.method == "HEAD")
        self.since = self.worker.now()
        self.ends = self.since + self.limits.body_timeout
        self.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _write(self, answer: Answer, request_id: str, *, keep: bool, head: bool) -> None:
        old = self.version == "1.0"
        text = written(answer, request_id, self.worker.date, keep=keep, old=old)
        self.unsent.append(text if head else text + answer.body)
        if len(answer.body) > SMALL:
            self.flush()
        else:
            self.worker.write_later(self)

    def flush(self) -> None:
        """Write what waits to be written."""
        if self.unsent and not self.transport.is_closing():
            self.transport.write(b"".join(self.unsent))
        self.unsent.clear()

    # -- time

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = self.worker.now()

    def _close(self) -> None:
        """Once the caller has read all; it must do so."""
        self.flush()
        self.transport.close()
        if self.stuck is None:
            self.pause_writing()

    def _release_body(self) -> None:
        self.worker.held -= self.length
        self.length = 0
        self.body = b""

    def overdue(self, now: float) -> None:
        """Close it, or refuse what takes too long."""
        limits, waited = self.limits, now - self.since
        silent = {Phase.NEW: limits.header_timeout, Phase.IDLE: limits.keep_alive,
                  Phase.REFUSED: LINGER}  # fmt: skip
        if self.stuck is not None:
            self._watch(now, self.stuck)
        elif self.request is not None:
            return
        elif waited > silent.get(self.phase, math.inf) or now > self.ends:
            self._close()
        elif self.phase is Phase.HEAD and waited > limits.header_timeout:
            self._refuse(Problem(408, "slow-head", "the head of the request took too long"))
        elif self.phase is Phase.BODY and self._is_slow(waited, limits):
            self._refuse(Problem(408, "slow-body", "the body of the request took too long"))

    def _watch(self, now: float, since: float) -> None:
        """Cut off who reads less than the least rate."""
        if now - since < WRITE_SECONDS:
            return
        left = self.transport.get_write_buffer_size()
        if left >= self.unread - max(self.limits.body_rate * WRITE_SECONDS, 1):
            self.transport.abort()
        self.stuck, self.unread = now, left

    def _is_slow(self, waited: float, limits: ServeSettings) -> bool:
        too_slow = waited > RATE_FROM and self.length < limits.body_rate * waited
        return waited > limits.body_timeout or too_slow

    def drain(self) -> None:
        """The server ends: what has begun to come is answered, and nothing else."""
        if self.request is None and not self.ahead and self.phase in (Phase.NEW, Phase.IDLE):
            self._close()


def _path(url: bytes) -> str:
    """Decoded, as Latin-1 stands for bytes in WSGI; of an absolute URL without its host."""
    raw = url.partition(b"?")[0]
    if not raw.startswith(b"/"):
        try:
            raw = httptools.parse_url(raw).path or b"/"
        except httptools.HttpParserInvalidURLError as error:
            raise _not_http() from error
    if b"%" in raw:
        raw = urllib.parse.unquote_to_bytes(raw)
    return raw.decode("latin-1")


def _large_head() -> Problem:
    detail = f"the head may have at most {MAX_HEADERS} headers and {MAX_HEAD:,} bytes"
    return Problem(431, "large-head", detail)


def _not_http() -> Problem:
    return Problem(400, "not-http", "this is not HTTP/1.1, or its head is malformed")
