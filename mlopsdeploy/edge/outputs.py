"""Where results go: any number of outputs, each with a thread and a bounded queue of its own.

So none slows the model or another output, and one that fails leaves the others alone.
A sink says what it wants of a result (`pick`, quick, in the pipeline's thread) and does the work
(`write`, in its own thread). `sinks` says how they are found.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.channel import Channel, Closed
from mlopsdeploy.edge.events import FIRST_PAUSE, LONGEST_PAUSE, Event, Log, Report
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.settings import EdgeSettings

READER_LEFT = "reader left"  # how a run ends whose output nobody reads any more
LOOK = 0.1  # seconds between two looks at whether to stop


class Found(Protocol):
    """What the model found: on a frame (`results.Result`) or in lines (`lines.answering.Answers`).

    Attributes:
        something: whether there is something to tell.
    """

    @property
    def something(self) -> bool:
        """See above."""

    def documents(self) -> list[dict[str, Any]]:
        """It as events, ready for JSON: one for a frame, one for each line."""

    def labels(self) -> list[Mapping[str, int]]:
        """What each of these says: how often each label; "" for answers that have none."""

    def state(self) -> dict[str, Any]:
        """How things stand by it, for JSON: `objects` and `labels`, or the newest `answer`."""


@dataclass(frozen=True)
class About:
    """What a sink may know of the run that it is opened for.

    Attributes:
        settings: of the device.
        source: its name, with no password in it.
        live: its frames or lines come but once.
        model: its model.
        log: takes a line for people.
        state: how it goes, ready for JSON.
        fps: frames per second of the source, where it has them.
        counts: of gates and zones, ready for JSON.
    """

    settings: EdgeSettings
    source: str
    live: bool
    model: Model
    log: Log
    state: Callable[[], dict[str, Any]]
    fps: Callable[[], float | None] = lambda: None
    counts: Callable[[], dict[str, Any]] = dict

    @property
    def device(self) -> str:
        """What receivers of events know it by, of letters, digits, `_` and `-`."""
        name = self.settings.device or f"{socket.gethostname()}-{self.source}"
        return re.sub("[^A-Za-z0-9_]+", "-", name).strip("-")[:64] or "edge"


class Sink(ABC):
    """One place that results go to.

    Attributes:
        name: as it is called in statistics, and its entry point.
        waiting: how many items may wait for it. Where they hold a picture, few.
        together: how many of those that wait are written at once, at most.
        pause: seconds from a write to the next, while more items come together.
        always_newest: it wants the newest result, and not all.
        ends_with_reader: when nobody reads it any more, the run ends.
    """

    name: str
    called = ""
    waiting = 1
    together = 1
    pause = 0.0
    always_newest = False
    ends_with_reader = False

    @classmethod
    def opened(cls, value: str, about: About) -> Self:
        """The sink of a setting's value, or of what stands behind `--sink NAME=`.

        Raises:
            ConfigError: it can't be one.
        """
        raise NotImplementedError

    def pick(self, result: Any) -> Any:
        """What it needs of a result (see `Found`); None if nothing. Must be quick."""
        return result

    def pick_event(self, event: Event) -> Any:  # noqa: ARG002
        """What it needs of something that happened to the source; None if nothing."""
        return None

    @abstractmethod
    def write(self, item: Any) -> None:
        """Do the work.

        Raises:
            OSError: it can't; the output is given up, or tried again.
        """

    def write_all(self, items: Sequence[Any]) -> None:
        """Do it for `together` items at most: where there may be several, for all or none.

        Raises:
            OSError: as `write` does.
        """
        for item in items:
            self.write(item)

    def reopen(self) -> None:  # noqa: B027
        """Open again what failed, before it is written to again.

        Raises:
            OSError: it can't be opened.
        """

    def close(self) -> None:  # noqa: B027
        """Finish whatever was written."""

    def rows(self) -> list[tuple[str, str]]:
        """How it goes, for people, where that is worth a line: a name, and words."""
        return []

    def outcome(self) -> dict[str, Any]:
        """What a summary says of it, by name, ready for JSON."""
        return {}


class Outlet:
    """A sink with its thread.

    One that fails is given up where what it gets comes again, and the run fails. Else it is tried
    again until it works: a disk is emptied, or mounted again.

    Args:
        sink: closed at the end.
        stats: gets the time of each write.
        keep: with its queue full the pipeline waits for it; otherwise the oldest is left out.
        again: whether a failure is tried again, asked each time; by default where nothing is kept.
        log: called with one line if the sink is given up.
        happened: called with an event if it fails and is tried again, and once it works.
        left: called when whoever reads it has gone, if the run then ends.
        given_up: called when it is; what becomes of the run, in words.
        waiting: how many items may wait, in place of the sink's own number.

    Attributes:
        failed: why it was given up or, at the end, still failing; or None.
    """

    def __init__(
        self,
        sink: Sink,
        stats: Stats,
        *,
        keep: bool,
        log: Log,
        happened: Report = lambda _: None,
        again: Callable[[], bool] | None = None,
        left: Callable[[], None] = lambda: None,
        given_up: Callable[[], str] = lambda: "the rest goes on",
        waiting: int | None = None,
    ) -> None:
        self.sink = sink
        self.called = sink.called or f"--{sink.name}"
        self.failed: str | None = None
        self._stats = stats
        self._log = log
        self._happened = happened
        self._again = again or (lambda: not keep)
        self._left, self._given_up = left, given_up
        self._closing = threading.Event()
        self._queue: Channel[Any] = Channel(waiting or sink.waiting, keep=keep)
        self._thread = threading.Thread(target=self._run, name=sink.name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Results left out because it was too slow."""
        return self._queue.dropped

    def put(self, result: Found) -> None:
        """Hand it a result."""
        item = self.sink.pick(result)
        if item is not None:
            self._queue.put(item)

    def report(self, event: Event) -> None:
        """Hand it something that happened to the source; never waits."""
        item = self.sink.pick_event(event)
        if item is not None:
            self._queue.push(item)

    def close(self) -> None:
        """Wait until all is written and finished."""
        self._closing.set()
        self._queue.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            try:
                self._write_all()
            finally:
                self.sink.close()
        except BrokenPipeError as error:
            if self.sink.ends_with_reader:
                self._left()
            else:
                self._give_up(error)
        except OSError as error:
            self._give_up(error)
        finally:
            self._queue.cancel()

    def _give_up(self, error: OSError) -> None:
        self.failed = f"{self.called}: {_reason(error)}"
        self._log(f"{self.failed}; nothing more is written there, {self._given_up()}")

    def _write_all(self) -> None:
        while True:
            try:
                items = self._queue.take_all(self.sink.together)
            except Closed:
                return
            self._write(items)
            del items  # while nothing comes, their memory is free
            if self.sink.pause:
                self._queue.rest(self.sink.pause)

    def _write(self, items: Sequence[Any]) -> None:
        try:
            self._try(items)
        except OSError as error:
            if isinstance(error, BrokenPipeError) or not self._goes_on():
                raise
            self._tell("failed", f"{_reason(error)}; trying again", reason=_reason(error))
            self._write_again(items)

    def _write_again(self, items: Sequence[Any]) -> None:
        """Until it works, or the end comes, when it is tried once more."""
        began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            end = time.monotonic() + pause
            while self._goes_on() and time.monotonic() < end:
                self._closing.wait(LOOK)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self.sink.reopen()
                self._try(items)
            except OSError:
                if not self._goes_on():
                    raise
                continue
            away = time.monotonic() - began
            text = f"works again after {away:.1f} s"
            self._tell("recovered", text, seconds=round(away, 2), left_out=self.dropped)
            return

    def _goes_on(self) -> bool:
        return not self._closing.is_set() and self._again()

    def _try(self, items: Sequence[Any]) -> None:
        with self._stats.timing(self.sink.name):
            self.sink.write_all(items)

    def _tell(self, kind: str, text: str, **facts: object) -> None:
        self._happened(Event(kind, f"{self.called}: {text}", {"output": self.called, **facts}))


def outcomes(outlets: Sequence[Outlet]) -> dict[str, Any]:
    """What came of outputs, for a summary: what was sent, and why which of them failed."""
    sent = [outlet.sink.outcome() for outlet in outlets]
    return {
        "sent": {name: one for some in sent for name, one in some.items()},
        "failed": [one.failed for one in outlets if one.failed],
    }


def rows_of(outlets: Sequence[Outlet]) -> list[tuple[str, str]]:
    """How outputs go, for people."""
    return [row for outlet in outlets for row in outlet.sink.rows()]


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
