"""From the outbox to where a network leads: one thread for each destination, which never gives up.

A destination is a class of its own file (`sinks/mqtt.py`, `sinks/webhook.py`), found as sinks are.
What it can't send now stays in the outbox, and is tried again after pauses that double and are
jittered, so that many devices don't come back as one; what it will never accept is put aside and
counted, as the events behind it have to get through.

By default a result goes out when what it says has changed, once a second at most: a camera makes
thirty a second, day and night, of which a receiver wants to know who came and went, and a paid
line or a card would be worn out by the rest. Crossings, and all that happens to the source, always
go. Of texts each is a message of its own, so all of them do.
"""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self

from mlopsdeploy.edge.events import FIRST_PAUSE, Event, Report
from mlopsdeploy.edge.outbox import Envelopes, Message, Outbox, Standing, new_id
from mlopsdeploy.edge.outputs import About, Found, Sink

LONGEST_PAUSE = 60.0  # seconds between two attempts
LONGEST_ASKED = 3600.0  # seconds that a destination may ask us to wait
IDLE = 1.0  # seconds between two looks whether it is still there
GRACE = 5.0  # seconds that a run waits at its end for what is on its way
COMMIT = 1.0  # seconds between two commits of new events, at least
NUMBERS = 60.0  # seconds between two results that are numbers alone, which always change
TOLD = 60.0  # seconds between two events about what was discarded


class Later(OSError):  # noqa: N818  # it is tried again, so it is no error yet
    """It can't be sent now.

    Attributes:
        seconds: that the destination asks us to wait; None: it doesn't.
    """

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Destination(ABC):
    """Where events go over a network. All but `opened` is called in one thread, its own.

    Attributes:
        name: as its setting and its entry point are called.
        together: how many events it is given at once, at most.
    """

    name: str
    together = 1

    @classmethod
    @abstractmethod
    def opened(cls, value: str, about: About) -> Self:
        """The destination of a setting's value. Connects to nothing yet.

        Raises:
            ConfigError: it can't be one.
        """

    def keep(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Be connected, and say how things stand, where there is a place for that.

        Raises:
            OSError: it can't; it is tried again.
        """

    @abstractmethod
    def send(self, messages: Sequence[Message]) -> Iterator[str]:
        """Send them in order. For each, once that is known: empty, or why it is never accepted.

        Raises:
            OSError: it can't; those that nothing was said of are sent again.
        """

    def close(self) -> None:  # noqa: B027
        """Leave in good order."""


class Sender:
    """A destination with its thread.

    Args:
        destination: closed at the end.
        outbox: what waits for it.
        state: how things stand.
        report: gets an event when it can't be reached any more, and when it can again.
    """

    def __init__(
        self,
        destination: Destination,
        outbox: Outbox,
        state: Callable[[], Mapping[str, Any]],
        report: Report,
    ) -> None:
        self.name = destination.name
        self._destination, self._outbox = destination, outbox
        self._state, self._report = state, report
        self._pause = FIRST_PAUSE
        self._failing_since: float | None = None
        self._ends: float | None = None
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        if self._failing_since is None:
            self._woken.set()

    def finish(self, seconds: float) -> None:
        """Send what waits within so long, unless that fails. Does not wait for it."""
        self._ends = time.monotonic() + seconds
        self._woken.set()

    def wait(self) -> None:
        """Until it is over; one that hangs in a call is left."""
        if self._ends is not None and self._thread.is_alive():
            self._thread.join(max(self._ends - time.monotonic(), 0) + 1)

    def _run(self) -> None:
        while not self._is_over():
            ending = self._ends is not None
            try:
                self._destination.keep(self._state())
                waiting = self._outbox.waiting(self.name, self._destination.together)
                if waiting:
                    self._deliver(waiting)
                elif ending:
                    break
                else:
                    self._wait(IDLE)
            except OSError as error:
                if ending:
                    break
                self._fail(error)
        with suppress(OSError):
            self._destination.close()

    def _is_over(self) -> bool:
        return self._ends is not None and time.monotonic() > self._ends

    def _deliver(self, waiting: Sequence[Message]) -> None:
        """Send them, and mark how far that came, whatever ends it."""
        past, delivered, refused = 0, 0, []
        try:
            for message, reason in zip(waiting, self._destination.send(waiting), strict=True):
                past = message.seq
                if reason:
                    refused.append((message, reason))
                else:
                    delivered += 1
        finally:
            if past:
                self._outbox.mark(self.name, past, delivered, refused)
        if refused:
            reason = refused[-1][1]
            text = f"{len(refused):,} events refused ({reason}); they are put aside in the outbox"
            self._tell("rejected", text, events=len(refused), reason=reason)
        self._is_well()

    def _is_well(self) -> None:
        if self._failing_since is not None:
            away = time.monotonic() - self._failing_since
            self._failing_since, self._pause = None, FIRST_PAUSE
            self._tell("recovered", f"works again after {away:.1f} s", seconds=round(away, 2))

    def _fail(self, error: OSError) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            reason = error.strerror or str(error)
            self._tell("failed", f"{reason}; trying again, events wait", reason=reason)
        asked = error.seconds if isinstance(error, Later) else None
        if asked is None:
            self._wait(self._pause * random.uniform(0.5, 1))  # noqa: S311
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._wait(min(asked, LONGEST_ASKED))

    def _wait(self, seconds: float) -> None:
        self._woken.wait(seconds)
        if self._ends is None:
            self._woken.clear()

    def _tell(self, kind: str, text: str, **facts: object) -> None:
        output = f"--{self.name}"
        self._report(Event(kind, f"{output}: {text}", {"output": output, **facts}))


class _Item(NamedTuple):
    """An event on its way into the outbox; of a result also what it says."""

    id: str
    document: dict[str, Any]
    says: Hashable = None


class Outgoing(Sink):
    """All destinations as one output: what they get is written into the outbox, once for all.

    Args:
        about: the run.
        destinations: at least one.
        outbox: closed at the end, as they are.
        report: gets what happens to destinations, and what was discarded.
        everything: send every result, and not what has changed.
    """

    name = "outbox"
    waiting = 1000
    together = 1000
    pause = COMMIT

    def __init__(
        self,
        about: About,
        destinations: Sequence[Destination],
        outbox: Outbox,
        report: Report,
        *,
        everything: bool,
    ) -> None:
        self.outbox = outbox
        self._about, self._report, self._everything = about, report, everything
        self._envelope = Envelopes(about.device)
        self._picked: Hashable = None
        self._written: Hashable = None
        self._discarded, self._told = 0, float("-inf")
        self._state: dict[str, Any] = {}
        self._there: bool | None = None
        self._last: dict[str, Standing] = {}
        self._senders = [Sender(one, outbox, self.state, report) for one in destinations]
        for sender in self._senders:
            sender.start()

    def pick(self, result: Found) -> list[_Item] | None:
        """What of it is to be sent."""
        self._there = True
        says = [_said(labels) for labels in result.labels()]
        self._state = {**self._state, **result.state()}
        if self._everything:
            return [_Item(new_id(), one) for one in result.documents()]
        if all(one == self._picked for one in says):
            return None
        items = []
        for one, document in zip(says, result.documents(), strict=True):
            if one != self._picked:
                items.append(_Item(new_id(), document, one))
                self._picked = one
        return items

    def pick_event(self, event: Event) -> list[_Item]:
        """All that happens."""
        if event.kind in ("connected", "reconnected", "resumed"):
            self._there = True
        elif event.kind in ("lost", "stalled"):
            self._there = False
        return [_Item(new_id(), event.as_dict())]

    def write(self, item: list[_Item]) -> None:
        """See `write_all`."""
        self.write_all([item])

    def write_all(self, items: Sequence[list[_Item]]) -> None:
        """Commit what came since the last time; of results that changed within, the last."""
        together = [one for some in items for one in some]
        results = [one for one in together if one.says is not None]
        last = results[-1] if results else None
        keep = last if last is not None and last.says != self._written else None
        chosen = [one for one in together if one.says is None or one is keep]
        if chosen:
            self._discarded += self.outbox.add(
                self._envelope(one.id, one.document) for one in chosen
            )
        if last is not None:
            self._written = last.says
        for sender in self._senders:
            sender.wake()
        self._tell_of_discarded()

    def reopen(self) -> None:
        """See `Sink`."""
        self.outbox.reopen()

    def close(self) -> None:
        """Give what is on its way a moment; the rest is for the next run."""
        for sender in self._senders:
            sender.finish(GRACE)
        for sender in self._senders:
            sender.wait()
        self._last = self.standing()
        self.outbox.close()
        left = {name: one.waiting for name, one in self._last.items() if one.waiting}
        for name, count in left.items():
            self._about.log(
                f"--{name}: {count:,} events wait in {self.outbox.path}; the next run sends them"
            )

    def state(self) -> dict[str, Any]:
        """How things stand, for who asks for the present and not for events."""
        return {"source": self._there, **self._state, **self._about.counts()}

    def standing(self) -> dict[str, Standing]:
        """How it stands with each destination; at last, where the file can't be read."""
        with suppress(OSError):
            return self.outbox.standing()
        return self._last

    def rows(self) -> list[tuple[str, str]]:
        """See `Sink`."""
        return [(name, one.words()) for name, one in self.standing().items()]

    def outcome(self) -> dict[str, Any]:
        """See `Sink`."""
        return {name: one.as_dict() for name, one in self.standing().items()}

    def _tell_of_discarded(self) -> None:
        """Seldom, as each time is an event too."""
        now = time.monotonic()
        if self._discarded and now - self._told > TOLD:
            count, self._discarded, self._told = self._discarded, 0, now
            text = f"--outbox: {count:,} events discarded, as more wait than may, or for too long"
            self._report(Event("discarded", text, {"output": "--outbox", "events": count}))


def _said(labels: Mapping[str, int]) -> Hashable:
    """What a result says, so that two can be compared; numbers alone say something anew in time."""
    moment = int(time.monotonic() / NUMBERS) if "" in labels else 0
    return moment, tuple(sorted(labels.items()))
