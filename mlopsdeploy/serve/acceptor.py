"""Taking a worker's connections, in a thread of its own.

A worker whose loop has all hands full with requests would leave those who connect waiting, and
health checks with them, which mostly come on a new connection each. So connections are taken here,
where nothing is computed. Whoever begins by asking for health or metrics stays here; all others go
on to the worker.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import re
import resource
import select
import socket
import threading
from collections import deque
from contextlib import suppress
from time import perf_counter

from mlopsdeploy.serve.messages import Problem, problem_answer
from mlopsdeploy.serve.worker import LAST, TICK, Worker, event_loop
from mlopsdeploy.serve.writing import written

BACKLOG = 4096  # connections that the system holds until they are taken, if it holds so many
AT_A_TIME = 32
SILENT = 1.0  # seconds in which a connection's first bytes tell where it belongs
PEEKED = 256  # of them
FLOODED = 0.1  # seconds without a moment in which none waits to be taken
TURNED_AWAY = 16  # connections that are refused and may still be read
RESERVED_FILES = 64  # that models, logs and pages open beside connections
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)  # Linux has it
_ESTABLISHED = 1  # in its first byte
_GET = re.compile(rb"GET ([^ ?]+)[ ?]")
log = logging.getLogger("mlopsdeploy.serve")


class Acceptor:
    """See the module.

    Args:
        worker: gets the connections.
        listener: the socket that all workers of the server share.
        balance: how many connections each of them has, and the place of this one's number.
    """

    def __init__(
        self, worker: Worker, listener: socket.socket, balance: tuple[memoryview[int], int]
    ) -> None:
        self._worker = worker
        self._listener = listener
        self._loads, self._place = balance
        app = worker.app
        self._own = {path.encode() for path in (*app.health, *app.numbers)}
        self._most = worker.settings.max_connections or max(_open_files() - RESERVED_FILES, 1)
        # Given up to refuse what is one too many.
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        self._turned_away: deque[tuple[float, socket.socket]] = deque()
        self._silent: dict[socket.socket, float] = {}  # since when
        self._away = False  # from the listener, so that other workers may accept
        self._waiting = select.poll()  # whether there are more connections
        self._waiting.register(listener, select.POLLIN)
        self._flooded_since = math.inf
        self._stopping = False
        self._told = -math.inf
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, name="acceptor", daemon=True)

    # -- from the worker's thread

    def start(self) -> None:
        """Take connections from now on."""
        self._thread.start()
        self._listens.wait()

    def stop(self) -> None:
        """Take no more, and let the worker drain once it has all that were there."""
        if not self._stopping:
            self._stopping = True
            self._loop.call_soon_threadsafe(self._stop)

    def join(self) -> None:
        """Until those who asked for health have their answers."""
        self._thread.join()

    # -- its own thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=event_loop) as runner:
                runner.run(self._serve())
        except BaseException:
            log.exception("connections can't be taken any more")
            logging.shutdown()
            os._exit(1)  # another worker replaces this one

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._here = Worker(self._worker.app, self._worker.settings)
        self._listener.settimeout(0)
        self._listener.listen(BACKLOG)
        self._loop.add_reader(self._listener, self._accept)
        self._tick()
        self._listens.set()
        await self._here.run()

    def _stop(self) -> None:
        self._accept()  # whoever is there already
        self._loop.remove_reader(self._listener)
        for taken in [*self._silent]:
            self._give(taken, self._worker)
        self._worker.loop.call_soon_threadsafe(self._worker.drain)
        self._here.drain()

    def _tick(self) -> None:
        self._loop.call_later(TICK, self._tick)  # first: nothing below may end it
        now = perf_counter()
        self._note_load()
        for taken in [one for one, since in self._silent.items() if now - since > SILENT]:
            self._give(taken, self._worker)
        while self._turned_away and now > self._turned_away[0][0]:
            self._turned_away.popleft()[1].close()
        for served in self._worker.app.served.values():
            served.queue.expire()

    def _count(self) -> int:
        return len(self._silent) + self._worker.count() + self._here.count()

    def _note_load(self) -> int:
        """How many connections there are; the other workers are told."""
        count = self._loads[self._place] = self._count()
        return count

    def _accept(self) -> None:
        """Take what comes, until this worker has notably more than another one has."""
        mine = self._note_load()
        others = [load for place, load in enumerate(self._loads) if place != self._place]
        room = min(others) + max(mine // 16, 1) - mine if others else AT_A_TIME
        if room < 1:
            self._look_away()
        try:
            for _ in range(min(max(room, 1), AT_A_TIME)):
                self._take(self._listener.accept()[0])
        except BlockingIOError:
            pass  # there are no more, or another worker has them
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._refuse_one()
                self._look_away()  # it would be told of them all the time
        if not self._waiting.poll(0):
            self._flooded_since = math.inf
        elif math.isinf(self._flooded_since):
            self._flooded_since = perf_counter()

    def _take(self, taken: socket.socket) -> None:
        if self._note_load() >= self._most:
            self._one_too_many(taken)
            return
        if perf_counter() - self._flooded_since > FLOODED and is_hung_up(taken):
            taken.close()
            return
        taken.settimeout(0)
        with suppress(OSError):
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._silent[taken] = perf_counter()
        if not self._placed(taken):
            self._loop.add_reader(taken, self._placed, taken)

    def _placed(self, taken: socket.socket) -> bool:
        """Whether what has come on a connection tells where it belongs, and it is there now."""
        try:
            found = _GET.match(taken.recv(PEEKED, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        except OSError:
            found = None  # whoever gets it finds out
        asks_here = found is not None and found[1] in self._own
        self._give(taken, self._here if asks_here else self._worker)
        return True

    def _give(self, taken: socket.socket, worker: Worker) -> None:
        self._loop.remove_reader(taken)
        worker.give(taken)
        del self._silent[taken]

    def _look_away(self) -> None:
        """A millisecond for the others to take what comes."""
        if not self._away:
            self._away = True
            self._loop.remove_reader(self._listener)
            self._loop.call_later(0.001, self._look_again)

    def _look_again(self) -> None:
        self._away = False
        if not self._stopping:
            self._loop.add_reader(self._listener, self._accept)

    # -- too many

    def _refuse_one(self) -> None:
        """No file can be opened: the spare one is given up for as long as it takes to say so."""
        while self._turned_away:
            self._turned_away.popleft()[1].close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with suppress(OSError):
            self._one_too_many(self._listener.accept()[0])
        while self._turned_away:
            self._turned_away.popleft()[1].close()
        with suppress(OSError):  # another thread may have been quicker
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _one_too_many(self, taken: socket.socket) -> None:
        detail = "the server has all connections it may have"
        problem = Problem(503, "too-many-connections", detail, headers=(("Retry-After", "1"),))
        request_id = self._here.ids.of(None)
        answer = problem_answer(problem, request_id)
        with suppress(OSError):
            taken.settimeout(0)
            taken.send(written(answer, request_id, self._here.date, keep=False) + answer.body)
            taken.shutdown(socket.SHUT_WR)
        # Closed at once, it would be reset by a request that comes now, and the answer lost.
        self._turned_away.append((perf_counter() + LAST, taken))
        if len(self._turned_away) > TURNED_AWAY:
            self._turned_away.popleft()[1].close()
        self._worker.app.metrics.refused(503)
        if perf_counter() - self._told > 60:
            self._told = perf_counter()
            log.warning(
                "all %d connections that a worker may have are taken, so others get a 503; the "
                "setting max_connections and the system's limit of open files (ulimit -n) say so",
                min(self._most, self._count()),
            )


def is_hung_up(taken: socket.socket) -> bool:
    """Whether a caller has given up before its connection was taken.

    Callers that run out of patience come again on a new connection. A server that served them all
    in turn would come to those that are still there too late, and never get out of it.
    """
    if _TCP_INFO is None:
        return False
    try:
        state = taken.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
    except OSError:
        return True
    return state != _ESTABLISHED


def _open_files() -> int:
    """How many files this process may have open; as many as it is allowed to ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft > 0 else 1 << 20
