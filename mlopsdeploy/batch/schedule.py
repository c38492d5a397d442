"""A batch on cron's rhythm, in the foreground: for a container, a service, a terminal.

Each run is a process of its own, so that one night's crash or leak is not the next one's. There is
one at a time: a time that comes while a run is on is skipped. A time missed because the machine
slept is made up for once, however many there were. None comes twice, also where the clock is set.
A run that fails is tried again before the next time comes, and goes on where it was.

As a program, `python -m mlopsdeploy.batch.schedule PARENT ARGUMENTS`, it is one run: the command
of these arguments, which on Linux is sent SIGTERM when its parent ends, even by `kill -9`. So no
run is left behind that holds the output when the schedule begins again.

The rhythm is read by cronsim, which keeps to Debian's cron: Sunday is 0 and 7, either of day of
month and day of week is enough when both are given, and a time that the change to summer time
leaves out comes right after it. (APScheduler counts weekdays from Monday and wants both.)
"""

from __future__ import annotations

import math
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, tzinfo
from queue import Empty, SimpleQueue

from cronsim import CronSim, CronSimError

from mlopsdeploy.batch.notify import Ended
from mlopsdeploy.convert.child import end_with
from mlopsdeploy.errors import ConfigError

# Seconds between two looks at the clock: how late a run may be after the clock was set or the
# machine slept, which no timer counts.
SLICE = 5.0
# A clock set back by more than this was wrong, and the next time is found anew; else no time comes
# twice: runs wait until the clock is where it was. It is the bound of Debian's cron.
SET_BACK = 3 * 3600.0
# Seconds from a failure to the first retry, doubled for each that follows, and the most of them.
BACK_OFF, LONGEST_BACK_OFF = 60.0, 3600.0
Notify = Callable[[Ended, Callable[[str], None]], None]


def run_on_schedule(
    expression: str,
    command: Sequence[str],
    log: Callable[[str], None],
    *,
    retries: int = 0,
    notify: Notify = lambda *_: None,
    now: Callable[[], float] = time.time,
) -> int:
    """Run `command` whenever `expression` says, until a signal ends it.

    SIGTERM and SIGINT are passed to a run that is on, and waited for: it commits its work, and the
    next run goes on from there. A second signal kills it. A run that fails, also as its input is
    not there yet, is tried again after 1, 2, 4 … minutes, if that is before the next time. Call it
    in the main thread, which alone gets signals.

    Args:
        expression: minute, hour, day of month, month, day of week; in the machine's local time.
        command: the program and its arguments. It gets an empty standard input; what it writes
            goes where this process's output goes.
        log: called with a line about each start, end and skipped time.
        retries: how often a run is tried again.
        notify: called with the end of each run that is not tried again, and with what logs a line;
            not with that of a run which failed because a signal ended it here.
        now: the wall clock, in seconds since 1970.

    Returns:
        0 after SIGTERM, the ordinary end of a service, which systemd and Kubernetes take for
        success; 130 after SIGINT and 129 after SIGHUP; 128 and its number after a second signal.

    Raises:
        ConfigError: `expression` is none of cron's, or its time never comes.
    """
    schedule = _Schedule(expression, command, log, retries, notify, now)
    with _signals(schedule.events.put):
        return schedule.follow()


class _Schedule:
    """The state between two events: a signal, the end of a run, or a time that has come."""

    def __init__(
        self,
        expression: str,
        command: Sequence[str],
        log: Callable[[str], None],
        retries: int,
        notify: Notify,
        now: Callable[[], float],
    ) -> None:
        # A signal's number, or None when the run ends. Its `put` may interrupt itself, as a
        # signal handler does.
        self.events: SimpleQueue[int | None] = SimpleQueue()
        self._expression = expression
        self._command = list(command)
        self._tell = log
        self._retries = retries
        self._notify = notify
        self._now = now
        self._latest = now()  # that the clock has shown
        self._due = _next_after(expression, self._latest)
        self._child: subprocess.Popen[bytes] | None = None
        self._run = self._tries = 0  # tries of that run
        self._failure: Ended | None = None  # after which it is tried again …
        self._retry = math.inf  # … then
        self._started = 0.0  # of the run, on the monotonic clock
        self._signal = 0  # the first one

    def follow(self) -> int:
        meaning = CronSim(self._expression, datetime.now()).explain()
        self._say(f"schedule '{self._expression}' ({meaning}), {self._next()}")
        while not self._signal or self._child:
            try:
                event = self.events.get(timeout=self._pause())
            except Empty:
                self._start_what_is_due()
                continue
            if event is None:
                self._ended()
            elif self._signal:
                if self._child:  # with all that it started: its process group
                    with suppress(ProcessLookupError):
                        os.killpg(self._child.pid, signal.SIGKILL)
                    self._child.wait()
                self._say("killed by a second signal")
                return 128 + event
            else:
                self._stop(event)
        self._give_up()
        self._say("stopped")
        return 0 if self._signal == signal.SIGTERM else 128 + self._signal

    def _pause(self) -> float:
        """Seconds until the next look at the clock, at the latest."""
        now = self._look()
        left = min(self._due, self._retry) - now
        return SLICE if self._signal else min(SLICE, max(left, 0.0))

    def _look(self) -> float:
        """The clock; the next time is found anew where it was set back from a wrong one."""
        now = self._now()
        if self._latest - now > SET_BACK:
            self._latest, self._due = now, _next_after(self._expression, now)
            if self._failure:
                self._retry = now
            self._say(f"the clock was set back, {self._next()}")
        self._latest = max(self._latest, now)
        return now

    def _start_what_is_due(self) -> None:
        if self._signal:
            return
        if (now := self._look()) >= self._due:
            self._come(now)
        elif now >= self._retry:
            self._start(f" again, retry {self._tries} of {self._retries}")

    def _come(self, now: float) -> None:
        """The time has come: start a run, or skip it."""
        came, self._due = self._due, _next_after(self._expression, now)
        if self._child:
            self._say(f"skipped {_local(came)}: run {self._run} is still on, {self._next()}")
            return
        late = f", {_duration(now - came)} late" if now - came > 60 else ""
        self._give_up()
        self._run += 1
        self._tries = 0
        self._start(late)

    def _start(self, how: str) -> None:
        self._tries += 1
        self._failure, self._retry = None, math.inf
        self._started = time.monotonic()
        try:
            # A process group of its own: Ctrl-C reaches it once, through this process.
            child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, process_group=0)
        except OSError as error:
            how = f"failed to start: {self._command[0]}: {error.strerror or error}"
            self._say(f"run {self._run} {how}{self._after(None, how)}")
            return
        self._child = child
        self._say(f"run {self._run} started{how}")

        def watch() -> None:
            child.wait()
            self.events.put(None)

        threading.Thread(target=watch, name="watch", daemon=True).start()

    def _ended(self) -> None:
        assert self._child
        code = self._child.returncode
        self._child = None
        took = _duration(time.monotonic() - self._started)
        how = f"{'failed' if code else 'done'}: {_how(code)}, {took}"
        then = self._after(code if code >= 0 else 128 - code, how)
        self._say(f"run {self._run} {how}{then}")

    def _after(self, code: int | None, how: str) -> str:
        """What follows a run's end, in words: a retry, or the next run; the end is told of."""
        seconds = time.monotonic() - self._started
        ended = Ended(code, how, seconds, self._run, self._tries)
        retry = self._now() + min(BACK_OFF * 2 ** (self._tries - 1), LONGEST_BACK_OFF)
        if self._signal and code != 0:
            return ""
        if code == 0 or self._tries > self._retries or retry >= self._due:
            self._notify(ended, self._say)
            return "" if self._signal else f", {self._next()}"
        self._failure, self._retry = ended, retry
        at = f"{datetime.fromtimestamp(retry, LOCAL):%H:%M %Z}"
        return f", retry {self._tries} of {self._retries} at {at}"

    def _give_up(self) -> None:
        """No retry comes: the failure before it was the run's end."""
        if self._failure:
            self._notify(self._failure, self._say)

    def _stop(self, number: int) -> None:
        self._signal = number
        if self._child:
            name = signal.Signals(number).name
            self._say(f"{name}: waiting for run {self._run} to end; a second signal kills it")
            hangs_up = number not in (signal.SIGTERM, signal.SIGINT)
            self._child.send_signal(signal.SIGTERM if hangs_up else number)

    def _next(self) -> str:
        return f"next run {_local(self._due)}"

    def _say(self, text: str) -> None:
        self._tell(f"{datetime.fromtimestamp(self._now(), LOCAL):%Y-%m-%d %H:%M:%S %Z} {text}")


@contextmanager
def _signals(handle: Callable[[int], None]) -> Iterator[None]:
    """The signals that end a program, passed to `handle` while the block lasts."""
    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in ends}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, lambda number, _: handle(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _next_after(expression: str, moment: float) -> float:
    """The first time of `expression` after `moment`, both in seconds since 1970."""
    reason = "its day never comes"
    try:
        if (fields := len(expression.split())) != 5:  # cronsim has one with seconds, too
            raise CronSimError(f"{fields} field{'s' * (fields != 1)}, not 5")
        for time_ in CronSim(expression, datetime.fromtimestamp(moment, LOCAL)):
            # In the hour that the end of summer time repeats, its first run may be over.
            if time_.timestamp() > moment:
                return time_.timestamp()
    except CronSimError as error:
        reason = str(error).lower()
    raise ConfigError(
        f"--schedule {expression!r}: {reason}; expected minute, hour, day of month, month and day "
        "of week, such as '0 2 * * *' (every night at 2) or '30 6 * * MON-FRI'"
    )


class _Local(tzinfo):
    """The machine's time zone with its changes; `datetime.astimezone` gives only today's offset."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else moment.replace(tzinfo=None).astimezone().utcoffset()

    def tzname(self, moment: datetime | None) -> str | None:
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def dst(self, moment: datetime | None) -> timedelta | None:  # noqa: ARG002
        return None

    def fromutc(self, moment: datetime) -> datetime:
        here = moment.replace(tzinfo=UTC).astimezone()
        wall = here.replace(tzinfo=self)
        return wall if wall.utcoffset() == here.utcoffset() else wall.replace(fold=1)


LOCAL = _Local()


def _how(code: int) -> str:
    """How a process ended, by `Popen.returncode`."""
    if code >= 0:
        return f"exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return f"killed by {known.get(-code, f'signal {-code}')}"


def _local(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, LOCAL):%Y-%m-%d %H:%M %Z}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)), signal.SIGTERM)
    runpy.run_module("mlopsdeploy", run_name="__main__", alter_sys=True)
