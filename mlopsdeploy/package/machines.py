"""Files for machines: units of systemd, a crontab, a DAG for Airflow; no Docker, no cluster."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import PurePosixPath

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.package.kubernetes import shortest_gap
from mlopsdeploy.package.plan import Plan, render

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_MONTHS = ("", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
UNITS = "/etc/systemd/system"


def systemd(plan: Plan) -> dict[str, str]:
    """The unit, for a batch its timer, and the script that installs them.

    The unit is locked in as far as the strategy lets it be.
    """
    service = f"{plan.name}.service"
    files = {service: unit(plan)}
    installed = [(service, f"{UNITS}/{service}", 644)]
    started = service
    if plan.strategy == "batch":
        started = f"{plan.name}.timer"
        files[started] = render("unit.timer.j2", plan, calendar=on_calendar(plan.schedule))
        installed.append((started, f"{UNITS}/{started}", 644))
    files["install.sh"] = install_script(
        plan,
        installed,
        [
            "systemctl daemon-reload",
            f"systemctl enable '{started}'",
            f"systemctl restart '{started}'",
        ],
        static_user=plan.strategy == "batch",
    )
    return files


def cron(plan: Plan) -> dict[str, str]:
    """The crontab, the script that keeps a log, and the one that installs both."""
    crontab = f"{plan.name}.cron"
    installed = [
        ("run.sh", f"{plan.home}/run.sh", 755),
        (crontab, f"/etc/cron.d/{plan.name}", 644),
    ]
    return {
        crontab: render("crontab.j2", plan),
        "run.sh": render("run_batch.sh.j2", plan),
        "install.sh": install_script(plan, installed, [], static_user=True),
    }


def airflow(plan: Plan) -> dict[str, str]:
    """The DAG, for Airflow 3, and the script that installs what it runs on each worker."""
    return {
        f"dags/{plan.name.replace('-', '_')}.py": render(
            "dag.py.j2",
            plan,
            gap=shortest_gap(plan.schedule),
        ),
        "install.sh": install_script(
            plan,
            [],
            [f"install -d -o \"${{AIRFLOW_USER:-airflow}}\" '/var/lib/{plan.name}'"],
            static_user=False,
        ),
    }


def install_script(
    plan: Plan, installed: list[tuple[str, str, int]], after: list[str], *, static_user: bool
) -> str:
    """`install.sh`: the environment, the models, the YAML, then files of the target's own.

    Args:
        plan: of the package.
        installed: file, place and mode of the target's own.
        after: lines that end the script.
        static_user: whether a user is made, who then can be given rights to data.
    """
    return render(
        "install.sh.j2",
        plan,
        installed=installed,
        after=after,
        static_user=static_user,
        lock_digest=sha256(plan.lock.text().encode()).hexdigest()[:12],
    )


def unit(plan: Plan) -> str:
    """The service."""
    local = [path for path in _paths(plan) if path.startswith("/")]
    outputs = [str(PurePosixPath(path).parent) for path in _written(plan) if path.startswith("/")]
    network = any("://" in path for path in _paths(plan))
    families = ["AF_UNIX", "AF_INET", "AF_INET6"]
    if plan.strategy == "batch" and not network:
        families = ["AF_UNIX"]
    return render(
        "unit.service.j2",
        plan,
        network=network,
        reads_home=any(path.startswith(("/home/", "/root/")) for path in local),
        writable=sorted(set(outputs)),
        families=" ".join(families),
    )


def _paths(plan: Plan) -> list[str]:
    """All that the settings name."""
    return [str(plan.settings.get(key) or "") for key in ("input", "camera", "lines")] + _written(
        plan
    )


def _written(plan: Plan) -> list[str]:
    keys = ("output", "report", "events", "snapshots", "save")
    return [str(plan.settings[key]) for key in keys if plan.settings.get(key)]


# ---------------------------------------------------------------- cron's rhythm


def on_calendar(schedule: str) -> list[str]:
    """Cron's expression as `OnCalendar=` of systemd.time(7).

    Where cron has a day of the month or a day of the week, either being enough, systemd has two
    lines.

    Raises:
        ConfigError: systemd has no word for it.
    """
    try:
        return list(_on_calendar(schedule))
    except ValueError as error:
        raise ConfigError(f"schedule {schedule!r}: systemd has no word for it ({error})") from error


def _on_calendar(schedule: str) -> Iterator[str]:
    minute, hour, day, month, weekday = schedule.split()
    time = f"{_field(hour, 0)}:{_field(minute, 0)}:00"
    months = _field(month, 1, _MONTHS)
    date = f"*-{months}-{_field(day, 1)}"
    if weekday == "*":
        yield f"{date} {time}"
    elif day.startswith("*") or weekday.startswith("*"):  # both are asked for
        yield f"{_weekdays(weekday)} {date} {time}"
    else:
        yield f"{date} {time}"
        yield f"{_weekdays(weekday)} *-{months}-* {time}"


def _field(text: str, first: int, names: tuple[str, ...] = ()) -> str:
    """`*/15` is `0/15` or `1/15`, `1-5` is `1..5`, `JAN` is 1."""

    def one(part: str) -> str:
        values, _, step = part.partition("/")
        if values == "*":
            return f"{first}/{step}" if step else "*"
        ends = [names.index(end.upper()) if end.upper() in names else int(end)
                for end in values.split("-")]  # fmt: skip
        spread = "..".join(map(str, ends))
        return f"{spread}/{step}" if step else spread

    return ",".join(one(part) for part in text.split(","))


def _weekdays(text: str) -> str:
    """`1-5` is `Mon,Tue,Wed,Thu,Fri`; Sunday is 0 and 7."""
    return ",".join(_DAYS[number] for number in sorted(set(_numbers(text))))


def _numbers(text: str) -> Iterator[int]:
    names = [day.upper() for day in _DAYS]
    for part in text.split(","):
        values, _, step = part.partition("/")
        ends = ["0", "6"] if values == "*" else values.split("-")
        first, last = (
            names.index(end.upper()) if end.upper() in names else int(end)
            for end in (ends[0], ends[-1])
        )
        for number in range(first, last + 1, int(step or 1)):
            yield number % 7
