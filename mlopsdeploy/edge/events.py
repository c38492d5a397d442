"""What happens to a source: for people, for `--events`, and how one that went away comes back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

FIRST_PAUSE = 0.5  # seconds before something that went away is tried again
LONGEST_PAUSE = 30.0
HEALTHY = 60.0  # seconds that it has to stay before the pauses are short again

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: connected, stalled, resumed, lost, reconnected, resized, unreadable, failed,
            recovered, reloaded, refused, or ended; of lines also dropped, rotated, truncated; of
            what was counted crossed, entered, left.
        text: the same for people, one line.
        facts: the same for programs.
        time: seconds since 1970.
        of_source: it happened to the source, and not in the picture.
    """

    kind: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)
    of_source: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"event": self.kind, "time": iso(self.time), **self.facts}


Report = Callable[[Event], None]
Log = Callable[[str], None]


def iso(seconds: float) -> str:
    """A time in UTC to the millisecond: 2026-11-22T18:50:12.345Z."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class Reporter:
    """Events to the log and to outputs; those from before there were outputs as well."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._early: list[Event] = []
        self._outputs: Sequence[Report] | None = None
        self._dropped = False
        self._lock = threading.Lock()

    def report(self, event: Event) -> None:
        """Log it if the source is meant, of dropped lines the first time; outputs get all."""
        with self._lock:
            again = event.kind == "dropped" and self._dropped
            self._dropped |= event.kind == "dropped"
            if event.of_source and event.kind != "ended" and not again:
                self._log(event.text)
            if self._outputs is None:
                self._early.append(event)
            for output in self._outputs or ():
                output(event)

    def connect(self, outputs: Sequence[Report]) -> None:
        """From now on events go to these too, and those that were before; each must be quick."""
        with self._lock:
            self._outputs = outputs
            for event in sorted(self._early, key=lambda event: event.time):
                for output in outputs:
                    output(event)


class Source:
    """What sources of frames and of lines share.

    Attributes:
        name: what it is called in messages, without a password.
        description: what kind of source it is, or its size and speed.
        live: frames or lines go by whether somebody looks or not.
    """

    description = ""
    live = False

    def __init__(self, name: str, report: Report) -> None:
        self.name = name
        self._report = report
        self._stopped = threading.Event()
        self._since = float("-inf")
        self._pause = FIRST_PAUSE

    def stop(self) -> None:
        """Let it end soon. Callable from any thread."""
        self._stopped.set()

    def happened(self, kind: str, text: str, **facts: object) -> None:
        """Report an event of this source."""
        self._report(Event(kind, f"{self.name}: {text}", {"source": self.name, **facts}))

    def _is_back(self) -> None:
        """From now on it is there; if it stays, the next pause is a short one."""
        self._since = time.monotonic()

    def _come_back(
        self, attempt: Callable[[], T], *failures: type[Exception], known: str = ""
    ) -> tuple[T, dict[str, Any]] | None:
        """Try to open it until it is there, and how long it took; None if stopped before.

        The pauses double, and are jittered, so that many devices don't come back as one. They
        start anew only after a healthy while: what dies at each first frame is not tried at once.

        Args:
            attempt: opens it.
            failures: what it raises where that fails.
            known: the reason that was told already; another one is an event.
        """
        began, attempts = time.monotonic(), 0
        if began - self._since > HEALTHY:
            self._pause = FIRST_PAUSE
        while not self._stopped.wait(self._pause * random.uniform(0.5, 1)):  # noqa: S311
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            attempts += 1
            try:
                opened = attempt()
            except failures as error:
                reason = self._reason(error)
                if known and reason not in ("", known):
                    known = reason
                    self.happened("lost", f"{reason}; trying again", reason=reason)
                continue
            self._is_back()
            seconds = round(time.monotonic() - began, 2)
            return opened, {"seconds": seconds, "attempts": attempts}
        return None

    def _reason(self, error: Exception) -> str:
        """What an error says, without this source's name."""
        return str(error).removeprefix(f"{self.name}: ")
