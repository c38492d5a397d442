"""Cron's rhythm in systemd's words: both are asked for the next times."""

import re
import shutil
from datetime import UTC, datetime
from itertools import islice

import pytest
from cronsim import CronSim

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.package.machines import on_calendar

from .container import ran

START = "2026-03-01 00:00:30"
SCHEDULES = [
    "0 2 * * *", "*/15 * * * *", "30 6 * * MON-FRI", "0 0 1 * *", "5 4 * * 7", "0 12 * * 0,3",
    "0 8-18/2 * * 1-5", "15,45 * * * *", "0 3 1,15 * *", "0 3 13 * FRI", "10 1 */10 * *",
    "0 5 * JAN-MAR,DEC *", "0 5 * */3 *", "7 */6 * * *", "0 0 * * FRI,SAT,SUN", "0 4 */2 * MON",
    "0 3 13 * 0-6",
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_both_name_the_same_times(schedule):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    count = 12
    times = set()
    for moment in on_calendar(schedule):
        options = [f"--iterations={count}", f"--base-time={START}"]
        done = ran(
            ["systemd-analyze", "calendar", *options, moment],
            env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
        )
        times |= set(re.findall(r"\d{4}-\d\d-\d\d [\d:]{8}", done.stdout))
    start = datetime.fromisoformat(START).replace(tzinfo=UTC)
    expected = [f"{time:%Y-%m-%d %H:%M:%S}" for time in islice(CronSim(schedule, start), count)]
    assert sorted(times)[:count] == expected


def test_what_systemd_can_not_say_is_said():
    with pytest.raises(ConfigError, match="no word for it"):
        on_calendar("0 2 L * *")
