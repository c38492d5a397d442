"""The parent of the workers: starts them, replaces those that die, and ends them.

It loads no model and opens no connection, so that nothing a request brings can end it. A worker
that dies is replaced for ever, each time later, up to `SLOWEST`, until one has lived for a while;
the others go on. Whatever is loaded later has the digests of what was loaded first, until SIGHUP
asks for what the files are now: then new workers are started beside the old ones, which end only
when all new ones are ready.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from time import monotonic
from typing import Any, NamedTuple, NoReturn

from mlopsdeploy.errors import MlopsDeployError, ModelError

QUICKEST, SLOWEST = 0.1, 30.0  # seconds until a worker is replaced
HEALTHY = 30.0  # seconds that a worker must have lived for the next to come at once again
FIRST_DEATHS = 3  # of workers before any was ready, which end the server
NOBODY = 1 << 62  # connections of a worker that isn't there, so that nobody leaves it any
LATECOMERS = 0.2  # seconds that workers have to take whoever came before the end
GRACE = 2.0  # seconds beyond `drain_timeout` until a worker is killed
Pins = Mapping[str, str]
"""The digests of models, by what callers know them by."""
log = logging.getLogger("mlopsdeploy.serve")


class Start(NamedTuple):
    """What a worker is started with.

    Attributes:
        listener: the socket that all workers share.
        loads: how many connections each worker has.
        place: this one's among them.
        generation: how often models had been asked for anew before it.
        pins: what it must load; None: what there is.
        tell: sends the parent `("ready", pins)` or `("failed", exit code, message)`.
        parent: the parent's process id.
    """

    listener: socket.socket
    loads: memoryview[int]
    place: int
    generation: int
    pins: Pins | None
    tell: Callable[[tuple[Any, ...]], None]
    parent: int


@dataclass(eq=False)
class Slot:
    """The place of a worker, whoever fills it."""

    place: int
    generation: int
    pins: Pins | None
    process: ForkProcess | None = None
    told: Connection | None = None
    ready: bool = False
    started: float = 0.0
    deaths: int = 0  # in a row
    again: float = 0.0  # when the next worker is started in it
    ending: bool = False
    killed_at: float = math.inf  # if it has not ended by itself


class Supervisor:
    """See the module.

    Args:
        main: what a worker does; ends its process.
        workers: how many there are.
        listener: bound, and not listening.
        drain_timeout: seconds that a worker may take to answer what it has.
        pins: what the first workers load; None: what there is.
    """

    def __init__(
        self,
        main: Callable[[Start], NoReturn],
        workers: int,
        listener: socket.socket,
        drain_timeout: float,
        pins: Pins | None = None,
    ) -> None:
        self._main = main
        self._workers = workers
        self._listener = listener
        self._drain_timeout = drain_timeout
        # Twice: while models are loaded anew, there are old and new workers.
        self._loads = memoryview(mmap.mmap(-1, 8 * 2 * workers)).cast("q")
        for place in range(2 * workers):
            self._loads[place] = NOBODY
        self._slots = [Slot(place, 0, pins) for place in range(workers)]
        self._coming: list[Slot] = []  # of the next generation
        self._signals: list[int] = []
        self._failure: MlopsDeployError | None = None
        self._generation = 0
        self._once_more = False  # models are to be loaded anew when that is done
        self._stopping = False
        self._deaf_at = math.inf
        self._once_ready = False
        self._terminal = _has_terminal()
        self._nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    def run(self) -> None:
        """Until a signal ends it.

        Raises:
            MlopsDeployError: no worker could be started.
        """
        with self._waking() as wake:
            for slot in self._slots:
                self._start(slot)
            while any(slot.process for slot in self._all) or not self._stopping:
                self._wait(wake)
        log.info("stopped")
        if self._failure is not None:
            raise self._failure

    @property
    def _all(self) -> list[Slot]:
        return [*self._slots, *self._coming]

    # -- what happens

    def _wait(self, wake: int) -> None:
        """Until a signal, a word or the end of a worker, or the time for something."""
        told = {slot.told: slot for slot in self._all if slot.told is not None}
        ended = {slot.process.sentinel: slot for slot in self._all if slot.process}
        happened = wait([wake, *told, *ended], self._pause())
        if wake in happened:
            os.read(wake, 4096)
        for one in happened:
            if isinstance(one, Connection) and one in told:
                self._hear(told[one])
        for one in happened:
            if isinstance(one, int) and one in ended:
                self._bury(ended[one])
        while self._signals:
            self._take(self._signals.pop(0))
        if self._once_more and not self._reloading:
            self._once_more = False
            self._reload()
        self._on_time(monotonic())

    def _pause(self) -> float | None:
        moments = [slot.killed_at for slot in self._all if slot.process]
        if not self._stopping:
            moments += [slot.again for slot in self._all if not slot.process]
        first = min([*moments, self._deaf_at])
        return None if math.isinf(first) else max(first - monotonic(), 0.0)

    def _on_time(self, now: float) -> None:
        if now >= self._deaf_at:
            self._deaf_at = math.inf
            with suppress(OSError):  # not on every system
                self._listener.shutdown(socket.SHUT_RDWR)
        for slot in self._all:
            if slot.process is None:
                if not self._stopping and now >= slot.again:
                    self._start(slot)
            elif now >= slot.killed_at:
                log.warning("worker %d did not end in time and is killed", slot.process.pid)
                slot.process.kill()
                slot.killed_at = now + GRACE

    def _hear(self, slot: Slot) -> bool:
        """Whether a worker says that it is ready, or why it never will be."""
        try:
            word = slot.told.recv() if slot.told is not None else ()
        except EOFError:
            word = ()
        if not word:
            slot.told = None
        elif word[0] == "ready":
            slot.ready = self._once_ready = True
            slot.pins = word[1]
            if self._stopping or slot.ending:  # a signal may have come before it could take any
                self._end(slot)
            if slot in self._coming:
                self._one_came(slot)
        else:
            self._failed(slot, *word[1:])
        return bool(word)

    def _failed(self, slot: Slot, code: int, message: str) -> None:
        if slot in self._coming:
            log.warning("the models stay what they were, as they can't be loaded anew: %s", message)
            self._give_up()
        elif self._once_ready:
            log.warning("a worker can't load its models, and tries again: %s", message)
        else:
            self._failure = (ModelError if code == ModelError.exit_code else MlopsDeployError)(
                message
            )
            self._stop()

    def _bury(self, slot: Slot) -> None:
        """A worker has ended."""
        assert slot.process is not None
        slot.process.join()
        code, pid, lived = slot.process.exitcode, slot.process.pid, monotonic() - slot.started
        if slot.told is not None:
            with suppress(OSError):
                while self._hear(slot):
                    pass
        was_ready = slot.ready
        slot.process, slot.ready = None, False
        self._loads[slot.place] = NOBODY
        if slot.ending:
            self._slots = [one for one in self._slots if one is not slot]
        if slot.ending or self._stopping or slot not in self._all:
            return
        if slot in self._coming and not was_ready:
            log.warning("the models stay what they were: a new worker ended %s", _how(code))
            self._give_up()
            return
        slot.deaths = 0 if was_ready and lived > HEALTHY else slot.deaths + 1
        if not self._once_ready and slot.deaths >= FIRST_DEATHS:
            self._failure = MlopsDeployError(f"a worker ended {_how(code)} before it was ready")
            self._stop()
            return
        pause = min(QUICKEST * 2 ** max(slot.deaths - 1, 0), SLOWEST)
        slot.again = monotonic() + pause
        log.warning("worker %s ended %s; another one starts in %.1f s", pid, _how(code), pause)

    # -- signals

    def _take(self, number: int) -> None:
        if number == signal.SIGHUP and not (self._terminal and not _has_terminal()):
            self._reload()
        elif number == signal.SIGHUP and self._nohup:
            self._terminal = False  # it is closed; from now on SIGHUP means the models
        elif not self._stopping:
            log.info("stopping; what is in work is answered first")
            self._stop()
        elif number != signal.SIGHUP:  # of which a terminal that closes sends several
            for slot in self._all:
                slot.killed_at = 0.0

    def _stop(self) -> None:
        if not self._stopping:
            # Nobody would answer those who come later; refused, they can try elsewhere.
            self._deaf_at = monotonic() + LATECOMERS
        self._stopping = True
        for slot in self._all:
            self._end(slot)

    def _end(self, slot: Slot) -> None:
        """Let a worker answer what it has, and end."""
        if slot.process:
            slot.killed_at = min(slot.killed_at, monotonic() + self._drain_timeout + GRACE)
            slot.process.terminate()

    @contextmanager
    def _waking(self) -> Iterator[int]:
        """A file that can be read when a signal came."""
        wake, write = os.pipe()
        for end in (wake, write):
            os.set_blocking(end, False)
        previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        try:
            yield wake
        finally:
            signal.set_wakeup_fd(previous)
            os.close(wake)
            os.close(write)

    # -- models anew

    @property
    def _reloading(self) -> bool:
        """Whether there are workers of more than one generation."""
        return bool(self._coming) or any(slot.ending for slot in self._slots)

    def _reload(self) -> None:
        if self._reloading:
            # Files may have changed since; and there is no place for a third generation.
            log.info("the models are being loaded anew, and will be once more after that")
            self._once_more = True
        elif not self._stopping:
            log.info("loading the models anew")
            self._generation += 1
            self._come(None)

    def _come(self, pins: Pins | None) -> None:
        taken = {slot.place for slot in self._all}
        place = next(place for place in range(len(self._loads)) if place not in taken)
        slot = Slot(place, self._generation, pins)
        self._coming.append(slot)
        self._start(slot)

    def _one_came(self, slot: Slot) -> None:
        """The first proves that the new models can be loaded; the others load the same."""
        if len(self._coming) < self._workers:
            while len(self._coming) < self._workers:
                self._come(slot.pins)
        elif all(one.ready for one in self._coming):
            log.info("the models are loaded anew")
            old, self._slots, self._coming = self._slots, self._coming, []
            for one in old:
                self._retire(one)

    def _retire(self, slot: Slot) -> None:
        slot.ending = True
        if slot.process:
            self._slots.append(slot)
            self._end(slot)

    def _give_up(self) -> None:
        """The old workers go on, and none of the new ones."""
        gone, self._coming = self._coming, []
        for slot in gone:
            self._retire(slot)

    # -- workers

    def _start(self, slot: Slot) -> None:
        receiver, sender = get_context("fork").Pipe(duplex=False)
        start = Start(
            self._listener, self._loads, slot.place, slot.generation, slot.pins, sender.send,
            os.getpid(),
        )  # fmt: skip
        slot.process = get_context("fork").Process(target=self._in_worker, args=(start, receiver))
        slot.told, slot.started, slot.ready = receiver, monotonic(), False
        slot.killed_at = math.inf
        slot.process.start()
        sender.close()

    def _in_worker(self, start: Start, receiver: Connection) -> NoReturn:
        signal.set_wakeup_fd(-1)
        receiver.close()
        # Ctrl-C reaches the terminal's group: the parent, which drains the workers
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until it takes connections
        self._main(start)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _has_terminal() -> bool:
    """Whether there is one that a SIGHUP could be about."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
