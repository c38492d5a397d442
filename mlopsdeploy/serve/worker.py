"""One process of the server: an event loop that reads and answers, beside threads that compute.

The loop itself does nothing that takes long: health is answered by it, so that no load and no call
of a model holds that up. It computes what takes less time than waking a thread; texts and pictures
are read in one of `readers`, calls of models are made by each model's queue, and Flask's pages
come from `pages`.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from mlopsdeploy.core.console import counted
from mlopsdeploy.core.machine import is_loopback
from mlopsdeploy.serve.connection import Connection, Limits
from mlopsdeploy.serve.messages import JSON, Answer, Problem, Request, RequestIds, problem_answer
from mlopsdeploy.settings import BODIES_HELD, ServeSettings

if TYPE_CHECKING:
    from mlopsdeploy.serve.app import App

TICK = 0.05  # seconds between two looks at what is overdue
LARGE = 16 << 10  # bytes of a body that another thread reads
RESERVED_FILES = 64  # that models, logs and pages open beside connections
READERS = 2
PAGES = 4
ACCEPTED = 32  # connections at a time
MOST_HOSTS = 100  # that are remembered as good ones
log = logging.getLogger("mlopsdeploy.serve")


class Worker:
    """What the connections of a process share.

    Args:
        app: whose endpoints and pages are served.
        settings: the limits.
        listener: the socket that all workers share.
        balance: how many connections each worker has, and which of them is this one's.
    """

    def __init__(
        self,
        app: App,
        settings: ServeSettings,
        listener: socket.socket,
        balance: tuple[memoryview[int], int],
    ) -> None:
        self.app = app
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.limits = Limits(
            settings.header_timeout, settings.body_timeout, settings.body_rate, settings.keep_alive
        )
        self.connections: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self.held = 0  # bytes of bodies that are not all there
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
        self.date = ""
        self._settings = settings
        self._listener = listener
        self._loads, self._place = balance
        self._moment = 0.0
        self._hosts = _hosts(settings)
        self._most = settings.max_connections or _open_files() - RESERVED_FILES
        self._spare = os.open(os.devnull, os.O_RDONLY)  # given up to refuse what is one too many
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._pages = ThreadPoolExecutor(PAGES, "page")
        self._told = 0.0
        self._done = asyncio.Event()
        self._fixed = {
            path: Answer(200, JSON, msgspec.json.encode(document))
            for path, document in app.health.items()
        }

    # -- what connections ask

    def now(self) -> float:
        """When the loop last looked for what has come: no request can be said to be newer."""
        if not self._moment:
            self._moment = perf_counter()
            self.loop.call_soon(self._forget)
        return self._moment

    def _forget(self) -> None:
        self._moment = 0.0

    def opened(self, connection: Connection) -> None:
        """A caller is there."""
        self.connections.add(connection)
        self._loads[self._place] = len(self.connections)

    def closed(self, connection: Connection) -> None:
        """A caller is gone."""
        self.connections.discard(connection)
        self._loads[self._place] = len(self.connections)
        if self.draining and not self.connections:
            self._done.set()

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
                self._readers.submit(endpoint.start, request, done)
            else:
                endpoint.start(request, done)
        elif request.path in self._fixed and request.method == "GET":
            done(self._fixed[request.path])
        else:
            self._pages.submit(self._page, request, done)

    def _page(self, request: Request, done: Callable[[Answer], None]) -> None:
        try:
            answer = self.app.page(request, self._settings.host, self._settings.port)
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

    async def run(self, ready: Callable[[], None]) -> None:
        """Take connections until SIGTERM, and answer what is there then.

        Args:
            ready: called when connections are taken.
        """
        self.loop.add_signal_handler(signal.SIGTERM, self.drain)
        self._listener.settimeout(0)
        self._listener.listen(1024)
        self._tick()
        self.loop.add_reader(self._listener, self._accept)
        ready()
        await self._done.wait()

    def drain(self) -> None:
        """Take no more, answer what is there, and end."""
        if self.draining:
            return
        self.draining = True
        self.loop.remove_reader(self._listener)
        for connection in [*self.connections]:
            connection.drain()
        if not self.connections:
            self._done.set()
        self.loop.call_later(self._settings.drain_timeout, self._give_up)

    def _give_up(self) -> None:
        left = sum(connection.request is not None for connection in self.connections)
        if left:
            verb = "is" if left == 1 else "are"
            log.warning("%s %s given up, as time is over", counted(left, "request"), verb)
        self._done.set()

    def _tick(self) -> None:
        now = perf_counter()
        self.date = formatdate(usegmt=True)
        for connection in [*self.connections]:
            connection.overdue(now)
        for served in self.app.served.values():
            served.queue.expire()
        self.loop.call_later(TICK, self._tick)

    # -- connections

    def _accept(self) -> None:
        """Take what comes, until this worker has more than another one has."""
        others = [load for place, load in enumerate(self._loads) if place != self._place]
        room = min(others, default=ACCEPTED) - len(self.connections) + 1
        if room < 1:
            self._look_away()
        try:
            for _ in range(min(max(room, 1), ACCEPTED)):
                self._take(self._listener.accept()[0])
        except BlockingIOError:
            return  # there are no more, or another worker has them
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._refuse_one()

    def _take(self, taken: socket.socket) -> None:
        if len(self.connections) + len(self._connecting) >= self._most:
            self._one_too_many(taken)
            return
        taken.settimeout(0)
        with suppress(OSError):
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self.loop.create_task(self._connect(taken))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, taken: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: Connection(self), taken)
        except OSError:  # it is gone already
            taken.close()

    def _look_away(self) -> None:
        """A millisecond for the others to take what comes."""
        self.loop.remove_reader(self._listener)
        self.loop.call_later(0.001, self._look_again)

    def _look_again(self) -> None:
        if not self.draining:
            self.loop.add_reader(self._listener, self._accept)

    def _refuse_one(self) -> None:
        """No file can be opened: the spare one is given up for as long as it takes to say so."""
        os.close(self._spare)
        with suppress(OSError):
            self._one_too_many(self._listener.accept()[0])
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def _one_too_many(self, taken: socket.socket) -> None:
        problem = Problem(503, "too-many-connections", "the server has all connections it may have")
        answer = problem_answer(problem, self.ids.of(None))
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {answer.content_type}\r\n"
        head += f"Content-Length: {len(answer.body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        with suppress(OSError), taken:
            taken.settimeout(0)
            taken.send(head.encode() + answer.body)
        self.app.metrics.refused(503)
        if perf_counter() - self._told > 60:
            self._told = perf_counter()
            log.warning(
                "all %d connections that a worker may have are taken, so others get a 503; the "
                "setting max_connections and the system's limit of open files (ulimit -n) say so",
                min(self._most, len(self.connections)),
            )


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


def _open_files() -> int:
    """How many files this process may have open; as many as it is allowed to ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft > 0 else 1 << 20


def event_loop() -> Any:
    """Uvloop's where it is installed: it takes half of the time."""
    try:
        import uvloop  # not on every system
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
