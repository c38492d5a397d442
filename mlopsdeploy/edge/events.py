"""What happens to a source: for people, for `--events`, and how one that went away comes back."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from mlopsdeploy.errors import ConfigError

FIRST_PAUSE = 0.5  # seconds before something that went away is tried again
LONGEST_PAUSE = 30.0

T = TypeVar("T")
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: connected, stalled, resumed, lost, reconnected, unreadable, or ended; of lines also
            dropped, rotated, truncated.
        text: the same for people, one line.
        facts: the same for programs.
        time: seconds since 1970.
    """

    kind: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"event": self.kind, "time": iso(self.time), **self.facts}


Report = Callable[[Event], None]


def iso(seconds: float) -> str:
    """A time in UTC to the millisecond: 2026-11-22T18:50:12.345Z."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class Reporting(Protocol):
    """An output that takes events."""

    def report(self, event: Event) -> None:
        """Take one; must be quick."""
        ...


class Reporter:
    """Events to the log and to outputs; those from before there were outputs as well."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._early: list[Event] = []
        self._outputs: Sequence[Reporting] | None = None
        self._dropped = False
        self._lock = threading.Lock()

    def report(self, event: Event) -> None:
        """Log it, but of dropped lines only the first time; outputs get all."""
        with self._lock:
            again = event.kind == "dropped" and self._dropped
            self._dropped |= event.kind == "dropped"
            if event.kind != "ended" and not again:
                self._log(event.text)
            if self._outputs is None:
                self._early.append(event)
            for output in self._outputs or ():
                output.report(event)

    def connect(self, outputs: Sequence[Reporting]) -> None:
        """From now on events go to these too, and those that were before."""
        with self._lock:
            self._outputs = outputs
            for event in sorted(self._early, key=lambda event: event.time):
                for output in outputs:
                    output.report(event)


class JsonLinesFile:
    """A file of JSON, an object a line: a reader sees each line whole, a crash cuts none in two.

    Args:
        path: of the file; `-` is standard output.
        keep: append to a file that is there, because what it holds does not come again.
    """

    def __init__(self, path: str, *, keep: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if keep else os.O_TRUNC)
        try:
            self._fd = 1 if path == "-" else os.open(path, flags, 0o666)
        except OSError as error:
            raise ConfigError(f"--events {path}: {error.strerror}") from error

    def append(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Write some lines at once.

        Raises:
            OSError: they can't be written.
        """
        text = "".join([f"{_encode(document)}\n" for document in documents])
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Close the file."""
        if self._fd != 1:
            os.close(self._fd)


def pauses() -> Iterator[float]:
    """Seconds before each attempt, without end: doubled each time, up to half a minute.

    Jittered, so that many devices don't come back as one.
    """
    longest = FIRST_PAUSE
    while True:
        yield longest * random.uniform(0.5, 1)  # noqa: S311
        longest = min(2 * longest, LONGEST_PAUSE)


def come_back(
    name: str,
    attempt: Callable[[], T],
    failures: tuple[type[Exception], ...],
    stopped: threading.Event,
    report: Report,
) -> T | None:
    """Try to open a source that went away until it is back, which is an event.

    Args:
        name: of the source.
        attempt: opens it.
        failures: what it raises as long as the source is away.
        stopped: ends it.
        report: gets the event.

    Returns:
        What the attempt returned; None if stopped before.
    """
    began = time.monotonic()
    for number, pause in enumerate(pauses(), 1):
        if stopped.wait(pause):
            return None
        try:
            opened = attempt()
        except failures:
            continue
        away = time.monotonic() - began
        facts = {"source": name, "seconds": round(away, 2), "attempts": number}
        report(Event("reconnected", f"{name}: back after {away:.1f} s", facts))
        return opened
    raise AssertionError("pauses have no end")
