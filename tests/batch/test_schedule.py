"""On time: cron's rhythm, real runs, real signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from mlopsdeploy.batch import schedule
from mlopsdeploy.errors import ConfigError

pytestmark = pytest.mark.timeout(60)

# ---------------------------------------------------------------- when


@pytest.fixture
def zone(monkeypatch):
    """`zone("Europe/Berlin")` sets the machine's time zone for a test."""

    def set_zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("place", "expression", "after", "expected"),
    [
        ("UTC", "30 6 * * 1", "2026-11-22T12:00Z", ["2026-11-23 06:30 UTC"]),  # as cron has it
        ("UTC", "30 6 * * MON-FRI", "2026-11-22T12:00Z", ["2026-11-23 06:30 UTC"]),
        ("UTC", "0 0 * * 0", "2026-11-22T12:00Z", ["2026-11-29 00:00 UTC", "2026-12-06 00:00 UTC"]),
        ("UTC", "0 0 * * 7", "2026-11-22T12:00Z", ["2026-11-29 00:00 UTC", "2026-12-06 00:00 UTC"]),
        (  # either day is enough
            "UTC", "0 0 13 * FRI", "2026-12-01T12:00Z",
            ["2026-12-04 00:00 UTC", "2026-12-11 00:00 UTC", "2026-12-13 00:00 UTC"],
        ),
        (  # summer time leaves out an hour
            "Europe/Berlin", "30 2 * * *", "2026-03-28T00:00+01:00",
            ["2026-03-28 02:30 CET", "2026-03-29 03:00 CEST", "2026-03-30 02:30 CEST"],
        ),
        (  # winter time repeats one
            "Europe/Berlin", "30 2 * * *", "2026-10-24T00:00+02:00",
            ["2026-10-24 02:30 CEST", "2026-10-25 02:30 CEST", "2026-10-26 02:30 CET"],
        ),
        ("Europe/Berlin", "50 2 * * *", "2026-10-25T02:45+01:00", ["2026-10-26 02:50 CET"]),
        (
            "Europe/Berlin", "30 * * * *", "2026-10-25T01:00+02:00",
            ["2026-10-25 01:30 CEST", "2026-10-25 02:30 CEST", "2026-10-25 02:30 CET"],
        ),
    ],
)  # fmt: skip
def test_times(zone, place, expression, after, expected):
    zone(place)
    moment, found = datetime.fromisoformat(after).timestamp(), []
    for _ in expected:
        moment = schedule._next_after(expression, moment)
        found.append(schedule._local(moment))
    assert found == expected


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "0 fields, not 5"),
        ("daily", "1 field, not 5"),
        ("0 2 * * * *", "6 fields, not 5"),
        ("61 * * * *", "bad minute"),
        ("0 2 * * FUNDAY", "bad day-of-week"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 */0 * *", "bad day-of-month"),
    ],
)
def test_what_is_no_schedule(expression, reason):
    with pytest.raises(ConfigError) as caught:
        schedule._next_after(expression, time.time())
    assert str(caught.value).startswith(f"--schedule {expression!r}: {reason}; expected minute,")
    assert "'0 2 * * *' (every night at 2)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_one():
    for expression in ("0 2 * * *", "*/15 8-18 * * mon-fri", "0 0 29 2 *", "5 4 L * *"):
        schedule._next_after(expression, time.time())


# ---------------------------------------------------------------- runs

# A minute goes by in half a second; the children and the signals are real.
DRIVER = """
import json, signal, sys, time
from mlopsdeploy.batch import schedule
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: sys.exit(99))  # as the command line has handlers of its own
expression, command, jumps = json.loads(sys.argv[1])
schedule.SLICE = 0.05
began = time.monotonic()
def now():
    past = (time.monotonic() - began) * 120
    return 1795228790 + past + sum(jump for when, jump in jumps if past >= when)  # 02:39:50 UTC
say = lambda line: print(line, file=sys.stderr, flush=True)
sys.exit(schedule.run_on_schedule(expression, command, say, retries=3, now=now))
"""


class Driver:
    """A process that follows a schedule."""

    def __init__(self, code, *, expression="* * * * *", jumps=(), command=None):
        command = command or [sys.executable, "-c", code]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps([expression, command, list(jumps)])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TZ": "UTC"},
        )
        self.lines = []

    def until(self, text, times=1):
        """Reads the log up to a line with `text`."""
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            times -= text in line
            if not times:
                return self.lines[-1]
        pytest.fail(f"ended before {text!r}: {self.lines}")

    def end(self, *numbers):
        """Its exit code after these signals, and all that it said."""
        for number in numbers:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        self.lines += err.splitlines()
        return self.process.returncode, out


@pytest.fixture
def follow():
    drivers = []

    def start(*arguments, **options):
        drivers.append(Driver(*arguments, **options))
        return drivers[-1]

    yield start
    for driver in drivers:
        if driver.process.poll() is None:
            driver.process.kill()
        driver.process.wait()
        driver.process.stdout.close()
        driver.process.stderr.close()


def shown(driver, text):
    """The lines with `text`, without their timestamps."""
    return [line[24:] for line in driver.lines if text in line]


def test_it_runs_on_time_and_ends_clean(follow):
    driver = follow("print('scored', flush=True)")
    driver.until("run 2 done")
    code, out = driver.end(signal.SIGTERM)
    assert code == 0
    assert out.splitlines()[:2] == ["scored", "scored"]
    assert driver.lines[0].endswith(
        " UTC schedule '* * * * *' (Every minute), next run 2026-11-21 02:40 UTC"
    )
    assert driver.lines[1].startswith("2026-11-21 02:4")
    assert " UTC run 1 started" in driver.lines[1]
    assert re.match(
        r"run 1 done: exit code 0, \d.*, next run 2026-11-21 02:", shown(driver, "run 1 done")[0]
    )
    assert shown(driver, "stopped") == ["stopped"]


@pytest.mark.parametrize(
    ("code", "command", "message"),
    [
        ("import os, sys; sys.exit(3)", None, "failed: exit code 3, "),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            None,
            "failed: killed by SIGKILL, ",
        ),
        (
            "",
            ["/nowhere/mlopsdeploy", "batch"],
            "failed to start: /nowhere/mlopsdeploy: No such file or directory, next run",
        ),
    ],
)
def test_a_run_that_fails_ends_nothing(follow, code, command, message):
    driver = follow(code, command=command)
    driver.until(f"run 1 {message}")
    driver.until(f"run 2 {message}")
    assert driver.end(signal.SIGTERM)[0] == 0


def test_times_that_come_while_a_run_is_on_are_skipped(follow, tmp_path):
    log = tmp_path / "log"
    driver = follow(
        f"import time; log = open({str(log)!r}, 'a', buffering=1); print('+', file=log)\n"
        "time.sleep(1.3); print('-', file=log)"
    )
    driver.until("run 2 done")
    assert driver.end(signal.SIGTERM)[0] == 0
    assert log.read_text().split()[:4] == ["+", "-", "+", "-"], "one at a time"
    before = driver.lines.index(next(line for line in driver.lines if "run 1 done" in line))
    skipped = [line[24:] for line in driver.lines[:before] if "skipped" in line]
    assert skipped[0].startswith("skipped 2026-11-21 02:4")
    assert " UTC: run 1 is still on, next run 2026-11-21 02:4" in skipped[0]


WORK = """
import signal, sys, time
def commit(number, frame):
    print("committed", flush=True); time.sleep(0.3); sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, commit)
print("working", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_and_the_run_waited_for(follow, number, code):
    driver = follow(WORK)
    driver.until("run 1 started")
    assert driver.process.stdout.readline() == "working\n"
    assert driver.end(number) == (code, "committed\n")
    name = signal.Signals(number).name
    assert shown(driver, "waiting") == [
        f"{name}: waiting for run 1 to end; a second signal kills it"
    ]
    assert shown(driver, "run 1 failed")[0].startswith(f"run 1 failed: exit code {128 + number}, ")
    assert shown(driver, "stopped") == ["stopped"]


def test_hanging_up_is_told_to_the_run_as_an_end(follow):
    driver = follow(WORK)
    driver.until("run 1 started")
    assert driver.process.stdout.readline() == "working\n"
    assert driver.end(signal.SIGHUP) == (129, "committed\n")


def test_a_second_signal_kills_the_run_and_what_it_started(follow):
    driver = follow(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    driver.until("run 1 started")
    grandchild = int(driver.process.stdout.readline())
    driver.process.send_signal(signal.SIGTERM)
    driver.until("waiting for run 1")
    assert driver.end(signal.SIGTERM)[0] == 143
    end = time.monotonic() + 60
    while time.monotonic() < end and running(grandchild):
        time.sleep(0.05)
    assert not running(grandchild)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_runs(follow, number):
    driver = follow("", expression="0 2 1 1 *")
    driver.until("next run 2027-01-01 02:00 UTC")
    assert driver.end(number)[0] == (0 if number == signal.SIGTERM else 130)
    assert shown(driver, "stopped") == ["stopped"]


def test_times_missed_in_sleep_are_made_up_for_once(follow):
    driver = follow("pass", expression="0 * * * *", jumps=[(5, 5 * 3600 + 60)])
    driver.until("run 1 done")
    assert driver.end(signal.SIGTERM)[0] == 0
    (started,) = shown(driver, "started")
    assert started.startswith("run 1 started, 4 h 4")
    assert started.endswith(" late")
    assert "next run 2026-11-21 08:00 UTC" in shown(driver, "run 1 done")[0]


# ---------------------------------------------------------------- the clock


class Clock:
    """A wall clock that goes on by 10 s at each look, but stands still while a run is on.

    Args:
        start, end: ISO 8601; at `end` it sends this process SIGTERM.
        jumps: when it is set, by its own account, and by how many seconds.
    """

    def __init__(self, start, end, jumps=()):
        self.time, self.end = (
            datetime.fromisoformat(moment).timestamp() for moment in (start, end)
        )
        self.jumps = [(datetime.fromisoformat(when).timestamp(), by) for when, by in jumps]
        self.lines, self.is_on, self.told = [], False, []

    def now(self):
        self.time += 0 if self.is_on else 10
        if self.jumps and self.time >= self.jumps[0][0]:
            self.time += self.jumps.pop(0)[1]
        if self.time >= self.end and not self.jumps:
            self.end = float("inf")
            signal.raise_signal(signal.SIGTERM)
        return self.time

    def log(self, line):
        self.lines.append(line)
        self.is_on = " started" in line or (self.is_on and " run " not in line)

    def notify(self, ended, log):
        self.told.append((ended.run, ended.code, ended.tries))

    @property
    def started(self):
        """When each run began: day, hour, minute."""
        return [line[8:16] for line in self.lines if " started" in line]


@pytest.fixture
def follow_clock(zone, monkeypatch):
    """`follow_clock("30 2 * * *", start, end, ...)`: the clock after a schedule was followed."""

    def follow(expression, *times, place="UTC", shell="true", jumps=(), retries=0):
        zone(place)
        monkeypatch.setattr(schedule, "SLICE", 0.0)
        clock, command = Clock(*times, jumps), ["sh", "-c", shell]
        ended = schedule.run_on_schedule(
            expression, command, clock.log, retries=retries, notify=clock.notify, now=clock.now
        )
        assert ended == 0, clock.lines
        return clock

    return follow


@pytest.mark.parametrize(
    ("when", "by", "expected"),
    [
        ("2026-11-21T02:00:30Z", -5, ["21 02:00", "22 02:00", "23 02:00"]),
        ("2026-11-21T02:00:30Z", -90 * 60, ["21 02:00", "22 02:00", "23 02:00"]),
        ("2026-11-21T04:30:00Z", -175 * 60, ["21 02:00", "22 02:00", "23 02:00"]),
        # Over the bound, it was wrong before.
        ("2026-11-21T04:30:00Z", -185 * 60, ["21 02:00", "21 02:00", "22 02:00", "23 02:00"]),
        ("2026-11-21T02:00:30Z", -86400, ["21 02:00", "21 02:00", "22 02:00", "23 02:00"]),
        ("2026-11-21T01:59:00Z", 90, ["21 02:00", "22 02:00", "23 02:00"]),
        ("2026-11-21T03:00:00Z", 86400, ["21 02:00", "22 03:00", "23 02:00"]),
    ],
)
def test_a_clock_that_is_set_makes_no_run_come_twice(follow_clock, when, by, expected):
    """Every night, though the time after is a day away; a time left out is made up for."""
    clock = follow_clock("0 2 * * *", "2026-11-21T01:00Z", "2026-11-23T12:00Z", jumps=[(when, by)])
    assert clock.started == expected
    assert any("the clock was set back" in line for line in clock.lines) == (len(expected) > 3)


def test_runs_wait_for_a_clock_that_was_set_back(follow_clock):
    """Those of an hour that comes again are over."""
    clock = follow_clock(
        "*/30 * * * *", "2026-11-21T01:50Z", "2026-11-21T04:10Z",
        jumps=[("2026-11-21T02:40Z", -90 * 60)],
    )  # fmt: skip
    assert clock.started == ["21 02:00", "21 02:30", "21 03:00", "21 03:30", "21 04:00"]


def test_a_wrong_clock_that_is_put_right_again(follow_clock):
    jumps = [("2026-11-21T03:00Z", 10 * 86400), ("2026-12-01T04:00Z", -10 * 86400)]
    clock = follow_clock("0 2 * * *", "2026-11-21T01:00Z", "2026-11-23T12:00Z", jumps=jumps)
    assert clock.started == ["21 02:00", "01 03:00", "22 02:00", "23 02:00"]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-03-28T00:00Z", "2026-03-30T12:00Z", ["28 02:30", "29 03:00", "30 02:30"]),
        ("2026-10-24T00:00Z", "2026-10-26T12:00Z", ["24 02:30", "25 02:30", "26 02:30"]),
    ],
)
def test_summer_time_neither_skips_nor_doubles_a_night(follow_clock, start, end, expected):
    clock = follow_clock("30 2 * * *", start, end, place="Europe/Berlin")
    assert clock.started == expected


def test_retries_within_the_hour_that_comes_twice(follow_clock):
    clock = follow_clock(
        "30 2 * * *", "2026-10-25T00:00Z", "2026-10-25T12:00Z", place="Europe/Berlin",
        shell="exit 1", retries=5,
    )  # fmt: skip
    assert clock.started[:-1] == [f"25 02:{minute}" for minute in (30, 31, 33, 37, 45)]
    assert clock.started[-1] == "25 02:02"  # in winter time, an hour and some minutes on


def test_a_clock_set_back_within_the_hour_that_comes_twice(follow_clock):
    clock = follow_clock(
        "30 2 * * *", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00", place="Europe/Berlin",
        jumps=[("2026-10-25T02:40+01:00", -75 * 60)],
    )  # fmt: skip
    assert clock.started == ["25 02:30"]


def test_a_schedule_that_begins_at_its_time_waits_for_the_next(follow_clock):
    """So that one started again within the minute runs nothing twice."""
    clock = follow_clock("0 2 * * *", "2026-11-21T01:59:50Z", "2026-11-22T12:00Z")
    assert clock.started == ["22 02:00"]


# ---------------------------------------------------------------- retries

NIGHT = ("2026-11-21T01:50Z", "2026-11-22T02:00:30Z")
DAY = ["21 02:00", "21 02:01", "21 02:03", "21 02:07", "22 02:00"]


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("exit 1", DAY),
        ("exit 137", DAY),
        ("kill -9 $$", DAY),
        ("kill -40 $$", DAY),
        ("exit 2", DAY),  # as where a file is not there yet
        ("test -e tried || { touch tried; exit 1; }", ["21 02:00", "21 02:01", "22 02:00"]),
    ],
)
def test_a_run_that_fails_is_tried_again(follow_clock, tmp_path, monkeypatch, shell, expected):
    monkeypatch.chdir(tmp_path)
    assert follow_clock("0 2 * * *", *NIGHT, shell=shell, retries=3).started == expected


def test_a_run_that_cannot_start_is_tried_again(follow_clock, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    clock = follow_clock("0 2 * * *", *NIGHT, retries=1)
    assert [line[24:] for line in clock.lines if "failed to start: sh: " in line] == [
        "run 1 failed to start: sh: No such file or directory, retry 1 of 1 at 02:01 UTC",
        "run 1 failed to start: sh: No such file or directory, next run 2026-11-22 02:00 UTC",
        "run 2 failed to start: sh: No such file or directory, retry 1 of 1 at 02:01 UTC",
    ]


def test_the_log_says_when(follow_clock):
    clock = follow_clock("0 2 * * *", *NIGHT, shell="exit 7", retries=2)
    said = [re.sub(r"[0-9.]+ s,", "0 s,", line[24:]) for line in clock.lines if " run 1 " in line]
    assert said == [
        "run 1 started",
        "run 1 failed: exit code 7, 0 s, retry 1 of 2 at 02:01 UTC",
        "run 1 started again, retry 1 of 2",
        "run 1 failed: exit code 7, 0 s, retry 2 of 2 at 02:03 UTC",
        "run 1 started again, retry 2 of 2",
        "run 1 failed: exit code 7, 0 s, next run 2026-11-22 02:00 UTC",
    ]


def test_a_retry_never_comes_at_or_after_the_next_time(follow_clock):
    """What is left of the three is left to that, which has three of its own."""
    clock = follow_clock(
        "*/3 * * * *", "2026-11-21T01:59Z", "2026-11-21T02:06:30Z", shell="exit 1", retries=3
    )
    assert clock.started == ["21 02:00", "21 02:01", "21 02:03", "21 02:04", "21 02:06"]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (-5, ["21 02:00", "21 02:01", "22 02:00", "22 02:01"]),
        (-90 * 60, ["21 02:00", "21 02:01", "22 02:00", "22 02:01"]),
        (-86400, ["21 02:00", "20 02:00", "21 02:00", "21 02:01", "22 02:00", "22 02:01"]),
        (60 * 60, ["21 02:00", "21 03:00", "22 02:00", "22 02:01"]),
        (86400, ["21 02:00", "22 02:00", "22 02:01"]),  # the run of that time, not a retry
    ],
)
def test_the_clock_is_set_before_a_retry(follow_clock, by, expected):
    clock = follow_clock(
        "0 2 * * *", NIGHT[0], "2026-11-22T03:00Z", shell="exit 1", retries=1,
        jumps=[("2026-11-21T02:00:30Z", by)],
    )  # fmt: skip
    assert clock.started == expected


def test_a_signal_before_a_retry_ends_at_once(follow):
    driver = follow("import sys; sys.exit(1)", expression="40 2 * * *")
    driver.until("retry 1 of 3")
    assert driver.end(signal.SIGTERM)[0] == 0
    assert shown(driver, "run 1 started") == ["run 1 started"]
    assert shown(driver, "stopped") == ["stopped"]


# ---------------------------------------------------------------- told


@pytest.mark.parametrize(
    ("shell", "retries", "expected"),
    [
        ("true", 3, [(1, 0, 1), (2, 0, 1)]),
        ("exit 1", 3, [(1, 1, 4), (2, 1, 1)]),  # the last as it ends before its retry
        ("exit 1", 0, [(1, 1, 1), (2, 1, 1)]),
        ("kill -9 $$", 0, [(1, 137, 1), (2, 137, 1)]),
        ("exit 2", 3, [(1, 2, 4), (2, 2, 1)]),
        ("test -e tried || { touch tried; exit 1; }", 3, [(1, 0, 2), (2, 0, 1)]),
    ],
)
def test_the_end_of_each_run_is_told_once(
    follow_clock, tmp_path, monkeypatch, shell, retries, expected
):
    monkeypatch.chdir(tmp_path)
    assert follow_clock("0 2 * * *", *NIGHT, shell=shell, retries=retries).told == expected


def test_a_failure_is_told_when_the_machine_slept_through_its_retry(follow_clock):
    clock = follow_clock(
        "0 2 * * *", *NIGHT, shell="test -e /nowhere", retries=3,
        jumps=[("2026-11-21T02:00:30Z", 86400 - 15)],
    )  # fmt: skip
    assert clock.told == [(1, 1, 1), (2, 1, 1)]


def test_a_run_that_was_ended_here_is_not_told(monkeypatch):
    told = []

    def log(line):
        if " started" in line:
            signal.raise_signal(signal.SIGTERM)

    ended = schedule.run_on_schedule(
        "* * * * *", ["sleep", "60"], log, notify=lambda *how: told.append(how),
        now=iter(range(1795228790, 1795328790, 30)).__next__,
    )  # fmt: skip
    assert (ended, told) == (0, [])
