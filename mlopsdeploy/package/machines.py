"""Files for machines: units of systemd, a crontab, a DAG for Airflow; no Docker, no cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

from cronsim import CronSim

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.package.kubernetes import shortest_gap
from mlopsdeploy.package.plan import OUTPUTS, Plan, render

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
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
            *_made(plan),
            "systemctl daemon-reload",
            f"systemctl enable '{started}'",
            f"systemctl restart '{started}'",
        ],
        static_user=plan.static_user,
    )
    return files


def _made(plan: Plan) -> list[str]:
    """Folders that an edge writes to: made where they are missing, and its own then."""
    user = plan.name
    folders = plan.output_folders if plan.strategy == "edge" else []
    return [
        f"[ -d '{folder}' ] || install -d -m 755 -o '{user}' -g '{user}' '{folder}'"
        for folder in folders
    ]


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
            "dag.py.j2", plan, gap=shortest_gap(plan.schedule)
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
    network = any("://" in path for path in _paths(plan))
    families = ["AF_UNIX", "AF_INET", "AF_INET6"]
    if plan.strategy == "batch" and not network:
        families = ["AF_UNIX"]
    return render(
        "unit.service.j2",
        plan,
        network=network,
        reads_home=any(path.startswith(("/home/", "/root/")) for path in local),
        writable=plan.output_folders,
        families=" ".join(families),
    )


def _paths(plan: Plan) -> list[str]:
    """All that the settings name."""
    return [str(plan.settings.get(key) or "") for key in ("input", "camera", "lines")] + _written(
        plan
    )


def _written(plan: Plan) -> list[str]:
    return [str(plan.settings[key]) for key in OUTPUTS if plan.settings.get(key)]


# ---------------------------------------------------------------- cron's rhythm


def on_calendar(schedule: str) -> list[str]:
    """Cron's expression as `OnCalendar=` of systemd.time(7).

    Where cron has a day of the month or a day of the week, either being enough, systemd has two
    lines.

    Raises:
        ConfigError: systemd has no word for it.
    """
    cron = CronSim(schedule, datetime.now(UTC))
    weekdays = {day % 7 for day in cron.weekdays if isinstance(day, int)}
    if min(cron.days) < 1 or any(isinstance(day, tuple) for day in cron.weekdays):
        raise ConfigError(f"schedule {schedule!r}: systemd has no word for it, as for all L and #")
    time = f"{_listed(cron.hours, 24)}:{_listed(cron.minutes, 60)}:{_listed(cron.seconds, 60)}"
    months = _listed(cron.months, 12)
    names = ",".join(_DAYS[day] for day in sorted(weekdays))
    date = f"*-{months}-{_listed(cron.days, 31)} {time}"
    if cron.day_and:  # both are asked for
        return [date if len(weekdays) == 7 else f"{names} {date}"]
    return [date, f"{names} *-{months}-* {time}"]


def _listed(values: set[int], size: int) -> str:
    return "*" if len(values) == size else ",".join(f"{one:02}" for one in sorted(values))
