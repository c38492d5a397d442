"""One process of the server: an event loop that reads and answers, beside threads that compute.

The loop itself does nothing that takes long. It computes what takes less time than waking a
thread; texts and pictures are read in one of `readers`, calls of models are made by each model's
queue, and Flask's pages come from `pages`. Connections are taken by the `acceptor`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from mlopsdeploy.core.console import counted
from mlopsdeploy.core.machine import is_loopback
from mlopsdeploy.serve.connection import Connection, Head
from mlopsdeploy.serve.messages import JSON, Answer, Problem, Request, RequestIds, problem_answer
from mlopsdeploy.serve.queue import refused
from mlopsdeploy.settings import BODIES_HELD, ServeSettings

if TYPE_CHECKING:
    from mlopsdeploy.serve.app import App
    from mlopsdeploy.serve.endpoint import Endpoint

TOGETHER = 16  # answers that are written one after the other
TOGETHER_SECONDS = 500e-6  # that the first of them may wait
RESTED = 100e-6  # seconds between the end of work and the next: then the loop waited for it
TICK = 0.05  # seconds between two looks at what is overdue
LARGE = 16 << 10  # bytes of a body that another thread reads
LAST = 1.0  # seconds in which a request may still come on a connection that is to be closed
READERS = 2
PAGES = 4
MOST_HOSTS = 100  # that are remembered as good ones
log = logging.getLogger("mlopsdeploy.serve")


class Worker:
    """What the connections of a process share.

    Args:
        app: whose endpoints and pages are served.
        settings: the limits.
    """

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self.app = app
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.settings = settings
        self.connections: set[Connection] = set()
        self._given: deque[socket.socket] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self.held = 0  # bytes of bodies that are not answered
        largest = max([app.max_body, *(one.max_body for one in app.endpoints.values())])
        self.most_held = BODIES_HELD * largest
        self.draining = False
        self.ids = RequestIds()
        self.thread = threading.get_ident()
        self.routes = {
            path.encode("latin-1"): (path, endpoint.max_body)
            for path, endpoint in app.endpoints.items()
        }
        self.good_hosts: set[str] = set()  # that were checked
        self.heads: dict[bytes, Head] = {}  # that were parsed
        self.date = ""
        self._unsent: list[Connection] = []  # whose answers wait to be written
        self._unsent_since = 0.0
        self._moment = 0.0
        self._looked = self._worked = perf_counter()
        self._hosts = _hosts(settings)
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._pages = ThreadPoolExecutor(PAGES, "page")
        self._done = asyncio.Event()
        self._fixed = {
            path: Answer(200, JSON, msgspec.json.encode(document))
            for path, document in app.health.items()
        }

    # -- what connections ask

    def now(self) -> float:
        """When what has come can have been here first, by `time.perf_counter`.

        What is found when the loop looks has come since it looked before, unless it rested until
        something came. So under load the time that a request waits to be read is in its latency.
        """
        if not self._moment:
            looked = perf_counter()
            rested = looked - self._worked > RESTED
            self._moment = looked if rested else self._looked
            self._looked = looked
            self.loop.call_soon(self._look)
        return self._moment

    def _look(self) -> None:
        """The loop is about to look for what has come."""
        self._moment = 0.0
        self._worked = perf_counter()

    def write_later(self, connection: Connection) -> None:
        """Write a connection's answers with those of others, when all that came is answered.

        To write wakes the caller, which costs as much as to compute a quick model's answer. Once
        it is awake, the next answers cost it no more than to be read.
        """
        now = perf_counter()
        if not self._unsent:
            self._unsent_since = now
            self.loop.call_soon(self.write)
        self._unsent.append(connection)
        if len(self._unsent) >= TOGETHER or now - self._unsent_since > TOGETHER_SECONDS:
            self.write()

    def write(self) -> None:
        """Write all that waits to be written."""
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            connection.flush()

    def opened(self, connection: Connection) -> None:
        """A caller is there."""
        self.connections.add(connection)
        self.now()  # to make one is work, too

    def closed(self, connection: Connection) -> None:
        """A caller is gone."""
        self.connections.discard(connection)
        self._end_if_done()

    def check_host(self, host: str | None, version: str) -> None:
        """On loopback, only callers who asked for this machine are answered.

        Else a page of another site could ask, once its name is made to mean 127.0.0.1.

        Raises:
            Problem: 421, or 400 where the header is missing.
        """
        if host is None:
            if version == "1.0":
                return
            raise Problem(400, "no-host", "the header Host is missing")
        if self._hosts is not None:
            self._check_name(host)
        if len(self.good_hosts) < MOST_HOSTS:
            self.good_hosts.add(host)

    def _check_name(self, host: str) -> None:
        """Names without a dot, and addresses, are nobody's to make mean this machine."""
        assert self._hosts is not None
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.lower().rstrip(".")
        ours = name in self._hosts or name.endswith(".localhost") or "." not in name
        if not ours and not _is_address(name):
            detail = (
                "this server listens on this machine alone, and was asked for by another name; "
                "its setting allowed_hosts takes names"
            )
            raise Problem(421, "other-host", detail)

    def handle(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Answer a request, now or later."""
        endpoint = self.app.endpoints.get(request.path)
        if endpoint is not None and request.method == "POST":
            if len(request.body) > LARGE or endpoint.reads_long:
                self._readers.submit(self._read, endpoint, request, done)
            else:
                endpoint.start(request, done)
        elif request.path in self._fixed and request.method == "GET":
            done(self._fixed[request.path])
        else:
            self._pages.submit(self._page, request, done)

    def _read(self, endpoint: Endpoint, request: Request, done: Callable[[Answer], None]) -> None:
        if request.gone:  # while it waited for this thread
            done(endpoint.refuse(refused("too-late", 0.0), request))
        else:
            endpoint.start(request, done)

    def _page(self, request: Request, done: Callable[[Answer], None]) -> None:
        try:
            answer = self.app.page(request, self.settings.host, self.settings.port)
        except Exception as error:  # noqa: BLE001  (logged there)
            answer = problem_answer(error, request.id)
        done(answer)

    def refuse(self, problem: Problem, request: Request) -> Answer:
        """The answer to a request that came no further than its head or body; it is counted."""
        endpoint = self.app.endpoints.get(request.path)
        if endpoint is not None:
            answer = endpoint.refuse(problem, request)
        else:
            answer = problem_answer(problem, request.id)
            self.app.metrics.refused(problem.status)
        if self.app.log_requests:
            self.app.log(request, answer.status)
        return answer

    # -- its life

    def give(self, taken: socket.socket) -> None:
        """A connection that was accepted is this worker's from now on; in any thread."""
        self._given.append(taken)
        if len(self._given) == 1:
            self.loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        while self._given:
            task = self.loop.create_task(self._connect(self._given[0]))
            self._connecting.add(task)
            task.add_done_callback(self._connected)
            self._given.popleft()  # last, so that it is in one of them all the time

    async def _connect(self, taken: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: Connection(self), taken)
        except OSError:  # it is gone already
            taken.close()

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        self._end_if_done()

    def count(self) -> int:
        """How many connections it has, and is about to have; in any thread."""
        return len(self._given) + len(self._connecting) + len(self.connections)

    async def run(self) -> None:
        """Answer what comes until it is drained."""
        self._tick()
        await self._done.wait()

    def drain(self) -> None:
        """Answer what is there, and end; no connections are given any more.

        A request may be on its way on an idle connection: it is answered, too.
        """
        self.draining = True
        self.loop.call_later(LAST, self._close_idle)
        self.loop.call_later(self.settings.drain_timeout, self._give_up)
        self._end_if_done()

    def _close_idle(self) -> None:
        for connection in [*self.connections]:
            connection.drain()

    def _give_up(self) -> None:
        left = sum(connection.request is not None for connection in self.connections)
        if left:
            verb = "is" if left == 1 else "are"
            log.warning("%s %s given up, as time is over", counted(left, "request"), verb)
        self._done.set()

    def _end_if_done(self) -> None:
        if self.draining and not self.count():
            self._done.set()

    def _tick(self) -> None:
        self.loop.call_later(TICK, self._tick)  # first: nothing below may end it
        now = self.now()
        self.date = formatdate(usegmt=True)
        for connection in [*self.connections]:
            connection.overdue(now)


def _hosts(settings: ServeSettings) -> frozenset[str] | None:
    """The names to answer to; None where it is all of them."""
    if not is_loopback(settings.host):
        return None
    return frozenset(one.lower() for one in settings.allowed_hosts)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def event_loop() -> Any:
    """Uvloop's where it is installed: it takes half of the time."""
    try:
        import uvloop  # not on every system
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
